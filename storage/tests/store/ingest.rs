//! Ingesting sorted rows: all of them or none, newer than what was before and older than what comes
//! after, for readers and for a crash at any point.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use bytes::Bytes;
use kvorum_storage::vfs::{CrashMode, Fault, FaultyVfs, MemoryVfs, Operation, Outcome, Phase, Vfs};
use kvorum_storage::{
    Batch, Direction, Durability, Error, Maintained, Options, Snapshot, Stats, Store,
};

use crate::support::{DIR, LONG, Random, SaysSo, tiny_options};

type Rows = BTreeMap<Bytes, Bytes>;

fn open(vfs: impl Vfs) -> Store {
    Store::open(Arc::new(vfs), DIR.as_ref(), tiny_options()).unwrap()
}

fn read(store: &Store) -> Rows {
    store.scan(.., Direction::Forwards).unwrap().map(Result::unwrap).collect()
}

fn read_snapshot(snapshot: &Snapshot) -> Rows {
    snapshot.scan(.., Direction::Forwards).unwrap().map(Result::unwrap).collect()
}

/// Rows `from..to` with a value that says who wrote them; enough of them to make segments.
fn rows(from: u32, to: u32, who: &str) -> impl Iterator<Item = (String, String)> {
    (from..to).map(move |number| (format!("key{number:04}"), format!("{who} {}", "x".repeat(40))))
}

fn is_of(store: &Store, number: u32, who: &str) -> bool {
    let value = store.get(format!("key{number:04}").as_bytes()).unwrap();
    value.is_some_and(|value| value.starts_with(who.as_bytes()))
}

fn in_levels(stats: &Stats) -> Vec<usize> {
    stats.levels.iter().map(|level| level.segments).collect()
}

fn segment_files(disk: &MemoryVfs) -> usize {
    disk.files().iter().filter(|path| path.extension().is_some_and(|end| end == "segment")).count()
}

fn check_sound(store: &Store, context: &str) {
    let report = store.verify().unwrap();
    assert!(report.problems.is_empty(), "{context}: {:?}", report.problems);
}

#[test]
fn rows_go_as_deep_as_they_overlap_nothing_and_are_there_after_a_crash() {
    let disk = MemoryVfs::new();
    let store = open(disk.clone());
    let ingested = store.ingest(rows(0, 200, "first")).unwrap();
    assert_eq!(ingested.rows, 200);
    assert!(ingested.segments > 5 && ingested.bytes > 8000, "{ingested:?}");
    let stats = store.stats();
    let deepest = stats.levels.iter().rposition(|level| level.segments > 0).unwrap();
    assert!(deepest > 1, "{:?}", in_levels(&stats));
    assert_eq!(stats.levels[deepest].segments as u64, ingested.segments);

    // Beside them: as deep. Over some of them: above.
    store.ingest(rows(300, 340, "second")).unwrap();
    assert_eq!(store.stats().levels[deepest - 1].segments, 0);
    store.ingest(rows(150, 190, "third")).unwrap();
    assert!(store.stats().levels[deepest - 1].segments > 0, "{:?}", in_levels(&store.stats()));
    for (number, who) in [(149, "first"), (150, "third"), (189, "third"), (190, "first")] {
        assert!(is_of(&store, number, who), "{number} is {who}'s");
    }
    assert!(is_of(&store, 339, "second"));
    let before = read(&store);
    assert_eq!(store.stats().ingests, 3);
    drop(store);
    let store = open(disk.crash_image(CrashMode::LoseUnsynced));
    assert_eq!(read(&store), before);
    check_sound(&store, "after a crash");
    store.compact().unwrap();
    assert_eq!(read(&store), before, "compacted");
}

