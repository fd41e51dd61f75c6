//! Long histories are judged in time near their length, and a needle in them is found.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::{Duration, Instant};

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

#[test]
fn a_hundred_thousand_operations_take_seconds() {
    for (clients, keys) in [(16, 1), (16, 20), (64, 5)] {
        let mut history = history(100_000, clients, keys);
        let started = Instant::now();
        let verdict = linearizable(&history, Limits::default());
        assert!(verdict.holds(), "{clients} clients, {keys} keys: {verdict}");
        let stale = history.iter().position(|r| matches!(&r.operation, Operation::Put { .. }));
        let Operation::Put { key, value } = history[stale.unwrap()].operation.clone() else {
            panic!("just found as a put")
        };
        let late = history.iter().map(|record| record.ret).max().unwrap() + 1;
        history.push(Record {
            client: 99,
            call: late,
            ret: late + 1,
            ending: Ending::Done,
            operation: Operation::Get { key, result: Some(value) },
        });
        let verdict = linearizable(&history, Limits::default());
        let violation = verdict.violation().expect("the oldest value read at the end");
        assert!(violation.operations.len() <= 4, "{verdict}");
        let took = started.elapsed();
        assert!(took < Duration::from_secs(20), "{clients} clients, {keys} keys: {took:?}");
    }
}
