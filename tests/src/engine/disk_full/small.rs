//! On a real file system of a few megabytes, filled to the last block.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use kvorum_storage::vfs::RealVfs;
use kvorum_storage::{Batch, Compression, Durability, Error, Maintained, Store};

use crate::engine::ledger::Ledger;
use crate::engine::model::Model;
use crate::engine::random::Random;
use crate::engine::small_options;
use crate::engine::work::check_all;

/// How often the file system is filled and freed.
const ROUNDS: u64 = 8;

/// So many refusals, and it is full.
const REFUSALS: u32 = 25;

/// A status that says that there is no such file system here.
const NOT_HERE: i32 = 77;

const MODEL: Model = Model { groups: 1_500, seed: 5, value_bytes_max: 6_000 };

/// What to mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// In memory.
    Tmpfs,
    /// In a file.
    Ext4,
}

impl Kind {
    /// Mounts it where only the shell that does it and its children see it.
    fn script(self) -> &'static str {
        match self {
            Self::Tmpfs => "mount -t tmpfs -o size=24m none \"$0/small\" || exit 77",
            Self::Ext4 => {
                "truncate -s 24m \"$0/image\" && mkfs.ext4 -q \"$0/image\" \
                 && mount -o loop \"$0/image\" \"$0/small\" || exit 77"
            }
        }
    }
}

/// Runs the trial on a file system of this kind, in a process of its own. Answers with what it says,
/// or with nothing if such a file system cannot be mounted here.
///
/// # Errors
/// If the trial fails.
pub fn run(kind: Kind, program: &Path) -> Result<Option<String>> {
    let dir = tempfile::Builder::new().prefix("kvorum-full-").tempdir()?;
    std::fs::create_dir(dir.path().join("small"))?;
    let script = format!("{} ; exec \"$1\" disk-full-child --dir \"$0/small\"", kind.script());
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .arg(dir.path())
        .arg(program)
        .output();
    let Ok(output) = output else { return Ok(None) };
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let errors = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    // Without the right to mount anything, `unshare` itself fails.
    if output.status.code() == Some(NOT_HERE) || errors.starts_with("unshare:") {
        return Ok(None);
    }
    ensure!(output.status.success(), "on {kind:?}: {}: {said} {errors}", output.status);
    Ok(Some(said))
}

/// The trial, in a directory of the small file system.
struct Small {
    dir: PathBuf,
    ledger: Ledger,
    random: Random,
    writes: u64,
    refused: u64,
    reads: u64,
    opened_full: u64,
    refused_openings: u64,
}

/// Fills the file system this directory is on and frees it, over and over.
///
/// # Errors
/// If anything is not as it must be.
pub fn run_child(dir: &Path) -> Result<()> {
    let mut small = Small {
        dir: dir.to_path_buf(),
        ledger: Ledger::in_memory(MODEL.groups),
        random: Random::new(1),
        writes: 0,
        refused: 0,
        reads: 0,
        opened_full: 0,
        refused_openings: 0,
    };
    let mut store = small.open()?;
    for round in 0..ROUNDS {
        small.fill(&store).with_context(|| format!("round {round}, filling"))?;
        if round % 2 == 1 {
            drop(store);
            store = small.reopen_full().with_context(|| format!("round {round}, reopening"))?;
        }
        let _ = std::fs::remove_file(small.ballast());
        small.go_on(&store).with_context(|| format!("round {round}, with room again"))?;
    }
    println!(
        "{ROUNDS} times full: {} writes done, {} refused, {} times everything read; opened {} times while full, and {} times not before there was room",
        small.writes, small.refused, small.reads, small.opened_full, small.refused_openings
    );
    Ok(())
}

impl Small {
    fn open(&self) -> kvorum_storage::Result<Store> {
        let options = small_options(Compression::None);
        Store::open(Arc::new(RealVfs), &self.dir.join("store"), options)
    }

    fn ballast(&self) -> PathBuf {
        self.dir.join("ballast")
    }

    /// Takes all the room that there is, but for what the store has reserved, and writes until
    /// nothing more is taken.
    fn fill(&mut self, store: &Store) -> Result<()> {
        let mut ballast = File::create(self.ballast())?;
        let block = vec![7; 4096];
        while ballast.write_all(&block).is_ok() {}
        let _ = ballast.sync_all();
        let mut refusals = 0;
        for _ in 0..100_000 {
            match self.write(store) {
                Ok(()) => self.writes += 1,
                Err(error) => {
                    let error = error.downcast::<Error>().context("not an error of the store")?;
                    ensure!(matches!(error, Error::DiskFull { .. }), "refused with {error}");
                    refusals += 1;
                    self.refused += 1;
                    if refusals == REFUSALS {
                        return self.check(store);
                    }
                }
            }
        }
        bail!("never full")
    }

    /// Opens the store while there is no room, if it can be: what it needs may have to wait.
    fn reopen_full(&mut self) -> Result<Store> {
        match self.open() {
            Ok(store) => {
                self.opened_full += 1;
                self.check(&store)?;
                Ok(store)
            }
            Err(error) => {
                ensure!(matches!(error, Error::DiskFull { .. }), "refused with {error}");
                self.refused_openings += 1;
                std::fs::remove_file(self.ballast())?;
                Ok(self.open()?)
            }
        }
    }

    /// All goes on at once.
    fn go_on(&mut self, store: &Store) -> Result<()> {
        for _ in 0..300 {
            self.write(store)?;
            self.writes += 1;
        }
        store.flush()?;
        store.compact()?;
        self.check(store)
    }

    fn write(&mut self, store: &Store) -> Result<()> {
        let group = self.random.below(u64::from(MODEL.groups)) as u32;
        let durable = self.random.one_in(2);
        let version = self.ledger.begin(group)?;
        let mut batch = Batch::new();
        MODEL.write(&mut batch, group, version);
        let durability = if durable { Durability::Sync } else { Durability::Buffered };
        let position = store.write(batch, durability)?;
        self.ledger.acknowledge(group, version, Some(position), durable)?;
        while store.maintain()? != Maintained::Nothing {}
        Ok(())
    }

    fn check(&mut self, store: &Store) -> Result<()> {
        self.reads += 1;
        check_all(store, &MODEL, |group| self.ledger.after_kill(group)).map(drop)
    }
}
