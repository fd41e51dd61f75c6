//! No engine: what the device allows a program that only makes records durable, in rows a and b.
//!
//! Records are as long as a key and a value. Direct writes go, in whole blocks, to a file that was
//! written before and is written again from its beginning when it ends, as a log that reuses its
//! files does it.

use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard};

use anyhow::{Context, Result};
use rustix::fs::OFlags;

use crate::load::KEY_BYTES;
use crate::rows::{Clock, Job, Metric, Row, on_threads};

/// Direct writes begin and end at such places, in the file and in memory.
const BLOCK: usize = 4096;

/// The size of the file.
const FILE_BYTES: u64 = 64 << 20;

const WARM_UP: f64 = 0.3;

/// A way to make bytes durable.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// `O_DIRECT` and `O_DSYNC`, into blocks that were written before.
    Direct,
    /// `fdatasync` after each write to a file that grows.
    Append,
}

pub(crate) fn measure(job: &Job) -> Result<Vec<Metric>> {
    let rate = |name: &str, threads, way, grouped| {
        let file = Target::open(&job.dir.join("raw"), way)?;
        run(&file, job, threads, WARM_UP, grouped)?;
        anyhow::Ok(Metric::rate(name, run(&file, job, threads, job.seconds, grouped)?))
    };
    match job.row {
        Row::A => Ok(vec![
            rate("durable put, 1 thread", 1, Way::Direct, true)?,
            rate("raw: append and fdatasync, 1 thread", 1, Way::Append, true)?,
        ]),
        Row::B => Ok(vec![
            rate("durable put, 16 threads", 16, Way::Direct, true)?,
            rate("raw: append and fdatasync, 16 threads in groups", 16, Way::Append, true)?,
            rate("raw: direct, 16 threads each for itself", 16, Way::Direct, false)?,
        ]),
        _ => Ok(Vec::new()),
    }
}

/// Records made durable in a second.
fn run(file: &Target, job: &Job, threads: usize, seconds: f64, grouped: bool) -> Result<f64> {
    let record = vec![0xA5; KEY_BYTES + job.value_bytes];
    let group = Group::default();
    let work = |_| {
        let (mut count, mut own) = (0, Block::default());
        let clock = Clock::start(seconds);
        while !clock.is_over() {
            if grouped {
                group.commit(&record, file)?;
            } else {
                own.bytes.clear();
                own.bytes.extend_from_slice(&record);
                own.write(file)?;
            }
            count += 1;
        }
        Ok(f64::from(count) / clock.seconds())
    };
    Ok(on_threads(threads, work)?.into_iter().sum())
}

/// The file, and where the next write goes.
struct Target {
    file: File,
    way: Way,
    next: AtomicU64,
}

impl Target {
    fn open(path: &Path, way: Way) -> Result<Target> {
        let create = || -> std::io::Result<File> {
            let file = File::create(path)?;
            let block = vec![0x5A; 1 << 20];
            let blocks = if way == Way::Direct { FILE_BYTES >> 20 } else { 0 };
            for at in 0..blocks {
                file.write_all_at(&block, at << 20)?;
            }
            file.sync_all()?;
            let flags =
                if way == Way::Direct { OFlags::DIRECT | OFlags::DSYNC } else { OFlags::empty() };
            OpenOptions::new().write(true).custom_flags(flags.bits() as i32).open(path)
        };
        let file = create().with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Target { file, way, next: AtomicU64::new(0) })
    }

    fn write(&self, bytes: &[u8]) -> Result<()> {
        let at = self.next.fetch_add(bytes.len() as u64, Relaxed);
        match self.way {
            Way::Direct => {
                // Groups are far shorter than a MiB, so that none reaches over the end.
                let at = at % (FILE_BYTES - (1 << 20)) / BLOCK as u64 * BLOCK as u64;
                self.file.write_all_at(bytes, at)?;
            }
            Way::Append => {
                self.file.write_all_at(bytes, at)?;
                self.file.sync_data()?;
            }
        }
        Ok(())
    }
}

/// Bytes, and memory from which they can be written directly.
#[derive(Default)]
struct Block {
    bytes: Vec<u8>,
    aligned: Vec<u8>,
}

impl Block {
    fn write(&mut self, file: &Target) -> Result<()> {
        if file.way == Way::Append {
            return file.write(&self.bytes);
        }
        let length = self.bytes.len().next_multiple_of(BLOCK);
        self.aligned.resize(self.aligned.len().max(length + BLOCK), 0);
        let begin = self.aligned.as_ptr().align_offset(BLOCK);
        let place: Range<usize> = begin..begin + length;
        self.aligned[begin..begin + self.bytes.len()].copy_from_slice(&self.bytes);
        file.write(&self.aligned[place])
    }
}

/// The least group commit: who finds nobody writing writes all that waits.
#[derive(Default)]
struct Group {
    state: Mutex<State>,
    /// What is being written; only its writer takes it.
    writing: Mutex<Block>,
    written: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    appended: u64,
    durable: u64,
    is_writing: bool,
}

impl Group {
    fn commit(&self, record: &[u8], file: &Target) -> Result<()> {
        let mut state = self.lock();
        state.waiting.extend_from_slice(record);
        state.appended += 1;
        let mine = state.appended;
        while state.durable < mine {
            if state.is_writing {
                state = self.written.wait(state).expect("no writer panics");
                continue;
            }
            state.is_writing = true;
            let mut block = self.writing.lock().expect("no writer panics");
            block.bytes.clear();
            std::mem::swap(&mut block.bytes, &mut state.waiting);
            let upto = state.appended;
            drop(state);
            block.write(file)?;
            drop(block);
            state = self.lock();
            state.is_writing = false;
            state.durable = upto;
            self.written.notify_all();
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no writer panics")
    }
}
