//! Batches: which transactions travel to the participants together.
//!
//! A participant's sync costs the same for one promise as for a hundred, and so does a message. So
//! what begins while enough batches wait for votes is gathered, and leaves as one when a batch has
//! all its votes. Without load nothing waits: what begins then leaves at the end of the turn in
//! which it came, with all that came in that turn. It is what group commit is for a log.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;

use core::time::Duration;

use super::{Alarm, Coordinator, Out};
use crate::contract::Time;
use crate::request::Transaction;
use crate::two_phase::message::TxnId;

/// Where a transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Membership {
    /// Its batch is being gathered.
    Gathered,
    /// It waits for votes in this batch.
    Voting(u64),
    /// It does not wait for votes.
    None,
}

/// The batches that wait for votes, and the one that is being gathered.
#[derive(Clone, Debug, Default)]
pub(super) struct Batches {
    /// The transactions of each that wait for a vote.
    voting: BTreeMap<u64, usize>,
    /// The number of the last batch that left.
    last: u64,
    gathered: VecDeque<(TxnId, Arc<Transaction>)>,
    /// When the first of them began.
    since: Option<Time>,
    /// When they leave at the latest.
    alarm: Option<Time>,
}

impl Batches {
    /// What is gathered.
    pub(super) fn gathered(&self) -> impl Iterator<Item = (TxnId, Arc<Transaction>)> + '_ {
        self.gathered.iter().map(|(txn, transaction)| (*txn, Arc::clone(transaction)))
    }
}

impl Coordinator {
    /// Takes a transaction that has just begun into the next batch.
    pub(super) fn gather(&mut self, txn: TxnId, transaction: Arc<Transaction>, effects: &mut Out) {
        if self.options.batches_voting_max == usize::MAX {
            return self.send_prepares(txn, transaction, effects);
        }
        let active = self.transactions.get_mut(&txn).expect("it has just begun");
        active.batch = Membership::Gathered;
        self.batches.gathered.push_back((txn, transaction));
        self.batches.since.get_or_insert(self.now);
        self.plan_batch();
    }

    /// The batch that is gathered leaves at the end of this turn, if few enough wait for votes; else
    /// when one of them has them all, or after a while: what they wait for may not come at all.
    fn plan_batch(&mut self) {
        let Some(since) = self.batches.since else { return };
        let at = match self.batches.voting.len() < self.options.batches_voting_max {
            // What has come in this turn is handed over before a timer is looked at.
            true => self.now.after(Duration::from_nanos(1)),
            false => since.after(self.options.gather_max),
        };
        if self.batches.alarm.is_some_and(|alarm| alarm <= at) {
            return;
        }
        if let Some(alarm) = self.batches.alarm.replace(at) {
            self.alarms.cancel(alarm, Alarm::Batch);
        }
        self.alarms.set(at, Alarm::Batch);
    }

    pub(super) fn batch_alarm(&mut self, effects: &mut Out) {
        self.batches.alarm = None;
        self.batches.since = None;
        self.batches.last += 1;
        let (batch, count) = (self.batches.last, self.batches.gathered.len());
        if count == 0 {
            return;
        }
        self.batches.voting.insert(batch, count);
        for (txn, transaction) in core::mem::take(&mut self.batches.gathered) {
            let active = self.transactions.get_mut(&txn);
            active.expect("what is given up is gathered no more").batch = Membership::Voting(batch);
            self.send_prepares(txn, transaction, effects);
        }
    }

    /// Whether nobody was asked to prepare the transaction.
    pub(super) fn is_gathered(&self, txn: TxnId) -> bool {
        self.transactions[&txn].batch == Membership::Gathered
    }

    /// A transaction does not wait for votes any more.
    pub(super) fn leave_batch(&mut self, txn: TxnId, membership: Membership) {
        let batch = match membership {
            Membership::None => return,
            Membership::Gathered => {
                return self.batches.gathered.retain(|(gathered, _)| *gathered != txn);
            }
            Membership::Voting(batch) => batch,
        };
        let missing = self.batches.voting.get_mut(&batch).expect("a batch waits for its last vote");
        *missing -= 1;
        if *missing == 0 {
            self.batches.voting.remove(&batch);
            self.plan_batch();
        }
    }
}