#[test]
fn rows_are_newer_than_what_was_written_and_older_than_what_will_be() {
    let disk = MemoryVfs::new();
    let store = open(disk.clone());
    for (key, value) in rows(0, 100, "before") {
        store.put(key, value, Durability::Buffered).unwrap();
    }
    let mut ingest = store.begin_ingest().unwrap();
    for (key, value) in rows(0, 60, "ingested") {
        ingest.put(key.as_bytes(), value.as_bytes()).unwrap();
    }
    ingest.delete(b"key0060").unwrap();
    // Written after the files were begun, and yet before the rows are there.
    store.put("key0010", "meanwhile", Durability::Buffered).unwrap();
    let (snapshot, seen) = (store.snapshot(), read(&store));
    let begun = store.scan(.., Direction::Backwards).unwrap();
    assert!(is_of(&store, 0, "before") && is_of(&store, 10, "meanwhile"));
    ingest.finish().unwrap();
    assert!(is_of(&store, 0, "ingested") && is_of(&store, 10, "ingested"));
    assert!(is_of(&store, 61, "before"));
    assert_eq!(store.get(b"key0060").unwrap(), None);
    assert_eq!(read_snapshot(&snapshot), seen, "a snapshot does not change");
    assert_eq!(begun.map(Result::unwrap).collect::<Rows>(), seen, "nor does a scan");
    store.put("key0020", "afterwards", Durability::Sync).unwrap();
    let after = read(&store);
    assert!(is_of(&store, 20, "afterwards"));
    store.compact().unwrap();
    assert_eq!(read(&store), after);
    assert_eq!(read_snapshot(&snapshot), seen);
    drop((store, snapshot));
    let store = open(disk.crash_image(CrashMode::LoseUnsynced));
    assert_eq!(read(&store), after, "and all that came before is as durable");
}

#[test]
fn unsorted_rows_are_refused_by_name_and_nothing_of_them_stays() {
    let disk = MemoryVfs::new();
    let store = open(disk.clone());
    for last in ["key0198", "key0199", "a"] {
        let pairs = rows(0, 200, "x").chain([(last.to_owned(), String::new())]);
        let error = store.ingest(pairs).unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error}");
        let expected = format!("\"{last}\" does not come after \"key0199\"");
        assert!(error.to_string().contains(&expected), "{error}");
        assert_eq!((read(&store).len(), segment_files(&disk)), (0, 0));
    }
    // Who adds rows himself may go on.
    let mut ingest = store.begin_ingest().unwrap();
    ingest.put(b"b", b"1").unwrap();
    assert!(ingest.put(b"a", b"2").is_err());
    assert!(ingest.put(&vec![b'k'; (64 << 10) + 1], b"2").is_err());
    ingest.put(b"c", b"3").unwrap();
    assert_eq!(ingest.finish().unwrap().rows, 2);
    assert_eq!(read(&store).into_keys().collect::<Vec<_>>(), ["b", "c"]);
}

#[test]
fn few_rows_are_a_batch_and_none_are_nothing() {
    let disk = MemoryVfs::new();
    let store = open(disk.clone());
    let none: [(&str, &str); 0] = [];
    assert_eq!(store.ingest(none).unwrap().rows, 0);
    assert_eq!(store.log().last().0, 0);
    let ingested = store.ingest([("a", "1"), ("b", "2")]).unwrap();
    assert_eq!((ingested.rows, ingested.segments), (2, 0));
    assert_eq!((store.log().last().0, segment_files(&disk)), (1, 0));
    let store = open(disk.crash_image(CrashMode::LoseUnsynced));
    assert_eq!(read(&store).len(), 2);
}

#[test]
fn who_has_the_rows_has_all_that_was_written_before() {
    let disk = MemoryVfs::new();
    let store = open(disk.clone());
    // Neither synced nor near the rows, so that nothing else makes it durable.
    store.put("zebra", "striped", Durability::Buffered).unwrap();
    assert!(store.ingest(rows(0, 100, "x")).unwrap().segments > 0);
    assert_eq!(store.stats().flushes, 0);
    let store = open(disk.crash_image(CrashMode::LoseUnsynced));
    assert_eq!(read(&store).len(), 101);
    assert!(store.get(b"zebra").unwrap().is_some());
}

#[test]
fn one_at_a_time_and_a_dropped_one_leaves_nothing() {
    let disk = MemoryVfs::new();
    let store = open(disk.clone());
    let mut ingest = store.begin_ingest().unwrap();
    let error = store.begin_ingest().err().unwrap();
    assert!(error.to_string().contains("one ingest at a time"), "{error}");
    for (key, value) in rows(0, 100, "x") {
        ingest.put(key.as_bytes(), value.as_bytes()).unwrap();
    }
    assert!(segment_files(&disk) > 1);
    drop(ingest);
    assert_eq!((segment_files(&disk), read(&store).len()), (0, 0));
    store.ingest(rows(0, 100, "y")).unwrap();
    assert_eq!(read(&store).len(), 100);
}

