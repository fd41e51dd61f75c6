//! Row c: loading random keys in durable batches.

use std::time::Instant;

use anyhow::Result;

use super::{Job, Metric, Row, Unit};
use crate::engine::Engine;
use crate::load::{Dice, Entries};
use crate::process::{self, Watch};

/// Writes every key once, in batches; the bytes of keys and values that these are.
pub(super) fn load(
    store: &dyn Engine,
    job: &Job,
    keys: u64,
    batch: u64,
    generation: u64,
) -> Result<u64> {
    let mut entries = Entries::new(job.value_bytes);
    let mut bytes = 0;
    // Another order each time, though each key's place is random anyway.
    let turn = Dice::new(generation).below(keys);
    for first in (0..keys).step_by(batch as usize) {
        entries.clear();
        for index in first..(first + batch).min(keys) {
            entries.push((index + turn) % keys, generation);
        }
        store.write(&entries)?;
        bytes += entries.bytes();
    }
    Ok(bytes)
}

pub(super) fn measure(job: &Job) -> Result<Vec<Metric>> {
    let watch = Watch::start();
    let store = job.engine.open(&job.dir, job.settings())?;
    let batch = if job.row == Row::C { 1_000 } else { 100 };
    let began = Instant::now();
    let bytes = load(&*store, job, job.keys, batch, 0)?;
    let loaded = began.elapsed().as_secs_f64();
    store.settle()?;
    let settled = began.elapsed().as_secs_f64();
    let name = format!("load in batches of {batch}, keys");
    let mut metrics = vec![
        Metric::rate(&name, job.keys as f64 / loaded),
        Metric::rate(format!("{name}, until settled"), job.keys as f64 / settled),
    ];
    let written = || Ok::<_, anyhow::Error>(process::written()? as f64 / bytes as f64);
    let due = written()?;
    store.rest()?;
    if job.row == Row::C {
        let idle = written()?;
        metrics.push(Metric::less("load, bytes written per byte put", due, Unit::Times));
        metrics.push(Metric::less("load, the same with idle work", idle, Unit::Times));
        metrics.push(Metric::memory("load, peak memory", process::peak_memory()?));
        metrics.push(Metric::memory("load, peak anonymous memory", watch.stop()));
    }
    Ok(metrics)
}
