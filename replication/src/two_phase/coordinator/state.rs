//! What the coordinator remembers of one transaction and of one read.

use alloc::sync::Arc;
use alloc::vec::Vec;

use smallvec::SmallVec;

use super::batches::Membership;
use crate::contract::{NodeId, RequestId, Time};
use crate::request::{Failure, Query, Stamp, Transaction};
use crate::two_phase::locks::LockSet;
use crate::two_phase::message::CommitNumber;

/// Some of the replicas. Few clusters have more than this, and theirs are counted in memory of their
/// own.
pub(super) type Nodes = SmallVec<[NodeId; 5]>;

/// Requests that wait for one outcome: one, but for retries.
pub(super) type Waiters = SmallVec<[RequestId; 2]>;

/// A transaction that is not over.
#[derive(Clone, Debug)]
pub(super) struct Active {
    pub(super) phase: Phase,
    /// Everybody who votes on it.
    pub(super) participants: Arc<[NodeId]>,
    /// Until the commit is durable; then the sessions know it.
    pub(super) stamp: Option<Stamp>,
    /// The request, and retries of it that came meanwhile.
    pub(super) waiters: Waiters,
    /// What it holds in the coordinator's lock table.
    pub(super) locks: LockSet,
    /// What it counts in the coordinator's bytes in flight.
    pub(super) bytes: usize,
    pub(super) alarm: Option<Time>,
    pub(super) batch: Membership,
    /// What it is, while a vote may be waited for that was asked over a broken link.
    pub(super) transaction: Option<Arc<Transaction>>,
}

/// How far a transaction has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing is decided.
    Voting {
        /// Whose vote is missing.
        missing: Nodes,
    },
    /// One phase: the only participant decides, and has not said how.
    Alone,
    /// The commit is in the log and may not be durable, and nobody is told. There is no way back.
    Committing { number: CommitNumber },
    /// The commit is durable, by its record here or by everybody's promise, and told.
    Committed {
        number: CommitNumber,
        /// Who may not have it.
        unacknowledged: Nodes,
        /// Whether the record is durable: before, nobody may forget what he promised.
        recorded: bool,
    },
    /// The abort of a parallel transaction is in the log and may not be durable.
    Aborting {
        /// Why.
        failure: Failure,
    },
}

/// A read that waits for a replica.
#[derive(Clone, Debug)]
pub(super) struct PendingRead {
    pub(super) request: RequestId,
    pub(super) query: Query,
    pub(super) deadline: Time,
    /// Whom it was sent to last.
    pub(super) asked: NodeId,
    /// Who could not read its store.
    pub(super) failed: Vec<NodeId>,
    pub(super) alarm: Time,
}