#[test]
fn under_an_owners_log_rows_are_staged_instead() {
    let vfs = Arc::new(MemoryVfs::new());
    let (store, _) = Store::open_with_replay(vfs, DIR.as_ref(), tiny_options()).unwrap();
    let error = store.ingest(rows(0, 10, "x")).unwrap_err();
    assert!(matches!(&error, Error::Invalid { what } if what.contains("`stage`")), "{error}");
}

#[test]
fn a_disk_that_fills_up_leaves_the_store_as_it_was() {
    let mut fired = 0;
    for operation in [Operation::Create, Operation::Write, Operation::Sync, Operation::SyncDir] {
        for after in 0.. {
            let disk = MemoryVfs::new();
            let faulty = FaultyVfs::new(Arc::new(disk.clone()));
            let store = open(faulty.clone());
            for (key, value) in rows(50, 60, "before") {
                store.put(key, value, Durability::Sync).unwrap();
            }
            let before = read(&store);
            let fault = Fault::once(operation, Outcome::DiskFull).on("segments").after(after);
            let armed = faulty.arm(fault);
            let result = store.ingest(rows(0, 100, "ingested"));
            if armed.fired() == 0 {
                result.unwrap();
                break;
            }
            fired += 1;
            let error = result.unwrap_err();
            let context = format!("{operation:?} after {after}: {error}");
            assert!(matches!(error, Error::DiskFull { .. }), "{context}");
            assert_eq!(read(&store), before, "{context}");
            // There is room again.
            store.ingest(rows(0, 100, "again")).unwrap();
            assert!(is_of(&store, 0, "again") && is_of(&store, 99, "again"), "{context}");
            while store.maintain().unwrap() != Maintained::Nothing {}
            let named: usize = in_levels(&store.stats()).iter().sum();
            assert_eq!(segment_files(&disk), named, "{context}: nothing is left over");
        }
    }
    assert!(fired > 20, "{fired} faults fired");
}

#[test]
fn after_a_failure_in_doubt_all_rows_are_there_or_none() {
    let (mut fired, mut there) = (0, 0);
    let operations = [Operation::Write, Operation::Sync, Operation::Rename, Operation::SyncDir];
    for (operation, path) in operations.iter().flat_map(|o| ["segments", DIR].map(|p| (*o, p))) {
        for after in 0.. {
            let disk = MemoryVfs::new();
            let faulty = FaultyVfs::new(Arc::new(disk.clone()));
            let store = open(faulty.clone());
            for (key, value) in rows(50, 52, "before") {
                store.put(key, value, Durability::Sync).unwrap();
            }
            let before = read(&store);
            let fault = Fault::once(operation, Outcome::InputOutput).on(path).after(after);
            let armed = faulty.arm(fault);
            let result = store.ingest(rows(0, 60, "ingested"));
            if armed.fired() == 0 {
                result.unwrap();
                break;
            }
            fired += 1;
            let context = format!("{operation:?} of {path} after {after}");
            assert!(result.is_err(), "{context}");
            assert_eq!(read(&store), before, "{context}");
            assert!(store.put("a", "b", Durability::Sync).is_err() || store.flush().is_err());
            drop(store);
            for mode in [CrashMode::LoseUnsynced, CrashMode::KeepAll] {
                let store = open(disk.crash_image(mode));
                let mut found = read(&store);
                found.remove(b"a".as_slice());
                let is_there = found.len() == 60;
                assert!(is_there || found == before, "{context} {mode:?}: {}", found.len());
                there += u64::from(is_there);
                check_sound(&store, &context);
            }
        }
    }
    assert!(fired > 30 && there > 0, "{fired} faults fired, {there} times the rows were there");
}

/// A run of numbered steps, each a batch or an ingest, with the rows after each.
struct Run {
    random: Random,
    store: Store,
    /// After each step that was begun; the first is the empty store.
    states: Arc<std::sync::Mutex<Vec<Rows>>>,
    durable: Arc<AtomicU64>,
    snapshots: Vec<(Snapshot, Rows)>,
    /// Segments made by ingests.
    made: u64,
}

