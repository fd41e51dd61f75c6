//! The power fails around each change of the disk, and each time any part of what was not synced may
//! have reached it: any states of sectors, any of the directory entries, in order or not (Pillai et
//! al.: All File Systems Are Not Created Equal, 2014).
//!
//! What is recovered is a prefix of what was written, with all that was durable; also if the power
//! fails again while it is recovered.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use kvorum_storage::vfs::{CrashMode, FaultyVfs, MemoryVfs, Operation, Phase, Vfs};
use kvorum_storage::{Batch, Compression, Durability, Maintained, Pressure, Store};

use super::batches::{self, Batches, batch};
use super::counted::{by_operation, write_violations};
use super::random::Random;
use super::tiny_options;

const DIR: &str = "/store";

/// Kind of an owner's records that hold a batch, behind its number.
const OWNED: u8 = 16;

/// Kind of the records that say to install what is staged.
const INSTALL: u8 = 17;

/// No more are listed.
const VIOLATIONS_MAX: usize = 20;

/// How the store is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It logs its own batches; checkpoints are made of it.
    Embedded,
    /// An owner logs; now and then staged rows take the place of all.
    Owned,
}

/// How much.
#[derive(Clone, Copy, Debug)]
pub struct Crash {
    /// Decides what is done.
    pub seed: u64,
    /// Batches written.
    pub batches: u64,
    /// Random outcomes of each crash.
    pub subsets: u64,
    /// After each so manyth crash, the power fails again at each step of the recovery.
    pub again_every: u64,
}

/// How often what.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Crashes, by the operation around which they were.
    pub points: BTreeMap<Operation, u64>,
    /// Disks that were recovered.
    pub images: u64,
    /// Crashes at which something was at stake.
    pub at_stake: u64,
    /// Recoveries that had less than what had been begun.
    pub lost_open: u64,
    /// Crashes during a recovery.
    pub again: u64,
    /// Checkpoints that were there after a crash, whole.
    pub checkpoints: u64,
    /// Reopenings, flushes, compactions, cuts of the log, installs.
    pub done: [u64; 5],
    /// What must not be.
    pub violations: Vec<String>,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (points, by) = by_operation(&self.points);
        writeln!(f, "  {points} crashes: {by}")?;
        writeln!(
            f,
            "  {} disks recovered, {} crashes with something at stake, {} recoveries without what was open",
            self.images, self.at_stake, self.lost_open
        )?;
        writeln!(f, "  {} crashes during a recovery", self.again)?;
        let [reopenings, flushes, compactions, cuts, installs] = self.done;
        writeln!(
            f,
            "  meanwhile {reopenings} reopenings, {flushes} flushes, {compactions} compactions, {cuts} cuts of the log, {installs} installs, and {} whole checkpoints",
            self.checkpoints
        )?;
        write_violations(f, &self.violations)
    }
}

/// What is written, and what must be there if the power fails now.
#[derive(Default)]
struct Progress {
    durable: u64,
    begun: u64,
    /// The checkpoint that was begun last: where, and what was applied then.
    checkpoints: Vec<(PathBuf, u64)>,
    counts: Counts,
}

struct Trial {
    crash: Crash,
    how: Use,
    batches: Batches,
    progress: Mutex<Progress>,
}

impl Crash {
    /// Works, with crashes around each change.
    ///
    /// # Errors
    /// If what works without crashes does not.
    pub fn run(&self, how: Use) -> Result<Counts> {
        let (disk, batches) = (MemoryVfs::new(), Batches::new(self.batches));
        let progress = Mutex::new(Progress::default());
        let trial = Arc::new(Trial { crash: *self, how, batches, progress });
        let faulty = FaultyVfs::new(Arc::new(disk.clone()));
        faulty.on_operation({
            let (trial, disk) = (Arc::clone(&trial), disk.clone());
            move |event| {
                if event.operation.changes_disk() && event.phase != Phase::Failed {
                    let at =
                        format!("{:?} {:?} {}", event.phase, event.operation, event.path.display());
                    trial.crash_here(&disk, event.operation, &at);
                }
            }
        });
        trial.work(&Arc::new(faulty))?;
        let mut progress = trial.progress();
        Ok(std::mem::take(&mut progress.counts))
    }
}

