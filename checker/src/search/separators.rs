//! Who may need a write only to find that something is not there any more.
//!
//! A step that found a version missing needs some other write between. A write can be that one only
//! if it is still what the key is when the step takes place: so not if another write was called
//! after it had returned, and itself had returned before the step was called.

use super::Problem;
use crate::steps::{Condition, Step};

pub(super) struct Separators {
    /// For each key the steps that found something missing, by call, with what; and the first that
    /// is not taken.
    missing: Vec<Vec<Missing>>,
    first_left: Vec<usize>,
    /// For each key its required writes by call: when each was called, and when the first of it and
    /// those after it had returned.
    writes: Vec<Vec<(u64, u64)>>,
}

#[derive(Clone, Copy)]
struct Missing {
    call: u64,
    step: u32,
    version: u32,
}

impl Separators {
    pub(super) fn new(problem: &Problem) -> Self {
        let keys = problem.initial.len();
        let mut separators = Self {
            missing: vec![Vec::new(); keys],
            first_left: vec![0; keys],
            writes: vec![Vec::new(); keys],
        };
        for (index, step) in (0u32..).zip(&problem.steps) {
            for (key, version) in missed(step) {
                let missing = Missing { call: step.call, step: index, version };
                separators.missing[key as usize].push(missing);
            }
            for (key, _) in step.effects.iter().filter(|_| step.required) {
                separators.writes[*key as usize].push((step.call, step.ret));
            }
        }
        for missing in &mut separators.missing {
            missing.sort_by_key(|missing| (missing.call, missing.step));
        }
        for writes in &mut separators.writes {
            writes.sort_unstable();
            let mut first_return = u64::MAX;
            for (_, ret) in writes.iter_mut().rev() {
                first_return = first_return.min(*ret);
                *ret = first_return;
            }
        }
        separators
    }

    /// The steps that may need a write that has returned by then, and what they found missing; some
    /// of them may be taken.
    pub(super) fn near(&self, key: u32, ret: u64) -> impl Iterator<Item = (u32, u32)> {
        let writes = &self.writes[key as usize];
        let after = writes.partition_point(|(call, _)| *call <= ret);
        let until = writes.get(after).map_or(u64::MAX, |(_, first_return)| *first_return);
        self.missing[key as usize][self.first_left[key as usize]..]
            .iter()
            .take_while(move |missing| missing.call <= until)
            .map(|missing| (missing.step, missing.version))
    }

    /// After the step was taken.
    pub(super) fn take(&mut self, step: &Step, taken: &[bool]) {
        for (key, _) in missed(step) {
            let missing = &self.missing[key as usize];
            let first = &mut self.first_left[key as usize];
            while missing.get(*first).is_some_and(|missing| taken[missing.step as usize]) {
                *first += 1;
            }
        }
    }

    pub(super) fn take_back(&mut self, index: u32, step: &Step) {
        for (key, _) in missed(step) {
            let place = self.missing[key as usize]
                .partition_point(|missing| (missing.call, missing.step) < (step.call, index));
            let first = &mut self.first_left[key as usize];
            *first = (*first).min(place);
        }
    }
}

fn missed(step: &Step) -> impl Iterator<Item = (u32, u32)> {
    step.conditions.iter().filter_map(|(key, condition)| match condition {
        Condition::Is(_) => None,
        Condition::IsNot(version) => Some((*key, *version)),
    })
}
