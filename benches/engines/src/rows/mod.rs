//! The rows, each run in a process of its own, which says what it measured as a line of JSON.

mod put;

mod fill;

mod read;

mod reopen;

mod space;

mod mixed;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::engine::{Name, Settings};
use crate::raw;

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Row {
    /// Single durable puts, 1 thread
    A,
    /// Single durable puts, 16 threads
    B,
    /// Load random keys in durable batches of 1,000
    C,
    /// Load random keys in durable batches of 100
    C100,
    /// Gets of random keys, 1 and 2 threads, after the load of c
    D,
    /// Gets of keys that are not there, after the load of c
    E,
    /// Full scan, and scans of 100 from random keys, after the load of c
    F,
    /// Reopening after SIGKILL with 200 MB in the log
    G,
    /// Bytes on disk and bytes written after loading and overwriting everything twice
    H,
    /// Half gets, half durable puts, while batches come in as well, after the load of c
    I,
}

impl Row {
    /// Whether it reads what row c loaded.
    pub(crate) fn needs_load(self) -> bool {
        matches!(self, Row::D | Row::E | Row::F | Row::I)
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Row::A => "a",
            Row::B => "b",
            Row::C => "c",
            Row::C100 => "c100",
            Row::D => "d",
            Row::E => "e",
            Row::F => "f",
            Row::G => "g",
            Row::H => "h",
            Row::I => "i",
        })
    }
}

/// What a process is to measure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) engine: Name,
    pub(crate) row: Row,
    pub(crate) dir: PathBuf,
    /// Only what comes before the measuring: row g, which is then killed.
    pub(crate) prepare: bool,
    pub(crate) value_bytes: usize,
    pub(crate) keys: u64,
    pub(crate) seconds: f64,
    pub(crate) cache_bytes: usize,
}

impl Job {
    pub(crate) fn parse(text: &str) -> Job {
        serde_json::from_str(text).expect("a job is made by this program")
    }

    fn settings(&self) -> Settings {
        Settings {
            cache_bytes: self.cache_bytes,
            value_bytes: self.value_bytes,
            write_buffer_bytes: WRITE_BUFFER_BYTES,
        }
    }
}

/// RocksDB's default, and fjall's.
const WRITE_BUFFER_BYTES: usize = 64 << 20;

/// Something that was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Metric {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: Unit,
    /// More of it is better.
    pub(crate) more: bool,
}

/// What a metric counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    PerSecond,
    Microseconds,
    Milliseconds,
    Mebibytes,
    /// So many times as much.
    Times,
}

impl Metric {
    pub(crate) fn rate(name: impl Into<String>, per_second: f64) -> Metric {
        Metric { name: name.into(), value: per_second, unit: Unit::PerSecond, more: true }
    }

    fn less(name: impl Into<String>, value: f64, unit: Unit) -> Metric {
        Metric { name: name.into(), value, unit, more: false }
    }

    fn memory(name: &str, bytes: u64) -> Metric {
        Metric::less(name, bytes as f64 / f64::from(1 << 20), Unit::Mebibytes)
    }
}

/// Measures a row and prints what came out.
pub(crate) fn run(job: &Job) -> Result<()> {
    let measure = match (job.engine, job.row) {
        (Name::Raw, _) => raw::measure,
        (_, Row::A | Row::B) => put::measure,
        (_, Row::C | Row::C100) => fill::measure,
        (_, Row::D) => read::gets,
        (_, Row::E) => read::absent,
        (_, Row::F) => read::scans,
        (_, Row::G) if job.prepare => reopen::prepare,
        (_, Row::G) => reopen::measure,
        (_, Row::H) => space::measure,
        (_, Row::I) => mixed::measure,
    };
    let what = || format!("{}, row {}", job.engine, job.row);
    let metrics: Vec<Metric> = measure(job).with_context(what)?;
    println!("{}", serde_json::to_string(&metrics)?);
    Ok(())
}

/// Time that runs out.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    began: Instant,
    seconds: f64,
}

impl Clock {
    pub(crate) fn start(seconds: f64) -> Clock {
        Clock { began: Instant::now(), seconds }
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.seconds() >= self.seconds
    }
}

/// Does `work` on so many threads at once.
pub(crate) fn on_threads<T: Send>(
    threads: usize,
    work: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> =
            (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect()
    })
}
