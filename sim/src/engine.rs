//! A store by itself against what it should hold: writes, reads, snapshots, background work,
//! crashes in the middle of any of it, and bits that rot.
//!
//! A cluster asks little of its engines: it reads the newest state, and has other copies. Here
//! everything is asked of one engine, with a model beside it, on the same virtual disk.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use bytes::Bytes;
use kvorum_storage::{Batch, Direction, Durability, Error, LogOptions, Options, Snapshot, Store};

use crate::chance::Chance;
use crate::disk::{Crash, Disk};
use crate::faults::{Counts, Fault};
use crate::planted::Planted;
use crate::violation::{Promise, Violation};
use crate::{Run, Setup, words_of};

const DIR: &str = "/store";

/// How often a store is opened in a run.
const LIVES: u64 = 8;

const SNAPSHOTS_MAX: usize = 3;

type Contents = BTreeMap<Bytes, Bytes>;
type Judgement = Result<(), Violation>;

/// Runs one store through some lives.
#[must_use]
pub fn simulate(setup: &Setup) -> Run {
    let mut engine = Engine::new(setup);
    let lived = catch_unwind(AssertUnwindSafe(|| engine.live()));
    let violation = match lived {
        Ok(judgement) => judgement.err(),
        Err(panic) => {
            let what = format!("the store panicked: {}", words_of(&*panic));
            Some(Violation { promise: Promise::NoPanic, what })
        }
    };
    Run { violation, faults: engine.counts, ..Run::empty(setup.seed) }
}

struct Engine {
    chance: Chance,
    planted: Planted,
    disk: Disk,
    counts: Counts,
    sizes: Sizes,
    /// What the store holds after each batch, the empty store first.
    history: Vec<Contents>,
    /// So many batches must be there after a crash.
    durable: usize,
}

#[derive(Clone, Copy, Debug)]
struct Sizes {
    keys: u64,
    /// Bytes of a value; if there is no limit they differ much.
    value_bytes: Option<u64>,
    log_file_bytes: u64,
    memtable_bytes: usize,
    /// What is done with an open store, at most. Of short lives one begins where the torn end of
    /// the one before it still is.
    steps_max: u64,
    /// One write in so many waits until it is durable.
    one_synced_in: u64,
}

impl Engine {
    fn new(setup: &Setup) -> Self {
        let mut chance = Chance::new(setup.seed, "engine");
        let sizes = Sizes {
            keys: *chance.pick(&[3, 20, 60]),
            // Of batches that are all alike the log's frames stand where others stood before.
            value_bytes: *chance.pick(&[None, Some(25), Some(65)]),
            log_file_bytes: *chance.pick(&[2 << 10, 16 << 10]),
            memtable_bytes: *chance.pick(&[1 << 10, 4 << 10]),
            steps_max: *chance.pick(&[12, 120]),
            one_synced_in: *chance.pick(&[2, 15]),
        };
        Self {
            chance,
            planted: setup.planted,
            disk: Disk::new(),
            counts: Counts::default(),
            sizes,
            history: vec![Contents::new()],
            durable: 0,
        }
    }

    fn options(&self) -> Options {
        Options {
            memtable_bytes: self.sizes.memtable_bytes,
            memtables_max: 2,
            block_bytes: 128,
            segment_bytes: 1 << 10,
            level0_segments: 2,
            level0_segments_slow: 6,
            level0_segments_stop: 6,
            level1_bytes: 3 << 10,
            level_step: 2,
            log_bytes_max: 8 << 10,
            log: LogOptions {
                file_bytes: self.sizes.log_file_bytes,
                planted: self.planted.storage,
                ..LogOptions::default()
            },
            planted: self.planted.storage,
            ..Options::default()
        }
    }

