//! Directories of owners that install: what is staged is looked at, mended, and read where the log
//! says that it is the store.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use kvorum_storage::inspect::{Directory, Finding, Lost, Owner};
use kvorum_storage::repair::{Loss, Mending, Repaired, Target, repair};
use kvorum_storage::vfs::{CrashMode, FaultyVfs, MemoryVfs, OpenMode, Phase, Vfs};
use kvorum_storage::{Batch, Direction, Error, Position, ReplayedRecord, Result, Store};

use crate::support::{
    CHECKPOINT, Content, DIR, all_files, copy, damage, look_in, synced, tiny_options, verify_in,
};

const BATCH: u8 = 16;
const INSTALLED: u8 = 17;
const MARK: u64 = 1000;
const NEW: &str = "/new";

fn owner() -> Owner {
    Owner {
        is_checkpoint: Some(|kind| kind == INSTALLED || kind == CHECKPOINT),
        installs: Some(|record| (record.kind == INSTALLED).then(|| mark_of(record))),
        ..Owner::default()
    }
}

fn mark_of(record: &ReplayedRecord) -> u64 {
    record.payload.first_chunk::<8>().map_or(0, |mark| u64::from_le_bytes(*mark))
}

fn batch_of(record: &ReplayedRecord) -> Option<Batch> {
    (record.kind == BATCH).then(|| Batch::decode(&record.payload.slice(8..)).unwrap())
}

/// Opens the store as its owner does.
fn open(disk: &MemoryVfs, dir: &str) -> Result<Store> {
    let (store, mut recovery) =
        Store::open_with_replay(Arc::new(disk.clone()), dir.as_ref(), tiny_options())?;
    while let Some(record) = recovery.next()? {
        let mark = mark_of(&record);
        match batch_of(&record) {
            Some(batch) => store.apply(mark, record.position, &batch)?,
            None => store.install(mark, record.position)?,
        }
    }
    Ok(store)
}

fn scan(disk: &MemoryVfs, dir: &str) -> Result<Content> {
    open(disk, dir)?.scan(.., Direction::Forwards)?.collect()
}

/// The rows without opening it, and whether anything had to be left out.
fn look(disk: &MemoryVfs, dir: &str) -> (Content, bool) {
    let directory = look_in(disk, dir, owner()).unwrap();
    let plan = directory.plan_log().unwrap();
    let mut apply = |record: &ReplayedRecord, overlay: &mut kvorum_storage::inspect::Overlay| {
        if let Some(batch) = batch_of(record) {
            overlay.apply(mark_of(record), &batch);
        }
        Ok(())
    };
    let (overlay, misread) = directory.replay_into(&plan, &mut apply).unwrap();
    assert_eq!(misread, None);
    let mut rows = directory.rows(&overlay, b"").unwrap();
    let mut content = Content::new();
    while let Some((key, value)) = rows.next().unwrap() {
        assert!(content.insert(key, value).is_none());
    }
    let skipped = plan.is_lossy || !rows.take_lost().is_empty();
    (content, skipped)
}

/// One life of a store, at the points that matter.
struct Life {
    /// Rows are sealed, and no record says to install them.
    sealed: (MemoryVfs, Content),
    /// A record does, and it was not done.
    decided: (MemoryVfs, Content),
    /// It was done, and more came.
    installed: (MemoryVfs, Content),
    /// As before the first of these.
    manifest_before: Vec<u8>,
    staged: Vec<PathBuf>,
}

