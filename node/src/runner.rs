//! A node in production: the threads that drive it.
//!
//! ```text
//!   handles ──► mailbox ──► event loop ──► outbox
//!                            │    ▲
//!                     target │    │ durable
//!                            ▼    │
//!                          log thread            maintenance threads: flush, compact
//! ```
//!
//! While the log thread syncs one group, the event loop goes on and the next group fills: under
//! load groups form by themselves, and without load nothing waits.
//!
//! The event loop has a thread of its own for what the clock wants. Otherwise whoever brings
//! something takes the loop's turn with it, if nobody is at it: the thread on which a message
//! arrived, or the one that has just made the log durable. On a busy machine a thread that is woken
//! waits for a processor longer than the turn takes. For the same reason whoever brings something
//! and has nothing else to look after syncs the log by itself, see `syncer`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use kvorum_replication::two_phase::points;
use kvorum_replication::{Answer, Core, Input, Query, Time};
use kvorum_storage::{Error, Maintenance, MaintenanceOptions, Position, Pressure, Store};

use crate::codec::StoredRecord;
use crate::error::NodeError;
use crate::fail_points::{self, DRAIN, FailPoints};
use crate::inspector::Inspector;
use crate::keeper::answer_get;
use crate::mailbox::{DiskWait, Drive, Event, Handle, Mailbox, Outbox};
use crate::node::Node;
use crate::syncer::{Syncer, SyncerShared};

/// How long maintenance waits between tries while the disk is full.
const MAINTENANCE_PAUSE: Duration = Duration::from_millis(500);

/// How long the event loop stands still at a time while flushes cannot keep up.
const STOP_PAUSE: Duration = Duration::from_millis(1);

/// Turns that a thread takes of a loop that is not its own, before it goes back to its work.
const TURNS_MAX: u32 = 4;

/// How often, in one turn. A flush takes less; if it does not come at all, reads must go on.
const STOP_PAUSES_MAX: u32 = 200;

/// A running node.
#[derive(Debug)]
pub struct Runner<M> {
    handle: Handle<M>,
    inspector: Inspector,
    event_loop: JoinHandle<Result<(), NodeError>>,
}