impl Run {
    fn new(seed: u64, vfs: impl Vfs, options: &Options) -> Run {
        let store = Store::open(Arc::new(vfs), DIR.as_ref(), options.clone()).unwrap();
        Run {
            random: Random::new(seed),
            store,
            states: Arc::new(vec![Rows::new()].into()),
            durable: Arc::default(),
            snapshots: Vec::new(),
            made: 0,
        }
    }

    fn key(&mut self) -> Bytes {
        format!("key{:03}", self.random.below(200)).into()
    }

    /// The number of the step that begins, and what it changes. Told before it is done.
    fn begin(&mut self, changes: &BTreeMap<Bytes, Option<Bytes>>) -> u64 {
        let mut states = self.states.lock().unwrap();
        let mut next = states.last().unwrap().clone();
        for (key, value) in changes {
            match value {
                Some(value) => next.insert(key.clone(), value.clone()),
                None => next.remove(key),
            };
        }
        states.push(next);
        states.len() as u64 - 1
    }

    fn changes(&mut self, count: u64) -> BTreeMap<Bytes, Option<Bytes>> {
        let number = self.states.lock().unwrap().len();
        let mut changes = BTreeMap::new();
        for _ in 0..count {
            let bytes = self.random.below(60) as usize;
            let is_put = self.random.below(4) > 0;
            let value = is_put.then(|| Bytes::from(format!("{number} {}", "v".repeat(bytes))));
            changes.insert(self.key(), value);
        }
        changes.insert("number".into(), Some(number.to_string().into()));
        changes
    }

    fn write(&mut self) {
        let count = self.random.below(6);
        let changes = self.changes(count);
        let number = self.begin(&changes);
        let mut batch = Batch::new();
        for (key, value) in changes {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            };
        }
        let is_synced = self.random.below(3) > 0;
        let durability = if is_synced { Durability::Sync } else { Durability::Buffered };
        self.store.write(batch, durability).unwrap();
        if is_synced {
            self.durable.store(number, SeqCst);
        }
    }

    /// With batches written while the rows are on their way: they come before the rows.
    fn ingest(&mut self) {
        let mut ingest = self.store.begin_ingest().unwrap();
        let count = self.random.below(80);
        let changes = self.changes(count);
        let wait_at = self.random.below(4) as usize * 10;
        let add = |ingest: &mut kvorum_storage::Ingest, (key, value): (&Bytes, &Option<Bytes>)| {
            match value {
                Some(value) => ingest.put(key, value).unwrap(),
                None => ingest.delete(key).unwrap(),
            }
        };
        for change in changes.iter().filter(|(key, _)| *key != "number").take(wait_at) {
            add(&mut ingest, change);
        }
        for _ in 0..self.random.below(3) {
            self.write();
            self.store.maintain().unwrap();
        }
        let mut changes = changes;
        let number = self.states.lock().unwrap().len();
        changes.insert("number".into(), Some(number.to_string().into()));
        for change in changes.iter().filter(|(key, _)| *key != "number").skip(wait_at) {
            add(&mut ingest, change);
        }
        add(&mut ingest, (&"number".into(), &changes[b"number".as_slice()]));
        let number = self.begin(&changes);
        self.made += ingest.finish().unwrap().segments;
        self.durable.store(number, SeqCst);
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..60 => self.write(),
            60..75 => self.ingest(),
            75..90 => drop(self.store.maintain().unwrap()),
            90..92 => self.store.flush().unwrap(),
            92 => self.store.compact().unwrap(),
            93..96 => {
                let now = self.states.lock().unwrap().last().unwrap().clone();
                self.snapshots.push((self.store.snapshot(), now));
            }
            _ if self.snapshots.is_empty() => {}
            _ => {
                let number = self.random.below(self.snapshots.len() as u64) as usize;
                let (snapshot, rows) = self.snapshots.swap_remove(number);
                assert_eq!(read_snapshot(&snapshot), rows);
            }
        }
    }

    fn check(&self) {
        assert_eq!(read(&self.store), *self.states.lock().unwrap().last().unwrap());
        check_sound(&self.store, "in the middle");
    }
}

