//! Small logs on a disk in memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kvorum_storage::log::{Log, LogOptions, Position, RecoveryReport};
use kvorum_storage::vfs::{MemoryVfs, OpenMode, Vfs};
use kvorum_storage::{Error, Result};

pub(crate) const DIR: &str = "/data/log";

/// Files of 4 KiB, so that logs of many files are cheap.
pub(crate) fn options() -> LogOptions {
    LogOptions {
        file_bytes: 4096,
        recycle_files_max: 2,
        record_bytes_max: 1 << 20,
        pending_bytes_max: 4 << 20,
        salt: 7,
        ..LogOptions::default()
    }
}

/// Disks that write directly, in small steps and in sectors, and one that cannot.
pub(crate) fn disks() -> [MemoryVfs; 3] {
    [Some(64), Some(512), None].map(|alignment| MemoryVfs::new().with_direct(alignment))
}

pub(crate) fn open(vfs: &(impl Vfs + Clone)) -> Result<(Log, Recovered)> {
    open_with(vfs, options())
}

pub(crate) fn open_with(vfs: &(impl Vfs + Clone), options: LogOptions) -> Result<(Log, Recovered)> {
    let (log, mut replay) = Log::open(Arc::new(vfs.clone()), Path::new(DIR), options)?;
    let mut records = Vec::new();
    while let Some(record) = replay.next()? {
        assert_eq!(record.position.0, log.first().0 + records.len() as u64, "no gaps");
        assert_eq!(record.kind, kind(record.position));
        records.push(record.payload.to_vec());
    }
    let first = log.first();
    assert_eq!(log.last().0, first.0 + records.len() as u64 - 1);
    assert_eq!(log.durable(), log.last());
    Ok((log, Recovered { first, records, report: replay.report().clone() }))
}

/// What replaying a log gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Recovered {
    pub(crate) first: Position,
    pub(crate) records: Vec<Vec<u8>>,
    pub(crate) report: RecoveryReport,
}

/// Records know their kind by their position, so that a record in the wrong place is noticed.
fn kind(position: Position) -> u8 {
    position.0.to_le_bytes()[0]
}

pub(crate) fn append(log: &Log, payload: &[u8]) -> Result<Position> {
    log.append(kind(log.last().next()), payload)
}

/// Appends a record and waits until it is durable.
pub(crate) fn put(log: &Log, payload: &[u8]) -> Result<Position> {
    let position = append(log, payload)?;
    log.sync(position)?;
    Ok(position)
}

/// A record of the given length that no other number gives.
pub(crate) fn payload(number: u64, bytes: usize) -> Vec<u8> {
    let mut payload = format!("record {number} ").into_bytes();
    let mut filler = number;
    while payload.len() < bytes {
        filler = filler.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        payload.push(filler.to_be_bytes()[0]);
    }
    payload.truncate(bytes.max(1));
    payload
}

pub(crate) fn read(vfs: &MemoryVfs, path: &Path) -> Vec<u8> {
    vfs.open(path, OpenMode::Read).unwrap().map().unwrap().to_vec()
}

/// A disk whose only file, in the log's directory, is this one.
pub(crate) fn disk_of(name: &str, bytes: &[u8]) -> MemoryVfs {
    let vfs = MemoryVfs::new();
    vfs.create_dir_all(Path::new(DIR)).unwrap();
    put_file(&vfs, name, bytes);
    vfs
}

pub(crate) fn put_file(vfs: &MemoryVfs, name: &str, bytes: &[u8]) {
    let file = vfs.open(&Path::new(DIR).join(name), OpenMode::Create).unwrap();
    file.write_at(bytes, 0).unwrap();
    file.sync().unwrap();
    vfs.sync_dir(Path::new(DIR)).unwrap();
}

pub(crate) fn live_files(vfs: &MemoryVfs) -> Vec<PathBuf> {
    named(vfs, "log")
}

pub(crate) fn free_files(vfs: &MemoryVfs) -> Vec<PathBuf> {
    named(vfs, "free")
}

fn named(vfs: &MemoryVfs, extension: &str) -> Vec<PathBuf> {
    let matches = |path: &PathBuf| path.extension().is_some_and(|found| found == extension);
    vfs.files().into_iter().filter(matches).collect()
}

pub(crate) fn is_corrupt(error: &Error) -> bool {
    matches!(error, Error::Corrupt { .. })
}
