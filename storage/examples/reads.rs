//! Figures of the read path: loads random keys into a store, settles it, and prints how many
//! reads it answers in a second.
//!
//! `cargo run --release -p kvorum-storage --example reads -- DIR [ENTRIES] [ROW]...`
//!
//! A directory that holds a store already is read as it is. Rows are in `ROWS`; all, if none
//! is named.
#![expect(clippy::unwrap_used, reason = "it may panic: it is a measurement")]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use kvorum_storage::vfs::RealVfs;
use kvorum_storage::{Batch, Direction, Durability, Maintained, Options, Store};

const VALUE_BYTES: usize = 128;
const BATCH: u64 = 1000;
const ROWS: [&str; 12] = [
    "get",
    "get-2",
    "get-with",
    "absent",
    "scan",
    "back",
    "walk",
    "walk-back",
    "scan-100",
    "walk-100",
    "seek-100",
    "merge",
];

/// Numbers the keys: the same number, the same 16 bytes, spread over all keys.
fn key(number: u64) -> [u8; 16] {
    let mix = |seed: u64| {
        let mut mixed = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    };
    let mut key = [0; 16];
    key[..8].copy_from_slice(&mix(number + 1).to_be_bytes());
    key[8..].copy_from_slice(&mix(!number).to_be_bytes());
    key
}

fn load(store: &Store, entries: u64) {
    let value = Bytes::from(vec![b'v'; VALUE_BYTES]);
    let begin = Instant::now();
    for first in (0..entries).step_by(BATCH as usize) {
        let mut batch = Batch::new();
        for number in first..entries.min(first + BATCH) {
            batch.put(Bytes::copy_from_slice(&key(number)), value.clone());
        }
        store.write(batch, Durability::Buffered).unwrap();
    }
    store.flush().unwrap();
    while store.maintain().unwrap() != Maintained::Nothing {}
    let levels = store.stats().levels;
    let segments: Vec<usize> = levels.iter().map(|level| level.segments).collect();
    eprintln!("loaded and settled in {:?}: segments {segments:?}", begin.elapsed());
}

fn report(row: &str, count: u64, begin: Instant) {
    let seconds = begin.elapsed().as_secs_f64();
    println!("{row:10} {:12.0} a second", count as f64 / seconds);
}

fn gets(store: &Store, entries: u64, first: u64, count: u64) {
    for step in first..first + count {
        let number = step.wrapping_mul(0x9E37_79B9_7F4A_7C15) % entries;
        let value = store.get(&key(number)).unwrap().unwrap();
        assert_eq!(value.len(), VALUE_BYTES);
    }
}

fn run(row: &str, store: &Store, entries: u64) {
    const GETS: u64 = 1_000_000;
    const SCANS: u64 = 50_000;
    let begin = Instant::now();
    let count = match row {
        "get" => {
            gets(store, entries, 0, GETS);
            GETS
        }
        "get-2" => {
            std::thread::scope(|scope| {
                scope.spawn(|| gets(store, entries, 0, GETS));
                scope.spawn(|| gets(store, entries, GETS, GETS));
            });
            2 * GETS
        }
        "absent" => {
            for number in entries..entries + GETS {
                assert!(store.get(&key(number)).unwrap().is_none());
            }
            GETS
        }
        "scan" => {
            let scan = store.scan(.., Direction::Forwards).unwrap();
            scan.map(Result::unwrap).filter(|(_, value)| value.len() == VALUE_BYTES).count() as u64
        }
        "get-with" => {
            for step in 0..GETS {
                let number = step.wrapping_mul(0x9E37_79B9_7F4A_7C15) % entries;
                assert_eq!(store.get_with(&key(number), <[u8]>::len).unwrap(), Some(VALUE_BYTES));
            }
            GETS
        }
        "walk" => {
            let mut cursor = store.cursor(..);
            let mut count = 0;
            while let Some((_, value)) = cursor.next().unwrap() {
                count += u64::from(value.len() == VALUE_BYTES);
            }
            count
        }
        "walk-back" => {
            let mut cursor = store.cursor(..);
            let mut count = 0;
            while let Some((_, value)) = cursor.previous().unwrap() {
                count += u64::from(value.len() == VALUE_BYTES);
            }
            count
        }
        "walk-100" => {
            for number in 0..SCANS {
                let from = key(number * 37 % entries);
                let mut scan = store.scan(from.., Direction::Forwards).unwrap();
                for _ in 0..100 {
                    let entry = scan.advance().unwrap();
                    assert!(entry.is_none_or(|(_, value)| value.len() == VALUE_BYTES));
                }
            }
            SCANS
        }
        "seek-100" => {
            let mut cursor = store.cursor(..);
            for number in 0..SCANS {
                cursor.seek(&key(number * 37 % entries)).unwrap();
                for _ in 1..100 {
                    let entry = cursor.next().unwrap();
                    assert!(entry.is_none_or(|(_, value)| value.len() == VALUE_BYTES));
                }
            }
            SCANS
        }
        "back" => {
            let scan = store.scan(.., Direction::Backwards).unwrap();
            scan.map(Result::unwrap).filter(|(_, value)| value.len() == VALUE_BYTES).count() as u64
        }
        "scan-100" => {
            for number in 0..SCANS {
                let from = key(number * 37 % entries);
                let scan = store.scan(from.., Direction::Forwards).unwrap();
                for entry in scan.take(100) {
                    assert_eq!(entry.unwrap().1.len(), VALUE_BYTES);
                }
            }
            SCANS
        }
        other => {
            eprintln!("no row {other}");
            return;
        }
    };
    report(row, count, begin);
}

/// Walks four overlapping segments of level 0, then merges them into one level.
fn run_merge(dir: &Path) {
    const LAYERS: u64 = 4;
    const ENTRIES: u64 = 1_000_000;
    let options = Options { memtable_bytes: 1 << 30, ..Options::default() };
    let dir = dir.join("merge");
    let store = Store::open(Arc::new(RealVfs), &dir, options).unwrap();
    let value = Bytes::from(vec![b'v'; VALUE_BYTES]);
    for layer in 0..LAYERS {
        let mut batch = Batch::new();
        for number in 0..ENTRIES / LAYERS {
            batch.put(Bytes::copy_from_slice(&key(number * LAYERS + layer)), value.clone());
            if batch.len() as u64 == BATCH {
                store.write(std::mem::take(&mut batch), Durability::Buffered).unwrap();
            }
        }
        store.flush().unwrap();
    }
    for _ in 0..2 {
        let begin = Instant::now();
        let mut cursor = store.cursor(..);
        let mut count = 0;
        while cursor.next().unwrap().is_some() {
            count += 1;
        }
        report("walk-4", count, begin);
    }
    let begin = Instant::now();
    store.compact().unwrap();
    report("compact-4", ENTRIES, begin);
    drop(store);
    std::fs::remove_dir_all(&dir).unwrap();
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().expect("the directory of the store comes first");
    let mut rest: Vec<String> = arguments.collect();
    let is_count = rest.first().is_some_and(|first| first.parse::<u64>().is_ok());
    let entries = if is_count { rest.remove(0).parse().unwrap() } else { 2_000_000 };
    let store = Store::open(Arc::new(RealVfs), Path::new(&dir), Options::default()).unwrap();
    if store.stats().levels.iter().all(|level| level.segments == 0) {
        load(&store, entries);
    }
    if rest.is_empty() {
        rest = ROWS.map(str::to_owned).to_vec();
    }
    for row in &rest {
        if row == "merge" {
            run_merge(Path::new(&dir));
            continue;
        }
        run(row, &store, entries);
    }
}
