//! What a replica has written down, as a judge remembers it: kept beside the replica's log, out of
//! nothing but the records appended and how far the log says that it is durable.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kvorum_replication::two_phase::any_replica::message::{Decision, TxnId};
use kvorum_replication::two_phase::any_replica::record::Record;
use kvorum_replication::{ClientId, Position, Stamp};

/// Which write of which session.
pub(super) type Asked = (ClientId, u64);

pub(super) fn asked(stamp: Stamp) -> Asked {
    (stamp.client, stamp.sequence)
}

/// One replica's records, of all its runs.
#[derive(Debug, Default)]
pub(super) struct Diary {
    /// Up to here the log has been seen to be durable.
    durable: Position,
    /// Records that are not known to be durable.
    tail: VecDeque<(Position, Record)>,
    started: BTreeMap<u64, Position>,
    prepared: BTreeMap<TxnId, Position>,
    decided: BTreeMap<TxnId, (Decision, Position)>,
    committed: BTreeMap<TxnId, Position>,
    /// Promised and without an outcome.
    in_doubt: BTreeSet<TxnId>,
    /// Decided by this replica, and not carried out on its own copy.
    undone: BTreeSet<TxnId>,
}

impl Diary {
    pub(super) fn add(&mut self, at: Position, record: Record) {
        match &record {
            Record::Started { incarnation } => {
                self.started.insert(*incarnation, at);
            }
            Record::Prepared(prepared) => {
                self.prepared.insert(prepared.txn, at);
                self.in_doubt.insert(prepared.txn);
            }
            Record::Committed(committed) => {
                self.committed.insert(committed.txn, at);
                self.undone.insert(committed.txn);
            }
            Record::Decided { txn, decision } => {
                self.decided.insert(*txn, (*decision, at));
                self.in_doubt.remove(txn);
                self.undone.remove(txn);
            }
            Record::Refused { .. } | Record::Ended { .. } | Record::Checkpoint(_) => {}
        }
        self.tail.push_back((at, record));
    }

    pub(super) fn durable(&self) -> Position {
        self.durable
    }

    /// The log says that it is durable up to here. The oldest record of which that is news.
    pub(super) fn next_durable(&mut self, to: Position) -> Option<Record> {
        match self.tail.pop_front_if(|(at, _)| *at <= to) {
            Some((at, record)) => {
                self.durable = self.durable.max(at);
                Some(record)
            }
            None => {
                self.durable = self.durable.max(to);
                None
            }
        }
    }

    /// A new run found records up to `last`: what stood behind is gone.
    pub(super) fn lose_tail(&mut self, last: Position) {
        while self.tail.pop_back_if(|(at, _)| *at > last).is_some() {}
        let kept = |at: &Position| *at <= last;
        self.started.retain(|_, at| kept(at));
        self.prepared.retain(|_, at| kept(at));
        self.decided.retain(|_, (_, at)| kept(at));
        self.committed.retain(|_, at| kept(at));
        let is_open = |txn: &&TxnId| !self.decided.contains_key(*txn);
        self.in_doubt = self.prepared.keys().filter(is_open).copied().collect();
        self.undone = self.committed.keys().filter(is_open).copied().collect();
    }

    fn has(&self, at: Option<&Position>) -> bool {
        at.is_some_and(|at| *at <= self.durable)
    }

    pub(super) fn has_started(&self, epoch: u64) -> bool {
        self.has(self.started.get(&epoch))
    }

    pub(super) fn has_prepared(&self, txn: TxnId) -> bool {
        self.has(self.prepared.get(&txn))
    }

    pub(super) fn has_committed(&self, txn: TxnId) -> bool {
        self.has(self.committed.get(&txn))
    }

    /// What the replica wrote down of the end of a transaction, durably or not.
    pub(super) fn decided(&self, txn: TxnId) -> Option<(Decision, bool)> {
        self.decided.get(&txn).map(|(decision, at)| (*decision, *at <= self.durable))
    }

    /// Transactions whose commit this copy has carried out, in the order of its log.
    pub(super) fn carried_out(&self) -> Vec<TxnId> {
        let commits = self.decided.iter().filter(|(_, (it, _))| *it == Decision::Commit);
        let mut commits: Vec<(Position, TxnId)> =
            commits.map(|(txn, (_, at))| (*at, *txn)).collect();
        commits.sort_unstable();
        commits.into_iter().map(|(_, txn)| txn).collect()
    }

    pub(super) fn in_doubt(&self) -> &BTreeSet<TxnId> {
        &self.in_doubt
    }

    pub(super) fn undone(&self) -> &BTreeSet<TxnId> {
        &self.undone
    }
}
