//! Writes that are in memory before they are durable: nobody sees them, and nobody ever does if
//! their sync fails.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex};

use kvorum_storage::vfs::{
    CrashMode, Event, Fault, FaultyVfs, MemoryVfs, Operation, Outcome, Phase,
};
use kvorum_storage::{Batch, Direction, Durability, Error, Options, Store};

use crate::support::{DIR, tiny_options};

/// Memtables that are not full, and a log that does not change files, while a test looks.
fn roomy_options() -> Options {
    let mut options = Options { memtable_bytes: 1 << 20, ..tiny_options() };
    options.log.file_bytes = 1 << 20;
    options.log_bytes_max = 1 << 20;
    options
}

fn open(vfs: &FaultyVfs, options: Options) -> Store {
    Store::open(Arc::new(vfs.clone()), DIR.as_ref(), options).unwrap()
}

/// Whether the event makes something of the log durable, by a sync or by a write that is one.
fn reaches_log(event: &Event<'_>, phase: Phase) -> bool {
    let is_log = event.path.parent().is_some_and(|dir| dir.ends_with("log"));
    event.operation.changes_disk() && is_log && event.phase == phase
}

/// Holds the first attempt to make something durable until it is told to let go.
struct Gate {
    is_armed: AtomicBool,
    arrived: Barrier,
    left: Barrier,
}

impl Gate {
    fn on(vfs: &FaultyVfs) -> Arc<Gate> {
        let gate = Arc::new(Gate {
            is_armed: AtomicBool::new(false),
            arrived: Barrier::new(2),
            left: Barrier::new(2),
        });
        let held = Arc::clone(&gate);
        vfs.on_operation(move |event| {
            if reaches_log(event, Phase::Before) && held.is_armed.swap(false, SeqCst) {
                held.arrived.wait();
                held.left.wait();
            }
        });
        gate
    }
}

#[test]
fn what_is_inserted_beside_a_sync_is_seen_when_it_is_durable_itself() {
    let faulty = FaultyVfs::new(Arc::new(MemoryVfs::new()));
    let store = open(&faulty, roomy_options());
    store.put("before", "1", Durability::Sync).unwrap();
    let gate = Gate::on(&faulty);
    gate.is_armed.store(true, SeqCst);
    let begun = store.log().last();
    let answered = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let put = |key: &'static str, durability| {
            let (store, answered) = (&store, &answered);
            scope.spawn(move || {
                store.put(key, "1", durability).unwrap();
                answered.fetch_add(1, SeqCst);
                assert!(store.get(key.as_bytes()).unwrap().is_some(), "who wrote it sees it");
            });
        };
        put("first", Durability::Sync);
        gate.arrived.wait();
        // The first is at the disk, and the others come while it is there. They are in the log's
        // order before they are inserted, so they are at least on their way; the one that is only
        // buffered may not overtake the others.
        put("second", Durability::Sync);
        while store.log().last().0 < begun.0 + 2 {
            std::thread::yield_now();
        }
        put("third", Durability::Buffered);
        while store.log().last().0 < begun.0 + 3 {
            std::thread::yield_now();
        }
        let mut seen = Vec::new();
        for _ in 0..200 {
            let keys = ["first", "second", "third"].into_iter();
            seen.extend(keys.filter(|key| store.get(key.as_bytes()).unwrap().is_some()));
            let count = store.scan(.., Direction::Forwards).unwrap().count();
            seen.extend((count != 1).then_some("a scan"));
            std::thread::yield_now();
        }
        let answered = answered.load(SeqCst);
        gate.left.wait();
        assert!(seen.is_empty() && answered == 0, "{answered} answered, seen: {seen:?}");
    });
    assert_eq!(store.scan(.., Direction::Forwards).unwrap().count(), 4);
}

/// Whether a writer asks for no sync of its batch of this count.
fn is_buffered(count: u64) -> bool {
    count % 4 == 3
}

