//! Clients that are sent elsewhere, or have to look for another server themselves.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use kvorum_node::{Claim, Event, IdentityFile};
use kvorum_replication::{
    Answer, ClientId, Failure, Happened, NodeId, Operation, Outcome, RequestId, Role,
};
use kvorum_rpc::client::{Client, ClientOptions, ErrorKind};

use crate::links::Proxy;
use crate::support::{
    Behaviour, Nowhere, Played, Rows, at_some_pace, client, options, patient, play, run,
};

fn key(name: &'static str) -> Bytes {
    Bytes::from_static(name.as_bytes())
}

fn done(operation: &Operation) -> Outcome {
    match operation {
        Operation::OpenSession => Outcome::Session(ClientId(1)),
        Operation::Read(_) | Operation::ReadStale(_) => Outcome::Answer(Answer::Value(None)),
        Operation::Transact { .. }
        | Operation::ChangeMembers { .. }
        | Operation::ChangeReplicas(_) => Outcome::Committed,
    }
}

/// A replica that knows where the coordinator is.
fn replica_of(coordinator: &str, behaviour: Behaviour) -> Played {
    let claim = Claim::two_phase(Role::Replica, NodeId(1));
    let identity = Arc::new(IdentityFile::in_memory(&claim).unwrap());
    let members = [(NodeId::COORDINATOR, coordinator), (NodeId(1), "127.0.0.1:1")];
    identity.set_members(members.map(|(node, at)| (node, at.to_owned())).into()).unwrap();
    play(Role::Replica, NodeId(1), Some(identity), options(), behaviour)
}

/// Sends its clients to the coordinator so many times, and then serves them itself.
fn at_first_elsewhere(times: usize, asked: &Arc<AtomicUsize>) -> Behaviour {
    let asked = Arc::clone(asked);
    Box::new(move |event, turn| {
        let Event::Request(request) = event else { return };
        let outcome = match asked.fetch_add(1, Ordering::Relaxed) < times {
            true => Outcome::Failed(Failure::Redirect { to: NodeId::COORDINATOR }),
            false => done(&request.operation),
        };
        turn.replies.push((request.id, outcome));
    })
}

fn failing(failure: &Failure) -> Behaviour {
    let failure = failure.clone();
    Box::new(move |event, turn| {
        let Event::Request(request) = event else { return };
        turn.replies.push((request.id, Outcome::Failed(failure.clone())));
    })
}

fn coordinator(behaviour: Behaviour) -> Played {
    play(Role::Coordinator, NodeId::COORDINATOR, None, options(), behaviour)
}

async fn client_of(addresses: &[String]) -> Client {
    Client::connect(patient(addresses)).await.unwrap()
}

#[test]
fn who_is_sent_where_nobody_is_comes_back_and_waits() {
    let asked = Arc::new(AtomicUsize::new(0));
    let nowhere = Nowhere::take();
    let replica = replica_of(&nowhere.address(), at_first_elsewhere(8, &asked));
    run(async {
        let began = std::time::Instant::now();
        let client = client_of(&[replica.connect_to()]).await;
        assert_eq!(client.get(key("a")).await, Ok(None));
        assert_eq!(asked.load(Ordering::Relaxed), 9, "each time it was asked once");
        // From the fourth on there is a pause before each, of 10 ms or more.
        assert!(began.elapsed() > Duration::from_millis(50), "{:?}", began.elapsed());
    });
}

#[test]
fn a_write_that_was_sent_elsewhere_for_too_long_did_not_happen() {
    const PACE: Duration = Duration::from_millis(700);
    let (nowhere, asked) = (Nowhere::take(), Arc::new(AtomicUsize::new(0)));
    let replica = replica_of(&nowhere.address(), at_first_elsewhere(usize::MAX, &asked));
    let trial = async |timeout: Duration| {
        let options = ClientOptions { timeout, ..patient([replica.connect_to()]) };
        let client = Client::connect(options).await.map_err(|error| error.to_string())?;
        asked.store(0, Ordering::Relaxed);
        let error = client.put(key("a"), key("1")).await.unwrap_err();
        let told = (error.kind, error.happened);
        let asked = asked.load(Ordering::Relaxed);
        let most = 40 * timeout.div_duration_f64(PACE) as usize;
        match told == (ErrorKind::Unavailable, Happened::No) && (4..most).contains(&asked) {
            true => Ok(()),
            false => Err(format!("asked {asked} times in {timeout:?}: {error}")),
        }
    };
    at_some_pace(PACE, |timeout| run(trial(timeout)));
}

