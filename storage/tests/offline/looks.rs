//! Looking changes nothing, and shows what a store would.

use std::path::Path;
use std::sync::Arc;

use kvorum_storage::inspect::{Grade, Owner};
use kvorum_storage::vfs::{OpenMode, Vfs};
use kvorum_storage::{Error, Store};

use crate::support::{
    DIR, all_files, closed_log, closed_store, copy, damage, log_owner, look, rows, scan,
    tiny_options, verify,
};

#[test]
fn the_rows_are_those_of_the_store() {
    let (disk, content) = closed_store();
    assert_eq!(rows(&disk), (content.clone(), false));
    assert_eq!(scan(&disk).unwrap(), content);
}

#[test]
fn looking_changes_nothing() {
    let (disk, _) = closed_store();
    // A torn end, and what a crash leaves.
    let log = disk.files().into_iter().rfind(|path| path.extension().unwrap() == "log").unwrap();
    let file = disk.open(&log, OpenMode::ReadWrite).unwrap();
    file.write_at(b"the beginning of a frame", file.len().unwrap() - 100).unwrap();
    for name in
        ["MANIFEST.new", "segments/00000000000000ff.segment", "log/00000000000000000099.new"]
    {
        disk.open(&Path::new(DIR).join(name), OpenMode::Create).unwrap();
    }
    let before = all_files(&disk);
    let unsynced = disk.unsynced();
    let verified = verify(&disk, Owner::default());
    let (content, _) = rows(&disk);
    assert_eq!((all_files(&disk), disk.unsynced()), (before, unsynced));
    assert!(verified.is_sound(), "{:?}", damage(&verified));
    let leftovers = verified.findings.iter().filter(|it| it.grade == Grade::Leftover).count();
    assert_eq!(leftovers, 3, "{:?}", verified.findings);
    assert_eq!(scan(&disk).unwrap(), content);
}

#[test]
fn a_store_in_use_is_left_alone() {
    let (disk, _) = closed_store();
    let store = Store::open(Arc::new(disk.clone()), DIR.as_ref(), tiny_options()).unwrap();
    let error = look(&disk, Owner::default()).unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    drop(store);
    let looked = look(&disk, Owner::default()).unwrap();
    let error = Store::open(Arc::new(disk.clone()), DIR.as_ref(), tiny_options()).err().unwrap();
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    drop(looked);
    scan(&disk).unwrap();
}

#[test]
fn what_is_no_data_directory_is_refused() {
    let (disk, _) = closed_store();
    disk.create_dir_all("/other".as_ref()).unwrap();
    let look = |dir: &str| {
        let disk: Arc<dyn Vfs> = Arc::new(disk.clone());
        kvorum_storage::inspect::Directory::open(disk, dir.as_ref(), Owner::default())
    };
    assert!(matches!(look("/other").unwrap_err(), Error::Invalid { .. }));
    assert!(matches!(look("/nowhere").unwrap_err(), Error::Io { .. }));
}

/// Files that changed places: everything is whole, and nothing is where it belongs.
#[test]
fn swapped_files_are_named() {
    for (disk, owner) in [(closed_store().0, Owner::default()), (closed_log().0, log_owner())] {
        let files = all_files(&disk);
        let kind = |path: &Path| path.extension().map(|end| end.to_owned());
        let mut swaps = 0;
        for (one, one_bytes) in &files {
            let others = files.iter().filter(|(path, bytes)| {
                *path > one && kind(path) == kind(one) && *bytes != one_bytes
            });
            for (other, other_bytes) in others {
                if kind(one).is_none_or(|end| end != "log" && end != "segment") {
                    continue;
                }
                let image = copy(&disk);
                for (path, bytes) in [(one, other_bytes), (other, one_bytes)] {
                    image.remove(path).unwrap();
                    image.open(path, OpenMode::Create).unwrap().write_at(bytes, 0).unwrap();
                }
                let verified = verify(&image, owner);
                let named = |path: &Path| damage(&verified).iter().any(|it| it.file == path);
                assert!(named(one) && named(other), "{one:?} {other:?} {:?}", verified.findings);
                swaps += 1;
            }
        }
        assert!(swaps >= 3, "{swaps}");
    }
}
