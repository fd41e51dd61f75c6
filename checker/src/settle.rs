//! What can be known beforehand of operations whose outcome nobody told.
//!
//! If only one step writes a version and somebody found that version, the step happened, and before
//! the one who found it returned. If nobody found what an unknown step writes, it may as well never
//! have happened. Both are exact, and without them every unknown operation would double the search.

use std::collections::BTreeMap;

use crate::search::Problem;
use crate::steps::{Condition, Step};

/// What is said of each version and key by the steps that are there.
struct Census {
    /// For each version how many steps write it.
    writers: Vec<u32>,
    /// For each version how many steps found it.
    finders: Vec<u32>,
    /// For each version when the first who is known to have found it returned.
    found_by: Vec<u64>,
    /// For each key how many steps found it not to be something.
    averse: Vec<u32>,
}

/// Makes required what must have happened, with the latest time at which it can have; drops what
/// may as well not have happened.
pub(crate) fn settle(problem: &mut Problem) {
    loop {
        let census = Census::of(problem);
        let mut changed = false;
        for step in &mut problem.steps {
            changed |= require(step, &census);
        }
        let before = problem.steps.len();
        problem.steps.retain(|step| step.required || is_noticed(step, &census));
        if !changed && problem.steps.len() == before {
            break;
        }
    }
    merge_unseen(problem);
}

/// Makes one version of all that nobody looked for, a key at a time: whoever writes one of them
/// might as well write another.
fn merge_unseen(problem: &mut Problem) {
    let mut sought = vec![false; problem.versions];
    for version in &problem.initial {
        sought[*version as usize] = true;
    }
    for (_, condition) in problem.steps.iter().flat_map(|step| &step.conditions) {
        let (Condition::Is(version) | Condition::IsNot(version)) = condition;
        sought[*version as usize] = true;
    }
    let mut unseen: Vec<Option<u32>> = vec![None; problem.initial.len()];
    for (key, version) in problem.steps.iter_mut().flat_map(|step| &mut step.effects) {
        if !sought[*version as usize] {
            *version = *unseen[*key as usize].get_or_insert(*version);
        }
    }
}

fn require(step: &mut Step, census: &Census) -> bool {
    let found = step
        .effects
        .iter()
        .filter(|(_, version)| census.writers[*version as usize] == 1)
        .map(|(_, version)| census.found_by[*version as usize])
        .min()
        .unwrap_or(u64::MAX);
    let ret = if step.required { step.ret.min(found) } else { found };
    if found == u64::MAX || (step.required && ret == step.ret) {
        return false;
    }
    step.required = true;
    step.ret = ret;
    true
}

fn is_noticed(step: &Step, census: &Census) -> bool {
    let mut own: BTreeMap<u32, u32> = BTreeMap::new();
    let mut own_averse: BTreeMap<u32, u32> = BTreeMap::new();
    for (key, condition) in &step.conditions {
        match condition {
            Condition::Is(version) => *own.entry(*version).or_default() += 1,
            Condition::IsNot(_) => *own_averse.entry(*key).or_default() += 1,
        }
    }
    step.effects.iter().any(|(key, version)| {
        let own = own.get(version).copied().unwrap_or(0);
        let own_averse = own_averse.get(key).copied().unwrap_or(0);
        census.finders[*version as usize] > own || census.averse[*key as usize] > own_averse
    })
}

impl Census {
    fn of(problem: &Problem) -> Self {
        let mut census = Self {
            writers: vec![0; problem.versions],
            finders: vec![0; problem.versions],
            found_by: vec![u64::MAX; problem.versions],
            averse: vec![0; problem.initial.len()],
        };
        // What a key begins with was there before any step: finding it proves no step.
        for version in &problem.initial {
            census.writers[*version as usize] = 2;
        }
        for step in &problem.steps {
            for (key, condition) in &step.conditions {
                match condition {
                    Condition::Is(version) => {
                        census.finders[*version as usize] += 1;
                        if step.required {
                            let found = &mut census.found_by[*version as usize];
                            *found = (*found).min(step.ret);
                        }
                    }
                    Condition::IsNot(_) => census.averse[*key as usize] += 1,
                }
            }
            for (_, version) in &step.effects {
                census.writers[*version as usize] += 1;
            }
        }
        census
    }
}
