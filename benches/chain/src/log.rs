//! A log file as the engine writes one, and nothing in it: whole groups at aligned offsets, past the
//! system's cache where the file system allows it, into a file that has been written to before, and
//! a sync of the data for each group.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, OFlags, StatxFlags, statx};

/// Written from the front again when it is full, as a log does that uses its files again.
const FILE_BYTES: u64 = 64 << 20;

/// Zeros are written ahead in such pieces.
const ZEROS_BYTES: usize = 1 << 20;

/// No file system asks for more.
const ALIGNMENT_MAX: usize = 4096;

/// The file, open for writing by several at once.
#[derive(Debug)]
pub(crate) struct Log {
    file: File,
    alignment: usize,
}

/// Where the next group goes.
#[derive(Debug, Default)]
pub(crate) struct End(u64);

impl Log {
    /// Makes the file, and fills it with zeros.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let what = || format!("making {}", path.display());
        let cached = OpenOptions::new().write(true).create_new(true).open(path);
        let cached = cached.with_context(what)?;
        let direct = open_direct(path).with_context(what)?;
        let (file, alignment) = match direct {
            Some(direct) => direct,
            None => (cached.try_clone().with_context(what)?, 1),
        };
        let log = Self { file, alignment };
        let zeros = Buffer::of(&vec![0; ZEROS_BYTES]);
        for at in (0..FILE_BYTES).step_by(ZEROS_BYTES) {
            log.file.write_all_at(zeros.bytes(), at).with_context(what)?;
        }
        cached.sync_all().with_context(what)?;
        Ok(log)
    }

    /// Takes the place of a group, which it lengthens with zeros to what it will take.
    pub(crate) fn place(&self, end: &mut End, group: &mut Buffer) -> u64 {
        group.resize(group.len().next_multiple_of(self.alignment));
        let bytes = group.len() as u64;
        let at = if end.0 + bytes > FILE_BYTES { 0 } else { end.0 };
        end.0 = at + bytes;
        at
    }

    /// Writes a group at its place, and returns when it is durable.
    pub(crate) fn write(&self, group: &Buffer, at: u64) -> io::Result<()> {
        self.file.write_all_at(group.bytes(), at)?;
        self.file.sync_data()
    }
}

/// The file for direct writes, and their alignment, if the file system has them and says so.
fn open_direct(path: &Path) -> io::Result<Option<(File, usize)>> {
    let flags = OFlags::DIRECT.bits().cast_signed();
    let file = match OpenOptions::new().write(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(None),
        Err(error) => return Err(error),
    };
    let Ok(found) = statx(&file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN) else {
        return Ok(None);
    };
    let alignment = found.stx_dio_offset_align.max(found.stx_dio_mem_align) as usize;
    let says = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::DIOALIGN);
    let fits = says && alignment.is_power_of_two() && alignment <= ALIGNMENT_MAX;
    Ok(fits.then_some((file, alignment)))
}

/// Bytes at an aligned address, used again for each group.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

impl Buffer {
    /// With room for so many bytes.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        let mut bytes: Vec<u8> = Vec::with_capacity(capacity + ALIGNMENT_MAX);
        let start = bytes.as_ptr().align_offset(ALIGNMENT_MAX);
        bytes.resize(start, 0);
        Self { bytes, start }
    }

    fn of(bytes: &[u8]) -> Self {
        let mut buffer = Self::with_capacity(bytes.len());
        buffer.extend_from_slice(bytes);
        buffer
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.truncate(self.start);
    }

    pub(crate) fn extend_from_slice(&mut self, more: &[u8]) {
        self.reserve(more.len());
        self.bytes.extend_from_slice(more);
    }

    fn resize(&mut self, len: usize) {
        self.reserve(len.saturating_sub(self.len()));
        self.bytes.resize(self.start + len, 0);
    }

    /// Growing moves the bytes, and with them the aligned address.
    fn reserve(&mut self, more: usize) {
        if self.bytes.len() + more > self.bytes.capacity() {
            let mut grown = Self::with_capacity(2 * (self.len() + more));
            grown.bytes.extend_from_slice(self.bytes());
            *self = grown;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_stand_one_behind_the_other_and_begin_anew_when_the_file_is_full() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let log = Log::create(&path).unwrap();
        assert_eq!(path.metadata().unwrap().len(), FILE_BYTES);
        let mut end = End::default();
        for (text, expected) in [("first", 0), ("second", log.alignment as u64)] {
            let mut group = Buffer::of(text.as_bytes());
            let at = log.place(&mut end, &mut group);
            log.write(&group, at).unwrap();
            let expected = if log.alignment == 1 { expected * 5 } else { expected };
            assert_eq!(at, expected);
            let file = std::fs::read(&path).unwrap();
            assert!(file[usize::try_from(at).unwrap()..].starts_with(text.as_bytes()));
        }
        let mut rest = Buffer::of(&vec![1; usize::try_from(FILE_BYTES).unwrap() - log.alignment]);
        assert_eq!(log.place(&mut end, &mut rest), 0);
    }

    #[test]
    fn a_buffer_stays_aligned_while_it_grows() {
        let mut buffer = Buffer::with_capacity(0);
        for _ in 0..100 {
            buffer.extend_from_slice(&[7; 1000]);
            assert_eq!(buffer.bytes().as_ptr().align_offset(ALIGNMENT_MAX), 0);
        }
        assert_eq!(buffer.bytes(), &[7; 100_000][..]);
    }
}
