//! Many threads insert, others read meanwhile: nothing is lost, twice or out of order.

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::super::*;
use crate::amount;
use crate::batch::Batch;
use crate::key::Kind;

/// What a batch of so many operations from `first` on puts.
type KeyOf<'a> = &'a (dyn Fn(Sequence) -> Vec<u8> + Sync);

fn value_of(key: &[u8], sequence: Sequence) -> Vec<u8> {
    [&sequence.to_le_bytes(), key].concat()
}

fn insert(memtable: &Memtable, first: Sequence, count: u64, key: KeyOf<'_>) {
    let mut batch = Batch::new();
    for sequence in first..first + count {
        let key = key(sequence);
        batch.put(&key, value_of(&key, sequence));
    }
    memtable.announce(batch.len(), batch.stored().len(), first + count - 1);
    memtable.insert(batch.into_stored(), count as usize, first);
}

fn walk(memtable: &Arc<Memtable>, is_forwards: bool) -> Vec<(Vec<u8>, Tag)> {
    let mut cursor = MemtableCursor::new(Arc::clone(memtable));
    if is_forwards {
        cursor.seek(None)
    } else {
        cursor.seek_before(None)
    }
    let mut walked: Vec<(Vec<u8>, Tag)> = Vec::new();
    while cursor.is_valid() {
        let (key, tag) = (cursor.key(), cursor.tag());
        if let Some((last, last_tag)) = walked.last() {
            let order = compare((last, *last_tag), (key, tag));
            assert_eq!(order == Less, is_forwards, "{last:?} {last_tag:?}, then {key:?} {tag:?}");
        }
        assert_eq!(cursor.value_ref(), value_of(key, tag.sequence()));
        assert_eq!(cursor.value(), cursor.value_ref());
        walked.push((key.to_vec(), tag));
        if is_forwards { cursor.next() } else { cursor.previous() }
    }
    walked
}

/// Has so many threads insert so many batches each, taking turns with the sequences, and checks all
/// that is there then.
fn race(threads: u64, batches: u64, size: u64, key: KeyOf<'_>) {
    let batches = amount(batches, batches.min(1 + 10 / size));
    let memtable = Arc::new(Memtable::new());
    let together = Barrier::new(threads as usize);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (memtable, together) = (&memtable, &together);
            scope.spawn(move || {
                together.wait();
                for batch in 0..batches {
                    insert(memtable, 1 + (batch * threads + thread) * size, size, key);
                }
            });
        }
    });
    check_all(&memtable, threads * batches * size, key);
}

fn check_all(memtable: &Arc<Memtable>, count: u64, key: KeyOf<'_>) {
    let mut expected: Vec<(Vec<u8>, Tag)> =
        (1..=count).map(|n| (key(n), Tag::new(n, Kind::Put))).collect();
    expected.sort_by(|a, b| compare((&a.0, a.1), (&b.0, b.1)));
    assert_eq!(memtable.entries(), count);
    assert!(walk(memtable, true) == expected, "forwards");
    expected.reverse();
    assert!(walk(memtable, false) == expected, "backwards");
    for n in 1..=count {
        let found = memtable.get(&key(n), n).map(|(tag, _)| tag.sequence());
        assert_eq!(found, Some(n));
    }
}

fn scattered(n: Sequence) -> Vec<u8> {
    n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes().to_vec()
}

#[test]
fn scattered_keys_of_many_threads() {
    race(4, 60, 50, &scattered);
    race(3, 2000, 1, &|n| [b"a prefix that all have: ", &scattered(n)[..]].concat());
}

/// Every thread at the same leaf, which splits all the time.
#[test]
fn keys_in_order_of_many_threads() {
    race(4, 100, 20, &|n| n.to_be_bytes().to_vec());
    race(4, 100, 20, &|n| (u64::MAX - n).to_be_bytes().to_vec());
    race(4, 2000, 1, &|n| n.to_be_bytes().to_vec());
}

#[test]
fn versions_of_hot_keys_of_many_threads() {
    race(4, 100, 20, &|_| b"hot".to_vec());
    race(4, 1500, 1, &|_| b"a hot key, longer than a word".to_vec());
    race(4, 100, 20, &|n| if n % 3 == 0 { scattered(n) } else { vec![b'k', (n % 5) as u8] });
}

/// The first splits and the first root, again and again.
#[test]
fn many_small_trees() {
    for round in 0..amount(300, 2) {
        race(4, 4, 1 + round % 7, &|n| scattered(n + round * 1000));
        race(3, 20, 1, &|n| scattered(n + round * 1000));
    }
}

/// What was inserted when a reader came he finds, walking or asking, whatever is inserted and split
/// meanwhile.
#[test]
fn readers_find_what_was_there_while_many_threads_insert() {
    const THREADS: u64 = 3;
    const SIZE: u64 = 8;
    const BATCHES: u64 = amount(300, 4);
    let key = |n: u64| if n.is_multiple_of(8) { b"hot".to_vec() } else { scattered(n) };
    let memtable = Arc::new(Memtable::new());
    let done = AtomicBool::new(false);
    // How many batches each has inserted.
    let progress: Vec<AtomicU64> = (0..THREADS).map(|_| AtomicU64::new(0)).collect();
    let first = |thread: u64, batch: u64| 1 + (batch * THREADS + thread) * SIZE;
    let read = |is_forwards: bool| {
        let mut rounds = 0;
        while !done.load(Acquire) || rounds == 0 {
            let before: Vec<u64> = progress.iter().map(|batches| batches.load(Acquire)).collect();
            let walked = walk(&memtable, is_forwards);
            let found: BTreeMap<u64, Vec<u8>> =
                walked.into_iter().map(|(key, tag)| (tag.sequence(), key)).collect();
            for (thread, batches) in (0..).zip(before) {
                for n in (0..batches).flat_map(|b| first(thread, b)..first(thread, b) + SIZE) {
                    assert_eq!(found.get(&n), Some(&key(n)), "number {n} is not there");
                }
                if let Some(last) = batches.checked_sub(1) {
                    let n = first(thread, last) + rounds % SIZE;
                    let newest = memtable.get(&key(n), n).map(|(tag, _)| tag.sequence());
                    assert_eq!(newest, Some(n));
                }
            }
            rounds += 1;
        }
    };
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (memtable, progress, key) = (&memtable, &progress, &key);
                scope.spawn(move || {
                    for batch in 0..BATCHES {
                        insert(memtable, first(thread, batch), SIZE, key);
                        progress[thread as usize].store(batch + 1, Release);
                    }
                })
            })
            .collect();
        for is_forwards in [true, false] {
            let read = &read;
            scope.spawn(move || read(is_forwards));
        }
        let all_done = writers.into_iter().map(|writer| writer.join()).collect::<Vec<_>>();
        done.store(true, Release);
        assert!(all_done.iter().all(Result::is_ok));
    });
    check_all(&memtable, THREADS * BATCHES * SIZE, &key);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: amount(48, 1), ..ProptestConfig::default() })]

    #[test]
    #[cfg_attr(miri, ignore = "to choose the keys takes minutes, and the others have all kinds of them")]
    fn any_keys_of_many_threads(
        keys in prop::collection::vec(
            prop::collection::vec(prop::sample::select(vec![0, 1, b'a', 0xff]), 0..10),
            1..60,
        ),
        threads in 2..5_u64,
        size in 1..20_u64,
    ) {
        race(threads, 8, size, &|n| keys[n as usize % keys.len()].clone());
    }
}
