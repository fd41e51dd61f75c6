//! What a store tells of itself is what happened to it.

use std::sync::Arc;

use kvorum_storage::vfs::MemoryVfs;
use kvorum_storage::{Durability, Options, Store};

use crate::support::{DIR, numbered_batch, tiny_options};

fn open(options: Options) -> Store {
    Store::open(Arc::new(MemoryVfs::new()), DIR.as_ref(), options).unwrap()
}

#[test]
fn a_new_store_has_done_nothing() {
    let stats = open(tiny_options()).stats();
    assert_eq!((stats.write_amplification(), stats.space_amplification()), (None, None));
    assert_eq!((stats.read_amplification(), stats.filters.false_positives()), (1, None));
    assert_eq!(stats.latencies.synced_write.count, 0);
    assert!(stats.to_string().contains("amplification"), "{stats}");
}

#[test]
fn work_is_counted_and_timed() {
    let store = open(tiny_options());
    let mut bytes = 0;
    for number in 1..=200 {
        let batch = numbered_batch(number);
        bytes += batch.bytes() as u64;
        store.write(batch, Durability::Sync).unwrap();
        store.maintain().unwrap();
    }
    let stats = store.stats();
    assert_eq!((stats.applied_bytes, stats.latencies.synced_write.count), (bytes, 200));
    assert_eq!(stats.latencies.flush.count, stats.flushes);
    assert_eq!(stats.latencies.compaction.count, stats.compactions);
    assert!(stats.flushes > 0 && stats.compactions > 0, "{stats}");
    let written = stats.write_amplification().unwrap();
    assert!((2.0..20.0).contains(&written), "{written}");
    let space = stats.space_amplification().unwrap();
    assert!((1.0..10.0).contains(&space), "{space}");
    let used = stats.levels[1..].iter().filter(|level| level.segments > 0).count();
    assert_eq!(
        stats.read_amplification(),
        1 + stats.frozen_memtables + stats.levels[0].segments + used
    );
}

#[test]
fn a_sample_of_the_gets_says_what_filters_keep_out() {
    let store = open(Options { filter_bits_per_key: 10, ..Options::default() });
    for number in 0..4000 {
        store.put(format!("{number:05} there"), "value", Durability::Buffered).unwrap();
    }
    store.put("99999", "the last", Durability::Buffered).unwrap();
    store.flush().unwrap();
    for number in 0..4000 {
        assert!(store.get(format!("{number:05} there").as_bytes()).unwrap().is_some());
    }
    let filters = store.stats().filters;
    assert!((20..50).contains(&filters.asked), "one in a hundred or so: {filters:?}");
    assert_eq!((filters.passed, filters.passed_wrongly), (filters.asked, 0), "{filters:?}");
    for number in 0..40_000 {
        assert!(store.get(format!("{:05} not", number % 9000).as_bytes()).unwrap().is_none());
    }
    let stats = store.stats();
    assert!(stats.filters.asked > 200, "{:?}", stats.filters);
    let part = stats.filters.false_positives().unwrap();
    assert!(part < 0.08, "{part}");
    assert!(stats.latencies.get.count > 300 && stats.latencies.get.longest.as_nanos() > 0);
    // What is in memory asks no filter.
    store.put("memory", "value", Durability::Buffered).unwrap();
    for _ in 0..1000 {
        assert!(store.get(b"memory").unwrap().is_some());
    }
    assert_eq!(store.stats().filters.asked, stats.filters.asked);
    assert!(store.stats().filters.from_memtables > 3);
}

#[test]
fn writers_that_are_held_back_are_counted() {
    let store = open(tiny_options());
    for number in 1..=300 {
        store.write(numbered_batch(number), Durability::Buffered).unwrap();
    }
    let stall = store.stats().latencies.stall;
    assert!(
        stall.count > 5 && stall.longest >= stall.median && !stall.total.is_zero(),
        "{stall:?}"
    );
}
