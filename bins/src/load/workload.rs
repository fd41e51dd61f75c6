//! What one worker of a load asks, operation by operation.

use std::cell::{RefCell, RefMut};
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use kvorum_replication::random::Random;
use kvorum_replication::{Precondition, Transaction, Write};

use super::distribution::Dice;
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

/// Two numbers of 64 bits in hexadecimal, each with a dot behind it.
const VALUE_NAME_BYTES_MAX: usize = 34;

/// Keys, and values that are no mere cuts of the pool, stand beside each other in pieces of memory
/// of this size, so that hardly any of them needs an allocation. All workers of a thread write into
/// one: thousands of them with a piece each would fill the memory, and never find theirs in a cache.
const PIECE_BYTES: usize = 64 << 10;

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
    /// Put the value, and other keys with theirs.
    Transact {
        value: Bytes,
        others: Vec<(Bytes, Bytes)>,
    },
    /// Read at most so many rows from the key on.
    Scan {
        rows: u32,
    },
    /// Read the key, and put the value if it still has the one that was read.
    ReadModifyWrite(Bytes),
}

impl Operation {
    pub(super) fn sort(&self) -> Sort {
        match self.action {
            Action::Put(_) => Sort::Put,
            Action::Get => Sort::Get,
            Action::Delete => Sort::Delete,
            Action::CompareAndSet { .. } => Sort::CompareAndSet,
            Action::Transact { .. } => Sort::Transact,
            Action::Scan { .. } => Sort::Scan,
            Action::ReadModifyWrite(_) => Sort::ReadModifyWrite,
        }
    }

    /// A compare-and-set as the transaction that it is.
    pub(super) fn compare_and_set(&self, expected: Option<&Bytes>, value: &Bytes) -> Transaction {
        let key = self.key.clone();
        let precondition = match expected {
            Some(expected) => Precondition::Equals(key.clone(), expected.clone()),
            None => Precondition::Absent(key.clone()),
        };
        let writes = vec![Write::Put(key, value.clone())];
        Transaction { preconditions: vec![precondition], writes }
    }

    /// Puts of several keys as a transaction.
    pub(super) fn puts(&self, value: &Bytes, others: &[(Bytes, Bytes)]) -> Transaction {
        let first = std::iter::once(Write::Put(self.key.clone(), value.clone()));
        let others = others.iter().map(|(key, value)| Write::Put(key.clone(), value.clone()));
        Transaction { preconditions: Vec::new(), writes: first.chain(others).collect() }
    }
}

/// Makes up operations. No two values of a load are equal, if they are long enough and anybody
/// compares them: the load itself, or who judges its history.
#[derive(Debug)]
pub(super) struct Workload {
    mix: Mix,
    keys: Choice,
    key_bytes: usize,
    value_bytes: usize,
    transaction_keys: u64,
    scan_rows: u32,
    /// No two values may be equal.
    distinct: bool,
    /// Which worker of how many.
    worker: u64,
    workers: u64,
    made: u64,
    random: Random,
    prefix: Vec<u8>,
    pool: Pool,
    /// The last value this worker saw of a key, for compare-and-set; has at most as many entries
    /// as the load has keys, and is only kept if keys come again.
    seen: Option<BTreeMap<Bytes, Option<Bytes>>>,
}

/// What the workers of one thread make keys and values of.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    /// Random bytes to cut values out of.
    bytes: Bytes,
    piece: Rc<RefCell<BytesMut>>,
}

/// Which key is next.
#[derive(Debug)]
enum Choice {
    /// One that nobody else uses. Numbers begin here, so that another load has others.
    Unique {
        offset: u64,
        used: u64,
    },
    Among {
        keys: u64,
        dice: Dice,
    },
}

impl Workload {
    /// Makes keys and values of a pool, which many workloads may share.
    pub(super) fn new(options: &LoadOptions, worker: u32, random: Random, pool: Pool) -> Self {
        let keys = match options.keys {
            Keys::Unique => {
                Choice::Unique { offset: Random::new(options.seed).next_u64(), used: 0 }
            }
            Keys::Among(keys) => {
                Choice::Among { keys, dice: Dice::new(options.distribution, keys) }
            }
        };
        let compares = options.mix.compares();
        let learns = compares && options.keys != Keys::Unique;
        Self {
            mix: options.mix,
            keys,
            key_bytes: options.key_bytes,
            value_bytes: options.value_bytes,
            transaction_keys: u64::from(options.transaction_keys),
            scan_rows: options.scan_rows,
            distinct: compares || options.history.is_some(),
            worker: u64::from(worker),
            workers: u64::from(options.clients) * u64::from(options.outstanding),
            made: 0,
            random,
            prefix: prefix(options.key_bytes),
            pool,
            seen: learns.then(BTreeMap::new),
        }
    }

