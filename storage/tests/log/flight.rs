//! Several frames on their way at once: any of them may be on the disk after a crash, and what is
//! acknowledged is an unbroken beginning.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use kvorum_storage::Error;
use kvorum_storage::log::{Log, LogOptions, Position};
use kvorum_storage::vfs::{
    CrashMode, Event, Fault, FaultyVfs, MemoryVfs, Operation, Outcome, Phase,
};

use crate::fixture::{
    DIR, append, disks, is_corrupt, live_files, open, open_with, options, payload, put,
};

/// Holds operations on log files until they are let go.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<GateState>, Condvar)>);

#[derive(Default)]
struct GateState {
    /// How many of these are held; none if it is open.
    holds: Option<(Operation, usize)>,
    held: usize,
}

impl Gate {
    fn on(vfs: &FaultyVfs) -> Self {
        let gate = Self::default();
        let hook = gate.clone();
        vfs.on_operation(move |event| hook.pass(event));
        gate
    }

    fn pass(&self, event: &Event<'_>) {
        let (state, changed) = &*self.0;
        let mut state = state.lock().unwrap();
        let Some((operation, holds)) = state.holds else { return };
        if event.operation != operation || event.phase != Phase::Before || state.held >= holds {
            return;
        }
        state.held += 1;
        changed.notify_all();
        drop(changed.wait_while(state, |state| state.holds.is_some()).unwrap());
    }

    /// From now on holds the next so many of these.
    fn hold(&self, operation: Operation, count: usize) {
        *self.0.0.lock().unwrap() = GateState { holds: Some((operation, count)), held: 0 };
    }

    /// Returns once so many are held.
    fn wait_held(&self, count: usize) {
        let (state, changed) = &*self.0;
        drop(changed.wait_while(state.lock().unwrap(), |state| state.held < count).unwrap());
    }

    fn open(&self) {
        self.0.0.lock().unwrap().holds = None;
        self.0.1.notify_all();
    }
}

/// A log with one durable record, on a disk whose operations can be held.
fn gated(memory: &MemoryVfs) -> (FaultyVfs, Gate, Log) {
    let vfs = FaultyVfs::new(Arc::new(memory.clone()));
    let (log, _) = open_with(&vfs, huge()).unwrap();
    put(&log, &payload(1, 100)).unwrap();
    let gate = Gate::on(&vfs);
    (vfs, gate, log)
}

/// Files with room for all records of a test.
fn huge() -> LogOptions {
    LogOptions { file_bytes: 1 << 20, ..options() }
}

fn records(count: u64) -> Vec<Vec<u8>> {
    (1..=count).map(|number| payload(number, 700)).collect()
}

/// Opens what a crash has left, twice, with a record added and another crash between; what there was
/// at first.
fn recovered(image: &MemoryVfs) -> (Vec<Vec<u8>>, bool) {
    let (log, first) = open_with(image, huge()).unwrap();
    let mut expected = first.records.clone();
    expected.push(payload(99, 650));
    put(&log, &payload(99, 650)).unwrap();
    for mode in [CrashMode::LoseUnsynced, CrashMode::Random { seed: 5 }] {
        let (_log, again) = open_with(&image.crash_image(mode), huge()).unwrap();
        assert_eq!(again.records, expected);
    }
    (first.records, first.report.torn.is_some())
}

#[test]
fn any_of_the_frames_in_flight_may_be_there() {
    let memory = MemoryVfs::new().with_direct(Some(512));
    let (_vfs, gate, log) = gated(&memory);
    let expected = {
        let mut expected = vec![payload(1, 100)];
        expected.extend(records(4));
        expected
    };
    gate.hold(Operation::Sync, 2);
    let mut seen = [0; 5];
    let mut torn = 0;
    thread::scope(|scope| {
        for turn in 0..2 {
            for record in &records(4)[2 * turn..2 * turn + 2] {
                append(&log, record).unwrap();
            }
            let last = log.last();
            let log = &log;
            scope.spawn(move || log.sync(last).unwrap());
            gate.wait_held(turn + 1);
        }
        assert_eq!((log.durable(), log.stats().frames), (Position(1), 3), "both are written");
        for seed in 0..400 {
            let image = memory.crash_image(CrashMode::Random { seed });
            let (records, is_torn) = recovered(&image);
            assert_eq!(records, expected[..records.len()], "seed {seed}");
            assert!([1, 3, 5].contains(&records.len()), "a frame is whole or not there");
            seen[records.len() - 1] += 1;
            torn += usize::from(is_torn);
        }
        gate.open();
    });
    assert!(seen[0] > 20 && seen[2] > 20 && seen[4] > 20, "{seen:?}");
    assert!(torn > 100, "{torn}");
    assert_eq!(log.durable(), Position(5));
    assert_eq!(recovered(&memory.crash_image(CrashMode::LoseUnsynced)).0, expected);
}

