//! Several at work on one tree: parts of one compaction taken by others, compactions beside each
//! other, flushes in between. So that each run is the same again, there is one thread, and in the
//! middle of its work it begins the next unit, as another thread would.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use kvorum_storage::vfs::{
    CrashMode, Event, Fault, FaultyVfs, MemoryVfs, Operation, Outcome, Phase,
};
use kvorum_storage::{Batch, Direction, Durability, Error, Maintained, Options, Snapshot, Store};

use crate::support::{DIR, LONG, Random, tiny_options};

type Content = BTreeMap<Bytes, Bytes>;

/// So many units of work are begun within each other: as many threads.
const DEPTH_MAX: u64 = 3;

fn options() -> Options {
    // Room for what nobody flushes while the rows are written.
    Options { memtables_max: 20, ..tiny_options() }
}

fn open(vfs: &FaultyVfs) -> Store {
    Store::open(Arc::new(vfs.clone()), DIR.as_ref(), options()).unwrap()
}

fn content(store: &Store) -> Content {
    store.scan(.., Direction::Forwards).unwrap().map(Result::unwrap).collect()
}

/// Writes rows all over the keys, some of them deletes, and does the same to the model.
fn write(store: &Store, model: &mut Content, random: &mut Random, batches: u64) {
    for _ in 0..batches {
        let mut batch = Batch::new();
        for _ in 0..4 {
            let key = Bytes::from(format!("key{:03}", random.below(150)));
            if random.below(5) == 0 {
                batch.delete(key.clone());
                model.remove(&key);
            } else {
                let value = Bytes::from(format!("{:x}", random.next()).repeat(4));
                batch.put(key.clone(), value.clone());
                model.insert(key, value);
            }
        }
        store.write(batch, Durability::Sync).unwrap();
    }
}

/// What was begun in the middle of other work.
#[derive(Default)]
struct Seen {
    depth: AtomicU64,
    /// Units of work begun within others, and how many of them did something.
    begun: AtomicU64,
    done: AtomicU64,
    /// Of segments that were being written within others: the most at once.
    deepest: AtomicU64,
    errors: Mutex<Vec<Error>>,
}

impl Seen {
    /// Another unit of work, if the event is one at which others may begin one.
    fn meanwhile(&self, store: &Store, event: &Event<'_>) {
        let is_segment = event.path.extension().is_some_and(|end| end == "segment");
        let begins = event.phase == Phase::Succeeded && event.operation == Operation::Write;
        if !is_segment || !begins || self.depth.load(SeqCst) == DEPTH_MAX {
            return;
        }
        let depth = self.depth.fetch_add(1, SeqCst) + 1;
        self.begun.fetch_add(1, SeqCst);
        match store.maintain() {
            Ok(Maintained::Did(_)) => {
                self.done.fetch_add(1, SeqCst);
                self.deepest.fetch_max(depth, SeqCst);
            }
            Ok(Maintained::Nothing) => {}
            Err(error) => self.errors.lock().unwrap().push(error),
        }
        self.depth.fetch_sub(1, SeqCst);
    }
}

/// A store with much to flush and to compact.
fn prepared(seed: u64) -> (MemoryVfs, FaultyVfs, Store, Content, Random) {
    let disk = MemoryVfs::new();
    let faulty = FaultyVfs::new(Arc::new(disk.clone()));
    let (store, mut model, mut random) = (open(&faulty), Content::new(), Random::new(seed));
    write(&store, &mut model, &mut random, 150);
    while store.maintain().unwrap() != Maintained::Nothing {}
    write(&store, &mut model, &mut random, 90);
    (disk, faulty, store, model, random)
}

fn segment_files(disk: &MemoryVfs) -> Vec<PathBuf> {
    let is_segment = |path: &PathBuf| path.starts_with(Path::new(DIR).join("segments"));
    disk.files().into_iter().filter(is_segment).collect()
}

fn check_whole(disk: &MemoryVfs, store: &Store, model: &Content, context: &str) {
    assert_eq!(content(store), *model, "{context}");
    let report = store.verify().unwrap();
    assert!(report.problems.is_empty(), "{context}: {:?}", report.problems);
    let named: usize = store.stats().levels.iter().map(|level| level.segments).sum();
    let files = segment_files(disk);
    assert_eq!(files.len(), named, "{context}: {files:?}");
}

