//! The search for an order that explains what was seen.
//!
//! Wing and Gong's algorithm (1993) with Lowe's memory of configurations (2017), as Porcupine has
//! it: take, one after another, an operation that was called before the first return of those not
//! yet taken, if what it found is what is there; on a dead end take back. Two operations sets with
//! the same members that lead to the same state need to be tried only once.
//!
//! What keeps it near linear on real histories, each without losing an answer:
//! - A read that fits now is taken now, without an alternative: it changes nothing, so any order
//!   that explains the rest stays one if the read is moved here. So is a write that nobody read
//!   over a version that nobody will read any more.
//! - A version that some read still needs and nobody will write again must not be overwritten.
//! - A configuration is a dead end if somebody must still find a version that nobody can write in
//!   time, or must overwrite in time what somebody called later still has to find.
//! - Of writes, that one first which has to have happened soonest.
//! - An unknown step is taken only if somebody still has to find what it writes, and does find it,
//!   and as late as can be (`guesses`).
//! - Unknown ones with the same conditions and effects are interchangeable: the oldest is taken.
//! - Where the same required steps led to the same state, whoever has used fewer unknown ones can do
//!   all that the other can: if that led nowhere, so does this.

mod blocks;
mod classes;
mod guesses;
mod ledger;
mod timeline;

pub(crate) use self::blocks::{Conflict, conflict};

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use self::classes::Classes;
use self::guesses::Guesses;
use self::ledger::Ledger;
use self::timeline::Timeline;
use crate::steps::{Condition, Step};

/// Some keys' steps, with keys and versions numbered from zero within it.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) steps: Vec<Step>,
    /// For each key the version it begins with.
    pub(crate) initial: Vec<u32>,
    pub(crate) versions: usize,
}

/// How a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// There is an order.
    Order,
    /// There is none; nothing explains all that had returned by this time.
    NoOrder {
        until: u64,
    },
    GaveUp,
}

/// Looks for an order of the problem's steps.
pub(crate) fn search(problem: &Problem, configurations_max: usize) -> Found {
    let mut search = Search::new(problem);
    search.run(configurations_max)
}

/// An order of the problem's steps, by their places, if one is found.
pub(crate) fn order(problem: &Problem, configurations_max: usize) -> Option<Vec<usize>> {
    let mut search = Search::new(problem);
    let found = search.run(configurations_max) == Found::Order;
    let taken = search.frames.iter().filter_map(|frame| frame.taken);
    found.then(|| taken.map(|step| step as usize).collect())
}

/// With more unknown steps than this, sets of them are told apart only by their hash: the sets
/// themselves would take too much memory.
const COMPARED_MAX: usize = 512;

/// Sets of unknown steps remembered for the same required steps and the same state.
const REMEMBERED_MAX: usize = 256;

struct Frame {
    /// The step that led here.
    taken: Option<u32>,
    choices: std::ops::Range<usize>,
}

struct Search<'a> {
    problem: &'a Problem,
    timeline: Timeline,
    ledger: Ledger<'a>,
    guesses: Guesses,
    classes: Classes,
    hash: u128,
    /// The unknown steps taken, by their place among all unknown ones.
    used: Vec<u64>,
    seen: HashMap<u128, Vec<Box<[u64]>>, BuildHasherDefault<Low64>>,
    seen_count: usize,
    frames: Vec<Frame>,
    choices: Vec<u32>,
    until: u64,
}

impl<'a> Search<'a> {
    fn new(problem: &'a Problem) -> Self {
        let classes = Classes::new(problem);
        // Of more of them, the sets themselves would take too much memory.
        let words = match classes.unknown() {
            count if count <= COMPARED_MAX => count.div_ceil(64),
            _ => 0,
        };
        Self {
            problem,
            timeline: Timeline::new(problem),
            ledger: Ledger::new(problem),
            guesses: Guesses::new(problem),
            classes,
            hash: 0,
            used: vec![0; words],
            seen: HashMap::default(),
            seen_count: 0,
            frames: Vec::new(),
            choices: Vec::new(),
            until: 0,
        }
    }

    fn run(&mut self, configurations_max: usize) -> Found {
        self.enter(None);
        loop {
            if self.timeline.is_empty() {
                return Found::Order;
            }
            if self.seen_count > configurations_max {
                return Found::GaveUp;
            }
            let Some(frame) = self.frames.last_mut() else {
                return Found::NoOrder { until: self.until };
            };
            match frame.choices.next() {
                Some(choice) => {
                    let step = self.choices[choice];
                    self.take(step);
                    self.enter(Some(step));
                }
                None => self.leave(),
            }
        }
    }

    /// Opens the configuration that now is: which steps can come next.
    fn enter(&mut self, taken: Option<u32>) {
        let start = self.choices.len();
        if !self.timeline.is_empty() {
            match self.forced() {
                Some(step) if self.guesses.allow(self.problem, step) => self.choices.push(step),
                Some(_) => {}
                None if self.is_new() => self.list_choices(start),
                None => {}
            }
        }
        self.frames.push(Frame { taken, choices: start..self.choices.len() });
    }

    /// Remembers the configuration, unless one is remembered that could do all that it can.
    fn is_new(&mut self) -> bool {
        let seen = self.seen.entry(self.hash).or_default();
        let covers = |before: &[u64]| before.iter().zip(&self.used).all(|(b, now)| b & !now == 0);
        if seen.iter().any(|before| covers(before)) {
            return false;
        }
        if seen.len() < REMEMBERED_MAX {
            seen.push(self.used.clone().into());
        }
        self.seen_count += 1;
        true
    }

