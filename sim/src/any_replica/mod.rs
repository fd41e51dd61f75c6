//! Clusters of two-phase commit without a coordinator process: any replica takes any request.

mod auditor;
mod copies;
mod diary;
mod looks;
mod sizes;
mod truth;
mod words;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use kvorum_node::{Claim, ClusterId, IdentityFile, Node, NodeError};
use kvorum_replication::two_phase::any_replica::audit::ReplicaAudit;
use kvorum_replication::two_phase::any_replica::message::Message;
use kvorum_replication::two_phase::any_replica::record::Record;
use kvorum_replication::two_phase::any_replica::{Replica, points};
use kvorum_replication::{NodeId, Outcome, Position};
use kvorum_storage::vfs::Vfs;

use self::auditor::Auditor;
use self::sizes::Sizes;
use crate::machine::Asked;
use crate::process::{Audited, Judgement, LogEnd, Process, Protocol, Rows};
use crate::{Planted, Run, Setup};

/// Simulates a cluster: mostly three replicas, of which any may be asked.
#[must_use]
pub fn simulate(setup: &Setup) -> Run {
    crate::run(Cluster::new(setup), setup)
}

/// Where each machine keeps its data.
const DIR: &str = "/data";

const CLUSTER: ClusterId = ClusterId(*b"simulated-------");

struct Cluster {
    sizes: Sizes,
    planted: Planted,
    auditor: Auditor,
    /// Who has written down that it belongs to the cluster.
    joined: BTreeSet<NodeId>,
}

impl Cluster {
    fn new(setup: &Setup) -> Self {
        let sizes = Sizes::new(setup.seed, setup.planted);
        let (planted, auditor) = (setup.planted, Auditor::new(&sizes));
        Self { sizes, planted, auditor, joined: BTreeSet::new() }
    }

    /// As a server does before it opens a node: the directory must be this node's, and once it has
    /// joined a cluster it stays in it.
    fn check_identity(
        &mut self,
        node: NodeId,
        vfs: &Arc<dyn Vfs>,
    ) -> Result<IdentityFile, NodeError> {
        let claim = Claim::any_replica(node);
        let file = IdentityFile::open(Arc::clone(vfs), Path::new(DIR), &claim)?;
        if self.joined.contains(&node) {
            let cluster = file.identity().cluster;
            assert_eq!(cluster, Some(CLUSTER), "{node} has forgotten its cluster");
        }
        Ok(file)
    }
}

/// Whoever coordinates a transaction also holds a copy, so each replica passes all points.
fn all_points() -> impl Iterator<Item = &'static str> {
    points::all().map(|point| point.name)
}

impl Audited<Cluster> for Replica {
    fn facts(&self) -> ReplicaAudit {
        self.audit()
    }

    fn note(record: Record) -> Record {
        record
    }
}

impl Protocol for Cluster {
    type Message = Message;
    type Note = Record;
    type Facts = ReplicaAudit;

    fn members(&self) -> Vec<(NodeId, Vec<&'static str>)> {
        self.sizes.nodes().map(|node| (node, all_points().collect())).collect()
    }

    fn writer(&self) -> Option<NodeId> {
        None
    }

    fn anyone_writes(&self) -> bool {
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
        let core = Replica::new(self.sizes.replica(node, seed));
        let armed = all_points().map(str::to_owned).collect();
        let mut process = Node::open_store(vfs, dir, self.sizes.store_options(), core, armed)?;
        process.set_checkpoint_bytes(self.sizes.checkpoint_bytes);
        process.set_planted(self.planted.node);
        process.watch_records();
        // Once there is a log, as servers do.
        identity.adopt_cluster(CLUSTER)?;
        self.joined.insert(node);
        Ok(Box::new(process))
    }

    fn reopened(&mut self, node: NodeId, end: LogEnd) -> Judgement {
        self.auditor.reopened(node, end)
    }

    fn noted(&mut self, node: NodeId, notes: Vec<(Position, Record)>, end: LogEnd) -> Judgement {
        self.auditor.noted(node, notes, end)
    }

    fn says(&mut self, from: NodeId, to: NodeId, message: &Message) -> Judgement {
        self.auditor.says(from, to, message)
    }

    fn answers(&mut self, node: NodeId, asked: &Asked, outcome: &Outcome) -> Judgement {
        self.auditor.answers(node, &asked.operation, outcome)
    }

    fn looks(&mut self, node: NodeId, facts: &ReplicaAudit, rows: Rows<'_>) -> Judgement {
        self.auditor.looks(node, facts, rows)
    }

    fn unfit(&self, _facts: &ReplicaAudit) -> Option<String> {
        // One that is breaks a promise at once: none of its faults excuses that.
        None
    }

    fn unrest(&self, nodes: &[(NodeId, ReplicaAudit)]) -> Option<String> {
        let waits = nodes.iter().find(|(_, facts)| !facts.lock_waiters.is_empty());
        waits.map(|(node, _)| format!("somebody waits for a lock at {node}"))
    }

    fn counted(&self) -> Vec<(&'static str, u64)> {
        let (count, messages, records) = self.auditor.costs();
        let others = self.sizes.nodes().count() as u64 - 1;
        // Who has nobody to tell has no end to write down.
        let own_records = if others == 0 { 2 } else { 3 };
        vec![
            ("commits of all replicas", count),
            ("commits' messages", messages),
            // Prepare, vote, decision, acknowledgement: Mohan, Lindsay and Obermarck 1986.
            ("commits' messages by the book", 4 * others * count),
            ("commits' records", records),
            // Decision, its being carried out, and end; promise and decision of each other.
            ("commits' records by the book", (own_records + 2 * others) * count),
            ("records that had to be forced", self.auditor.forced()),
        ]
    }

    fn happened(&self) -> Vec<(&'static str, u64)> {
        self.auditor.happened()
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

    fn is_written_point(&self, point: &str) -> bool {
        point == points::COORDINATOR_DECISION_WRITTEN
    }
}
