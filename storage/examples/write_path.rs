//! How fast writes are: into memory, into the log, and out of the log again after a kill.
//!
//! ```text
//! cargo run --release -p kvorum-storage --example write_path [DIRECTORY [ROW...]]
//! ```
//!
//! Random keys of 16 bytes, values of 128. Each row is one line, so that two builds can be run in
//! turn and compared.

#![expect(clippy::unwrap_used, reason = "a program to measure with")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use kvorum_storage::vfs::RealVfs;
use kvorum_storage::{
    Batch, Durability, LogOptions, Maintained, Options, Position, Pressure, Store,
};

const VALUE: [u8; 128] = [b'v'; 128];

/// SplitMix64: the same keys in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn key(&mut self) -> Vec<u8> {
        [self.next().to_be_bytes(), self.next().to_be_bytes()].concat()
    }
}

struct Bench {
    dir: PathBuf,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let parent = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let rows: Vec<String> = arguments.collect();
    let bench = Bench { dir: parent.join(format!("write-path-{}", std::process::id())) };
    let is_wanted = |row: &str| rows.is_empty() || rows.iter().any(|wanted| wanted == row);
    type Row = (&'static str, fn(&Bench));
    let all: [Row; 9] = [
        ("memory", |bench| bench.memory("memory", 400, |random, _| random.key())),
        ("hot", |bench| {
            bench.memory(
                "hot",
                400,
                |random, n| if n % 2 == 0 { vec![b'h'; 16] } else { random.key() },
            );
        }),
        ("hottest", |bench| bench.memory("hottest", 400, |_, _| vec![b'h'; 16])),
        ("ordered", |bench| {
            bench.memory("ordered", 400, |_, n| [[0; 8], n.to_be_bytes()].concat());
        }),
        ("buffered", |bench| {
            bench.writes("buffered, 1 thread, batches of 1000", 1, 1000, 400, Durability::Buffered);
            bench.writes(
                "buffered, 2 threads, batches of 1000",
                2,
                1000,
                200,
                Durability::Buffered,
            );
        }),
        ("put", |bench| bench.writes("put, 1 thread", 1, 1, 2_000, Durability::Sync)),
        ("puts", |bench| bench.writes("put, 16 threads", 16, 1, 5_000, Durability::Sync)),
        ("batches", |bench| {
            bench.writes("batches of 100, 1 thread", 1, 100, 3_000, Durability::Sync);
            bench.writes("batches of 1000, 1 thread", 1, 1000, 400, Durability::Sync);
            bench.writes("batches of 1000, 2 threads", 2, 1000, 200, Durability::Sync);
        }),
        ("replay", |bench| bench.replay(200 << 20)),
    ];
    for (name, row) in all {
        if is_wanted(name) {
            row(&bench);
            let _ = std::fs::remove_dir_all(&bench.dir);
        }
    }
}

/// What has begun, by the clock and by the time that the processor has worked for this process.
struct Watch {
    begun: Instant,
    worked: u64,
}

impl Watch {
    fn start() -> Watch {
        Watch { begun: Instant::now(), worked: worked() }
    }

    fn print(&self, row: &str, count: u64) {
        let time = self.begun.elapsed().as_secs_f64();
        let each = (worked() - self.worked) * 10_000_000 / count;
        println!(
            "{row:40} {:12.0} /s  {time:8.3} s  {each:7} ns of work each",
            count as f64 / time
        );
    }
}

/// Hundredths of a second.
fn worked() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split(' ').collect();
    [12, 13].iter().filter_map(|at| fields.get(*at)?.parse::<u64>().ok()).sum()
}

/// Nothing is flushed: what is measured is the way into memory.
fn options() -> Options {
    Options {
        memtable_bytes: 1 << 30,
        memtables_max: 8,
        log_bytes_max: 8 << 30,
        log: LogOptions { recycle_files_max: 3, ..LogOptions::default() },
        ..Options::default()
    }
}

fn open(dir: &Path) -> Store {
    Store::open(Arc::new(RealVfs), dir, options()).unwrap()
}

impl Bench {
    /// Batches of 1,000 that an owner applies: neither log nor disk.
    fn memory(&self, row: &str, batches: u64, key: impl Fn(&mut Random, u64) -> Vec<u8>) {
        let vfs = Arc::new(RealVfs);
        let (store, _) = Store::open_with_replay(vfs, &self.dir, options()).unwrap();
        let mut random = Random(1);
        let mut number = 0;
        let mut made: Vec<Batch> = Vec::new();
        for _ in 0..batches {
            let mut batch = Batch::new();
            for _ in 0..1000 {
                batch.put(key(&mut random, number), VALUE);
                number += 1;
            }
            made.push(batch);
        }
        let begun = Watch::start();
        for (mark, batch) in made.iter().enumerate() {
            store.apply(mark as u64 + 1, Position(0), batch).unwrap();
        }
        begun.print(&format!("{row}: applied"), number);
        let mut random = Random(1);
        let begun = Watch::start();
        for n in 0..number {
            assert!(store.get(&key(&mut random, n)).unwrap().is_some());
        }
        begun.print(&format!("{row}: read back"), number);
        println!(
            "{:40} {:12}",
            format!("{row}: bytes counted for each"),
            store.stats().memtable_bytes as u64 / number
        );
    }

    /// Each of so many threads writes so many batches.
    fn writes(&self, row: &str, threads: u64, size: u64, batches: u64, durability: Durability) {
        let store = open(&self.dir);
        let begun = Watch::start();
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let store = &store;
                scope.spawn(move || {
                    let mut random = Random(thread << 32 | size);
                    for _ in 0..batches {
                        let mut batch = Batch::new();
                        for _ in 0..size {
                            batch.put(random.key(), VALUE);
                        }
                        store.write(batch, durability).unwrap();
                    }
                });
            }
        });
        begun.print(row, threads * batches * size);
        let log = store.stats().log;
        println!("{:40} {:12.1}", "    batches in a frame", log.appends as f64 / log.frames as f64);
        drop(store);
        let _ = std::fs::remove_dir_all(&self.dir);
    }

    /// Opens what a process that was killed has left, with so many bytes in its log.
    fn replay(&self, bytes: u64) {
        let store = open(&self.dir);
        let mut random = Random(7);
        let mut entries = 0;
        while store.stats().log_bytes < bytes {
            let mut batch = Batch::new();
            for _ in 0..100 {
                batch.put(random.key(), VALUE);
            }
            store.write(batch, Durability::Buffered).unwrap();
            entries += 100;
        }
        drop(store);
        for round in 0..3 {
            let with_defaults = round == 2;
            let options = if with_defaults { Options::default() } else { options() };
            let begun = Watch::start();
            let store = Store::open(Arc::new(RealVfs), &self.dir, options).unwrap();
            let row = if with_defaults { "replay, default options" } else { "replay" };
            begun.print(row, entries);
            let mut random = Random(7);
            for _ in 0..1000 {
                assert!(store.get(&random.key()).unwrap().is_some());
            }
            while store.pressure() == Pressure::Stop
                && store.maintain().unwrap() != Maintained::Nothing
            {}
        }
    }
}
