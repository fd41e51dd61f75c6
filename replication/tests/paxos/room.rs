//! What replicas of Multi-Paxos bring along to be tested: their options, clocks and lives, and the
//! ghost that watches them.

use std::collections::BTreeMap;

use kvorum_replication::paxos::message::Message;
use kvorum_replication::paxos::record::Record;
use kvorum_replication::paxos::{PaxosRole, Replica, ReplicaOptions};
use kvorum_replication::{NodeId, Time};

use crate::ghost::Ghost;
use crate::harness::Room;
use crate::harness::cluster;
use crate::harness::machine;
use crate::show;

pub(crate) type Cluster = cluster::Cluster<Paxos>;
pub(crate) type Packet = cluster::Packet<Paxos>;
pub(crate) type Event = cluster::Event<()>;
pub(crate) type Machine = machine::Machine<Paxos>;
pub(crate) type Output = machine::Output<Paxos>;

pub(crate) struct Paxos {
    options: ReplicaOptions,
    /// Which life a node with an empty disk is given.
    lives: BTreeMap<NodeId, u64>,
    pub(crate) ghost: Ghost,
    /// Whether each node has a clock of its own.
    pub(crate) clocks_differ: bool,
}

impl Cluster {
    /// The first so many of the nodes are the founders.
    pub(crate) fn new(options: ReplicaOptions, nodes: u32, tracing: bool) -> Self {
        let ghost = Ghost::new(&options);
        let room = Paxos { options, lives: BTreeMap::new(), ghost, clocks_differ: false };
        Self::of(room, (1..=nodes).map(NodeId), tracing)
    }

    /// Nobody watches: what the nodes do rests on lies.
    pub(crate) fn believe_nothing(&mut self) {
        self.ghost.is_blind = true;
    }

    /// Stops one of a node's roles, or starts it again.
    pub(crate) fn fail_role(&mut self, node: NodeId, role: PaxosRole, returns: bool) {
        self.act(node, |machine, now| {
            machine.disturb(now, |core, effects| match returns {
                true => core.bring_back(now, role, effects),
                false => core.fail(now, role, effects),
            });
        });
    }

    pub(crate) fn acceptor_is_down(&self, node: NodeId) -> bool {
        self.machine(node).is_some_and(|machine| !machine.core.is_up(PaxosRole::Acceptor))
    }

    /// Rings a node's timer if it is due.
    pub(crate) fn ring_due(&mut self, node: NodeId, now: Time) {
        self.now = self.now.max(now);
        let timer = self.machine(node).and_then(|machine| machine.timer);
        if timer.is_some_and(|timer| timer <= now) {
            self.wake(node);
        }
    }

    pub(crate) fn leader(&self) -> Option<NodeId> {
        let leads = |node: &NodeId| self.machine(*node).is_some_and(|machine| machine.core.leads());
        let mut leaders: Vec<NodeId> = self.nodes().into_iter().filter(leads).collect();
        leaders.sort_by_key(|node| self.machine(*node).map(|machine| machine.core.promised()));
        leaders.pop()
    }
}

impl Room for Paxos {
    type Core = Replica;
    /// The judge knows writes by their stamps and values.
    type Name = ();

    const RECORDS_FIRST: bool = true;
    const COPIES_STORES: bool = true;
    const MARK_SIGN: &'static str = "#";
    const RESTS_DURABLY: bool = false;

    fn core(&self, node: NodeId, records: usize, _armed: &[String]) -> Replica {
        Replica::new(ReplicaOptions {
            id: node,
            // Each has its own chance.
            seed: self.options.seed ^ (u64::from(node.0) << 32) ^ records as u64,
            life: self.lives.get(&node).copied().unwrap_or_default(),
            ..self.options.clone()
        })
    }

    fn kind(message: &Message) -> &'static str {
        show::kind(message)
    }

    fn message(message: &Message) -> String {
        show::message(message)
    }

    fn record(record: &Record) -> String {
        show::record(record)
    }

    fn durable_with(_mark: u64, records: usize) -> usize {
        records
    }

    /// Each began at another time, and none runs like the next; within what the options allow.
    fn clock(&self, node: NodeId, now: Time) -> Time {
        if !self.clocks_differ {
            return now;
        }
        let node = u64::from(node.0);
        Time(node * 1_000_000_000_000 + now.0 / 1000 * (994 + 2 * node))
    }

    fn when(&self, node: NodeId, shown: Time) -> Time {
        if !self.clocks_differ {
            return shown;
        }
        let node = u64::from(node.0);
        let passed = shown.0.saturating_sub(node * 1_000_000_000_000);
        Time(passed.div_ceil(994 + 2 * node) * 1000)
    }

    fn begun(_machine: Option<&Machine>, _logged: &[Record], _sent: &[Packet]) -> Vec<()> {
        Vec::new()
    }

    fn stepped(&mut self, node: NodeId, machine: &Machine, outputs: &[Output]) {
        self.ghost.watch(node, machine, outputs);
    }

    fn stopped(&mut self, node: NodeId) {
        self.ghost.stopped(node);
    }

    fn wiped(&mut self, node: NodeId, life: u64) {
        self.lives.insert(node, life);
        self.ghost.wiped(node);
    }

    fn order_len(&self) -> usize {
        self.ghost.chosen_without_gap()
    }

    fn wrong(cluster: &mut Cluster) -> Option<String> {
        cluster.ghost.wrong.take().map(|what| format!("the ghost: {what}"))
    }
}
