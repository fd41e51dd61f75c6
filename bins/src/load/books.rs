//! What the workers of one thread have done, without a lock between them.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use kvorum_rpc::client::ErrorKind;

use super::shared::Shared;
use super::tally::{Counts, Tally};
use super::worker::{Attempt, Ended};

/// One thread's counts.
pub(super) struct Books {
    thread: u32,
    shared: Arc<Shared>,
    page: RefCell<Page>,
}

#[derive(Default)]
struct Page {
    /// With those of the warm-up.
    all: Counts,
    measured: Tally,
    ended_nanos: u64,
}

impl Books {
    pub(super) fn new(thread: u32, shared: Arc<Shared>) -> Self {
        Self { thread, shared, page: RefCell::default() }
    }

    /// Counts an attempt. Its latency is from `begin`, which is when it was to begin.
    pub(super) fn count(&self, attempt: &Attempt, begin_nanos: u64) {
        let page = &mut *self.page.borrow_mut();
        let nanos = attempt.return_nanos.saturating_sub(begin_nanos);
        let mut one = Counts::default();
        match (&attempt.ended, attempt.refused.as_ref().map(|error| error.kind)) {
            (Ended::Done(_), _) => one.ok = 1,
            (Ended::PreconditionFailed, _) => one.precondition_failed = 1,
            (Ended::Unknown, _) => one.unknown = 1,
            (Ended::NotDone, Some(ErrorKind::Overloaded)) => one.overloaded = 1,
            (Ended::NotDone, Some(ErrorKind::Conflict)) => one.conflict = 1,
            (Ended::NotDone, _) => one.unavailable = 1,
        }
        if one.ok == 1 {
            self.shared.acknowledged(attempt.return_nanos);
        }
        page.all.add(&one);
        page.ended_nanos = page.ended_nanos.max(attempt.return_nanos);
        self.shared.posted(self.thread).post(&page.all);
        if !self.measures(begin_nanos) {
            return;
        }
        match (one.ok, one.overloaded) {
            (1, _) => page.measured.done(nanos),
            (_, 1) => page.measured.overloaded(nanos),
            _ => page.measured.counts.add(&one),
        }
    }

    /// Counts a begin from the beginning.
    pub(super) fn count_retry(&self, begin_nanos: u64) {
        let retried = u64::from(self.measures(begin_nanos));
        self.page.borrow_mut().measured.counts.retried += retried;
    }

    /// Counts what was due and never began.
    pub(super) fn count_not_begun(&self, count: u64) {
        self.page.borrow_mut().measured.counts.not_begun += count;
    }

    /// Hands all in, with the time that the thread was on a processor.
    pub(super) fn close(&self, cpu: Duration) {
        let page = self.page.borrow();
        self.shared.hand_in(&page.measured, page.ended_nanos, cpu);
    }

    fn measures(&self, begin_nanos: u64) -> bool {
        self.shared.measured_from_nanos().is_some_and(|from| begin_nanos >= from)
    }
}
