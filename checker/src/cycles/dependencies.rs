//! The graph of a history: who wrote what somebody read or overwrote, and who came first.

use super::facts::{Facts, NONE};
use super::graph::{Builder, Graph, kind};
use super::transactions::small;
use super::{Isolation, lists, registers};

/// A graph in the making. Nodes of transactions are their places in time; then comes a waypoint for
/// each value, past which the version that it makes is overwritten; then other waypoints.
pub(super) struct Dependencies<'a> {
    pub(super) facts: &'a Facts<'a>,
    pub(super) builder: Builder,
    /// For each value who overwrote it, with nothing in between.
    pub(super) follower: Vec<u32>,
}

/// Builds the graph, and says for each value who overwrote it, with nothing in between.
pub(super) fn graph(facts: &Facts<'_>, isolation: Isolation) -> (Graph, Vec<u32>) {
    let transactions = facts.transactions;
    let nodes = small(transactions.len() + transactions.values.len());
    let follower = vec![NONE; transactions.values.len()];
    let mut dependencies = Dependencies { facts, builder: Builder::new(nodes), follower };
    lists::order(&mut dependencies);
    registers::order(&mut dependencies, isolation);
    dependencies.reads();
    match isolation {
        Isolation::Serializable => {}
        Isolation::StrictSerializable => dependencies.realtime(),
    }
    (dependencies.builder.finish(), dependencies.follower)
}

impl Dependencies<'_> {
    pub(super) fn node(&self, transaction: u32) -> u32 {
        self.facts.rank[transaction as usize]
    }

    /// Where those come by who must come after whoever saw this version.
    pub(super) fn past(&self, value: u32) -> u32 {
        small(self.facts.transactions.len()) + value
    }

    /// The transaction wrote this version, and `follower` overwrote it next.
    pub(super) fn follow(&mut self, value: u32, follower: u32) {
        self.follower[value as usize] = follower;
        let (past, follower) = (self.past(value), self.node(follower));
        self.builder.edge(past, follower, kind::ON);
    }

    /// The writer of a version comes before whoever overwrites it; unless that is itself.
    pub(super) fn write(&mut self, writer: u32, value: u32) {
        if self.follower[value as usize] != writer {
            let (node, past) = (self.node(writer), self.past(value));
            self.builder.edge(node, past, kind::WRITE_WRITE);
        }
    }

    /// Who reads a version comes after its writer, and before whoever overwrites it. One that
    /// overwrites it itself does not come before itself: what follows it follows what it left.
    fn reads(&mut self) {
        let facts = self.facts;
        for (reader, value) in &facts.reads {
            let node = self.node(*reader);
            if let Some(writer) = facts.source(*value) {
                let writer = self.node(writer);
                self.builder.edge(writer, node, kind::WRITE_READ);
            }
            let follower = self.follower[*value as usize];
            if follower == *reader {
                continue;
            }
            let object = facts.transactions.values[*value as usize].object;
            let overwritten = if follower != NONE && facts.installed(*reader, object).is_some() {
                self.node(follower)
            } else {
                self.past(*value)
            };
            self.builder.edge(node, overwritten, kind::READ_WRITE);
        }
    }

    /// Transactions in the order of their returns, each past a barrier of its own; who was called
    /// after a return comes after the barrier.
    fn realtime(&mut self) {
        let facts = self.facts;
        let head = |transaction: u32| &facts.transactions.heads[transaction as usize];
        let mut returned: Vec<u32> =
            facts.order.iter().copied().filter(|transaction| facts.is_done(*transaction)).collect();
        returned.sort_by_key(|transaction| head(*transaction).ret);
        let mut barriers: Vec<(u64, u32)> = Vec::with_capacity(returned.len());
        for transaction in returned {
            let ret = head(transaction).ret;
            let barrier = match barriers.last() {
                Some((at, barrier)) if *at == ret => *barrier,
                previous => {
                    let previous = previous.map(|(_, barrier)| *barrier);
                    let barrier = self.builder.waypoint();
                    if let Some(previous) = previous {
                        self.builder.edge(previous, barrier, kind::ON);
                    }
                    barriers.push((ret, barrier));
                    barrier
                }
            };
            let node = self.node(transaction);
            self.builder.edge(node, barrier, kind::REALTIME);
        }
        for transaction in &facts.order {
            let before = barriers.partition_point(|(ret, _)| *ret < head(*transaction).call);
            if facts.happened[*transaction as usize] && before > 0 {
                let node = self.node(*transaction);
                self.builder.edge(barriers[before - 1].1, node, kind::ON);
            }
        }
    }
}
