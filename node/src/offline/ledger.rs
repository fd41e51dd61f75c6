//! What a log's records come to: the batches they decide, and what was under way at the end.
//!
//! The same rules by which the cores recover, without what they need for going on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use kvorum_replication::two_phase::message::{CommitNumber, Decision, TxnId};
use kvorum_replication::two_phase::record::{CoordinatorRecord, ParticipantRecord, Prepared};
use kvorum_replication::{NodeId, Role, Write};
use kvorum_storage::{Batch, ReplayedRecord};

use crate::codec::{StoredRecord, is_checkpoint};

/// A transaction that had not come to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InDoubt {
    /// Which.
    pub txn: TxnId,
    /// Everybody who takes part.
    pub participants: Arc<[NodeId]>,
    /// On a coordinator: the commit's number; not everybody has said that they know of it. On a
    /// replica none: it has voted yes and does not know the outcome.
    pub number: Option<CommitNumber>,
    /// On a replica, the keys that it holds locked, in order.
    pub keys: BTreeSet<Bytes>,
}

/// Takes a node's records one after the other.
#[derive(Debug)]
pub struct Ledger {
    role: Role,
    /// Whether the records so far make a whole state: from the first record, or a checkpoint on.
    whole: bool,
    prepared: BTreeMap<TxnId, Prepared>,
    /// The keys that these write.
    locked: BTreeMap<Bytes, TxnId>,
    committed: BTreeMap<TxnId, (CommitNumber, Arc<[NodeId]>)>,
}

impl Ledger {
    /// An empty one, to be given the records from `first` on.
    #[must_use]
    pub fn new(role: Role, first: u64) -> Self {
        Self {
            role,
            whole: first <= 1,
            prepared: BTreeMap::new(),
            locked: BTreeMap::new(),
            committed: BTreeMap::new(),
        }
    }

    /// Takes a record. The answer is the batch that it decides, if it decides one.
    pub fn take(&mut self, record: &ReplayedRecord) -> Result<Option<Batch>, String> {
        self.whole |= is_checkpoint(record.kind);
        if !self.whole {
            return Ok(None);
        }
        let malformed = |error: kvorum_storage::codec::Malformed| error.to_string();
        match self.role {
            Role::Coordinator => {
                let record = CoordinatorRecord::decode(record.kind, &record.payload);
                self.take_coordinators(record.map_err(malformed)?);
                Ok(None)
            }
            Role::Replica => {
                let record = ParticipantRecord::decode(record.kind, &record.payload);
                let writes = self.take_participants(record.map_err(malformed)?)?;
                Ok(writes.map(|writes| batch(&writes)))
            }
        }
    }

    fn take_coordinators(&mut self, record: CoordinatorRecord) {
        match record {
            CoordinatorRecord::Started { .. } | CoordinatorRecord::SessionOpened { .. } => {}
            CoordinatorRecord::Committed { txn, number, participants, .. } => {
                self.committed.insert(txn, (number, participants));
            }
            CoordinatorRecord::Ended { txn } => {
                self.committed.remove(&txn);
            }
            CoordinatorRecord::Checkpoint(checkpoint) => {
                let committed = checkpoint.committed.into_iter();
                self.committed =
                    committed.map(|it| (it.txn, (it.number, it.participants))).collect();
            }
        }
    }

    fn take_participants(
        &mut self,
        record: ParticipantRecord,
    ) -> Result<Option<Vec<Write>>, String> {
        Ok(match record {
            ParticipantRecord::Started { .. } => None,
            ParticipantRecord::Prepared(prepared) => {
                self.prepare(prepared)?;
                None
            }
            ParticipantRecord::Decided { txn, decision } => {
                let Some(prepared) = self.prepared.remove(&txn) else { return Ok(None) };
                self.locked.retain(|_, holder| *holder != txn);
                matches!(decision, Decision::Commit(_)).then_some(prepared.writes)
            }
            ParticipantRecord::CommittedAlone { writes, .. } => Some(writes),
            ParticipantRecord::Checkpoint(checkpoint) => {
                self.prepared.clear();
                self.locked.clear();
                checkpoint.prepared.into_iter().try_for_each(|prepared| self.prepare(prepared))?;
                None
            }
        })
    }

    /// No node promises the same key to two transactions, nor one transaction twice.
    fn prepare(&mut self, prepared: Prepared) -> Result<(), String> {
        let txn = prepared.txn;
        if self.prepared.contains_key(&txn) {
            return Err(format!("prepares {txn} twice"));
        }
        let written: BTreeSet<_> =
            prepared.writes.iter().map(|write| write.key().clone()).collect();
        for key in written.iter().chain(&prepared.checked) {
            if let Some(holder) = self.locked.get(key) {
                return Err(format!("prepares {txn} with a key that {holder} has locked"));
            }
        }
        self.locked.extend(written.into_iter().map(|key| (key, txn)));
        self.prepared.insert(txn, prepared);
        Ok(())
    }

    /// What is under way after the records so far.
    #[must_use]
    pub fn in_doubt(&self) -> Vec<InDoubt> {
        let prepared = self.prepared.values().map(|prepared| InDoubt {
            txn: prepared.txn,
            participants: Arc::clone(&prepared.participants),
            number: None,
            keys: prepared.writes.iter().map(|write| write.key().clone()).collect(),
        });
        let committed = self.committed.iter().map(|(txn, (number, participants))| InDoubt {
            txn: *txn,
            participants: Arc::clone(participants),
            number: Some(*number),
            keys: BTreeSet::new(),
        });
        prepared.chain(committed).collect()
    }
}

fn batch(writes: &[Write]) -> Batch {
    let mut batch = Batch::new();
    for write in writes {
        match write {
            Write::Put(key, value) => batch.put(key.clone(), value.clone()),
            Write::Delete(key) => batch.delete(key.clone()),
        };
    }
    batch
}
