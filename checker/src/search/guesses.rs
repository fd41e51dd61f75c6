//! The unknown steps that the search has taken to have happened.
//!
//! They need not have, so taking one has to be worth it. Of the orders that explain a history there
//! is one in which every unknown step that is used is used as late as can be: right before a step
//! that shares a key with it (before any other it might as well come after that one), and in which
//! somebody finds something of what it wrote before all of it is overwritten (else it can be left
//! out). Only such orders are looked for.

use super::{Problem, mixed};
use crate::steps::Step;

#[derive(Debug)]
pub(super) struct Guesses {
    /// The unknown steps just taken, one after another, that no later one shares a key with: the
    /// next required step has to share one with each.
    pending: Vec<u32>,
    /// What `pending` was before each step taken.
    pending_before: Vec<Vec<u32>>,
    /// For each key the unknown step whose version it has, if it is one's.
    owner: Vec<Option<u32>>,
    /// What `owner` was before each effect taken.
    owner_before: Vec<Option<u32>>,
    /// For each step the number of keys it owns.
    owned: Vec<u32>,
    /// For each unknown step taken, how often a key was looked at while it owned it.
    found: Vec<u32>,
}

impl Guesses {
    pub(super) fn new(problem: &Problem) -> Self {
        Self {
            pending: Vec::new(),
            pending_before: Vec::new(),
            owner: vec![None; problem.initial.len()],
            owner_before: Vec::new(),
            owned: vec![0; problem.steps.len()],
            found: vec![0; problem.steps.len()],
        }
    }

    /// Whether the step may follow those taken.
    pub(super) fn allow(&self, problem: &Problem, step: u32) -> bool {
        self.is_timely(problem, step) && !self.wastes(&problem.steps[step as usize])
    }

    fn is_timely(&self, problem: &Problem, step: u32) -> bool {
        let share = |before: u32| share_key(problem, before, step);
        if problem.steps[step as usize].required {
            self.pending.iter().all(|before| share(*before))
        } else {
            // Of unknown ones that could change places, the smaller first.
            self.pending.last().is_none_or(|last| *last < step || share(*last))
        }
    }

    /// Whether it overwrites all that is left of an unknown step of which nobody has seen anything.
    fn wastes(&self, step: &Step) -> bool {
        let owner = |key: u32| self.owner[key as usize];
        step.effects.iter().filter_map(|(key, _)| owner(*key)).any(|guess| {
            let of_guess = |key: u32| owner(key) == Some(guess);
            let overwritten = step.effects.iter().filter(|(key, _)| of_guess(*key)).count();
            self.found[guess as usize] == 0
                && self.owned[guess as usize] as usize == overwritten
                && !step.conditions.iter().any(|(key, _)| of_guess(*key))
        })
    }

    /// Takes a step; says how the configuration's hash changes.
    pub(super) fn take(&mut self, problem: &Problem, index: u32) -> u128 {
        let step = &problem.steps[index as usize];
        let mut change = self.set_pending(problem, index);
        for (key, _) in &step.conditions {
            if let Some(guess) = self.owner[*key as usize] {
                self.found[guess as usize] += 1;
                change ^= if self.found[guess as usize] == 1 { unseen(guess) } else { 0 };
            }
        }
        let owner = (!step.required).then_some(index);
        for (key, _) in &step.effects {
            let before = std::mem::replace(&mut self.owner[*key as usize], owner);
            self.owner_before.push(before);
            if let Some(guess) = before {
                self.owned[guess as usize] -= 1;
            }
        }
        if !step.required {
            self.owned[index as usize] = u32::try_from(step.effects.len()).unwrap_or(u32::MAX);
            change ^= unseen(index);
        }
        change
    }

    /// Undoes [`Self::take`] of the step taken last.
    pub(super) fn take_back(&mut self, problem: &Problem, index: u32) -> u128 {
        let step = &problem.steps[index as usize];
        let mut change = if step.required { 0 } else { unseen(index) };
        for (key, _) in step.effects.iter().rev() {
            let before = self.owner_before.pop().expect("one was pushed for each effect");
            self.owner[*key as usize] = before;
            if let Some(guess) = before {
                self.owned[guess as usize] += 1;
            }
        }
        for (key, _) in step.conditions.iter().rev() {
            if let Some(guess) = self.owner[*key as usize] {
                self.found[guess as usize] -= 1;
                change ^= if self.found[guess as usize] == 0 { unseen(guess) } else { 0 };
            }
        }
        let before = self.pending_before.pop().expect("one was pushed for each step");
        change ^ self.replace_pending(before).1
    }

    fn set_pending(&mut self, problem: &Problem, step: u32) -> u128 {
        let after = if problem.steps[step as usize].required {
            Vec::new()
        } else {
            let left = |before: &u32| !share_key(problem, *before, step);
            self.pending.iter().copied().filter(left).chain([step]).collect()
        };
        let (before, change) = self.replace_pending(after);
        self.pending_before.push(before);
        change
    }

    fn replace_pending(&mut self, after: Vec<u32>) -> (Vec<u32>, u128) {
        let change = hash(&after) ^ hash(&self.pending);
        (std::mem::replace(&mut self.pending, after), change)
    }
}

/// The members, and once more the last, on which it depends what may come next.
fn hash(pending: &[u32]) -> u128 {
    let last = pending.last().map_or(0, |last| mixed(2, 1 << 32 | u64::from(*last)));
    pending.iter().fold(last, |hash, step| hash ^ mixed(2, u64::from(*step)))
}

/// Part of the hash of every configuration in which nobody has seen this unknown step yet.
fn unseen(guess: u32) -> u128 {
    mixed(3, u64::from(guess))
}

fn share_key(problem: &Problem, a: u32, b: u32) -> bool {
    let (a, b) = (&problem.steps[a as usize], &problem.steps[b as usize]);
    touched(a).any(|key| touched(b).any(|other| key == other))
}

fn touched(step: &Step) -> impl Iterator<Item = u32> {
    step.conditions.iter().map(|(key, _)| *key).chain(step.effects.iter().map(|(key, _)| *key))
}
