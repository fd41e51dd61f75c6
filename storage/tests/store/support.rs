//! What the tests of the store share.

use kvorum_storage::{LogOptions, Options};

/// Where stores are on in-memory disks.
pub(crate) const DIR: &str = "/store";

/// A small generator: the same seed, the same run (Steele, Lea, Flood: SplitMix, 2014).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// Options with which a few hundred operations fill several levels.
pub(crate) fn tiny_options() -> Options {
    Options {
        memtable_bytes: 2 << 10,
        memtables_max: 2,
        block_bytes: 256,
        segment_bytes: 1 << 10,
        level0_segments: 2,
        level0_segments_slow: 6,
        level0_segments_stop: 6,
        level1_bytes: 3 << 10,
        level_step: 2,
        log_bytes_max: 16 << 10,
        log: LogOptions { file_bytes: 8 << 10, recycle_files_max: 2, ..LogOptions::default() },
        ..Options::default()
    }
}
