//! Staged rows: not seen before they are installed, and nothing else seen after.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use kvorum_storage::inspect::{Directory, Owner};
use kvorum_storage::vfs::{CrashMode, Fault, FaultyVfs, MemoryVfs, Operation, Outcome, RealVfs};
use kvorum_storage::{
    Batch, Direction, Durability, Error, Maintained, Options, Position, Result, Store, Work,
};

use crate::support::{DIR, tiny_options};

/// Kind of the owner's records that hold one batch each.
const OWNED: u8 = 16;
/// Kind of the owner's records that say to install; the mark is the payload.
const INSTALLED: u8 = 17;

type Rows = Vec<(Bytes, Bytes)>;

fn open(disk: &MemoryVfs) -> Store {
    Store::open_with_replay(Arc::new(disk.clone()), DIR.as_ref(), tiny_options()).unwrap().0
}

/// Rows of this generation; of another they have other keys and values.
fn rows(generation: u64, count: u64) -> Rows {
    let row = |number| {
        let key = format!("key{:04}", number * 3 + generation % 3);
        (Bytes::from(key), Bytes::from(format!("{generation} {number} {}", "s".repeat(40))))
    };
    (0..count).map(row).collect()
}

fn apply(store: &Store, mark: u64, key: &str, value: &str) {
    let mut batch = Batch::new();
    batch.put(key, value);
    let position = store.log().append(OWNED, b"a batch").unwrap();
    store.apply(mark, position, &batch).unwrap();
}

fn stage_all(store: &Store, rows: &Rows) {
    store.stage(true, &[]).unwrap();
    for piece in rows.chunks(7) {
        store.stage(false, piece).unwrap();
    }
}

fn install(store: &Store, mark: u64) -> Result<()> {
    let position = store.log().append(INSTALLED, &mark.to_le_bytes()).unwrap();
    store.install(mark, position)
}

fn all(store: &Store) -> Rows {
    let forwards: Rows = store.scan(.., Direction::Forwards).unwrap().map(Result::unwrap).collect();
    let mut backwards: Rows =
        store.scan(.., Direction::Backwards).unwrap().map(Result::unwrap).collect();
    backwards.reverse();
    assert_eq!(forwards, backwards);
    forwards
}

fn maintain_all(store: &Store) {
    while store.maintain().unwrap() != Maintained::Nothing {}
}

fn check_whole(store: &Store) {
    let report = store.verify().unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
}

#[test]
fn what_is_installed_is_all_there_is() {
    let disk = MemoryVfs::new();
    let store = open(&disk);
    for mark in 1..=150 {
        apply(&store, mark, &format!("old{:03}", mark % 40), &"o".repeat(60));
        if mark % 10 == 0 {
            store.maintain().unwrap();
        }
    }
    let before = all(&store);
    while store.maintain().unwrap() != Maintained::Nothing {}
    let staged = rows(1, 200);
    stage_all(&store, &staged);
    assert_eq!(all(&store), before, "nobody sees what is staged");
    apply(&store, 151, "old", "applied meanwhile");
    store.seal_staged(500).unwrap();
    store.seal_staged(500).unwrap();
    assert_eq!(store.sealed_mark(), Some(500));
    let stats = store.stats();
    assert_eq!(stats.staged_rows, 200);
    assert_eq!(all(&store).len(), before.len() + 1);
    check_whole(&store);

    install(&store, 500).unwrap();
    assert_eq!(all(&store), staged);
    assert_eq!(store.get(b"old").unwrap(), None);
    assert_eq!(store.get(&staged[17].0).unwrap().as_ref(), Some(&staged[17].1));
    assert_eq!((store.flushed_mark(), store.sealed_mark()), (500, None));
    check_whole(&store);
    // A log that ends before the record that says so has lost what was durable.
    let image = Arc::new(disk.crash_image(CrashMode::LoseUnsynced));
    let directory = Directory::open(image, DIR.as_ref(), Owner::default()).unwrap();
    let numbers = directory.manifest_summary().unwrap();
    assert!(numbers.contains(&("flushed position", store.log().last().0)), "{numbers:?}");
    assert!(store.maintain().unwrap() == Maintained::Did(Work::Removed), "old files go");
    maintain_all(&store);
    let segments: usize = store.stats().levels.iter().map(|level| level.segments).sum();
    let files =
        disk.files().iter().filter(|path| path.extension().is_some_and(|e| e == "segment")).count();
    assert_eq!(segments, files);
    assert!(segments > 5, "several files of the usual size");

    // It goes on from there.
    apply(&store, 501, "key0000", "new");
    store.flush().unwrap();
    store.compact().unwrap();
    let mut model: BTreeMap<Bytes, Bytes> = staged.into_iter().collect();
    model.insert("key0000".into(), "new".into());
    assert_eq!(all(&store), model.clone().into_iter().collect::<Rows>());
    drop(store);
    let store = open(&disk.crash_image(CrashMode::LoseUnsynced));
    assert_eq!(all(&store), model.into_iter().collect::<Rows>());
    assert_eq!(store.flushed_mark(), 501);
}

