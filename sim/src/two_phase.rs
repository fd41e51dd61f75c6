//! Clusters of two-phase commit: one coordinator and its replicas.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kvorum_node::{ClusterId, IdentityFile, Node, NodeError};
use kvorum_replication::two_phase::message::{CommitNumber, Decision, Knowledge, Message, TxnId};
use kvorum_replication::two_phase::{
    Coordinator, CoordinatorOptions, Participant, ParticipantOptions, points,
};
use kvorum_replication::{NodeId, Precondition, Role, Transaction, Write};
use kvorum_storage::vfs::Vfs;
use kvorum_storage::{LogOptions, Options};

use crate::Run;
use crate::chance::Chance;
use crate::process::{Process, Protocol};

/// Simulates a cluster from this seed: one coordinator, and mostly three replicas. With `traced`,
/// the answer says line by line what happened.
#[must_use]
pub fn simulate(seed: u64, traced: bool) -> Run {
    crate::run(Cluster::new(seed), seed, traced)
}

/// Where each machine keeps its data.
const DIR: &str = "/data";

const CLUSTER: ClusterId = ClusterId(*b"simulated-------");

/// More than clients, so that those who are busy keep theirs, and few enough that sessions of
/// which nobody heard push others out.
const FEW_SESSIONS: usize = 8;

struct Cluster {
    sizes: Sizes,
    /// What each transaction was said to have come to, by anybody.
    decisions: BTreeMap<TxnId, Decision>,
    /// Which transaction has each place in the serial order.
    places: BTreeMap<CommitNumber, TxnId>,
    /// Who has said of a commit that it is durable there.
    acknowledged: BTreeSet<(TxnId, NodeId)>,
    /// Who has written down that it belongs to the cluster.
    joined: BTreeSet<NodeId>,
}

/// How large the cluster is and how small everything else: a run is to see many log files, flushes,
/// compactions and checkpoints, and limits that are met.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    /// One decides alone, in one phase.
    replicas: u32,
    log_file_bytes: u64,
    memtable_bytes: usize,
    log_bytes_max: u64,
    checkpoint_bytes: u64,
    sessions_max: usize,
    in_flight_max: usize,
    prepared_max: usize,
    /// Milliseconds.
    vote_timeout: u64,
    resend_interval: u64,
    inquire_after: u64,
    inquiries_before_peers: u32,
}

impl Cluster {
    fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed, "sizes");
        let sizes = Sizes {
            replicas: chance.weighted(&[(6, 3), (1, 1), (1, 2), (1, 5)]),
            log_file_bytes: *chance.pick(&[2 << 10, 16 << 10, 256 << 10]),
            memtable_bytes: *chance.pick(&[1 << 10, 8 << 10, 1 << 20]),
            log_bytes_max: *chance.pick(&[8 << 10, 64 << 10, 1 << 20]),
            checkpoint_bytes: *chance.pick(&[256, 2 << 10, 16 << 10, 64 << 20]),
            sessions_max: *chance.pick(&[FEW_SESSIONS, 65_536]),
            in_flight_max: chance.weighted(&[(1, 2), (3, 16_384)]),
            prepared_max: chance.weighted(&[(1, 3), (3, 16_384)]),
            vote_timeout: *chance.pick(&[100, 500, 2_000]),
            resend_interval: *chance.pick(&[50, 500]),
            inquire_after: *chance.pick(&[5, 50, 1_000]),
            inquiries_before_peers: *chance.pick(&[0, 2]),
        };
        Self {
            sizes,
            decisions: BTreeMap::new(),
            places: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            joined: BTreeSet::new(),
        }
    }

    fn replicas(&self) -> impl Iterator<Item = NodeId> {
        (1..=self.sizes.replicas).map(NodeId)
    }

    fn log_options(&self) -> LogOptions {
        LogOptions { file_bytes: self.sizes.log_file_bytes, ..LogOptions::default() }
    }

    fn store_options(&self) -> Options {
        Options {
            memtable_bytes: self.sizes.memtable_bytes,
            block_bytes: 256,
            segment_bytes: 2 << 10,
            level1_bytes: 4 << 10,
            level_step: 4,
            log_bytes_max: self.sizes.log_bytes_max,
            log: self.log_options(),
            ..Options::default()
        }
    }

    fn coordinator(&self, seed: u64) -> Coordinator {
        Coordinator::new(CoordinatorOptions {
            replicas: self.replicas().collect(),
            seed,
            sessions_max: self.sizes.sessions_max,
            in_flight_max: self.sizes.in_flight_max,
            vote_timeout: Duration::from_millis(self.sizes.vote_timeout),
            resend_interval: Duration::from_millis(self.sizes.resend_interval),
            ..CoordinatorOptions::default()
        })
    }

    fn participant(&self, id: NodeId, seed: u64) -> Participant {
        Participant::new(ParticipantOptions {
            id,
            seed,
            sessions_max: self.sizes.sessions_max,
            prepared_max: self.sizes.prepared_max,
            inquire_after: Duration::from_millis(self.sizes.inquire_after),
            inquiries_before_peers: self.sizes.inquiries_before_peers,
            ..ParticipantOptions::default()
        })
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
        let file = IdentityFile::open(Arc::clone(vfs), Path::new(DIR), role, node)?;
        if self.joined.contains(&node) {
            let cluster = file.identity().cluster;
            assert_eq!(cluster, Some(CLUSTER), "{node} has forgotten its cluster");
        }
        Ok(file)
    }

    /// Nobody may say of a transaction what contradicts what anybody said before. One exception:
    /// who has acknowledged a commit cannot be hurt by hearing that it was aborted, which is what
    /// is presumed of all that is over, and is the answer to a message from long ago.
    fn decided(
        &mut self,
        who: NodeId,
        whom: NodeId,
        txn: TxnId,
        decision: Decision,
    ) -> Result<(), String> {
        if decision == Decision::Abort && self.acknowledged.contains(&(txn, whom)) {
            return Ok(());
        }
        let known = *self.decisions.entry(txn).or_insert(decision);
        if known != decision {
            return Err(format!(
                "{who} tells {whom} that {txn} is {decision:?}, and it was {known:?}"
            ));
        }
        if let Decision::Commit(place) = decision {
            let holder = *self.places.entry(place).or_insert(txn);
            if holder != txn {
                return Err(format!("{who} gives {txn} the place {place} of {holder}"));
            }
        }
        Ok(())
    }
}

