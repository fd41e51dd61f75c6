//! Row i: gets and single durable puts in turn, while a stream of batches keeps the engine sorting.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;

use super::put::{histogram, percentile};
use super::{Clock, Job, Metric, on_threads, read};
use crate::engine::{Engine, Seen};
use crate::load::{Dice, Entries};

/// Each does a get, then a put, and so on.
const THREADS: usize = 4;

/// The stream: so many keys in a durable batch, so many batches a second if the engine can.
const BATCH: u64 = 100;
const BATCHES_PER_SECOND: f64 = 500.0;

/// It takes a while until what is written has to be sorted.
const TIMES_AS_LONG: f64 = 3.0;

/// What one thread saw.
struct Seconds {
    gets: Histogram<u64>,
    puts: Histogram<u64>,
}

pub(super) fn measure(job: &Job) -> Result<Vec<Metric>> {
    let store = job.engine.open(&job.dir, job.settings())?;
    let mixed = Mixed {
        store: &*store,
        job,
        generations: (0..job.keys).map(|_| AtomicU32::new(0)).collect(),
        over: AtomicBool::new(false),
    };
    let clock = Clock::start(job.seconds * TIMES_AS_LONG);
    let work = |thread| {
        if thread == THREADS { mixed.stream(&clock) } else { mixed.work(thread, &clock) }
    };
    let mut all = Seconds { gets: histogram(), puts: histogram() };
    let mut streamed = 0.0;
    for (seconds, keys) in on_threads(THREADS + 1, work)? {
        all.gets.add(seconds.gets)?;
        all.puts.add(seconds.puts)?;
        streamed += keys as f64;
    }
    let seconds = job.seconds * TIMES_AS_LONG;
    Ok(vec![
        Metric::rate("mixed, gets and puts", (all.gets.len() + all.puts.len()) as f64 / seconds),
        Metric::rate("mixed, keys of the stream, 50,000 wanted", streamed / seconds),
        percentile("mixed, get", &all.gets, 50.0),
        percentile("mixed, get", &all.gets, 99.9),
        percentile("mixed, get", &all.gets, 100.0),
        percentile("mixed, put", &all.puts, 50.0),
        percentile("mixed, put", &all.puts, 99.9),
        percentile("mixed, put", &all.puts, 100.0),
    ])
}

struct Mixed<'a> {
    store: &'a dyn Engine,
    job: &'a Job,
    /// What was acknowledged for each key. Each is written by one thread only.
    generations: Vec<AtomicU32>,
    over: AtomicBool,
}

impl Mixed<'_> {
    fn work(&self, thread: usize, clock: &Clock) -> Result<(Seconds, u64)> {
        let mut dice = Dice::new(thread as u64);
        let mut entries = Entries::new(self.job.value_bytes);
        let mut seen = Seconds { gets: histogram(), puts: histogram() };
        self.store.read(Seen::Latest, &mut |reader| {
            while !clock.is_over() {
                let index = dice.below(self.job.keys);
                let acknowledged = self.generations[index as usize].load(SeqCst);
                let began = Instant::now();
                read::get_not_older(reader, index, acknowledged.into(), self.job.value_bytes)?;
                seen.gets.saturating_record(began.elapsed().as_nanos() as u64);

                let index = self.mine(thread, dice.below(self.job.keys));
                let generation = self.generations[index as usize].load(Relaxed) + 1;
                entries.clear();
                entries.push(index, generation.into());
                let began = Instant::now();
                self.store.write(&entries)?;
                seen.puts.saturating_record(began.elapsed().as_nanos() as u64);
                self.generations[index as usize].store(generation, SeqCst);
            }
            self.over.store(true, Relaxed);
            Ok(())
        })?;
        ensure!(!seen.puts.is_empty(), "a thread came to nothing");
        Ok((seen, 0))
    }

    /// Overwrites keys in batches, at a pace that all engines are given alike.
    fn stream(&self, clock: &Clock) -> Result<(Seconds, u64)> {
        let mut dice = Dice::new(THREADS as u64);
        let mut entries = Entries::new(self.job.value_bytes);
        let mut written = 0;
        while !self.over.load(Relaxed) && !clock.is_over() {
            let due = written as f64 / BATCH as f64 / BATCHES_PER_SECOND;
            if due > clock.seconds() {
                std::thread::sleep(Duration::from_secs_f64(due - clock.seconds()));
            }
            entries.clear();
            let mut indexes: Vec<u64> =
                (0..BATCH).map(|_| self.mine(THREADS, dice.below(self.job.keys))).collect();
            indexes.sort_unstable();
            indexes.dedup();
            for &index in &indexes {
                let generation = self.generations[index as usize].load(Relaxed) + 1;
                entries.push(index, generation.into());
            }
            self.store.write(&entries)?;
            for &index in &indexes {
                self.generations[index as usize].fetch_add(1, SeqCst);
            }
            written += entries.len() as u64;
        }
        Ok((Seconds { gets: histogram(), puts: histogram() }, written))
    }

    /// The nearest key below that this thread may write.
    fn mine(&self, thread: usize, index: u64) -> u64 {
        let writers = THREADS as u64 + 1;
        let index = index / writers * writers + thread as u64;
        if index < self.job.keys { index } else { thread as u64 }
    }
}
