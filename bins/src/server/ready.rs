//! What a process waits for before it says that it is ready, whoever reads that line may use it; and
//! before it stops.
//!
//! No wait is for ever. A cluster is started a process at a time, and each of them serves what it can
//! while others are missing: it refuses with the reason, or sends clients elsewhere.

use std::sync::mpsc;
use std::time::Duration;

use kvorum_node::{Event, Handle};
use kvorum_replication::{Protocol, Role, Status};
use tokio::time::{sleep, timeout};

use super::arguments::Peer;
use super::serve::Setup;

/// How long links to the others are waited for. Those that run answer within milliseconds; for those
/// that do not nobody should wait.
const LINKS_WAIT: Duration = Duration::from_secs(1);

/// How long a leader is waited for once there are enough to elect one: a few election timeouts.
const LEADER_WAIT: Duration = Duration::from_secs(3);

/// How long one that leads and is to stop waits for another to lead. It takes a round.
const HAND_OVER_WAIT: Duration = Duration::from_secs(1);

/// Between looks at the node.
const POLL: Duration = Duration::from_millis(5);

/// Waits until the node can do what it is there for, or it is no use to wait longer.
pub(super) async fn ready<M>(handle: &Handle<M>, setup: &Setup<'_>, peers: &[Peer]) {
    let all_linked = |status: &Status| is_linked_with_all(status, peers);
    match (setup.claim.protocol, setup.claim.role) {
        (Protocol::TwoPhase, Role::Coordinator) => {
            // Without enough of them it refuses writes, and serves reads.
            let _ = timeout(LINKS_WAIT, until(handle, all_linked)).await;
        }
        // It is the coordinator that comes to it.
        (Protocol::TwoPhase, Role::Replica) => {}
        (Protocol::AnyReplica, _) => {
            // Without all of them it refuses writes, and serves reads.
            let _ = timeout(LINKS_WAIT, until(handle, all_linked)).await;
        }
        (Protocol::Paxos, _) => {
            let majority = peers.len().div_ceil(2);
            let elect = until(handle, |status| linked(status, peers) >= majority);
            if timeout(LINKS_WAIT, elect).await.is_ok() {
                // Without a leader requests wait for one.
                let _ = timeout(LEADER_WAIT, until(handle, |status| status.leader.is_some())).await;
            }
        }
    }
}

/// Lets another replica take over before this one stops, so that clients need not wait for an
/// election.
pub(super) async fn hand_over<M>(handle: &Handle<M>, setup: &Setup<'_>) {
    match setup.claim.protocol {
        // Nobody can take its place.
        Protocol::TwoPhase | Protocol::AnyReplica => {}
        Protocol::Paxos => {
            handle.submit([Event::Stopping]);
            let is_over = |status: &Status| status.leader != Some(setup.claim.node);
            // If nobody comes forward, they elect somebody when it is gone.
            let _ = timeout(HAND_OVER_WAIT, until(handle, is_over)).await;
        }
    }
}

/// To how many of the others it has a link.
fn linked(status: &Status, peers: &[Peer]) -> usize {
    peers.iter().filter(|peer| status.peers_up.contains(&peer.id)).count()
}

/// Whether it has a link to each of them, but for those that its log says are none of them.
fn is_linked_with_all(status: &Status, peers: &[Peer]) -> bool {
    let counts = |peer: &&Peer| status.replicas.is_empty() || status.replicas.contains(&peer.id);
    linked(status, peers) >= peers.iter().filter(counts).count()
}

async fn until<M>(handle: &Handle<M>, is_so: impl Fn(&Status) -> bool) {
    loop {
        let (sender, receiver) = mpsc::sync_channel(1);
        handle.submit([Event::Report(sender)]);
        sleep(POLL).await;
        if receiver.try_recv().is_ok_and(|report| is_so(&report.status)) {
            return;
        }
    }
}
