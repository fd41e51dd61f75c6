//! Disks without room: nothing dies, nothing acknowledged is lost, and it goes on when there is room.

use std::time::Duration;

use kvorum_replication::NodeId;
use kvorum_storage::vfs::{Fault, Operation, Outcome};

use crate::cluster::Cluster;

const THREE: NodeId = NodeId(3);
const NEEDS_ROOM: [Operation; 4] =
    [Operation::Create, Operation::Allocate, Operation::Grow, Operation::SetLength];

/// After so many operations that need room there is none.
fn fill(cluster: &mut Cluster, node: NodeId, after: u64) {
    for operation in NEEDS_ROOM {
        let _ = cluster
            .machine(node)
            .faults
            .arm(Fault::always(operation, Outcome::DiskFull).after(after));
    }
}

#[test]
fn a_learner_without_room_waits_for_it() {
    let mut without_room = 0;
    for after in 0..12 {
        let mut cluster = Cluster::started(3);
        cluster.put_all(0..10);
        cluster.isolated.insert(THREE);
        cluster.put_all(5..60);
        fill(&mut cluster, THREE, after);
        cluster.heal(THREE);
        cluster.run_for(Duration::from_secs(3));
        // The others do not need it.
        cluster.put_all(0..5);
        without_room += cluster.count(THREE, "snapshots_without_room");
        cluster.machine(THREE).faults.heal();
        assert_eq!(cluster.converge().len(), 61, "full after {after}");
    }
    assert!(without_room > 0, "there was always room for it");
}

/// It does not ask for the same snapshot as fast as it can.
#[test]
fn a_learner_without_room_is_patient() {
    let mut cluster = Cluster::started(3);
    cluster.put_all(0..10);
    cluster.isolated.insert(THREE);
    cluster.put_all(5..60);
    fill(&mut cluster, THREE, 0);
    cluster.heal(THREE);
    cluster.run_for(Duration::from_secs(10));
    let tries = cluster.count(THREE, "snapshots_without_room");
    assert!((2..=60).contains(&tries), "{tries} tries in ten seconds");
    cluster.machine(THREE).faults.heal();
    cluster.converge();
}

#[test]
fn an_install_without_room_waits_for_it() {
    let mut waited = 0;
    for after in 0..10 {
        let mut cluster = Cluster::started(3);
        cluster.put_all(0..10);
        cluster.isolated.insert(THREE);
        cluster.put_all(5..40);
        // Manifests are written for the seal and for the install.
        let fault = Fault::always(Operation::Create, Outcome::DiskFull).on("MANIFEST").after(after);
        let armed = cluster.machine(THREE).faults.arm(fault);
        cluster.heal(THREE);
        cluster.run_for(Duration::from_secs(3));
        let is_installing = cluster.count(THREE, "snapshots_installed") > 0
            && cluster.machine(THREE).core().applied().0 < 30;
        if is_installing && armed.fired() > 0 {
            waited += 1;
        }
        cluster.put_all(0..5);
        cluster.machine(THREE).faults.heal();
        assert_eq!(cluster.converge().len(), 41, "full after {after}");
    }
    assert!(waited > 0, "no install had to wait");
}

#[test]
fn a_leader_without_room_gives_way_to_nothing_but_the_truth() {
    let mut cluster = Cluster::started(3);
    cluster.put_all(0..10);
    let leader = cluster.leader().unwrap();
    fill(&mut cluster, leader, 0);
    for key in 0..200 {
        let deadline = cluster.now.after(Duration::from_secs(1));
        cluster.submit(leader, &format!("key{:03}", key % 20), deadline);
        cluster.run_for(Duration::from_millis(20));
    }
    cluster.run_for(Duration::from_secs(5));
    cluster.machine(leader).faults.heal();
    cluster.converge();
}
