//! The directory of an embedded store.

use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::Result;
use kvorum_storage::vfs::MemoryVfs;
use kvorum_storage::{Batch, Direction, Durability, LogOptions, Options, Store};

use super::{Directory, dir};

/// Everything small, so that there is some of everything.
pub(super) fn options() -> Options {
    Options {
        memtable_bytes: 2 << 10,
        block_bytes: 256,
        segment_bytes: 1 << 10,
        level1_bytes: 2 << 10,
        level_step: 4,
        log: LogOptions { file_bytes: 2 << 10, recycle_files_max: 1, ..LogOptions::default() },
        ..Options::default()
    }
}

pub(super) fn directory() -> Result<Directory> {
    let disk = MemoryVfs::new();
    let store = Store::open(Arc::new(disk.clone()), &dir(), options())?;
    for round in 0..6_u8 {
        for number in 0..20_u8 {
            let mut batch = Batch::new();
            let value = vec![b'a' + round; usize::from(number) * 3];
            batch.put(format!("key-{number:02}"), value);
            batch.delete(format!("key-{:02}", (number + round) % 23));
            batch.put(format!("only-{round}-{number}"), "once");
            store.write(batch, Durability::Sync)?;
        }
        while store.maintain()? != kvorum_storage::Maintained::Nothing {}
    }
    store.flush()?;
    // What follows fills no memtable, but more than one log file.
    for number in 0..12_u8 {
        let mut batch = Batch::new();
        batch.put(format!("key-{number:02}"), "in the log alone");
        store.write(batch, Durability::Sync)?;
    }
    drop(store);
    let read = |disk| {
        let store = Store::open(Arc::new(disk), &dir(), options())?;
        say_rows(&store)
    };
    Ok(Directory { name: "embedded store", disk, read: Box::new(read) })
}

/// All that a store says: its rows forwards and backwards, and each key by itself, also those that
/// are not there.
pub(super) fn say_rows(store: &Store) -> Result<String> {
    let mut said = String::new();
    for direction in [Direction::Forwards, Direction::Backwards] {
        for row in store.scan(.., direction)? {
            let (key, value) = row?;
            writeln!(said, "{direction:?} {key:?} {value:?}")?;
        }
    }
    for key in (0..25).map(|number| format!("key-{number:02}")) {
        writeln!(said, "{key} {:?}", store.get(key.as_bytes())?)?;
    }
    for round in 0..7 {
        for number in 0..21 {
            let key = format!("only-{round}-{number}");
            writeln!(said, "{key} {:?}", store.get(key.as_bytes())?)?;
        }
    }
    Ok(said)
}
