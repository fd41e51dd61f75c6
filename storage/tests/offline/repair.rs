//! What a repair saves, what it says is lost, and that it may be broken off anywhere.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use kvorum_storage::inspect::{Directory, Grade, Owner};
use kvorum_storage::repair::{Loss, Mending, Repaired, Target, repair};
use kvorum_storage::vfs::{CrashMode, FaultyVfs, MemoryVfs, Phase, Vfs};
use kvorum_storage::{Durability, Error, Log, LogItem, ReplayedRecord, Result, Store};

use crate::support::{
    CHECKPOINT, Content, DIR, all_files, batches, closed_log, closed_store, copy, damage,
    is_log_file, log_options, log_owner, look_in, replay_in, rows_in, scan_in, state_after, synced,
    tiny_options, verify, verify_in,
};

const NEW: &str = "/new";

fn mend(vfs: Arc<dyn Vfs>, owner: Owner, target: Target<'_>) -> Result<Repaired> {
    let directory = Directory::open(vfs, DIR.as_ref(), owner)?;
    let mending = Mending { options: &tiny_options(), check: &mut |_| Ok(()), losses: Vec::new() };
    repair(&directory, target, mending)
}

fn mend_into(disk: &MemoryVfs, owner: Owner) -> Repaired {
    mend(Arc::new(disk.clone()), owner, Target::Into(NEW.as_ref())).unwrap()
}

fn segment_files(disk: &MemoryVfs) -> Vec<PathBuf> {
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|end| end == "segment");
    disk.files().into_iter().filter(is_segment).collect()
}

/// The result is sound, but for the word that it is not whole if something was lost.
fn check_sound(disk: &MemoryVfs, dir: &str, owner: Owner, repaired: &Repaired) {
    let verified = verify_in(disk, dir, owner);
    let marker = Path::new(dir).join("REPAIR");
    let damage = damage(&verified);
    if repaired.losses.is_empty() {
        assert!(damage.is_empty(), "{damage:?}");
    } else {
        assert!(damage.len() == 1 && damage[0].file == marker, "{damage:?}");
    }
    let leftovers = verified.findings.iter().filter(|it| it.grade == Grade::Leftover).count();
    assert_eq!(leftovers, 0, "{:?}", verified.findings);
}

/// Repairs a store, into a new directory and in place, and checks the result against the damage.
fn check_store(damaged: &MemoryVfs, content: &Content, context: &str) -> Repaired {
    let disk = copy(damaged);
    let before = all_files(&disk);
    let repaired = mend_into(&disk, Owner::default());
    let after: BTreeMap<_, _> =
        all_files(&disk).into_iter().filter(|(path, _)| path.starts_with(DIR)).collect();
    assert_eq!(after, before, "{context}: a repair into a new directory changes the old one");
    check_result(&disk, NEW, content, &repaired, context);

    let disk = copy(damaged);
    let in_place = mend(Arc::new(disk.clone()), Owner::default(), Target::InPlace).unwrap();
    assert_eq!(in_place.losses.len(), repaired.losses.len(), "{context}");
    let kept = in_place.kept.clone().unwrap();
    for (path, bytes) in &before {
        let moved = kept.join(path.strip_prefix(DIR).unwrap());
        if path.extension().is_none_or(|end| end != "lock") {
            assert_eq!(all_files(&disk).get(&moved), Some(bytes), "{context}: {}", path.display());
        }
    }
    check_result(&disk, DIR, content, &in_place, context);
    repaired
}

fn check_result(
    disk: &MemoryVfs,
    dir: &str,
    content: &Content,
    repaired: &Repaired,
    context: &str,
) {
    check_sound(disk, dir, Owner::default(), repaired);
    let opened = scan_in(&copy(disk), dir);
    if repaired.losses.is_empty() {
        assert_eq!(&opened.unwrap(), content, "{context}");
        return;
    }
    let error = opened.unwrap_err();
    assert!(matches!(error, Error::Incomplete { .. }), "{context}: {error}");
    // What was not hit is there.
    let (rows, _) = rows_in(disk, dir);
    let expected = match lost_records(repaired) {
        Some(lost) => state_after(lost.start.saturating_sub(1)),
        None => content.clone(),
    };
    let is_lost = |key: &Bytes| {
        repaired.losses.iter().any(|loss| match loss {
            Loss::Keys(keys) => *key >= keys.from && keys.to.as_ref().is_none_or(|to| key <= to),
            _ => false,
        })
    };
    // Segments may know more than is left of the log.
    let flushed = batches().len() as u64;
    let one_of = |key: &Bytes, value: Option<&Bytes>| {
        let from = lost_records(repaired).map_or(flushed, |lost| lost.start.saturating_sub(1));
        (from..=flushed).any(|count| state_after(count).get(key) == value)
    };
    for key in expected.keys().chain(rows.keys()) {
        let same = rows.get(key) == expected.get(key);
        assert!(same || is_lost(key) || one_of(key, rows.get(key)), "{context}: {key:?}");
    }
}

