//! What a participant remembers of one transaction and of one read.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::contract::{NodeId, ReadId, RequestId, Time};
use crate::request::{Query, Stamp, Transaction, Writes};
use crate::two_phase::locks::LockSet;
use crate::two_phase::message::{Commit, CommitNumber, Decision, OnePhase, Parallel, TxnId};
use crate::two_phase::record::{Pledge, Prepared};

/// A transaction whose prepare has come and whose outcome has not.
#[derive(Clone, Debug)]
pub(super) struct Promised {
    pub(super) participants: Arc<[NodeId]>,
    pub(super) transaction: Arc<Transaction>,
    pub(super) parallel: Option<Parallel>,
    pub(super) finished_below: TxnId,
    pub(super) locks: LockSet,
    /// What it counts in the participant's bytes prepared.
    pub(super) bytes: usize,
    pub(super) stage: Stage,
}

impl Promised {
    /// What the log keeps of it.
    pub(super) fn record(&self, txn: TxnId) -> Prepared {
        Prepared {
            txn,
            participants: self.participants.clone(),
            writes: Writes::Of(Arc::clone(&self.transaction)),
            checked: self.locks.shared.clone(),
            finished_below: self.finished_below,
            parallel: self.parallel,
        }
    }

    /// What has to be kept of it when it is committed, for a coordinator that loses its record.
    pub(super) fn pledge(&self) -> Option<Pledge> {
        let Parallel { stamp } = self.parallel?;
        Some(Pledge { participants: self.participants.clone(), stamp })
    }
}

/// How far it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The store is asked about the preconditions; nothing is promised.
    Checking { read: ReadId, one_phase: Option<OnePhase> },
    /// The promise is in the log, and may not be durable: the vote has not gone out, so nobody can
    /// have decided to commit, and a read need not wait.
    Logging,
    /// The vote is out. Only others can say how this ends.
    Prepared {
        /// From here on it counts as in doubt.
        doubt_from: Time,
        /// When it asks for the outcome next.
        alarm: Option<Time>,
        /// How often it has asked.
        inquiries: u32,
        /// Reads that wait for it.
        reads: BTreeSet<ReadId>,
        /// It is decided, and waits for the commit before it.
        commit: Option<Told>,
    },
    /// One phase: the commit is in the log, and may not be durable.
    Alone(Alone),
}

/// A one-phase commit under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Alone {
    pub(super) stamp: Option<Stamp>,
    /// Later transactions of the same stamp, which get the same vote.
    pub(super) retries: Vec<TxnId>,
}

/// A commit whose turn has not come.
#[derive(Clone, Debug)]
pub(super) enum Early {
    /// It is prepared here.
    Prepared(TxnId),
    /// Another replica has passed it on.
    Learned {
        commit: Commit,
        /// Of the coordinator that its number comes from.
        epoch: u64,
    },
}

/// A commit's number, as it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) number: CommitNumber,
    /// Of the coordinator that it comes from.
    pub(super) epoch: u64,
}

/// An outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decided {
    pub(super) decision: Decision,
    pub(super) durable: bool,
    /// Of the coordinator that it comes from.
    pub(super) epoch: u64,
    /// Of a parallel commit.
    pub(super) pledge: Option<Pledge>,
}

impl Decided {
    /// One that no coordinator will ask for.
    pub(super) fn new(decision: Decision, durable: bool) -> Self {
        Self { decision, durable, epoch: 0, pledge: None }
    }
}

/// Who wants to know what the store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    Client(RequestId),
    Coordinator { from: NodeId, read: u64, epoch: u64 },
}

/// A read of keys that some transactions in doubt may change.
#[derive(Clone, Debug)]
pub(super) struct WaitingRead {
    pub(super) asker: Asker,
    pub(super) query: Query,
    /// Those that were prepared when it came and have no outcome yet. Later ones do not concern it.
    pub(super) waits_for: BTreeSet<TxnId>,
    pub(super) alarm: Time,
}
