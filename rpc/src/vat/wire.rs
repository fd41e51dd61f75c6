//! What pump and watchman of one connection, and those who speak over it, know together.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use capnp::message::{Builder, HeapAllocator};
use capnp::{Error, ErrorKind};
use tokio::time::Instant;

use super::budget::Budget;
use super::frame;
use super::shortcut::Shortcut;

/// What one connection may cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// A larger message closes the connection.
    pub(crate) message_bytes_max: usize,
    /// Deeper pointers than this are an error to whoever follows them.
    pub(crate) nesting_max: i32,
    /// While so many bytes wait to be written nothing more is read.
    pub(crate) backlog_bytes_max: usize,
    /// While so many calls are under way nothing more is read.
    pub(crate) calls_max: usize,
    /// While requests of so many bytes are being worked on nothing more is read.
    pub(crate) held_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 32 << 20,
            nesting_max: 32,
            backlog_bytes_max: 1 << 20,
            calls_max: 4096,
            held_bytes_max: 64 << 20,
        }
    }
}

/// How long the last words may take to leave once a connection ends.
pub(crate) const LINGER: Duration = Duration::from_secs(1);

/// The shared state of one connection.
pub(crate) struct Wire {
    pub(crate) limits: Limits,
    /// What looks at messages before capnp-rpc does, if anything does.
    shortcut: OnceCell<Rc<dyn Shortcut>>,
    /// What unfinished messages may hold here and on other connections.
    budget: OnceCell<Rc<Budget>>,
    /// Serialised and not yet being written.
    pub(super) queued: RefCell<Vec<u8>>,
    /// It need not wait for others that are ready to speak.
    pub(super) is_prompt: Cell<bool>,
    /// Bytes that are being written.
    pub(super) writing: Cell<usize>,
    /// Wakes the pump: something was said, a gate opens, or the connection is to be closed.
    pub(super) pump: Slot,
    finish: RefCell<Vec<Waker>>,
    /// Why the watchman wants this connection closed.
    closing: RefCell<Option<Error>>,
    ending: Cell<bool>,
    /// Whether the RPC system has let go of the connection, and failed the calls under way.
    released: Cell<bool>,
    result: RefCell<Option<Error>>,
    trusted: Cell<bool>,
    finished: Cell<bool>,
    /// Calls that came in and were not answered. A cancelled call is never answered by capnp-rpc,
    /// which keeps its entry until the connection ends: it stays in this count, and so is bounded.
    calls: Cell<usize>,
    /// Answers that the other side has not said it is finished with.
    unfinished: Cell<i64>,
    held_bytes: Cell<usize>,
    /// Bytes in, and bytes out.
    received: Moved,
    written: Moved,
    gated_since: Cell<Option<Instant>>,
    /// Since when a message has begun and not ended, and how much of it is here.
    unfinished_since: Cell<Option<Instant>>,
    unfinished_bytes: Cell<usize>,
    messages_in: Cell<u64>,
    pub(super) messages_out: Cell<u64>,
    pub(super) flushes: Cell<u64>,
}

/// A place for the waker of the one task that waits.
#[derive(Debug, Default)]
pub(super) struct Slot {
    waker: RefCell<Option<Waker>>,
    /// The task is at it, and looks at `is_woken` before it waits.
    is_at_work: Cell<bool>,
    is_woken: Cell<bool>,
}

impl Slot {
    pub(super) fn wait(&self, waker: &Waker) {
        let mut slot = self.waker.borrow_mut();
        match &mut *slot {
            Some(known) => known.clone_from(waker),
            None => *slot = Some(waker.clone()),
        }
    }

    pub(super) fn wake(&self) {
        if self.is_at_work.get() {
            return self.is_woken.set(true);
        }
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// The task that waits here is at work, until this is dropped.
    pub(super) fn at_work(&self) -> AtWork<'_> {
        self.is_at_work.set(true);
        AtWork(self)
    }

    /// Whether it was woken while it was at work.
    pub(super) fn take_woken(&self) -> bool {
        self.is_woken.take()
    }
}

pub(super) struct AtWork<'a>(&'a Slot);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.is_at_work.set(false);
    }
}

/// When something last moved, as far as anybody has asked: whoever asks looks at the clock, and not
/// whatever moves.
#[derive(Debug)]
struct Moved {
    at: Cell<Instant>,
    since: Cell<bool>,
}

impl Moved {
    fn new(now: Instant) -> Self {
        Self { at: Cell::new(now), since: Cell::new(false) }
    }

    fn note(&self) {
        self.since.set(true);
    }

    /// How long nothing has moved. What has since this was last asked may have just now.
    fn still_for(&self, now: Instant) -> Duration {
        if self.since.take() {
            self.at.set(now);
        }
        now.saturating_duration_since(self.at.get())
    }
}

