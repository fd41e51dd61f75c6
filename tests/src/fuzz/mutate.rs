//! Changes to files that a fault, a mistake or malice could make.

use std::path::PathBuf;

use super::archive::Archive;
use super::corpus::Entry;
use super::entropy::Entropy;

/// Numbers at which mistakes are made.
const NUMBERS: [u64; 18] = [
    0,
    1,
    2,
    7,
    63,
    127,
    128,
    255,
    256,
    511,
    65_535,
    65_536,
    1 << 30,
    (1 << 31) - 1,
    u32::MAX as u64,
    1 << 62,
    u64::MAX - 1,
    u64::MAX,
];

/// Changes some of an archive's files, and mostly sets their checksums right.
pub(super) fn mutate(entry: &Entry, entropy: &mut Entropy<'_>) -> Archive {
    let mut archive = entry.archive.clone();
    for _ in 0..=entropy.below(3) {
        let file = entropy.index(archive.files.len());
        if entropy.one_in(10) {
            change_directory(&mut archive, file, entropy);
            continue;
        }
        let other = archive.files[entropy.index(archive.files.len())].1.clone();
        for _ in 0..=entropy.below(4) {
            change(&mut archive.files[file].1, &other, entropy);
        }
        if entropy.one_in(8) {
            continue;
        }
        // Files were perhaps removed or renamed: by index, it may be another's sums, which is as good.
        for sum in entry.sums.get(file).into_iter().flatten() {
            sum.mend(&mut archive.files[file].1);
        }
    }
    archive
}

/// Changes any bytes, without checksums.
pub(super) fn mutate_bytes(bytes: &mut Vec<u8>, entropy: &mut Entropy<'_>) {
    let other = bytes.clone();
    for _ in 0..=entropy.below(4) {
        change(bytes, &other, entropy);
    }
}

fn change_directory(archive: &mut Archive, file: usize, entropy: &mut Entropy<'_>) {
    let other = entropy.index(archive.files.len());
    match entropy.below(5) {
        0 if archive.files.len() > 1 => drop(archive.files.remove(file)),
        1 => {
            // The files change places: each has the right bytes of another time or name.
            let bytes = std::mem::take(&mut archive.files[file].1);
            archive.files[file].1 = std::mem::replace(&mut archive.files[other].1, bytes);
        }
        2 => {
            let copy = archive.files[file].1.clone();
            let names = ["MANIFEST.new", "REPAIR", "log/00000000000000000009.log", "lost-1/x"];
            let name = PathBuf::from(names[entropy.index(names.len())]);
            archive.files.push((name, copy));
        }
        3 => {
            let text =
                ["unfinished moving lost-1\n", "unfinished building\n", "incomplete\n", "\u{0}"];
            let text = text[entropy.index(text.len())].as_bytes().to_vec();
            archive.files.push((PathBuf::from("REPAIR"), text));
        }
        _ => archive.files[file].1.clear(),
    }
}

fn change(bytes: &mut Vec<u8>, other: &[u8], entropy: &mut Entropy<'_>) {
    if bytes.is_empty() {
        bytes.push(entropy.below(256) as u8);
        return;
    }
    let at = place(bytes.len(), entropy);
    match entropy.below(12) {
        0 => bytes[at] ^= 1 << entropy.below(8),
        1 => bytes[at] = entropy.below(256) as u8,
        2 | 3 => put_number(bytes, at, 4, entropy),
        4 | 5 => put_number(bytes, at, 8, entropy),
        6 => put_number(bytes, at, 1, entropy),
        7 => {
            // A block of another file, or of another place, mostly where a block would be.
            let from = entropy.index(other.len().max(1)).min(other.len());
            let count =
                (entropy.below(1024) as usize).min(other.len() - from).min(bytes.len() - at);
            bytes[at..at + count].copy_from_slice(&other[from..from + count]);
        }
        8 => {
            let count = (1 + entropy.below(600) as usize).min(bytes.len() - at);
            bytes[at..at + count].fill(if entropy.one_in(2) { 0 } else { 0xff });
        }
        9 => bytes.truncate(at),
        10 => {
            let count = 1 + entropy.below(64) as usize;
            let inserted = vec![entropy.below(256) as u8; count];
            bytes.splice(at..at, inserted);
        }
        _ => {
            let count = (1 + entropy.below(64) as usize).min(bytes.len() - at);
            bytes.drain(at..at + count);
        }
    }
}

/// Where heads and ends of files are changed more often than the rest.
fn place(len: usize, entropy: &mut Entropy<'_>) -> usize {
    match entropy.below(4) {
        0 => entropy.index(len.min(80)),
        1 => len - 1 - entropy.index(len.min(80)),
        _ => entropy.index(len),
    }
}

/// A number of a size at a place, either one at which mistakes are made, or one near that which is
/// there.
fn put_number(bytes: &mut [u8], at: usize, size: usize, entropy: &mut Entropy<'_>) {
    // Most fields begin at a multiple of four.
    let at = if entropy.one_in(2) { at & !3 } else { at };
    let end = (at + size).min(bytes.len());
    let mut old = [0; 8];
    old[..end - at].copy_from_slice(&bytes[at..end]);
    let old = u64::from_le_bytes(old);
    let number = match entropy.below(3) {
        0 => old.wrapping_add(1 + entropy.below(64)),
        1 => old.wrapping_sub(1 + entropy.below(64)),
        _ => NUMBERS[entropy.index(NUMBERS.len())],
    };
    bytes[at..end].copy_from_slice(&number.to_le_bytes()[..end - at]);
}
