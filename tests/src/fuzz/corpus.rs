//! Real files to begin with.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use anyhow::Result;
use bytes::Bytes;
use kvorum_storage::inspect::{Layout, Owner};
use kvorum_storage::vfs::{CrashMode, MemoryVfs, Vfs};
use kvorum_storage::{Compression, Durability, LogItem, LogOptions, Maintained, Options, Store};

use super::archive::Archive;
use super::sums::{self, Sum};
use crate::damage::{Directory, directories};
use crate::engine::batches::small_batch;
use crate::engine::tiny_options;

pub(super) const DIR: &str = "/store";

/// A directory, and where its checksums are: by file.
pub(super) struct Entry {
    pub(super) archive: Archive,
    pub(super) sums: Vec<Vec<Sum>>,
}

pub(super) fn options(compression: Compression) -> Options {
    Options {
        log: LogOptions { recycle_files_max: 1, ..tiny_options(compression).log },
        ..tiny_options(compression)
    }
}

/// Directories of stores: plain and compressed, closed and as a kill leaves them.
pub(super) fn stores() -> &'static [Entry] {
    static STORES: OnceLock<Vec<Entry>> = OnceLock::new();
    STORES.get_or_init(|| {
        let mut entries = Vec::new();
        for compression in [Compression::None, Compression::Lz4] {
            for closed in [true, false] {
                let archive = store(compression, closed).expect("a disk in memory does not fail");
                let sums = archive.files.iter().map(|(name, bytes)| sums::of(name, bytes));
                entries.push(Entry { sums: sums.collect(), archive });
            }
        }
        entries
    })
}

fn store(compression: Compression, closed: bool) -> Result<Archive> {
    let disk = MemoryVfs::new();
    let store = Store::open(Arc::new(disk.clone()), Path::new(DIR), options(compression))?;
    for number in 1..=70 {
        let durability = if number % 5 == 0 { Durability::Sync } else { Durability::Buffered };
        store.write(small_batch(number), durability)?;
        while number < 55 && store.maintain()? != Maintained::Nothing {}
    }
    let left = if closed {
        drop(store);
        disk
    } else {
        disk.crash_image(CrashMode::Random { seed: 4 })
    };
    Ok(Archive::of(&left, Path::new(DIR))?)
}

/// The name of the file that says whose directory it is.
pub(super) fn identity_name() -> &'static str {
    "IDENTITY"
}

/// Such a file.
pub(super) fn identity() -> &'static [u8] {
    static IDENTITY: OnceLock<Vec<u8>> = OnceLock::new();
    IDENTITY.get_or_init(|| {
        let files = of_processes().into_iter().flat_map(|archive| archive.files);
        let mut found = files.filter(|(name, _)| name == Path::new(identity_name()));
        found.next().expect("a process has an identity").1
    })
}

/// Records of logs of processes, each with its kind.
pub(super) fn records() -> &'static [(u8, Bytes)] {
    static RECORDS: OnceLock<Vec<(u8, Bytes)>> = OnceLock::new();
    RECORDS.get_or_init(|| {
        let mut records = Vec::new();
        for archive in of_processes() {
            records.extend(records_of(&archive).expect("a disk in memory does not fail"));
        }
        assert!(records.len() > 100, "{} records of processes", records.len());
        records
    })
}

fn of_processes() -> Vec<Archive> {
    let directories = directories().expect("a disk in memory does not fail");
    let archive = |directory: &Directory| {
        Archive::of(directory.disk(), directory.dir()).expect("a disk in memory does not fail")
    };
    directories.iter().skip(1).map(archive).collect()
}

fn records_of(archive: &Archive) -> Result<Vec<(u8, Bytes)>> {
    let disk: Arc<dyn Vfs> = Arc::new(archive.disk(Path::new(DIR))?);
    let is_store = archive.files.iter().any(|(name, _)| name == Path::new("MANIFEST"));
    let layout = Some(if is_store { Layout::Store } else { Layout::Log });
    let owner = Owner { layout, ..Owner::default() };
    let looked = kvorum_storage::inspect::Directory::open(disk, Path::new(DIR), owner)?;
    let (mut log, mut records) = (looked.log()?, Vec::new());
    while let Some(item) = log.next()? {
        if let LogItem::Record(record) = item {
            records.push((record.kind, record.payload));
        }
    }
    Ok(records)
}
