//! Rows a and b: single durable puts, each of a key of its own.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use anyhow::Result;
use hdrhistogram::Histogram;

use super::{Clock, Job, Metric, Row, Unit, on_threads, read};
use crate::engine::{Engine, Seen};
use crate::load::Entries;

/// Before the clock starts: files are made, threads are awake.
const WARM_UP: f64 = 0.5;

/// Latencies up to a minute, in nanoseconds, to three digits.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("these bounds are right")
}

/// The latency that so many per cent stay below.
pub(super) fn percentile(name: &str, latencies: &Histogram<u64>, percent: f64) -> Metric {
    let micros = latencies.value_at_percentile(percent) as f64 / 1e3;
    Metric::less(format!("{name}, p{percent}"), micros, Unit::Microseconds)
}

pub(super) fn measure(job: &Job) -> Result<Vec<Metric>> {
    let threads = if job.row == Row::A { 1 } else { 16 };
    let store = job.engine.open(&job.dir, job.settings())?;
    let next = AtomicU64::new(0);
    puts(&*store, job, threads, WARM_UP, &next)?;
    let (rate, latencies) = puts(&*store, job, threads, job.seconds, &next)?;
    verify(&*store, job, next.into_inner())?;
    let name = format!("durable put, {threads} thread{}", if threads == 1 { "" } else { "s" });
    let latency = percentile(&name, &latencies, 99.0);
    Ok(vec![Metric::rate(name, rate), latency])
}

fn puts(
    store: &dyn Engine,
    job: &Job,
    threads: usize,
    seconds: f64,
    next: &AtomicU64,
) -> Result<(f64, Histogram<u64>)> {
    let work = |_| {
        let (mut entries, mut latencies) = (Entries::new(job.value_bytes), histogram());
        let clock = Clock::start(seconds);
        while !clock.is_over() {
            entries.clear();
            entries.push(next.fetch_add(1, Relaxed), 0);
            let began = Instant::now();
            store.write(&entries)?;
            latencies.saturating_record(began.elapsed().as_nanos() as u64);
        }
        Ok((latencies.len() as f64 / clock.seconds(), latencies))
    };
    let mut sum = (0.0, histogram());
    for (rate, latencies) in on_threads(threads, work)? {
        sum.0 += rate;
        sum.1.add(latencies)?;
    }
    Ok(sum)
}

/// All that was acknowledged is there.
fn verify(store: &dyn Engine, job: &Job, keys: u64) -> Result<()> {
    store.read(Seen::Latest, &mut |reader| {
        let mut some = (0..keys).step_by(1 + keys as usize / 10_000);
        some.try_for_each(|index| read::get(reader, index, job.value_bytes))
    })
}
