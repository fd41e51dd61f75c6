//! Disks that fail or are full: refused with the reason, nothing acknowledged is lost, reads go
//! on; a full disk heals, a failed sync does not.

use std::sync::Arc;

use kvorum_storage::vfs::{CrashMode, Fault, FaultyVfs, MemoryVfs, Operation, Outcome};
use kvorum_storage::{Durability, Error, Maintained, Options, Result, Store};

use crate::support::{DIR, count_batches, numbered_batch, tiny_options};

/// The store's own files; the log's faults are the log's tests, but for what the store makes of them.
const OURS: [&str; 2] = ["segments", "MANIFEST"];
const BATCHES: u64 = 120;

fn open(disk: &FaultyVfs) -> Store {
    Store::open(Arc::new(disk.clone()), DIR.as_ref(), tiny_options()).unwrap()
}

/// Writes numbered batches from `first` on, with all the maintenance that is due; the number and
/// error of the one at which that failed.
fn write_from(store: &Store, first: u64) -> Option<(u64, Error)> {
    (first..=BATCHES).find_map(|number| {
        let write = || -> Result<()> {
            store.write(numbered_batch(number), Durability::Sync)?;
            while store.maintain()? != Maintained::Nothing {}
            Ok(())
        };
        write().err().map(|error| (number, error))
    })
}

/// Lets an operation of each kind fail, each time it comes up in turn.
fn at_each(
    outcome: Outcome,
    operations: &[Operation],
    paths: &[&str],
    check: impl Fn(&MemoryVfs, &FaultyVfs, &Store, u64, &Error, &str),
) {
    let mut fired = 0;
    for (operation, path) in operations.iter().flat_map(|o| paths.iter().map(move |p| (*o, *p))) {
        for after in (0..).step_by(7) {
            let disk = MemoryVfs::new();
            let faulty = FaultyVfs::new(Arc::new(disk.clone()));
            let store = open(&faulty);
            let armed = faulty.arm(Fault::once(operation, outcome).on(path).after(after));
            let failed = write_from(&store, 1);
            if armed.fired() == 0 {
                assert!(failed.is_none(), "{failed:?}");
                break;
            }
            fired += 1;
            let context = format!("{operation:?} of {path} after {after} {outcome:?}");
            let Some((number, error)) = failed else { panic!("{context}: nobody was told") };
            check(&disk, &faulty, &store, number, &error, &context);
        }
    }
    assert!(fired > 5, "{fired} faults fired");
}

#[test]
fn after_a_failure_in_doubt_nothing_is_written_until_the_store_is_opened_again() {
    let operations = [Operation::Write, Operation::Sync, Operation::Rename, Operation::SyncDir];
    // The directory itself is synced after each new manifest; its path is in all others.
    let paths = ["segments", "MANIFEST", DIR];
    at_each(Outcome::InputOutput, &operations, &paths, |disk, _, store, number, error, context| {
        assert!(matches!(error, Error::Io { .. } | Error::Poisoned { .. }), "{context}: {error}");
        // The disk is well again, but that proves nothing of what failed.
        let later = write_from(store, number).map(|(_, error)| error);
        assert!(matches!(later, Some(Error::Poisoned { .. })), "{context}: {later:?}");
        assert!(matches!(store.flush(), Err(Error::Poisoned { .. })), "{context}");
        let found = store.get(b"number").unwrap();
        assert!(found.is_some() || number < 2, "{context}: reads go on");

        for mode in [CrashMode::LoseUnsynced, CrashMode::KeepAll, CrashMode::Random { seed: 3 }] {
            let again = open(&FaultyVfs::new(Arc::new(disk.crash_image(mode))));
            let count = count_batches(&again, context);
            assert!(count == number || count + 1 == number, "{context}: {count} of {number}");
            assert!(write_from(&again, number).is_none(), "{context}: it goes on");
        }
    });
}

#[test]
fn a_full_disk_refuses_and_heals() {
    let operations = [Operation::Create, Operation::Write, Operation::Sync, Operation::Rename];
    at_each(Outcome::DiskFull, &operations, &OURS, |disk, _, store, number, error, context| {
        assert!(matches!(error, Error::DiskFull { .. }), "{context}: {error}");
        let count = count_batches(store, context);
        assert!(count == number || count + 1 == number, "{context}: {count} of {number}");
        assert!(write_from(store, number).is_none(), "{context}: there is room again");
        assert_eq!(count_batches(store, context), BATCHES);
        let again = open(&FaultyVfs::new(Arc::new(disk.crash_image(CrashMode::LoseUnsynced))));
        assert_eq!(count_batches(&again, context), BATCHES);
        let left = disk.files().len();
        let named = again.stats().levels.iter().map(|level| level.segments).sum::<usize>();
        assert!(left <= named + 12, "{context}: {left} files for {named} segments");
    });
}

