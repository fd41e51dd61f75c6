//! The hunt: seed after seed until something is wrong.

use std::ops::{ControlFlow, Range};

use super::{Bug, Place, Planted};
use crate::{Setup, Simulate, Violation, run_seeds};

/// How a hunt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hunted {
    /// The bug was seen: this seed breaks a promise with it, and holds without it. It is the first
    /// that does, or the known one.
    Found(Found),
    /// No seed breaks a promise.
    Nothing {
        /// How many were run.
        seeds: u64,
    },
    /// A seed breaks a promise without any bug on purpose, so there is another one.
    Unsound(Found),
}

/// A seed that breaks a promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which.
    pub seed: u64,
    /// What is broken.
    pub violation: Violation,
}

/// Runs seeds from 0 on with this bug until one of them breaks a promise. The answer is the same
/// for any number of threads.
#[must_use]
pub fn hunt(bug: Bug, seeds_max: u64, threads: usize) -> Hunted {
    first_violation(bug.place().simulate(), Planted::of(bug), 0..seeds_max, threads)
        .map_or(Hunted::Nothing { seeds: seeds_max }, |found| compared(bug, found))
}

/// Runs the seed that is known to show this bug, and only if that no longer does, or none is known,
/// searches: for who wants to know whether the bug is found, and not how soon.
#[must_use]
pub fn hunt_from_known(bug: Bug, seeds_max: u64, threads: usize) -> Hunted {
    let known = bug
        .known_seed()
        .map(|seed| seed..seed + 1)
        .and_then(|seeds| first_violation(bug.place().simulate(), Planted::of(bug), seeds, 1));
    known.map_or_else(|| hunt(bug, seeds_max, threads), |found| compared(bug, found))
}

/// Whether the same seed holds without the bug.
fn compared(bug: Bug, found: Found) -> Hunted {
    match bug.place().simulate()(&Setup::new(found.seed)).violation {
        None => Hunted::Found(found),
        Some(violation) => Hunted::Unsound(Found { violation, ..found }),
    }
}

/// The same without a bug, wherever bugs are looked for, which should find nothing.
#[must_use]
pub fn control(seeds: u64, threads: usize) -> Hunted {
    let places = Place::ALL.iter().map(|place| place.simulate());
    let found = places
        .filter_map(|simulate| first_violation(simulate, Planted::default(), 0..seeds, threads))
        .next();
    found.map_or(Hunted::Nothing { seeds }, Hunted::Unsound)
}

fn first_violation(
    simulate: Simulate,
    planted: Planted,
    seeds: Range<u64>,
    threads: usize,
) -> Option<Found> {
    let like = Setup { planted, ..Setup::new(0) };
    let totals = run_seeds(simulate, seeds, threads, &like, |totals| {
        if totals.violations.is_empty() {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    });
    // Seeds below one that broke were begun before it, and were run to their end.
    let (seed, violation) = totals.violations.into_iter().next()?;
    Some(Found { seed, violation })
}
