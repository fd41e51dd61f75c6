//! Compactions under way: each is claimed, cut into parts, and installed by whoever ends the last.
//!
//! ```text
//!                     ┌─ part ─┐
//! pick ─► claim ─► cut┼─ part ─┼─► install ─► inputs removed, claim let go
//!                     └─ part ─┘
//! ```
//!
//! Whoever calls [`Store::maintain`] takes a part of a compaction that was begun, or begins the
//! next one beside it. Who began one goes on until no part is left: alone, he does all of it. When
//! a part fails, nothing of the others is kept either.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::maintain::{Edit, Maintained, Work, bytes_of, count};
use super::{Inner, Store, View, lock};
use crate::compaction::{BOTTOM, Job, Output, Part, Plan, cut, pick, pick_idle, whole_level};
use crate::cursor::{Direction, Merge, Source};
use crate::error::{Error, Result};
use crate::key::Tag;
use crate::levels::{LEVELS, Level, Levels};
use crate::segment::{Check, Segment};

/// So many segments' worth of input make a part of their own.
const PART_SEGMENTS: u64 = 2;
/// An idle store keeps free files of the log in so many hundredths of the segments' bytes.
const FREE_LOG_PERCENT: u64 = 2;

/// Which compactions are under way.
#[derive(Default)]
pub(super) struct Compactions {
    state: Mutex<State>,
    /// One has ended.
    ended: Condvar,
    /// Held by the one who lets no other begin.
    whole: Mutex<()>,
    /// How far the one that merges level 0 has come: segments that it will have taken away, entries
    /// that it reads, and how many of them it has read.
    level0_segments: AtomicU64,
    level0_entries: AtomicU64,
    level0_read: Arc<AtomicU64>,
}

#[derive(Default)]
struct State {
    running: Vec<Arc<Running>>,
    /// Somebody wants to be alone: nothing else begins.
    is_whole: bool,
}

/// A compaction under way.
struct Running {
    plan: Plan,
    /// The tree that it is a change of, and how often all of it had been replaced. Not the view: that
    /// would keep memtables for as long.
    levels: Arc<Levels>,
    installs: u64,
    inputs: Vec<Arc<Segment>>,
    overlapped: Vec<Arc<Segment>>,
    parts: Vec<Part>,
    taken: Mutex<Taken>,
    entries_read: Arc<AtomicU64>,
    begun: Instant,
    /// A part of it failed: the others are of no use.
    failed: AtomicBool,
}

/// Which parts were taken, and what has become of them.
#[derive(Default)]
struct Taken {
    count: usize,
    busy: usize,
    outputs: Vec<(usize, Output)>,
}

impl Running {
    fn entries(&self) -> u64 {
        self.inputs.iter().chain(&self.overlapped).map(|segment| segment.meta().entries).sum()
    }

    /// The next part that nobody has taken.
    fn take(&self) -> Option<usize> {
        let mut taken = lock(&self.taken);
        if taken.count == self.parts.len() || self.failed.load(Relaxed) {
            return None;
        }
        taken.count += 1;
        taken.busy += 1;
        Some(taken.count - 1)
    }

    /// A part has ended; the results of all parts, in order, if it was the last to do so.
    fn end(&self, part: usize, result: Result<Output>) -> (Option<Vec<Output>>, Result<()>) {
        let mut taken = lock(&self.taken);
        taken.busy -= 1;
        let result = result.map(|output| taken.outputs.push((part, output)));
        if result.is_err() {
            self.failed.store(true, Relaxed);
        }
        let over = taken.count == self.parts.len() || self.failed.load(Relaxed);
        let outputs = (over && taken.busy == 0).then(|| {
            taken.outputs.sort_by_key(|(part, _)| *part);
            std::mem::take(&mut taken.outputs).into_iter().map(|(_, output)| output).collect()
        });
        (outputs, result)
    }
}

/// A part that somebody works on. Dropped by a panic, it fails, so that nobody waits for it.
struct Busy<'a> {
    inner: &'a Inner,
    running: &'a Arc<Running>,
    part: usize,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let error = Error::invalid("a thread panicked while it compacted");
        let _ = self.inner.end_part(self.running, self.part, Err(error));
    }
}