#[test]
fn nothing_staged_is_the_empty_store() {
    let store = open(&MemoryVfs::new());
    apply(&store, 1, "a", "1");
    store.flush().unwrap();
    apply(&store, 2, "b", "2");
    store.seal_staged(9).unwrap();
    install(&store, 9).unwrap();
    assert_eq!(all(&store), []);
    apply(&store, 10, "c", "3");
    store.flush().unwrap();
    assert_eq!(all(&store), [("c".into(), "3".into())]);
}

#[test]
fn what_was_begun_before_keeps_its_rows() {
    let disk = MemoryVfs::new();
    let store = open(&disk);
    for mark in 1..=60 {
        apply(&store, mark, &format!("old{mark:03}"), &"o".repeat(60));
        store.maintain().unwrap();
    }
    let before = all(&store);
    let (snapshot, scan) = (store.snapshot(), store.scan(.., Direction::Forwards).unwrap());
    let backwards = store.scan(.., Direction::Backwards).unwrap();
    stage_all(&store, &rows(1, 100));
    store.seal_staged(100).unwrap();
    install(&store, 100).unwrap();
    let second = store.snapshot();
    stage_all(&store, &rows(2, 50));
    store.seal_staged(200).unwrap();
    install(&store, 200).unwrap();
    maintain_all(&store);
    store.compact().unwrap();
    assert_eq!(store.stats().snapshots, 2);

    let read = |snapshot: &kvorum_storage::Snapshot| -> Rows {
        snapshot.scan(.., Direction::Forwards).unwrap().map(Result::unwrap).collect()
    };
    assert_eq!(read(&snapshot), before);
    assert_eq!(snapshot.get(b"old007").unwrap().as_ref(), Some(&before[6].1));
    assert_eq!(scan.map(Result::unwrap).collect::<Rows>(), before);
    let mut reversed: Rows = backwards.map(Result::unwrap).collect();
    reversed.reverse();
    assert_eq!(reversed, before);
    assert_eq!(read(&second), rows(1, 100));
    assert_eq!(all(&store), rows(2, 50));
    drop(snapshot);
    assert_eq!(read(&second), rows(1, 100));
    drop(second);
    assert_eq!(store.stats().snapshots, 0);
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let disk = MemoryVfs::new();
    let store = open(&disk);
    apply(&store, 1, "a", "1");
    let refused = |result: Result<()>, word: &str| {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error}");
        assert!(error.to_string().contains(word), "{error}");
    };
    let row = |key: &'static str| (Bytes::from_static(key.as_bytes()), Bytes::new());
    refused(store.stage(false, &[row("a")]), "no staging has begun");
    refused(install(&store, 7), "mark 7 cannot be installed: nothing is sealed");

    store.stage(true, &[row("b"), row("d")]).unwrap();
    refused(store.stage(false, &[row("d")]), "must rise");
    refused(store.stage(false, &[row("c")]), "must rise");
    refused(store.stage(false, &[row("e"), row("g"), row("f")]), "must rise");
    refused(store.stage(true, &[row("z"), row("y")]), "must rise");
    refused(install(&store, 7), "nothing is sealed");
    // What was refused has changed nothing: neither its good part nor what was there before.
    store.stage(false, &[row("e")]).unwrap();
    store.seal_staged(7).unwrap();
    refused(store.stage(false, &[row("z")]), "sealed under mark 7");
    refused(store.seal_staged(8), "sealed under mark 7");
    refused(
        install(&store, 8),
        "mark 8 cannot be installed: what is sealed is the state at mark 7",
    );
    refused(store.install(7, Position(99)), "not there");
    apply(&store, 7, "a", "seven");
    refused(install(&store, 7), "mark 7 was applied");
    assert_eq!(all(&store), [("a".into(), "seven".into())]);

    store.stage(true, &[row("b"), row("d"), row("e")]).unwrap();
    store.seal_staged(9).unwrap();
    install(&store, 9).unwrap();
    assert_eq!(all(&store), [row("b"), row("d"), row("e")]);
    // What the install stands for is not applied to it.
    let position = store.log().append(OWNED, b"a batch").unwrap();
    refused(store.apply(9, position, &Batch::new()), "marks must rise");
    // Repeated, as a replay does.
    install(&store, 9).unwrap();
    install(&store, 8).unwrap();
    assert_eq!(all(&store), [row("b"), row("d"), row("e")]);

    let embedded =
        Store::open(Arc::new(MemoryVfs::new()), DIR.as_ref(), Options::default()).unwrap();
    embedded.put("a", "1", Durability::Sync).unwrap();
    refused(embedded.stage(true, &[]), "owner");
    refused(embedded.seal_staged(5), "owner");
    refused(embedded.install(5, Position(0)), "owner");
}