fn lost_records(repaired: &Repaired) -> Option<Range<u64>> {
    repaired.losses.iter().find_map(|loss| match loss {
        Loss::Records { positions, .. } => Some(positions.clone()),
        _ => None,
    })
}

#[test]
fn damage_to_each_byte_of_a_store_is_mended_or_its_cost_is_named() {
    let (disk, content) = closed_store();
    let (mut whole, mut lossy) = (0, 0);
    for (path, bytes) in all_files(&disk) {
        for offset in (0..bytes.len() as u64).step_by(7) {
            disk.flip(&path, offset, 1 << (offset % 8)).unwrap();
            if !verify(&disk, Owner::default()).is_sound() {
                let context = format!("{} at {offset}", path.display());
                let repaired = check_store(&disk, &content, &context);
                assert!(repaired.was_damaged);
                *(if repaired.losses.is_empty() { &mut whole } else { &mut lossy }) += 1;
            }
            disk.flip(&path, offset, 1 << (offset % 8)).unwrap();
        }
    }
    println!("{whole} repaired without loss, {lossy} with");
    assert!(whole > 200 && lossy > 200, "{whole} {lossy}");
}

#[test]
fn only_rows_and_records_can_be_lost() {
    let (disk, content) = closed_store();
    let manifest = Path::new(DIR).join("MANIFEST");
    disk.flip(&manifest, 30, 4).unwrap();
    let repaired = check_store(&disk, &content, "a damaged manifest");
    assert!(repaired.manifest_rebuilt && repaired.losses.is_empty(), "{repaired:?}");
    disk.remove(&manifest).unwrap();
    let repaired = check_store(&disk, &content, "no manifest");
    assert!(repaired.manifest_rebuilt && repaired.losses.is_empty(), "{repaired:?}");

    let (disk, content) = closed_store();
    for path in segment_files(&disk) {
        let len = all_files(&disk)[&path].len() as u64;
        // Footer, index and properties.
        for offset in [len - 1, len - 64, len - 70, len - 64 - 5 - 30] {
            let image = copy(&disk);
            image.flip(&path, offset, 1).unwrap();
            let repaired = check_store(&image, &content, &format!("{path:?} {offset}"));
            assert!(repaired.losses.is_empty(), "{path:?} {offset}: {repaired:?}");
            assert_eq!(repaired.segments_rewritten, 1);
        }
    }
    for path in disk.files().iter().filter(|path| is_log_file(path)) {
        let image = copy(&disk);
        image.flip(path, 20, 1).unwrap();
        let repaired = check_store(&image, &content, "a log file's header");
        assert!(repaired.losses.is_empty(), "{repaired:?}");
    }
}

#[test]
fn each_missing_file_is_mended_or_its_cost_is_named() {
    let (disk, content) = closed_store();
    for path in disk.files() {
        let image = copy(&disk);
        image.remove(&path).unwrap();
        if !verify(&image, Owner::default()).is_sound() {
            check_store(&image, &content, &path.display().to_string());
        }
    }
}

/// Even where no segment knows that there ever was a record.
#[test]
fn a_log_that_is_gone_is_a_loss() {
    let disk = MemoryVfs::new();
    let store = Store::open(Arc::new(disk.clone()), DIR.as_ref(), tiny_options()).unwrap();
    store.put("key", "value", Durability::Sync).unwrap();
    drop(store);
    for path in disk.files().iter().filter(|path| is_log_file(path)) {
        disk.remove(path).unwrap();
    }
    let verified = verify(&disk, Owner::default());
    assert_eq!(damage(&verified).len(), 1, "{:?}", verified.findings);
    for target in [Target::Into(NEW.as_ref()), Target::InPlace] {
        let repaired = mend(Arc::new(disk.clone()), Owner::default(), target).unwrap();
        assert!(matches!(repaired.losses[..], [Loss::Records { .. }]), "{repaired:?}");
        let error = scan_in(&disk, repaired.dir.to_str().unwrap()).unwrap_err();
        assert!(matches!(error, Error::Incomplete { .. }), "{error}");
    }
}

#[test]
fn nothing_is_done_to_a_sound_store() {
    let (disk, _) = closed_store();
    let before = all_files(&disk);
    for target in [Target::InPlace, Target::Into(NEW.as_ref())] {
        let repaired = mend(Arc::new(disk.clone()), Owner::default(), target).unwrap();
        assert!(!repaired.was_damaged && repaired.losses.is_empty());
        assert_eq!(all_files(&disk), before);
    }
}

