//! What coordinator and participants say to each other.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use core::fmt;

use crate::contract::NodeId;
use crate::request::{Answer, Key, Query, Stamp, Transaction};

/// Names a transaction, for ever: the epoch is persisted before the first transaction of it, so a
/// restarted coordinator never reuses a number. Of one coordinator, later transactions are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxnId {
    /// Who decides it.
    pub coordinator: NodeId,
    /// The coordinator's incarnation.
    pub epoch: u64,
    /// Counts from 1 within the epoch.
    pub number: u64,
}

impl TxnId {
    /// Not above any transaction of the coordinator process.
    pub const FIRST: Self = Self { coordinator: NodeId::COORDINATOR, epoch: 0, number: 0 };
}

impl fmt::Display for TxnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}.{}.{}", self.coordinator.0, self.epoch, self.number)
    }
}

/// Counts a coordinator's commits from 1, over all its epochs and without gaps: the serial order.
/// Participants apply commits in this order, whatever order they hear of them in, so that what a
/// replica holds is always a prefix of one history, the same for all (see the module's page).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitNumber(pub u64);

impl CommitNumber {
    /// Before the first commit.
    pub const ZERO: Self = Self(0);

    /// The number of the commit that follows this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for CommitNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Decision {
    /// All of it happened, at this place in the serial order.
    Commit(CommitNumber),
    /// None of it did.
    Abort,
}

/// Asks a participant to make a transaction durable and vote on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepare {
    /// Which.
    pub txn: TxnId,
    /// Everybody who votes, so that participants in doubt know whom to ask (BHG §7.4).
    pub participants: Arc<[NodeId]>,
    /// What it checks and writes.
    pub transaction: Arc<Transaction>,
    /// The request's stamp, when this participant is the only one and therefore decides: it commits
    /// at once instead of voting, and itself answers for retries.
    pub one_phase: Option<OnePhase>,
    /// The request's stamp, if the transaction is committed as soon as all promises are durable.
    pub parallel: Option<Parallel>,
    /// Of this coordinator, everything below is over: committed and acknowledged by all, or aborted.
    pub finished_below: TxnId,
}

/// Marks a prepare that the receiver may decide alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnePhase {
    /// The client's stamp, if it gave one.
    pub stamp: Option<Stamp>,
}

/// Marks a transaction that is committed once every participant's promise is durable, before its
/// coordinator has written anything down (parallel commit). The promises have to name all that the
/// coordinator's own record would: everybody who promises, the writes, and the stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parallel {
    /// The client's stamp, if it gave one.
    pub stamp: Option<Stamp>,
}

/// A participant's answer to a [`Prepare`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vote {
    /// Durable and locked: it will do as it is told, however long that takes.
    Yes,
    /// Another transaction holds this key; nothing is kept.
    Conflict(Key),
    /// A precondition does not hold; nothing is kept.
    PreconditionFailed {
        /// Its place in the list, from 0.
        index: u32,
        /// The key it speaks of.
        key: Key,
    },
    /// It may not vote yes on this one any more: it is over, or was given up.
    Refused,
    /// Too much is prepared here already; nothing is kept.
    Overloaded,
    /// There is no room on the disk to remember a promise; nothing is kept.
    DiskFull,
    /// The store could not be read; nothing is kept.
    Failed(String),
    /// One phase: it is committed, durably.
    Committed,
}

/// What a node knows of a transaction it is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knowledge {
    /// It is decided.
    Decided(Decision),
    /// Voted yes and waits, like the one who asks; or, from the coordinator, not decided yet.
    Undecided,
}

/// What a participant tells a restarted coordinator of one parallel transaction that it has promised
/// to commit: durable, and not to be undone by the participant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recalled {
    /// Which.
    pub txn: TxnId,
    /// Everybody who votes on it.
    pub participants: Arc<[NodeId]>,
    /// Of the client's request.
    pub stamp: Option<Stamp>,
    /// Its place in the serial order, if the participant was told.
    pub number: Option<CommitNumber>,
}

/// The answer to [`Message::Recover`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// As in the question.
    pub epoch: u64,
    /// As in the question.
    pub first: TxnId,
    /// The newest commit applied here.
    pub applied: CommitNumber,
    /// Parallel transactions of older epochs from there on, in order.
    pub recalled: Vec<Recalled>,
    /// Where to go on; none if these were the last.
    pub next: Option<TxnId>,
}

/// Everything that travels between the nodes of a two-phase commit cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Coordinator to participant. All of them are sent the same one.
    Prepare(Arc<Prepare>),
    /// Participant to coordinator.
    Vote {
        /// On which.
        txn: TxnId,
        /// How.
        vote: Vote,
    },
    /// Coordinator to participant. A commit is repeated until acknowledged; an abort is not
    /// (presumed abort, Mohan, Lindsay and Obermarck 1986 §3).
    Decide {
        /// Which.
        txn: TxnId,
        /// How it ended.
        decision: Decision,
        /// As in [`Prepare::finished_below`].
        finished_below: TxnId,
        /// Of the coordinator when it says so. A number that a parallel commit was given in an
        /// earlier epoch means nothing to who has promised a later one.
        epoch: u64,
    },
    /// Participant to coordinator: the commit is durable here.
    Acknowledge {
        /// Which.
        txn: TxnId,
    },
    /// A participant in doubt asks the coordinator, or another participant.
    Inquire {
        /// About which.
        txn: TxnId,
    },
    /// The answer to [`Message::Inquire`].
    Inform {
        /// About which.
        txn: TxnId,
        /// What the sender knows.
        knowledge: Knowledge,
        /// Of the coordinator that the sender has it from, as in [`Message::Decide`].
        epoch: u64,
    },
    /// Coordinator to participant: read on behalf of a client.
    Read {
        /// The coordinator's name for it; unique within its epoch.
        read: u64,
        /// The coordinator's epoch, so that an answer to its predecessor is not taken for its own.
        epoch: u64,
        /// What is asked.
        query: Box<Query>,
    },
    /// The answer to [`Message::Read`].
    ReadAnswer {
        /// As in the question.
        read: u64,
        /// As in the question.
        epoch: u64,
        /// What the participant holds.
        answer: Answer,
    },
    /// A restarted coordinator to every participant: promise never to prepare anything of an older
    /// epoch from now on, and then tell what of theirs you have prepared.
    Recover {
        /// The coordinator's new epoch.
        epoch: u64,
        /// The first transaction to tell of; earlier ones were told.
        first: TxnId,
    },
    /// The answer to [`Message::Recover`]: the promise is durable.
    Recovered(Box<Recovered>),
}

/// Each write is six messages, and each of them is moved from queue to queue: what is large and rare
/// stands behind a pointer.
const _: () = assert!(size_of::<Message>() <= 88);
