//! Reading: bytes gathered in one buffer, messages cut out of it one at a time.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use capnp::message::Reader;
use capnp::{Error, Word};
use capnp_rpc::rpc_capnp::message;
use tokio::io::{AsyncRead, ReadBuf};

use super::budget::Part;
use super::buffer::Buffer;
use super::frame::{self, Frame, Peeked, reader_options};
use super::wire::{Held, Wire};

/// Taken from the stream at a time.
const READ_BYTES: usize = 64 << 10;

thread_local! {
    /// One for all connections of a thread: an idle connection then owns hardly any memory. Made of
    /// words, as messages are read where they arrive.
    static SCRATCH: RefCell<Vec<Word>> = const { RefCell::new(Vec::new()) };
}

/// The receiving half of a connection.
pub(super) struct Input<R> {
    stream: R,
    /// Grows only as bytes arrive, whatever a message announces.
    buffer: Buffer,
    /// What the beginning of a message holds while the rest is waited for.
    unfinished: Option<Part>,
}

impl<R> Input<R> {
    pub(super) fn new(stream: R) -> Self {
        Self { stream, buffer: Buffer::default(), unfinished: None }
    }

    /// The next message that is capnp-rpc's, if it is already here and may be handed out. Those
    /// before it that take the shortcut are dealt with.
    pub(super) fn next(&mut self, wire: &Rc<Wire>) -> Result<Option<Incoming>, Error> {
        let (taken, incoming) = cut(wire, self.buffer.unread())?;
        self.buffer.take(taken);
        Ok(incoming)
    }
}

/// Deals with the messages in `bytes` up to the first that is capnp-rpc's, as far as they are here
/// and may be handed out. Says how many bytes they are, that one included.
fn cut(wire: &Rc<Wire>, bytes: &[u8]) -> Result<(usize, Option<Incoming>), Error> {
    let mut start = 0;
    loop {
        if let Some(reason) = wire.closing() {
            return Err(reason);
        }
        let rest = &bytes[start..];
        if rest.is_empty() || wire.is_gated() {
            return Ok((start, None));
        }
        let Some((peeked, taken)) = frame::peek(rest, wire.limits.message_bytes_max)? else {
            return Ok((start, None));
        };
        let incoming = match take_shortcut(wire, &peeked)? {
            true => None,
            false => Some(Incoming::new(wire, peeked.to_frame())),
        };
        start += taken;
        wire.note_message();
        if let Some(incoming) = incoming {
            incoming.account(wire)?;
            return Ok((start, Some(incoming)));
        }
    }
}

fn take_shortcut(wire: &Rc<Wire>, peeked: &Peeked<'_>) -> Result<bool, Error> {
    let Some(shortcut) = wire.shortcut() else {
        return Ok(false);
    };
    let options = reader_options(peeked.bytes(), wire.limits.nesting_max);
    let reader = Reader::new(peeked, options);
    shortcut.receive(wire, peeked, reader.get_root()?)
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
                // What is not read cannot end: that is not the other side's doing.
                wire.note_unfinished(0);
                return Poll::Pending;
            }
            self.buffer.tidy();
            self.hold_unfinished(wire);
            match ready!(self.poll_fill(wire, context))? {
                Filled::Some(None) => {}
                Filled::Some(Some(message)) => return Poll::Ready(Ok(Some(message))),
                Filled::End if self.buffer.is_empty() => return Poll::Ready(Ok(None)),
                Filled::End => {
                    return Poll::Ready(Err(Error::disconnected(
                        "the connection ended in the middle of a message".to_owned(),
                    )));
                }
            }
        }
    }

    /// Accounts for the beginning of a message, in time and in memory.
    fn hold_unfinished(&mut self, wire: &Rc<Wire>) {
        let bytes = self.buffer.unread().len();
        wire.note_unfinished(bytes);
        if bytes > 0 {
            Part::hold(&mut self.unfinished, wire, self.buffer.held_bytes());
        } else if self.unfinished.is_some() {
            self.unfinished = None;
        }
    }

    /// Reads once. Mostly that is whole messages: then they are dealt with where they are, and only
    /// what is left of them goes into the buffer.
    fn poll_fill(
        &mut self,
        wire: &Rc<Wire>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Filled, Error>> {
        // Whoever deals with a message has no use for it, but might read.
        let mut scratch = SCRATCH.take();
        if scratch.is_empty() {
            scratch = Word::allocate_zeroed_vec(READ_BYTES / 8);
        }
        let filled = self.fill(wire, context, Word::words_to_bytes_mut(&mut scratch));
        SCRATCH.set(scratch);
        filled
    }

    fn fill(
        &mut self,
        wire: &Rc<Wire>,
        context: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<Result<Filled, Error>> {
        let mut into = ReadBuf::new(scratch);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut into)).map_err(broken)?;
        let bytes = into.filled();
        if bytes.is_empty() {
            return Poll::Ready(Ok(Filled::End));
        }
        wire.note_received();
        let (taken, message) = match self.buffer.is_empty() {
            true => cut(wire, bytes)?,
            false => (0, None),
        };
        self.buffer.append(&bytes[taken..]);
        Poll::Ready(Ok(Filled::Some(message)))
    }
}

/// What reading came to.
enum Filled {
    /// Bytes, and what was capnp-rpc's among them if it was looked for.
    Some(Option<Incoming>),
    /// There will be no more.
    End,
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
        let options = reader_options(bytes, wire.limits.nesting_max);
        Self { reader: Reader::new(frame, options), _held: wire.hold(bytes) }
    }

    fn account(&self, wire: &Wire) -> Result<(), Error> {
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
