//! Files that were written when their format was new can still be read, and the same content is
//! still written in the same bytes, if their format is still written. The fixtures are never changed:
//! a new format gets new ones. Only a new version of LZ4 that compresses better may change what is
//! written to the second segment.
//!
//! `version-1` and `version-2` are named for their manifests; their segments are of version 1.
//! `segments-2` and `staged-2` have the same content in segments of version 2.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use kvorum_storage::vfs::{MemoryVfs, OpenMode, Vfs};
use kvorum_storage::{Batch, Compression, Direction, Durability, Options, Position, Store};

use crate::support::{DIR, tiny_options};

/// A checkpoint of version 1, segment 1 plain and segment 2 with LZ4.
const VERSION_1: [(&str, &[u8]); 3] = [
    ("MANIFEST", include_bytes!("fixtures/version-1/MANIFEST")),
    (
        "segments/0000000000000001.segment",
        include_bytes!("fixtures/version-1/segments/0000000000000001.segment"),
    ),
    (
        "segments/0000000000000002.segment",
        include_bytes!("fixtures/version-1/segments/0000000000000002.segment"),
    ),
];

/// As version 1, with segments of version 2.
const SEGMENTS_2: [(&str, &[u8]); 3] = [
    ("MANIFEST", include_bytes!("fixtures/segments-2/MANIFEST")),
    (
        "segments/0000000000000001.segment",
        include_bytes!("fixtures/segments-2/segments/0000000000000001.segment"),
    ),
    (
        "segments/0000000000000002.segment",
        include_bytes!("fixtures/segments-2/segments/0000000000000002.segment"),
    ),
];

/// A manifest of version 2: with a segment of level 0, and two that are staged as of mark 7.
const VERSION_2: [(&str, &[u8]); 4] = [
    ("MANIFEST", include_bytes!("fixtures/version-2/MANIFEST")),
    (
        "segments/0000000000000001.segment",
        include_bytes!("fixtures/version-2/segments/0000000000000001.segment"),
    ),
    (
        "segments/0000000000000002.segment",
        include_bytes!("fixtures/version-2/segments/0000000000000002.segment"),
    ),
    (
        "segments/0000000000000003.segment",
        include_bytes!("fixtures/version-2/segments/0000000000000003.segment"),
    ),
];

/// As version 2, with segments of version 2.
const STAGED_2: [(&str, &[u8]); 4] = [
    ("MANIFEST", include_bytes!("fixtures/staged-2/MANIFEST")),
    (
        "segments/0000000000000001.segment",
        include_bytes!("fixtures/staged-2/segments/0000000000000001.segment"),
    ),
    (
        "segments/0000000000000002.segment",
        include_bytes!("fixtures/staged-2/segments/0000000000000002.segment"),
    ),
    (
        "segments/0000000000000003.segment",
        include_bytes!("fixtures/staged-2/segments/0000000000000003.segment"),
    ),
];

fn options(compression: Compression) -> Options {
    Options { compression, level0_segments: 4, ..tiny_options() }
}

fn put_files(disk: &MemoryVfs, files: &[(&str, &[u8])]) {
    disk.create_dir_all(&Path::new(DIR).join("segments")).unwrap();
    for (name, bytes) in files {
        let file = disk.open(&Path::new(DIR).join(name), OpenMode::Create).unwrap();
        file.write_at(bytes, 0).unwrap();
    }
}

/// What is in the fixture.
fn content() -> [Batch; 2] {
    let (mut first, mut second) = (Batch::new(), Batch::new());
    for number in 0..12 {
        first.put(format!("key{number:02}"), format!("first {number}").repeat(5));
    }
    for number in 6..18 {
        second.put(format!("key{number:02}"), format!("second {number}").repeat(5));
    }
    second.delete("key00").delete("never").put("empty", "");
    [first, second]
}

#[test]
fn version_1_is_read() {
    two_segments_are_read(&VERSION_1);
}

#[test]
fn segments_of_version_2_are_read() {
    two_segments_are_read(&SEGMENTS_2);
}

