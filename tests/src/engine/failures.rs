//! A disk that fails once and then says that all is well: at each operation that changes it.
//!
//! After a sync that failed the system counts what was to be written as written, so a later success
//! says nothing of it. What was acknowledged, before or after, must be there when the power is cut.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use kvorum_storage::vfs::{
    Armed, CrashMode, Fault, FaultyVfs, MemoryVfs, Operation, Outcome, Phase,
};
use kvorum_storage::{Compression, Durability, Error, Maintained, Store};

use super::batches::{self, Batches};
use super::counted::{by_operation, write_violations};
use super::random::hash;
use super::tiny_options;

const DIR: &str = "/store";

/// Batches of a trial.
const BATCHES: u64 = 60;

/// Writes that are tried after the failure.
const AFTERWARDS: u64 = 5;

const VIOLATIONS_MAX: usize = 20;

const OPERATIONS: [Operation; 8] = [
    Operation::Write,
    Operation::Sync,
    Operation::SyncDir,
    Operation::Rename,
    Operation::Create,
    Operation::Remove,
    Operation::Allocate,
    Operation::CreateDir,
];

/// How often what.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Failures, by operation.
    pub fired: BTreeMap<Operation, u64>,
    /// Failures after which nothing more was taken until the store was opened again.
    pub poisoned: u64,
    /// Failures after which it went on, since nothing was in doubt.
    pub went_on: u64,
    /// Failures that nobody needed to know of.
    pub harmless: u64,
    /// Openings that failed, and then did not.
    pub openings: u64,
    /// Disks that were looked at after a power cut.
    pub images: u64,
    /// What must not be.
    pub violations: Vec<String>,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (fired, by) = by_operation(&self.fired);
        writeln!(f, "  {fired} failures: {by}")?;
        writeln!(
            f,
            "  after {} nothing more was taken, after {} it went on, {} were harmless, {} were at an opening",
            self.poisoned, self.went_on, self.harmless, self.openings
        )?;
        writeln!(f, "  {} disks recovered after a power cut", self.images)?;
        write_violations(f, &self.violations)
    }
}

/// Lets each operation fail once in turn, each `step`th time that it comes up.
///
/// # Errors
/// If it cannot be tried.
pub fn run(step: u64) -> Result<Counts> {
    let batches = Batches::new(BATCHES + AFTERWARDS);
    let mut counts = Counts::default();
    for operation in OPERATIONS {
        for after in (0..).step_by(step.max(1) as usize) {
            let (disk, faulty, armed) = failing(operation, after);
            let tried = try_one(&batches, &disk, &faulty, &armed, &mut counts);
            if armed.fired() == 0 {
                tried.with_context(|| format!("without a failure, {operation:?}"))?;
                break;
            }
            *counts.fired.entry(operation).or_default() += 1;
            if let Err(error) = tried {
                counts.violations.push(format!("{operation:?} after {after}: {error:#}"));
                if counts.violations.len() >= VIOLATIONS_MAX {
                    return Ok(counts);
                }
            }
        }
    }
    Ok(counts)
}

fn failing(operation: Operation, after: u64) -> (MemoryVfs, FaultyVfs, Armed) {
    let disk = MemoryVfs::new();
    let faulty = FaultyVfs::new(Arc::new(disk.clone()));
    let armed = faulty.arm(Fault::once(operation, Outcome::InputOutput).after(after));
    faulty.on_operation({
        let disk = disk.clone();
        move |event| {
            if event.operation == Operation::Sync && event.phase == Phase::Failed {
                // A file that is not there has nothing to lose.
                let _ = disk.drop_unsynced(event.path);
            }
        }
    });
    (disk, faulty, armed)
}

fn open(vfs: Arc<dyn kvorum_storage::vfs::Vfs>) -> kvorum_storage::Result<Store> {
    Store::open(vfs, Path::new(DIR), tiny_options(Compression::None))
}

fn try_one(
    batches: &Batches,
    disk: &MemoryVfs,
    faulty: &FaultyVfs,
    armed: &Armed,
    counts: &mut Counts,
) -> Result<()> {
    let store = match open(Arc::new(faulty.clone())) {
        Ok(store) => store,
        Err(error) => {
            ensure!(armed.fired() > 0, "opening: {error}");
            counts.openings += 1;
            let store = open(Arc::new(faulty.clone())).context("opening a second time")?;
            ensure!(batches.count(&store)? == 0, "something is there");
            return Ok(());
        }
    };
    let (mut acknowledged, mut begun, mut failures) = (0, 0, 0);
    while begun < BATCHES && failures < AFTERWARDS {
        // A batch that was refused and may be there yet must not come after its successor.
        begun = acknowledged + 1;
        match write(&store, begun, &mut acknowledged) {
            Ok(()) => {}
            Err(error) => {
                ensure!(armed.fired() > 0, "without a failure: {error}");
                ensure!(
                    matches!(error, Error::Io { .. } | Error::Poisoned { .. }),
                    "a failure that says {error}"
                );
                failures += 1;
                let count = batches.count(&store).context("reads go on")?;
                ensure!((acknowledged..=begun).contains(&count), "{count}, not {acknowledged}");
            }
        }
    }
    match failures {
        0 => counts.harmless += u64::from(armed.fired() > 0),
        AFTERWARDS => counts.poisoned += 1,
        _ => counts.went_on += 1,
    }
    check_images(batches, disk, acknowledged, begun, counts)
}

fn write(store: &Store, number: u64, acknowledged: &mut u64) -> kvorum_storage::Result<()> {
    batches::write(store, number, Durability::Sync)?;
    *acknowledged = number;
    while store.maintain()? != Maintained::Nothing {}
    if number.is_multiple_of(20) {
        store.compact()?;
    }
    Ok(())
}

/// What is there when the power is cut, at once, or after the store was opened again.
fn check_images(
    batches: &Batches,
    disk: &MemoryVfs,
    acknowledged: u64,
    begun: u64,
    counts: &mut Counts,
) -> Result<()> {
    let random = (0..3).map(|seed| CrashMode::Random { seed: hash(&[seed, begun]) });
    for mode in [CrashMode::LoseUnsynced, CrashMode::KeepAll].into_iter().chain(random) {
        let image = disk.crash_image(mode);
        let store = open(Arc::new(image.clone())).with_context(|| format!("after {mode:?}"))?;
        let count = batches.count_sound(&store).with_context(|| format!("after {mode:?}"))?;
        ensure!(
            (acknowledged..=begun).contains(&count),
            "{count} batches after {mode:?}, of which {acknowledged} were acknowledged"
        );
        drop(store);
        // What the opening has found must not be lost by the next cut.
        let store = open(Arc::new(image.crash_image(CrashMode::LoseUnsynced)))
            .with_context(|| format!("after {mode:?} and a second cut"))?;
        let again = batches.count_sound(&store)?;
        ensure!(again == count, "{count} batches after {mode:?}, and {again} after a second cut");
        counts.images += 2;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_is_over_is_not_forgotten() {
        let counts = run(3).unwrap();
        println!("{counts}");
        assert_eq!(counts.violations, Vec::<String>::new());
        for operation in [Operation::Write, Operation::Sync, Operation::SyncDir, Operation::Rename]
        {
            assert!(counts.fired[&operation] > 3, "{counts}");
        }
        assert!(counts.poisoned > 50 && counts.images > 500, "{counts}");
    }
}
