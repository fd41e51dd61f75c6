//! Visitors who do not keep to the protocol.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use capnp::any_pointer;
use capnp::message::{Builder, HeapAllocator};
use capnp_rpc::rpc_capnp::{call, message};
use kvorum_node::Event;
use kvorum_replication::{Answer, NodeId, Operation, Outcome, Role};
use kvorum_rpc::server::ServerOptions;
use kvorum_schema::client_capnp::{gate, key_value};

use crate::support::{
    Behaviour, PATIENCE, Played, client, connect, coordinator, options, play, run,
};

/// Whether the server has closed this connection; what it said before is read and returned.
fn closed(stream: &mut TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Ok(_) => said,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => said,
        Err(error) => panic!("the connection is still open: {error}"),
    }
}

/// Waits until the server has closed this connection, without reading anything: that would make room
/// for the answers that it is to give up.
fn closed_unread(stream: &mut TcpStream) {
    let until = Instant::now() + PATIENCE;
    stream.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
    loop {
        match stream.write(&[0]) {
            Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return;
            }
            Ok(_) | Err(_) => assert!(Instant::now() < until, "the connection is still open"),
        }
    }
}

fn visit(played: &Played) -> TcpStream {
    TcpStream::connect(played.address).unwrap()
}

/// Where it shows out who is slow, so may it be with a client on a busy machine.
fn still_serves(played: &Played) {
    run(async {
        let put = async || {
            let client = connect(played).await?;
            client.put(Bytes::from_static(b"k"), Bytes::from_static(b"v")).await
        };
        while put().await.is_err() {}
    });
}

#[test]
fn nonsense_closes_its_connection_with_a_reason_and_no_other() {
    let played = coordinator(options());
    let huge = [0_u32, 0xFFFF_FFF0].map(u32::to_le_bytes).concat();
    let many_segments = [100_000_u32, 1].map(u32::to_le_bytes).concat();
    let just_too_large = [0_u32, (32 << 20) / 8 + 1].map(u32::to_le_bytes).concat();
    let empty = [0_u32, 0].map(u32::to_le_bytes).concat();
    let noise: Vec<u8> =
        (0..4096_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let cases: [(&[u8], &[u8]); 6] = [
        (&huge, b"at most"),
        (&many_segments, b"segments"),
        (&just_too_large, b"at most"),
        (&empty, b""),
        (&noise, b""),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b""),
    ];
    for (bytes, reason) in cases {
        let mut stream = visit(&played);
        stream.write_all(bytes).unwrap();
        let said = closed(&mut stream);
        let told = reason.is_empty() || said.windows(reason.len()).any(|window| window == reason);
        assert!(told, "{:?}", said.escape_ascii().to_string());
        still_serves(&played);
    }
}

#[test]
fn a_message_that_never_ends_is_not_waited_for() {
    let mut impatient = options();
    impatient.stall_timeout = Duration::from_millis(200);
    impatient.handshake_timeout = Duration::from_secs(60);
    let played = coordinator(impatient);
    let mut stream = visit(&played);
    // 8 MiB announced, 8 bytes sent.
    stream.write_all(&[0_u32, 1 << 20, 1, 1].map(u32::to_le_bytes).concat()).unwrap();
    let said = closed(&mut stream);
    assert!(said.windows(6).any(|window| window == b"middle"));
    still_serves(&played);
}

#[test]
fn whoever_does_not_introduce_himself_is_shown_out() {
    let mut impatient = options();
    impatient.handshake_timeout = Duration::from_millis(200);
    let played = coordinator(impatient);
    let said = closed(&mut visit(&played));
    assert!(said.windows(9).any(|window| window == b"introduce"));
    still_serves(&played);
}

#[test]
fn whoever_says_nothing_for_long_is_shown_out_and_comes_back_by_itself() {
    let mut impatient = options();
    impatient.idle_timeout = Duration::from_millis(200);
    let played = coordinator(impatient);
    run(async {
        let client = client(&played).await;
        client.put(Bytes::from_static(b"k"), Bytes::from_static(b"v")).await.unwrap();
        for _ in 0..3 {
            let opened = || async { counter(&client, "rpc_connections_opened").await };
            // However late the server looks, it shows the client out that says nothing meanwhile.
            let before = opened().await;
            loop {
                tokio::time::sleep(Duration::from_millis(700)).await;
                if opened().await > before {
                    break;
                }
            }
        }
    });
}

async fn counter(client: &kvorum_rpc::client::Client, name: &str) -> u64 {
    let status = client.status().await.unwrap();
    let found = status.counters.iter().find(|(counter, _)| counter == name);
    found.expect("a counter of the transport").1
}

#[test]
fn more_connections_than_allowed_are_closed_at_once() {
    let mut narrow = options();
    narrow.connections_max = 50;
    narrow.handshake_timeout = Duration::from_secs(1);
    let played = coordinator(narrow);
    let mut visitors: Vec<_> =
        (0..400).filter_map(|_| TcpStream::connect(played.address).ok()).collect();
    // Those beyond the limit are closed although nobody was impatient; the others in time.
    for visitor in &mut visitors {
        closed(visitor);
    }
    still_serves(&played);
}

