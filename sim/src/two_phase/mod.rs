//! Clusters of two-phase commit: one coordinator and its replicas.

mod auditor;
mod diary;
mod sizes;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use kvorum_node::{Claim, ClusterId, IdentityFile, Node, NodeError, StoredRecord};
use kvorum_replication::two_phase::message::{Message, TxnId};
use kvorum_replication::two_phase::record::{CoordinatorRecord, ParticipantRecord};
use kvorum_replication::two_phase::{Coordinator, Participant, points};
use kvorum_replication::{NodeId, Operation, Outcome, Position, ReplicaChange, Role};
use kvorum_storage::vfs::Vfs;

use self::auditor::{Auditor, Facts};
use self::diary::Note;
use self::sizes::Sizes;
use crate::chance::Chance;
use crate::faults::Fault;
use crate::machine::Asked;
use crate::process::{Audited, Judgement, LogEnd, Process, Protocol, Rows};
use crate::{Planted, Run, Setup};

/// Simulates a cluster: one coordinator, and mostly three replicas.
#[must_use]
pub fn simulate(setup: &Setup) -> Run {
    crate::run(Cluster::new(setup), setup)
}

/// Where each machine keeps its data.
const DIR: &str = "/data";

/// A replica that has lost its disk gets everything from another one.
const STRIKES: &[(u64, Fault)] = &[(4, Fault::DiskLost)];

/// Where a replica may be left out it is also away for longer than that takes.
const STRIKES_OF_VIEWS: &[(u64, Fault)] = &[
    (4, Fault::DiskLost),
    (8, Fault::LongAbsence),
    (4, Fault::LongPause),
    (5, Fault::CutFromCoordinator),
];

/// Where replicas come and go.
const STRIKES_OF_CHANGES: &[(u64, Fault)] = &[
    (4, Fault::DiskLost),
    (8, Fault::LongAbsence),
    (4, Fault::LongPause),
    (5, Fault::CutFromCoordinator),
    (16, Fault::MembersChanged),
];

const CLUSTER: ClusterId = ClusterId(*b"simulated-------");

struct Cluster {
    sizes: Sizes,
    planted: Planted,
    auditor: Auditor,
    /// Who has written down that it belongs to the cluster.
    joined: BTreeSet<NodeId>,
    /// Under which life a replica begins that finds an empty disk.
    lives: BTreeMap<NodeId, u64>,
}

impl Cluster {
    fn new(setup: &Setup) -> Self {
        let sizes = Sizes::new(setup.seed, setup.planted);
        let auditor = Auditor::new(sizes.replicas(), sizes.spares());
        let lives = sizes.spares().map(|spare| (spare, 1)).collect();
        Self { sizes, planted: setup.planted, auditor, joined: BTreeSet::new(), lives }
    }

    /// As a server does before it opens a node: the directory must be this node's, and once it has
    /// joined a cluster it stays in it.
    fn check_identity(
        &mut self,
        node: NodeId,
        vfs: &Arc<dyn Vfs>,
    ) -> Result<IdentityFile, NodeError> {
        let coordinates = node == NodeId::COORDINATOR;
        let role = if coordinates { Role::Coordinator } else { Role::Replica };
        let claim = Claim::two_phase(role, node);
        let file = IdentityFile::open(Arc::clone(vfs), Path::new(DIR), &claim)?;
        if self.joined.contains(&node) {
            let cluster = file.identity().cluster;
            assert_eq!(cluster, Some(CLUSTER), "{node} has forgotten its cluster");
        }
        Ok(file)
    }

    fn set_up<C>(&self, mut node: Node<C>) -> Box<dyn Process<Self>>
    where
        C: Audited<Self> + 'static,
        C::Record: StoredRecord,
    {
        node.set_checkpoint_bytes(self.sizes.checkpoint_bytes);
        node.set_planted(self.planted.node);
        node.watch_records();
        Box::new(node)
    }
}

impl Audited<Cluster> for Coordinator {
    fn facts(&self) -> Facts {
        Facts::Coordinator(self.audit())
    }

    fn note(record: CoordinatorRecord) -> Note {
        record.into()
    }
}

impl Audited<Cluster> for Participant {
    fn facts(&self) -> Facts {
        Facts::Participant(self.audit())
    }

    fn note(record: ParticipantRecord) -> Note {
        record.into()
    }
}

fn names(points: &[points::Point]) -> Vec<&'static str> {
    points.iter().map(|point| point.name).collect()
}

