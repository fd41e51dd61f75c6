//! Replicas with a network between them, every message of which is in the hands of the test.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kvorum_replication::two_phase::any_replica::message::{Age, Message};
use kvorum_replication::two_phase::any_replica::record::{Committed, Record};
use kvorum_replication::two_phase::any_replica::{Replica, ReplicaOptions, Resume};
use kvorum_replication::{
    Core, Input, NodeId, Operation, Outcome, Request, RequestId, Status, Time,
};

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
        /// What the node made of it, if that is new.
        age: Option<Age>,
    },
    /// So many commits were durable then.
    Answered { request: RequestId, outcome: Outcome, commits: usize },
    /// Whoever waits for this node waits in vain.
    Crashed { node: NodeId },
}

/// The cluster.
pub(crate) struct Cluster {
    pub(crate) now: Time,
    options: ReplicaOptions,
    places: BTreeMap<NodeId, Place>,
    pub(crate) network: Vec<Packet>,
    /// Pairs that can't reach each other, smaller number first.
    cut: BTreeSet<(NodeId, NodeId)>,
    armed: BTreeMap<NodeId, Vec<String>>,
    tracing: bool,
    trace: Vec<String>,
    requests: u64,
    pub(crate) events: Vec<Event>,
    /// Commits in the order in which they became durable, wherever: the serial order.
    pub(crate) order: Vec<Committed>,
    /// How far each node's log was searched for them.
    searched: BTreeMap<NodeId, usize>,
    /// Fail points that fired.
    pub(crate) fired: Vec<&'static str>,
}

impl Cluster {
    /// A cluster whose nodes are all down and have empty disks.
    pub(crate) fn new(options: ReplicaOptions, tracing: bool) -> Self {
        let down = |id: &NodeId| (*id, Place::Down(Box::default()));
        Self {
            now: Time(0),
            places: options.replicas.iter().map(down).collect(),
            network: Vec::new(),
            cut: BTreeSet::new(),
            armed: BTreeMap::new(),
            tracing,
            trace: Vec::new(),
            requests: 0,
            events: Vec::new(),
            order: Vec::new(),
            searched: BTreeMap::new(),
            fired: Vec::new(),
            options,
        }
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
        self.search(node);
        for peer in self.nodes() {
            if self.is_up(peer) && !self.is_cut(node, peer) {
                self.step(peer, Input::PeerDown(node));
            }
        }
    }

    fn is_cut(&self, one: NodeId, other: NodeId) -> bool {
        self.cut.contains(&(one.min(other), one.max(other)))
    }

    fn link_up(&mut self, one: NodeId, other: NodeId) {
        self.step(one, Input::PeerUp(other));
        self.step(other, Input::PeerUp(one));
    }

    /// A new link takes the place of one that nobody saw break; what was on that one is lost.
    pub(crate) fn relink(&mut self, one: NodeId, other: NodeId) {
        self.lose_link(one, other);
        self.link_up(one, other);
    }

    fn lose_link(&mut self, one: NodeId, other: NodeId) {
        self.network.retain(|packet| {
            (packet.from, packet.to) != (one, other) && (packet.from, packet.to) != (other, one)
        });
    }

    /// Breaks the link between two nodes: both notice, and what is on it is lost.
    pub(crate) fn cut(&mut self, one: NodeId, other: NodeId) {
        if !self.cut.insert((one.min(other), one.max(other))) {
            return;
        }
        self.lose_link(one, other);
        for (node, peer) in [(one, other), (other, one)] {
            if self.is_up(peer) {
                self.step(node, Input::PeerDown(peer));
            }
        }
    }

    pub(crate) fn heal(&mut self, one: NodeId, other: NodeId) {
        if self.cut.remove(&(one.min(other), one.max(other)))
            && self.is_up(one)
            && self.is_up(other)
        {
            self.link_up(one, other);
        }
    }

    pub(crate) fn ask(&mut self, node: NodeId, operation: Operation, deadline: Time) -> RequestId {
        self.requests += 1;
        let request = RequestId(self.requests);
        let before = self.ages(node);
        let logged = self.log(node).len();
        let event = self.events.len();
        self.events.push(Event::Asked { node, request, operation: operation.clone(), age: None });
        self.step(node, Input::Request(Request { id: request, deadline, operation }));
        let committed = self.log(node).iter().skip(logged).filter_map(|record| match record {
            Record::Committed(committed) => Some(committed.age),
            _ => None,
        });
        let new = self.ages(node).into_iter().chain(committed).find(|age| !before.contains(age));
        if let Some(Event::Asked { age, .. }) = self.events.get_mut(event) {
            *age = new;
        }
        request
    }

