//! What each key is, and what is still to come: the rules by which a step can or cannot be next.

use super::blocks::Blocks;
use super::{Problem, mixed, small};
use crate::steps::{Condition, Step};

pub(super) struct Ledger<'a> {
    problem: &'a Problem,
    taken: Vec<bool>,
    /// For each key its version.
    state: Vec<u32>,
    /// What `state` held before each effect, to be taken back.
    overwritten: Vec<u32>,
    /// For each version, how many required steps still have to find it, how many steps at all, and
    /// how many steps will still write it.
    needed: Vec<u32>,
    wanted: Vec<u32>,
    writers: Vec<u32>,
    /// For each key, how many steps still have to find it *not* to be something.
    averse: Vec<u32>,
    /// For each version how many steps still have to find that it is not there.
    unwanted: Vec<u32>,
    /// For each version the steps that write it, by call; and the first that is not taken.
    writing: Vec<Vec<u32>>,
    first_writing: Vec<usize>,
    /// For each version the required step that finds it and was called last.
    last_finder: Vec<Option<u32>>,
    blocks: Blocks,
}

impl<'a> Ledger<'a> {
    pub(super) fn new(problem: &'a Problem) -> Self {
        let (steps, keys) = (problem.steps.len(), problem.initial.len());
        let mut ledger = Self {
            problem,
            taken: vec![false; steps],
            state: problem.initial.clone(),
            overwritten: Vec::new(),
            needed: vec![0; problem.versions],
            wanted: vec![0; problem.versions],
            writers: vec![0; problem.versions],
            averse: vec![0; keys],
            unwanted: vec![0; problem.versions],
            writing: vec![Vec::new(); problem.versions],
            first_writing: vec![0; problem.versions],
            last_finder: vec![None; problem.versions],
            blocks: Blocks::new(problem),
        };
        ledger.list_by_version();
        for step in &problem.steps {
            ledger.count(step, |count| *count += 1);
        }
        ledger
    }

    fn list_by_version(&mut self) {
        let mut order: Vec<u32> = (0..small(self.problem.steps.len())).collect();
        order.sort_by_key(|step| (self.problem.steps[*step as usize].call, *step));
        for step in order {
            let Step { conditions, effects, required, .. } = &self.problem.steps[step as usize];
            for (_, version) in effects {
                self.writing[*version as usize].push(step);
            }
            for (_, condition) in conditions.iter().filter(|_| *required) {
                if let Condition::Is(version) = condition {
                    self.last_finder[*version as usize] = Some(step);
                }
            }
        }
    }

    /// For each key its version.
    pub(super) fn state(&self) -> &[u32] {
        &self.state
    }

    pub(super) fn fits(&self, step: &Step) -> bool {
        step.conditions.iter().all(|(key, condition)| {
            let current = self.state[*key as usize];
            match condition {
                Condition::Is(version) => current == *version,
                Condition::IsNot(version) => current != *version,
            }
        })
    }

    /// Whether a write goes unnoticed if it takes place now.
    pub(super) fn is_harmless(&self, step: &Step) -> bool {
        step.conditions.is_empty()
            && step.effects.iter().all(|(key, version)| {
                let current = self.state[*key as usize];
                self.wanted[*version as usize] == 0
                    && self.wanted[current as usize] == 0
                    && self.averse[*key as usize] == 0
            })
    }

    /// Whether it overwrites what somebody else still needs to find and nobody writes again.
    pub(super) fn destroys(&self, step: &Step) -> bool {
        step.effects.iter().any(|(key, version)| {
            let current = self.state[*key as usize];
            let finds = |condition: &&(u32, Condition)| condition.1 == Condition::Is(current);
            let own = if step.required { step.conditions.iter().filter(finds).count() } else { 0 };
            current != *version
                && self.writers[current as usize] == 0
                && self.needed[current as usize] as usize > own
        })
    }

    /// Whether something else has to come before it: see `blocks`.
    pub(super) fn is_early(&self, index: u32) -> bool {
        self.blocks.is_early(index, &self.taken)
    }

    /// Whether it is a mere write, and all who find it are called by then.
    pub(super) fn is_over_by(&self, index: u32, time: u64) -> bool {
        let step = &self.problem.steps[index as usize];
        let is_over = |version: u32| self.blocks.has(version) || self.wanted[version as usize] == 0;
        step.required
            && step.conditions.is_empty()
            && step.effects.iter().all(|(_, version)| is_over(*version))
            && self.blocks.is_over_by(index, time)
    }

