//! Measures segments: writing them, random reads of present and absent keys, and scans.
//!
//! `cargo run --release -p kvorum-storage --example segments -- DIR [KEYS] [VALUE_BYTES]
//! [BLOCK_BYTES] [plain|lz4] [ROW]`
//!
//! ROW is what a line of the answer begins with, for that line alone. The rows are staged in order
//! and installed, so that what is measured is a tree of segments without a memtable above it. Put DIR
//! where syncing costs nothing, such as a tmpfs: this is not about the disk.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use kvorum_storage::vfs::RealVfs;
use kvorum_storage::{Compression, Options, Store};

const ROWS_AT_ONCE: usize = 1000;
const SCAN_ROWS: usize = 100;

/// SplitMix64: neighbouring numbers become keys that lie anywhere.
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn key(number: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&mixed(number).to_be_bytes());
    key[8..].copy_from_slice(&mixed(!number).to_be_bytes());
    key
}

/// Half of it compresses away.
fn value(number: u64, bytes: usize) -> Bytes {
    let half = (0..).flat_map(|word| mixed(number << 20 | word).to_le_bytes()).take(bytes / 2);
    half.chain(std::iter::repeat_n(b'.', bytes - bytes / 2)).collect()
}

/// Runs something five times, and says how many a second in the fastest.
fn report<E>(
    what: &str,
    count: usize,
    mut run: impl FnMut(usize) -> Result<(), E>,
) -> Result<(), E> {
    if std::env::args().nth(6).is_some_and(|wanted| !what.starts_with(&wanted)) {
        return Ok(());
    }
    let mut fastest = f64::INFINITY;
    for round in 0..5 {
        let begun = Instant::now();
        run(round)?;
        fastest = fastest.min(begun.elapsed().as_secs_f64());
    }
    println!("{what:<16} {:>12.0} a second", count as f64 / fastest);
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().ok_or("DIR is missing")?);
    let number = |text: Option<String>, default| text.map_or(Ok(default), |text| text.parse());
    let keys = number(arguments.next(), 2_000_000)? as u64;
    let value_bytes = number(arguments.next(), 128)?;
    let block_bytes = number(arguments.next(), Options::default().block_bytes)?;
    let compression = match arguments.next().as_deref() {
        Some("lz4") => Compression::Lz4,
        _ => Compression::None,
    };
    let options = Options { block_bytes, compression, ..Options::default() };
    let (store, _) = Store::open_with_replay(Arc::new(RealVfs), &dir, options)?;

    let mut rows: Vec<u64> = (0..keys).collect();
    rows.sort_unstable_by_key(|number| key(*number));
    let mut seconds = 0.0;
    for (chunk, numbers) in rows.chunks(ROWS_AT_ONCE).enumerate() {
        let row = |number: &u64| (key(*number).to_vec().into(), value(*number, value_bytes));
        let rows: Vec<(Bytes, Bytes)> = numbers.iter().map(row).collect();
        let begun = Instant::now();
        store.stage(chunk == 0, &rows)?;
        seconds += begun.elapsed().as_secs_f64();
    }
    let begun = Instant::now();
    store.seal_staged(1)?;
    seconds += begun.elapsed().as_secs_f64();
    let position = store.log().append(16, b"install")?;
    store.install(1, position)?;
    let bytes = keys as f64 * (16 + value_bytes) as f64;
    println!("{:<16} {:>12.0} MB a second", "written", bytes / seconds / 1e6);
    let stored: u64 = store.stats().levels.iter().map(|level| level.bytes).sum();
    println!("{:<16} {:>12.4} of the rows' bytes", "stored", stored as f64 / bytes);

    let gets = 400_000.min(keys as usize);
    let get = |round: usize, absent: u64| -> kvorum_storage::Result<()> {
        let mut found = 0;
        for number in 0..gets as u64 {
            let number = mixed(number + (round * gets) as u64) % keys + absent;
            found += usize::from(store.get_with(&key(number), <[u8]>::len)?.is_some());
        }
        assert_eq!(found, if absent == 0 { gets } else { 0 });
        Ok(())
    };
    report("present", gets, |round| get(round, 0))?;
    report("absent", gets, |round| get(round, keys))?;
    report("present, 2 thr.", 2 * gets, |round| {
        std::thread::scope(|scope| {
            let other = scope.spawn(|| get(round, 0));
            get(round + 7, 0)?;
            other.join().expect("a reader does not panic")
        })
    })?;
    report("forwards", keys as usize, |_| -> kvorum_storage::Result<()> {
        let (mut rows, mut cursor) = (0, store.cursor(..));
        while cursor.next()?.is_some() {
            rows += 1;
        }
        assert_eq!(rows, keys);
        Ok(())
    })?;
    report("backwards", keys as usize, |_| -> kvorum_storage::Result<()> {
        let (mut rows, mut cursor) = (0, store.cursor(..));
        while cursor.previous()?.is_some() {
            rows += 1;
        }
        assert_eq!(rows, keys);
        Ok(())
    })?;
    let scans = 20_000;
    report("scans of 100", scans, |round| -> kvorum_storage::Result<()> {
        for number in 0..scans as u64 {
            let mut cursor = store.cursor(..);
            let from = key(mixed(number + (round * scans) as u64) % keys);
            let mut row = cursor.seek(&from)?;
            for _ in 1..SCAN_ROWS {
                if row.is_some() {
                    row = cursor.next()?;
                }
            }
        }
        Ok(())
    })?;
    Ok(())
}
