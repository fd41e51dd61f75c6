//! Who must come before whom.
//!
//! Nodes are transactions, by their place in time, and *waypoints*. A dependency that many have on
//! many goes through a waypoint, so that there are as many edges as reads and writes and not as many
//! as pairs: "everybody who read this version comes before everybody who overwrote it", "whoever had
//! returned by then comes before whoever was called later". The edge into a waypoint says of what
//! kind the dependency is, and those out of it only carry it on.

use super::transactions::small;

/// The kinds of edges, as bits, so that a search can be told which to follow.
pub(crate) mod kind {
    /// Who wrote a version, and who overwrote it.
    pub(crate) const WRITE_WRITE: u8 = 1;
    /// Who wrote a version, and who read it.
    pub(crate) const WRITE_READ: u8 = 2;
    /// Who read a version, and who overwrote it: an anti-dependency.
    pub(crate) const READ_WRITE: u8 = 4;
    /// Who had returned, and who was called after that.
    pub(crate) const REALTIME: u8 = 8;
    /// On from a waypoint.
    pub(crate) const ON: u8 = 16;
    /// On from a waypoint, which is known only from the times.
    pub(crate) const ON_TIMED: u8 = 32;
}

/// Collects edges.
#[derive(Debug)]
pub(crate) struct Builder {
    nodes: u32,
    edges: Vec<(u32, u32, u8)>,
}

/// A graph whose edges are stored by the node they leave.
#[derive(Debug)]
pub(crate) struct Graph {
    offsets: Vec<u32>,
    targets: Vec<u32>,
    kinds: Vec<u8>,
}

impl Builder {
    pub(crate) fn new(nodes: u32) -> Self {
        Self { nodes, edges: Vec::new() }
    }

    pub(crate) fn waypoint(&mut self) -> u32 {
        self.nodes += 1;
        self.nodes - 1
    }

    pub(crate) fn edge(&mut self, from: u32, to: u32, kind: u8) {
        if from != to {
            self.edges.push((from, to, kind));
        }
    }

    pub(crate) fn finish(self) -> Graph {
        let mut offsets = vec![0u32; self.nodes as usize + 1];
        for (from, _, _) in &self.edges {
            offsets[*from as usize + 1] += 1;
        }
        for at in 1..offsets.len() {
            offsets[at] += offsets[at - 1];
        }
        let mut free = offsets.clone();
        let mut targets = vec![0; self.edges.len()];
        let mut kinds = vec![0; self.edges.len()];
        for (from, to, kind) in self.edges {
            let at = &mut free[from as usize];
            targets[*at as usize] = to;
            kinds[*at as usize] = kind;
            *at += 1;
        }
        Graph { offsets, targets, kinds }
    }
}

impl Graph {
    pub(crate) fn nodes(&self) -> u32 {
        small(self.offsets.len() - 1)
    }

    /// The edges that leave a node: where to, and of what kind.
    pub(crate) fn edges(&self, from: u32) -> impl Iterator<Item = (u32, u8)> {
        let range = self.offsets[from as usize] as usize..self.offsets[from as usize + 1] as usize;
        self.targets[range.clone()].iter().copied().zip(self.kinds[range].iter().copied())
    }

    /// For each node the number of its strongly connected component among these nodes by edges of
    /// these kinds, or `u32::MAX` if it is alone in it (Tarjan 1972, without recursion).
    pub(crate) fn components(&self, nodes: &[u32], kinds: u8) -> Vec<u32> {
        Tarjan::new(self, kinds).run(nodes)
    }
}

const ALONE: u32 = u32::MAX;

struct Tarjan<'a> {
    graph: &'a Graph,
    kinds: u8,
    /// When each node was met, from 1; 0 if not yet.
    met: Vec<u32>,
    low: Vec<u32>,
    component: Vec<u32>,
    components: u32,
    clock: u32,
    /// Met, but not yet in a component.
    open: Vec<u32>,
    is_open: Vec<bool>,
    /// The path from the root: a node, and its next edge.
    path: Vec<(u32, u32)>,
}

impl<'a> Tarjan<'a> {
    fn new(graph: &'a Graph, kinds: u8) -> Self {
        let nodes = graph.nodes() as usize;
        Self {
            graph,
            kinds,
            met: vec![0; nodes],
            low: vec![0; nodes],
            component: vec![ALONE; nodes],
            components: 0,
            clock: 0,
            open: Vec::new(),
            is_open: vec![false; nodes],
            path: Vec::new(),
        }
    }

    fn run(mut self, nodes: &[u32]) -> Vec<u32> {
        // What is not among the nodes counts as dealt with.
        self.met.fill(u32::MAX);
        for node in nodes {
            self.met[*node as usize] = 0;
        }
        for root in nodes {
            if self.met[*root as usize] == 0 {
                self.meet(*root);
                while let Some((node, edge)) = self.path.pop() {
                    self.follow(node, edge);
                }
            }
        }
        self.component
    }

    fn meet(&mut self, node: u32) {
        self.clock += 1;
        self.met[node as usize] = self.clock;
        self.low[node as usize] = self.clock;
        self.open.push(node);
        self.is_open[node as usize] = true;
        self.path.push((node, self.graph.offsets[node as usize]));
    }

    /// Goes on from a node at one of its edges, until there is a node to go into or it is done.
    fn follow(&mut self, node: u32, mut edge: u32) {
        let end = self.graph.offsets[node as usize + 1];
        while edge < end {
            let (to, kind) = (self.graph.targets[edge as usize], self.graph.kinds[edge as usize]);
            edge += 1;
            if kind & self.kinds == 0 {
                continue;
            }
            if self.met[to as usize] == 0 {
                self.path.push((node, edge));
                self.meet(to);
                return;
            }
            if self.is_open[to as usize] {
                self.low[node as usize] = self.low[node as usize].min(self.met[to as usize]);
            }
        }
        if let Some((parent, _)) = self.path.last() {
            let low = self.low[node as usize];
            let parent = &mut self.low[*parent as usize];
            *parent = (*parent).min(low);
        }
        if self.low[node as usize] == self.met[node as usize] {
            self.close(node);
        }
    }

    fn close(&mut self, root: u32) {
        let alone = self.open.last() == Some(&root);
        while let Some(node) = self.open.pop() {
            self.is_open[node as usize] = false;
            self.component[node as usize] = if alone { ALONE } else { self.components };
            if node == root {
                break;
            }
        }
        self.components += u32::from(!alone);
    }
}
