//! Which part of a damaged log can be used.
//!
//! ```text
//!  run          damage     run              damage   run
//!  1 ... 40  │  41 to 44 │ 45 ... c ... 90 │  91    │ 92 ... 99
//! ```
//!
//! A log is a history: what follows a hole cannot be applied, for nobody knows what the hole said.
//! Unless all that the hole said is known from elsewhere: batches up to the flushed mark are in
//! segments, and a checkpoint stands for an owner's records before it. If so much holds of the last
//! run, nothing is lost by beginning with it. Otherwise the run before the first hole is used, and
//! everything behind is lost.

use std::ops::Range;

use super::{Directory, Layout};
use crate::batch::Batch;
use crate::codec::Malformed;
use crate::error::Result;
use crate::inspect::Overlay;
use crate::log::{LogDamage, LogExtent, LogItem, Position, ReplayedRecord, TornTail};
use crate::store::WRITE_BATCH;

/// What can be used of a log, and what cannot.
#[derive(Clone, Debug, Default)]
pub struct LogPlan {
    /// The positions of the records to use.
    pub used: Range<u64>,
    /// Records that can be read and cannot be used: they stand behind a hole.
    pub unused: u64,
    /// Whether a record is lost that was needed.
    pub is_lossy: bool,
    /// The first record that is lost, if one is.
    pub lost_from: u64,
    /// Everything that is wrong with the log.
    pub damage: Vec<LogDamage>,
    /// The remains of a last write.
    pub torn: Option<TornTail>,
    /// How far the log goes.
    pub extent: LogExtent,
    /// The last of the used records that says to install staged rows which are not in the tree yet,
    /// and their mark.
    pub installs: Option<(Position, u64)>,
}

/// Records without a hole between them.
#[derive(Clone, Debug)]
struct Run {
    records: Range<u64>,
    /// The first of them that stands for all before it.
    checkpoint: Option<u64>,
    /// Nothing is missing before it: the log was cut there by its owner.
    is_beginning: bool,
}

impl LogPlan {
    fn is_whole_so_far(&self) -> bool {
        self.damage.iter().all(|damage| damage.lost.is_empty() && !damage.open_ended)
    }
}

impl Directory {
    /// Finds out by reading the whole log.
    pub fn plan_log(&self) -> Result<LogPlan> {
        let mut plan = LogPlan::default();
        let mut runs: Vec<Run> = Vec::new();
        let mut open_ended = false;
        let mut installs: Vec<(Position, u64)> = Vec::new();
        let mut survey = self.log()?;
        while let Some(item) = survey.next()? {
            match item {
                LogItem::Record(record) => {
                    let is_beginning = runs.is_empty() && plan.is_whole_so_far();
                    self.add(&mut runs, &record, is_beginning);
                    let installed = self.is_to_install(&record);
                    installs.extend(installed.map(|mark| (record.position, mark)));
                }
                LogItem::Damage(damage) => {
                    open_ended |= damage.open_ended;
                    plan.damage.push(damage);
                }
                LogItem::Torn(torn) => plan.torn = Some(torn),
            }
        }
        plan.extent = survey.extent().clone();
        if plan.extent.files == 0 && self.has_lost_its_log()? {
            open_ended = true;
            plan.damage.push(LogDamage {
                file: self.log_dir(),
                offset: 0,
                what: "the log is missing".to_owned(),
                lost: 0..0,
                open_ended,
            });
        }
        let first = plan.extent.first.map_or(1, |first| first.0);
        if runs.is_empty() {
            let is_beginning = plan.is_whole_so_far();
            runs.push(Run { records: first..first, checkpoint: None, is_beginning });
        }
        let after_last = self.end_of_log(&plan, &runs);
        let total: u64 = runs.iter().map(|run| run.records.end - run.records.start).sum();
        let last = runs.len() - 1;
        plan.is_lossy =
            open_ended || runs[last].records.end < after_last || !self.suffices(&runs[last]);
        plan.used = match (plan.is_lossy, self.suffices(&runs[0])) {
            (false, _) => runs[last].records.clone(),
            (true, true) => runs[0].records.clone(),
            (true, false) => self.nothing(),
        };
        plan.lost_from = match plan.used.is_empty() {
            false => plan.used.end,
            true => match self.nothing().start {
                1 => first.min(holes_begin(&plan)),
                after_segments => after_segments,
            },
        };
        plan.installs = installs.into_iter().rfind(|(at, _)| plan.used.contains(&at.0));
        plan.unused = total - (plan.used.end - plan.used.start);
        Ok(plan)
    }

    /// The range of a log of which nothing can be used: it goes on where the segments end. An
    /// owner's begins anew, since its records mean nothing without those before.
    fn nothing(&self) -> Range<u64> {
        let embedded = self.manifest.as_ref().filter(|_| self.owner.is_checkpoint.is_none());
        let next = embedded.map_or(1, |manifest| manifest.flushed_mark.saturating_add(1));
        next..next
    }

