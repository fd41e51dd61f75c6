//! Cursors and scans against a map, both ways and turning, while the store goes on under them:
//! writes, flushes and compactions after a walk was begun are nothing to it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use kvorum_storage::vfs::{MemoryVfs, OpenMode, Vfs};
use kvorum_storage::{
    Batch, Compression, Cursor, Direction, Durability, Error, KeyRange, Options, ReadView, Result,
    Snapshot, Store,
};

use crate::support::{DIR, Random, tiny_options};

type Model = BTreeMap<Bytes, Bytes>;
type Entry<'a> = (&'a [u8], &'a [u8]);

/// What a cursor must be like: the entries of its range, and where among them it is.
struct Expected {
    entries: Vec<(Bytes, Bytes)>,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Nowhere,
    Before,
    At(usize),
    Behind,
}

impl Expected {
    fn new(model: &Model, range: &KeyRange) -> Expected {
        let holds = |key: &Bytes| {
            let from = match &range.from {
                Bound::Included(from) => key >= from,
                Bound::Excluded(from) => key > from,
                Bound::Unbounded => true,
            };
            from && match &range.to {
                Bound::Included(to) => key <= to,
                Bound::Excluded(to) => key < to,
                Bound::Unbounded => true,
            }
        };
        let entries = model.iter().filter(|(key, _)| holds(key));
        let entries = entries.map(|(key, value)| (key.clone(), value.clone())).collect();
        Expected { entries, place: Place::Nowhere }
    }

    fn entry(&self) -> Option<Entry<'_>> {
        let Place::At(index) = self.place else { return None };
        Some((&self.entries[index].0, &self.entries[index].1))
    }

    fn up_to(&mut self, index: usize) {
        self.place = if index < self.entries.len() { Place::At(index) } else { Place::Behind };
    }

    fn down_to(&mut self, index: Option<usize>) {
        self.place = index.map_or(Place::Before, Place::At);
    }

    fn next(&mut self) {
        match self.place {
            Place::Nowhere | Place::Before => self.up_to(0),
            Place::At(index) => self.up_to(index + 1),
            Place::Behind => {}
        }
    }

    fn previous(&mut self) {
        match self.place {
            Place::Nowhere | Place::Behind => self.down_to(self.entries.len().checked_sub(1)),
            Place::At(index) => self.down_to(index.checked_sub(1)),
            Place::Before => {}
        }
    }

    fn seek(&mut self, key: &[u8]) {
        self.up_to(self.entries.partition_point(|(at, _)| *at < key));
    }

    fn seek_back(&mut self, key: &[u8]) {
        self.down_to(self.entries.partition_point(|(at, _)| *at <= key).checked_sub(1));
    }
}

/// One cursor that is alive, and what it must be like.
struct Walk {
    cursor: Cursor,
    expected: Expected,
    range: KeyRange,
    last_step: Option<Direction>,
}

/// What a run is of.
#[derive(Clone, Copy, Debug)]
enum Keys {
    /// Short ones, some the beginning of others, and bytes at both ends of what there is.
    Short,
    /// Long ones that differ only behind what words can hold.
    Long,
    /// A few, of which there are many versions.
    Few,
}

struct Run {
    random: Random,
    keys: Keys,
    store: Store,
    model: Model,
    walks: Vec<Walk>,
    snapshots: Vec<(Snapshot, Model)>,
    views: Vec<(ReadView, Model)>,
    seen: Seen,
}

#[derive(Debug, Default)]
struct Seen {
    turns: u64,
    ends: u64,
    seeks: u64,
    flushes: u64,
    compactions: u64,
    longest: usize,
}

impl Run {
    fn new(seed: u64, seen: Seen) -> Run {
        let mut random = Random::new(seed);
        let keys = [Keys::Short, Keys::Long, Keys::Few][seed as usize % 3];
        let compression =
            if random.below(3) == 0 { Compression::Lz4 } else { Compression::default() };
        let options = Options { compression, ..tiny_options() };
        let store = Store::open(Arc::new(MemoryVfs::new()), DIR.as_ref(), options).unwrap();
        let (walks, snapshots, views) = (Vec::new(), Vec::new(), Vec::new());
        Run { random, keys, store, model: Model::new(), walks, snapshots, views, seen }
    }