fn two_segments_are_read(files: &[(&str, &[u8])]) {
    let disk = MemoryVfs::new();
    put_files(&disk, files);
    let store = Store::open(Arc::new(disk), DIR.as_ref(), tiny_options()).unwrap();
    let report = store.verify().unwrap();
    assert_eq!((report.segments, report.entries), (2, 26));
    assert!(report.problems.is_empty(), "{:?}", report.problems);

    let expected = Store::open(Arc::new(MemoryVfs::new()), DIR.as_ref(), tiny_options()).unwrap();
    for batch in content() {
        expected.write(batch, Durability::Buffered).unwrap();
    }
    let all = |store: &Store| -> Vec<_> {
        store.scan(.., Direction::Forwards).unwrap().map(Result::unwrap).collect()
    };
    assert_eq!(all(&store), all(&expected));
    assert_eq!(store.get(b"key00").unwrap(), None);
    for number in 0..20 {
        let key = format!("key{number:02}");
        assert_eq!(store.get(key.as_bytes()).unwrap(), expected.get(key.as_bytes()).unwrap());
    }
}

#[test]
fn segments_of_version_2_are_written() {
    let disk = MemoryVfs::new();
    let mut store = None;
    for (batch, compression) in content().into_iter().zip([Compression::None, Compression::Lz4]) {
        drop(store.take());
        let opened = Store::open(Arc::new(disk.clone()), DIR.as_ref(), options(compression));
        let opened = store.insert(opened.unwrap());
        opened.write(batch, Durability::Sync).unwrap();
        opened.flush().unwrap();
    }
    store.unwrap().checkpoint("/copy".as_ref()).unwrap();
    for (name, bytes) in SEGMENTS_2 {
        let path = Path::new("/copy").join(name);
        let written = disk.open(&path, OpenMode::Read).unwrap().map().unwrap();
        assert_eq!(written, bytes, "{name}");
    }
}

fn staged_rows() -> Vec<(Bytes, Bytes)> {
    let row =
        |number| (format!("row{number:02}").into(), format!("staged {number}").repeat(6).into());
    (0..30).map(row).collect()
}

/// The batch in the tree of version 2.
fn old_batch() -> Batch {
    let mut batch = Batch::new();
    batch.put("old", "to be replaced").delete("gone");
    batch
}

#[test]
fn version_2_is_read() {
    staged_segments_are_read(&VERSION_2);
}

#[test]
fn staged_segments_of_version_2_are_read() {
    staged_segments_are_read(&STAGED_2);
}

fn staged_segments_are_read(files: &[(&str, &[u8])]) {
    // Beside a log with nothing in it, on which the segments do not rest.
    let disk = MemoryVfs::new();
    drop(Store::open(Arc::new(disk.clone()), DIR.as_ref(), tiny_options()).unwrap());
    disk.remove(&Path::new(DIR).join("MANIFEST")).unwrap();
    put_files(&disk, files);
    let all = |store: &Store| -> Vec<_> {
        store.scan(.., Direction::Forwards).unwrap().map(Result::unwrap).collect()
    };
    let (store, _) = Store::open_with_replay(Arc::new(disk), DIR.as_ref(), tiny_options()).unwrap();
    assert_eq!((store.sealed_mark(), store.stats().staged_rows), (Some(7), 30));
    assert_eq!(store.verify().unwrap().segments, 3);
    assert_eq!(all(&store), [("old".into(), "to be replaced".into())]);
    let position = store.log().append(16, b"installs").unwrap();
    store.install(7, position).unwrap();
    assert_eq!(all(&store), staged_rows());
    assert!(store.verify().unwrap().problems.is_empty());
}

#[test]
fn staged_segments_of_version_2_are_written() {
    let disk = MemoryVfs::new();
    let (store, _) =
        Store::open_with_replay(Arc::new(disk.clone()), DIR.as_ref(), tiny_options()).unwrap();
    store.apply(1, Position(0), &old_batch()).unwrap();
    store.flush().unwrap();
    store.stage(true, &staged_rows()).unwrap();
    store.seal_staged(7).unwrap();
    for (name, bytes) in STAGED_2 {
        let path = Path::new(DIR).join(name);
        let written = disk.open(&path, OpenMode::Read).unwrap().map().unwrap();
        assert_eq!(written, bytes, "{name}");
    }
}
