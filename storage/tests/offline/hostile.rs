//! Files that nobody wrote: looking at them and mending them ends, with an answer.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kvorum_storage::codec::{Place, checksum};
use kvorum_storage::inspect::{Directory, Owner, own_batch};
use kvorum_storage::repair::{Mending, Target, repair};
use kvorum_storage::vfs::{MemoryVfs, OpenMode, Vfs};

use crate::support::{
    DIR, all_files, closed_log, closed_store, copy, damage, is_log_file, log_owner, look,
    tiny_options, verify,
};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// Everything that can be asked of a directory; what the answers are is no matter here.
fn ask_everything(disk: &MemoryVfs, owner: Owner) {
    let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
    let directory = Directory::open(vfs, DIR.as_ref(), owner).unwrap();
    let _ = directory.verify(&mut |_| Ok(())).unwrap();
    let plan = directory.plan_log().unwrap();
    let (overlay, _) = directory.replay(&plan, &mut own_batch).unwrap();
    let mut rows = directory.rows(&overlay, b"").unwrap();
    while rows.next().unwrap().is_some() {}
    let _ = directory.segments().unwrap();
    directory.summary(&overlay, plan.extent.clone()).unwrap();
    let options = tiny_options();
    let mending = Mending { options: &options, check: &mut |_| Ok(()), losses: Vec::new() };
    repair(&directory, Target::Into("/new".as_ref()), mending).unwrap();
}

fn write(disk: &MemoryVfs, path: &Path, bytes: &[u8]) {
    disk.remove(path).unwrap();
    disk.open(path, OpenMode::Create).unwrap().write_at(bytes, 0).unwrap();
}

#[test]
fn garbage_is_answered() {
    let mut random = Random(1);
    for (disk, owner) in [(closed_store().0, Owner::default()), (closed_log().0, log_owner())] {
        let files: Vec<(PathBuf, Vec<u8>)> = all_files(&disk).into_iter().collect();
        let mut noticed = 0;
        for _ in 0..300 {
            let image = copy(&disk);
            for _ in 0..=random.below(3) {
                let (path, bytes) = &files[random.below(files.len())];
                let mut bytes = bytes.clone();
                if bytes.is_empty() {
                    continue;
                }
                let from = random.below(bytes.len());
                let to = from + random.below(bytes.len() - from + 1);
                match random.below(4) {
                    0 => bytes.truncate(from),
                    1 => bytes[from..to].fill(0),
                    2 => bytes[from..to].fill(0xff),
                    _ => bytes[from..to].iter_mut().for_each(|byte| *byte = random.next() as u8),
                }
                write(&image, path, &bytes);
            }
            noticed += u32::from(!verify(&image, owner).is_sound());
            ask_everything(&image, owner);
        }
        assert!(noticed > 200, "{noticed}");
    }
}

/// A frame whose header has the right checksum and says that gigabytes follow, or billions of
/// records in a few bytes.
#[test]
fn lengths_that_lie_are_not_believed() {
    let (disk, _) = closed_log();
    let path = disk.files().into_iter().rfind(|path| is_log_file(path)).unwrap();
    let bytes = all_files(&disk)[&path].clone();
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let (identity, first) = (u64_at(24), u64_at(32));
    for (payload_bytes, records) in [(u32::MAX, 1), (4, u32::MAX - 1), (0, 7), (u32::MAX, 0)] {
        let mut lying = bytes.clone();
        let place = Place { file: identity, offset: 512 };
        let payload_bytes_there = (payload_bytes as usize).min(4);
        let payload = checksum(place, &lying[552..552 + payload_bytes_there]);
        lying[516..520].copy_from_slice(&payload.to_le_bytes());
        lying[528..532].copy_from_slice(&payload_bytes.to_le_bytes());
        lying[532..536].copy_from_slice(&records.to_le_bytes());
        lying[536..544].copy_from_slice(&first.to_le_bytes());
        let header = checksum(place, &lying[516..552]);
        lying[512..516].copy_from_slice(&header.to_le_bytes());
        let image = copy(&disk);
        write(&image, &path, &lying);
        let verified = verify(&image, log_owner());
        assert!(!damage(&verified).is_empty(), "{payload_bytes} {records}");
        ask_everything(&image, log_owner());
    }
}

