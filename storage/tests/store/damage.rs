//! Bytes turned over, blocks in the wrong place, files gone: reported by name, and never a wrong
//! value.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use kvorum_storage::codec::{Place, checksum};
use kvorum_storage::vfs::{CrashMode, MemoryVfs, OpenMode, RealVfs, Vfs};
use kvorum_storage::{
    Batch, Compression, Direction, Durability, Error, Maintained, Options, Result, Store,
};

use crate::support::{DIR, tiny_options};

type Content = BTreeMap<Bytes, Bytes>;

fn options(compression: Compression) -> Options {
    Options { compression, ..tiny_options() }
}

/// A closed store with segments on several levels, and what is in it.
fn closed_store(compression: Compression) -> (MemoryVfs, Content) {
    let disk = MemoryVfs::new();
    let store = Store::open(Arc::new(disk.clone()), DIR.as_ref(), options(compression)).unwrap();
    let mut content = Content::new();
    for number in 0..120_u64 {
        let key = Bytes::from(format!("key{:03}", number * 37 % 101));
        let mut batch = Batch::new();
        if number % 9 == 8 {
            batch.delete(key.clone());
            content.remove(&key);
        } else {
            let value = Bytes::from(format!("value {number} {}", "z".repeat(30)));
            batch.put(key.clone(), value.clone());
            content.insert(key, value);
        }
        store.write(batch, Durability::Sync).unwrap();
        while number < 90 && store.maintain().unwrap() != Maintained::Nothing {}
    }
    store.flush().unwrap();
    let levels = store.stats().levels;
    assert!(levels.iter().filter(|level| level.segments > 0).count() >= 2, "{levels:?}");
    drop(store);
    (disk, content)
}

fn open(disk: &MemoryVfs) -> Result<Store> {
    Store::open(Arc::new(disk.clone()), DIR.as_ref(), tiny_options())
}

fn segments(disk: &MemoryVfs) -> Vec<PathBuf> {
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|end| end == "segment");
    disk.files().into_iter().filter(is_segment).collect()
}

fn read(disk: &MemoryVfs, path: &Path) -> Vec<u8> {
    disk.open(path, OpenMode::Read).unwrap().map().unwrap().to_vec()
}

/// The error says that this file is corrupt.
fn names(error: &Error, path: &Path) -> bool {
    matches!(error, Error::Corrupt { file, .. } if file == path)
}

/// Reads everything in all ways: right values or errors that name the file, nothing else.
fn check_reads(store: &Store, content: &Content, path: &Path) {
    for (key, value) in content {
        match store.get(key) {
            Ok(found) => assert_eq!(found.as_ref(), Some(value), "{key:?}"),
            Err(error) => assert!(names(&error, path), "{error}"),
        }
    }
    for direction in [Direction::Forwards, Direction::Backwards] {
        let mut expected: Vec<_> = content.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        if direction == Direction::Backwards {
            expected.reverse();
        }
        let mut read = Vec::new();
        let failed = match store.scan(.., direction) {
            Ok(scan) => {
                let mut failed = None;
                for entry in scan {
                    match entry {
                        Ok(entry) => read.push(entry),
                        Err(error) => failed = Some(error),
                    }
                }
                failed
            }
            Err(error) => Some(error),
        };
        match failed {
            None => assert_eq!(read, expected),
            Some(error) => {
                assert!(names(&error, path), "{error}");
                assert!(expected.starts_with(&read), "a wrong entry before the error");
            }
        }
    }
}

/// Turns over a bit of every byte of every segment, and more of the footers, and checks each time.
fn every_damaged_byte_is_noticed(compression: Compression) {
    let (disk, content) = closed_store(compression);
    let mut turned = 0;
    for path in segments(&disk) {
        let len = read(&disk, &path).len() as u64;
        for offset in 0..len {
            let masks = if offset + 64 >= len { 0..8 } else { offset % 8..offset % 8 + 1 };
            for mask in masks.map(|bit| 1 << bit) {
                disk.flip(&path, offset, mask).unwrap();
                match open(&disk) {
                    Err(error) => assert!(names(&error, &path), "{error}"),
                    Ok(store) => {
                        let problems = store.verify().unwrap().problems;
                        assert_eq!(problems.len(), 1, "{} at {offset}", path.display());
                        assert!(names(&problems[0], &path), "{}", problems[0]);
                        if offset % 3 == 0 {
                            check_reads(&store, &content, &path);
                        }
                    }
                }
                disk.flip(&path, offset, mask).unwrap();
                turned += 1;
            }
        }
    }
    assert!(turned > 5000, "{turned}");
    let store = open(&disk).unwrap();
    assert!(store.verify().unwrap().problems.is_empty());
    assert_eq!(store.scan(.., Direction::Forwards).unwrap().count(), content.len());
}