/// A compaction whose parts have all ended. It ends by a panic too: else its claim would stay for
/// ever, and who wants to compact alone would wait as long.
struct Ending<'a> {
    compactions: &'a Compactions,
    running: &'a Arc<Running>,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.compactions.end(self.running);
    }
}

impl Store {
    /// Does one unit of work that is worth while when there is nothing better to do, so that a store
    /// that was written to takes little more room than what lives in it: everything of
    /// [`Store::maintain`]; a flush of the memtable that keeps log files from going; a merge of what
    /// may be overwritten, down to [`Options::idle_garbage_percent`](crate::Options) of the store.
    ///
    /// Once it answers [`Maintained::Nothing`] there is nothing more to gain until something is
    /// written. An owner calls it after some idle time, in place of [`Store::maintain`].
    pub fn settle(&self) -> Result<Maintained> {
        match self.inner.maintain()? {
            Maintained::Did(work) => Ok(Maintained::Did(work)),
            Maintained::Nothing => self.inner.settle(),
        }
    }

    /// Flushes, then merges every level into the one below, down to the deepest in use: all that
    /// nobody can see any more is dropped on the way.
    pub fn compact(&self) -> Result<()> {
        let inner = &self.inner;
        inner.flush_all()?;
        let alone = inner.compactions.exclude();
        let result = inner.compact_whole();
        drop(alone);
        // What was due meanwhile.
        inner.signal.raise();
        result
    }
}

impl Compactions {
    /// Lets no compaction begin until the answer is dropped, and waits for those under way.
    pub(super) fn exclude(&self) -> Alone<'_> {
        let whole = lock(&self.whole);
        let mut state = lock(&self.state);
        state.is_whole = true;
        while !state.running.is_empty() {
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Alone { compactions: self, _whole: whole }
    }

    /// Lets none begin and none be forgotten while something is done that must know of each.
    pub(super) fn hold<T>(&self, work: impl FnOnce(&[&Plan]) -> T) -> T {
        let state = lock(&self.state);
        let plans: Vec<&Plan> = state.running.iter().map(|running| &running.plan).collect();
        work(&plans)
    }

    /// Whether somebody is at one.
    pub(super) fn is_any(&self) -> bool {
        !lock(&self.state).running.is_empty()
    }

    /// Thousandths of segments of level 0 that the merge under way has seen to already.
    pub(super) fn level0_done(&self) -> u64 {
        let entries = self.level0_entries.load(Relaxed).max(1);
        let read = self.level0_read.load(Relaxed).min(entries);
        let thousandths = u128::from(read) * 1000 / u128::from(entries);
        self.level0_segments.load(Relaxed) * thousandths as u64
    }

    fn begin(&self, state: &mut State, running: &Arc<Running>) {
        let plan = &running.plan;
        if plan.from == 0 {
            let left = usize::from(plan.to == 0);
            self.level0_read.store(0, Relaxed);
            self.level0_entries.store(running.entries(), Relaxed);
            self.level0_segments.store((plan.inputs.len() - left) as u64, Relaxed);
        }
        state.running.push(Arc::clone(running));
    }

    fn end(&self, ended: &Arc<Running>) {
        let mut state = lock(&self.state);
        state.running.retain(|running| !Arc::ptr_eq(running, ended));
        if ended.plan.from == 0 {
            self.level0_segments.store(0, Relaxed);
        }
        drop(state);
        self.ended.notify_all();
    }
}

/// While it lives, only its holder may merge or move segments.
pub(super) struct Alone<'a> {
    compactions: &'a Compactions,
    _whole: MutexGuard<'a, ()>,
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        lock(&self.compactions.state).is_whole = false;
    }
}

impl Inner {
    /// Takes part in a compaction under way, or begins the next; what was done.
    pub(super) fn compact_some(&self) -> Result<Option<Work>> {
        let limits = self.options.limits();
        self.compact_one(true, |view, claims| pick(&view.levels.shape(), &limits, claims))
    }

