//! Many seeds, on many threads.

use std::num::NonZero;
use std::ops::{ControlFlow, Range};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use kvorum_checker::Ending;

use crate::violation::{Promise, Violation};
use crate::{Activity, Counts, Run, Setup, words_of};

/// What simulates a protocol, for example [`crate::two_phase::simulate`].
pub type Simulate = fn(&Setup) -> Run;

/// The sums over many runs.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Runs that are over.
    pub seeds: u64,
    /// Virtual time, all runs together.
    pub nanoseconds: u128,
    /// Operations of clients that were done.
    pub done: u64,
    /// Operations that did not happen, and whose clients were told so.
    pub refused: u64,
    /// Operations whose clients never learned what became of them.
    pub unknown: u64,
    /// The faults that struck.
    pub faults: Counts,
    /// What nodes and stores did.
    pub activity: Activity,
    /// What has to happen in some run, or the runs show nothing.
    pub happened: Activity,
    /// Seeds that broke a promise, in order.
    pub violations: Vec<(u64, Violation)>,
}

impl Totals {
    /// All operations.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.done + self.refused + self.unknown
    }

    /// Adds a run.
    pub fn add(&mut self, run: Run) {
        self.seeds += 1;
        self.nanoseconds += u128::from(run.nanoseconds);
        for record in &run.history {
            match record.ending {
                Ending::Done => self.done += 1,
                Ending::NotDone | Ending::PreconditionFailed(_) => self.refused += 1,
                Ending::Unknown => self.unknown += 1,
            }
        }
        self.faults.add(&run.faults);
        for (name, count) in run.activity {
            *self.activity.entry(name).or_default() += count;
        }
        for (name, count) in run.happened {
            *self.happened.entry(name).or_default() += count;
        }
        if let Some(violation) = run.violation {
            let place = self.violations.partition_point(|(seed, _)| *seed < run.seed);
            self.violations.insert(place, (run.seed, violation));
        }
    }
}

/// As many threads as the machine runs at once.
#[must_use]
pub fn threads() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Runs these seeds on so many threads, each set up like `like`. After each run `on_progress` sees the sums so far, and may
/// break off: runs under way then still end, and count.
pub fn run_seeds(
    simulate: Simulate,
    seeds: Range<u64>,
    threads: usize,
    like: &Setup,
    on_progress: impl FnMut(&Totals) -> ControlFlow<()> + Send,
) -> Totals {
    let next = AtomicU64::new(seeds.start);
    let shared = Mutex::new((Totals::default(), on_progress));
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        // Not further, or it could wrap around.
                        next.store(seeds.end, Ordering::Relaxed);
                        return;
                    }
                    let run = run_guarded(simulate, &Setup { seed, ..like.clone() });
                    let mut guard = lock(&shared);
                    let (totals, on_progress) = &mut *guard;
                    totals.add(run);
                    if on_progress(totals).is_break() {
                        next.store(seeds.end, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    shared.into_inner().unwrap_or_else(PoisonError::into_inner).0
}

/// A panic outside of what the world catches by itself is a violation too, and ends only its seed.
fn run_guarded(simulate: Simulate, setup: &Setup) -> Run {
    catch_unwind(AssertUnwindSafe(|| simulate(setup))).unwrap_or_else(|panic| {
        let violation = Violation { promise: Promise::NoPanic, what: words_of(&*panic) };
        Run { violation: Some(violation), ..Run::empty(setup.seed) }
    })
}

/// Sums are added up whole: a panic of `on_progress` leaves none half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
