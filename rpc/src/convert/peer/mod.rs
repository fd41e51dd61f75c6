//! `peer.capnp`: what nodes say to each other, one file for each protocol.
//!
//! Links carry the messages of whichever protocol a process runs. They know them as [`PeerMessage`]
//! on the way out and as [`Delivery`] on the way in; a node knows its own protocol's alone, and
//! [`Carried`] is where the two meet.

pub(crate) mod any_replica;
mod catch_up;
mod hello;
pub(crate) mod paxos;
pub(crate) mod two_phase;

use bytes::Bytes;
use kvorum_replication::paxos::message::Message as PaxosMessage;
use kvorum_replication::two_phase::any_replica::message::Message as AnyReplicaMessage;
use kvorum_replication::two_phase::message::Message as TwoPhaseMessage;
use kvorum_replication::{Key, Protocol};

use super::{KEY_BYTES_MAX, Rejected};

pub(crate) use hello::{Hello, VERSION, read_hello, write_hello};

/// A message from node to node, of any protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerMessage {
    /// Of two-phase commit with a coordinator.
    TwoPhase(TwoPhaseMessage),
    /// Of two-phase commit through any replica.
    AnyReplica(AnyReplicaMessage),
    /// Of Multi-Paxos.
    Paxos(PaxosMessage),
}

/// Messages of one protocol that came together, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Of two-phase commit with a coordinator.
    TwoPhase(Vec<TwoPhaseMessage>),
    /// Of two-phase commit through any replica.
    AnyReplica(Vec<AnyReplicaMessage>),
    /// Of Multi-Paxos.
    Paxos(Vec<PaxosMessage>),
}

/// The messages of a protocol that links can carry.
pub trait Carried: Into<PeerMessage> + Send + Sized + 'static {
    /// Whose messages they are.
    const PROTOCOL: Protocol;

    /// What was delivered, if it is of this protocol.
    fn of(delivery: Delivery) -> Option<Vec<Self>>;
}

impl From<TwoPhaseMessage> for PeerMessage {
    fn from(message: TwoPhaseMessage) -> Self {
        Self::TwoPhase(message)
    }
}

impl From<AnyReplicaMessage> for PeerMessage {
    fn from(message: AnyReplicaMessage) -> Self {
        Self::AnyReplica(message)
    }
}

impl From<PaxosMessage> for PeerMessage {
    fn from(message: PaxosMessage) -> Self {
        Self::Paxos(message)
    }
}

impl Carried for TwoPhaseMessage {
    const PROTOCOL: Protocol = Protocol::TwoPhase;

    fn of(delivery: Delivery) -> Option<Vec<Self>> {
        match delivery {
            Delivery::TwoPhase(messages) => Some(messages),
            Delivery::AnyReplica(_) | Delivery::Paxos(_) => None,
        }
    }
}

impl Carried for AnyReplicaMessage {
    const PROTOCOL: Protocol = Protocol::AnyReplica;

    fn of(delivery: Delivery) -> Option<Vec<Self>> {
        match delivery {
            Delivery::AnyReplica(messages) => Some(messages),
            Delivery::TwoPhase(_) | Delivery::Paxos(_) => None,
        }
    }
}

impl Carried for PaxosMessage {
    const PROTOCOL: Protocol = Protocol::Paxos;

    fn of(delivery: Delivery) -> Option<Vec<Self>> {
        match delivery {
            Delivery::Paxos(messages) => Some(messages),
            Delivery::TwoPhase(_) | Delivery::AnyReplica(_) => None,
        }
    }
}

impl PeerMessage {
    /// About how many bytes it takes on the wire.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::TwoPhase(message) => two_phase::message_bytes(message),
            Self::AnyReplica(message) => any_replica::message_bytes(message),
            Self::Paxos(message) => paxos::message_bytes(message),
        }
    }
}

impl Delivery {
    /// About how many bytes they take on the wire.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::TwoPhase(messages) => messages.iter().map(two_phase::message_bytes).sum(),
            Self::AnyReplica(messages) => messages.iter().map(any_replica::message_bytes).sum(),
            Self::Paxos(messages) => messages.iter().map(paxos::message_bytes).sum(),
        }
    }
}

/// Where a piece of a snapshot begins: behind a key, which may be one of the longest.
fn place(bytes: &[u8]) -> Result<Key, Rejected> {
    match bytes.len() > KEY_BYTES_MAX + 1 {
        true => Err(Rejected::Invalid(format!(
            "a place of {} bytes in a snapshot; keys have at most {KEY_BYTES_MAX}",
            bytes.len()
        ))),
        false => Ok(Bytes::copy_from_slice(bytes)),
    }
}
