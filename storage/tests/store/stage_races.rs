//! Installs in the middle of other work: what a flush or a compaction has made of rows that are gone
//! must not bring them back, and readers see one state or the other.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use bytes::Bytes;
use kvorum_storage::vfs::{CrashMode, FaultyVfs, MemoryVfs};
use kvorum_storage::{Batch, Direction, Maintained, Options, Store};

use crate::support::{DIR, SaysSo, tiny_options, until};

type Row = (Bytes, Bytes);

fn open(vfs: &FaultyVfs, options: Options) -> Store {
    Store::open_with_replay(Arc::new(vfs.clone()), DIR.as_ref(), options).unwrap().0
}

fn apply(store: &Store, mark: u64, batch: &Batch) {
    let position = store.log().append(16, b"a batch").unwrap();
    store.apply(mark, position, batch).unwrap();
}

fn install(store: &Store, mark: u64) {
    let position = store.log().append(17, b"an install").unwrap();
    store.install(mark, position).unwrap();
}

fn all(store: &Store) -> Vec<Row> {
    store.scan(.., Direction::Forwards).unwrap().map(Result::unwrap).collect()
}

fn row(key: String, value: &str) -> Row {
    (key.into(), Bytes::copy_from_slice(value.as_bytes()))
}

/// Work that writes segments.
#[derive(Clone, Copy, Debug)]
enum Work {
    Flush,
    Compact,
    Maintain,
}

impl Work {
    fn run(self, store: &Store) {
        match self {
            Work::Flush => store.flush().unwrap(),
            Work::Compact => store.compact().unwrap(),
            Work::Maintain => while store.maintain().unwrap() != Maintained::Nothing {},
        }
    }
}

/// A store in which there is something to flush and to compact, and something to install.
fn prepared() -> (MemoryVfs, FaultyVfs, Store, Vec<Row>) {
    let disk = MemoryVfs::new();
    let faulty = FaultyVfs::new(Arc::new(disk.clone()));
    let store = open(&faulty, Options { memtables_max: 9, ..tiny_options() });
    for mark in 1..=90 {
        let mut batch = Batch::new();
        batch.put(format!("old{:02}", mark * 7 % 30), "o".repeat(70)).delete("staged03");
        apply(&store, mark, &batch);
        if mark == 30 || mark == 45 || mark == 60 {
            store.flush().unwrap();
        }
    }
    assert!(store.stats().levels[0].segments >= 2 && store.stats().frozen_memtables >= 1);
    let staged: Vec<Row> =
        (0..40).map(|number| row(format!("staged{number:02}"), &"s".repeat(50))).collect();
    store.stage(true, &staged).unwrap();
    store.seal_staged(500).unwrap();
    (disk, faulty, store, staged)
}

/// Installs when the work has come to a certain change of its segments; whether it came so far.
fn install_in_the_middle(work: Work, at: u64) -> bool {
    let (disk, faulty, store, staged) = prepared();
    let snapshot = store.snapshot();
    let before = all(&store);
    let (seen, fired) = (AtomicU64::new(0), Arc::new(AtomicBool::new(false)));
    faulty.on_operation({
        // The disk has the hook, and the store the disk: to be let go, it is taken.
        let (store, fired) = (Mutex::new(Some(store.clone())), Arc::clone(&fired));
        move |event| {
            let is_ours = event.path.starts_with(Path::new(DIR).join("segments"));
            if !is_ours || seen.fetch_add(1, SeqCst) != at {
                return;
            }
            let store = store.lock().unwrap().take();
            install(&store.unwrap(), 500);
            fired.store(true, SeqCst);
        }
    });
    work.run(&store);
    faulty.on_operation(|_| {});
    let context = format!("{work:?} at {at}");
    if !fired.load(SeqCst) {
        install(&store, 500);
    }
    assert_eq!(all(&store), staged, "{context}");
    let read: Vec<Row> =
        snapshot.scan(.., Direction::Forwards).unwrap().map(Result::unwrap).collect();
    assert_eq!(read, before, "{context}: the snapshot");
    drop(snapshot);
    // It goes on: also with the keys that were deleted, and those that are gone.
    let mut batch = Batch::new();
    batch.put("old03", "new").put("staged03", "new").delete("staged07");
    apply(&store, 501, &batch);
    let expected = || {
        let mut rows = staged.clone();
        rows.retain(|(key, _)| key != "staged07" && key != "staged03");
        rows.extend([row("old03".to_owned(), "new"), row("staged03".to_owned(), "new")]);
        rows.sort();
        rows
    };
    assert_eq!(all(&store), expected(), "{context}");
    work.run(&store);
    store.compact().unwrap();
    Work::Maintain.run(&store);
    assert_eq!(all(&store), expected(), "{context}");
    let report = store.verify().unwrap();
    assert!(report.problems.is_empty(), "{context}: {:?}", report.problems);
    let segments: usize = store.stats().levels.iter().map(|level| level.segments).sum();
    let files = || {
        disk.files().into_iter().filter(|path| path.extension().is_some_and(|end| end == "segment"))
    };
    assert_eq!(files().count(), segments, "{context}: {:?}", files().collect::<Vec<_>>());
    let image = disk.crash_image(CrashMode::LoseUnsynced);
    let again = open(&FaultyVfs::new(Arc::new(image)), tiny_options());
    assert_eq!(all(&again), expected(), "{context}: opened again");
    fired.load(SeqCst)
}

