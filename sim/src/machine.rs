//! One machine of the cluster: its disk, its clock, and the process that runs on it, if one does.

use std::collections::BTreeMap;

use kvorum_replication::{Operation, RequestId, Time};

use crate::chance::Chance;
use crate::disk::{Crash, Disk};
use crate::faults::Fault;
use crate::process::{Process, Protocol};
use crate::queue::Instant;

/// Somebody who asked a process: which client, in which of its attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asker {
    pub(crate) client: usize,
    pub(crate) attempt: u64,
}

/// A request that a process has not answered.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) asker: Asker,
    pub(crate) operation: Operation,
    /// See [`Protocol::acknowledged`], when it came.
    pub(crate) acknowledged: u64,
}

/// What befalls a process at a fail point.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AtPoint {
    Die(Crash),
    Pause,
    Isolate,
}

/// A fail point at which something is going to happen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trap {
    pub(crate) point: &'static str,
    /// How often it is passed before.
    pub(crate) passes: u64,
    pub(crate) what: AtPoint,
    /// What it counts as.
    pub(crate) fault: Fault,
    pub(crate) lasts: u64,
}

/// A death planned for a flush, a cut of the log or a compaction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DoomedWork {
    pub(crate) crash: Crash,
    /// After so many of its disk operations, or when it is done.
    pub(crate) after: Option<u64>,
    pub(crate) lasts: u64,
}

pub(crate) struct Machine<P: Protocol> {
    pub(crate) points: Vec<&'static str>,
    pub(crate) disk: Disk,
    /// This machine's own draws: what happens on others does not shift them.
    pub(crate) chance: Chance,
    pub(crate) process: Option<Box<dyn Process<P>>>,
    /// Counts starts and ends of processes: what was meant for another run is not for this one.
    pub(crate) run: u64,
    clock: Clock,
    pub(crate) paused_until: Option<Instant>,
    pub(crate) syncing: bool,
    /// When the timer event that is planned comes.
    pub(crate) timer_at: Option<Instant>,
    /// When the event that begins a sync comes.
    pub(crate) sync_at: Option<Instant>,
    pub(crate) slow_until: Instant,
    pub(crate) asked: BTreeMap<RequestId, Asked>,
    pub(crate) next_request: u64,
    pub(crate) trap: Option<Trap>,
    /// Dies after so many more messages and answers.
    pub(crate) words_left: Option<(u64, u64)>,
    /// Its store's next work is not survived.
    pub(crate) doomed_work: Option<DoomedWork>,
    /// The next start dies after so many disk operations.
    pub(crate) doomed_start: Option<(u64, Crash)>,
    /// A disk fault has struck this run, so it may stop with an error.
    pub(crate) struck: bool,
}

/// A process' own clock: starts at zero with it, runs fast or slow, and may jump.
#[derive(Clone, Copy, Debug)]
struct Clock {
    started: Instant,
    /// Thousandths of real speed.
    speed: u64,
    /// All its jumps together, in its own nanoseconds.
    jumped: i64,
}

/// A clock further from the right speed than this is wrong for everybody to see.
const SKEW_MIN: u64 = 100;

impl<P: Protocol> Machine<P> {
    pub(crate) fn new(points: Vec<&'static str>, speed: u64, chance: Chance) -> Self {
        Self {
            points,
            disk: Disk::new(),
            chance,
            process: None,
            run: 0,
            clock: Clock { started: 0, speed, jumped: 0 },
            paused_until: None,
            syncing: false,
            timer_at: None,
            sync_at: None,
            slow_until: 0,
            asked: BTreeMap::new(),
            next_request: 0,
            trap: None,
            words_left: None,
            doomed_work: None,
            doomed_start: None,
            struck: false,
        }
    }

    /// Forgets the process; says who waits for an answer from it.
    pub(crate) fn stop(&mut self) -> Vec<Asker> {
        self.process = None;
        self.run += 1;
        self.paused_until = None;
        self.syncing = false;
        self.timer_at = None;
        self.sync_at = None;
        self.words_left = None;
        std::mem::take(&mut self.asked).into_values().map(|asked| asked.asker).collect()
    }

    /// Begins a run: the clock starts.
    pub(crate) fn start(&mut self, now: Instant, process: Box<dyn Process<P>>) {
        self.process = Some(process);
        self.run += 1;
        self.clock.started = now;
        self.clock.jumped = 0;
    }

    /// The process' time.
    pub(crate) fn time(&self, now: Instant) -> Time {
        let shown = (now - self.clock.started) * self.clock.speed / 1_000;
        Time(shown.saturating_add_signed(self.clock.jumped))
    }

    /// When the process' clock will show this time, if it does not jump.
    pub(crate) fn instant(&self, time: Time) -> Instant {
        let shown = i128::from(time.0) - i128::from(self.clock.jumped);
        let passed = shown.max(0) * 1_000 / i128::from(self.clock.speed);
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        self.clock.started.saturating_add(passed).saturating_add(1)
    }

    /// Moves the process' clock, never before its start.
    pub(crate) fn jump(&mut self, now: Instant, by: i64) {
        let shown = i64::try_from(self.time(now).0).unwrap_or(i64::MAX);
        self.clock.jumped = self.clock.jumped.saturating_add(by.max(-shown));
    }

    /// Whether its clock runs much too fast or too slow.
    pub(crate) fn is_skewed(&self) -> bool {
        self.clock.speed.abs_diff(1_000) > SKEW_MIN
    }
}
