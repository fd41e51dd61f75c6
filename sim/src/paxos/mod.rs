//! Clusters of Multi-Paxos: any replica may lead, lose what it knew, and be let in again.

mod auditor;
mod diary;
mod leases;
mod order;
mod sizes;
mod talk;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use kvorum_node::{Claim, ClusterId, IdentityFile, Node, NodeError};
use kvorum_replication::paxos::message::Message;
use kvorum_replication::paxos::record::Record;
use kvorum_replication::paxos::{Replica, points};
use kvorum_replication::{NodeId, Operation, Outcome, Position, Time};
use kvorum_storage::vfs::Vfs;

use self::auditor::{Auditor, Facts};
use self::sizes::Sizes;
use crate::chance::Chance;
use crate::faults::Fault;
use crate::machine::Asked;
use crate::process::{Audited, Judgement, LogEnd, Process, Protocol, Rows};
use crate::violation::Promise;
use crate::{Run, Setup};

/// Simulates a cluster: three to five replicas, of which any may be asked.
#[must_use]
pub fn simulate(setup: &Setup) -> Run {
    crate::run(Cluster::new(setup), setup)
}

/// Where each machine keeps its data.
const DIR: &str = "/data";

const CLUSTER: ClusterId = ClusterId(*b"simulated-------");

/// Between the lives of a node that loses its disk: an acceptor that forgets takes the next one.
const LIVES: u64 = 1_000_000;

/// The faults of this protocol alone that strike at a time of their own, and slow links: over those
/// answers come when somebody else has been asked.
const STRIKES: &[(u64, Fault)] = &[
    (4, Fault::LeaderKilled),
    (6, Fault::LeaderIsolated),
    (6, Fault::LeaderHalfIsolated),
    (4, Fault::LongAbsence),
    (4, Fault::SlowLink),
    (4, Fault::DiedOverSnapshot),
    (3, Fault::DiskLost),
    (4, Fault::MembersChanged),
];

const SNAPSHOT_POINTS: &[&str] = &[
    points::LEARNER_SNAPSHOT_STAGED,
    points::LEARNER_SNAPSHOT_DURABLE,
    points::LEARNER_SNAPSHOT_INSTALLED,
];

/// What a status shows beside counts.
const GAUGES: &[&str] = &[
    "ballot",
    "leader",
    "promised",
    "queued",
    "reads_waiting",
    "sessions",
    "slots_applied",
    "slots_chosen",
    "slots_retained",
    "votes_count",
];

struct Cluster {
    sizes: Sizes,
    setup: Setup,
    auditor: Auditor,
    /// Who has written down that it belongs to the cluster.
    joined: BTreeSet<NodeId>,
    /// Under which life a node begins that finds an empty disk.
    lives: BTreeMap<NodeId, u64>,
    disks_lost: u64,
    /// Nothing fails by itself any more.
    is_healed: bool,
    /// Nodes that have started since.
    calm: BTreeSet<NodeId>,
}

impl Cluster {
    fn new(setup: &Setup) -> Self {
        let sizes = Sizes::new(setup.seed, setup.planted, setup.acceptor_restart);
        Self {
            auditor: Auditor::new(&sizes),
            sizes,
            setup: setup.clone(),
            joined: BTreeSet::new(),
            lives: BTreeMap::new(),
            disks_lost: 0,
            is_healed: false,
            calm: BTreeSet::new(),
        }
    }

    /// As a server does before it opens a node: the directory must be this node's, and once it has
    /// joined a cluster it stays in it.
    fn check_identity(
        &mut self,
        node: NodeId,
        vfs: &Arc<dyn Vfs>,
    ) -> Result<IdentityFile, NodeError> {
        let life = self.lives.get(&node).copied().unwrap_or_default();
        let claim = Claim { life, ..Claim::paxos(node, self.sizes.window) };
        let file = IdentityFile::open(Arc::clone(vfs), Path::new(DIR), &claim)?;
        if self.joined.contains(&node) {
            let cluster = file.identity().cluster;
            assert_eq!(cluster, Some(CLUSTER), "{node} has forgotten its cluster");
        }
        Ok(file)
    }
}

impl Audited<Cluster> for Replica {
    fn facts(&self) -> Facts {
        Facts { audit: self.audit(), unfit: self.unfit().cloned() }
    }

    fn note(record: Record) -> Record {
        record
    }
}

impl Protocol for Cluster {
    type Message = Message;
    type Note = Record;
    type Facts = Facts;

    fn members(&self) -> Vec<(NodeId, Vec<&'static str>)> {
        let points: Vec<&'static str> = points::ALL.iter().map(|point| point.name).collect();
        self.sizes.nodes().map(|node| (node, points.clone())).collect()
    }

    fn writer(&self) -> Option<NodeId> {
        None
    }

    /// Whoever has led with the highest ballot; it may be gone.
    fn leader(&self) -> Option<NodeId> {
        self.auditor.led.last().map(|ballot| ballot.node)
    }

