//! The search against the definition: thousands of tiny random histories, each also judged by
//! trying every order of every choice of the unknown operations.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;

use kvorum_checker::{
    Ending, History, Limits, Operation, Precondition, Record, Rule, Violation, serializable,
};

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }
}

const KEYS: [&str; 2] = ["x", "y"];

/// One key, and little else than what makes it hard to say who wrote what: deletes, compare-and-sets,
/// failed preconditions, unknown outcomes.
fn random_register(random: &mut Random) -> History {
    let operations = 3 + random.below(5);
    let values: &[&str] = if random.below(2) == 0 { &["1", "2"] } else { &["1", "2", "3", "4"] };
    let length = 4 + random.below(12);
    (0..operations)
        .map(|client| {
            let key = "x".to_owned();
            let value = random.pick(values).to_owned();
            let found = (random.below(2) == 0).then(|| random.pick(values).to_owned());
            let operation = match random.below(6) {
                0 | 1 => Operation::Get { key, result: found },
                2 => Operation::Delete { key },
                3 => Operation::Put { key, value },
                _ => Operation::CompareAndSet { key, expected: found, value },
            };
            let ending = match (&operation, random.below(5)) {
                (Operation::Get { .. }, _) => Ending::Done,
                (_, 0 | 1) => Ending::Unknown,
                (Operation::CompareAndSet { .. }, 2) => Ending::PreconditionFailed(0),
                _ => Ending::Done,
            };
            let call = random.below(length);
            Record { client, call, ret: call + random.below(8), ending, operation }
        })
        .collect()
}

/// A history that a store might have produced, or nearly.
fn random_history(random: &mut Random) -> History {
    let operations = 2 + random.below(5);
    // Few values make ambiguity, many make the value tell who wrote it.
    let unknown = [1, 2, 5][usize::try_from(random.below(3)).unwrap()];
    let values: &[&str] =
        if random.below(2) == 0 { &["1", "2"] } else { &["1", "2", "3", "4", "5"] };
    (0..operations)
        .map(|client| {
            let call = random.below(12);
            let operation = random_operation(random, values);
            let writes = !matches!(operation, Operation::Get { .. } | Operation::GetMany { .. });
            let ending = match random.below(8) {
                share if writes && share < unknown => Ending::Unknown,
                5 if conditions(&operation).len() == 1 => Ending::PreconditionFailed(0),
                6 => Ending::NotDone,
                _ => Ending::Done,
            };
            Record { client, call, ret: call + random.below(8), ending, operation }
        })
        .collect()
}

fn random_operation(random: &mut Random, values: &[&str]) -> Operation {
    let key = random.pick(&KEYS).to_owned();
    let value = random.pick(values).to_owned();
    let found = |random: &mut Random| (random.below(3) > 0).then(|| random.pick(values).to_owned());
    match random.below(8) {
        0 | 1 => Operation::Get { key, result: found(random) },
        2 => Operation::GetMany {
            keys: KEYS.map(str::to_owned).to_vec(),
            results: vec![found(random), found(random)],
        },
        3 => Operation::Put { key, value },
        4 => Operation::Delete { key },
        5 => Operation::CompareAndSet { key, expected: found(random), value },
        6 => Operation::Transact {
            preconditions: Vec::new(),
            writes: vec![("x".to_owned(), Some(value)), ("y".to_owned(), found(random))],
        },
        _ => Operation::Transact {
            preconditions: vec![match random.below(3) {
                0 => Precondition::Absent(key),
                1 => Precondition::Present(key),
                _ => Precondition::Equals(key, value),
            }],
            writes: vec![(random.pick(&KEYS).to_owned(), found(random))],
        },
    }
}

/// A key, what it must be (`None`: any value), and whether that must hold or must not.
type Finding = (String, Option<Option<String>>, bool);

fn conditions(operation: &Operation) -> Vec<Finding> {
    match operation {
        Operation::Get { key, result } => vec![(key.clone(), Some(result.clone()), true)],
        Operation::GetMany { keys, results } => keys
            .iter()
            .zip(results)
            .map(|(key, result)| (key.clone(), Some(result.clone()), true))
            .collect(),
        Operation::CompareAndSet { key, expected, .. } => {
            vec![(key.clone(), Some(expected.clone()), true)]
        }
        Operation::Transact { preconditions, .. } => preconditions
            .iter()
            .map(|precondition| match precondition {
                Precondition::Absent(key) => (key.clone(), Some(None), true),
                Precondition::Present(key) => (key.clone(), Some(None), false),
                Precondition::Equals(key, value) => (key.clone(), Some(Some(value.clone())), true),
            })
            .collect(),
        Operation::Scan { .. }
        | Operation::Put { .. }
        | Operation::Delete { .. }
        | Operation::MicroOperations(_) => Vec::new(),
    }
}

