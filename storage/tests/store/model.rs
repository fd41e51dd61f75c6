//! The store against a `BTreeMap`: random operations, flushes, compactions, snapshots, scans both
//! ways, clean reopenings and crashes. Options are tiny, so that a short run passes through all
//! levels. Every seed is a run of its own and can be run again alone.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use kvorum_storage::vfs::{CrashMode, MemoryVfs};
use kvorum_storage::{
    Batch, Compression, Direction, Durability, KeyRange, Maintained, Options, Snapshot, Store,
};

use crate::support::{DIR, Random, tiny_options};

type Model = BTreeMap<Bytes, Bytes>;

/// One run.
struct Run {
    random: Random,
    vfs: MemoryVfs,
    options: Options,
    store: Store,
    model: Model,
    snapshots: Vec<(Snapshot, Model)>,
    seen: Seen,
}

/// What happened in all runs: a run in which nothing happens proves nothing.
#[derive(Debug, Default)]
struct Seen {
    flushes: u64,
    compactions: u64,
    moves: u64,
    log_cuts: u64,
    deepest: usize,
    crashes: u64,
    reopenings: u64,
    snapshot_reads: u64,
}

impl Run {
    fn new(seed: u64, seen: Seen) -> Run {
        let mut random = Random::new(seed);
        let mut options = tiny_options();
        if random.below(2) == 0 {
            options.compression = Compression::Lz4;
        }
        let vfs = MemoryVfs::new();
        let store = Store::open(Arc::new(vfs.clone()), DIR.as_ref(), options.clone()).unwrap();
        Run { random, vfs, options, store, model: Model::new(), snapshots: Vec::new(), seen }
    }

    fn key(&mut self) -> Bytes {
        // Few keys, so that versions pile up, some the prefix of others.
        let number = self.random.below(150);
        let stem = format!("key{number:03}");
        let length = 4 + self.random.below(3) as usize;
        Bytes::copy_from_slice(&stem.as_bytes()[..length.min(stem.len())])
    }

    fn value(&mut self) -> Bytes {
        let bytes = if self.random.below(20) == 0 { 600 } else { self.random.below(40) };
        let first = self.random.below(256) as u8;
        (0..bytes).map(|index| first.wrapping_add(index as u8)).collect::<Vec<u8>>().into()
    }

    fn write(&mut self) {
        let mut batch = Batch::new();
        for _ in 0..=self.random.below(4) {
            let key = self.key();
            if self.random.below(3) == 0 {
                batch.delete(key.clone());
                self.model.remove(&key);
            } else {
                let value = self.value();
                batch.put(key.clone(), value.clone());
                self.model.insert(key, value);
            }
        }
        let durability =
            if self.random.below(4) == 0 { Durability::Buffered } else { Durability::Sync };
        self.store.write(batch, durability).unwrap();
    }

