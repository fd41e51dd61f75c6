//! A machine's disk: in memory, knowing what is synced, failing when told, and able to show what
//! a crash in the middle of any operation would leave.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvorum_storage::vfs::{
    Armed, CrashMode, Event, Fault as DiskFault, FaultyVfs, MemoryVfs, OpenMode, Operation,
    Outcome, Phase, Vfs,
};

use crate::faults::{Counts, Fault};
use crate::rot::Rot;

/// How a machine stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crash {
    /// The process dies; the machine goes on.
    Kill,
    /// The power fails; nothing unsynced is left.
    PowerLoss,
    /// The power fails; of what is unsynced anything may be left.
    Torn { seed: u64 },
}

impl Crash {
    fn mode(self) -> CrashMode {
        match self {
            Self::Kill => CrashMode::KeepAll,
            Self::PowerLoss => CrashMode::LoseUnsynced,
            Self::Torn { seed } => CrashMode::Random { seed },
        }
    }

    /// Which fault this is on a disk with so many unsynced changes.
    pub(crate) fn fault(self, unsynced: usize) -> Fault {
        match self {
            Self::Torn { .. } if unsynced > 0 => Fault::TornWrites,
            Self::PowerLoss | Self::Torn { .. } => Fault::PowerLoss,
            Self::Kill => Fault::Kill,
        }
    }
}

pub(crate) struct Disk {
    memory: MemoryVfs,
    faulty: FaultyVfs,
    armed: Vec<Watched>,
    full: bool,
    doom: Arc<Mutex<Doom>>,
    rot: Option<Rot>,
}

/// A fault of this disk, and how often it has been counted.
struct Watched {
    fault: Fault,
    armed: Armed,
    counted: u64,
}

/// A crash planned for the middle of a disk operation, and what it leaves.
#[derive(Default)]
struct Doom {
    /// So many operations that change names first: what they do is done once in a long while, and
    /// what must be durable before them is found missing nowhere else.
    after_names: u64,
    /// And then so many others.
    after: u64,
    crash: Option<Crash>,
    /// Whether a failed sync also makes the system forget what it should have written.
    forgetful: bool,
    image: Option<(Crash, usize, MemoryVfs)>,
}

impl Disk {
    pub(crate) fn new() -> Self {
        Self::over(MemoryVfs::new())
    }

    fn over(memory: MemoryVfs) -> Self {
        let faulty = FaultyVfs::new(Arc::new(memory.clone()));
        let doom = Arc::new(Mutex::new(Doom::default()));
        let (theirs, below) = (Arc::clone(&doom), memory.clone());
        faulty.on_operation(move |event| watch(&theirs, &below, event));
        Self { memory, faulty, armed: Vec::new(), full: false, doom, rot: None }
    }

    pub(crate) fn vfs(&self) -> Arc<dyn Vfs> {
        Arc::new(self.faulty.clone())
    }

    /// The disk after a crash now.
    pub(crate) fn crash(&mut self, crash: Crash) -> Fault {
        let fault = crash.fault(self.memory.unsynced());
        self.replace(self.memory.crash_image(crash.mode()));
        fault
    }

    /// Plans a crash for the middle of a disk operation, after so many others.
    pub(crate) fn doom(&mut self, after: u64, crash: Crash) {
        self.doom_after_names(0, after, crash);
    }

    /// The same, but first wait for so many operations that change the names in a directory.
    pub(crate) fn doom_after_names(&mut self, names: u64, after: u64, crash: Crash) {
        let mut doom = self.lock();
        doom.after_names = names;
        doom.after = after;
        doom.crash = Some(crash);
    }

    /// Plans no crash any more.
    pub(crate) fn spare(&mut self) {
        self.lock().crash = None;
    }

    /// Whether a planned crash has come; the disk is then what it left.
    pub(crate) fn take_doom(&mut self) -> Option<Fault> {
        let (crash, unsynced, image) = self.lock().image.take()?;
        self.replace(image);
        Some(crash.fault(unsynced))
    }

    /// What a crash left takes the place of what was; a full disk stays full.
    fn replace(&mut self, image: MemoryVfs) {
        let full = self.full;
        let rot = self.rot.take();
        *self = Self::over(image);
        self.rot = rot;
        if full {
            self.fill();
        }
    }

    /// Another disk with the same content.
    pub(crate) fn copy(&self) -> Self {
        Self::over(self.memory.crash_image(CrashMode::KeepAll))
    }

    pub(crate) fn files(&self) -> Vec<PathBuf> {
        self.memory.files()
    }

    /// Turns bits over in the byte at this place of a file, counted round it.
    pub(crate) fn flip(&self, file: &Path, place: u64, mask: u8) {
        let length = self.memory.open(file, OpenMode::Read).and_then(|file| file.len());
        let place = place.checked_rem(length.unwrap_or(0)).unwrap_or(0);
        // An empty file has nothing to rot.
        let _ = self.memory.flip(file, place, mask);
    }

