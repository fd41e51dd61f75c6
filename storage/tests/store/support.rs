//! What the tests of the store share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kvorum_storage::{
    Batch, Direction, LogOptions, Maintained, Operation, Options, Pressure, Store,
};

/// Where stores are on in-memory disks.
pub(crate) const DIR: &str = "/store";

/// Nothing takes so long, however slow or busy the machine is; a test that waits for it has failed.
pub(crate) const LONG: Duration = Duration::from_secs(300);

/// Waits until it is so, as another thread sees to.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < LONG, "never: {what}");
        std::thread::yield_now();
    }
}

/// Says so when it goes, also by a panic: else the threads that go on until it is so would keep the
/// test from telling what is wrong.
pub(crate) struct SaysSo<'a>(pub(crate) &'a AtomicBool);

impl Drop for SaysSo<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// A small generator: the same seed, the same run (Steele, Lea, Flood: SplitMix, 2014).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// Options with which a few hundred operations fill several levels.
pub(crate) fn tiny_options() -> Options {
    Options {
        memtable_bytes: 2 << 10,
        memtables_max: 2,
        block_bytes: 256,
        segment_bytes: 1 << 10,
        level0_segments: 2,
        level0_segments_slow: 6,
        level0_segments_stop: 6,
        level1_bytes: 3 << 10,
        level_step: 2,
        log_bytes_max: 16 << 10,
        log: LogOptions { file_bytes: 2 << 10, recycle_files_max: 2, ..LogOptions::default() },
        ..Options::default()
    }
}

/// The batch with this number. It tells its number, so that a store tells how many it has.
pub(crate) fn numbered_batch(number: u64) -> Batch {
    let mut batch = Batch::new();
    batch.put("number", number.to_string());
    for side in ["left", "right"] {
        let key = format!("{side}{:02}", number * 7 % 23);
        if number.is_multiple_of(5) {
            batch.delete(key);
        } else {
            batch.put(key, format!("{number} {}", "x".repeat(number as usize * 13 % 90)));
        }
    }
    batch
}

fn state_after(count: u64) -> BTreeMap<Bytes, Bytes> {
    let mut state = BTreeMap::new();
    for number in 1..=count {
        for operation in numbered_batch(number).operations() {
            match operation {
                Operation::Put { key, value } => state.insert(key.clone(), value.clone()),
                Operation::Delete { key } => state.remove(key),
            };
        }
    }
    state
}

/// How many numbered batches the store has; that it has those and nothing else is checked, and
/// so is every segment.
pub(crate) fn count_batches(store: &Store, context: &str) -> u64 {
    let entries: BTreeMap<Bytes, Bytes> =
        store.scan(.., Direction::Forwards).unwrap().map(Result::unwrap).collect();
    let number = entries.get(b"number".as_slice());
    let count = number.map_or(0, |n| std::str::from_utf8(n).unwrap().parse().unwrap());
    assert_eq!(entries, state_after(count), "{context}: not the state after {count} batches");
    let report = store.verify().unwrap();
    assert!(report.problems.is_empty(), "{context}: {:?}", report.problems);
    count
}

/// Does what an owner must when the store says stop.
pub(crate) fn make_room(store: &Store) {
    while store.pressure() == Pressure::Stop && store.maintain().unwrap() != Maintained::Nothing {}
}