/// A visitor that speaks the protocol, as far as it wants to.
struct Visitor {
    stream: TcpStream,
    question: u32,
}

impl Visitor {
    fn new(played: &Played) -> Self {
        let mut visitor = Self { stream: visit(played), question: 0 };
        let mut bootstrap = Builder::new_default();
        bootstrap.init_root::<message::Builder<'_>>().init_bootstrap().set_question_id(0);
        visitor.send(&bootstrap).unwrap();
        // Question 1 asks the gate, question 0's answer, for the store.
        visitor.question = 1;
        let mut call = Builder::new_default();
        let mut builder = call.init_root::<message::Builder<'_>>().init_call();
        builder.set_question_id(1);
        builder.set_interface_id(<gate::Client as capnp::traits::HasTypeId>::TYPE_ID);
        builder.set_method_id(0);
        builder.reborrow().init_target().init_promised_answer().set_question_id(0);
        builder.init_params().init_content().init_as::<gate::client_params::Builder<'_>>();
        visitor.send(&call).unwrap();
        visitor
    }

    fn send(&mut self, message: &Builder<HeapAllocator>) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        capnp::serialize::write_message(&mut bytes, message).unwrap();
        self.stream.write_all(&bytes)
    }

    /// Asks for a key, pipelined on the store that question 1 will give.
    fn get(&mut self, key: &[u8]) -> std::io::Result<()> {
        let mut call = Builder::new_default();
        let mut builder = call.init_root::<message::Builder<'_>>().init_call();
        let params = self.call(builder.reborrow(), 1);
        params.init_as::<key_value::get_params::Builder<'_>>().set_key(key);
        self.send(&call)
    }

    fn call<'a>(
        &mut self,
        mut builder: call::Builder<'a>,
        method: u16,
    ) -> any_pointer::Builder<'a> {
        self.question += 1;
        builder.set_question_id(self.question);
        builder.set_interface_id(<key_value::Client as capnp::traits::HasTypeId>::TYPE_ID);
        builder.set_method_id(method);
        let mut promised = builder.reborrow().init_target().init_promised_answer();
        promised.set_question_id(1);
        promised.init_transform(1).get(0).set_get_pointer_field(0);
        builder.init_params().init_content()
    }

    /// Asks for everything, in the same way.
    fn scan(&mut self) -> std::io::Result<()> {
        let mut call = Builder::new_default();
        let mut builder = call.init_root::<message::Builder<'_>>().init_call();
        let params = self.call(builder.reborrow(), 5);
        params.init_as::<key_value::scan_params::Builder<'_>>().set_limit(1000);
        self.send(&call)
    }

    fn finish(&mut self) -> std::io::Result<()> {
        let mut finish = Builder::new_default();
        let mut builder = finish.init_root::<message::Builder<'_>>().init_finish();
        builder.set_question_id(self.question);
        self.send(&finish)
    }
}

/// A node that answers reads with this, if at all, and counts them.
fn counting(answer: Option<Answer>) -> (Behaviour, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let theirs = Arc::clone(&count);
    let behaviour: Behaviour = Box::new(move |event, turn| {
        let Event::Request(request) = event else { return };
        if matches!(request.operation, Operation::Read(_)) {
            theirs.fetch_add(1, Ordering::Relaxed);
            if let Some(answer) = &answer {
                turn.replies.push((request.id, Outcome::Answer(answer.clone())));
            }
        }
    });
    (behaviour, count)
}

fn counted(options: ServerOptions, answer: Option<Answer>) -> (Played, Arc<AtomicUsize>) {
    let (behaviour, count) = counting(answer);
    (play(Role::Coordinator, NodeId::COORDINATOR, None, options, behaviour), count)
}

/// Sends until the server takes no more, or closes.
fn flood(
    visitor: &mut Visitor,
    mut send: impl FnMut(&mut Visitor) -> std::io::Result<()>,
) -> usize {
    visitor.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut sent = 0;
    while sent < 200_000 && send(visitor).is_ok() {
        sent += 1;
    }
    sent
}

#[test]
fn whoever_never_reads_his_answers_is_not_read_any_more_and_then_closed() {
    let mut impatient = options();
    impatient.stall_timeout = Duration::from_secs(1);
    let value = Bytes::from(vec![1; 64 << 10]);
    let (played, count) = counted(impatient, Some(Answer::Value(Some(value))));
    let mut visitor = Visitor::new(&played);
    let sent = flood(&mut visitor, |visitor| visitor.get(&[5; 1024]));
    assert!(sent < 200_000, "the flood was stopped");
    // What the sockets hold, a mebibyte of backlog, and what was on its way.
    let answered = count.load(Ordering::Relaxed);
    assert!(answered < 2000, "{answered} answers of 64 KiB were made");
    closed_unread(&mut visitor.stream);
}

