//! Staging on a disk that fails, is full, or lies: the store that was there stays whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use kvorum_storage::vfs::{
    CrashMode, Fault, FaultyVfs, MemoryVfs, OpenMode, Operation, Outcome, Vfs,
};
use kvorum_storage::{Batch, Direction, Error, Maintained, Result, Store};

use crate::support::{DIR, tiny_options};

type Rows = Vec<(Bytes, Bytes)>;

const MARK: u64 = 100;

fn open(vfs: Arc<dyn Vfs>) -> Result<Store> {
    Ok(Store::open_with_replay(vfs, DIR.as_ref(), tiny_options())?.0)
}

fn read(store: &Store) -> Result<Rows> {
    store.scan(.., Direction::Forwards)?.collect()
}

/// A store with a few segments; it has nothing that only the log has.
fn old_store(vfs: Arc<dyn Vfs>) -> (Store, Rows) {
    let store = open(vfs).unwrap();
    let mut rows = BTreeMap::new();
    for mark in 1..=40 {
        let (key, value) = (Bytes::from(format!("key{mark:02}")), Bytes::from("o".repeat(60)));
        let mut batch = Batch::new();
        batch.put(key.clone(), value.clone());
        rows.insert(key, value);
        let position = store.log().append(16, b"a batch").unwrap();
        store.apply(mark, position, &batch).unwrap();
    }
    store.flush().unwrap();
    while store.maintain().unwrap() != Maintained::Nothing {}
    (store, rows.into_iter().collect())
}

fn new_rows() -> Rows {
    let row = |number| {
        (
            Bytes::from(format!("key{:03}", number * 2)),
            Bytes::from("n".repeat(number as usize % 60)),
        )
    };
    (0..90_u32).map(row).collect()
}

fn stage(store: &Store) -> Result<()> {
    for (number, piece) in new_rows().chunks(20).enumerate() {
        store.stage(number == 0, piece)?;
    }
    Ok(())
}

/// All of it.
fn replace(store: &Store) -> Result<()> {
    stage(store)?;
    store.seal_staged(MARK)?;
    let position = store.log().append(17, b"an install")?;
    store.log().sync(position)?;
    store.install(MARK, position)
}

fn segments(disk: &MemoryVfs) -> Vec<PathBuf> {
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|end| end == "segment");
    disk.files().into_iter().filter(is_segment).collect()
}

fn check_sound(store: &Store, context: &str) {
    let report = store.verify().unwrap();
    assert!(report.problems.is_empty(), "{context}: {:?}", report.problems);
}

/// Lets each operation of these kinds fail in turn while a store is replaced.
fn at_each(
    outcome: Outcome,
    operations: &[Operation],
    paths: &[&str],
    check: impl Fn(&MemoryVfs, &Store, &Rows, &Error, &str),
) {
    let mut fired = 0;
    for (operation, path) in operations.iter().flat_map(|o| paths.iter().map(move |p| (*o, *p))) {
        for after in 0.. {
            let disk = MemoryVfs::new();
            let faulty = FaultyVfs::new(Arc::new(disk.clone()));
            let (store, old) = old_store(Arc::new(faulty.clone()));
            let armed = faulty.arm(Fault::once(operation, outcome).on(path).after(after));
            let result = replace(&store);
            if armed.fired() == 0 {
                assert!(result.is_ok(), "{result:?}");
                break;
            }
            fired += 1;
            let context = format!("{operation:?} of {path} after {after} {outcome:?}");
            let Err(error) = result else { panic!("{context}: nobody was told") };
            assert_eq!(read(&store).unwrap(), old, "{context}: the old store is whole");
            check(&disk, &store, &old, &error, &context);
        }
    }
    println!("{outcome:?}: {fired} faults");
    assert!(fired > 10, "{fired} faults fired");
}

