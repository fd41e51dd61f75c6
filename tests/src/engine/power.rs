//! Work over a disk in memory whose power fails: what was acknowledged as durable is there, and of the
//! rest a prefix, in the order of the log.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kvorum_storage::vfs::{CrashMode, Event, FaultyVfs, MemoryVfs, Phase};
use kvorum_storage::{Compression, Options, Store};

use super::ledger::{Acknowledged, Ledger};
use super::model::{Found, Model};
use super::random::Random;
use super::small_options;
use super::work::{Counts, Load, Work, check_all};

const DIR: &str = "/store";

/// The disk fails so often before a new one takes its place.
const CUTS_OF_A_DISK: u64 = 8;

/// What power cuts met.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cuts {
    pub(crate) cuts: u64,
    /// During the recovery from another.
    pub(crate) in_recovery: u64,
    /// Changes to files and directories that were at stake.
    pub(crate) unsynced: u64,
    /// Writes that had been answered and were not durable, and are gone.
    pub(crate) buffered_lost: u64,
    pub(crate) groups_checked: u64,
}

/// A disk, and what should be on it.
pub(crate) struct PowerTrial {
    seed: u64,
    disk: MemoryVfs,
    model: Model,
    ledger: Arc<Ledger>,
    pub(crate) counts: Arc<Counts>,
    pub(crate) cuts: Cuts,
}

impl PowerTrial {
    pub(crate) fn new(seed: u64) -> Self {
        let model = Model { groups: 1_500, seed, value_bytes_max: 3_000 };
        Self {
            seed,
            disk: MemoryVfs::new(),
            ledger: Arc::new(Ledger::in_memory(model.groups)),
            model,
            counts: Arc::default(),
            cuts: Cuts::default(),
        }
    }

    /// Works for a while, cuts the power, and compares what is left.
    pub(crate) fn cut(&mut self, work_for: Duration) -> Result<()> {
        let number = self.cuts.cuts;
        if number > 0 && number.is_multiple_of(CUTS_OF_A_DISK) {
            self.disk = MemoryVfs::new();
            self.ledger = Arc::new(Ledger::in_memory(self.model.groups));
        }
        let mut random = Random::new(self.seed ^ number << 16);
        let options = Options {
            memtable_bytes: 64 << 10,
            segment_bytes: 64 << 10,
            level1_bytes: 256 << 10,
            log_bytes_max: 1 << 20,
            ..small_options(match random.below(2) {
                0 => Compression::None,
                _ => Compression::Lz4,
            })
        };
        let (mut image, durable, begun) = self.work(&options, work_for, &mut random)?;
        let acknowledged = self.ledger.take_acknowledged();
        if random.one_in(3) {
            image = self.cut_in_recovery(&image, &options, &mut random)?;
        }
        self.cuts.cuts += 1;
        let store = open(&image, options).context("opening after the cut")?;
        let versions = |group: u32| durable[group as usize]..=begun[group as usize];
        let found = check_all(&store, &self.model, versions)?;
        for (group, found) in &found {
            self.ledger.settle(*group, found)?;
        }
        self.cuts.groups_checked += found.len() as u64;
        self.check_prefix(&acknowledged, |group| &found[&group])?;
        drop(store);
        self.disk = image;
        Ok(())
    }

    /// Has threads work until the power fails. Answers with what is left on the disk, and the least
    /// and greatest versions that may be there.
    fn work(
        &mut self,
        options: &Options,
        work_for: Duration,
        random: &mut Random,
    ) -> Result<(MemoryVfs, Vec<u32>, Vec<u32>)> {
        let (faulty, gate) =
            (FaultyVfs::new(Arc::new(self.disk.clone())), Arc::new(Gate::default()));
        faulty.on_operation({
            let gate = Arc::clone(&gate);
            move |event| gate.pass(event)
        });
        let vfs = Arc::new(faulty);
        let store = Store::open(vfs.clone(), Path::new(DIR), options.clone())?;
        let work = Work {
            store,
            model: self.model,
            ledger: Arc::clone(&self.ledger),
            counts: Arc::clone(&self.counts),
            probes: None,
            vfs,
            options: options.clone(),
            checkpoints: None,
            stop: AtomicBool::new(false),
            violations: Mutex::default(),
        };
        let load = Load {
            writers: 2,
            readers: 1,
            maintainers: 1,
            write_every: None,
            sync_one_in: 10,
            ingest_one_in: 400,
            disturb_every: Duration::from_millis(40),
        };
        let (seed, mode_seed) = (random.next(), random.next());
        let left = std::thread::scope(|scope| {
            scope.spawn(|| work.run(load, seed));
            std::thread::sleep(work_for);
            let durable = self.ledger.durable();
            // In the middle of what they are at, all hands are still for a moment.
            gate.close();
            let image = self.disk.crash_image(CrashMode::Random { seed: mode_seed });
            self.cuts.unsynced += self.disk.unsynced() as u64;
            gate.open();
            let begun = self.ledger.all_begun();
            work.stop.store(true, SeqCst);
            (image, durable, begun)
        });
        let violations = work.violations.into_inner().unwrap_or_else(PoisonError::into_inner);
        ensure!(violations.is_empty(), "while it worked: {}", violations.join("; "));
        Ok(left)
    }