    fn own_strikes(&self) -> &'static [(u64, Fault)] {
        STRIKES
    }

    fn drift_permille(&self) -> Option<u64> {
        self.sizes.has_leases().then_some(u64::from(self.sizes.drift_permille))
    }

    fn reads_stale(&self) -> bool {
        true
    }

    fn open(
        &mut self,
        node: NodeId,
        vfs: Arc<dyn Vfs>,
        seed: u64,
    ) -> Result<Box<dyn Process<Self>>, NodeError> {
        let dir = Path::new(DIR);
        let identity = self.check_identity(node, &vfs)?;
        let life = identity.identity().life;
        let core = Replica::new(self.sizes.replica(node, seed, life, self.is_healed));
        let armed = points::ALL.iter().map(|point| point.name.to_owned()).collect();
        let mut process = Node::open_store(vfs, dir, self.sizes.store_options(), core, armed)?;
        process.set_checkpoint_bytes(self.sizes.checkpoint_bytes);
        process.set_planted(self.setup.planted.node);
        process.watch_records();
        // Once there is a log, as servers do.
        identity.adopt_cluster(CLUSTER)?;
        Ok(Box::new(process))
    }

    fn at(&mut self, node: NodeId, time: Time) {
        self.auditor.leases.at(node, time);
    }

    fn acknowledged(&self) -> u64 {
        self.auditor.acknowledged.0
    }

    fn reopened(&mut self, node: NodeId, end: LogEnd) -> Judgement {
        self.joined.insert(node);
        if self.is_healed {
            self.calm.insert(node);
        }
        self.auditor.reopened(node, end)
    }

    fn noted(&mut self, node: NodeId, notes: Vec<(Position, Record)>, end: LogEnd) -> Judgement {
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

    fn unfit(&self, facts: &Facts) -> Option<String> {
        facts.unfit.clone()
    }

    fn unrest(&self, nodes: &[(NodeId, Facts)]) -> Option<String> {
        if !nodes.iter().any(|(_, facts)| facts.audit.leads_with.is_some()) {
            return Some("nobody leads".to_owned());
        }
        let last = self.auditor.order.last();
        let behind = nodes.iter().find(|(_, facts)| facts.audit.applied != last);
        if let Some((node, facts)) = behind {
            return Some(format!(
                "{node} has applied {}, and chosen is {last}",
                facts.audit.applied
            ));
        }
        let members = self.auditor.order.newest_members();
        // Who forgets again and again may be outside most of the time.
        let outside = members.iter().filter(|member| self.calm.contains(&member.node));
        let outside = outside.into_iter().find(|member| {
            let diary = self.auditor.diaries.get(&member.node);
            diary.is_some_and(|diary| diary.appended.life != member.life)
        });
        outside.map(|member| format!("{} is not let in again", member.node))
    }

    fn heal(&mut self) {
        self.is_healed = true;
    }

    fn may_lose_disk(&self, node: NodeId) -> bool {
        !self.auditor.amnesia && self.sizes.forgetful.contains(&node)
    }

    fn lost_disk(&mut self, node: NodeId) {
        self.disks_lost += 1;
        let life = self.disks_lost * LIVES;
        self.lives.insert(node, life);
        self.joined.remove(&node);
        self.auditor.lost_disk(node, life);
    }

    fn other_members(&self, number: u64) -> Option<Operation> {
        let mut chance = Chance::new(number, "members");
        let mut members: Vec<NodeId> = self.sizes.nodes().collect();
        while members.len() > self.sizes.members_min && !chance.one_in(3) {
            let index = chance.index(members.len());
            members.remove(index);
        }
        Some(Operation::ChangeMembers { members })
    }

    fn snapshot_points(&self) -> &'static [&'static str] {
        SNAPSHOT_POINTS
    }

    fn fault_counted(&self, counter: &str) -> Option<Fault> {
        match counter {
            "roles_failed" => Some(Fault::RoleStopped),
            "acceptors_forgot" => Some(Fault::AcceptorForgot),
            _ => None,
        }
    }

    fn is_gauge(&self, counter: &str) -> bool {
        GAUGES.contains(&counter)
    }

    /// Acceptors that forget may leave a cluster that goes on no more; what is looked for is worse.
    fn forgives(&self, promise: Promise) -> bool {
        self.auditor.amnesia && promise == Promise::ComesToRest
    }

    fn counted(&self) -> Vec<(&'static str, u64)> {
        vec![("slots of all replicas", self.auditor.order.last().0)]
    }

    fn happened(&self) -> Vec<(&'static str, u64)> {
        let (forgot, lost) = self.auditor.let_in();
        vec![
            ("leader changes", (self.auditor.led.len() as u64).saturating_sub(1)),
            ("changes of the members", self.auditor.order.changes().count() as u64),
            ("snapshots installed", self.auditor.snapshots_installed),
            ("forgetful acceptors let in again", forgot),
            ("nodes let in again that had lost their disks", lost),
        ]
    }

    fn describe(&self, message: &Message) -> String {
        words::message(message)
    }

    fn describe_note(&self, note: &Record) -> String {
        words::record(note)
    }

    fn may_expire_sessions(&self) -> bool {
        self.sizes.may_expire_sessions()
    }

    fn is_written_point(&self, _point: &str) -> bool {
        false
    }
}
