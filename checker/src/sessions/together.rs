//! All four guarantees together: causal consistency.
//!
//! What a read must have seen is then a beginning of every session: a vector clock. Of each key and
//! session the last write in that beginning must come before what the read answered with; the
//! others come before it by monotonic writes.

use std::collections::HashMap;

use super::order::{Constraints, Why};
use super::{Sessions, alone};
use crate::history::Record;
use crate::verdict::{Rule, Verdict};

/// Reads times sessions; more take too much time and room.
const WORK_MAX: usize = 20_000_000;

pub(super) fn judge(history: &[Record], sessions: &Sessions<'_>) -> Verdict {
    // Without a cycle in these, what rests on what is known to be in an order.
    let mut constraints = Constraints::new(history, sessions, Rule::Sessions);
    alone::order_writes(&mut constraints);
    alone::order_after_reads(&mut constraints);
    let verdict = constraints.judge();
    if !verdict.holds() {
        return verdict;
    }
    let reads: usize = sessions.clients.iter().flatten().map(|step| step.reads.len()).sum();
    let clients = sessions.clients.len();
    if reads.saturating_mul(clients) > WORK_MAX {
        let why = format!("{reads} reads in {clients} sessions are too many to judge together");
        return Verdict::Undecided { why };
    }
    let mut constraints = Constraints::new(history, sessions, Rule::Sessions);
    alone::read_your_writes(&mut constraints);
    alone::monotonic_reads(&mut constraints);
    alone::monotonic_writes(&mut constraints);
    alone::writes_follow_reads(&mut constraints);
    Causes::of(sessions).saturate(&mut constraints);
    constraints.judge()
}

/// Goes through all sessions, each step after those that it rests on.
struct Causes<'a> {
    sessions: &'a Sessions<'a>,
    /// For each key and client the places of its known writes.
    written: HashMap<(u32, u32), Vec<u32>>,
    /// For each client how far it is, and how much of each session it has seen.
    clocks: Vec<(usize, Vec<u32>)>,
    /// For each write that is done with how much of each session it had seen.
    seen: HashMap<u32, Vec<u32>>,
    /// For each write the clients that wait for it.
    waiting: HashMap<u32, Vec<usize>>,
}

impl<'a> Causes<'a> {
    fn of(sessions: &'a Sessions<'a>) -> Self {
        let mut written: HashMap<(u32, u32), Vec<u32>> = HashMap::new();
        for (client, steps) in (0..).zip(&sessions.clients) {
            for (place, step) in (0..).zip(steps).filter(|(_, step)| step.known) {
                for (key, _) in &step.writes {
                    written.entry((*key, client)).or_default().push(place);
                }
            }
        }
        let none = vec![0; sessions.clients.len()];
        let clocks = sessions.clients.iter().map(|_| (0, none.clone())).collect();
        Self { sessions, written, clocks, seen: HashMap::new(), waiting: HashMap::new() }
    }

    fn saturate(mut self, constraints: &mut Constraints<'_>) {
        let mut ready: Vec<usize> = (0..self.clocks.len()).collect();
        while let Some(client) = ready.pop() {
            let steps = &self.sessions.clients[client];
            let (place, _) = self.clocks[client];
            let Some(step) = steps.get(place) else { continue };
            let writers = step.reads.iter().filter_map(|seen| seen.writer);
            if let Some(writer) = writers.clone().find(|writer| !self.seen.contains_key(writer)) {
                self.waiting.entry(writer).or_default().push(client);
                continue;
            }
            for writer in writers {
                let (other, at) = self.sessions.places[writer as usize];
                let (_, clock) = &mut self.clocks[client];
                for (mine, theirs) in clock.iter_mut().zip(&self.seen[&writer]) {
                    *mine = (*mine).max(*theirs);
                }
                clock[other as usize] = clock[other as usize].max(at + 1);
            }
            self.demand(constraints, client, place);
            let (next, clock) = &mut self.clocks[client];
            *next += 1;
            clock[client] = clock[client].max(u32::try_from(*next).unwrap_or(u32::MAX));
            if !step.writes.is_empty() {
                self.seen.insert(step.record, clock.clone());
                ready.extend(self.waiting.remove(&step.record).unwrap_or_default());
            }
            ready.push(client);
        }
    }

    /// What a step has seen of each session comes before what it found.
    fn demand(&self, constraints: &mut Constraints<'_>, client: usize, place: usize) {
        let step = &self.sessions.clients[client][place];
        let (_, clock) = &self.clocks[client];
        for seen in &step.reads {
            for (other, until) in (0..).zip(clock) {
                let Some(places) = self.written.get(&(seen.key, other)) else { continue };
                let before = places.partition_point(|at| at < until);
                if let Some(last) = before.checked_sub(1) {
                    let at = places[last] as usize;
                    let write = self.sessions.clients[other as usize][at].record;
                    let (first, second) = (write, step.record);
                    let why = Why { guarantee: None, first, second, seen_by: None };
                    constraints.saw(write, *seen, why);
                }
            }
        }
    }
}
