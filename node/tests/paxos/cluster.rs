//! Replicas in line, with a network and a clock between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use kvorum_replication::paxos::ReplicaOptions;
use kvorum_replication::paxos::message::Message;
use kvorum_replication::{
    Core, Failure, Happened, Input, NodeId, Operation, Outcome, Precondition, Request, RequestId,
    Stamp, Time, Transaction, Write,
};
use kvorum_storage::vfs::{CrashMode, MemoryVfs};

use crate::machine::{Machine, Rows};

/// How long anything may take that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster, and what its clients know.
pub(crate) struct Cluster {
    pub(crate) now: Time,
    pub(crate) machines: BTreeMap<NodeId, Machine>,
    network: VecDeque<(NodeId, NodeId, Message)>,
    /// Nothing goes to these or comes from them.
    pub(crate) isolated: BTreeSet<NodeId>,
    requests: u64,
    outcomes: BTreeMap<RequestId, Outcome>,
    /// For each key the value that it has at least, and the one that it has at most: values rise.
    written: BTreeMap<Bytes, (u64, u64)>,
    value: u64,
    /// Nodes that crashed by themselves: at a fail point, or when their power failed.
    pub(crate) crashed: Vec<NodeId>,
    /// Such a node starts again at once.
    pub(crate) restarts: bool,
    /// What a crash at a fail point leaves on the disk.
    pub(crate) point_crash: CrashMode,
    /// A node dies only at a fail point before which it has applied something in the same turn, and
    /// is flushed then.
    pub(crate) dies_flushed_between_applies: bool,
}

pub(crate) fn options(nodes: u32) -> ReplicaOptions {
    ReplicaOptions {
        founders: (1..=nodes).map(NodeId).collect(),
        window: 16,
        pipeline_max: 4,
        retained_slots_max: 4,
        snapshot_rows_max: 3,
        ..ReplicaOptions::default()
    }
}

impl Cluster {
    pub(crate) fn new(options: &ReplicaOptions) -> Self {
        let machine = |id: &NodeId| {
            let options = ReplicaOptions { id: *id, seed: u64::from(id.0), ..options.clone() };
            (*id, Machine::new(options, MemoryVfs::new()))
        };
        Self {
            now: Time(1_000_000_000),
            machines: options.founders.iter().map(machine).collect(),
            network: VecDeque::new(),
            isolated: BTreeSet::new(),
            requests: 0,
            outcomes: BTreeMap::new(),
            written: BTreeMap::new(),
            value: 0,
            crashed: Vec::new(),
            restarts: false,
            point_crash: CrashMode::KeepAll,
            dies_flushed_between_applies: false,
        }
    }

