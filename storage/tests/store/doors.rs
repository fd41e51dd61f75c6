//! What each door of the store promises, one by one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kvorum_storage::vfs::{
    CrashMode, Fault, FaultyVfs, MemoryVfs, Operation, Outcome, RealVfs, Vfs,
};
use kvorum_storage::{
    Batch, Direction, Durability, Error, Happened, KEY_BYTES_MAX, KeyRange, Maintained, Options,
    Position, Pressure, Recovery, Result, Store, VALUE_BYTES_MAX, Work,
};

use crate::support::{DIR, count_batches, make_room, numbered_batch, tiny_options};

const OWNED: u8 = 16;

fn open(disk: &MemoryVfs) -> Result<Store> {
    Store::open(Arc::new(disk.clone()), DIR.as_ref(), tiny_options())
}

fn open_owned(disk: &MemoryVfs) -> (Store, Recovery) {
    Store::open_with_replay(Arc::new(disk.clone()), DIR.as_ref(), tiny_options()).unwrap()
}

fn put(key: &str, value: &str) -> Batch {
    let mut batch = Batch::new();
    batch.put(key, value);
    batch
}

/// Appends an owner's record and applies the batch that it decides.
fn decide(store: &Store, batch: &Batch) -> Position {
    let mut record = Vec::new();
    batch.encode(&mut record);
    let position = store.log().append(OWNED, &record).unwrap();
    store.apply(position.0, position, batch).unwrap();
    position
}

fn value(store: &Store, key: &str) -> Option<Bytes> {
    store.get(key.as_bytes()).unwrap()
}

fn maintain_all(store: &Store) {
    while store.maintain().unwrap() != Maintained::Nothing {}
}

#[test]
fn an_owner_applies_again_only_what_was_not_flushed() {
    let disk = MemoryVfs::new();
    let (store, _) = open_owned(&disk);
    decide(&store, &put("a", "1"));
    let flushed = decide(&store, &put("b", "2"));
    store.flush().unwrap();
    assert_eq!(store.flushed_mark(), flushed.0);
    let last = decide(&store, &put("a", "3"));
    store.log().sync(last).unwrap();

    let (store, mut recovery) = open_owned(&disk.crash_image(CrashMode::LoseUnsynced));
    assert_eq!(store.flushed_mark(), flushed.0);
    assert_eq!(value(&store, "a").as_deref(), Some(&b"1"[..]), "not replayed yet");
    let mut positions = Vec::new();
    while let Some(record) = recovery.next().unwrap() {
        let batch = Batch::decode(&record.payload).unwrap();
        store.apply(record.position.0, record.position, &batch).unwrap();
        positions.push(record.position.0);
    }
    assert_eq!(positions, [1, 2, 3]);
    assert_eq!(value(&store, "a").as_deref(), Some(&b"3"[..]));
    // What was flushed was not applied a second time: one version of each key is in segments.
    assert_eq!(store.stats().levels[0].entries, 2);
}

#[test]
fn a_flush_makes_the_log_durable_first() {
    let disk = MemoryVfs::new();
    let (store, _) = open_owned(&disk);
    let position = decide(&store, &put("a", "1"));
    assert!(store.log().durable() < position);
    store.flush().unwrap();
    assert!(store.log().durable() >= position);
}

#[test]
fn the_log_is_cut_only_once_it_is_released_and_flushed() {
    let options = Options { log_bytes_max: 1 << 30, ..tiny_options() };
    let vfs = Arc::new(MemoryVfs::new());
    let (store, _) = Store::open_with_replay(vfs, DIR.as_ref(), options).unwrap();
    let fill = |from: u64| {
        for number in from..from + 60 {
            let last = decide(&store, &numbered_batch(number));
            store.log().sync(last).unwrap();
            make_room(&store);
        }
        store.log().last()
    };
    fill(1);
    store.flush().unwrap();
    maintain_all(&store);
    assert_eq!(store.log().first(), Position(1), "not released");

    let last = fill(61);
    // Still in the memtable: the owner's word alone is not enough.
    decide(&store, &put("unflushed", "1"));
    store.release(last.next());
    while let Maintained::Did(work) = store.maintain().unwrap() {
        assert_ne!(work, Work::CutLog);
    }
    assert_eq!(store.log().first(), Position(1), "not flushed");

    store.flush().unwrap();
    maintain_all(&store);
    assert!(store.log().first() > Position(1), "released and flushed");
    assert!(store.log().first() <= last.next(), "no further than released");
}