    fn key(&mut self) -> Bytes {
        const ENDS: [u8; 6] = [0, 1, b'k', b'l', 0xFE, 0xFF];
        match self.keys {
            Keys::Short => {
                let length = self.random.below(4);
                (0..length).map(|_| ENDS[self.random.below(6) as usize]).collect()
            }
            Keys::Long => {
                let stem = ["a common beginning, ", "a common beginning, and more: ", "b"];
                let stem = stem[self.random.below(8).min(2) as usize % 3];
                Bytes::from(format!("{stem}{:03}", self.random.below(200)))
            }
            Keys::Few => Bytes::from(format!("key{}", self.random.below(6))),
        }
    }

    fn write(&mut self) {
        let mut batch = Batch::new();
        for _ in 0..=self.random.below(6) {
            let key = self.key();
            if self.random.below(3) == 0 {
                batch.delete(key.clone());
                self.model.remove(&key);
            } else {
                let bytes = self.random.below(40) as usize;
                let value = Bytes::from(vec![self.random.below(256) as u8; bytes]);
                batch.put(key.clone(), value.clone());
                self.model.insert(key, value);
            }
        }
        self.store.write(batch, Durability::Buffered).unwrap();
    }

    fn range(&mut self) -> KeyRange {
        let mut bound = || match self.random.below(3) {
            0 => Bound::Unbounded,
            1 => Bound::Included(self.key()),
            _ => Bound::Excluded(self.key()),
        };
        let (from, to) = (bound(), bound());
        match self.random.below(6) {
            0 => KeyRange::all(),
            1 => {
                let key = self.key();
                KeyRange::prefix(&key[..key.len().min(1 + key.len() / 2)])
            }
            _ => KeyRange { from, to },
        }
    }

    /// Begins a walk over what there is now, or over what there was.
    fn begin(&mut self) {
        let range = self.range();
        let held = self.random.below(8) as usize;
        let (cursor, model) = match self.random.below(3) {
            0 if held < self.snapshots.len() => {
                let (snapshot, model) = &self.snapshots[held];
                (snapshot.cursor(range.clone()), model)
            }
            1 if held < self.views.len() => {
                let (view, model) = &self.views[held];
                (view.cursor(range.clone()), model)
            }
            _ => (self.store.cursor(range.clone()), &self.model),
        };
        let expected = Expected::new(model, &range);
        self.seen.longest = self.seen.longest.max(expected.entries.len());
        let walk = Walk { cursor, expected, range, last_step: None };
        let place = self.random.below(4) as usize;
        if self.walks.len() < 4 { self.walks.push(walk) } else { self.walks[place] = walk }
    }