impl Wire {
    pub(crate) fn new(limits: Limits) -> Rc<Self> {
        let now = Instant::now();
        Rc::new(Self {
            limits,
            shortcut: OnceCell::new(),
            budget: OnceCell::new(),
            queued: RefCell::default(),
            is_prompt: Cell::new(false),
            writing: Cell::new(0),
            pump: Slot::default(),
            finish: RefCell::default(),
            closing: RefCell::default(),
            ending: Cell::new(false),
            released: Cell::new(false),
            result: RefCell::default(),
            trusted: Cell::new(false),
            finished: Cell::new(false),
            calls: Cell::new(0),
            unfinished: Cell::new(0),
            held_bytes: Cell::new(0),
            received: Moved::new(now),
            written: Moved::new(now),
            gated_since: Cell::new(None),
            unfinished_since: Cell::new(None),
            unfinished_bytes: Cell::new(0),
            messages_in: Cell::new(0),
            messages_out: Cell::new(0),
            flushes: Cell::new(0),
        })
    }

    /// Lets something look at every message before capnp-rpc does; once, before the first.
    pub(crate) fn set_shortcut(&self, shortcut: Rc<dyn Shortcut>) {
        let first = self.shortcut.set(shortcut).is_ok();
        assert!(first, "a connection has one shortcut");
    }

    pub(super) fn shortcut(&self) -> Option<&Rc<dyn Shortcut>> {
        self.shortcut.get()
    }

    /// Bounds what unfinished messages hold over all connections that share this.
    pub(crate) fn set_budget(&self, budget: &Rc<Budget>) {
        let first = self.budget.set(Rc::clone(budget)).is_ok();
        assert!(first, "a connection has one budget");
    }

    pub(super) fn budget(&self) -> Option<&Rc<Budget>> {
        self.budget.get()
    }

    /// Sends a message that is appended, with its framing, to what waits; promptly, as below.
    pub(crate) fn say_with(&self, append: impl FnOnce(&mut Vec<u8>)) {
        if self.is_ending() {
            return;
        }
        self.messages_out.set(self.messages_out.get() + 1);
        self.is_prompt.set(true);
        let mut queued = self.queued.borrow_mut();
        let was_empty = queued.is_empty();
        append(&mut queued);
        drop(queued);
        if was_empty {
            self.note_queued();
        }
    }

    /// As [`Wire::say`], as soon as whoever is at work is done: for those who have nothing to add.
    pub(crate) fn say_promptly(&self, message: &Builder<HeapAllocator>) {
        self.is_prompt.set(true);
        self.say(message);
    }

    /// Sends a message, behind those that wait already. Nobody hears it if the connection ends.
    pub(crate) fn say(&self, message: &Builder<HeapAllocator>) {
        if self.is_ending() {
            return;
        }
        self.messages_out.set(self.messages_out.get() + 1);
        let mut queued = self.queued.borrow_mut();
        let was_empty = queued.is_empty();
        frame::append(&mut queued, &message.get_segments_for_output());
        drop(queued);
        if was_empty {
            self.note_queued();
        }
    }

    /// Sends a message that was serialised before, with another number at this place in it.
    pub(crate) fn say_again(&self, message: &[u8], number_at: usize, number: u32) {
        self.say_with(|queued| {
            let start = queued.len();
            queued.extend_from_slice(message);
            queued[start + number_at..][..4].copy_from_slice(&number.to_le_bytes());
        });
    }

    /// Closes the connection for a reason that the other side is told. Calls under way fail.
    pub(crate) fn close(&self, reason: Error) {
        self.closing.borrow_mut().get_or_insert(reason);
        self.pump.wake();
    }

    /// Goes on reading however much waits to be written. Two sides that both stop reading until
    /// they have written would wait for each other for ever, so one must not: a client, and both
    /// ends of a link, whose window bounds what waits.
    pub(crate) fn trust(&self) {
        self.trusted.set(true);
        self.pump.wake();
    }