type Store = BTreeMap<String, String>;

/// The store after the operation, if it can take place in this store with this ending.
fn after(store: &Store, record: &Record) -> Option<Store> {
    let failed = matches!(record.ending, Ending::PreconditionFailed(_));
    let all = conditions(&record.operation)
        .into_iter()
        .all(|(key, wanted, must)| (Some(store.get(&key).cloned()) == wanted) == must);
    if all == failed {
        return None;
    }
    let mut store = store.clone();
    let mut set = |key: &String, value: Option<&String>| match value {
        Some(value) => store.insert(key.clone(), value.clone()),
        None => store.remove(key),
    };
    if !failed {
        match &record.operation {
            Operation::Put { key, value } | Operation::CompareAndSet { key, value, .. } => {
                set(key, Some(value));
            }
            Operation::Delete { key } => {
                set(key, None);
            }
            Operation::Transact { writes, .. } => {
                for (key, value) in writes {
                    set(key, value.as_ref());
                }
            }
            Operation::Get { .. }
            | Operation::GetMany { .. }
            | Operation::Scan { .. }
            | Operation::MicroOperations(_) => {}
        }
    }
    Some(store)
}

/// Tries every order: any operation not yet taken may be next unless another one that is left had
/// returned before it was called; unknown ones may stay out.
fn explainable(left: &[&Record], store: &Store) -> bool {
    if left.iter().all(|record| record.ending == Ending::Unknown) {
        return true;
    }
    (0..left.len()).any(|next| {
        let record = left[next];
        let late =
            left.iter().any(|other| other.ending != Ending::Unknown && other.ret < record.call);
        let rest: Vec<&Record> =
            left.iter().enumerate().filter(|(i, _)| *i != next).map(|(_, r)| *r).collect();
        !late && after(store, record).is_some_and(|store| explainable(&rest, &store))
    })
}

#[test]
fn the_search_agrees_with_trying_everything() {
    let mut random = Random(7);
    let (mut good, mut bad) = (0, 0);
    for round in 0..100_000 {
        let history = match round % 5 {
            0 | 1 => random_register(&mut random),
            _ => random_history(&mut random),
        };
        let relevant: Vec<&Record> =
            history.iter().filter(|record| record.ending != Ending::NotDone).collect();
        let expected = explainable(&relevant, &Store::new());
        let verdict = serializable(&history, Limits::default());
        let shown: Vec<String> = history.iter().map(Record::to_string).collect();
        let shown = shown.join("\n");
        assert_eq!(verdict.holds(), expected, "round {round}:\n{shown}\n\n{verdict}");
        *(if expected { &mut good } else { &mut bad }) += 1;
        if let Some(violation) = verdict.violation() {
            let evidence: Vec<&Record> =
                violation.operations.iter().filter(|r| r.ending != Ending::NotDone).collect();
            assert!(!explainable(&evidence, &Store::new()), "round {round}:\n{shown}\n\n{verdict}");
            // It shows what the whole shows: who is blamed is not to blame because those were left
            // out who wrote what it found.
            let again = serializable(&violation.operations, Limits::default());
            let again = again.violation().expect("it was just found not explainable");
            let blamed = |violation: &Violation| {
                let first = violation.blamed.first();
                first.map(|place| violation.operations[*place].clone())
            };
            let judged = |key: &&&str| violation.words.contains(&format!("key {key}:"));
            let fabricated = match KEYS.iter().find(judged) {
                Some(key) => {
                    let says = |how| again.words.contains(&format!(" {how} {key}="));
                    again.rule == Rule::Fabricated
                        && (says("read") || says("found"))
                        && blamed(again) == blamed(violation)
                }
                None => again.rule == Rule::Fabricated,
            };
            let whole = violation.rule == Rule::Fabricated;
            assert_eq!(fabricated, whole, "round {round}:\n{shown}\n\n{verdict}\n\n{again}");
        }
    }
    assert!(good > 5_000 && bad > 5_000, "{good} good and {bad} bad ones");
}