    /// Some steps of one of the walks, more of them on than back.
    fn go(&mut self) {
        if self.walks.is_empty() {
            return;
        }
        let index = self.random.below(self.walks.len() as u64) as usize;
        let (key, steps) = (self.key(), self.random.below(20));
        let (seen, random) = (&mut self.seen, &mut self.random);
        let Walk { cursor, expected, range, last_step } = &mut self.walks[index];
        let mut check = |what: &str, answer: Result<Option<Entry<'_>>>, expected: &Expected| {
            assert_eq!(answer.unwrap(), expected.entry(), "{what} in {range:?}");
            seen.ends += u64::from(expected.entry().is_none());
        };
        match random.below(6) {
            0 => {
                expected.seek(&key);
                check("seek", cursor.seek(&key), expected);
                seen.seeks += 1;
                *last_step = Some(Direction::Forwards);
            }
            1 => {
                expected.seek_back(&key);
                check("seek back", cursor.seek_back(&key), expected);
                *last_step = Some(Direction::Backwards);
            }
            2 if steps == 0 => {
                expected.up_to(0);
                check("first", cursor.first(), expected);
            }
            2 if steps == 1 => {
                expected.down_to(expected.entries.len().checked_sub(1));
                check("last", cursor.last(), expected);
            }
            choice => {
                for _ in 0..steps {
                    let forwards = (random.below(8) == 0) != (choice % 2 == 0);
                    let direction =
                        if forwards { Direction::Forwards } else { Direction::Backwards };
                    if last_step.replace(direction).is_some_and(|last| last != direction) {
                        self.seen.turns += u64::from(expected.entry().is_some());
                    }
                    let answer = match direction {
                        Direction::Forwards => {
                            expected.next();
                            cursor.next()
                        }
                        Direction::Backwards => {
                            expected.previous();
                            cursor.previous()
                        }
                    };
                    let context = || format!("{direction:?} in {range:?}");
                    assert_eq!(answer.unwrap(), expected.entry(), "{}", context());
                }
            }
        }
        assert_eq!(cursor.entry(), expected.entry());
        assert_eq!(cursor.value().as_deref(), expected.entry().map(|(_, value)| value));
    }

    /// What is lent and what is given away are the same, and what a look-up finds.
    fn check_reads(&mut self) {
        let range = self.range();
        let mut expected = Expected::new(&self.model, &range).entries;
        for direction in [Direction::Forwards, Direction::Backwards] {
            let scan = self.store.scan(range.clone(), direction).unwrap();
            assert_eq!(scan.map(Result::unwrap).collect::<Vec<_>>(), expected, "{range:?}");
            let mut scan = self.store.scan(range.clone(), direction).unwrap();
            for (key, value) in &expected {
                assert_eq!(scan.advance().unwrap(), Some((&key[..], &value[..])), "{range:?}");
            }
            assert_eq!(scan.advance().unwrap(), None, "{range:?}");
            assert_eq!(scan.advance().unwrap(), None, "{range:?}");
            expected.reverse();
        }
        let key = self.key();
        let found = |answer: Result<Option<Vec<u8>>>| answer.unwrap();
        let value = |model: &Model| model.get(&key).map(|value| value.to_vec());
        assert_eq!(found(self.store.get_with(&key, <[u8]>::to_vec)), value(&self.model));
        for (snapshot, model) in &self.snapshots {
            assert_eq!(found(snapshot.get_with(&key, <[u8]>::to_vec)), value(model));
        }
        for (view, model) in &self.views {
            assert_eq!(found(view.get_with(&key, <[u8]>::to_vec)), value(model));
            assert_eq!(view.get(&key).unwrap(), model.get(&key).cloned());
            let all: Model =
                view.scan(.., Direction::Backwards).unwrap().map(Result::unwrap).collect();
            assert_eq!(&all, model);
        }
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..40 => self.write(),
            40..80 => self.go(),
            80..88 => self.begin(),
            88..91 => self.check_reads(),
            91..95 => {
                self.store.maintain().unwrap();
            }
            95 => self.store.flush().unwrap(),
            96 => self.store.compact().unwrap(),
            97 => {
                let place = self.random.below(4) as usize;
                let snapshot = (self.store.snapshot(), self.model.clone());
                if self.snapshots.len() < 4 {
                    self.snapshots.push(snapshot);
                } else {
                    self.snapshots[place] = snapshot;
                }
            }
            98 => {
                let view = (self.store.read_view(), self.model.clone());
                if self.views.len() == 3 {
                    self.views.remove(0);
                }
                self.views.push(view);
            }
            _ => {
                self.snapshots.pop();
            }
        }
    }
}

#[test]
fn cursors_behave_like_a_map_of_their_moment() {
    let mut seen = Seen::default();
    for seed in 0..60 {
        let mut run = Run::new(seed, seen);
        for _ in 0..800 {
            run.step();
        }
        seen = run.seen;
        let stats = run.store.stats();
        seen.flushes += stats.flushes;
        seen.compactions += stats.compactions;
    }
    println!("{seen:?}");
    assert!(seen.turns > 5_000 && seen.ends > 1_000 && seen.seeks > 1_000, "{seen:?}");
    assert!(seen.flushes > 500 && seen.compactions > 100 && seen.longest > 60, "{seen:?}");
}

#[test]
fn what_reads_can_go_to_another_thread() {
    fn check<T: Send>() {}
    check::<kvorum_storage::Scan>();
    check::<Cursor>();
    check::<Snapshot>();
    check::<ReadView>();
}

