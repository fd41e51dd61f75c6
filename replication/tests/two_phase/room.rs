//! What a coordinator and its replicas bring along to be tested: their options, and the order
//! in which commits were decided.

use std::collections::BTreeMap;
use std::sync::Arc;

use kvorum_replication::two_phase::message::{Decision, Message, TxnId};
use kvorum_replication::two_phase::record::{CoordinatorRecord, ParticipantRecord};
use kvorum_replication::two_phase::{
    CommitMode, Coordinator, CoordinatorOptions, Participant, ParticipantOptions, points,
};
use kvorum_replication::{NodeId, RequestId, Transaction};

use crate::harness::Room;
use crate::harness::cluster;
use crate::harness::machine::{Disk, Machine, Output};
use crate::node::{Node, Of, Record};
use crate::show;

pub(crate) const COORDINATOR: NodeId = NodeId::COORDINATOR;

pub(crate) type Cluster = cluster::Cluster<TwoPhase>;
pub(crate) type Packet = cluster::Packet<TwoPhase>;
/// The coordinator gives a request's write a name.
pub(crate) type Event = cluster::Event<(TxnId, Arc<Transaction>)>;

pub(crate) struct TwoPhase {
    pub(crate) coordinator_options: CoordinatorOptions,
    participant_options: ParticipantOptions,
    /// Whether messages to a node that died are lost with its links, as over TCP.
    pub(crate) links_die: bool,
    /// Which life a replica with an empty disk is given.
    pub(crate) lives: BTreeMap<NodeId, u64>,
    /// Commits in the order in which they were decided. A parallel one is as soon as the coordinator
    /// writes of it, even if the record is lost; of any other the record has to be durable.
    pub(crate) order: Vec<TxnId>,
    /// What each transaction is.
    pub(crate) begun: BTreeMap<TxnId, Arc<Transaction>>,
    /// The first transaction that was begun for each request.
    pub(crate) asked: BTreeMap<RequestId, TxnId>,
    /// How each epoch commits.
    modes: BTreeMap<u64, CommitMode>,
    /// How far the log was searched for what is written, and for what is durable.
    written: usize,
    durable: usize,
}

impl Cluster {
    /// With so many nodes that are no replicas yet. They begin in their first life.
    pub(crate) fn new(
        coordinator_options: CoordinatorOptions,
        participant_options: ParticipantOptions,
        spares: u32,
        tracing: bool,
    ) -> Self {
        let replicas = coordinator_options.replicas.clone();
        let highest = replicas.iter().max().map_or(0, |replica| replica.0);
        let spares = (highest + 1..=highest + spares).map(NodeId);
        let lives = spares.clone().map(|spare| (spare, 1)).collect();
        let nodes = std::iter::once(COORDINATOR).chain(replicas).chain(spares);
        let room = TwoPhase {
            coordinator_options,
            participant_options,
            links_die: false,
            lives,
            order: Vec::new(),
            begun: BTreeMap::new(),
            asked: BTreeMap::new(),
            modes: BTreeMap::new(),
            written: 0,
            durable: 0,
        };
        Self::of(room, nodes, tracing)
    }

    /// The replicas, as the coordinator's log says.
    pub(crate) fn replicas(&self) -> Vec<NodeId> {
        let named = |record: &Record| match record {
            Of::Coordinator(CoordinatorRecord::View(view)) => Some(view.replicas.clone()),
            Of::Coordinator(_) | Of::Participant(_) => None,
        };
        let log = self.log(COORDINATOR);
        log.iter().rev().find_map(named).unwrap_or(self.coordinator_options.replicas.clone())
    }
}

impl TwoPhase {
    /// Whose log says what is committed: with one replica, its own.
    pub(crate) fn decider(&self) -> NodeId {
        match self.coordinator_options.replicas[..] {
            [only] => only,
            _ => COORDINATOR,
        }
    }
}

