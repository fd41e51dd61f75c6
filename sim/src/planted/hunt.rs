//! The hunt: seed after seed until something is wrong.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::{Bug, Planted};
use crate::{Setup, two_phase};

/// The first violation that a bug led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The seed that shows it; all below it show nothing.
    pub seed: u64,
    /// What went wrong.
    pub violation: String,
}

/// Runs seeds from 0 on with this bug, or with none, until one of them breaks a promise. The answer
/// is the same for any number of threads.
#[must_use]
pub fn hunt(bug: Option<Bug>, seeds_max: u64, threads: usize) -> Option<Found> {
    let planted = bug.map_or_else(Planted::default, Planted::of);
    let next = AtomicU64::new(0);
    // Seeds from here on need not be run.
    let end = AtomicU64::new(seeds_max);
    let found: Mutex<Option<Found>> = Mutex::new(None);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end.load(Ordering::Relaxed) {
                        return;
                    }
                    let run = two_phase::simulate(&Setup { planted, ..Setup::new(seed) });
                    let Some(violation) = run.violation else { continue };
                    end.fetch_min(seed, Ordering::Relaxed);
                    let mut found = found.lock().expect("nobody panics while noting a violation");
                    if found.as_ref().is_none_or(|earlier| seed < earlier.seed) {
                        *found = Some(Found { seed, violation: violation.to_string() });
                    }
                }
            });
        }
    });
    found.into_inner().expect("nobody panics while noting a violation")
}
