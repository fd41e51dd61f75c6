//! Small directories to be damaged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use kvorum_storage::inspect::{Directory, Finding, Grade, Owner, Verified, own_batch};
use kvorum_storage::vfs::{CrashMode, MemoryVfs, OpenMode, Vfs};
use kvorum_storage::{
    Batch, Direction, Durability, Log, LogOptions, Maintained, Operation, Options, Position, Store,
};

pub(crate) const DIR: &str = "/store";

pub(crate) type Content = BTreeMap<Bytes, Bytes>;

/// Options with which little data fills several levels and log files.
pub(crate) fn tiny_options() -> Options {
    Options {
        memtable_bytes: 2 << 10,
        memtables_max: 2,
        block_bytes: 256,
        segment_bytes: 1 << 10,
        level0_segments: 2,
        level0_segments_slow: 6,
        level0_segments_stop: 6,
        level1_bytes: 2 << 10,
        level_step: 2,
        log_bytes_max: 16 << 10,
        log: log_options(),
        ..Options::default()
    }
}

pub(crate) fn log_options() -> LogOptions {
    LogOptions { file_bytes: 2 << 10, recycle_files_max: 1, ..LogOptions::default() }
}

/// A store that was closed, with segments on several levels, tombstones, rows that only the log
/// has, and a recycled log file.
pub(crate) fn closed_store() -> (MemoryVfs, Content) {
    let disk = MemoryVfs::new();
    let store = Store::open(Arc::new(disk.clone()), DIR.as_ref(), tiny_options()).unwrap();
    for (number, batch) in batches().into_iter().enumerate() {
        store.write(batch, Durability::Sync).unwrap();
        while number < 80 && store.maintain().unwrap() != Maintained::Nothing {}
    }
    let stats = store.stats();
    assert!(stats.levels.iter().filter(|level| level.segments > 0).count() >= 2, "{stats:?}");
    assert!(stats.log.files_recycled > 0, "{stats:?}");
    drop(store);
    let count = batches().len() as u64;
    (disk, state_after(count))
}

/// What is written to the store, a batch a record of its log.
pub(crate) fn batches() -> Vec<Batch> {
    let batch = |number: u64| {
        let key = Bytes::from(format!("key{:02}", number * 37 % 61));
        let mut batch = Batch::new();
        if number % 7 == 6 {
            batch.delete(key);
        } else {
            batch.put(key, format!("value {number} {}", "z".repeat(20)));
        }
        batch
    };
    (0..90).map(batch).collect()
}

/// What so many batches come to.
pub(crate) fn state_after(count: u64) -> Content {
    let mut content = Content::new();
    for batch in batches().iter().take(count as usize) {
        for operation in batch.operations() {
            match operation {
                Operation::Put { key, value } => content.insert(key.clone(), value.clone()),
                Operation::Delete { key } => content.remove(key),
            };
        }
    }
    content
}

/// A disk with the same files, on which a crash changes nothing.
pub(crate) fn synced(disk: &MemoryVfs) -> MemoryVfs {
    let synced = MemoryVfs::new();
    for (path, bytes) in all_files(disk) {
        let dir = path.parent().unwrap();
        synced.create_dir_all(dir).unwrap();
        let file = synced.open(&path, OpenMode::Create).unwrap();
        file.write_at(&bytes, 0).unwrap();
        file.sync().unwrap();
        synced.sync_dir(dir).unwrap();
    }
    synced
}

/// A record of this kind stands for all before it.
pub(crate) const CHECKPOINT: u8 = 20;

/// An owner whose records are put in the log as they are.
pub(crate) fn log_owner() -> Owner {
    Owner { is_checkpoint: Some(|kind| kind == CHECKPOINT), ..Owner::default() }
}

/// A log that was closed, of several files and one recycled, with a checkpoint in it.
pub(crate) fn closed_log() -> (MemoryVfs, BTreeMap<u64, Bytes>) {
    let disk = MemoryVfs::new();
    let (log, _) = Log::open(Arc::new(disk.clone()), DIR.as_ref(), log_options()).unwrap();
    let mut records = BTreeMap::new();
    for number in 1..=120_u64 {
        let kind = if number % 40 == 5 { CHECKPOINT } else { 18 };
        let payload = Bytes::from(format!("record {number} {}", "r".repeat(number as usize % 40)));
        let position = log.append(kind, &payload).unwrap();
        records.insert(position.0, payload);
        log.sync(position).unwrap();
        if kind == CHECKPOINT {
            log.truncate_before(position).unwrap();
        }
    }
    assert!(log.stats().files_recycled > 0);
    let first = log.first();
    records.retain(|position, _| *position >= first.0);
    drop(log);
    (disk, records)
}