#[test]
fn every_damaged_byte_of_plain_segments_is_noticed() {
    every_damaged_byte_is_noticed(Compression::None);
}

#[test]
fn every_damaged_byte_of_compressed_segments_is_noticed() {
    every_damaged_byte_is_noticed(Compression::Lz4);
}

#[test]
fn compaction_does_not_launder_damage() {
    let (disk, content) = closed_store(Compression::None);
    let (mut refused, mut harmless) = (0, 0);
    for path in segments(&disk) {
        let len = read(&disk, &path).len() as u64;
        for offset in (0..len).step_by(11) {
            let image = disk.crash_image(CrashMode::KeepAll);
            image.flip(&path, offset, 1).unwrap();
            let Ok(store) = open(&image) else { continue };
            // Reads first: what they checked once must be checked again.
            check_reads(&store, &content, &path);
            match store.compact() {
                Err(error) => {
                    assert!(names(&error, &path), "{error}");
                    check_reads(&store, &content, &path);
                    drop(store);
                    // What was there is there: with the bit turned back all is well.
                    image.flip(&path, offset, 1).unwrap();
                    let store = open(&image).unwrap();
                    check_all(&store, &content);
                    refused += 1;
                }
                Ok(()) if segments(&image).contains(&path) => {
                    // Not merged, since nothing was below it. The damage is still seen.
                    assert!(!store.verify().unwrap().problems.is_empty());
                }
                Ok(()) => {
                    // The filter and the properties are made anew, not copied.
                    check_all(&store, &content);
                    harmless += 1;
                }
            }
        }
    }
    assert!(refused > 100 && harmless > 10, "{refused} {harmless}");
}

fn check_all(store: &Store, content: &Content) {
    let entries: Content =
        store.scan(.., Direction::Forwards).unwrap().map(Result::unwrap).collect();
    assert_eq!(&entries, content);
    let problems = store.verify().unwrap().problems;
    assert!(problems.is_empty(), "{problems:?}");
}

/// On a real disk, since there a map shows what happens to the file.
#[test]
fn damage_after_the_first_look_is_found_by_verify_and_by_compaction() {
    let dir = tempfile::tempdir().unwrap();
    let vfs: Arc<dyn Vfs> = Arc::new(RealVfs);
    let store = Store::open(Arc::clone(&vfs), dir.path(), tiny_options()).unwrap();
    for round in 0..2 {
        for number in 0..40 {
            store.put(format!("key{number}"), format!("value {round}"), Durability::Sync).unwrap();
        }
        store.flush().unwrap();
    }
    assert_eq!(store.scan(.., Direction::Forwards).unwrap().count(), 40, "every block was seen");
    assert!(store.verify().unwrap().problems.is_empty());

    let segments = dir.path().join("segments");
    let name = &vfs.list(&segments).unwrap()[0];
    let path = segments.join(name);
    let file = vfs.open(&path, OpenMode::ReadWrite).unwrap();
    let mut byte = [0];
    file.read_at(&mut byte, 20).unwrap();
    file.write_at(&[byte[0] ^ 1], 20).unwrap();

    let problems = store.verify().unwrap().problems;
    assert!(problems.len() == 1 && names(&problems[0], &path), "{problems:?}");
    let error = store.compact().unwrap_err();
    assert!(names(&error, &path), "{error}");
}

#[test]
fn every_damaged_bit_of_the_manifest_is_noticed() {
    let (disk, _) = closed_store(Compression::None);
    let path = Path::new(DIR).join("MANIFEST");
    for bit in 0..read(&disk, &path).len() as u64 * 8 {
        disk.flip(&path, bit / 8, 1 << (bit % 8)).unwrap();
        let error = open(&disk).err().unwrap();
        assert!(names(&error, &path), "bit {bit}: {error}");
        disk.flip(&path, bit / 8, 1 << (bit % 8)).unwrap();
    }
    open(&disk).unwrap();
}

