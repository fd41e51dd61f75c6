//! The auditor: keeps a book of its own of what everybody said, wrote and held, and looks after
//! every event whether that fits together.
//!
//! It believes no node. What is durable it takes from the log's own word and from what a restart
//! finds; what is committed, from the records; what a replica must hold, from the transactions that
//! the prepares named, in the order of the commits. Of what is committed in parallel the promises are
//! the records: it has happened when all are durable, and its place in the order may change only as
//! long as nobody has it who survives.

mod looks;
mod records;
mod talk;
mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kvorum_replication::NodeId;
use kvorum_replication::two_phase::audit::{CoordinatorAudit, ParticipantAudit};
use kvorum_replication::two_phase::message::{CommitNumber, Decision, Parallel, Prepare, TxnId};

use self::views::OfViews;
use super::diary::{Asked, Diary};
use crate::contents::Contents;
use crate::process::{Judgement, LogEnd, broken};
use crate::violation::Promise;

/// A look at a core.
#[derive(Debug)]
pub(crate) enum Facts {
    Coordinator(CoordinatorAudit),
    Participant(ParticipantAudit),
}

#[derive(Debug)]
pub(super) struct Auditor {
    diaries: BTreeMap<NodeId, Diary>,
    /// What each transaction asks for, and who votes on it.
    prepares: BTreeMap<TxnId, Prepare>,
    /// The same, by whose write it is.
    asked: BTreeMap<Asked, Vec<TxnId>>,
    /// Parallel transactions that nobody has said to be over.
    open: BTreeSet<TxnId>,
    /// What each transaction was said to have come to, by anybody, and by which epoch's coordinator.
    decisions: BTreeMap<TxnId, (Decision, u64)>,
    /// Who has said yes to what, ever.
    voted: BTreeSet<(NodeId, TxnId)>,
    /// The same, as long as it binds.
    bound: BTreeSet<(NodeId, TxnId)>,
    /// Who has said of a commit that it is durable there.
    acknowledged_by: BTreeSet<(TxnId, NodeId)>,
    /// The newest commit that each has acknowledged.
    newest_acknowledged: BTreeMap<NodeId, CommitNumber>,
    /// The coordinator has said that everything below is over.
    over_below: Option<TxnId>,
    /// Which transaction has each place in the serial order; the first has place 1.
    order: Vec<TxnId>,
    /// So many of these places are given for good, as far as the coordinator of this run goes.
    settled: usize,
    /// Parallel commits whose records the coordinator has lost: it has to write them again before it
    /// begins anything.
    owed: BTreeSet<TxnId>,
    /// What a replica holds after each of them; the first entry is the empty beginning.
    contents: Vec<Arc<Contents>>,
    /// What each replica was found to hold last: so many commits, of its own or in the order.
    looked: BTreeMap<NodeId, (CommitNumber, usize)>,
    /// Messages about each transaction that are part of its normal course.
    pub(super) messages: BTreeMap<TxnId, u64>,
    /// Records that each transaction has left in logs.
    pub(super) records: BTreeMap<TxnId, u64>,
    /// What replicas got from each other.
    pub(super) learned: u64,
    pub(super) snapshots_installed: u64,
    pub(super) let_in: u64,
    /// The replicas of the start.
    founders: Vec<NodeId>,
    /// Parallel transactions of which somebody said with right that they are committed.
    told: BTreeSet<TxnId>,
    /// Replicas outside the view that hold what has another number by now.
    astray: BTreeSet<NodeId>,
    /// So many commits were there when the newest that a client was told of was the last.
    pub(super) acknowledged: u64,
    /// What became of the views.
    pub(super) of_views: OfViews,
}

