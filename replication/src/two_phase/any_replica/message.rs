//! What replicas say to each other.
//!
//! Each transaction has one coordinator, the replica that a client asked; the others are its
//! participants. A replica is both at once, for different transactions.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

pub use crate::sessions::Settled;
pub use crate::two_phase::message::TxnId;

use crate::contract::NodeId;
use crate::request::{ClientId, Key, Stamp, Write};

/// When a transaction began, on a Lamport clock: who is older wins (Rosenkrantz, Stearns and Lewis
/// 1978, "wait-die"). One that died keeps its age when it is tried again under another number, so
/// it becomes the oldest in time and cannot lose for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Age {
    /// One more than the greatest that its coordinator had heard of.
    pub clock: u64,
    /// The name of its first try. Makes ages unique, for ever.
    pub first: TxnId,
}

impl Age {
    /// Whether this one wins over the other.
    #[must_use]
    pub fn is_older_than(&self, other: &Self) -> bool {
        self < other
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.first, self.clock)
    }
}

/// How a transaction ended. There are no numbers: see the module's page for why reads need none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Decision {
    /// All of it happened.
    Commit,
    /// None of it did.
    Abort,
}

/// What a transaction does on every replica. Preconditions are not part of it: its coordinator has
/// judged them, under locks that it holds on its own copy until the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// A client's session begins.
    OpenSession {
        /// Whose. A number that only this coordinator gives out.
        client: ClientId,
    },
    /// A client writes.
    Write {
        /// Of the client's request; every replica remembers it, so that a retry at any of them is
        /// answered instead of repeated.
        stamp: Option<Stamp>,
        /// In order; the last write of a key wins. Never empty.
        writes: Vec<Write>,
        /// Keys that preconditions speak of and no write does: locked for writers only.
        checked: Vec<Key>,
    },
}

/// Asks a participant to promise a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepare {
    /// Which.
    pub txn: TxnId,
    /// How old it is.
    pub age: Age,
    /// All replicas, the coordinator included, so that who is in doubt knows whom to ask.
    pub participants: Arc<[NodeId]>,
    /// What it does.
    pub work: Arc<Work>,
    /// Of this coordinator, everything below is over: committed and acknowledged by all, or aborted.
    pub finished_below: TxnId,
}

/// A participant's answer to a [`Prepare`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vote {
    /// Durable and locked: it will do as it is told, however long that takes.
    Yes,
    /// It died: an older transaction, or a read that has waited for long, wants this key. Nothing is
    /// kept.
    Conflict(Key),
    /// It died: another try of the same write is in flight, or its session is being opened. Nothing
    /// is kept.
    InFlight,
    /// This very write was settled before. Nothing is kept.
    Settled(Settled),
    /// The client said it would not ask for this write again. Nothing is kept.
    StaleSequence,
    /// The session is not known here. Nothing is kept.
    SessionExpired,
    /// It may not vote yes on this one any more: it is over, or was given up.
    Refused,
    /// Too much is prepared or waits here already. Nothing is kept.
    Overloaded,
    /// There is no room on the disk to remember a promise. Nothing is kept.
    DiskFull,
    /// It takes no part: it is starting, or its log contradicts itself. Nothing is kept.
    Absent,
}

/// What a replica knows of a transaction that it is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knowledge {
    /// It is decided.
    Decided(Decision),
    /// Voted yes and waits, like the one who asks; or, from the coordinator, not decided yet.
    Undecided,
}

/// Everything that travels between the replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Coordinator to participant.
    Prepare(Prepare),
    /// Participant to coordinator.
    Vote {
        /// On which.
        txn: TxnId,
        /// How.
        vote: Vote,
        /// The participant's clock, so that transactions that begin later are younger.
        clock: u64,
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
    },
}