/// The number of the step after which the store is as it is.
fn count_steps(store: &Store, states: &[Rows], context: &str) -> u64 {
    let rows = read(store);
    let number = rows.get(b"number".as_slice());
    let number = number.map_or(0, |n| std::str::from_utf8(n).unwrap().parse().unwrap());
    assert_eq!(rows, states[number as usize], "{context}: not the state after {number} steps");
    number
}

#[test]
fn a_store_that_takes_rows_in_behaves_like_a_map() {
    let (mut made, mut crashes) = (0, 0);
    for seed in 0..40 {
        let mut disk = MemoryVfs::new();
        let options = tiny_options();
        let mut run = Run::new(seed, disk.clone(), &options);
        for _ in 0..200 {
            run.step();
            if run.random.below(40) == 0 {
                crashes += 1;
                let last = run.store.log().last();
                run.store.log().sync(last).unwrap();
                run.snapshots.clear();
                disk = disk.crash_image(CrashMode::Random { seed: run.random.next() });
                let vfs = Arc::new(disk.clone());
                run.store = Store::open(vfs, DIR.as_ref(), options.clone()).unwrap();
                run.check();
            }
        }
        run.check();
        while run.store.maintain().unwrap() != Maintained::Nothing {}
        run.check();
        made += run.made;
    }
    assert!(made > 1000 && crashes > 100, "{made} segments made, {crashes} crashes");
}

#[test]
fn a_crash_at_every_operation_leaves_all_rows_of_an_ingest_or_none() {
    let crashes = Arc::new(AtomicU64::new(0));
    let mut made = 0;
    for seed in 100..106 {
        let disk = MemoryVfs::new();
        let faulty = FaultyVfs::new(Arc::new(disk.clone()));
        let mut run = Run::new(seed, faulty.clone(), &tiny_options());
        faulty.on_operation({
            let (crashes, disk) = (Arc::clone(&crashes), disk.clone());
            let (states, durable) = (Arc::clone(&run.states), Arc::clone(&run.durable));
            move |event| {
                if !event.operation.changes_disk()
                    || event.phase == Phase::Failed
                    || std::thread::panicking()
                {
                    return;
                }
                let number = crashes.fetch_add(1, SeqCst);
                let mode = match number % 4 {
                    0 => CrashMode::LoseUnsynced,
                    1 => CrashMode::KeepAll,
                    _ => CrashMode::Random { seed: seed ^ number },
                };
                let context = format!("{seed}, crash {number} at {event:?} {mode:?}");
                let image = disk.crash_image(mode);
                let store = open(image.clone());
                let states = states.lock().unwrap();
                let (count, durable) =
                    (count_steps(&store, &states, &context), durable.load(SeqCst));
                let begun = states.len() as u64 - 1;
                assert!((durable..=begun).contains(&count), "{context}: {count} of {durable}..");
                check_sound(&store, &context);
                let named: usize = in_levels(&store.stats()).iter().sum();
                assert_eq!(segment_files(&image), named, "{context}: orphans are removed");
            }
        });
        for _ in 0..50 {
            run.step();
        }
        run.check();
        made += run.made;
    }
    let crashes = crashes.load(SeqCst);
    println!("{crashes} crashes, {made} segments made");
    assert!(crashes > 4000 && made > 50, "{crashes} crashes, {made} segments made");
}

