//! Trials of the storage engine alone: killed, unplugged, filled up and damaged over and over, and
//! each time compared with a model that knows what was acknowledged and what is open.
//!
//! ```text
//! model     which value a key has at which version: computed, never stored
//! ledger    which versions were begun, acknowledged, durable
//! work      threads that write, read, scan, hold snapshots, flush, compact
//! soak      work in a process that is killed, and over a disk whose power fails
//! crash     a crash at each change of the disk, with many outcomes of each
//! disk_full no room at the n-th operation, for all n, and on a small file system
//! failures  an error at the n-th operation, and success from then on
//! ```

pub mod crash;
pub mod disk_full;
pub mod failures;
pub mod soak;

pub(crate) mod batches;
mod counted;
pub(crate) mod ledger;
pub(crate) mod model;
pub(crate) mod power;
pub(crate) mod probe;
pub(crate) mod random;
pub(crate) mod work;

use kvorum_storage::{Compression, LogOptions, Options};

/// Small enough that seconds of work pass through all of the tree.
pub(crate) fn small_options(compression: Compression) -> Options {
    Options {
        memtable_bytes: 256 << 10,
        memtables_max: 4,
        block_bytes: 4 << 10,
        segment_bytes: 256 << 10,
        compression,
        level1_bytes: 1 << 20,
        level_step: 4,
        log_bytes_max: 8 << 20,
        log: LogOptions { file_bytes: 1 << 20, recycle_files_max: 2, ..LogOptions::default() },
        ..Options::default()
    }
}

/// So small that a few hundred batches do.
pub(crate) fn tiny_options(compression: Compression) -> Options {
    Options {
        memtable_bytes: 2 << 10,
        memtables_max: 2,
        block_bytes: 256,
        segment_bytes: 1 << 10,
        compression,
        level0_segments: 2,
        level0_segments_slow: 6,
        level0_segments_stop: 6,
        level1_bytes: 3 << 10,
        level_step: 2,
        log_bytes_max: 16 << 10,
        log: LogOptions { file_bytes: 2 << 10, recycle_files_max: 2, ..LogOptions::default() },
        ..Options::default()
    }
}
