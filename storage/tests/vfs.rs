//! The disks keep the contract of `Vfs`, and the in-memory one crashes as real ones do.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use kvorum_storage::vfs::{
    CrashMode, Fault, FaultyVfs, MemoryVfs, OpenMode, Operation, Outcome, Phase, RealVfs, Vfs,
};

/// Runs a check on the real file system and on the one in memory: what holds for one holds for
/// the other.
fn on_both(check: impl Fn(&dyn Vfs, &Path)) {
    let real = tempfile::tempdir().unwrap();
    check(&RealVfs, &real.path().join("a/b"));
    check(&MemoryVfs::new(), Path::new("/a/b"));
}

fn read(vfs: &dyn Vfs, path: &Path) -> Vec<u8> {
    let file = vfs.open(path, OpenMode::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap() + 1];
    let count = file.read_at(&mut bytes, 0).unwrap();
    bytes.truncate(count);
    bytes
}

fn write(vfs: &dyn Vfs, path: &Path, bytes: &[u8]) {
    vfs.open(path, OpenMode::Create).unwrap().write_at(bytes, 0).unwrap();
}

/// Whoever opened a pipe in the place of a file would wait for ever.
#[test]
fn what_is_no_file_is_refused_at_once() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).unwrap();
    for path in [pipe.as_path(), directory.path()] {
        let refused = RealVfs.open(path, OpenMode::Read).err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{refused}");
    }
}

#[test]
fn files_are_made_written_and_read() {
    on_both(|vfs, dir| {
        let path = dir.join("file");
        let missing = vfs.open(&path, OpenMode::Create).err().unwrap();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound, "no directory yet");
        vfs.create_dir_all(dir).unwrap();
        vfs.create_dir_all(dir).unwrap();
        let missing = vfs.open(&path, OpenMode::ReadWrite).err().unwrap();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);

        let file = vfs.open(&path, OpenMode::Create).unwrap();
        assert!(file.is_empty().unwrap());
        assert!(file.map().unwrap().is_empty());
        file.write_at(b"world", 6).unwrap();
        file.write_at(b"hello", 0).unwrap();
        file.sync().unwrap();
        vfs.sync_dir(dir).unwrap();
        assert_eq!(read(vfs, &path), b"hello\0world");
        let again = vfs.open(&path, OpenMode::Create).err().unwrap();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);

        let reader = vfs.open(&path, OpenMode::Read).unwrap();
        assert!(reader.write_at(b"no", 0).is_err());
        let mut buffer = [0; 8];
        assert_eq!(reader.read_at(&mut buffer, 6).unwrap(), 5);
        assert_eq!(&buffer[..5], b"world");
        assert_eq!(reader.read_at(&mut buffer, 100).unwrap(), 0);
        assert_eq!(&reader.map().unwrap()[..], b"hello\0world");
    });
}

#[test]
fn lengths_change_and_cut_bytes_stay_cut() {
    on_both(|vfs, dir| {
        vfs.create_dir_all(dir).unwrap();
        let file = vfs.open(&dir.join("file"), OpenMode::Create).unwrap();
        file.write_at(b"secret", 0).unwrap();
        file.set_len(1).unwrap();
        file.set_len(4).unwrap();
        assert_eq!(read(vfs, &dir.join("file")), b"s\0\0\0");
        file.allocate(6).unwrap();
        file.allocate(2).unwrap();
        file.allocate(0).unwrap();
        assert_eq!(read(vfs, &dir.join("file")), b"s\0\0\0\0\0");
    });
}

#[test]
fn names_are_renamed_linked_listed_and_removed() {
    on_both(|vfs, dir| {
        vfs.create_dir_all(&dir.join("below")).unwrap();
        write(vfs, &dir.join("one"), b"1");
        write(vfs, &dir.join("two"), b"2");
        vfs.rename(&dir.join("one"), &dir.join("two")).unwrap();
        vfs.hard_link(&dir.join("two"), &dir.join("three")).unwrap();
        assert!(vfs.hard_link(&dir.join("two"), &dir.join("three")).is_err());
        assert_eq!(vfs.list(dir).unwrap(), ["below", "three", "two"]);

        let open = vfs.open(&dir.join("two"), OpenMode::ReadWrite).unwrap();
        vfs.remove(&dir.join("two")).unwrap();
        open.write_at(b"!", 0).unwrap();
        assert_eq!(read(vfs, &dir.join("three")), b"!", "two names, one file");
        let gone = vfs.remove(&dir.join("two")).err().unwrap();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
        assert!(vfs.rename(&dir.join("two"), &dir.join("four")).is_err());
        assert!(vfs.list(&dir.join("nowhere")).is_err());
    });
}

