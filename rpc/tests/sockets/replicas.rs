//! Replicas that are added to a cluster and removed from it, over sockets. The cores are played: what
//! the log says is the test's to say.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use kvorum_node::{Claim, Event, IdentityFile};
use kvorum_replication::{Failure, Happened, NodeId, Operation, Outcome, ReplicaChange, Role};
use kvorum_rpc::client::ErrorKind;
use kvorum_rpc::server::ServerOptions;

use crate::links::Proxy;
use crate::support::{Behaviour, Played, Seen, client, options, play, play_logged, run, silent};

const COORDINATOR: NodeId = NodeId::COORDINATOR;

/// A replica, on an empty disk, in this life.
fn replica(node: u32, life: u64) -> Played {
    let claim = Claim { life, ..Claim::two_phase(Role::Replica, NodeId(node)) };
    let identity = Arc::new(IdentityFile::in_memory(&claim).unwrap());
    play(Role::Replica, NodeId(node), Some(identity), options(), silent())
}

fn dialling(replicas: &[(u32, SocketAddr)]) -> ServerOptions {
    let mut dialling = options();
    dialling.peers.dial =
        replicas.iter().map(|(node, at)| (NodeId(*node), at.to_string())).collect();
    dialling
}

/// Answers changes of the replicas, the first with the first of these, and says what was asked.
fn deciding(outcomes: Vec<Outcome>) -> (Behaviour, Receiver<ReplicaChange>) {
    let (sender, asked) = channel();
    let mut outcomes = outcomes.into_iter();
    let behaviour: Behaviour = Box::new(move |event, turn| {
        if let Event::Request(request) = event {
            let Operation::ChangeReplicas(change) = &request.operation else {
                panic!("nothing else is asked: {request:?}");
            };
            sender.send(*change).unwrap();
            turn.replies.push((request.id, outcomes.next().unwrap_or(Outcome::Committed)));
        }
    });
    (behaviour, asked)
}

fn coordinator(replicas: &[(u32, SocketAddr)], behaviour: Behaviour) -> Played {
    let played = play(Role::Coordinator, COORDINATOR, None, dialling(replicas), behaviour);
    for (node, _) in replicas {
        played.wait_for(|seen| *seen == Seen::Up(NodeId(*node)));
    }
    played
}

/// The numbers of the replicas that it takes for the cluster's.
fn members(played: &Played) -> Vec<u32> {
    let members = played.identity.identity().members;
    members.iter().map(|(node, _)| node.0).filter(|node| *node != 0).collect()
}

#[test]
fn a_replica_is_added_and_another_removed_while_they_run() {
    let (one, two, three) = (replica(1, 0), replica(2, 0), replica(3, 5));
    let (deciding, asked) = deciding(Vec::new());
    let coordinator = coordinator(&[(1, one.address), (2, two.address)], deciding);
    run(async {
        let client = client(&coordinator).await;
        let address = three.address.to_string();
        // The second time there is nothing to do.
        for _ in 0..2 {
            client.add_replica(3, &address).await.unwrap();
            assert_eq!(asked.recv().unwrap(), ReplicaChange::Add(NodeId(3)));
            assert_eq!(members(&coordinator), [1, 2, 3]);
        }
    });
    coordinator.wait_for(|seen| *seen == Seen::Up(NodeId(3)));
    let known = coordinator.identity.identity();
    assert_eq!(known.joined_in(NodeId(3)), Some(5), "the life it came in");
    // It learns of the others, and they of it, without anybody's restart.
    for (played, other) in [(&one, 3), (&two, 3), (&three, 1)] {
        played.wait_for(|seen| *seen == Seen::Up(NodeId(other)));
    }
    assert_eq!(three.identity.identity().cluster, known.cluster);
    assert_eq!(members(&three), [1, 2, 3]);

    run(async {
        let client = client(&coordinator).await;
        for _ in 0..2 {
            client.remove_replica(2).await.unwrap();
            assert_eq!(asked.recv().unwrap(), ReplicaChange::Remove(NodeId(2)));
            assert_eq!(members(&coordinator), [1, 3]);
        }
        let error = client.remove_replica(4).await.unwrap_err();
        assert_eq!((error.kind, error.happened), (ErrorKind::Invalid, Happened::No));
        assert!(error.what.contains("the cluster has 1, 3"), "{error}");
        assert!(asked.try_recv().is_err(), "nobody was asked");
    });
    coordinator.wait_for(|seen| *seen == Seen::Down(NodeId(2)));
    assert_eq!(coordinator.identity.identity().joined_in(NodeId(2)), Some(0), "it was there");
    // Whoever hears it last has heard it.
    let until = std::time::Instant::now() + crate::support::PATIENCE;
    while [&one, &three].iter().any(|played| members(played) != [1, 3]) {
        assert!(std::time::Instant::now() < until, "they are not told");
        std::thread::yield_now();
    }
}

