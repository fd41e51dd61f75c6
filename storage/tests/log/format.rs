//! The bytes of a log file, as `docs/storage-format.md` draws them. A change here is a change of
//! format: it needs a new version, and the old file stays.

use std::path::Path;
use std::sync::Arc;

use kvorum_storage::log::{Log, LogOptions};
use kvorum_storage::vfs::MemoryVfs;

use crate::fixture::{DIR, disk_of, live_files, options, read};

const VERSION_1: &[u8] = include_bytes!("fixtures/version-1.log");
const VERSION_2: &[u8] = include_bytes!("fixtures/version-2.log");
const VERSION_3: &[u8] = include_bytes!("fixtures/version-3.log");

fn format_options() -> LogOptions {
    LogOptions { file_bytes: 768, salt: 0, ..options() }
}

#[test]
fn the_same_records_make_the_same_file() {
    let vfs = MemoryVfs::new();
    let dir = Path::new(DIR);
    let (log, _) = Log::open(Arc::new(vfs.clone()), dir, format_options()).unwrap();
    let position = log.append(1, b"first").unwrap();
    log.sync(position).unwrap();
    log.append(16, b"").unwrap();
    let position = log.append_parts(255, &[b"two ", b"parts"]).unwrap();
    log.sync(position).unwrap();
    drop(log);
    assert_eq!(read(&vfs, &live_files(&vfs)[0]), VERSION_3);
}

#[test]
fn files_of_each_version_are_read() {
    for file in [VERSION_1, VERSION_2, VERSION_3] {
        check_read(file);
    }
}

fn check_read(file: &[u8]) {
    let vfs = disk_of("00000000000000000001.log", file);
    let (_log, mut replay) = Log::open(Arc::new(vfs), Path::new(DIR), format_options()).unwrap();
    let mut records = Vec::new();
    while let Some(record) = replay.next().unwrap() {
        records.push((record.position.0, record.kind, record.payload.to_vec()));
    }
    let expected =
        [(1, 1, b"first".to_vec()), (2, 16, Vec::new()), (3, 255, b"two parts".to_vec())];
    assert_eq!(records, expected);
    assert_eq!(replay.report().torn, None);
}
