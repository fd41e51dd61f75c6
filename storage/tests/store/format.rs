//! Files that were written when their format was new can still be read, and the same content is
//! still written in the same bytes. The fixtures are never changed: a new format gets new ones. Only
//! a new version of LZ4 that compresses better may change what is written to the second segment.

use std::path::Path;
use std::sync::Arc;

use kvorum_storage::vfs::{MemoryVfs, OpenMode, Vfs};
use kvorum_storage::{Batch, Compression, Direction, Durability, Options, Store};

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

fn options(compression: Compression) -> Options {
    Options { compression, level0_segments: 4, ..tiny_options() }
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
    let disk = MemoryVfs::new();
    disk.create_dir_all(&Path::new(DIR).join("segments")).unwrap();
    for (name, bytes) in VERSION_1 {
        let file = disk.open(&Path::new(DIR).join(name), OpenMode::Create).unwrap();
        file.write_at(bytes, 0).unwrap();
    }
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
}

#[test]
fn version_1_is_written() {
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
    for (name, bytes) in VERSION_1 {
        let path = Path::new("/copy").join(name);
        let written = disk.open(&path, OpenMode::Read).unwrap().map().unwrap();
        assert_eq!(written, bytes, "{name}");
    }
}
