//! What must come before what on a key whose values tell who wrote them (Gibbons and Korach 1997).
//!
//! Of a version that only one step writes, that step and all who found the version stand together:
//! nothing else of the key comes between them. If one changed the key from it to another such
//! version, both stand together: a *block*. So if anything of one block had returned before
//! anything of another was called, all of the first comes before all of the second; and whatever
//! else the key was or became had to happen before the block, if it had to happen before the end of
//! it.

use super::Problem;
use crate::steps::{Condition, Step};

pub(super) struct Blocks {
    /// For each key its blocks, and the required steps that are in none, by deadline; and the first
    /// that has not begun.
    units: Vec<Vec<Unit>>,
    first_left: Vec<usize>,
    /// For each step the units that begin with it.
    begins: Vec<Vec<Begin>>,
    /// For each step when what begins with it must have begun.
    deadlines: Vec<u64>,
    /// For each version whether it is of a block.
    joined: Vec<bool>,
}

#[derive(Clone, Copy)]
struct Unit {
    /// The step that it begins with.
    head: u32,
    /// When the first of it had returned.
    deadline: u64,
}

#[derive(Clone, Copy)]
struct Begin {
    key: u32,
    /// The unit's place among those of its key.
    rank: usize,
    /// When the last of it was called.
    until: u64,
}

/// Two blocks, or a block and a write, of which each would have to come before the other.
pub(crate) struct Conflict {
    /// The places in the history of all that is of them, in order.
    records: Vec<usize>,
    /// Their versions, in order.
    versions: Vec<u32>,
}

/// Looks for two that exclude each other. There is no order then; without such two there may still
/// be none, since of what several steps write it cannot be told whose was found.
pub(crate) fn conflict(problem: &Problem) -> Option<Conflict> {
    let spans = Spans::of(problem);
    for (key, mut units) in (0u32..).zip(spans.units(problem)) {
        let changes = |span: &Span| !problem.steps[span.writer as usize].effects.is_empty();
        units.retain(changes);
        units.sort_unstable_by_key(|span| (span.deadline, span.writer));
        // Of those that last: until there is a conflict, no two of them overlap.
        let mut lasting: Option<Span> = None;
        for unit in units {
            if let Some(last) = lasting
                && unit.deadline < last.until
                && last.deadline < unit.until
            {
                return Some(spans.members(problem, key, [last.writer, unit.writer]));
            }
            if unit.deadline < unit.until {
                lasting = Some(unit);
            }
        }
    }
    None
}

impl Conflict {
    /// Only those steps of the problem, and only what they tell of each other.
    pub(crate) fn part(&self, problem: &Problem) -> Problem {
        let mut part = problem.clone();
        part.steps.retain(|step| self.records.binary_search(&step.record).is_ok());
        for step in &mut part.steps {
            step.conditions.retain(|(_, condition)| match condition {
                Condition::Is(version) => self.versions.binary_search(version).is_ok(),
                Condition::IsNot(_) => false,
            });
        }
        part
    }
}

impl Blocks {
    pub(super) fn new(problem: &Problem) -> Self {
        let spans = Spans::of(problem);
        let keys = problem.initial.len();
        let steps = problem.steps.len();
        let mut blocks = Self {
            units: Vec::with_capacity(keys),
            first_left: vec![0; keys],
            begins: vec![Vec::new(); steps],
            deadlines: problem.steps.iter().map(deadline).collect(),
            joined: spans.of.iter().map(Option::is_some).collect(),
        };
        for (key, mut units) in (0u32..).zip(spans.units(problem)) {
            units.sort_unstable_by_key(|span| (span.deadline, span.writer));
            for (rank, span) in units.iter().enumerate() {
                let head = span.writer as usize;
                blocks.begins[head].push(Begin { key, rank, until: span.until });
                blocks.deadlines[head] = blocks.deadlines[head].min(span.deadline);
            }
            let unit = |span: &Span| Unit { head: span.writer, deadline: span.deadline };
            blocks.units.push(units.iter().map(unit).collect());
        }
        blocks
    }

    /// When the step must have been taken, together with all that has to follow at once.
    pub(super) fn deadline(&self, step: u32) -> u64 {
        self.deadlines[step as usize]
    }

    /// Whether it is known who found the version.
    pub(super) fn has(&self, version: u32) -> bool {
        self.joined[version as usize]
    }

    /// Whether all of what begins with the step is called by then.
    pub(super) fn is_over_by(&self, step: u32, time: u64) -> bool {
        let begins = &self.begins[step as usize];
        begins.iter().all(|begin| begin.until <= time)
    }

    /// Whether it begins what cannot begin yet: something else has to come before the end of it.
    pub(super) fn is_early(&self, step: u32, taken: &[bool]) -> bool {
        self.begins[step as usize].iter().any(|begin| {
            let left = |unit: &&Unit| unit.head != step && !taken[unit.head as usize];
            self.units[begin.key as usize][self.first_left[begin.key as usize]..]
                .iter()
                .take_while(|unit| unit.deadline < begin.until)
                .any(|unit| left(&unit))
        })
    }

    /// After the step was taken.
    pub(super) fn take(&mut self, step: u32, taken: &[bool]) {
        for begin in &self.begins[step as usize] {
            let units = &self.units[begin.key as usize];
            let first = &mut self.first_left[begin.key as usize];
            while units.get(*first).is_some_and(|unit| taken[unit.head as usize]) {
                *first += 1;
            }
        }
    }

