//! Steps with the same conditions and effects, of which it does not matter which is taken: the one
//! that must have happened soonest is, and an unknown one only if no other is there.

use std::collections::{HashMap, HashSet};

use super::{Problem, small};
use crate::steps::Condition;

/// A step that no other is like.
const ALONE: u32 = u32::MAX;

pub(super) struct Classes {
    /// For each step its class.
    of: Vec<u32>,
    /// The classes that have unknown steps: each with those, by call.
    unknown: Vec<(u32, Vec<u32>)>,
    /// Those of them that need a version to be there, by that version; and the others.
    needing: HashMap<u32, Vec<usize>>,
    needing_none: Vec<usize>,
    /// Whether an unknown step needs something not to be there.
    averse: bool,
    /// The versions that unknown steps need to be there.
    finders: HashSet<u32>,
    /// For each of them how many are taken.
    taken: Vec<usize>,
    /// For each unknown step its place in `unknown`, and its place among all unknown ones.
    places: HashMap<u32, (usize, usize)>,
    /// For each class when it was last met.
    met: Vec<u64>,
    now: u64,
}

impl Classes {
    pub(super) fn new(problem: &Problem) -> Self {
        let steps = &problem.steps;
        let mut order: Vec<u32> = (0..small(steps.len())).collect();
        let content = |index: u32| {
            let step = &steps[index as usize];
            (&step.conditions, &step.effects)
        };
        order.sort_by_key(|index| (content(*index), steps[*index as usize].call, *index));
        let mut classes = Self {
            of: vec![ALONE; steps.len()],
            unknown: Vec::new(),
            needing: HashMap::new(),
            needing_none: Vec::new(),
            averse: false,
            finders: HashSet::new(),
            taken: Vec::new(),
            places: HashMap::new(),
            met: Vec::new(),
            now: 0,
        };
        for members in order.chunk_by(|a, b| content(*a) == content(*b)) {
            let unknown = |step: &&u32| !steps[**step as usize].required;
            let unknown: Vec<u32> = members.iter().filter(unknown).copied().collect();
            if members.len() == 1 && unknown.is_empty() {
                continue;
            }
            let class = small(classes.met.len());
            classes.met.push(0);
            for member in members {
                classes.of[*member as usize] = class;
            }
            for step in &unknown {
                let place = (classes.unknown.len(), classes.places.len());
                classes.places.insert(*step, place);
            }
            if let Some(first) = unknown.first() {
                let is = |(_, condition): &(u32, Condition)| match condition {
                    Condition::Is(version) => Some(*version),
                    Condition::IsNot(_) => None,
                };
                let place = classes.unknown.len();
                classes.averse |= steps[*first as usize]
                    .conditions
                    .iter()
                    .any(|condition| is(condition).is_none());
                classes.finders.extend(steps[*first as usize].conditions.iter().filter_map(is));
                match steps[*first as usize].conditions.iter().find_map(is) {
                    Some(version) => classes.needing.entry(version).or_default().push(place),
                    None => classes.needing_none.push(place),
                }
                classes.unknown.push((class, unknown));
            }
        }
        classes.taken = vec![0; classes.unknown.len()];
        classes
    }

    /// How many unknown steps there are.
    pub(super) fn unknown(&self) -> usize {
        self.places.len()
    }

    /// An unknown step's place among all of them.
    pub(super) fn place(&self, step: u32) -> usize {
        self.places.get(&step).map_or(0, |(_, place)| *place)
    }

    /// Whether an unknown step may find this version.
    pub(super) fn is_found(&self, version: u32) -> bool {
        self.averse || self.finders.contains(&version)
    }

    /// Forgets what was met.
    pub(super) fn begin(&mut self) {
        self.now += 1;
    }

    /// Whether no step of its class was met before.
    pub(super) fn is_first(&mut self, step: u32) -> bool {
        let class = self.of[step as usize];
        class == ALONE || std::mem::replace(&mut self.met[class as usize], self.now) != self.now
    }

    /// Of each class not met the first unknown step that is left, if what it needs is there.
    pub(super) fn first_unknown(&self, state: &[u32]) -> Vec<u32> {
        let needing = |version: &u32| self.needing.get(version).into_iter().flatten();
        let first = |class: &usize| {
            let (name, steps) = &self.unknown[*class];
            let met = self.met[*name as usize] == self.now;
            steps.get(self.taken[*class]).copied().filter(|_| !met)
        };
        let none = self.needing_none.iter().filter_map(first);
        if self.needing.is_empty() {
            none.collect()
        } else if state.len() <= self.unknown.len() {
            none.chain(state.iter().flat_map(needing).filter_map(first)).collect()
        } else {
            (0..self.unknown.len()).filter_map(|class| first(&class)).collect()
        }
    }

    pub(super) fn take(&mut self, step: u32) {
        if let Some((class, _)) = self.places.get(&step) {
            self.taken[*class] += 1;
        }
    }

    pub(super) fn take_back(&mut self, step: u32) {
        if let Some((class, _)) = self.places.get(&step) {
            self.taken[*class] -= 1;
        }
    }
}
