//! What a log's records come to: the batches they decide, and what was under way at the end.
//!
//! The same rules by which the cores recover, without what they need for going on.

mod any_replica;
mod paxos;
mod two_phase;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use kvorum_replication::paxos::message::{Ballot, Slot};
use kvorum_replication::paxos::record::Record as PaxosRecord;
use kvorum_replication::two_phase::any_replica::record::Record as AnyReplicaRecord;
use kvorum_replication::two_phase::message::{CommitNumber, TxnId};
use kvorum_replication::two_phase::record::{CoordinatorRecord, ParticipantRecord};
use kvorum_replication::{NodeId, Protocol, Role, Write};
use kvorum_storage::codec::Malformed;
use kvorum_storage::{Batch, ReplayedRecord};

pub(super) use self::paxos::writes;

use self::any_replica::Both;
use self::paxos::Slots;
use self::two_phase::Transactions;
use super::{NodeKind, no_such_node};
use crate::codec::{StoredRecord, is_checkpoint};

/// Something that had not come to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InDoubt {
    /// Under two-phase commit.
    Transaction {
        /// Which.
        txn: TxnId,
        /// Everybody who takes part.
        participants: Arc<[NodeId]>,
        /// This node has decided to commit, and not everybody has said that they know. Else it has
        /// voted yes, and does not know the outcome.
        is_committed: bool,
        /// The commit's number, where a coordinator gives numbers.
        number: Option<CommitNumber>,
        /// On a replica, the keys that it holds locked and would write, in order.
        keys: BTreeSet<Bytes>,
    },
    /// Under Multi-Paxos: a batch that the replica has accepted, and does not know to be chosen.
    Slot {
        /// Where.
        slot: Slot,
        /// With which ballot.
        ballot: Ballot,
        /// So many commands.
        commands: usize,
        /// The keys that it may write, in order.
        keys: BTreeSet<Bytes>,
    },
}

/// How far a replica of Multi-Paxos has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Up to here all that was chosen is in its rows.
    pub applied: Slot,
    /// Up to here it knows what was chosen.
    pub chosen: Slot,
    /// The highest ballot that it has promised.
    pub promised: Ballot,
}

/// Takes a node's records one after the other.
#[derive(Debug)]
pub struct Ledger {
    /// Whether the records so far make a whole state: from the first record, or a checkpoint on.
    whole: bool,
    entries: Entries,
}

#[derive(Debug)]
enum Entries {
    Coordinator(Transactions),
    Participant(Transactions),
    /// The core is large, and there are few ledgers.
    Paxos(Box<Slots>),
    AnyReplica(Box<Both>),
    Unknown(NodeKind),
}

impl Ledger {
    /// An empty one, to be given the records from `first` on. Number and window are those of the
    /// node's identity.
    #[must_use]
    pub fn new(kind: NodeKind, node: NodeId, window: u64, first: u64) -> Self {
        let entries = match (kind.protocol, kind.role) {
            (Protocol::TwoPhase, Role::Coordinator) => {
                Entries::Coordinator(Transactions::default())
            }
            (Protocol::TwoPhase, Role::Replica) => Entries::Participant(Transactions::default()),
            (Protocol::Paxos, Role::Replica) => Entries::Paxos(Box::new(Slots::new(window))),
            (Protocol::AnyReplica, Role::Replica) => Entries::AnyReplica(Box::new(Both::new(node))),
            (Protocol::AnyReplica | Protocol::Paxos, Role::Coordinator) => Entries::Unknown(kind),
        };
        Self { whole: first <= 1, entries }
    }

    /// Takes a record. The answer is the batches that it decides, each with the mark under which the
    /// store is given it.
    pub fn take(&mut self, record: &ReplayedRecord) -> Result<Vec<(u64, Batch)>, String> {
        self.whole |= is_checkpoint(record.kind);
        if !self.whole {
            return Ok(Vec::new());
        }
        let at = record.position.0;
        let written = match &mut self.entries {
            Entries::Coordinator(transactions) => {
                transactions.take_coordinators(decode::<CoordinatorRecord>(record)?);
                Vec::new()
            }
            Entries::Participant(transactions) => {
                let writes =
                    transactions.take_participants(decode::<ParticipantRecord>(record)?)?;
                writes.map(|writes| (at, writes)).into_iter().collect()
            }
            Entries::Paxos(slots) => slots.take(at, decode::<PaxosRecord>(record)?)?,
            Entries::AnyReplica(both) => both.take(at, decode::<AnyReplicaRecord>(record)?)?,
            Entries::Unknown(kind) => return Err(no_such_node(*kind)),
        };
        Ok(written.into_iter().map(|(mark, writes)| (mark, batch(writes))).collect())
    }

    /// Batches that the node itself has decided after the records so far, and will apply when it
    /// starts. Their keys are locked, so their order does not matter.
    #[must_use]
    pub fn decided(&self) -> Vec<Batch> {
        match &self.entries {
            Entries::AnyReplica(both) => {
                both.decided().map(|writes| batch(writes.to_vec())).collect()
            }
            Entries::Coordinator(_)
            | Entries::Participant(_)
            | Entries::Paxos(_)
            | Entries::Unknown(_) => Vec::new(),
        }
    }

    /// What is under way after the records so far.
    #[must_use]
    pub fn in_doubt(&self) -> Vec<InDoubt> {
        match &self.entries {
            Entries::Coordinator(transactions) | Entries::Participant(transactions) => {
                transactions.in_doubt()
            }
            Entries::Paxos(slots) => slots.in_doubt(),
            Entries::AnyReplica(both) => both.in_doubt(),
            Entries::Unknown(_) => Vec::new(),
        }
    }

    /// How far a replica of Multi-Paxos has come; none of anybody else.
    #[must_use]
    pub fn progress(&self) -> Option<Progress> {
        match &self.entries {
            Entries::Paxos(slots) => Some(slots.progress()),
            Entries::Coordinator(_)
            | Entries::Participant(_)
            | Entries::AnyReplica(_)
            | Entries::Unknown(_) => None,
        }
    }
}

fn decode<R: StoredRecord>(record: &ReplayedRecord) -> Result<R, String> {
    R::decode(record.kind, &record.payload).map_err(|Malformed(what)| what.to_owned())
}

fn batch(writes: Vec<Write>) -> Batch {
    let mut batch = Batch::new();
    for write in writes {
        match write {
            Write::Put(key, value) => batch.put(key, value),
            Write::Delete(key) => batch.delete(key),
        };
    }
    batch
}
