//! What one worker of a load asks, operation by operation.

use std::collections::BTreeMap;

use bytes::Bytes;
use kvorum_replication::random::Random;
use kvorum_replication::{Precondition, Transaction, Write};

use super::mix::Sort;
use super::{Keys, LoadOptions, Mix};

/// The signs of keys and values: they stay as they are in a terminal, a file name and JSON.
const SIGNS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A key shows its number in at most so many signs, 60 bits; the rest is [`PREFIX`].
const NUMBER_SIGNS_MAX: usize = 10;

/// What keys longer than their number begin with, repeated as needed.
const PREFIX: &[u8] = b"bench-";

/// Values are cut out of so many random bytes: making each anew would be most of the load's work.
const POOL_BYTES: usize = 64 << 10;

/// Something to ask of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Operation {
    pub(super) key: Bytes,
    pub(super) action: Action,
}

/// What to do with the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Put(Bytes),
    Get,
    Delete,
    /// Put the value if the key has the expected one, or is not there.
    CompareAndSet {
        expected: Option<Bytes>,
        value: Bytes,
    },
}

impl Operation {
    pub(super) fn sort(&self) -> Sort {
        match self.action {
            Action::Put(_) => Sort::Put,
            Action::Get => Sort::Get,
            Action::Delete => Sort::Delete,
            Action::CompareAndSet { .. } => Sort::CompareAndSet,
        }
    }

    /// A compare-and-set as the transaction that it is.
    pub(super) fn transaction(&self, expected: Option<&Bytes>, value: &Bytes) -> Transaction {
        let key = self.key.clone();
        let precondition = match expected {
            Some(expected) => Precondition::Equals(key.clone(), expected.clone()),
            None => Precondition::Absent(key.clone()),
        };
        let writes = vec![Write::Put(key, value.clone())];
        Transaction { preconditions: vec![precondition], writes }
    }
}

/// Makes up operations. No two values of a load are equal if they are long enough.
#[derive(Debug)]
pub(super) struct Workload {
    mix: Mix,
    keys: Keys,
    key_bytes: usize,
    value_bytes: usize,
    /// Which worker of how many.
    worker: u64,
    workers: u64,
    /// Where the numbers of unique keys begin, so that another load has others.
    key_offset: u64,
    made: u64,
    random: Random,
    pool: Vec<u8>,
    /// The last value this worker saw of a key, for compare-and-set; has at most as many entries
    /// as the load has keys, and is only kept if keys come again.
    seen: BTreeMap<Bytes, Option<Bytes>>,
}

impl Workload {
    pub(super) fn new(options: &LoadOptions, worker: u32, mut random: Random) -> Self {
        let pool_bytes = POOL_BYTES + options.value_bytes;
        let pool = (0..pool_bytes).map(|_| sign(random.next_u64())).collect();
        Self {
            mix: options.mix,
            keys: options.keys,
            key_bytes: options.key_bytes,
            value_bytes: options.value_bytes,
            worker: u64::from(worker),
            workers: u64::from(options.clients) * u64::from(options.outstanding),
            key_offset: Random::new(options.seed).next_u64(),
            made: 0,
            random,
            pool,
            seen: BTreeMap::new(),
        }
    }

    /// The next operation.
    pub(super) fn next(&mut self) -> Operation {
        let number = match self.keys {
            Keys::Unique => self.key_offset.wrapping_add(self.made * self.workers + self.worker),
            Keys::Among(keys) => self.random.below(keys),
        };
        let key = key(number, self.key_bytes);
        let action = match self.mix.choose(&mut self.random) {
            Sort::Put => Action::Put(self.value()),
            Sort::Get => Action::Get,
            Sort::Delete => Action::Delete,
            Sort::CompareAndSet => Action::CompareAndSet {
                expected: self.seen.get(&key).cloned().flatten(),
                value: self.value(),
            },
        };
        self.made += 1;
        Operation { key, action }
    }

    /// The put that makes one of the load's keys exist before it is read.
    pub(super) fn fill(&mut self, number: u64) -> Operation {
        let operation =
            Operation { key: key(number, self.key_bytes), action: Action::Put(self.value()) };
        self.made += 1;
        operation
    }

    /// Remembers the value a key was seen to have.
    pub(super) fn saw(&mut self, key: &Bytes, value: Option<Bytes>) {
        if self.keys != Keys::Unique {
            self.seen.insert(key.clone(), value);
        }
    }

