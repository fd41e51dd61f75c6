//! What an owner of a store may choose.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::compaction::Limits;
use crate::error::{Error, Result};
use crate::log::LogOptions;
use crate::planted::Planted;
use crate::segment::{Compression, SegmentOptions};
use crate::store::Store;
use crate::vfs::RealVfs;

/// How a store behaves. Nothing here is stored: any of it may differ at the next opening.
///
/// The defaults suit a store of some gigabytes beside other things in a process: about 400 MiB of
/// memory at the most, nothing compressed. Change what you know better, by name: fields are added in
/// new versions, so write `..Options::default()`, or use the methods.
///
/// ```
/// # fn main() -> kvorum_storage::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path().join("store");
/// use kvorum_storage::{Compression, Options};
///
/// let store = Options::new().compression(Compression::Lz4).memtable_bytes(16 << 20).open(dir)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether a store is made where there is none. Without it, opening such a directory fails with
    /// [`Error::Missing`], for example where a backup was to be.
    pub create_if_missing: bool,
    /// A memtable of this size is frozen and waits to be flushed.
    pub memtable_bytes: usize,
    /// When so many frozen memtables wait, [`Pressure::Stop`](crate::Pressure::Stop) is the answer
    /// to whoever asks whether to write.
    pub memtables_max: usize,
    /// Blocks of segments are closed at this size.
    pub block_bytes: usize,
    /// Compaction begins a new segment at this size.
    pub segment_bytes: u64,
    /// How blocks of segments are compressed.
    pub compression: Compression,
    /// From this level on. What is on the levels above is little, and is soon written again.
    pub compression_from_level: usize,
    /// So many bytes of decompressed blocks are kept. Blocks that are not compressed need none of
    /// it: the system keeps their pages.
    pub block_cache_bytes: usize,
    /// Size of the filters. Ten bits let about one absent key in a hundred pass.
    pub filter_bits_per_key: u32,
    /// So many segments in level 0, or as many bytes as so many memtables, are compacted.
    pub level0_segments: usize,
    /// So many segments in level 0, and writers are asked to slow down.
    pub level0_segments_slow: usize,
    /// So many segments in level 0, and writers are asked to stop.
    pub level0_segments_stop: usize,
    /// The uppermost sorted level in use may be so large. While all of the store is no larger,
    /// there is one sorted level.
    pub level1_bytes: u64,
    /// Each level may be so many times as large as the one above.
    pub level_step: u64,
    /// A compaction is cut into at most so many parts, which several threads may take.
    pub compaction_parts_max: usize,
    /// So many bytes in sorted levels beyond what these should hold, and writers are asked to stop;
    /// from a quarter of it on, to slow down.
    pub compaction_debt_max: u64,
    /// An idle store is compacted until what lies above the bottom level, and may be overwritten
    /// there, is at most so many hundredths of it.
    pub idle_garbage_percent: u32,
    /// What writers should wait at most, for each [`PRESSURE_BYTES`](crate::PRESSURE_BYTES), while
    /// they are asked to slow down.
    pub slow_delay: Duration,
    /// A log longer than this has the memtable flushed although it is not full, so that the log
    /// can be cut and recovery stays short.
    pub log_bytes_max: u64,
    /// The log's own options.
    pub log: LogOptions,
    /// A bug on purpose; the log has its own.
    pub planted: Planted,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            create_if_missing: true,
            memtable_bytes: 64 << 20,
            memtables_max: 3,
            block_bytes: 16 << 10,
            segment_bytes: 64 << 20,
            compression: Compression::None,
            compression_from_level: 0,
            block_cache_bytes: 64 << 20,
            filter_bits_per_key: 10,
            level0_segments: 8,
            level0_segments_slow: 20,
            level0_segments_stop: 40,
            level1_bytes: 1 << 30,
            level_step: 10,
            compaction_parts_max: 4,
            compaction_debt_max: 64 << 30,
            idle_garbage_percent: 5,
            slow_delay: Duration::from_millis(4),
            log_bytes_max: 1 << 30,
            log: LogOptions::default(),
            planted: Planted::default(),
        }
    }
}

impl Options {
    /// The defaults.
    #[must_use]
    pub fn new() -> Options {
        Options::default()
    }

    /// Sets [`Options::create_if_missing`].
    #[must_use]
    pub fn create_if_missing(self, create_if_missing: bool) -> Options {
        Options { create_if_missing, ..self }
    }

