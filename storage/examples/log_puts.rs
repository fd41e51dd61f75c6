//! How many durable appends a second the log takes, beside what the device takes.
//!
//! ```text
//! cargo run --release -p kvorum-storage --example log_puts -- DIR [SECONDS] [BYTES]
//! ```
//!
//! Each row is one turn of three programs, one after the other, and the medians of several turns:
//! the log; a program that does no more than write what waits, grouped, with one direct and durable
//! write in flight; and the same with a file that grows and `fdatasync`.
#![expect(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use kvorum_storage::log::{Log, LogOptions};
use kvorum_storage::vfs::RealVfs;
use rustix::fs::OFlags;

const TURNS: usize = 5;

const RAW_FILE_BYTES: usize = 64 << 20;

/// What a record of the log costs besides its payload, so that the raw program writes as much.
const OVERHEAD_BYTES: usize = 3;

fn main() {
    let mut args = std::env::args().skip(1);
    let dir = args.next().expect("the directory to write to");
    let seconds: f64 = args.next().map_or(0.5, |seconds| seconds.parse().unwrap());
    let bytes: usize = args.next().map_or(160, |bytes| bytes.parse().unwrap());
    let dir = Path::new(&dir).join("log-puts");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    println!("records of {bytes} bytes; appends a second, each durable when it returns");
    println!("{:>7} {:>10} {:>10} {:>10} {:>8}", "threads", "log", "direct", "fdatasync", "of raw");
    for threads in [1, 2, 4, 8, 16] {
        let mut rates: [Vec<f64>; 3] = Default::default();
        for _ in 0..TURNS {
            rates[0].push(log(&dir, threads, seconds, bytes));
            rates[1].push(raw(&dir, threads, seconds, bytes, true));
            rates[2].push(raw(&dir, threads, seconds, bytes, false));
        }
        let [log, direct, plain] = rates.map(median);
        let ratio = log / direct;
        println!("{threads:>7} {log:>10.0} {direct:>10.0} {plain:>10.0} {ratio:>8.2}");
    }
    println!();
    println!("one thread beside another that writes without syncing, until 1 GiB");
    println!("{:>22} {:>12} {:>10} {:>14}", "the other", "MiB a second", "synced", "longest, ms");
    for (name, bulk_bytes) in [("none", 0), ("small", 160), ("batches of 150 KB", 150_000)] {
        let (bulk, synced, longest) = beside(&dir, seconds, bytes, bulk_bytes);
        let longest = longest.as_secs_f64() * 1e3;
        println!("{name:>22} {bulk:>12.0} {synced:>10.0} {longest:>14.2}");
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

/// What a thread gets done that syncs each record, beside one that writes others and syncs none: the
/// MiB a second of the latter, the records a second of the former, and the longest that one took.
fn beside(dir: &Path, seconds: f64, bytes: usize, bulk_bytes: usize) -> (f64, f64, Duration) {
    const MIB: f64 = 1_048_576.0;
    let dir = dir.join("beside");
    let (log, _) = Log::open(Arc::new(RealVfs), &dir, LogOptions::default()).unwrap();
    let (payload, bulk) = (vec![7; bytes], vec![8; bulk_bytes]);
    let (stop, mut longest, mut synced) = (AtomicBool::new(false), Duration::ZERO, 0_u32);
    let start = Instant::now();
    let written: f64 = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut written = 0.0;
            while bulk_bytes > 0 && !stop.load(Ordering::Relaxed) && written < 1024.0 * MIB {
                log.append(1, &bulk).unwrap();
                log.write().unwrap();
                written += f64::from(u32::try_from(bulk_bytes).unwrap());
                if written % (16.0 * MIB) < f64::from(u32::try_from(bulk_bytes).unwrap()) {
                    log.truncate_before(log.durable()).unwrap();
                }
            }
            written / start.elapsed().as_secs_f64()
        });
        while start.elapsed().as_secs_f64() < seconds {
            let begin = Instant::now();
            let position = log.append(1, &payload).unwrap();
            log.sync(position).unwrap();
            longest = longest.max(begin.elapsed());
            synced += 1;
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    let synced = f64::from(synced) / start.elapsed().as_secs_f64();
    log.truncate_before(log.last()).unwrap();
    drop(log);
    std::fs::remove_dir_all(&dir).unwrap();
    (written / MIB, synced, longest)
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// Runs `put` on so many threads for so long; how often it returned, a second.
fn measure(threads: usize, seconds: f64, put: impl Fn() + Sync) -> f64 {
    let (stop, puts) = (AtomicBool::new(false), AtomicU64::new(0));
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    put();
                    puts.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        thread::sleep(Duration::from_secs_f64(seconds));
        stop.store(true, Ordering::Relaxed);
    });
    let puts = u32::try_from(puts.into_inner()).unwrap();
    f64::from(puts) / start.elapsed().as_secs_f64()
}

