//! No room: at each operation that can need some, once and from then on, and on a small file system.
//!
//! Writes are refused with *disk full*, reads go on, nothing that was acknowledged is lost, and when
//! there is room again it goes on by itself.

pub mod small;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use kvorum_storage::vfs::{CrashMode, Fault, FaultyVfs, MemoryVfs, Operation, Outcome};
use kvorum_storage::{Compression, Durability, Error, Maintained, Store};

use super::batches::{self, Batches};
use super::counted::{by_operation, write_violations};
use super::tiny_options;

const DIR: &str = "/store";

/// Batches of a trial.
const BATCHES: u64 = 60;

/// No more are listed.
const VIOLATIONS_MAX: usize = 20;

/// What can need room. Where a failure leaves in doubt what is on the disk, the store may ask to be
/// opened again: a sync that failed once proves nothing by succeeding later.
const OPERATIONS: [(Operation, InDoubt); 10] = [
    (Operation::CreateDir, InDoubt::No),
    (Operation::Create, InDoubt::No),
    (Operation::HardLink, InDoubt::No),
    (Operation::Write, InDoubt::No),
    (Operation::Grow, InDoubt::No),
    (Operation::SetLength, InDoubt::No),
    (Operation::Allocate, InDoubt::No),
    (Operation::Sync, InDoubt::Perhaps),
    (Operation::Rename, InDoubt::Perhaps),
    (Operation::SyncDir, InDoubt::Perhaps),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InDoubt {
    No,
    Perhaps,
}

/// For how long there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum For {
    /// For one operation.
    Once,
    /// For one write, of which some bytes find room.
    Part,
    /// For all operations of all kinds from then on, until there is room again.
    AllFromThenOn,
}

/// How often what.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Trials in which the fault fired, by operation.
    pub fired: BTreeMap<Operation, u64>,
    /// Refusals that said *disk full*.
    pub refused: u64,
    /// Reads of everything while there was no room.
    pub reads: u64,
    /// Trials that went on by themselves once there was room.
    pub healed: u64,
    /// Trials that did once the store was opened again, of an operation that leaves things in doubt.
    pub reopened: u64,
    /// Openings that were refused for want of room, and done once there was some.
    pub openings: u64,
    /// What must not be.
    pub violations: Vec<String>,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (fired, by) = by_operation(&self.fired);
        writeln!(f, "  {fired} times no room: {by}")?;
        writeln!(
            f,
            "  {} operations refused, {} of them openings; {} times everything read meanwhile",
            self.refused, self.openings, self.reads
        )?;
        writeln!(f, "  {} healed by themselves, {} when opened again", self.healed, self.reopened)?;
        write_violations(f, &self.violations)
    }
}

/// Lets each operation fail in turn, each `step`th time that it comes up.
///
/// # Errors
/// If it cannot be tried.
pub fn run(step: u64) -> Result<Counts> {
    let batches = Batches::new(BATCHES);
    let mut counts = Counts::default();
    for (operation, in_doubt) in OPERATIONS {
        for duration in [For::Once, For::Part, For::AllFromThenOn] {
            if duration == For::Part && operation != Operation::Write {
                continue;
            }
            for after in (0..).step_by(step.max(1) as usize) {
                let mut trial = Trial::new(&batches, operation, duration, after);
                let result = trial.run(in_doubt, &mut counts);
                if trial.fired() == 0 {
                    result.with_context(|| format!("without a fault, {operation:?}"))?;
                    break;
                }
                *counts.fired.entry(operation).or_default() += 1;
                if let Err(error) = result {
                    let what = format!("{operation:?} {duration:?} after {after}: {error:#}");
                    counts.violations.push(what);
                    if counts.violations.len() >= VIOLATIONS_MAX {
                        return Ok(counts);
                    }
                }
            }
        }
    }
    Ok(counts)
}

struct Trial<'a> {
    batches: &'a Batches,
    disk: MemoryVfs,
    faulty: FaultyVfs,
    armed: Vec<kvorum_storage::vfs::Armed>,
    duration: For,
    /// The number of the last batch that was acknowledged.
    acknowledged: u64,
    checkpoints: u64,
}

impl<'a> Trial<'a> {
    fn new(batches: &'a Batches, operation: Operation, duration: For, after: u64) -> Self {
        let disk = MemoryVfs::new();
        let faulty = FaultyVfs::new(Arc::new(disk.clone()));
        let fault = match duration {
            For::Once => Fault::once(operation, Outcome::DiskFull),
            For::Part => Fault::once(operation, Outcome::ShortWriteFull(30)),
            For::AllFromThenOn => Fault::always(operation, Outcome::DiskFull),
        };
        let armed = vec![faulty.arm(fault.after(after))];
        Self { batches, disk, faulty, armed, duration, acknowledged: 0, checkpoints: 0 }
    }

    fn fired(&self) -> u64 {
        self.armed[0].fired()
    }

    fn open(&self) -> kvorum_storage::Result<Store> {
        let options = tiny_options(Compression::None);
        Store::open(Arc::new(self.faulty.clone()), Path::new(DIR), options)
    }

