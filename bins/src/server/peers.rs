//! Whether the others that the flags name can be the others of this cluster.

use std::net::SocketAddr;
use std::path::Path;

use kvorum_node::{Identity, read_identity};
use kvorum_replication::{NodeId, Protocol, Role};
use kvorum_storage::vfs::RealVfs;

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

/// Refuses a new cluster without replicas before anything is written.
pub(super) fn check_replicas(data_dir: &Path, named: &[Peer]) -> Result<(), ServeError> {
    check_peers("--replica", named)?;
    match read_identity(&RealVfs, data_dir) {
        Ok(None) if named.is_empty() => Err(no_replicas()),
        // What cannot be read is refused when it is opened, under its lock.
        Ok(_) | Err(_) => Ok(()),
    }
}

fn no_replicas() -> ServeError {
    ServeError::usage(
        "a coordinator of a new cluster has to know its replicas, and there is no --replica",
        "name each of them with --replica ID=ADDR",
    )
}

/// Whom the node connects to, by the flags and by what the directory remembers. Refuses to start as the
/// wrong one on a directory that somebody has started on before.
pub(super) fn others(setup: &Setup<'_>, identity: &Identity) -> Result<Vec<Peer>, ServeError> {
    let Setup { claim, data_dir, peers, .. } = setup;
    if claim.life != 0 && identity.life == 0 {
        return Err(ServeError::refused(
            format!(
                "--rejoin is for a replica that has lost its disk, or comes to a cluster that has \
                 data, and {} holds what {} had",
                data_dir.display(),
                claim.node
            ),
            "leave --rejoin out, or move the directory away if it holds nothing that is needed",
        ));
    }
    match (claim.protocol, claim.role) {
        (_, Role::Coordinator) => return replicas(data_dir, peers, identity),
        // Before there is a cluster nobody has voted: a slip of the first start may be mended.
        (Protocol::AnyReplica | Protocol::Paxos, Role::Replica) if identity.cluster.is_some() => {
            check_members(data_dir, peers, identity)?;
        }
        (Protocol::TwoPhase | Protocol::AnyReplica | Protocol::Paxos, Role::Replica) => {}
    }
    Ok(peers.to_vec())
}

/// The replicas of a coordinator: those that its directory remembers, where the flags say that they
/// are, or where they were.
fn replicas(data_dir: &Path, named: &[Peer], identity: &Identity) -> Result<Vec<Peer>, ServeError> {
    let members = identity.members.iter().filter(|(id, _)| *id != identity.node);
    let known: Vec<(NodeId, &str)> = members.map(|(id, at)| (*id, at.as_str())).collect();
    if identity.cluster.is_none() || known.is_empty() {
        return match named.is_empty() {
            false => Ok(named.to_vec()),
            true => Err(no_replicas()),
        };
    }
    for peer in named.iter().filter(|peer| known.iter().all(|(id, _)| *id != peer.id)) {
        let id = peer.id.0;
        if identity.joined_in(peer.id).is_none() {
            return Err(ServeError::refused(
                format!(
                    "the cluster in {} has the replicas {}, and --replica names {id}",
                    data_dir.display(),
                    list(known.iter().map(|(id, _)| *id)),
                ),
                format!(
                    "leave that out; kvorum admin replica add {id}={} adds a replica to a cluster \
                     that runs",
                    peer.address
                ),
            ));
        }
        tracing::warn!("--replica names {id}, which was removed from the cluster: it is left out");
    }
    let place = |(id, at): (NodeId, &str)| match named.iter().find(|peer| peer.id == id) {
        Some(peer) => peer.clone(),
        None => {
            tracing::info!("no --replica names {}: it is where it was, at {at}", id.0);
            Peer { id, address: at.to_owned() }
        }
    };
    let replicas: Vec<Peer> = known.into_iter().map(place).collect();
    check_peers("--replica, or the data directory,", &replicas)?;
    Ok(replicas)
}

/// The replicas stay the same. With two-phase commit one that is new has none of the rows, and one
/// that is gone would miss what follows; under Multi-Paxos the majorities of two lists need not meet,
/// and two leaders could choose two values in one slot.
fn check_members(data_dir: &Path, peers: &[Peer], identity: &Identity) -> Result<(), ServeError> {
    let members = identity.members.iter();
    let mut known: Vec<NodeId> = members.map(|(id, _)| *id).collect();
    known.retain(|id| *id != identity.node);
    known.sort_unstable();
    let mut named: Vec<NodeId> = peers.iter().map(|peer| peer.id).collect();
    named.sort_unstable();
    if known.is_empty() || known == named {
        return Ok(());
    }
    Err(ServeError::refused(
        format!(
            "the cluster in {} has the other replicas {}, and --peer names {}",
            data_dir.display(),
            list(known.into_iter()),
            list(named.into_iter())
        ),
        "name exactly those (their addresses may change): the replicas of the first start are the \
         members",
    ))
}

fn list(ids: impl Iterator<Item = NodeId>) -> String {
    ids.map(|id| id.0.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use kvorum_node::{Claim, IdentityFile};

    use super::*;

    fn at(id: u32, address: &str) -> Peer {
        Peer { id: NodeId(id), address: address.to_owned() }
    }

    /// A coordinator's directory: the cluster has replicas 1 and 2, and had 3.
    fn remembered() -> Identity {
        let claim = Claim::two_phase(Role::Coordinator, NodeId::COORDINATOR);
        let file = IdentityFile::in_memory(&claim).unwrap();
        let known = [(0, "a:7100"), (1, "a:7101"), (2, "a:7102"), (3, "a:7103")];
        let known = known.map(|(id, address)| (NodeId(id), address.to_owned()));
        file.set_members(known.into()).unwrap();
        file.remove_member(NodeId(3)).unwrap();
        file.identity()
    }

    fn check(named: &[Peer], identity: &Identity, expected: Result<&[Peer], &str>) {
        match (replicas(Path::new("data"), named, identity), expected) {
            (Ok(replicas), Ok(expected)) => assert_eq!(replicas, expected),
            (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{error}"),
            (replicas, expected) => panic!("{replicas:?}, and not {expected:?}"),
        }
    }

    #[test]
    fn the_replicas_of_a_new_cluster_are_those_that_flags_name() {
        let new = remembered();
        check(&[at(5, "b:1")], &new, Ok(&[at(5, "b:1")]));
        check(&[], &new, Err("there is no --replica"));
    }

    #[test]
    fn the_replicas_of_a_cluster_are_remembered() {
        let cluster = Some(kvorum_node::ClusterId([7; 16]));
        let known = Identity { cluster, ..remembered() };
        let both = [at(1, "a:7101"), at(2, "a:7102")];
        check(&both, &known, Ok(&both));
        check(&[], &known, Ok(&both));
        let moved = [at(1, "a:7101"), at(2, "b:7102")];
        check(&moved[1..], &known, Ok(&moved));
        // The flags are those of the first start still.
        check(&[both[0].clone(), both[1].clone(), at(3, "a:7103")], &known, Ok(&both));
        check(&[at(4, "a:7104")], &known, Err("kvorum admin replica add 4=a:7104"));
        check(&[at(2, "a:7101")], &known, Err("both listen on a:7101"));
    }
}
