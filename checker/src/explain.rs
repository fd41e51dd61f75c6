//! Few operations that already cannot be ordered, out of many.

use std::collections::BTreeSet;

use crate::search::{Conflict, Found, Problem, search};
use crate::settle::settle;
use crate::steps::{Condition, Step};

/// Configurations for one try: a part that is harder to judge than this is not a good explanation.
const CONFIGURATIONS_MAX: usize = 20_000;

/// Steps examined over all tries; shrinking stops when they are used up.
const STEPS_MAX: usize = 3_000_000;

/// Operations that together have no order, as few as can be. The problem is as it was before it was
/// settled; nothing explains all of it that had returned by `until`.
pub(crate) fn explain(problem: &Problem, until: u64) -> Problem {
    let mut shrinker = Shrinker { steps_left: STEPS_MAX };
    let early = cut(problem, until);
    let early_suffices = shrinker.has_no_order(&early);
    shrinker.shrink(if early_suffices { early } else { problem.clone() })
}

/// The same, of two that exclude each other; none if it takes others to see it.
pub(crate) fn explain_conflict(problem: &Problem, conflict: &Conflict) -> Option<Problem> {
    let mut shrinker = Shrinker { steps_left: STEPS_MAX };
    let part = conflict.part(problem);
    shrinker.has_no_order(&part).then(|| shrinker.shrink(part))
}

struct Shrinker {
    steps_left: usize,
}

impl Shrinker {
    fn shrink(&mut self, mut part: Problem) -> Problem {
        let mut chunk = records_of(&part).len().div_ceil(2);
        while chunk > 0 {
            self.remove_chunks(&mut part, chunk);
            chunk = if chunk == 1 { 0 } else { chunk.div_ceil(2) };
        }
        part
    }

    fn remove_chunks(&mut self, part: &mut Problem, chunk: usize) {
        let mut candidates = records_of(part);
        while !candidates.is_empty() {
            let some: BTreeSet<usize> =
                candidates.split_off(candidates.len().saturating_sub(chunk)).into_iter().collect();
            let rest = without(part, some);
            if rest.steps.len() < part.steps.len() && self.has_no_order(&rest) {
                *part = rest;
            }
        }
    }

    fn has_no_order(&mut self, part: &Problem) -> bool {
        if self.steps_left < part.steps.len() {
            return false;
        }
        self.steps_left -= part.steps.len();
        let mut part = part.clone();
        settle(&mut part);
        matches!(search(&part, CONFIGURATIONS_MAX), Found::NoOrder { .. })
    }
}

fn records_of(part: &Problem) -> Vec<usize> {
    part.steps.iter().map(|step| step.record).collect()
}

/// The part without these records, and without all that found what one of those left out wrote, or
/// that its key was not something: a part in which somebody finds what nobody wrote has no order for
/// a reason that is not in the whole.
fn without(part: &Problem, mut records: BTreeSet<usize>) -> Problem {
    let (mut versions, mut keys) = (BTreeSet::new(), BTreeSet::new());
    let mut steps = part.steps.clone();
    loop {
        let before = steps.len();
        steps.retain(|step| {
            let goes = records.remove(&step.record)
                || step.conditions.iter().any(|(key, condition)| match condition {
                    Condition::Is(version) => versions.contains(version),
                    Condition::IsNot(_) => keys.contains(key),
                });
            if goes {
                keys.extend(step.effects.iter().map(|(key, _)| *key));
                versions.extend(step.effects.iter().map(|(_, version)| *version));
            }
            !goes
        });
        if steps.len() == before {
            return Problem { steps, initial: part.initial.clone(), versions: part.versions };
        }
    }
}

/// What clients knew at a time: nothing called later, and what had not returned may have happened
/// or not. Of what was called later, only what writes a version that was found, and what that found
/// in turn: that it came later is what is wrong.
fn cut(problem: &Problem, until: u64) -> Problem {
    let mut early = problem.clone();
    let mut kept: Vec<bool> = early.steps.iter().map(|step| step.call <= until).collect();
    let mut found: BTreeSet<u32> = BTreeSet::new();
    let finds = |step: &Step| {
        let is = |(_, condition): &(u32, Condition)| match condition {
            Condition::Is(version) => Some(*version),
            Condition::IsNot(_) => None,
        };
        step.conditions.iter().filter_map(is).collect::<Vec<u32>>()
    };
    for (step, _) in early.steps.iter().zip(&kept).filter(|(_, kept)| **kept) {
        found.extend(finds(step));
    }
    loop {
        let before = found.len();
        for (step, kept) in early.steps.iter().zip(&mut kept).filter(|(_, kept)| !**kept) {
            if step.effects.iter().any(|(_, version)| found.contains(version)) {
                *kept = true;
                found.extend(finds(step));
            }
        }
        if found.len() == before {
            break;
        }
    }
    let mut kept = kept.into_iter();
    early.steps.retain(|_| kept.next().unwrap_or(false));
    for step in &mut early.steps {
        step.required &= step.ret <= until;
    }
    early
}
