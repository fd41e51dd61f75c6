//! What replicas say to each other, and the nouns they say it with.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use super::failing::PaxosRole;
use super::record::Replicated;
use crate::contract::{NodeId, SnapshotId};
use crate::request::{Key, Stamp, Transaction};
use crate::transfer::Piece;

/// The number of a proposal (Paxos Made Simple §2.2): rounds first, so that one can always outbid
/// what one has heard of; then the node, so that no two proposers share a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballot {
    /// Counts from 1.
    pub round: u64,
    /// Whose it is.
    pub node: NodeId,
}

impl Ballot {
    /// Below every proposal.
    pub const ZERO: Self = Self { round: 0, node: NodeId(0) };

    /// The first ballot of a node above this one.
    #[must_use]
    pub fn outbid_by(self, node: NodeId) -> Self {
        Self { round: self.round.saturating_add(1), node }
    }
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.round, self.node.0)
    }
}

/// A place in the one order of all batches: an instance of the consensus algorithm (Paxos Made
/// Simple §3). The first is 1. Slots are applied in their order, without gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u64);

impl Slot {
    /// Before the first slot.
    pub const ZERO: Self = Self(0);

    /// The slot that follows this one.
    #[must_use]
    pub fn next(self) -> Self {
        self.plus(1)
    }

    /// The slot so many behind this one.
    #[must_use]
    pub fn plus(self, slots: u64) -> Self {
        Self(self.0.saturating_add(slots))
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// An acceptor: a node, and which of its lives. A node that has lost its disk comes back under the
/// same number and a greater life; its votes do not count before a logged command has put it in
/// the place of the old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// How often it has lost what it knew; zero for one that never has.
    pub life: u64,
}

/// One thing to be done in its turn, the same everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Give out a session.
    OpenSession,
    /// Write, if every precondition holds then.
    Transact {
        /// Of the client's request.
        stamp: Option<Stamp>,
        /// What it checks and writes.
        transaction: Arc<Transaction>,
    },
    /// Have these acceptors, from the slot on that is a window behind this one.
    ChangeMembers(Arc<[Member]>),
}

/// What is chosen in a slot: commands that reached the leader together, done in their order. One
/// without commands is a no-op.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The ballot it was first proposed with. Together with the slot it names the batch: one ballot
    /// proposes one batch in a slot, and later ones propose it again as it was.
    pub origin: Ballot,
    /// What to do.
    pub commands: Vec<Command>,
}

impl Batch {
    /// Bytes of its keys and values, and a little for each command.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let bytes = |command: &Command| match command {
            Command::OpenSession => 0,
            Command::Transact { transaction, .. } => transaction.bytes(),
            Command::ChangeMembers(members) => 16 * members.len(),
        };
        self.commands.iter().map(|command| 32_usize.saturating_add(bytes(command))).sum()
    }

    /// Whether it changes the acceptors.
    #[must_use]
    pub fn changes_members(&self) -> bool {
        self.commands.iter().any(|command| matches!(command, Command::ChangeMembers(_)))
    }
}

/// What an acceptor has accepted in a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Where.
    pub slot: Slot,
    /// The ballot it was accepted with, which is not the one promised.
    pub ballot: Ballot,
    /// What.
    pub batch: Arc<Batch>,
}

/// An acceptor's answer to [`Message::Prepare`]: nothing below the ballot will be accepted any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    /// As asked.
    pub ballot: Ballot,
    /// The acceptor's life.
    pub life: u64,
    /// This slot and all before it are chosen and known here; nothing is said about them.
    pub chosen: Slot,
    /// What it has accepted in slots behind that, as far as it was asked, in their order.
    pub accepted: Vec<Accepted>,
    /// There is more from this slot on: ask again from there.
    pub more: Option<Slot>,
}

