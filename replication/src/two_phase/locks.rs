//! Locks on keys. Nobody waits for one: who comes second is told of the conflict, so there is
//! never a deadlock to look for.

use alloc::vec::Vec;

use hashbrown::hash_map::Entry;
use smallvec::SmallVec;

use super::message::TxnId;
use super::planted::{Bug, Planted};
use crate::hash::{Hashed, Seeded};
use crate::request::{Key, Range, Transaction, Write};

/// The keys one transaction locks, each once, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LockSet {
    /// Keys it writes: nobody else may lock them at all. Mostly it is one.
    pub(super) exclusive: SmallVec<[Key; 1]>,
    /// Keys it only checks: others may check them too.
    pub(super) shared: Vec<Key>,
}

impl LockSet {
    pub(super) fn of(transaction: &Transaction) -> Self {
        // Most transactions are one write.
        if let ([write], []) = (&transaction.writes[..], &transaction.preconditions[..]) {
            let exclusive = SmallVec::from_buf([write.key().clone()]);
            return Self { exclusive, shared: Vec::new() };
        }
        let checked = transaction.preconditions.iter().map(|precondition| precondition.key());
        Self::new(&transaction.writes, checked.cloned().collect())
    }

    /// What of it a bug on purpose leaves.
    pub(super) fn planted(mut self, planted: Planted) -> Self {
        if planted.has(Bug::CheckWithoutLock) {
            self.shared.clear();
        }
        if planted.has(Bug::LockFirstKeyOnly) {
            self.exclusive.truncate(1);
        }
        self
    }

    /// Of keys both written and checked only the write counts.
    pub(super) fn new(writes: &[Write], mut checked: Vec<Key>) -> Self {
        let mut exclusive: SmallVec<[Key; 1]> =
            writes.iter().map(|write| write.key().clone()).collect();
        exclusive.sort_unstable();
        exclusive.dedup();
        checked.sort_unstable();
        checked.dedup();
        checked.retain(|key| exclusive.binary_search(key).is_err());
        Self { exclusive, shared: checked }
    }