    /// Whether nothing can be said over this connection any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.ending.get() || self.finished.get() || self.closing.borrow().is_some()
    }

    /// Bytes that were sent and have not left yet.
    pub(crate) fn backlog(&self) -> usize {
        self.queued.borrow().len() + self.writing.get()
    }

    /// Calls that came in and are not answered.
    pub(crate) fn calls(&self) -> usize {
        self.calls.get()
    }

    /// How long no byte has arrived.
    pub(crate) fn silent_for(&self, now: Instant) -> Duration {
        self.received.still_for(now)
    }

    /// How long what waits to be written has not moved; zero if nothing waits.
    pub(crate) fn stalled_for(&self, now: Instant) -> Duration {
        let still = self.written.still_for(now);
        if self.backlog() == 0 { Duration::ZERO } else { still }
    }

    /// How long reading has been stopped by a limit.
    pub(crate) fn gated_for(&self, now: Instant) -> Duration {
        self.gated_since.get().map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// How long a message that has begun has not ended, and how many bytes of it are here.
    pub(crate) fn unfinished_for(&self, now: Instant) -> Option<(Duration, usize)> {
        let since = self.unfinished_since.get()?;
        Some((now.saturating_duration_since(since), self.unfinished_bytes.get()))
    }

    /// Messages received, messages sent, and the writes that took.
    pub(crate) fn traffic(&self) -> (u64, u64, u64) {
        (self.messages_in.get(), self.messages_out.get(), self.flushes.get())
    }

    /// Counts bytes of a request against this connection for as long as the guard lives.
    pub(crate) fn hold(self: &Rc<Self>, bytes: usize) -> Held {
        self.held_bytes.set(self.held_bytes.get() + bytes);
        Held { wire: Rc::clone(self), bytes }
    }

    /// Resolves when the last byte has left, the stream is shut down and no call waits any more.
    pub(crate) async fn finished(&self) {
        poll_fn(|context| {
            if self.finished.get() && self.released.get() {
                return Poll::Ready(());
            }
            self.finish.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Why the connection ended, unless one side just left.
    pub(super) fn violation(&self) -> Option<Error> {
        self.result.borrow().clone().filter(|error| error.kind != ErrorKind::Disconnected)
    }

    pub(super) fn closing(&self) -> Option<Error> {
        self.closing.borrow().clone()
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ending.get()
    }

    pub(super) fn end(&self) {
        self.ending.set(true);
        self.tell_shortcut();
        self.pump.wake();
    }

    pub(super) fn end_with(&self, result: capnp::Result<()>) {
        *self.result.borrow_mut() = result.err();
        self.released.set(true);
        self.end();
        self.wake_finish();
    }

    fn tell_shortcut(&self) {
        if let Some(shortcut) = self.shortcut() {
            let gone = || Error::disconnected("the connection has ended".to_owned());
            let reason = self.result.borrow().clone().or_else(|| self.closing());
            shortcut.ended(&reason.unwrap_or_else(gone));
        }
    }

    pub(super) fn finish(&self) {
        self.ending.set(true);
        self.finished.set(true);
        self.wake_finish();
    }

    fn wake_finish(&self) {
        for waker in self.finish.borrow_mut().drain(..) {
            waker.wake();
        }
    }

    /// Whether a limit forbids reading just now.
    pub(super) fn is_gated(&self) -> bool {
        let gated = (!self.trusted.get() && self.backlog() > self.limits.backlog_bytes_max)
            || self.calls.get() >= self.limits.calls_max
            || self.held_bytes.get() > self.limits.held_bytes_max
            || self.shortcut().is_some_and(|shortcut| shortcut.holds_back());
        match (gated, self.gated_since.get()) {
            (true, None) => self.gated_since.set(Some(Instant::now())),
            (false, Some(_)) => self.gated_since.set(None),
            (true, Some(_)) | (false, None) => {}
        }
        gated
    }

    fn reopen(&self) {
        if self.gated_since.get().is_some() {
            self.pump.wake();
        }
    }

    /// A whole message came in.
    pub(super) fn note_message(&self) {
        self.messages_in.set(self.messages_in.get() + 1);
        self.unfinished_since.set(None);
    }

    /// So much of a message is here, and the rest is waited for.
    pub(super) fn note_unfinished(&self, bytes: usize) {
        self.unfinished_bytes.set(bytes);
        match (bytes, self.unfinished_since.get()) {
            (0, Some(_)) => self.unfinished_since.set(None),
            // It came with the last bytes that were read.
            (1.., None) => self.unfinished_since.set(Some(Instant::now())),
            (0, None) | (1.., Some(_)) => {}
        }
    }

    pub(super) fn note_received(&self) {
        self.received.note();
    }

    pub(super) fn note_written(&self, bytes: usize) {
        self.written.note();
        self.writing.set(self.writing.get().saturating_sub(bytes));
        self.reopen();
    }

    /// The first bytes after silence start the clock of [`Wire::stalled_for`].
    pub(super) fn note_queued(&self) {
        self.written.note();
        self.pump.wake();
    }

    pub(crate) fn note_question(&self) {
        self.calls.set(self.calls.get() + 1);
    }

    pub(crate) fn note_answer(&self, finish_needed: bool) {
        self.calls.set(self.calls.get().saturating_sub(1));
        if finish_needed {
            self.unfinished.set(self.unfinished.get() + 1);
        }
        self.reopen();
    }

    /// The other side is finished with an answer; it may say so of answers that need no such word.
    pub(super) fn note_finish(&self) {
        self.unfinished.set((self.unfinished.get() - 1).max(0));
    }

    /// Whether the other side lets its answers pile up here.
    pub(super) fn has_too_many_unfinished(&self) -> bool {
        let max = 4 * self.limits.calls_max + 64;
        usize::try_from(self.unfinished.get()).is_ok_and(|unfinished| unfinished > max)
    }
}

/// Bytes counted against a connection.
pub(crate) struct Held {
    wire: Rc<Wire>,
    bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.wire.held_bytes.set(self.wire.held_bytes.get().saturating_sub(self.bytes));
        self.wire.reopen();
    }
}