impl<M: Send + 'static> Runner<M> {
    /// Starts the node's threads. The node is told [`Input::Started`] before anything else.
    /// `on_end` is called when the event loop has ended, whether asked to or because of an error.
    pub fn start<C>(
        node: Node<C>,
        outbox: Box<dyn Outbox<M>>,
        fail_points: FailPoints,
        on_end: Box<dyn FnOnce() + Send>,
    ) -> Result<Self, NodeError>
    where
        C: Core<Message = M> + Send + 'static,
        C::Record: StoredRecord + Send,
        C::Resume: Send,
    {
        let mailbox = Arc::new(Mailbox::new());
        let inspector = node.inspector();
        let handle = Handle::new(Arc::clone(&mailbox));
        let event_loop = thread::Builder::new()
            .name("node".to_owned())
            .spawn(move || {
                let result = run(node, outbox, fail_points, &mailbox);
                mailbox.close();
                on_end();
                result
            })
            .map_err(NodeError::Thread)?;
        Ok(Self { handle, inspector, event_loop })
    }

    /// Where events go.
    #[must_use]
    pub fn handle(&self) -> Handle<M> {
        self.handle.clone()
    }

    /// A look at the rows this node holds.
    #[must_use]
    pub fn inspector(&self) -> Inspector {
        self.inspector.clone()
    }

    /// Stops the node cleanly, what is appended synced, and says how it ended.
    pub fn stop(self) -> Result<(), NodeError> {
        self.handle.submit([Event::Stop]);
        self.event_loop.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn run<C>(
    node: Node<C>,
    outbox: Box<dyn Outbox<C::Message>>,
    fail_points: FailPoints,
    mailbox: &Arc<Mailbox<C::Message>>,
) -> Result<(), NodeError>
where
    C: Core + Send + 'static,
    C::Message: Send + 'static,
    C::Record: StoredRecord + Send,
    C::Resume: Send,
{
    let store = node.store().cloned();
    let maintenance = store.as_ref().map(maintain).transpose()?;
    let syncer = Syncer::start(Arc::clone(node.log()), Arc::clone(mailbox))?;
    let result = EventLoop::new(node, outbox, fail_points, mailbox, &syncer).run(store);
    let stopped = syncer.stop();
    if let Some(maintenance) = maintenance {
        maintenance.stop();
    }
    result.and(stopped)
}

/// A node's event loop, which takes its turns on whichever thread has something for it.
struct EventLoop<C: Core> {
    node: Node<C>,
    outbox: Box<dyn Outbox<C::Message>>,
    fail_points: FailPoints,
    mailbox: Arc<Mailbox<C::Message>>,
    syncer: Arc<SyncerShared>,
    events: VecDeque<Event<C::Message>>,
    /// Flushes do not come, or much too slowly.
    is_stuck: bool,
    /// What is to be synced by whoever takes the turns, after them.
    due_here: Option<Position>,
    /// The last turn was taken, well or not.
    ended: Option<Result<(), NodeError>>,
}

/// The event loop as others than its own thread see it.
struct Shared<C: Core> {
    mailbox: Arc<Mailbox<C::Message>>,
    syncer: Arc<SyncerShared>,
    store: Option<Store>,
    /// Taken away when the loop has ended.
    event_loop: Mutex<Option<EventLoop<C>>>,
}

impl<C: Core> Shared<C> {
    fn lock(&self) -> MutexGuard<'_, Option<EventLoop<C>>> {
        // A turn that panicked is noticed by the mailbox.
        self.event_loop.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C> Drive for Shared<C>
where
    C: Core + Send,
    C::Message: Send,
    C::Record: StoredRecord + Send,
    C::Resume: Send,
{
    fn drive(&self, wait: DiskWait) {
        // Whoever is to slow down must not be who reads from the sockets.
        let is_slow =
            self.store.as_ref().is_some_and(|store| !matches!(store.pressure(), Pressure::None));
        if is_slow {
            return self.mailbox.wake();
        }
        if let Some(due) = self.take_turns(wait) {
            self.syncer.sync_here(due);
            self.mailbox.note_news();
            // With what has become durable, and what others have brought meanwhile.
            self.take_turns(DiskWait::Never);
        }
    }

    fn read(&self, query: &Query) -> Option<Answer> {
        let (Some(store), Query::Get(key)) = (&self.store, query) else { return None };
        // Whoever is at the loop may be at it for long: then the query waits for its turn.
        let mut event_loop = self.event_loop.try_lock().ok()?;
        let at_rest = event_loop.as_mut().filter(|event_loop| event_loop.ended.is_none())?;
        if !at_rest.node.reads_at_once(self.mailbox.now(), query) {
            return None;
        }
        drop(event_loop);
        Some(answer_get(store.get(key)))
    }
}

impl<C> Shared<C>
where
    C: Core,
    C::Record: StoredRecord,
{
    /// Takes turns while there is something to do, if nobody is at it; what this thread is to sync
    /// after them.
    fn take_turns(&self, wait: DiskWait) -> Option<Position> {
        if !self.mailbox.try_begin() {
            return None;
        }
        let _lost = Lost(&self.mailbox);
        let mut event_loop = self.lock();
        let event_loop = event_loop.as_mut()?;
        if event_loop.is_stuck {
            event_loop.heed_pressure();
        }
        event_loop.take_turns(TURNS_MAX, wait);
        event_loop.due_here.take()
    }
}

/// Tells the mailbox if the turn panics.
struct Lost<'a, M>(&'a Mailbox<M>);

impl<M> Drop for Lost<'_, M> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.lose();
        }
    }
}

impl<C> EventLoop<C>
where
    C: Core + Send + 'static,
    C::Message: Send + 'static,
    C::Record: StoredRecord + Send,
    C::Resume: Send,
{
    /// Takes turns until one was the last.
    fn run(mut self, store: Option<Store>) -> Result<(), NodeError> {
        self.start()?;
        let mailbox = Arc::clone(&self.mailbox);
        // A fail point waits for what was said to leave the process, which the thread that is to
        // send it can't do.
        let is_driven = self.fail_points.names().is_empty();
        mailbox.nudge();
        let syncer = Arc::clone(&self.syncer);
        let event_loop = Mutex::new(Some(self));
        let shared = Arc::new(Shared { mailbox: Arc::clone(&mailbox), syncer, store, event_loop });
        if is_driven {
            let driver: Weak<Shared<C>> = Arc::downgrade(&shared);
            mailbox.set_driver(driver);
        }
        loop {
            mailbox.begin();
            let mut event_loop = shared.lock();
            let at_work = event_loop.as_mut().expect("it is taken away here only");
            at_work.heed_pressure();
            at_work.take_turns(1, DiskWait::Never);
            if let Some(ended) = at_work.ended.take() {
                let mut last = event_loop.take().expect("it was just at work");
                drop(event_loop);
                let result = ended.and_then(|()| last.finish());
                see_off(shared);
                return result;
            }
        }
    }
}

