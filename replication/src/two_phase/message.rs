//! What coordinator and participants say to each other.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use core::fmt;
use core::time::Duration;

use super::record::{Pledge, Replicated};
use crate::contract::{NodeId, SnapshotId, Time};
use crate::request::{Answer, Key, Query, Stamp, Transaction};
use crate::transfer::Piece;

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
    /// Whether this replica has lost what it had promised, and takes part in nothing: what it does
    /// not tell of it may have promised all the same.
    pub is_outside: bool,
}

/// A commit, with what it wrote, for a replica that missed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Its place in the serial order.
    pub number: CommitNumber,
    /// Which transaction.
    pub txn: TxnId,
    /// Of a parallel commit, what its coordinator may have lost with the record of it.
    pub pledge: Option<Pledge>,
    /// What it wrote. Its preconditions held, and say nothing any more: they do not travel.
    pub transaction: Arc<Transaction>,
}

/// A piece of a snapshot: the rows of a replica, and what follows besides from the commits that it
/// had applied. The name of the snapshot means something to the donor only.
pub type SnapshotPiece = Piece<Replicated>;

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
    /// Replica to replica: it misses commits from this one on.
    FetchCommits {
        /// The first that it misses.
        from: CommitNumber,
    },
    /// An answer to [`Message::FetchCommits`]: some of them, without a gap; none if there are none.
    Commits {
        /// As asked.
        from: CommitNumber,
        /// From there on.
        commits: Vec<Commit>,
        /// The newest that the sender has applied.
        applied: CommitNumber,
        /// As the sender knows it of the coordinator. What is committed below is applied there.
        finished_below: TxnId,
        /// Of the coordinator that the numbers are from, as in [`Message::Decide`].
        epoch: u64,
    },
    /// An answer to [`Message::FetchCommits`]: the sender does not have them any more.
    Truncated {
        /// The first that it has.
        first: CommitNumber,
    },
    /// Replica to replica: asks for a piece of a snapshot.
    FetchSnapshot {
        /// Of this one; of the newest, if none is named.
        snapshot: Option<SnapshotId>,
        /// Rows from this key on.
        from: Key,
    },
    /// The answer to [`Message::FetchSnapshot`].
    SnapshotPiece(SnapshotPiece),
    /// The answer to [`Message::FetchSnapshot`] of one that is not held any more: begin anew.
    SnapshotGone {
        /// Which.
        snapshot: SnapshotId,
    },
    /// Replica to coordinator: this one has lost what it had promised, takes part in nothing, and
    /// asks to be let in again.
    Outside {
        /// Which life of the replica this is; greater than those before it.
        life: u64,
        /// How far it has come.
        applied: CommitNumber,
        /// The newest epoch that the rows which it has taken over had promised: no number is from
        /// before. What it has promised itself a coordinator may not have heard.
        promised: u64,
    },
    /// Coordinator to replica: there are commits up to here.
    CatchUp {
        /// The newest.
        to: CommitNumber,
        /// What the replica has applied may have other numbers at the others: it needs their rows.
        anew: bool,
    },
    /// Coordinator to a replica outside: it takes part from here on.
    Join {
        /// The life that was let in; no other is.
        life: u64,
        /// In this transaction and all later ones. What the replica promised in an earlier life on
        /// transactions before is void: they are over, or committed up to `serve_from`.
        from: TxnId,
        /// It promises and reads nothing before it has applied this commit.
        serve_from: CommitNumber,
        /// It is in this view.
        view: u64,
        /// As in [`ViewMessage::Announce`]: it may not have heard of that view before.
        others: usize,
    },
    /// Of views and leases.
    View(ViewMessage),
}

/// What is said of views, and of the leases under which replicas serve fresh reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewMessage {
    /// Coordinator to a member: there is this view. Repeated until the replica says that it knows it.
    Announce {
        /// Its number.
        view: u64,
        /// Without a lease so many others have to be asked.
        others: usize,
    },
    /// Replica to coordinator: it is there, and asks for a lease.
    Renew {
        /// Of the replica; its clock begins anew with each.
        incarnation: u64,
        /// The time by its clock.
        at: Time,
        /// The newest view that it knows, durably.
        view: u64,
        /// How far it has come.
        applied: CommitNumber,
    },
    /// The answer to [`ViewMessage::Renew`]: fresh reads may be served for so long from then on.
    Grant {
        /// As in the question.
        incarnation: u64,
        /// As in the question.
        at: Time,
        /// For how long.
        lease: Duration,
    },
    /// Coordinator to a replica that is not in this view: it was left out, and takes part in nothing.
    Excluded {
        /// The view's number.
        view: u64,
        /// As in [`ViewMessage::Announce`].
        others: usize,
    },
    /// Replica to replica: which view do you know?
    Ask {
        /// The sender's name for the question; unique within its incarnation.
        round: u64,
        /// Of the sender.
        incarnation: u64,
    },
    /// The answer to [`ViewMessage::Ask`].
    Heard {
        /// As in the question.
        round: u64,
        /// As in the question.
        incarnation: u64,
        /// The newest that the sender has heard of.
        view: u64,
    },
}

/// Each write is six messages, and each of them is moved from queue to queue: what is large and rare
/// stands behind a pointer.
const _: () = assert!(size_of::<Message>() <= 88);