/// Bytes at an address that direct writes can begin at.
fn aligned(buffer: &[u8]) -> &[u8] {
    let start = buffer.as_ptr().align_offset(4096);
    &buffer[start..start + 8192]
}

#[test]
fn direct_writes_and_others_see_each_other() {
    on_both(|vfs, dir| {
        vfs.create_dir_all(dir).unwrap();
        let path = dir.join("file");
        assert!(vfs.open_direct(&path).is_err(), "it makes no file");
        let file = vfs.open(&path, OpenMode::Create).unwrap();
        file.write_at(&[1; 16 << 10], 0).unwrap();
        // Not every file system has them.
        let Some(direct) = vfs.open_direct(&path).unwrap() else { return };
        let alignment = direct.alignment();
        assert!(alignment.is_power_of_two() && alignment <= 4096, "{alignment}");
        let twos = vec![2; 3 * 4096];
        direct.write_at(aligned(&twos), 4096).unwrap();
        file.write_at(&[3; 10], 8190).unwrap();
        file.start_sync(0, 16 << 10);
        direct.write_at(&aligned(&twos)[..alignment], 0).unwrap();
        file.sync().unwrap();
        let mut expected = vec![1; 16 << 10];
        expected[4096..12288].fill(2);
        expected[8190..8200].fill(3);
        expected[..alignment].fill(2);
        assert_eq!(read(vfs, &path), expected);
    });
}

#[test]
fn a_crash_takes_direct_writes_that_were_not_synced() {
    let (vfs, dir) = memory();
    let file = vfs.open(&dir.join("file"), OpenMode::Create).unwrap();
    file.write_at(&[1; 1024], 0).unwrap();
    file.sync().unwrap();
    vfs.sync_dir(&dir).unwrap();
    let direct = vfs.open_direct(&dir.join("file")).unwrap().unwrap();
    let twos = vec![2; 3 * 4096];
    direct.write_at(&aligned(&twos)[..1024], 0).unwrap();
    // Real file systems may go through the cache then; this one tells.
    assert!(direct.write_at(&aligned(&twos)[1..=64], 0).is_err());
    assert!(direct.write_at(&aligned(&twos)[..63], 0).is_err());
    assert!(direct.write_at(&aligned(&twos)[..64], 1).is_err());
    let without = vfs.clone().with_direct(None);
    assert!(without.open_direct(&dir.join("file")).unwrap().is_none());
    let first = |vfs: &MemoryVfs| read(vfs, &dir.join("file"))[0];
    assert_eq!(first(&vfs), 2);
    assert_eq!(first(&vfs.crash_image(CrashMode::LoseUnsynced)), 1);
    file.sync().unwrap();
    assert_eq!(first(&vfs.crash_image(CrashMode::LoseUnsynced)), 2);

    let faulty = FaultyVfs::new(Arc::new(vfs.clone()));
    let direct = faulty.open_direct(&dir.join("file")).unwrap().unwrap();
    let fault = faulty.arm(Fault::once(Operation::Write, Outcome::ShortWrite(600)));
    let threes = vec![3; 3 * 4096];
    assert!(direct.write_at(&aligned(&threes)[..1024], 0).is_err());
    assert_eq!(fault.fired(), 1);
    let bytes = read(&vfs, &dir.join("file"));
    assert_eq!((bytes[575], bytes[576]), (3, 2), "whole units of its alignment");
}

#[test]
fn a_lock_excludes_until_it_is_dropped() {
    on_both(|vfs, dir| {
        vfs.create_dir_all(dir).unwrap();
        let held = vfs.lock(&dir.join("LOCK")).unwrap();
        let refused = vfs.lock(&dir.join("LOCK")).err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        drop(held);
        vfs.lock(&dir.join("LOCK")).unwrap();
    });
}

fn memory() -> (MemoryVfs, PathBuf) {
    let vfs = MemoryVfs::new();
    let dir = PathBuf::from("/disk");
    vfs.create_dir_all(&dir).unwrap();
    (vfs, dir)
}