/// Of two replicas the one with the lower number dials, so here it is the removed one that did.
#[test]
fn the_others_let_go_of_who_is_removed_and_runs_on() {
    let (one, two, three) = (replica(1, 0), replica(2, 0), replica(3, 0));
    let (deciding, _asked) = deciding(Vec::new());
    let all = [(1, one.address), (2, two.address), (3, three.address)];
    let coordinator = coordinator(&all, deciding);
    let others = [&two, &three];
    for other in others {
        other.wait_for(|seen| *seen == Seen::Up(NodeId(1)));
    }
    run(async { client(&coordinator).await.remove_replica(1).await.unwrap() });
    for other in others {
        other.wait_for(|seen| *seen == Seen::Down(NodeId(1)));
    }
}

#[test]
fn what_the_core_refuses_is_as_it_was_before() {
    let one = replica(1, 0);
    let reason = "its number was used before".to_owned();
    let (deciding, asked) = deciding(vec![Outcome::Failed(Failure::Invalid { reason })]);
    let coordinator = coordinator(&[(1, one.address)], deciding);
    let before = coordinator.identity.identity();
    run(async {
        let client = client(&coordinator).await;
        let error = client.add_replica(4, "127.0.0.1:9").await.unwrap_err();
        assert_eq!((error.kind, error.happened), (ErrorKind::Invalid, Happened::No));
        assert!(error.what.contains("its number was used before"), "{error}");
        assert_eq!(asked.recv().unwrap(), ReplicaChange::Add(NodeId(4)));
        // What is nonsense is not even asked.
        for (node, address) in [(0, "a:1"), (4, "nowhere"), (1, "a:1")] {
            let error = client.add_replica(node, address).await.unwrap_err();
            assert_eq!((error.kind, error.happened), (ErrorKind::Invalid, Happened::No), "{error}");
        }
        assert!(asked.try_recv().is_err(), "nobody was asked");
    });
    assert_eq!(coordinator.identity.identity(), before);
}

#[test]
fn what_may_have_happened_is_asked_again_and_not_taken_back() {
    let one = replica(1, 0);
    let reason = "the disk is slow".to_owned();
    let (deciding, asked) = deciding(vec![Outcome::Failed(Failure::Unknown { reason })]);
    let coordinator = coordinator(&[(1, one.address)], deciding);
    run(async {
        client(&coordinator).await.add_replica(4, "127.0.0.1:9").await.unwrap();
    });
    let asked: Vec<_> = asked.try_iter().collect();
    assert_eq!(asked, [ReplicaChange::Add(NodeId(4)); 2]);
    assert_eq!(members(&coordinator), [1, 4]);
}

#[test]
fn a_replica_that_is_asked_sends_on_to_its_coordinator() {
    let (one, two) = (replica(1, 0), replica(2, 3));
    let (deciding, _asked) = deciding(Vec::new());
    let coordinator = coordinator(&[(1, one.address)], deciding);
    one.wait_for(|seen| *seen == Seen::Up(COORDINATOR));
    run(async {
        client(&one).await.add_replica(2, &two.address.to_string()).await.unwrap();
    });
    coordinator.wait_for(|seen| *seen == Seen::Up(NodeId(2)));
}

#[test]
fn who_is_added_and_comes_empty_as_if_it_had_always_been_there_is_refused() {
    let (one, mut two) = (replica(1, 0), replica(2, 0));
    let (deciding, _asked) = deciding(Vec::new());
    let coordinator = coordinator(&[(1, one.address)], deciding);
    let proxy = Proxy::before(two.address);
    run(async {
        client(&coordinator).await.add_replica(2, &proxy.address.to_string()).await.unwrap();
    });
    proxy.wait_for_connections(3);
    assert!(two.seen.try_recv().is_err(), "it was linked with");
    assert_eq!(two.identity.identity().cluster, None);
    assert_eq!(coordinator.identity.identity().joined_in(NodeId(2)), Some(0));
    // In a new life it is taken in, at the same address.
    let mut again = options();
    again.listen = two.address;
    two.end();
    let claim = Claim { life: 1, ..Claim::two_phase(Role::Replica, NodeId(2)) };
    let identity = Arc::new(IdentityFile::in_memory(&claim).unwrap());
    let _two = play(Role::Replica, NodeId(2), Some(identity), again, silent());
    coordinator.wait_for(|seen| *seen == Seen::Up(NodeId(2)));
    assert_eq!(coordinator.identity.identity().joined_in(NodeId(2)), Some(1));
}

#[test]
fn at_a_restart_the_log_has_the_last_word() {
    let (one, two) = (replica(1, 0), replica(2, 0));
    let mut first = coordinator(&[(1, one.address), (2, two.address)], silent());
    let identity = Arc::clone(&first.identity);
    first.end();
    // Removed, or never added: a crash came before the file was written.
    let proxy = Proxy::before(two.address);
    let both = dialling(&[(1, one.address), (2, proxy.address)]);
    let (deciding, _asked) = deciding(Vec::new());
    let logged = vec![NodeId(1), NodeId(3)];
    let again = play_logged(Role::Coordinator, COORDINATOR, Some(identity), both, logged, deciding);
    again.wait_for(|seen| *seen == Seen::Up(NodeId(1)));
    assert_eq!(members(&again), [1], "where 3 is, nobody knows");
    assert_eq!(proxy.connections_so_far(), 0, "it is dialled");
    // It may be added all the same, by this log.
    run(async {
        client(&again).await.add_replica(2, &proxy.address.to_string()).await.unwrap();
    });
    again.wait_for(|seen| *seen == Seen::Up(NodeId(2)));
}