    /// Makes an operation of the disk fail.
    pub(crate) fn arm(&mut self, fault: Fault, after: u64, short_bytes: usize, forgetful: bool) {
        let once = |operation, outcome| DiskFault::once(operation, outcome).after(after);
        let disk_fault = match fault {
            Fault::WriteFailed => once(Operation::Write, Outcome::InputOutput),
            Fault::WriteShort => once(Operation::Write, Outcome::ShortWrite(short_bytes)),
            Fault::SyncFailed => {
                self.lock().forgetful = forgetful;
                once(Operation::Sync, Outcome::InputOutput)
            }
            Fault::SyncFull => {
                self.lock().forgetful = forgetful;
                let operation = if forgetful { Operation::Sync } else { Operation::SyncDir };
                once(operation, Outcome::DiskFull)
            }
            // A file is read when it is opened, or mapped then; what is mapped is not read again.
            Fault::ReadFailed => {
                let operation = if forgetful { Operation::Map } else { Operation::Read };
                DiskFault { times: 1 + after, ..once(operation, Outcome::InputOutput) }
            }
            other => unreachable!("{other:?} is not armed on a disk"),
        };
        let armed = self.faulty.arm(disk_fault);
        self.armed.push(Watched { fault, armed, counted: 0 });
    }

    /// No room for anything new until [`Self::heal`].
    pub(crate) fn fill(&mut self) {
        self.full = true;
        let refused = [
            (Operation::Create, Outcome::DiskFull),
            (Operation::Allocate, Outcome::DiskFull),
            (Operation::Grow, Outcome::ShortWriteFull(100)),
        ];
        for (operation, outcome) in refused {
            let armed = self.faulty.arm(DiskFault::always(operation, outcome));
            self.armed.push(Watched { fault: Fault::DiskFull, armed, counted: 0 });
        }
    }

    /// Turns a bit over, if none is wrong yet and there is a file for it.
    pub(crate) fn strike_rot(&mut self, fault: Fault, number: u64) -> bool {
        if self.rot.is_none() {
            self.rot = Rot::strike(&self.memory, fault, number);
            return self.rot.is_some();
        }
        false
    }

    /// The bit that is wrong, if one is.
    pub(crate) fn rot(&self) -> Option<&Rot> {
        self.rot.as_ref()
    }

    /// Whether that damaged file is there still.
    pub(crate) fn still_has(&self, rot: &Rot) -> bool {
        rot.is_there(&self.memory)
    }

    /// Puts the bit right.
    pub(crate) fn repair_rot(&mut self) {
        if let Some(rot) = self.rot.take() {
            rot.repair(&self.memory);
        }
    }

    /// A copy of the disk as it is, on which nothing fails but what is wrong with it.
    pub(crate) fn image(&self) -> MemoryVfs {
        self.memory.crash_image(CrashMode::KeepAll)
    }

    /// No fault strikes any more; those that have not been counted yet are.
    pub(crate) fn heal(&mut self, counts: &mut Counts) {
        self.settle(counts);
        self.faulty.heal();
        self.armed.clear();
        self.full = false;
        let mut doom = self.lock();
        doom.crash = None;
        doom.forgetful = false;
    }

    /// Counts the armed faults that have struck; says whether any did since the last time.
    pub(crate) fn settle(&mut self, counts: &mut Counts) -> bool {
        let mut any = false;
        for watched in &mut self.armed {
            let fired = watched.armed.fired();
            counts.add_many(watched.fault, fired - watched.counted);
            any |= fired > watched.counted;
            watched.counted = fired;
        }
        any
    }

    fn lock(&self) -> MutexGuard<'_, Doom> {
        self.doom.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sees every operation: takes the image of a crash planned for it, and lets a failed sync forget.
fn watch(doom: &Mutex<Doom>, memory: &MemoryVfs, event: &Event<'_>) {
    let mut doom = doom.lock().unwrap_or_else(PoisonError::into_inner);
    if event.phase == Phase::Failed && event.operation == Operation::Sync && doom.forgetful {
        forget(memory, event.path);
    }
    if event.phase != Phase::Before || !event.operation.changes_disk() || doom.image.is_some() {
        return;
    }
    let Some(crash) = doom.crash else { return };
    if doom.after_names > 0 {
        doom.after_names -= u64::from(changes_names(event.operation));
        return;
    }
    if doom.after > 0 {
        doom.after -= 1;
        return;
    }
    doom.crash = None;
    doom.image = Some((crash, memory.unsynced(), memory.crash_image(crash.mode())));
}

fn changes_names(operation: Operation) -> bool {
    match operation {
        Operation::Create
        | Operation::Rename
        | Operation::Remove
        | Operation::HardLink
        | Operation::SyncDir => true,
        Operation::CreateDir
        | Operation::Open
        | Operation::List
        | Operation::Lock
        | Operation::Read
        | Operation::Write
        | Operation::Grow
        | Operation::Sync
        | Operation::Length
        | Operation::SetLength
        | Operation::Allocate
        | Operation::Map => false,
    }
}

/// The file may have been removed meanwhile, and then there is nothing to forget.
fn forget(memory: &MemoryVfs, path: &Path) {
    let _ = memory.drop_unsynced(path);
}