#[test]
fn a_crash_takes_what_was_not_synced() {
    let (vfs, dir) = memory();
    let kept = vfs.open(&dir.join("kept"), OpenMode::Create).unwrap();
    kept.write_at(b"old", 0).unwrap();
    kept.sync().unwrap();
    vfs.sync_dir(&dir).unwrap();
    assert_eq!(vfs.unsynced(), 0);
    kept.write_at(b"newer", 0).unwrap();
    write(&vfs, &dir.join("made"), b"bytes");
    vfs.rename(&dir.join("kept"), &dir.join("moved")).unwrap();
    let _lock = vfs.lock(&dir.join("LOCK")).unwrap();

    let image = vfs.crash_image(CrashMode::LoseUnsynced);
    assert_eq!(image.list(&dir).unwrap(), ["kept"]);
    assert_eq!(read(&image, &dir.join("kept")), b"old");

    let image = vfs.crash_image(CrashMode::KeepAll);
    assert_eq!(image.list(&dir).unwrap(), ["LOCK", "made", "moved"]);
    assert_eq!(read(&image, &dir.join("moved")), b"newer");
    image.lock(&dir.join("LOCK")).unwrap();
    let second = image.crash_image(CrashMode::LoseUnsynced);
    assert_eq!(second.list(&dir).unwrap(), ["kept"], "the first crash made nothing durable");
    assert_eq!(read(&second, &dir.join("kept")), b"old");

    image.sync_dir(&dir).unwrap();
    image.open(&dir.join("moved"), OpenMode::ReadWrite).unwrap().sync().unwrap();
    assert!(vfs.unsynced() > 0, "the images are disks of their own");
    let second = image.crash_image(CrashMode::LoseUnsynced);
    assert_eq!(second.list(&dir).unwrap(), ["LOCK", "made", "moved"]);
    assert_eq!(read(&second, &dir.join("moved")), b"newer");
    assert_eq!(read(&second, &dir.join("made")), b"", "its name was synced, its bytes were not");
}

#[test]
fn random_crashes_tear_between_sectors_and_only_there() {
    let (vfs, dir) = memory();
    let path = dir.join("file");
    let file = vfs.open(&path, OpenMode::Create).unwrap();
    file.write_at(&[1; 1024], 0).unwrap();
    file.sync().unwrap();
    vfs.sync_dir(&dir).unwrap();
    file.write_at(&[2; 700], 100).unwrap();
    file.write_at(&[3; 10], 110).unwrap();
    file.set_len(1500).unwrap();

    let mut first = vec![1; 512];
    let mut firsts = vec![first.clone()];
    first[100..].fill(2);
    firsts.push(first.clone());
    first[110..120].fill(3);
    firsts.push(first);
    let mut second = vec![1; 512];
    let mut seconds = vec![second.clone()];
    second[..288].fill(2);
    seconds.push(second);

    let mut seen = BTreeSet::new();
    for seed in 0..300 {
        let image = vfs.crash_image(CrashMode::Random { seed });
        let bytes = read(&image, &path);
        assert_eq!(bytes, read(&vfs.crash_image(CrashMode::Random { seed }), &path));
        let first = firsts.iter().position(|first| *first == bytes[..512]).unwrap();
        let second = seconds.iter().position(|second| *second == bytes[512..1024]).unwrap();
        assert!(bytes.len() == 1024 || bytes[1024..] == [0; 476]);
        seen.insert((first, second, bytes.len()));
    }
    assert_eq!(seen.len(), 3 * 2 * 2, "every mixture came up");
}

#[test]
fn random_crashes_lose_and_reorder_directory_changes() {
    let (vfs, dir) = memory();
    for name in ["a", "b"] {
        vfs.open(&dir.join(name), OpenMode::Create).unwrap();
    }
    vfs.sync_dir(&dir).unwrap();
    vfs.remove(&dir.join("a")).unwrap();
    vfs.rename(&dir.join("b"), &dir.join("c")).unwrap();
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let image = vfs.crash_image(CrashMode::Random { seed });
        seen.insert(image.list(&dir).unwrap().concat());
    }
    assert_eq!(seen, ["ab", "ac", "b", "c"].map(String::from).into());
}

#[test]
fn after_a_failed_sync_only_writing_again_helps() {
    let (vfs, dir) = memory();
    let path = dir.join("file");
    let file = vfs.open(&path, OpenMode::Create).unwrap();
    vfs.sync_dir(&dir).unwrap();
    file.write_at(b"bytes", 0).unwrap();
    vfs.drop_unsynced(&path).unwrap();
    file.sync().unwrap();
    assert_eq!(read(&vfs, &path), b"bytes");
    assert_eq!(read(&vfs.crash_image(CrashMode::LoseUnsynced), &path), [0; 5]);
    file.write_at(b"bytes", 0).unwrap();
    file.sync().unwrap();
    assert_eq!(read(&vfs.crash_image(CrashMode::LoseUnsynced), &path), b"bytes");
}

