//! Virtual time: what will happen when.

use std::collections::BTreeMap;

/// Nanoseconds since the run began; the clock of the world, which no process can read.
pub(crate) type Instant = u64;

pub(crate) const MICROSECOND: u64 = 1_000;
pub(crate) const MILLISECOND: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1_000_000_000;

/// Events by time; at the same time in the order in which they were planned.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    now: Instant,
    planned: u64,
    events: BTreeMap<(Instant, u64), E>,
}

impl<E> Queue<E> {
    pub(crate) fn new() -> Self {
        Self { now: 0, planned: 0, events: BTreeMap::new() }
    }

    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    /// Plans an event; what is planned for the past happens next.
    pub(crate) fn at(&mut self, time: Instant, event: E) {
        self.planned += 1;
        self.events.insert((time.max(self.now), self.planned), event);
    }

    pub(crate) fn after(&mut self, wait: u64, event: E) {
        self.at(self.now.saturating_add(wait), event);
    }

    /// Moves time to the next event and takes it.
    pub(crate) fn next(&mut self) -> Option<E> {
        let ((time, _), event) = self.events.pop_first()?;
        self.now = time;
        Some(event)
    }
}
