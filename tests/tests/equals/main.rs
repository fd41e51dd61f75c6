//! Clusters without a coordinator, over real sockets: replicas that agree by Multi-Paxos on disks in
//! memory, each behind a server of its own.

#![expect(clippy::unwrap_used, reason = "in a test's helpers as in the test itself")]

mod replicas;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kvorum_node::{Claim, FailPoints, IdentityFile, Node, Runner};
use kvorum_replication::two_phase::{Participant, ParticipantOptions};
use kvorum_replication::{Happened, NodeId, Range, Role};
use kvorum_rpc::client::{ErrorKind, ProcessStatus};
use kvorum_rpc::server::{Server, ServerOptions};
use kvorum_storage::Options;
use kvorum_storage::vfs::MemoryVfs;

use crate::replicas::{Cluster, PATIENCE, WINDOW, run};

fn key(name: &'static str) -> Bytes {
    Bytes::from_static(name.as_bytes())
}

fn counter(status: &ProcessStatus, name: &str) -> u64 {
    status.counters.iter().find(|(known, _)| known == name).map_or(0, |(_, value)| *value)
}

#[test]
fn three_new_replicas_found_a_cluster_and_any_of_them_takes_a_write() {
    let cluster = Cluster::start(3);
    run(async {
        for id in 1..=3 {
            let leader = cluster.leader_known_to(id).await;
            assert!((1..=3).contains(&leader));
        }
        for id in 1..=3 {
            let client = cluster.client(&[id]).await;
            let name = Bytes::from(vec![b'0' + u8::try_from(id).unwrap()]);
            client.put(name.clone(), key("written")).await.unwrap();
            assert_eq!(client.get(name).await, Ok(Some(key("written"))));
        }
        let identities: Vec<_> = (1..=3).map(|id| cluster.identity(id)).collect();
        for identity in &identities {
            assert!(identity.cluster.is_some() && identity.cluster == identities[0].cluster);
            assert!(identity.joined_in(identity.node).is_some(), "{identity:?}");
        }
        let status = cluster.status(2).await;
        assert_eq!(status.protocol, "Multi-Paxos");
        assert!(status.members.iter().all(|member| member.up), "{status:?}");
    });
}

#[test]
fn a_cluster_is_not_founded_before_all_have_come() {
    let mut cluster = Cluster::of(3);
    cluster.run(1);
    cluster.run(3);
    run(async {
        let client = cluster.client(&[3]).await;
        for error in [
            client.get_stale(key("a")).await.map(drop).unwrap_err(),
            client.put(key("a"), key("1")).await.unwrap_err(),
        ] {
            assert_eq!((error.kind, error.happened), (ErrorKind::Unavailable, Happened::No));
            assert!(error.what.contains("n3 has not joined its cluster yet"), "{error}");
        }
        assert_eq!(cluster.identity(1).cluster, None);
    });
    cluster.run(2);
    run(async {
        for id in 1..=3 {
            cluster.until(id, |status| status.members.iter().all(|member| member.up)).await;
        }
        cluster.client(&[3]).await.put(key("a"), key("1")).await.unwrap();
    });
}

#[test]
fn writes_go_on_after_the_leader_and_stop_without_a_majority() {
    let mut cluster = Cluster::start(3);
    let leader = run(async {
        let leader = cluster.leader_known_to(1).await;
        cluster.client(&[leader % 3 + 1]).await.put(key("a"), key("1")).await.unwrap();
        leader
    });
    cluster.stop(leader);
    let left: Vec<u32> = (1..=3).filter(|id| *id != leader).collect();
    run(async {
        // The client finds whoever leads now, though the first of its addresses is gone.
        let client = cluster.client(&[leader, left[0], left[1]]).await;
        client.put(key("b"), key("2")).await.unwrap();
        assert_eq!(client.get(key("a")).await, Ok(Some(key("1"))));
    });
    cluster.stop(left[0]);
    run(async {
        let client = cluster.client(&[left[1]]).await;
        cluster
            .until(left[1], |status| status.members.iter().filter(|it| it.up).count() == 1)
            .await;
        let error = client.put(key("c"), key("3")).await.unwrap_err();
        assert_eq!((error.kind, error.happened), (ErrorKind::Unavailable, Happened::No), "{error}");
        let error = client.get(key("a")).await.unwrap_err();
        assert_eq!((error.kind, error.happened), (ErrorKind::Unavailable, Happened::No), "{error}");
        assert_eq!(client.get_stale(key("a")).await, Ok(Some(key("1"))));
        let all = Range { start: Bytes::new(), end: None, limit: 10 };
        assert_eq!(client.scan_stale(all).await.unwrap().rows[0], (key("a"), key("1")));
    });
    cluster.run(left[0]);
    run(async {
        let client = cluster.client(&left).await;
        client.put(key("c"), key("3")).await.unwrap();
    });
}