/// Lets others begin at each write of a segment while all is done that is due.
fn work_together(faulty: &FaultyVfs, store: &Store, seen: &Arc<Seen>) -> Result<(), Error> {
    faulty.on_operation({
        let (store, seen) = (store.clone(), Arc::clone(seen));
        move |event| seen.meanwhile(&store, event)
    });
    let result = (|| {
        while store.maintain()? != Maintained::Nothing {}
        Ok(())
    })();
    faulty.forget_hook();
    result
}

#[test]
fn a_crash_in_the_middle_of_several_works_loses_nothing() {
    let (crashes, units) = (Arc::new(AtomicU64::new(0)), AtomicU64::new(0));
    for seed in 0..4 {
        let (disk, faulty, store, model, _) = prepared(seed);
        let seen = Arc::new(Seen::default());
        faulty.on_operation({
            let (disk, store, seen) = (disk.clone(), store.clone(), Arc::clone(&seen));
            let (crashes, model) = (Arc::clone(&crashes), model.clone());
            move |event| {
                if event.operation.changes_disk() && event.phase != Phase::Failed {
                    let number = crashes.fetch_add(1, SeqCst);
                    let mode = match number % 3 {
                        0 => CrashMode::LoseUnsynced,
                        1 => CrashMode::KeepAll,
                        _ => CrashMode::Random { seed: seed ^ number },
                    };
                    let image = disk.crash_image(mode);
                    let again = open(&FaultyVfs::new(Arc::new(image)));
                    assert_eq!(content(&again), model, "{seed}, {number} at {event:?} {mode:?}");
                }
                seen.meanwhile(&store, event);
            }
        });
        while store.maintain().unwrap() != Maintained::Nothing {}
        faulty.forget_hook();
        check_whole(&disk, &store, &model, &format!("{seed}"));
        assert!(seen.errors.lock().unwrap().is_empty(), "{:?}", seen.errors);
        assert!(seen.deepest.load(SeqCst) >= 2, "{seed}: not within each other");
        units.fetch_add(seen.done.load(SeqCst), SeqCst);
    }
    let (crashes, units) = (crashes.load(SeqCst), units.load(SeqCst));
    assert!(crashes > 1000 && units > 60, "{crashes} crashes, {units} units within others");
}

#[test]
fn snapshots_see_the_same_however_many_compact() {
    for seed in 10..14 {
        let (disk, faulty, store, mut model, mut random) = prepared(seed);
        let mut snapshots: Vec<(Snapshot, Content)> = Vec::new();
        let mut units = 0;
        for round in 0..12 {
            snapshots.push((store.snapshot(), model.clone()));
            write(&store, &mut model, &mut random, 30);
            let seen = Arc::new(Seen::default());
            work_together(&faulty, &store, &seen).unwrap();
            units += seen.done.load(SeqCst);
            for (number, (snapshot, expected)) in snapshots.iter().enumerate() {
                let rows = snapshot.scan(.., Direction::Forwards).unwrap().map(Result::unwrap);
                let context = format!("{seed}, {round}: snapshot {number}");
                assert_eq!(rows.collect::<Content>(), *expected, "{context}");
            }
            if round % 3 == 2 {
                snapshots.remove(random.below(snapshots.len() as u64) as usize);
            }
        }
        snapshots.clear();
        store.compact().unwrap();
        check_whole(&disk, &store, &model, &format!("{seed}"));
        assert!(units > 10, "{seed}: {units}");
    }
}

#[test]
fn a_part_that_finds_the_disk_full_takes_the_others_with_it_and_leaves_no_file() {
    let (mut fired, mut within) = (0, 0);
    for operation in [Operation::Create, Operation::Write, Operation::Sync] {
        for after in (0..).step_by(3) {
            let (disk, faulty, store, model, _) = prepared(20 + after % 2);
            let fault = Fault::once(operation, Outcome::DiskFull).on("segments").after(after);
            let armed = faulty.arm(fault);
            let seen = Arc::new(Seen::default());
            let result = work_together(&faulty, &store, &seen);
            if armed.fired() == 0 {
                result.unwrap();
                break;
            }
            fired += 1;
            let errors: Vec<Error> =
                result.err().into_iter().chain(seen.errors.lock().unwrap().drain(..)).collect();
            let context = format!("{operation:?} after {after}: {errors:?}");
            within += u64::from(seen.begun.load(SeqCst) > 0);
            assert!(
                errors.iter().all(|error| matches!(error, Error::DiskFull { .. })),
                "{context}"
            );
            assert!(!errors.is_empty(), "{context}: nobody was told");
            check_whole(&disk, &store, &model, &context);
            // There is room again: all of it can be done.
            work_together(&faulty, &store, &Arc::default()).unwrap();
            check_whole(&disk, &store, &model, &context);
            let again = open(&FaultyVfs::new(Arc::new(disk.crash_image(CrashMode::LoseUnsynced))));
            assert_eq!(content(&again), model, "{context}");
        }
    }
    assert!(fired > 20 && within > 15, "{fired} faults, {within} with others at work");
}