fn owned(points: &[points::Point]) -> Vec<String> {
    points.iter().map(|point| point.name.to_owned()).collect()
}

impl Protocol for Cluster {
    type Message = Message;
    type Note = Note;
    type Facts = Facts;

    fn members(&self) -> Vec<(NodeId, Vec<&'static str>)> {
        let mut of_coordinator = names(points::COORDINATOR);
        let mut of_replica = [names(points::PARTICIPANT), names(points::SNAPSHOT)].concat();
        if self.sizes.has_views() {
            of_coordinator.extend(names(points::COORDINATOR_VIEWS));
            of_replica.extend(names(points::PARTICIPANT_VIEWS));
        }
        let coordinator = (NodeId::COORDINATOR, of_coordinator);
        let replicas = self.sizes.replicas().chain(self.sizes.spares());
        let replicas = replicas.map(|node| (node, of_replica.clone()));
        std::iter::once(coordinator).chain(replicas).collect()
    }

    fn writer(&self) -> Option<NodeId> {
        Some(NodeId::COORDINATOR)
    }

    fn open(
        &mut self,
        node: NodeId,
        vfs: Arc<dyn Vfs>,
        seed: u64,
    ) -> Result<Box<dyn Process<Self>>, NodeError> {
        let dir = Path::new(DIR);
        let identity = self.check_identity(node, &vfs)?;
        let process = if node == NodeId::COORDINATOR {
            let core = Coordinator::new(self.sizes.coordinator(seed));
            let mut armed = owned(points::COORDINATOR);
            armed.extend(owned(points::COORDINATOR_VIEWS));
            self.set_up(Node::open_log(vfs, dir, self.sizes.log_options(), core, armed)?)
        } else {
            // No server gives one yet: its identity file knows no lives under this protocol.
            let life = self.lives.get(&node).copied().unwrap_or_default();
            let core = Participant::new(self.sizes.participant(node, seed, life));
            let mut armed = owned(points::PARTICIPANT);
            armed.extend(owned(points::SNAPSHOT));
            armed.extend(owned(points::PARTICIPANT_VIEWS));
            self.set_up(Node::open_store(vfs, dir, self.sizes.store_options(), core, armed)?)
        };
        // Once there is a log, as servers do.
        identity.adopt_cluster(CLUSTER)?;
        Ok(process)
    }

    fn drift_permille(&self) -> Option<u64> {
        self.sizes.has_views().then_some(self.sizes.drift_permille)
    }

    fn acknowledged(&self) -> u64 {
        self.auditor.acknowledged
    }

    fn reopened(&mut self, node: NodeId, end: LogEnd) -> Judgement {
        self.joined.insert(node);
        self.auditor.reopened(node, end)
    }

    fn noted(&mut self, node: NodeId, notes: Vec<(Position, Note)>, end: LogEnd) -> Judgement {
        self.auditor.noted(node, notes, end)
    }

    fn says(&mut self, from: NodeId, to: NodeId, message: &Message) -> Judgement {
        self.auditor.says(from, to, message)
    }

    fn answers(&mut self, node: NodeId, asked: &Asked, outcome: &Outcome) -> Judgement {
        self.auditor.answers(node, asked, outcome)
    }

    fn looks(&mut self, node: NodeId, facts: &Facts, rows: Rows<'_>) -> Judgement {
        self.auditor.looks(node, facts, rows)
    }

    fn unfit(&self, _facts: &Facts) -> Option<String> {
        // One that is breaks a promise at once: none of its faults excuses that.
        None
    }

    fn unrest(&self, nodes: &[(NodeId, Facts)]) -> Option<String> {
        let newest = self.auditor.order().len() as u64;
        let replicas = self.auditor.replicas();
        if let Some(away) = replicas.iter().find(|replica| !self.auditor.is_member(**replica)) {
            return Some(format!("{away} is not in the view"));
        }
        nodes.iter().find_map(|(node, facts)| match facts {
            Facts::Participant(_) if !replicas.contains(node) => None,
            Facts::Participant(audit) if audit.is_outside => {
                Some(format!("{node} is not let in again"))
            }
            // What it has applied it will hold once the rows are in their place.
            Facts::Participant(audit) if audit.is_installing => {
                Some(format!("{node} is installing the rows of another"))
            }
            Facts::Participant(audit) if audit.applied.0 != newest => {
                let applied = audit.applied;
                Some(format!("{node} has applied {applied}, and the newest commit is #{newest}"))
            }
            Facts::Participant(_) | Facts::Coordinator(_) => None,
        })
    }

