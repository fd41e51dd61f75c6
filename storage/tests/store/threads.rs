//! Many threads at once: batches are seen whole and in the order of the log, while others write,
//! flush and compact.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use kvorum_storage::vfs::MemoryVfs;
use kvorum_storage::{Batch, Direction, Durability, Maintained, Options, Store};

use crate::support::{DIR, SaysSo, tiny_options};

fn number(value: Option<bytes::Bytes>) -> u64 {
    value.map_or(0, |value| std::str::from_utf8(&value).unwrap().parse().unwrap())
}

#[test]
fn readers_see_whole_batches_and_never_go_back() {
    check_writers::<4>(400);
}

#[test]
fn readers_see_whole_batches_of_sixteen_writers() {
    check_writers::<16>(80);
}

/// Walks forth and back see the same, and scans whole batches of so many entries.
fn check_walks(store: &Store, batch: usize) {
    let mut cursor = store.cursor(..);
    let mut there = Vec::new();
    while let Some((key, value)) = cursor.next().unwrap() {
        there.push((key.to_vec(), value.to_vec()));
    }
    while let Some((key, value)) = cursor.previous().unwrap() {
        let (last_key, last_value) = there.pop().unwrap();
        assert!(last_key == key && last_value == value, "another way back");
    }
    assert!(there.is_empty());
    for direction in [Direction::Forwards, Direction::Backwards] {
        let entries: Vec<_> = store.scan(.., direction).unwrap().map(Result::unwrap).collect();
        for batch in entries.chunks(batch) {
            let count = &batch[0].1;
            assert!(batch.iter().all(|entry| entry.1 == count), "half a batch");
        }
    }
}

fn check_writers<const WRITERS: usize>(writes: u64) {
    /// Make it take a while to apply a batch.
    const FILLERS: usize = 30;
    let options = Options { level0_segments_slow: 24, level0_segments_stop: 24, ..tiny_options() };
    let store = Store::open(Arc::new(MemoryVfs::new()), DIR.as_ref(), options).unwrap();
    let done = AtomicBool::new(false);
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
        let read = || {
            let mut last = [0; WRITERS];
            let mut rounds = 0_u64;
            // However late it gets to run, it reads once.
            while !done.load(SeqCst) || rounds == 0 {
                for (writer, last) in last.iter_mut().enumerate() {
                    let now = number(store.get(format!("{writer} left").as_bytes()).unwrap());
                    assert!(now >= *last, "{now} after {last}");
                    *last = now;
                    let snapshot = store.snapshot();
                    // The last of the batch first: half a batch would be without it.
                    let [right, left] = ["right", "left"].map(|side| {
                        number(snapshot.get(format!("{writer} {side}").as_bytes()).unwrap())
                    });
                    assert!(left == right && left >= *last, "{left} {right} after {last}");
                    let view = store.read_view();
                    let [right, left] = ["right", "left"].map(|side| {
                        let key = format!("{writer} {side}");
                        let text = |value: &[u8]| std::str::from_utf8(value).unwrap().to_owned();
                        view.get_with(key.as_bytes(), text)
                            .unwrap()
                            .map_or(0, |n| n.parse().unwrap())
                    });
                    assert!(left == right && left >= *last, "{left} {right} after {last}");
                }
                check_walks(&store, FILLERS + 2);
                rounds += 1;
            }
        };
        let readers = [scope.spawn(read), scope.spawn(read)];
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let store = store.clone();
                scope.spawn(move || {
                    for count in 1..=writes {
                        let mut batch = Batch::new();
                        batch.put(format!("{writer} left"), count.to_string());
                        for filler in 0..FILLERS {
                            batch.put(format!("{writer} middle {filler:02}"), count.to_string());
                        }
                        batch.put(format!("{writer} right"), count.to_string());
                        let durability =
                            if count % 3 == 0 { Durability::Buffered } else { Durability::Sync };
                        store.write(batch, durability).unwrap();
                        let own = number(store.get(format!("{writer} right").as_bytes()).unwrap());
                        assert_eq!(own, count, "a writer reads its own writes");
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        drop(says_so);
        for reader in readers {
            reader.join().unwrap();
        }
    });
    let stats = store.stats();
    assert!(stats.flushes > 20 && stats.compactions > 0, "{stats:?}");
    // A new log file costs two more.
    assert!(stats.log.syncs <= stats.log.appends + 2 * stats.log.files_made, "{:?}", stats.log);
    assert!(store.verify().unwrap().problems.is_empty());
}

#[test]
fn what_is_visible_is_always_a_prefix_of_the_log() {
    let disk = MemoryVfs::new();
    let store = Store::open(Arc::new(disk.clone()), DIR.as_ref(), tiny_options()).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let store = store.clone();
            scope.spawn(move || {
                for count in 0..100 {
                    // All write the same key: the last in the log must be the one that is seen.
                    let value = format!("{writer} {count}");
                    store.put("key", value.clone(), Durability::Sync).unwrap();
                }
            });
        }
    });
    let seen = store.get(b"key").unwrap();
    drop(store);
    let store = Store::open(Arc::new(disk), DIR.as_ref(), tiny_options()).unwrap();
    assert_eq!(store.get(b"key").unwrap(), seen, "replay has the order of the log");
}
