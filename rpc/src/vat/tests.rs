//! The network over a pipe in memory: what is cut, joined, bounded and told.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use capnp::message::{Builder, HeapAllocator};
use capnp_rpc::rpc_twoparty_capnp::Side;
use kvorum_schema::peer_capnp::inbox;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWrite, DuplexStream, duplex, split};
use tokio::task::spawn_local;

use super::buffer::Buffer;
use super::frame::{append, peek};
use super::{Limits, Wire, connect};

/// Says nothing to everything, after a turn.
struct Echo;

impl inbox::Server for Echo {
    async fn deliver(
        self: Rc<Self>,
        _params: inbox::DeliverParams,
        _results: inbox::DeliverResults,
    ) -> Result<(), capnp::Error> {
        std::future::pending().await
    }

    async fn ping(
        self: Rc<Self>,
        _params: inbox::PingParams,
        _results: inbox::PingResults,
    ) -> Result<(), capnp::Error> {
        tokio::task::yield_now().await;
        Ok(())
    }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build_local(tokio::runtime::LocalOptions::default())
        .unwrap();
    runtime.block_on(test)
}

fn serve(stream: DuplexStream, limits: Limits) -> Rc<Wire> {
    let (read, write) = split(stream);
    let wire = Wire::new(limits);
    let inbox: inbox::Client = capnp_rpc::new_client(Echo);
    let system = connect(&wire, read, write, Side::Server, Some(inbox.client));
    spawn_local(system);
    wire
}

fn dial(stream: DuplexStream) -> (inbox::Client, Rc<Wire>) {
    let (read, write) = split(stream);
    let wire = Wire::new(Limits::default());
    let mut system = connect(&wire, read, write, Side::Client, None);
    let inbox = system.bootstrap(Side::Server);
    spawn_local(system);
    (inbox, wire)
}

#[test]
fn what_is_said_in_one_turn_leaves_in_one_write() {
    run(async {
        let (ours, theirs) = duplex(1 << 20);
        let server = serve(theirs, Limits::default());
        let (inbox, client) = dial(ours);
        inbox.ping_request().send().promise.await.unwrap();
        let (_, asked, writes) = client.traffic();
        let (_, answered, their_writes) = server.traffic();
        let pings: Vec<_> = (0..64).map(|_| inbox.ping_request().send().promise).collect();
        for ping in pings {
            ping.await.unwrap();
        }
        let (_, now_asked, now_writes) = client.traffic();
        let (_, now_answered, now_their_writes) = server.traffic();
        assert_eq!(now_asked - asked, 64);
        assert_eq!(now_writes - writes, 1, "64 calls, one write");
        assert_eq!(now_answered - answered, 64);
        assert!(now_their_writes - their_writes <= 3, "64 answers, hardly a write each");
    });
}

#[test]
fn calls_under_way_stop_the_reading_and_answers_let_it_go_on() {
    run(async {
        let (ours, theirs) = duplex(1 << 20);
        let server = serve(theirs, Limits { calls_max: 8, ..Limits::default() });
        let (inbox, _client) = dial(ours);
        let pings: Vec<_> = (0..100).map(|_| inbox.ping_request().send().promise).collect();
        for ping in pings {
            ping.await.unwrap();
        }
        assert_eq!(server.calls(), 0);
        let stuck: Vec<_> = (0..100).map(|_| inbox.deliver_request().send().promise).collect();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(server.calls(), 8);
        assert!(server.gated_for(tokio::time::Instant::now()) >= Duration::from_millis(900));
        drop(stuck);
    });
}

#[test]
fn calls_fail_when_the_connection_is_closed_and_both_sides_end() {
    run(async {
        let (ours, theirs) = duplex(1 << 20);
        let server = serve(theirs, Limits::default());
        let (inbox, client) = dial(ours);
        let stuck = inbox.deliver_request().send().promise;
        inbox.ping_request().send().promise.await.unwrap();
        server.close(capnp::Error::failed("enough of this".to_owned()));
        let error = stuck.await.map(drop).unwrap_err();
        assert!(error.extra.contains("enough of this"), "{error}");
        client.finished().await;
        server.finished().await;
        let error = inbox.ping_request().send().promise.await.map(drop).unwrap_err();
        assert!(error.extra.contains("enough of this"), "{error}");
    });
}

#[test]
fn calls_fail_when_the_stream_breaks() {
    run(async {
        let (ours, theirs) = duplex(1 << 20);
        let (inbox, client) = dial(ours);
        let stuck = inbox.ping_request().send().promise;
        drop(theirs);
        assert!(stuck.await.is_err());
        client.finished().await;
        assert!(client.is_closed());
    });
}

/// Whom it went to is gone.
struct Gone;

