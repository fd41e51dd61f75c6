//! What a coordinator and its replicas bring along to be tested: their options, and how many commits
//! are durable.

use std::collections::BTreeMap;
use std::sync::Arc;

use kvorum_replication::two_phase::message::{Message, TxnId};
use kvorum_replication::two_phase::record::{CoordinatorRecord, ParticipantRecord};
use kvorum_replication::two_phase::{
    Coordinator, CoordinatorOptions, Participant, ParticipantOptions, points,
};
use kvorum_replication::{NodeId, Transaction};

use crate::harness::Room;
use crate::harness::cluster;
use crate::harness::machine::{Disk, Machine};
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
    /// Durable commits in the log that makes them, and how far it was searched for them.
    commits: usize,
    searched: usize,
}

impl Cluster {
    pub(crate) fn new(
        coordinator_options: CoordinatorOptions,
        participant_options: ParticipantOptions,
        tracing: bool,
    ) -> Self {
        let replicas = coordinator_options.replicas.clone();
        let nodes = std::iter::once(COORDINATOR).chain(replicas);
        let room = TwoPhase {
            coordinator_options,
            participant_options,
            links_die: false,
            lives: BTreeMap::new(),
            commits: 0,
            searched: 0,
        };
        Self::of(room, nodes, tracing)
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
        point == points::COORDINATOR_DECISION_WRITTEN
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
        _machine: Option<&Machine<Self>>,
        _logged: &[Record],
        sent: &[Packet],
    ) -> Vec<(TxnId, Arc<Transaction>)> {
        match sent.first() {
            Some(Packet { message: Message::Prepare(prepare), .. }) => {
                vec![(prepare.txn, prepare.transaction.clone())]
            }
            _ => Vec::new(),
        }
    }

    fn synced(&mut self, node: NodeId, disk: &Disk<Self>) {
        if node != self.decider() {
            return;
        }
        let is_commit = |record: &&Record| {
            matches!(
                record,
                Of::Coordinator(CoordinatorRecord::Committed { .. })
                    | Of::Participant(ParticipantRecord::CommittedAlone { .. })
            )
        };
        self.commits += disk.log[self.searched..disk.durable].iter().filter(is_commit).count();
        self.searched = disk.durable;
    }

    fn wiped(&mut self, node: NodeId, life: u64) {
        assert_ne!(node, COORDINATOR, "nobody else knows what it has decided");
        self.lives.insert(node, life);
    }

    fn order_len(&self) -> usize {
        self.commits
    }
}