#[test]
fn a_server_that_cannot_serve_is_left_for_the_next() {
    let unavailable = Failure::Unavailable { reason: "a minority".to_owned() };
    let one = coordinator(failing(&unavailable));
    let two = coordinator(at_first_elsewhere(0, &Arc::default()));
    run(async {
        let client = client_of(&[one.connect_to(), two.connect_to()]).await;
        client.put(key("a"), key("1")).await.unwrap();
        assert_eq!(client.address(), two.connect_to());
        // If none can, they are asked once each.
        let client = client_of(&[one.connect_to(), one.connect_to()]).await;
        let error = client.put(key("a"), key("1")).await.unwrap_err();
        assert_eq!((error.kind, error.happened), (ErrorKind::Unavailable, Happened::No), "{error}");
        assert!(error.what.contains("a minority"), "{error}");
    });
}

#[test]
fn calls_under_way_are_answered_where_they_were_asked() {
    let other = coordinator(at_first_elsewhere(0, &Arc::default()));
    // Holds a first read back until a second one was sent elsewhere.
    let mut held: Option<RequestId> = None;
    let behaviour: Behaviour = Box::new(move |event, turn| {
        let Event::Request(request) = event else { return };
        match held.take() {
            None => held = Some(request.id),
            Some(first) => {
                let elsewhere = Failure::Redirect { to: NodeId::COORDINATOR };
                turn.replies.push((request.id, Outcome::Failed(elsewhere)));
                let found = Answer::Value(Some(Bytes::from_static(b"held")));
                turn.replies.push((first, Outcome::Answer(found)));
            }
        }
    });
    let replica = replica_of(&other.connect_to(), behaviour);
    run(async {
        let client = client_of(&[replica.connect_to()]).await;
        let (first, second) = (client.clone(), client.clone());
        let first = tokio::task::spawn_local(async move { first.get(key("a")).await });
        let second = tokio::task::spawn_local(async move { second.get(key("a")).await });
        assert_eq!(second.await.unwrap(), Ok(None));
        assert_eq!(first.await.unwrap(), Ok(Some(key("held"))));
        assert_eq!(client.address(), other.connect_to());
    });
}

#[test]
fn a_server_that_falls_silent_is_left_and_the_write_happens_once() {
    let state = Arc::new(Mutex::new(Rows::default()));
    let behaviour = || -> Behaviour {
        let state = Arc::clone(&state);
        Box::new(move |event, turn| {
            let Event::Request(request) = event else { return };
            turn.replies.push((request.id, state.lock().unwrap().answer(&request.operation)));
        })
    };
    let (one, two) = (coordinator(behaviour()), coordinator(behaviour()));
    let proxy = Proxy::before(one.address);
    run(async {
        // On a busy machine also one that lives may be left, and comes to be asked again.
        let options = ClientOptions {
            silence_timeout: Duration::from_millis(600),
            connect_timeout: Duration::from_secs(2),
            ..patient([proxy.address.to_string(), two.connect_to()])
        };
        let client = Client::connect(options).await.unwrap();
        client.put(key("a"), key("1")).await.unwrap();
        proxy.mute(true);
        // Who waited for an answer would wait until it is too late for the write.
        client.put(key("a"), key("2")).await.unwrap();
        assert_eq!(client.address(), two.connect_to());
        assert_eq!(client.get(key("a")).await, Ok(Some(key("2"))));
    });
}

#[test]
fn a_server_that_thinks_for_long_is_not_left() {
    let trial = |silence_timeout: Duration| {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let behaviour: Behaviour = Box::new(move |event, turn| {
            let Event::Request(request) = event else { return };
            count.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(silence_timeout * 2);
            turn.replies.push((request.id, done(&request.operation)));
        });
        let one = coordinator(behaviour);
        run(async {
            let options = ClientOptions { silence_timeout, ..patient([one.connect_to()]) };
            let client = Client::connect(options).await.unwrap();
            assert_eq!(client.get(key("a")).await, Ok(None));
        });
        match asked.load(Ordering::Relaxed) {
            1 => Ok(()),
            asked => Err(format!("asked {asked} times")),
        }
    };
    at_some_pace(Duration::from_millis(400), trial);
}

#[test]
fn a_write_of_unknown_outcome_is_asked_for_again_and_settled() {
    let mut state = Rows::default();
    let mut is_first = true;
    let behaviour: Behaviour = Box::new(move |event, turn| {
        let Event::Request(request) = event else { return };
        let mut outcome = state.answer(&request.operation);
        if matches!(request.operation, Operation::Transact { .. }) && is_first {
            is_first = false;
            outcome = Outcome::Failed(Failure::Unknown { reason: "it fell behind".to_owned() });
        }
        turn.replies.push((request.id, outcome));
    });
    let one = coordinator(behaviour);
    run(async {
        client(&one).await.put(key("a"), key("1")).await.unwrap();
    });
}