    fn add(&self, runs: &mut Vec<Run>, record: &ReplayedRecord, is_beginning: bool) {
        let at = record.position.0;
        match runs.last_mut() {
            Some(run) if run.records.end == at => run.records.end = at + 1,
            _ => runs.push(Run { records: at..at + 1, checkpoint: None, is_beginning }),
        }
        let stands =
            self.owner.is_checkpoint.is_some_and(|is_checkpoint| is_checkpoint(record.kind));
        if let (true, Some(run)) = (stands, runs.last_mut()) {
            run.checkpoint.get_or_insert(at);
        }
    }

    /// The position before which the log must not end.
    fn end_of_log(&self, plan: &LogPlan, runs: &[Run]) -> u64 {
        let flushed = self.manifest.as_ref().map_or(0, |manifest| manifest.flushed_position.0);
        let holes = plan.damage.iter().map(|damage| damage.lost.end).max().unwrap_or_default();
        let empty = runs.first().map_or(1, |run| run.records.start);
        (flushed + 1).max(holes).max(empty)
    }

    /// Whether a log that begins with this run lacks nothing.
    fn suffices(&self, run: &Run) -> bool {
        let first = run.records.start;
        // Everything before this position is in segments, or need not be anywhere.
        let covered = match (self.layout, &self.manifest) {
            (Layout::Log, _) => u64::MAX,
            (Layout::Store, Some(manifest)) => manifest.flushed_mark.saturating_add(1),
            (Layout::Store, None) => 0,
        };
        // Nor does a log begin behind what the segments rest on.
        let may_begin = |manifest: &crate::manifest::Manifest| {
            first <= manifest.flushed_position.0.saturating_add(1)
        };
        let is_beginning = run.is_beginning && self.manifest.as_ref().is_none_or(may_begin);
        match (self.owner.is_checkpoint, run.checkpoint) {
            _ if first <= 1 => true,
            (None, _) => first <= covered || (is_beginning && self.manifest.is_none()),
            // Marks that are no positions do not tell what the records before a checkpoint said.
            (Some(_), Some(_)) if self.owner.installs.is_some() => is_beginning,
            (Some(_), Some(checkpoint)) => is_beginning || checkpoint <= covered,
            (Some(_), None) => false,
        }
    }
}

fn holes_begin(plan: &LogPlan) -> u64 {
    let holes = plan.damage.iter().filter(|damage| !damage.lost.is_empty());
    holes.map(|damage| damage.lost.start).min().unwrap_or(u64::MAX)
}

/// The batch for which a record of an owner's log stands, if it stands for one now; or why it
/// cannot be what the owner wrote.
pub type BatchOf<'a> = &'a mut dyn FnMut(&ReplayedRecord) -> Result<Option<Batch>, String>;

/// The batch in a record of a store without an owner.
pub fn own_batch(record: &ReplayedRecord) -> Result<Option<Batch>, String> {
    if record.kind != WRITE_BATCH {
        return Err(format!("kind {} is not a store's own", record.kind));
    }
    let batch = Batch::decode(&record.payload);
    batch.map(Some).map_err(|Malformed(what)| what.to_owned())
}

/// Applies to an overlay what a record of an owner's log decides, each batch with its mark; or says
/// why the record cannot be what the owner wrote.
pub type ApplyTo<'a> = &'a mut dyn FnMut(&ReplayedRecord, &mut Overlay) -> Result<(), String>;

impl Directory {
    /// Applies what can be used of a log in which the mark of a batch is its record's position. The
    /// second answer names the first record that is not what its owner writes, if there is one;
    /// nothing behind it is applied.
    pub fn replay(
        &self,
        plan: &LogPlan,
        batch_of: BatchOf<'_>,
    ) -> Result<(Overlay, Option<(Position, String)>)> {
        self.replay_into(plan, &mut |record, overlay| {
            if let Some(batch) = batch_of(record)? {
                overlay.apply(record.position.0, &batch);
            }
            Ok(())
        })
    }

    /// As [`Directory::replay`], for an owner that has marks of its own. What a record installs, by
    /// [`Owner::installs`](super::Owner::installs), is installed before `apply_to` is called with it.
    pub fn replay_into(
        &self,
        plan: &LogPlan,
        apply_to: ApplyTo<'_>,
    ) -> Result<(Overlay, Option<(Position, String)>)> {
        let mut overlay = self.overlay();
        let mut survey = self.log()?;
        while let Some(item) = survey.next()? {
            let LogItem::Record(record) = item else { continue };
            if !plan.used.contains(&record.position.0) {
                continue;
            }
            if let Some(mark) = self.is_to_install(&record) {
                overlay.install(mark);
            }
            if let Err(what) = apply_to(&record, &mut overlay) {
                return Ok((overlay, Some((record.position, what))));
            }
        }
        Ok((overlay, None))
    }
}
