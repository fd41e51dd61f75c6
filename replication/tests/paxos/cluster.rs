//! Replicas with a network between them, every message of which is in the hands of the test.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kvorum_replication::paxos::message::Message;
use kvorum_replication::paxos::record::Record;
use kvorum_replication::paxos::{PaxosRole, Replica, ReplicaOptions};
use kvorum_replication::{
    Core, Input, NodeId, Operation, Outcome, Request, RequestId, Status, Time,
};

use crate::ghost::Ghost;
use crate::machine::{Disk, Machine, Output};
use crate::show;

/// A message on its way.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) message: Message,
}

/// A node that runs, or its disk.
enum Place {
    Up(Box<Machine>),
    Down(Box<Disk>),
}

/// Something that was seen to happen, for the judge.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Asked {
        node: NodeId,
        request: RequestId,
        operation: Operation,
    },
    /// So many slots were chosen then, without a gap.
    Answered {
        request: RequestId,
        outcome: Outcome,
        chosen: usize,
    },
    /// Whoever waits for this node waits in vain.
    Crashed {
        node: NodeId,
    },
}

/// The cluster.
pub(crate) struct Cluster {
    pub(crate) now: Time,
    options: ReplicaOptions,
    places: BTreeMap<NodeId, Place>,
    /// Which life a node with an empty disk is given.
    lives: BTreeMap<NodeId, u64>,
    pub(crate) network: Vec<Packet>,
    /// Pairs that can't reach each other, and both know it; smaller number first.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// From, to: messages get lost, and nobody knows it.
    blocked: BTreeSet<(NodeId, NodeId)>,
    armed: BTreeMap<NodeId, Vec<String>>,
    tracing: bool,
    trace: Vec<String>,
    requests: u64,
    pub(crate) events: Vec<Event>,
    /// Fail points that fired.
    pub(crate) fired: Vec<&'static str>,
    pub(crate) ghost: Ghost,
    /// Whether each node has a clock of its own.
    pub(crate) clocks_differ: bool,
}

impl Cluster {
    /// A cluster whose nodes are all down and have empty disks. The first so many are its founders.
    pub(crate) fn new(options: ReplicaOptions, nodes: u32, tracing: bool) -> Self {
        let down = |id| (NodeId(id), Place::Down(Box::default()));
        Self {
            now: Time(0),
            places: (1..=nodes).map(down).collect(),
            lives: BTreeMap::new(),
            network: Vec::new(),
            cut: BTreeSet::new(),
            blocked: BTreeSet::new(),
            armed: BTreeMap::new(),
            tracing,
            trace: Vec::new(),
            requests: 0,
            events: Vec::new(),
            fired: Vec::new(),
            ghost: Ghost::new(&options),
            clocks_differ: false,
            options,
        }
    }