/// Writers of which each puts its count under its own key, in batches that belong together, until
/// the disk fails. What each was told last is what is seen, then and after a crash.
fn fail_among_writers(outcome: Outcome, after: u64, options: Options) -> (u64, Vec<Error>) {
    const WRITERS: usize = 8;
    let disk = MemoryVfs::new();
    let faulty = FaultyVfs::new(Arc::new(disk.clone()));
    let store = open(&faulty, options.clone());
    let armed = [Operation::Sync, Operation::Write]
        .map(|operation| faulty.arm(Fault::always(operation, outcome).on("log").after(after)));
    let told: Vec<AtomicU64> = (0..WRITERS).map(|_| AtomicU64::new(0)).collect();
    let errors = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (store, told, errors) = (&store, &told, &errors);
            scope.spawn(move || {
                for count in 1..=10_000_u64 {
                    let mut batch = Batch::new();
                    for part in 0..3 {
                        batch.put(format!("{writer} {part}"), count.to_string());
                    }
                    let durability =
                        if is_buffered(count) { Durability::Buffered } else { Durability::Sync };
                    match store.write(batch, durability) {
                        Ok(_) => told[writer].store(count, SeqCst),
                        Err(error) => return errors.lock().unwrap().push(error),
                    }
                }
                panic!("nobody failed");
            });
        }
    });
    assert!(armed.iter().any(|armed| armed.fired() > 0));
    let seen = |store: &Store, writer: usize| -> u64 {
        let part = |part| {
            let value = store.get(format!("{writer} {part}").as_bytes()).unwrap();
            value.map_or(0, |value| std::str::from_utf8(&value).unwrap().parse().unwrap())
        };
        let counts = [part(0), part(1), part(2)];
        assert!(counts.iter().all(|count| *count == counts[0]), "half a batch: {counts:?}");
        counts[0]
    };
    for (writer, told) in told.iter().enumerate() {
        let (seen, told) = (seen(&store, writer), told.load(SeqCst));
        // Of one that asked for no sync the outcome is unknown: the system may have had it before
        // another one's sync failed, and with it whatever wanted to be synced before.
        let most = told + u64::from(is_buffered(told + 1));
        assert!(
            (told..=most).contains(&seen),
            "{outcome:?} after {after}: of writer {writer} {seen} are seen, {told} were answered"
        );
    }
    let image = disk.crash_image(CrashMode::KeepAll);
    let again = open(&FaultyVfs::new(Arc::new(image)), options);
    for (writer, told) in told.iter().enumerate() {
        let (seen, told) = (seen(&again, writer), told.load(SeqCst));
        assert!((told..=told + 1).contains(&seen), "{seen}, but {told} were answered");
    }
    let written = told.iter().map(|told| told.load(SeqCst)).sum();
    (written, errors.into_inner().unwrap())
}

#[test]
fn a_failed_sync_leaves_nothing_of_it_to_be_seen() {
    let mut written = 0;
    for after in [0, 1, 2, 5, 11, 40] {
        for options in [roomy_options(), tiny_options()] {
            let (count, errors) = fail_among_writers(Outcome::InputOutput, after, options);
            written += count;
            assert!(errors.len() == 8, "{errors:?}");
        }
    }
    assert!(written > 60, "{written} batches were answered");
}

#[test]
fn a_full_disk_shows_nothing_that_it_refused() {
    for after in [0, 3, 20] {
        let (_, errors) = fail_among_writers(Outcome::DiskFull, after, roomy_options());
        let is_expected = |error: &Error| {
            matches!(error, Error::DiskFull { .. } | Error::Poisoned { .. } | Error::Io { .. })
        };
        assert!(errors.len() == 8 && errors.iter().all(is_expected), "{errors:?}");
    }
}

/// While several threads write, the disk is looked at around every change, as a power cut would
/// leave it: what was answered before is there, and of each writer nothing but whole batches.
#[test]
fn a_crash_while_many_write_leaves_a_prefix_of_each() {
    const WRITERS: usize = 4;
    let disk = MemoryVfs::new();
    let faulty = FaultyVfs::new(Arc::new(disk.clone()));
    let store = open(&faulty, tiny_options());
    let told: Arc<Vec<AtomicU64>> = Arc::new((0..WRITERS).map(|_| AtomicU64::new(0)).collect());
    let looks = Arc::new(AtomicU64::new(0));
    let check = |image: MemoryVfs, told: &[u64]| {
        let store = open(&FaultyVfs::new(Arc::new(image)), tiny_options());
        for (writer, told) in told.iter().enumerate() {
            let part = |part| store.get(format!("{writer} {part}").as_bytes()).unwrap();
            assert_eq!(part(0), part(1), "half a batch");
            let seen =
                part(0).map_or(0, |it| std::str::from_utf8(&it).unwrap().parse::<u64>().unwrap());
            assert!(seen >= *told, "{seen}, but {told} were answered");
        }
    };
    faulty.on_operation({
        let (disk, told, looks) = (disk.clone(), Arc::clone(&told), Arc::clone(&looks));
        move |event| {
            if !event.operation.changes_disk() || std::thread::panicking() {
                return;
            }
            let number = looks.fetch_add(1, SeqCst);
            if !number.is_multiple_of(5) {
                return;
            }
            // First what was answered, then the disk, on which there may be more.
            let told: Vec<u64> = told.iter().map(|told| told.load(SeqCst)).collect();
            check(disk.crash_image(CrashMode::Random { seed: number }), &told);
        }
    });
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (store, told) = (&store, &told);
            scope.spawn(move || {
                for count in 1..=80_u64 {
                    let mut batch = Batch::new();
                    for part in 0..2 {
                        batch.put(format!("{writer} {part}"), count.to_string());
                    }
                    store.write(batch, Durability::Sync).unwrap();
                    told[writer].store(count, SeqCst);
                    if count % 16 == 0 {
                        store.maintain().unwrap();
                    }
                }
            });
        }
    });
    assert!(looks.load(SeqCst) > 200, "{looks:?}");
}
