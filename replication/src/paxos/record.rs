//! What a replica keeps in its log.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::message::{Ballot, Batch, Member, Slot};
use crate::contract::SnapshotId;
pub use crate::sessions::{SessionState, Settled};

/// What a replica keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A new incarnation.
    Started {
        /// One more than the last.
        incarnation: u64,
        /// Under which life this node's acceptor votes.
        life: u64,
    },
    /// Nothing below this ballot will be accepted. Durable before anybody is told.
    Promised {
        /// The highest.
        ballot: Ballot,
    },
    /// The acceptor's vote, and the one place where the value is written. Durable before anybody is
    /// told. It implies the promise of its ballot.
    Accepted {
        /// Where.
        slot: Slot,
        /// With which ballot.
        ballot: Ballot,
        /// What.
        batch: Arc<Batch>,
    },
    /// Chosen by others, as one who knows has told: for a slot in which this node accepted nothing,
    /// or something else.
    Learned {
        /// Where.
        slot: Slot,
        /// What.
        batch: Arc<Batch>,
    },
    /// Everything up to this slot is chosen and was applied. Not forced: what is lost of it is
    /// learnt again. It names the transactions that were refused, since recovery must not evaluate
    /// preconditions: the store may be ahead of the log then.
    Chosen {
        /// The last slot applied.
        slot: Slot,
        /// Since the record of this kind before it, in their order.
        refused: Vec<Refusal>,
    },
    /// The acceptor has lost what it knew, on purpose.
    Forgot {
        /// Under which life it votes from now on.
        life: u64,
    },
    /// All that the records before it say and is still needed, but for what was accepted behind the
    /// applied slots: that is written again right behind it.
    Checkpoint(Checkpoint),
    /// A snapshot is staged, and replaces everything applied before. A checkpoint as well.
    Installed(Checkpoint),
}

/// A transaction that was chosen and did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    /// Where it was chosen.
    pub slot: Slot,
    /// Its place in the batch, from 0.
    pub index: u32,
    /// Which of its preconditions did not hold, from 0.
    pub precondition: u32,
}

/// A replica's whole durable state, without rows and without what it has accepted in open slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The newest incarnation.
    pub incarnation: u64,
    /// Under which life the acceptor votes.
    pub life: u64,
    /// The highest ballot promised.
    pub promised: Ballot,
    /// What follows from the batches applied.
    pub replicated: Arc<Replicated>,
}

/// What follows from the batches up to a slot, besides the rows: the same on every replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replicated {
    /// The last slot applied.
    pub applied: Slot,
    /// Who the acceptors are, from which slot on: the first entry covers the slot behind `applied`.
    pub members: Vec<(Slot, Arc<[Member]>)>,
    /// The number of the next session.
    pub next_client: u64,
    /// Sessions, least recently used first.
    pub sessions: Vec<SessionState>,
}

impl Replicated {
    /// The snapshot whose rows belong to it.
    #[must_use]
    pub fn snapshot(&self) -> SnapshotId {
        SnapshotId(self.applied.0)
    }
}