    /// Sets [`Options::memtable_bytes`]. Larger: fewer and longer flushes, less merging, more memory
    /// and a longer recovery.
    #[must_use]
    pub fn memtable_bytes(self, memtable_bytes: usize) -> Options {
        Options { memtable_bytes, ..self }
    }

    /// Sets [`Options::compression`]. LZ4 where space counts more than the time of a read.
    #[must_use]
    pub fn compression(self, compression: Compression) -> Options {
        Options { compression, ..self }
    }

    /// Sets [`Options::block_cache_bytes`]. With compression: as much as is read often.
    #[must_use]
    pub fn block_cache_bytes(self, block_cache_bytes: usize) -> Options {
        Options { block_cache_bytes, ..self }
    }

    /// Sets [`Options::log_bytes_max`]. Opening after a crash takes about as long as reading so much.
    #[must_use]
    pub fn log_bytes_max(self, log_bytes_max: u64) -> Options {
        Options { log_bytes_max, ..self }
    }

    /// Opens the store in a directory of this machine, or makes one there: [`Store::open`].
    pub fn open(self, dir: impl AsRef<Path>) -> Result<Store> {
        Store::open(Arc::new(RealVfs), dir.as_ref(), self)
    }

    /// When a level is too large.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            level0_segments: self.level0_segments,
            level0_bytes: (self.level0_segments as u64).saturating_mul(self.memtable_bytes as u64),
            base_bytes_max: self.level1_bytes,
            level_step: self.level_step,
            planted: self.planted,
        }
    }

    /// Refuses what makes no sense, by name: [`Error::Invalid`]. Opening a store does it.
    pub fn validate(&self) -> Result<()> {
        let require = |holds: bool, what: &'static str| {
            if holds { Ok(()) } else { Err(Error::invalid(what)) }
        };
        require(self.memtable_bytes >= 1 << 10, "memtable_bytes must be at least 1024")?;
        require(self.memtables_max >= 1, "memtables_max must be at least 1")?;
        require(
            (64..=1 << 20).contains(&self.block_bytes),
            "block_bytes must be between 64 and 1048576",
        )?;
        require(
            (1 << 10..=1 << 30).contains(&self.segment_bytes),
            "segment_bytes must be between 1024 and 1073741824",
        )?;
        require(
            (1..=32).contains(&self.filter_bits_per_key),
            "filter_bits_per_key must be between 1 and 32",
        )?;
        require(
            1 <= self.level0_segments
                && self.level0_segments <= self.level0_segments_slow
                && self.level0_segments_slow <= self.level0_segments_stop,
            "level0_segments, level0_segments_slow and level0_segments_stop must rise, from 1",
        )?;
        require(self.level1_bytes >= 1, "level1_bytes must be at least 1")?;
        require((2..=100).contains(&self.level_step), "level_step must be between 2 and 100")?;
        require(
            (1..=64).contains(&self.compaction_parts_max),
            "compaction_parts_max must be between 1 and 64",
        )?;
        require(self.compaction_debt_max >= 4, "compaction_debt_max must be at least 4")?;
        require(self.log_bytes_max >= 1, "log_bytes_max must be at least 1")
    }

    /// How segments of a level are written.
    pub(crate) fn segment(&self, level: usize) -> SegmentOptions {
        let is_deep = level >= self.compression_from_level;
        SegmentOptions {
            block_bytes: self.block_bytes,
            filter_bits_per_key: self.filter_bits_per_key,
            compression: if is_deep { self.compression } else { Compression::None },
            planted: self.planted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_nonsense_is_refused() {
        let check = |change: fn(&mut Options), expected: bool| {
            let mut options = Options::default();
            change(&mut options);
            assert_eq!(options.validate().is_ok(), expected, "{options:?}");
        };
        check(|_| (), true);
        check(|options| options.memtable_bytes = 0, false);
        check(|options| options.memtables_max = 0, false);
        check(|options| options.block_bytes = 2 << 20, false);
        check(|options| options.level0_segments_slow = 3, false);
        check(|options| options.level_step = 1, false);
        check(|options| options.filter_bits_per_key = 0, false);
    }

    #[test]
    fn levels_above_the_one_that_says_so_are_not_compressed() {
        let options = Options {
            compression: Compression::Lz4,
            compression_from_level: 2,
            ..Options::default()
        };
        let compressed = [0, 1, 2, 6].map(|level| options.segment(level).compression);
        let (none, lz4) = (Compression::None, Compression::Lz4);
        assert_eq!(compressed, [none, none, lz4, lz4]);
    }
}
