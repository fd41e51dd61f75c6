//! What this node remembers of its cluster, and when it founds or joins one.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use kvorum_node::{ClusterId, IdentityFile};
use kvorum_replication::{NodeId, Protocol, Role};

use super::equals;
use super::hello::Changes;
use crate::server::{ServerError, Service};

/// Those of the others that were met while they belonged to no cluster, in this run.
#[derive(Debug, Default)]
pub(crate) struct Met(Mutex<BTreeSet<NodeId>>);

/// Remembers what the flags say of the cluster, and founds it if that takes nobody else. Of the
/// replicas of a coordinator those count that its log says there are, if it says so.
pub(crate) fn prepare(
    identity: &IdentityFile,
    address: &str,
    dial: &[(NodeId, String)],
    logged: &[NodeId],
) -> Result<(), ServerError> {
    let own = identity.identity();
    let members = || {
        let mut members = vec![(own.node, address.to_owned())];
        members.extend(dial.iter().cloned());
        members.sort_unstable();
        members
    };
    match (own.protocol, own.role) {
        (Protocol::TwoPhase, Role::Replica) => Ok(()),
        (Protocol::TwoPhase, Role::Coordinator) => {
            // There is no cluster whose members nobody knows.
            identity.set_members(members())?;
            if own.cluster.is_none() {
                identity.adopt_cluster(new_cluster()?)?;
            }
            agree_with_log(identity, logged)
        }
        (Protocol::AnyReplica | Protocol::Paxos, _) => {
            identity.set_members(members())?;
            found_once_all_were_met(identity, &BTreeSet::new())?;
            Ok(())
        }
    }
}

/// A change of the replicas is in two files, and a crash may come between. The log has the last word: it
/// decides whose votes count.
fn agree_with_log(identity: &IdentityFile, logged: &[NodeId]) -> Result<(), ServerError> {
    if logged.is_empty() {
        return Ok(());
    }
    let members = identity.identity().members;
    for (node, _) in members.iter().filter(|(node, _)| *node != NodeId::COORDINATOR) {
        if !logged.contains(node) {
            tracing::warn!(%node, "was not added, or is removed: it is no replica of the cluster");
            identity.remove_member(*node)?;
        }
    }
    for node in logged.iter().filter(|node| members.iter().all(|(member, _)| member != *node)) {
        tracing::error!(
            %node,
            "a replica of the cluster, and nobody knows where it is: say it once more with kvorum \
             admin replica add {}=ADDR",
            node.0
        );
    }
    Ok(())
}

/// Performs the changes that an introduction has led to; whether the two are nearer to a link now.
pub(super) async fn remember(
    service: &Arc<Service>,
    from: NodeId,
    changes: Changes,
) -> Result<bool, String> {
    if changes.are_none() {
        return Ok(false);
    }
    let theirs = Arc::clone(service);
    let remembered = tokio::task::spawn_blocking(move || write(&theirs, from, changes)).await;
    let failed = match remembered {
        Ok(Ok(is_nearer)) => {
            if is_nearer {
                service.learn_members();
                service.hub.peers.hurry();
            }
            return Ok(is_nearer);
        }
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    Err(format!("the cluster could not be remembered: {failed}"))
}

/// In an order that a crash may cut anywhere: who belongs to a cluster is in no doubt about itself.
fn write(service: &Service, from: NodeId, changes: Changes) -> Result<bool, ServerError> {
    let Changes { cluster, members, joined, met } = changes;
    let identity = &service.identity;
    let mut is_nearer = cluster.is_some() || members.is_some() || !joined.is_empty();
    for (node, life) in joined {
        identity.mark_joined(node, life)?;
    }
    if let Some(cluster) = cluster {
        identity.adopt_cluster(cluster)?;
        tracing::info!(%cluster, "joined a cluster");
    }
    if let Some(members) = members {
        identity.set_members(members)?;
    }
    if met {
        let Met(all) = &service.hub.peers.met;
        let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
        if all.insert(from) {
            tracing::info!(node = %from, "met a new node");
        }
        is_nearer |= found_once_all_were_met(identity, &all)?;
    }
    Ok(is_nearer)
}

/// The founder remembers that it has joined before there is a cluster: with one it always knows.
pub(super) fn found_once_all_were_met(
    identity: &IdentityFile,
    met: &BTreeSet<NodeId>,
) -> Result<bool, ServerError> {
    let own = identity.identity();
    let missing = |(node, _): &(NodeId, String)| *node != own.node && !met.contains(node);
    if !equals::is_founder(&own) || own.cluster.is_some() || own.members.iter().any(missing) {
        return Ok(false);
    }
    identity.mark_joined(own.node, own.life)?;
    let cluster = new_cluster()?;
    identity.adopt_cluster(cluster)?;
    tracing::info!(%cluster, replicas = own.members.len(), "founded a cluster");
    Ok(true)
}

fn new_cluster() -> Result<ClusterId, ServerError> {
    ClusterId::random().map_err(ServerError::Thread)
}