/// Of two syncs at once one fails; the system may have told nobody but that one, though the other
/// wrote part of what is lost.
#[test]
fn a_sync_that_ends_after_another_has_failed_counts_for_nothing() {
    let memory = MemoryVfs::new().with_direct(Some(512));
    let (vfs, gate, log) = gated(&memory);
    gate.hold(Operation::Sync, 1);
    thread::scope(|scope| {
        let first = append(&log, b"first").unwrap();
        let (log, held) = (&log, &gate);
        let first = scope.spawn(move || log.sync(first));
        held.wait_held(1);
        let fault = vfs.arm(Fault::once(Operation::Sync, Outcome::InputOutput));
        let second = append(log, b"second").unwrap();
        assert!(matches!(log.sync(second), Err(Error::Io { .. })));
        assert_eq!(fault.fired(), 1);
        gate.open();
        assert!(matches!(first.join().unwrap(), Err(Error::Poisoned { .. })));
    });
    assert_eq!(log.durable(), Position(1));
}

/// The second frame is on the disk, synced and all, and the first is not written yet.
#[test]
fn what_is_durable_behind_a_gap_is_not_acknowledged() {
    let memory = MemoryVfs::new();
    let (_vfs, gate, log) = gated(&memory);
    let acknowledged = AtomicU64::new(0);
    gate.hold(Operation::Write, 1);
    thread::scope(|scope| {
        let (log, acknowledged) = (&log, &acknowledged);
        let spawn = |number| {
            let position = append(log, &payload(number, 300)).unwrap();
            scope.spawn(move || {
                log.sync(position).unwrap();
                acknowledged.fetch_add(1, Ordering::SeqCst);
            })
        };
        spawn(2);
        gate.wait_held(1);
        let syncs = log.stats().syncs;
        spawn(3);
        while log.stats().syncs == syncs {
            thread::yield_now();
        }
        assert_eq!((log.durable(), acknowledged.load(Ordering::SeqCst)), (Position(1), 0));
        for mode in [CrashMode::LoseUnsynced, CrashMode::KeepAll, CrashMode::Random { seed: 1 }] {
            let (records, torn) = recovered(&memory.crash_image(mode));
            assert_eq!((records, torn), (vec![payload(1, 100)], true), "{mode:?}");
        }
        gate.open();
    });
    assert_eq!((log.durable(), acknowledged.into_inner()), (Position(3), 2));
    let expected = [payload(1, 100), payload(2, 300), payload(3, 300)];
    assert_eq!(recovered(&memory.crash_image(CrashMode::LoseUnsynced)).0, expected);
}

#[test]
fn what_asks_for_no_sync_does_not_wait_for_one() {
    for memory in disks() {
        let (_vfs, gate, log) = gated(&memory);
        gate.hold(Operation::Sync, 1);
        thread::scope(|scope| {
            let position = append(&log, &payload(2, 100)).unwrap();
            let log = &log;
            scope.spawn(move || log.sync(position).unwrap());
            gate.wait_held(1);
            // Small and large, while the sync does not come back.
            for number in 3..30 {
                let bytes = if number % 9 == 0 { 70_000 } else { 150 };
                append(log, &payload(number, bytes)).unwrap();
                log.write().unwrap();
            }
            assert_eq!(log.durable(), Position(1));
            let image = memory.crash_image(CrashMode::KeepAll);
            let (_log, recovered) = open_with(&image, huge()).unwrap();
            assert_eq!(recovered.records.len(), 29);
            gate.open();
        });
        log.sync(log.last()).unwrap();
        assert_eq!(log.durable(), Position(29));
    }
}

#[test]
fn the_first_of_two_in_flight_fails() {
    let memory = MemoryVfs::new();
    let (vfs, gate, log) = gated(&memory);
    gate.hold(Operation::Write, 1);
    thread::scope(|scope| {
        let log = &log;
        let put = |number| {
            let position = append(log, &payload(number, 300)).unwrap();
            scope.spawn(move || log.sync(position))
        };
        let first = put(2);
        gate.wait_held(1);
        let syncs = log.stats().syncs;
        let second = put(3);
        while log.stats().syncs == syncs {
            thread::yield_now();
        }
        let fault = vfs.arm(Fault::once(Operation::Write, Outcome::ShortWrite(64)));
        gate.open();
        assert!(first.join().unwrap().is_err());
        assert!(matches!(second.join().unwrap(), Err(Error::Poisoned { .. })));
        assert_eq!(fault.fired(), 1);
    });
    assert_eq!(log.durable(), Position(1));
    drop(log);
    let (_log, again) = open_with(&memory.crash_image(CrashMode::KeepAll), huge()).unwrap();
    assert_eq!(again.records, [payload(1, 100)]);
}