impl TwoPhase {
    fn decided(&mut self, txn: TxnId) {
        if !self.order.contains(&txn) {
            self.order.push(txn);
        }
    }
}

impl Room for TwoPhase {
    type Core = Node;
    type Name = (TxnId, Arc<Transaction>);

    const RECORDS_FIRST: bool = false;
    const APPLIES_BEHIND_RECORDS: bool = true;
    const COPIES_STORES: bool = true;

    fn core(&self, node: NodeId, _records: usize, armed: &[String]) -> Node {
        if node == COORDINATOR {
            return Node::coordinator(Coordinator::new(self.coordinator_options.clone()), armed);
        }
        let life = self.lives.get(&node).copied().unwrap_or_default();
        let options = ParticipantOptions { id: node, life, ..self.participant_options.clone() };
        Node::participant(Participant::new(options), armed)
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

    fn durable_with(mark: u64, _records: usize) -> usize {
        mark as usize
    }

    fn is_behind_write(point: &str) -> bool {
        points::is_behind_write(point)
    }

    /// A killed process loses nothing that it had written, and it has written everything that it had
    /// appended only when it says so.
    fn kept_at(point: &str) -> usize {
        if Self::is_behind_write(point) { usize::MAX } else { 0 }
    }

    fn links_die(&self) -> bool {
        self.links_die
    }

    fn begun(
        machine: Option<&Machine<Self>>,
        _logged: &[Record],
        sent: &[Packet],
    ) -> Vec<(TxnId, Arc<Transaction>)> {
        let mut begun = machine.map_or(Vec::new(), |machine| machine.core.gathered());
        if let Some(Packet { message: Message::Prepare(prepare), .. }) = sent.first() {
            begun.push((prepare.txn, prepare.transaction.clone()));
        }
        begun
    }

    fn synced(&mut self, node: NodeId, disk: &Disk<Self>) {
        if node != self.decider() {
            return;
        }
        self.written = self.written.min(disk.log.len());
        self.durable = self.durable.min(disk.durable);
        let written = std::mem::replace(&mut self.written, disk.log.len());
        for record in &disk.log[written..] {
            match record {
                Of::Coordinator(CoordinatorRecord::Started { epoch, commit }) => {
                    self.modes.insert(*epoch, *commit);
                }
                Of::Coordinator(CoordinatorRecord::Committed { txn, .. })
                    if self.modes.get(&txn.epoch) == Some(&CommitMode::Parallel) =>
                {
                    self.decided(*txn);
                }
                Of::Coordinator(_) | Of::Participant(_) => {}
            }
        }
        let durable = std::mem::replace(&mut self.durable, disk.durable);
        for record in &disk.log[durable..disk.durable] {
            if let Of::Coordinator(CoordinatorRecord::Committed { txn, .. })
            | Of::Participant(ParticipantRecord::CommittedAlone { txn, .. }) = record
            {
                self.decided(*txn);
            }
        }
    }

    /// A write that has waited gets its name late. Who dies on the way from telling of a commit to writing of it has decided it.
    fn stepped(&mut self, node: NodeId, machine: &Machine<Self>, outputs: &[Output<Self>]) {
        for (request, txn) in machine.core.waiting() {
            self.asked.entry(request).or_insert(txn);
        }
        for output in outputs {
            if let Output::Send(_, Message::Prepare(prepare)) = output {
                self.begun.insert(prepare.txn, prepare.transaction.clone());
            }
            if let Output::Send(_, Message::Decide { txn, decision: Decision::Commit(_), .. }) =
                output
                && node == COORDINATOR
            {
                self.decided(*txn);
            }
        }
    }

    fn wiped(&mut self, node: NodeId, life: u64) {
        // Only replicas have lives: nobody else knows what the coordinator has decided.
        if node != COORDINATOR {
            self.lives.insert(node, life);
        }
    }

    fn order_len(&self) -> usize {
        self.order.len()
    }
}