    /// Who made it and which it is, then filler.
    fn value(&mut self) -> Bytes {
        let name = format!("{:x}.{:x}.", self.worker, self.made);
        let name = &name.as_bytes()[..name.len().min(self.value_bytes)];
        let at = usize::try_from(self.random.below(POOL_BYTES as u64))
            .expect("it is below a constant that is a usize");
        let filler = &self.pool[at..at + self.value_bytes - name.len()];
        [name, filler].concat().into()
    }
}

/// The key of a number, another one for each that differs in the bits it shows: 6 for each sign.
/// Numbers that follow each other give keys far apart, as those of a real load are.
fn key(number: u64, bytes: usize) -> Bytes {
    let signs = bytes.min(NUMBER_SIGNS_MAX);
    let mut rest = scattered(number, 6 * signs);
    let prefix = PREFIX.iter().cycle().take(bytes - signs).copied();
    let number = std::iter::from_fn(|| {
        let sign = sign(rest);
        rest >>= 6;
        Some(sign)
    });
    prefix.chain(number.take(signs)).collect()
}

/// Turns numbers of so many bits into each other: odd factors and folded shifts can be undone.
fn scattered(number: u64, bits: usize) -> u64 {
    let mask = (1 << bits) - 1;
    let product = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) & mask;
    let folded = product ^ (product >> (bits / 2));
    folded.wrapping_mul(0xbf58_476d_1ce4_e5b9) & mask
}

fn sign(random: u64) -> u8 {
    SIGNS[(random % 64) as usize]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn options() -> LoadOptions {
        LoadOptions { clients: 3, outstanding: 2, seed: 5, ..LoadOptions::default() }
    }

    fn workloads(options: &LoadOptions) -> Vec<Workload> {
        (0..6).map(|worker| Workload::new(options, worker, Random::new(worker.into()))).collect()
    }

    #[test]
    fn unique_keys_and_values_are_unique_and_of_the_size_asked_for() {
        for (key_bytes, value_bytes) in [(8, 24), (16, 128), (100, 4096)] {
            let options = LoadOptions { key_bytes, value_bytes, ..options() };
            let (mut keys, mut values) = (BTreeSet::new(), BTreeSet::new());
            for workload in &mut workloads(&options) {
                for _ in 0..2_000 {
                    let operation = workload.next();
                    let Action::Put(value) = operation.action else { panic!("only puts") };
                    assert_eq!((operation.key.len(), value.len()), (key_bytes, value_bytes));
                    assert!(keys.insert(operation.key), "a key came twice");
                    assert!(values.insert(value), "a value came twice");
                }
            }
        }
    }

    #[test]
    fn another_seed_has_other_keys() {
        let keys = |seed| {
            let mut workload = Workload::new(&LoadOptions { seed, ..options() }, 0, Random::new(1));
            (0..1_000).map(|_| workload.next().key).collect::<BTreeSet<_>>()
        };
        assert!(keys(1).is_disjoint(&keys(2)));
        assert_eq!(keys(3), keys(3));
    }

    #[test]
    fn few_keys_are_all_used_and_filled() {
        let options = LoadOptions { keys: Keys::Among(10), ..options() };
        let workload = &mut workloads(&options)[0];
        let used: BTreeSet<_> = (0..1_000).map(|_| workload.next().key).collect();
        let filled: BTreeSet<_> = (0..10).map(|number| workload.fill(number).key).collect();
        assert_eq!(used, filled);
        assert_eq!(used.len(), 10);
    }

    #[test]
    fn compare_and_set_expects_what_was_last_seen() {
        let options =
            LoadOptions { keys: Keys::Among(1), mix: "cas".parse().unwrap(), ..options() };
        let workload = &mut workloads(&options)[0];
        let expected = |operation: &Operation| match &operation.action {
            Action::CompareAndSet { expected, .. } => expected.clone(),
            action => panic!("{action:?}"),
        };
        let first = workload.next();
        assert_eq!(expected(&first), None);
        workload.saw(&first.key, Some("seen".into()));
        assert_eq!(expected(&workload.next()), Some("seen".into()));
        workload.saw(&first.key, None);
        assert_eq!(expected(&workload.next()), None);
    }

    #[test]
    fn a_value_may_be_tiny() {
        for value_bytes in 0..4 {
            let options = LoadOptions { value_bytes, ..options() };
            let Action::Put(value) = workloads(&options)[0].next().action else { panic!() };
            assert_eq!(value.len(), value_bytes);
        }
    }
}
