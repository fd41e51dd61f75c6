//! Links between nodes that the test plays.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use kvorum_node::{Claim, ClusterId, IdentityFile};
use kvorum_replication::two_phase::message::{Message, Prepare, TxnId};
use kvorum_replication::{Answer, NodeId, Role, Transaction, Write as Put};
use kvorum_rpc::server::ServerOptions;

use crate::support::{Played, Seen, client, options, play, rows, run, silent};

const COORDINATOR: NodeId = NodeId::COORDINATOR;

fn txn(number: u64) -> TxnId {
    TxnId { coordinator: COORDINATOR, epoch: 1, number }
}

fn inquire(number: u64) -> Message {
    Message::Inquire { txn: txn(number) }
}

fn replica(node: u32) -> Played {
    play(Role::Replica, NodeId(node), None, options(), silent())
}

fn dialling(replicas: &[(NodeId, SocketAddr)]) -> ServerOptions {
    let mut dialling = options();
    dialling.peers.dial = replicas.iter().map(|(node, at)| (*node, at.to_string())).collect();
    dialling
}

fn coordinator(replicas: &[(NodeId, SocketAddr)]) -> Played {
    play(Role::Coordinator, COORDINATOR, None, dialling(replicas), rows())
}

/// Collects messages until there are as many.
fn collect(played: &Played, from: NodeId, count: usize) -> (Vec<Message>, usize) {
    let (mut all, mut deliveries) = (Vec::new(), 0);
    while all.len() < count {
        let seen =
            played.wait_for(|seen| matches!(seen, Seen::Messages(sender, _) if *sender == from));
        if let Seen::Messages(_, messages) = seen {
            all.extend(messages);
            deliveries += 1;
        }
    }
    (all, deliveries)
}

#[test]
fn messages_travel_both_ways_over_the_connection_that_one_side_dialled() {
    let (one, two) = (replica(1), replica(2));
    let coordinator = coordinator(&[(NodeId(1), one.address), (NodeId(2), two.address)]);
    for node in [NodeId(1), NodeId(2)] {
        coordinator.wait_for(|seen| *seen == Seen::Up(node));
    }
    one.wait_for(|seen| *seen == Seen::Up(COORDINATOR));
    two.wait_for(|seen| *seen == Seen::Up(COORDINATOR));
    let sends = (0..5000).flat_map(|n| [(NodeId(1), inquire(n)), (NodeId(2), inquire(n))]);
    coordinator.say(sends.collect());
    for played in [&one, &two] {
        let (messages, deliveries) = collect(played, COORDINATOR, 5000);
        let expected: Vec<_> = (0..5000).map(inquire).collect();
        assert_eq!(messages, expected, "all of them, in order");
        assert!(deliveries < 10, "5000 messages said at once came in {deliveries} deliveries");
    }
    one.say(vec![(COORDINATOR, inquire(7))]);
    assert_eq!(collect(&coordinator, NodeId(1), 1).0, [inquire(7)]);
}

#[test]
fn a_message_larger_than_a_batch_travels_alone() {
    let one = replica(1);
    let coordinator = coordinator(&[(NodeId(1), one.address)]);
    coordinator.wait_for(|seen| *seen == Seen::Up(NodeId(1)));
    let large = Message::Prepare(Arc::new(Prepare {
        txn: txn(1),
        participants: Arc::from([NodeId(1)]),
        transaction: Arc::new(Transaction {
            preconditions: Vec::new(),
            writes: vec![Put::Put(Bytes::from_static(b"k"), Bytes::from(vec![9; 16 << 20]))],
        }),
        one_phase: None,
        parallel: None,
        finished_below: txn(1),
    }));
    let sends = [inquire(1), large.clone(), inquire(2)].map(|message| (NodeId(1), message));
    coordinator.say(sends.into());
    assert_eq!(collect(&one, COORDINATOR, 3).0, [inquire(1), large, inquire(2)]);
}

#[test]
fn a_replica_joins_the_cluster_of_its_coordinator_and_learns_its_members() {
    let (one, two) = (replica(1), replica(2));
    let coordinator = coordinator(&[(NodeId(1), one.address), (NodeId(2), two.address)]);
    one.wait_for(|seen| *seen == Seen::Up(COORDINATOR));
    let (theirs, ours) = (coordinator.identity.identity(), one.identity.identity());
    assert!(ours.cluster.is_some());
    assert_eq!((ours.cluster, &ours.members), (theirs.cluster, &theirs.members));
    let at = |played: &Played| played.address.to_string();
    let expected = [(COORDINATOR, at(&coordinator)), (NodeId(1), at(&one)), (NodeId(2), at(&two))];
    assert_eq!(ours.members, expected);
}