/// However many he asks for before the first answer would have to wait.
#[test]
fn whoever_scans_and_never_reads_gets_few_answers() {
    let mut impatient = options();
    impatient.stall_timeout = Duration::from_secs(1);
    let row = (Bytes::from_static(b"k"), Bytes::from(vec![1; 1 << 20]));
    let (played, count) = counted(impatient, Some(Answer::Rows { rows: vec![row], more: false }));
    let mut visitor = Visitor::new(&played);
    flood(&mut visitor, Visitor::scan);
    closed_unread(&mut visitor.stream);
    let answered = count.load(Ordering::Relaxed);
    // At most sixteen at once, beside what the sockets hold and a mebibyte of backlog.
    assert!((1..=40).contains(&answered), "{answered} answers of a mebibyte were made");
}

#[test]
fn calls_under_way_are_bounded_also_when_they_are_cancelled() {
    for cancel in [false, true] {
        let mut narrow = options();
        narrow.in_flight_per_connection_max = 100;
        narrow.stall_timeout = Duration::from_secs(1);
        let (played, count) = counted(narrow, None);
        let mut visitor = Visitor::new(&played);
        flood(&mut visitor, |visitor| {
            visitor.get(b"k")?;
            if cancel { visitor.finish() } else { Ok(()) }
        });
        closed(&mut visitor.stream);
        let asked = count.load(Ordering::Relaxed);
        assert!(asked > 0 && asked <= 100, "{asked} reads reached the node");
    }
}

/// capnp-rpc never answers a call that was taken back, so such a one is under way for ever.
#[test]
fn whoever_takes_a_call_back_and_says_nothing_more_is_shown_out() {
    let mut impatient = options();
    impatient.idle_timeout = Duration::from_millis(200);
    impatient.request_timeout_max = Duration::from_millis(200);
    let (played, _) = counted(impatient, None);
    let mut visitor = Visitor::new(&played);
    visitor.get(b"k").unwrap();
    visitor.finish().unwrap();
    closed(&mut visitor.stream);
}

#[test]
fn answers_that_nobody_finishes_with_are_bounded() {
    let mut narrow = options();
    narrow.in_flight_per_connection_max = 10;
    let played = coordinator(narrow);
    let mut visitor = Visitor::new(&played);
    let mut drained = visitor.stream.try_clone().unwrap();
    let reading = std::thread::spawn(move || closed(&mut drained));
    let sent = flood(&mut visitor, |visitor| {
        // Each asks the gate anew, and keeps what it is given.
        visitor.question += 1;
        let mut call = Builder::new_default();
        let mut builder = call.init_root::<message::Builder<'_>>().init_call();
        builder.set_question_id(visitor.question);
        builder.set_interface_id(<gate::Client as capnp::traits::HasTypeId>::TYPE_ID);
        builder.reborrow().init_target().init_promised_answer().set_question_id(0);
        builder.init_params().init_content().init_as::<gate::client_params::Builder<'_>>();
        visitor.send(&call)
    });
    assert!(sent < 200_000);
    let said = reading.join().unwrap();
    let mut said = said.as_slice();
    let mut answers = 0;
    let options = capnp::message::ReaderOptions::new();
    while capnp::serialize::read_message_from_flat_slice(&mut said, options).is_ok() {
        answers += 1;
    }
    assert!(answers <= 4 * 10 + 64 + 3, "{answers} answers");
    run(async {
        let client = client(&played).await;
        assert_eq!(counter(&client, "rpc_violations").await, 1);
    });
}

#[test]
fn damaged_messages_never_take_the_server_down() {
    let played = coordinator(options());
    let mut honest = Vec::new();
    {
        let mut call = Builder::new_default();
        let mut builder = call.init_root::<message::Builder<'_>>().init_call();
        builder.set_question_id(1);
        builder.set_interface_id(<gate::Client as capnp::traits::HasTypeId>::TYPE_ID);
        builder.set_method_id(2);
        builder.reborrow().init_target().init_promised_answer().set_question_id(0);
        let params = builder.init_params().init_content();
        let params = params.init_as::<gate::attach_params::Builder<'_>>();
        let mut hello = params.init_hello();
        hello.set_address("127.0.0.1:1");
        hello.set_cluster(&[1; 16]);
        hello.init_members(3);
        capnp::serialize::write_message(&mut honest, &call).unwrap();
    }
    let mut bootstrap = Vec::new();
    let mut message = Builder::new_default();
    message.init_root::<message::Builder<'_>>().init_bootstrap();
    capnp::serialize::write_message(&mut bootstrap, &message).unwrap();
    let until = Instant::now() + Duration::from_secs(3);
    for at in 0..honest.len() {
        for bits in [0x01, 0x80, 0xFF] {
            let mut damaged = honest.clone();
            damaged[at] ^= bits;
            let mut stream = visit(&played);
            stream.write_all(&bootstrap).unwrap();
            // The server may have closed already, which is its right.
            let _ = stream.write_all(&damaged);
        }
        if Instant::now() > until {
            break;
        }
    }
    still_serves(&played);
}