    fn leave(&mut self) {
        let frame = self.frames.pop().expect("only called while a frame is open");
        let end = self.frames.last().map_or(0, |frame| frame.choices.end);
        self.choices.truncate(end);
        if let Some(step) = frame.taken {
            self.take_back(step);
        }
    }

    /// A step that can be taken without losing any order: see the top of this file.
    fn forced(&mut self) -> Option<u32> {
        let (problem, ledger) = (self.problem, &self.ledger);
        self.until = self.until.max(self.timeline.first_return());
        self.timeline.called().find(|index| {
            let step = &problem.steps[*index as usize];
            ledger.fits(step) && (step.effects.is_empty() || ledger.is_harmless(step))
        })
    }

    fn list_choices(&mut self, start: usize) {
        if !self.timeline.called().all(|index| self.ledger.has_hope(index)) {
            return;
        }
        let first_return = self.timeline.first_return();
        self.choices.extend(self.timeline.called());
        let Self { choices, classes, ledger, problem, .. } = self;
        choices[start..].sort_by_key(|step| (problem.steps[*step as usize].ret, *step));
        classes.begin();
        let mut kept = start;
        for place in start..choices.len() {
            let step = choices[place];
            if classes.is_first(step) {
                choices[kept] = step;
                kept += 1;
            }
        }
        choices.truncate(kept);
        let unknown = choices.len();
        let is_called = |step: &u32| problem.steps[*step as usize].call <= first_return;
        choices.extend(classes.first_unknown(ledger.state()).into_iter().filter(is_called));
        kept = start;
        for place in start..self.choices.len() {
            let step = self.choices[place];
            if self.may_take(step) && (place < unknown || self.is_useful(step)) {
                self.choices[kept] = step;
                kept += 1;
            }
        }
        self.choices.truncate(kept);
        let ledger = &self.ledger;
        self.choices[start..].sort_by_key(|step| ledger.deadline(*step));
        self.put_passing_first(start, first_return);
    }

    /// What can pass at once, with all who find it, goes before what overwrites it anyway: later it
    /// would be in the way.
    fn put_passing_first(&mut self, start: usize, first_return: u64) {
        let (ledger, steps) = (&self.ledger, &self.problem.steps);
        let passes = |step: &u32| ledger.is_over_by(*step, first_return);
        let next = self.choices[start..].iter().find(|step| !passes(step));
        let Some(next) = next.map(|next| &steps[*next as usize]) else { return };
        if next.conditions.is_empty() {
            let goes_first = |step: &u32| passes(step) && ledger.leaves_room(*step, next);
            self.choices[start..].sort_by_key(|step| !goes_first(step));
        }
    }

    /// Whether an unknown step is worth taking: somebody finds what it changes. If it touches one key
    /// only, that is who comes next.
    fn is_useful(&self, index: u32) -> bool {
        let Step { conditions, effects, .. } = &self.problem.steps[index as usize];
        let [(key, version)] = effects[..] else { return self.ledger.is_useful(index) };
        if conditions.iter().any(|(other, _)| *other != key) || self.classes.is_found(version) {
            return self.ledger.is_useful(index);
        }
        let current = self.ledger.state()[key as usize];
        let finds = |condition: &(u32, Condition)| match condition.1 {
            Condition::Is(found) => found == version,
            Condition::IsNot(missed) => missed == current && current != version,
        };
        let steps = &self.problem.steps;
        self.timeline.called().any(|other| steps[other as usize].conditions.iter().any(finds))
    }

    fn may_take(&self, index: u32) -> bool {
        let step = &self.problem.steps[index as usize];
        self.ledger.fits(step)
            && !self.ledger.destroys(step)
            && !self.ledger.is_early(index)
            && self.guesses.allow(self.problem, index)
    }

    fn take(&mut self, step: u32) {
        self.hash ^= self.ledger.take(step);
        self.hash ^= self.guesses.take(self.problem, step);
        self.timeline.take(step);
        self.classes.take(step);
        self.mark(step);
    }

    /// Undoes [`Self::take`] of the step taken last.
    fn take_back(&mut self, step: u32) {
        self.mark(step);
        self.timeline.take_back(step);
        self.classes.take_back(step);
        self.hash ^= self.guesses.take_back(self.problem, step);
        self.hash ^= self.ledger.take_back(step);
    }

    /// Puts the step into the set of those taken, or takes it out.
    fn mark(&mut self, step: u32) {
        if !self.problem.steps[step as usize].required && !self.used.is_empty() {
            let place = self.classes.place(step);
            self.used[place / 64] ^= 1 << (place % 64);
        } else {
            self.hash ^= mixed(0, u64::from(step));
        }
    }
}

/// 128 well-mixed bits for each number (SplitMix64's finisher, twice): sets are told apart by the
/// exclusive or of their members', which errs about once in 2^64 sets.
fn mixed(kind: u64, number: u64) -> u128 {
    let half = |salt: u64| {
        let mut z = number.wrapping_mul(4).wrapping_add(kind).wrapping_add(salt);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    u128::from(half(0x9e37_79b9_7f4a_7c15)) << 64 | u128::from(half(0x3c6e_f372_fe94_f82a))
}

/// The members are well mixed already.
#[derive(Default)]
struct Low64(u64);

impl Hasher for Low64 {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_le_bytes(word);
        }
    }

    fn write_u128(&mut self, number: u128) {
        self.0 ^= u64::try_from(number & u128::from(u64::MAX)).expect("masked to 64 bits");
    }
}

fn small(number: usize) -> u32 {
    u32::try_from(number).expect("a history of more than four billion steps fits no memory")
}
