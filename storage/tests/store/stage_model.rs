//! Staging, sealing and installing among everything else that happens to a store, against a
//! `BTreeMap`; and the same with a crash at every operation that changes the disk. Every seed is a
//! run of its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use bytes::Bytes;
use kvorum_storage::vfs::{CrashMode, FaultyVfs, MemoryVfs, Phase, Vfs};
use kvorum_storage::{Compression, Direction, Maintained, Options, Snapshot};

use crate::replica::{History, Replica, Rows, batch, key, read_snapshot, whole_state};
use crate::support::{Random, tiny_options};

struct Run {
    random: Random,
    options: Options,
    disk: MemoryVfs,
    replica: Replica,
    /// What is being staged, and how much of it already was.
    staging: Option<(Arc<Rows>, usize)>,
    snapshots: Vec<(Snapshot, Arc<Rows>)>,
    seen: Seen,
}

/// What happened in all runs.
#[derive(Debug, Default)]
struct Seen {
    installs: u64,
    flushes: u64,
    compactions: u64,
    log_cuts: u64,
    thrown_away: u64,
    crashes: u64,
    /// With something sealed.
    crashes_sealed: u64,
    old_snapshots_read: u64,
}

impl Run {
    fn new(seed: u64, vfs: Arc<dyn Vfs>, disk: MemoryVfs, seen: Seen) -> Run {
        let mut random = Random::new(seed);
        let mut options = tiny_options();
        if random.below(2) == 0 {
            options.compression = Compression::Lz4;
        }
        let replica = Replica::open(vfs, &options, History::new(), "new");
        Run { random, options, disk, replica, staging: None, snapshots: Vec::new(), seen }
    }

    fn step(&mut self) {
        let Run { random, replica, .. } = self;
        let store = &replica.store;
        match random.below(100) {
            0..40 => {
                let batch = batch(random);
                replica.write(&batch, random).unwrap();
                // What is sealed is no longer ahead: it will not be installed.
                replica.sealed.take_if(|(mark, _)| *mark <= replica.mark);
            }
            40..46 => {
                let key = key(random);
                assert_eq!(store.get(&key).unwrap().as_ref(), replica.rows().get(&key));
            }
            46..60 => drop(store.maintain().unwrap()),
            60..62 => {
                store.flush().unwrap();
                replica.sync().unwrap();
            }
            62 => store.compact().unwrap(),
            63..66 => store.release(store.log().last().next()),
            66..69 => self.snapshots.push((store.snapshot(), replica.rows())),
            69..72 => self.check_snapshots(),
            72..88 => self.stage(),
            88..91 => self.seal(),
            91..97 if replica.sealed.is_some() => {
                replica.install(random).unwrap();
                self.seen.installs += 1;
                replica.check("installed");
            }
            _ => {}
        }
    }

    /// Stages a piece, or begins anew.
    fn stage(&mut self) {
        let Run { random, replica, staging, .. } = self;
        let begins = staging.is_none() || random.below(30) == 0;
        if begins {
            // What waits for its install is mostly let wait.
            if replica.sealed.is_some() && random.below(8) > 0 {
                return;
            }
            self.seen.thrown_away += u64::from(staging.is_some() || replica.sealed.is_some());
            replica.sealed = None;
            *staging = Some((whole_state(random), 0));
        }
        let Some((rows, done)) = staging else { return };
        let count = (random.below(40) as usize).min(rows.len() - *done);
        let piece: Vec<(Bytes, Bytes)> =
            rows.iter().skip(*done).take(count).map(|(k, v)| (k.clone(), v.clone())).collect();
        replica.store.stage(begins, &piece).unwrap();
        *done += count;
        assert_eq!(replica.store.stats().staged_rows, *done as u64);
    }

    fn seal(&mut self) {
        let Some((rows, done)) = self.staging.take() else { return };
        let rest: Vec<(Bytes, Bytes)> =
            rows.iter().skip(done).map(|(k, v)| (k.clone(), v.clone())).collect();
        self.replica.store.stage(false, &rest).unwrap();
        self.replica.seal(rows, &mut self.random).unwrap();
    }

