//! Reading: messages cut out of what arrives one at a time, what is left gathered in one buffer.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use capnp::Error;
use capnp::message::Reader;
use capnp_rpc::rpc_capnp::message;

use super::budget::Part;
use super::buffer::Buffer;
use super::frame::{self, Frame, Peeked, reader_options};
use super::wire::{Held, Slot, Wire};

/// What has arrived and was not read, and who waits for it.
#[derive(Default)]
pub(super) struct Input {
    /// Grows only as bytes arrive, whatever a message announces.
    buffer: Buffer,
    /// What the beginning of a message holds while the rest is waited for.
    unfinished: Option<Part>,
    /// capnp-rpc waits for its next message. Until it does it is busy with the one before, and
    /// nothing behind that may be dealt with.
    is_awaited: bool,
    /// What it waited for: a message, or the end.
    found: Option<Found>,
    receiver: Slot,
}

/// A message for capnp-rpc; none at the end.
type Found = Result<Option<Incoming>, Error>;

impl Input {
    /// The next message that is capnp-rpc's, if it is already here and may be handed out. Those
    /// before it that take the shortcut are dealt with.
    pub(super) fn next(&mut self, wire: &Rc<Wire>) -> Found {
        let (taken, incoming) = cut(wire, self.buffer.unread())?;
        self.buffer.take(taken);
        Ok(incoming)
    }

    /// Deals with what has arrived, up to a message that is capnp-rpc's; whether more may be read.
    pub(super) fn goes_on(&mut self, wire: &Rc<Wire>) -> bool {
        if !self.is_awaited {
            return false;
        }
        match self.next(wire) {
            Ok(None) if wire.is_gated() => {
                // What is not read cannot end: that is not the other side's doing.
                wire.note_unfinished(0);
                false
            }
            Ok(None) => {
                self.buffer.tidy();
                self.hold_unfinished(wire);
                true
            }
            found => {
                self.give(found);
                false
            }
        }
    }

    /// Deals with bytes that have just arrived. Mostly they are whole messages: those are read where
    /// they are, and only what is left is kept.
    pub(super) fn take_in(&mut self, wire: &Rc<Wire>, bytes: &[u8]) {
        let found = match self.buffer.is_empty() {
            true => cut(wire, bytes),
            false => Ok((0, None)),
        };
        let (taken, found) = match found {
            Ok((taken, None)) => (taken, None),
            Ok((taken, message)) => (taken, Some(Ok(message))),
            Err(reason) => (bytes.len(), Some(Err(reason))),
        };
        self.buffer.append(&bytes[taken..]);
        match found {
            Some(found) => self.give(found),
            None => drop(self.goes_on(wire)),
        }
    }

    /// Nothing more will arrive.
    pub(super) fn end(&mut self) {
        self.give(match self.buffer.is_empty() {
            true => Ok(None),
            false => Err(Error::disconnected(
                "the connection ended in the middle of a message".to_owned(),
            )),
        });
    }

    /// Nothing more can be read, for this reason.
    pub(super) fn fail(&mut self, reason: Error) {
        self.give(Err(reason));
    }

    /// Nobody reads any more.
    pub(super) fn give_up(&mut self, wire: &Wire) {
        let gone = || Error::disconnected("the connection has ended".to_owned());
        if self.found.is_none() {
            self.fail(wire.closing().unwrap_or_else(gone));
        }
    }

    fn give(&mut self, found: Found) {
        self.found = Some(found);
        self.is_awaited = false;
        self.receiver.wake();
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
    if let Some(message) = peeked.only_segment()
        && shortcut.recognise(wire, message)?
    {
        return Ok(true);
    }
    let options = reader_options(peeked.bytes(), wire.limits.nesting_max);
    let reader = Reader::new(peeked, options);
    shortcut.receive(wire, peeked, reader.get_root()?)
}

/// A connection that breaks is no violation: the other side is gone.
pub(super) fn broken(error: std::io::Error) -> Error {
    Error::disconnected(format!("the connection broke: {error}"))
}

/// Waits for the next message.
pub(super) struct Receive {
    wire: Rc<Wire>,
    input: Rc<RefCell<Input>>,
}

impl Receive {
    pub(super) fn new(wire: &Rc<Wire>, input: &Rc<RefCell<Input>>) -> Self {
        Self { wire: Rc::clone(wire), input: Rc::clone(input) }
    }

    fn take(&self, context: &Context<'_>) -> Poll<Found> {
        let mut input = self.input.borrow_mut();
        let found = match input.found.take() {
            Some(found) => found,
            None => match input.next(&self.wire) {
                Ok(None) => {
                    input.receiver.wait(context.waker());
                    if !std::mem::replace(&mut input.is_awaited, true) {
                        self.wire.pump.wake();
                    }
                    return Poll::Pending;
                }
                found => found,
            },
        };
        input.is_awaited = false;
        Poll::Ready(found)
    }
}

impl Future for Receive {
    type Output = Result<Option<Box<dyn capnp_rpc::IncomingMessage>>, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.take(context).map_ok(|found| found.map(|message| Box::new(message) as _))
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
