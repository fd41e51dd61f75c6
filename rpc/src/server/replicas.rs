//! Adding and removing replicas of a cluster with a coordinator. Its core decides, in its log; where they
//! are is in its identity file.
//!
//! ```text
//!   add      remember number and address ─► ask the core ─► link with it, tell the others
//!   remove   ask the core ─► forget it ─► let go of it, tell the others
//! ```
//!
//! What the core has decided has happened. A crash between the two files is mended at the next start,
//! by what the log says (`peers::prepare`).

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvorum_node::{Identity, IdentityFile, JOINED_MAX, NodeError};
use kvorum_replication::{
    Failure, Happened, NodeId, Operation, Outcome, Protocol, ReplicaChange, Role,
};
use tokio::sync::oneshot;

use super::admission::Kind;
use super::hub::Service;
use super::requests::{Asker, given_up};
use super::worker::Worker;
use crate::address::host_and_port;
use crate::convert::MEMBERS_MAX;

/// Has the cluster one replica more. It takes part once it has come, empty and in a new life, and has
/// caught up.
pub(super) async fn add(
    worker: Rc<Worker>,
    node: NodeId,
    address: String,
    timeout_ms: u32,
) -> Result<(), Failure> {
    let service = &worker.service;
    let until = until(service, timeout_ms);
    let _alone = alone(service, until).await?;
    let before = service.identity.identity();
    check_coordinates(&before)?;
    check_addable(&before, node, &address).map_err(|reason| Failure::Invalid { reason })?;
    let is_new = !is_member(&before, node);
    if is_new {
        let at = address.clone();
        remember(service, move |identity| identity.add_member(node, &at))
            .await
            .map_err(|reason| Failure::Unavailable { reason })?;
    }
    let asked = ask(&worker, ReplicaChange::Add(node), until).await;
    match &asked {
        Err(failure) if failure.happened() == Happened::No => {
            if is_new {
                let restored =
                    move |identity: &IdentityFile| identity.restore_member(node, &before);
                if let Err(reason) = remember(service, restored).await {
                    // The next start will, by the log.
                    tracing::error!(%node, reason, "what was not added is remembered");
                }
            }
            // Somebody may have come meanwhile, and been told of it.
            service.learn_members();
        }
        // Perhaps it was: then nobody will ask again, and it is to be linked with.
        Err(_) | Ok(()) => {
            tracing::info!(%node, address, outcome = ?asked, "a replica was added");
            service.learn_members();
            service.introduce_anew(node);
        }
    }
    asked
}

/// Has the cluster one replica less.
pub(super) async fn remove(
    worker: Rc<Worker>,
    node: NodeId,
    timeout_ms: u32,
) -> Result<(), Failure> {
    let service = &worker.service;
    let until = until(service, timeout_ms);
    let _alone = alone(service, until).await?;
    let before = service.identity.identity();
    check_coordinates(&before)?;
    check_removable(&before, node).map_err(|reason| Failure::Invalid { reason })?;
    ask(&worker, ReplicaChange::Remove(node), until).await?;
    // The log says already that it is removed.
    remember(service, move |identity| identity.remove_member(node))
        .await
        .map_err(|reason| Failure::Unknown { reason })?;
    tracing::info!(%node, "a replica was removed");
    service.learn_members();
    service.introduce_anew(node);
    Ok(())
}

fn until(service: &Service, timeout_ms: u32) -> Instant {
    let options = &service.hub.options;
    let timeout = match timeout_ms {
        0 => options.request_timeout,
        millis => Duration::from_millis(millis.into()).min(options.request_timeout_max),
    };
    Instant::now() + timeout
}

/// Of two changes at once the second would be checked against what the first is about to change.
async fn alone(
    service: &Service,
    until: Instant,
) -> Result<tokio::sync::MutexGuard<'_, ()>, Failure> {
    let turn = tokio::time::timeout_at(until.into(), service.changing.lock()).await;
    turn.map_err(|_| {
        let reason = "another change of the replicas is under way".to_owned();
        Failure::Unavailable { reason }
    })
}

fn is_member(identity: &Identity, node: NodeId) -> bool {
    identity.members.iter().any(|(member, _)| *member == node)
}

/// Only a coordinator changes its replicas.
fn check_coordinates(own: &Identity) -> Result<(), Failure> {
    match (own.protocol, own.role) {
        (Protocol::TwoPhase, Role::Coordinator) => Ok(()),
        (Protocol::TwoPhase, Role::Replica) => Err(Failure::Redirect { to: NodeId::COORDINATOR }),
        (protocol @ (Protocol::AnyReplica | Protocol::Paxos), _) => {
            let reason = format!(
                "this cluster runs {protocol}, and has the replicas of its first start; only one of \
                 two-phase commit with a coordinator adds and removes them"
            );
            Err(Failure::Invalid { reason })
        }
    }
}

fn check_addable(own: &Identity, node: NodeId, address: &str) -> Result<(), String> {
    if node == NodeId::COORDINATOR {
        return Err("0 is the coordinator's number; replicas have numbers from 1".to_owned());
    }
    host_and_port(address)?;
    for (member, known) in &own.members {
        match (*member == node, known == address) {
            (true, true) => return Ok(()),
            (true, false) => {
                return Err(format!(
                    "replica {} is a member already, at {known}; one that has moved is told to the \
                     coordinator at its restart, with --replica {}={address}",
                    node.0, node.0
                ));
            }
            (false, true) => {
                let who = match *member {
                    NodeId::COORDINATOR => "the coordinator".to_owned(),
                    NodeId(number) => format!("replica {number}"),
                };
                return Err(format!(
                    "{who} is at {address}; each process has an address of its own"
                ));
            }
            (false, false) => {}
        }
    }
    if own.members.len() >= MEMBERS_MAX {
        return Err(format!("a cluster has at most {} replicas", MEMBERS_MAX - 1));
    }
    if own.joined.len() >= JOINED_MAX {
        return Err(format!(
            "{} replicas have belonged to this cluster, and no more can be told apart",
            own.joined.len()
        ));
    }
    Ok(())
}

