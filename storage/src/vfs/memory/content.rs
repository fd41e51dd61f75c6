//! A file's bytes: those that programs see, those that a crash leaves, and the writes between.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::{CrashMode, Random};

/// What disks write whole or not at all.
const SECTOR_BYTES: usize = 512;

/// Contents are shared with crash images and maps until either side writes.
#[derive(Clone, Default)]
pub(super) struct Content {
    current: Arc<Vec<u8>>,
    durable: Arc<Vec<u8>>,
    /// What made `current` out of `durable`, in order.
    writes: Vec<Write>,
    /// The lengths that the file has had since the last sync, in order.
    lengths: Vec<usize>,
}

#[derive(Clone)]
struct Write {
    offset: usize,
    bytes: Vec<u8>,
}

impl Write {
    /// Puts the part of the write that lies in `from..to` there.
    fn apply(&self, content: &mut [u8], from: usize, to: usize) {
        let from = from.max(self.offset);
        let to = to.min(self.offset + self.bytes.len()).min(content.len());
        if from < to {
            content[from..to].copy_from_slice(&self.bytes[from - self.offset..to - self.offset]);
        }
    }
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.current.len() as u64
    }

    pub(super) fn read_at(&self, buffer: &mut [u8], offset: u64) -> usize {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.current.len());
        let count = buffer.len().min(self.current.len() - start);
        buffer[..count].copy_from_slice(&self.current[start..start + count]);
        count
    }

    pub(super) fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let offset = to_usize(offset)?;
        let end = offset.checked_add(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        if end > self.current.len() {
            self.resize(end);
        }
        self.write(Write { offset, bytes: bytes.to_vec() });
        Ok(())
    }

    pub(super) fn set_len(&mut self, len: u64) -> io::Result<()> {
        let len = to_usize(len)?;
        if len < self.current.len() {
            // What is cut off must not come back if the file grows again before a crash.
            self.write(Write { offset: len, bytes: vec![0; self.current.len() - len] });
        }
        self.resize(len);
        Ok(())
    }

    fn write(&mut self, write: Write) {
        let current = Arc::make_mut(&mut self.current);
        let end = current.len();
        write.apply(current, 0, end);
        self.writes.push(write);
    }

    fn resize(&mut self, len: usize) {
        Arc::make_mut(&mut self.current).resize(len, 0);
        self.lengths.push(len);
    }

    pub(super) fn sync(&mut self) {
        let durable = Arc::make_mut(&mut self.durable);
        durable.resize(self.current.len(), 0);
        for write in self.writes.drain(..) {
            let end = durable.len();
            write.apply(durable, 0, end);
        }
        self.lengths.clear();
    }

    pub(super) fn unsynced(&self) -> usize {
        self.writes.len() + self.lengths.len()
    }

    pub(super) fn map(&self) -> Bytes {
        Bytes::from_owner(Mapped(Arc::clone(&self.current)))
    }

    pub(super) fn flip(&mut self, offset: u64, mask: u8) -> io::Result<()> {
        let offset = to_usize(offset)?;
        for side in [&mut self.current, &mut self.durable] {
            if let Some(byte) = Arc::make_mut(side).get_mut(offset) {
                *byte ^= mask;
            }
        }
        if offset < self.current.len() { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }

    /// As a failed sync leaves it: programs still see the writes, but the system holds them for
    /// written, so that no later sync brings them to the disk.
    pub(super) fn drop_unsynced(&mut self) {
        self.writes.clear();
    }

    pub(super) fn crash_image(&self, mode: CrashMode, random: &mut Random) -> Self {
        let left = match mode {
            CrashMode::KeepAll => return self.clone(),
            CrashMode::LoseUnsynced => Arc::clone(&self.durable),
            CrashMode::Random { .. } => self.random_image(random),
        };
        Self { current: Arc::clone(&left), durable: left, writes: Vec::new(), lengths: Vec::new() }
    }

    /// A sector is written back as a whole, as it is at that moment: it may hold any number of the
    /// writes to it, but none without those before.
    fn random_image(&self, random: &mut Random) -> Arc<Vec<u8>> {
        if self.unsynced() == 0 {
            return Arc::clone(&self.durable);
        }
        let mut left = Vec::clone(&self.durable);
        left.resize(self.current.len().max(left.len()), 0);
        // From "nearly all was written back" to "whatever happened to be".
        let lag_one_in = [1, 2, 16][random.up_to(2)];
        for (sector, writes) in self.writes_by_sector() {
            let lags = random.one_in(lag_one_in);
            let survive = if lags { random.up_to(writes.len()) } else { writes.len() };
            let start = sector * SECTOR_BYTES;
            for index in &writes[..survive] {
                self.writes[*index].apply(&mut left, start, start + SECTOR_BYTES);
            }
        }
        left.truncate(self.random_length(random));
        left.into()
    }

    fn writes_by_sector(&self) -> BTreeMap<usize, Vec<usize>> {
        let mut sectors: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (index, write) in self.writes.iter().enumerate() {
            let end = (write.offset + write.bytes.len()).div_ceil(SECTOR_BYTES);
            for sector in write.offset / SECTOR_BYTES..end {
                sectors.entry(sector).or_default().push(index);
            }
        }
        sectors
    }

    fn random_length(&self, random: &mut Random) -> usize {
        if random.one_in(2) {
            return self.current.len();
        }
        match random.up_to(self.lengths.len()) {
            0 => self.durable.len(),
            index => self.lengths[index - 1],
        }
    }
}

struct Mapped(Arc<Vec<u8>>);

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn to_usize(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge.into())
}