#[test]
fn a_compaction_whose_install_panics_does_not_keep_others_from_compacting() {
    let (disk, faulty, store, model, _) = prepared(50);
    store.flush().unwrap();
    faulty.on_operation(|event| {
        let is_manifest = event.operation == Operation::Rename;
        assert!(!is_manifest || event.phase != Phase::Before, "planned");
    });
    let compact = || store.compact();
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(compact)).is_err());
    faulty.forget_hook();
    let (compacted, ends) = std::sync::mpsc::channel();
    let again = store.clone();
    // Not joined: where the claim stays, it waits for ever.
    std::thread::spawn(move || compacted.send(again.compact()));
    ends.recv_timeout(LONG).unwrap().unwrap();
    assert_eq!(content(&store), model);
    let again = open(&FaultyVfs::new(Arc::new(disk.crash_image(CrashMode::LoseUnsynced))));
    assert_eq!(content(&again), model);
}

/// With one caller there is one order of things.
#[test]
fn the_same_calls_give_the_same_bytes() {
    let files = |_: u64| {
        let (disk, _, store, _, _) = prepared(30);
        while store.settle().unwrap() != Maintained::Nothing {}
        let read = |path: PathBuf| {
            use kvorum_storage::vfs::{OpenMode, Vfs};
            let bytes = disk.open(&path, OpenMode::Read).unwrap().map().unwrap();
            (path, bytes)
        };
        segment_files(&disk).into_iter().map(read).collect::<Vec<_>>()
    };
    let first = files(0);
    assert!(first.len() > 3, "{} files", first.len());
    assert!(files(1) == first, "another run, other bytes");
}

#[test]
fn an_idle_store_takes_little_more_room_than_what_lives_in_it() {
    let (disk, faulty, store, mut model, mut random) = prepared(40);
    for _ in 0..20 {
        write(&store, &mut model, &mut random, 20);
        store.maintain().unwrap();
    }
    let mut units = 0;
    while store.settle().unwrap() != Maintained::Nothing {
        units += 1;
        assert!(units < 1000, "it comes to an end");
    }
    let stats = store.stats();
    let above: u64 = stats.levels.iter().rev().skip(1).map(|level| level.bytes).sum();
    let bottom = stats.levels.last().unwrap();
    assert!(above * 100 <= bottom.bytes * u64::from(options().idle_garbage_percent), "{stats:?}");
    assert!(bottom.entries <= model.len() as u64, "{stats:?}");
    // The last log file always stays, and no other does.
    assert!(stats.log_bytes <= options().log.file_bytes, "{stats:?}");
    let is_free = |path: &PathBuf| path.extension().is_some_and(|end| end == "free");
    assert_eq!(disk.files().into_iter().filter(is_free).count(), 0);
    check_whole(&disk, &store, &model, "settled");
    // Once settled it stays so, and writes nothing.
    let before = faulty.operations();
    assert_eq!(store.settle().unwrap(), Maintained::Nothing);
    assert_eq!(faulty.operations(), before);
}

#[test]
fn deletes_leave_the_bottom_once_nobody_reads_what_they_hid() {
    let disk = MemoryVfs::new();
    let faulty = FaultyVfs::new(Arc::new(disk.clone()));
    let store = open(&faulty);
    let (mut model, mut random) = (Content::new(), Random::new(50));
    write(&store, &mut model, &mut random, 150);
    let snapshot = store.snapshot();
    let mut batch = Batch::new();
    for key in model.keys() {
        batch.delete(key.clone());
    }
    store.write(batch, Durability::Sync).unwrap();
    store.compact().unwrap();
    let settle = || while store.settle().unwrap() != Maintained::Nothing {};
    settle();
    assert_eq!(snapshot.scan(.., Direction::Forwards).unwrap().count(), model.len());
    assert!(store.stats().levels[6].segments > 0, "the snapshot holds them");
    drop(snapshot);
    settle();
    assert_eq!(segment_files(&disk).len(), 0, "{:?}", store.stats().levels);
    assert_eq!(content(&store).len(), 0);
}
