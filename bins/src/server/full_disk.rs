//! A disk that has no room on command, for tests on machines where nobody may make a small one.
//!
//! While the control file exists, whatever needs room is refused as a full disk refuses it; a write
//! may get part of its bytes down first. That is harder than most real disks, which let a file that
//! has its space already be written to: one that copies on write does not. For each refusal a byte
//! is added to a file beside the control file, so that whoever made the disk full can prove it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use kvorum_storage::vfs::{Fault, FaultyVfs, Operation, Outcome, Phase, Vfs};

/// What needs room.
const NEEDS_ROOM: [Operation; 5] = [
    Operation::Write,
    Operation::Allocate,
    Operation::Create,
    Operation::CreateDir,
    Operation::HardLink,
];

/// Bytes of a write that is refused which may get down all the same, at most: enough to tear the
/// largest header and every small record.
const TORN_BYTES_MAX: u64 = 200;

/// Spreads what gets down; any odd number would do.
const TORN_STEP: u64 = 37;

/// The disk `below`, which is full as long as `control` exists.
pub(super) fn full_while(below: Arc<dyn Vfs>, control: &Path) -> io::Result<Arc<dyn Vfs>> {
    let disk = FaultyVfs::new(below);
    let refusals = OpenOptions::new().create(true).append(true).open(refusals(control))?;
    let state = Mutex::new(State { is_full: false, refusals });
    let (control, arms) = (control.to_owned(), disk.clone());
    disk.on_operation(move |event| {
        if !NEEDS_ROOM.contains(&event.operation) {
            return;
        }
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        match event.phase {
            Phase::Before => state.look(&control, &arms),
            Phase::Failed if state.is_full => state.refused(),
            Phase::Failed | Phase::Succeeded => {}
        }
    });
    Ok(Arc::new(disk))
}

fn refusals(control: &Path) -> PathBuf {
    let mut name = control.as_os_str().to_owned();
    name.push(".refused");
    name.into()
}

struct State {
    is_full: bool,
    refusals: File,
}

impl State {
    /// Fills the disk, or gives it room again, if somebody has said so since the last look.
    fn look(&mut self, control: &Path, disk: &FaultyVfs) {
        let is_full = fs::exists(control).unwrap_or(self.is_full);
        if is_full == self.is_full {
            return;
        }
        self.is_full = is_full;
        disk.heal();
        if !is_full {
            tracing::warn!("for a test, the disk has room again");
            return;
        }
        tracing::warn!("for a test, the disk has no room");
        let refused = self.refusals.metadata().map_or(0, |file| file.len());
        let torn = refused.wrapping_mul(TORN_STEP) % TORN_BYTES_MAX;
        let torn = usize::try_from(torn).expect("it is below two hundred");
        for operation in NEEDS_ROOM {
            let outcome = match operation {
                Operation::Write => Outcome::ShortWriteFull(torn),
                _ => Outcome::DiskFull,
            };
            // It lasts as long as it is not healed.
            let _ = disk.arm(Fault::always(operation, outcome));
        }
    }

    fn refused(&mut self) {
        // Whoever counts finds one less: it errs on the side of too little proof.
        let _ = self.refusals.write_all(b".");
    }
}

#[cfg(test)]
mod tests {
    use kvorum_storage::vfs::{MemoryVfs, OpenMode};

    use super::*;

    #[test]
    fn the_disk_is_full_while_the_file_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let control = directory.path().join("full");
        let disk = full_while(Arc::new(MemoryVfs::new()), &control).unwrap();
        disk.create_dir_all(Path::new("data")).unwrap();
        let file = disk.open(Path::new("data/file"), OpenMode::Create).unwrap();
        file.write_at(b"before", 0).unwrap();
        fs::write(&control, "").unwrap();
        let full =
            |result: io::Result<()>| result.unwrap_err().kind() == io::ErrorKind::StorageFull;
        assert!(full(file.write_at(b"meanwhile", 6)));
        assert!(full(disk.open(Path::new("data/other"), OpenMode::Create).map(drop)));
        assert!(full(file.allocate(4096)));
        let mut read = [0; 6];
        assert_eq!(file.read_at(&mut read, 0).unwrap(), 6);
        assert_eq!(&read, b"before");
        file.sync().unwrap();
        assert_eq!(fs::metadata(refusals(&control)).unwrap().len(), 3);
        fs::remove_file(&control).unwrap();
        file.write_at(b"after", 6).unwrap();
        assert_eq!(fs::metadata(refusals(&control)).unwrap().len(), 3);
    }
}