#[test]
fn replicas_dial_each_other_when_they_have_something_to_say() {
    let (one, two) = (replica(1), replica(2));
    let _coordinator = coordinator(&[(NodeId(1), one.address), (NodeId(2), two.address)]);
    for played in [&one, &two] {
        played.wait_for(|seen| *seen == Seen::Up(COORDINATOR));
    }
    one.say(vec![(NodeId(2), inquire(1)), (NodeId(2), inquire(2))]);
    two.wait_for(|seen| *seen == Seen::Up(NodeId(1)));
    assert_eq!(collect(&two, NodeId(1), 2).0, [inquire(1), inquire(2)]);
    // The answer needs no second connection.
    two.say(vec![(NodeId(1), inquire(3))]);
    assert_eq!(collect(&one, NodeId(2), 1).0, [inquire(3)]);
}

#[test]
fn both_dialling_at_once_leaves_both_linked() {
    let (one, two) = (replica(1), replica(2));
    let _coordinator = coordinator(&[(NodeId(1), one.address), (NodeId(2), two.address)]);
    for played in [&one, &two] {
        played.wait_for(|seen| *seen == Seen::Up(COORDINATOR));
    }
    one.say(vec![(NodeId(2), inquire(1))]);
    two.say(vec![(NodeId(1), inquire(2))]);
    assert_eq!(collect(&two, NodeId(1), 1).0, [inquire(1)]);
    assert_eq!(collect(&one, NodeId(2), 1).0, [inquire(2)]);
    for number in 10..20 {
        one.say(vec![(NodeId(2), inquire(number))]);
        assert_eq!(collect(&two, NodeId(1), 1).0, [inquire(number)]);
        two.say(vec![(NodeId(1), inquire(number))]);
        assert_eq!(collect(&one, NodeId(2), 1).0, [inquire(number)]);
    }
}

#[test]
fn a_replica_that_comes_back_is_linked_again() {
    let mut one = replica(1);
    let coordinator = coordinator(&[(NodeId(1), one.address)]);
    coordinator.wait_for(|seen| *seen == Seen::Up(NodeId(1)));
    let (address, identity) = (one.address, Arc::clone(&one.identity));
    one.end();
    coordinator.wait_for(|seen| *seen == Seen::Down(NodeId(1)));
    let mut again = options();
    again.listen = address;
    let one = play(Role::Replica, NodeId(1), Some(identity), again, silent());
    coordinator.wait_for(|seen| *seen == Seen::Up(NodeId(1)));
    coordinator.say(vec![(NodeId(1), inquire(1))]);
    assert_eq!(collect(&one, COORDINATOR, 1).0, [inquire(1)]);
}

#[test]
fn a_replica_of_another_cluster_is_not_linked_until_it_is_the_right_one() {
    let claim = Claim::two_phase(Role::Replica, NodeId(1));
    let foreign = Arc::new(IdentityFile::in_memory(&claim).unwrap());
    foreign.adopt_cluster(ClusterId([7; 16])).unwrap();
    let mut one = play(Role::Replica, NodeId(1), Some(foreign), options(), silent());
    let proxy = Proxy::before(one.address);
    let coordinator = coordinator(&[(NodeId(1), proxy.address)]);
    proxy.wait_for_connections(3);
    coordinator.say(vec![(NodeId(1), inquire(1))]);
    run(async {
        let status = client(&coordinator).await.status().await.unwrap();
        assert!(!status.members.iter().any(|member| member.node == 1 && member.up));
        assert!(status.counters.contains(&("rpc_peer_messages_dropped".to_owned(), 1)));
    });
    assert!(one.seen.try_recv().is_err() && coordinator.seen.try_recv().is_err());
    assert_eq!(one.identity.identity().cluster, Some(ClusterId([7; 16])));
    // The right one at the same address is linked without a restart.
    let mut again = options();
    again.listen = one.address;
    one.end();
    let _one = play(Role::Replica, NodeId(1), None, again, silent());
    coordinator.wait_for(|seen| *seen == Seen::Up(NodeId(1)));
}

#[test]
fn a_node_with_the_wrong_number_is_not_linked() {
    let two = replica(2);
    let proxy = Proxy::before(two.address);
    let coordinator = coordinator(&[(NodeId(1), proxy.address)]);
    proxy.wait_for_connections(3);
    assert!(two.seen.try_recv().is_err() && coordinator.seen.try_recv().is_err());
    assert_eq!(two.identity.identity().cluster, None);
}