    fn check_snapshots(&mut self) {
        let before = self.replica.store.stats().installs;
        if self.snapshots.is_empty() {
            return;
        }
        let number = self.random.below(self.snapshots.len() as u64) as usize;
        let (snapshot, rows) = self.snapshots.swap_remove(number);
        assert_eq!(read_snapshot(&snapshot), *rows);
        for (key, value) in rows.iter().take(10) {
            assert_eq!(snapshot.get(key).unwrap().as_ref(), Some(value));
        }
        self.seen.old_snapshots_read += u64::from(before > 0);
    }

    fn note(&mut self) {
        let stats = self.replica.store.stats();
        self.seen.flushes += stats.flushes;
        self.seen.compactions += stats.compactions;
        self.seen.log_cuts += stats.log_cuts;
    }

    /// The power fails. What was sealed before is there afterwards.
    fn crash(&mut self) {
        self.note();
        self.seen.crashes += 1;
        self.snapshots.clear();
        self.staging = None;
        let seed = self.random.next();
        let mode = match seed % 3 {
            0 => CrashMode::LoseUnsynced,
            1 => CrashMode::KeepAll,
            _ => CrashMode::Random { seed },
        };
        let (sealed, history) = (self.replica.sealed.take(), Arc::clone(&self.replica.history));
        self.disk = self.disk.crash_image(mode);
        let vfs = Arc::new(self.disk.clone());
        self.replica = Replica::open(vfs, &self.options, history, "after a crash");
        self.replica.go_on();
        if let Some((mark, rows)) = sealed.filter(|(mark, _)| *mark > self.replica.mark) {
            assert_eq!(self.replica.store.sealed_mark(), Some(mark));
            self.replica.sealed = Some((mark, rows));
            self.seen.crashes_sealed += 1;
        }
    }
}

#[test]
fn a_store_with_installs_behaves_like_a_map() {
    let mut seen = Seen::default();
    for seed in 0..40 {
        let disk = MemoryVfs::new();
        let mut run = Run::new(seed, Arc::new(disk.clone()), disk, seen);
        for _ in 0..500 {
            run.step();
            if run.random.below(60) == 0 {
                run.crash();
            }
        }
        run.replica.check("at the end");
        while run.replica.store.maintain().unwrap() != Maintained::Nothing {}
        run.replica.check("all done");
        run.note();
        seen = run.seen;
    }
    println!("{seen:?}");
    assert!(seen.installs > 150 && seen.thrown_away > 50, "{seen:?}");
    assert!(seen.flushes > 400 && seen.compactions > 100 && seen.log_cuts > 30, "{seen:?}");
    assert!(seen.crashes > 200 && seen.crashes_sealed > 40, "{seen:?}");
    assert!(seen.old_snapshots_read > 50, "{seen:?}");
}

/// What crashes came upon.
#[derive(Debug, Default)]
struct Found {
    crashes: AtomicU64,
    /// Something is sealed, and no record says to install it.
    sealed: AtomicU64,
    /// A record says so, and it had not been done.
    decided: AtomicU64,
}

/// What all crashes of a run have in common.
#[derive(Clone)]
struct Crashes {
    options: Options,
    history: Arc<History>,
    found: Arc<Found>,
}

impl Crashes {
    /// What a crash leaves is the rows after some record that was written, and goes on from there:
    /// what is sealed can be installed, or thrown away for something else.
    fn check(&self, image: &MemoryVfs, number: u64, context: &str) {
        let vfs = Arc::new(image.clone());
        let replica = Replica::open(vfs, &self.options, Arc::clone(&self.history), context);
        let store = &replica.store;
        self.found.decided.fetch_add(store.stats().installs, SeqCst);
        let last = store.log().append(16, &[0; 8]).unwrap();
        match store.sealed_mark().filter(|mark| *mark > replica.mark) {
            Some(mark) => {
                self.found.sealed.fetch_add(1, SeqCst);
                if number.is_multiple_of(2) {
                    store.install(mark, last).unwrap();
                    assert_eq!(store.flushed_mark(), mark, "{context}");
                }
            }
            None => {
                let row = (Bytes::from("only"), Bytes::from("row"));
                store.stage(true, std::slice::from_ref(&row)).unwrap();
                store.seal_staged(u64::MAX >> 1).unwrap();
                store.install(u64::MAX >> 1, last).unwrap();
                let rows: Vec<_> =
                    store.scan(.., Direction::Forwards).unwrap().map(Result::unwrap).collect();
                assert_eq!(rows, [row], "{context}");
            }
        }
        if store.sealed_mark().is_some() {
            store.stage(true, &[]).unwrap();
        }
        let report = store.verify().unwrap();
        assert!(report.problems.is_empty(), "{context}: {:?}", report.problems);
        while store.maintain().unwrap() != Maintained::Nothing {}
        let segments: usize = store.stats().levels.iter().map(|level| level.segments).sum();
        let is_segment = |path: &&PathBuf| path.extension().is_some_and(|end| end == "segment");
        assert_eq!(image.files().iter().filter(is_segment).count(), segments, "{context}");
    }

