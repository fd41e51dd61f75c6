//! Takes a checkpoint of a store that is being written to, checks it, copies it elsewhere as one
//! would to another disk, and opens the copy.
//!
//! `cargo run -p kvorum-storage --example backup`

use std::fs;
use std::path::Path;
use std::sync::Arc;

use kvorum_storage::inspect::{Directory, Owner};
use kvorum_storage::vfs::RealVfs;
use kvorum_storage::{Durability, Options};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let (checkpoint, copy) = (dir.path().join("checkpoint"), dir.path().join("other disk/copy"));

    let store = Options::new().open(dir.path().join("store"))?;
    for number in 0..1000_u32 {
        store.put(number.to_be_bytes(), format!("value {number}"), Durability::Buffered)?;
    }
    // Everything up to here. The two stores share their files; both may go on.
    store.checkpoint(&checkpoint)?;
    store.put(7_u32.to_be_bytes(), "changed after the checkpoint", Durability::Sync)?;

    // Reads every byte of it, and changes nothing.
    let verified = Directory::open(Arc::new(RealVfs), &checkpoint, Owner::default())?
        .verify(&mut |_| Ok(()))?;
    assert!(verified.is_sound(), "{:?}", verified.findings);
    println!("checked: {} segments, {} entries", verified.segments, verified.entries);

    copy_dir(&checkpoint, &copy)?;
    fs::remove_dir_all(&checkpoint)?;

    let restored = Options::new().create_if_missing(false).open(&copy)?;
    assert_eq!(restored.get(&7_u32.to_be_bytes())?.as_deref(), Some(&b"value 7"[..]));
    println!("restored: {} rows", restored.scan_prefix("")?.count());

    // A store that is open can be checked as well, at a rate that leaves others room.
    let report = store.verify_with(100 << 20, |_| true)?;
    println!("the store itself: {report}");
    Ok(())
}

/// Copies files and directories, and makes them last.
fn copy_dir(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
            fs::File::open(&target)?.sync_all()?;
        }
    }
    fs::File::open(to)?.sync_all()
}

#[test]
fn it_runs() -> Result<(), Box<dyn std::error::Error>> {
    main()
}