#[test]
fn a_peer_that_falls_silent_is_down_and_up_again_when_it_speaks() {
    let one = replica(1);
    let proxy = Proxy::before(one.address);
    let mut quick = dialling(&[(NodeId(1), proxy.address)]);
    quick.peers.ping_interval = Duration::from_millis(50);
    quick.peers.liveness_timeout = Duration::from_millis(400);
    let coordinator = play(Role::Coordinator, COORDINATOR, None, quick, silent());
    coordinator.wait_for(|seen| *seen == Seen::Up(NodeId(1)));
    proxy.mute(true);
    coordinator.wait_for(|seen| *seen == Seen::Down(NodeId(1)));
    proxy.mute(false);
    coordinator.wait_for(|seen| *seen == Seen::Up(NodeId(1)));
    // On a busy machine also a peer that speaks may seem silent; what is said meanwhile is lost.
    let heard = |seen: &Seen| matches!(seen, Seen::Messages(COORDINATOR, _));
    let mut said = 0;
    while one.has_seen(heard).is_none() {
        assert!(said < 10_000, "it is not spoken to");
        said += 1;
        coordinator.say(vec![(NodeId(1), inquire(said))]);
    }
}

#[test]
fn what_was_said_before_a_drain_has_left_after_it() {
    let one = replica(1);
    let coordinator = coordinator(&[(NodeId(1), one.address)]);
    coordinator.wait_for(|seen| *seen == Seen::Up(NodeId(1)));
    let value = Bytes::from(vec![3; 8 << 20]);
    let answer = Message::ReadAnswer { read: 1, epoch: 1, answer: Answer::Value(Some(value)) };
    coordinator.say(vec![(NodeId(1), answer.clone()), (NodeId(1), inquire(2))]);
    coordinator.drain();
    // The process could die now.
    std::mem::forget(coordinator);
    assert_eq!(collect(&one, COORDINATOR, 2).0, [answer, inquire(2)]);
}

#[test]
fn a_queue_that_is_full_drops_and_counts() {
    let one = replica(1);
    let mut narrow = dialling(&[(NodeId(1), one.address)]);
    narrow.peers.queue_messages_max = 100;
    let coordinator = play(Role::Coordinator, COORDINATOR, None, narrow, silent());
    coordinator.wait_for(|seen| *seen == Seen::Up(NodeId(1)));
    coordinator.say((0..1000).map(|number| (NodeId(1), inquire(number))).collect());
    let expected: Vec<_> = (0..100).map(inquire).collect();
    assert_eq!(collect(&one, COORDINATOR, 100).0, expected);
    coordinator.say(vec![(NodeId(9), inquire(1))]);
    run(async {
        let status = client(&coordinator).await.status().await.unwrap();
        let dropped = ("rpc_peer_messages_dropped".to_owned(), 901);
        assert!(status.counters.contains(&dropped), "{:?}", status.counters);
    });
}

/// A proxy that counts connections, and can stop passing anything on, as a broken network would.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    muted: Arc<AtomicBool>,
    connections: std::sync::mpsc::Receiver<()>,
}

impl Proxy {
    pub(crate) fn before(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let muted = Arc::new(AtomicBool::new(false));
        let (sender, connections) = std::sync::mpsc::channel();
        let mute = Arc::clone(&muted);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(target)) else {
                    continue;
                };
                // Whoever counted may have seen enough.
                let _ = sender.send(());
                pass(&client, &server, &mute);
                pass(&server, &client, &mute);
            }
        });
        Self { address, muted, connections }
    }

    pub(crate) fn mute(&self, muted: bool) {
        self.muted.store(muted, Ordering::Release);
    }

    /// How many came since it was last looked.
    pub(crate) fn connections_so_far(&self) -> usize {
        self.connections.try_iter().count()
    }

    pub(crate) fn wait_for_connections(&self, count: usize) {
        for _ in 0..count {
            self.connections.recv_timeout(crate::support::PATIENCE).unwrap();
        }
    }
}

fn pass(from: &TcpStream, to: &TcpStream, muted: &Arc<AtomicBool>) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    let muted = Arc::clone(muted);
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        loop {
            match from.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                // What a mute network took is lost, and so is the connection.
                Ok(_) if muted.load(Ordering::Acquire) => {}
                Ok(read) => {
                    if to.write_all(&buffer[..read]).is_err() {
                        break;
                    }
                }
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
}