#[test]
fn faults_fire_when_told_and_say_so() {
    let (memory, dir) = memory();
    let vfs = FaultyVfs::new(Arc::new(memory));
    let path = dir.join("file");
    let full = vfs.arm(Fault::once(Operation::Create, Outcome::DiskFull).on("file"));
    vfs.open(&dir.join("other"), OpenMode::Create).unwrap();
    let error = vfs.open(&path, OpenMode::Create).err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(full.fired(), 1);

    let file = vfs.open(&path, OpenMode::Create).unwrap();
    let short = vfs.arm(Fault::once(Operation::Write, Outcome::ShortWrite(2)).after(1));
    file.write_at(b"....", 0).unwrap();
    assert_eq!(short.fired(), 0);
    assert_eq!(file.write_at(b"abcd", 0).unwrap_err().raw_os_error(), Some(5));
    assert_eq!(short.fired(), 1);
    assert_eq!(read(&vfs, &path), b"ab..");

    let broken = vfs.arm(Fault::always(Operation::Sync, Outcome::InputOutput));
    assert!(file.sync().is_err());
    assert!(file.sync().is_err());
    broken.heal();
    file.sync().unwrap();
    assert_eq!(broken.fired(), 2);
    vfs.arm(Fault::always(Operation::Allocate, Outcome::DiskFull));
    assert!(file.allocate(9).is_err());
    vfs.heal();
    file.allocate(9).unwrap();
}

#[test]
fn the_hook_sees_every_operation_before_and_after() {
    let (memory, dir) = memory();
    let vfs = FaultyVfs::new(Arc::new(memory.clone()));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let crashes = Arc::new(AtomicUsize::new(0));
    let (log, count) = (Arc::clone(&seen), Arc::clone(&crashes));
    vfs.on_operation(move |event| {
        if event.operation.changes_disk() {
            let durable = memory.crash_image(CrashMode::LoseUnsynced).files().len();
            count.fetch_add(durable, Ordering::SeqCst);
            log.lock().unwrap().push((event.operation, event.phase));
        }
    });
    vfs.arm(Fault::once(Operation::Sync, Outcome::InputOutput));
    let file = vfs.open(&dir.join("file"), OpenMode::Create).unwrap();
    assert!(file.sync().is_err());
    vfs.sync_dir(&dir).unwrap();
    let expected = [
        (Operation::Create, Phase::Before),
        (Operation::Create, Phase::Succeeded),
        (Operation::Sync, Phase::Before),
        (Operation::Sync, Phase::Failed),
        (Operation::SyncDir, Phase::Before),
        (Operation::SyncDir, Phase::Succeeded),
    ];
    assert_eq!(*seen.lock().unwrap(), expected);
    assert_eq!(crashes.load(Ordering::SeqCst), 1, "only after the directory was synced");
    assert_eq!(vfs.operations(), 3);
    vfs.forget_hook();
    vfs.list(&dir).unwrap();
    assert_eq!(seen.lock().unwrap().len(), 6);
}

#[test]
fn a_full_disk_refuses_what_grows_and_nothing_else() {
    let (memory, dir) = memory();
    let vfs = FaultyVfs::new(Arc::new(memory));
    let file = vfs.open(&dir.join("file"), OpenMode::Create).unwrap();
    file.write_at(b"0123456789", 0).unwrap();
    let full = vfs.arm(Fault::always(Operation::Grow, Outcome::ShortWriteFull(1)));
    file.write_at(b"abc", 7).unwrap();
    file.set_len(10).unwrap();
    assert_eq!(full.fired(), 0);
    let error = file.write_at(b"defg", 8).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    assert!(file.set_len(11).is_err());
    assert_eq!(full.fired(), 2);
    let mut bytes = [0; 16];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), 10, "it has not grown");
    assert_eq!(&bytes[..10], b"0123456adc", "one byte of it was written");
    vfs.heal();
    file.write_at(b"defg", 8).unwrap();
}

#[test]
fn what_is_above_a_name_without_a_path_is_there_in_memory_too() {
    let vfs = MemoryVfs::new();
    vfs.create_dir_all("store".as_ref()).unwrap();
    vfs.sync_dir(".".as_ref()).unwrap();
    assert!(vfs.sync_dir("elsewhere".as_ref()).is_err());
}
