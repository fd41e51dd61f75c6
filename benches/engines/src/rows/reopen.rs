//! Row g: a process is killed with much in its log, and the next one opens the store.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rustix::process::{Signal, getpid, kill_process};

use super::{Job, Metric, Unit, fill, read};
use crate::engine::{Seen, Settings};
use crate::load::KEY_BYTES;
use crate::process::{self, Watch};

/// So much is put before the kill.
const LOG_BYTES: u64 = 200_000_000;

/// Larger than the log, so that nothing of it is sorted away before the kill.
const WRITE_BUFFER_BYTES: usize = 512 << 20;

fn settings(job: &Job) -> Settings {
    Settings { write_buffer_bytes: WRITE_BUFFER_BYTES, ..job.settings() }
}

fn keys(job: &Job) -> u64 {
    LOG_BYTES / (KEY_BYTES + job.value_bytes) as u64
}

/// Loads, and ends as by a pulled plug.
pub(super) fn prepare(job: &Job) -> Result<Vec<Metric>> {
    let store = job.engine.open(&job.dir, settings(job))?;
    fill::load(&*store, job, keys(job), 1_000, 0)?;
    kill_process(getpid(), Signal::KILL).context("cannot kill myself")?;
    unreachable!("a process that was killed goes on")
}

pub(super) fn measure(job: &Job) -> Result<Vec<Metric>> {
    let watch = Watch::start();
    let keys = keys(job);
    let began = Instant::now();
    let store = job.engine.open(&job.dir, settings(job))?;
    let mut opened = 0.0;
    store.read(Seen::Latest, &mut |reader| {
        read::get(reader, keys - 1, job.value_bytes)?;
        opened = began.elapsed().as_secs_f64() * 1e3;
        for index in (0..keys).step_by(97) {
            read::get(reader, index, job.value_bytes)?;
        }
        Ok(())
    })?;
    ensure!(opened > 0.0, "the engine read nothing");
    Ok(vec![
        Metric::less("reopen after a kill, 200 MB in the log", opened, Unit::Milliseconds),
        Metric::memory("reopen, peak memory", process::peak_memory()?),
        Metric::memory("reopen, peak anonymous memory", watch.stop()),
    ])
}
