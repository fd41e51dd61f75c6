//! What a memtable says that it takes is what it takes.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use kvorum_storage::vfs::MemoryVfs;
use kvorum_storage::{Batch, Options, Position, Store};

/// Counts what is allocated and not given back.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);

/// What the usual allocators keep beside each allocation.
const HEADER_BYTES: usize = 16;

// SAFETY: all is left to the system's allocator, with the very same arguments. There is no safe way
// to see what is allocated.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size() + HEADER_BYTES, SeqCst);
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size() + HEADER_BYTES, SeqCst);
        // SAFETY: the caller's promise is the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Applies batches of so many operations, and compares what is held with what is told.
fn check(what: &str, batches: u64, size: u64, value_bytes: usize, key: impl Fn(u64) -> Vec<u8>) {
    let options = Options { memtable_bytes: 1 << 30, ..Options::default() };
    let (store, _) =
        Store::open_with_replay(Arc::new(MemoryVfs::new()), "/store".as_ref(), options).unwrap();
    let value = vec![b'v'; value_bytes];
    let (held, told) = (HELD.load(SeqCst), store.stats().memtable_bytes);
    for mark in 0..batches {
        let mut batch = Batch::new();
        for number in mark * size..(mark + 1) * size {
            batch.put(key(number), &value);
        }
        store.apply(mark + 1, Position(0), &batch).unwrap();
    }
    let held = HELD.load(SeqCst) - held;
    let told = store.stats().memtable_bytes - told;
    let ratio = told as f64 / held as f64;
    println!("{what}: {} bytes an entry, told {ratio:.3} of them", held as u64 / (batches * size));
    assert!((0.9..=1.1).contains(&ratio), "{what}: {told} told, {held} held");
}

#[test]
fn a_memtable_tells_what_it_takes() {
    let scattered =
        |n: u64| [n.wrapping_mul(0x9E37_79B9_7F4A_7C15), n].map(u64::to_be_bytes).concat();
    check("scattered, one by one", 50_000, 1, 128, scattered);
    check("scattered, by hundreds", 500, 100, 128, scattered);
    check("scattered, by thousands, empty values", 60, 1000, 0, scattered);
    check("in order", 500, 100, 128, |n| n.to_be_bytes().to_vec());
    check("one hot key", 20_000, 1, 16, |_| b"hot".to_vec());
    check("large values", 500, 1, 64 << 10, scattered);
}
