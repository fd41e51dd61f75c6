//! From the decision to the acknowledgement.

use alloc::sync::Arc;
use alloc::vec::Vec;

use smallvec::SmallVec;

use super::state::{Decided, Promised, Stage, Told};
use super::{Alarm, Out, Participant, ParticipantResume};
use crate::contract::{Effect, NodeId, Urgency};
use crate::request::{Transaction, Write};
use crate::two_phase::message::{CommitNumber, Decision, Message, TxnId};
use crate::two_phase::planted::Bug;
use crate::two_phase::points;
use crate::two_phase::record::ParticipantRecord;

/// How a transaction ended, as it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Learnt {
    pub(super) decision: Decision,
    /// Of the coordinator that it comes from.
    pub(super) epoch: u64,
}

impl Participant {
    pub(super) fn decide(
        &mut self,
        from: NodeId,
        txn: TxnId,
        learnt: Learnt,
        finished_below: TxnId,
        effects: &mut Out,
    ) {
        let still_open = match learnt.decision {
            // It is not over before this participant has acknowledged it.
            Decision::Commit(_) => finished_below <= txn,
            Decision::Abort => true,
        };
        let sensible = from == NodeId::COORDINATOR
            && txn.coordinator == from
            && finished_below.coordinator == from
            && still_open;
        if !sensible {
            self.counters.strange_dropped += 1;
            return;
        }
        self.learn(txn, learnt, effects);
        self.adopt(finished_below, effects);
    }

    /// Somebody who knows says how a transaction ended.
    pub(super) fn learn(&mut self, txn: TxnId, learnt: Learnt, effects: &mut Out) {
        match learnt.decision {
            Decision::Commit(number) => {
                self.learn_commit(txn, Told { number, epoch: learnt.epoch }, effects);
            }
            Decision::Abort => self.learn_abort(txn, effects),
        }
    }

    fn learn_commit(&mut self, txn: TxnId, told: Told, effects: &mut Out) {
        let number = told.number;
        if self.is_outdated(txn, told) {
            self.counters.outdated_dropped += 1;
            return;
        }
        if self.alone > 0 {
            // The cluster had one replica and has more: what was committed alone is applied first.
            // The coordinator will say it again.
            self.counters.duplicates_dropped += 1;
            return;
        }
        match self.transactions.get_mut(&txn).map(|promised| &mut promised.stage) {
            None => self.acknowledge_again(txn, number, effects),
            Some(Stage::Prepared { commit: Some(_), .. }) => self.counters.duplicates_dropped += 1,
            Some(Stage::Prepared { commit, alarm, .. })
                if (number > self.applied || self.options.planted.has(Bug::ApplyOutOfOrder))
                    && !self.early.contains_key(&number) =>
            {
                *commit = Some(told);
                if let Some(alarm) = alarm.take() {
                    self.alarms.cancel(alarm, Alarm::Inquire(txn));
                }
                self.apply_in_order(number, txn, effects);
            }
            // No vote of ours is out, or another commit has this number: not from our coordinator.
            Some(
                Stage::Prepared { .. } | Stage::Checking { .. } | Stage::Logging | Stage::Alone(_),
            ) => self.counters.strange_dropped += 1,
        }
    }

    /// Whether a parallel commit that is open here has its number from before the promise to a later
    /// epoch. That epoch's coordinator was not told of the number, and may have given another.
    fn is_outdated(&self, txn: TxnId, told: Told) -> bool {
        let is_parallel = |promised: &Promised| promised.parallel.is_some();
        told.epoch < self.promised
            && self.transactions.get(&txn).is_some_and(is_parallel)
            && !self.options.planted.has(Bug::TakeOldNumbers)
    }

    /// A commit of a transaction that is not prepared here. It was committed here, or nothing is
    /// known of it; only the former is acknowledged.
    fn acknowledge_again(&mut self, txn: TxnId, number: CommitNumber, effects: &mut Out) {
        match self.decided.get(&txn) {
            Some(Decided { decision: Decision::Commit(known), durable, .. })
                if *known == number =>
            {
                self.counters.duplicates_dropped += 1;
                if *durable {
                    self.acknowledge(txn, effects);
                }
            }
            Some(_) => self.counters.strange_dropped += 1,
            // Over means acknowledged by all, so by us; the coordinator lost its end record.
            None if txn < self.finished_below && number <= self.applied => {
                self.counters.duplicates_dropped += 1;
                self.acknowledge(txn, effects);
            }
            None => self.counters.strange_dropped += 1,
        }
    }