    pub(super) fn take_back(&mut self, step: u32) {
        for begin in &self.begins[step as usize] {
            let first = &mut self.first_left[begin.key as usize];
            *first = (*first).min(begin.rank);
        }
    }
}

fn deadline(step: &Step) -> u64 {
    if step.required { step.ret } else { u64::MAX }
}

/// Who wrote a version, and when it must have been there.
#[derive(Clone, Copy)]
struct Span {
    writer: u32,
    /// When the first who wrote or found it had returned.
    deadline: u64,
    /// When the last of them was called.
    until: u64,
}

struct Spans {
    /// For each version its key, and its span if only one step writes it, and that did happen.
    of: Vec<Option<(u32, Span)>>,
    /// For each version the one that somebody made of it, and the other way round.
    next: Vec<Option<u32>>,
    previous: Vec<Option<u32>>,
}

impl Spans {
    fn of(problem: &Problem) -> Self {
        let mut writers = vec![0u32; problem.versions];
        for version in &problem.initial {
            writers[*version as usize] = 2;
        }
        for (_, version) in problem.steps.iter().flat_map(|step| &step.effects) {
            writers[*version as usize] += 1;
        }
        let none = vec![None; problem.versions];
        let mut spans =
            Self { of: vec![None; problem.versions], next: none.clone(), previous: none };
        for (index, step) in (0u32..).zip(&problem.steps).filter(|(_, step)| step.required) {
            for (key, version) in &step.effects {
                if writers[*version as usize] == 1 {
                    let span = Span { writer: index, deadline: step.ret, until: step.call };
                    spans.of[*version as usize] = Some((*key, span));
                }
            }
        }
        for step in problem.steps.iter().filter(|step| step.required) {
            spans.add_finder(step);
        }
        spans
    }

    fn add_finder(&mut self, step: &Step) {
        for (key, condition) in &step.conditions {
            let Condition::Is(version) = condition else { continue };
            let Some((_, span)) = &mut self.of[*version as usize] else { continue };
            span.deadline = span.deadline.min(step.ret);
            span.until = span.until.max(step.call);
            let made = step.effects.iter().find(|(k, made)| k == key && made != version);
            if let Some((_, made)) = made
                && self.of[*made as usize].is_some()
                && self.next[*version as usize].is_none()
            {
                self.next[*version as usize] = Some(*made);
                self.previous[*made as usize] = Some(*version);
            }
        }
    }

    /// For each key its blocks, and the required steps that are in none.
    fn units(&self, problem: &Problem) -> Vec<Vec<Span>> {
        let mut units: Vec<Vec<Span>> = vec![Vec::new(); problem.initial.len()];
        for (key, span) in self.joined() {
            units[key as usize].push(span);
        }
        for (index, step) in (0u32..).zip(&problem.steps).filter(|(_, step)| step.required) {
            for key in self.alone_on(step) {
                let span = Span { writer: index, deadline: step.ret, until: step.call };
                units[key as usize].push(span);
            }
        }
        units
    }

    /// The units of a key that begin with these.
    fn members(&self, problem: &Problem, key: u32, heads: [u32; 2]) -> Conflict {
        let mut versions: Vec<u32> = Vec::new();
        for head in heads {
            let made = problem.steps[head as usize].effects.iter().find(|(k, _)| *k == key);
            let mut at =
                made.map(|(_, version)| *version).filter(|v| self.of[*v as usize].is_some());
            while let Some(version) = at {
                versions.push(version);
                at = self.next[version as usize];
            }
        }
        versions.sort_unstable();
        let of_block = |version: &u32| versions.binary_search(version).is_ok();
        let is_member = |step: &Step| {
            step.effects.iter().any(|(_, version)| of_block(version))
                || step.conditions.iter().any(|(_, condition)| match condition {
                    Condition::Is(version) => of_block(version),
                    Condition::IsNot(_) => false,
                })
        };
        let mut records: Vec<usize> = (0u32..)
            .zip(&problem.steps)
            .filter(|(index, step)| heads.contains(index) || is_member(step))
            .map(|(_, step)| step.record)
            .collect();
        records.sort_unstable();
        Conflict { records, versions }
    }

    /// The blocks: each with its key.
    fn joined(&self) -> Vec<(u32, Span)> {
        let mut joined = Vec::new();
        for (version, previous) in (0u32..).zip(&self.previous) {
            let Some((key, mut span)) = self.of[version as usize] else { continue };
            if previous.is_some() {
                continue;
            }
            let mut at = version;
            while let Some(next) = self.next[at as usize] {
                if let Some((_, more)) = self.of[next as usize] {
                    span.deadline = span.deadline.min(more.deadline);
                    span.until = span.until.max(more.until);
                }
                at = next;
            }
            joined.push((key, span));
        }
        joined
    }

    /// The keys that the step changes, or finds to be something, without being in a block of theirs.
    fn alone_on(&self, step: &Step) -> Vec<u32> {
        let mut keys: Vec<u32> = Vec::new();
        let found = step.conditions.iter().filter_map(|(key, condition)| match condition {
            Condition::Is(version) => Some((*key, *version)),
            Condition::IsNot(_) => None,
        });
        let mut in_block: Vec<u32> = Vec::new();
        for (key, version) in found.chain(step.effects.iter().copied()) {
            let known = self.of[version as usize].is_some();
            let keys = if known { &mut in_block } else { &mut keys };
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys.retain(|key| !in_block.contains(key));
        keys
    }
}
