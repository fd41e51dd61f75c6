//! Disks that fail: a full disk heals, a broken one is never believed again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kvorum_storage::Error;
use kvorum_storage::log::{Log, LogOptions, Position};
use kvorum_storage::vfs::{CrashMode, Fault, FaultyVfs, MemoryVfs, Operation, Outcome, Phase};

use crate::fixture::{append, live_files, open, open_with, options, payload, put};

fn faulty() -> (MemoryVfs, FaultyVfs, Log) {
    let memory = MemoryVfs::new();
    let vfs = FaultyVfs::new(Arc::new(memory.clone()));
    let (log, _) = open(&vfs).unwrap();
    (memory, vfs, log)
}

fn durable_records(memory: &MemoryVfs) -> Vec<Vec<u8>> {
    open(&memory.crash_image(CrashMode::LoseUnsynced)).unwrap().1.records
}

#[test]
fn a_full_disk_refuses_and_heals() {
    let cases = [
        (Operation::Create, Outcome::DiskFull),
        (Operation::Allocate, Outcome::DiskFull),
        (Operation::Rename, Outcome::DiskFull),
        (Operation::Write, Outcome::DiskFull),
        (Operation::Write, Outcome::ShortWriteFull(300)),
        (Operation::Write, Outcome::ShortWriteFull(usize::MAX)),
        (Operation::Create, Outcome::TooManyFiles),
    ];
    for (operation, outcome) in cases {
        let (memory, vfs, log) = faulty();
        let mut expected: Vec<_> = (0..3).map(|number| payload(number, 1000)).collect();
        for record in &expected {
            put(&log, record).unwrap();
        }
        let fault = vfs.arm(Fault::always(operation, outcome));
        for attempt in 0..3 {
            expected.push(payload(attempt, 600));
            let error = put(&log, &payload(attempt, 600)).err().unwrap();
            match outcome {
                Outcome::TooManyFiles => assert!(matches!(error, Error::Io { .. }), "{error}"),
                _ => assert!(matches!(error, Error::DiskFull { .. }), "{error}"),
            }
            assert!(log.is_refusing());
        }
        assert_eq!(fault.fired(), 3, "{operation:?} {outcome:?}");
        assert_eq!((log.durable(), log.last()), (Position(3), Position(6)));
        assert!(log.pending_bytes() > 1800);
        // A crash now loses what was never acknowledged, or a part of it, and nothing else.
        for mode in [CrashMode::LoseUnsynced, CrashMode::KeepAll] {
            let (_, recovered) = open(&memory.crash_image(mode)).unwrap();
            assert!(recovered.records.len() >= 3);
            assert_eq!(recovered.records, expected[..recovered.records.len()]);
        }
        fault.heal();
        log.sync(Position(4)).unwrap();
        assert_eq!((log.durable(), log.pending_bytes()), (Position(6), 0));
        assert!(!log.is_refusing());
        assert_eq!(durable_records(&memory), expected, "{operation:?} {outcome:?}");
        drop(log);
        assert_eq!(open(&memory).unwrap().1.records, expected);
    }
}

#[test]
fn files_kept_for_later_carry_over_a_full_disk() {
    let (memory, vfs, log) = faulty();
    while live_files(&memory).len() < 4 {
        put(&log, &payload(1, 1000)).unwrap();
    }
    log.truncate_before(log.last()).unwrap();
    let full = vfs.arm(Fault::always(Operation::Allocate, Outcome::DiskFull));
    while log.stats().files_recycled < 2 {
        put(&log, &payload(2, 1000)).unwrap();
    }
    assert_eq!(full.fired(), 0);
    while put(&log, &payload(3, 1000)).is_ok() {}
    assert_eq!(full.fired(), 1);
}