    /// One unit of [`Store::settle`] beyond those of [`Store::maintain`].
    fn settle(&self) -> Result<Maintained> {
        if let Some(work) = self.unpin_log()? {
            return Ok(Maintained::Did(work));
        }
        let (limits, percent) = (self.options.limits(), self.options.idle_garbage_percent);
        let (snapshots, now) = self.snapshots.all(|| self.visible());
        let oldest_reader = snapshots.first().copied().unwrap_or(now);
        let work = self.compact_one(true, |view, claims| {
            pick_idle(&view.levels.shape(), &limits, claims, percent.into(), oldest_reader)
        })?;
        Ok(work.map_or(Maintained::Nothing, Maintained::Did))
    }

    fn compact_whole(&self) -> Result<()> {
        let limits = self.options.limits();
        for level in 0..BOTTOM {
            let view = self.view();
            let is_deepest = (level + 1..LEVELS).all(|deeper| view.levels.level(deeper).is_empty());
            if is_deepest && level > 0 {
                break;
            }
            drop(view);
            self.compact_one(false, |view, _| whole_level(&view.levels.shape(), &limits, level))?;
        }
        Ok(())
    }

    fn compact_one(
        &self,
        shared: bool,
        choose: impl FnOnce(&View, &[&Plan]) -> Option<Plan>,
    ) -> Result<Option<Work>> {
        let mut state = lock(&self.compactions.state);
        if shared && state.is_whole {
            return Ok(None);
        }
        let begun =
            state.running.iter().find_map(|running| Some((running.clone(), running.take()?)));
        let (running, part) = match begun {
            Some(begun) => begun,
            None => {
                let view = self.view();
                let claims: Vec<&Plan> =
                    state.running.iter().map(|running| &running.plan).collect();
                let Some(plan) = choose(&view, &claims) else { return Ok(None) };
                let running = Arc::new(self.prepare(&view, plan)?);
                let part = running.take().expect("nobody else has it yet");
                self.compactions.begin(&mut state, &running);
                (running, part)
            }
        };
        drop(state);
        if part == 0 && running.parts.len() > 1 {
            // Others may take the other parts.
            self.signal.raise();
        }
        self.work_on(&running, part)?;
        Ok(Some(Work::Compacted { level: running.plan.from }))
    }

    fn prepare(&self, view: &View, plan: Plan) -> Result<Running> {
        let find = |level: usize, ids: &[u64]| -> Vec<Arc<Segment>> {
            let chosen = |segment: &&Arc<Segment>| ids.contains(&segment.meta().id);
            view.levels.level(level).iter().filter(chosen).cloned().collect()
        };
        let inputs = find(plan.from, &plan.inputs);
        let overlapped = find(plan.to, &plan.overlapped);
        let parts = if plan.is_move || plan.to == 0 {
            vec![Part::default()]
        } else {
            let all: Vec<_> = inputs.iter().chain(&overlapped).cloned().collect();
            let wanted = bytes_of(&all) / (self.options.segment_bytes * PART_SEGMENTS);
            let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
            cut(&all, wanted.clamp(1, self.options.compaction_parts_max))?
        };
        let running = Running {
            inputs,
            overlapped,
            parts,
            levels: Arc::clone(&view.levels),
            installs: view.installs,
            taken: Mutex::default(),
            entries_read: match plan.from {
                0 => Arc::clone(&self.compactions.level0_read),
                _ => Arc::default(),
            },
            begun: Instant::now(),
            failed: AtomicBool::new(false),
            plan,
        };
        Ok(running)
    }

    /// Carries out this part, then all that nobody else takes.
    fn work_on(&self, running: &Arc<Running>, first: usize) -> Result<()> {
        let mut next = Some(first);
        while let Some(part) = next {
            let busy = Busy { inner: self, running, part };
            let merged = self.merge_part(running, &running.parts[part]);
            std::mem::forget(busy);
            self.end_part(running, part, merged)?;
            next = running.take();
        }
        Ok(())
    }

    fn end_part(&self, running: &Arc<Running>, part: usize, merged: Result<Output>) -> Result<()> {
        let (outputs, result) = running.end(part, merged);
        let Some(outputs) = outputs else { return result };
        let ending = Ending { compactions: &self.compactions, running };
        let installed = self.end_compaction(running, outputs);
        drop(ending);
        // Those who found nothing to begin may find something now.
        self.signal.install();
        result.and(installed)
    }