/// The manifest says how far the log has to go: never further than a crash leaves it.
#[test]
fn what_is_released_and_not_durable_is_made_durable_before_the_log_is_cut() {
    let disk = MemoryVfs::new();
    let (store, _) = open_owned(&disk);
    for number in 1..=60 {
        let last = decide(&store, &numbered_batch(number));
        store.log().sync(last).unwrap();
        make_room(&store);
    }
    // A record without a batch, which no flush makes durable.
    let last = store.log().append(OWNED, b"not synced").unwrap();
    store.release(last.next());
    store.flush().unwrap();
    assert!(store.log().first() > Position(1), "released and flushed");
    let image = disk.crash_image(CrashMode::LoseUnsynced);
    open_owned(&image);
}

/// The word to cut is kept if it cannot be written down.
#[test]
fn a_full_disk_puts_off_the_cut_of_the_log() {
    let disk = MemoryVfs::new();
    let faulty = FaultyVfs::new(Arc::new(disk));
    let options = Options { log_bytes_max: 1 << 30, ..tiny_options() };
    let vfs = Arc::new(faulty.clone());
    let (store, _) = Store::open_with_replay(vfs, DIR.as_ref(), options).unwrap();
    for number in 1..=60 {
        let last = decide(&store, &numbered_batch(number));
        store.log().sync(last).unwrap();
        make_room(&store);
    }
    store.flush().unwrap();
    maintain_all(&store);
    // Records without batches: no flush has said that the log rests on them.
    let mut last = store.log().last();
    for _ in 0..60 {
        last = store.log().append(OWNED, &[7; 100]).unwrap();
        store.log().sync(last).unwrap();
    }
    store.release(last.next());
    let _ = faulty.arm(Fault::always(Operation::Create, Outcome::DiskFull));
    let error = store.maintain().unwrap_err();
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
    assert_eq!(store.log().first(), Position(1));
    faulty.heal();
    assert_eq!(store.maintain().unwrap(), Maintained::Did(Work::CutLog));
}

#[test]
fn a_log_that_grows_too_long_is_cut_although_no_memtable_is_full() {
    let disk = MemoryVfs::new();
    let options = Options { memtable_bytes: 64 << 20, ..tiny_options() };
    let vfs = Arc::new(disk.clone());
    let (store, _) = Store::open_with_replay(vfs, DIR.as_ref(), options).unwrap();
    let mut flushes = 0;
    for number in 1..=400 {
        let last = decide(&store, &put("same key", &format!("{number} {}", "x".repeat(200))));
        store.log().sync(last).unwrap();
        store.release(last);
        while let Maintained::Did(work) = store.maintain().unwrap() {
            flushes += u64::from(work == Work::Flushed);
        }
        assert!(store.stats().log_bytes <= 48 << 10, "{}", store.stats().log_bytes);
    }
    assert!((2..40).contains(&flushes), "{flushes} flushes");
}

#[test]
fn marks_must_rise() {
    let disk = MemoryVfs::new();
    let (store, _) = open_owned(&disk);
    let position = store.log().append(OWNED, b"record").unwrap();
    let refused = |mark| {
        let error = store.apply(mark, position, &put("a", "wrong")).unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error}");
    };
    refused(0);
    store.apply(5, position, &put("a", "right")).unwrap();
    refused(5);
    refused(4);
    store.flush().unwrap();
    refused(5);
    // After a reopening the same marks are skipped, but only with records that were there before.
    let disk = disk.crash_image(CrashMode::KeepAll);
    drop(store);
    let (store, _) = open_owned(&disk);
    store.apply(5, position, &put("a", "again")).unwrap();
    let new = store.log().append(OWNED, b"record").unwrap();
    let error = store.apply(5, new, &put("a", "wrong")).unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
    let position = new;
    let nowhere = store.apply(6, position.next(), &put("a", "wrong")).unwrap_err();
    assert!(matches!(nowhere, Error::Invalid { .. }), "rests on a record that is not there");
    assert_eq!(value(&store, "a").as_deref(), Some(&b"right"[..]));
}