#[test]
fn what_was_under_way_brings_no_old_rows_back() {
    for work in [Work::Flush, Work::Compact, Work::Maintain] {
        let fired = (0..).take_while(|at| install_in_the_middle(work, *at)).count();
        println!("{work:?}: {fired} places");
        assert!(fired > 8, "{work:?}: {fired} places");
    }
}

/// However busy the machine is, each reader reads some of the states.
fn await_round(rounds: &[AtomicU64; 2], readers: &[ScopedJoinHandle<'_, ()>; 2]) {
    let before = rounds.each_ref().map(|rounds| rounds.load(SeqCst));
    for ((round, reader), before) in rounds.iter().zip(readers).zip(before) {
        until("a reader reads", || round.load(SeqCst) > before || reader.is_finished());
    }
}

/// In each state all rows have the same value, its number, and there is a certain count of them.
#[test]
fn readers_see_the_old_store_or_the_new_one_while_threads_flush_and_compact() {
    const STATES: u64 = 1500;
    let faulty = FaultyVfs::new(Arc::new(MemoryVfs::new()));
    let options = Options { level0_segments_slow: 40, level0_segments_stop: 40, ..tiny_options() };
    let store = open(&faulty, options);
    // By the number of the state.
    let counts = Mutex::new(vec![0_usize]);
    let done = AtomicBool::new(false);
    let rounds = [const { AtomicU64::new(0) }; 2];
    std::thread::scope(|scope| {
        let says_so = SaysSo(&done);
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(SeqCst) {
                    while store.maintain().unwrap() != Maintained::Nothing {}
                    store.wait_for_maintenance(Duration::from_millis(5));
                }
            });
        }
        let (store, counts, done) = (&store, &counts, &done);
        let check = |rows: Vec<Row>, last: u64| -> u64 {
            let Some((_, value)) = rows.first() else { return last };
            assert!(rows.iter().all(|(_, other)| other == value), "parts of two states");
            let number: u64 = std::str::from_utf8(value).unwrap().parse().unwrap();
            assert!(number >= last, "state {number} after {last}");
            assert_eq!(rows.len(), counts.lock().unwrap()[number as usize], "state {number}");
            number
        };
        let rounds = &rounds;
        let read = move |reader: usize| {
            let mut last = 0;
            while !done.load(SeqCst) {
                let snapshot = store.snapshot();
                last = check(all(store), last);
                let read = |direction| {
                    let mut rows: Vec<Row> =
                        snapshot.scan(.., direction).unwrap().map(Result::unwrap).collect();
                    rows.sort();
                    rows
                };
                let first = read(Direction::Forwards);
                check(first.clone(), 0);
                std::thread::yield_now();
                assert_eq!(read(Direction::Backwards), first, "a snapshot does not change");
                rounds[reader].fetch_add(1, SeqCst);
            }
        };
        let readers = [0, 1].map(|reader| scope.spawn(move || read(reader)));
        let mut count = 0;
        for number in 1..=STATES {
            let rows = |count: usize| -> Vec<Row> {
                (0..count).map(|key| row(format!("key{key:02}"), &number.to_string())).collect()
            };
            if number % 15 == 0 {
                count = 5 + (number as usize * 13) % 60;
                counts.lock().unwrap().push(count);
                store.stage(true, &rows(count / 2)).unwrap();
                store.stage(false, &rows(count)[count / 2..]).unwrap();
                store.seal_staged(number).unwrap();
                install(store, number);
            } else {
                counts.lock().unwrap().push(count);
                let mut batch = Batch::new();
                for (key, value) in rows(count) {
                    batch.put(key, value);
                }
                apply(store, number, &batch);
                if number % 40 == 0 {
                    store.release(store.log().last().next());
                }
                // Nor does an install always come before the threads get to flush what it replaces.
                if number % 15 == 7 {
                    store.flush().unwrap();
                }
                if number % 100 == 50 {
                    await_round(rounds, &readers);
                }
            }
        }
        drop(says_so);
        for reader in readers {
            reader.join().unwrap();
        }
    });
    let stats = store.stats();
    println!("{stats:?}");
    assert!(stats.installs == STATES / 15, "{stats:?}");
    // Before the first install there is nothing to flush.
    assert!(stats.flushes >= stats.installs - 1, "{stats:?}");
    assert!(store.verify().unwrap().problems.is_empty());
}