impl AsyncWrite for Gone {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What the other side has said last may have been read already, and its end not.
#[test]
fn a_connection_that_cannot_be_written_ends_although_nothing_comes() {
    run(async {
        let (ours, _theirs) = duplex(1 << 20);
        let (read, _) = split(ours);
        let wire = Wire::new(Limits::default());
        let mut system = connect(&wire, read, Gone, Side::Client, None);
        let inbox: inbox::Client = system.bootstrap(Side::Server);
        let driven = spawn_local(system);
        let asked = inbox.ping_request().send().promise;
        let ended = tokio::time::timeout(Duration::from_secs(60), driven).await;
        assert!(ended.expect("it does not wait for ever").unwrap().is_ok());
        assert!(asked.await.is_err() && wire.is_closed());
    });
}

#[test]
fn a_side_that_does_not_read_does_not_keep_the_other_from_ending() {
    run(async {
        let (ours, theirs) = duplex(64);
        let (inbox, client) = dial(ours);
        let stuck = inbox.ping_request().send().promise;
        tokio::time::sleep(Duration::from_secs(1)).await;
        // Who looks now and then sees whether anything has moved between his looks.
        assert_eq!(client.stalled_for(tokio::time::Instant::now()), Duration::ZERO);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(client.stalled_for(tokio::time::Instant::now()) >= Duration::from_secs(2));
        client.close(capnp::Error::disconnected("given up".to_owned()));
        assert!(stuck.await.is_err());
        client.finished().await;
        drop(theirs);
    });
}

#[test]
fn a_violation_is_told_to_the_other_side() {
    run(async {
        let (mut ours, theirs) = duplex(1 << 20);
        let limits = Limits { message_bytes_max: 1024, ..Limits::default() };
        let server = serve(theirs, limits);
        let header = [0_u32, 1024].map(u32::to_le_bytes).concat();
        tokio::io::AsyncWriteExt::write_all(&mut ours, &header).await.unwrap();
        let mut said = Vec::new();
        ours.read_to_end(&mut said).await.unwrap();
        let reason = b"a message of 8192 bytes; at most 1024 are taken";
        assert!(said.windows(reason.len()).any(|window| window == reason));
        server.finished().await;
        assert!(server.violation().is_some());
    });
}

fn segments(words: &[u32]) -> Builder<HeapAllocator> {
    let mut message = Builder::new(HeapAllocator::new().first_segment_words(1));
    let mut list: capnp::data_list::Builder<'_> =
        message.initn_root(u32::try_from(words.len()).unwrap());
    for (index, words) in (0..).zip(words) {
        list.set(index, &vec![index as u8; *words as usize * 8]);
    }
    message
}

proptest! {
    #[test]
    fn a_buffer_gives_back_what_it_was_given_aligned(
        steps in proptest::collection::vec((0_usize..3000, 0_usize..400, any::<bool>()), 0..40),
    ) {
        let (mut buffer, mut model) = (Buffer::default(), Vec::new());
        let mut next = 0_u8;
        for (append, take, tidy) in steps {
            let bytes: Vec<u8> = (0..append).map(|_| { next = next.wrapping_add(1); next }).collect();
            buffer.append(&bytes);
            model.extend_from_slice(&bytes);
            let take = (take * 8).min(model.len() / 8 * 8);
            buffer.take(take);
            model.drain(..take);
            if tidy {
                buffer.tidy();
            }
            prop_assert_eq!(buffer.unread(), model.as_slice());
            prop_assert_eq!(buffer.is_empty(), model.is_empty());
            prop_assert!(model.is_empty() || buffer.unread().as_ptr().addr().is_multiple_of(8));
        }
    }

    #[test]
    fn what_is_appended_is_cut_again(sizes in proptest::collection::vec(0_u32..40, 0..12)) {
        let message = segments(&sizes);
        let mut bytes = Vec::new();
        append(&mut bytes, &message.get_segments_for_output());
        let mut reference = Vec::new();
        capnp::serialize::write_message(&mut reference, &message).unwrap();
        prop_assert_eq!(&bytes, &reference, "the standard framing");
        let (frame, taken) = peek(&bytes, 1 << 20).unwrap().unwrap();
        prop_assert_eq!(taken, bytes.len());
        let reader = capnp::message::Reader::new(frame.to_frame(), capnp::message::ReaderOptions::new());
        let list = reader.get_root::<capnp::data_list::Reader<'_>>().unwrap();
        for (index, words) in (0..).zip(&sizes) {
            prop_assert_eq!(list.get(index).unwrap(), &vec![index as u8; *words as usize * 8]);
        }
        for end in 0..bytes.len() {
            prop_assert!(peek(&bytes[..end], 1 << 20).unwrap().is_none());
        }
    }

    #[test]
    fn whatever_comes_is_cut_refused_or_waited_for(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        if let Ok(Some((frame, taken))) = peek(&bytes, 4096) {
            prop_assert!(taken <= bytes.len());
            let reader = capnp::message::Reader::new(frame.to_frame(), capnp::message::ReaderOptions::new());
            let root = reader.get_root::<capnp_rpc::rpc_capnp::message::Reader<'_>>();
            // It need not make sense.
            let _ = root.map(|root| root.which().is_ok());
        }
    }
}