    /// Crashes once more at each change of the disk while a store is opened and what its log says
    /// is done again, installs included.
    fn check_recovery(&self, image: &MemoryVfs, seed: u64, context: &str) {
        let disk = image.crash_image(CrashMode::KeepAll);
        let faulty = FaultyVfs::new(Arc::new(disk.clone()));
        let count = Arc::new(AtomicU64::new(0));
        faulty.on_operation({
            let (crashes, context, count) = (self.clone(), context.to_owned(), Arc::clone(&count));
            move |event| {
                if !event.operation.changes_disk() || std::thread::panicking() {
                    return;
                }
                let number = count.fetch_add(1, SeqCst);
                let mode = CrashMode::Random { seed: seed ^ number << 32 };
                let context = format!("{context}, then at {event:?}");
                crashes.check(&disk.crash_image(mode), number, &context);
            }
        });
        drop(Replica::open(Arc::new(faulty), &self.options, Arc::clone(&self.history), context));
        assert!(count.load(SeqCst) > 0, "opening changes the disk");
    }
}

/// A run with a crash around every change of the disk.
fn crashing_run(seed: u64, found: &Arc<Found>) -> Run {
    let disk = MemoryVfs::new();
    let faulty = FaultyVfs::new(Arc::new(disk.clone()));
    let run = Run::new(seed, Arc::new(faulty.clone()), disk.clone(), Seen::default());
    let crashes = Crashes {
        options: run.options.clone(),
        history: Arc::clone(&run.replica.history),
        found: Arc::clone(found),
    };
    faulty.on_operation(move |event| {
        if !event.operation.changes_disk()
            || event.phase == Phase::Failed
            || std::thread::panicking()
        {
            return;
        }
        let number = crashes.found.crashes.fetch_add(1, SeqCst);
        let mode = match number % 4 {
            0 => CrashMode::LoseUnsynced,
            1 => CrashMode::KeepAll,
            _ => CrashMode::Random { seed: seed ^ number },
        };
        let context = format!("{seed}, crash {number} at {event:?} {mode:?}");
        let image = disk.crash_image(mode);
        if number.is_multiple_of(40) {
            crashes.check_recovery(&image, number, &context);
        }
        crashes.check(&image, number, &context);
    });
    run
}

#[test]
fn a_crash_at_every_operation_leaves_the_old_store_or_the_new_one() {
    let found = Arc::new(Found::default());
    for seed in 100..105 {
        let mut run = crashing_run(seed, &found);
        for _ in 0..250 {
            run.step();
        }
        run.replica.check("at the end");
    }
    println!("{found:?}");
    assert!(found.crashes.load(SeqCst) > 4000, "{found:?}");
}

/// The same, with hardly anything but installs.
#[test]
fn a_crash_at_every_operation_of_an_install_leaves_the_old_store_or_the_new_one() {
    let (found, mut installs) = (Arc::new(Found::default()), 0);
    for seed in 200..204 {
        let mut run = crashing_run(seed, &found);
        for _ in 0..8 {
            for _ in 0..run.random.below(12) {
                let batch = batch(&mut run.random);
                run.replica.write(&batch, &mut run.random).unwrap();
            }
            run.staging = None;
            while run.staging.as_ref().is_none_or(|(rows, done)| *done < rows.len()) {
                run.stage();
            }
            run.seal();
            run.replica.install(&mut run.random).unwrap();
            run.replica.check("installed");
            run.replica.store.maintain().unwrap();
            installs += 1;
        }
    }
    println!("{installs} installs, {found:?}");
    let [sealed, decided] = [&found.sealed, &found.decided].map(|count| count.load(SeqCst));
    assert!(sealed > 100 && decided > 100, "{found:?}");
}
