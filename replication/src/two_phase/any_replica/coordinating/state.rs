//! What a coordinator remembers of one errand, and of one commit.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::contract::{NodeId, ReadId, RequestId, Time};
use crate::request::{Outcome, Precondition, Stamp};
use crate::two_phase::any_replica::locks::{Resource, Wanted};
use crate::two_phase::any_replica::message::{Age, TxnId, Work};

/// What a client asked for.
#[derive(Clone, Debug)]
pub(in crate::two_phase::any_replica) struct Errand {
    /// The request, and retries of it that came meanwhile.
    pub(super) waiters: Vec<RequestId>,
    pub(super) stamp: Option<Stamp>,
    pub(super) preconditions: Vec<Precondition>,
    /// Nothing, if there are only preconditions: then it ends with the look at this copy.
    pub(super) work: Option<Arc<Work>>,
    /// What the client is told of a commit.
    pub(super) outcome: Outcome,
    pub(super) wanted: Arc<Wanted>,
    /// What it counts in the bytes in flight.
    pub(super) bytes: usize,
    /// Then it is given up.
    pub(super) deadline: Time,
    /// How often it died after it had asked others.
    pub(super) deaths: u32,
    /// What was in the way last.
    pub(super) obstacle: Option<Resource>,
    pub(in crate::two_phase::any_replica) state: State,
    pub(super) alarm: Option<Time>,
}

/// What an errand waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::two_phase::any_replica) enum State {
    /// Nobody was asked, nothing is held, and there is no claim to anything: so it may wait for
    /// whomever it likes.
    Parked(Resource),
    /// It died of somebody at another replica, and lets some time pass.
    BackingOff,
    /// In the queue for the locks of this replica.
    Waiting(TxnId),
    /// It holds them, and the store is asked about the preconditions.
    Checking(TxnId, ReadId),
    /// Others are asked.
    Voting {
        txn: TxnId,
        /// Whose vote is missing.
        missing: Vec<NodeId>,
    },
    /// A precondition does not hold; the record that says so is not durable.
    Refusing(TxnId),
}

impl State {
    /// The try that is under way.
    pub(in crate::two_phase::any_replica) fn try_under_way(&self) -> Option<TxnId> {
        match self {
            Self::Parked(_) | Self::BackingOff => None,
            Self::Waiting(txn)
            | Self::Checking(txn, _)
            | Self::Voting { txn, .. }
            | Self::Refusing(txn) => Some(*txn),
        }
    }
}

/// Where a write with a stamp is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::two_phase::any_replica) enum Flight {
    Errand(Age),
    /// Its record is not durable yet.
    Commit(TxnId),
}

/// A transaction that is decided to commit.
#[derive(Clone, Debug)]
pub(in crate::two_phase::any_replica) struct Commit {
    pub(in crate::two_phase::any_replica) age: Age,
    /// What it does, until that is done on this copy: then the record is durable, and the locks are
    /// let go.
    pub(in crate::two_phase::any_replica) work: Option<Arc<Work>>,
    /// Retries that came since the record.
    pub(super) waiters: Vec<RequestId>,
    /// Until the commit is durable; then the sessions know it.
    pub(super) stamp: Option<Stamp>,
    /// What it counts in the bytes that are being committed.
    pub(super) bytes: usize,
    /// Who may not have it.
    pub(in crate::two_phase::any_replica) unacknowledged: Vec<NodeId>,
    pub(in crate::two_phase::any_replica) alarm: Option<Time>,
}

impl Commit {
    /// As it is found in the log.
    pub(in crate::two_phase::any_replica) fn recovered(
        age: Age,
        work: Option<Arc<Work>>,
        participants: &[NodeId],
    ) -> Self {
        Self {
            age,
            work,
            waiters: Vec::new(),
            stamp: None,
            bytes: 0,
            unacknowledged: participants.to_vec(),
            alarm: None,
        }
    }
}
