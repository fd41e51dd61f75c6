//! Few keys in groups; a transaction or a scan stays within one group, so that a judge can search
//! for an order of each group by itself.

use std::collections::BTreeMap;

use kvorum_checker::{Ending, Operation, Precondition, Record};
use kvorum_replication::random::Random;

use super::{At, anywhere, one};

/// Keys that transactions join.
const GROUP_KEYS: u32 = 4;

/// What keys that are written once and kept begin with.
const KEPT: &str = "kept/";

/// Operations out of a hundred, summed up.
const PUT: u64 = 12;
const DELETE: u64 = PUT + 5;
const COMPARE_AND_SET: u64 = DELETE + 14;
const TRANSACT: u64 = COMPARE_AND_SET + 14;
const KEEP: u64 = TRANSACT + 12;
const SCAN: u64 = KEEP + 10;
const ALL: u64 = SCAN + 33;

/// All keys that clients share.
pub(super) fn keys(count: u32) -> Vec<String> {
    (0..count).map(|number| format!("{}-{}", group_name(number), number % GROUP_KEYS)).collect()
}

/// Whether a key is written once, by one client, and kept.
pub(in crate::lab) fn is_kept(key: &str) -> bool {
    key.starts_with(KEPT)
}

fn group_name(number: u32) -> String {
    format!("group-{}", number / GROUP_KEYS)
}

/// What one client asks.
#[derive(Debug)]
pub(in crate::lab) struct Register {
    client: u64,
    /// The keys of each group.
    groups: Vec<Vec<String>>,
    /// The last value that this client saw of a key; has at most as many entries as there are keys.
    seen: BTreeMap<String, Option<String>>,
    made: u64,
}

impl Register {
    pub(super) fn new(client: u64, count: u32) -> Self {
        let keys = keys(count);
        let groups = keys.chunks(GROUP_KEYS as usize).map(<[String]>::to_vec).collect();
        Self { client, groups, seen: BTreeMap::new(), made: 0 }
    }

    pub(super) fn next(&mut self, random: &mut Random) -> (At, Operation) {
        let group = one(&self.groups, random).clone();
        let key = one(&group, random).clone();
        let ticket = random.below(ALL);
        let write = |operation| (At::Entrance, operation);
        if ticket < PUT {
            write(Operation::Put { key, value: self.value() })
        } else if ticket < DELETE {
            write(Operation::Delete { key })
        } else if ticket < COMPARE_AND_SET {
            let expected = self.seen.get(&key).cloned().flatten();
            write(Operation::CompareAndSet { key, expected, value: self.value() })
        } else if ticket < TRANSACT {
            write(self.transaction(&group, random))
        } else if ticket < KEEP {
            let key = format!("{KEPT}{}/{}", self.client, self.made);
            write(Operation::Put { key, value: self.value() })
        } else if ticket < SCAN {
            let name = key.rsplit_once('-').map_or(&key[..], |(name, _)| name);
            // '.' follows '-'.
            let (start, end) = (format!("{name}-"), Some(format!("{name}.")));
            (anywhere(random), Operation::Scan { start, end, rows: Vec::new(), more: false })
        } else {
            (anywhere(random), Operation::Get { key, result: None })
        }
    }

    /// Two or three keys of a group change at once, if some of them are as this client saw them.
    fn transaction(&mut self, group: &[String], random: &mut Random) -> Operation {
        let mut keys = group.to_vec();
        let wanted = 2 + usize::from(random.below(3) == 0);
        while keys.len() > wanted {
            let gone = random.below(keys.len() as u64);
            keys.swap_remove(usize::try_from(gone).expect("it is below a length"));
        }
        let mut preconditions = Vec::new();
        for key in &keys {
            match (random.below(4), self.seen.get(key)) {
                (0, Some(Some(value))) => {
                    preconditions.push(Precondition::Equals(key.clone(), value.clone()));
                }
                (0, Some(None)) => preconditions.push(Precondition::Absent(key.clone())),
                (1, Some(Some(_))) => preconditions.push(Precondition::Present(key.clone())),
                _ => {}
            }
        }
        let writes = keys.into_iter().map(|key| {
            let value = (random.below(6) > 0).then(|| self.value());
            (key, value)
        });
        Operation::Transact { writes: writes.collect(), preconditions }
    }

