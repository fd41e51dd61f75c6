//! Who is let in while more is asked than can be done.
//!
//! A queue that is only bounded in length makes everybody wait for as long as it takes to work it
//! off. So what is bounded here is the wait. By Little's law, requests under way are throughput times
//! wait: `limit = throughput × bearable wait` of them may be under way, and one more is refused
//! before anything is done for it. Both are learned as BBR does it (Cardwell et al., "BBR:
//! Congestion-Based Congestion Control", 2016): one request at a time is a probe. It notes what had
//! been answered when it came; when it is answered after `t`, the throughput was what was answered
//! meanwhile over `t`. All places where work waits lie between the two looks at the clock: the
//! worker, the mailbox, the log, the peers and what waits there. The best throughput of late counts:
//! one that is low may be low because the limit is.
//!
//! What is bearable is measured against what a request takes while little is under way: four times
//! as long behind others, but no longer than `wait_max`. A slow disk thus has the long groups that it
//! needs, and a fast one no queue.
//!
//! That requests take long need not be a queue's doing: whoever asks for too much may have taken the
//! processors too. Where fewer are let in and it takes as long, it is none, and more are let in
//! again: else ever fewer would be let in, and none of them be quicker for it.
//!
//! Places are dealt out as in a switch with one memory for many ports (Choudhury and Hahne, "Dynamic
//! queue length thresholds", 1998): nobody has more places than are free. One who asks for everything
//! has half, and whoever comes next finds room; of many, each has about the same.
//!
//! Gets, writes and scans take times that have nothing to do with each other, and are let in
//! each by their own measure.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use kvorum_replication::{Operation, Query};

/// So many are always let in, however slow it goes: what they take is what "little under way" means.
const ALWAYS: usize = 64;

/// Before anything was measured.
const LIMIT_AT_FIRST: usize = 4096;

/// Waiting behind others for this long is bearable even where a request takes no time at all. Groups
/// that fill a sync and a write to a socket want it, and some hundred clients that each ask again
/// as soon as they are answered are no overload.
const WAIT_MIN: Duration = Duration::from_millis(15);

/// The best throughput is forgotten by and by, the more of it the longer ago it was: after so long
/// half of it.
const FORGET: Duration = Duration::from_millis(500);

/// The throughput is looked at so far apart.
const WINDOW: Duration = Duration::from_millis(100);

/// So many probes show whether fewer are quicker.
const PROBES: u32 = 4;

/// With each probe that shows nothing about it, what a request takes by itself is held to be less by
/// this part. At twice the capacity that is half of it in some ten seconds; then fewer are let in,
/// and it shows whether they are quicker.
const FADES: u32 = 512;

/// Kinds of requests that take alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Get,
    Scan,
    Write,
}

/// How many there are.
pub(super) const KINDS: usize = 3;

impl Kind {
    pub(crate) fn of(operation: &Operation) -> Self {
        match operation {
            Operation::Read(query) | Operation::ReadStale(query) => match query {
                Query::Get(_) => Self::Get,
                Query::GetMany(_) | Query::Scan(_) | Query::Page(_) => Self::Scan,
            },
            Operation::OpenSession
            | Operation::Transact { .. }
            | Operation::ChangeMembers { .. }
            | Operation::ChangeReplicas(_) => Self::Write,
        }
    }
}

/// One worker's.
#[derive(Debug)]
pub(crate) struct Admission {
    kinds: [Class; KINDS],
    wait_max: Duration,
    limit_max: usize,
}

/// Requests of one kind.
#[derive(Debug)]
struct Class {
    under_way: Cell<usize>,
    limit: Cell<usize>,
    /// All that were ever answered.
    answered: Cell<u64>,
    /// What a request takes while little is under way; zero if that is not known yet.
    alone: Cell<Duration>,
    /// The best throughput of late, in requests a second.
    per_second: Cell<usize>,
    /// The probe that is under way.
    probe: Cell<Option<Probe>>,
    /// Probes in a row that took longer than is bearable.
    slow: Cell<u32>,
    /// What probes take of late.
    usual: Cell<Duration>,
    /// How it was before fewer were let in, while they are for taking too long.
    before: Cell<Option<Before>>,
    /// When the throughput was last looked at, and what had been answered then.
    window: Cell<Option<(Instant, u64)>>,
}

/// A higher limit, to be compared with what is now.
#[derive(Clone, Copy, Debug)]
struct Before {
    limit: usize,
    /// The most that probes used to take with it.
    usual: Duration,
    /// Probes since the limit is much lower, and the least that one of them took; without the first,
    /// which came when there were more.
    probes: u32,
    least: Duration,
}

/// The places that one connection has.
#[derive(Debug)]
pub(crate) struct Share {
    admission: Rc<Admission>,
    taken: [Cell<usize>; KINDS],
}

/// A request's place among those under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    share: Rc<Share>,
    kind: Kind,
    /// Whether this is the probe.
    probes: bool,
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    began: Instant,
    /// Requests under way then, this one included.
    under_way: usize,
    /// What had been answered then.
    answered: u64,
    /// Whether it took so long already that this was acted on.
    late: bool,
}