/// It keeps its place, and comes into it before anything else is written.
#[test]
fn the_first_of_two_in_flight_is_refused() {
    let memory = MemoryVfs::new();
    let (vfs, gate, log) = gated(&memory);
    gate.hold(Operation::Write, 1);
    let full = thread::scope(|scope| {
        let log = &log;
        let put = |number| {
            let position = append(log, &payload(number, 300)).unwrap();
            scope.spawn(move || log.sync(position))
        };
        let first = put(2);
        gate.wait_held(1);
        let syncs = log.stats().syncs;
        let second = put(3);
        while log.stats().syncs == syncs {
            thread::yield_now();
        }
        let full = vfs.arm(Fault::always(Operation::Write, Outcome::ShortWriteFull(128)));
        gate.open();
        for outcome in [first, second].map(|thread| thread.join().unwrap()) {
            assert!(matches!(outcome, Err(Error::DiskFull { .. })), "{outcome:?}");
        }
        full
    });
    assert!(log.is_refusing());
    assert_eq!((log.durable(), full.fired()), (Position(1), 1));
    let error = put(&log, &payload(4, 300)).err().unwrap();
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
    assert_eq!(recovered(&memory.crash_image(CrashMode::KeepAll)).0, [payload(1, 100)]);
    full.heal();
    put(&log, &payload(5, 300)).unwrap();
    assert_eq!((log.durable(), log.is_refusing()), (Position(5), false));
    assert_eq!(log.pending_bytes(), 0);
    let mut expected = vec![payload(1, 100)];
    expected.extend((2..=5).map(|number| payload(number, 300)));
    assert_eq!(recovered(&memory.crash_image(CrashMode::LoseUnsynced)).0, expected);
}

/// Files are filled with zeros a piece at a time; a full disk ends that, and nothing else.
#[test]
fn zeros_go_ahead_of_the_frames() {
    for outcome in [None, Some(Outcome::DiskFull), Some(Outcome::InputOutput)] {
        let memory = MemoryVfs::new().with_direct(Some(512));
        let vfs = FaultyVfs::new(Arc::new(memory.clone()));
        let (log, _) = open_with(&vfs, huge()).unwrap();
        let writes = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&writes);
        vfs.on_operation(move |event| {
            if event.operation == Operation::Write && event.phase == Phase::Succeeded {
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        for number in 0..95 {
            put(&log, &payload(number, 1900)).unwrap();
        }
        assert_eq!(writes.load(Ordering::SeqCst), 95, "the first piece is still ahead");
        let fault = outcome.map(|outcome| vfs.arm(Fault::once(Operation::Write, outcome).after(1)));
        put(&log, &payload(95, 1900)).unwrap();
        assert_eq!(log.durable(), Position(96), "it had been durable before");
        let poisoned = matches!(append(&log, b"more"), Err(Error::Poisoned { .. }));
        assert_eq!(poisoned, outcome == Some(Outcome::InputOutput));
        assert!(fault.is_none_or(|fault| fault.fired() == 1));
        let zeros = u64::from(outcome.is_none());
        assert_eq!(writes.load(Ordering::SeqCst), 96 + zeros, "{outcome:?}");
        drop(log);
        let image = memory.crash_image(CrashMode::LoseUnsynced);
        let (_log, again) = open_with(&image, huge()).unwrap();
        assert_eq!((again.records.len(), again.report.torn), (96, None));
    }
}

/// Who reads a file's frames finds them where its header says, whoever wrote them.
#[test]
fn the_alignment_of_a_disk_may_change() {
    let mut expected = Vec::new();
    let memory = MemoryVfs::new();
    for round in 0..9_usize {
        let alignment = [None, Some(512), Some(64), Some(4096)][round % 4];
        let disk = memory.clone().with_direct(alignment);
        let (log, recovered) = open(&disk).unwrap();
        assert_eq!((recovered.records, recovered.report.torn), (expected.clone(), None));
        for number in 0..7 {
            expected.push(payload(number, 300));
            put(&log, &payload(number, 300)).unwrap();
            append(&log, &payload(number, 10)).unwrap();
            expected.push(payload(number, 10));
            log.write().unwrap();
        }
    }
    assert!(live_files(&memory).len() > 9);
    // Any byte of them, zeros behind frames included.
    let files = live_files(&memory);
    let mut refused = 0;
    for path in &files[..files.len() - 1] {
        for offset in (0..4096).step_by(61) {
            let image = memory.crash_image(CrashMode::KeepAll);
            image.flip(path, offset, 4).unwrap();
            match open(&image) {
                Ok((_, recovered)) => assert_eq!(recovered.records, expected),
                Err(error) => {
                    assert!(is_corrupt(&error), "{error}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 300, "{refused}");
}

#[test]
fn a_frame_that_nobody_waits_for_is_there_after_the_next_sync() {
    for memory in disks() {
        let (log, _) = open(&memory).unwrap();
        let mut expected = Vec::new();
        for number in 0..60 {
            expected.push(payload(number, 130));
            append(&log, &payload(number, 130)).unwrap();
            match number % 5 {
                4 => log.sync(log.last()).unwrap(),
                2 => {}
                _ => log.write().unwrap(),
            }
        }
        let (_log, recovered) = open(&memory.crash_image(CrashMode::LoseUnsynced)).unwrap();
        assert_eq!(recovered.records, expected);
        assert!(live_files(&memory).len() > 2, "{}", Path::new(DIR).display());
    }
}
