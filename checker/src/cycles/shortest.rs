//! The shortest cycle of each class.
//!
//! Classes are tried from the fewest kinds of dependencies to all of them, first without real time
//! (Adya 1999, chapter 3; Elle's order). In the components that remain, a breadth-first search goes
//! from one transaction after the other back to itself. A step into a waypoint counts, those out of
//! it do not, so that lengths are counted in transactions.

use std::collections::VecDeque;

use super::Isolation;
use super::facts::{Facts, NONE};
use super::graph::{Graph, kind};
use super::transactions::small;
use crate::verdict::{Cycle, CycleKind};

/// Nodes visited in one class; then the shortest cycle so far must do. Enough for the exact answer
/// unless tens of thousands of transactions depend on one another.
const VISITS_MAX: usize = 5_000_000;

/// A cycle: the transactions' nodes, each with the way to the next one.
#[derive(Debug)]
pub(super) struct FoundCycle {
    pub(super) class: Cycle,
    pub(super) ways: Vec<Way>,
}

/// From one transaction to another, past waypoints.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) from: u32,
    pub(super) kind: u8,
    pub(super) waypoints: Vec<u32>,
    pub(super) timed: bool,
    pub(super) to: u32,
}

/// The plainest class of cycles that there is without real time, and the plainest with it.
pub(super) fn cycles(graph: &Graph, facts: &Facts<'_>, isolation: Isolation) -> Vec<FoundCycle> {
    let everything: Vec<u32> = (0..graph.nodes()).collect();
    let component = graph.components(&everything, u8::MAX);
    let nodes: Vec<u32> =
        everything.into_iter().filter(|node| component[*node as usize] != NONE).collect();
    if nodes.is_empty() {
        return Vec::new();
    }
    let data = find(graph, facts, &nodes, kind::ON, 0);
    let timed = match isolation {
        Isolation::Serializable => None,
        Isolation::StrictSerializable => {
            find(graph, facts, &nodes, kind::ON | kind::REALTIME, kind::ON_TIMED)
        }
    };
    data.into_iter().chain(timed).collect()
}

/// An order of versions that only the times tell is used to say what a read missed: whoever saw the
/// versions is then part of the cycle, or not far from it.
fn find(
    graph: &Graph,
    facts: &Facts<'_>,
    nodes: &[u32],
    base: u8,
    timed: u8,
) -> Option<FoundCycle> {
    let written = base | kind::WRITE_WRITE;
    let read = written | kind::WRITE_READ;
    let all = read | kind::READ_WRITE | timed;
    [(written, false), (read, false), (all, true), (all, false)]
        .into_iter()
        .find_map(|(kinds, single)| Search::of(graph, facts, nodes, kinds, single)?.run())
}

struct Search<'a> {
    graph: &'a Graph,
    component: Vec<u32>,
    kinds: u8,
    /// Whether the first step is an anti-dependency and the others are none.
    single: bool,
    transactions: u32,
    starts: Vec<u32>,
    visits_left: usize,
    /// For each node the search that met it last, how far it was, and whence it came.
    met: Vec<(u32, u32)>,
    whence: Vec<(u32, u8)>,
    round: u32,
}

impl<'a> Search<'a> {
    fn of(
        graph: &'a Graph,
        facts: &Facts<'_>,
        nodes: &[u32],
        kinds: u8,
        single: bool,
    ) -> Option<Self> {
        let component = graph.components(nodes, kinds);
        let transactions = small(facts.order.len());
        let mut starts: Vec<u32> = nodes
            .iter()
            .copied()
            .filter(|node| *node < transactions && component[*node as usize] != NONE)
            .filter(|node| !single || graph.edges(*node).any(|(_, kind)| kind == kind::READ_WRITE))
            .collect();
        if starts.is_empty() {
            return None;
        }
        if kinds & kind::REALTIME != 0 {
            let back = Back::of(graph, facts);
            starts.sort_by_cached_key(|node| std::cmp::Reverse(back.from(*node)));
        }
        let all = graph.nodes() as usize;
        Some(Self {
            graph,
            component,
            kinds,
            single,
            transactions,
            starts,
            visits_left: VISITS_MAX,
            met: vec![(0, 0); all],
            whence: vec![(NONE, 0); all],
            round: 0,
        })
    }

    fn run(mut self) -> Option<FoundCycle> {
        let mut best: Option<(u32, Vec<Way>)> = None;
        for start in std::mem::take(&mut self.starts) {
            let shorter_than = best.as_ref().map_or(u32::MAX, |(length, _)| *length);
            if shorter_than == 2 || self.visits_left == 0 {
                break;
            }
            if let Some((length, last)) = self.search(start, shorter_than) {
                best = Some((length, self.ways(start, last)));
            }
        }
        let (_, ways) = best?;
        Some(FoundCycle { class: classify(&ways), ways })
    }