/// Waits for those who are still about: as long as one of them holds the store, nobody else can open
/// it.
fn see_off<C: Core>(mut shared: Arc<Shared<C>>) {
    while let Err(held) = Arc::try_unwrap(shared) {
        shared = held;
        thread::sleep(STOP_PAUSE);
    }
}

impl<C> EventLoop<C>
where
    C: Core,
    C::Record: StoredRecord,
{
    fn new(
        node: Node<C>,
        outbox: Box<dyn Outbox<C::Message>>,
        fail_points: FailPoints,
        mailbox: &Arc<Mailbox<C::Message>>,
        syncer: &Syncer,
    ) -> Self {
        Self {
            node,
            outbox,
            fail_points,
            mailbox: Arc::clone(mailbox),
            syncer: Arc::clone(&syncer.shared),
            events: VecDeque::new(),
            is_stuck: false,
            due_here: None,
            ended: None,
        }
    }

    /// Takes the turn that was begun, and more while there is something to do.
    fn take_turns(&mut self, turns_max: u32, wait: DiskWait) {
        for left in (0..turns_max).rev() {
            // After the last there is none, whoever comes before the loop's own thread sees to it: a
            // step that failed must not go on.
            let wake = match self.ended {
                None => self.turn(wait).unwrap_or_else(|error| {
                    self.ended = Some(Err(error));
                    None
                }),
                Some(_) => None,
            };
            let has_ended = self.ended.is_some();
            let wake = if has_ended { Some(Time(0)) } else { wake };
            if self.mailbox.end(wake, has_ended || left == 0) {
                return;
            }
        }
    }

    /// Hands the core what has arrived and what has become durable, and says what comes of it;
    /// returns when the next turn is due without an event.
    fn turn(&mut self, wait: DiskWait) -> Result<Option<Time>, NodeError> {
        let mut events = std::mem::take(&mut self.events);
        self.mailbox.collect(&mut events);
        for event in events.drain(..) {
            match event {
                Event::Stop => self.ended = Some(Ok(())),
                Event::Report(answer) => {
                    // Nobody may be waiting any more, which is their affair.
                    let _ = answer.try_send(self.node.report(self.mailbox.now()));
                }
                event => {
                    let now = self.mailbox.now();
                    event.for_each_input(|input| self.step(now, input))?;
                }
            }
        }
        self.events = events;
        let now = self.mailbox.now();
        if self.node.timer().is_some_and(|timer| timer <= now) {
            self.node.fire_timer(now)?;
            self.pass_points()?;
        }
        self.node.settle(now)?;
        self.pass_points()?;
        self.syncer.check()?;
        self.outbox.deliver(self.node.turn());
        Ok(self.request_sync(wait))
    }

    /// Gets what is appended behind it.
    fn finish(&mut self) -> Result<(), NodeError> {
        self.node.log().sync(self.node.log().last())?;
        self.node.settle(self.mailbox.now())?;
        self.outbox.deliver(self.node.turn());
        Ok(())
    }

    /// Tells the core that it has started, and gets what it does about that behind it: whoever is
    /// told that this node serves may ask at once, and must not be answered that it is starting.
    fn start(&mut self) -> Result<(), NodeError> {
        self.step(self.mailbox.now(), Input::Started)?;
        match self.node.log().sync(self.node.log().last()) {
            Ok(()) => {}
            // It starts all the same, for reads; the log thread tries until there is room.
            Err(error @ Error::DiskFull { .. }) => {
                tracing::error!(%error, "the log waits for room")
            }
            Err(error) => return Err(error.into()),
        }
        self.node.settle(self.mailbox.now())?;
        self.pass_points()
    }

    fn step(&mut self, now: Time, input: Input<C::Message, C::Resume>) -> Result<(), NodeError> {
        self.node.step_of_many(now, input)?;
        self.pass_points()
    }

    /// Asks for a sync if one is due, and says when to wake up without an event.
    fn request_sync(&mut self, wait: DiskWait) -> Option<Time> {
        let now = self.mailbox.now();
        let due = self.node.sync_due(now);
        if due.is_some_and(|due| due <= now) {
            let last = self.node.log().last();
            match wait == DiskWait::Short && self.syncer.is_better_here() {
                true => self.due_here = Some(last),
                false => self.syncer.request(last),
            }
            return self.node.timer();
        }
        match (due, self.node.timer()) {
            (Some(due), Some(timer)) => Some(due.min(timer)),
            (due, timer) => due.or(timer),
        }
    }

    /// Slows down while the store has more in memory than it can flush.
    fn heed_pressure(&mut self) {
        let Some(store) = self.node.store() else { return };
        // Who was stuck once does not stand still again before it is over.
        let pauses_max = if self.is_stuck { 1 } else { STOP_PAUSES_MAX };
        self.is_stuck = true;
        for _ in 0..pauses_max {
            match store.pressure() {
                Pressure::None => {
                    self.is_stuck = false;
                    break;
                }
                Pressure::Slow(delay) => {
                    self.is_stuck = false;
                    thread::sleep(delay);
                    break;
                }
                Pressure::Stop => thread::sleep(STOP_PAUSE),
            }
        }
        self.node.set_stuck(self.is_stuck);
    }

    /// Acts on the fail points at which the node stands, and goes on if the process still lives.
    fn pass_points(&mut self) -> Result<(), NodeError> {
        while let Some(name) = self.node.take_point() {
            if let Some(action) = self.fail_points.pass(name) {
                self.outbox.deliver(self.node.turn());
                self.outbox.drain(DRAIN);
                if points::is_behind_write(name) {
                    self.node.settle(self.mailbox.now())?;
                    self.node.log().write()?;
                }
                fail_points::act(name, action);
            }
            self.node.settle(self.mailbox.now())?;
        }
        Ok(())
    }
}

