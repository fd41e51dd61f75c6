//! The door to a node's event loop: everything that happens to a node goes through its mailbox, and
//! everything it says goes out through its [`Outbox`], a turn at a time.
//!
//! A turn is taken by one thread at a time. That may be the node's own, which sleeps until something
//! arrives, or whoever [drives](Handle::drive) the node with what it brings and finds nobody at it:
//! then nothing has to cross to another thread and wake it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use kvorum_replication::{Answer, Input, NodeId, Outcome, Query, Request, RequestId, Time};

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
        self.mailbox.take(into, self.mailbox.now().after(wait));
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

/// Whether a thread that drives a node may wait for its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskWait {
    /// It has others to look after.
    Never,
    /// It has nothing better to do for as long as a sync usually takes on a disk that is quick.
    Short,
}

/// Takes turns of a node on the thread that asks for it.
pub(crate) trait Drive: Send + Sync {
    /// Takes a turn with what waits in the mailbox, unless somebody is at it, who then sees to it.
    fn drive(&self, wait: DiskWait);

    /// Answers a query without a turn, unless something is in its way.
    fn read(&self, query: &Query) -> Option<Answer>;
}

/// A node's mailbox as its event loop sees it.
pub(crate) struct Mailbox<M> {
    state: Mutex<State<M>>,
    /// The node's own thread waits for this.
    arrived: Condvar,
    /// Set if others than the node's own thread may take turns.
    driver: OnceLock<Weak<dyn Drive>>,
    backlog_bytes: AtomicUsize,
    closed: AtomicBool,
    started: Instant,
    /// Nanoseconds by which the clock is wrong: zero, but in tests.
    clock_error: AtomicI64,
}

struct State<M> {
    events: VecDeque<Event<M>>,
    requests: usize,
    /// The log has synced, or something else that is no event wants the loop's attention.
    nudged: bool,
    /// Somebody takes a turn, and looks here again before it ends it.
    running: bool,
    /// Whoever took the last turn has panicked in it.
    lost: bool,
    /// When a turn is due although nothing arrived.
    wake: Time,
    /// Until when the node's own thread sleeps, if it does.
    sleeps_until: Option<Time>,
}

impl<M> State<M> {
    fn has_news(&self) -> bool {
        self.nudged || !self.events.is_empty()
    }
}