    fn range(&mut self) -> KeyRange {
        if self.random.below(4) == 0 {
            let key = self.key();
            return KeyRange::prefix(&key[..key.len() - 1]);
        }
        let mut bound = || match self.random.below(3) {
            0 => Bound::Unbounded,
            1 => Bound::Included(self.key()),
            _ => Bound::Excluded(self.key()),
        };
        KeyRange { from: bound(), to: bound() }
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..60 => self.write(),
            60..75 => {
                let key = self.key();
                assert_eq!(self.store.get(&key).unwrap(), self.model.get(&key).cloned());
            }
            75..80 => self.check_scans(),
            80..90 => {
                self.store.maintain().unwrap();
            }
            90..92 => self.store.flush().unwrap(),
            92 => self.store.compact().unwrap(),
            93..95 => {
                self.snapshots.push((self.store.snapshot(), self.model.clone()));
            }
            95..97 => {
                if !self.snapshots.is_empty() {
                    let index = self.random.below(self.snapshots.len() as u64) as usize;
                    self.snapshots.swap_remove(index);
                }
            }
            97 => self.reopen(None),
            _ => {
                // A power cut keeps what was synced: make that everything, so that the model is.
                let last = self.store.log().last();
                self.store.log().sync(last).unwrap();
                let seed = self.random.next();
                let mode = match seed % 3 {
                    0 => CrashMode::LoseUnsynced,
                    1 => CrashMode::KeepAll,
                    _ => CrashMode::Random { seed },
                };
                self.reopen(Some(mode));
            }
        }
    }

    fn reopen(&mut self, crash: Option<CrashMode>) {
        self.snapshots.clear();
        self.note();
        match crash {
            Some(mode) => {
                self.vfs = self.vfs.crash_image(mode);
                self.seen.crashes += 1;
            }
            None => {
                // The lock is let go with the last handle: an empty disk takes the store's place.
                let nowhere = Arc::new(MemoryVfs::new());
                self.store = Store::open(nowhere, DIR.as_ref(), self.options.clone()).unwrap();
                self.seen.reopenings += 1;
            }
        }
        let vfs = Arc::new(self.vfs.clone());
        self.store = Store::open(vfs, DIR.as_ref(), self.options.clone()).unwrap();
        self.check_all();
    }

    fn check_scans(&mut self) {
        let range = self.range();
        check_scan(&self.model, &range, |direction| {
            self.store.scan(range.clone(), direction).unwrap().map(Result::unwrap).collect()
        });
        if let Some((snapshot, model)) = self.snapshots.first() {
            check_scan(model, &range, |direction| {
                snapshot.scan(range.clone(), direction).unwrap().map(Result::unwrap).collect()
            });
            for (key, value) in model.iter().take(20) {
                assert_eq!(snapshot.get(key).unwrap().as_ref(), Some(value));
            }
            self.seen.snapshot_reads += 1;
        }
    }

    fn check_all(&mut self) {
        let entries: Vec<(Bytes, Bytes)> =
            self.store.scan(.., Direction::Forwards).unwrap().map(Result::unwrap).collect();
        let expected: Vec<(Bytes, Bytes)> =
            self.model.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        assert_eq!(entries, expected);
        let report = self.store.verify().unwrap();
        assert!(report.problems.is_empty(), "{:?}", report.problems);
    }

    fn note(&mut self) {
        let stats = self.store.stats();
        self.seen.flushes += stats.flushes;
        self.seen.compactions += stats.compactions;
        self.seen.moves += stats.moves;
        self.seen.log_cuts += stats.log_cuts;
        let deepest = stats.levels.iter().rposition(|level| level.segments > 0);
        self.seen.deepest = self.seen.deepest.max(deepest.unwrap_or(0));
    }
}

fn check_scan(model: &Model, range: &KeyRange, scan: impl Fn(Direction) -> Vec<(Bytes, Bytes)>) {
    let from = |key: &Bytes| match &range.from {
        Bound::Included(from) => key >= from,
        Bound::Excluded(from) => key > from,
        Bound::Unbounded => true,
    };
    let to = |key: &Bytes| match &range.to {
        Bound::Included(to) => key <= to,
        Bound::Excluded(to) => key < to,
        Bound::Unbounded => true,
    };
    let mut expected: Vec<(Bytes, Bytes)> = model
        .iter()
        .filter(|(key, _)| from(key) && to(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    assert_eq!(scan(Direction::Forwards), expected, "{range:?}");
    expected.reverse();
    assert_eq!(scan(Direction::Backwards), expected, "{range:?}");
}

#[test]
fn the_store_behaves_like_a_map() {
    let mut seen = Seen::default();
    for seed in 0..60 {
        let mut run = Run::new(seed, seen);
        for _ in 0..400 {
            run.step();
        }
        run.check_all();
        while run.store.maintain().unwrap() != Maintained::Nothing {}
        run.check_all();
        run.note();
        seen = run.seen;
    }
    println!("{seen:?}");
    assert!(seen.flushes > 500 && seen.compactions > 200 && seen.moves > 0, "{seen:?}");
    assert!(seen.log_cuts > 50 && seen.deepest >= 3, "{seen:?}");
    assert!(seen.crashes > 100 && seen.reopenings > 50 && seen.snapshot_reads > 50, "{seen:?}");
}
