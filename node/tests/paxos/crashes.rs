//! The power fails at every operation of a disk, and every fail point is died at.

use std::time::Duration;

use kvorum_replication::NodeId;
use kvorum_replication::paxos::points;
use kvorum_storage::vfs::CrashMode;

use crate::cluster::Cluster;

const THREE: NodeId = NodeId(3);

/// Writes, flushes, checkpoints, an election, a snapshot for the third node, and writes again.
fn scenario(prepare: impl FnOnce(&mut Cluster)) -> Cluster {
    let mut cluster = Cluster::started(3);
    cluster.restarts = true;
    prepare(&mut cluster);
    cluster.put_all(0..12);
    cluster.isolated.insert(THREE);
    cluster.put_all(4..24);
    cluster.heal(THREE);
    cluster.run_for(Duration::from_secs(2));
    let leader = cluster.leader();
    if let Some(leader) = leader {
        cluster.isolated.insert(leader);
        cluster.run_for(Duration::from_secs(2));
        cluster.put_all(20..30);
        cluster.heal(leader);
    }
    cluster.put_all(0..6);
    cluster
}

fn sweep(node: NodeId, mode: impl Fn(u64) -> CrashMode) {
    let never = |cluster: &mut Cluster| cluster.machine(node).fail_after(u64::MAX, mode(0));
    let operations = scenario(never).machine(node).operations();
    assert!(operations > 100, "{operations} operations are too few to show anything");
    for after in 0..operations {
        let mut cluster = scenario(|cluster| cluster.machine(node).fail_after(after, mode(after)));
        assert_eq!(cluster.crashed, [node], "it does not come to operation {after}");
        let rows = cluster.converge();
        assert!(rows.len() <= 31, "after {after} operations: {rows:?}");
    }
}

#[test]
fn any_node_may_lose_power_at_any_operation() {
    for node in [1, 2, 3] {
        sweep(NodeId(node), |_| CrashMode::LoseUnsynced);
    }
}

#[test]
fn any_node_may_lose_power_with_some_of_what_was_written() {
    for node in [1, 2, 3] {
        sweep(NodeId(node), |seed| CrashMode::Random { seed });
    }
}

#[test]
fn any_node_may_die_and_leave_all_to_the_system() {
    for node in [1, 2, 3] {
        sweep(NodeId(node), |_| CrashMode::KeepAll);
    }
}

/// Every node stops at every point that it comes to, as soon as it comes to it.
#[test]
fn a_node_may_die_at_every_point() {
    let mut passed = Vec::new();
    for point in points::ALL {
        for mode in [CrashMode::LoseUnsynced, CrashMode::KeepAll] {
            let mut cluster = scenario(|cluster| {
                cluster.point_crash = mode;
                for node in cluster.nodes() {
                    cluster.machine(node).armed.push(point.name.to_owned());
                    cluster.crash(node, CrashMode::KeepAll);
                    cluster.start(node);
                }
            });
            if !cluster.crashed.is_empty() {
                passed.push(point.name);
            }
            let rows = cluster.converge();
            assert!(rows.len() <= 31, "{}: {rows:?}", point.name);
        }
    }
    passed.dedup();
    let all: Vec<&str> = points::ALL.iter().map(|point| point.name).collect();
    assert_eq!(passed, all, "some point was never met");
}

/// A node that pauses between two slots of one step has the record of the first in its log: else a
/// flush could bring to segments what the log does not know, and recovery would meet it again.
#[test]
fn a_flush_at_a_point_is_covered_by_the_log() {
    let mut cluster = Cluster::started(3);
    cluster.put_all(0..3);
    let leader = cluster.leader().unwrap();
    let follower = cluster.nodes().into_iter().find(|node| *node != leader).unwrap();
    // It lags by a few slots, and so applies several in one step.
    cluster.stop(follower);
    cluster.put_all(3..6);
    cluster.machine(follower).armed.push(points::LEARNER_BEFORE_APPLY.to_owned());
    cluster.dies_flushed_between_applies = true;
    cluster.point_crash = CrashMode::LoseUnsynced;
    cluster.start(follower);
    cluster.run_for(Duration::from_secs(2));
    assert_eq!(cluster.crashed, [follower], "it applied no two slots in a step");
    assert_eq!(cluster.converge().len(), 7);
}