#[test]
fn without_room_staging_is_given_up_and_begins_again() {
    let operations = [Operation::Create, Operation::Write, Operation::Sync, Operation::Rename];
    for outcome in [Outcome::DiskFull, Outcome::ShortWriteFull(100)] {
        at_each(
            outcome,
            &operations,
            &["segments", "MANIFEST"],
            |disk, store, old, error, context| {
                assert!(matches!(error, Error::DiskFull { .. }), "{context}: {error}");
                if store.sealed_mark().is_none() {
                    // The room is given back at once, and nothing goes on where rows are missing.
                    let named: usize =
                        store.stats().levels.iter().map(|level| level.segments).sum();
                    assert_eq!(segments(disk).len(), named, "{context}");
                    let error = store.stage(false, &[]).unwrap_err();
                    assert!(error.to_string().contains("begin"), "{context}: {error}");
                    let error = store.seal_staged(MARK).unwrap_err();
                    assert!(error.to_string().contains("begin"), "{context}: {error}");
                }
                check_sound(store, context);
                let again = open(Arc::new(disk.crash_image(CrashMode::LoseUnsynced))).unwrap();
                assert_eq!(read(&again).unwrap(), *old, "{context}: opened again");
                // There is room again.
                store.flush().unwrap();
                replace(store).unwrap();
                assert_eq!(read(store).unwrap(), new_rows(), "{context}");
                check_sound(store, context);
                let again = open(Arc::new(disk.crash_image(CrashMode::LoseUnsynced))).unwrap();
                assert_eq!(read(&again).unwrap(), new_rows(), "{context}: opened again");
            },
        );
    }
}

#[test]
fn too_many_open_files_are_no_reason_to_give_up() {
    let operations = [Operation::Create, Operation::Open, Operation::Map];
    let paths = ["segments", "MANIFEST"];
    at_each(Outcome::TooManyFiles, &operations, &paths, |_, store, _, error, context| {
        assert!(matches!(error, Error::Io { .. }), "{context}: {error}");
        check_sound(store, context);
        replace(store).unwrap();
        assert_eq!(read(store).unwrap(), new_rows(), "{context}");
    });
}

#[test]
fn after_a_failure_in_doubt_the_next_opening_finds_one_store_or_the_other() {
    let operations = [Operation::Write, Operation::Sync, Operation::Rename, Operation::SyncDir];
    let paths = ["segments", "MANIFEST", DIR];
    let found_new = std::cell::Cell::new(0);
    at_each(Outcome::InputOutput, &operations, &paths, |disk, store, old, error, context| {
        let Error::Io { path, .. } = error else { panic!("{context}: {error}") };
        if path.starts_with(Path::new(DIR).join("log")) {
            // Staging does not need the log, but an install rests on it.
            let result = replace(store);
            assert!(matches!(result, Err(Error::Poisoned { .. })), "{context}: {result:?}");
            assert_eq!(read(store).unwrap(), *old, "{context}");
            return;
        }
        for result in [store.stage(true, &[]), store.seal_staged(MARK), store.flush()] {
            assert!(matches!(result, Err(Error::Poisoned { .. })), "{context}: {result:?}");
        }
        for mode in [CrashMode::LoseUnsynced, CrashMode::KeepAll, CrashMode::Random { seed: 3 }] {
            let again = open(Arc::new(disk.crash_image(mode))).unwrap();
            let rows = read(&again).unwrap();
            let is_new = again.flushed_mark() == MARK;
            assert_eq!(rows, if is_new { new_rows() } else { old.clone() }, "{context}");
            found_new.set(found_new.get() + u64::from(is_new));
            check_sound(&again, context);
            // What a replay does next: sealed, the record is there, and it is installed.
            if again.sealed_mark() == Some(MARK) && again.log().last().0 > 40 {
                again.install(MARK, again.log().last()).unwrap();
                assert_eq!(read(&again).unwrap(), new_rows(), "{context}");
            } else if !is_new {
                replace(&again).unwrap();
                assert_eq!(read(&again).unwrap(), new_rows(), "{context}");
            }
        }
    });
    assert!(found_new.get() > 0, "no crash image had the new store");
}

