//! A durable log-structured key-value engine: checked log, sorted segments, compaction.
//!
//! What is written goes to the [`Log`] once and is synced once, for all who wait together; from
//! there it is applied to a table in memory, flushed to sorted segments, and compacted. Everything
//! on disk carries checksums that know where it belongs: what a crash or a disk did to it is
//! reported, and never served.
//!
//! A [`Store`] is used in one of two ways:
//!
//! - **Embedded**, by [`Store::open`]: the store logs its own batches.
//! - **Under an owner's log**, by [`Store::open_with_replay`]: the owner appends records of its own
//!   kinds to [`Store::log`], applies the batches that they decide, and after a crash replays its
//!   records and applies them again. So a replication protocol writes each value once.
//!
//! ```
//! use std::sync::Arc;
//!
//! use kvorum_storage::vfs::RealVfs;
//! use kvorum_storage::{Batch, Direction, Durability, KeyRange, Options, Store};
//!
//! # fn main() -> kvorum_storage::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let dir = dir.path();
//! let store = Store::open(Arc::new(RealVfs), dir, Options::default())?;
//! store.put("fruit/apple", "red", Durability::Sync)?;
//! let before = store.snapshot();
//!
//! let mut batch = Batch::new();
//! batch.put("fruit/banana", "yellow").delete("fruit/apple");
//! store.write(batch, Durability::Sync)?;
//!
//! assert_eq!(store.get(b"fruit/apple")?, None);
//! assert_eq!(before.get(b"fruit/apple")?.as_deref(), Some(&b"red"[..]));
//! for entry in store.scan(KeyRange::prefix(b"fruit/"), Direction::Backwards)? {
//!     let (key, value) = entry?;
//!     println!("{key:?} is {value:?}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The store has no thread of its own. Its owner calls [`Store::maintain`] when
//! [`Store::wait_for_maintenance`] says so, or has a [`Maintenance`] do it, whose threads live as long
//! as it does; an embedded writer that finds too much undone does some of it itself.
//!
//! How it works and what is not there: `docs/storage.md`. The files, byte by byte:
//! `docs/storage-format.md`.

#![deny(missing_docs)]

mod store;

pub mod inspect;

pub mod repair;

mod snapshot;

mod scan;

mod range;

mod batch;

mod options;

pub mod planted;

mod compaction;

mod manifest;

mod levels;

mod cursor;

mod source;

mod word;

mod segment;

mod memtable;

mod key;

mod marker;

pub mod log;

pub mod codec;

mod histogram;

mod error;

pub mod vfs;

/// How much of something a test does. Miri takes a thousand times as long and looks at each step, so
/// there a little shows as much: enough for a few splits, blocks or files.
#[cfg(test)]
const fn amount<T: Copy>(natively: T, under_miri: T) -> T {
    if cfg!(miri) { under_miri } else { natively }
}

pub use batch::{BATCH_OPERATIONS_MAX, Batch, Operation};
pub use cursor::Direction;
pub use error::{Error, Happened, Result};
pub use histogram::Latencies;
pub use key::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
pub use log::{
    Log, LogDamage, LogExtent, LogItem, LogOptions, LogStats, LogSurvey, Position, RecoveryReport,
    Replay, ReplayedRecord, TornTail,
};
pub use options::Options;
pub use range::KeyRange;
pub use scan::{Cursor, Scan};
pub use segment::{Compression, LostKeys};
pub use snapshot::Snapshot;
pub use store::{
    Durability, FilterStats, Ingest, Ingested, LatencyStats, LevelStats, Maintained, Maintenance,
    MaintenanceOptions, OnFailure, PRESSURE_BYTES, Pressure, ReadView, Recovery, Stats, Store,
    VerifyProgress, VerifyReport, WRITE_BATCH, Work,
};
