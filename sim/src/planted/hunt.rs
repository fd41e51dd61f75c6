//! The hunt: seed after seed until something is wrong.

use std::ops::ControlFlow;

use super::{Bug, Place, Planted};
use crate::{Setup, Simulate, Violation, run_seeds};

/// How a hunt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hunted {
    /// The bug was seen: this seed breaks a promise with it, holds without it, and is the first
    /// that does.
    Found(Found),
    /// No seed breaks a promise.
    Nothing {
        /// How many were run.
        seeds: u64,
    },
    /// A seed breaks a promise without any bug on purpose, so there is another one.
    Unsound(Found),
}

/// The first seed that breaks a promise.
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
    let simulate = bug.place().simulate();
    match first_violation(simulate, Planted::of(bug), seeds_max, threads) {
        None => Hunted::Nothing { seeds: seeds_max },
        Some(found) => match simulate(&Setup::new(found.seed)).violation {
            None => Hunted::Found(found),
            Some(violation) => Hunted::Unsound(Found { violation, ..found }),
        },
    }
}

/// The same without a bug, wherever bugs are looked for, which should find nothing.
#[must_use]
pub fn control(seeds: u64, threads: usize) -> Hunted {
    let places = Place::ALL.iter().map(|place| place.simulate());
    let found = places
        .filter_map(|simulate| first_violation(simulate, Planted::default(), seeds, threads))
        .next();
    found.map_or(Hunted::Nothing { seeds }, Hunted::Unsound)
}

fn first_violation(
    simulate: Simulate,
    planted: Planted,
    seeds_max: u64,
    threads: usize,
) -> Option<Found> {
    let like = Setup { planted, ..Setup::new(0) };
    let totals = run_seeds(simulate, 0..seeds_max, threads, &like, |totals| {
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