impl Trial {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn crash_here(&self, disk: &MemoryVfs, operation: Operation, at: &str) {
        let (number, low, high, checkpoints) = {
            let mut progress = self.progress();
            if progress.counts.violations.len() >= VIOLATIONS_MAX {
                return;
            }
            let counts = &mut progress.counts;
            *counts.points.entry(operation).or_default() += 1;
            counts.at_stake += u64::from(disk.unsynced() > 0);
            let number = counts.points.values().sum::<u64>();
            (number, progress.durable, progress.begun, progress.checkpoints.clone())
        };
        let random = (0..self.crash.subsets).map(|subset| CrashMode::Random {
            seed: super::random::hash(&[self.crash.seed, number, subset]),
        });
        for mode in [CrashMode::LoseUnsynced, CrashMode::KeepAll].into_iter().chain(random) {
            let image = disk.crash_image(mode);
            let context = format!("seed {}, crash {number}, {at}, {mode:?}", self.crash.seed);
            if number.is_multiple_of(self.crash.again_every) && mode != CrashMode::KeepAll {
                self.crash_again(&image, (low, high), &context);
            }
            let checked = self.check(&image, (low, high), &checkpoints);
            let mut progress = self.progress();
            progress.counts.images += 1;
            match checked {
                Ok((count, whole)) => {
                    progress.counts.lost_open += u64::from(count < high);
                    progress.counts.checkpoints += whole;
                }
                Err(error) => progress.counts.violations.push(format!("{context}: {error:#}")),
            }
        }
    }

    /// The power fails at each step of the recovery.
    fn crash_again(&self, image: &MemoryVfs, versions: (u64, u64), context: &str) {
        let disk = image.crash_image(CrashMode::KeepAll);
        let faulty = FaultyVfs::new(Arc::new(disk.clone()));
        let images = Arc::new(Mutex::new(Vec::new()));
        faulty.on_operation({
            let (images, disk, seed) = (Arc::clone(&images), disk.clone(), self.crash.seed);
            move |event| {
                if event.operation.changes_disk() {
                    let mut images = images.lock().unwrap_or_else(PoisonError::into_inner);
                    let mode = CrashMode::Random { seed: seed ^ (images.len() as u64) << 20 };
                    images.push((format!("{event:?}"), disk.crash_image(mode)));
                }
            }
        });
        let opened = self.open(Arc::new(faulty)).map(drop);
        let images = std::mem::take(&mut *images.lock().unwrap_or_else(PoisonError::into_inner));
        let mut progress = self.progress();
        progress.counts.again += images.len() as u64;
        if let Err(error) = opened {
            progress.counts.violations.push(format!("{context}: {error:#}"));
            return;
        }
        for (at, image) in images {
            if let Err(error) = self.check(&image, versions, &[]) {
                progress.counts.violations.push(format!("{context}, then at {at}: {error:#}"));
            }
        }
    }

    /// What is on a disk: so many batches, of which the least and most possible are given; and how
    /// many of the checkpoints are there.
    fn check(
        &self,
        image: &MemoryVfs,
        (low, high): (u64, u64),
        checkpoints: &[(PathBuf, u64)],
    ) -> Result<(u64, u64)> {
        let vfs: Arc<dyn Vfs> = Arc::new(image.clone());
        let store = self.open(Arc::clone(&vfs)).context("opening")?;
        let count = self.batches.count_sound(&store)?;
        ensure!((low..=high).contains(&count), "{count} batches, must be {low} to {high}");
        let mut whole = 0;
        for (dir, applied) in checkpoints {
            let has_manifest =
                vfs.list(dir).is_ok_and(|names| names.iter().any(|it| it == "MANIFEST"));
            if !has_manifest {
                continue;
            }
            let store = Store::open(Arc::clone(&vfs), dir, tiny_options(Compression::None))
                .context("opening a checkpoint")?;
            let count = self.batches.count_sound(&store).context("a checkpoint")?;
            ensure!(count == *applied, "a checkpoint of {applied} batches has {count}");
            whole += 1;
        }
        Ok((count, whole))
    }

    /// Opens the store, and replays an owner's records.
    fn open(&self, vfs: Arc<dyn Vfs>) -> Result<Store> {
        let options = tiny_options(match self.crash.seed % 2 {
            0 => Compression::None,
            _ => Compression::Lz4,
        });
        if self.how == Use::Embedded {
            return Ok(Store::open(vfs, Path::new(DIR), options)?);
        }
        let (store, mut recovery) = Store::open_with_replay(vfs, Path::new(DIR), options)?;
        while let Some(record) = recovery.next()? {
            let (number, payload) = record.payload.split_at_checked(8).context("a short record")?;
            let number = u64::from_le_bytes(number.try_into()?);
            if record.kind == INSTALL {
                store.install(number, record.position)?;
            } else {
                let batch = Batch::decode(&Bytes::copy_from_slice(payload))
                    .map_err(|malformed| anyhow::anyhow!("{malformed:?}"))?;
                store.apply(number, record.position, &batch)?;
            }
            make_room(&store)?;
        }
        Ok(store)
    }

