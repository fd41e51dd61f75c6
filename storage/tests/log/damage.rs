//! Bits that turn over, files that go missing, frames in the wrong place.

use std::path::Path;

use kvorum_storage::Error;
use kvorum_storage::log::{LogOptions, Position};
use kvorum_storage::vfs::{CrashMode, MemoryVfs, Vfs as _};

use crate::fixture::{DIR, append, is_corrupt, live_files, open_with, options, payload, put, read};

/// Small files, so that every bit of a log of several can be turned.
fn tiny() -> LogOptions {
    LogOptions { file_bytes: 1024, ..options() }
}

/// A log of at least three files, the last of them with several frames.
fn sample(recycled: bool) -> (MemoryVfs, Vec<Vec<u8>>) {
    sample_on(MemoryVfs::new(), recycled)
}

fn sample_on(vfs: MemoryVfs, recycled: bool) -> (MemoryVfs, Vec<Vec<u8>>) {
    let (log, _) = open_with(&vfs, tiny()).unwrap();
    let mut number = 0;
    if recycled {
        while live_files(&vfs).len() < 4 {
            number += 1;
            put(&log, &payload(number, 40)).unwrap();
        }
        log.truncate_before(log.last()).unwrap();
    }
    while live_files(&vfs).len() < 3 || log.bytes() < 2 * 1024 + 512 + 300 {
        number += 1;
        append(&log, &payload(number, 20)).unwrap();
        number += 1;
        put(&log, &payload(number, 30)).unwrap();
    }
    assert_eq!(log.stats().files_recycled, if recycled { 2 } else { 0 });
    drop(log);
    let (_, recovered) = open_with(&vfs.crash_image(CrashMode::KeepAll), tiny()).unwrap();
    assert!(recovered.records.len() > 10);
    (vfs, recovered.records)
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Outcomes {
    refused: usize,
    harmless: usize,
    /// What comes after the records was cut, and reported.
    end_cut: usize,
    last_frame_cut: usize,
}

/// Turns each bit of each file, one at a time. No record may ever be wrong, and only the last
/// frame may ever be missing, and be reported.
fn turn_every_bit(vfs: &MemoryVfs, records: &[Vec<u8>]) -> Outcomes {
    let mut outcomes = Outcomes::default();
    for path in live_files(vfs) {
        for bit in 0..read(vfs, &path).len() as u64 * 8 {
            let image = vfs.crash_image(CrashMode::KeepAll);
            image.flip(&path, bit / 8, 1 << (bit % 8)).unwrap();
            match open_with(&image, tiny()) {
                Err(error) => {
                    assert!(is_corrupt(&error), "{} bit {bit}: {error}", path.display());
                    let named = error.to_string().contains(&path.display().to_string());
                    assert!(named, "{} bit {bit}: {error}", path.display());
                    outcomes.refused += 1;
                }
                Ok((_, recovered)) if recovered.records == records => match recovered.report.torn {
                    Some(_) => outcomes.end_cut += 1,
                    None => outcomes.harmless += 1,
                },
                Ok((_, recovered)) => {
                    assert_eq!(recovered.records, records[..records.len() - 2], "bit {bit}");
                    let torn = recovered.report.torn.unwrap();
                    assert_eq!(torn.file, path);
                    outcomes.last_frame_cut += 1;
                }
            }
        }
    }
    outcomes
}

#[test]
fn every_bit_of_a_closed_log() {
    for (recycled, direct) in [(false, Some(64)), (true, Some(64)), (false, None), (true, None)] {
        let (vfs, records) = sample_on(MemoryVfs::new().with_direct(direct), recycled);
        let outcomes = turn_every_bit(&vfs, &records);
        assert_eq!(outcomes.last_frame_cut, 0, "the mark at the end bears witness");
        assert!(outcomes.refused > 10_000, "{outcomes:?}");
        assert!(outcomes.end_cut >= 40 * 8, "the mark itself: {outcomes:?}");
        assert!(outcomes.harmless > 100, "{outcomes:?}");
    }
}

#[test]
fn every_bit_of_the_log_of_a_killed_process() {
    for recycled in [false, true] {
        let (vfs, records) = sample(recycled);
        // The mark at the end is not synced, so this takes it and nothing else.
        let killed = vfs.crash_image(CrashMode::LoseUnsynced);
        let outcomes = turn_every_bit(&killed, &records);
        assert!(outcomes.last_frame_cut > 500, "{outcomes:?}");
        assert!(outcomes.refused > 10_000, "{outcomes:?}");
    }
}

#[test]
fn what_an_opening_has_shown_is_never_cut_later() {
    let (vfs, records) = sample(false);
    // Killed before the mark, opened again, and killed again without another record.
    let killed = vfs.crash_image(CrashMode::LoseUnsynced);
    let (log, recovered) = open_with(&killed, tiny()).unwrap();
    assert_eq!(recovered.records, records);
    let end = log.bytes() - 1024 * (live_files(&killed).len() as u64 - 1);
    let killed = killed.crash_image(CrashMode::KeepAll);
    drop(log);
    let path = live_files(&killed).pop().unwrap();
    // The last frame before the mark, and the zeros behind it.
    for bit in (end - 192) * 8..(end - 64) * 8 {
        let image = killed.crash_image(CrashMode::KeepAll);
        image.flip(&path, bit / 8, 1 << (bit % 8)).unwrap();
        assert!(is_corrupt(&open_with(&image, tiny()).err().unwrap()), "bit {bit}");
    }
}

#[test]
fn a_file_that_is_missing_is_named() {
    let (vfs, records) = sample(false);
    let files = live_files(&vfs);
    let without = |index: usize| {
        let image = vfs.crash_image(CrashMode::KeepAll);
        image.remove(&files[index]).unwrap();
        open_with(&image, tiny())
    };
    let Err(Error::Missing { file }) = without(1) else { panic!("the middle is missing") };
    assert_eq!(file, files[1]);

    let last = files.len() - 1;
    let Err(Error::Missing { file }) = without(last) else { panic!("the last is missing") };
    assert_eq!(file, files[last]);

    // The log alone cannot know that it once began earlier; whoever relies on a position compares.
    let (log, recovered) = without(0).unwrap();
    assert!(log.first() > Position(1));
    assert_eq!(recovered.records, records[records.len() - recovered.records.len()..]);
}

#[test]
fn a_log_of_which_only_free_files_are_left_is_missing_its_end() {
    let (vfs, _) = sample(false);
    let (log, _) = open_with(&vfs, tiny()).unwrap();
    log.truncate_before(log.last()).unwrap();
    drop(log);
    for path in live_files(&vfs) {
        vfs.remove(&path).unwrap();
    }
    let error = open_with(&vfs, tiny()).err().unwrap();
    assert!(matches!(error, Error::Missing { .. }), "{error}");
}

#[test]
fn files_under_each_others_names_are_noticed() {
    let (vfs, _) = sample(false);
    let files = live_files(&vfs);
    vfs.rename(&files[0], &Path::new(DIR).join("spare")).unwrap();
    vfs.rename(&files[1], &files[0]).unwrap();
    vfs.rename(&Path::new(DIR).join("spare"), &files[1]).unwrap();
    let error = open_with(&vfs, tiny()).err().unwrap();
    assert!(is_corrupt(&error), "{error}");
}

#[test]
fn refusing_to_open_changes_nothing() {
    let (vfs, _) = sample(false);
    let path = &live_files(&vfs)[2];
    vfs.flip(path, 512 + 100, 1).unwrap();
    let before = read(&vfs, path);
    for _ in 0..2 {
        assert!(is_corrupt(&open_with(&vfs, tiny()).err().unwrap()));
    }
    assert_eq!(read(&vfs, path), before);
    vfs.flip(path, 512 + 100, 1).unwrap();
    open_with(&vfs, tiny()).unwrap();
}