    /// The length of the shortest cycle from a transaction to itself, if it is shorter, and its last
    /// step.
    fn search(&mut self, start: u32, shorter_than: u32) -> Option<(u32, (u32, u8))> {
        self.round += 1;
        let mut best = (shorter_than, None);
        let mut next = VecDeque::from([(start, 0)]);
        self.met[start as usize] = (self.round, 0);
        while let Some((node, length)) = next.pop_front() {
            if length >= best.0 || self.visits_left == 0 {
                break;
            }
            if self.met[node as usize].1 < length {
                continue;
            }
            self.visits_left -= 1;
            for (to, kind) in self.graph.edges(node) {
                if !self.may_follow(node == start, kind)
                    || self.component[to as usize] != self.component[start as usize]
                {
                    continue;
                }
                let step = u32::from(kind & (kind::ON | kind::ON_TIMED) == 0);
                let reached = length + step;
                if to == start {
                    if reached < best.0 {
                        best = (reached, Some((node, kind)));
                    }
                    continue;
                }
                let (round, known) = self.met[to as usize];
                if round == self.round && known <= reached {
                    continue;
                }
                self.met[to as usize] = (self.round, reached);
                self.whence[to as usize] = (node, kind);
                if step == 0 {
                    next.push_front((to, reached));
                } else {
                    next.push_back((to, reached));
                }
            }
        }
        best.1.map(|last| (best.0, last))
    }

    fn may_follow(&self, is_first: bool, kind: u8) -> bool {
        kind & self.kinds != 0
            && (!self.single || is_first == (kind == kind::READ_WRITE) || kind >= kind::ON)
    }

    fn ways(&self, start: u32, last: (u32, u8)) -> Vec<Way> {
        let mut ways = Vec::new();
        let (mut to, mut waypoints, mut timed) = (start, Vec::new(), false);
        let mut step = last;
        loop {
            let (from, kind) = step;
            timed |= kind == kind::ON_TIMED;
            if from < self.transactions {
                waypoints.reverse();
                ways.push(Way { from, kind, waypoints: std::mem::take(&mut waypoints), timed, to });
                (to, timed) = (from, false);
                if from == start {
                    break;
                }
            } else {
                waypoints.push(from);
            }
            step = self.whence[from as usize];
        }
        ways.reverse();
        let first = (0..ways.len()).min_by_key(|at| ways[*at].from).unwrap_or(0);
        ways.rotate_left(first);
        ways
    }
}

fn classify(ways: &[Way]) -> Cycle {
    let count = |kind: u8| ways.iter().filter(|way| way.kind == kind).count();
    let kind = match (count(kind::READ_WRITE), count(kind::WRITE_READ)) {
        (0, 0) => CycleKind::G0,
        (0, _) => CycleKind::G1c,
        (1, _) => CycleKind::GSingle,
        _ => CycleKind::G2Item,
    };
    let realtime = ways.iter().any(|way| way.timed || way.kind == kind::REALTIME);
    Cycle { realtime, kind }
}

/// How far back in time a transaction's dependencies reach: where it is far, a cycle is short.
struct Back<'a> {
    graph: &'a Graph,
    facts: &'a Facts<'a>,
    /// For each node the first return of a transaction that is reached from it past waypoints.
    returns: Vec<u64>,
}

impl<'a> Back<'a> {
    fn of(graph: &'a Graph, facts: &'a Facts<'a>) -> Self {
        let transactions = facts.order.len();
        let mut back = Self { graph, facts, returns: vec![u64::MAX; graph.nodes() as usize] };
        for (place, transaction) in facts.order.iter().enumerate() {
            if facts.is_done(*transaction) {
                back.returns[place] = facts.transactions.heads[*transaction as usize].ret;
            }
        }
        // Waypoints of timelines lead to those made before them, those of values to all of these.
        let values = transactions + facts.transactions.values.len();
        for node in (values..back.returns.len()).chain(transactions..values) {
            back.returns[node] = back.first(small(node), |kind| kind >= kind::ON);
        }
        back
    }

    fn first(&self, node: u32, follow: impl Fn(u8) -> bool) -> u64 {
        let edges = self.graph.edges(node).filter(|(_, kind)| follow(*kind));
        edges.map(|(to, _)| self.returns[to as usize]).min().unwrap_or(u64::MAX)
    }

    fn from(&self, node: u32) -> i128 {
        let call = self.facts.transactions.heads[self.facts.order[node as usize] as usize].call;
        let first = self.first(node, |kind| kind < kind::REALTIME);
        i128::from(call) - i128::from(first)
    }
}
