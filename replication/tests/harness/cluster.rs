//! Nodes with a network between them, every message of which is in the hands of the test.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use kvorum_replication::{
    Core as _, Input, NodeId, Operation, Outcome, Request, RequestId, Status, Time,
};

use super::machine::{Disk, Machine, Output};
use super::{MessageOf, RecordOf, ResumeOf, Room, show};

/// A message on its way.
pub(crate) struct Packet<R: Room> {
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) message: MessageOf<R>,
}

impl<R: Room> Clone for Packet<R> {
    fn clone(&self) -> Self {
        Self { from: self.from, to: self.to, message: self.message.clone() }
    }
}

/// A node that runs, or its disk.
enum Place<R: Room> {
    Up(Box<Machine<R>>),
    Down(Box<Disk<R>>),
}

/// Something that was seen to happen, for the judge.
#[derive(Clone, Debug)]
pub(crate) enum Event<N> {
    Asked {
        node: NodeId,
        request: RequestId,
        operation: Operation,
        /// What the node made of it, if that is new.
        name: Option<N>,
    },
    /// So long was the order then.
    Answered { request: RequestId, outcome: Outcome, order_len: usize },
    /// Whoever waits for this node waits in vain.
    Crashed { node: NodeId },
}

/// The cluster. It looks like its room as well: options, and what watches.
pub(crate) struct Cluster<R: Room> {
    pub(crate) now: Time,
    room: R,
    places: BTreeMap<NodeId, Place<R>>,
    pub(crate) network: Vec<Packet<R>>,
    /// Pairs that can't reach each other, and both know it; smaller number first.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// From, to: messages get lost, and nobody knows it.
    blocked: BTreeSet<(NodeId, NodeId)>,
    armed: BTreeMap<NodeId, Vec<String>>,
    tracing: bool,
    trace: Vec<String>,
    requests: u64,
    pub(crate) events: Vec<Event<R::Name>>,
    /// Fail points that fired.
    pub(crate) fired: Vec<&'static str>,
}

impl<R: Room> Deref for Cluster<R> {
    type Target = R;

    fn deref(&self) -> &R {
        &self.room
    }
}

impl<R: Room> DerefMut for Cluster<R> {
    fn deref_mut(&mut self) -> &mut R {
        &mut self.room
    }
}