#[test]
fn what_is_thrown_away_leaves_no_files() {
    let disk = MemoryVfs::new();
    let store = open(&disk);
    let count = || {
        disk.files().iter().filter(|path| path.extension().is_some_and(|e| e == "segment")).count()
    };
    stage_all(&store, &rows(1, 100));
    assert!(count() > 3, "{}", count());
    store.stage(true, &[]).unwrap();
    assert_eq!((count(), store.stats().staged_rows), (0, 0));
    stage_all(&store, &rows(2, 100));
    store.seal_staged(9).unwrap();
    assert!(count() > 3, "{}", count());
    store.stage(true, &[]).unwrap();
    assert_eq!((count(), store.sealed_mark()), (0, None));

    // Sealed, and then reached in the ordinary way: it is of no use any more.
    stage_all(&store, &rows(3, 100));
    store.seal_staged(9).unwrap();
    apply(&store, 9, "a", "1");
    store.flush().unwrap();
    maintain_all(&store);
    assert_eq!((count(), store.sealed_mark()), (1, None));
    assert_eq!(all(&store), [("a".into(), "1".into())]);
}

#[test]
fn a_crash_takes_what_is_not_sealed_and_keeps_what_is() {
    let disk = MemoryVfs::new();
    let store = open(&disk);
    stage_all(&store, &rows(1, 100));
    let image = disk.crash_image(CrashMode::KeepAll);
    let (again, recovery) =
        Store::open_with_replay(Arc::new(image), DIR.as_ref(), tiny_options()).unwrap();
    assert!(recovery.orphans_removed > 3, "{}", recovery.orphans_removed);
    assert!(again.install(9, Position(0)).is_err());

    store.seal_staged(9).unwrap();
    let again = open(&disk.crash_image(CrashMode::LoseUnsynced));
    assert_eq!((again.sealed_mark(), again.stats().staged_rows), (Some(9), 100));
    check_whole(&again);
    assert_eq!(all(&again), []);
    install(&again, 9).unwrap();
    assert_eq!(all(&again), rows(1, 100));
    // A copy has what was applied, and not what is staged.
    stage_all(&again, &rows(2, 10));
    again.seal_staged(20).unwrap();
    again.checkpoint("/copy".as_ref()).unwrap();
}

