//! Threads that do a store's background work, for an owner who has none to spare for it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{Maintained, Store, lock};
use crate::error::{Error, Result};

/// More do not help: a store has one flush and a few compactions to do at a time.
const THREADS_MAX: usize = 64;

/// What threads of a low priority yield to others, on a scale to 19.
const NICENESS: i32 = 10;

/// Who is told of each failure, for example to log it.
pub type OnFailure = Arc<dyn Fn(&Error) + Send + Sync>;

/// How a store's background work is done.
#[derive(Clone)]
pub struct MaintenanceOptions {
    /// Threads, at least one. With two, a flush need not wait for a compaction.
    pub threads: usize,
    /// What the threads are called; a number follows from the second on.
    pub name: String,
    /// Whether the threads yield to others when processors are short. Then a store that is written
    /// to at its limit holds its writers back sooner.
    pub low_priority: bool,
    /// After so long without work the first thread does what is worth doing while nobody waits.
    pub idle_after: Duration,
    /// How long a thread waits after a failure before it tries again.
    pub retry_after: Duration,
    /// Told of each failure, on the thread that met it.
    pub on_failure: Option<OnFailure>,
}

impl Default for MaintenanceOptions {
    fn default() -> Self {
        Self {
            threads: 2,
            name: "maintenance".to_owned(),
            low_priority: false,
            idle_after: Duration::from_secs(1),
            retry_after: Duration::from_millis(500),
            on_failure: None,
        }
    }
}

impl fmt::Debug for MaintenanceOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MaintenanceOptions")
            .field("threads", &self.threads)
            .field("name", &self.name)
            .field("low_priority", &self.low_priority)
            .field("idle_after", &self.idle_after)
            .field("retry_after", &self.retry_after)
            .finish_non_exhaustive()
    }
}

/// Owns threads that flush and compact a store, and stops them when it is dropped.
///
/// Without them an embedded store still works: a writer that finds too much undone does some of it
/// himself, and waits meanwhile. The threads keep the store open. Dropping waits for the units of
/// work that are under way, each of some seconds at most.
///
/// ```
/// # use std::sync::Arc;
/// # use kvorum_storage::{Maintenance, Options, Store, vfs::MemoryVfs};
/// # fn main() -> kvorum_storage::Result<()> {
/// # let (vfs, dir) = (Arc::new(MemoryVfs::new()), "/store".as_ref());
/// let store = Store::open(vfs, dir, Options::default())?;
/// let _maintenance = Maintenance::start(&store, 2)?;
/// # Ok(())
/// # }
/// ```
#[must_use = "the threads stop when it is dropped"]
pub struct Maintenance {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    store: Store,
    options: MaintenanceOptions,
    stop: AtomicBool,
    /// What each thread failed with, until it succeeds again.
    failures: Mutex<Vec<Option<Arc<Error>>>>,
    /// Ends the wait after a failure.
    stopping: Condvar,
}

impl Maintenance {
    /// Starts so many threads for this store, with the other options as they are by default.
    pub fn start(store: &Store, threads: usize) -> Result<Maintenance> {
        Maintenance::start_with(store, MaintenanceOptions { threads, ..Default::default() })
    }

    /// Starts threads for this store. [`Error::Invalid`] if there are to be none or too many,
    /// [`Error::Io`] if the system gives none.
    pub fn start_with(store: &Store, options: MaintenanceOptions) -> Result<Maintenance> {
        let count = options.threads;
        if !(1..=THREADS_MAX).contains(&count) {
            let what = format!("{count} maintenance threads: must be from 1 to {THREADS_MAX}");
            return Err(Error::invalid(what));
        }
        let shared = Arc::new(Shared {
            store: store.clone(),
            options,
            stop: AtomicBool::new(false),
            failures: Mutex::new(vec![None; count]),
            stopping: Condvar::new(),
        });
        // If one cannot be started, dropping this stops the others.
        let mut maintenance = Maintenance { shared: Arc::clone(&shared), threads: Vec::new() };
        for number in 0..count {
            let theirs = Arc::clone(&shared);
            let thread = thread::Builder::new()
                .name(shared.name(number))
                .spawn(move || theirs.run(number))
                .map_err(Error::io("start a maintenance thread for", store.dir()))?;
            maintenance.threads.push(thread);
        }
        Ok(maintenance)
    }