fn shown(transaction: &Transaction) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut shown = String::new();
    for precondition in &transaction.preconditions {
        shown += &match precondition {
            Precondition::Absent(key) => format!(" if {} absent", text(key)),
            Precondition::Present(key) => format!(" if {} present", text(key)),
            Precondition::Equals(key, value) => format!(" if {} is {}", text(key), text(value)),
        };
    }
    for write in &transaction.writes {
        shown += &match write {
            Write::Put(key, value) => format!(" put {}={}", text(key), text(value)),
            Write::Delete(key) => format!(" del {}", text(key)),
        };
    }
    shown
}

fn names(points: &[points::Point]) -> Vec<&'static str> {
    points.iter().map(|point| point.name).collect()
}

fn owned(points: &[points::Point]) -> Vec<String> {
    points.iter().map(|point| point.name.to_owned()).collect()
}

impl Protocol for Cluster {
    type Message = Message;

    fn members(&self) -> Vec<(NodeId, Vec<&'static str>)> {
        let coordinator = (NodeId::COORDINATOR, names(points::COORDINATOR));
        let replicas = self.replicas().map(|node| (node, names(points::PARTICIPANT)));
        std::iter::once(coordinator).chain(replicas).collect()
    }

    fn writer(&self) -> NodeId {
        NodeId::COORDINATOR
    }

    fn open(
        &mut self,
        node: NodeId,
        vfs: Arc<dyn Vfs>,
        seed: u64,
    ) -> Result<Box<dyn Process<Message>>, NodeError> {
        let dir = Path::new(DIR);
        let identity = self.check_identity(node, &vfs)?;
        let process: Box<dyn Process<Message>> = if node == NodeId::COORDINATOR {
            let core = self.coordinator(seed);
            let armed = owned(points::COORDINATOR);
            let mut node = Node::open_log(vfs, dir, self.log_options(), core, armed)?;
            node.set_checkpoint_bytes(self.sizes.checkpoint_bytes);
            Box::new(node)
        } else {
            let core = self.participant(node, seed);
            let armed = owned(points::PARTICIPANT);
            let mut node = Node::open_store(vfs, dir, self.store_options(), core, armed)?;
            node.set_checkpoint_bytes(self.sizes.checkpoint_bytes);
            Box::new(node)
        };
        // Once there is a log, as servers do.
        identity.adopt_cluster(CLUSTER)?;
        self.joined.insert(node);
        Ok(process)
    }

    fn observe(&mut self, from: NodeId, to: NodeId, message: &Message) -> Result<(), String> {
        match message {
            Message::Decide { txn, decision, .. } => self.decided(from, to, *txn, *decision),
            Message::Inform { txn, knowledge: Knowledge::Decided(decision) } => {
                self.decided(from, to, *txn, *decision)
            }
            Message::Acknowledge { txn } => match self.decisions.get(txn) {
                Some(Decision::Commit(_)) => {
                    self.acknowledged.insert((*txn, from));
                    Ok(())
                }
                known => {
                    Err(format!("{from} acknowledges the commit of {txn}, and it is {known:?}"))
                }
            },
            Message::Inform { .. }
            | Message::Prepare(_)
            | Message::Vote { .. }
            | Message::Inquire { .. }
            | Message::Read { .. }
            | Message::ReadAnswer { .. } => Ok(()),
        }
    }

    fn describe(&self, message: &Message) -> String {
        match message {
            Message::Prepare(prepare) => format!(
                "prepare {}:{} (finished below {})",
                prepare.txn,
                shown(&prepare.transaction),
                prepare.finished_below
            ),
            Message::Vote { txn, vote } => format!("vote {txn}: {vote:?}"),
            Message::Decide { txn, decision, finished_below } => {
                format!("decide {txn}: {decision:?} (finished below {finished_below})")
            }
            Message::Acknowledge { txn } => format!("acknowledge {txn}"),
            Message::Inquire { txn } => format!("inquire {txn}"),
            Message::Inform { txn, knowledge } => format!("inform {txn}: {knowledge:?}"),
            Message::Read { read, epoch, query } => format!("read {epoch}.{read}: {query:?}"),
            Message::ReadAnswer { read, epoch, answer } => {
                format!("answer {epoch}.{read}: {answer:?}")
            }
        }
    }

    fn may_expire_sessions(&self) -> bool {
        self.sizes.sessions_max == FEW_SESSIONS
    }

    fn is_written_point(&self, point: &str) -> bool {
        point == points::COORDINATOR_DECISION_WRITTEN
    }
}
