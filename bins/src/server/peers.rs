//! Whether the others that the flags name can be the others of this cluster.

use std::net::SocketAddr;
use std::path::Path;

use kvorum_node::Identity;
use kvorum_replication::{NodeId, Protocol, Role};

use super::arguments::Peer;
use super::error::ServeError;
use super::serve::Setup;

/// Refuses peers that cannot all be there.
pub(super) fn check_peers(flag: &str, peers: &[Peer]) -> Result<(), ServeError> {
    for (index, peer) in peers.iter().enumerate() {
        let earlier = &peers[..index];
        if earlier.iter().any(|other| other.id == peer.id) {
            return Err(ServeError::usage(
                format!("{flag} names replica {} twice", peer.id.0),
                "name each replica once",
            ));
        }
        if let Some(other) = earlier.iter().find(|other| other.address == peer.address) {
            return Err(ServeError::usage(
                format!(
                    "{flag} says that replicas {} and {} both listen on {}",
                    other.id.0, peer.id.0, peer.address
                ),
                "each replica is a process with an address of its own",
            ));
        }
    }
    Ok(())
}

/// Refuses what cannot be the others of a replica among equals, and warns of what is a waste.
pub(super) fn check_others(
    id: NodeId,
    listen: SocketAddr,
    others: &[Peer],
) -> Result<(), ServeError> {
    if others.is_empty() {
        return Err(ServeError::usage(
            "one replica of equals has to know all the others, and there is no --peer",
            "name each of them with --peer ID=ADDR",
        ));
    }
    if others.iter().any(|peer| peer.id == id) {
        return Err(ServeError::usage(
            format!("--peer names replica {}, which is this one", id.0),
            "name only the others; where this one is, --listen and --advertise say",
        ));
    }
    let own = listen.to_string();
    if let Some(peer) = others.iter().find(|peer| peer.address == own) {
        return Err(ServeError::usage(
            format!("--peer says that replica {} is at {own}, where this one listens", peer.id.0),
            "each replica is a process with an address of its own",
        ));
    }
    let count = others.len() + 1;
    if count.is_multiple_of(2) {
        let survives = (count - 1) / 2;
        tracing::warn!(
            "{count} replicas go on without {survives} of them, no more than {} would",
            count - 1
        );
    }
    Ok(())
}

/// Refuses to start as the wrong one on a directory that somebody has started on before.
pub(super) fn check_identity(setup: &Setup<'_>, identity: &Identity) -> Result<(), ServeError> {
    let Setup { claim, data_dir, .. } = setup;
    if claim.life != 0 && identity.life == 0 {
        return Err(ServeError::refused(
            format!(
                "--rejoin is for a replica that has lost its disk, and {} holds what {} had",
                data_dir.display(),
                claim.node
            ),
            "leave --rejoin out, or move the directory away if its data is not to be trusted",
        ));
    }
    match (claim.protocol, claim.role) {
        (_, Role::Coordinator) => check_members(data_dir, "--replica", setup.peers, identity),
        // Before there is a cluster nobody has voted: a slip of the first start may be mended.
        (Protocol::AnyReplica | Protocol::Paxos, Role::Replica) if identity.cluster.is_some() => {
            check_members(data_dir, "--peer", setup.peers, identity)
        }
        (Protocol::TwoPhase | Protocol::AnyReplica | Protocol::Paxos, Role::Replica) => Ok(()),
    }
}

/// The replicas stay the same. With two-phase commit one that is new has none of the rows, and one
/// that is gone would miss what follows; under Multi-Paxos the majorities of two lists need not meet,
/// and two leaders could choose two values in one slot.
fn check_members(
    data_dir: &Path,
    flag: &str,
    peers: &[Peer],
    identity: &Identity,
) -> Result<(), ServeError> {
    let members = identity.members.iter();
    let mut known: Vec<NodeId> = members.map(|(id, _)| *id).collect();
    known.retain(|id| *id != identity.node);
    known.sort_unstable();
    let mut named: Vec<NodeId> = peers.iter().map(|peer| peer.id).collect();
    named.sort_unstable();
    if known.is_empty() || known == named {
        return Ok(());
    }
    let list =
        |ids: &[NodeId]| ids.iter().map(|id| id.0.to_string()).collect::<Vec<_>>().join(", ");
    Err(ServeError::refused(
        format!(
            "the cluster in {} has the {}replicas {}, and {flag} names {}",
            data_dir.display(),
            if identity.role == Role::Replica { "other " } else { "" },
            list(&known),
            list(&named)
        ),
        "name exactly those (their addresses may change): the replicas of the first start are the \
         members",
    ))
}