#[test]
fn an_empty_batch_still_moves_the_mark() {
    let disk = MemoryVfs::new();
    let (store, _) = open_owned(&disk);
    let position = decide(&store, &Batch::new());
    store.flush().unwrap();
    assert_eq!(store.flushed_mark(), position.0);
    assert_eq!(store.stats().levels[0].segments, 0, "but makes no segment");
}

#[test]
fn the_two_uses_do_not_mix() {
    let disk = MemoryVfs::new();
    let (store, _) = open_owned(&disk);
    let last = decide(&store, &put("a", "1"));
    store.log().sync(last).unwrap();
    assert!(store.put("b", "2", Durability::Sync).is_err(), "the log is the owner's");
    drop(store);
    let error = open(&disk).err().unwrap();
    assert!(error.to_string().contains("kind 16"), "{error}");

    let store = open(&MemoryVfs::new()).unwrap();
    assert!(store.apply(1, Position(0), &put("a", "1")).is_err());
}

#[test]
fn a_directory_is_opened_once_at_a_time() {
    let disk = MemoryVfs::new();
    let store = open(&disk).unwrap();
    assert!(matches!(open(&disk), Err(Error::Locked { .. })));
    let clone = store.clone();
    drop(store);
    assert!(matches!(open(&disk), Err(Error::Locked { .. })), "a clone is a handle too");
    drop(clone);
    open(&disk).unwrap();
}

#[test]
fn limits_are_told_and_nothing_is_written_beyond_them() {
    let disk = MemoryVfs::new();
    let store = open(&disk).unwrap();
    let long_key = vec![b'k'; KEY_BYTES_MAX + 1];
    let long_value = vec![b'v'; VALUE_BYTES_MAX + 1];
    let check = |result: Result<Position>| {
        assert!(matches!(result, Err(Error::Invalid { .. })), "{result:?}");
    };
    check(store.put(long_key.clone(), "v", Durability::Sync));
    check(store.delete(long_key, Durability::Sync));
    check(store.put("k", long_value, Durability::Sync));
    assert_eq!(store.log().last(), Position(0));

    // The longest key and a long value pass through every layer, although a block is small.
    let (key, long) = (vec![b'k'; KEY_BYTES_MAX], vec![b'v'; 1 << 20]);
    store.put(key.clone(), long.clone(), Durability::Sync).unwrap();
    store.put("", "", Durability::Sync).unwrap();
    store.flush().unwrap();
    store.compact().unwrap();
    assert_eq!(store.get(&key).unwrap().as_deref(), Some(long.as_slice()));
    assert_eq!(store.get(b"").unwrap().as_deref(), Some(&b""[..]));
    assert!(store.verify().unwrap().problems.is_empty());
}

#[test]
fn snapshots_do_not_change_and_cost_nothing_once_dropped() {
    let disk = MemoryVfs::new();
    let store = open(&disk).unwrap();
    store.put("key", "old", Durability::Sync).unwrap();
    let snapshot = store.snapshot();
    let begun = store.scan(.., Direction::Forwards).unwrap();
    store.put("key", "new", Durability::Sync).unwrap();
    store.delete("other", Durability::Sync).unwrap();
    store.compact().unwrap();
    assert_eq!(value(&store, "key").as_deref(), Some(&b"new"[..]));
    assert_eq!(snapshot.get(b"key").unwrap().as_deref(), Some(&b"old"[..]));
    assert_eq!(begun.map(|entry| entry.unwrap().1).collect::<Vec<_>>(), ["old"]);
    assert_eq!(store.stats().snapshots, 1);
    let entries = || store.stats().levels.iter().map(|level| level.entries).sum::<u64>();
    assert!(entries() >= 2, "{}", entries());

    drop(snapshot);
    store.put("key", "newest", Durability::Sync).unwrap();
    store.compact().unwrap();
    assert_eq!(entries(), 1, "the deletes and the old versions are gone");
}

