//! The memtable against a sorted map, whatever the keys and the order of the inserts, and readers
//! while a writer writes.

mod race;

use std::cmp::Reverse;
use std::collections::btree_map::Entry::Vacant;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::*;
use crate::amount;
use crate::batch::Batch;
use crate::key::Kind;

type Place = (Vec<u8>, Reverse<Tag>);

impl Memtable {
    /// Inserts one entry.
    fn put(&self, key: &[u8], tag: Tag, value: &[u8]) {
        let mut batch = Batch::new();
        match tag.kind() {
            Kind::Put => batch.put(key, value),
            Kind::Delete => batch.delete(key),
        };
        self.announce(1, batch.stored().len(), tag.sequence());
        self.insert(batch.into_stored(), 1, tag.sequence());
    }
}

fn tag(sequence: u64) -> Tag {
    Tag::new(sequence, Kind::Put)
}

fn place(key: &[u8], sequence: u64) -> Place {
    (key.to_vec(), Reverse(tag(sequence)))
}

fn at(cursor: &MemtableCursor) -> Option<(Place, Bytes)> {
    let place = (cursor.key().to_vec(), Reverse(cursor.tag()));
    cursor.is_valid().then(|| (place, cursor.value()))
}

fn walk(memtable: &Arc<Memtable>, is_forwards: bool) -> Vec<(Place, Bytes)> {
    let mut cursor = MemtableCursor::new(Arc::clone(memtable));
    if is_forwards {
        cursor.seek(None)
    } else {
        cursor.seek_before(None)
    }
    let mut seen = Vec::new();
    while let Some(entry) = at(&cursor) {
        seen.push(entry);
        if is_forwards { cursor.next() } else { cursor.previous() }
    }
    seen
}

fn check_same<'a>(
    walked: Vec<(Place, Bytes)>,
    expected: impl ExactSizeIterator<Item = &'a (Place, Bytes)>,
) {
    assert_eq!(walked.len(), expected.len());
    for (index, (walked, expected)) in walked.iter().zip(expected).enumerate() {
        assert_eq!(walked, expected, "entry {index}");
    }
}

/// Inserts these in this order, and asks for everything that a sorted map also knows.
fn check(inserts: &[Place]) {
    let memtable = Arc::new(Memtable::new());
    let mut model: BTreeMap<Place, Bytes> = BTreeMap::new();
    for (number, (key, Reverse(tag))) in inserts.iter().enumerate() {
        let value = Bytes::copy_from_slice(&number.to_be_bytes()[..number % 9]);
        if let Vacant(vacant) = model.entry((key.clone(), Reverse(*tag))) {
            memtable.put(key, *tag, &value);
            vacant.insert(value);
        }
    }
    assert_eq!(memtable.entries(), model.len() as u64);
    let all: Vec<_> = model.clone().into_iter().collect();
    check_same(walk(&memtable, true), all.iter());
    check_same(walk(&memtable, false), all.iter().rev());

    let mut cursor = MemtableCursor::new(Arc::clone(&memtable));
    let pair = |entry: Option<(&Place, &Bytes)>| entry.map(|(a, b)| (a.clone(), b.clone()));
    for (key, Reverse(tag)) in model.keys() {
        let longer = [&key[..], &[0]].concat();
        let shorter = &key[..key.len().saturating_sub(1)];
        for key in [&key[..], &longer, shorter] {
            for tag in [*tag, Tag::NEWEST, Tag::OLDEST, Tag::newest_of(tag.sequence() - 1)] {
                let to = (key.to_vec(), Reverse(tag));
                let (from, before) = (model.range(&to..).next(), model.range(..&to).next_back());
                cursor.seek(Some((key, tag)));
                assert_eq!(at(&cursor), pair(from), "at or after {to:?}");
                cursor.previous();
                assert_eq!(at(&cursor), from.and(pair(before)), "a step back from {to:?}");
                cursor.seek_before(Some((key, tag)));
                assert_eq!(at(&cursor), pair(before), "before {to:?}");
                cursor.next();
                assert_eq!(at(&cursor), before.and(pair(from)), "a step on from {to:?}");
            }
            let seen = memtable.get(key, tag.sequence());
            let to = (key.to_vec(), Reverse(Tag::newest_of(tag.sequence())));
            let newest = model.range(to..).next().filter(|((found, _), _)| found == key);
            assert_eq!(seen, newest.map(|((_, Reverse(tag)), value)| (*tag, value.clone())));
        }
    }
}