#[test]
fn a_result_with_losses_stays_refused() {
    let (disk, _) = closed_store();
    disk.flip(&segment_files(&disk)[0], 30, 1).unwrap();
    let repaired = mend_into(&disk, Owner::default());
    assert!(matches!(repaired.losses[..], [Loss::Keys(_)]), "{repaired:?}");
    // Repaired once more, into a third directory, it is as incomplete as before.
    let directory =
        Directory::open(Arc::new(disk.clone()), NEW.as_ref(), Owner::default()).unwrap();
    let options = tiny_options();
    let mut check = |_: &ReplayedRecord| Ok(());
    let mending = Mending { options: &options, check: &mut check, losses: Vec::new() };
    let third = repair(&directory, Target::Into("/third".as_ref()), mending).unwrap();
    assert!(matches!(third.losses[..], [Loss::Earlier { .. }]), "{third:?}");
    let error = scan_in(&disk, "/third").unwrap_err();
    assert!(matches!(error, Error::Incomplete { .. }), "{error}");
    // In place there is nothing more to be had.
    let mending = Mending { options: &options, check: &mut check, losses: Vec::new() };
    let error = repair(&directory, Target::InPlace, mending).unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
}

/// Each flip of a log that has checkpoints: those before the last are of no matter any more.
#[test]
fn damage_to_each_byte_of_a_log_is_mended_or_its_cost_is_named() {
    let (disk, records) = closed_log();
    let (mut whole, mut lossy) = (0, 0);
    for (path, bytes) in all_files(&disk) {
        for offset in (0..bytes.len() as u64).step_by(5) {
            disk.flip(&path, offset, 1 << (offset % 8)).unwrap();
            if !verify(&disk, log_owner()).is_sound() {
                let image = copy(&disk);
                let repaired = mend_into(&image, log_owner());
                check_sound(&image, NEW, log_owner(), &repaired);
                let context = format!("{} at {offset}: {repaired:?}", path.display());
                if repaired.losses.is_empty() {
                    let found = replay_in(&image, NEW).unwrap();
                    let (first, _) = found.first_key_value().unwrap();
                    let suffix: BTreeMap<_, _> =
                        records.range(first..).map(|(at, it)| (*at, it.clone())).collect();
                    assert_eq!(found, suffix, "{context}");
                    whole += 1;
                } else {
                    let lost = lost_records(&repaired).expect("records are all there is");
                    let error = replay_in(&image, NEW).unwrap_err();
                    assert!(matches!(error, Error::Incomplete { .. }), "{context} {error}");
                    assert_eq!(repaired.records, records.range(..lost.start).count() as u64);
                    lossy += 1;
                }
            }
            disk.flip(&path, offset, 1 << (offset % 8)).unwrap();
        }
    }
    println!("{whole} repaired without loss, {lossy} with");
    assert!(whole > 50 && lossy > 50, "{whole} {lossy}");
}

/// A hole before the newest checkpoint costs nothing.
#[test]
fn what_a_checkpoint_stands_for_is_not_missed() {
    let disk = MemoryVfs::new();
    let (log, _) = Log::open(Arc::new(disk.clone()), DIR.as_ref(), log_options()).unwrap();
    for number in 1..=60_u8 {
        let kind = if number == 50 { CHECKPOINT } else { 18 };
        log.sync(log.append(kind, &[number; 30]).unwrap()).unwrap();
    }
    drop(log);
    disk.flip(&disk.files()[0], 700, 1).unwrap();
    let repaired = mend_into(&disk, log_owner());
    assert!(repaired.losses.is_empty(), "{repaired:?}");
    let found = replay_in(&disk, NEW).unwrap();
    assert!(found.contains_key(&50) && found.contains_key(&60) && !found.contains_key(&1));
}

/// What is damaged in the crash tests: something of everything.
fn badly_damaged() -> MemoryVfs {
    let disk = synced(&closed_store().0);
    let segments = segment_files(&disk);
    let len = all_files(&disk)[&segments[0]].len() as u64;
    disk.flip(&segments[0], len - 3, 1).unwrap();
    disk.flip(&segments[1], 40, 1).unwrap();
    let logs: Vec<_> = disk.files().into_iter().filter(|path| is_log_file(path)).collect();
    disk.flip(&logs[0], 600, 1).unwrap();
    disk
}

/// What a program that opens a directory is given, or that it is refused; and what can be seen of
/// the directory without opening it.
type Shown = (Option<BTreeMap<Bytes, Bytes>>, BTreeMap<Bytes, Bytes>);

