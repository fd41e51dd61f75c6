//! The order of a register's versions, as far as it can be known.
//!
//! - What a register begins with comes before all that was written, if nobody can have brought it
//!   back.
//! - Who reads a version and then writes the register follows it at once, and everybody else who
//!   overwrites that version comes after both.
//! - Where real time counts: a version that was there (it was written, or read) before another was
//!   (it was written, or read, by who was called later) comes before it. These are the zones of
//!   Gibbons and Korach (1997), and they order the versions of one register as far as time can.

use super::Isolation;
use super::dependencies::Dependencies;
use super::facts::NONE;
use super::graph::kind;

/// Orders the versions of every register.
pub(super) fn order(dependencies: &mut Dependencies<'_>, isolation: Isolation) {
    let facts = dependencies.facts;
    let objects = &facts.transactions.objects;
    for (value, (successor, _)) in (0..).zip(&facts.successor) {
        if *successor != NONE && !facts.transactions.object_of(value).is_list {
            dependencies.follow(value, *successor);
        }
    }
    let zones = match isolation {
        Isolation::Serializable => None,
        Isolation::StrictSerializable => Some(Zones::of(dependencies)),
    };
    for installs in facts.installs.chunk_by(|a, b| a.0 == b.0) {
        let object = &objects[installs[0].0 as usize];
        if object.is_list {
            continue;
        }
        for (_, who, value) in installs {
            if facts.source(*value) == Some(*who) {
                dependencies.write(*who, *value);
            }
        }
        if facts.is_version(object.initial) {
            order_after_initial(dependencies, object.initial, installs);
        }
        if let Some(zones) = &zones {
            Timeline::of(dependencies, zones, installs).order(dependencies, zones);
        }
    }
}

/// The initial version, those that follow it one at once after the other, and then all others.
fn order_after_initial(
    dependencies: &mut Dependencies<'_>,
    initial: u32,
    installs: &[(u32, u32, u32)],
) {
    let facts = dependencies.facts;
    let mut chain = Vec::new();
    let mut past = dependencies.past(initial);
    let mut current = initial;
    while let (follower, left) = facts.successor[current as usize]
        && follower != NONE
        && chain.len() < installs.len()
    {
        chain.push(follower);
        if facts.source(left) != Some(follower) {
            // What it left does not tell who left it: its version has no waypoint of its own.
            past = dependencies.builder.waypoint();
            let node = dependencies.node(follower);
            dependencies.builder.edge(node, past, kind::WRITE_WRITE);
            break;
        }
        past = dependencies.past(left);
        current = left;
    }
    chain.sort_unstable();
    for (_, who, _) in installs {
        if chain.binary_search(who).is_err() {
            let node = dependencies.node(*who);
            dependencies.builder.edge(past, node, kind::ON);
        }
    }
}

/// For each value the first time by which its version is known to have been there, and the last
/// time after which it is known to have been there.
struct Zones {
    by: Vec<u64>,
    after: Vec<u64>,
}

impl Zones {
    fn of(dependencies: &Dependencies<'_>) -> Self {
        let facts = dependencies.facts;
        let values = facts.transactions.values.len();
        let mut zones = Self { by: vec![u64::MAX; values], after: vec![0; values] };
        let mut there = |who: u32, value: u32| {
            let head = &facts.transactions.heads[who as usize];
            let (by, after) = (&mut zones.by[value as usize], &mut zones.after[value as usize]);
            *after = (*after).max(head.call);
            if facts.is_done(who) {
                *by = (*by).min(head.ret);
            }
        };
        for (_, who, value) in &facts.installs {
            if facts.source(*value) == Some(*who) {
                there(*who, *value);
            }
        }
        for (who, value) in &facts.reads {
            there(*who, *value);
        }
        zones
    }
}

/// The versions of one register, by the last time after which they were there; each with a waypoint
/// past which that version and all later ones of the timeline come.
struct Timeline {
    entries: Vec<Entry>,
    /// What may still be looked at one by one; a history that holds needs about as much as there are
    /// entries, and what is not looked at is only not known.
    steps_left: usize,
}