    fn live(&mut self) -> Judgement {
        for _ in 0..LIVES {
            let store = self.open()?;
            let Some(store) = store else { continue };
            if self.chance.one_in(2) {
                let (names, after) = (self.chance.below(12), self.chance.below(12));
                let crash = self.crash();
                self.disk.doom_after_names(names, after, crash);
            }
            let mut life = Life { store, snapshots: Vec::new() };
            let died = self.spend(&mut life)?;
            self.disk.spare();
            if died {
                continue;
            }
            if self.chance.one_in(2) {
                let crash = self.crash();
                let fault = self.disk.crash(crash);
                self.counts.count(fault);
                continue;
            }
            drop(life);
            self.rot()?;
        }
        Ok(())
    }

    fn crash(&mut self) -> Crash {
        match self.chance.below(4) {
            0 => Crash::Kill,
            1 => Crash::PowerLoss,
            _ => Crash::Torn { seed: self.chance.number() },
        }
    }

    /// Opens the store and looks at what it holds; none if it died over that.
    fn open(&mut self) -> Result<Option<Store>, Violation> {
        if self.chance.one_in(4) {
            let (after, crash) = (self.chance.below(10), self.crash());
            self.disk.doom(after, crash);
        }
        let opened = Store::open(self.disk.vfs(), Path::new(DIR), self.options());
        if self.died() {
            return Ok(None);
        }
        self.disk.spare();
        let store =
            opened.map_err(|error| broken(Promise::StaysUp, format!("reopened: {error}")))?;
        let held = contents(&store).map_err(unreadable)?;
        let written = self.history.len() - 1;
        let found = (self.durable..=written).rev().find(|&count| self.history[count] == held);
        let Some(found) = found else {
            let what = format!(
                "after a crash the store holds none of the states from batch {} to {written}",
                self.durable
            );
            return Err(broken(Promise::Remembers, what));
        };
        self.history.truncate(found + 1);
        self.durable = found;
        Ok(Some(store))
    }

    /// Whether a planned crash has come.
    fn died(&mut self) -> bool {
        let Some(fault) = self.disk.take_doom() else { return false };
        self.counts.count(fault);
        self.counts.count(Fault::DiedWriting);
        true
    }

