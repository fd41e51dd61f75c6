//! Two-phase commit: prepares, decisions, and what they write.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use kvorum_replication::two_phase::message::{CommitNumber, Decision, TxnId};
use kvorum_replication::two_phase::record::{CoordinatorRecord, ParticipantRecord, Prepared};
use kvorum_replication::{NodeId, Write};

use super::InDoubt;

/// What a coordinator's or a participant's records say so far.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    prepared: BTreeMap<TxnId, Prepared>,
    /// The keys that these write.
    locked: BTreeMap<Bytes, TxnId>,
    committed: BTreeMap<TxnId, (CommitNumber, Arc<[NodeId]>)>,
}

impl Transactions {
    /// A coordinator decides, and writes nothing itself.
    pub(super) fn take_coordinators(&mut self, record: CoordinatorRecord) {
        match record {
            CoordinatorRecord::Started { .. }
            | CoordinatorRecord::SessionOpened { .. }
            | CoordinatorRecord::Aborted { .. }
            | CoordinatorRecord::View(_) => {}
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

    /// The answer is what a decision writes.
    pub(super) fn take_participants(
        &mut self,
        record: ParticipantRecord,
    ) -> Result<Option<Vec<Write>>, String> {
        Ok(match record {
            ParticipantRecord::Started { .. }
            | ParticipantRecord::Promised { .. }
            | ParticipantRecord::View { .. } => None,
            ParticipantRecord::Prepared(prepared) => {
                self.prepare(*prepared)?;
                None
            }
            ParticipantRecord::Decided { txn, decision } => {
                let Some(prepared) = self.prepared.remove(&txn) else { return Ok(None) };
                self.locked.retain(|_, holder| *holder != txn);
                matches!(decision, Decision::Commit(_)).then(|| prepared.writes.into_list())
            }
            ParticipantRecord::CommittedAlone { writes, .. } => Some(writes.into_list()),
            ParticipantRecord::Outside { .. } | ParticipantRecord::Joined { .. } => None,
            ParticipantRecord::Learned { commits, .. } => {
                for commit in &commits {
                    if self.prepared.remove(&commit.txn).is_some() {
                        self.locked.retain(|_, holder| *holder != commit.txn);
                    }
                }
                let writes = commits.iter().flat_map(|commit| commit.transaction.writes.clone());
                Some(writes.collect())
            }
            // Of an installed one, too, the rows before are of no more interest.
            ParticipantRecord::Checkpoint(checkpoint)
            | ParticipantRecord::Installed { checkpoint, .. } => {
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
    pub(super) fn in_doubt(&self) -> Vec<InDoubt> {
        let prepared = self.prepared.values().map(|prepared| InDoubt::Transaction {
            txn: prepared.txn,
            participants: Arc::clone(&prepared.participants),
            is_committed: false,
            number: None,
            keys: prepared.writes.iter().map(|write| write.key().clone()).collect(),
        });
        let committed = self.committed.iter().map(|(txn, (number, participants))| {
            let (txn, number, participants) = (*txn, Some(*number), Arc::clone(participants));
            let keys = BTreeSet::new();
            InDoubt::Transaction { txn, participants, is_committed: true, number, keys }
        });
        prepared.chain(committed).collect()
    }
}
