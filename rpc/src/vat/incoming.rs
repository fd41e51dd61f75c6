//! Reading: bytes gathered in one buffer, messages cut out of it one at a time.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use capnp::Error;
use capnp::message::{Reader, ReaderOptions};
use capnp_rpc::rpc_capnp::message;
use tokio::io::{AsyncRead, ReadBuf};

use super::frame::{self, Frame};
use super::wire::{Held, Wire};

/// Taken from the stream at a time.
const READ_BYTES: usize = 64 << 10;

/// An idle connection keeps no larger buffer than this.
const IDLE_BYTES_MAX: usize = 4 << 10;

thread_local! {
    /// One for all connections of a thread: an idle connection then owns hardly any memory.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// The receiving half of a connection.
pub(super) struct Input<R> {
    stream: R,
    /// Grows only as bytes arrive, whatever a message announces.
    buffer: Vec<u8>,
    /// Where the first message not yet cut begins.
    start: usize,
}

impl<R> Input<R> {
    pub(super) fn new(stream: R) -> Self {
        Self { stream, buffer: Vec::new(), start: 0 }
    }

    /// The next message, if it is already here and may be handed out.
    pub(super) fn next(&mut self, wire: &Rc<Wire>) -> Result<Option<Incoming>, Error> {
        if let Some(reason) = wire.closing() {
            return Err(reason);
        }
        if self.start == self.buffer.len() || wire.is_gated() {
            return Ok(None);
        }
        let unread = &self.buffer[self.start..];
        let Some((frame, taken)) = frame::cut(unread, wire.limits.message_bytes_max)? else {
            return Ok(None);
        };
        self.start += taken;
        let incoming = Incoming::new(wire, frame);
        incoming.account(wire)?;
        Ok(Some(incoming))
    }

    /// Drops what was cut off already, and memory that an idle connection does not need.
    fn tidy(&mut self) {
        self.buffer.drain(..self.start);
        self.start = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > IDLE_BYTES_MAX {
            self.buffer = Vec::new();
        }
    }
}

impl<R: AsyncRead + Unpin> Input<R> {
    fn poll(
        &mut self,
        wire: &Rc<Wire>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Incoming>, Error>> {
        loop {
            if let Some(message) = self.next(wire)? {
                return Poll::Ready(Ok(Some(message)));
            }
            wire.wait_to_read(context.waker());
            if wire.is_gated() {
                return Poll::Pending;
            }
            self.tidy();
            wire.partial.set(!self.buffer.is_empty());
            if ready!(self.poll_fill(context))? == 0 {
                return Poll::Ready(match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(Error::disconnected(
                        "the connection ended in the middle of a message".to_owned(),
                    )),
                });
            }
            wire.note_received();
        }
    }

    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<Result<usize, Error>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut into = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut into)).map_err(broken)?;
            self.buffer.extend_from_slice(into.filled());
            Poll::Ready(Ok(into.filled().len()))
        })
    }
}

/// A connection that breaks is no violation: the other side is gone.
pub(super) fn broken(error: std::io::Error) -> Error {
    Error::disconnected(format!("the connection broke: {error}"))
}

/// Waits for the next message.
pub(super) struct Receive<R> {
    wire: Rc<Wire>,
    input: Rc<RefCell<Input<R>>>,
}

impl<R> Receive<R> {
    pub(super) fn new(wire: &Rc<Wire>, input: &Rc<RefCell<Input<R>>>) -> Self {
        Self { wire: Rc::clone(wire), input: Rc::clone(input) }
    }
}

impl<R: AsyncRead + Unpin> Future for Receive<R> {
    type Output = Result<Option<Box<dyn capnp_rpc::IncomingMessage>>, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let received = ready!(self.input.borrow_mut().poll(&self.wire, context));
        Poll::Ready(received.map(|message| message.map(|message| Box::new(message) as _)))
    }
}

/// A message that has arrived; counts against its connection while it lives.
pub(super) struct Incoming {
    reader: Reader<Frame>,
    _held: Held,
}

impl Incoming {
    fn new(wire: &Rc<Wire>, frame: Frame) -> Self {
        let bytes = frame.bytes();
        // Enough to walk every word a few times, so that pointers that share their target cannot
        // make a small message look like a large one.
        let options = ReaderOptions {
            traversal_limit_in_words: Some(bytes / 8 * 4 + 1024),
            nesting_limit: wire.limits.nesting_max,
        };
        Self { reader: Reader::new(frame, options), _held: wire.hold(bytes) }
    }

    fn account(&self, wire: &Wire) -> Result<(), Error> {
        wire.messages_in.set(wire.messages_in.get() + 1);
        match self.reader.get_root::<message::Reader<'_>>()?.which() {
            Ok(message::Call(_) | message::Bootstrap(_)) => wire.note_question(),
            Ok(message::Finish(_)) => wire.note_finish(),
            _ => {}
        }
        if wire.has_too_many_unfinished() {
            return Err(Error::failed("too many answers are not finished with".to_owned()));
        }
        Ok(())
    }
}

impl capnp_rpc::IncomingMessage for Incoming {
    fn get_body(&self) -> capnp::Result<capnp::any_pointer::Reader<'_>> {
        self.reader.get_root()
    }
}
