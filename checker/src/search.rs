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
//!   and as late as can be (see `guesses`).
//! - Unknown ones with the same conditions and effects are interchangeable: the oldest is taken.
//! - Where the same required steps led to the same state, whoever has used fewer unknown ones can do
//!   all that the other can: if that led nowhere, so does this.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::guesses::Guesses;
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

const END: u32 = 0;

/// With more unknown steps than this, sets of them are told apart only by their hash: the sets
/// themselves would take too much memory.
const COMPARED_MAX: usize = 512;

/// Sets of unknown steps remembered for the same required steps and the same state.
const REMEMBERED_MAX: usize = 256;

/// Of a version that more steps write than this, it is not looked whether one is left in time.
const LOOKED_AT_MAX: usize = 256;

/// One call or return in the list of those to come, a ring through entry 0.
#[derive(Clone, Copy)]
struct Entry {
    time: u64,
    step: u32,
    is_return: bool,
    next: u32,
    previous: u32,
}

struct Frame {
    /// The step that led here.
    taken: Option<u32>,
    choices: std::ops::Range<usize>,
}

struct Search<'a> {
    problem: &'a Problem,
    entries: Vec<Entry>,
    /// For each required step, its call entry and its return entry; for the others, twice their
    /// place in `optional`.
    places: Vec<(u32, u32)>,
    /// The steps that may or may not have happened, by call, each with its class.
    optional: Vec<(u32, u32)>,
    classes: usize,
    taken: Vec<bool>,
    state: Vec<u32>,
    /// What `state` held before each effect, to be taken back.
    overwritten: Vec<u32>,
    left: usize,
    /// For each version, how many required steps still have to find it, how many steps at all, and
    /// how many steps will still write it.
    needed: Vec<u32>,
    wanted: Vec<u32>,
    writers: Vec<u32>,
    /// For each key, how many steps still have to find it *not* to be something.
    averse: Vec<u32>,
    /// For each version the steps that write it, by call.
    writing: Vec<Vec<u32>>,
    /// For each version the required step that finds it and was called last.
    last_finder: Vec<Option<u32>>,
    /// For each key the required steps that write it, by return; and the first not taken.
    writers_of: Vec<Vec<u32>>,
    first_left: Vec<usize>,
    /// For each required step the places of its effects in `writers_of`.
    ranks: Vec<Vec<usize>>,
    hash: u128,
    guesses: Guesses,
    /// The unknown steps taken, by their place in `optional`.
    used: Vec<u64>,
    seen: HashMap<u128, Vec<Box<[u64]>>, BuildHasherDefault<Low64>>,
    seen_count: usize,
    frames: Vec<Frame>,
    choices: Vec<u32>,
    until: u64,
}

impl<'a> Search<'a> {
    fn new(problem: &'a Problem) -> Self {
        let mut search = Self {
            problem,
            entries: Vec::new(),
            places: vec![(END, END); problem.steps.len()],
            optional: Vec::new(),
            classes: 0,
            taken: vec![false; problem.steps.len()],
            state: problem.initial.clone(),
            overwritten: Vec::new(),
            left: 0,
            needed: vec![0; problem.versions],
            wanted: vec![0; problem.versions],
            writers: vec![0; problem.versions],
            averse: vec![0; problem.initial.len()],
            writing: vec![Vec::new(); problem.versions],
            last_finder: vec![None; problem.versions],
            writers_of: vec![Vec::new(); problem.initial.len()],
            first_left: vec![0; problem.initial.len()],
            ranks: vec![Vec::new(); problem.steps.len()],
            hash: 0,
            guesses: Guesses::new(problem),
            used: Vec::new(),
            seen: HashMap::default(),
            seen_count: 0,
            frames: Vec::new(),
            choices: Vec::new(),
            until: 0,
        };
        search.list_entries();
        search.list_optional();
        search.list_by_version();
        search.list_by_key();
        for step in 0..problem.steps.len() {
            search.count(step, |count| *count += 1);
        }
        search
    }

    fn list_entries(&mut self) {
        let mut events: Vec<(u64, bool, u32)> = Vec::new();
        for (index, step) in self.problem.steps.iter().enumerate() {
            if step.required {
                let index = small(index);
                events.push((step.call, false, index));
                events.push((step.ret, true, index));
                self.left += 1;
            }
        }
        // At equal times calls come first: what touches is taken as overlapping.
        events.sort_unstable();
        let count = small(events.len());
        self.entries.push(Entry { time: 0, step: 0, is_return: false, next: 1, previous: count });
        for ((time, is_return, step), at) in events.into_iter().zip(1..) {
            let next = if at == count { END } else { at + 1 };
            self.entries.push(Entry { time, step, is_return, next, previous: at - 1 });
            let place = &mut self.places[step as usize];
            *(if is_return { &mut place.1 } else { &mut place.0 }) = at;
        }
        if count == 0 {
            self.entries[0].next = END;
        }
    }

