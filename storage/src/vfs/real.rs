//! The operating system's file system. The only file of this crate that names `std::fs`.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use memmap2::Mmap;
use rustix::fs::{Advice, AtFlags, FallocateFlags, OFlags, StatxFlags, fadvise, fallocate, statx};
use rustix::io::{Errno, retry_on_intr};

use super::{OpenMode, Vfs, VfsDirect, VfsFile, VfsLock};

/// The operating system's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealVfs;

impl Vfs for RealVfs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>> {
        let mut options = OpenOptions::new();
        match mode {
            OpenMode::Read => options.read(true),
            OpenMode::ReadWrite => options.read(true).write(true),
            OpenMode::Create => options.read(true).write(true).create_new(true),
        };
        // To open a pipe would wait for whoever writes to it, perhaps for ever.
        let file = options.custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
        }
        Ok(Arc::new(RealFile { file }))
    }

    fn open_direct(&self, path: &Path) -> io::Result<Option<Arc<dyn VfsDirect>>> {
        let flags = (OFlags::DIRECT | OFlags::NONBLOCK).bits().cast_signed();
        let file = match OpenOptions::new().write(true).custom_flags(flags).open(path) {
            Ok(file) => file,
            // How a file system says that it cannot.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(direct_alignment(&file)
            .map(|alignment| -> Arc<dyn VfsDirect> { Arc::new(DirectFile { file, alignment }) }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            // All our names are ASCII: whatever is not Unicode is not ours, and is left alone.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn VfsLock>> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        file.try_lock()?;
        Ok(Box::new(RealLock { _file: file }))
    }
}

struct RealFile {
    file: File,
}

impl VfsFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn start_sync(&self, offset: u64, bytes: u64) {
        // What is not needed any more is written back before it is dropped. It is only advice.
        let _ = fadvise(&self.file, offset, NonZeroU64::new(bytes), Advice::DontNeed);
    }

    fn will_need(&self) {
        // No length stands for all of it.
        let _ = fadvise(&self.file, 0, None, Advice::WillNeed);
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        match retry_on_intr(|| fallocate(&self.file, FallocateFlags::empty(), 0, len)) {
            Ok(()) => Ok(()),
            // The file system cannot reserve. A full disk will then show at a write instead.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                if self.len()? < len {
                    self.set_len(len)?;
                }
                Ok(())
            }
            Err(errno) => Err(errno.into()),
        }
    }

    fn map(&self) -> io::Result<Bytes> {
        if self.is_empty()? {
            return Ok(Bytes::new());
        }
        // SAFETY: a map is unsound if the file changes or shrinks under it. `VfsFile::map` is for
        // files that are never written again; the store's directory is locked against other
        // processes of ours, and a removed file stays whole until its last map is dropped. No safe
        // call maps a file, since only its users can promise that; to read it would copy each block.
        let map = unsafe { Mmap::map(&self.file)? };
        Ok(Bytes::from_owner(map))
    }
}

/// How direct writes to a file must be aligned, if the file system has them and says so. Some take
/// the flag and then write through the cache all the same: tmpfs is one, and says nothing.
fn direct_alignment(file: &File) -> Option<usize> {
    let found = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).ok()?;
    if !StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::DIOALIGN) {
        return None;
    }
    let alignment = found.stx_dio_offset_align.max(found.stx_dio_mem_align);
    let fits = found.stx_dio_offset_align > 0 && alignment.is_power_of_two() && alignment <= 4096;
    usize::try_from(alignment).ok().filter(|_| fits)
}

struct DirectFile {
    file: File,
    alignment: usize,
}

impl VfsDirect for DirectFile {
    fn alignment(&self) -> usize {
        self.alignment
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }
}

/// The lock belongs to the open file, so closing it lets go, and so does dying.
struct RealLock {
    _file: File,
}

impl VfsLock for RealLock {}
