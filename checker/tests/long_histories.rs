//! Long histories are judged in time near their length, and a needle in them is found.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use kvorum_checker::{Ending, History, Limits, Operation, Record, linearizable};

/// Clients that put and get unique values at random times on a real register each, so that the
/// history is linearizable however it overlaps; every so often an outcome is not learned.
fn history(operations: u64, clients: u64, keys: u64) -> History {
    let mut random = 1u64;
    let mut next = move |bound: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % bound
    };
    let mut registers = vec![None; usize::try_from(keys).unwrap()];
    let mut records = History::new();
    // Every client's operation takes effect at its own moment of each round.
    for round in 0..operations / clients {
        let mut order: Vec<u64> = (0..clients).collect();
        for i in (1..clients).rev() {
            order.swap(usize::try_from(i).unwrap(), usize::try_from(next(i + 1)).unwrap());
        }
        for (moment, client) in (0..).zip(order) {
            let number = next(keys);
            let register = &mut registers[usize::try_from(number).unwrap()];
            let key = format!("k{number}");
            let effect = (round * clients + moment) * 100;
            let (call, ret) = (effect - next(effect.min(700) + 1), effect + 1 + next(700));
            let mut ending = Ending::Done;
            let operation = match next(10) {
                0 => {
                    *register = None;
                    Operation::Delete { key }
                }
                1..=4 => {
                    let value = format!("{client}.{round}");
                    if next(50) == 0 {
                        ending = Ending::Unknown;
                    }
                    if ending == Ending::Done || next(2) == 0 {
                        *register = Some(value.clone());
                    }
                    Operation::Put { key, value }
                }
                _ => Operation::Get { key, result: register.clone() },
            };
            records.push(Record { client, call, ret, ending, operation });
        }
    }
    records
}

/// Measured in what a judge keeps in memory, which bounds what it does: a clock would measure the
/// machine.
#[test]
fn a_hundred_thousand_operations_take_about_as_many_configurations() {
    const OPERATIONS: u64 = 100_000;
    let limits = Limits { configurations_max: 2 * OPERATIONS as usize };
    for (clients, keys) in [(16, 1), (16, 20), (64, 1), (64, 5), (64, 1000)] {
        let mut history = history(OPERATIONS, clients, keys);
        let verdict = linearizable(&history, limits);
        assert!(verdict.holds(), "{clients} clients, {keys} keys: {verdict}");
        let middle = falsify(&mut history);
        let verdict = linearizable(&history, limits);
        let violation = verdict.violation().expect("an old value read in the middle");
        assert!(violation.operations.len() <= 5, "{verdict}");
        assert_eq!(violation.blamed.len(), 1, "{verdict}");
        assert!(violation.operations.contains(&history[middle]), "{verdict}");
    }
}

/// Makes one read in the middle find what its key was first put to.
fn falsify(history: &mut History) -> usize {
    let middle = history.len() / 2;
    for place in middle..history.len() {
        let Operation::Get { key, .. } = history[place].operation.clone() else { continue };
        let overwritten = |record: &&Record| {
            record.ending == Ending::Done
                && matches!(&record.operation, Operation::Put { key: k, .. } if *k == key)
        };
        let mut puts = history[..middle - 1000].iter().filter(overwritten);
        let Some(Operation::Put { value, .. }) = puts.next().map(|put| put.operation.clone())
        else {
            continue;
        };
        // That somebody overwrote it is only certain if there was time for it.
        if puts.filter(|put| put.call > 10_000).count() > 3 {
            history[place].operation = Operation::Get { key, result: Some(value) };
            return place;
        }
    }
    panic!("no read behind the middle has a key that was put before")
}