/// A store with sealed rows, and the files of these.
fn sealed_store() -> (MemoryVfs, Rows, Vec<PathBuf>) {
    let disk = MemoryVfs::new();
    let (store, old) = old_store(Arc::new(disk.clone()));
    let before = segments(&disk);
    stage(&store).unwrap();
    store.seal_staged(MARK).unwrap();
    let staged = segments(&disk).into_iter().filter(|path| !before.contains(path)).collect();
    (disk, old, staged)
}

fn names(error: &Error, path: &Path) -> bool {
    matches!(error, Error::Corrupt { file, .. } if file == path)
}

#[test]
fn damage_of_what_is_sealed_is_named_and_never_shown() {
    let (disk, old, staged) = sealed_store();
    assert!(staged.len() >= 3, "{staged:?}");
    let (mut at_opening, mut at_install, mut at_reading) = (0, 0, 0);
    for path in &staged {
        let len = disk.open(path, OpenMode::Read).unwrap().len().unwrap();
        for offset in 0..len {
            disk.flip(path, offset, 1 << (offset % 8)).unwrap();
            let image = disk.crash_image(CrashMode::KeepAll);
            disk.flip(path, offset, 1 << (offset % 8)).unwrap();
            let context = format!("{} at {offset}", path.display());
            let store = match open(Arc::new(image)) {
                Ok(store) => store,
                Err(error) => {
                    assert!(names(&error, path), "{context}: {error}");
                    at_opening += 1;
                    continue;
                }
            };
            let problems = store.verify().unwrap().problems;
            assert!(problems.len() == 1 && names(&problems[0], path), "{context}: {problems:?}");
            let position = store.log().append(17, b"an install").unwrap();
            if let Err(error) = store.install(MARK, position) {
                assert!(names(&error, path), "{context}: {error}");
                assert_eq!(read(&store).unwrap(), old, "{context}: the old store is whole");
                at_install += 1;
                // Other rows can be had instead.
                if offset % 16 == 0 {
                    replace(&store).unwrap();
                    assert_eq!(read(&store).unwrap(), new_rows(), "{context}");
                    check_sound(&store, &context);
                }
                continue;
            }
            at_reading += 1;
            let error = read(&store).unwrap_err();
            assert!(names(&error, path), "{context}: {error}");
            for (key, value) in new_rows() {
                match store.get(&key) {
                    Ok(found) => assert_eq!(found, Some(value), "{context}"),
                    Err(error) => assert!(names(&error, path), "{context}: {error}"),
                }
            }
        }
    }
    println!("{at_opening} at opening, {at_install} at installing, {at_reading} at reading");
    assert!(at_opening > 100 && at_install > 100 && at_reading > 100);
}

#[test]
fn a_sealed_file_that_is_gone_or_cut_is_named_at_opening() {
    let (disk, _, staged) = sealed_store();
    for path in &staged {
        let image = disk.crash_image(CrashMode::KeepAll);
        let file = image.open(path, OpenMode::ReadWrite).unwrap();
        file.set_len(file.len().unwrap() - 1).unwrap();
        let error = open(Arc::new(image)).err().unwrap();
        assert!(names(&error, path), "{error}");

        let image = disk.crash_image(CrashMode::KeepAll);
        image.remove(path).unwrap();
        let error = open(Arc::new(image)).err().unwrap();
        assert!(matches!(&error, Error::Missing { file } if file == path), "{error}");
    }
    // While the store is open the install says so, and changes nothing.
    let disk = MemoryVfs::new();
    let (store, old) = old_store(Arc::new(disk.clone()));
    let before = segments(&disk);
    stage(&store).unwrap();
    store.seal_staged(MARK).unwrap();
    let gone = segments(&disk).into_iter().find(|path| !before.contains(path)).unwrap();
    disk.remove(&gone).unwrap();
    let position = store.log().append(17, b"an install").unwrap();
    let error = store.install(MARK, position).unwrap_err();
    assert!(matches!(&error, Error::Missing { file } if *file == gone), "{error}");
    assert_eq!(read(&store).unwrap(), old);
    replace(&store).unwrap();
    assert_eq!(read(&store).unwrap(), new_rows());
}
