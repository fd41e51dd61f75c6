//! More is asked than can be done, and more visitors come than there is room for.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use kvorum_node::Event;
use kvorum_replication::{Answer, Happened, NodeId, Operation, Outcome, Query, Role};
use kvorum_rpc::client::{Client, ErrorKind};

use crate::support::{Behaviour, PATIENCE, client, connect, coordinator, options, play, run};

/// What a worker lets in: so few that it is the same however fast or slow this machine is.
const LIMIT: usize = 32;

/// A node that answers no write before it is asked for a key, and counts what it was asked.
fn withholding() -> (Behaviour, Arc<AtomicUsize>) {
    let writes = Arc::new(AtomicUsize::new(0));
    let theirs = Arc::clone(&writes);
    let mut held = Vec::new();
    let mut sessions = 0;
    let behaviour: Behaviour = Box::new(move |event, turn| {
        let Event::Request(request) = event else { return };
        match &request.operation {
            Operation::OpenSession => {
                sessions += 1;
                let session = Outcome::Session(kvorum_replication::ClientId(sessions));
                turn.replies.push((request.id, session));
            }
            Operation::Transact { .. } => {
                theirs.fetch_add(1, Ordering::Relaxed);
                held.push(request.id);
            }
            Operation::Read(Query::Get(key)) => {
                if key.as_ref() == b"go" {
                    turn.replies.extend(held.drain(..).map(|held| (held, Outcome::Committed)));
                }
                turn.replies.push((request.id, Outcome::Answer(Answer::Value(None))));
            }
            _ => panic!("nobody asks for this: {request:?}"),
        }
    });
    (behaviour, writes)
}

async fn put(client: &Client) -> Result<(), (ErrorKind, Happened)> {
    let put = client.put(Bytes::from_static(b"k"), Bytes::from_static(b"v")).await;
    put.map_err(|error| (error.kind, error.happened))
}

#[test]
fn one_who_asks_for_everything_gets_half_and_is_told_at_once() {
    let (behaviour, writes) = withholding();
    let mut narrow = options();
    narrow.requests_max = LIMIT;
    let played = play(Role::Coordinator, NodeId::COORDINATOR, None, narrow, behaviour);
    run(async {
        let (greedy, modest) = (client(&played).await, client(&played).await);
        let asked = LIMIT * 3 / 4;
        let refused = Cell::new(0);
        let all = join_all((0..asked).map(|_| async {
            let answer = put(&greedy).await;
            refused.set(refused.get() + usize::from(answer.is_err()));
            answer
        }));
        let watch = async {
            // The node answers only when all have asked, and the modest one has come through as well.
            let modest_put = async { put(&modest).await };
            let release = async {
                while refused.get() < asked - LIMIT / 2
                    || writes.load(Ordering::Relaxed) < asked - refused.get() + 1
                {
                    assert_eq!(modest.get(Bytes::from_static(b"look")).await.unwrap(), None);
                }
                modest.get(Bytes::from_static(b"go")).await.unwrap();
            };
            tokio::join!(modest_put, release).0
        };
        let (answers, modest_answer) = tokio::join!(all, watch);
        assert_eq!(modest_answer, Ok(()));
        let overloaded = Err((ErrorKind::Overloaded, Happened::No));
        let refusals = answers.iter().filter(|answer| **answer == overloaded).count();
        let done = answers.iter().filter(|answer| answer.is_ok()).count();
        // One less if the modest one came before the last of them.
        assert!(done.abs_diff(LIMIT / 2) <= 1, "{done} done");
        assert_eq!(done + refusals, asked);
        assert_eq!(writes.load(Ordering::Relaxed), done + 1);
        // All places are free again.
        let again = join_all((0..LIMIT / 4).map(|_| put(&greedy)));
        let release = async {
            while writes.load(Ordering::Relaxed) < done + 1 + LIMIT / 4 {
                modest.get(Bytes::from_static(b"look")).await.unwrap();
            }
            modest.get(Bytes::from_static(b"go")).await.unwrap();
        };
        let (again, ()) = tokio::join!(again, release);
        assert!(again.iter().all(Result::is_ok));
        let counters = modest.status().await.unwrap().counters;
        let overloaded = counters.iter().find(|(name, _)| name == "rpc_overloaded");
        assert_eq!(overloaded.map(|(_, count)| *count), Some(refusals as u64));
    });
}

#[test]
fn one_too_many_is_told_why() {
    let mut narrow = options();
    narrow.connections_max = 1;
    let played = coordinator(narrow);
    run(async {
        let first = client(&played).await;
        let error = match connect(&played).await {
            Ok(second) => second.get(Bytes::from_static(b"k")).await.unwrap_err(),
            Err(error) => error,
        };
        assert!(error.to_string().contains("has 1 connections"), "{error}");
        assert_eq!(error.happened, Happened::No);
        first.put(Bytes::from_static(b"k"), Bytes::from_static(b"v")).await.unwrap();
    });
}

/// What the server said before it closed.
fn closed(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the connection is still open: {error}"),
    }
    String::from_utf8_lossy(&said).into_owned()
}

/// The beginning of a message of a mebibyte.
fn begun(bytes: usize) -> Vec<u8> {
    let mut message = [0_u32, (1 << 20) / 8].map(u32::to_le_bytes).concat();
    message.resize(8 + bytes, 0);
    message
}

#[test]
fn a_message_that_drips_is_not_waited_for() {
    let mut impatient = options();
    impatient.stall_timeout = Duration::from_millis(50);
    impatient.handshake_timeout = PATIENCE;
    let played = coordinator(impatient);
    let mut stream = TcpStream::connect(played.address).unwrap();
    stream.write_all(&begun(8)).unwrap();
    // It never stands still, and would take a quarter of an hour.
    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let until = Instant::now() + PATIENCE;
    while is_open(&mut stream) {
        assert!(Instant::now() < until, "it is still waited for");
        // That it is closed meanwhile the next look tells.
        let _ = stream.write_all(&[0]);
    }
}

/// Waits for the server's closing, as long as a read may take.
fn is_open(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 256]) {
        Ok(count) => count > 0,
        Err(error) => matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
    }
}

#[test]
fn unfinished_messages_hold_only_so_much_and_the_first_have_to_go() {
    let mut tight = options();
    tight.message_bytes_max = 1 << 20;
    tight.unfinished_bytes_max = 4 << 20;
    tight.handshake_timeout = PATIENCE;
    let played = coordinator(tight);
    let half = begun(512 << 10);
    let mut visitors: Vec<_> = (0..40)
        .map(|_| {
            let mut visitor = TcpStream::connect(played.address).unwrap();
            visitor.write_all(&half).unwrap();
            visitor
        })
        .collect();
    // Whoever came first is closed because others came, long before anybody is impatient.
    for visitor in &mut visitors[..20] {
        let said = closed(visitor);
        assert!(said.contains("unfinished") || said.is_empty(), "{said}");
    }
    // And who means it is served, also with a message of that size.
    run(async {
        let client = client(&played).await;
        let value = Bytes::from(vec![1; 900 << 10]);
        client.put(Bytes::from_static(b"k"), value.clone()).await.unwrap();
        assert_eq!(client.get(Bytes::from_static(b"k")).await.unwrap(), Some(value));
        let counters = client.status().await.unwrap().counters;
        let held = counters.iter().find(|(name, _)| name == "rpc_unfinished_bytes").unwrap().1;
        assert!(held <= 4 << 20, "{held} bytes");
    });
}