    fn merge_part(&self, running: &Running, part: &Part) -> Result<Output> {
        let plan = &running.plan;
        if plan.is_move {
            let segments = running.inputs.clone();
            return Ok(Output { segments, entries: running.entries() });
        }
        let overlapped = Arc::new(Level::new(running.overlapped.clone()));
        let mut sources = vec![Source::level(&overlapped, Check::Always)];
        let inputs = running.inputs.iter();
        sources.extend(inputs.map(|input| Source::segment(input, Check::Always)));
        let start = part.start.as_deref().map(|key| (key, Tag::NEWEST));
        let merge = Merge::new(sources, start, Direction::Forwards)?;
        // What is merged within level 0 may be older than the rest of it, or newer.
        let below = (plan.to > 0).then_some(plan.to + 1);
        let flushes = Cell::new(true);
        let goes_on = |entries| {
            count(&running.entries_read, entries);
            // After a failure it is for others to try again.
            flushes.set(flushes.get() && self.flush_meanwhile());
            !running.failed.load(Relaxed)
        };
        let job = self.job(&running.levels, &goes_on);
        let segment_bytes = (plan.to > 0).then_some(self.options.segment_bytes);
        let options = self.options.segment(plan.to);
        self.run(merge, Job { options, segment_bytes, below, end: part.end.as_deref(), ..job })
    }

    /// Installs what all parts have made, or throws it away.
    fn end_compaction(&self, running: &Running, outputs: Vec<Output>) -> Result<()> {
        let plan = &running.plan;
        let entries: u64 = outputs.iter().map(|output| output.entries).sum();
        let made: Vec<Arc<Segment>> =
            outputs.into_iter().flat_map(|output| output.segments).collect();
        if running.failed.load(Relaxed) {
            // What would be moved is still in its old place.
            if !plan.is_move {
                self.discard(&made);
            }
            return Ok(());
        }
        if entries != running.entries() {
            self.discard(&made);
            let what = "the segments merged from here hold other entries than they say";
            return Err(Error::corrupt(&self.segments_dir, 0, what));
        }
        let written = bytes_of(&made);
        let removed: BTreeSet<u64> = plan.ids().collect();
        let added = made.into_iter().map(|segment| (plan.to, segment)).collect();
        if !self.change_tree(running.installs, Edit { removed, added, ..Edit::default() })? {
            return Ok(());
        }
        let counters = &self.counters;
        if plan.is_move {
            count(&counters.moves, 1);
            return Ok(());
        }
        count(&counters.compactions, 1);
        self.meter.compactions.record(running.begun.elapsed());
        count(
            &counters.compacted_bytes_read,
            bytes_of(&running.inputs) + bytes_of(&running.overlapped),
        );
        count(&counters.compacted_bytes_written, written);
        // The files have served. Who still reads from them has them mapped; a file that cannot be
        // removed now is an orphan, and goes at the next opening.
        self.discard(&running.inputs);
        self.discard(&running.overlapped);
        Ok(())
    }

    /// Flushes the memtable if that lets log files go, and lets go of most free ones; whether there
    /// was anything to be let go.
    fn unpin_log(&self) -> Result<Option<Work>> {
        let may_cut = self.embedded || !lock(&self.releases).is_empty();
        let is_untouched = self.view().active.is_untouched();
        if may_cut && !is_untouched && self.log.would_cut(self.log.last().next()) {
            let before = self.log.first();
            self.flush_all()?;
            if self.log.first() > before {
                return Ok(Some(Work::Flushed));
            }
        }
        let segments =
            self.view().levels.iter().map(|(_, segment)| segment.meta().bytes).sum::<u64>();
        let keep = segments / 100 * FREE_LOG_PERCENT / self.options.log.file_bytes;
        let is_trimmed = self.log.trim_free_files(usize::try_from(keep).unwrap_or(usize::MAX))?;
        Ok(is_trimmed.then_some(Work::CutLog))
    }
}