fn life() -> Life {
    let disk = MemoryVfs::new();
    let store = open(&disk, DIR).unwrap();
    let mut rows = Content::new();
    let apply = |rows: &mut Content, mark: u64, key: String| {
        let mut batch = Batch::new();
        let value = Bytes::from(format!("batch {mark} {}", "b".repeat(20)));
        batch.put(key.clone(), value.clone());
        rows.insert(key.into(), value);
        let mut record = mark.to_le_bytes().to_vec();
        batch.encode(&mut record);
        let position = store.log().append(BATCH, &record).unwrap();
        store.apply(mark, position, &batch).unwrap();
        store.log().sync(position).unwrap();
    };
    for mark in 1..=70 {
        apply(&mut rows, mark * 3, format!("key{:02}", mark * 7 % 40));
        if mark < 60 {
            while store.maintain().unwrap() != kvorum_storage::Maintained::Nothing {}
        }
    }
    let image = || synced(&copy(&disk));
    let path = Path::new(DIR).join("MANIFEST");
    let manifest_before = all_files(&disk)[&path].clone();
    let before = segment_files(&disk);
    let staged_rows: Content = (0..60)
        .map(|number| (Bytes::from(format!("key{number:02}s")), Bytes::from("s".repeat(40))))
        .collect();
    let list: Vec<_> = staged_rows.clone().into_iter().collect();
    store.stage(true, &list).unwrap();
    store.seal_staged(MARK).unwrap();
    let staged: Vec<PathBuf> =
        segment_files(&disk).into_iter().filter(|path| !before.contains(path)).collect();
    assert!(staged.len() >= 3, "{staged:?}");
    let sealed = (image(), rows);
    let position = store.log().append(INSTALLED, &MARK.to_le_bytes()).unwrap();
    store.log().sync(position).unwrap();
    let decided = (image(), staged_rows.clone());
    store.install(MARK, position).unwrap();
    let mut rows = staged_rows;
    for mark in 1..=20 {
        apply(&mut rows, MARK + mark, format!("key{:02}", mark * 7 % 40));
    }
    while store.maintain().unwrap() != kvorum_storage::Maintained::Nothing {}
    let installed = (image(), rows);
    Life { sealed, decided, installed, manifest_before, staged }
}

fn segment_files(disk: &MemoryVfs) -> Vec<PathBuf> {
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|end| end == "segment");
    disk.files().into_iter().filter(is_segment).collect()
}

fn replace(disk: &MemoryVfs, path: &Path, bytes: &[u8]) {
    disk.remove(path).unwrap();
    let file = disk.open(path, OpenMode::Create).unwrap();
    file.write_at(bytes, 0).unwrap();
    file.sync().unwrap();
    disk.sync_dir(path.parent().unwrap()).unwrap();
}

fn mend(disk: &MemoryVfs, target: Target<'_>) -> Repaired {
    try_mend(Arc::new(disk.clone()), target).unwrap()
}

fn try_mend(vfs: Arc<dyn Vfs>, target: Target<'_>) -> Result<Repaired> {
    let directory = Directory::open(vfs, DIR.as_ref(), owner())?;
    let mending = Mending { options: &tiny_options(), check: &mut |_| Ok(()), losses: Vec::new() };
    repair(&directory, target, mending)
}

/// Repairs into a new directory and in place; both must come to the same. Without losses the rows
/// must be these, and otherwise it must not open.
fn check_repair(damaged: &MemoryVfs, rows: &Content, context: &str) -> Repaired {
    let disk = copy(damaged);
    let repaired = mend(&disk, Target::Into(NEW.as_ref()));
    let in_place_disk = copy(damaged);
    let in_place = mend(&in_place_disk, Target::InPlace);
    assert!(repaired.was_damaged && in_place.was_damaged, "{context}");
    assert_eq!(in_place.losses.len(), repaired.losses.len(), "{context}");
    assert_eq!(in_place.staged_left_out, repaired.staged_left_out, "{context}");
    for (disk, dir) in [(&disk, NEW), (&in_place_disk, DIR)] {
        if repaired.losses.is_empty() {
            assert!(verify_in(disk, dir, owner()).is_sound(), "{context} {dir}");
            assert_eq!(look(disk, dir), (rows.clone(), false), "{context} {dir}");
            assert_eq!(scan(disk, dir).unwrap(), *rows, "{context} {dir}");
        } else {
            let error = open(disk, dir).err().unwrap();
            assert!(matches!(error, Error::Incomplete { .. }), "{context} {dir}: {error}");
            // It can still be looked at.
            look(disk, dir);
        }
    }
    repaired
}

