//! Clients against a server whose node the test plays.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::{
    Behaviour, Nowhere, Rows, at_some_pace, client, connect, coordinator, options, patient, play,
    rows, run,
};
use bytes::Bytes;
use kvorum_node::{Claim, Event, IdentityFile};
use kvorum_replication::two_phase::message::Message;
use kvorum_replication::{
    Failure, Happened, NodeId, Operation, Outcome, Precondition, Range, Role, Transaction, Write,
};
use kvorum_rpc::client::{Client, ClientOptions, ErrorKind};
use kvorum_rpc::server::{Server, ServerError, ServerOptions};
use tokio::task::JoinSet;

fn key(name: &'static str) -> Bytes {
    Bytes::from_static(name.as_bytes())
}

#[test]
fn every_operation_goes_there_and_back() {
    let played = coordinator(options());
    run(async {
        let client = client(&played).await;
        assert_eq!(client.get(key("a")).await, Ok(None));
        client.put(key("a"), key("1")).await.unwrap();
        client.put(key("b"), Bytes::new()).await.unwrap();
        client.put(key("c"), key("3")).await.unwrap();
        assert_eq!(client.get(key("a")).await, Ok(Some(key("1"))));
        assert_eq!(client.get(key("b")).await, Ok(Some(Bytes::new())));
        client.delete(key("c")).await.unwrap();
        assert_eq!(client.get(key("c")).await, Ok(None));

        let move_a_to_d = Transaction {
            preconditions: vec![
                Precondition::Equals(key("a"), key("1")),
                Precondition::Absent(key("d")),
                Precondition::Present(key("b")),
            ],
            writes: vec![Write::Delete(key("a")), Write::Put(key("d"), key("1"))],
        };
        client.transact(move_a_to_d.clone()).await.unwrap();
        let error = client.transact(move_a_to_d).await.unwrap_err();
        assert_eq!((error.kind, error.happened), (ErrorKind::PreconditionFailed, Happened::No));
        assert!(error.what.contains("precondition 1") && error.what.contains("\"a\""), "{error}");

        let range = Range { start: Bytes::new(), end: None, limit: 1 };
        let page = client.scan(range).await.unwrap();
        assert_eq!((page.rows, page.more), (vec![(key("b"), Bytes::new())], true));
        let range = Range { start: key("b"), end: Some(key("d")), limit: 10 };
        let page = client.scan(range).await.unwrap();
        assert_eq!((page.rows.len(), page.more), (1, false));
    });
}

#[test]
fn a_process_tells_how_it_is() {
    let played = coordinator(options());
    run(async {
        let status = client(&played).await.status().await.unwrap();
        assert_eq!((status.role.as_str(), status.node, status.incarnation), ("coordinator", 0, 3));
        assert_eq!((status.log_last, status.log_durable), (11, 10));
        assert_eq!(status.address, played.connect_to());
        assert_eq!(status.cluster.len(), 32);
        assert_eq!(status.members.len(), 1);
        assert!(status.members[0].up);
        assert!(status.counters.contains(&("played".to_owned(), 1)));
        let inspected = client(&played).await.inspect(Bytes::new(), 10).await.unwrap();
        assert_eq!(inspected.rows, []);
    });
}

#[test]
fn limits_are_named_before_and_behind_the_wire() {
    let played = coordinator(options());
    run(async {
        let client = client(&played).await;
        let long = Bytes::from(vec![7; 65 << 10]);
        let large = Bytes::from(vec![7; 17 << 20]);
        for error in [
            client.get(Bytes::new()).await.map(drop).unwrap_err(),
            client.get(long.clone()).await.map(drop).unwrap_err(),
            client.put(long, Bytes::new()).await.unwrap_err(),
            client.put(key("a"), large).await.unwrap_err(),
        ] {
            assert_eq!((error.kind, error.happened), (ErrorKind::Invalid, Happened::No));
            assert!(error.what.contains("at most") || error.what.contains("at least"), "{error}");
        }
        // The largest that is allowed goes through.
        let (longest, largest) = (Bytes::from(vec![1; 64 << 10]), Bytes::from(vec![2; 16 << 20]));
        client.put(longest.clone(), largest.clone()).await.unwrap();
        assert_eq!(client.get(longest).await, Ok(Some(largest)));
    });
}

/// Answers with whatever the test has put here.
fn answering(outcome: Outcome) -> Behaviour {
    let mut rows = Rows::default();
    Box::new(move |event, turn| {
        let Event::Request(request) = event else { return };
        let outcome = match &request.operation {
            Operation::OpenSession => rows.answer(&request.operation),
            Operation::Read(_)
            | Operation::ReadStale(_)
            | Operation::Transact { .. }
            | Operation::ChangeMembers { .. }
            | Operation::ChangeReplicas(_) => outcome.clone(),
        };
        turn.replies.push((request.id, outcome));
    })
}

