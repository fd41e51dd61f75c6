//! A disk in memory that knows what was synced, and shows what a crash would leave of it.
//!
//! ```text
//!   write_at, set_len ──► current content ──sync──────► durable content      per file
//!   create, rename, … ──► current entries ──sync_dir──► durable entries      per directory
//! ```
//!
//! Programs see what is current. [`MemoryVfs::crash_image`] makes a second disk out of what is
//! durable and of as much of the rest as [`CrashMode`] says. Nothing here is left to chance: the
//! same operations and the same seed give the same image.
//!
//! Departures from real disks, all towards simplicity: a new directory is durable at once, files
//! cannot be renamed from one directory to another, and there is always room (for a full disk, see
//! [`super::FaultyVfs`]).

mod content;
mod directory;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use self::content::Content;
use self::directory::{Directory, Inode};
use super::{OpenMode, Vfs, VfsDirect, VfsFile, VfsLock};

/// How direct writes are aligned, unless one says otherwise. Less than on real disks, so that small
/// tests come to much.
const DIRECT_ALIGNMENT: usize = 64;

/// A disk in memory. Clones are handles of the same disk.
#[derive(Clone)]
pub struct MemoryVfs {
    disk: Arc<Mutex<Disk>>,
    /// How direct writes must be aligned; none if there are none.
    direct: Option<usize>,
}

impl Default for MemoryVfs {
    fn default() -> Self {
        Self { disk: Arc::default(), direct: Some(DIRECT_ALIGNMENT) }
    }
}

/// How much of what was not synced survives a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashMode {
    /// Nothing: the power fails, and the disk had been lazy.
    LoseUnsynced,
    /// Everything: the process dies, and the system lives. What was not synced still is not, and
    /// a second crash can take it.
    KeepAll,
    /// The power fails at some moment of writing back. Of each sector of 512 bytes any of its
    /// states since the last sync may have reached the disk, of each file any of its lengths, of
    /// each directory some of the changes to it, in order or not.
    Random {
        /// Decides which.
        seed: u64,
    },
}

#[derive(Default)]
struct Disk {
    directories: BTreeMap<PathBuf, Directory>,
    locked: BTreeSet<PathBuf>,
}

impl MemoryVfs {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same disk, with direct writes of this alignment, or without any. What it is when a file
    /// is opened counts.
    ///
    /// # Panics
    ///
    /// If the alignment is not a power of two up to 4096.
    #[must_use]
    pub fn with_direct(self, alignment: Option<usize>) -> Self {
        assert!(alignment.is_none_or(|bytes| bytes.is_power_of_two() && bytes <= 4096));
        Self { direct: alignment, ..self }
    }

    /// The disk as it would be found after a crash now. Nothing in it is locked. The disk itself
    /// stays as it is.
    #[must_use]
    pub fn crash_image(&self, mode: CrashMode) -> Self {
        let disk = self.disk();
        let mut crash = Crash::new(mode);
        let mut image = Disk::default();
        for (path, directory) in &disk.directories {
            image.directories.insert(path.clone(), directory.crash_image(&mut crash));
        }
        Self { disk: Arc::new(Mutex::new(image)), direct: self.direct }
    }

    /// How many changes to files and directories a crash could undo. A crash test that never finds
    /// one here proves nothing.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        self.disk().directories.values().map(Directory::unsynced).sum()
    }

    /// Every file's path, sorted.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let disk = self.disk();
        let files = |(dir, directory): (&PathBuf, &Directory)| {
            directory.names().map(|name| dir.join(name)).collect::<Vec<_>>()
        };
        disk.directories.iter().flat_map(files).collect()
    }

    /// Damages a byte where it lies, durably: the bits set in `mask` are turned over.
    pub fn flip(&self, path: &Path, offset: u64, mask: u8) -> io::Result<()> {
        self.disk().inode(path)?.content().flip(offset, mask)
    }

    /// Does to a file what a failed `fsync` does: its writes since the last sync stay visible, but
    /// the system counts them as written, so no later sync brings them to the disk. Only writing
    /// the same bytes again does.
    pub fn drop_unsynced(&self, path: &Path) -> io::Result<()> {
        self.disk().inode(path)?.content().drop_unsynced();
        Ok(())
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryVfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryVfs").field("files", &self.files()).finish()
    }
}

impl Disk {
    fn directory(&mut self, dir: &Path) -> io::Result<&mut Directory> {
        // Above a name without a path is the place where a process is, by either name.
        let here = if dir == Path::new(".") { Path::new("") } else { dir };
        self.directories.get_mut(here).ok_or_else(|| not_found(dir))
    }

    fn inode(&mut self, path: &Path) -> io::Result<Arc<Inode>> {
        let (dir, name) = split(path)?;
        self.directory(dir)?.get(name).ok_or_else(|| not_found(path))
    }
}

