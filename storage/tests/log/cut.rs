//! The last write torn at every byte.

use std::path::Path;

use kvorum_storage::Error;
use kvorum_storage::log::LogOptions;
use kvorum_storage::vfs::{CrashMode, MemoryVfs, Vfs as _};

use crate::fixture::{
    DIR, append, disk_of, is_corrupt, live_files, open, open_with, options, payload, put, put_file,
    read,
};

/// A log of one file: its bytes as a killed process leaves them, and per frame its end and how many
/// records there are up to it.
struct Sample {
    name: String,
    bytes: Vec<u8>,
    frames: Vec<(usize, usize)>,
    records: Vec<Vec<u8>>,
}

fn sample(recycled: bool) -> Sample {
    let vfs = MemoryVfs::new();
    let (log, _) = open(&vfs).unwrap();
    while recycled && log.stats().files_recycled == 0 {
        put(&log, &payload(5, 20)).unwrap();
        log.truncate_before(log.last()).unwrap();
    }
    let (mut frames, mut records) = (vec![(512, 0)], Vec::new());
    if recycled {
        records.push(payload(5, 20));
        frames.push((usize::try_from(log.bytes()).unwrap(), 1));
    }
    for (number, count) in [(1, 1), (2, 3), (5, 2), (7, 1), (8, 4)] {
        for number in number..number + count {
            let bytes = usize::try_from(number * 13 % 70).unwrap();
            records.push(payload(number, bytes));
            append(&log, &payload(number, bytes)).unwrap();
        }
        log.sync(log.last()).unwrap();
        frames.push((usize::try_from(log.bytes()).unwrap(), records.len()));
    }
    let image = vfs.crash_image(CrashMode::KeepAll);
    let [path] = &live_files(&image)[..] else { panic!("one file") };
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    Sample { name, bytes: read(&image, path), frames, records }
}

/// Cuts the sample at every byte, with `rest` where the cut part was, and checks what is recovered.
fn check(sample: &Sample, rest: impl Fn(usize) -> Vec<u8>) {
    let (end, _) = *sample.frames.last().unwrap();
    for cut in 512..=end {
        let mut bytes = sample.bytes[..cut].to_vec();
        bytes.extend(rest(cut));
        let vfs = disk_of(&sample.name, &bytes);
        // Usually the frames before the cut; now and then what follows it happens to be the same.
        let same = bytes.iter().zip(&sample.bytes).take_while(|(now, then)| now == then).count();
        let (frame_end, count) =
            *sample.frames.iter().rev().find(|(frame_end, _)| *frame_end <= same).unwrap();
        let (log, recovered) = open(&vfs).unwrap();
        assert_eq!(recovered.records, sample.records[..count], "cut at {cut}");
        if let Some(torn) = &recovered.report.torn {
            assert_eq!(torn.offset, frame_end as u64, "cut at {cut}");
            assert!(
                frame_end < same.max(cut),
                "cut at {cut}, where a frame ends, and yet {torn:?}"
            );
        } else {
            // Remains that are zeros, or too few to be told from old bytes, are no remains.
            assert!(
                cut < frame_end + 32 || sample.bytes[frame_end..cut].iter().all(|byte| *byte == 0),
                "cut at {cut}"
            );
        }

        // What was cut never comes back, whatever is written in its place.
        let mut expected = sample.records[..count].to_vec();
        expected.push(payload(99, 3));
        put(&log, &payload(99, 3)).unwrap();
        drop(log);
        let (_, again) = open(&vfs.crash_image(CrashMode::LoseUnsynced)).unwrap();
        assert_eq!((again.records, again.report.torn), (expected, None), "cut at {cut}");
    }
}

/// No crash makes a file shorter: its space was reserved before it counted.
#[test]
fn a_file_that_ends_at_the_cut_is_refused() {
    for sample in [sample(false), sample(true)] {
        for cut in 512..sample.bytes.len() {
            let error = open(&disk_of(&sample.name, &sample.bytes[..cut])).err().unwrap();
            let at = cut as u64;
            assert!(matches!(error, Error::Corrupt { offset, .. } if offset == at), "{error}");
        }
    }
}

#[test]
fn zeros_follow_the_cut() {
    let sample = sample(false);
    check(&sample, |cut| vec![0; sample.bytes.len() - cut]);
}

#[test]
fn old_bytes_follow_the_cut() {
    // Frames of another log, in a file that is used again.
    let vfs = MemoryVfs::new();
    let (log, _) = open_with(&vfs, LogOptions { salt: 8, ..options() }).unwrap();
    for number in 0..40 {
        put(&log, &payload(number, 20)).unwrap();
    }
    let old = read(&vfs, &live_files(&vfs)[0]);
    let sample = sample(true);
    check(&sample, |cut| old[cut..].to_vec());
}

#[test]
fn a_file_shorter_than_its_header_was_never_so() {
    let sample = sample(false);
    for cut in 0..512 {
        let error = open(&disk_of(&sample.name, &sample.bytes[..cut])).err().unwrap();
        assert!(is_corrupt(&error), "cut at {cut}: {error}");
    }
}

#[test]
fn a_file_that_is_not_the_last_cannot_be_torn() {
    let vfs = MemoryVfs::new();
    let (log, _) = open(&vfs).unwrap();
    for number in 0..9 {
        put(&log, &payload(number, 900)).unwrap();
    }
    drop(log);
    let files = live_files(&vfs);
    assert_eq!(files.len(), 3);
    for cut in 512..4096 {
        let image = MemoryVfs::new();
        let middle = read(&vfs, &files[1]);
        let cut_files = [read(&vfs, &files[0]), middle[..cut].to_vec(), read(&vfs, &files[2])];
        image.create_dir_all(Path::new(DIR)).unwrap();
        for (path, bytes) in files.iter().zip(cut_files) {
            put_file(&image, path.file_name().unwrap().to_str().unwrap(), &bytes);
        }
        let error = open(&image).expect_err("even where only zeros were cut off");
        assert!(is_corrupt(&error), "cut at {cut}: {error}");
        assert!(error.to_string().contains("00000000000000000002.log"), "{error}");
    }
}