#[test]
fn every_failure_has_its_kind_and_says_whether_it_happened() {
    let text = || "because".to_owned();
    let cases = [
        (Failure::Conflict { key: key("k") }, ErrorKind::Conflict, Happened::No),
        (Failure::Unavailable { reason: text() }, ErrorKind::Unavailable, Happened::No),
        (Failure::Overloaded, ErrorKind::Overloaded, Happened::No),
        (Failure::Unknown { reason: text() }, ErrorKind::Unknown, Happened::Unknown),
        (Failure::StaleSequence, ErrorKind::StaleSequence, Happened::Unknown),
        (Failure::Invalid { reason: text() }, ErrorKind::Invalid, Happened::No),
        (Failure::Storage { reason: text() }, ErrorKind::Corrupt, Happened::No),
        (Failure::Redirect { to: NodeId(9) }, ErrorKind::Refused, Happened::No),
    ];
    for (failure, kind, happened) in cases {
        let outcome = Outcome::Failed(failure);
        let played =
            play(Role::Coordinator, NodeId::COORDINATOR, None, options(), answering(outcome));
        let trial = async |timeout| {
            let options = ClientOptions { timeout, ..patient([played.connect_to()]) };
            let client = Client::connect(options).await.map_err(|error| error.to_string())?;
            let error = client.put(key("k"), key("v")).await.unwrap_err();
            assert!(!error.remedy.is_empty());
            // Where to try again is the remedy, one has to know that it is no second time.
            if [ErrorKind::Unavailable, ErrorKind::Overloaded].contains(&kind) {
                assert!(error.remedy.starts_with("it did not happen"), "{error}: {}", error.remedy);
            }
            let is_right = (error.kind, error.happened) == (kind, happened);
            is_right.then_some(()).ok_or(error.to_string())
        };
        // What may have happened is asked for until its time is over.
        at_some_pace(Duration::from_millis(500), |timeout| run(trial(timeout)));
    }
}

#[test]
fn a_session_that_is_gone_is_replaced_when_nothing_was_sent_before() {
    let mut expired = false;
    let mut rows = Rows::default();
    let behaviour: Behaviour = Box::new(move |event, turn| {
        let Event::Request(request) = event else { return };
        let outcome = match &request.operation {
            Operation::Transact { .. } if !expired => {
                expired = true;
                Outcome::Failed(Failure::SessionExpired)
            }
            operation => rows.answer(operation),
        };
        turn.replies.push((request.id, outcome));
    });
    let played = play(Role::Coordinator, NodeId::COORDINATOR, None, options(), behaviour);
    run(async {
        let client = client(&played).await;
        client.put(key("a"), key("1")).await.unwrap();
        assert_eq!(client.get(key("a")).await, Ok(Some(key("1"))));
    });
}

#[test]
fn a_node_that_does_not_answer_leaves_the_outcome_open() {
    let mut rows = Rows::default();
    let behaviour: Behaviour = Box::new(move |event, turn| {
        let Event::Request(request) = event else { return };
        if request.operation == Operation::OpenSession {
            turn.replies.push((request.id, rows.answer(&request.operation)));
        }
    });
    let played = play(Role::Coordinator, NodeId::COORDINATOR, None, options(), behaviour);
    let trial = async |timeout| {
        let options = ClientOptions { timeout, ..patient([played.connect_to()]) };
        let client = Client::connect(options).await.map_err(|error| error.to_string())?;
        let put = client.put(key("a"), key("1")).await.unwrap_err();
        let get = client.get(key("a")).await.unwrap_err();
        // The connection is as good as before.
        let node = client.status().await.map_err(|error| error.to_string())?.node;
        let told = [put, get].map(|error| (error.kind, error.happened));
        let expected =
            [(ErrorKind::Unknown, Happened::Unknown), (ErrorKind::Unavailable, Happened::No)];
        if (told, node) == (expected, 0) { Ok(()) } else { Err(format!("{told:?}")) }
    };
    at_some_pace(Duration::from_millis(300), |timeout| run(trial(timeout)));
}

#[test]
fn a_write_whose_answer_was_lost_is_asked_again_and_happens_once() {
    let state = Arc::new(Mutex::new(Rows::default()));
    let theirs = Arc::clone(&state);
    // The first server takes the write and never answers it; the second one knows of it.
    let behaviour: Behaviour = Box::new(move |event, turn| {
        let Event::Request(request) = event else { return };
        let outcome = theirs.lock().unwrap().answer(&request.operation);
        if request.operation == Operation::OpenSession {
            turn.replies.push((request.id, outcome));
        }
    });
    let mut first = play(Role::Coordinator, NodeId::COORDINATOR, None, options(), behaviour);
    run(async {
        let client = client(&first).await;
        let writing = {
            let client = client.clone();
            tokio::task::spawn_local(async move { client.put(key("a"), key("1")).await })
        };
        while state.lock().unwrap().asked.is_empty() {
            tokio::task::yield_now().await;
        }
        let mut listen = options();
        listen.listen = first.address;
        first.end();
        let theirs = Arc::clone(&state);
        let behaviour: Behaviour = Box::new(move |event, turn| {
            let Event::Request(request) = event else { return };
            turn.replies.push((request.id, theirs.lock().unwrap().answer(&request.operation)));
        });
        let _second = play(Role::Coordinator, NodeId::COORDINATOR, None, listen, behaviour);
        assert_eq!(writing.await.unwrap(), Ok(()));
        assert_eq!(client.get(key("a")).await, Ok(Some(key("1"))));
        let asked: Vec<_> = state.lock().unwrap().asked.values().copied().collect();
        assert_eq!(asked, [2], "one stamp, asked for twice");
    });
}