    fn work(&self, vfs: &Arc<FaultyVfs>) -> Result<()> {
        let mut random = Random::new(self.crash.seed);
        let mut store = self.open(vfs.clone())?;
        let mut number = 0;
        while number < self.crash.batches {
            number += 1;
            let mut sync = random.below(3) > 0;
            if self.how == Use::Owned && number + 12 < self.crash.batches && random.one_in(25) {
                number += 10;
                self.install(&store, number)?;
                sync = true;
            } else {
                self.write(&store, number, sync, &mut random)?;
            }
            if sync {
                self.progress().durable = number;
            }
            match random.below(25) {
                0..7 => drop(store.maintain()?),
                7 => {
                    store.flush()?;
                    self.progress().durable = number;
                }
                8 => store.compact()?,
                9 if self.how == Use::Embedded => self.checkpoint(&store, number)?,
                10 => {
                    self.note(&store);
                    drop(store);
                    store = self.open(vfs.clone())?;
                    self.progress().counts.done[0] += 1;
                    // What a process had not handed over yet is gone with it.
                    number = self.batches.count_sound(&store)?;
                }
                _ => {}
            }
        }
        self.note(&store);
        Ok(())
    }

    fn write(&self, store: &Store, number: u64, sync: bool, random: &mut Random) -> Result<()> {
        self.begin(number);
        if self.how == Use::Embedded {
            let durability = if sync { Durability::Sync } else { Durability::Buffered };
            return Ok(batches::write(store, number, durability)?);
        }
        let mut record = number.to_le_bytes().to_vec();
        batch(number).encode(&mut record);
        let position = store.log().append(OWNED, &record)?;
        // Applied before it is durable: a flush must take care of that.
        store.apply(number, position, &batch(number))?;
        if sync {
            store.log().sync(position)?;
        }
        if random.one_in(10) {
            store.release(position.next());
        }
        make_room(store)
    }

    /// What comes from elsewhere takes the place of all, and is ahead.
    fn install(&self, store: &Store, number: u64) -> Result<()> {
        let rows = self.batches.after(number).context("no such state")?;
        let rows: Vec<(Bytes, Bytes)> =
            rows.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let (some, others) = rows.split_at(rows.len() / 2);
        store.stage(true, some)?;
        store.stage(false, others)?;
        store.seal_staged(number)?;
        self.begin(number);
        let position = store.log().append(INSTALL, &number.to_le_bytes())?;
        store.log().sync(position)?;
        self.progress().durable = number;
        store.install(number, position)?;
        self.progress().counts.done[4] += 1;
        Ok(())
    }

    fn checkpoint(&self, store: &Store, number: u64) -> Result<()> {
        let dir = PathBuf::from(format!("/checkpoint-{number}"));
        // Those before were looked at often enough.
        self.progress().checkpoints = vec![(dir.clone(), number)];
        // It flushes first.
        store.checkpoint(&dir)?;
        self.progress().durable = number;
        Ok(())
    }

    fn begin(&self, number: u64) {
        self.progress().begun = number;
    }

    fn note(&self, store: &Store) {
        let stats = store.stats();
        let done = &mut self.progress().counts.done;
        done[1] += stats.flushes;
        done[2] += stats.compactions;
        done[3] += stats.log_cuts;
    }
}

/// Does what an owner must when the store says stop.
fn make_room(store: &Store) -> Result<()> {
    while store.pressure() == Pressure::Stop && store.maintain()? != Maintained::Nothing {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_part_of_what_was_not_synced_survives_a_prefix_is_recovered() {
        for how in [Use::Embedded, Use::Owned] {
            let crash = Crash { seed: 3, batches: 90, subsets: 2, again_every: 40 };
            let counts = crash.run(how).unwrap();
            println!("{how:?}\n{counts}");
            assert_eq!(counts.violations, Vec::<String>::new());
            assert!(counts.images > 2000 && counts.at_stake > 500, "{counts}");
            assert!(counts.lost_open > 100 && counts.again > 100, "{counts}");
            match how {
                Use::Embedded => assert!(counts.checkpoints > 0, "{counts}"),
                Use::Owned => assert!(counts.done[4] > 0, "{counts}"),
            }
        }
    }
}
