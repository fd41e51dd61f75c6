//! What must be ordered before what, and why.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::{Seen, Sessions};
use crate::cycles::graph::Builder;
use crate::history::{Deed, Record};
use crate::verdict::{Guarantee, Rule, Verdict};

/// Transactions from which a shortest cycle is looked for.
const STARTS_MAX: usize = 200;

/// Collects what must be ordered before what.
pub(super) struct Constraints<'a> {
    pub(super) sessions: &'a Sessions<'a>,
    history: &'a [Record],
    rule: Rule,
    edges: Vec<Edge>,
    /// Nodes so far: a write by its record, and waypoints.
    nodes: u32,
    /// A contradiction by itself.
    contradiction: Option<Verdict>,
}

/// The former must come before the latter. Without a reason it leads on from a waypoint.
#[derive(Clone, Copy)]
struct Edge {
    former: u32,
    latter: u32,
    why: Option<Why>,
}

/// The two operations of a session that demand it.
#[derive(Clone, Copy)]
pub(super) struct Why {
    pub(super) guarantee: Option<Guarantee>,
    pub(super) first: u32,
    pub(super) second: u32,
    /// Who read several keys at once, and saw the second.
    pub(super) seen_by: Option<u32>,
}

impl Why {
    pub(super) fn seen_by(self, reader: u32) -> Self {
        Self { seen_by: Some(reader), ..self }
    }

    fn records(self) -> impl Iterator<Item = u32> {
        [self.first, self.second].into_iter().chain(self.seen_by)
    }
}

impl<'a> Constraints<'a> {
    pub(super) fn new(history: &'a [Record], sessions: &'a Sessions<'a>, rule: Rule) -> Self {
        let nodes = u32::try_from(history.len()).expect("fewer than four billion records");
        Self { sessions, history, rule, edges: Vec::new(), nodes, contradiction: None }
    }

    /// Who saw a key as it is must have seen this write too: so that comes before what it is.
    pub(super) fn saw(&mut self, write: u32, seen: Seen, why: Why) {
        match seen.writer {
            Some(writer) if writer == write => {}
            Some(writer) => self.order(write, writer, why),
            None => self.contradict(seen.key, write, why),
        }
    }

    /// One write comes before another.
    pub(super) fn order(&mut self, former: u32, latter: u32, why: Why) {
        self.edges.push(Edge { former, latter, why: Some(why) });
    }

    /// A node that many come before, and that comes before many.
    pub(super) fn waypoint(&mut self) -> u32 {
        self.nodes += 1;
        self.nodes - 1
    }

    /// What comes before the waypoint comes before this too.
    pub(super) fn lead_on(&mut self, waypoint: u32, latter: u32) {
        self.edges.push(Edge { former: waypoint, latter, why: None });
    }

    /// A key was found as it began, though this write must have been seen.
    fn contradict(&mut self, key: u32, write: u32, why: Why) {
        if self.contradiction.is_some() {
            return;
        }
        let name = &self.sessions.facts.transactions.objects[key as usize].name;
        let words = format!("{}; but {name} was found as if nobody had written it", self.tell(why));
        self.contradiction = Some(self.violated(words, why.records().chain([write]).collect()));
    }

    fn violated(&self, words: String, records: BTreeSet<u32>) -> Verdict {
        let records = records.iter().map(|record| self.history[*record as usize].clone());
        Verdict::violated(self.rule, words, records.collect())
    }

    /// The contradiction, if there is one.
    pub(super) fn judge(mut self) -> Verdict {
        if let Some(verdict) = self.contradiction.take() {
            return verdict;
        }
        match self.shortest_cycle() {
            None => Verdict::Holds,
            Some(cycle) => self.name(&cycle),
        }
    }

    fn shortest_cycle(&self) -> Option<Vec<Edge>> {
        if let Some(edge) = self.edges.iter().find(|edge| edge.former == edge.latter) {
            return Some(vec![*edge]);
        }
        let mut builder = Builder::new(self.nodes);
        for edge in &self.edges {
            builder.edge(edge.former, edge.latter, 1);
        }
        let all: Vec<u32> = (0..self.nodes).collect();
        let component = builder.finish().components(&all, 1);
        let mut inside: BTreeMap<u32, Vec<&Edge>> = BTreeMap::new();
        for edge in &self.edges {
            let within = component[edge.former as usize];
            if within != u32::MAX && within == component[edge.latter as usize] {
                inside.entry(edge.former).or_default().push(edge);
            }
        }
        inside
            .keys()
            .filter(|start| (**start as usize) < self.history.len())
            .take(STARTS_MAX)
            .filter_map(|start| back_to(*start, &inside))
            .min_by_key(Vec::len)
    }

    fn name(&self, cycle: &[Edge]) -> Verdict {
        let mut records = BTreeSet::new();
        let mut sentences = Vec::new();
        let mut edges = cycle.iter();
        while let Some(edge) = edges.next() {
            let Some(mut why) = edge.why else { continue };
            let (former, mut latter) = (edge.former, edge.latter);
            while latter as usize >= self.history.len()
                && let Some(on) = edges.next()
            {
                latter = on.latter;
                why.second = latter;
            }
            records.extend([former, latter].into_iter().chain(why.records()));
            let (former, latter) = (self.deed(former), self.deed(latter));
            sentences.push(format!("{}, so {former} comes before {latter}", self.tell(why)));
        }
        self.violated(sentences.join("; but "), records)
    }

    fn tell(&self, why: Why) -> String {
        let (first, second) = (self.deed(why.first), self.deed(why.second));
        let mut words = match why.guarantee {
            Some(guarantee) => format!("{guarantee}: {first}, and then {second}"),
            None => format!("{second}, after it had seen what rests on {first}"),
        };
        if let Some(reader) = why.seen_by {
            words.push_str(&format!(", and {} saw that", self.deed(reader)));
        }
        words
    }

    fn deed(&self, record: u32) -> String {
        let record = &self.history[record as usize];
        format!("client {}'s {}", record.client, Deed(record)).trim_end_matches(": done").to_owned()
    }
}

fn back_to(start: u32, edges: &BTreeMap<u32, Vec<&Edge>>) -> Option<Vec<Edge>> {
    let mut whence: HashMap<u32, Edge> = HashMap::new();
    let mut next = VecDeque::from([start]);
    while let Some(node) = next.pop_front() {
        for edge in edges.get(&node).into_iter().flatten() {
            if edge.latter == start {
                let mut cycle = vec![**edge];
                while let Some(first) = cycle.last().filter(|first| first.former != start) {
                    cycle.push(whence[&first.former]);
                }
                cycle.reverse();
                return Some(cycle);
            }
            whence.entry(edge.latter).or_insert_with(|| {
                next.push_back(edge.latter);
                **edge
            });
        }
    }
    None
}