#[test]
fn too_many_open_files_are_no_reason_to_give_up() {
    let operations = [Operation::Create, Operation::Open, Operation::Map];
    at_each(Outcome::TooManyFiles, &operations, &OURS, |_, _, store, number, error, context| {
        assert!(matches!(error, Error::Io { .. }), "{context}: {error}");
        assert!(write_from(store, number).is_none(), "{context}: there are files again");
        assert_eq!(count_batches(store, context), BATCHES);
    });
}

/// What may go is not forgotten because it could not go at once.
#[test]
fn a_cut_of_the_log_that_fails_is_made_up_for() {
    let faulty = FaultyVfs::new(Arc::new(MemoryVfs::new()));
    let roomy = Options { memtable_bytes: 1 << 20, log_bytes_max: 1 << 20, ..tiny_options() };
    let store = Store::open(Arc::new(faulty.clone()), DIR.as_ref(), roomy).unwrap();
    while !store.log().would_cut(store.log().last()) {
        store.put("key", "value", Durability::Sync).unwrap();
    }
    let first = store.log().first();
    let fault = faulty.arm(Fault::once(Operation::Length, Outcome::TooManyFiles).on("/log/"));
    assert!(matches!(store.flush(), Err(Error::Io { .. })));
    assert_eq!((fault.fired(), store.log().first()), (1, first));
    while store.maintain().unwrap() != Maintained::Nothing {}
    assert!(store.log().first() > first);
}

#[test]
fn while_the_disk_is_full_writes_are_refused_and_reads_go_on() {
    let disk = MemoryVfs::new();
    let faulty = FaultyVfs::new(Arc::new(disk.clone()));
    let store = open(&faulty);
    assert!(write_from(&store, 1).is_none());
    let full = [Operation::Create, Operation::Write, Operation::Allocate]
        .map(|operation| faulty.arm(Fault::always(operation, Outcome::DiskFull)));

    // The log has space reserved, and may take some more before it is refused.
    let mut refused = 0;
    for number in 0..200_u32 {
        let result = store.put(format!("extra{number}"), vec![b'x'; 100], Durability::Sync);
        if let Err(error) = result {
            assert!(matches!(error, Error::DiskFull { .. }), "{error}");
            refused += 1;
        }
        assert!(store.get(b"number").unwrap().is_some(), "reads go on");
        assert!(store.scan(.., kvorum_storage::Direction::Backwards).unwrap().all(|e| e.is_ok()));
    }
    assert!(refused > 100 && full.iter().any(|armed| armed.fired() > 0), "{refused} refused");
    let pending = store.log().pending_bytes();
    assert!(pending < 4096, "{pending} bytes wait: refusals must not pile up");

    faulty.heal();
    store.put("after", "room", Durability::Sync).unwrap();
    store.flush().unwrap();
    let again = open(&FaultyVfs::new(Arc::new(disk.crash_image(CrashMode::LoseUnsynced))));
    assert_eq!(again.get(b"after").unwrap().as_deref(), Some(&b"room"[..]));
    assert!(again.verify().unwrap().problems.is_empty());
}

#[test]
fn a_failed_log_sync_acknowledges_nothing_more() {
    let disk = MemoryVfs::new();
    let faulty = FaultyVfs::new(Arc::new(disk.clone()));
    let store = open(&faulty);
    assert!(write_from(&store, 1).is_none());
    let armed = faulty.arm(Fault::once(Operation::Sync, Outcome::InputOutput).on("log"));
    assert!(store.put("a", "1", Durability::Sync).is_err());
    assert_eq!(armed.fired(), 1);
    assert!(matches!(store.put("b", "2", Durability::Sync), Err(Error::Poisoned { .. })));
    assert!(matches!(store.flush(), Err(Error::Poisoned { .. })) || store.get(b"b").is_ok());
    assert_eq!(store.get(b"b").unwrap(), None);
    assert!(store.get(b"number").unwrap().is_some());
    let again = open(&FaultyVfs::new(Arc::new(disk.crash_image(CrashMode::LoseUnsynced))));
    assert_eq!(again.get(b"b").unwrap(), None);
    assert_eq!(again.get(b"number").unwrap(), store.get(b"number").unwrap());
}
