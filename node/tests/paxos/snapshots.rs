//! Nodes that the log does not reach back to any more are given a snapshot.

use std::time::Duration;

use kvorum_replication::NodeId;
use kvorum_replication::paxos::points;
use kvorum_storage::vfs::CrashMode;

use crate::cluster::Cluster;

const THREE: NodeId = NodeId(3);

/// The third node misses more than the others keep in memory.
fn lagging() -> Cluster {
    let mut cluster = Cluster::started(3);
    cluster.put_all(0..10);
    cluster.isolated.insert(THREE);
    cluster.put_all((5..60).chain(5..30));
    cluster
}

#[test]
fn a_node_that_lags_is_given_a_snapshot() {
    let mut cluster = lagging();
    cluster.heal(THREE);
    assert_eq!(cluster.converge().len(), 61);
    assert!(cluster.count(THREE, "snapshot_pieces") > 3, "it came in one piece");
    assert_eq!(cluster.count(THREE, "snapshots_installed"), 1);
    let store = cluster.machine(THREE).expect().store().unwrap();
    assert!(store.stats().installs >= 1);
    cluster.crash(THREE, CrashMode::LoseUnsynced);
    cluster.start(THREE);
    assert_eq!(cluster.count(THREE, "snapshots_installed"), 0, "it had it already");
    cluster.put_all(0..60);
    assert_eq!(cluster.converge().len(), 61);
}

#[test]
fn a_snapshot_takes_no_old_row_along() {
    let mut cluster = lagging();
    let rows = cluster.machine(THREE).rows();
    assert!(rows.contains_key(&b"key000"[..]), "{rows:?}");
    for key in 0..5_u32 {
        let delete = kvorum_replication::Write::Delete(format!("key{key:03}").into());
        let transaction =
            kvorum_replication::Transaction { preconditions: vec![], writes: vec![delete] };
        let operation = kvorum_replication::Operation::Transact { stamp: None, transaction };
        assert_eq!(cluster.ask(&operation), kvorum_replication::Outcome::Committed);
    }
    cluster.forget(0..5);
    cluster.put_all(10..20);
    cluster.heal(THREE);
    let rows = cluster.converge();
    assert_eq!(rows.len(), 56);
    assert!(!rows.contains_key(&b"key000"[..]));
    assert!(cluster.count(THREE, "snapshots_installed") > 0);
}

#[test]
fn a_node_without_a_disk_comes_back_under_another_life() {
    let mut cluster = Cluster::started(3);
    cluster.put_all(0..40);
    for life in [1_000, 2_000] {
        cluster.wipe(THREE, life);
        cluster.put_all(40..50);
        cluster.start(THREE);
        cluster.run_for(Duration::from_secs(5));
        cluster.put_all(50..60);
        cluster.run_for(Duration::from_secs(5));
        assert_eq!(cluster.count(THREE, "votes_count"), 1, "it is a member again");
        cluster.crash(THREE, CrashMode::LoseUnsynced);
        cluster.start(THREE);
        assert_eq!(cluster.converge().len(), 61);
        assert_eq!(cluster.count(THREE, "votes_count"), 1, "still");
    }
    // With its vote there is a majority.
    cluster.crash(NodeId(1), CrashMode::LoseUnsynced);
    cluster.put_all(0..5);
    assert_eq!(cluster.converge().len(), 61);
}

/// At each point of the transfer the learner dies, and begins anew or goes on.
#[test]
fn a_learner_that_dies_anywhere_in_the_transfer_goes_on() {
    let transfer = [
        points::LEARNER_SNAPSHOT_STAGED,
        points::LEARNER_SNAPSHOT_DURABLE,
        points::LEARNER_SNAPSHOT_INSTALLED,
    ];
    for point in transfer {
        for mode in [CrashMode::LoseUnsynced, CrashMode::KeepAll, CrashMode::Random { seed: 3 }] {
            let mut cluster = lagging();
            cluster.restarts = true;
            cluster.point_crash = mode;
            cluster.stop(THREE);
            cluster.machine(THREE).armed.push(point.to_owned());
            cluster.start(THREE);
            cluster.heal(THREE);
            cluster.run_for(Duration::from_secs(3));
            assert_eq!(cluster.crashed, [THREE], "it does not come to {point}");
            assert_eq!(cluster.converge().len(), 61, "{point} {mode:?}");
        }
    }
}

/// The record of the snapshot is durable, and the store does not hold it yet.
#[test]
fn an_install_that_a_crash_prevented_is_done_by_recovery() {
    let mut cluster = lagging();
    cluster.stop(THREE);
    cluster.machine(THREE).armed.push(points::LEARNER_SNAPSHOT_DURABLE.to_owned());
    cluster.start(THREE);
    cluster.heal(THREE);
    cluster.run_for(Duration::from_secs(3));
    assert_eq!(cluster.crashed, [THREE]);
    let machine = cluster.machine(THREE);
    machine.armed.clear();
    machine.open().unwrap();
    let node = machine.expect();
    let (applied, flushed) = (node.core().applied(), node.store().unwrap().flushed_mark());
    assert_eq!(applied.0, flushed, "the store is what the record says");
    assert!(applied.0 > 60);
    let rows = machine.rows();
    assert_eq!(rows.len(), 60, "before it has heard anything");
    machine.stop();
    assert_eq!(cluster.converge().len(), 61);
}

/// The one who sends dies as well, and another goes on with a snapshot of its own.
#[test]
fn a_sender_that_dies_is_replaced() {
    let mut cluster = lagging();
    cluster.heal(THREE);
    let has_some = |cluster: &Cluster| cluster.count(THREE, "snapshot_pieces") >= 2;
    let some = cluster.run_until(Duration::from_secs(5), has_some);
    assert!(some, "no piece came");
    let sender = [NodeId(1), NodeId(2)]
        .into_iter()
        .find(|node| cluster.count(*node, "snapshot_pieces_sent") > 0)
        .unwrap();
    cluster.crash(sender, CrashMode::LoseUnsynced);
    cluster.run_for(Duration::from_secs(10));
    cluster.start(sender);
    assert_eq!(cluster.converge().len(), 61);
    assert!(cluster.count(THREE, "snapshots_installed") > 0);
}

/// Writes go on while the snapshot is read, and it stays what it was.
#[test]
fn a_snapshot_is_held_while_its_node_goes_on() {
    let mut cluster = lagging();
    cluster.heal(THREE);
    let has_some = |cluster: &Cluster| cluster.count(THREE, "snapshot_pieces") > 0;
    assert!(cluster.run_until(Duration::from_secs(5), has_some), "no piece came");
    // As many slots as the others keep for it. Rows of these slots in a later piece would have it
    // refuse the first write of a round, which the others did not.
    for round in 0..2 {
        cluster.put_in_order(round);
    }
    assert_eq!(cluster.count(THREE, "snapshots_installed"), 0, "all came before");
    let is_there = |cluster: &Cluster| cluster.count(THREE, "snapshots_installed") > 0;
    assert!(cluster.run_until(Duration::from_secs(5), is_there), "the rest did not come");
    cluster.run_for(Duration::from_secs(1));
    assert_eq!(cluster.converge().len(), 65);
    assert_eq!(cluster.count(THREE, "snapshots_installed"), 1, "another one hides it");
}