/// A good frame behind a bad one, whose records have numbers behind which there are none.
#[test]
fn positions_that_cannot_be_are_not_believed() {
    let (disk, _) = closed_log();
    let path = disk.files().into_iter().rfind(|path| is_log_file(path)).unwrap();
    let mut lying = all_files(&disk)[&path].clone();
    let identity = u64::from_le_bytes(lying[24..32].try_into().unwrap());
    let payload_bytes = u32::from_le_bytes(lying[528..532].try_into().unwrap()) as usize;
    // The first frame once more, behind itself, where a mark stands.
    let second = 552 + payload_bytes;
    lying.copy_within(512..second, second);
    let place = Place { file: identity, offset: second as u64 };
    let payload = checksum(place, &lying[second + 40..second + 40 + payload_bytes]);
    lying[second + 4..second + 8].copy_from_slice(&payload.to_le_bytes());
    lying[second + 24..second + 32].copy_from_slice(&u64::MAX.to_le_bytes());
    // It bears witness that the first had been durable.
    lying[second + 32..second + 40].copy_from_slice(&(u64::MAX - 1).to_le_bytes());
    let header = checksum(place, &lying[second + 4..second + 40]);
    lying[second..second + 4].copy_from_slice(&header.to_le_bytes());
    lying[552] ^= 1;
    write(&disk, &path, &lying);
    assert!(verify(&disk, log_owner()).log.last.0 < u64::MAX);
    ask_everything(&disk, log_owner());
}

/// A manifest with the right checksum whose segments are so long that their lengths cannot be added
/// up.
#[test]
fn lengths_that_lie_are_added_up() {
    let (disk, _) = closed_store();
    let path = Path::new(DIR).join("MANIFEST");
    let mut lying = all_files(&disk)[&path].clone();
    let count = u32::from_le_bytes(lying[56..60].try_into().unwrap());
    let mut at = 60;
    for _ in 0..count {
        // Behind its level and its number.
        lying[at + 9..at + 17].copy_from_slice(&u64::MAX.to_le_bytes());
        at += 41;
        for _ in ["smallest", "largest"] {
            let key_bytes = lying[at];
            assert!(key_bytes < 128, "a length of one byte");
            at += 1 + usize::from(key_bytes);
        }
    }
    let end = lying.len() - 4;
    assert_eq!(at, end, "no staged segments follow");
    let sum = checksum(Place { file: 0, offset: 0 }, &lying[..end]);
    lying[end..].copy_from_slice(&sum.to_le_bytes());
    write(&disk, &path, &lying);
    let directory = look(&disk, Owner::default()).unwrap();
    let plan = directory.plan_log().unwrap();
    let (overlay, _) = directory.replay(&plan, &mut own_batch).unwrap();
    let summary = directory.summary(&overlay, plan.extent.clone()).unwrap();
    let of_many = summary.levels.iter().find(|level| level.segments > 1).unwrap();
    assert_eq!(of_many.bytes, u64::MAX);
    assert!(summary.space_amplification().is_none_or(f64::is_finite));
    drop(directory);
    ask_everything(&disk, Owner::default());
}

#[test]
fn names_with_numbers_that_cannot_be_are_no_trouble() {
    for (disk, dirs) in [(closed_store().0, ["segments", "log"]), (closed_log().0, ["", ""])] {
        let owner = if dirs[0].is_empty() { log_owner() } else { Owner::default() };
        let names = ["ffffffffffffffff.segment", "18446744073709551615.log"];
        for (dir, name) in dirs.iter().zip(names) {
            let path = Path::new(DIR).join(dir).join(name);
            disk.open(&path, OpenMode::Create).unwrap();
            ask_everything(&copy(&disk), owner);
        }
    }
}