    /// The power fails again while the store is opened.
    fn cut_in_recovery(
        &mut self,
        image: &MemoryVfs,
        options: &Options,
        random: &mut Random,
    ) -> Result<MemoryVfs> {
        let disk = image.crash_image(CrashMode::KeepAll);
        let faulty = FaultyVfs::new(Arc::new(disk.clone()));
        let (left, seed) = (Arc::new(Mutex::new(None)), random.next());
        let at = random.below(20);
        faulty.on_operation({
            let (left, seen, disk) = (Arc::clone(&left), AtomicU64::new(0), disk.clone());
            move |event| {
                if event.operation.changes_disk() && seen.fetch_add(1, SeqCst) == at {
                    let image = disk.crash_image(CrashMode::Random { seed });
                    *left.lock().unwrap_or_else(PoisonError::into_inner) = Some(image);
                }
            }
        });
        drop(Store::open(Arc::new(faulty), Path::new(DIR), options.clone())?);
        let left = left.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.cuts.in_recovery += u64::from(left.is_some());
        Ok(left.unwrap_or(disk))
    }

    /// Nothing is there that stands in the log behind something that is not.
    fn check_prefix<'a>(
        &mut self,
        acknowledged: &[Acknowledged],
        found: impl Fn(u32) -> &'a Found,
    ) -> Result<()> {
        let is_there = |it: &&Acknowledged| {
            let found = found(it.group);
            found.start() == found.end() && *found.start() == it.version
        };
        let last = acknowledged.iter().filter(is_there).map(|it| it.position).max();
        for it in acknowledged {
            let is_gone = *found(it.group).end() < it.version;
            self.cuts.buffered_lost += u64::from(is_gone);
            ensure!(
                !is_gone || last.is_none_or(|last| it.position > last),
                "record {last:?} survived, but record {} before it, group {} of version {}, did not",
                it.position,
                it.group,
                it.version
            );
        }
        Ok(())
    }
}

fn open(disk: &MemoryVfs, options: Options) -> kvorum_storage::Result<Store> {
    Store::open(Arc::new(disk.clone()), Path::new(DIR), options)
}

/// Lets operations of the disk pass, or none at all: while it is closed nothing is under way.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    closed: bool,
    under_way: u64,
}

impl Gate {
    fn pass(&self, event: &Event<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event.phase {
            Phase::Before => {
                while state.closed {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                state.under_way += 1;
            }
            Phase::Succeeded | Phase::Failed => {
                state.under_way -= 1;
                self.changed.notify_all();
            }
        }
    }

    fn close(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.closed = true;
        while state.under_way > 0 {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn open(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed = false;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_durable_survives_the_power_and_the_rest_is_a_prefix() {
        let (mut trial, began) = (PowerTrial::new(1), std::time::Instant::now());
        // So many cuts, and on a busy machine more, until each of them has come once.
        let missing = |trial: &PowerTrial| {
            let Cuts { in_recovery, unsynced, buffered_lost, .. } = trial.cuts;
            let cuts = [
                ("cuts in a recovery", in_recovery),
                ("unsynced changes", unsynced),
                ("buffered writes that are lost", buffered_lost),
            ];
            let all = cuts.into_iter().chain(trial.counts.all());
            let mut none = all.filter(|(name, count)| *count == 0 && *name != "checkpoints");
            none.next().map(|(name, _)| name)
        };
        while trial.cuts.cuts < 20 || missing(&trial).is_some() {
            assert!(began.elapsed() < Duration::from_secs(300), "no {:?}", missing(&trial));
            trial.cut(Duration::from_millis(60)).unwrap();
        }
        println!("{:?} {:?}", trial.cuts, trial.counts);
    }
}