    /// Whether nobody needs what the step overwrites, or the next one overwrites that too.
    pub(super) fn leaves_room(&self, index: u32, next: &Step) -> bool {
        self.problem.steps[index as usize].effects.iter().all(|(key, _)| {
            let current = self.state[*key as usize];
            self.wanted[current as usize] == 0 || next.effects.iter().any(|(other, _)| other == key)
        })
    }

    /// When the step must have been taken.
    pub(super) fn deadline(&self, index: u32) -> u64 {
        self.blocks.deadline(index)
    }

    /// Whether somebody still has to find what an unknown step writes, or that what it overwrites is
    /// not there: if neither, all that happens before it is overwritten could happen without it.
    pub(super) fn is_useful(&self, step: u32) -> bool {
        let step = &self.problem.steps[step as usize];
        step.effects.iter().any(|(key, version)| {
            let finds = |condition: &&(u32, Condition)| condition.1 == Condition::Is(*version);
            let own = step.conditions.iter().filter(finds).count();
            let current = self.state[*key as usize];
            self.wanted[*version as usize] as usize > own || self.unwanted[current as usize] > 0
        })
    }

    /// Whether what a required step has to find is there, or can still be written in time; and
    /// whether what it overwrites is not needed until too late.
    pub(super) fn has_hope(&self, index: u32) -> bool {
        let step = &self.problem.steps[index as usize];
        let overwrites = step.effects.iter().all(|(key, version)| {
            let current = self.state[*key as usize];
            current == *version
                || self.writers[current as usize] > 0
                || self.last_finder[current as usize].is_none_or(|last| {
                    last == index
                        || self.taken[last as usize]
                        || self.problem.steps[last as usize].call <= step.ret
                })
        });
        overwrites
            && step.conditions.iter().all(|(key, condition)| match condition {
                Condition::Is(version) if self.state[*key as usize] != *version => {
                    let first = self.first_writing[*version as usize];
                    let first = self.writing[*version as usize].get(first);
                    first.is_some_and(|first| self.problem.steps[*first as usize].call <= step.ret)
                }
                Condition::Is(_) | Condition::IsNot(_) => true,
            })
    }

    /// Takes a step; says how the configuration's hash changes.
    pub(super) fn take(&mut self, index: u32) -> u128 {
        let step = &self.problem.steps[index as usize];
        self.taken[index as usize] = true;
        self.count(step, |count| *count -= 1);
        let mut change = 0;
        for (key, version) in &step.effects {
            let before = std::mem::replace(&mut self.state[*key as usize], *version);
            self.overwritten.push(before);
            change ^= mixed(1, u64::from(before)) ^ mixed(1, u64::from(*version));
        }
        for (_, version) in &step.effects {
            let writing = &self.writing[*version as usize];
            let first = &mut self.first_writing[*version as usize];
            while writing.get(*first).is_some_and(|step| self.taken[*step as usize]) {
                *first += 1;
            }
        }
        self.blocks.take(index, &self.taken);
        change
    }

    /// Undoes [`Self::take`] of the step taken last.
    pub(super) fn take_back(&mut self, index: u32) -> u128 {
        let step = &self.problem.steps[index as usize];
        let mut change = 0;
        for (key, version) in step.effects.iter().rev() {
            let before = self.overwritten.pop().expect("one was pushed for each effect taken");
            self.state[*key as usize] = before;
            change ^= mixed(1, u64::from(before)) ^ mixed(1, u64::from(*version));
        }
        for (_, version) in &step.effects {
            let by_call = |other: &u32| (self.problem.steps[*other as usize].call, *other);
            let place = self.writing[*version as usize]
                .binary_search_by_key(&(step.call, index), by_call)
                .expect("it was listed with those that write the version");
            let first = &mut self.first_writing[*version as usize];
            *first = (*first).min(place);
        }
        self.blocks.take_back(index);
        self.count(step, |count| *count += 1);
        self.taken[index as usize] = false;
        change
    }

    /// Adds the step to, or takes it from, the counts of what is still to come.
    fn count(&mut self, step: &Step, change: impl Fn(&mut u32)) {
        for (key, condition) in &step.conditions {
            match condition {
                Condition::Is(version) => {
                    change(&mut self.wanted[*version as usize]);
                    if step.required {
                        change(&mut self.needed[*version as usize]);
                    }
                }
                Condition::IsNot(version) => {
                    change(&mut self.averse[*key as usize]);
                    change(&mut self.unwanted[*version as usize]);
                }
            }
        }
        for (_, version) in &step.effects {
            change(&mut self.writers[*version as usize]);
        }
    }
}
