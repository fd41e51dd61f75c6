//! The door to a node's event loop: everything that happens to a node goes through its mailbox, and
//! everything it says goes out through its [`Outbox`], a turn at a time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kvorum_replication::{Input, NodeId, Outcome, Request, RequestId, Time};

use crate::report::Report;

/// Requests that may wait in a mailbox; more are refused as overloaded. At 20 µs each this is a
/// third of a second of work, and a client that waits longer is better told.
pub const REQUESTS_MAX: usize = 16_384;

/// Bytes of peers' messages that may wait in a mailbox before links should stop reading.
pub const BACKLOG_BYTES_MAX: usize = 64 << 20;

/// A mailbox that no node reads: a test plays the node.
#[must_use]
pub fn detached<M>() -> (Handle<M>, Detached<M>) {
    let mailbox = Arc::new(Mailbox::new());
    (Handle::new(Arc::clone(&mailbox)), Detached { mailbox })
}

/// The node's side of a [`detached`] mailbox.
#[derive(Debug)]
pub struct Detached<M> {
    mailbox: Arc<Mailbox<M>>,
}

impl<M> Detached<M> {
    /// Moves what has arrived behind `into`; waits for the first at most `wait`.
    pub fn take(&self, into: &mut VecDeque<Event<M>>, wait: Duration) {
        self.mailbox.take(into, Some(self.mailbox.now().after(wait)));
    }

    /// Refuses everything from now on, as a node that has stopped.
    pub fn close(&self) {
        self.mailbox.close();
    }
}

/// Something that happens to a node.
#[derive(Debug)]
pub enum Event<M> {
    /// A client asks.
    Request(Request),
    /// A peer's messages, in its order.
    Messages {
        /// Who sent them.
        from: NodeId,
        /// What it says.
        messages: Vec<M>,
        /// Their size on the wire, for the mailbox's limit.
        bytes: usize,
    },
    /// A link to a peer stands.
    PeerUp(NodeId),
    /// The link to a peer broke.
    PeerDown(NodeId),
    /// Somebody wants to know how the node is. The answer is dropped if nobody waits for it.
    Report(SyncSender<Report>),
    /// This node will stop soon: whoever can take over what it does may do so.
    Stopping,
    /// Stop cleanly: sync what is pending, then end.
    Stop,
}

/// What a node says in one turn of its event loop.
#[derive(Debug)]
pub struct Turn<M> {
    /// Answers to clients.
    pub replies: Vec<(RequestId, Outcome)>,
    /// Messages to peers, in order for each.
    pub sends: Vec<(NodeId, M)>,
}

impl<M> Default for Turn<M> {
    fn default() -> Self {
        Self { replies: Vec::new(), sends: Vec::new() }
    }
}

impl<M> Turn<M> {
    /// Whether the node said nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.replies.is_empty() && self.sends.is_empty()
    }
}

/// Where a node's answers and messages go.
pub trait Outbox<M>: Send {
    /// Takes over everything in `turn` and leaves it empty. Must not block: what a peer cannot take
    /// is dropped, as a network would.
    fn deliver(&mut self, turn: &mut Turn<M>);

    /// Waits, at most `wait`, until what was delivered has left the process. Only fail points need
    /// it: a process that dies "after one participant was told" must have told it.
    fn drain(&mut self, wait: Duration);
}

/// A node's mailbox as its event loop sees it.
#[derive(Debug)]
pub(crate) struct Mailbox<M> {
    state: Mutex<State<M>>,
    arrived: Condvar,
    backlog_bytes: AtomicUsize,
    closed: AtomicBool,
    started: Instant,
    /// Nanoseconds by which the clock is wrong: zero, but in tests.
    clock_error: AtomicI64,
}

#[derive(Debug)]
struct State<M> {
    events: VecDeque<Event<M>>,
    requests: usize,
    /// The log has synced, or something else that is no event wants the loop's attention.
    nudged: bool,
    sleeping: bool,
}

/// The mailbox could not take a request: the node is overloaded, or has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Too many requests wait.
    Full,
    /// The node has stopped.
    Closed,
}

/// A node as the world sees it: a place to put events. Cheap to clone.
#[derive(Debug)]
pub struct Handle<M> {
    mailbox: Arc<Mailbox<M>>,
}

impl<M> Clone for Handle<M> {
    fn clone(&self) -> Self {
        Self { mailbox: Arc::clone(&self.mailbox) }
    }
}

impl<M> Handle<M> {
    pub(crate) fn new(mailbox: Arc<Mailbox<M>>) -> Self {
        Self { mailbox }
    }

