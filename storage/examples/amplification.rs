//! What writing costs: loads random entries, overwrites all of them twice, settles, and prints the
//! bytes written for each byte put, and the bytes on disk for each byte that lives.
//!
//! ```text
//! cargo run --release -p kvorum-storage --example amplification -- DIR [ENTRIES] [VALUE BYTES] [THREADS]
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kvorum_storage::vfs::RealVfs;
use kvorum_storage::{Batch, Durability, Maintained, Options, Store};

const KEY_BYTES: u64 = 16;
const BATCH_BYTES: u64 = 144 * 1000;

fn main() -> kvorum_storage::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().expect("the first argument is a new directory"));
    let mut number = |default: u64| {
        arguments.next().map_or(default, |text| text.parse().expect("this argument is a number"))
    };
    let (entries, value_bytes, threads) = (number(2_000_000), number(128), number(1));
    let entry_bytes = KEY_BYTES + value_bytes;
    let store = Store::open(Arc::new(RealVfs), &dir, Options::default())?;
    let live = entries * entry_bytes;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| maintain(&store, &stop));
        }
        for round in 1..=3 {
            let begin = Instant::now();
            let longest = load(&store, round, entries, value_bytes)?;
            let took = begin.elapsed();
            println!(
                "round {round}: {:.0} thousand entries a second, longest write {longest:?}",
                entries as f64 / took.as_secs_f64() / 1000.0
            );
            report(&store, &dir, live * round, live);
        }
        stop.store(true, Ordering::Relaxed);
        (0..threads).for_each(|_| store.wake_maintenance());
        Ok::<_, kvorum_storage::Error>(())
    })?;
    let begin = Instant::now();
    settle(&store)?;
    println!("settled in {:?}", begin.elapsed());
    report(&store, &dir, live * 3, live);
    Ok(())
}

fn settle(store: &Store) -> kvorum_storage::Result<()> {
    while store.settle()? != Maintained::Nothing {}
    Ok(())
}

fn maintain(store: &Store, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        match store.maintain() {
            Ok(Maintained::Did(_)) => {}
            Ok(Maintained::Nothing) => {
                store.wait_for_maintenance(Duration::from_millis(100));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Writes every entry once, in an order without order; answers with the longest write.
fn load(
    store: &Store,
    round: u64,
    entries: u64,
    value_bytes: u64,
) -> kvorum_storage::Result<Duration> {
    let batch_len = (BATCH_BYTES / (KEY_BYTES + value_bytes)).max(1);
    let mut longest = Duration::ZERO;
    let mut value = vec![0; value_bytes as usize];
    let mut number = 0;
    while number < entries {
        let mut batch = Batch::new();
        for _ in 0..batch_len.min(entries - number) {
            // Odd multipliers permute the numbers of 64 bits, so that each key comes once.
            let mixed = number.wrapping_add(round << 40).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let key = number.wrapping_mul(0xD134_2543_DE82_EF95).to_be_bytes();
            fill(&mut value, mixed);
            batch.put([key, key].concat(), value.clone());
            number += 1;
        }
        let begin = Instant::now();
        store.write(batch, Durability::Buffered)?;
        longest = longest.max(begin.elapsed());
    }
    Ok(longest)
}

/// With bytes that nothing compresses (Marsaglia: Xorshift, 2003).
fn fill(value: &mut [u8], seed: u64) {
    let mut state = seed | 1;
    for chunk in value.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
}

fn report(store: &Store, dir: &Path, put: u64, live: u64) {
    let stats = store.stats();
    let written = stats.log.bytes + stats.flushed_bytes + stats.compacted_bytes_written;
    let levels: Vec<String> = stats
        .levels
        .iter()
        .map(|level| format!("{}:{}M", level.segments, level.bytes >> 20))
        .collect();
    println!(
        "  written / put {:.2} (log {:.2}, flushes {:.2}, merges {:.2}; the system says {:.2}); on disk / live {:.2}; levels {}",
        written as f64 / put as f64,
        stats.log.bytes as f64 / put as f64,
        stats.flushed_bytes as f64 / put as f64,
        stats.compacted_bytes_written as f64 / put as f64,
        system_written() as f64 / put as f64,
        on_disk(dir) as f64 / live as f64,
        levels.join(" ")
    );
}

/// What the operating system counts as given to disks by this process.
fn system_written() -> u64 {
    let counts = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = counts.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Blocks in use by all files of the directory.
fn on_disk(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let bytes = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => on_disk(&entry.path()),
        Ok(meta) => meta.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(bytes).sum()
}
