//! Many threads at once: one leader writes and syncs for all.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::thread;

use kvorum_storage::Error;
use kvorum_storage::log::{Log, LogOptions, Position};
use kvorum_storage::vfs::{CrashMode, Fault, FaultyVfs, MemoryVfs, Operation, Outcome, Phase};

use crate::fixture::{DIR, open_with, options};

const THREADS: u64 = 16;

fn record(thread: u64, number: u64) -> Vec<u8> {
    format!("thread {thread} number {number}").into_bytes()
}

/// Opens a log on a disk where tests can fail and watch operations.
fn faulty(options: LogOptions) -> (MemoryVfs, FaultyVfs, Arc<Log>) {
    let memory = MemoryVfs::new();
    let vfs = FaultyVfs::new(Arc::new(memory.clone()));
    let (log, _) = open_with(&vfs, options).unwrap();
    (memory, vfs, Arc::new(log))
}

/// What is in the log, as written by [`Log::append`] with kind 0.
fn records(vfs: &MemoryVfs) -> Vec<Vec<u8>> {
    let (_log, mut replay) = Log::open(Arc::new(vfs.clone()), Path::new(DIR), options()).unwrap();
    let mut records = Vec::new();
    while let Some(record) = replay.next().unwrap() {
        records.push(record.payload.to_vec());
    }
    records
}

#[test]
fn all_who_wait_during_a_sync_share_the_next_one() {
    let (memory, vfs, log) = faulty(options());
    // The first sync goes on only once all the others have appended.
    let first = Arc::new(AtomicU64::new(0));
    let barrier = Arc::new(Barrier::new(2));
    {
        let (first, barrier) = (first.clone(), barrier.clone());
        vfs.on_operation(move |event| {
            let starts = event.operation == Operation::Sync && event.phase == Phase::Before;
            if starts && first.fetch_add(1, Ordering::SeqCst) == 0 {
                barrier.wait();
                barrier.wait();
            }
        });
    }
    thread::scope(|scope| {
        scope.spawn(|| {
            let position = log.append(0, &record(0, 0)).unwrap();
            log.sync(position).unwrap();
        });
        barrier.wait();
        let appended = Arc::new(Barrier::new(usize::try_from(THREADS).unwrap()));
        for number in 1..THREADS {
            let (log, appended) = (&log, appended.clone());
            scope.spawn(move || {
                let position = log.append(0, &record(number, 0)).unwrap();
                appended.wait();
                log.sync(position).unwrap();
                assert!(log.durable() >= position);
            });
        }
        appended.wait();
        barrier.wait();
    });
    let stats = log.stats();
    assert_eq!((stats.appends, stats.frames, stats.syncs), (THREADS, 2, 2));
    assert_eq!(records(&memory.crash_image(CrashMode::LoseUnsynced)).len(), 16);
}

#[test]
fn everything_acknowledged_is_there_and_in_order() {
    const NUMBERS: u64 = 100;
    let (memory, _, log) = faulty(options());
    let positions = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (log, positions) = (&log, &positions);
            scope.spawn(move || {
                for number in 0..NUMBERS {
                    let position = log.append(0, &record(thread, number)).unwrap();
                    log.sync(position).unwrap();
                    positions.lock().unwrap().push((position, record(thread, number)));
                }
            });
        }
    });
    let stats = log.stats();
    assert_eq!(stats.appends, THREADS * NUMBERS);
    // A new file costs two: of what it follows, and of that one's seal.
    assert!(stats.syncs <= stats.appends + 2 * stats.files_made, "{stats:?}");
    let mut positions = positions.into_inner().unwrap();
    positions.sort_unstable();
    let acknowledged: Vec<_> = positions.into_iter().map(|(_, record)| record).collect();
    assert_eq!(records(&memory.crash_image(CrashMode::LoseUnsynced)), acknowledged);
}

#[test]
fn after_a_failed_sync_nothing_more_is_acknowledged() {
    for after in [0, 1, 5, 20] {
        // However many share a sync, the first file is not full before the one that fails.
        let (memory, vfs, log) = faulty(LogOptions { file_bytes: 1 << 20, ..options() });
        let fault =
            vfs.arm(Fault::once(Operation::Sync, Outcome::InputOutput).on("0001.").after(after));
        let acknowledged = Mutex::new(Vec::new());
        let poisoned = AtomicU64::new(0);
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (log, acknowledged, poisoned) = (&log, &acknowledged, &poisoned);
                scope.spawn(move || {
                    for number in 0.. {
                        let record = record(thread, number);
                        match log.append(0, &record).and_then(|position| log.sync(position)) {
                            Ok(()) => acknowledged.lock().unwrap().push(record),
                            Err(Error::Io { .. } | Error::Poisoned { .. }) => break,
                            Err(error) => panic!("{error}"),
                        }
                    }
                    let error = log.append(0, b"more").err().unwrap();
                    assert!(matches!(error, Error::Poisoned { .. }), "{error}");
                    poisoned.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        assert_eq!((fault.fired(), poisoned.into_inner()), (1, THREADS));
        let durable = log.durable();
        if durable < log.last() {
            assert!(matches!(log.sync(durable.next()), Err(Error::Poisoned { .. })));
        }
        log.sync(durable).unwrap();
        assert!(matches!(log.write(), Err(Error::Poisoned { .. })));
        assert!(matches!(log.truncate_before(durable), Err(Error::Poisoned { .. })));

        let left = records(&memory.crash_image(CrashMode::LoseUnsynced));
        let acknowledged = acknowledged.into_inner().unwrap();
        assert_eq!(acknowledged.len() as u64, durable.0);
        assert!(acknowledged.iter().all(|record| left.contains(record)));
    }
}

#[test]
fn a_leader_that_panics_poisons_the_log_for_those_who_wait() {
    let (_, vfs, log) = faulty(options());
    let state = Arc::new((Mutex::new(false), Condvar::new()));
    {
        let state = state.clone();
        vfs.on_operation(move |event| {
            if event.operation == Operation::Sync && event.phase == Phase::Before {
                let waiting = state.0.lock().unwrap();
                drop(state.1.wait_while(waiting, |waiting| !*waiting).unwrap());
                panic!("planned");
            }
        });
    }
    let position = log.append(0, b"record").unwrap();
    thread::scope(|scope| {
        let leader = scope.spawn(|| log.sync(position));
        let follower = scope.spawn(|| log.sync(position));
        *state.0.lock().unwrap() = true;
        state.1.notify_all();
        let outcomes = [leader.join(), follower.join()];
        let panicked = outcomes.iter().filter(|outcome| outcome.is_err()).count();
        assert_eq!(panicked, 1);
        let poisoned = |outcome: &Result<_, _>| matches!(outcome, Ok(Err(Error::Poisoned { .. })));
        assert!(outcomes.iter().any(poisoned));
    });
    vfs.forget_hook();
    assert!(matches!(log.sync(position), Err(Error::Poisoned { .. })));
    assert_eq!(log.durable(), Position(0));
}