#[test]
fn the_rows_are_those_that_the_log_installs() {
    let life = life();
    for (name, (disk, rows)) in
        [("sealed", &life.sealed), ("decided", &life.decided), ("installed", &life.installed)]
    {
        let verified = verify_in(disk, DIR, owner());
        assert_eq!(verified.findings, [], "{name}");
        assert_eq!(look(disk, DIR), (rows.clone(), false), "{name}");
        let directory = look_in(disk, DIR, owner()).unwrap();
        let plan = directory.plan_log().unwrap();
        let waits = name != "installed";
        assert_eq!(directory.sealed_mark(), waits.then_some(MARK), "{name}");
        assert_eq!(plan.installs.map(|(_, mark)| mark), (name == "decided").then_some(MARK));
        let summary = directory.summary(&directory.overlay(), plan.extent).unwrap();
        assert_eq!(summary.staged.map(|staged| staged.rows), waits.then_some(60), "{name}");
        let segments: Vec<_> =
            directory.segments().unwrap().into_iter().map(Result::unwrap).collect();
        let staged = segments.iter().filter(|segment| segment.staged).count();
        assert_eq!(staged, if waits { life.staged.len() } else { 0 }, "{name}");
        let numbers: BTreeMap<_, _> = directory.manifest_summary().unwrap().into_iter().collect();
        assert_eq!(numbers.get("staged mark"), waits.then_some(&MARK), "{name}");
        drop(directory);
        assert_eq!(scan(disk, DIR).unwrap(), *rows, "{name}: opened");
    }
}

#[test]
fn every_turned_byte_of_a_staged_segment_is_named() {
    let life = life();
    let (disk, _) = &life.decided;
    let mut turned = 0;
    for path in &life.staged {
        for offset in 0..all_files(disk)[path].len() as u64 {
            disk.flip(path, offset, 1 << (offset % 8)).unwrap();
            let verified = verify_in(disk, DIR, owner());
            let damage = damage(&verified);
            assert!(!damage.is_empty() && damage.iter().all(|it| it.file == *path), "{damage:?}");
            disk.flip(path, offset, 1 << (offset % 8)).unwrap();
            turned += 1;
        }
    }
    assert!(turned > 3000, "{turned}");
}

/// A segment of the tree has a flaw that costs nothing.
fn with_flaw(life: &Life, disk: &MemoryVfs) -> MemoryVfs {
    let tree = segment_files(disk).into_iter().find(|path| !life.staged.contains(path)).unwrap();
    let len = all_files(disk)[&tree].len() as u64;
    let flipped = (0..len).rev().find_map(|offset| {
        let disk = copy(disk);
        disk.flip(&tree, offset, 1).unwrap();
        let costs_nothing = |it: &&Finding| it.lost == Lost::Nothing && it.file == tree;
        damage(&verify_in(&disk, DIR, owner())).iter().all(costs_nothing).then_some(disk)
    });
    synced(&flipped.unwrap())
}

/// Damage of something else: what is staged is taken along.
#[test]
fn a_repair_keeps_what_is_staged() {
    let life = life();
    for (disk, rows) in [&life.sealed, &life.decided] {
        let repaired = check_repair(&with_flaw(&life, disk), rows, "a flaw in the tree");
        assert_eq!((repaired.losses.len(), repaired.staged_left_out), (0, 0), "{repaired:?}");
        assert!(repaired.segments_rewritten > 0, "{repaired:?}");
    }
}

#[test]
fn damage_of_staged_rows_is_a_loss_only_where_the_log_installs_them() {
    let life = life();
    for path in &life.staged {
        let hit = |disk: &MemoryVfs| {
            let disk = copy(disk);
            disk.flip(path, 100, 1).unwrap();
            disk
        };
        let (disk, rows) = &life.sealed;
        let repaired = check_repair(&hit(disk), rows, "not needed");
        assert_eq!(repaired.losses, [], "{}", path.display());
        assert_eq!(repaired.staged_left_out, life.staged.len() as u64);
        let (disk, rows) = &life.decided;
        let repaired = check_repair(&hit(disk), rows, "needed");
        assert!(matches!(repaired.losses[..], [Loss::Keys(_)]), "{:?}", repaired.losses);

        let gone = |disk: &MemoryVfs| {
            let disk = copy(disk);
            disk.remove(path).unwrap();
            disk
        };
        assert_eq!(check_repair(&gone(&life.sealed.0), &life.sealed.1, "gone").losses, []);
        let repaired = check_repair(&gone(&life.decided.0), rows, "gone, and needed");
        assert!(matches!(repaired.losses[..], [Loss::Keys(_)]), "{:?}", repaired.losses);
    }
}