    fn own_strikes(&self) -> &'static [(u64, Fault)] {
        match (self.sizes.has_views(), self.sizes.spares().next()) {
            (false, _) => STRIKES,
            (true, None) => STRIKES_OF_VIEWS,
            (true, Some(_)) => STRIKES_OF_CHANGES,
        }
    }

    /// Not the one that decides, and only if all others have what it had: who was let in again since
    /// it lost its own disk has. What one of them has promised may be all that says that a parallel
    /// transaction is committed: these replicas keep their disks, as long as they count. Of who is
    /// left out nobody needs anything, if those that count have all.
    fn may_lose_disk(&self, node: NodeId) -> bool {
        if self.sizes.has_views() {
            return node != NodeId::COORDINATOR
                && (!self.auditor.is_member(node) || !self.sizes.may_be_parallel())
                && self.auditor.can_do_without(node);
        }
        let mut others = self.sizes.replicas().filter(|other| *other != node);
        let is_whole = |other: NodeId| match self.lives.get(&other) {
            Some(life) => self.auditor.is_let_in(other, *life),
            None => true,
        };
        node != NodeId::COORDINATOR
            && self.sizes.replicas > 1
            && !self.sizes.may_be_parallel()
            && others.all(is_whole)
    }

    fn lost_disk(&mut self, node: NodeId) {
        *self.lives.entry(node).or_default() += 1;
        self.joined.remove(&node);
        self.auditor.lost_disk(node);
    }

    /// One more if there is a spare one, and else one less; sometimes what can't be.
    fn other_members(&self, number: u64) -> Option<Operation> {
        let mut chance = Chance::new(number, "members");
        let all: Vec<NodeId> = self.sizes.replicas().chain(self.sizes.spares()).collect();
        let replicas = self.auditor.replicas();
        let spare = self.sizes.spares().find(|spare| !self.auditor.was_replica(*spare));
        let change = match spare.filter(|_| chance.one_in(2)) {
            Some(spare) => ReplicaChange::Add(spare),
            None if chance.one_in(8) => ReplicaChange::Add(*chance.pick(&all)),
            None if chance.one_in(8) => ReplicaChange::Remove(*chance.pick(&all)),
            None => ReplicaChange::Remove(*chance.pick(&replicas)),
        };
        Some(Operation::ChangeReplicas(change))
    }

    fn is_replica(&self, node: NodeId) -> bool {
        self.auditor.replicas().contains(&node)
    }

    fn happened(&self) -> Vec<(&'static str, u64)> {
        let views = &self.auditor.of_views;
        vec![
            ("commits learnt from another replica", self.auditor.learned),
            ("snapshots installed", self.auditor.snapshots_installed),
            ("replicas let in again that had lost their disks", self.auditor.let_in),
            ("views", views.changes),
            ("replicas left out by a view", views.excluded),
            ("replicas that found themselves left out", views.left_out),
            ("replicas back in a view", views.rejoined),
            ("replicas back in a view with the rows of another", views.rejoined_by_rows),
            ("replicas left out that lost their disks", views.disks_lost_outside),
            ("replicas added", views.added),
            ("replicas removed", views.removed),
            ("leases granted", views.leases),
            ("questions to others for want of a lease", views.asks),
        ]
    }

    fn counted(&self) -> Vec<(&'static str, u64)> {
        let commits = self.auditor.order();
        let sum = |of: &BTreeMap<TxnId, u64>| commits.iter().filter_map(|txn| of.get(txn)).sum();
        let (count, replicas) = (commits.len() as u64, u64::from(self.sizes.replicas));
        vec![
            ("commits of all replicas", count),
            // So rare that it can't be asked for in each set of runs.
            ("replicas left out with numbers that others have now", self.auditor.of_views.astray),
            ("commits' messages", sum(&self.auditor.messages)),
            // Mohan, Lindsay and Obermarck 1986: prepare, vote, decision, acknowledgement.
            ("commits' messages by the book", 4 * replicas * count),
            ("commits' records", sum(&self.auditor.records)),
            // Decision and end; promise and decision of each replica.
            ("commits' records by the book", (2 + 2 * replicas) * count),
        ]
    }

    fn describe(&self, message: &Message) -> String {
        words::message(message)
    }

    fn describe_note(&self, note: &Note) -> String {
        words::note(note)
    }

    fn may_expire_sessions(&self) -> bool {
        self.sizes.may_expire_sessions()
    }

    fn is_written_point(&self, point: &str) -> bool {
        points::is_behind_write(point)
    }
}