impl Auditor {
    pub(super) fn new(
        founders: impl Iterator<Item = NodeId>,
        spares: impl Iterator<Item = NodeId>,
    ) -> Self {
        let founders: Vec<NodeId> = founders.collect();
        let replicas = founders.iter().copied().chain(spares);
        let nodes = std::iter::once(NodeId::COORDINATOR).chain(replicas);
        let diaries = nodes.map(|node| (node, Diary::default())).collect();
        Self {
            founders,
            told: BTreeSet::new(),
            astray: BTreeSet::new(),
            acknowledged: 0,
            of_views: OfViews::default(),
            diaries,
            prepares: BTreeMap::new(),
            asked: BTreeMap::new(),
            open: BTreeSet::new(),
            decisions: BTreeMap::new(),
            voted: BTreeSet::new(),
            bound: BTreeSet::new(),
            acknowledged_by: BTreeSet::new(),
            newest_acknowledged: BTreeMap::new(),
            over_below: None,
            order: Vec::new(),
            settled: 0,
            owed: BTreeSet::new(),
            contents: vec![Arc::default()],
            looked: BTreeMap::new(),
            messages: BTreeMap::new(),
            records: BTreeMap::new(),
            learned: 0,
            snapshots_installed: 0,
            let_in: 0,
        }
    }

    /// A replica has lost its disk, and is bound by nothing that it knows of.
    pub(super) fn lost_disk(&mut self, node: NodeId) {
        self.of_views.disks_lost_outside += u64::from(!self.is_member(node));
        self.diaries.insert(node, Diary::default());
        self.looked.remove(&node);
        self.newest_acknowledged.remove(&node);
        self.bound.retain(|(bound, _)| *bound != node);
        self.astray.remove(&node);
    }

    /// Whether this life of a replica was let in, durably.
    pub(super) fn is_let_in(&self, node: NodeId, life: u64) -> bool {
        self.has(node, |diary| diary.is_let_in(life))
    }

    /// Transactions with a place in the order.
    pub(super) fn order(&self) -> &[TxnId] {
        &self.order
    }

    fn diary(&mut self, node: NodeId) -> &mut Diary {
        self.diaries.entry(node).or_default()
    }

    fn has(&self, node: NodeId, what: impl FnOnce(&Diary) -> bool) -> bool {
        self.diaries.get(&node).is_some_and(what)
    }

    /// A node has started, and this is what its log holds.
    pub(super) fn reopened(&mut self, node: NodeId, end: LogEnd) -> Judgement {
        let diary = self.diary(node);
        let (durable, last) = (diary.durable(), end.last);
        if last < durable {
            return broken(
                Promise::Remembers,
                format!("the log of {node} ends at {last}, and {durable} was durable"),
            );
        }
        diary.reopened(last);
        if node == NodeId::COORDINATOR {
            let newest = usize::try_from(diary.newest_commit().0).unwrap_or(usize::MAX);
            self.lost_from(newest);
        }
        self.looked.remove(&node);
        Ok(())
    }

    /// The coordinator has lost the records of what came after the first so many commits. What was to
    /// be committed by its record is not; what was by everybody's promise is.
    fn lost_from(&mut self, newest: usize) {
        let is_parallel = |txn: &TxnId| self.parallel(*txn).is_some();
        let kept = self.order.iter().rposition(is_parallel).map_or(0, |last| last + 1);
        self.order.truncate(kept.max(newest));
        self.contents.truncate(self.order.len() + 1);
        self.settled = newest;
        self.owed = self.order.iter().skip(newest).copied().collect();
    }

    /// What a prepare said of the parallel commit that it asks for.
    fn parallel(&self, txn: TxnId) -> Option<Parallel> {
        self.prepares.get(&txn)?.parallel
    }

    /// Whether a parallel transaction is committed: all promises that count are durable, all members
    /// know who counts, and the coordinator has not decided against it before it knew that.
    fn is_promised_by_all(&self, txn: TxnId) -> bool {
        let Some(prepare) = self.prepares.get(&txn) else { return false };
        let has_promised = |node: &NodeId| self.has(*node, |diary| diary.has_prepared(txn));
        prepare.parallel.is_some()
            && self.counted(prepare).all(|node| has_promised(&node))
            && self.is_settled()
            && !self.has(txn.coordinator, |diary| diary.has_aborted(txn))
    }

    /// Whether it can't be but committed, whoever comes to be left out.
    fn is_promised_by_everybody(&self, txn: TxnId) -> bool {
        let Some(prepare) = self.prepares.get(&txn) else { return false };
        let has_promised = |node: &NodeId| self.has(*node, |diary| diary.has_prepared(txn));
        prepare.participants.iter().all(has_promised) && self.is_promised_by_all(txn)
    }
}
