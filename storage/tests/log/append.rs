//! What goes in comes out, over one file or many.

use std::path::Path;
use std::sync::Arc;

use kvorum_storage::Error;
use kvorum_storage::log::{Log, LogOptions, Position};
use kvorum_storage::vfs::{CrashMode, MemoryVfs, RealVfs};

use crate::fixture::{append, free_files, live_files, open, open_with, options, payload, put};

#[test]
fn a_new_log_is_empty() {
    let vfs = MemoryVfs::new();
    let (log, recovered) = open(&vfs).unwrap();
    assert_eq!(recovered.records.len(), 0);
    assert_eq!((log.first(), log.last(), log.durable()), (Position(1), Position(0), Position(0)));
    log.sync(Position(0)).unwrap();
    log.write().unwrap();
    assert!(matches!(log.sync(Position(1)), Err(Error::Invalid { .. })));
    drop(log);
    let (log, recovered) = open(&vfs).unwrap();
    assert_eq!((recovered.records.len(), recovered.report.torn), (0, None));
    assert_eq!(log.first(), Position(1));
}

#[test]
fn records_come_back_in_order_over_many_files_and_openings() {
    let vfs = MemoryVfs::new();
    let mut expected = Vec::new();
    for round in 0..10 {
        let (log, recovered) = open(&vfs).unwrap();
        assert_eq!(recovered.records, expected, "round {round}");
        assert_eq!(recovered.report.torn, None);
        assert_eq!(recovered.report.records, expected.len() as u64);
        for number in 0..20 {
            let number = round * 20 + number;
            let bytes = usize::try_from(number * number % 700).unwrap();
            expected.push(payload(number, bytes));
            let position = append(&log, &payload(number, bytes)).unwrap();
            assert_eq!(position.0, expected.len() as u64);
            if number % 3 == 0 {
                log.sync(position).unwrap();
                assert_eq!(log.durable(), position);
            }
        }
        log.sync(log.last()).unwrap();
        assert_eq!(log.pending_bytes(), 0);
    }
    assert!(live_files(&vfs).len() > 10);
}

#[test]
fn the_same_on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("log");
    for round in 0_u64..3 {
        let (log, mut replay) = Log::open(Arc::new(RealVfs), &dir, options()).unwrap();
        let locked = Log::open(Arc::new(RealVfs), &dir, options()).err().unwrap();
        assert!(matches!(locked, Error::Locked { .. }), "{locked}");
        for number in 0..round * 100 {
            let record = replay.next().unwrap().unwrap();
            assert_eq!((record.kind, &record.payload[..]), (9, &payload(number, 50)[..]));
        }
        assert_eq!(replay.next().unwrap(), None);
        for number in round * 100..(round + 1) * 100 {
            log.append_parts(9, &[&payload(number, 50)[..20], &payload(number, 50)[20..]]).unwrap();
            log.write().unwrap();
        }
        log.sync(log.last()).unwrap();
        log.truncate_before(Position(1)).unwrap();
    }
}

/// On a file system with direct writes this goes all the ways that there are: directly, in the cache,
/// and from one to the other.
#[test]
fn many_threads_on_a_real_disk() {
    const THREADS: u64 = 6;
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { file_bytes: 1 << 20, pending_bytes_max: 64 << 20, ..options() };
    let mut expected = 0;
    for round in 0..3 {
        let (log, mut replay) = Log::open(Arc::new(RealVfs), dir.path(), options).unwrap();
        let mut records = 0;
        while let Some(record) = replay.next().unwrap() {
            let number = u64::from_le_bytes(*record.payload.first_chunk().unwrap());
            assert_eq!(record.payload[8..], payload(number, record.payload.len() - 8));
            records += 1;
        }
        assert_eq!((records, &replay.report().torn), (expected, &None));
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let log = &log;
                scope.spawn(move || {
                    for number in 0..60 {
                        let number = (round * THREADS + thread) * 1000 + number;
                        let bytes = if number % 17 == 3 { 90_000 } else { 9 + number % 900 };
                        let bytes = usize::try_from(bytes).unwrap();
                        let parts = [&number.to_le_bytes()[..], &payload(number, bytes)];
                        let position = log.append_parts(3, &parts).unwrap();
                        match (thread, number % 7) {
                            (0, _) | (_, 1) => log.write().unwrap(),
                            (1, _) => {}
                            _ => log.sync(position).unwrap(),
                        }
                    }
                });
            }
        });
        expected += THREADS * 60;
        log.sync(log.last()).unwrap();
        assert_eq!(log.durable().0, expected);
    }
}

#[test]
fn appending_while_the_old_records_are_still_being_read() {
    let vfs = MemoryVfs::new();
    let (log, _) = open(&vfs).unwrap();
    for number in 0..3 {
        put(&log, &payload(number, 900)).unwrap();
    }
    drop(log);
    let (log, mut replay) = Log::open(Arc::new(vfs), Path::new("/data/log"), options()).unwrap();
    for number in 0..3 {
        put(&log, b"new").unwrap();
        assert_eq!(replay.next().unwrap().unwrap().payload, payload(number, 900));
    }
    for _ in 0..10 {
        put(&log, &payload(9, 900)).unwrap();
    }
    assert_eq!(replay.next().unwrap(), None);
}

#[test]
fn a_record_bigger_than_a_file_gets_a_file_of_its_own_size() {
    let vfs = MemoryVfs::new();
    let (log, _) = open(&vfs).unwrap();
    let records = [payload(1, 10), payload(2, 100_000), payload(3, 10), payload(4, 5000)];
    for record in &records {
        put(&log, record).unwrap();
    }
    drop(log);
    let (log, recovered) = open(&vfs).unwrap();
    assert_eq!(recovered.records, records);
    assert_eq!(live_files(&vfs).len(), 4);
    log.truncate_before(log.last()).unwrap();
    assert_eq!(live_files(&vfs).len(), 1);
    assert_eq!(free_files(&vfs).len(), 2, "only files of the usual size are kept");
}

