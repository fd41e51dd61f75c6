//! Two-phase commit through any replica: the core reads the records, and beside it stands what is open.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use kvorum_replication::two_phase::any_replica::message::{TxnId, Work};
use kvorum_replication::two_phase::any_replica::record::Record;
use kvorum_replication::two_phase::any_replica::{Replica, ReplicaOptions};
use kvorum_replication::{Core as _, Effect, Effects, NodeId, Position, Write};

use super::InDoubt;

/// What a replica's records say so far.
#[derive(Debug)]
pub(super) struct Both {
    core: Replica,
    open: BTreeMap<TxnId, Open>,
}

/// A transaction that is not over.
#[derive(Debug)]
struct Open {
    participants: Arc<[NodeId]>,
    /// This replica has decided so; else it has promised to commit if told so.
    is_committed: bool,
    /// What it does here, unless that was done.
    work: Option<Arc<Work>>,
}

impl Both {
    pub(super) fn new(id: NodeId) -> Self {
        let options = ReplicaOptions { id, replicas: vec![id], ..ReplicaOptions::default() };
        Self { core: Replica::new(options), open: BTreeMap::new() }
    }

    /// The answer is what it writes, in order, each with its mark.
    pub(super) fn take(
        &mut self,
        at: u64,
        record: Record,
    ) -> Result<Vec<(u64, Vec<Write>)>, String> {
        self.note(&record);
        let mut effects = Effects::new();
        self.core.recover(Position(at), record, &mut effects);
        if let Some(why) = self.core.unfit() {
            return Err(why.clone());
        }
        let written = effects.drain().filter_map(|effect| match effect {
            Effect::Apply { mark, writes } => Some((mark, writes.into_list())),
            _ => None,
        });
        Ok(written.collect())
    }

    fn note(&mut self, record: &Record) {
        match record {
            Record::Started { .. } | Record::Refused { .. } => {}
            Record::Prepared(prepared) => {
                self.insert(prepared.txn, &prepared.participants, false, Some(&prepared.work));
            }
            Record::Committed(committed) => {
                self.insert(committed.txn, &committed.participants, true, Some(&committed.work));
            }
            Record::Decided { txn, .. } => match self.open.get_mut(txn) {
                Some(open) if open.is_committed => open.work = None,
                _ => drop(self.open.remove(txn)),
            },
            Record::Ended { txn } => drop(self.open.remove(txn)),
            Record::Checkpoint(checkpoint) => {
                self.open.clear();
                for it in &checkpoint.prepared {
                    self.insert(it.txn, &it.participants, false, Some(&it.work));
                }
                for it in &checkpoint.committed {
                    self.insert(it.txn, &it.participants, true, it.work.as_ref());
                }
            }
        }
    }

    fn insert(
        &mut self,
        txn: TxnId,
        participants: &Arc<[NodeId]>,
        is_committed: bool,
        work: Option<&Arc<Work>>,
    ) {
        let (participants, work) = (Arc::clone(participants), work.cloned());
        self.open.insert(txn, Open { participants, is_committed, work });
    }

    /// What it has decided to commit, and will carry out when it starts.
    pub(super) fn decided(&self) -> impl Iterator<Item = &[Write]> {
        let committed = self.open.values().filter(|open| open.is_committed);
        committed.flat_map(|open| &open.work).map(|work| writes(work))
    }

    pub(super) fn in_doubt(&self) -> Vec<InDoubt> {
        let open = self.open.iter().map(|(txn, open)| InDoubt::Transaction {
            txn: *txn,
            participants: Arc::clone(&open.participants),
            is_committed: open.is_committed,
            number: None,
            keys: open.keys(),
        });
        open.collect()
    }
}

impl Open {
    fn keys(&self) -> BTreeSet<Bytes> {
        let written = self.work.iter().flat_map(|work| writes(work));
        written.map(|write| write.key().clone()).collect()
    }
}

fn writes(work: &Work) -> &[Write] {
    match work {
        Work::OpenSession { .. } => &[],
        Work::Write { writes, .. } => writes,
    }
}
