//! Locks on keys. Nobody waits for one: who comes second is told of the conflict, so there is
//! never a deadlock to look for.

use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;
use alloc::vec::Vec;
use core::ops::Bound;

use super::message::TxnId;
use super::planted::{Bug, Planted};
use crate::request::{Key, Range, Transaction, Write};

/// The keys one transaction locks, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LockSet {
    /// Keys it writes: nobody else may lock them at all.
    pub(super) exclusive: Vec<Key>,
    /// Keys it only checks: others may check them too.
    pub(super) shared: Vec<Key>,
}

impl LockSet {
    pub(super) fn of(transaction: &Transaction) -> Self {
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
        let mut exclusive: Vec<Key> = writes.iter().map(|write| write.key().clone()).collect();
        exclusive.sort_unstable();
        exclusive.dedup();
        checked.sort_unstable();
        checked.dedup();
        checked.retain(|key| exclusive.binary_search(key).is_err());
        Self { exclusive, shared: checked }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Lock {
    Exclusive(TxnId),
    /// Never empty.
    Shared(Vec<TxnId>),
}

/// Which transaction holds which key.
#[derive(Clone, Debug, Default)]
pub(super) struct LockTable {
    by_key: BTreeMap<Key, Lock>,
}

impl LockTable {
    /// Locks all keys of the set, or none and names one that another transaction holds.
    pub(super) fn acquire(&mut self, txn: TxnId, set: &LockSet) -> Result<(), Key> {
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

    /// Who holds a lock, once for each lock.
    pub(super) fn holders(&self) -> impl Iterator<Item = TxnId> {
        self.by_key.values().flat_map(|lock| match lock {
            Lock::Exclusive(txn) => core::slice::from_ref(txn).iter().copied(),
            Lock::Shared(txns) => txns.iter().copied(),
        })
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

    /// Who is about to write a key of the range; a transaction with several keys in it comes
    /// several times.
    pub(super) fn writers_in(&self, range: &Range) -> impl Iterator<Item = TxnId> {
        // A range whose end is before its start holds nothing, and would make the map panic.
        let empty = range.end.as_ref().is_some_and(|end| *end <= range.start);
        let end = match &range.end {
            _ if empty => Bound::Included(&range.start),
            Some(end) => Bound::Excluded(end),
            None => Bound::Unbounded,
        };
        self.by_key
            .range::<Key, _>((Bound::Included(&range.start), end))
            .filter(move |_| !empty)
            .filter_map(|(_, lock)| match lock {
                Lock::Exclusive(txn) => Some(*txn),
                Lock::Shared(_) => None,
            })
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
        assert_eq!(set.exclusive, [key("a"), key("b")]);
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
            let mut locks = LockTable::default();
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
        let mut locks = LockTable::default();
        let check = set("", "a");
        locks.acquire(txn(1), &check).unwrap();
        locks.acquire(txn(2), &check).unwrap();
        locks.release(txn(1), &check);
        assert_eq!(locks.acquire(txn(3), &set("a", "")), Err(key("a")));
        locks.release(txn(2), &check);
        assert_eq!(locks.acquire(txn(3), &set("a", "")), Ok(()));
    }

    #[test]
    fn writers_are_found_by_key_and_range() {
        let mut locks = LockTable::default();
        locks.acquire(txn(1), &set("bd", "c")).unwrap();
        locks.acquire(txn(2), &set("e", "c")).unwrap();
        assert_eq!(locks.writer(&key("b")), Some(txn(1)));
        assert_eq!(locks.writer(&key("c")), None);
        assert_eq!(locks.writer(&key("x")), None);
        let cases: [(&str, Option<&str>, &[u64]); 6] = [
            ("a", None, &[1, 1, 2]),
            ("b", Some("d"), &[1]),
            ("c", Some("e"), &[1]),
            ("d", Some("d"), &[]),
            ("z", Some("a"), &[]),
            ("", Some("b"), &[]),
        ];
        for (start, end, writers) in cases {
            let range = Range { start: key(start), end: end.map(key), limit: 1 };
            let found: Vec<u64> = locks.writers_in(&range).map(|txn| txn.number).collect();
            assert_eq!(found, writers, "{start}..{end:?}");
        }
    }
}
