//! Who makes the log durable: a thread of its own, or whoever has just taken a turn and may wait.
//!
//! The log's own thread lets the event loop go on meanwhile, at the price of waking it, and of
//! waking somebody again when it is done. Whoever has nothing else to do than to say what comes of
//! the records does better to write and sync them itself: what arrives meanwhile waits in its
//! sockets, and makes the next group.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kvorum_storage::{Error, Log, Position};

use crate::error::NodeError;
use crate::mailbox::Mailbox;

/// How long the log waits for room on a full disk before it tries again.
const DISK_FULL_PAUSE: Duration = Duration::from_millis(100);

/// A sync that takes longer than this is left to the log's own thread: less is lost by waking it
/// than by leaving the sockets alone for so long.
const HERE_NANOS_MAX: u64 = 1_000_000;

/// A group of more bytes than this, some sixty small writes, is left to the log's own thread: to
/// take in the next one meanwhile is worth more than a wake-up.
const HERE_BYTES_MAX: usize = 12_000;

/// The last sync counts for one part of so many in what a sync is expected to take.
const EXPECTED_OVER: u64 = 8;

/// The thread that makes the log durable.
pub(crate) struct Syncer {
    pub(crate) shared: Arc<SyncerShared>,
    thread: JoinHandle<()>,
}

/// What the log's thread shares with those who take turns.
pub(crate) struct SyncerShared {
    log: Arc<Log>,
    state: Mutex<State>,
    wanted: Condvar,
    /// What a sync takes, on average, whoever makes it.
    expected_nanos: AtomicU64,
}

#[derive(Default)]
struct State {
    target: Option<Position>,
    failed: Option<Error>,
    /// The thread has nothing to do, and has to be woken.
    is_asleep: bool,
    stop: bool,
}

impl Syncer {
    pub(crate) fn start<M: Send + 'static>(
        log: Arc<Log>,
        mailbox: Arc<Mailbox<M>>,
    ) -> Result<Self, NodeError> {
        let shared = Arc::new(SyncerShared {
            log,
            state: Mutex::default(),
            wanted: Condvar::new(),
            expected_nanos: AtomicU64::new(0),
        });
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || theirs.run(&mailbox))
            .map_err(NodeError::Thread)?;
        Ok(Self { shared, thread })
    }

    pub(crate) fn stop(self) -> Result<(), NodeError> {
        self.shared.lock().stop = true;
        self.shared.wanted.notify_one();
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
        self.shared.check()
    }
}

impl SyncerShared {
    /// Has the log's own thread make everything up to `target` durable.
    pub(crate) fn request(&self, target: Position) {
        let mut state = self.lock();
        state.target = Some(target);
        if state.is_asleep {
            drop(state);
            self.wanted.notify_one();
        }
    }

    /// Whether whoever may wait for the disk should rather sync by itself: the log's own thread is
    /// not at it, it will not take long, and the group is small.
    pub(crate) fn is_better_here(&self) -> bool {
        if self.expected_nanos.load(Ordering::Relaxed) > HERE_NANOS_MAX
            || self.log.pending_bytes() > HERE_BYTES_MAX
        {
            return false;
        }
        let state = self.lock();
        state.is_asleep && state.target.is_none()
    }

    /// Makes everything up to `target` durable on this thread. If that fails, the next turn meets
    /// with what the log's own thread would have left for it.
    pub(crate) fn sync_here(&self, target: Position) {
        match self.sync(target) {
            Ok(()) => {}
            // It knows how to wait for room.
            Err(Error::DiskFull { .. }) => self.request(target),
            Err(error) => self.lock().failed = Some(error),
        }
    }

    /// The error that ended the thread, once.
    pub(crate) fn check(&self) -> Result<(), NodeError> {
        match self.lock().failed.take() {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    fn run<M>(&self, mailbox: &Mailbox<M>) {
        let mut is_full = false;
        while let Some(target) = self.next_target() {
            match self.sync(target) {
                Ok(()) => {
                    if std::mem::take(&mut is_full) {
                        tracing::info!("the log has room again");
                    }
                    // The next group goes to the disk first: it must not wait for a turn.
                    let is_next_due = self.lock().target.is_some();
                    match is_next_due {
                        true => mailbox.nudge(),
                        false => mailbox.nudge_and_drive(),
                    }
                }
                Err(error @ Error::DiskFull { .. }) => {
                    if !std::mem::replace(&mut is_full, true) {
                        tracing::error!(%error, "the log waits for room; writes are refused");
                    }
                    // The event loop tells the core.
                    mailbox.nudge();
                    thread::sleep(DISK_FULL_PAUSE);
                    self.lock().target.get_or_insert(target);
                }
                Err(error) => {
                    self.lock().failed = Some(error);
                    mailbox.nudge();
                    return;
                }
            }
        }
    }

    fn sync(&self, target: Position) -> Result<(), Error> {
        let begun = Instant::now();
        self.log.sync(target)?;
        let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let before = self.expected_nanos.load(Ordering::Relaxed);
        let expected = before - before / EXPECTED_OVER + nanos / EXPECTED_OVER;
        // Two at once may lose one measurement, of many.
        self.expected_nanos.store(expected, Ordering::Relaxed);
        Ok(())
    }

    fn next_target(&self) -> Option<Position> {
        let mut state = self.lock();
        loop {
            if state.stop {
                return None;
            }
            if let Some(target) = state.target.take() {
                return Some(target);
            }
            state.is_asleep = true;
            state = self.wanted.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.is_asleep = false;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