    fn list_optional(&mut self) {
        let mut classes = std::collections::BTreeMap::new();
        let mut optional: Vec<u32> = (0..small(self.problem.steps.len()))
            .filter(|step| !self.problem.steps[*step as usize].required)
            .collect();
        optional.sort_by_key(|step| (self.problem.steps[*step as usize].call, *step));
        for step in optional {
            let Step { conditions, effects, .. } = &self.problem.steps[step as usize];
            let next = small(classes.len());
            let class = *classes.entry((conditions, effects)).or_insert(next);
            self.optional.push((step, class));
        }
        self.classes = classes.len();
        if self.optional.len() <= COMPARED_MAX {
            self.used = vec![0; self.optional.len().div_ceil(64)];
        }
        for ((step, _), place) in self.optional.iter().zip(0..) {
            self.places[*step as usize] = (place, place);
        }
    }

    fn list_by_version(&mut self) {
        let mut order: Vec<u32> = (0..small(self.problem.steps.len())).collect();
        order.sort_by_key(|step| self.problem.steps[*step as usize].call);
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

    fn list_by_key(&mut self) {
        let mut order: Vec<u32> = (0..small(self.problem.steps.len())).collect();
        order.sort_by_key(|step| self.problem.steps[*step as usize].ret);
        for index in order {
            let step = &self.problem.steps[index as usize];
            for (key, _) in step.effects.iter().filter(|_| step.required) {
                let writers = &mut self.writers_of[*key as usize];
                self.ranks[index as usize].push(writers.len());
                writers.push(index);
            }
        }
    }

    fn run(&mut self, configurations_max: usize) -> Found {
        self.enter(None);
        loop {
            if self.left == 0 {
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
        if self.left > 0 {
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
        let mut at = self.entries[0].next;
        while at != END {
            let entry = self.entries[at as usize];
            if entry.is_return {
                self.until = self.until.max(entry.time);
                return None;
            }
            let step = &self.problem.steps[entry.step as usize];
            if self.fits(step) && (step.effects.is_empty() || self.is_harmless(step)) {
                return Some(entry.step);
            }
            at = entry.next;
        }
        None
    }

    /// Whether a write goes unnoticed if it takes place now.
    fn is_harmless(&self, step: &Step) -> bool {
        step.conditions.is_empty()
            && step.effects.iter().all(|(key, version)| {
                let current = self.state[*key as usize];
                self.wanted[*version as usize] == 0
                    && self.wanted[current as usize] == 0
                    && self.averse[*key as usize] == 0
            })
    }

    fn list_choices(&mut self, start: usize) {
        let mut first_return = u64::MAX;
        let mut at = self.entries[0].next;
        while at != END {
            let entry = self.entries[at as usize];
            if entry.is_return {
                first_return = entry.time;
                break;
            }
            if !self.has_hope(entry.step) {
                self.choices.truncate(start);
                return;
            }
            if self.may_take(entry.step) {
                self.choices.push(entry.step);
            }
            at = entry.next;
        }
        let steps = &self.problem.steps;
        self.choices[start..].sort_by_key(|step| (steps[*step as usize].ret, *step));
        let mut tried = vec![false; self.classes];
        for index in 0..self.optional.len() {
            let (step, class) = self.optional[index];
            if steps[step as usize].call > first_return {
                break;
            }
            if !self.taken[step as usize] && !tried[class as usize] {
                tried[class as usize] = true;
                if self.may_take(step) && self.is_useful(step) {
                    self.choices.push(step);
                }
            }
        }
    }

    /// Whether somebody else still has to find what the step writes, or that its key is not
    /// something.
    fn is_useful(&self, step: u32) -> bool {
        let step = &self.problem.steps[step as usize];
        step.effects.iter().any(|(key, version)| {
            let finds = |condition: &&(u32, Condition)| condition.1 == Condition::Is(*version);
            let own = step.conditions.iter().filter(finds).count();
            self.wanted[*version as usize] as usize > own || self.averse[*key as usize] > 0
        })
    }

    /// Whether what a required step has to find is there, or can still be written in time; and
    /// whether what it overwrites is not needed until too late.
    fn has_hope(&self, index: u32) -> bool {
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
                    let writing = &self.writing[*version as usize];
                    let in_time = |w: &&u32| self.problem.steps[**w as usize].call <= step.ret;
                    self.writers[*version as usize] > 0 && writing.len() > LOOKED_AT_MAX
                        || writing.iter().take_while(in_time).any(|w| !self.taken[*w as usize])
                }
                Condition::Is(_) | Condition::IsNot(_) => true,
            })
    }

    fn may_take(&self, index: u32) -> bool {
        let step = &self.problem.steps[index as usize];
        self.fits(step)
            && !self.destroys(step)
            && !self.shuts_out(index)
            && self.guesses.allow(self.problem, index)
    }

    fn fits(&self, step: &Step) -> bool {
        step.conditions.iter().all(|(key, condition)| {
            let current = self.state[*key as usize];
            match condition {
                Condition::Is(version) => current == *version,
                Condition::IsNot(version) => current != *version,
            }
        })
    }

    /// Whether it makes a version that stays until too late: it must not be overwritten before
    /// somebody called later has found it, and somebody else must have overwritten it by then.
    fn shuts_out(&self, index: u32) -> bool {
        let step = &self.problem.steps[index as usize];
        step.effects.iter().any(|(key, version)| {
            let Some(finder) = self.last_finder[*version as usize] else { return false };
            let stays = self.state[*key as usize] != *version
                && self.writers[*version as usize] == 1
                && finder != index
                && !self.taken[finder as usize];
            let until = self.problem.steps[finder as usize].call;
            let writers = &self.writers_of[*key as usize];
            let left = |other: &&u32| **other != index && !self.taken[**other as usize];
            stays
                && writers[self.first_left[*key as usize]..]
                    .iter()
                    .find(left)
                    .is_some_and(|other| self.problem.steps[*other as usize].ret < until)
        })
    }

    /// Whether it overwrites what somebody else still needs to find and nobody writes again.
    fn destroys(&self, step: &Step) -> bool {
        step.effects.iter().any(|(key, version)| {
            let current = self.state[*key as usize];
            let finds = |condition: &&(u32, Condition)| condition.1 == Condition::Is(current);
            let own = if step.required { step.conditions.iter().filter(finds).count() } else { 0 };
            current != *version
                && self.writers[current as usize] == 0
                && self.needed[current as usize] as usize > own
        })
    }

    fn take(&mut self, step: u32) {
        let index = step as usize;
        self.taken[index] = true;
        self.count(index, |count| *count -= 1);
        self.mark(step);
        let problem = self.problem;
        self.hash ^= self.guesses.take(problem, step);
        for (key, version) in &problem.steps[index].effects {
            let current = self.state[*key as usize];
            self.overwritten.push(current);
            self.set_state(*key, current, *version);
        }
        if problem.steps[index].required {
            for (key, _) in &problem.steps[index].effects {
                let (writers, first) =
                    (&self.writers_of[*key as usize], &mut self.first_left[*key as usize]);
                while writers.get(*first).is_some_and(|step| self.taken[*step as usize]) {
                    *first += 1;
                }
            }
            self.left -= 1;
            let (call, ret) = self.places[index];
            self.unlink(call);
            self.unlink(ret);
        }
    }

    fn take_back(&mut self, step: u32) {
        let index = step as usize;
        let problem = self.problem;
        if problem.steps[index].required {
            for ((key, _), rank) in problem.steps[index].effects.iter().zip(&self.ranks[index]) {
                let first = &mut self.first_left[*key as usize];
                *first = (*first).min(*rank);
            }
            self.left += 1;
            let (call, ret) = self.places[index];
            self.relink(ret);
            self.relink(call);
        }
        for (key, version) in problem.steps[index].effects.iter().rev() {
            let before = self.overwritten.pop().expect("one was pushed for each effect taken");
            self.set_state(*key, *version, before);
        }
        self.hash ^= self.guesses.take_back(problem, step);
        self.mark(step);
        self.count(index, |count| *count += 1);
        self.taken[index] = false;
    }

    /// Puts the step into the set of those taken, or takes it out.
    fn mark(&mut self, step: u32) {
        if !self.problem.steps[step as usize].required && !self.used.is_empty() {
            let place = self.places[step as usize].0 as usize;
            self.used[place / 64] ^= 1 << (place % 64);
        } else {
            self.hash ^= mixed(0, u64::from(step));
        }
    }

    fn set_state(&mut self, key: u32, from: u32, to: u32) {
        self.hash ^= mixed(1, u64::from(from)) ^ mixed(1, u64::from(to));
        self.state[key as usize] = to;
    }

    /// Adds the step to, or takes it from, the counts of what is still to come.
    fn count(&mut self, index: usize, change: impl Fn(&mut u32)) {
        let step = &self.problem.steps[index];
        for (key, condition) in &step.conditions {
            match condition {
                Condition::Is(version) => {
                    change(&mut self.wanted[*version as usize]);
                    if step.required {
                        change(&mut self.needed[*version as usize]);
                    }
                }
                Condition::IsNot(_) => change(&mut self.averse[*key as usize]),
            }
        }
        for (_, version) in &step.effects {
            change(&mut self.writers[*version as usize]);
        }
    }

    fn unlink(&mut self, at: u32) {
        let Entry { next, previous, .. } = self.entries[at as usize];
        self.entries[previous as usize].next = next;
        self.entries[next as usize].previous = previous;
    }

    /// Undoes [`Self::unlink`], if everything unlinked after it is linked again.
    fn relink(&mut self, at: u32) {
        let Entry { next, previous, .. } = self.entries[at as usize];
        self.entries[previous as usize].next = at;
        self.entries[next as usize].previous = at;
    }
}

/// 128 well-mixed bits for each number (SplitMix64's finisher, twice): sets are told apart by the
/// exclusive or of their members', which errs about once in 2^64 sets.
pub(crate) fn mixed(kind: u64, number: u64) -> u128 {
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