impl Admission {
    pub(super) fn new(wait_max: Duration, limit_max: usize) -> Self {
        let limit = LIMIT_AT_FIRST.min(limit_max);
        let class = || Class {
            under_way: Cell::new(0),
            limit: Cell::new(limit),
            answered: Cell::new(0),
            alone: Cell::new(Duration::ZERO),
            per_second: Cell::new(0),
            probe: Cell::new(None),
            slow: Cell::new(0),
            usual: Cell::new(Duration::ZERO),
            before: Cell::new(None),
            window: Cell::new(None),
        };
        Self { kinds: std::array::from_fn(|_| class()), wait_max, limit_max }
    }

    /// How many may be under way, by kind.
    pub(super) fn limits(&self) -> [usize; KINDS] {
        std::array::from_fn(|kind| self.kinds[kind].limit.get())
    }

    /// Looks after probes that are not answered. To be called once a turn: when a queue has become
    /// much too long, its probe would tell only after all that time.
    pub(super) fn look(&self, now: impl FnOnce() -> Instant) {
        let waits = |class: &&Class| class.probe.get().is_some_and(|probe| !probe.late);
        if !self.kinds.iter().any(|class| waits(&class)) {
            return;
        }
        let now = now();
        for class in self.kinds.iter().filter(waits) {
            class.look(now, self.wait_max);
        }
    }
}

impl Class {
    /// How long a request may take.
    fn bearable(&self, wait_max: Duration) -> Duration {
        let alone = self.alone.get();
        alone + (4 * alone).max(WAIT_MIN).min(wait_max)
    }

    fn look(&self, now: Instant, wait_max: Duration) {
        let Some(probe) = self.probe.get() else { return };
        let waited = now.saturating_duration_since(probe.began);
        let bearable = self.bearable(wait_max);
        if self.alone.get().is_zero() || waited <= 2 * bearable {
            return;
        }
        // One may have met a stall: those who wait it out must not be refused when they ask again,
        // with places to spare for sharing them out. Two in a row have met a queue.
        let least = if self.slow.get() == 0 { 2 * self.under_way.get() } else { 0 };
        self.learn_throughput(self.answered_since(probe), waited);
        let limit = self.limit.get();
        self.limit.set(limit.min(self.fit(bearable).max(least).max(ALWAYS)));
        self.slow.set(self.slow.get() + 1);
        self.probe.set(Some(Probe { late: true, ..probe }));
    }

    /// The probe was answered.
    fn learn(&self, probe: Probe, took: Duration, wait_max: Duration, limit_max: usize) {
        let took = took.max(Duration::from_nanos(1));
        let answered = self.answered_since(probe);
        // Whatever it found under way was answered before it, or with it.
        let passed = answered.max(probe.under_way);
        self.learn_throughput(passed, took);
        self.look_at_window(probe.began + took);
        self.learn_alone(answered + self.under_way.get(), took);
        if probe.late {
            return;
        }
        let bearable = self.bearable(wait_max);
        let (limit, fit) = (self.limit.get(), self.fit(bearable));
        let mut next = limit;
        if took <= bearable {
            self.slow.set(0);
            self.before.set(None);
            // If it is below the limit: more than were seen are possible, but not how many. And where
            // groups are answered together, what one probe sees is too little.
            let waited = took.saturating_sub(self.alone.get());
            let least = match 2 * passed.max(self.under_way.get()) >= limit {
                // Hardly anything waits, and still so many are under way: there is room for many more.
                true if waited * 4 <= bearable.saturating_sub(self.alone.get()) => limit / 4,
                true => limit / 32,
                false => 0,
            };
            next += fit.saturating_sub(limit).div_ceil(4).max(least);
        } else {
            self.slow.set(self.slow.get() + 1);
            // Few that are slow once or twice met a stall, which fewer would not have shortened.
            let slow_max = if 4 * passed >= limit { 1 } else { 3 };
            if self.slow.get() > slow_max && self.may_fall(limit, took) {
                next -= limit.saturating_sub(fit).div_ceil(4);
            }
        }
        self.limit.set(next.clamp(ALWAYS.min(limit_max), limit_max));
    }

    /// What was answered since the probe came.
    fn answered_since(&self, probe: Probe) -> usize {
        usize::try_from(self.answered.get() - probe.answered).unwrap_or(usize::MAX)
    }

    /// At the best throughput, so many make everybody wait for just that long.
    fn fit(&self, bearable: Duration) -> usize {
        scale(self.per_second.get(), bearable, Duration::from_secs(1))
    }

    /// Where groups are answered together, a probe that came first in one has seen nothing of it.
    fn look_at_window(&self, now: Instant) {
        let answered = self.answered.get();
        let Some((began, before)) = self.window.get() else {
            return self.window.set(Some((now, answered)));
        };
        let long = now.saturating_duration_since(began);
        if long >= WINDOW {
            let count = usize::try_from(answered - before).unwrap_or(usize::MAX);
            let seen = scale(count, Duration::from_secs(1), long);
            self.per_second.set(self.per_second.get().max(seen));
            self.window.set(Some((now, answered)));
        }
    }

