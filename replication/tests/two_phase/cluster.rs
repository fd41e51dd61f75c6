//! A coordinator and its replicas with a network between them, every message of which is in the
//! hands of the test.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kvorum_replication::two_phase::message::{Message, TxnId};
use kvorum_replication::two_phase::record::{CoordinatorRecord, ParticipantRecord};
use kvorum_replication::two_phase::{
    Coordinator, CoordinatorOptions, Participant, ParticipantOptions,
};
use kvorum_replication::{
    Core, Input, NodeId, Operation, Outcome, Request, RequestId, Status, Time, Transaction,
};

use crate::machine::{Disk, Machine, Output};
use crate::show;

pub(crate) const COORDINATOR: NodeId = NodeId::COORDINATOR;

/// A message on its way.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) message: Message,
}

/// A node that runs, or its disk.
enum Slot<C: Core<Message = Message>> {
    Up(Box<Machine<C>>),
    Down(Disk<C::Record>),
}

/// Something that was seen to happen, for the judge.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Asked {
        node: NodeId,
        request: RequestId,
        operation: Operation,
    },
    /// The coordinator gave the request's write this name.
    Begun {
        request: RequestId,
        txn: TxnId,
        transaction: Arc<Transaction>,
    },
    /// So many commits were durable then.
    Answered {
        request: RequestId,
        outcome: Outcome,
        commits: usize,
    },
    /// Whoever waits for this node waits in vain.
    Crashed {
        node: NodeId,
    },
}

/// The cluster.
pub(crate) struct Cluster {
    pub(crate) now: Time,
    pub(crate) coordinator_options: CoordinatorOptions,
    pub(crate) participant_options: ParticipantOptions,
    coordinator: Slot<Coordinator>,
    participants: BTreeMap<NodeId, Slot<Participant>>,
    pub(crate) network: Vec<Packet>,
    /// Pairs that can't reach each other, smaller number first.
    cut: BTreeSet<(NodeId, NodeId)>,
    armed: BTreeMap<NodeId, Vec<String>>,
    tracing: bool,
    trace: Vec<String>,
    requests: u64,
    pub(crate) events: Vec<Event>,
    /// Fail points that fired.
    pub(crate) fired: Vec<&'static str>,
    /// Whether messages to a node that died are lost with its links, as over TCP.
    pub(crate) links_die: bool,
}

/// Runs the same code on the machine of a node of either kind, if it is up.
macro_rules! with_machine {
    ($cluster:expr, $node:expr, $machine:ident => $body:expr) => {
        if $node == COORDINATOR {
            match &mut $cluster.coordinator {
                Slot::Up($machine) => Some($body),
                Slot::Down(_) => None,
            }
        } else {
            match $cluster.participants.get_mut(&$node) {
                Some(Slot::Up($machine)) => Some($body),
                Some(Slot::Down(_)) | None => None,
            }
        }
    };
}