#[test]
fn a_replica_that_lost_its_disk_is_refused_until_it_comes_in_a_later_life() {
    let mut cluster = Cluster::start(3);
    run(async {
        cluster.leader_known_to(2).await;
        cluster.client(&[2]).await.put(key("a"), key("1")).await.unwrap();
    });
    // The founder is no exception.
    for id in [3, 1] {
        cluster.stop(id);
        cluster.wipe(id);
        cluster.run(id);
        run(async {
            let until = Instant::now() + PATIENCE;
            let client = cluster.client(&[id]).await;
            loop {
                let error = client.get_stale(key("a")).await.unwrap_err();
                assert_eq!(error.kind, ErrorKind::Unavailable);
                if error.what.contains("belonged to this cluster before") {
                    assert!(error.what.contains("--rejoin"), "{error}");
                    break;
                }
                assert!(Instant::now() < until, "{error}");
            }
            assert_eq!(cluster.identity(id).cluster, None);
            cluster.client(&[2]).await.put(key("b"), key("2")).await.unwrap();
        });
        cluster.stop(id);
        // What it has written meanwhile says that it is in its first life.
        cluster.wipe(id);
        cluster.run_as(id, 1, |_| {});
        run(async {
            cluster.until(id, |status| status.members.iter().all(|member| member.up)).await;
            let client = cluster.client(&[id]).await;
            while client.get_stale(key("b")).await != Ok(Some(key("2"))) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            // It votes again once the others have let it in.
            let counts = ("votes_count".to_owned(), 1);
            cluster.until(id, |status| status.counters.contains(&counts)).await;
            // Until that takes effect, a window of slots later, its former self is still missed.
            let client = cluster.client(&[2]).await;
            for _ in 0..=WINDOW {
                client.put(key("c"), key("3")).await.unwrap();
            }
        });
        assert_eq!(cluster.identity(2).joined_in(NodeId(id)), Some(1));
    }
}

#[test]
fn a_broken_link_is_noticed_at_once() {
    // Nobody waits here until a peer has been silent for too long.
    let mut cluster = Cluster::start(3);
    run(async { cluster.until(1, |status| status.members.iter().all(|it| it.up)).await });
    cluster.stop(3);
    run(async { cluster.until(1, |status| status.members.iter().any(|it| !it.up)).await });
}

#[test]
fn another_protocol_is_refused_with_words() {
    let mut cluster = Cluster::of(2);
    let options = ServerOptions::new(cluster.member(2).address);
    let (disk, dir) = (Arc::new(MemoryVfs::new()), Path::new("data"));
    let claim = Claim::two_phase(Role::Replica, NodeId(2));
    let identity = Arc::new(IdentityFile::open(disk.clone(), dir, &claim).unwrap());
    let (server, outbox) = Server::bind(options).unwrap();
    let core = Participant::new(ParticipantOptions { id: NodeId(2), ..Default::default() });
    let node = Node::open_store(disk, dir, Options::default(), core, Vec::new()).unwrap();
    let fail_points = FailPoints::new(Vec::new(), &[]).unwrap();
    let runner = Runner::start(node, outbox, fail_points, Box::new(|| {})).unwrap();
    let serving = server.serve(runner.handle(), identity, None).unwrap();
    cluster.run(1);
    run(async {
        let client = cluster.client(&[1]).await;
        let until = Instant::now() + PATIENCE;
        loop {
            let error = client.get_stale(key("a")).await.unwrap_err();
            if error.what.contains("two-phase commit") && error.what.contains("Multi-Paxos") {
                break;
            }
            assert!(Instant::now() < until, "{error}");
        }
    });
    serving.stop();
    runner.stop().unwrap();
}

#[test]
fn a_pair_keeps_one_link() {
    // Nobody yields: links cross.
    let mut cluster = Cluster::of(2);
    for id in [1, 2] {
        cluster.run_as(id, 0, |options| {
            options.peers.yield_pause = Duration::ZERO;
            options.peers.ping_interval = Duration::from_millis(50);
        });
    }
    run(async {
        cluster.leader_known_to(1).await;
        cluster.client(&[1]).await.put(key("a"), key("1")).await.unwrap();
        // Each side counts the connections that came in; the one that asks is one of them.
        let mut counted = (0, 0);
        let until = Instant::now() + PATIENCE;
        while counted != (1, 0) && counted != (0, 1) {
            assert!(Instant::now() < until, "{counted:?} links");
            let links = async |id| counter(&cluster.status(id).await, "rpc_connections") - 1;
            counted = (links(1).await, links(2).await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        cluster.client(&[2]).await.put(key("a"), key("2")).await.unwrap();
    });
}