    /// Whether it writes a key of the range.
    pub(super) fn writes_in(&self, range: &Range) -> bool {
        let begin = self.exclusive.partition_point(|key| *key < range.start);
        let first = self.exclusive.get(begin);
        first.is_some_and(|key| range.end.as_ref().is_none_or(|end| key < end))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Lock {
    Exclusive(TxnId),
    /// Never empty.
    Shared(Vec<TxnId>),
}

/// Which transaction holds which key.
#[derive(Clone, Debug)]
pub(super) struct LockTable {
    by_key: Hashed<Key, Lock>,
}

impl LockTable {
    pub(super) fn new(seed: u64) -> Self {
        Self { by_key: Hashed::with_hasher(Seeded::new(seed)) }
    }

    /// Locks all keys of the set, or none and names one that another transaction holds.
    pub(super) fn acquire(&mut self, txn: TxnId, set: &LockSet) -> Result<(), Key> {
        if let ([key], []) = (&set.exclusive[..], &set.shared[..]) {
            return match self.by_key.entry(key.clone()) {
                Entry::Vacant(entry) => {
                    entry.insert(Lock::Exclusive(txn));
                    Ok(())
                }
                Entry::Occupied(entry) => Err(entry.key().clone()),
            };
        }
        let held = set.exclusive.iter().find(|key| self.by_key.contains_key(*key));
        let written =
            set.shared.iter().find(|key| matches!(self.by_key.get(*key), Some(Lock::Exclusive(_))));
        if let Some(key) = held.or(written) {
            return Err(key.clone());
        }
        for key in &set.exclusive {
            self.by_key.insert(key.clone(), Lock::Exclusive(txn));
        }
        for key in &set.shared {
            match self.by_key.entry(key.clone()) {
                Entry::Vacant(entry) => {
                    entry.insert(Lock::Shared(alloc::vec![txn]));
                }
                Entry::Occupied(mut entry) => match entry.get_mut() {
                    Lock::Shared(holders) => holders.push(txn),
                    Lock::Exclusive(_) => unreachable!("a written key was found above"),
                },
            }
        }
        Ok(())
    }

    /// Unlocks what [`LockTable::acquire`] locked.
    pub(super) fn release(&mut self, txn: TxnId, set: &LockSet) {
        for key in &set.exclusive {
            let lock = self.by_key.remove(key);
            assert_eq!(lock, Some(Lock::Exclusive(txn)), "the transaction held the key alone");
        }
        for key in &set.shared {
            let Some(Lock::Shared(holders)) = self.by_key.get_mut(key) else {
                unreachable!("the transaction held the key with others");
            };
            holders.retain(|holder| *holder != txn);
            if holders.is_empty() {
                self.by_key.remove(key);
            }
        }
    }

    /// Who holds a lock, once for each lock, in order.
    pub(super) fn holders(&self) -> Vec<TxnId> {
        let holders = self.by_key.values().flat_map(|lock| match lock {
            Lock::Exclusive(txn) => core::slice::from_ref(txn).iter().copied(),
            Lock::Shared(txns) => txns.iter().copied(),
        });
        let mut holders: Vec<TxnId> = holders.collect();
        holders.sort_unstable();
        holders
    }

    /// Keys locked.
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Who is about to write the key.
    pub(super) fn writer(&self, key: &Key) -> Option<TxnId> {
        match self.by_key.get(key) {
            Some(Lock::Exclusive(txn)) => Some(*txn),
            Some(Lock::Shared(_)) | None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::contract::NodeId;
    use crate::request::Precondition;

    fn txn(number: u64) -> TxnId {
        TxnId { coordinator: NodeId::COORDINATOR, epoch: 1, number }
    }

    fn key(name: &str) -> Key {
        Key::copy_from_slice(name.as_bytes())
    }

    /// Writes and checks, by the letters of two words.
    fn set(writes: &str, checks: &str) -> LockSet {
        let one = |letter: char| Key::from(vec![letter as u8]);
        LockSet::of(&Transaction {
            preconditions: checks
                .chars()
                .map(|letter| Precondition::Present(one(letter)))
                .collect(),
            writes: writes.chars().map(|letter| Write::Delete(one(letter))).collect(),
        })
    }

    #[test]
    fn a_set_names_each_key_once_and_writes_win() {
        let set = set("baab", "cbcd");
        assert_eq!(set.exclusive[..], [key("a"), key("b")]);
        assert_eq!(set.shared, [key("c"), key("d")]);
    }

    #[test]
    fn who_comes_second_is_told_of_the_key() {
        // Held by the first, wanted by the second, and the key in the way.
        let cases = [
            (("a", ""), ("a", ""), Some("a")),
            (("a", ""), ("", "a"), Some("a")),
            (("", "a"), ("a", ""), Some("a")),
            (("", "a"), ("", "a"), None),
            (("a", "b"), ("c", "b"), None),
            (("a", "b"), ("cb", ""), Some("b")),
            (("b", ""), ("a", "bc"), Some("b")),
        ];
        for ((held_writes, held_checks), (writes, checks), conflict) in cases {
            let mut locks = LockTable::new(1);
            let (held, wanted) = (set(held_writes, held_checks), set(writes, checks));
            locks.acquire(txn(1), &held).unwrap();
            let before = locks.len();
            let result = locks.acquire(txn(2), &wanted);
            assert_eq!(
                result,
                conflict.map_or(Ok(()), |name| Err(key(name))),
                "{held:?} {wanted:?}"
            );
            if result.is_err() {
                assert_eq!(locks.len(), before, "a refused set leaves nothing behind");
            } else {
                locks.release(txn(2), &wanted);
            }
            locks.release(txn(1), &held);
            assert_eq!(locks.len(), 0);
        }
    }

    #[test]
    fn a_shared_lock_lasts_as_long_as_its_last_holder() {
        let mut locks = LockTable::new(1);
        let check = set("", "a");
        locks.acquire(txn(1), &check).unwrap();
        locks.acquire(txn(2), &check).unwrap();
        locks.release(txn(1), &check);
        assert_eq!(locks.acquire(txn(3), &set("a", "")), Err(key("a")));
        locks.release(txn(2), &check);
        assert_eq!(locks.acquire(txn(3), &set("a", "")), Ok(()));
    }

    #[test]
    fn writers_are_found_by_key() {
        let mut locks = LockTable::new(1);
        locks.acquire(txn(1), &set("bd", "c")).unwrap();
        locks.acquire(txn(2), &set("e", "c")).unwrap();
        assert_eq!(locks.writer(&key("b")), Some(txn(1)));
        assert_eq!(locks.writer(&key("c")), None);
        assert_eq!(locks.writer(&key("x")), None);
        assert_eq!(locks.holders(), [txn(1), txn(1), txn(1), txn(2), txn(2)]);
    }

    #[test]
    fn writers_are_found_by_range() {
        let (one, other) = (set("bd", "c"), set("e", "c"));
        let cases: [(&str, Option<&str>, bool, bool); 7] = [
            ("a", None, true, true),
            ("b", Some("d"), true, false),
            ("c", Some("d"), false, false),
            ("c", Some("e"), true, false),
            ("d", Some("d"), false, false),
            ("z", Some("a"), false, false),
            ("", Some("b"), false, false),
        ];
        for (start, end, of_one, of_other) in cases {
            let range = Range { start: key(start), end: end.map(key), limit: 1 };
            assert_eq!(one.writes_in(&range), of_one, "{start}..{end:?}");
            assert_eq!(other.writes_in(&range), of_other, "{start}..{end:?}");
        }
    }
}
