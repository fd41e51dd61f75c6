//! A disk that fails on command, and tells who listens about every operation.
//!
//! Tests arm [`Fault`]s and later ask each whether it fired; a hook sees every operation before
//! and after, and may take a crash image of the disk below at that point.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rustix::io::Errno;

use super::{OpenMode, Vfs, VfsDirect, VfsFile, VfsLock};

/// What can be asked of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// [`Vfs::create_dir_all`]
    CreateDir,
    /// [`Vfs::open`] of a file that is there, and [`Vfs::open_direct`]
    Open,
    /// [`Vfs::open`] of a new file.
    Create,
    /// [`Vfs::rename`]; its path is the new name.
    Rename,
    /// [`Vfs::remove`]
    Remove,
    /// [`Vfs::hard_link`]; its path is the new name.
    HardLink,
    /// [`Vfs::list`]
    List,
    /// [`Vfs::sync_dir`]
    SyncDir,
    /// [`Vfs::lock`]
    Lock,
    /// [`VfsFile::read_at`]
    Read,
    /// [`VfsFile::write_at`] and [`VfsDirect::write_at`]
    Write,
    /// A [`VfsFile::write_at`] or [`VfsFile::set_len`] that makes a file longer, besides what it is
    /// by itself. Only faults can name it; the hook never sees it.
    Grow,
    /// [`VfsFile::sync`]
    Sync,
    /// [`VfsFile::len`]
    Length,
    /// [`VfsFile::set_len`]
    SetLength,
    /// [`VfsFile::allocate`]
    Allocate,
    /// [`VfsFile::map`]
    Map,
}

impl Operation {
    /// Whether a crash before it and a crash after it can leave different disks.
    #[must_use]
    pub fn changes_disk(self) -> bool {
        match self {
            Self::CreateDir
            | Self::Create
            | Self::Rename
            | Self::Remove
            | Self::HardLink
            | Self::SyncDir
            | Self::Write
            | Self::Grow
            | Self::Sync
            | Self::SetLength
            | Self::Allocate => true,
            Self::Open | Self::List | Self::Lock | Self::Read | Self::Length | Self::Map => false,
        }
    }
}

/// Which operations are to fail, and how.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The operation.
    pub operation: Operation,
    /// Only on paths that contain this text; an empty text stands for all.
    pub path: String,
    /// So many of these operations succeed first.
    pub after: u64,
    /// Then so many fail; `u64::MAX` for all until [`Armed::heal`].
    pub times: u64,
    /// How they fail.
    pub outcome: Outcome,
}

impl Fault {
    /// Fails the next such operation, on whatever path.
    #[must_use]
    pub fn once(operation: Operation, outcome: Outcome) -> Self {
        Self { operation, path: String::new(), after: 0, times: 1, outcome }
    }

    /// Fails every such operation from now on, on whatever path.
    #[must_use]
    pub fn always(operation: Operation, outcome: Outcome) -> Self {
        Self { times: u64::MAX, ..Self::once(operation, outcome) }
    }

    /// The same, on paths that contain this text.
    #[must_use]
    pub fn on(self, path: &str) -> Self {
        Self { path: path.to_owned(), ..self }
    }

    /// The same, after this many have succeeded.
    #[must_use]
    pub fn after(self, after: u64) -> Self {
        Self { after, ..self }
    }
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It does nothing, and says that the device failed (`EIO`).
    InputOutput,
    /// It does nothing, and says that there is no room (`ENOSPC`).
    DiskFull,
    /// It does nothing, and says that too many files are open (`EMFILE`).
    TooManyFiles,
    /// A write puts down this many bytes, and says that the device failed (`EIO`). Other
    /// operations do nothing.
    ShortWrite(usize),
    /// A write puts down this many bytes, and says that there is no room for more (`ENOSPC`).
    /// Other operations do nothing.
    ShortWriteFull(usize),
}

impl Outcome {
    fn error(self) -> io::Error {
        match self {
            Self::InputOutput | Self::ShortWrite(_) => Errno::IO.into(),
            Self::DiskFull | Self::ShortWriteFull(_) => Errno::NOSPC.into(),
            Self::TooManyFiles => Errno::MFILE.into(),
        }
    }

    fn bytes_written(self) -> usize {
        match self {
            Self::InputOutput | Self::DiskFull | Self::TooManyFiles => 0,
            Self::ShortWrite(bytes) | Self::ShortWriteFull(bytes) => bytes,
        }
    }
}

/// A fault that waits for its operation, or has met it. Dropping it changes nothing.
#[derive(Clone, Debug)]
pub struct Armed {
    state: Arc<ArmedState>,
}