/// The same in an order that is not theirs, and in three that leaves and fences do not expect.
fn check_orders(mut inserts: Vec<Place>) {
    inserts.sort();
    check(&inserts);
    inserts.reverse();
    check(&inserts);
    let middle = inserts.len() / 2;
    inserts.rotate_left(middle);
    check(&inserts);
    let step = (1..).map(|n| 7919 * n + 1).find(|step| gcd(*step, inserts.len()) == 1);
    let scattered = |n: usize| inserts[n * step.unwrap() % inserts.len()].clone();
    check(&(0..inserts.len()).map(scattered).collect::<Vec<_>>());
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[test]
fn a_reader_sees_the_newest_version_that_is_not_newer_than_it() {
    let memtable = Memtable::new();
    memtable.put(b"k", Tag::new(2, Kind::Put), b"two");
    memtable.put(b"k", Tag::new(5, Kind::Delete), b"");
    memtable.put(b"k", Tag::new(9, Kind::Put), b"nine");
    memtable.put(b"kk", Tag::new(1, Kind::Put), b"other");

    let seen = |sequence| memtable.get(b"k", sequence).map(|(tag, value)| (tag.kind(), value));
    assert_eq!(seen(1), None);
    assert_eq!(seen(2), Some((Kind::Put, Bytes::from_static(b"two"))));
    assert_eq!(seen(4), Some((Kind::Put, Bytes::from_static(b"two"))));
    assert_eq!(seen(5), Some((Kind::Delete, Bytes::new())));
    assert_eq!(seen(100), Some((Kind::Put, Bytes::from_static(b"nine"))));
    assert_eq!(memtable.get(b"j", 100), None);
    assert_eq!(memtable.get(b"z", 100), None);
}

#[test]
fn a_cursor_walks_back_the_way_it_came() {
    let memtable = Arc::new(Memtable::new());
    for step in 0..100u64 {
        let key = (step * 37 % 100) as u8;
        memtable.put(&[key], Tag::new(step + 1, Kind::Put), &[key]);
    }
    let mut cursor = MemtableCursor::new(memtable);
    let mut there = Vec::new();
    cursor.seek(None);
    while cursor.is_valid() {
        there.push((cursor.key().to_vec(), cursor.value()));
        cursor.next();
    }
    let mut back = Vec::new();
    cursor.seek_before(None);
    while cursor.is_valid() {
        back.push((cursor.key().to_vec(), cursor.value()));
        cursor.previous();
    }
    back.reverse();
    assert_eq!(there.len(), 100);
    assert_eq!(there, back);
}

#[test]
fn an_empty_memtable_has_nothing() {
    check(&[]);
    let memtable = Arc::new(Memtable::new());
    let mut cursor = MemtableCursor::new(Arc::clone(&memtable));
    cursor.seek(Some((b"k", Tag::NEWEST)));
    assert!(!cursor.is_valid());
    cursor.seek_before(Some((b"k", Tag::NEWEST)));
    assert!(!cursor.is_valid());
    cursor.previous();
    cursor.next();
    assert_eq!((at(&cursor), memtable.get(b"k", 1)), (None, None));
}

#[test]
fn scattered_numbers() {
    check_orders((0..amount(3000u32, 50)).map(|n| place(&(n * 2).to_be_bytes(), 1)).collect());
}

/// Keys that agree in their words, end in zeros, or differ far behind what a node keeps of them.
#[test]
fn keys_that_begin_each_other() {
    let mut inserts = Vec::new();
    for bytes in 0..amount(80, 4) {
        for last in [0, 1, 0x7f, 0xff] {
            for filler in [0, b'a'] {
                let key = [vec![filler; bytes], vec![last]].concat();
                inserts.extend([place(&key, 1), place(&key, 2)]);
            }
        }
    }
    check_orders(inserts);
}

#[test]
fn many_versions_of_few_keys() {
    for keys in [&[&b""[..]][..], &[b"k", b"k\0", b"kk"], &[b"a long key, twice", b"b"]] {
        let versions =
            |key: &&[u8]| (1..=amount(1000, 40)).map(|n| place(key, n)).collect::<Vec<_>>();
        check_orders(keys.iter().flat_map(versions).collect());
    }
}

#[test]
fn long_keys_that_differ_at_their_end() {
    let key = |n: u32| [&[b'p'; 300][..], &n.to_be_bytes(), &[b's'; 30]].concat();
    check_orders((0..amount(1000, 40)).map(|n| place(&key(n * 7), 1)).collect());
}

#[test]
fn groups_with_a_prefix_each() {
    let key = |n: u64| format!("tenant{}/orders/{:05}/{}", n % 3, n / 6, n % 2);
    check_orders((0..amount(3000, 50)).map(|n| place(key(n).as_bytes(), n + 1)).collect());
}

/// What is built whole is as if it had been inserted, and goes on to grow.
fn check_load(keys: &[Vec<u8>]) {
    let batch = |from: usize, to: usize| {
        let mut batch = Batch::new();
        for key in &keys[from..to] {
            batch.put(key, key);
        }
        batch
    };
    let half = keys.len() / 2;
    let mut load = Load::new();
    for (number, from) in (0..half).step_by(10).enumerate() {
        let batch = batch(from, half.min(from + 10));
        let (count, mark) = (batch.len(), number as u64 + 1);
        load.add(batch.into_shared(), count, 1 + from as u64, Position(mark));
    }
    assert_eq!(load.entries(), half);
    let memtable = Arc::new(load.finish());
    let expected = |count: usize| {
        let mut expected: Vec<_> =
            (1..).zip(&keys[..count]).map(|(n, key)| (place(key, n), key.clone().into())).collect();
        expected.sort();
        expected
    };
    check_same(walk(&memtable, true), expected(half).iter());
    check_same(walk(&memtable, false), expected(half).iter().rev());
    assert_eq!(memtable.last_mark(), half.div_ceil(10) as u64);
    for (n, key) in (1..).zip(&keys[half..]) {
        memtable.put(key, tag((half + n) as u64), key);
    }
    check_same(walk(&memtable, true), expected(keys.len()).iter());
    for (n, key) in (1..).zip(keys) {
        let found = memtable.get(key, n).map(|(tag, _)| tag.sequence());
        assert_eq!(found, Some(n));
    }
}

#[test]
fn a_memtable_is_built_whole() {
    check_load(&[]);
    check_load(&[b"one".to_vec(), b"two".to_vec()]);
    check_load(&(0..amount(5000u32, 100)).map(|n| n.to_be_bytes().to_vec()).collect::<Vec<_>>());
    let scattered = |n: u64| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes();
    check_load(&(0..amount(30_000, 700)).map(|n| scattered(n).to_vec()).collect::<Vec<_>>());
    let prefixed = |n: u64| [&[b'p'; 300][..], &scattered(n), &[b's'; 30]].concat();
    check_load(&(0..amount(2000, 60)).map(prefixed).collect::<Vec<_>>());
    let few = |n: u64| vec![b'k'; (n * n % 90) as usize];
    check_load(&(0..amount(3000, 80)).map(few).collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: amount(64, 1), ..ProptestConfig::default() })]

    #[test]
    fn any_keys_built_whole(
        keys in prop::collection::vec(
            prop::collection::vec(prop::sample::select(vec![0, 1, b'a', 0xff]), 0..20),
            0..amount(800, 120),
        ),
    ) {
        check_load(&keys);
    }

    #[test]
    fn any_keys(
        inserts in prop::collection::vec(
            (prop::collection::vec(prop::sample::select(vec![0, 1, b'a', 0xff]), 0..12), 1u64..20),
            0..amount(600, 30),
        ),
    ) {
        check(&inserts.iter().map(|(key, sequence)| place(key, *sequence)).collect::<Vec<_>>());
    }
}