impl<M> fmt::Debug for Mailbox<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let events = self.lock().events.len();
        f.debug_struct("Mailbox").field("events", &events).finish_non_exhaustive()
    }
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
        let refused = self.mailbox.put(events);
        self.mailbox.wake();
        refused
    }

    /// As [`Handle::submit`], and takes the node's turn on this thread if nobody is at it. What the
    /// node says goes to its outbox before this returns, so the caller must hold no lock that the
    /// outbox takes.
    pub fn drive(
        &self,
        events: impl IntoIterator<Item = Event<M>>,
        wait: DiskWait,
    ) -> Vec<(Request, Refused)> {
        let refused = self.mailbox.put(events);
        self.mailbox.drive(wait);
        refused
    }

    /// Answers a client's query on this thread, without a turn of the node: as if a request for it had
    /// come now. `None` if something is in its way, be it that somebody is at the node: then it has
    /// to be asked for.
    #[must_use]
    pub fn read(&self, query: &Query) -> Option<Answer> {
        let driver = self.mailbox.driver.get().and_then(Weak::upgrade)?;
        driver.read(query)
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
                running: false,
                lost: false,
                wake: Time::NEVER,
                sleeps_until: None,
            }),
            arrived: Condvar::new(),
            driver: OnceLock::new(),
            backlog_bytes: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            started: Instant::now(),
            clock_error: AtomicI64::new(0),
        }
    }

    /// From now on others than the node's own thread take turns as well.
    pub(crate) fn set_driver(&self, driver: Weak<dyn Drive>) {
        self.driver.set(driver).unwrap_or_else(|_| unreachable!("a node is started once"));
    }

    pub(crate) fn now(&self) -> Time {
        let nanos = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Time(nanos.saturating_add_signed(self.clock_error.load(Ordering::SeqCst)))
    }

    /// Has a turn taken without an event, by the node's own thread.
    pub(crate) fn nudge(&self) {
        self.note_news();
        self.wake();
    }

    /// Has a turn taken without an event, here if nobody is at it.
    pub(crate) fn nudge_and_drive(&self) {
        self.note_news();
        self.drive(DiskWait::Never);
    }

    /// Whoever takes the next turn has something to do, although there is no event. Nobody is woken.
    pub(crate) fn note_news(&self) {
        self.lock().nudged = true;
    }

    /// Wakes the node's own thread, if it sleeps and there is something to wake it for.
    pub(crate) fn wake(&self) {
        let state = self.lock();
        if state.sleeps_until.is_some() && !state.running && state.has_news() {
            self.arrived.notify_one();
        }
    }

    fn drive(&self, wait: DiskWait) {
        match self.driver.get().and_then(Weak::upgrade) {
            Some(driver) => driver.drive(wait),
            None => self.wake(),
        }
    }

    /// Refuses everything from now on.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.lock().events.clear();
    }

    /// Begins a turn if there is something to do and nobody is at it.
    pub(crate) fn try_begin(&self) -> bool {
        let mut state = self.lock();
        let begins = !state.running && !state.lost && state.has_news();
        state.running |= begins;
        begins
    }

    /// Waits until a turn is due and nobody is at it, and begins it.
    ///
    /// # Panics
    /// If whoever took a turn on another thread has panicked: what the node knows is not whole.
    pub(crate) fn begin(&self) {
        let mut state = self.lock();
        loop {
            assert!(!state.lost, "a turn of the node has panicked on another thread");
            if !state.running {
                let now = self.now();
                if state.has_news() || state.wake <= now {
                    state.running = true;
                    return;
                }
            }
            // Whoever is at it says when the next turn is due.
            let until = if state.running { Time::NEVER } else { state.wake };
            state = self.sleep(state, until);
        }
    }

    /// Moves what has arrived behind `into`.
    pub(crate) fn collect(&self, into: &mut VecDeque<Event<M>>) {
        self.collect_from(&mut self.lock(), into);
    }

    /// Ends a turn, after which the next is due at `wake`; false if there is something to do already,
    /// and then the turn has not ended, unless it has to: then the node's own thread goes on.
    pub(crate) fn end(&self, wake: Option<Time>, must_end: bool) -> bool {
        let mut state = self.lock();
        let has_news = state.has_news();
        if has_news && !must_end {
            return false;
        }
        state.running = false;
        state.wake = wake.unwrap_or(Time::NEVER);
        if state.sleeps_until.is_some_and(|until| has_news || state.wake < until) {
            self.arrived.notify_one();
        }
        true
    }

    /// Whoever was at it has panicked.
    pub(crate) fn lose(&self) {
        self.lock().lost = true;
        self.arrived.notify_one();
    }

    /// Moves what has arrived behind `into`; waits for the first at most until `until`.
    fn take(&self, into: &mut VecDeque<Event<M>>, until: Time) {
        let mut state = self.lock();
        while !state.has_news() && self.now() < until {
            state = self.sleep(state, until);
        }
        self.collect_from(&mut state, into);
    }

    fn collect_from(&self, state: &mut State<M>, into: &mut VecDeque<Event<M>>) {
        state.nudged = false;
        state.requests = 0;
        into.append(&mut state.events);
        self.backlog_bytes.store(0, Ordering::Relaxed);
    }

    fn sleep<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<M>>,
        until: Time,
    ) -> MutexGuard<'a, State<M>> {
        state.sleeps_until = Some(until);
        let mut state = match until {
            Time::NEVER => self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner),
            until => {
                let waited = self.arrived.wait_timeout(state, until.since(self.now()));
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        state.sleeps_until = None;
        state
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
