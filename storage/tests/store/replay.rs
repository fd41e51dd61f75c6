//! Opening a store whose log is long, on a real disk, where a second thread reads ahead.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use kvorum_storage::vfs::RealVfs;
use kvorum_storage::{Batch, Durability, Error, Log, LogOptions, Options, Store};

use crate::support::Random;

const BATCHES: u64 = 400;
const SIZE: u64 = 50;

/// A log of several files, and memtables of which it fills several.
fn options() -> Options {
    Options {
        memtable_bytes: 1 << 20,
        memtables_max: 3,
        log: LogOptions { file_bytes: 2 << 20, ..LogOptions::default() },
        ..Options::default()
    }
}

fn key(number: u64) -> Vec<u8> {
    // Each fifth is a key that comes again.
    let number = if number.is_multiple_of(5) { number % 1000 } else { number };
    Random::new(number).next().to_be_bytes().to_vec()
}

fn value(number: u64) -> Vec<u8> {
    [&number.to_le_bytes()[..], &[b'v'; 300]].concat()
}

/// Writes with room in memory for all, so that nothing leaves the log.
fn write(dir: &Path) {
    let options = Options { memtable_bytes: 64 << 20, ..options() };
    let store = Store::open(Arc::new(RealVfs), dir, options).unwrap();
    for batch in 0..BATCHES {
        let mut written = Batch::new();
        for number in batch * SIZE..(batch + 1) * SIZE {
            written.put(key(number), value(number));
        }
        store.write(written, Durability::Buffered).unwrap();
    }
    store.put("last", "one", Durability::Sync).unwrap();
}

fn check(store: &Store) {
    for number in 0..BATCHES * SIZE {
        let newest = match number {
            number if number.is_multiple_of(5) => {
                let rounds = (BATCHES * SIZE - 1 - number % 1000) / 1000;
                number % 1000 + rounds * 1000
            }
            number => number,
        };
        assert_eq!(store.get(&key(number)).unwrap().as_deref(), Some(&value(newest)[..]));
    }
    assert_eq!(store.get(b"last").unwrap().as_deref(), Some(&b"one"[..]));
}

#[test]
fn a_long_log_comes_back_whole_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path());
    for round in 0..2 {
        let store = Store::open(Arc::new(RealVfs), dir.path(), options()).unwrap();
        let stats = store.stats();
        assert!(stats.frozen_memtables <= 3, "memory is bounded in a replay too: {stats:?}");
        assert!(round > 0 || stats.flushes > 0, "{stats:?}");
        check(&store);
        store.put("more", round.to_string(), Durability::Sync).unwrap();
        check(&store);
    }
}

#[test]
fn damage_in_the_middle_is_reported_and_not_skipped() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path());
    let log = dir.path().join("log");
    let mut files: Vec<_> = fs::read_dir(&log).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "log"));
    files.sort();
    assert!(files.len() > 2, "{files:?}");
    let mut bytes = fs::read(&files[1]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&files[1], bytes).unwrap();
    let error = Store::open(Arc::new(RealVfs), dir.path(), options()).err().unwrap();
    assert!(matches!(&error, Error::Corrupt { file, .. } if *file == files[1]), "{error}");
}

#[test]
fn a_long_log_of_another_owner_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path());
    let vfs = Arc::new(RealVfs);
    let (log, _) = Log::open(vfs.clone(), &dir.path().join("log"), options().log).unwrap();
    let position = log.append(77, b"a record of its own").unwrap();
    log.sync(position).unwrap();
    drop(log);
    let error = Store::open(vfs, dir.path(), options()).err().unwrap();
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
}