/// What a reader saw once he sees ever after, in order, with its value; and so it is for what the
/// writer had done before the reader came.
#[test]
fn readers_see_a_growing_memtable_while_the_writer_writes() {
    const INSERTS: u64 = amount(20_000, 80);
    let (memtable, done) = (Arc::new(Memtable::new()), AtomicBool::new(false));
    let visible = AtomicU64::new(0);
    // Every eighth is a version of one key: leaves of one key split too.
    let key = |n: u64| match n % 8 {
        0 => b"hot".to_vec(),
        _ => [b"key-", &n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes()[..]].concat(),
    };
    let check_walk = |is_forwards: bool, seen: &mut BTreeSet<Place>| {
        let before = visible.load(Acquire);
        let walked = walk(&memtable, is_forwards);
        let order = |a: &(Place, Bytes), b: &(Place, Bytes)| (a.0 < b.0) == is_forwards;
        assert!(walked.windows(2).all(|pair| order(&pair[0], &pair[1])), "out of order");
        for ((key, Reverse(tag)), value) in &walked {
            assert_eq!(value[..], [&tag.sequence().to_le_bytes(), &key[..]].concat());
        }
        let now: BTreeSet<_> = walked.into_iter().map(|(place, _)| place).collect();
        assert!(now.is_superset(seen), "an entry that was there is gone");
        assert!((1..=before).all(|n| now.contains(&place(&key(n), n))), "not all is there");
        *seen = now;
    };
    std::thread::scope(|scope| {
        for is_forwards in [true, false] {
            let (done, check_walk) = (&done, &check_walk);
            scope.spawn(move || {
                let mut seen = BTreeSet::new();
                while !done.load(Acquire) {
                    check_walk(is_forwards, &mut seen);
                }
                check_walk(is_forwards, &mut seen);
                assert_eq!(seen.len() as u64, INSERTS);
            });
        }
        scope.spawn(|| {
            let mut number = 0u64;
            while !done.load(Acquire) {
                let newest = visible.load(Acquire);
                number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                for n in [newest, (number >> 33) % newest.max(1)] {
                    let found = memtable.get(&key(n), n).map(|(tag, _)| tag);
                    assert_eq!(found, (n > 0).then(|| tag(n)), "number {n} of {newest}");
                }
            }
        });
        for n in 1..=INSERTS {
            memtable.put(&key(n), tag(n), &[&n.to_le_bytes(), &key(n)[..]].concat());
            visible.store(n, Release);
        }
        done.store(true, Release);
    });
}