/// Starts the threads that flush and compact.
fn maintain(store: &Store) -> Result<Maintenance, NodeError> {
    let options = MaintenanceOptions {
        retry_after: MAINTENANCE_PAUSE,
        // The log is poisoned on its own if it must be; data in memory stays readable, and writes
        // are held back by pressure until a flush works again.
        on_failure: Some(Arc::new(|error| {
            tracing::error!(%error, "maintenance failed, and will be tried again");
        })),
        ..MaintenanceOptions::default()
    };
    Ok(Maintenance::start_with(store, options)?)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use kvorum_replication::two_phase::message::Message;
    use kvorum_replication::two_phase::{Coordinator, CoordinatorOptions};
    use kvorum_replication::{NodeId, Operation, Outcome, Request, RequestId};
    use kvorum_storage::LogOptions;
    use kvorum_storage::vfs::MemoryVfs;

    use super::*;
    use crate::mailbox::Turn;

    /// Keeps what clients are told.
    struct Replies(Arc<Mutex<Vec<(RequestId, Outcome)>>>);

    impl Outbox<Message> for Replies {
        fn deliver(&mut self, turn: &mut Turn<Message>) {
            self.0.lock().unwrap().append(&mut turn.replies);
        }

        fn drain(&mut self, _wait: Duration) {}
    }

    fn request(id: u64) -> Event<Message> {
        let operation = Operation::OpenSession;
        Event::Request(Request { id: RequestId(id), deadline: Time::NEVER, operation })
    }

    /// Nobody runs the loop's own thread here, so what is driven is all that happens.
    #[test]
    fn after_the_last_turn_nobody_takes_another() {
        let options =
            CoordinatorOptions { replicas: vec![NodeId(1)], ..CoordinatorOptions::default() };
        let (vfs, dir) = (Arc::new(MemoryVfs::new()), Path::new("/data"));
        let core = Coordinator::new(options);
        let node = Node::open_log(vfs, dir, LogOptions::default(), core, Vec::new()).unwrap();
        let mailbox = Arc::new(Mailbox::new());
        let syncer = Syncer::start(Arc::clone(node.log()), Arc::clone(&mailbox)).unwrap();
        let replies = Arc::new(Mutex::new(Vec::new()));
        let outbox = Box::new(Replies(Arc::clone(&replies)));
        let points = FailPoints::default();
        let event_loop = EventLoop::new(node, outbox, points, &mailbox, &syncer);
        let event_loop = Mutex::new(Some(event_loop));
        let shared = Arc::new(Shared {
            mailbox: Arc::clone(&mailbox),
            syncer: Arc::clone(&syncer.shared),
            store: None,
            event_loop,
        });
        let driver: Weak<Shared<Coordinator>> = Arc::downgrade(&shared);
        mailbox.set_driver(driver);
        let handle = Handle::new(mailbox);

        handle.drive([request(1)], DiskWait::Never);
        assert_eq!(replies.lock().unwrap().len(), 1, "whoever drives takes the turn");
        handle.drive([Event::Stop, request(2)], DiskWait::Never);
        assert_eq!(replies.lock().unwrap().len(), 2, "the last turn is taken whole");
        handle.drive([request(3)], DiskWait::Never);
        assert_eq!(replies.lock().unwrap().len(), 2, "a turn was taken after the last");
        assert!(shared.lock().as_ref().is_some_and(|at_work| at_work.ended.is_some()));
        syncer.stop().unwrap();
    }
}
