//! Checkpoints: a store of its own with all that was before, once it is made; and before that
//! nothing that could be taken for one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use kvorum_storage::vfs::{CrashMode, Fault, FaultyVfs, MemoryVfs, Operation, Outcome, Vfs};
use kvorum_storage::{Durability, Error, Store};

use crate::support::{DIR, count_batches, numbered_batch, tiny_options};

const COPY: &str = "/backups/today/copy";

fn open_copy(disk: &MemoryVfs) -> kvorum_storage::Result<Store> {
    let options = tiny_options().create_if_missing(false);
    Store::open(Arc::new(disk.clone()), COPY.as_ref(), options)
}

/// A store with batches in segments, in memory, and some that nobody has synced.
fn store(vfs: impl Vfs, count: u64) -> Store {
    let store = Store::open(Arc::new(vfs), DIR.as_ref(), tiny_options()).unwrap();
    for number in 1..=count {
        store.write(numbered_batch(number), Durability::Buffered).unwrap();
    }
    store
}

#[test]
fn a_crash_at_every_operation_leaves_a_whole_checkpoint_or_none() {
    let disk = MemoryVfs::new();
    let faulty = FaultyVfs::new(Arc::new(disk.clone()));
    let store = store(faulty.clone(), 60);
    let (none, whole) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    faulty.on_operation({
        let (disk, none, whole) = (disk.clone(), Arc::clone(&none), Arc::clone(&whole));
        move |event| {
            if !event.operation.changes_disk() || std::thread::panicking() {
                return;
            }
            for seed in 0..3 {
                let image = disk.crash_image(CrashMode::Random { seed });
                let context = format!("at {event:?}, {seed}");
                match open_copy(&image) {
                    Ok(copy) => {
                        assert_eq!(count_batches(&copy, &context), 60, "{context}");
                        whole.fetch_add(1, SeqCst);
                    }
                    Err(Error::Missing { .. }) => drop(none.fetch_add(1, SeqCst)),
                    Err(error) => panic!("{context}: {error}"),
                }
            }
        }
    });
    store.checkpoint(COPY.as_ref()).unwrap();
    faulty.on_operation(|_| ());
    let (none, whole) = (none.load(SeqCst), whole.load(SeqCst));
    assert!(none > 20 && whole > 0, "{none} times none, {whole} times whole");
    // Once it has returned, it is there whatever happens.
    let image = disk.crash_image(CrashMode::LoseUnsynced);
    assert_eq!(count_batches(&open_copy(&image).unwrap(), "made"), 60);
}

#[test]
fn one_that_failed_is_no_store_and_another_can_be_made_elsewhere() {
    let mut fired = 0;
    let operations =
        [Operation::CreateDir, Operation::HardLink, Operation::Create, Operation::SyncDir];
    for operation in operations {
        for after in 0.. {
            let disk = MemoryVfs::new();
            let faulty = FaultyVfs::new(Arc::new(disk.clone()));
            let store = store(faulty.clone(), 40);
            store.flush().unwrap();
            let fault = Fault::once(operation, Outcome::DiskFull).on("/backups").after(after);
            let armed = faulty.arm(fault);
            let result = store.checkpoint(COPY.as_ref());
            if armed.fired() == 0 {
                result.unwrap();
                break;
            }
            fired += 1;
            let error = result.unwrap_err();
            let context = format!("{operation:?} after {after}: {error}");
            let is_made = open_copy(&disk).is_ok();
            // Only the last step may have been done without being known to be durable.
            assert!(!is_made || operation == Operation::SyncDir, "{context}");
            store.put("number", "40", Durability::Sync).unwrap();
            store.checkpoint("/backups/tomorrow".as_ref()).unwrap();
            assert_eq!(count_batches(&store, &context), 40);
        }
    }
    assert!(fired > 8, "{fired} faults fired");
}

#[test]
fn the_store_may_go_on_and_be_removed() {
    let disk = MemoryVfs::new();
    let store = store(disk.clone(), 50);
    store.checkpoint(COPY.as_ref()).unwrap();
    for number in 51..=90 {
        store.write(numbered_batch(number), Durability::Buffered).unwrap();
    }
    store.compact().unwrap();
    drop(store);
    for path in disk.files() {
        if path.starts_with(DIR) {
            disk.remove(&path).unwrap();
        }
    }
    let copy = open_copy(&disk).unwrap();
    assert_eq!(count_batches(&copy, "alone"), 50);
    copy.write(numbered_batch(51), Durability::Sync).unwrap();
    copy.checkpoint("/backups/of the copy".as_ref()).unwrap();
    assert_eq!(count_batches(&copy, "and further"), 51);
}
