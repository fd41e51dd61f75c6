//! What a replica keeps in its log, as a coordinator and as a participant.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::message::{Age, Decision, TxnId, Work};
use crate::contract::NodeId;
use crate::request::Stamp;
pub use crate::sessions::SessionState;

/// One record. Presumed abort: nothing before a commit and nothing of an abort is kept by the
/// coordinator, not even its own vote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A new incarnation, which is the epoch of its transactions; durable before the first of them.
    Started {
        /// One more than the last.
        incarnation: u64,
    },
    /// As a participant: the promise to commit if told so, with all that is needed to do it. Durable
    /// before the vote.
    Prepared(Prepared),
    /// As the coordinator: the decision to commit, and in the same record this replica's own promise.
    /// The moment at which the transaction happens.
    Committed(Committed),
    /// The outcome of a prepared transaction was carried out on this replica's copy; of a committed
    /// one, on the coordinator's own. Of one that never was prepared here: the promise never to vote
    /// yes on it (always an abort).
    Decided {
        /// Which.
        txn: TxnId,
        /// How it ended.
        decision: Decision,
    },
    /// As the coordinator: every participant has acknowledged: nobody will ask again.
    Ended {
        /// Which.
        txn: TxnId,
    },
    /// A write was refused because of a precondition, and this replica will not let another try of
    /// it happen. Durable before the client is told.
    Refused {
        /// Of the client's request.
        stamp: Stamp,
        /// Which of its preconditions did not hold, from 0.
        precondition: u32,
    },
    /// All that the records before it say and is still needed.
    Checkpoint(Checkpoint),
}

/// A transaction that a participant has promised to commit if told so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Which.
    pub txn: TxnId,
    /// How old it is.
    pub age: Age,
    /// All replicas, the coordinator included.
    pub participants: Arc<[NodeId]>,
    /// What a commit does here.
    pub work: Arc<Work>,
    /// As in the prepare message.
    pub finished_below: TxnId,
}

/// A transaction that this replica has decided to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Which.
    pub txn: TxnId,
    /// How old it is.
    pub age: Age,
    /// Who has to be told, until each has acknowledged: all replicas but this one.
    pub participants: Arc<[NodeId]>,
    /// What it does on every replica.
    pub work: Arc<Work>,
}

/// A replica's whole durable state, without the data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// The newest incarnation.
    pub incarnation: u64,
    /// The Lamport clock.
    pub clock: u64,
    /// In doubt, or soon to be: promised to others.
    pub prepared: Vec<Prepared>,
    /// Outcomes of others' transactions, not yet known to be over everywhere.
    pub decided: Vec<(TxnId, Decision)>,
    /// Of each other coordinator that was heard of, below what everything is over.
    pub finished_below: Vec<TxnId>,
    /// Own commits that are not over.
    pub committed: Vec<CommittedState>,
    /// All sessions.
    pub sessions: SessionTable,
}

/// A commit of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedState {
    /// Which.
    pub txn: TxnId,
    /// How old it is.
    pub age: Age,
    /// Who has to be told, until each has acknowledged.
    pub participants: Arc<[NodeId]>,
    /// What it does, if that was not carried out on this replica's own copy before the checkpoint.
    pub work: Option<Arc<Work>>,
}

/// The sessions of a checkpoint, least recently used first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionTable {
    /// One more than the greatest number of a session that was opened.
    pub next_client: u64,
    /// Each open session.
    pub sessions: Vec<SessionState>,
}