    /// The next operation.
    pub(super) fn next(&mut self) -> Operation {
        let number = self.number();
        let key = self.key(number);
        let action = match self.mix.choose(&mut self.random) {
            Sort::Put => Action::Put(self.value()),
            Sort::Get => Action::Get,
            Sort::Delete => Action::Delete,
            Sort::CompareAndSet => Action::CompareAndSet {
                expected: self.seen.as_ref().and_then(|seen| seen.get(&key)).cloned().flatten(),
                value: self.value(),
            },
            Sort::Transact => self.transaction(number),
            Sort::Scan => Action::Scan { rows: self.scan_rows },
            Sort::ReadModifyWrite => Action::ReadModifyWrite(self.value()),
        };
        Operation { key, action }
    }

    /// Puts of this key and others, none of them twice.
    fn transaction(&mut self, first: u64) -> Action {
        let mut numbers = vec![first];
        let mut others = Vec::new();
        while (numbers.len() as u64) < self.transaction_keys {
            let mut number = self.number();
            if let Choice::Among { keys, .. } = self.keys {
                // Where few keys are drawn often, the next one that is free is as good.
                while numbers.contains(&number) {
                    number = (number + 1) % keys;
                }
            }
            numbers.push(number);
            others.push((self.key(number), self.value()));
        }
        Action::Transact { value: self.value(), others }
    }

    /// The put that makes some of the load's keys exist before they are read.
    pub(super) fn fill(&mut self, numbers: std::ops::Range<u64>) -> Operation {
        let mut entries: Vec<_> = numbers.map(|number| (self.key(number), self.value())).collect();
        let (key, value) = entries.pop().expect("the caller has at least one key to fill");
        let action = match entries.is_empty() {
            true => Action::Put(value),
            false => Action::Transact { value, others: entries },
        };
        Operation { key, action }
    }

    /// Remembers the value a key was seen to have.
    pub(super) fn saw(&mut self, key: &Bytes, value: Option<&Bytes>) {
        if let Some(seen) = &mut self.seen {
            seen.insert(key.clone(), value.cloned());
        }
    }

    /// Another value to write, after the one before was written.
    pub(super) fn value(&mut self) -> Bytes {
        self.made += 1;
        let at = usize::try_from(self.random.below(POOL_BYTES as u64))
            .expect("it is below a constant that is a usize");
        if !self.distinct {
            return self.pool.bytes.slice(at..at + self.value_bytes);
        }
        let mut piece = self.pool.piece(self.value_bytes);
        // Who made it and which it is, then filler.
        for number in [self.worker, self.made] {
            let mut rest = number;
            loop {
                piece.extend_from_slice(&[b"0123456789abcdef"[(rest % 16) as usize]]);
                rest /= 16;
                if rest == 0 {
                    break;
                }
            }
            piece.extend_from_slice(b".");
        }
        piece.truncate(self.value_bytes);
        let filler = self.value_bytes - piece.len();
        piece.extend_from_slice(&self.pool.bytes[at..at + filler]);
        piece.split().freeze()
    }

    fn number(&mut self) -> u64 {
        match &mut self.keys {
            Choice::Unique { offset, used } => {
                *used += 1;
                offset.wrapping_add((*used - 1) * self.workers + self.worker)
            }
            Choice::Among { dice, .. } => dice.throw(&mut self.random),
        }
    }

    /// The key of a number, another one for each that differs in the bits it shows: 6 for each sign.
    /// Numbers that follow each other give keys far apart, as those of a real load are.
    fn key(&self, number: u64) -> Bytes {
        let count = self.key_bytes.min(NUMBER_SIGNS_MAX);
        let mut signs = [0; NUMBER_SIGNS_MAX];
        let mut rest = scattered(number, 6 * count);
        for shown in &mut signs[..count] {
            *shown = sign(rest);
            rest >>= 6;
        }
        let mut piece = self.pool.piece(self.key_bytes);
        piece.extend_from_slice(&self.prefix);
        piece.extend_from_slice(&signs[..count]);
        piece.split().freeze()
    }
}

