//! Replicas that stop and start again.

use std::time::Duration;

use kvorum_replication::{
    Answer, ClientId, Failure, NodeId, Operation, Outcome, Precondition, Query, Stamp, Transaction,
    Write,
};
use kvorum_storage::vfs::CrashMode;

use crate::cluster::{Cluster, options};

const ONE: NodeId = NodeId(1);
const MODES: [CrashMode; 3] =
    [CrashMode::LoseUnsynced, CrashMode::KeepAll, CrashMode::Random { seed: 7 }];

fn get(key: &'static str) -> Operation {
    Operation::Read(Query::Get(key.as_bytes().into()))
}

#[test]
fn a_cluster_of_one_writes_and_remembers() {
    for mode in MODES {
        let mut cluster = Cluster::started(1);
        for round in 0..5 {
            cluster.put_all(0..20);
            let Outcome::Answer(Answer::Value(Some(_))) = cluster.ask(&get("key007")) else {
                panic!("it is not there")
            };
            cluster.crash(ONE, mode);
            cluster.start(ONE);
            assert_eq!(cluster.machine(ONE).expect().turn().sends.len(), 0, "round {round}");
        }
        let rows = cluster.converge();
        assert_eq!(rows.len(), 21);
    }
}

#[test]
fn a_write_with_a_stamp_happens_once_over_restarts() {
    let mut cluster = Cluster::started(1);
    let Outcome::Session(client) = cluster.ask(&Operation::OpenSession) else {
        panic!("no session")
    };
    assert_eq!(client, ClientId(1));
    let stamp = |sequence| Some(Stamp { client, sequence, answered_below: 1 });
    let absent = |sequence| Operation::Transact {
        stamp: stamp(sequence),
        transaction: Transaction {
            preconditions: vec![Precondition::Absent("once".into())],
            writes: vec![Write::Put("once".into(), format!("{sequence:06}").into())],
        },
    };
    assert_eq!(cluster.ask(&absent(1)), Outcome::Committed);
    let refused = cluster.ask(&absent(2));
    assert!(matches!(refused, Outcome::Failed(Failure::PreconditionFailed { .. })), "{refused:?}");
    for round in 0..4 {
        match round {
            0 => cluster.crash(ONE, CrashMode::LoseUnsynced),
            1 => {
                cluster.step(ONE, kvorum_replication::Input::Checkpoint);
                cluster.stop(ONE);
            }
            _ => {
                // The row goes, and neither write comes true again.
                let transaction = Transaction {
                    preconditions: vec![],
                    writes: vec![Write::Delete("once".into())],
                };
                let operation = Operation::Transact { stamp: stamp(round + 10), transaction };
                assert_eq!(cluster.ask(&operation), Outcome::Committed);
                cluster.machine(ONE).expect().store().unwrap().flush().unwrap();
                cluster.crash(ONE, CrashMode::LoseUnsynced);
            }
        }
        cluster.start(ONE);
        assert_eq!(cluster.ask(&absent(1)), Outcome::Committed, "round {round}");
        let again = cluster.ask(&absent(2));
        assert_eq!(again, refused, "round {round}");
    }
    assert_eq!(cluster.ask(&get("once")), Outcome::Answer(Answer::Value(None)));
}

/// The store is ahead of what the log's last durable record of the kind says, when a flush has synced
/// the log for it; and preconditions must not be judged by it again.
#[test]
fn a_store_that_was_flushed_is_recovered_with_its_log() {
    for mode in MODES {
        let mut cluster = Cluster::started(1);
        for count in 0..30_u32 {
            let expected = match count {
                0 => Precondition::Absent("count".into()),
                _ => Precondition::Equals("count".into(), format!("{:06}", count - 1).into()),
            };
            let transaction = Transaction {
                preconditions: vec![expected],
                writes: vec![Write::Put("count".into(), format!("{count:06}").into())],
            };
            let outcome = cluster.ask(&Operation::Transact { stamp: None, transaction });
            assert_eq!(outcome, Outcome::Committed, "{count}");
            if count % 3 == 0 {
                let node = cluster.machine(ONE).expect();
                node.store().unwrap().flush().unwrap();
                let (flushed, applied) =
                    (node.store().unwrap().flushed_mark(), node.core().applied());
                assert_eq!(flushed, applied.0, "all that is applied is in segments");
            }
            if count % 2 == 0 {
                cluster.crash(ONE, mode);
                cluster.start(ONE);
            }
        }
        let value = cluster.ask(&get("count"));
        assert_eq!(value, Outcome::Answer(Answer::Value(Some("000029".into()))));
    }
}

