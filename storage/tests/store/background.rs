//! Threads that maintain a store on their own: they keep up, they say what keeps them from it, and
//! they end when they are told.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;

use kvorum_storage::vfs::{Fault, FaultyVfs, MemoryVfs, Operation, Outcome, Vfs};
use kvorum_storage::{Durability, Error, Maintenance, MaintenanceOptions, Options, Store};

use crate::support::{DIR, LONG, count_batches, numbered_batch, tiny_options, until};

fn open(vfs: impl Vfs) -> Store {
    // Room enough that no writer has to help.
    let options = Options {
        memtables_max: 1000,
        level0_segments_slow: 1000,
        level0_segments_stop: 1000,
        ..tiny_options()
    };
    Store::open(Arc::new(vfs), DIR.as_ref(), options).unwrap()
}

#[test]
fn threads_flush_and_compact_by_themselves_and_end_with_their_guard() {
    let disk = MemoryVfs::new();
    for threads in [1, 3] {
        let disk = disk.crash_image(kvorum_storage::vfs::CrashMode::KeepAll);
        let store = open(disk.clone());
        let maintenance = Maintenance::start(&store, threads).unwrap();
        for number in 1..=300 {
            store.write(numbered_batch(number), Durability::Buffered).unwrap();
        }
        until("all is flushed and compacted", || {
            let stats = store.stats();
            stats.frozen_memtables == 0 && stats.compactions > 0
        });
        assert!(maintenance.failure().is_none());
        assert_eq!(count_batches(&store, "maintained"), 300);
        drop(store);
        // The threads keep it open.
        let again = || Store::open(Arc::new(disk.clone()), DIR.as_ref(), tiny_options());
        assert!(matches!(again(), Err(Error::Locked { .. })));
        maintenance.stop();
        assert_eq!(count_batches(&again().unwrap(), "opened again"), 300);
    }
}

#[test]
fn an_idle_store_is_settled_and_then_left_alone() {
    let store = open(MemoryVfs::new());
    let options = MaintenanceOptions {
        threads: 1,
        idle_after: Duration::from_millis(1),
        ..MaintenanceOptions::default()
    };
    for number in 1..=100 {
        store.write(numbered_batch(number), Durability::Buffered).unwrap();
    }
    // Done at once, it is not due; only idle work brings everything to the bottom.
    while store.maintain().unwrap() != kvorum_storage::Maintained::Nothing {}
    let above = || {
        let levels = store.stats().levels;
        levels[..levels.len() - 1].iter().map(|level| level.entries).sum::<u64>()
    };
    store.write(numbered_batch(101), Durability::Buffered).unwrap();
    store.flush().unwrap();
    assert!(above() > 0);
    let maintenance = Maintenance::start_with(&store, options).unwrap();
    until("all is at the bottom", || above() == 0);
    assert!(maintenance.failure().is_none());
    maintenance.stop();
    assert_eq!(count_batches(&store, "settled"), 101);
}

#[test]
fn what_keeps_them_from_their_work_is_told_and_forgotten_once_it_is_over() {
    let faulty = FaultyVfs::new(Arc::new(MemoryVfs::new()));
    let store = open(faulty.clone());
    let (told, tell) = mpsc::channel();
    let told_by = Mutex::new(told);
    let options = MaintenanceOptions {
        threads: 2,
        name: "worker".to_owned(),
        low_priority: true,
        retry_after: Duration::from_millis(1),
        on_failure: Some(Arc::new(move |error| {
            let thread = std::thread::current().name().map(str::to_owned);
            let _ = told_by.lock().unwrap().send((thread, error.to_string()));
        })),
        ..MaintenanceOptions::default()
    };
    let armed = faulty.arm(Fault::always(Operation::Create, Outcome::DiskFull).on("segments"));
    let maintenance = Maintenance::start_with(&store, options).unwrap();
    for number in 1..=20 {
        store.write(numbered_batch(number), Durability::Sync).unwrap();
    }
    store.wake_maintenance();
    let (thread, what) = tell.recv_timeout(LONG).unwrap();
    assert!(thread.is_some_and(|name| name.starts_with("worker")), "the threads have names");
    assert!(what.contains("disk full"), "{what}");
    until("the failure is remembered", || maintenance.failure().is_some());
    assert!(store.stats().frozen_memtables > 0);
    armed.heal();
    until("the work is done", || store.stats().frozen_memtables == 0);
    until("the failure is forgotten", || maintenance.failure().is_none());
    assert_eq!(count_batches(&store, "healed"), 20);
}

#[test]
fn a_guard_whose_store_is_poisoned_says_so_and_can_be_dropped() {
    let faulty = FaultyVfs::new(Arc::new(MemoryVfs::new()));
    let store = open(faulty.clone());
    // Long enough that the test would fail if dropping waited for it.
    let options = MaintenanceOptions { retry_after: LONG * 60, ..MaintenanceOptions::default() };
    let maintenance = Maintenance::start_with(&store, options).unwrap();
    let armed = faulty.arm(Fault::once(Operation::Sync, Outcome::InputOutput).on("segments"));
    // Enough for the threads to have something to flush, whenever they get to it; what comes after
    // that is refused.
    for number in 1..=100 {
        let _ = store.write(numbered_batch(number), Durability::Buffered);
    }
    until("it is remembered", || maintenance.failure().is_some());
    assert_eq!(armed.fired(), 1);
    drop(maintenance);
    assert!(store.get(b"number").unwrap().is_some(), "reads go on");
}

#[test]
fn no_threads_and_too_many_are_refused() {
    let store = open(MemoryVfs::new());
    for threads in [0, 65] {
        let error = Maintenance::start(&store, threads).err().unwrap();
        assert!(error.to_string().contains("from 1 to 64"), "{error}");
    }
}