    /// Nobody watches: what the nodes do rests on lies.
    pub(crate) fn believe_nothing(&mut self) {
        self.ghost.is_blind = true;
    }

    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        self.places.keys().copied().collect()
    }

    pub(crate) fn machine(&self, node: NodeId) -> Option<&Machine> {
        match self.places.get(&node) {
            Some(Place::Up(machine)) => Some(machine),
            Some(Place::Down(_)) | None => None,
        }
    }

    fn machine_mut(&mut self, node: NodeId) -> Option<&mut Machine> {
        match self.places.get_mut(&node) {
            Some(Place::Up(machine)) => Some(machine),
            Some(Place::Down(_)) | None => None,
        }
    }

    /// What a node's own clock shows: each began at another time, and none runs like the next; within
    /// what the options allow.
    fn clock(&self, node: NodeId, now: Time) -> Time {
        if !self.clocks_differ {
            return now;
        }
        let node = u64::from(node.0);
        Time(node * 1_000_000_000_000 + now.0 / 1000 * (994 + 2 * node))
    }

    /// When a node's clock shows this time.
    fn when(&self, node: NodeId, shown: Time) -> Time {
        if !self.clocks_differ {
            return shown;
        }
        let node = u64::from(node.0);
        let passed = shown.0.saturating_sub(node * 1_000_000_000_000);
        Time(passed.div_ceil(994 + 2 * node) * 1000)
    }

    pub(crate) fn is_up(&self, node: NodeId) -> bool {
        self.machine(node).is_some()
    }

    pub(crate) fn take_trace(&mut self) -> Vec<String> {
        std::mem::take(&mut self.trace)
    }

    fn say(&mut self, line: impl FnOnce() -> String) {
        if self.tracing {
            self.trace.push(line());
        }
    }

    /// From its next start on, the node dies at this point.
    pub(crate) fn arm(&mut self, node: NodeId, point: &str) {
        self.armed.entry(node).or_default().push(point.to_owned());
    }

    /// Starts a node on what its disk holds.
    pub(crate) fn start(&mut self, node: NodeId) {
        let armed = self.armed.remove(&node).unwrap_or_default();
        let Some(Place::Down(disk)) = self.places.get_mut(&node) else {
            panic!("{node} runs already");
        };
        let disk = std::mem::take(&mut **disk);
        let options = ReplicaOptions {
            id: node,
            // Each has its own chance.
            seed: self.options.seed ^ (u64::from(node.0) << 32) ^ disk.log.len() as u64,
            life: self.lives.get(&node).copied().unwrap_or_default(),
            ..self.options.clone()
        };
        let core = Replica::new(options);
        let machine = Machine::recover(node.to_string(), core, disk, armed, self.tracing);
        self.places.insert(node, Place::Up(Box::new(machine)));
        self.step(node, Input::Started);
        for peer in self.nodes() {
            if peer != node && self.is_up(peer) && !self.is_cut(node, peer) {
                self.link_up(node, peer);
            }
        }
    }

    /// Stops a node at once. Of its records that are not durable the first `keep` survive.
    pub(crate) fn crash(&mut self, node: NodeId, keep: usize) {
        self.events.push(Event::Crashed { node });
        if let Some(Place::Up(machine)) = self.places.get_mut(&node) {
            let mut disk = std::mem::take(&mut machine.disk);
            disk.crash(keep);
            self.places.insert(node, Place::Down(Box::new(disk)));
        }
        self.ghost.stopped(node);
        for peer in self.nodes() {
            if self.is_up(peer) && !self.is_cut(node, peer) {
                self.step(peer, Input::PeerDown(node));
            }
        }
    }

    /// A node that is down loses its disk; it comes back under this life.
    pub(crate) fn wipe(&mut self, node: NodeId, life: u64) {
        assert!(!self.is_up(node), "{node} runs on its disk");
        self.places.insert(node, Place::Down(Box::default()));
        self.lives.insert(node, life);
        self.ghost.wiped(node);
    }

    pub(crate) fn fail_role(&mut self, node: NodeId, role: PaxosRole, returns: bool) {
        let now = self.clock(node, self.now);
        if let Some(machine) = self.machine_mut(node) {
            machine.toggle(now, role, returns);
        }
        self.collect(node);
    }

    pub(crate) fn acceptor_is_down(&self, node: NodeId) -> bool {
        self.machine(node).is_some_and(|machine| !machine.core.is_up(PaxosRole::Acceptor))
    }

    fn is_cut(&self, one: NodeId, other: NodeId) -> bool {
        self.cut.contains(&(one.min(other), one.max(other)))
    }

    fn link_up(&mut self, one: NodeId, other: NodeId) {
        self.step(one, Input::PeerUp(other));
        self.step(other, Input::PeerUp(one));
    }

    /// Breaks the link between two nodes: both notice, and what is on it is lost.
    pub(crate) fn cut(&mut self, one: NodeId, other: NodeId) {
        if !self.cut.insert((one.min(other), one.max(other))) {
            return;
        }
        self.network.retain(|packet| {
            (packet.from, packet.to) != (one, other) && (packet.from, packet.to) != (other, one)
        });
        for (node, peer) in [(one, other), (other, one)] {
            if self.is_up(peer) {
                self.step(node, Input::PeerDown(peer));
            }
        }
    }

    pub(crate) fn heal(&mut self, one: NodeId, other: NodeId) {
        self.blocked.remove(&(one, other));
        self.blocked.remove(&(other, one));
        if self.cut.remove(&(one.min(other), one.max(other)))
            && self.is_up(one)
            && self.is_up(other)
        {
            self.link_up(one, other);
        }
    }

    /// What one sends to the other gets lost from here on.
    pub(crate) fn block(&mut self, from: NodeId, to: NodeId) {
        self.blocked.insert((from, to));
    }

    pub(crate) fn ask(&mut self, node: NodeId, operation: Operation, deadline: Time) -> RequestId {
        self.requests += 1;
        let request = RequestId(self.requests);
        self.events.push(Event::Asked { node, request, operation: operation.clone() });
        let deadline = match deadline {
            Time::NEVER => Time::NEVER,
            deadline => self.clock(node, deadline),
        };
        self.step(node, Input::Request(Request { id: request, deadline, operation }));
        request
    }

    /// Delivers the message at this place of the network.
    pub(crate) fn deliver(&mut self, index: usize) {
        let Packet { from, to, message } = self.network.remove(index);
        if !self.is_up(to) || self.is_cut(from, to) || self.blocked.contains(&(from, to)) {
            self.say(|| format!("lost: {} to {to}", show::message(&message)));
            return;
        }
        self.say(|| format!("{to:<2} ← {from} {}", show::message(&message)));
        self.step(to, Input::Message { from, message });
    }

    fn step(&mut self, node: NodeId, input: Input<Message, <Replica as Core>::Resume>) {
        let now = self.clock(node, self.now);
        if let Some(machine) = self.machine_mut(node) {
            machine.step(now, input);
            self.collect(node);
        }
    }

    pub(crate) fn sync(&mut self, node: NodeId) {
        let now = self.clock(node, self.now);
        if let Some(machine) = self.machine_mut(node) {
            machine.sync(now);
            self.collect(node);
        }
    }

    pub(crate) fn flush(&mut self, node: NodeId) {
        let now = self.clock(node, self.now);
        if let Some(machine) = self.machine_mut(node) {
            machine.flush(now);
            self.collect(node);
        }
    }

    pub(crate) fn checkpoint(&mut self, node: NodeId) {
        self.step(node, Input::Checkpoint);
    }

    pub(crate) fn stopping(&mut self, node: NodeId) {
        self.step(node, Input::Stopping);
    }

    pub(crate) fn room(&mut self, node: NodeId, has_room: bool) {
        self.step(node, Input::Room(has_room));
    }

    /// Lets time pass, timer by timer.
    pub(crate) fn tick(&mut self, wait: Duration) {
        let until = self.now.after(wait);
        while self.ring(until) {}
        self.now = until;
    }

    /// Lets time pass up to a node's next timer, and rings no other's: those come late.
    pub(crate) fn wake(&mut self, node: NodeId) {
        let Some(machine) = self.machine_mut(node) else { return };
        let Some(at) = machine.timer.take() else { return };
        let at = self.when(node, at);
        self.now = self.now.max(at);
        self.step(node, Input::Timer);
    }

    /// Rings a node's timer if it is due.
    pub(crate) fn ring_due(&mut self, node: NodeId, now: Time) {
        self.now = self.now.max(now);
        let Some(machine) = self.machine_mut(node) else { return };
        if machine.timer.is_some_and(|timer| timer <= now) {
            machine.timer = None;
            self.step(node, Input::Timer);
        }
    }

    /// The next timer that comes up to then; false if there is none.
    fn ring(&mut self, until: Time) -> bool {
        let timer = |node: &NodeId| Some((self.when(*node, self.machine(*node)?.timer?), *node));
        let Some((at, node)) = self.nodes().iter().filter_map(timer).min() else { return false };
        if at > until {
            return false;
        }
        self.now = self.now.max(at);
        if let Some(machine) = self.machine_mut(node) {
            machine.timer = None;
        }
        self.step(node, Input::Timer);
        true
    }

    /// Delivers and syncs until nothing is on its way, but for what a timer brings.
    pub(crate) fn run(&mut self) {
        for _ in 0..10_000 {
            for node in self.nodes() {
                self.sync(node);
            }
            if self.network.is_empty() {
                return;
            }
            for _ in 0..self.network.len() {
                if !self.network.is_empty() {
                    self.deliver(0);
                }
            }
        }
        panic!("they never stop talking");
    }

    /// Lets time pass and delivers everything at once meanwhile.
    pub(crate) fn live(&mut self, wait: Duration) {
        let until = self.now.after(wait);
        self.run();
        while self.ring(until) {
            self.run();
        }
        self.now = until;
    }

    pub(crate) fn leader(&self) -> Option<NodeId> {
        let leads = |node: &NodeId| self.machine(*node).is_some_and(|machine| machine.core.leads());
        let mut leaders: Vec<NodeId> = self.nodes().into_iter().filter(leads).collect();
        leaders.sort_by_key(|node| self.machine(*node).map(|machine| machine.core.promised()));
        leaders.pop()
    }

    pub(crate) fn status(&self, node: NodeId) -> Option<Status> {
        self.machine(node).map(|machine| machine.core.status(self.clock(node, self.now)))
    }

    pub(crate) fn counter(&self, node: NodeId, name: &str) -> Option<u64> {
        let status = self.status(node)?;
        status.counters.iter().find(|(known, _)| *known == name).map(|(_, count)| *count)
    }

    pub(crate) fn is_durable(&self, node: NodeId) -> bool {
        self.machine(node).is_none_or(Machine::is_durable)
    }

    pub(crate) fn log(&self, node: NodeId) -> &[Record] {
        match &self.places[&node] {
            Place::Up(machine) => &machine.disk.log,
            Place::Down(disk) => &disk.log,
        }
    }

    /// Takes what a node said and did in its last step.
    fn collect(&mut self, node: NodeId) {
        let Some(Place::Up(machine)) = self.places.get_mut(&node) else { return };
        let outputs = std::mem::take(&mut machine.outputs);
        let died_at = machine.died_at;
        self.trace.extend(machine.trace.as_mut().map(std::mem::take).unwrap_or_default());
        self.ghost.watch(node, machine, &outputs);
        for output in outputs {
            match output {
                Output::Send(to, message) => {
                    if !self.is_cut(node, to) && self.places.contains_key(&to) {
                        self.network.push(Packet { from: node, to, message });
                    }
                }
                Output::Reply(request, outcome) => {
                    let chosen = self.ghost.chosen_without_gap();
                    self.events.push(Event::Answered { request, outcome, chosen });
                }
                Output::Apply(..) | Output::Install(..) => {}
            }
        }
        if let Some(point) = died_at {
            self.fired.push(point);
            self.crash(node, 0);
        }
    }
}