#[test]
fn scans_stop_where_their_range_does() {
    let store = open(&MemoryVfs::new()).unwrap();
    for key in ["a", "b", "ba", "bb", "c"] {
        store.put(key, key, Durability::Buffered).unwrap();
    }
    let check = |range: KeyRange, expected: &[&str]| {
        for direction in [Direction::Forwards, Direction::Backwards] {
            let scan = store.scan(range.clone(), direction).unwrap();
            let mut keys: Vec<Bytes> = scan.map(|entry| entry.unwrap().0).collect();
            if direction == Direction::Backwards {
                keys.reverse();
            }
            assert_eq!(keys, expected, "{range:?} {direction:?}");
        }
    };
    check(KeyRange::prefix(b"b"), &["b", "ba", "bb"]);
    check(("b".."c").into(), &["b", "ba", "bb"]);
    check(("b"..="c").into(), &["b", "ba", "bb", "c"]);
    check(("bb"..).into(), &["bb", "c"]);
    check((.."b").into(), &["a"]);
    check((..).into(), &["a", "b", "ba", "bb", "c"]);
    check(("c".."a").into(), &[]);
}

#[test]
fn a_checkpoint_is_a_store_of_its_own() {
    let disk = MemoryVfs::new();
    let store = open(&disk).unwrap();
    for number in 1..=100 {
        store.write(numbered_batch(number), Durability::Buffered).unwrap();
    }
    store.checkpoint("/copy".as_ref()).unwrap();
    assert!(store.checkpoint("/copy".as_ref()).is_err(), "a store is there already");
    for number in 101..=120 {
        store.write(numbered_batch(number), Durability::Sync).unwrap();
    }
    store.compact().unwrap();

    let image = disk.crash_image(CrashMode::LoseUnsynced);
    let open_copy = || Store::open(Arc::new(image.clone()), "/copy".as_ref(), tiny_options());
    let copy = open_copy().unwrap();
    assert_eq!(count_batches(&copy, "the copy"), 100);
    // Its log begins anew, and yet what is written to it is found again.
    for number in 101..=110 {
        copy.write(numbered_batch(number), Durability::Sync).unwrap();
    }
    drop(copy);
    assert_eq!(count_batches(&open_copy().unwrap(), "the copy again"), 110);
    assert_eq!(count_batches(&store, "the original"), 120);
}

#[test]
fn pressure_rises_with_what_waits_and_falls_with_the_work() {
    let disk = MemoryVfs::new();
    let (store, _) = open_owned(&disk);
    let mut number = 0;
    let mut last = Duration::ZERO;
    while store.pressure() != Pressure::Stop {
        match store.pressure() {
            Pressure::Slow(delay) => {
                assert!(delay >= last, "nothing was done meanwhile");
                last = delay;
            }
            pressure => assert_eq!((pressure, last), (Pressure::None, Duration::ZERO)),
        }
        number += 1;
        decide(&store, &numbered_batch(number));
        assert!(number < 1000, "never under pressure");
    }
    assert!(last > Duration::ZERO, "stopped without a warning");
    assert_eq!(store.stats().frozen_memtables, 2);
    assert!(store.wait_for_maintenance(Duration::ZERO));
    maintain_all(&store);
    assert_eq!(store.pressure(), Pressure::None);
    while store.wait_for_maintenance(Duration::ZERO) {}
    assert!(!store.wait_for_maintenance(Duration::ZERO), "nothing new to do");
}

#[test]
fn a_merge_around_a_gap_leaves_nothing_in_it_unfound() {
    let store = open(&MemoryVfs::new()).unwrap();
    store.put("m", "in the gap", Durability::Sync).unwrap();
    store.compact().unwrap();
    // Two segments of level 0 with the one of level 1 between them, which neither overlaps. What
    // becomes of them may be a single segment, from the one to the other.
    for key in ["a", "z"] {
        store.put(key, "around it", Durability::Sync).unwrap();
        store.flush().unwrap();
    }
    store.compact().unwrap();
    assert_eq!(value(&store, "m").as_deref(), Some(&b"in the gap"[..]));
    let keys: Vec<Bytes> =
        store.scan(.., Direction::Forwards).unwrap().map(|entry| entry.unwrap().0).collect();
    assert_eq!(keys, ["a", "m", "z"]);
    assert!(store.verify().unwrap().problems.is_empty());
}