#[test]
fn a_full_disk_refuses_more_when_enough_waits() {
    let (_, vfs, log) = faulty();
    vfs.arm(Fault::always(Operation::Create, Outcome::DiskFull));
    let big = payload(1, 1 << 20);
    assert!(put(&log, &big).is_err());
    let error = loop {
        match append(&log, &big) {
            Ok(_) => assert!(log.pending_bytes() <= options().pending_bytes_max),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
}

#[test]
fn a_failed_write_or_sync_poisons() {
    let cases = [
        (Operation::Write, Outcome::InputOutput),
        (Operation::Write, Outcome::ShortWrite(20)),
        (Operation::Sync, Outcome::InputOutput),
        (Operation::Sync, Outcome::DiskFull),
    ];
    for (operation, outcome) in cases {
        let (memory, vfs, log) = faulty();
        put(&log, b"before").unwrap();
        let fault = vfs.arm(Fault::once(operation, outcome));
        assert!(put(&log, b"during").is_err());
        assert_eq!(fault.fired(), 1);
        let error = put(&log, b"after").err().unwrap();
        assert!(matches!(error, Error::Poisoned { .. }), "{error}");
        assert!(matches!(log.sync(Position(2)), Err(Error::Poisoned { .. })));
        log.sync(Position(1)).unwrap();
        drop(log);
        assert_eq!(durable_records(&memory), [b"before"]);
        let (log, recovered) = open(&memory).unwrap();
        assert_eq!(recovered.records[0], b"before");
        put(&log, b"again").unwrap();
    }
}

/// Every n-th operation of every kind fails once, in a run over several files with truncation.
/// Whatever the log then says, what it has acknowledged is there.
#[test]
fn any_operation_may_fail_at_any_time() {
    let operations = [
        Operation::Create,
        Operation::Open,
        Operation::Rename,
        Operation::Remove,
        Operation::SyncDir,
        Operation::Write,
        Operation::Sync,
        Operation::Allocate,
        Operation::Length,
    ];
    let outcomes = [Outcome::InputOutput, Outcome::DiskFull, Outcome::ShortWrite(100)];
    let (mut fired, mut poisoned) = (0, 0);
    for operation in operations {
        for outcome in outcomes {
            for after in 0.. {
                let (memory, vfs, log) = faulty();
                let fault = vfs.arm(Fault::once(operation, outcome).after(after));
                let run = run(&log);
                if fault.fired() == 0 {
                    break;
                }
                let context = format!("{operation:?} {outcome:?} after {after}");
                fired += 1;
                let gave_up = matches!(log.append(0, b""), Err(Error::Poisoned { .. }));
                poisoned += usize::from(gave_up);
                let must = [Operation::Write, Operation::Sync, Operation::SyncDir];
                let full = outcome == Outcome::DiskFull;
                assert!(gave_up || full || !must.contains(&operation), "{context}");
                check(&memory, &log, run, &context);
            }
        }
    }
    assert!(fired > 100 && poisoned > 50, "{fired} {poisoned}");
}

/// What a run was promised, and what it gave up.
struct Run {
    acknowledged: Position,
    released: Position,
}

fn run(log: &Log) -> Run {
    let mut run = Run { acknowledged: Position(0), released: Position(1) };
    for number in 1..=30 {
        let Ok(position) = append(log, &payload(number, 600)) else { break };
        if log.sync(position).is_ok() {
            run.acknowledged = position;
        }
        if number == 13 || number == 26 {
            run.released = Position(number - 2);
            let _ = log.truncate_before(run.released);
        }
    }
    run
}

fn check(memory: &MemoryVfs, log: &Log, run: Run, context: &str) {
    assert!(log.durable() >= run.acknowledged, "{context}");
    for mode in [CrashMode::LoseUnsynced, CrashMode::KeepAll, CrashMode::Random { seed: 3 }] {
        let (again, recovered) = open(&memory.crash_image(mode)).unwrap();
        assert!(again.last() >= run.acknowledged, "{context} {mode:?}");
        assert!(again.first() <= run.released, "{context} {mode:?}");
        for (number, record) in (recovered.first.0..).zip(&recovered.records) {
            assert_eq!(*record, payload(number, 600), "{context} {mode:?}");
        }
    }
}

#[test]
fn what_a_failed_sync_left_in_the_cache_is_not_believed() {
    let (memory, vfs, log) = faulty();
    put(&log, b"one").unwrap();
    {
        let memory = memory.clone();
        vfs.on_operation(move |event| {
            if event.operation == Operation::Sync && event.phase == Phase::Failed {
                memory.drop_unsynced(event.path).unwrap_or(());
                let live = live_files(&memory).pop().unwrap();
                memory.drop_unsynced(&live).unwrap();
            }
        });
    }
    append(&log, b"two").unwrap();
    append(&log, b"three").unwrap();
    vfs.arm(Fault::once(Operation::Sync, Outcome::InputOutput));
    assert!(log.sync(Position(3)).is_err());
    drop(log);
    assert_eq!(durable_records(&memory).len(), 1, "the disk never got the others");
    // The process is started again on the same machine: it reads them, and may keep them only if
    // it makes them durable in earnest.
    let (log, recovered) = open(&vfs).unwrap();
    assert_eq!(recovered.records, [&b"one"[..], b"two", b"three"]);
    assert_eq!(log.durable(), Position(3));
    assert_eq!(durable_records(&memory), recovered.records);
}

#[test]
fn opening_on_a_full_disk_works() {
    let (memory, vfs, log) = faulty();
    put(&log, b"one").unwrap();
    let image = memory.crash_image(CrashMode::KeepAll);
    drop((log, vfs));
    let vfs = FaultyVfs::new(Arc::new(image));
    let full: Vec<_> = [Operation::Create, Operation::Allocate]
        .map(|operation| vfs.arm(Fault::always(operation, Outcome::DiskFull)))
        .into();
    let (log, recovered) = open(&vfs).unwrap();
    assert_eq!(recovered.records, [b"one"]);
    put(&log, b"there is room in the file that is there").unwrap();
    assert_eq!(full.iter().map(|fault| fault.fired()).sum::<u64>(), 0);
}

#[test]
fn a_failed_opening_lets_go_of_the_lock_and_can_be_repeated() {
    let (memory, vfs, log) = faulty();
    for number in 0..20 {
        put(&log, &payload(number, 600)).unwrap();
    }
    append(&log, &payload(20, 600)).unwrap();
    log.write().unwrap();
    let image = memory.crash_image(CrashMode::KeepAll);
    drop((log, vfs));
    let failures = AtomicU64::new(0);
    for operation in [Operation::Open, Operation::Read, Operation::Write, Operation::Sync] {
        for after in 0..20 {
            let vfs = FaultyVfs::new(Arc::new(image.crash_image(CrashMode::KeepAll)));
            let fault = vfs.arm(Fault::once(operation, Outcome::InputOutput).after(after));
            if open(&vfs).is_err() {
                failures.fetch_add(fault.fired(), Ordering::SeqCst);
                let (_, recovered) = open(&vfs).unwrap();
                assert_eq!(recovered.records.len(), 21, "{operation:?} {after}");
            }
        }
    }
    assert!(failures.into_inner() > 15);
    let other = LogOptions { recycle_files_max: 0, ..options() };
    assert_eq!(open_with(&image, other).unwrap().1.records.len(), 21);
}
