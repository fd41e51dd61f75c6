//! The process killed, or the power cut, before and after every operation on the disk.

use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use kvorum_storage::log::{Log, Position};
use kvorum_storage::vfs::{CrashMode, FaultyVfs, MemoryVfs, Vfs as _};

use crate::fixture::{
    DIR, Recovered, append, disk_of, disks, live_files, open, payload, put, read,
};

/// What a run has promised so far.
#[derive(Default)]
struct Promises {
    /// Every record ever appended; the first is number 1.
    appended: Mutex<Vec<Vec<u8>>>,
    acknowledged: AtomicU64,
    /// Records before this may be gone.
    released: AtomicU64,
}

impl Promises {
    fn put(&self, log: &Log, bytes: usize) {
        let record = payload(log.last().0 + 1, bytes);
        self.appended.lock().unwrap().push(record.clone());
        append(log, &record).unwrap();
    }

    fn sync(&self, log: &Log) {
        log.sync(log.last()).unwrap();
        self.acknowledged.store(log.last().0, Ordering::SeqCst);
    }

    fn truncate(&self, log: &Log, position: u64) {
        self.released.store(position, Ordering::SeqCst);
        log.truncate_before(Position(position)).unwrap();
    }

    /// Exactly a part of what was appended, in order, with all that was promised.
    fn check(&self, recovered: &Recovered, context: &str) {
        let appended = self.appended.lock().unwrap();
        let first = usize::try_from(recovered.first.0).unwrap();
        let last = first + recovered.records.len() - 1;
        assert!(last as u64 >= self.acknowledged.load(Ordering::SeqCst), "{context}: lost {last}");
        assert!(first as u64 <= self.released.load(Ordering::SeqCst).max(1), "{context}");
        assert!(last <= appended.len(), "{context}: {last} records");
        assert_eq!(recovered.records, appended[first - 1..last], "{context}");
    }
}

/// Records of many sizes, groups and single ones, with and without syncs, over many files, with
/// truncation and files used again.
fn work(log: &Log, promises: &Promises) {
    for round in 0..24_u64 {
        for number in 0..round % 4 {
            promises.put(log, usize::try_from(number * 311 + 5).unwrap());
        }
        if round % 3 == 1 {
            log.write().unwrap();
            promises.put(log, 600);
            log.write().unwrap();
        }
        promises.put(log, usize::try_from(round * 137 % 1500).unwrap());
        promises.sync(log);
        if round % 7 == 5 {
            promises.truncate(log, log.last().0 - 2);
        }
    }
    promises.put(log, 5000);
    promises.put(log, 10);
    promises.sync(log);
}

fn modes(seed: u64) -> Vec<CrashMode> {
    let mut modes = vec![CrashMode::LoseUnsynced, CrashMode::KeepAll];
    modes.extend((0..4).map(|index| CrashMode::Random { seed: seed * 4 + index }));
    modes
}

#[test]
fn at_every_operation() {
    for memory in disks() {
        crash_at_every_operation(memory);
    }
}

fn crash_at_every_operation(memory: MemoryVfs) {
    let vfs = FaultyVfs::new(Arc::new(memory.clone()));
    let promises = Arc::new(Promises::default());
    let points = Arc::new(AtomicU64::new(0));
    let lossy = Arc::new(AtomicUsize::new(0));
    {
        let (promises, points, lossy) = (promises.clone(), points.clone(), lossy.clone());
        vfs.on_operation(move |event| {
            if !event.operation.changes_disk() {
                return;
            }
            let point = points.fetch_add(1, Ordering::SeqCst);
            lossy.fetch_add(usize::from(memory.unsynced() > 0), Ordering::SeqCst);
            for mode in modes(point) {
                let context = format!("{mode:?} at point {point}, {event:?}");
                recover(&memory.crash_image(mode), &promises, &context);
            }
        });
    }
    let (log, _) = open(&vfs).unwrap();
    work(&log, &promises);
    assert!(log.stats().files_recycled > 0);
    drop(log);
    assert!(points.load(Ordering::SeqCst) > 150, "{points:?}");
    assert!(lossy.load(Ordering::SeqCst) > 100, "{lossy:?}");
}

/// Opens what a crash has left, and checks it; then the owner has seen these records, and no later
/// crash may take one from it, nor bring another one.
fn recover(image: &MemoryVfs, promises: &Promises, context: &str) {
    let (log, recovered) = open(image).unwrap_or_else(|error| panic!("{context}: {error}"));
    promises.check(&recovered, context);
    let seen = recovered.records;
    for mode in [CrashMode::LoseUnsynced, CrashMode::Random { seed: 1 }] {
        let (_, again) = open(&image.crash_image(mode)).unwrap();
        assert_eq!(again.records, seen, "{context}, then {mode:?}");
        // Of the last opening only the mark behind the records can be torn.
        let torn = again.report.torn.is_some();
        assert!(!torn || mode != CrashMode::LoseUnsynced, "{context}, then {mode:?}");
    }
    // Of the size of those that may have been cut, so that what follows them fits seamlessly.
    let mut expected = seen;
    for bytes in [600, 5, 316] {
        expected.push(payload(1_000_000, bytes));
        put(&log, &payload(1_000_000, bytes)).unwrap();
        let (_, again) = open(&image.crash_image(CrashMode::LoseUnsynced)).unwrap();
        assert!(again.records.ends_with(&expected[expected.len() - 1..]), "{context}");
        assert_eq!(again.records, expected, "{context}");
    }
}