#[test]
fn a_manifest_that_knows_nothing_of_what_the_log_installs_is_damage() {
    let life = life();
    let disk = copy(&life.decided.0);
    replace(&disk, &Path::new(DIR).join("MANIFEST"), &life.manifest_before);
    let verified = verify_in(&disk, DIR, owner());
    let damage = damage(&verified);
    assert!(damage.len() == 1 && damage[0].what.contains("mark 1000"), "{damage:?}");
    assert!(look(&disk, DIR).1, "something is left out");
    let repaired = check_repair(&disk, &life.decided.1, "an old manifest");
    assert!(
        matches!(repaired.losses[..], [Loss::Staged { mark: Some(MARK), .. }]),
        "{:?}",
        repaired.losses
    );
    println!("{}", repaired.losses[0]);
    let error = open(&disk, DIR).err().unwrap();
    assert!(error.to_string().contains("mark 1000 cannot be installed"), "{error}");
}

#[test]
fn without_a_manifest_staged_rows_are_never_mixed_in_unseen() {
    let life = life();
    for (disk, rows) in [&life.sealed, &life.decided, &life.installed] {
        let disk = copy(disk);
        disk.remove(&Path::new(DIR).join("MANIFEST")).unwrap();
        let repaired = check_repair(&disk, rows, "no manifest");
        let is_staged = |loss: &Loss| matches!(loss, Loss::Staged { .. });
        assert!(repaired.losses.iter().any(is_staged), "{:?}", repaired.losses);
    }
    // Before anything was staged nothing is lost: the log is applied again from its beginning.
    let disk = MemoryVfs::new();
    let store = open(&disk, DIR).unwrap();
    let mut rows = Content::new();
    // Marks are no positions: they begin far behind these, and far before.
    for number in 1..=40_u64 {
        let (key, value) =
            (format!("key{:02}", number * 7 % 23), format!("{number} {}", "v".repeat(90)));
        let mut batch = Batch::new();
        batch.put(key.clone(), value.clone());
        rows.insert(key.into(), value.into());
        let mut record = number.to_le_bytes().to_vec();
        batch.encode(&mut record);
        store.log().append(CHECKPOINT, b"").unwrap();
        let position = store.log().append(BATCH, &record).unwrap();
        store.apply(number, position, &batch).unwrap();
        store.log().sync(position).unwrap();
        if number == 20 {
            store.release(store.log().last());
        }
        if number == 30 {
            store.flush().unwrap();
        }
    }
    while store.maintain().unwrap() != kvorum_storage::Maintained::Nothing {}
    assert!(store.log().first() > Position(20), "{}", store.log().first());
    drop(store);
    disk.remove(&Path::new(DIR).join("MANIFEST")).unwrap();
    let repaired = mend(&disk, Target::Into(NEW.as_ref()));
    assert_eq!(repaired.losses, []);
    assert_eq!(look(&disk, NEW), (rows, false));
}

#[test]
fn a_repair_of_what_is_staged_may_be_broken_off_anywhere() {
    let life = life();
    let left_out = synced(&life.sealed.0);
    left_out.flip(&life.staged[1], 100, 1).unwrap();
    let damaged = [
        (with_flaw(&life, &life.sealed.0), &life.sealed.1),
        (with_flaw(&life, &life.decided.0), &life.decided.1),
        (left_out, &life.sealed.1),
    ];
    for (damaged, rows) in damaged {
        let disk = copy(&damaged);
        let images = Arc::new(Mutex::new(Vec::new()));
        let faulty = FaultyVfs::new(Arc::new(disk.clone()));
        faulty.on_operation({
            let (disk, images) = (disk.clone(), Arc::clone(&images));
            move |event| {
                if event.operation.changes_disk() && event.phase != Phase::Failed {
                    let mut images = images.lock().unwrap();
                    let seed = images.len() as u64;
                    let image = disk.crash_image(CrashMode::Random { seed });
                    images.push((image, format!("{event:?}")));
                }
            }
        });
        try_mend(Arc::new(faulty.clone()), Target::InPlace).unwrap();
        faulty.forget_hook();
        let images = images.lock().unwrap();
        for (image, context) in images.iter() {
            // What is unfinished is served by nobody, or is what was there.
            if let Ok(opened) = scan(&copy(image), DIR) {
                assert_eq!(opened, *rows, "{context}");
            }
            let repaired = mend(image, Target::InPlace);
            assert_eq!(repaired.losses, [], "{context}");
            assert_eq!(scan(image, DIR).unwrap(), *rows, "{context}");
        }
        assert!(images.len() > 30, "{}", images.len());
    }
}