/// A store with `versions` versions of each of some keys, half of them newer than a snapshot and
/// the last of it a delete.
#[test]
fn many_versions_are_passed_both_ways() {
    for versions in [1, 7, 8, 9, 30, 300] {
        for flushed in [false, true] {
            let vfs = Arc::new(MemoryVfs::new());
            let options = Options { memtable_bytes: 1 << 20, ..tiny_options() };
            let store = Store::open(vfs, DIR.as_ref(), options).unwrap();
            let mut snapshots = Vec::new();
            for version in 0..versions {
                let mut batch = Batch::new();
                for key in ["a", "b", "b and more", "c"] {
                    batch.put(key, format!("{key} {version}"));
                }
                if version % 10 == 9 {
                    batch.delete("b");
                }
                store.write(batch, Durability::Buffered).unwrap();
                snapshots.push((version, store.snapshot()));
            }
            if flushed {
                store.flush().unwrap();
            }
            for (version, snapshot) in &snapshots {
                let keys = match version % 10 {
                    9 => vec!["a", "b and more", "c"],
                    _ => vec!["a", "b", "b and more", "c"],
                };
                let mut expected: Vec<_> =
                    keys.iter().map(|key| (key.to_string(), format!("{key} {version}"))).collect();
                for direction in [Direction::Forwards, Direction::Backwards] {
                    let mut scan = snapshot.scan(.., direction).unwrap();
                    for (key, value) in &expected {
                        let entry = scan.advance().unwrap();
                        assert_eq!(entry, Some((key.as_bytes(), value.as_bytes())));
                    }
                    assert_eq!(scan.advance().unwrap(), None);
                    expected.reverse();
                }
            }
        }
    }
}

fn turn_over(disk: &MemoryVfs, path: &Path, part: u64) {
    let len = disk.open(path, OpenMode::Read).unwrap().map().unwrap().len() as u64;
    disk.flip(path, len * part / 100, 1).unwrap();
}

#[test]
fn a_corrupt_block_in_the_middle_ends_the_walk_there_and_only_there() {
    let disk = MemoryVfs::new();
    let options = Options { memtable_bytes: 1 << 20, ..tiny_options() };
    let store = Store::open(Arc::new(disk.clone()), DIR.as_ref(), options.clone()).unwrap();
    let key = |number: u32| format!("key{number:04}");
    for number in 0..1000 {
        store.put(key(number), key(number), Durability::Buffered).unwrap();
    }
    store.flush().unwrap();
    drop(store);
    let is_segment = |path: &&std::path::PathBuf| path.extension().is_some_and(|e| e == "segment");
    let files = disk.files();
    let [path] = files.iter().filter(is_segment).collect::<Vec<_>>()[..] else {
        panic!("one segment in {files:?}")
    };
    turn_over(&disk, path, 40);
    let store = Store::open(Arc::new(disk.clone()), DIR.as_ref(), options).unwrap();
    let is_corrupt = |error: &Error| matches!(error, Error::Corrupt { file, .. } if file == path);

    for direction in [Direction::Forwards, Direction::Backwards] {
        let mut scan = store.scan(.., direction).unwrap();
        let mut count = 0;
        let error = loop {
            match scan.next() {
                Some(Ok((at, _))) => {
                    let number = if direction == Direction::Forwards { count } else { 999 - count };
                    assert_eq!(at, key(number));
                    count += 1;
                }
                Some(Err(error)) => break error,
                None => panic!("the damage was passed over"),
            }
        };
        assert!(is_corrupt(&error), "{error}");
        assert!(count > 100, "{count} entries before the damage, {direction:?}");
        assert!(scan.next().is_none() && scan.advance().unwrap().is_none(), "it has ended");
    }

    let mut cursor = store.cursor(..);
    let mut good = 0;
    let error = loop {
        match cursor.next() {
            Ok(entry) => good += u32::from(entry.is_some()),
            Err(error) => break error,
        }
    };
    assert!(is_corrupt(&error), "{error}");
    assert_eq!(cursor.entry(), None);
    assert_eq!(cursor.next().unwrap(), None, "it goes nowhere");
    assert_eq!(cursor.previous().unwrap(), None, "it goes nowhere");
    // But it can be sent behind the damage, or before it.
    assert_eq!(cursor.seek(key(900).as_bytes()).unwrap().unwrap().0, key(900).as_bytes());
    assert_eq!(cursor.next().unwrap().unwrap().0, key(901).as_bytes());
    let before = key(good / 2);
    assert_eq!(cursor.seek_back(before.as_bytes()).unwrap().unwrap().0, before.as_bytes());
    assert!(is_corrupt(&cursor.seek(key(good).as_bytes()).unwrap_err()));
}