    fn run(&mut self, in_doubt: InDoubt, counts: &mut Counts) -> Result<()> {
        let mut store = match self.open() {
            Ok(store) => store,
            Err(error) => {
                self.check_refusal(&error, in_doubt, counts)?;
                counts.openings += 1;
                self.faulty.heal();
                self.open().context("opening when there is room again")?
            }
        };
        if let Err(error) = self.write_all(&store) {
            let error = error.downcast::<Error>().context("not an error of the store")?;
            self.check_refusal(&error, in_doubt, counts)?;
            self.check_reads(&store, counts).context("while there is no room")?;
            if self.duration == For::AllFromThenOn {
                self.stay_full(&store, in_doubt, counts)?;
            }
            self.faulty.heal();
            match self.write_all(&store) {
                Ok(()) => counts.healed += 1,
                Err(error) if in_doubt == InDoubt::Perhaps => {
                    let poisoned = error.downcast_ref::<Error>();
                    ensure!(matches!(poisoned, Some(Error::Poisoned { .. })), "{error:#}");
                    self.check_reads(&store, counts).context("while it takes no writes")?;
                    drop(store);
                    store = self.open().context("opening again")?;
                    self.write_all(&store).context("after opening again")?;
                    counts.reopened += 1;
                }
                Err(error) => bail!("there is room again: {error:#}"),
            }
        }
        let count = self.batches.count_sound(&store)?;
        ensure!(count == BATCHES, "{count} batches at the end");
        self.check_leftovers(&store)?;
        drop(store);
        let vfs = Arc::new(self.disk.crash_image(CrashMode::LoseUnsynced));
        let store = Store::open(vfs, Path::new(DIR), tiny_options(Compression::None))
            .context("opening after a power cut")?;
        let count = self.batches.count_sound(&store)?;
        ensure!(count == BATCHES, "{count} batches after a power cut");
        Ok(())
    }

    /// Writes what is not acknowledged yet, with all that belongs to it.
    fn write_all(&mut self, store: &Store) -> Result<()> {
        while self.acknowledged < BATCHES {
            let number = self.acknowledged + 1;
            batches::write(store, number, Durability::Sync)?;
            self.acknowledged = number;
            while store.maintain()? != Maintained::Nothing {}
            if number.is_multiple_of(20) {
                store.compact()?;
            }
            if number.is_multiple_of(25) {
                self.checkpoints += 1;
                store.checkpoint(&PathBuf::from(format!("/checkpoint-{}", self.checkpoints)))?;
            }
        }
        store.flush()?;
        Ok(())
    }

    fn check_refusal(&self, error: &Error, in_doubt: InDoubt, counts: &mut Counts) -> Result<()> {
        match error {
            Error::DiskFull { .. } => counts.refused += 1,
            Error::Io { .. } | Error::Poisoned { .. } if in_doubt == InDoubt::Perhaps => {}
            other => bail!("refused with {other}"),
        }
        ensure!(error.to_string().contains(['/']), "it names no file: {error}");
        Ok(())
    }

    /// Reads go on, and see what was acknowledged.
    fn check_reads(&self, store: &Store, counts: &mut Counts) -> Result<()> {
        // Where a failure is in doubt the manifest may be the next one already, which is no harm.
        let count = self.batches.count(store)?;
        let acknowledged = self.acknowledged;
        ensure!(
            count == acknowledged || count == acknowledged + 1,
            "{count} batches, of which {acknowledged} were acknowledged"
        );
        counts.reads += 1;
        Ok(())
    }

    /// Other operations meet no room either, over and over.
    fn stay_full(&mut self, store: &Store, in_doubt: InDoubt, counts: &mut Counts) -> Result<()> {
        for operation in [Operation::Create, Operation::Write, Operation::Allocate] {
            self.armed.push(self.faulty.arm(Fault::always(operation, Outcome::DiskFull)));
        }
        let pending = store.log().pending_bytes();
        for _ in 0..20 {
            match self.write_all(store) {
                // What was left had room in files that are there.
                Ok(()) => break,
                Err(error) => {
                    let error = error.downcast::<Error>().context("not an error of the store")?;
                    self.check_refusal(&error, in_doubt, counts)?;
                    self.check_reads(store, counts)?;
                }
            }
        }
        let grown = store.log().pending_bytes().saturating_sub(pending);
        ensure!(grown < 8192, "{grown} bytes more wait: refusals pile up");
        Ok(())
    }

    /// What was begun and given up is not left behind.
    fn check_leftovers(&self, store: &Store) -> Result<()> {
        let segments = Path::new(DIR).join("segments");
        let files = self.disk.files();
        let is_segment = |path: &&PathBuf| path.starts_with(&segments);
        let there = files.iter().filter(is_segment).count();
        let named = store.stats().levels.iter().map(|level| level.segments).sum::<usize>();
        ensure!(there == named, "{there} segments are there, {named} in use");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_room_writes_are_refused_reads_go_on_and_nothing_is_lost() {
        let counts = run(5).unwrap();
        println!("{counts}");
        assert_eq!(counts.violations, Vec::<String>::new());
        for (operation, _) in OPERATIONS {
            let is_used = counts.fired.contains_key(&operation);
            // The engine reserves room, and never lengthens a file otherwise.
            assert!(is_used || operation == Operation::SetLength, "{operation:?} never failed");
        }
        assert!(counts.healed > 50 && counts.reads > 100 && counts.openings > 0, "{counts}");
    }
}
