//! The hot path and capnp-rpc on one connection: with others who speak the standard protocol, and
//! with those who do not keep to it.

use std::io::{ErrorKind as IoError, Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use capnp::message::{Builder, HeapAllocator, Reader, ReaderOptions};
use capnp::serialize::OwnedSegments;
use capnp::traits::HasTypeId;
use capnp_rpc::rpc_capnp::{call, cap_descriptor, message, return_};
use kvorum_node::Event;
use kvorum_replication::{Answer, NodeId, Outcome, Precondition, RequestId, Role, Transaction};
use kvorum_replication::{Operation, Query, Range, Write as Writing};
use kvorum_rpc::client::{Client, ClientOptions, ErrorKind};
use kvorum_schema::admin_capnp::admin;
use kvorum_schema::client_capnp::{gate, get_result, key_value, scan_result, write_result};
use tokio::task::spawn_local;

use crate::stock;
use crate::support::{
    Behaviour, PATIENCE, Played, Rows, client, coordinator, options, patient, play, run,
};

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn put(store: &key_value::Client, key: &str, value: &str) -> Result<(), capnp::Error> {
    let mut request = store.put_request();
    request.get().set_key(key.as_bytes());
    request.get().set_value(value.as_bytes());
    let response = request.send().promise.await?;
    match response.get()?.get_result()?.which()? {
        write_result::Committed(()) => Ok(()),
        write_result::Failed(_) => Err(capnp::Error::failed("failed".to_owned())),
    }
}

async fn get(store: &key_value::Client, key: &str) -> Option<Vec<u8>> {
    let mut request = store.get_request();
    request.get().set_key(key.as_bytes());
    let response = request.send().promise.await.unwrap();
    match response.get().unwrap().get_result().unwrap().which().unwrap() {
        get_result::Value(value) => Some(value.unwrap().to_vec()),
        get_result::Missing(()) => None,
        get_result::Failed(_) => panic!("the read failed"),
    }
}

#[test]
fn a_stock_client_is_served_hot_and_slow_on_one_connection() {
    let played = coordinator(options());
    run(async {
        let gate = stock::dial(played.address).await;
        // Pipelined on what the gate has not answered yet: the slow way.
        let promised = gate.client_request().send().pipeline.get_store();
        put(&promised, "early", "1").await.unwrap();
        let store = stock::store(&gate).await;
        assert_eq!(get(&store, "early").await.as_deref(), Some(b"1".as_slice()));
        let admin = gate.admin_request().send().promise.await.unwrap();
        let admin: admin::Client = admin.get().unwrap().get_admin().unwrap();
        for round in 0..50 {
            let key = format!("k{round}");
            put(&store, &key, "v").await.unwrap();
            assert_eq!(get(&store, &key).await.as_deref(), Some(b"v".as_slice()));
            let mut request = store.delete_request();
            request.get().set_key(key.as_bytes());
            let (deleted, status) =
                tokio::join!(request.send().promise, admin.status_request().send().promise);
            assert_eq!(status.unwrap().get().unwrap().get_status().unwrap().get_node(), 0);
            deleted.unwrap();
            assert_eq!(get(&store, &key).await, None);
        }
        let mut request = store.scan_request();
        request.get().set_limit(10);
        let response = request.send().promise.await.unwrap();
        match response.get().unwrap().get_result().unwrap().which().unwrap() {
            scan_result::Rows(rows) => assert_eq!(rows.get_rows().unwrap().len(), 1),
            scan_result::Failed(_) => panic!("the scan failed"),
        }
        // The store that is let go of can be asked for again.
        drop((promised, store));
        let store = stock::store(&gate).await;
        assert_eq!(get(&store, "early").await.as_deref(), Some(b"1".as_slice()));
    });
}

#[test]
fn thousands_of_calls_are_answered_each_with_its_own_answer() {
    let played = coordinator(options());
    run(async {
        let ours = client(&played).await;
        let theirs = stock::store(&stock::dial(played.address).await).await;
        let tasks: Vec<_> = (0..2000)
            .map(|number| {
                let (ours, theirs) = (ours.clone(), theirs.clone());
                spawn_local(async move {
                    let (key, value) = (format!("k{number}"), format!("v{number}"));
                    match number % 2 {
                        0 => ours.put(bytes(&key), bytes(&value)).await.unwrap(),
                        _ => put(&theirs, &key, &value).await.unwrap(),
                    }
                    let found = get(&theirs, &key).await.unwrap();
                    assert_eq!(found, value.as_bytes());
                    assert_eq!(ours.get(bytes(&key)).await, Ok(Some(bytes(&value))));
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

#[test]
fn our_client_speaks_to_a_stock_server() {
    for promised in [false, true] {
        run(async {
            let store = Rc::new(stock::Store { promised, ..stock::Store::default() });
            let address = stock::serve(store).await;
            let client = Client::connect(patient([address.to_string()])).await.unwrap();
            assert_eq!(client.get(bytes("a")).await, Ok(None));
            client.put(bytes("a"), bytes("1")).await.unwrap();
            client.put(bytes("b"), bytes("2")).await.unwrap();
            assert_eq!(client.get(bytes("a")).await, Ok(Some(bytes("1"))));
            client.delete(bytes("a")).await.unwrap();
            let transaction = Transaction {
                preconditions: vec![Precondition::Absent(bytes("a"))],
                writes: vec![Writing::Put(bytes("c"), bytes("3")), Writing::Delete(bytes("b"))],
            };
            client.transact(transaction).await.unwrap();
            let range = Range { start: Bytes::new(), end: None, limit: 10 };
            assert_eq!(client.scan(range).await.unwrap().rows, [(bytes("c"), bytes("3"))]);
            // Many at once; the server wants to be told that each is finished.
            let puts: Vec<_> = (0..2000)
                .map(|number| {
                    let client = client.clone();
                    let key = bytes(&format!("k{number}"));
                    spawn_local(async move { client.put(key, bytes("v")).await })
                })
                .collect();
            for put in puts {
                put.await.unwrap().unwrap();
            }
            let error = client.put(bytes("throw"), bytes("")).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Overloaded, "{error}");
            assert!(error.what.contains("not now"), "{error}");
            // It has no admin interface.
            assert_eq!(client.status().await.unwrap_err().kind, ErrorKind::Refused);
            let mut options = patient([address.to_string()]);
            options.token = b"wrong".to_vec();
            let error = Client::connect(options).await.map(drop).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Refused, "{error}");
            assert!(error.what.contains("not with this token"), "{error}");
        });
    }
}

#[test]
fn a_client_whose_server_goes_away_in_the_middle_is_told() {
    run(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let visitor = spawn_local(async move {
            let mut options = ClientOptions::new([address.to_string()]);
            options.timeout = Duration::from_millis(300);
            Client::connect(options).await.map(drop)
        });
        let (stream, _) = listener.accept().await.unwrap();
        drop((stream, listener));
        let error = visitor.await.unwrap().unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    });
}

#[test]
fn an_answer_that_nobody_asked_for_ends_the_connection() {
    run(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let visitor = spawn_local(Client::connect(patient([address.to_string()])));
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = stream.into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        let said = tokio::task::spawn_blocking(move || {
            let mut answer = Builder::new_default();
            let builder = answer.init_root::<message::Builder<'_>>().init_return();
            let mut builder = builder;
            builder.set_answer_id((1 << 30) + 77);
            builder.init_results();
            capnp::serialize::write_message(&mut stream, &answer).unwrap();
            let mut said = Vec::new();
            // It may be reset, for what was not read of it.
            let _ = stream.read_to_end(&mut said);
            said
        });
        let error = visitor.await.unwrap().map(drop).unwrap_err();
        assert!(error.what.contains("not asked"), "{error}");
        drop(said);
    });
}

/// One who writes each message of the protocol himself, and has been given the store.
struct Visitor {
    stream: TcpStream,
    store: u32,
    /// What is said, while it is kept back to be sent at once.
    gathered: Option<Vec<u8>>,
}

impl Visitor {
    fn new(played: &Played) -> Self {
        let stream = TcpStream::connect(played.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut visitor = Self { stream, store: 0, gathered: None };
        let mut bootstrap = Builder::new_default();
        bootstrap.init_root::<message::Builder<'_>>().init_bootstrap().set_question_id(0);
        visitor.send(&bootstrap);
        visitor.store = visitor.ask_gate(1);
        visitor
    }

    /// Asks the gate for the store; the number that it has on this connection.
    fn ask_gate(&mut self, question: u32) -> u32 {
        self.call_gate(question);
        loop {
            let answer = self.read().expect("an answer");
            let answer = answer.get_root::<message::Reader<'_>>().unwrap();
            let Ok(message::Return(Ok(answer))) = answer.which() else { continue };
            if answer.get_answer_id() != question {
                continue;
            }
            let Ok(return_::Results(Ok(results))) = answer.which() else {
                panic!("the gate gave nothing")
            };
            match results.get_cap_table().unwrap().get(0).which() {
                Ok(cap_descriptor::SenderHosted(store)) => return store,
                _ => panic!("the gate gave no store"),
            }
        }
    }

    fn call_gate(&mut self, question: u32) {
        let mut message = Builder::new_default();
        let mut call = message.init_root::<message::Builder<'_>>().init_call();
        call.set_question_id(question);
        call.set_interface_id(gate::Client::TYPE_ID);
        call.reborrow().init_target().init_promised_answer().set_question_id(0);
        call.init_params().init_content().init_as::<gate::client_params::Builder<'_>>();
        self.send(&message);
    }

    fn send(&mut self, message: &Builder<HeapAllocator>) {
        match &mut self.gathered {
            Some(gathered) => capnp::serialize::write_message(gathered, message).unwrap(),
            None => capnp::serialize::write_message(&mut self.stream, message).unwrap(),
        }
    }

    /// The next message; `None` at the end.
    fn read(&mut self) -> Option<Reader<OwnedSegments>> {
        capnp::serialize::try_read_message(&mut self.stream, ReaderOptions::new()).unwrap_or(None)
    }

    fn call(&mut self, question: u32, method: u16, write: impl FnOnce(call::Builder<'_>)) {
        let mut message = Builder::new_default();
        let mut call = message.init_root::<message::Builder<'_>>().init_call();
        call.set_question_id(question);
        call.set_interface_id(key_value::Client::TYPE_ID);
        call.set_method_id(method);
        call.reborrow().init_target().set_imported_cap(self.store);
        write(call);
        self.send(&message);
    }

    fn get(&mut self, question: u32, key: &str) {
        self.call(question, 1, |call| {
            let params = call.init_params().init_content();
            params.init_as::<key_value::get_params::Builder<'_>>().set_key(key.as_bytes());
        });
    }

    fn finish(&mut self, question: u32) {
        let mut message = Builder::new_default();
        let mut finish = message.init_root::<message::Builder<'_>>().init_finish();
        finish.set_question_id(question);
        self.send(&message);
    }

    fn release(&mut self, count: u32) {
        let mut message = Builder::new_default();
        let mut release = message.init_root::<message::Builder<'_>>().init_release();
        release.set_id(self.store);
        release.set_reference_count(count);
        self.send(&message);
    }

    /// The next answer: to which question, what kind, and the reason if it is an exception.
    fn answer(&mut self) -> (u32, Kind) {
        loop {
            let message = self.read().expect("an answer");
            let message = message.get_root::<message::Reader<'_>>().unwrap();
            match message.which().unwrap() {
                message::Return(answer) => {
                    let answer = answer.unwrap();
                    let kind = match answer.which().unwrap() {
                        return_::Results(_) => Kind::Results,
                        return_::Canceled(()) => Kind::Canceled,
                        return_::Exception(exception) => {
                            let reason = exception.unwrap().get_reason().unwrap();
                            Kind::Exception(reason.to_string().unwrap())
                        }
                        _ => panic!("an answer of no kind that we know"),
                    };
                    return (answer.get_answer_id(), kind);
                }
                message::Abort(abort) => {
                    let reason = abort.unwrap().get_reason().unwrap().to_string().unwrap();
                    return (u32::MAX, Kind::Abort(reason));
                }
                _ => {}
            }
        }
    }

    /// Why the server closed the connection.
    fn reason_of_the_end(&mut self) -> String {
        loop {
            if let (_, Kind::Abort(reason)) = self.answer() {
                return reason;
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Results,
    Canceled,
    Exception(String),
    Abort(String),
}

/// A node that answers reads when it is told to, and tells of each.
fn held() -> (Played, Receiver<Bytes>, Sender<()>) {
    let (asked, seen) = channel();
    let (go, told) = channel::<()>();
    let mut waiting: Vec<(RequestId, Outcome)> = Vec::new();
    let mut rows = Rows::default();
    let behaviour: Behaviour = Box::new(move |event, turn| {
        let Event::Request(request) = event else { return };
        let outcome = rows.answer(&request.operation);
        match &request.operation {
            Operation::Read(Query::Get(key)) => {
                waiting.push((request.id, outcome));
                let _ = asked.send(key.clone());
                if key.as_ref() == b"go" {
                    told.recv().unwrap();
                    turn.replies.append(&mut waiting);
                }
            }
            _ => turn.replies.push((request.id, outcome)),
        }
    });
    let played = play(Role::Coordinator, NodeId::COORDINATOR, None, options(), behaviour);
    (played, seen, go)
}

#[test]
fn a_call_that_is_finished_before_its_answer_is_answered_as_cancelled_and_frees_its_number() {
    let (played, seen, go) = held();
    let mut visitor = Visitor::new(&played);
    visitor.get(7, "k");
    visitor.finish(7);
    visitor.finish(7);
    visitor.get(8, "go");
    for key in ["k", "go"] {
        assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), bytes(key));
    }
    go.send(()).unwrap();
    assert_eq!(visitor.answer(), (7, Kind::Canceled));
    assert_eq!(visitor.answer(), (8, Kind::Results));
    // Whether or not the visitor says that it is finished, the numbers are free.
    visitor.finish(8);
    go.send(()).unwrap();
    visitor.get(7, "go");
    assert_eq!(visitor.answer(), (7, Kind::Results));
    go.send(()).unwrap();
    visitor.get(8, "go");
    assert_eq!(visitor.answer(), (8, Kind::Results));
}

#[test]
fn an_answer_for_which_nobody_waits_any_more_does_no_harm() {
    let (played, seen, go) = held();
    run(async {
        let client = client(&played).await;
        let given_up: Vec<_> = (0..10)
            .map(|_| {
                let client = client.clone();
                spawn_local(async move { client.get(bytes("k")).await })
            })
            .collect();
        let mut asked = 0;
        while asked < given_up.len() {
            asked += seen.try_iter().count();
            tokio::task::yield_now().await;
        }
        for task in given_up {
            task.abort();
            assert!(task.await.unwrap_err().is_cancelled());
        }
        for _ in 0..20 {
            go.send(()).unwrap();
            assert_eq!(client.get(bytes("go")).await, Ok(None));
        }
        client.put(bytes("a"), bytes("1")).await.unwrap();
    });
}

#[test]
fn calls_on_the_store_arrive_in_the_order_in_which_they_were_made() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let theirs = Arc::clone(&asked);
    let mut rows = Rows::default();
    let behaviour: Behaviour = Box::new(move |event, turn| {
        let Event::Request(request) = event else { return };
        if let Operation::Read(Query::Get(key)) = &request.operation {
            theirs.lock().unwrap().push(key.clone());
        }
        turn.replies.push((request.id, rows.answer(&request.operation)));
    });
    let played = play(Role::Coordinator, NodeId::COORDINATOR, None, options(), behaviour);
    let mut visitor = Visitor::new(&played);
    // In one write: a call on the store that the gate is still to give, which only capnp-rpc can
    // pass on, and two on the store that is known.
    let mut stream = visitor.stream.try_clone().unwrap();
    visitor.gathered = Some(Vec::new());
    visitor.call_gate(20);
    visitor.call(21, 1, |mut call| {
        let mut promised = call.reborrow().init_target().init_promised_answer();
        promised.set_question_id(20);
        promised.init_transform(1).get(0).set_get_pointer_field(0);
        let params = call.init_params().init_content();
        params.init_as::<key_value::get_params::Builder<'_>>().set_key(b"first");
    });
    visitor.get(22, "second");
    visitor.get(23, "third");
    stream.write_all(&visitor.gathered.take().unwrap()).unwrap();
    let mut answers: Vec<_> = (0..4).map(|_| visitor.answer()).collect();
    answers.sort_by_key(|(question, _)| *question);
    assert_eq!(answers, [20, 21, 22, 23].map(|question| (question, Kind::Results)));
    assert_eq!(*asked.lock().unwrap(), ["first", "second", "third"].map(bytes));
}

#[test]
fn a_number_in_use_cannot_be_taken_again_whoever_answers() {
    // Hot twice; hot, then slow; slow, then hot.
    for (first, second) in [(1, 1), (1, 5), (5, 1)] {
        let (played, seen, _go) = held();
        let mut visitor = Visitor::new(&played);
        let ask = |visitor: &mut Visitor, method: u16| match method {
            1 => visitor.get(7, "k"),
            // A read behind which nothing comes back either: the gate is asked, and not finished.
            _ => drop(visitor.ask_gate(7)),
        };
        ask(&mut visitor, first);
        if first == 1 {
            seen.recv_timeout(PATIENCE).unwrap();
        }
        let mut again = Builder::new_default();
        let mut call = again.init_root::<message::Builder<'_>>().init_call();
        call.set_question_id(7);
        call.set_interface_id(key_value::Client::TYPE_ID);
        call.set_method_id(second);
        call.reborrow().init_target().set_imported_cap(visitor.store);
        let params = call.init_params().init_content();
        params.init_as::<key_value::get_params::Builder<'_>>().set_key(b"k");
        visitor.send(&again);
        let reason = visitor.reason_of_the_end();
        assert!(reason.contains("question 7"), "{reason}");
    }
}

#[test]
fn what_the_hot_path_does_not_know_is_answered_by_capnp_rpc() {
    let played = coordinator(options());
    let mut visitor = Visitor::new(&played);
    // A method that the store does not have.
    visitor.call(10, 77, |call| {
        call.init_params().init_content();
    });
    let (question, kind) = visitor.answer();
    assert!(matches!(kind, Kind::Exception(_)), "{kind:?}");
    assert_eq!(question, 10);
    visitor.finish(10);
    // Parameters that are a list; none at all; a key that is too long.
    visitor.call(11, 1, |call| {
        call.init_params().init_content().initn_as::<capnp::data::Builder<'_>>(3);
    });
    assert!(matches!(visitor.answer(), (11, Kind::Exception(_))));
    visitor.finish(11);
    visitor.call(12, 2, |_| {});
    assert_eq!(visitor.answer(), (12, Kind::Results), "an empty key is invalid, and said so");
    visitor.finish(12);
    visitor.get(13, &"k".repeat(70 << 10));
    assert_eq!(visitor.answer(), (13, Kind::Results));
    visitor.finish(13);
    // Another interface on the same capability, and the store's methods on another capability.
    visitor.call(14, 1, |mut call| {
        call.set_interface_id(1);
        call.init_params().init_content();
    });
    assert!(matches!(visitor.answer(), (14, Kind::Exception(_))));
    visitor.finish(14);
    visitor.call(15, 1, |mut call| {
        call.reborrow().init_target().init_promised_answer().set_question_id(0);
        call.init_params().init_content();
    });
    assert!(matches!(visitor.answer(), (15, Kind::Exception(_))));
    visitor.finish(15);
    // And the hot path goes on.
    visitor.get(16, "k");
    assert_eq!(visitor.answer(), (16, Kind::Results));
}

#[test]
fn a_store_that_was_released_cannot_be_called() {
    let played = coordinator(options());
    let mut visitor = Visitor::new(&played);
    let again = visitor.ask_gate(2);
    assert_eq!(again, visitor.store, "one store, two references");
    visitor.release(1);
    visitor.get(3, "k");
    assert_eq!(visitor.answer(), (3, Kind::Results));
    visitor.release(1);
    visitor.get(4, "k");
    let reason = visitor.reason_of_the_end();
    assert!(reason.contains("export"), "{reason}");
    // Finishing with the answers in which it came releases it as well.
    let mut visitor = Visitor::new(&played);
    visitor.finish(1);
    visitor.get(4, "k");
    let reason = visitor.reason_of_the_end();
    assert!(reason.contains("export"), "{reason}");
}

/// Asks as often as the server takes it, and waits until it has closed the connection.
fn flood(mut visitor: Visitor, key: &str, cancel: bool) {
    visitor.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut bytes = Vec::new();
    for question in 100..100_000 {
        bytes.clear();
        let mut message = Builder::new_default();
        let mut call = message.init_root::<message::Builder<'_>>().init_call();
        call.set_question_id(question);
        call.set_interface_id(key_value::Client::TYPE_ID);
        call.set_method_id(1);
        call.reborrow().init_target().set_imported_cap(visitor.store);
        let params = call.init_params().init_content();
        params.init_as::<key_value::get_params::Builder<'_>>().set_key(key.as_bytes());
        capnp::serialize::write_message(&mut bytes, &message).unwrap();
        if cancel {
            let mut message = Builder::new_default();
            let mut finish = message.init_root::<message::Builder<'_>>().init_finish();
            finish.set_question_id(question);
            capnp::serialize::write_message(&mut bytes, &message).unwrap();
        }
        if visitor.stream.write_all(&bytes).is_err() {
            break;
        }
    }
    let mut said = Vec::new();
    match visitor.stream.read_to_end(&mut said) {
        Err(error) if error.kind() != IoError::ConnectionReset => {
            panic!("the connection is still open: {error}")
        }
        Ok(_) | Err(_) => {}
    }
}

#[test]
fn hot_calls_under_way_are_bounded_also_when_they_are_cancelled() {
    for cancel in [false, true] {
        let mut narrow = options();
        narrow.in_flight_per_connection_max = 100;
        narrow.stall_timeout = Duration::from_secs(1);
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let behaviour: Behaviour = Box::new(move |event, _| {
            count.fetch_add(usize::from(matches!(event, Event::Request(_))), Ordering::Relaxed);
        });
        let played = play(Role::Coordinator, NodeId::COORDINATOR, None, narrow, behaviour);
        flood(Visitor::new(&played), "k", cancel);
        assert_eq!(asked.load(Ordering::Relaxed), 100, "so many reads reach the node");
    }
}

#[test]
fn whoever_never_reads_his_hot_answers_is_not_read_any_more_and_then_closed() {
    let mut impatient = options();
    impatient.stall_timeout = Duration::from_secs(1);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let behaviour: Behaviour = Box::new(move |event, turn| {
        let Event::Request(request) = event else { return };
        count.fetch_add(1, Ordering::Relaxed);
        let value = Some(Bytes::from(vec![1; 64 << 10]));
        turn.replies.push((request.id, Outcome::Answer(Answer::Value(value))));
    });
    let played = play(Role::Coordinator, NodeId::COORDINATOR, None, impatient, behaviour);
    flood(Visitor::new(&played), &"k".repeat(1024), false);
    // What the sockets hold, a mebibyte of backlog, and what was on its way.
    let asked = asked.load(Ordering::Relaxed);
    assert!(asked < 5000, "{asked} answers of 64 KiB were made");
}

#[test]
fn damaged_hot_calls_never_take_the_server_down() {
    let played = coordinator(options());
    let mut honest = Vec::new();
    let store = {
        let visitor = Visitor::new(&played);
        visitor.store
    };
    let mut message = Builder::new_default();
    let mut call = message.init_root::<message::Builder<'_>>().init_call();
    call.set_question_id(5);
    call.set_interface_id(key_value::Client::TYPE_ID);
    call.set_method_id(4);
    call.reborrow().init_target().set_imported_cap(store);
    let params = call.init_params().init_content();
    let params = params.init_as::<key_value::transact_params::Builder<'_>>();
    let mut transaction = params.init_transaction();
    transaction.reborrow().init_preconditions(1).get(0).set_key(b"key");
    let mut write = transaction.init_writes(1).get(0);
    write.set_key(b"key");
    write.set_put(b"value");
    capnp::serialize::write_message(&mut honest, &message).unwrap();
    for at in 0..honest.len() {
        let mut visitor = Visitor::new(&played);
        let mut damaged = honest.clone();
        damaged[at] ^= [0x01, 0x80, 0xFF][at % 3];
        // Half of them end early.
        let end = if at % 2 == 0 { damaged.len() } else { at };
        // The server may have closed already, which is its right.
        let _ = visitor.stream.write_all(&damaged[..end]);
    }
    run(async {
        let client = client(&played).await;
        client.put(bytes("k"), bytes("v")).await.unwrap();
        assert_eq!(client.get(bytes("k")).await, Ok(Some(bytes("v"))));
    });
}