    /// The node's clock, in which deadlines are given.
    #[must_use]
    pub fn now(&self) -> Time {
        self.mailbox.now()
    }

    /// For tests: from now on the node's clock shows so many nanoseconds more than it should, or
    /// less. It jumps there at once.
    pub fn set_clock_error(&self, nanos: i64) {
        self.mailbox.clock_error.store(nanos, Ordering::SeqCst);
        // Whoever sleeps until a time has to look at the clock again.
        self.mailbox.nudge();
    }

    /// Puts events into the mailbox in order, waking the node once for all of them. Requests that
    /// do not fit come back with the reason; everything else is always taken.
    pub fn submit(&self, events: impl IntoIterator<Item = Event<M>>) -> Vec<(Request, Refused)> {
        self.mailbox.put(events)
    }

    /// Whether so many bytes of messages wait that links should stop reading for a while.
    #[must_use]
    pub fn is_backlogged(&self) -> bool {
        self.mailbox.backlog_bytes.load(Ordering::Relaxed) > BACKLOG_BYTES_MAX
    }

    /// Whether the node has stopped and takes nothing any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.mailbox.closed.load(Ordering::Acquire)
    }
}

impl<M> Mailbox<M> {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                events: VecDeque::new(),
                requests: 0,
                nudged: false,
                sleeping: false,
            }),
            arrived: Condvar::new(),
            backlog_bytes: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            started: Instant::now(),
            clock_error: AtomicI64::new(0),
        }
    }

    pub(crate) fn now(&self) -> Time {
        let nanos = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Time(nanos.saturating_add_signed(self.clock_error.load(Ordering::SeqCst)))
    }

    /// Wakes the event loop without an event.
    pub(crate) fn nudge(&self) {
        let mut state = self.lock();
        state.nudged = true;
        if state.sleeping {
            self.arrived.notify_one();
        }
    }

    /// Refuses everything from now on.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.lock().events.clear();
    }

    /// Moves what has arrived behind `into`; waits for the first at most until `until`.
    pub(crate) fn take(&self, into: &mut VecDeque<Event<M>>, until: Option<Time>) {
        let mut state = self.lock();
        while state.events.is_empty() && !state.nudged {
            let wait = until.map(|until| until.since(self.now()));
            if wait == Some(Duration::ZERO) {
                break;
            }
            state.sleeping = true;
            state = match wait {
                Some(wait) => {
                    let waited = self.arrived.wait_timeout(state, wait);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
            state.sleeping = false;
        }
        state.nudged = false;
        state.requests = 0;
        into.append(&mut state.events);
        self.backlog_bytes.store(0, Ordering::Relaxed);
    }

    fn put(&self, events: impl IntoIterator<Item = Event<M>>) -> Vec<(Request, Refused)> {
        let mut refused = Vec::new();
        let closed = self.closed.load(Ordering::Acquire);
        let mut state = self.lock();
        for event in events {
            match event {
                Event::Request(request) if closed => refused.push((request, Refused::Closed)),
                Event::Request(request) if state.requests >= REQUESTS_MAX => {
                    refused.push((request, Refused::Full));
                }
                _ if closed => {}
                event => {
                    match &event {
                        Event::Request(_) => state.requests += 1,
                        Event::Messages { bytes, .. } => {
                            self.backlog_bytes.fetch_add(*bytes, Ordering::Relaxed);
                        }
                        Event::PeerUp(_)
                        | Event::PeerDown(_)
                        | Event::Report(_)
                        | Event::Stopping
                        | Event::Stop => {}
                    }
                    state.events.push_back(event);
                }
            }
        }
        if state.sleeping && !state.events.is_empty() {
            self.arrived.notify_one();
        }
        refused
    }

    fn lock(&self) -> MutexGuard<'_, State<M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M> Event<M> {
    /// Hands over the inputs of the core that this event stands for, if it is one for the core.
    pub(crate) fn for_each_input<R, E>(
        self,
        mut take: impl FnMut(Input<M, R>) -> Result<(), E>,
    ) -> Result<(), E> {
        match self {
            Self::Request(request) => take(Input::Request(request)),
            Self::Messages { from, messages, .. } => {
                messages.into_iter().try_for_each(|message| take(Input::Message { from, message }))
            }
            Self::PeerUp(peer) => take(Input::PeerUp(peer)),
            Self::PeerDown(peer) => take(Input::PeerDown(peer)),
            Self::Stopping => take(Input::Stopping),
            Self::Report(_) | Self::Stop => Ok(()),
        }
    }
}