impl Pool {
    pub(super) fn new(options: &LoadOptions) -> Self {
        let mut random = Random::new(options.seed);
        let bytes = 0..POOL_BYTES + options.value_bytes;
        let bytes = bytes.map(|_| sign(random.next_u64())).collect();
        Self { bytes, piece: Rc::default() }
    }

    /// Room for a key or a value of so many bytes.
    fn piece(&self, bytes: usize) -> RefMut<'_, BytesMut> {
        // The name of a value may be longer than the value, before it is cut.
        let bytes = bytes + VALUE_NAME_BYTES_MAX;
        let mut piece = self.piece.borrow_mut();
        if piece.capacity() < bytes {
            *piece = BytesMut::with_capacity(bytes.max(PIECE_BYTES));
        }
        piece
    }
}

/// What keys of this size begin with.
fn prefix(key_bytes: usize) -> Vec<u8> {
    let signs = key_bytes.min(NUMBER_SIGNS_MAX);
    PREFIX.iter().copied().cycle().take(key_bytes - signs).collect()
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
        (0..6).map(|worker| workload(options, worker)).collect()
    }

    fn workload(options: &LoadOptions, worker: u32) -> Workload {
        Workload::new(options, worker, Random::new(worker.into()), Pool::new(options))
    }

    #[test]
    fn unique_keys_and_values_are_unique_and_of_the_size_asked_for() {
        for (key_bytes, value_bytes) in [(8, 24), (16, 128), (100, 4096)] {
            let history = Some("history".into());
            let options = LoadOptions { key_bytes, value_bytes, history, ..options() };
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
            let mut workload = workload(&LoadOptions { seed, ..options() }, 0);
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
        let filled: BTreeSet<_> =
            (0..10).map(|number| workload.fill(number..number + 1).key).collect();
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
        workload.saw(&first.key, Some(&"seen".into()));
        assert_eq!(expected(&workload.next()), Some("seen".into()));
        workload.saw(&first.key, None);
        assert_eq!(expected(&workload.next()), None);
    }

    #[test]
    fn a_value_may_be_tiny() {
        for (value_bytes, history) in (0..4).flat_map(|bytes| [(bytes, None), (bytes, Some("h"))]) {
            let history = history.map(Into::into);
            let options = LoadOptions { value_bytes, history, ..options() };
            let Action::Put(value) = workloads(&options)[0].next().action else { panic!() };
            assert_eq!(value.len(), value_bytes);
        }
    }

    /// All entries of an operation that puts.
    fn entries(operation: Operation) -> Vec<(Bytes, Bytes)> {
        match operation.action {
            Action::Put(value) => vec![(operation.key, value)],
            Action::Transact { value, mut others } => {
                others.push((operation.key, value));
                others
            }
            action => panic!("{action:?}"),
        }
    }

    #[test]
    fn a_transaction_has_as_many_keys_as_it_is_to_and_none_twice() {
        for keys in [Keys::Unique, Keys::Among(7)] {
            for distribution in ["uniform", "zipfian=3", "hot=100"] {
                let options = LoadOptions {
                    keys,
                    distribution: distribution.parse().unwrap(),
                    mix: "txn".parse().unwrap(),
                    transaction_keys: 5,
                    ..options()
                };
                let mut workload = workload(&options, 0);
                for _ in 0..100 {
                    let entries = entries(workload.next());
                    let keys: BTreeSet<_> = entries.iter().map(|(key, _)| key).collect();
                    assert_eq!((entries.len(), keys.len()), (5, 5), "{distribution}");
                }
            }
        }
    }

    #[test]
    fn many_keys_are_filled_by_one_transaction() {
        let options = LoadOptions { keys: Keys::Among(10), ..options() };
        let workload = &mut workloads(&options)[0];
        let at_once = entries(workload.fill(0..10));
        let keys: BTreeSet<_> = at_once.iter().map(|(key, _)| key.clone()).collect();
        let one_by_one: BTreeSet<_> =
            (0..10).map(|number| workload.fill(number..number + 1).key).collect();
        assert_eq!(keys, one_by_one);
        assert!(at_once.iter().all(|(_, value)| value.len() == options.value_bytes));
    }

    #[test]
    fn keys_are_used_as_the_distribution_says() {
        let distribution = "hot=100".parse().unwrap();
        let options = LoadOptions { keys: Keys::Among(10), distribution, ..options() };
        let workload = &mut workloads(&options)[0];
        let used: BTreeSet<_> = (0..100).map(|_| workload.next().key).collect();
        assert_eq!(used.len(), 1);
    }
}