    fn value(&mut self) -> String {
        self.made += 1;
        format!("{}.{}", self.client, self.made)
    }

    pub(super) fn learn(&mut self, record: &Record) {
        if record.ending != Ending::Done {
            return;
        }
        match &record.operation {
            Operation::Get { key, result } => self.saw(key, result.clone()),
            Operation::Put { key, value } | Operation::CompareAndSet { key, value, .. } => {
                self.saw(key, Some(value.clone()));
            }
            Operation::Delete { key } => self.saw(key, None),
            Operation::Scan { rows, .. } => {
                for (key, value) in rows {
                    self.saw(key, Some(value.clone()));
                }
            }
            Operation::Transact { writes, .. } => {
                for (key, value) in writes {
                    self.saw(key, value.clone());
                }
            }
            Operation::GetMany { keys, results } => {
                for (key, result) in keys.iter().zip(results) {
                    self.saw(key, result.clone());
                }
            }
            Operation::MicroOperations(_) => {}
        }
    }

    fn saw(&mut self, key: &str, value: Option<String>) {
        if !is_kept(key) {
            self.seen.insert(key.to_owned(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_sort_is_asked_and_no_value_twice() {
        let (mut random, mut sorts) = (Random::new(7), BTreeSet::new());
        let mut values = BTreeSet::new();
        for client in 0..3 {
            let mut register = Register::new(client, 10);
            for _ in 0..500 {
                let (at, operation) = register.next(&mut random);
                let (sort, written) = match &operation {
                    Operation::Get { .. } => ("get", vec![]),
                    Operation::GetMany { .. } => ("mget", vec![]),
                    Operation::MicroOperations(_) => ("micro", vec![]),
                    Operation::Scan { .. } => ("scan", vec![]),
                    Operation::Put { key, value } if is_kept(key) => ("keep", vec![value]),
                    Operation::Put { value, .. } => ("put", vec![value]),
                    Operation::Delete { .. } => ("del", vec![]),
                    Operation::CompareAndSet { value, .. } => ("cas", vec![value]),
                    Operation::Transact { writes, .. } => {
                        assert!(writes.len() > 1, "{operation}");
                        let groups: BTreeSet<_> =
                            writes.iter().map(|(key, _)| key.rsplit_once('-').unwrap().0).collect();
                        assert_eq!(groups.len(), 1, "{operation}");
                        ("txn", writes.iter().filter_map(|(_, value)| value.as_ref()).collect())
                    }
                };
                sorts.insert(sort);
                let is_read = matches!(sort, "get" | "scan");
                assert!(is_read || at == At::Entrance, "{operation}");
                for value in written {
                    assert!(values.insert(value.clone()), "{value} is written twice");
                }
                let (call, ret, ending) = (1, 2, Ending::Done);
                register.learn(&Record { client, call, ret, ending, operation });
            }
        }
        let all = ["put", "del", "cas", "txn", "keep", "scan", "get"];
        assert_eq!(sorts, all.into_iter().collect());
    }

    #[test]
    fn a_scan_covers_its_group_and_no_other() {
        let mut register = Register::new(1, 50);
        let mut random = Random::new(3);
        let scan = std::iter::repeat_with(|| register.next(&mut random).1)
            .find_map(|operation| match operation {
                Operation::Scan { start, end, .. } => Some((start, end.unwrap())),
                _ => None,
            })
            .unwrap();
        let covered: Vec<_> =
            keys(50).into_iter().filter(|key| *key >= scan.0 && *key < scan.1).collect();
        assert!((2..=4).contains(&covered.len()), "{scan:?}: {covered:?}");
    }
}