#[test]
fn three_nodes_lose_nothing_when_any_of_them_restarts() {
    let mut cluster = Cluster::started(3);
    let mut leaders = std::collections::BTreeSet::new();
    for round in 0..12 {
        cluster.put_all(0..15);
        let leader = cluster.leader().unwrap();
        leaders.insert(leader);
        let victim = match round % 3 {
            0 => leader,
            _ => NodeId(1 + round % 3),
        };
        cluster.crash(victim, MODES[round as usize % MODES.len()]);
        cluster.put_all(15..25);
        cluster.start(victim);
    }
    assert_eq!(cluster.converge().len(), 26);
    assert!(leaders.len() > 1, "nobody else has led");
}

#[test]
fn all_nodes_at_once_lose_power_and_nothing_else() {
    let mut cluster = Cluster::started(3);
    for _ in 0..5 {
        cluster.put_all(0..20);
        for node in cluster.nodes() {
            cluster.crash(node, CrashMode::LoseUnsynced);
        }
        for node in cluster.nodes() {
            cluster.start(node);
        }
    }
    assert_eq!(cluster.converge().len(), 21);
}

#[test]
fn a_checkpoint_shortens_the_log() {
    let mut cluster = Cluster::started(3);
    cluster.put_all((0..300).map(|key| key % 10));
    cluster.run_for(Duration::from_secs(1));
    for node in cluster.nodes() {
        let running = cluster.machine(node).expect();
        let (first, last) = (running.log().first().0, running.log().last().0);
        assert!(first > 300 && last - first < 400, "{node} keeps {first} to {last}");
        cluster.crash(node, CrashMode::LoseUnsynced);
        cluster.start(node);
    }
    assert_eq!(cluster.converge().len(), 11);
}

/// What is open when a checkpoint is written is still accepted after a restart from it.
#[test]
fn what_is_accepted_and_not_chosen_outlives_a_checkpoint() {
    let mut cluster = Cluster::started(3);
    cluster.put_all(0..5);
    let leader = cluster.leader().unwrap();
    let others: Vec<NodeId> = cluster.nodes().into_iter().filter(|node| *node != leader).collect();
    cluster.isolated.extend(others);
    let transaction =
        Transaction { preconditions: vec![], writes: vec![Write::Put("open".into(), "1".into())] };
    let request = kvorum_replication::Request {
        id: kvorum_replication::RequestId(1 << 40),
        deadline: cluster.now.after(Duration::from_secs(5)),
        operation: Operation::Transact { stamp: None, transaction },
    };
    // What a checkpoint writes again is more than calls for one.
    cluster.machine(leader).expect().set_checkpoint_bytes(32);
    cluster.step(leader, kvorum_replication::Input::Request(request));
    cluster.step(leader, kvorum_replication::Input::Checkpoint);
    let now = cluster.now;
    cluster.machine(leader).work(now);
    let open = |cluster: &mut Cluster| {
        let core = cluster.machine(leader).core();
        core.open_votes().map(|(slot, ..)| slot).collect::<Vec<_>>()
    };
    let before = open(&mut cluster);
    assert_eq!(before.len(), 1);
    cluster.crash(leader, CrashMode::LoseUnsynced);
    cluster.start(leader);
    assert_eq!(open(&mut cluster), before);
    let rows = cluster.converge();
    // It may have been overtaken by a leader who never heard of it; it is all or nothing.
    assert!(rows.len() == 6 || rows.len() == 7, "{rows:?}");
}

#[test]
fn another_window_is_refused() {
    let mut cluster = Cluster::started(1);
    cluster.put_all(0..3);
    cluster.stop(ONE);
    cluster.machine(ONE).options.window = options(1).window * 2;
    let error = cluster.machine(ONE).open().err().unwrap();
    assert!(error.to_string().contains("window"), "{error}");
    cluster.machine(ONE).options.window = options(1).window;
    assert_eq!(cluster.converge().len(), 4);
}
