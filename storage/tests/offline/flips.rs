//! Every byte turned over, every file cut at every length, every file removed: each time it is
//! named, or it was no matter.

use std::collections::BTreeMap;
use std::path::Path;

use kvorum_storage::inspect::{Grade, Owner};
use kvorum_storage::vfs::{MemoryVfs, OpenMode, Vfs};

use crate::support::{
    all_files, closed_log, closed_store, copy, damage, frames_end, is_log_file, log_owner, replay,
    rows, scan, verify,
};

/// What became of flips, by class.
#[derive(Debug, Default)]
struct Counts {
    damage: u32,
    torn: u32,
    /// In the seal of a log file that another one follows: it would be asked only if that were gone.
    seal: u32,
    /// Behind the frames of a log file that is not the last: space that was never used, or old bytes.
    slack: u32,
    /// Behind the frames of the last log file, which had been used before: old bytes.
    old: u32,
    /// In a file that is kept to be used again.
    free: u32,
}

/// Turns over a bit of every byte of every file, and has it judged.
fn flip_all(disk: &MemoryVfs, owner: Owner, still_right: impl Fn(&MemoryVfs) -> bool) -> Counts {
    let files = all_files(disk);
    let last_log = files.keys().rfind(|path| is_log_file(path)).cloned().unwrap();
    let mut counts = Counts::default();
    for (path, bytes) in &files {
        for offset in 0..bytes.len() as u64 {
            let mask = 1 << (offset % 8);
            disk.flip(path, offset, mask).unwrap();
            let verified = verify(disk, owner);
            let named = |grade| {
                let finding = verified.findings.iter().find(|finding| finding.grade == grade);
                finding.map(|finding| assert!(finding.file == *path, "{finding:?}")).is_some()
            };
            if named(Grade::Damage) {
                counts.damage += 1;
            } else if named(Grade::Torn) {
                // A closed log ends with a mark, so that nothing but the mark can be torn.
                assert!(*path == last_log, "{} at {offset}", path.display());
                assert!(still_right(disk), "{} at {offset}", path.display());
                counts.torn += 1;
            } else {
                // Nobody noticed: then it must not matter.
                assert!(still_right(disk), "{} at {offset}", path.display());
                if path.extension().is_some_and(|end| end == "free") {
                    counts.free += 1;
                } else {
                    assert!(is_log_file(path), "{} at {offset}", path.display());
                    let (end, sealed_end) = frames_end(bytes);
                    assert!(offset >= end, "{} at {offset}", path.display());
                    let count = match (*path == last_log, offset < sealed_end) {
                        (true, _) => &mut counts.old,
                        (false, true) => &mut counts.seal,
                        (false, false) => &mut counts.slack,
                    };
                    *count += 1;
                }
            }
            disk.flip(path, offset, mask).unwrap();
        }
    }
    counts
}

#[test]
fn every_flipped_byte_of_a_store_is_named_or_does_not_matter() {
    let (disk, content) = closed_store();
    assert!(verify(&disk, Owner::default()).is_sound());
    let counts = flip_all(&disk, Owner::default(), |disk| rows(disk) == (content.clone(), false));
    println!("{counts:?}");
    assert!(counts.damage > 4000, "{counts:?}");
}

#[test]
fn every_flipped_byte_of_a_log_is_named_or_does_not_matter() {
    let (disk, records) = closed_log();
    assert!(verify(&disk, log_owner()).is_sound());
    let counts = flip_all(&disk, log_owner(), |disk| replay(&copy(disk)).unwrap() == records);
    println!("{counts:?}");
    assert!(counts.damage > 2000, "{counts:?}");
}

/// Each file cut at each length: verify names it, or opening gives all that was written.
#[test]
fn every_cut_file_is_named_or_does_not_matter() {
    let (disk, content) = closed_store();
    let (mut named, mut harmless) = (0, BTreeMap::<String, u32>::new());
    for (path, bytes) in all_files(&disk) {
        for len in 0..bytes.len() {
            let file = disk.open(&path, OpenMode::ReadWrite).unwrap();
            file.set_len(len as u64).unwrap();
            let verified = verify(&disk, Owner::default());
            if damage(&verified).is_empty() {
                assert_eq!(rows(&disk), (content.clone(), false), "{} at {len}", path.display());
                if len % 64 == 0 {
                    assert_eq!(scan(&copy(&disk)).unwrap(), content, "{} at {len}", path.display());
                }
                let kind = path.extension().unwrap().to_str().unwrap().to_owned();
                *harmless.entry(kind).or_default() += 1;
            } else {
                named += 1;
            }
            file.set_len(0).unwrap();
            file.write_at(&bytes, 0).unwrap();
        }
    }
    println!("{named} named, harmless: {harmless:?}");
    assert!(named > 4000, "{named}");
    assert!(harmless.keys().all(|kind| kind == "log" || kind == "free"), "{harmless:?}");
}

#[test]
fn every_removed_file_is_named_or_does_not_matter() {
    let (disk, content) = closed_store();
    let mut harmless = Vec::new();
    for path in disk.files() {
        let image = copy(&disk);
        image.remove(&path).unwrap();
        let verified = verify(&image, Owner::default());
        if damage(&verified).is_empty() {
            assert_eq!(scan(&image).unwrap(), content, "{}", path.display());
            harmless.push(path);
        }
    }
    let is_harmless =
        |path: &Path| path.extension().is_some_and(|end| end == "free" || end == "lock");
    assert!(harmless.iter().all(|path| is_harmless(path)), "{harmless:?}");
}

#[test]
fn every_removed_file_of_a_log_is_named_or_does_not_matter() {
    let (disk, records) = closed_log();
    let mut harmless = Vec::new();
    for path in disk.files() {
        let image = copy(&disk);
        image.remove(&path).unwrap();
        let verified = verify(&image, log_owner());
        if damage(&verified).is_empty() {
            let found = replay(&image).unwrap();
            assert_eq!(found, records, "{}", path.display());
            harmless.push(path);
        }
    }
    let is_harmless =
        |path: &Path| path.extension().is_some_and(|end| end == "free" || end == "lock");
    assert!(harmless.iter().all(|path| is_harmless(path)), "{harmless:?}");
}