    /// Lets things happen to an open store until it dies, or there was enough of it.
    fn spend(&mut self, life: &mut Life) -> Result<bool, Violation> {
        for _ in 0..self.chance.below(self.sizes.steps_max) {
            if self.step(life)?.is_break() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn step(&mut self, life: &mut Life) -> Result<ControlFlow<()>, Violation> {
        let mut synced = None;
        let done = match self.chance.below(100) {
            0..55 => {
                let batch = self.batch();
                let durability = match self.chance.one_in(self.sizes.one_synced_in) {
                    true => Durability::Sync,
                    false => Durability::Buffered,
                };
                synced = (durability == Durability::Sync).then_some(self.history.len() - 1);
                life.store.write(batch, durability).map(drop)
            }
            55..75 => life.store.maintain().map(drop),
            75..78 => life.store.flush(),
            78 => life.store.compact(),
            79..84 => {
                if life.snapshots.len() == SNAPSHOTS_MAX {
                    let index = self.chance.index(SNAPSHOTS_MAX);
                    life.snapshots.swap_remove(index);
                }
                life.snapshots.push((life.store.snapshot(), self.history.len() - 1));
                Ok(())
            }
            _ => return self.read(life).map(ControlFlow::Continue),
        };
        if self.died() {
            return Ok(ControlFlow::Break(()));
        }
        done.map_err(|error| broken(Promise::StaysUp, format!("on a sound disk: {error}")))?;
        self.durable = synced.map_or(self.durable, |count| count.max(self.durable));
        Ok(ControlFlow::Continue(()))
    }

    /// A batch, whose effect is noted as if it were written already.
    fn batch(&mut self) -> Batch {
        let mut batch = Batch::new();
        let mut contents = self.history.last().cloned().unwrap_or_default();
        let number = self.history.len();
        let operations =
            if self.sizes.value_bytes.is_some() { 1 } else { self.chance.between(1, 3) };
        for _ in 0..operations {
            let key = Bytes::from(format!("k{:02}", self.chance.below(self.sizes.keys)));
            if self.sizes.value_bytes.is_none() && self.chance.one_in(4) {
                batch.delete(key.clone());
                contents.remove(&key);
                continue;
            }
            let length = self.sizes.value_bytes.unwrap_or_else(|| *self.chance.pick(&[0, 30, 300]));
            let length = usize::try_from(length).unwrap_or(0);
            let value = Bytes::from(format!("{number:06}{:.<length$}", ""));
            batch.put(key.clone(), value.clone());
            contents.insert(key, value);
        }
        self.history.push(contents);
        batch
    }

    /// Reads everything there is: by key, by scan, and through the snapshots.
    fn read(&mut self, life: &Life) -> Judgement {
        let now = &self.history[self.history.len() - 1];
        let held = contents(&life.store).map_err(unreadable)?;
        same("a scan", &held, now)?;
        for number in 0..self.sizes.keys {
            let key = Bytes::from(format!("k{number:02}"));
            let value = life.store.get(&key).map_err(unreadable)?;
            same_value("a read", &key, value.as_ref(), now)?;
            for (snapshot, count) in &life.snapshots {
                let value = snapshot.get(&key).map_err(unreadable)?;
                same_value("a snapshot", &key, value.as_ref(), &self.history[*count])?;
            }
        }
        for (snapshot, count) in &life.snapshots {
            let rows = snapshot.scan(.., Direction::Forwards).map_err(unreadable)?;
            let held = rows.collect::<Result<_, _>>().map_err(unreadable)?;
            same("a snapshot's scan", &held, &self.history[*count])?;
        }
        Ok(())
    }

    /// Turns a bit over in a file of a copy of the store, which is closed: nothing wrong may be read
    /// from it.
    fn rot(&mut self) -> Judgement {
        let image = self.disk.copy();
        let mut segments = image.files();
        segments.retain(|file| file.extension().is_some_and(|it| it == "segment"));
        if segments.is_empty() {
            return Ok(());
        }
        let mask = 1 << self.chance.below(8);
        let (file, place) = (self.chance.pick(&segments).clone(), self.chance.number());
        image.flip(&file, place, mask);
        // What refuses to open serves nothing wrong.
        let Ok(store) = Store::open(image.vfs(), Path::new(DIR), self.options()) else {
            return Ok(());
        };
        let now = &self.history[self.history.len() - 1];
        for number in 0..self.sizes.keys {
            let key = Bytes::from(format!("k{number:02}"));
            if let Ok(value) = store.get(&key) {
                same_value("a read over rot", &key, value.as_ref(), now)?;
            }
        }
        match contents(&store) {
            Ok(held) => same("a scan over rot", &held, now),
            Err(_) => Ok(()),
        }
    }
}

/// A store as long as it is open, and who reads from it.
struct Life {
    store: Store,
    /// Each with how many batches it sees.
    snapshots: Vec<(Snapshot, usize)>,
}

fn contents(store: &Store) -> Result<Contents, Error> {
    store.scan(.., Direction::Forwards)?.collect()
}

fn same(who: &str, held: &Contents, expected: &Contents) -> Judgement {
    let keys = held.keys().chain(expected.keys());
    match keys.into_iter().find(|key| held.get(*key) != expected.get(*key)) {
        None => Ok(()),
        Some(key) => same_value(who, key, held.get(key), expected),
    }
}

fn same_value(who: &str, key: &Bytes, value: Option<&Bytes>, expected: &Contents) -> Judgement {
    let right = expected.get(key);
    if value == right {
        return Ok(());
    }
    let what = format!("{who} finds {value:?} under {key:?}, and it is {right:?}");
    Err(broken(Promise::HoldsBatches, what))
}

fn unreadable(error: Error) -> Violation {
    broken(Promise::StaysUp, format!("unreadable on a sound disk: {error}"))
}

fn broken(promise: Promise, what: String) -> Violation {
    Violation { promise, what }
}