struct Entry {
    after: u64,
    who: u32,
    /// What it left, if that tells who left it.
    value: Option<u32>,
    waypoint: u32,
}

impl Timeline {
    fn of(
        dependencies: &mut Dependencies<'_>,
        zones: &Zones,
        installs: &[(u32, u32, u32)],
    ) -> Self {
        let facts = dependencies.facts;
        let mut entries: Vec<Entry> = installs
            .iter()
            .map(|(_, who, value)| {
                let value = (facts.source(*value) == Some(*who)).then_some(*value);
                let call = facts.transactions.heads[*who as usize].call;
                let after = value.map_or(call, |value| zones.after[value as usize]);
                Entry { after, who: *who, value, waypoint: NONE }
            })
            .collect();
        entries.sort_by_key(|entry| (entry.after, facts.rank[entry.who as usize]));
        let mut next: Option<u32> = None;
        for entry in entries.iter_mut().rev() {
            entry.waypoint = dependencies.builder.waypoint();
            let node = dependencies.node(entry.who);
            dependencies.builder.edge(entry.waypoint, node, kind::ON_TIMED);
            if let Some(next) = next {
                dependencies.builder.edge(entry.waypoint, next, kind::ON_TIMED);
            }
            next = Some(entry.waypoint);
        }
        let steps_left = 4 * entries.len() + 64;
        Self { entries, steps_left }
    }

    fn order(mut self, dependencies: &mut Dependencies<'_>, zones: &Zones) {
        for place in 0..self.entries.len() {
            let Some(value) = self.entries[place].value else { continue };
            if dependencies.follower[value as usize] == NONE {
                self.order_after(dependencies, zones, place, value);
            } else {
                self.order_after_follower(dependencies, zones, value);
            }
        }
    }

    /// The first place of what was there after this time.
    fn later_than(&self, time: u64) -> usize {
        self.entries.partition_point(|entry| entry.after <= time)
    }

    /// All that was there after the version was known to be there comes after it, but for itself.
    fn order_after(
        &mut self,
        dependencies: &mut Dependencies<'_>,
        zones: &Zones,
        place: usize,
        value: u32,
    ) {
        let past = dependencies.past(value);
        let from = self.later_than(zones.by[value as usize]);
        let rest = from.max(place + 1);
        if let Some(entry) = self.entries.get(rest) {
            dependencies.builder.edge(past, entry.waypoint, kind::ON_TIMED);
        }
        for other in from..place {
            if self.steps_left == 0 {
                return;
            }
            self.steps_left -= 1;
            let entry = &self.entries[other];
            let node = dependencies.node(entry.who);
            dependencies.builder.edge(past, node, kind::ON_TIMED);
            if let Some(other) = entry.value
                && dependencies.follower[other as usize] == NONE
                && zones.by[other as usize] < self.entries[place].after
            {
                // Each was there before the other: that is a cycle already, and one is enough.
                let (past, node) =
                    (dependencies.past(other), dependencies.node(self.entries[place].who));
                dependencies.builder.edge(past, node, kind::ON_TIMED);
                self.steps_left = 0;
            }
        }
    }

    /// Who overwrote the version at once takes its place: what comes after the version comes after
    /// what the follower left, also if it was there before that was known to be there.
    fn order_after_follower(
        &mut self,
        dependencies: &mut Dependencies<'_>,
        zones: &Zones,
        value: u32,
    ) {
        let (follower, left) = dependencies.facts.successor[value as usize];
        if dependencies.facts.source(left) != Some(follower) {
            return;
        }
        let past = dependencies.past(left);
        for place in self.later_than(zones.by[value as usize])..self.entries.len() {
            let entry = &self.entries[place];
            if self.steps_left == 0 || entry.after > zones.by[left as usize] {
                return;
            }
            self.steps_left -= 1;
            if entry.value != Some(value) && entry.who != follower {
                let node = dependencies.node(entry.who);
                dependencies.builder.edge(past, node, kind::ON_TIMED);
            }
        }
    }
}