/// The old files may be what keeps the disk full.
#[test]
fn old_files_are_removed_although_nothing_can_be_flushed() {
    let disk = MemoryVfs::new();
    let faulty = FaultyVfs::new(Arc::new(disk.clone()));
    let vfs = Arc::new(faulty.clone());
    let (store, _) = Store::open_with_replay(vfs, DIR.as_ref(), tiny_options()).unwrap();
    for mark in 1..=50 {
        apply(&store, mark, &format!("old{mark}"), &"o".repeat(60));
        store.maintain().unwrap();
    }
    store.seal_staged(100).unwrap();
    install(&store, 100).unwrap();
    for mark in 101..=150 {
        apply(&store, mark, &format!("new{mark}"), &"n".repeat(60));
    }
    assert!(store.stats().frozen_memtables > 0);
    let _ = faulty.arm(Fault::always(Operation::Create, Outcome::DiskFull));
    let segments = || {
        disk.files()
            .into_iter()
            .filter(|path| path.extension().is_some_and(|e| e == "segment"))
            .count()
    };
    assert!(segments() > 0);
    let error = loop {
        match store.maintain() {
            Ok(work) => assert_eq!(work, Maintained::Did(Work::Removed)),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
    assert_eq!(segments(), 0);
    faulty.heal();
    maintain_all(&store);
    assert_eq!(all(&store).len(), 50);
}

/// Files that are mapped can be removed, and are read on.
#[test]
fn it_works_on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 64 << 10, block_bytes: 4 << 10, ..Options::default() };
    let open =
        || Store::open_with_replay(Arc::new(RealVfs), dir.path(), options.clone()).unwrap().0;
    let rows = |generation: u64| -> Rows {
        let row = |number| {
            let key = Bytes::from(format!("{generation} key{number:06}"));
            (key, Bytes::from(vec![generation as u8; 100]))
        };
        (0..5000).map(row).collect()
    };
    let store = open();
    let mut snapshots = Vec::new();
    for generation in 1..=3_u64 {
        snapshots.push((store.snapshot(), all(&store)));
        for (number, piece) in rows(generation).chunks(500).enumerate() {
            store.stage(number == 0, piece).unwrap();
        }
        store.seal_staged(generation * 100).unwrap();
        install(&store, generation * 100).unwrap();
        apply(&store, generation * 100 + 1, &format!("{generation} new"), "row");
        store.flush().unwrap();
        maintain_all(&store);
        let mut expected = rows(generation);
        expected.push((format!("{generation} new").into(), "row".into()));
        assert_eq!(all(&store), expected);
        let files = std::fs::read_dir(dir.path().join("segments")).unwrap().count();
        let named: usize = store.stats().levels.iter().map(|level| level.segments).sum();
        assert_eq!(files, named);
        assert!(named > 8, "{named}");
    }
    for (snapshot, expected) in snapshots {
        let scan = snapshot.scan(.., Direction::Forwards).unwrap();
        assert_eq!(scan.map(Result::unwrap).collect::<Rows>(), expected);
    }
    check_whole(&store);
    let before = all(&store);
    stage_all(&store, &rows(7));
    store.seal_staged(700).unwrap();
    drop(store);
    let store = open();
    assert_eq!((all(&store), store.sealed_mark()), (before, Some(700)));
    install(&store, 700).unwrap();
    assert_eq!(all(&store), rows(7));
}
