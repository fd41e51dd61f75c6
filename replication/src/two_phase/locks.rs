//! Locks on keys. Nobody waits for one: who comes second is told of the conflict, so there is
//! never a deadlock to look for.

use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;
use alloc::vec::Vec;
use core::ops::Bound;

use super::message::TxnId;
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