    /// Applies the commits whose turn has come: first all of them, visible at once, then their
    /// records, behind which the acknowledgements wait. The promise is durable here and the
    /// decision is durable at the coordinator, who keeps it until it is acknowledged; if this
    /// replica crashes before its own record is durable, the transaction is in doubt again, and
    /// locked, so nobody can see that it was applied too early.
    fn apply_in_order(&mut self, number: CommitNumber, txn: TxnId, effects: &mut Out) {
        // Mostly it is the next one, alone, and takes no place among those that wait.
        let mut next = (number == self.applied.next()).then_some((number, txn));
        if next.is_none() {
            self.early.insert(number, txn);
        }
        let mut turn: SmallVec<[(CommitNumber, TxnId, Promised); 1]> = SmallVec::new();
        while let Some((number, txn)) = next.take().or_else(|| self.next_early()) {
            self.applied = self.applied.max(number);
            turn.push((number, txn, self.forget(txn)));
        }
        if turn.is_empty() {
            self.counters.commits_out_of_order += 1;
            return;
        }
        effects.point(points::PARTICIPANT_DECISION_RECEIVED);
        let mut mark = self.last;
        for (_, _, promised) in &mut turn {
            mark = mark.next();
            let writes = take_writes(&mut promised.transaction);
            effects.push(Effect::Apply { mark: mark.0, writes });
        }
        effects.point(points::PARTICIPANT_APPLIED);
        for (number, txn, promised) in &turn {
            self.counters.committed += 1;
            let decision = Decision::Commit(*number);
            let epoch = match &promised.stage {
                Stage::Prepared { commit: Some(told), .. } => told.epoch,
                _ => unreachable!("only what is prepared and decided has its turn"),
            };
            let pledge = promised.pledge();
            self.decided.insert(*txn, Decided { epoch, pledge, ..Decided::new(decision, false) });
            let record = ParticipantRecord::Decided { txn: *txn, decision };
            self.persist(record, Urgency::Soon, effects);
            effects.point(points::PARTICIPANT_BEFORE_ACKNOWLEDGE);
            self.counters.acknowledgements_sent += 1;
            let message = Message::Acknowledge { txn: *txn };
            let acknowledgement = Effect::Send { to: txn.coordinator, message };
            let bug = Bug::AcknowledgeBeforeDurable;
            effects.push_held(acknowledgement, self.options.planted.has(bug));
            effects.point(points::PARTICIPANT_ACKNOWLEDGED);
            effects.push(Effect::Resume(ParticipantResume::Decided(*txn)));
        }
        for (_, txn, promised) in &mut turn {
            self.wake_reads(*txn, &mut promised.stage, effects);
        }
    }

    /// The commit whose turn it is, if it has been heard of.
    fn next_early(&mut self) -> Option<(CommitNumber, TxnId)> {
        let entry = self.early.first_entry()?;
        let is_next = *entry.key() == self.applied.next();
        let is_taken = is_next || self.options.planted.has(Bug::ApplyOutOfOrder);
        is_taken.then(|| entry.remove_entry())
    }

    fn learn_abort(&mut self, txn: TxnId, effects: &mut Out) {
        match self.transactions.get(&txn).map(|promised| &promised.stage) {
            Some(
                Stage::Prepared { commit: None, .. } | Stage::Logging | Stage::Checking { .. },
            ) => {
                self.abort(txn, effects);
            }
            // Whoever says so contradicts the coordinator, or the log.
            Some(Stage::Prepared { .. } | Stage::Alone(_)) => self.counters.strange_dropped += 1,
            // Never prepared here, or over: nothing is kept. A prepare that comes after its abort
            // is voted on, and the coordinator answers the vote with another abort.
            None => self.counters.duplicates_dropped += 1,
        }
    }

    /// Undoes a promise, or what would have become one.
    pub(super) fn abort(&mut self, txn: TxnId, effects: &mut Out) {
        let mut promised = self.forget(txn);
        self.counters.aborted += 1;
        if !matches!(promised.stage, Stage::Checking { .. }) {
            let decision = Decision::Abort;
            self.decided.insert(txn, Decided::new(decision, true));
            self.persist(ParticipantRecord::Decided { txn, decision }, Urgency::Soon, effects);
        }
        self.wake_reads(txn, &mut promised.stage, effects);
    }

    pub(super) fn acknowledge(&mut self, txn: TxnId, effects: &mut Out) {
        self.counters.acknowledgements_sent += 1;
        let message = Message::Acknowledge { txn };
        effects.push_unheld(Effect::Send { to: txn.coordinator, message });
    }

    pub(super) fn decision_is_durable(&mut self, txn: TxnId) {
        // It may be known to be over everywhere by now.
        if let Some(decided) = self.decided.get_mut(&txn) {
            decided.durable = true;
        }
    }

    /// The coordinator says how far it has come: outcomes below are asked for by nobody any more,
    /// and what is still prepared below was aborted, since a commit would wait for our
    /// acknowledgement.
    pub(super) fn adopt(&mut self, finished_below: TxnId, effects: &mut Out) {
        if finished_below <= self.finished_below {
            return;
        }
        self.finished_below = finished_below;
        self.decided.remove_below(&finished_below);
        let over: Vec<TxnId> = self
            .transactions
            .range(..finished_below)
            .filter(|(_, promised)| match &promised.stage {
                Stage::Checking { .. } | Stage::Logging => true,
                Stage::Prepared { commit, .. } => commit.is_none(),
                // The coordinator has given up waiting for the vote, not decided.
                Stage::Alone(_) => false,
            })
            .map(|(txn, _)| txn)
            .collect();
        for txn in over {
            self.counters.aborted_below_finished += 1;
            self.abort(txn, effects);
        }
    }
}

/// The writes of a transaction that is over here. Nobody else has it mostly: the message that brought
/// it is long gone.
fn take_writes(transaction: &mut Arc<Transaction>) -> Vec<Write> {
    match Arc::get_mut(transaction) {
        Some(transaction) => core::mem::take(&mut transaction.writes),
        None => transaction.writes.clone(),
    }
}