#[test]
fn a_manifest_that_counts_marks_beyond_the_log_is_refused() {
    let (disk, _) = closed_store(Compression::None);
    let path = Path::new(DIR).join("MANIFEST");
    let mut bytes = read(&disk, &path);
    // Its flushed mark, beyond the flushed position behind it.
    bytes[32..40].copy_from_slice(&1_000_000_u64.to_le_bytes());
    let end = bytes.len() - 4;
    let sum = checksum(Place { file: 0, offset: 0 }, &bytes[..end]);
    bytes[end..].copy_from_slice(&sum.to_le_bytes());
    disk.open(&path, OpenMode::ReadWrite).unwrap().write_at(&bytes, 0).unwrap();
    let error = open(&disk).err().unwrap();
    assert!(names(&error, &path), "{error}");
}

#[test]
fn a_manifest_damaged_while_the_store_is_open_is_found_by_verify() {
    let (disk, _) = closed_store(Compression::None);
    let store = open(&disk).unwrap();
    let path = Path::new(DIR).join("MANIFEST");
    disk.flip(&path, 40, 1).unwrap();
    let problems = store.verify().unwrap().problems;
    assert!(problems.len() == 1 && names(&problems[0], &path), "{problems:?}");
}

#[test]
fn a_right_block_in_the_wrong_place_is_not_believed() {
    let disk = MemoryVfs::new();
    let store = open(&disk).unwrap();
    for round in ["one", "two"] {
        for number in 0..12 {
            store.put(format!("key{number:02}"), round, Durability::Sync).unwrap();
        }
        store.flush().unwrap();
    }
    drop(store);
    let paths = segments(&disk);
    let [old, new] = paths.as_slice() else { panic!("{paths:?}") };

    // The same keys and lengths: everything lies at the same offsets, and its sums are right. So
    // but for the file that the sums speak of, the old blocks could pass for the new ones.
    let image = disk.crash_image(CrashMode::KeepAll);
    let (old_bytes, new_bytes) = (read(&image, old), read(&image, new));
    assert_eq!(old_bytes.len(), new_bytes.len());
    assert_ne!(old_bytes[..200], new_bytes[..200]);
    let all_but_the_footer = &old_bytes[..old_bytes.len() - 64];
    image.open(new, OpenMode::ReadWrite).unwrap().write_at(all_but_the_footer, 0).unwrap();
    let store = open(&image).unwrap();
    let error = store.get(b"key00").unwrap_err();
    assert!(names(&error, new), "{error}");

    // A whole segment under another's name.
    let image = disk.crash_image(CrashMode::KeepAll);
    image.rename(old, new).unwrap();
    image.open(old, OpenMode::Create).unwrap().write_at(&new_bytes, 0).unwrap();
    let error = open(&image).err().unwrap();
    assert!(names(&error, old) || names(&error, new), "{error}");
}

#[test]
fn a_file_that_is_gone_is_named() {
    let (disk, _) = closed_store(Compression::None);
    let manifest = Path::new(DIR).join("MANIFEST");
    for path in segments(&disk).into_iter().chain([manifest]) {
        let image = disk.crash_image(CrashMode::KeepAll);
        image.remove(&path).unwrap();
        let error = open(&image).err().unwrap();
        assert!(matches!(&error, Error::Missing { file } if *file == path), "{error}");
    }
    // A log that is gone as a whole must not pass for one that has not begun.
    let image = disk.crash_image(CrashMode::KeepAll);
    let log = Path::new(DIR).join("log");
    for name in image.list(&log).unwrap() {
        image.remove(&log.join(name)).unwrap();
    }
    let error = open(&image).err().unwrap();
    assert!(matches!(&error, Error::Missing { file } if *file == log), "{error}");
}

#[test]
fn a_log_of_another_time_is_refused() {
    let (disk, _) = closed_store(Compression::None);
    let young = MemoryVfs::new();
    open(&young).unwrap().put("key", "value", Durability::Sync).unwrap();
    let log = Path::new(DIR).join("log");
    for name in disk.list(&log).unwrap() {
        disk.remove(&log.join(name)).unwrap();
    }
    for name in young.list(&log).unwrap() {
        let file = disk.open(&log.join(&name), OpenMode::Create).unwrap();
        file.write_at(&read(&young, &log.join(&name)), 0).unwrap();
    }
    let error = open(&disk).err().unwrap();
    assert!(names(&error, &log), "{error}");
}