    fn ages(&self, node: NodeId) -> BTreeSet<Age> {
        let errands = self.machine(node).map(|machine| machine.core.audit().errands);
        errands.unwrap_or_default().into_iter().map(|(age, _)| age).collect()
    }

    /// Delivers the message at this place of the network.
    pub(crate) fn deliver(&mut self, index: usize) {
        let Packet { from, to, message } = self.network.remove(index);
        if !self.is_up(to) || self.is_cut(from, to) {
            self.say(|| format!("lost: {} to {to}", show::message(&message)));
            return;
        }
        self.say(|| format!("{to:<2} ← {from} {}", show::message(&message)));
        self.step(to, Input::Message { from, message });
    }

    fn step(&mut self, node: NodeId, input: Input<Message, Resume>) {
        let now = self.now;
        if let Some(machine) = self.machine_mut(node) {
            machine.step(now, input);
            self.collect(node);
        }
    }

    pub(crate) fn sync(&mut self, node: NodeId) {
        let now = self.now;
        if let Some(machine) = self.machine_mut(node) {
            machine.make_durable();
            self.search(node);
        }
        if let Some(machine) = self.machine_mut(node) {
            machine.sync(now);
            self.collect(node);
        }
    }

    /// What became durable takes its place in the order.
    fn search(&mut self, node: NodeId) {
        let disk = match &self.places[&node] {
            Place::Up(machine) => &machine.disk,
            Place::Down(disk) => disk,
        };
        let from = self.searched.insert(node, disk.durable).unwrap_or_default();
        for record in &disk.log[from..disk.durable] {
            if let Record::Committed(committed) = record {
                self.order.push(committed.clone());
            }
        }
    }

    pub(crate) fn checkpoint(&mut self, node: NodeId) {
        self.step(node, Input::Checkpoint);
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

    /// The next timer that comes up to then; false if there is none.
    fn ring(&mut self, until: Time) -> bool {
        let timer = |node: &NodeId| Some((self.machine(*node)?.timer?, *node));
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
            let is_durable = self.nodes().into_iter().all(|node| self.is_durable(node));
            if self.network.is_empty() && is_durable {
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

    pub(crate) fn status(&self, node: NodeId) -> Option<Status> {
        self.machine(node).map(|machine| machine.core.status(self.now))
    }

    /// Every table keeps its limit, and who holds or waits for a lock is somebody.
    pub(crate) fn audit(&self) -> Result<(), String> {
        for node in self.nodes() {
            let Some(machine) = self.machine(node) else { continue };
            let audit = machine.core.audit();
            if audit.is_unfit {
                return Err(format!("{node} finds that its log contradicts itself"));
            }
            if let Some(table) = audit.tables.iter().find(|table| table.len > table.max) {
                return Err(format!("{node} holds more than it may: {table:?}"));
            }
            let tries = audit.errands.iter().filter_map(|(_, txn)| *txn);
            let known: BTreeSet<_> = tries.chain(audit.commits).chain(audit.open).collect();
            let mut parties = audit.lock_holders.iter().chain(&audit.lock_waiters);
            if let Some(txn) = parties.find(|txn| !known.contains(txn)) {
                return Err(format!("{node} locks for {txn}, which it does not know"));
            }
        }
        Ok(())
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
        // A flush, too, makes the log durable.
        self.search(node);
        let commits = self.order.len();
        let Some(Place::Up(machine)) = self.places.get_mut(&node) else { return };
        let outputs = std::mem::take(&mut machine.outputs);
        let died_at = machine.died_at;
        self.trace.extend(machine.trace.as_mut().map(std::mem::take).unwrap_or_default());
        for output in outputs {
            match output {
                Output::Send(to, message) => {
                    if !self.is_cut(node, to) {
                        self.network.push(Packet { from: node, to, message });
                    }
                }
                Output::Reply(request, outcome) => {
                    self.events.push(Event::Answered { request, outcome, commits });
                }
            }
        }
        if let Some(point) = died_at {
            self.fired.push(point);
            self.crash(node, 0);
        }
    }
}