#[derive(Debug)]
struct ArmedState {
    fault: Fault,
    seen: AtomicU64,
    fired: AtomicU64,
    healed: AtomicBool,
}

impl Armed {
    /// How often the fault has fired.
    #[must_use]
    pub fn fired(&self) -> u64 {
        self.state.fired.load(Ordering::SeqCst)
    }

    /// From now on the fault does not fire.
    pub fn heal(&self) {
        self.state.healed.store(true, Ordering::SeqCst);
    }

    fn strikes(&self, operation: Operation, path: &Path) -> bool {
        let state = &self.state;
        if state.fault.operation != operation
            || state.healed.load(Ordering::SeqCst)
            || !path.to_string_lossy().contains(&state.fault.path)
        {
            return false;
        }
        let seen = state.seen.fetch_add(1, Ordering::SeqCst);
        let strikes = seen >= state.fault.after && seen - state.fault.after < state.fault.times;
        if strikes {
            state.fired.fetch_add(1, Ordering::SeqCst);
        }
        strikes
    }
}

/// An operation, as the hook sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// What was asked.
    pub operation: Operation,
    /// Of which file or directory.
    pub path: &'a Path,
    /// Before or after.
    pub phase: Phase,
}

/// Where in an operation the hook is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It has not begun.
    Before,
    /// It is done, but its caller does not know yet.
    Succeeded,
    /// It has failed, but its caller does not know yet.
    Failed,
}

type Hook = Arc<dyn Fn(&Event<'_>) + Send + Sync>;

/// A disk that fails on command. Clones are handles of the same disk.
#[derive(Clone)]
pub struct FaultyVfs {
    shared: Arc<Shared>,
}

struct Shared {
    inner: Arc<dyn Vfs>,
    faults: Mutex<Vec<Armed>>,
    hook: Mutex<Option<Hook>>,
    operations: AtomicU64,
}

impl FaultyVfs {
    /// Passes everything on to `inner` until a fault is armed.
    #[must_use]
    pub fn new(inner: Arc<dyn Vfs>) -> Self {
        let shared = Shared {
            inner,
            faults: Mutex::default(),
            hook: Mutex::default(),
            operations: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Arms a fault; the answer tells later whether it fired.
    pub fn arm(&self, fault: Fault) -> Armed {
        let armed = Armed {
            state: Arc::new(ArmedState {
                fault,
                seen: AtomicU64::new(0),
                fired: AtomicU64::new(0),
                healed: AtomicBool::new(false),
            }),
        };
        let mut faults = self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.push(armed.clone());
        armed
    }

    /// Disarms all faults.
    pub fn heal(&self) {
        let mut faults = self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner);
        for fault in faults.drain(..) {
            fault.heal();
        }
    }

    /// Calls `hook` around every operation from now on, on the thread of the caller and with
    /// nothing locked, in place of an earlier hook.
    pub fn on_operation(&self, hook: impl Fn(&Event<'_>) + Send + Sync + 'static) {
        *self.shared.hook.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(hook));
    }

    /// Forgets the hook.
    pub fn forget_hook(&self) {
        *self.shared.hook.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// How many operations have been asked for.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.shared.operations.load(Ordering::SeqCst)
    }
}

impl fmt::Debug for FaultyVfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyVfs").field("operations", &self.operations()).finish_non_exhaustive()
    }
}

impl Shared {
    fn outcome(&self, operation: Operation, path: &Path) -> Option<Outcome> {
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        // Every fault counts what passes, even while another strikes.
        let mut struck = None;
        for fault in &*faults {
            if fault.strikes(operation, path) {
                struck = struck.or(Some(fault.state.fault.outcome));
            }
        }
        struck
    }

    /// Whether it matters if a write makes its file longer: to ask costs something.
    fn watches_growth(&self) -> bool {
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.iter().any(|fault| fault.state.fault.operation == Operation::Grow)
    }

    fn tell(&self, operation: Operation, path: &Path, phase: Phase) {
        let hook = self.hook.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(hook) = hook {
            hook(&Event { operation, path, phase });
        }
    }

    /// Performs an operation, or what a fault makes of it.
    fn perform<T>(
        &self,
        operation: Operation,
        path: &Path,
        grows: impl FnOnce() -> io::Result<bool>,
        succeed: impl FnOnce() -> io::Result<T>,
        fail: impl FnOnce(Outcome) -> io::Result<()>,
    ) -> io::Result<T> {
        self.operations.fetch_add(1, Ordering::SeqCst);
        self.tell(operation, path, Phase::Before);
        let mut outcome = self.outcome(operation, path);
        if outcome.is_none() && self.watches_growth() && grows()? {
            outcome = self.outcome(Operation::Grow, path);
        }
        let result = match outcome {
            None => succeed(),
            Some(outcome) => fail(outcome).and_then(|()| Err(outcome.error())),
        };
        let phase = if result.is_ok() { Phase::Succeeded } else { Phase::Failed };
        self.tell(operation, path, phase);
        result
    }

