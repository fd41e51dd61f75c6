//! One hunt and what came of it: a row of the table that `kvorum-lab planted` prints.

use super::Bug;
use super::hunt::{Hunted, control, hunt};
use crate::threads;

/// How to hunt.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Seeds for each bug, at most.
    pub seeds_max: u64,
    /// Seeds without a bug, which must show nothing.
    pub control: u64,
    /// Threads that run seeds.
    pub threads: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { seeds_max: 2_000, control: 200, threads: threads() }
    }
}

/// What came of one hunt.
#[derive(Clone, Debug)]
pub struct Row {
    /// For what; none in the control run, which must find nothing.
    pub bug: Option<Bug>,
    /// What came of it.
    pub hunted: Hunted,
}

impl Row {
    /// Hunts for a bug, or without one.
    #[must_use]
    pub fn new(bug: Option<Bug>, bounds: &Bounds) -> Self {
        let hunted = match bug {
            Some(bug) => hunt(bug, bounds.seeds_max, bounds.threads),
            None => control(bounds.control, bounds.threads),
        };
        Self { bug, hunted }
    }

    /// Whether it is as it should be: a bug was found, or without one nothing was.
    #[must_use]
    pub fn is_right(&self) -> bool {
        match self.hunted {
            Hunted::Found(_) => self.bug.is_some(),
            Hunted::Nothing { .. } => self.bug.is_none(),
            Hunted::Unsound(_) => false,
        }
    }
}