impl<R: Room> Cluster<R> {
    /// A cluster whose nodes are all down and have empty disks.
    pub(crate) fn of(room: R, nodes: impl IntoIterator<Item = NodeId>, tracing: bool) -> Self {
        Self {
            now: Time(0),
            room,
            places: nodes.into_iter().map(|id| (id, Place::Down(Box::default()))).collect(),
            network: Vec::new(),
            cut: BTreeSet::new(),
            blocked: BTreeSet::new(),
            armed: BTreeMap::new(),
            tracing,
            trace: Vec::new(),
            requests: 0,
            events: Vec::new(),
            fired: Vec::new(),
        }
    }

    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        self.places.keys().copied().collect()
    }

    pub(crate) fn machine(&self, node: NodeId) -> Option<&Machine<R>> {
        match self.places.get(&node) {
            Some(Place::Up(machine)) => Some(machine),
            Some(Place::Down(_)) | None => None,
        }
    }

    fn machine_mut(&mut self, node: NodeId) -> Option<&mut Machine<R>> {
        match self.places.get_mut(&node) {
            Some(Place::Up(machine)) => Some(machine),
            Some(Place::Down(_)) | None => None,
        }
    }

    fn disk(&self, node: NodeId) -> &Disk<R> {
        match &self.places[&node] {
            Place::Up(machine) => &machine.disk,
            Place::Down(disk) => disk,
        }
    }

    /// What of a node's log a crash leaves.
    pub(crate) fn durable_log(&self, node: NodeId) -> &[RecordOf<R>] {
        let disk = self.disk(node);
        &disk.log[..disk.durable]
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

    /// Starts all nodes that are down.
    pub(crate) fn start_all(&mut self) {
        for node in self.nodes() {
            if !self.is_up(node) {
                self.start(node);
            }
        }
    }

    /// Starts a node on what its disk holds.
    pub(crate) fn start(&mut self, node: NodeId) {
        let armed = self.armed.remove(&node).unwrap_or_default();
        let Some(Place::Down(disk)) = self.places.get_mut(&node) else {
            panic!("{node} runs already");
        };
        let disk = std::mem::take(&mut **disk);
        let core = self.room.core(node, disk.log.len(), &armed);
        let machine = Machine::recover(show::node(node), core, disk, armed, self.tracing);
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
        if self.room.links_die() {
            self.network.retain(|packet| packet.to != node && packet.from != node);
        }
        if let Some(machine) = self.machine_mut(node) {
            let mut disk = std::mem::take(&mut machine.disk);
            disk.crash(keep);
            self.places.insert(node, Place::Down(Box::new(disk)));
        }
        self.watch_disk(node);
        self.room.stopped(node);
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
        self.room.wiped(node, life);
    }

    fn watch_disk(&mut self, node: NodeId) {
        let disk = match &self.places[&node] {
            Place::Up(machine) => &machine.disk,
            Place::Down(disk) => disk,
        };
        self.room.synced(node, disk);
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

    /// What one sends to the other gets lost from here on.
    pub(crate) fn block(&mut self, from: NodeId, to: NodeId) {
        self.blocked.insert((from, to));
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

    pub(crate) fn ask(&mut self, node: NodeId, operation: Operation, deadline: Time) -> RequestId {
        self.requests += 1;
        let request = RequestId(self.requests);
        let known = R::begun(self.machine(node), &[], &[]);
        let (logged, sent) = (self.log(node).len(), self.network.len());
        let event = self.events.len();
        self.events.push(Event::Asked { node, request, operation: operation.clone(), name: None });
        let deadline = match deadline {
            Time::NEVER => Time::NEVER,
            deadline => self.room.clock(node, deadline),
        };
        self.step(node, Input::Request(Request { id: request, deadline, operation }));
        let logged = self.log(node).get(logged..).unwrap_or_default();
        let sent = self.network.get(sent..).unwrap_or_default();
        let begun = R::begun(self.machine(node), logged, sent);
        if let Some(Event::Asked { name, .. }) = self.events.get_mut(event) {
            *name = begun.into_iter().find(|name| !known.contains(name));
        }
        request
    }

    /// Delivers the message at this place of the network.
    pub(crate) fn deliver(&mut self, index: usize) {
        let Packet { from, to, message } = self.network.remove(index);
        if !self.is_up(to) || self.is_cut(from, to) || self.blocked.contains(&(from, to)) {
            self.say(|| format!("lost: {} to {}", R::message(&message), show::node(to)));
            return;
        }
        self.say(|| {
            format!("{:<2} ← {} {}", show::node(to), show::node(from), R::message(&message))
        });
        self.step(to, Input::Message { from, message });
    }

    fn step(&mut self, node: NodeId, input: Input<MessageOf<R>, ResumeOf<R>>) {
        self.act(node, |machine, now| machine.step(now, input));
    }

    /// Has a node that is up do something, at the time that its clock shows.
    pub(crate) fn act(&mut self, node: NodeId, act: impl FnOnce(&mut Machine<R>, Time)) {
        let now = self.room.clock(node, self.now);
        if let Some(machine) = self.machine_mut(node) {
            act(machine, now);
            self.collect(node);
        }
    }

    /// Makes a node's log durable, and has it do what waited for that.
    pub(crate) fn sync(&mut self, node: NodeId) {
        if let Some(machine) = self.machine_mut(node) {
            machine.make_durable();
            self.watch_disk(node);
            self.act(node, Machine::settle);
        }
    }

    pub(crate) fn flush(&mut self, node: NodeId) {
        if let Some(machine) = self.machine_mut(node) {
            machine.flush();
            self.act(node, Machine::settle);
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
        let Some(at) = self.machine_mut(node).and_then(|machine| machine.timer.take()) else {
            return;
        };
        self.now = self.now.max(self.room.when(node, at));
        self.step(node, Input::Timer);
    }

    /// The next timer that comes up to then; false if there is none.
    fn ring(&mut self, until: Time) -> bool {
        let timer =
            |node: &NodeId| Some((self.room.when(*node, self.machine(*node)?.timer?), *node));
        let Some((at, node)) = self.nodes().iter().filter_map(timer).min() else { return false };
        if at > until {
            return false;
        }
        self.wake(node);
        true
    }

    /// Delivers and syncs until nothing is on its way, but for what a timer brings.
    pub(crate) fn run(&mut self) {
        for _ in 0..10_000 {
            for node in self.nodes() {
                self.sync(node);
            }
            let rests = !R::RESTS_DURABLY || self.nodes().iter().all(|node| self.is_durable(*node));
            if self.network.is_empty() && rests {
                return;
            }
            for _ in 0..self.network.len() {
                if !self.network.is_empty() {
                    self.deliver(0);
                }
            }
        }
        let restless: Vec<NodeId> =
            self.nodes().into_iter().filter(|node| !self.is_durable(*node)).collect();
        panic!(
            "they never stop talking, {} messages; {restless:?} write and write",
            self.network.len()
        );
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
        self.machine(node).map(|machine| machine.core.status(self.room.clock(node, self.now)))
    }

    pub(crate) fn counter(&self, node: NodeId, name: &str) -> Option<u64> {
        let status = self.status(node)?;
        status.counters.iter().find(|(known, _)| *known == name).map(|(_, count)| *count)
    }

    pub(crate) fn is_durable(&self, node: NodeId) -> bool {
        self.machine(node).is_none_or(Machine::is_durable)
    }

    pub(crate) fn log(&self, node: NodeId) -> &[RecordOf<R>] {
        &self.disk(node).log
    }

    /// Takes what a node said and did in its last step.
    fn collect(&mut self, node: NodeId) {
        // A flush, too, makes the log durable.
        self.watch_disk(node);
        let Some(Place::Up(machine)) = self.places.get_mut(&node) else { return };
        let outputs = std::mem::take(&mut machine.outputs);
        let died_at = machine.died_at;
        self.trace.extend(machine.trace.as_mut().map(std::mem::take).unwrap_or_default());
        self.room.stepped(node, machine, &outputs);
        let order_len = self.room.order_len();
        for output in outputs {
            match output {
                Output::Send(to, message) => {
                    if !self.is_cut(node, to) && self.places.contains_key(&to) {
                        self.network.push(Packet { from: node, to, message });
                    }
                }
                Output::Reply(request, outcome) => {
                    self.events.push(Event::Answered { request, outcome, order_len });
                }
                Output::Apply(..) | Output::Install(..) => {}
            }
        }
        if let Some(point) = died_at {
            self.fired.push(point);
            self.crash(node, R::kept_at(point));
        }
    }
}

/// Every request is answered once, unless the node it was asked of died.
pub(crate) fn answered_once<N>(events: &[Event<N>]) -> Result<(), String> {
    let mut open: BTreeMap<RequestId, NodeId> = BTreeMap::new();
    let mut answered = BTreeSet::new();
    for event in events {
        match event {
            Event::Asked { node, request, .. } => {
                open.insert(*request, *node);
            }
            Event::Answered { request, .. } => {
                // It may be answered in the step that it came with.
                if !answered.insert(*request) || open.remove(request).is_none() {
                    return Err(format!("r{} was answered again", request.0));
                }
            }
            Event::Crashed { node } => open.retain(|_, asked| asked != node),
        }
    }
    match open.first_key_value() {
        Some((request, node)) => Err(format!("{node} never answered r{}", request.0)),
        None => Ok(()),
    }
}
