//! What all workers of a load share: when it begins and ends, and what came of it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::history::History;
use super::tally::{Counts, Posted, Summary, Tally};
use super::worker::Record;
use super::{Keys, LoadError, LoadOptions, Until};

/// So many keys are put at once before the load begins; the sizes of keys and values may make it
/// fewer.
const FILL_KEYS_MAX: u64 = 128;

/// And so many bytes.
const FILL_BYTES_MAX: u64 = 64 << 10;

/// What all workers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: LoadOptions,
    history: Option<History>,
    created: Instant,
    /// Nanoseconds from `created` to the begin of what is measured, the warm-up not included.
    begun_nanos: OnceLock<u64>,
    filled: AtomicU64,
    tickets: AtomicU64,
    stopped: AtomicBool,
    last_ok_nanos: AtomicU64,
    longest_pause_nanos: AtomicU64,
    /// What each thread has counted so far, for the progress line.
    posted: Vec<Posted>,
    totals: Mutex<Totals>,
}

/// What the threads have handed in.
#[derive(Debug, Default)]
struct Totals {
    measured: Tally,
    ended_nanos: u64,
    cpu: Duration,
    failure: Option<LoadError>,
}

impl Shared {
    pub(super) fn new(options: LoadOptions, history: Option<History>) -> Self {
        let posted = (0..options.threads).map(|_| Posted::default()).collect();
        Self {
            options,
            history,
            created: Instant::now(),
            begun_nanos: OnceLock::new(),
            filled: AtomicU64::new(0),
            tickets: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            last_ok_nanos: AtomicU64::new(0),
            longest_pause_nanos: AtomicU64::new(0),
            posted,
            totals: Mutex::default(),
        }
    }

    /// Starts the clock.
    pub(super) fn begin(&self) {
        let now = self.now_nanos();
        self.begun_nanos.get_or_init(|| now);
        self.last_ok_nanos.store(now, Ordering::Relaxed);
        self.longest_pause_nanos.store(0, Ordering::Relaxed);
    }

    pub(super) fn nothing_to_fill(&self) {
        self.filled.store(u64::MAX, Ordering::Relaxed);
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.posted.iter().for_each(|posted| counts.add(&posted.counts()));
        counts
    }

    /// Where a thread tells how far it is.
    pub(super) fn posted(&self, thread: u32) -> &Posted {
        &self.posted[thread as usize]
    }

    pub(super) fn progress(&self) -> (Duration, f64) {
        let elapsed = self.begun().map_or(Duration::ZERO, |begun| {
            Duration::from_nanos(self.now_nanos().saturating_sub(begun))
        });
        #[expect(clippy::cast_precision_loss, reason = "it is shown as percents")]
        let part = match self.options.until {
            Until::Operations(operations) => {
                self.tickets.load(Ordering::Relaxed) as f64 / operations.max(1) as f64
            }
            Until::Elapsed(whole) => {
                elapsed.as_secs_f64() / (whole + self.options.warm_up).as_secs_f64()
            }
        };
        (elapsed, part.clamp(0.0, 1.0))
    }

    pub(super) fn take_failure(&self) -> Option<LoadError> {
        if let Some(Err(error)) = self.history.as_ref().map(History::flush) {
            self.fail(error);
        }
        self.totals().failure.take()
    }

    pub(super) fn summary(&self) -> Summary {
        let mut totals = self.totals();
        let began = self.measured_from_nanos().unwrap_or(0);
        let elapsed = Duration::from_nanos(totals.ended_nanos.saturating_sub(began));
        let pause = Duration::from_nanos(self.longest_pause_nanos.load(Ordering::Relaxed));
        let cpu = totals.cpu;
        Summary::new(std::mem::take(&mut totals.measured), elapsed, pause, cpu, self.counts())
    }

    /// A thread hands in what it has measured, when its last operation ended, and how long it was on
    /// a processor.
    pub(super) fn hand_in(&self, measured: &Tally, ended_nanos: u64, cpu: Duration) {
        let mut totals = self.totals();
        totals.measured.merge(measured);
        totals.ended_nanos = totals.ended_nanos.max(ended_nanos);
        totals.cpu += cpu;
    }

    /// Whether one more operation may begin.
    pub(super) fn take_ticket(&self, now_nanos: u64) -> bool {
        let Until::Operations(operations) = self.options.until else {
            return !self.is_over(now_nanos);
        };
        let one_more = |taken| (taken < operations).then_some(taken + 1);
        let taken = self.tickets.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken.is_ok() && !self.is_over(now_nanos)
    }

    /// Whether the time is up, or somebody has ended the load; no attempt is made after that.
    pub(super) fn is_over(&self, now_nanos: u64) -> bool {
        self.is_stopped() || now_nanos >= self.end_nanos()
    }

    /// When the time is up.
    pub(super) fn end_nanos(&self) -> u64 {
        match self.options.until {
            Until::Operations(_) => u64::MAX,
            Until::Elapsed(whole) => {
                self.measured_from_nanos().map_or(u64::MAX, |from| from + nanos(whole))
            }
        }
    }

    /// The numbers of the keys that are to be filled next. Each is written once, with a history one
    /// at a time.
    pub(super) fn next_to_fill(&self) -> Option<std::ops::Range<u64>> {
        let LoadOptions { keys, key_bytes, value_bytes, .. } = self.options;
        let Keys::Among(keys) = keys else { return None };
        let fitting = FILL_BYTES_MAX / (key_bytes + value_bytes).max(1) as u64;
        let at_once = match self.history {
            Some(_) => 1,
            None => fitting.clamp(1, FILL_KEYS_MAX),
        };
        let more = |filled| (filled < keys).then(|| keys.min(filled + at_once));
        let from = self.filled.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(from..keys.min(from + at_once))
    }

    /// Notes an acknowledgement, for the longest time without one.
    pub(super) fn acknowledged(&self, at_nanos: u64) {
        let before = self.last_ok_nanos.fetch_max(at_nanos, Ordering::Relaxed);
        let pause = at_nanos.saturating_sub(before);
        // It seldom is the longest, and looking costs less than writing.
        if pause > self.longest_pause_nanos.load(Ordering::Relaxed) {
            self.longest_pause_nanos.fetch_max(pause, Ordering::Relaxed);
        }
    }

    /// Whether patience has run out.
    pub(super) fn is_hopeless(&self, now_nanos: u64) -> bool {
        let waited = now_nanos.saturating_sub(self.last_ok_nanos.load(Ordering::Relaxed));
        waited > nanos(self.options.give_up_after)
    }

    /// Adds to the history, if there is one.
    pub(super) fn write_down(&self, client: u32, record: &Record) {
        if let Some(Err(error)) = self.history.as_ref().map(|history| history.add(client, record)) {
            self.fail(error);
        }
    }

    pub(super) fn has_history(&self) -> bool {
        self.history.is_some()
    }

    /// Ends the load with an error; the first one is kept.
    pub(super) fn fail(&self, error: LoadError) {
        self.totals().failure.get_or_insert(error);
        self.stop();
    }

    pub(super) fn measured_from_nanos(&self) -> Option<u64> {
        self.begun().map(|begun| begun + nanos(self.options.warm_up))
    }

    pub(super) fn begun(&self) -> Option<u64> {
        self.begun_nanos.get().copied()
    }

    pub(super) fn now_nanos(&self) -> u64 {
        nanos(self.created.elapsed())
    }

    fn totals(&self) -> MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