impl Vfs for MemoryVfs {
    fn is_simulated(&self) -> bool {
        true
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        for ancestor in dir.ancestors() {
            disk.directories.entry(ancestor.to_path_buf()).or_default();
        }
        Ok(())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>> {
        let mut disk = self.disk();
        let inode = match mode {
            OpenMode::Read | OpenMode::ReadWrite => disk.inode(path)?,
            OpenMode::Create => {
                let (dir, name) = split(path)?;
                disk.directory(dir)?.create(name)?
            }
        };
        Ok(Arc::new(MemoryFile { inode, writable: mode != OpenMode::Read }))
    }

    fn open_direct(&self, path: &Path) -> io::Result<Option<Arc<dyn VfsDirect>>> {
        let inode = self.disk().inode(path)?;
        Ok(self
            .direct
            .map(|alignment| -> Arc<dyn VfsDirect> { Arc::new(MemoryDirect { inode, alignment }) }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from_dir, from_name) = split(from)?;
        let (to_dir, to_name) = split(to)?;
        if from_dir != to_dir {
            return Err(io::ErrorKind::CrossesDevices.into());
        }
        self.disk().directory(from_dir)?.rename(from_name, to_name)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let (dir, name) = split(path)?;
        self.disk().directory(dir)?.remove(name)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        let inode = disk.inode(from)?;
        let (dir, name) = split(to)?;
        disk.directory(dir)?.link(name, inode)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut disk = self.disk();
        let mut names: Vec<String> = disk.directory(dir)?.names().map(str::to_owned).collect();
        let below = disk.directories.keys().filter(|path| path.parent() == Some(dir));
        names.extend(below.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)));
        names.sort_unstable();
        Ok(names)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk().directory(dir)?.sync();
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn VfsLock>> {
        let (dir, name) = split(path)?;
        let mut disk = self.disk();
        let directory = disk.directory(dir)?;
        if directory.get(name).is_none() {
            directory.create(name)?;
        }
        if !disk.locked.insert(path.to_path_buf()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(MemoryLock { disk: self.clone(), path: path.to_path_buf() }))
    }
}

struct MemoryFile {
    inode: Arc<Inode>,
    writable: bool,
}

impl MemoryFile {
    fn for_writing(&self) -> io::Result<MutexGuard<'_, Content>> {
        if self.writable {
            Ok(self.inode.content())
        } else {
            Err(io::Error::new(io::ErrorKind::PermissionDenied, "the file is open for reading"))
        }
    }
}

impl VfsFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        Ok(self.inode.content().read_at(buffer, offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.for_writing()?.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.inode.content().sync();
        Ok(())
    }

    /// Any of what was not synced may be on the disk at any time.
    fn start_sync(&self, _: u64, _: u64) {}

    fn len(&self) -> io::Result<u64> {
        Ok(self.inode.content().len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.for_writing()?.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut content = self.for_writing()?;
        if content.len() < len { content.set_len(len) } else { Ok(()) }
    }

    fn map(&self) -> io::Result<Bytes> {
        Ok(self.inode.content().map())
    }
}

struct MemoryDirect {
    inode: Arc<Inode>,
    alignment: usize,
}

impl VfsDirect for MemoryDirect {
    fn alignment(&self) -> usize {
        self.alignment
    }

    /// In the device's own cache: a power cut takes it as it takes what only the system holds.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let aligned = |number: usize| number.is_multiple_of(self.alignment);
        let offset_is = offset.is_multiple_of(self.alignment as u64);
        // Where addresses are not known, as in an interpreter, they cannot be asked.
        let address = bytes.as_ptr().align_offset(self.alignment);
        if !offset_is || !aligned(bytes.len()) || (address != 0 && address != usize::MAX) {
            let what = "a direct write that is not aligned";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        self.inode.content().write_at(bytes, offset)
    }
}

struct MemoryLock {
    disk: MemoryVfs,
    path: PathBuf,
}

impl VfsLock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.disk.disk().locked.remove(&self.path);
    }
}

/// One crash: what it does to each file and directory, and which files it has seen, since a file
/// with two names has one content.
struct Crash {
    mode: CrashMode,
    random: Random,
    seen: BTreeMap<usize, Arc<Inode>>,
}

impl Crash {
    fn new(mode: CrashMode) -> Self {
        let seed = match mode {
            CrashMode::LoseUnsynced | CrashMode::KeepAll => 0,
            CrashMode::Random { seed } => seed,
        };
        Self { mode, random: Random(seed), seen: BTreeMap::new() }
    }

    /// Points each of the names to the image of its file.
    fn copy_all<'a>(&mut self, inodes: impl Iterator<Item = &'a mut Arc<Inode>>) {
        for inode in inodes {
            *inode = self.copy(inode);
        }
    }

    fn copy(&mut self, inode: &Arc<Inode>) -> Arc<Inode> {
        let address = Arc::as_ptr(inode).addr();
        if let Some(image) = self.seen.get(&address) {
            return Arc::clone(image);
        }
        let content = inode.content().crash_image(self.mode, &mut self.random);
        let image = Arc::new(Inode::new(content));
        self.seen.insert(address, Arc::clone(&image));
        image
    }
}

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `max`, both included.
    fn up_to(&mut self, max: usize) -> usize {
        // The remainder is below max + 1, which was a usize.
        usize::try_from(self.next() % (max as u64 + 1)).unwrap_or(max)
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.up_to(count - 1) == 0
    }
}

fn split(path: &Path) -> io::Result<(&Path, &str)> {
    let name = path.file_name().and_then(|name| name.to_str());
    match (path.parent(), name) {
        (Some(dir), Some(name)) => Ok((dir, name)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not the path of a file")),
    }
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} does not exist", path.display()))
}