/// Everything that travels between replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Would you promise this ballot? Nothing is promised by either side (pre-vote, Ongaro §9.6).
    PreVote {
        /// The ballot that the sender would begin.
        ballot: Ballot,
        /// The leader that has asked the sender to take over.
        instead_of: Option<Ballot>,
    },
    /// The answer to [`Message::PreVote`].
    PreVoteAnswer {
        /// As asked.
        ballot: Ballot,
        /// The sender's life.
        life: u64,
        /// Whether it hears no leader either, and could promise.
        granted: bool,
        /// The highest ballot it has heard of.
        seen: Ballot,
    },
    /// Phase 1a: promise this ballot, for all slots, and say what you have accepted.
    Prepare {
        /// The proposer's own, higher than any it has heard of.
        ballot: Ballot,
        /// Tell of slots from here on: the first that the proposer does not know to be chosen, or
        /// where the last answer stopped.
        from: Slot,
    },
    /// Phase 1b.
    Promise(Promise),
    /// Phase 2a: accept this batch.
    Accept {
        /// The leader's.
        ballot: Ballot,
        /// Where.
        slot: Slot,
        /// What.
        batch: Arc<Batch>,
        /// This slot and all before it are chosen.
        chosen: Slot,
    },
    /// Phase 2b: it is accepted, durably.
    Accepted {
        /// As asked.
        ballot: Ballot,
        /// As asked.
        slot: Slot,
        /// The acceptor's life.
        life: u64,
    },
    /// What was asked with a lower ballot is refused: this one is promised.
    Refused {
        /// The highest ballot the sender has promised or follows.
        promised: Ballot,
    },
    /// The leader lives.
    Heartbeat {
        /// The leader's.
        ballot: Ballot,
        /// This slot and all before it are chosen.
        chosen: Slot,
        /// Counts within the ballot.
        round: u64,
    },
    /// The answer to [`Message::Heartbeat`]: when it was given, no higher ballot was promised.
    HeartbeatAck {
        /// As asked.
        ballot: Ballot,
        /// As asked.
        round: u64,
        /// The sender's life.
        life: u64,
    },
    /// The leader would like the receiver to campaign at once, without waiting for silence (Ongaro
    /// §3.10): it stops, or its disk is full.
    TakeOver {
        /// The leader's.
        ballot: Ballot,
    },
    /// How far must one have applied to see everything acknowledged by now? To the leader.
    ReadIndex {
        /// The asker's name for the question.
        name: ReadName,
    },
    /// The answer to [`Message::ReadIndex`].
    ReadIndexIs {
        /// As in the question.
        name: ReadName,
        /// So far.
        index: Slot,
    },
    /// What was chosen from this slot on?
    Learn {
        /// The first slot that the sender does not know.
        from: Slot,
    },
    /// The answer to [`Message::Learn`], as much as fits into a message.
    Learned {
        /// The slot of the first batch.
        from: Slot,
        /// Chosen, one slot after the other.
        batches: Vec<Arc<Batch>>,
        /// This slot and all before it are chosen.
        chosen: Slot,
        /// The ballot of the leader that the sender follows.
        leader: Ballot,
    },
    /// The answer to [`Message::Learn`] when the log no longer reaches back that far: a snapshot is
    /// needed.
    Truncated {
        /// The first slot still there.
        first: Slot,
    },
    /// Send a piece of a snapshot. One at a time is asked for, which is the flow control.
    FetchSnapshot {
        /// Of which; `None` for the newest.
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
    /// This node has lost what it knew as an acceptor, has caught up, and asks to take the place of
    /// its former self.
    Join {
        /// Greater than that of the member it was.
        life: u64,
    },
}

impl Message {
    /// The role that it is for; `None` if it is for the node as a whole.
    #[must_use]
    pub fn addressee(&self) -> Option<PaxosRole> {
        match self {
            Self::PreVote { .. } | Self::Prepare { .. } | Self::Accept { .. } => {
                Some(PaxosRole::Acceptor)
            }
            Self::PreVoteAnswer { .. }
            | Self::Promise(_)
            | Self::Accepted { .. }
            | Self::Refused { .. }
            | Self::HeartbeatAck { .. }
            | Self::TakeOver { .. }
            | Self::ReadIndex { .. }
            | Self::Join { .. } => Some(PaxosRole::Proposer),
            Self::Learn { .. }
            | Self::Learned { .. }
            | Self::Truncated { .. }
            | Self::FetchSnapshot { .. }
            | Self::SnapshotPiece(_)
            | Self::SnapshotGone { .. } => Some(PaxosRole::Learner),
            Self::Heartbeat { .. } | Self::ReadIndexIs { .. } => None,
        }
    }
}

/// Names a read index that was asked for: one that an earlier run of the asker asked for must not
/// be taken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadName {
    /// The asker's incarnation, counted on from its life: greater in each run than in the one before.
    pub incarnation: u64,
    /// Counts within it.
    pub number: u64,
}

/// A piece of a snapshot, which is named by the last slot in it.
pub type SnapshotPiece = Piece<Replicated>;