impl Cluster {
    /// A cluster whose nodes are all down and have empty disks.
    pub(crate) fn new(
        coordinator_options: CoordinatorOptions,
        participant_options: ParticipantOptions,
        tracing: bool,
    ) -> Self {
        let participants = coordinator_options
            .replicas
            .iter()
            .map(|id| (*id, Slot::Down(Disk::default())))
            .collect();
        Self {
            now: Time(0),
            coordinator_options,
            participant_options,
            coordinator: Slot::Down(Disk::default()),
            participants,
            network: Vec::new(),
            cut: BTreeSet::new(),
            armed: BTreeMap::new(),
            tracing,
            trace: Vec::new(),
            requests: 0,
            events: Vec::new(),
            fired: Vec::new(),
            links_die: false,
        }
    }

    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        std::iter::once(COORDINATOR).chain(self.participants.keys().copied()).collect()
    }

    pub(crate) fn is_up(&self, node: NodeId) -> bool {
        match node {
            COORDINATOR => matches!(self.coordinator, Slot::Up(_)),
            node => matches!(self.participants.get(&node), Some(Slot::Up(_))),
        }
    }

    pub(crate) fn take_trace(&mut self) -> Vec<String> {
        std::mem::take(&mut self.trace)
    }

    fn say(&mut self, line: impl FnOnce() -> String) {
        if self.tracing {
            self.trace.push(line());
        }
    }

    /// At its next passing of this point the node dies.
    pub(crate) fn arm(&mut self, node: NodeId, point: &str) {
        self.armed.entry(node).or_default().push(point.to_owned());
    }

    /// Starts a node on what its disk holds.
    pub(crate) fn start(&mut self, node: NodeId) {
        assert!(!self.is_up(node), "{node} runs already");
        let armed = self.armed.remove(&node).unwrap_or_default();
        let name = show::node(node);
        if node == COORDINATOR {
            let Slot::Down(disk) = &mut self.coordinator else { unreachable!("it is down") };
            let disk = std::mem::take(disk);
            let core = Coordinator::new(self.coordinator_options.clone());
            let machine = Machine::recover(name, core, disk, armed, self.tracing);
            self.coordinator = Slot::Up(Box::new(machine));
        } else {
            let Some(Slot::Down(disk)) = self.participants.get_mut(&node) else {
                unreachable!("it is down");
            };
            let disk = std::mem::take(disk);
            let options = ParticipantOptions { id: node, ..self.participant_options.clone() };
            let core = Participant::new(options);
            let machine = Machine::recover(name, core, disk, armed, self.tracing);
            self.participants.insert(node, Slot::Up(Box::new(machine)));
        }
        let now = self.now;
        with_machine!(self, node, machine => machine.step(now, Input::Started));
        self.collect(node);
        for peer in self.nodes() {
            if peer != node && self.is_up(peer) && !self.is_cut(node, peer) {
                self.link_up(node, peer);
            }
        }
    }

    /// Stops a node at once. Of its records that are not durable the first `keep` survive.
    pub(crate) fn crash(&mut self, node: NodeId, keep: usize) {
        self.take_down(node, keep);
        for peer in self.nodes() {
            if self.is_up(peer) && !self.is_cut(node, peer) {
                let now = self.now;
                with_machine!(self, peer, machine => machine.step(now, Input::PeerDown(node)));
                self.collect(peer);
            }
        }
    }

    fn take_down(&mut self, node: NodeId, keep: usize) {
        self.events.push(Event::Crashed { node });
        if self.links_die {
            self.network.retain(|packet| packet.to != node && packet.from != node);
        }
        let disk_of_coordinator = |slot: &mut Slot<Coordinator>| {
            if let Slot::Up(machine) = slot {
                let mut disk: Disk<CoordinatorRecord> = std::mem::take(&mut machine.disk);
                disk.crash(keep);
                *slot = Slot::Down(disk);
            }
        };
        let disk_of_participant = |slot: &mut Slot<Participant>| {
            if let Slot::Up(machine) = slot {
                let mut disk: Disk<ParticipantRecord> = std::mem::take(&mut machine.disk);
                disk.crash(keep);
                *slot = Slot::Down(disk);
            }
        };
        match node {
            COORDINATOR => disk_of_coordinator(&mut self.coordinator),
            node => disk_of_participant(self.participants.get_mut(&node).expect("a node of ours")),
        }
    }

    fn is_cut(&self, one: NodeId, other: NodeId) -> bool {
        self.cut.contains(&(one.min(other), one.max(other)))
    }

    fn link_up(&mut self, one: NodeId, other: NodeId) {
        let now = self.now;
        for (node, peer) in [(one, other), (other, one)] {
            with_machine!(self, node, machine => machine.step(now, Input::PeerUp(peer)));
            self.collect(node);
        }
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
        let now = self.now;
        for (node, peer) in [(one, other), (other, one)] {
            if self.is_up(peer) {
                with_machine!(self, node, machine => machine.step(now, Input::PeerDown(peer)));
                self.collect(node);
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
        self.events.push(Event::Asked { node, request, operation: operation.clone() });
        let before = self.network.len();
        let now = self.now;
        let asked = Request { id: request, deadline, operation };
        with_machine!(self, node, machine => machine.step(now, Input::Request(asked)));
        self.collect(node);
        if let Some(Packet { message: Message::Prepare(prepare), .. }) = self.network.get(before) {
            let (txn, transaction) = (prepare.txn, prepare.transaction.clone());
            self.events.push(Event::Begun { request, txn, transaction });
        }
        request
    }

    /// Delivers the message at this place of the network.
    pub(crate) fn deliver(&mut self, index: usize) {
        let Packet { from, to, message } = self.network.remove(index);
        if !self.is_up(to) || self.is_cut(from, to) {
            self.say(|| format!("lost: {} to {}", show::message(&message), show::node(to)));
            return;
        }
        self.say(|| {
            format!("{:<2} ← {} {}", show::node(to), show::node(from), show::message(&message))
        });
        let now = self.now;
        with_machine!(self, to, machine => machine.step(now, Input::Message { from, message }));
        self.collect(to);
    }

    pub(crate) fn sync(&mut self, node: NodeId) {
        let now = self.now;
        with_machine!(self, node, machine => machine.sync(now));
        self.collect(node);
    }

    pub(crate) fn checkpoint(&mut self, node: NodeId) {
        let now = self.now;
        with_machine!(self, node, machine => machine.step(now, Input::Checkpoint));
        self.collect(node);
    }

    pub(crate) fn room(&mut self, node: NodeId, has_room: bool) {
        let now = self.now;
        with_machine!(self, node, machine => machine.step(now, Input::Room(has_room)));
        self.collect(node);
    }

    /// Lets time pass, timer by timer.
    pub(crate) fn tick(&mut self, wait: Duration) {
        let until = self.now.after(wait);
        while let Some((at, node)) = self.next_timer() {
            if at > until {
                break;
            }
            self.now = self.now.max(at);
            let now = self.now;
            with_machine!(self, node, machine => {
                machine.timer = None;
                machine.step(now, Input::Timer);
            });
            self.collect(node);
        }
        self.now = until;
    }

    fn next_timer(&mut self) -> Option<(Time, NodeId)> {
        let nodes = self.nodes();
        nodes
            .into_iter()
            .filter_map(|node| {
                let timer = with_machine!(self, node, machine => machine.timer).flatten();
                timer.map(|at| (at, node))
            })
            .min()
    }

    /// Delivers and syncs until nothing is on its way.
    pub(crate) fn run(&mut self) {
        loop {
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
    }

    pub(crate) fn status(&mut self, node: NodeId) -> Option<Status> {
        let now = self.now;
        with_machine!(self, node, machine => machine.core.status(now))
    }

    pub(crate) fn is_durable(&mut self, node: NodeId) -> bool {
        with_machine!(self, node, machine => machine.is_durable()).unwrap_or(true)
    }

    pub(crate) fn participant(&self, node: NodeId) -> Option<&Machine<Participant>> {
        match self.participants.get(&node) {
            Some(Slot::Up(machine)) => Some(machine),
            Some(Slot::Down(_)) | None => None,
        }
    }

    pub(crate) fn coordinator_log(&self) -> &[CoordinatorRecord] {
        match &self.coordinator {
            Slot::Up(machine) => &machine.disk.log,
            Slot::Down(disk) => &disk.log,
        }
    }

    pub(crate) fn participant_log(&self, node: NodeId) -> &[ParticipantRecord] {
        match &self.participants[&node] {
            Slot::Up(machine) => &machine.disk.log,
            Slot::Down(disk) => &disk.log,
        }
    }

    /// Durable commits in the log that makes them.
    fn commits(&self) -> usize {
        let decided =
            |record: &&CoordinatorRecord| matches!(record, CoordinatorRecord::Committed { .. });
        let alone = |record: &&ParticipantRecord| {
            matches!(record, ParticipantRecord::CommittedAlone { .. })
        };
        match self.coordinator_options.replicas[..] {
            [only] => match &self.participants[&only] {
                Slot::Up(machine) => machine.disk.durable_log().iter().filter(alone).count(),
                Slot::Down(disk) => disk.durable_log().iter().filter(alone).count(),
            },
            _ => match &self.coordinator {
                Slot::Up(machine) => machine.disk.durable_log().iter().filter(decided).count(),
                Slot::Down(disk) => disk.durable_log().iter().filter(decided).count(),
            },
        }
    }

    /// Takes what a node said and did in its last step.
    fn collect(&mut self, node: NodeId) {
        let Some((outputs, trace, died_at)) = with_machine!(self, node, machine => {
            let trace = machine.trace.as_mut().map(std::mem::take).unwrap_or_default();
            (std::mem::take(&mut machine.outputs), trace, machine.died_at)
        }) else {
            return;
        };
        self.trace.extend(trace);
        for output in outputs {
            match output {
                Output::Send(to, message) => {
                    if !self.is_cut(node, to) {
                        self.network.push(Packet { from: node, to, message });
                    }
                }
                Output::Reply(request, outcome) => {
                    let commits = self.commits();
                    self.events.push(Event::Answered { request, outcome, commits });
                }
            }
        }
        if let Some(point) = died_at {
            self.fired.push(point);
            // A killed process loses nothing that it had written, and it has written everything
            // that it had appended only when it says so.
            let keep = usize::MAX;
            let written =
                point == kvorum_replication::two_phase::points::COORDINATOR_DECISION_WRITTEN;
            self.crash(node, if written { keep } else { 0 });
        }
    }
}