fn show(disk: &MemoryVfs, dir: &str, owner: Owner) -> Shown {
    if owner.is_checkpoint.is_none() {
        return (scan_in(&copy(disk), dir).ok(), rows_in(disk, dir).0);
    }
    let row = |at: u64, payload: Bytes| (Bytes::from(format!("{at:05}")), payload);
    let opened = replay_in(&copy(disk), dir).ok();
    let opened = opened.map(|records| records.into_iter().map(|(at, it)| row(at, it)).collect());
    let mut survey = look_in(disk, dir, owner).unwrap().log().unwrap();
    let mut seen = BTreeMap::new();
    while let Some(item) = survey.next().unwrap() {
        if let LogItem::Record(record) = item {
            seen.extend([row(record.position.0, record.payload)]);
        }
    }
    (opened, seen)
}

fn crash_everywhere(damaged: &MemoryVfs, owner: Owner, target: Target<'_>, dir: &str) -> u64 {
    let disk = synced(damaged);
    let images = Arc::new(Mutex::new(Vec::new()));
    let faulty = FaultyVfs::new(Arc::new(disk.clone()));
    let crashes = Arc::new(AtomicU64::new(0));
    faulty.on_operation({
        let (disk, images, crashes) = (disk.clone(), images.clone(), crashes.clone());
        move |event| {
            if event.operation.changes_disk() && event.phase != Phase::Failed {
                let seed = crashes.fetch_add(1, SeqCst);
                for mode in [CrashMode::LoseUnsynced, CrashMode::Random { seed }] {
                    images.lock().unwrap().push((disk.crash_image(mode), format!("{event:?}")));
                }
            }
        }
    });
    mend(Arc::new(faulty.clone()), owner, target).unwrap();
    faulty.forget_hook();
    let expected = show(&disk, dir, owner);
    let before: Vec<Vec<u8>> = all_files(damaged).into_values().collect();
    for (image, context) in images.lock().unwrap().iter() {
        // Nothing that was there is gone, wherever it is now.
        let all: Vec<Vec<u8>> = all_files(image).into_values().collect();
        for bytes in &before {
            assert!(all.contains(bytes), "{context}: a file is gone");
        }
        // What is unfinished is served by nobody; where nothing has begun there is nothing.
        let has_begun = image
            .files()
            .iter()
            .any(|path| path.starts_with(dir) && (is_log_file(path) || path.ends_with("MANIFEST")));
        let opened = if has_begun { show(image, dir, owner).0 } else { None };
        assert!(opened.is_none() || opened == expected.0, "{context}");
        // Another try.
        match mend(Arc::new(image.clone()), owner, target) {
            // It had come to its end: a new directory that holds the result, or one in place that
            // lacks something.
            Ok(_) | Err(Error::Invalid { .. }) => {}
            Err(error) => panic!("{context}: {error}"),
        }
        assert_eq!(show(image, dir, owner), expected, "{context}");
    }
    crashes.load(SeqCst)
}

/// A log with a hole, and one with damage that costs nothing.
fn damaged_logs() -> [MemoryVfs; 2] {
    [700, 20].map(|offset| {
        let disk = synced(&closed_log().0);
        let logs: Vec<_> = disk.files().into_iter().filter(|path| is_log_file(path)).collect();
        disk.flip(&logs[logs.len() - 2], offset, 1).unwrap();
        disk
    })
}

#[test]
fn a_repair_in_place_may_be_broken_off_anywhere() {
    let embedded = Owner::default();
    let crashes = crash_everywhere(&badly_damaged(), embedded, Target::InPlace, DIR);
    assert!(crashes > 50, "{crashes}");
    // Without loss: then the last step makes the directory fit to be served.
    let disk = synced(&closed_store().0);
    disk.flip(&Path::new(DIR).join("MANIFEST"), 40, 1).unwrap();
    let crashes = crash_everywhere(&disk, embedded, Target::InPlace, DIR);
    assert!(crashes > 50, "{crashes}");
    for disk in damaged_logs() {
        let crashes = crash_everywhere(&disk, log_owner(), Target::InPlace, DIR);
        assert!(crashes > 30, "{crashes}");
    }
}

#[test]
fn a_repair_into_a_new_directory_may_be_broken_off_anywhere() {
    let into = Target::Into(NEW.as_ref());
    let crashes = crash_everywhere(&badly_damaged(), Owner::default(), into, NEW);
    assert!(crashes > 30, "{crashes}");
    for disk in damaged_logs() {
        let crashes = crash_everywhere(&disk, log_owner(), into, NEW);
        assert!(crashes > 20, "{crashes}");
    }
}