/// A slip of the pen is told from what was done before.
fn check_removable(own: &Identity, node: NodeId) -> Result<(), String> {
    if node != NodeId::COORDINATOR && (is_member(own, node) || own.joined_in(node).is_some()) {
        return Ok(());
    }
    let replicas = own.members.iter().filter(|(member, _)| *member != NodeId::COORDINATOR);
    let numbers: Vec<String> = replicas.map(|(member, _)| member.0.to_string()).collect();
    Err(format!("there is no replica {}; the cluster has {}", node.0, numbers.join(", ")))
}

/// Writes to the identity file, on a thread that may wait for the disk.
async fn remember(
    service: &Arc<Service>,
    write: impl FnOnce(&IdentityFile) -> Result<(), NodeError> + Send + 'static,
) -> Result<(), String> {
    let identity = Arc::clone(&service.identity);
    let why = match tokio::task::spawn_blocking(move || write(&identity)).await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    Err(format!("the coordinator could not write down who belongs to the cluster: {why}"))
}

/// Asks the core.
async fn ask(worker: &Worker, change: ReplicaChange, until: Instant) -> Result<(), Failure> {
    let operation = Operation::ChangeReplicas(change);
    let share = worker.requests.share();
    let Some(place) = share.admit(Kind::of(&operation), Instant::now) else {
        worker.requests.count_refusal();
        return Err(Failure::Overloaded);
    };
    let left = until.saturating_duration_since(Instant::now()).as_millis();
    let left_ms = u32::try_from(left).unwrap_or(u32::MAX).max(1);
    let (asker, told) = oneshot::channel();
    worker.requests.ask(operation, left_ms, 0, Asker::Task(asker), place);
    match told.await.unwrap_or_else(|_| given_up(true)) {
        Outcome::Committed => Ok(()),
        Outcome::Failed(failure) => Err(failure),
        odd @ (Outcome::Session(_) | Outcome::Answer(_)) => {
            Err(Failure::Unknown { reason: format!("the coordinator answered {odd:?}") })
        }
    }
}

#[cfg(test)]
mod tests {
    use kvorum_node::Claim;

    use super::*;

    fn coordinator() -> Identity {
        let claim = Claim::two_phase(Role::Coordinator, NodeId::COORDINATOR);
        let file = IdentityFile::in_memory(&claim).unwrap();
        file.set_members(
            (0..=2).map(|node| (NodeId(node), format!("a:{}", 7100 + node))).collect(),
        )
        .unwrap();
        file.mark_joined(NodeId(1), 0).unwrap();
        file.add_member(NodeId(3), "a:7103").unwrap();
        file.remove_member(NodeId(3)).unwrap();
        file.identity()
    }

    #[test]
    fn what_cannot_be_added_is_refused_with_the_reason() {
        let own = coordinator();
        for (node, address) in [(4, "a:7104"), (2, "a:7102"), (3, "a:7103")] {
            assert_eq!(check_addable(&own, NodeId(node), address), Ok(()), "{node}");
        }
        let wrong = [
            (0, "a:7104", "replicas have numbers from 1"),
            (4, "a", "is no host:port"),
            (2, "a:7104", "--replica 2=a:7104"),
            (4, "a:7102", "replica 2 is at a:7102"),
            (4, "a:7100", "the coordinator is at a:7100"),
        ];
        for (node, address, words) in wrong {
            let reason = check_addable(&own, NodeId(node), address).unwrap_err();
            assert!(reason.contains(words), "{reason}");
        }
        let members = (0..64).map(|node| (NodeId(node), format!("b:{node}"))).collect();
        let full = Identity { members, ..own.clone() };
        assert!(check_addable(&full, NodeId(64), "a:1").unwrap_err().contains("at most 63"));
        let joined = (0..1024).map(|node| (NodeId(node), 0)).collect();
        let old = Identity { joined, ..own };
        assert!(check_addable(&old, NodeId(2000), "a:1").unwrap_err().contains("1024 replicas"));
    }

    #[test]
    fn what_was_never_there_is_not_removed() {
        let own = coordinator();
        for node in [1, 2, 3] {
            assert_eq!(check_removable(&own, NodeId(node)), Ok(()), "{node}");
        }
        for node in [0, 4] {
            let reason = check_removable(&own, NodeId(node)).unwrap_err();
            assert!(reason.contains("the cluster has 1, 2"), "{reason}");
        }
    }

    #[test]
    fn only_a_coordinator_changes_its_replicas() {
        let own = coordinator();
        assert_eq!(check_coordinates(&own), Ok(()));
        let replica = Identity { role: Role::Replica, ..own.clone() };
        let elsewhere = Failure::Redirect { to: NodeId::COORDINATOR };
        assert_eq!(check_coordinates(&replica), Err(elsewhere));
        for protocol in [Protocol::AnyReplica, Protocol::Paxos] {
            let equal = Identity { protocol, ..replica.clone() };
            assert!(matches!(check_coordinates(&equal), Err(Failure::Invalid { .. })));
        }
    }
}
