//! The one door between the engine and a disk.
//!
//! Everything the engine stores goes through [`Vfs`]: `real` is the operating system's file
//! system, `memory` a disk that knows which bytes were synced and can show what a power cut would
//! leave, `faulty` a disk that fails on command. Nothing else in this crate may name `std::fs`.

mod real;

mod faulty;
mod memory;

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

pub use faulty::{Armed, Event, Fault, FaultyVfs, Operation, Outcome, Phase};
pub use memory::{CrashMode, MemoryVfs};
pub use real::RealVfs;

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// It must be there; nothing is written.
    Read,
    /// It must be there.
    ReadWrite,
    /// It must not be there yet. The new directory entry is durable only after [`Vfs::sync_dir`].
    Create,
}

/// A file system. Paths are as the caller gave them; directories end nowhere special.
pub trait Vfs: Send + Sync + 'static {
    /// Makes a directory and its parents; fine if they are there.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Opens or creates a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>>;

    /// Opens a file that is there for writes that go past the system's cache; none if it cannot be
    /// written like that.
    ///
    /// Such writes must not be under way together with [`VfsFile::write_at`] to the same file.
    fn open_direct(&self, path: &Path) -> io::Result<Option<Arc<dyn VfsDirect>>>;

    /// Renames a file over whatever has the new name. Atomic; durable after [`Vfs::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Durable after [`Vfs::sync_dir`].
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes `to` a second name of the file `from`. Durable after [`Vfs::sync_dir`].
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// The names in a directory, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Makes the directory's entries durable: what was created, renamed and removed in it.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes an exclusive lock named by a file, which is created if need be. Fails at once with
    /// [`io::ErrorKind::WouldBlock`] while another process, or another handle of this one, holds
    /// it. Dropping the answer, or dying, lets go.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn VfsLock>>;

    /// Whether what is asked for must come in the same order in every run: then the engine makes no
    /// thread of its own, not even for a moment.
    fn is_simulated(&self) -> bool {
        false
    }
}

/// An open file. All methods may be called from many threads at once.
pub trait VfsFile: Send + Sync {
    /// Reads at most `buffer.len()` bytes from `offset`; fewer only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all bytes at `offset`, growing the file if need be. Not durable until
    /// [`VfsFile::sync`].
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes everything written so far durable, the file's length included (`fdatasync`).
    ///
    /// After an error nothing may be assumed of what was written since the last success, and a
    /// later success proves nothing of it either: callers must give up on the file.
    fn sync(&self) -> io::Result<()>;

    /// Begins to write back what was written to a range, without waiting: a [`VfsFile::sync`] that
    /// comes later has less to do. Promises nothing, and cannot fail.
    fn start_sync(&self, offset: u64, bytes: u64);

    /// All of the file will be read soon, from its beginning: the system may begin now. It is only
    /// advice.
    fn will_need(&self) {}

    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts or zero-extends the file. Durable after [`VfsFile::sync`].
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Reserves space for the first `len` bytes, and makes the file at least that long; the new
    /// bytes read as zeros. Fails with [`io::ErrorKind::StorageFull`] rather than later.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// The whole file as one readable region, without reading it yet where the system can map it.
    /// Only for files that will not change any more.
    fn map(&self) -> io::Result<Bytes>;
}

/// A file that is open for writes past the system's cache. From many threads at once.
pub trait VfsDirect: Send + Sync {
    /// Offsets, lengths and addresses of writes are multiples of it: a power of two, at most 4096.
    fn alignment(&self) -> usize;

    /// Writes all bytes at `offset`, and has handed them to the device on return. They are durable,
    /// like others, after a [`VfsFile::sync`] of the same file that begins later; that one does not
    /// have to write them, and is quick.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
}

/// A held lock; let go when dropped.
pub trait VfsLock: Send + Sync {}
