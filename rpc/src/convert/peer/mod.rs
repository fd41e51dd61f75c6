//! `peer.capnp`: what nodes say to each other, one file for each protocol.
//!
//! Links carry the messages of whichever protocol a process runs, and know them as [`Delivery`]; a
//! node knows its own protocol's alone, and [`Carried`] is where the two meet.

pub(crate) mod any_replica;
mod catch_up;
mod hello;
pub(crate) mod paxos;
mod runs;
pub(crate) mod two_phase;

use bytes::Bytes;
use kvorum_replication::paxos::message::Message as PaxosMessage;
use kvorum_replication::two_phase::any_replica::message::Message as AnyReplicaMessage;
use kvorum_replication::two_phase::message::Message as TwoPhaseMessage;
use kvorum_replication::{Key, Protocol};

use super::{KEY_BYTES_MAX, Rejected};

pub(crate) use hello::{Hello, VERSION, read_hello, write_hello};

/// Messages of one protocol that go together, in their order.
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
pub trait Carried: Send + Sized + 'static {
    /// Whose messages they are.
    const PROTOCOL: Protocol;

    /// To be delivered together.
    fn together(messages: Vec<Self>) -> Delivery;

    /// What was delivered, if it is of this protocol.
    fn of(delivery: Delivery) -> Option<Vec<Self>>;
}

impl Carried for TwoPhaseMessage {
    const PROTOCOL: Protocol = Protocol::TwoPhase;

    fn together(messages: Vec<Self>) -> Delivery {
        Delivery::TwoPhase(messages)
    }

    fn of(delivery: Delivery) -> Option<Vec<Self>> {
        match delivery {
            Delivery::TwoPhase(messages) => Some(messages),
            Delivery::AnyReplica(_) | Delivery::Paxos(_) => None,
        }
    }
}

impl Carried for AnyReplicaMessage {
    const PROTOCOL: Protocol = Protocol::AnyReplica;

    fn together(messages: Vec<Self>) -> Delivery {
        Delivery::AnyReplica(messages)
    }

    fn of(delivery: Delivery) -> Option<Vec<Self>> {
        match delivery {
            Delivery::AnyReplica(messages) => Some(messages),
            Delivery::TwoPhase(_) | Delivery::Paxos(_) => None,
        }
    }
}

impl Carried for PaxosMessage {
    const PROTOCOL: Protocol = Protocol::Paxos;

    fn together(messages: Vec<Self>) -> Delivery {
        Delivery::Paxos(messages)
    }

    fn of(delivery: Delivery) -> Option<Vec<Self>> {
        match delivery {
            Delivery::Paxos(messages) => Some(messages),
            Delivery::TwoPhase(_) | Delivery::AnyReplica(_) => None,
        }
    }
}

impl Delivery {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::TwoPhase(messages) => messages.len(),
            Self::AnyReplica(messages) => messages.len(),
            Self::Paxos(messages) => messages.len(),
        }
    }

    /// About how many bytes they take on the wire.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::TwoPhase(messages) => messages.iter().map(two_phase::message_bytes).sum(),
            Self::AnyReplica(messages) => messages.iter().map(any_replica::message_bytes).sum(),
            Self::Paxos(messages) => messages.iter().map(paxos::message_bytes).sum(),
        }
    }

    /// How many of the first are within these limits together, and their bytes.
    pub(crate) fn within(&self, messages_max: usize, bytes_max: usize) -> (usize, usize) {
        match self {
            Self::TwoPhase(messages) => {
                within(messages, two_phase::message_bytes, messages_max, bytes_max)
            }
            Self::AnyReplica(messages) => {
                within(messages, any_replica::message_bytes, messages_max, bytes_max)
            }
            Self::Paxos(messages) => {
                within(messages, paxos::message_bytes, messages_max, bytes_max)
            }
        }
    }

    /// Takes off all from this one on.
    pub(crate) fn split_off(&mut self, at: usize) -> Self {
        match self {
            Self::TwoPhase(messages) => Self::TwoPhase(messages.split_off(at)),
            Self::AnyReplica(messages) => Self::AnyReplica(messages.split_off(at)),
            Self::Paxos(messages) => Self::Paxos(messages.split_off(at)),
        }
    }

    /// Adds others behind; gives them back if they are another protocol's.
    pub(crate) fn append(&mut self, others: Self) -> Result<(), Self> {
        match (self, others) {
            (Self::TwoPhase(messages), Self::TwoPhase(mut others)) => messages.append(&mut others),
            (Self::AnyReplica(messages), Self::AnyReplica(mut others)) => {
                messages.append(&mut others);
            }
            (Self::Paxos(messages), Self::Paxos(mut others)) => messages.append(&mut others),
            (_, others) => return Err(others),
        }
        Ok(())
    }
}

fn within<M>(
    messages: &[M],
    bytes: fn(&M) -> usize,
    messages_max: usize,
    bytes_max: usize,
) -> (usize, usize) {
    let mut sum = 0;
    for (index, message) in messages.iter().take(messages_max).enumerate() {
        let bytes = bytes(message);
        if sum + bytes > bytes_max {
            return (index, sum);
        }
        sum += bytes;
    }
    (messages.len().min(messages_max), sum)
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
