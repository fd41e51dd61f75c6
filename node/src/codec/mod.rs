//! How protocol records are laid out in the log: one file for each protocol.
//!
//! The cores know no bytes and the engine knows no records; this is where the two meet. Every
//! record has a kind of its own, kept for ever: a changed layout takes a new kind.

mod any_replica;
mod fields;
mod paxos;
mod two_phase;

pub(crate) use self::paxos::installs as paxos_installs;
pub(crate) use self::two_phase::installs as two_phase_installs;

use bytes::Bytes;
use kvorum_replication::Protocol;
use kvorum_replication::paxos::record::Record as PaxosRecord;
use kvorum_replication::two_phase::any_replica::record::Record as AnyReplicaRecord;
use kvorum_replication::two_phase::record::{CoordinatorRecord, ParticipantRecord};
use kvorum_storage::codec::Malformed;

/// A record that can live in a log.
pub trait StoredRecord: Sized {
    /// The kind under which it is stored, and its bytes, appended to `payload`.
    fn encode(&self, payload: &mut Vec<u8>) -> u8;

    /// The record that was stored; slices of it share `payload`.
    fn decode(kind: u8, payload: &Bytes) -> Result<Self, Malformed>;

    /// Whether recovery may begin with a record of this kind.
    fn is_checkpoint(kind: u8) -> bool;
}

/// Whether recovery of a node, of whatever protocol and role, may begin with a record of this kind:
/// kinds are unique over all of them.
pub(crate) fn is_checkpoint(kind: u8) -> bool {
    CoordinatorRecord::is_checkpoint(kind)
        || ParticipantRecord::is_checkpoint(kind)
        || PaxosRecord::is_checkpoint(kind)
        || AnyReplicaRecord::is_checkpoint(kind)
}

/// How the cluster replicates whose nodes have records of this kind.
pub(crate) fn protocol_of(kind: u8) -> Protocol {
    match kind {
        kind if paxos::KINDS.contains(&kind) => Protocol::Paxos,
        kind if any_replica::KINDS.contains(&kind) => Protocol::AnyReplica,
        _ => Protocol::TwoPhase,
    }
}