fn log(dir: &Path, threads: usize, seconds: f64, bytes: usize) -> f64 {
    let dir = dir.join("log");
    let (log, _) = Log::open(Arc::new(RealVfs), &dir, LogOptions::default()).unwrap();
    let payload = vec![7; bytes];
    let rate = measure(threads, seconds, || {
        let position = log.append(1, &payload).unwrap();
        log.sync(position).unwrap();
    });
    log.truncate_before(log.last()).unwrap();
    rate
}

/// A file written to from one end to the other and round again, and who waits for it.
struct Raw {
    file: File,
    buffer: Vec<u8>,
    start: usize,
    state: Mutex<RawState>,
    written: Condvar,
    is_direct: bool,
    bytes: usize,
}

#[derive(Default)]
struct RawState {
    waiting: usize,
    last: u64,
    durable: u64,
    leading: bool,
    offset: u64,
}

impl Raw {
    fn put(&self) {
        let mut state = self.state.lock().unwrap();
        state.last += 1;
        state.waiting += 1;
        let me = state.last;
        while state.durable < me {
            if state.leading {
                state = self.written.wait(state).unwrap();
                continue;
            }
            state.leading = true;
            let (end, count) = (state.last, std::mem::take(&mut state.waiting));
            let bytes = (40 + count * (self.bytes + OVERHEAD_BYTES)).next_multiple_of(512);
            let offset = state.offset;
            state.offset += bytes as u64;
            if self.is_direct && state.offset + (1 << 20) > RAW_FILE_BYTES as u64 {
                state.offset = 0;
            }
            drop(state);
            self.file.write_all_at(&self.buffer[self.start..][..bytes], offset).unwrap();
            if !self.is_direct {
                self.file.sync_data().unwrap();
            }
            state = self.state.lock().unwrap();
            state.leading = false;
            state.durable = end;
            self.written.notify_all();
        }
    }
}

fn raw(dir: &Path, threads: usize, seconds: f64, bytes: usize, is_direct: bool) -> f64 {
    let path = dir.join("raw");
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(&path).unwrap();
    let mut flags = 0;
    if is_direct {
        for piece in 0..RAW_FILE_BYTES >> 20 {
            file.write_all_at(&[0; 1 << 20], (piece << 20) as u64).unwrap();
        }
        file.sync_all().unwrap();
        flags = (OFlags::DIRECT | OFlags::DSYNC).bits().cast_signed();
    }
    let file = OpenOptions::new().write(true).custom_flags(flags).open(&path).unwrap();
    let buffer = vec![7; (1 << 20) + 4096];
    let start = buffer.as_ptr().align_offset(4096);
    let (state, written) = (Mutex::default(), Condvar::new());
    let raw = Raw { file, buffer, start, state, written, is_direct, bytes };
    let rate = measure(threads, seconds, || raw.put());
    std::fs::remove_file(&path).unwrap();
    rate
}