    /// What keeps a thread from its work: the error that it met last, until it succeeds again.
    ///
    /// On [`Error::DiskFull`] the work goes on by itself once there is room. After
    /// [`Error::Poisoned`] and [`Error::Corrupt`] it does not: reads go on, writes come to a halt.
    #[must_use]
    pub fn failure(&self) -> Option<Arc<Error>> {
        lock(&self.shared.failures).iter().flatten().next().cloned()
    }

    /// Stops the threads and waits for them, as dropping does. A panic of theirs goes on here.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        {
            let _failures = lock(&self.shared.failures);
            self.shared.stop.store(true, Release);
        }
        self.shared.stopping.notify_all();
        self.shared.store.wake_maintenance();
        for thread in self.threads.drain(..) {
            if let Err(panic) = thread.join()
                && !thread::panicking()
            {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

impl Drop for Maintenance {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for Maintenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Maintenance")
            .field("threads", &self.threads.len())
            .field("failure", &self.failure())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn name(&self, number: usize) -> String {
        let name = &self.options.name;
        if number == 0 { name.clone() } else { format!("{name}-{}", number + 1) }
    }

    fn is_stopping(&self) -> bool {
        self.stop.load(Acquire)
    }

    fn run(&self, number: usize) {
        if self.options.low_priority {
            yield_to_others();
        }
        // The sequence at which nothing was left to do for an idle store.
        let mut settled = None;
        while !self.is_stopping() {
            let is_idle = !self.try_to(number, || self.work());
            if is_idle && number == 0 && !self.is_stopping() {
                self.settle_if_idle(number, &mut settled);
            } else if is_idle {
                self.store.wait_for_maintenance(self.options.idle_after);
            }
        }
        // A cause wakes one: it goes from thread to thread until all have seen it.
        self.store.wake_maintenance();
    }

    /// Does all that is due.
    fn work(&self) -> Result<()> {
        while !self.is_stopping() && self.store.maintain()? != Maintained::Nothing {}
        Ok(())
    }

    /// Waits for work. If none comes, and nothing was written meanwhile, does what else there is.
    fn settle_if_idle(&self, number: usize, settled: &mut Option<u64>) {
        let before = self.store.inner.visible();
        let woken = self.store.wait_for_maintenance(self.options.idle_after);
        let is_as_before = || before == self.store.inner.visible();
        if woken || *settled == Some(before) || !is_as_before() {
            return;
        }
        let settle = || {
            while !self.is_stopping() && is_as_before() {
                if self.store.settle()? == Maintained::Nothing {
                    return Ok(());
                }
            }
            Ok(())
        };
        if !self.try_to(number, settle) && is_as_before() {
            *settled = Some(before);
        }
    }

    /// Does it, or remembers why it failed and waits; whether it failed.
    fn try_to(&self, number: usize, work: impl FnOnce() -> Result<()>) -> bool {
        let result = work();
        let failure = result.err().map(Arc::new);
        let Some(error) = &failure else {
            lock(&self.failures)[number] = None;
            return false;
        };
        if let Some(tell) = &self.options.on_failure {
            tell(error);
        }
        let mut failures = lock(&self.failures);
        failures[number] = failure;
        let wait = self.options.retry_after;
        let waited = self.stopping.wait_timeout_while(failures, wait, |_| !self.is_stopping());
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        true
    }
}

/// Lets the threads of others go first. If the system will not have it, all go alike.
fn yield_to_others() {
    // On Linux each thread has a niceness of its own, and no name stands for the calling one.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, NICENESS);
}
