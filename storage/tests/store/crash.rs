//! A crash at every operation that changes the disk, while batches are written, memtables flushed,
//! segments compacted and the log cut: what was durable is there, in full batches, in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use kvorum_storage::vfs::{CrashMode, FaultyVfs, MemoryVfs, Phase, Vfs};
use kvorum_storage::{Batch, Durability, Store};

use crate::support::{DIR, Random, count_batches, make_room, numbered_batch, tiny_options};

/// Kind of the owner's records, which hold one batch each.
const OWNED: u8 = 16;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Use {
    Embedded,
    UnderAnOwnersLog,
}

/// How many batches are durable for sure, and how many were begun.
#[derive(Default)]
struct Progress {
    durable: AtomicU64,
    begun: AtomicU64,
}

fn open(vfs: Arc<dyn Vfs>, how: Use) -> Store {
    if how == Use::Embedded {
        return Store::open(vfs, DIR.as_ref(), tiny_options()).unwrap();
    }
    let (store, mut recovery) = Store::open_with_replay(vfs, DIR.as_ref(), tiny_options()).unwrap();
    while let Some(record) = recovery.next().unwrap() {
        assert_eq!(record.kind, OWNED);
        let batch = Batch::decode(&record.payload).unwrap();
        store.apply(record.position.0, record.position, &batch).unwrap();
        make_room(&store);
    }
    store
}

/// Opens what a crash left, and checks that it is a state between what was durable and what was
/// begun.
fn check(image: &MemoryVfs, how: Use, progress: (u64, u64), context: &str) {
    let store = open(Arc::new(image.clone()), how);
    let count = count_batches(&store, context);
    let (durable, begun) = progress;
    assert!((durable..=begun).contains(&count), "{context}: {count} of {durable}..={begun}");
}

/// Writes batches, flushes and compacts.
fn work(store: &Store, how: Use, progress: &Progress, seed: u64, count: u64) {
    let mut random = Random::new(seed);
    let first = progress.begun.load(SeqCst) + 1;
    for number in first..first + count {
        progress.begun.store(number, SeqCst);
        let sync = random.below(3) > 0;
        match how {
            Use::Embedded => {
                let durability = if sync { Durability::Sync } else { Durability::Buffered };
                store.write(numbered_batch(number), durability).unwrap();
            }
            Use::UnderAnOwnersLog => {
                let mut record = Vec::new();
                numbered_batch(number).encode(&mut record);
                let position = store.log().append(OWNED, &record).unwrap();
                // Applied before it is durable: a flush must take care of that.
                store.apply(position.0, position, &numbered_batch(number)).unwrap();
                if sync {
                    store.log().sync(position).unwrap();
                }
                if random.below(10) == 0 {
                    store.release(position.next());
                }
                make_room(store);
            }
        }
        if sync {
            progress.durable.store(number, SeqCst);
        }
        match random.below(20) {
            0..6 => drop(store.maintain().unwrap()),
            6 => {
                store.flush().unwrap();
                progress.durable.store(number, SeqCst);
            }
            7 => store.compact().unwrap(),
            _ => {}
        }
    }
}

/// Runs the work with a crash tried around every change of the disk; answers how many were.
fn crash_everywhere(how: Use, seed: u64, crash_again: bool) -> u64 {
    let (disk, progress) = (MemoryVfs::new(), Arc::new(Progress::default()));
    let faulty = FaultyVfs::new(Arc::new(disk.clone()));
    let store = open(Arc::new(faulty.clone()), how);
    let crashes = Arc::new(AtomicU64::new(0));
    faulty.on_operation({
        let (disk, progress, crashes) = (disk.clone(), progress.clone(), crashes.clone());
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
            let durable = progress.durable.load(SeqCst);
            let progress = (durable, progress.begun.load(SeqCst));
            let context = format!("{how:?} {seed}, crash {number} at {event:?} {mode:?}");
            let image = disk.crash_image(mode);
            if crash_again && number.is_multiple_of(25) {
                crash_in_recovery(&image, how, progress, seed ^ number, &context);
            }
            check(&image, how, progress, &context);
        }
    });
    work(&store, how, &progress, seed, 150);
    let stats = store.stats();
    assert!(stats.flushes > 20 && stats.compactions > 5 && stats.log_cuts > 1, "{stats:?}");
    crashes.load(SeqCst)
}

/// Crashes once more at each change of the disk while a store is opened.
fn crash_in_recovery(image: &MemoryVfs, how: Use, progress: (u64, u64), seed: u64, context: &str) {
    let disk = image.crash_image(CrashMode::KeepAll);
    let faulty = FaultyVfs::new(Arc::new(disk.clone()));
    let crashes = Arc::new(AtomicU64::new(0));
    faulty.on_operation({
        let (context, crashes) = (context.to_owned(), crashes.clone());
        move |event| {
            if !event.operation.changes_disk() || std::thread::panicking() {
                return;
            }
            let number = crashes.fetch_add(1, SeqCst);
            let mode = CrashMode::Random { seed: seed ^ number << 32 };
            let context = format!("{context}, then at {event:?}");
            check(&disk.crash_image(mode), how, progress, &context);
        }
    });
    drop(open(Arc::new(faulty), how));
    assert!(crashes.load(SeqCst) > 0, "opening changes the disk");
}

#[test]
fn embedded_writes_survive_a_crash_at_every_operation() {
    let crashes: u64 = (0..3).map(|seed| crash_everywhere(Use::Embedded, seed, false)).sum();
    assert!(crashes > 2000, "{crashes}");
}

#[test]
fn batches_under_an_owners_log_survive_a_crash_at_every_operation() {
    let crashes: u64 =
        (0..3).map(|seed| crash_everywhere(Use::UnderAnOwnersLog, seed, false)).sum();
    assert!(crashes > 2000, "{crashes}");
}

#[test]
fn a_crash_in_the_recovery_from_a_crash_changes_nothing() {
    assert!(crash_everywhere(Use::Embedded, 10, true) > 500);
    assert!(crash_everywhere(Use::UnderAnOwnersLog, 11, true) > 500);
}

#[test]
fn a_store_that_was_being_made_when_the_power_failed_is_there_or_not() {
    let disk = MemoryVfs::new();
    let faulty = FaultyVfs::new(Arc::new(disk.clone()));
    let crashes = Arc::new(AtomicU64::new(0));
    faulty.on_operation({
        let (disk, crashes) = (disk.clone(), crashes.clone());
        move |event| {
            for seed in 0..8 {
                let context = format!("at {event:?}, {seed}");
                let image = disk.crash_image(CrashMode::Random { seed });
                check(&image, Use::Embedded, (0, 0), &context);
                crashes.fetch_add(1, SeqCst);
            }
        }
    });
    drop(open(Arc::new(faulty), Use::Embedded));
    assert!(crashes.load(SeqCst) > 100);
}
