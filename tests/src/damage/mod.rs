//! Small data directories, damaged in every single way there is: each byte flipped, each file cut
//! at each length, each file removed, sectors written to the wrong place or left as they were in
//! another file, and files in each other's place.
//!
//! What is opened and read from a damaged directory must be exactly what was written, or an error
//! that names a file: never another value, a panic, or less than what was synced.

mod cluster;
mod embedded;
pub mod held;
mod misplaced;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kvorum_storage::vfs::{CrashMode, MemoryVfs, OpenMode, Vfs as _};

use self::misplaced::Misplaced;

/// Where each directory stands on its disk.
const DIR: &str = "/data";

/// A data directory on a disk of its own, closed, with a way to read all that it says.
pub struct Directory {
    /// Whose it is.
    pub name: &'static str,
    disk: MemoryVfs,
    read: Box<dyn Fn(MemoryVfs) -> Result<String>>,
}

/// One of each kind: an embedded store's, a coordinator's, a replica's, and a replica's that was
/// killed in doubt.
///
/// # Errors
/// If one cannot be made.
pub fn directories() -> Result<Vec<Directory>> {
    let mut directories = vec![embedded::directory()?];
    directories.extend(cluster::directories()?);
    Ok(directories)
}

/// One thing done to one file.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Damage {
    Flip {
        offset: u64,
        mask: u8,
    },
    Cut {
        length: u64,
    },
    Removal,
    /// Bytes lie where others belong.
    Misplaced(Misplaced),
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// Everything was read as it was written.
    Unharmed,
    /// An error named the damaged file.
    Named,
    /// An error named the directory, or another file of it.
    NamedAnother,
}

/// How often what came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Everything was read as it was written.
    pub unharmed: u64,
    /// An error named the damaged file.
    pub named: u64,
    /// An error named the directory, or another file of it.
    pub named_another: u64,
}

impl Counts {
    /// How often it ended well.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.unharmed + self.named + self.named_another
    }
}

/// What came of all the damage to one directory.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Files, and their bytes.
    pub files: u64,
    /// Of all files.
    pub bytes: u64,
    /// Bytes flipped: each in one bit, and in all.
    pub flips: Counts,
    /// Files cut, at each length below their own.
    pub cuts: Counts,
    /// Files removed.
    pub removals: Counts,
    /// Sectors or whole files in the place of others.
    pub misplaced: Counts,
    /// The longest time that one opening and reading took.
    pub slowest: Duration,
    /// What must not be: a wrong answer, an error without a name, a panic.
    pub failures: Vec<String>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {} files, {} bytes", self.files, self.bytes)?;
        let kinds = [
            ("flips", self.flips),
            ("cuts", self.cuts),
            ("removals", self.removals),
            ("misplaced", self.misplaced),
        ];
        for (kind, counts) in kinds {
            writeln!(
                f,
                "  {:>7} {kind:9}  {:>6} read as written  {:>6} refused by name  {:>5} by another",
                counts.total(),
                counts.unharmed,
                counts.named,
                counts.named_another
            )?;
        }
        write!(f, "  {} wrong; the slowest took {:?}", self.failures.len(), self.slowest)
    }
}

impl Directory {
    pub(crate) fn disk(&self) -> &MemoryVfs {
        &self.disk
    }

    pub(crate) fn dir(&self) -> &'static Path {
        Path::new(DIR)
    }

    /// Damages the directory in every way, or in each `step`th, and looks what comes of it.
    ///
    /// # Errors
    /// If it cannot even be read undamaged.
    pub fn damage_all(&self, step: usize) -> Result<Outcome> {
        let truth = (self.read)(self.disk.crash_image(CrashMode::KeepAll));
        let truth = truth.with_context(|| format!("{}, undamaged", self.name))?;
        ensure!(truth.len() > 1_000, "{} says hardly anything", self.name);
        let mut outcome = Outcome::default();
        let try_out = |outcome: &mut Outcome, path: &Path, damage: Damage| {
            let began = Instant::now();
            let seen = self.damage(path, &damage, &truth);
            outcome.slowest = outcome.slowest.max(began.elapsed());
            let told = |what| format!("{}: {}, {damage:?}: {what}", self.name, path.display());
            outcome.add(&damage, seen.map_err(told));
        };
        for path in self.disk.files() {
            let bytes = self.disk.open(&path, OpenMode::Read)?.len()?;
            outcome.files += 1;
            outcome.bytes += bytes;
            for offset in (0..bytes).step_by(step) {
                let bit = 1 << (offset / step as u64 % 8);
                for mask in [bit, 0xff] {
                    let damage = Damage::Flip { offset, mask };
                    try_out(&mut outcome, &path, damage);
                }
            }
            for length in (0..bytes).step_by(step) {
                try_out(&mut outcome, &path, Damage::Cut { length });
            }
            try_out(&mut outcome, &path, Damage::Removal);
            for misplaced in misplaced::all(&self.disk, &path, step)? {
                try_out(&mut outcome, &path, Damage::Misplaced(misplaced));
            }
        }
        Ok(outcome)
    }

    /// Does the damage to a copy, and reads that; an error is what must not be.
    fn damage(&self, path: &Path, damage: &Damage, truth: &str) -> Result<Seen, String> {
        let image = self.disk.crash_image(CrashMode::KeepAll);
        let done = match damage {
            Damage::Flip { offset, mask } => image.flip(path, *offset, *mask),
            Damage::Cut { length } => {
                image.open(path, OpenMode::ReadWrite).and_then(|file| file.set_len(*length))
            }
            Damage::Removal => image.remove(path),
            Damage::Misplaced(misplaced) => misplaced.put(&image, path),
        };
        done.map_err(|error| format!("could not be done: {error}"))?;
        let read = catch_unwind(AssertUnwindSafe(|| (self.read)(image)));
        match read.map_err(|_| "a panic".to_owned())? {
            Ok(read) if read == truth => Ok(Seen::Unharmed),
            Ok(read) => Err(difference(truth, &read)),
            Err(error) => {
                let words = format!("{error:#}");
                if words.contains(&*path.to_string_lossy()) {
                    Ok(Seen::Named)
                } else if words.contains(DIR) {
                    Ok(Seen::NamedAnother)
                } else {
                    Err(format!("an error that names no file: {words}"))
                }
            }
        }
    }
}

impl Outcome {
    fn add(&mut self, damage: &Damage, seen: Result<Seen, String>) {
        let counts = match damage {
            Damage::Flip { .. } => &mut self.flips,
            Damage::Cut { .. } => &mut self.cuts,
            Damage::Removal => &mut self.removals,
            Damage::Misplaced(_) => &mut self.misplaced,
        };
        match seen {
            Ok(Seen::Unharmed) => counts.unharmed += 1,
            Ok(Seen::Named) => counts.named += 1,
            Ok(Seen::NamedAnother) => counts.named_another += 1,
            Err(what) => self.failures.push(what),
        }
    }
}

/// The first line in which two texts differ.
fn difference(truth: &str, read: &str) -> String {
    let lines = truth.lines().zip(read.lines()).find(|(truth, read)| truth != read);
    match lines {
        Some((truth, read)) => format!("{read:.300} instead of {truth:.300}"),
        None => format!("{} lines instead of {}", read.lines().count(), truth.lines().count()),
    }
}

fn dir() -> PathBuf {
    PathBuf::from(DIR)
}