    fn plain<T>(
        &self,
        operation: Operation,
        path: &Path,
        succeed: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        self.perform(operation, path, || Ok(false), succeed, |_| Ok(()))
    }
}

impl Vfs for FaultyVfs {
    /// Faults and hooks count operations.
    fn is_simulated(&self) -> bool {
        true
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.shared.plain(Operation::CreateDir, dir, || self.shared.inner.create_dir_all(dir))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>> {
        let operation = match mode {
            OpenMode::Read | OpenMode::ReadWrite => Operation::Open,
            OpenMode::Create => Operation::Create,
        };
        let file = self.shared.plain(operation, path, || self.shared.inner.open(path, mode))?;
        let shared = Arc::clone(&self.shared);
        Ok(Arc::new(FaultyFile { shared, path: path.to_path_buf(), file }))
    }

    fn open_direct(&self, path: &Path) -> io::Result<Option<Arc<dyn VfsDirect>>> {
        let open = || self.shared.inner.open_direct(path);
        let direct = self.shared.plain(Operation::Open, path, open)?;
        Ok(direct.map(|file| -> Arc<dyn VfsDirect> {
            let shared = Arc::clone(&self.shared);
            Arc::new(FaultyDirect { shared, path: path.to_path_buf(), file })
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.shared.plain(Operation::Rename, to, || self.shared.inner.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.shared.plain(Operation::Remove, path, || self.shared.inner.remove(path))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.shared.plain(Operation::HardLink, to, || self.shared.inner.hard_link(from, to))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.shared.plain(Operation::List, dir, || self.shared.inner.list(dir))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.shared.plain(Operation::SyncDir, dir, || self.shared.inner.sync_dir(dir))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn VfsLock>> {
        self.shared.plain(Operation::Lock, path, || self.shared.inner.lock(path))
    }
}

/// Keeps the name that the file was opened by; a rename does not change what faults see.
struct FaultyFile {
    shared: Arc<Shared>,
    path: PathBuf,
    file: Arc<dyn VfsFile>,
}

impl FaultyFile {
    fn plain<T>(
        &self,
        operation: Operation,
        succeed: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        self.shared.plain(operation, &self.path, succeed)
    }
}

impl VfsFile for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.plain(Operation::Read, || self.file.read_at(buffer, offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let succeed = || self.file.write_at(bytes, offset);
        let fail = |outcome: Outcome| {
            let count = outcome.bytes_written().min(bytes.len());
            if count > 0 { self.file.write_at(&bytes[..count], offset) } else { Ok(()) }
        };
        let end = offset.saturating_add(bytes.len() as u64);
        let grows = || Ok(self.file.len()? < end);
        self.shared.perform(Operation::Write, &self.path, grows, succeed, fail)
    }

    fn sync(&self) -> io::Result<()> {
        self.plain(Operation::Sync, || self.file.sync())
    }

    fn start_sync(&self, offset: u64, bytes: u64) {
        self.file.start_sync(offset, bytes);
    }

    fn will_need(&self) {
        self.file.will_need();
    }

    fn len(&self) -> io::Result<u64> {
        self.plain(Operation::Length, || self.file.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let grows = || Ok(self.file.len()? < len);
        let succeed = || self.file.set_len(len);
        self.shared.perform(Operation::SetLength, &self.path, grows, succeed, |_| Ok(()))
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.plain(Operation::Allocate, || self.file.allocate(len))
    }

    fn map(&self) -> io::Result<Bytes> {
        self.plain(Operation::Map, || self.file.map())
    }
}

/// Knows its file by the name that it was opened by, as [`FaultyFile`] does.
struct FaultyDirect {
    shared: Arc<Shared>,
    path: PathBuf,
    file: Arc<dyn VfsDirect>,
}

impl VfsDirect for FaultyDirect {
    fn alignment(&self) -> usize {
        self.file.alignment()
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let succeed = || self.file.write_at(bytes, offset);
        let fail = |outcome: Outcome| {
            let count = outcome.bytes_written().min(bytes.len());
            let count = count - count % self.file.alignment();
            if count > 0 { self.file.write_at(&bytes[..count], offset) } else { Ok(()) }
        };
        // Direct writes are for files whose room is reserved.
        self.shared.perform(Operation::Write, &self.path, || Ok(false), succeed, fail)
    }
}