#[test]
fn an_embedded_writer_makes_its_own_room() {
    let store = open(&MemoryVfs::new()).unwrap();
    for number in 1..=500 {
        store.write(numbered_batch(number), Durability::Buffered).unwrap();
    }
    let stats = store.stats();
    assert!(stats.flushes > 10 && stats.frozen_memtables <= 2, "{stats:?}");
    assert_eq!(count_batches(&store, "nobody maintained"), 500);
}

#[test]
fn all_of_it_works_on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("new/store");
    let vfs: Arc<dyn Vfs> = Arc::new(RealVfs);
    let store = Store::open(Arc::clone(&vfs), &dir, tiny_options()).unwrap();
    for number in 1..=300 {
        store.write(numbered_batch(number), Durability::Buffered).unwrap();
        if number % 50 == 0 {
            maintain_all(&store);
        }
    }
    let copy = dir.with_file_name("copy");
    store.checkpoint(&copy).unwrap();
    store.compact().unwrap();
    drop(store);
    for dir in [&dir, &copy] {
        let store = Store::open(Arc::clone(&vfs), dir, tiny_options()).unwrap();
        assert_eq!(count_batches(&store, "on a real disk"), 300);
    }
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let options = Options { memtables_max: 0, ..tiny_options() };
    let result = Store::open(Arc::new(MemoryVfs::new()), DIR.as_ref(), options);
    assert!(matches!(result, Err(Error::Invalid { .. })));
}

#[test]
fn a_check_tells_how_far_it_is_and_stops_when_it_is_told() {
    let store = open(&MemoryVfs::new()).unwrap();
    for number in 1..=200 {
        store.write(numbered_batch(number), Durability::Buffered).unwrap();
        store.maintain().unwrap();
    }
    let mut seen = Vec::new();
    let report = store
        .verify_with(1 << 30, |progress| {
            seen.push(progress);
            true
        })
        .unwrap();
    assert!(report.is_sound(), "{report}");
    assert!(report.to_string().ends_with("bytes: nothing is wrong"), "{report}");
    assert_eq!(seen.len() as u64, report.blocks);
    assert!(seen.windows(2).all(|pair| pair[0].bytes < pair[1].bytes));
    let last = seen.last().unwrap();
    assert_eq!((last.bytes, last.bytes_total), (report.bytes, report.bytes));

    let begun = std::time::Instant::now();
    let rate = report.bytes * 20;
    let slow = store.verify_with(rate, |_| true).unwrap();
    assert!(slow.is_sound() && begun.elapsed() >= Duration::from_millis(40), "a twentieth second");
    let stopped = store.verify_with(u64::MAX, |progress| progress.bytes < 1000).unwrap();
    assert!(stopped.was_stopped && !stopped.is_sound() && stopped.bytes < report.bytes);
}

#[test]
fn a_store_that_must_be_there_is_not_made() {
    let disk = MemoryVfs::new();
    let open = |options: Options| Store::open(Arc::new(disk.clone()), DIR.as_ref(), options);
    let error = open(tiny_options().create_if_missing(false)).err().unwrap();
    assert!(matches!(&error, Error::Missing { file } if file.ends_with("MANIFEST")), "{error}");
    assert!(disk.files().is_empty(), "nothing was made");
    open(tiny_options()).unwrap().put("a", "b", Durability::Sync).unwrap();
    let store = open(tiny_options().create_if_missing(false)).unwrap();
    assert_eq!(value(&store, "a").as_deref(), Some(&b"b"[..]));
}

#[test]
fn errors_say_whether_it_happened() {
    let disk = MemoryVfs::new();
    let store = open(&disk).unwrap();
    let error = store.put(vec![0; KEY_BYTES_MAX + 1], "v", Durability::Sync).unwrap_err();
    assert_eq!((error.happened(), error.remedy().is_empty()), (Happened::No, false));
    let locked = open(&disk).err().unwrap();
    assert_eq!(locked.happened(), Happened::No);
}