    /// So many nodes, all started.
    pub(crate) fn started(nodes: u32) -> Self {
        let mut cluster = Self::new(&options(nodes));
        for node in cluster.nodes() {
            cluster.start(node);
        }
        cluster
    }

    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        self.machines.keys().copied().collect()
    }

    pub(crate) fn machine(&mut self, node: NodeId) -> &mut Machine {
        self.machines.get_mut(&node).expect("it is one of the cluster")
    }

    pub(crate) fn start(&mut self, node: NodeId) {
        // Its power may fail while it opens.
        loop {
            self.machine(node).open().unwrap();
            if !self.machine(node).has_failed() {
                break;
            }
            self.crashed.push(node);
        }
        self.step(node, Input::Started);
        for other in self.nodes() {
            if other != node && self.machine(other).is_up() && self.hear_each_other(node, other) {
                self.step(node, Input::PeerUp(other));
                self.step(other, Input::PeerUp(node));
            }
        }
    }

    pub(crate) fn crash(&mut self, node: NodeId, mode: CrashMode) {
        self.machine(node).crash(mode);
        self.is_gone(node);
    }

    pub(crate) fn stop(&mut self, node: NodeId) {
        self.machine(node).work(Time(0));
        self.machine(node).stop();
        self.is_gone(node);
    }

    /// A node that loses its disk comes back under another life.
    pub(crate) fn wipe(&mut self, node: NodeId, life: u64) {
        let machine = self.machine(node);
        machine.take_disk(MemoryVfs::new());
        machine.options.life = life;
        self.is_gone(node);
    }

    fn is_gone(&mut self, node: NodeId) {
        self.network.retain(|(from, to, _)| *from != node && *to != node);
        for other in self.nodes() {
            if other != node && self.machine(other).is_up() {
                self.step(other, Input::PeerDown(node));
            }
        }
    }

    pub(crate) fn heal(&mut self, node: NodeId) {
        self.isolated.remove(&node);
        for other in self.nodes() {
            if other != node && self.machine(other).is_up() && self.machine(node).is_up() {
                self.step(node, Input::PeerUp(other));
                self.step(other, Input::PeerUp(node));
            }
        }
    }

    fn hear_each_other(&self, one: NodeId, other: NodeId) -> bool {
        !self.isolated.contains(&one) && !self.isolated.contains(&other)
    }

    pub(crate) fn step(
        &mut self,
        node: NodeId,
        input: Input<Message, kvorum_replication::paxos::Resume>,
    ) {
        let now = self.now;
        if self.machine(node).is_up() {
            self.machine(node).step(now, input);
            self.listen(node);
        }
    }

    /// Takes what a node has said, unless its power failed meanwhile: then nobody heard it.
    fn listen(&mut self, node: NodeId) {
        let machine = self.machine(node);
        if !machine.is_up() {
            return;
        }
        let is_at_point = self.dies_at_point(node);
        if is_at_point {
            // What it had said before is out.
            self.hear(node);
            let mode = self.point_crash;
            self.machine(node).crash(mode);
        }
        if is_at_point || self.machine(node).has_failed() {
            self.crashed.push(node);
            self.is_gone(node);
            if self.restarts {
                self.machine(node).armed.clear();
                self.start(node);
            }
            return;
        }
        self.hear(node);
    }

    /// Whether a node has come to a fail point at which it dies.
    fn dies_at_point(&mut self, node: NodeId) -> bool {
        let now = self.now;
        let waits = self.dies_flushed_between_applies;
        let node = self.machine(node).expect();
        let mut is_at_point = node.take_point().is_some();
        if waits && is_at_point {
            let store = node.store().unwrap().clone();
            let flush = || {
                store.flush().unwrap();
                store.flushed_mark()
            };
            let mut flushed = flush();
            loop {
                node.settle(now).unwrap();
                is_at_point = node.take_point().is_some();
                if !is_at_point || flush() > flushed {
                    break;
                }
                flushed = store.flushed_mark();
            }
        }
        is_at_point
    }

    fn hear(&mut self, node: NodeId) {
        let said = self.machine(node).said();
        self.outcomes.extend(said.replies);
        for (to, message) in said.sends {
            if self.machine(to).is_up() && self.hear_each_other(node, to) {
                self.network.push_back((node, to, message));
            }
        }
    }

    /// Lets all happen that happens by itself in so much time, or until it is enough.
    pub(crate) fn run_until(
        &mut self,
        wait: Duration,
        mut is_enough: impl FnMut(&Self) -> bool,
    ) -> bool {
        let end = self.now.after(wait);
        loop {
            for node in self.nodes() {
                // Before anything is made durable that it did not wait for.
                if is_enough(self) {
                    return true;
                }
                let now = self.now;
                self.machine(node).work(now);
                self.listen(node);
            }
            if !self.network.is_empty() {
                for _ in 0..self.network.len() {
                    let Some((from, to, message)) = self.network.pop_front() else { break };
                    self.step(to, Input::Message { from, message });
                }
                continue;
            }
            let timers = self.machines.values_mut().filter_map(Machine::node);
            let next = timers.filter_map(|node| node.timer()).min().unwrap_or(Time::NEVER);
            if next > end {
                self.now = end;
                return false;
            }
            self.now = self.now.max(next);
            for node in self.nodes() {
                let now = self.now;
                let Some(running) = self.machine(node).node() else { continue };
                if running.timer().is_some_and(|timer| timer <= now) {
                    running.fire_timer(now).unwrap();
                    self.listen(node);
                }
            }
        }
    }

    pub(crate) fn run_for(&mut self, wait: Duration) {
        self.run_until(wait, |_| false);
    }

    pub(crate) fn leader(&self) -> Option<NodeId> {
        let leads = |(_, machine): &(&NodeId, &Machine)| machine.is_up() && machine.core().leads();
        self.machines
            .iter()
            .filter(|(node, _)| !self.isolated.contains(node))
            .find(leads)
            .map(|(node, _)| *node)
    }

    /// Asks until the answer says how it ended, or that nobody knows.
    pub(crate) fn ask(&mut self, operation: &Operation) -> Outcome {
        for _ in 0..100 {
            self.run_until(PATIENCE, |cluster| cluster.leader().is_some());
            let leader = self.leader().expect("somebody leads in time");
            self.requests += 1;
            let id = RequestId(self.requests);
            let deadline = self.now.after(Duration::from_secs(3));
            self.step(
                leader,
                Input::Request(Request { id, deadline, operation: operation.clone() }),
            );
            let crashes = self.crashed.len();
            self.run_until(PATIENCE, |cluster| {
                cluster.outcomes.contains_key(&id) || cluster.crashed.len() > crashes
            });
            match self.outcomes.remove(&id) {
                Some(Outcome::Failed(
                    Failure::Redirect { .. }
                    | Failure::Unavailable { .. }
                    | Failure::DiskFull { .. },
                )) => self.run_for(Duration::from_millis(100)),
                Some(outcome) => return outcome,
                None => {
                    let reason = "the node is gone".to_owned();
                    return Outcome::Failed(Failure::Unknown { reason });
                }
            }
        }
        panic!("nobody takes it: {operation:?}")
    }

    /// Writes the next value of a key, and keeps in mind what the client knows of it.
    pub(crate) fn put(&mut self, key: &str) -> Outcome {
        self.put_stamped(key, None)
    }

    pub(crate) fn put_stamped(&mut self, key: &str, stamp: Option<Stamp>) -> Outcome {
        self.value += 1;
        let (key, value) = (Bytes::copy_from_slice(key.as_bytes()), self.value);
        let writes = vec![Write::Put(key.clone(), text(value))];
        let transaction = Transaction { preconditions: Vec::new(), writes };
        let outcome = self.ask(&Operation::Transact { stamp, transaction });
        let known = self.written.entry(key).or_default();
        match &outcome {
            Outcome::Committed => *known = (value, value),
            Outcome::Failed(failure) if failure.happened() == Happened::No => {}
            _ => known.1 = value,
        }
        outcome
    }

    /// Asks one node to write the next value of a key, and waits for nothing.
    pub(crate) fn submit(&mut self, node: NodeId, key: &str, deadline: Time) {
        self.value += 1;
        self.requests += 1;
        let key = Bytes::copy_from_slice(key.as_bytes());
        self.written.entry(key.clone()).or_default().1 = self.value;
        let writes = vec![Write::Put(key, text(self.value))];
        let transaction = Transaction { preconditions: Vec::new(), writes };
        let operation = Operation::Transact { stamp: None, transaction };
        self.step(
            node,
            Input::Request(Request { id: RequestId(self.requests), deadline, operation }),
        );
    }

    /// These keys are deleted; nothing is known of them.
    pub(crate) fn forget(&mut self, keys: std::ops::Range<u32>) {
        for key in keys {
            self.written.remove(format!("key{key:03}").as_bytes());
        }
    }

    pub(crate) fn put_all(&mut self, keys: impl IntoIterator<Item = u32>) {
        for key in keys {
            self.put(&format!("key{key:03}"));
        }
    }

    /// All nodes are up and hear each other, and hold the same; answers with the rows.
    pub(crate) fn converge(&mut self) -> Rows {
        for node in self.nodes() {
            self.machine(node).armed.clear();
            self.machine(node).spare();
            if !self.machine(node).is_up() {
                self.start(node);
            }
        }
        for node in std::mem::take(&mut self.isolated) {
            self.heal(node);
        }
        let is_settled = |cluster: &Self| {
            let applied: BTreeSet<_> =
                cluster.machines.values().map(|machine| machine.core().applied()).collect();
            cluster.leader().is_some() && applied.len() == 1
        };
        assert!(self.run_until(PATIENCE, is_settled), "they do not come to the same");
        // One more write shows that the cluster takes writes, and brings all to its end.
        assert_eq!(self.put("last"), Outcome::Committed);
        assert!(self.run_until(PATIENCE, is_settled), "they do not come to the same");
        let all: Vec<Rows> = self.machines.values().map(Machine::rows).collect();
        for (rows, node) in all.iter().zip(self.nodes()) {
            assert_eq!(*rows, all[0], "{node} holds something else");
            assert_eq!(self.machine(node).core().unfit(), None);
        }
        for (key, (least, most)) in &self.written {
            let found = all[0].get(key).map_or(0, |value| number(value));
            assert!((*least..=*most).contains(&found), "{key:?} is {found}, not {least} to {most}");
        }
        all[0].clone()
    }

    /// A machine with the options of a node on a directory of another disk.
    pub(crate) fn copy(&self, node: NodeId, disk: &MemoryVfs, dir: &'static str) -> Machine {
        let mut machine = Machine::new(self.machines[&node].options.clone(), disk.clone());
        machine.dir = dir;
        machine
    }

    /// Writes with stamps, the same ones again, and writes that are refused.
    pub(crate) fn refuse_some(&mut self) {
        let Outcome::Session(client) = self.ask(&Operation::OpenSession) else {
            panic!("no session")
        };
        for sequence in 1..10 {
            let key = Bytes::from(format!("once{}", sequence % 3));
            let transaction = Transaction {
                preconditions: vec![Precondition::Absent(key.clone())],
                writes: vec![Write::Put(key, format!("{sequence:06}").into())],
            };
            let stamp = Some(Stamp { client, sequence, answered_below: 1 });
            let operation = Operation::Transact { stamp, transaction };
            let first = self.ask(&operation);
            assert_eq!(self.ask(&operation), first);
            assert_eq!(first == Outcome::Committed, sequence <= 3, "{first:?}");
        }
    }

    /// Two writes, the first of which happens only if it comes before the second.
    pub(crate) fn put_in_order(&mut self, round: u32) {
        let (first, second) = (format!("a{round:03}"), format!("z{round:03}"));
        let writes = vec![Write::Put(first.into(), "1".into())];
        let preconditions = vec![Precondition::Absent(second.clone().into())];
        let operation =
            Operation::Transact { stamp: None, transaction: Transaction { preconditions, writes } };
        assert_eq!(self.ask(&operation), Outcome::Committed);
        let writes = vec![Write::Put(second.into(), "1".into())];
        let transaction = Transaction { preconditions: vec![], writes };
        let operation = Operation::Transact { stamp: None, transaction };
        assert_eq!(self.ask(&operation), Outcome::Committed);
    }

    /// A counter of a node's status.
    pub(crate) fn count(&self, node: NodeId, name: &str) -> u64 {
        let status = self.machines[&node].core().status(Time(0));
        let found = status.counters.iter().find(|(counter, _)| *counter == name);
        found.unwrap_or_else(|| panic!("no counter {name}")).1
    }
}

/// A value, long enough to fill what is small.
fn text(value: u64) -> Bytes {
    Bytes::from(format!("{value:06}{}", "v".repeat(40)))
}

fn number(value: &[u8]) -> u64 {
    str::from_utf8(&value[..6]).unwrap().parse().unwrap()
}