#[test]
fn addresses_are_tried_in_turn_and_all_are_named_when_none_answers() {
    let played = coordinator(options());
    let nowhere = Nowhere::take();
    let gone = nowhere.address();
    run(async {
        let options = patient([gone.clone(), played.connect_to()]);
        let client = Client::connect(options).await.unwrap();
        assert_eq!(client.address(), played.connect_to());
        let options = patient([gone.clone(), "127.0.0.1:1".to_owned()]);
        let error = Client::connect(options).await.map(drop).unwrap_err();
        assert_eq!((error.kind, error.happened), (ErrorKind::Unavailable, Happened::No));
        assert!(error.what.contains(&gone) && error.what.contains("127.0.0.1:1:"));
    });
}

#[test]
fn a_wrong_token_is_refused_and_the_right_one_is_not() {
    let mut guarded = options();
    guarded.token = b"open sesame".to_vec();
    let played = coordinator(guarded);
    run(async {
        let error = connect(&played).await.map(drop).unwrap_err();
        assert_eq!((error.kind, error.happened), (ErrorKind::Refused, Happened::No), "{error}");
        let mut options = patient([played.connect_to()]);
        options.token = b"open sesame".to_vec();
        let client = Client::connect(options).await.unwrap();
        client.put(key("a"), key("1")).await.unwrap();
        client.status().await.unwrap();
    });
}

#[test]
fn a_redirect_is_followed() {
    let played = coordinator(options());
    let claim = Claim::two_phase(Role::Replica, NodeId(1));
    let identity = Arc::new(IdentityFile::in_memory(&claim).unwrap());
    let members =
        vec![(NodeId::COORDINATOR, played.connect_to()), (NodeId(1), "127.0.0.1:1".to_owned())];
    identity.set_members(members).unwrap();
    let elsewhere = Outcome::Failed(Failure::Redirect { to: NodeId::COORDINATOR });
    let behaviour: Behaviour = Box::new(move |event, turn| {
        if let Event::Request(request) = event {
            turn.replies.push((request.id, elsewhere.clone()));
        }
    });
    let replica = play(Role::Replica, NodeId(1), Some(identity), options(), behaviour);
    run(async {
        let client = client(&replica).await;
        assert_eq!(client.address(), replica.connect_to());
        client.put(key("a"), key("1")).await.unwrap();
        assert_eq!(client.address(), played.connect_to());
    });
}

#[test]
fn too_many_requests_are_refused_at_once() {
    let mut narrow = options();
    narrow.requests_max = 4;
    let behaviour: Behaviour = Box::new(|_, _| {});
    let played = play(Role::Coordinator, NodeId::COORDINATOR, None, narrow, behaviour);
    run(async {
        let client = client(&played).await;
        let mut reads = JoinSet::new();
        for _ in 0..12 {
            let client = client.clone();
            reads.spawn_local(async move { client.get(key("a")).await });
        }
        // One connection has half of the places.
        for _ in 0..10 {
            let error = reads.join_next().await.unwrap().unwrap().unwrap_err();
            assert_eq!(error.kind, ErrorKind::Overloaded, "{error}");
        }
        // Those that were taken are never answered.
        assert!(reads.try_join_next().is_none());
        assert_eq!(reads.len(), 2);
    });
}

#[test]
fn only_loopback_is_listened_on_unless_told_otherwise() {
    let public = ServerOptions::new("0.0.0.0:0".parse().unwrap());
    let error = Server::bind::<Message>(public.clone()).map(drop).unwrap_err();
    assert!(matches!(error, ServerError::NotLoopback { .. }));
    let text = error.to_string();
    assert!(text.contains("0.0.0.0:0") && text.contains("--insecure"), "{text}");
    assert!(Server::bind::<Message>(ServerOptions { insecure: true, ..public }).is_ok());
}

#[test]
fn a_port_in_use_is_named_with_a_remedy() {
    let played = coordinator(options());
    let error = Server::bind::<Message>(ServerOptions::new(played.address)).map(drop).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&played.connect_to()) && text.contains("--listen"), "{text}");
}

#[test]
fn several_workers_share_the_connections() {
    let mut wide = options();
    wide.workers = 3;
    let played = play(Role::Coordinator, NodeId::COORDINATOR, None, wide, rows());
    run(async {
        for number in 0..9_u8 {
            let client = client(&played).await;
            let key = Bytes::from(vec![number + 1]);
            client.put(key.clone(), key.clone()).await.unwrap();
            assert_eq!(client.get(key.clone()).await, Ok(Some(key)));
        }
    });
}