#[test]
fn a_big_backlog_is_written_in_frames_of_bounded_size() {
    let vfs = MemoryVfs::new();
    let (log, _) = open(&vfs).unwrap();
    let records: Vec<_> = (0..130).map(|number| payload(number, 30_000)).collect();
    for record in &records {
        append(&log, record).unwrap();
    }
    assert_eq!(log.durable(), Position(0));
    assert!(log.pending_bytes() > 3_900_000);
    log.sync(Position(1)).unwrap();
    assert_eq!(log.durable(), Position(35), "what has no room in the file waits for who wants it");
    log.sync(log.last()).unwrap();
    let stats = log.stats();
    assert_eq!((stats.appends, stats.frames), (130, 4));
    drop(log);
    assert_eq!(open(&vfs).unwrap().1.records, records);
}

#[test]
fn limits_are_kept() {
    let vfs = MemoryVfs::new();
    let (log, _) = open(&vfs).unwrap();
    let too_big = append(&log, &vec![0; (1 << 20) + 1]).err().unwrap();
    assert!(matches!(too_big, Error::Invalid { .. }), "{too_big}");
    for _ in 0..3 {
        append(&log, &vec![0; 1 << 20]).unwrap();
    }
    let too_many = append(&log, &vec![0; 1 << 20]).err().unwrap();
    assert!(matches!(too_many, Error::Overloaded { .. }), "{too_many}");
    log.write().unwrap();
    assert_eq!(append(&log, &vec![0; 1 << 20]).unwrap(), Position(4));

    let refused = |options: LogOptions| {
        let error = open_with(&MemoryVfs::new(), options).err().unwrap();
        assert!(matches!(error, Error::Invalid { .. }), "{error}");
    };
    refused(LogOptions { file_bytes: 100, ..options() });
    refused(LogOptions { record_bytes_max: 0, ..options() });
    refused(LogOptions { record_bytes_max: usize::MAX, ..options() });
    refused(LogOptions { pending_bytes_max: 5, ..options() });
}

#[test]
fn what_is_only_written_survives_the_process_but_not_the_power() {
    let vfs = MemoryVfs::new();
    let (log, _) = open(&vfs).unwrap();
    put(&log, b"synced").unwrap();
    append(&log, b"written").unwrap();
    log.write().unwrap();
    append(&log, b"pending").unwrap();
    assert_eq!(log.durable(), Position(1));
    let records = |mode| open(&vfs.crash_image(mode)).unwrap().1.records;
    assert_eq!(records(CrashMode::LoseUnsynced), [&b"synced"[..]]);
    assert_eq!(records(CrashMode::KeepAll), [&b"synced"[..], b"written"]);

    // Opening after the process's end makes durable what the owner now acts on.
    let image = vfs.crash_image(CrashMode::KeepAll);
    open(&image).unwrap();
    let image = image.crash_image(CrashMode::LoseUnsynced);
    assert_eq!(open(&image).unwrap().1.records, [&b"synced"[..], b"written"]);
}

#[test]
fn truncation_takes_whole_files_and_keeps_some_for_later() {
    let vfs = MemoryVfs::new();
    let (log, _) = open(&vfs).unwrap();
    for number in 1..=40 {
        put(&log, &payload(number, 500)).unwrap();
    }
    let files = live_files(&vfs).len();
    let bytes = log.bytes();
    assert!(files >= 6);
    log.truncate_before(Position(1)).unwrap();
    assert_eq!(log.first(), Position(1));
    log.truncate_before(Position(20)).unwrap();
    let first = log.first();
    assert!(Position(10) < first && first <= Position(20), "{first}");
    assert!(log.bytes() < bytes);
    assert_eq!(free_files(&vfs).len(), 2);
    log.truncate_before(Position(1000)).unwrap();
    assert_eq!(live_files(&vfs).len(), 1);
    drop(log);

    let (log, recovered) = open(&vfs).unwrap();
    assert_eq!(recovered.records.last(), Some(&payload(40, 500)));
    assert_eq!(log.last(), Position(40));
    assert_eq!(recovered.first, log.first());
    for number in 41..=80 {
        put(&log, &payload(number, 500)).unwrap();
    }
    let stats = log.stats();
    assert_eq!(stats.files_recycled, 2);
    assert!(stats.files_made > 4);
    drop(log);
    let (_, recovered) = open(&vfs).unwrap();
    let expected: Vec<_> = (recovered.first.0..=80).map(|number| payload(number, 500)).collect();
    assert_eq!(recovered.records, expected);

    let (_, recovered) = open_with(&vfs, LogOptions { file_bytes: 8192, ..options() }).unwrap();
    assert_eq!(recovered.records, expected);
    assert_eq!(free_files(&vfs).len(), 0, "files of another size are of no use");
}

#[test]
fn opening_again_and_again_adds_nothing() {
    let vfs = MemoryVfs::new();
    let (log, _) = open(&vfs).unwrap();
    put(&log, b"one").unwrap();
    drop(log);
    let bytes = open(&vfs).unwrap().0.bytes();
    for _ in 0..100 {
        assert_eq!(open(&vfs).unwrap().0.bytes(), bytes);
        let image = vfs.crash_image(CrashMode::LoseUnsynced);
        assert_eq!(open(&image).unwrap().1.records.len(), 1);
    }
}
