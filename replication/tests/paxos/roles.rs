//! Roles that fail by themselves and come back, as `--fail-acceptors` and `--fail-roles` ask for.

use std::time::Duration;

use kvorum_replication::paxos::{AcceptorRestart, ReplicaOptions};
use kvorum_replication::{Key, NodeId, Operation, Outcome, Transaction, Write};

use crate::harness::schedule::Counts;
use crate::history;
use crate::room::{Cluster, Event};

/// Five replicas, a write every 100 ms for half a minute; returns how many were acknowledged, and how
/// often some counter was counted.
fn run(options: ReplicaOptions, counter: &str) -> (usize, u64) {
    let options = ReplicaOptions { founders: (1..=5).map(NodeId).collect(), seed: 5, ..options };
    let mut cluster = Cluster::new(options, 5, false);
    cluster.start_all();
    for write in 0..300 {
        cluster.live(Duration::from_millis(100));
        let node = cluster.leader().unwrap_or(NodeId(1));
        let put = Write::Put(Key::from("k"), Key::from(format!("v{write}")));
        let transaction = Transaction { preconditions: Vec::new(), writes: vec![put] };
        let deadline = cluster.now.after(Duration::from_secs(2));
        cluster.ask(node, Operation::Transact { stamp: None, transaction }, deadline);
    }
    cluster.live(Duration::from_secs(10));
    history::judge(&cluster, &mut Counts::default()).expect("nothing was promised in vain");
    let is_committed =
        |event: &&Event| matches!(event, Event::Answered { outcome: Outcome::Committed, .. });
    let committed = cluster.events.iter().filter(is_committed).count();
    let nodes = cluster.nodes();
    let counted = nodes.iter().filter_map(|node| cluster.counter(*node, counter)).sum();
    (committed, counted)
}

#[test]
fn the_store_goes_on_while_acceptors_fail() {
    let mean = Some(Duration::from_secs(5));
    let options = ReplicaOptions { fail_acceptors: mean, ..ReplicaOptions::default() };
    let (committed, failed) = run(options, "roles_failed");
    assert!(failed > 10, "acceptors failed {failed} times");
    assert!(committed > 200, "{committed} of 300 writes were acknowledged");
}

#[test]
fn the_store_goes_on_while_all_roles_fail() {
    let mean = Some(Duration::from_secs(10));
    let options = ReplicaOptions { fail_roles: mean, ..ReplicaOptions::default() };
    let (committed, failed) = run(options, "roles_failed");
    assert!(failed > 10, "roles failed {failed} times");
    assert!(committed > 150, "{committed} of 300 writes were acknowledged");
}

#[test]
fn acceptors_that_forget_are_let_in_again() {
    let options = ReplicaOptions {
        // Seldom: once a majority has forgotten, nobody can be let in any more.
        fail_acceptors: Some(Duration::from_secs(20)),
        acceptor_restart: AcceptorRestart::Rejoin,
        ..ReplicaOptions::default()
    };
    let (committed, joins) = run(options, "joins");
    assert!(joins > 2, "{joins} were let in");
    assert!(committed > 200, "{committed} of 300 writes were acknowledged");
}