#[test]
fn during_recovery_too() {
    for memory in disks() {
        crash_during_recovery(&memory);
    }
}

fn crash_during_recovery(memory: &MemoryVfs) {
    let promises = Promises::default();
    let (log, _) = open(memory).unwrap();
    work(&log, &promises);
    for bytes in [100, 600, 50, 600, 70] {
        promises.put(&log, bytes);
        log.write().unwrap();
    }
    let promises = Arc::new(promises);
    let (points, torn) = (Arc::new(AtomicU64::new(0)), AtomicUsize::new(0));
    for seed in 0..60 {
        let image = memory.crash_image(CrashMode::Random { seed });
        let vfs = FaultyVfs::new(Arc::new(image.clone()));
        {
            let (promises, points) = (promises.clone(), points.clone());
            vfs.on_operation(move |event| {
                if !event.operation.changes_disk() {
                    return;
                }
                let point = points.fetch_add(1, Ordering::SeqCst);
                for mode in modes(point) {
                    let context = format!("{mode:?} at {event:?} of recovery from seed {seed}");
                    let (_, recovered) = open(&image.crash_image(mode)).unwrap();
                    promises.check(&recovered, &context);
                }
            });
        }
        let (_, recovered) = open(&vfs).unwrap();
        promises.check(&recovered, &format!("seed {seed}"));
        torn.fetch_add(usize::from(recovered.report.torn.is_some()), Ordering::SeqCst);
    }
    assert!(points.load(Ordering::SeqCst) > 500, "{points:?}");
    assert!(torn.load(Ordering::SeqCst) > 10, "{torn:?}");
}

#[test]
fn unsynced_frames_that_arrive_out_of_order_stay_dead() {
    let (vfs, path) = (MemoryVfs::new(), Path::new(DIR).join("00000000000000000001.log"));
    let (log, _) = open(&vfs).unwrap();
    put(&log, &payload(1, 100)).unwrap();
    let mut ends = vec![usize::try_from(log.bytes()).unwrap()];
    for number in 2..=5 {
        append(&log, &payload(number, 100)).unwrap();
        log.write().unwrap();
        ends.push(usize::try_from(log.bytes()).unwrap());
    }
    let bytes = read(&vfs, &path);
    for lost in 2..=5_usize {
        let mut bytes = bytes.clone();
        bytes[ends[lost - 2]..ends[lost - 1]].fill(0);
        let image = disk_of("00000000000000000001.log", &bytes);
        let (log, recovered) = open(&image).unwrap();
        let mut expected: Vec<_> = (1..lost as u64).map(|number| payload(number, 100)).collect();
        assert_eq!(recovered.records, expected);
        match recovered.report.torn {
            Some(torn) => {
                assert_eq!(torn.offset, ends[lost - 2] as u64);
                assert_eq!(torn.bytes, (ends[4] - ends[lost - 2]) as u64);
            }
            None => assert_eq!(lost, 5, "the last one left no trace"),
        }
        // Opening has added a mark of 40 bytes. With it this frame is as long as the lost one, so
        // that those behind it, were they still there, would stand right where one is expected.
        expected.push(payload(77, 60));
        put(&log, &payload(77, 60)).unwrap();
        assert_eq!(log.bytes(), ends[lost - 1] as u64);
        let (_, recovered) = open(&image.crash_image(CrashMode::LoseUnsynced)).unwrap();
        assert_eq!(recovered.records, expected, "without {lost}");
    }
}

#[test]
fn old_frames_in_a_recycled_file_stay_dead() {
    let vfs = MemoryVfs::new();
    let (log, _) = open(&vfs).unwrap();
    while live_files(&vfs).len() < 3 {
        put(&log, &payload(1, 100)).unwrap();
    }
    log.truncate_before(log.last()).unwrap();
    while log.stats().files_recycled < 2 {
        // The old frames behind each new one are whole, and begin where the next is expected.
        let position = put(&log, &payload(2, 100)).unwrap();
        let (again, _) = open(&vfs.crash_image(CrashMode::LoseUnsynced)).unwrap();
        assert_eq!(again.last(), position);
    }
    let position = put(&log, &payload(3, 100)).unwrap();
    let (again, recovered) = open(&vfs.crash_image(CrashMode::LoseUnsynced)).unwrap();
    assert_eq!((again.last(), recovered.report.torn), (position, None));
}

#[test]
fn a_crash_while_the_first_file_is_made_leaves_a_new_log() {
    let vfs = MemoryVfs::new();
    vfs.create_dir_all(Path::new(DIR)).unwrap();
    for name in ["00000000000000000001.new", "00000000000000000007.new"] {
        crate::fixture::put_file(&vfs, name, b"half a header");
    }
    let (log, recovered) = open(&vfs).unwrap();
    assert_eq!((log.first(), recovered.records.len()), (Position(1), 0));
    assert_eq!(vfs.list(Path::new(DIR)).unwrap(), ["00000000000000000001.log", "log.lock"]);
}
