//! Directories into which rows were ingested: looked at and mended like others, but without their
//! manifest nobody knows what was before the rows and what came after.

use std::path::Path;
use std::sync::Arc;

use kvorum_storage::inspect::{Directory, Owner};
use kvorum_storage::repair::{Loss, Mending, Repaired, Target, repair};
use kvorum_storage::vfs::{MemoryVfs, Vfs};
use kvorum_storage::{Durability, Error, Store};

use crate::support::{
    Content, DIR, closed_store, copy, rows_in, scan_in, synced, tiny_options, verify,
};

const NEW: &str = "/new";

/// A store with rows that the log knows, over which others were ingested, and some written after.
fn closed_store_with_ingested_rows() -> (MemoryVfs, Content) {
    let (disk, mut content) = closed_store();
    let store = Store::open(Arc::new(disk.clone()), DIR.as_ref(), tiny_options()).unwrap();
    let rows = (20..60).map(|number| {
        let (key, value) = (format!("key{number:02}"), format!("ingested {}", "i".repeat(30)));
        content.insert(key.clone().into(), value.clone().into());
        (key, value)
    });
    assert!(store.ingest(rows).unwrap().segments > 1);
    store.put("key30", "afterwards", Durability::Sync).unwrap();
    content.insert("key30".into(), "afterwards".into());
    drop(store);
    (synced(&disk), content)
}

fn mend(disk: &MemoryVfs) -> Repaired {
    let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
    let directory = Directory::open(vfs, DIR.as_ref(), Owner::default()).unwrap();
    let mending = Mending { options: &tiny_options(), check: &mut |_| Ok(()), losses: Vec::new() };
    repair(&directory, Target::Into(NEW.as_ref()), mending).unwrap()
}

#[test]
fn ingested_rows_are_read_and_saved_like_others() {
    let (disk, content) = closed_store_with_ingested_rows();
    assert!(verify(&disk, Owner::default()).is_sound());
    assert_eq!(rows_in(&disk, DIR), (content, false));
    // A damaged segment costs its rows, and nothing else.
    let segments = Path::new(DIR).join("segments");
    let name = disk.list(&segments).unwrap().pop().unwrap();
    let damaged = copy(&disk);
    damaged.remove(&segments.join(name)).unwrap();
    let repaired = mend(&damaged);
    assert!(matches!(repaired.losses[..], [Loss::Keys(_)]), "{:?}", repaired.losses);
}

#[test]
fn without_a_manifest_the_age_of_ingested_rows_is_a_loss_by_name() {
    let (disk, _) = closed_store_with_ingested_rows();
    disk.remove(&Path::new(DIR).join("MANIFEST")).unwrap();
    let repaired = mend(&disk);
    assert!(repaired.losses.contains(&Loss::Ingested), "{:?}", repaired.losses);
    let words = Loss::Ingested.to_string();
    assert!(words.contains("older values from the log may have taken their place"), "{words}");
    let opened = Store::open(Arc::new(disk.clone()), NEW.as_ref(), tiny_options());
    assert!(matches!(opened, Err(Error::Incomplete { .. })));

    // Where nothing was ingested, nothing of the kind is said.
    let (disk, content) = closed_store();
    disk.remove(&Path::new(DIR).join("MANIFEST")).unwrap();
    let repaired = mend(&disk);
    assert!(!repaired.losses.contains(&Loss::Ingested), "{:?}", repaired.losses);
    if repaired.losses.is_empty() {
        assert_eq!(scan_in(&disk, NEW).unwrap(), content);
    }
}