pub(crate) fn look(disk: &MemoryVfs, owner: Owner) -> kvorum_storage::Result<Directory> {
    look_in(disk, DIR, owner)
}

pub(crate) fn look_in(
    disk: &MemoryVfs,
    dir: &str,
    owner: Owner,
) -> kvorum_storage::Result<Directory> {
    Directory::open(Arc::new(disk.clone()), dir.as_ref(), owner)
}

pub(crate) fn verify(disk: &MemoryVfs, owner: Owner) -> Verified {
    verify_in(disk, DIR, owner)
}

pub(crate) fn verify_in(disk: &MemoryVfs, dir: &str, owner: Owner) -> Verified {
    look_in(disk, dir, owner).unwrap().verify(&mut |_| Ok(())).unwrap()
}

pub(crate) fn damage(verified: &Verified) -> Vec<&Finding> {
    verified.findings.iter().filter(|finding| finding.grade == Grade::Damage).collect()
}

/// The rows, and whether anything had to be left out.
pub(crate) fn rows(disk: &MemoryVfs) -> (Content, bool) {
    rows_in(disk, DIR)
}

pub(crate) fn rows_in(disk: &MemoryVfs, dir: &str) -> (Content, bool) {
    let directory = look_in(disk, dir, Owner::default()).unwrap();
    let plan = directory.plan_log().unwrap();
    let (overlay, misread) = directory.replay(&plan, &mut own_batch).unwrap();
    let mut rows = directory.rows(&overlay, b"").unwrap();
    let mut content = Content::new();
    while let Some((key, value)) = rows.next().unwrap() {
        assert!(content.insert(key, value).is_none());
    }
    let skipped = plan.is_lossy || misread.is_some() || !rows.take_lost().is_empty();
    (content, skipped)
}

/// The rows of a store that opens.
pub(crate) fn scan(disk: &MemoryVfs) -> kvorum_storage::Result<Content> {
    scan_in(disk, DIR)
}

pub(crate) fn scan_in(disk: &MemoryVfs, dir: &str) -> kvorum_storage::Result<Content> {
    let store = Store::open(Arc::new(disk.clone()), dir.as_ref(), tiny_options())?;
    store.scan(.., Direction::Forwards)?.collect()
}

pub(crate) fn read(disk: &MemoryVfs, path: &Path) -> Vec<u8> {
    disk.open(path, OpenMode::Read).unwrap().map().unwrap().to_vec()
}

/// A disk of its own with the same files.
pub(crate) fn copy(disk: &MemoryVfs) -> MemoryVfs {
    disk.crash_image(CrashMode::KeepAll)
}

/// Every file and its bytes.
pub(crate) fn all_files(disk: &MemoryVfs) -> BTreeMap<PathBuf, Vec<u8>> {
    disk.files().into_iter().map(|path| (path.clone(), read(disk, &path))).collect()
}

/// Where in a log file the frames end but for a seal, and where they end with it. Reads the format's drawing anew, so that the engine's own
/// reading is not its own judge.
pub(crate) fn frames_end(bytes: &[u8]) -> (u64, u64) {
    let identity = &bytes[24..32];
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let mut next = u64::from_le_bytes(bytes[32..40].try_into().unwrap());
    let mut at = 512;
    while at + 40 <= bytes.len() && &bytes[at + 8..at + 16] == identity {
        let first = u64::from_le_bytes(bytes[at + 24..at + 32].try_into().unwrap());
        if first != next {
            break;
        }
        if u32_at(at + 20) == u32::MAX as usize {
            return (at as u64, at as u64 + 40);
        }
        next += u32_at(at + 20) as u64;
        at += 40 + u32_at(at + 16);
    }
    (at as u64, at as u64)
}

pub(crate) fn is_log_file(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "log")
}

/// A log's records, as its owner gets them.
pub(crate) fn replay(disk: &MemoryVfs) -> kvorum_storage::Result<BTreeMap<u64, Bytes>> {
    replay_in(disk, DIR)
}

pub(crate) fn replay_in(
    disk: &MemoryVfs,
    dir: &str,
) -> kvorum_storage::Result<BTreeMap<u64, Bytes>> {
    let (_log, mut replay) = Log::open(Arc::new(disk.clone()), dir.as_ref(), log_options())?;
    let mut records = BTreeMap::new();
    while let Some(record) = replay.next()? {
        let Position(position) = record.position;
        records.insert(position, record.payload);
    }
    Ok(records)
}