    /// So many were answered in this time.
    fn learn_throughput(&self, answered: usize, time: Duration) {
        let seen = scale(answered, Duration::from_secs(1), time);
        let left = scale(self.per_second.get(), FORGET, FORGET + time);
        self.per_second.set(seen.max(left));
    }

    /// Any probe may show that less time is enough; that more is needed only shows if few came
    /// before it and with it, and one stall does not prove it. Nor is what was learned true for ever.
    fn learn_alone(&self, beside: usize, took: Duration) {
        let (alone, usual) = (self.alone.get(), self.usual.get());
        self.usual.set((usual * 3 + took) / 4);
        self.alone.set(if alone.is_zero() {
            took
        } else if took < alone {
            alone - (alone - took) / 4
        } else if beside <= 2 * ALWAYS {
            took.min(alone + alone / 8)
        } else {
            alone - alone / FADES
        });
    }

    /// Whether still fewer should be let in. When they are much fewer, some probes tell whether that
    /// has helped. If it takes as long as before, it is no queue that it takes long for: what requests
    /// take by themselves has become more, and fewer would only be fewer.
    fn may_fall(&self, limit: usize, took: Duration) -> bool {
        let usual = self.usual.get();
        let now = Before { limit, usual, probes: 0, least: Duration::MAX };
        let before = self.before.get().unwrap_or(now);
        if limit * 4 > before.limit * 3 {
            self.before.set(Some(Before { usual: before.usual.max(usual), ..before }));
            return true;
        }
        let least = if before.probes == 0 { before.least } else { before.least.min(took) };
        if before.probes < PROBES {
            self.before.set(Some(Before { probes: before.probes + 1, least, ..before }));
            return false;
        }
        self.usual.set(least);
        self.before.set(Some(Before { usual: least, ..now }));
        let is_queue = least * 100 < before.usual * 85;
        if !is_queue {
            // Just so much that what is usual is bearable, and some more.
            let alone = (least / 2).max(least.saturating_sub(WAIT_MIN));
            self.alone.set(self.alone.get().max(alone));
        }
        is_queue
    }
}

/// `count × by ÷ over`.
fn scale(count: usize, by: Duration, over: Duration) -> usize {
    let scaled = (count as u128).saturating_mul(by.as_nanos()) / over.as_nanos().max(1);
    usize::try_from(scaled).unwrap_or(usize::MAX)
}

impl Share {
    pub(super) fn new(admission: &Rc<Admission>) -> Rc<Self> {
        Rc::new(Self { admission: Rc::clone(admission), taken: Default::default() })
    }

    /// A place for one more request of this connection, unless it has to be refused. The clock is
    /// looked at only if the request becomes the probe.
    pub(crate) fn admit(
        self: &Rc<Self>,
        kind: Kind,
        now: impl FnOnce() -> Instant,
    ) -> Option<Place> {
        let class = &self.admission.kinds[kind as usize];
        let taken = &self.taken[kind as usize];
        let under_way = class.under_way.get();
        let free = class.limit.get().saturating_sub(under_way);
        if taken.get() >= free {
            return None;
        }
        class.under_way.set(under_way + 1);
        taken.set(taken.get() + 1);
        let probes = class.probe.get().is_none();
        if probes {
            let answered = class.answered.get();
            let under_way = under_way + 1;
            class.probe.set(Some(Probe { began: now(), under_way, answered, late: false }));
        }
        Some(Place { share: Rc::clone(self), kind, probes })
    }
}

impl Place {
    /// The request was answered. What fails, fails quickly: it says nothing of those that do not,
    /// unless it failed for taking too long.
    pub(super) fn answered(self, failed: bool, now: impl FnOnce() -> Instant) {
        self.answered_with(0, failed, now);
    }

    /// As [`Place::answered`], in one turn with so many, which are all answered now.
    pub(super) fn answered_with(
        mut self,
        count: usize,
        failed: bool,
        now: impl FnOnce() -> Instant,
    ) {
        let admission = &self.share.admission;
        let class = &admission.kinds[self.kind as usize];
        class.answered.set(class.answered.get() + 1);
        if !std::mem::take(&mut self.probes) {
            return;
        }
        let Some(mut probe) = class.probe.take() else { return };
        // It came first, when it was alone.
        probe.under_way = probe.under_way.max(count);
        let took = now().saturating_duration_since(probe.began);
        if !failed || took > admission.wait_max {
            class.learn(probe, took, admission.wait_max, admission.limit_max);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let class = &self.share.admission.kinds[self.kind as usize];
        let taken = &self.share.taken[self.kind as usize];
        class.under_way.set(class.under_way.get() - 1);
        taken.set(taken.get() - 1);
        if self.probes {
            class.probe.set(None);
        }
    }
}

#[cfg(test)]
mod tests;
