//! Rows d, e and f: reading what row c loaded, in a process that opened it anew.

use anyhow::{Result, ensure};

use super::{Clock, Job, Metric, on_threads};
use crate::engine::{Engine, Reader, Seen};
use crate::load::{self, Dice, Key};
use crate::process::{self, Watch};

/// The clock is looked at once in so many gets.
const GETS: u64 = 64;

/// The part of the time for which an engine is asked to fill its cache, before the clock starts.
const WARM_UP: f64 = 0.7;

/// Each scan but the full one is of so many entries.
const SCAN_ENTRIES: u64 = 100;

pub(super) fn gets(job: &Job) -> Result<Vec<Metric>> {
    let watch = Watch::start();
    let store = job.engine.open(&job.dir, job.settings())?;
    let present = |reader: &mut dyn Reader, dice: &mut Dice| {
        let index = dice.below(job.keys);
        get(reader, index, job.value_bytes)
    };
    rate(&*store, Seen::Latest, 2, job.seconds * WARM_UP, &present)?;
    let mut metrics = Vec::new();
    for (view, name) in [(Seen::Latest, "get"), (Seen::Snapshot, "get in a snapshot")] {
        for (threads, name) in [(1, format!("{name}, 1 thread")), (2, format!("{name}, 2 threads"))]
        {
            let rate = rate(&*store, view, threads, job.seconds, &present)?;
            metrics.push(Metric::rate(name, rate));
        }
    }
    metrics.push(Metric::memory("gets, peak memory", process::peak_memory()?));
    metrics.push(Metric::memory("gets, peak anonymous memory", watch.stop()));
    Ok(metrics)
}

pub(super) fn absent(job: &Job) -> Result<Vec<Metric>> {
    let store = job.engine.open(&job.dir, job.settings())?;
    let absent = |reader: &mut dyn Reader, dice: &mut Dice| {
        let index = dice.below(job.keys);
        let is_there = reader.get(&load::absent_key(index), &mut |_| ())?;
        ensure!(!is_there, "absent key {index} is there");
        Ok(())
    };
    rate(&*store, Seen::Latest, 2, job.seconds * WARM_UP, &absent)?;
    let per_second = rate(&*store, Seen::Latest, 1, job.seconds, &absent)?;
    Ok(vec![Metric::rate("get of an absent key, 1 thread", per_second)])
}

pub(super) fn scans(job: &Job) -> Result<Vec<Metric>> {
    let store = job.engine.open(&job.dir, job.settings())?;
    let (mut full, mut short) = (0.0, 0.0);
    store.read(Seen::Latest, &mut |reader| {
        full_scan(reader, job)?;
        let clock = Clock::start(job.seconds);
        let mut count = 0;
        while !clock.is_over() {
            count += full_scan(reader, job)?;
        }
        full = count as f64 / clock.seconds();
        let (mut dice, clock, mut count) = (Dice::new(1), Clock::start(job.seconds), 0);
        while !clock.is_over() {
            short_scan(reader, dice.below(job.keys), job)?;
            count += 1;
        }
        short = f64::from(count) / clock.seconds();
        Ok(())
    })?;
    let scans = format!("scans of {SCAN_ENTRIES}");
    Ok(vec![Metric::rate("full scan, entries", full), Metric::rate(scans, short)])
}

/// Gets a key that must be there, and looks at what comes.
pub(super) fn get(reader: &mut dyn Reader, index: u64, value_bytes: usize) -> Result<()> {
    get_not_older(reader, index, 0, value_bytes)
}

/// The same, of a value that was put in this generation or later.
pub(super) fn get_not_older(
    reader: &mut dyn Reader,
    index: u64,
    generation: u64,
    value_bytes: usize,
) -> Result<()> {
    let mut checked = Ok(());
    let mut check = |value: &[u8]| checked = load::check(value, index, generation, value_bytes);
    ensure!(reader.get(&load::key(index), &mut check)?, "key {index} is not there");
    checked
}

/// How often `one` can be done in a second, by all threads together.
fn rate(
    store: &dyn Engine,
    view: Seen,
    threads: usize,
    seconds: f64,
    one: &(dyn Fn(&mut dyn Reader, &mut Dice) -> Result<()> + Sync),
) -> Result<f64> {
    let work = |thread| {
        let mut rate = 0.0;
        store.read(view, &mut |reader| {
            let (mut dice, mut count) = (Dice::new(thread as u64 + threads as u64), 0);
            let clock = Clock::start(seconds);
            while !clock.is_over() {
                for _ in 0..GETS {
                    one(reader, &mut dice)?;
                }
                count += GETS;
            }
            rate = count as f64 / clock.seconds();
            Ok(())
        })?;
        Ok(rate)
    };
    Ok(on_threads(threads, work)?.into_iter().sum())
}

/// Reads everything; how many entries there were. They must be as many as were put, in order.
fn full_scan(reader: &mut dyn Reader, job: &Job) -> Result<u64> {
    let (mut count, mut bytes, mut sorted, mut last) = (0, 0, true, Key::default());
    reader.scan(&Key::default(), &mut |key, value| {
        sorted &= key > &last[..];
        last.copy_from_slice(key);
        count += 1;
        bytes += value.len();
        true
    })?;
    ensure!(count == job.keys, "a full scan has {count} entries, not {}", job.keys);
    ensure!(bytes == count as usize * job.value_bytes, "a full scan has {bytes} bytes of values");
    ensure!(sorted, "a full scan is out of order");
    Ok(count)
}

fn short_scan(reader: &mut dyn Reader, index: u64, job: &Job) -> Result<()> {
    let from = load::key(index);
    let (mut count, mut sorted, mut last) = (0, true, Key::default());
    let mut checked = Ok(());
    reader.scan(&from, &mut |key, value| {
        if count == 0 {
            sorted = key == from;
            checked = load::check(value, index, 0, job.value_bytes);
        }
        sorted &= key > &last[..] && value.len() == job.value_bytes;
        last.copy_from_slice(key);
        count += 1;
        count < SCAN_ENTRIES
    })?;
    ensure!(sorted, "a scan from key {index} begins elsewhere or is out of order");
    // A scan that begins among the last hundred keys has fewer.
    let is_near_end = from[0] == u8::MAX;
    ensure!(count == SCAN_ENTRIES || is_near_end, "a scan from key {index} has {count} entries");
    checked
}
