//! The time of a run: nanoseconds since it began, the same for clients, faults and judges.

use std::time::{Duration, Instant};

/// A clock that all parts of a run read; it never jumps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    began: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { began: Instant::now() }
    }

    pub(super) fn elapsed(self) -> Duration {
        self.began.elapsed()
    }

    pub(super) fn nanos(self) -> u64 {
        nanos(self.elapsed())
    }

    /// When it will show this.
    pub(super) fn at(self, elapsed: Duration) -> Instant {
        self.began + elapsed
    }
}

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