/// Rounds of rows, each over the last, among writers, readers and compactions on other threads.
#[test]
fn readers_see_whole_ingests_while_others_write_and_compact() {
    const ROUNDS: u64 = 40;
    const ROWS: u64 = 60;
    let disk = MemoryVfs::new();
    let options = Options { level0_segments_slow: 60, level0_segments_stop: 90, ..tiny_options() };
    let store = Store::open(Arc::new(disk.clone()), DIR.as_ref(), options.clone()).unwrap();
    let maintenance = kvorum_storage::Maintenance::start(&store, 3).unwrap();
    let round_of = |value: &Bytes| -> u64 {
        std::str::from_utf8(value).unwrap().split(' ').next().unwrap().parse().unwrap()
    };
    let key = |row: u64| format!("row{row:03}");
    let (done, reads) = (std::sync::atomic::AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let write = || {
            // Between the rows, and one of them: what is written is newer than the rows before it.
            let mut number = 0_u64;
            // However late it gets to run, it writes once.
            while !done.load(SeqCst) || number == 0 {
                number += 1;
                let mut batch = Batch::new();
                batch.put(format!("row{:03}x", number % ROWS), number.to_string());
                batch.put("row", number.to_string());
                batch.put(format!("before the gap {}", number % 9), "y".repeat(200));
                store.write(batch, Durability::Buffered).unwrap();
                let own = store.get(b"row").unwrap().unwrap();
                assert_eq!(own, number.to_string(), "nobody else writes it");
            }
        };
        let read = || {
            let mut last = 0;
            while !done.load(SeqCst) {
                let scan = store.scan("row000"..="row999", Direction::Forwards).unwrap();
                let rows: Vec<_> = scan.map(Result::unwrap).filter(|(k, _)| k.len() == 6).collect();
                let Some((_, first)) = rows.first() else { continue };
                assert_eq!(rows.len() as u64, ROWS);
                let round = round_of(first);
                assert!(round >= last, "{round} after {last}");
                assert!(rows.iter().all(|(_, value)| round_of(value) == round), "half an ingest");
                last = round;
                let reads = reads.fetch_add(1, SeqCst);
                let row = store.get(key(reads % ROWS).as_bytes()).unwrap().unwrap();
                assert!(round_of(&row) >= last);
            }
        };
        let writer = scope.spawn(write);
        let readers = [scope.spawn(read), scope.spawn(read)];
        let says_so = SaysSo(&done);
        let (mut round, begun) = (0, std::time::Instant::now());
        // Not a count that a machine must reach in some time: it goes on until all had their turn.
        let busy = || store.stats().compactions <= 20 || reads.load(SeqCst) < ROUNDS;
        while round < ROUNDS || busy() {
            round += 1;
            assert!(begun.elapsed() < LONG, "nobody reads, or nobody compacts");
            if round > ROUNDS {
                std::thread::yield_now();
            }
            let rows = (0..ROWS).map(|row| (key(row), format!("{round} {}", "x".repeat(30))));
            assert!(store.ingest(rows).unwrap().segments > 0);
            // Where nothing is yet, but a compaction may be around.
            let gap = (0..ROWS).map(|row| (format!("gap{round:06} {row}"), "x".repeat(30)));
            let gap: Rows = gap.map(|(key, value)| (key.into(), value.into())).collect();
            assert!(store.ingest(gap).unwrap().segments > 0);
        }
        drop(says_so);
        writer.join().unwrap();
        for reader in readers {
            reader.join().unwrap();
        }
    });
    maintenance.stop();
    let stats = store.stats();
    assert!(stats.ingests >= 2 * ROUNDS, "{stats}");
    check_sound(&store, "after all");
    let before = read(&store);
    let last = store.log().last();
    store.log().sync(last).unwrap();
    let image = disk.crash_image(CrashMode::LoseUnsynced);
    let store = Store::open(Arc::new(image), DIR.as_ref(), options).unwrap();
    assert_eq!(read(&store), before);
}

/// A compaction is about to put one segment across the gap into which rows are ingested.
#[test]
fn rows_for_a_gap_that_a_compaction_is_closing_lie_above_it() {
    let faulty = FaultyVfs::new(Arc::new(MemoryVfs::new()));
    let options = Options { segment_bytes: 1 << 20, ..tiny_options() };
    let store = Store::open(Arc::new(faulty.clone()), DIR.as_ref(), options).unwrap();
    for key in ["a", "z"] {
        store.put(key, "around the gap", Durability::Sync).unwrap();
        store.flush().unwrap();
    }
    let ingested = Arc::new(AtomicU64::new(0));
    faulty.on_operation({
        let (store, ingested) = (store.clone(), Arc::clone(&ingested));
        let begun = std::sync::atomic::AtomicBool::new(false);
        move |event| {
            let is_merge = event.operation == Operation::Create && event.phase == Phase::Before;
            if is_merge && !begun.swap(true, SeqCst) {
                let segments = store.ingest(rows(0, 100, "in the gap")).unwrap().segments;
                ingested.fetch_add(segments, SeqCst);
            }
        }
    });
    store.compact().unwrap();
    assert!(ingested.load(SeqCst) > 0);
    check_sound(&store, "after the compaction");
    assert_eq!(read(&store).len(), 102);
    for number in 0..100 {
        assert!(is_of(&store, number, "in the gap"), "{number}");
    }
    faulty.on_operation(|_| ());
}
