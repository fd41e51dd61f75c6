//! From the decision to the acknowledgement.

use alloc::vec::Vec;

use super::{Decided, Stage};
use crate::contract::{Effect, NodeId, Urgency};
use crate::two_phase::any_replica::message::{Decision, Message, TxnId};
use crate::two_phase::any_replica::planted::Bug;
use crate::two_phase::any_replica::record::Record;
use crate::two_phase::any_replica::{Out, Replica, Resume, apply, points};

impl Replica {
    pub(in crate::two_phase::any_replica) fn decide(
        &mut self,
        from: NodeId,
        txn: TxnId,
        decision: Decision,
        finished_below: TxnId,
        effects: &mut Out,
    ) {
        let still_open = match decision {
            // It is not over before this participant has acknowledged it.
            Decision::Commit => finished_below <= txn,
            Decision::Abort => true,
        };
        let is_sensible =
            txn.coordinator == from && finished_below.coordinator == from && still_open;
        if !is_sensible {
            self.counters.strange_dropped += 1;
            return;
        }
        self.learn(txn, decision, effects);
        self.adopt(finished_below, effects);
    }

    /// Somebody who knows says how a transaction ended.
    pub(super) fn learn(&mut self, txn: TxnId, decision: Decision, effects: &mut Out) {
        let stage = self.participating.promised.get(&txn).map(|promised| &promised.stage);
        match (decision, stage) {
            (Decision::Commit, Some(Stage::Prepared(_))) => self.carry_out(txn, effects),
            // No vote of ours is out: not from its coordinator.
            (Decision::Commit, Some(Stage::Waiting | Stage::Logging)) => {
                self.counters.strange_dropped += 1;
            }
            (Decision::Commit, None) => self.acknowledge_again(txn, effects),
            (Decision::Abort, Some(_)) => self.abort_promised(txn, effects),
            // Never prepared here, or over: nothing is kept. A prepare that comes after its abort
            // is voted on, and the coordinator answers the vote with another abort.
            (Decision::Abort, None) => self.counters.duplicates_dropped += 1,
        }
    }

    /// A commit of a transaction that is not prepared here. It was committed here, or nothing is
    /// known of it; only the former is acknowledged.
    fn acknowledge_again(&mut self, txn: TxnId, effects: &mut Out) {
        match self.participating.decided.get(&txn) {
            Some(Decided { decision: Decision::Commit, durable }) => {
                self.counters.duplicates_dropped += 1;
                if *durable {
                    self.acknowledge(txn, effects);
                }
            }
            Some(_) => self.counters.strange_dropped += 1,
            // Over means acknowledged by all, so by us; the coordinator lost its end record.
            None if self.participating.is_finished(txn) => {
                self.counters.duplicates_dropped += 1;
                self.acknowledge(txn, effects);
            }
            None => self.counters.strange_dropped += 1,
        }
    }

    /// Visible at once, and then the record, behind which the acknowledgement waits. The promise is
    /// durable here and the decision is durable at the coordinator, who keeps it until it is
    /// acknowledged; if this replica crashes before its own record is durable, the transaction is in
    /// doubt again, and locked, so nobody can see that it was applied too early.
    fn carry_out(&mut self, txn: TxnId, effects: &mut Out) {
        let promised = self.forget(txn);
        self.counters.applied += 1;
        effects.point(points::PARTICIPANT_DECISION_RECEIVED);
        apply(&promised.work, self.last.next(), effects);
        effects.point(points::PARTICIPANT_APPLIED);
        self.settle(&promised.work);
        let decision = Decision::Commit;
        self.participating.decided.insert(txn, Decided { decision, durable: false });
        self.persist(Record::Decided { txn, decision }, Urgency::Soon, effects);
        effects.point(points::PARTICIPANT_BEFORE_ACKNOWLEDGE);
        self.counters.acknowledgements_sent += 1;
        let message = Message::Acknowledge { txn };
        let acknowledgement = Effect::Send { to: txn.coordinator, message };
        let bug = Bug::AcknowledgeBeforeDurable;
        effects.push_held(acknowledgement, self.options.planted.has(bug));
        effects.point(points::PARTICIPANT_ACKNOWLEDGED);
        effects.push(Effect::Resume(Resume::Decided(txn)));
        self.wake_reads(promised.stage, txn, effects);
    }

    /// Undoes a promise, or what would have become one.
    pub(super) fn abort_promised(&mut self, txn: TxnId, effects: &mut Out) {
        let promised = self.forget(txn);
        if promised.stage != Stage::Waiting {
            let decision = Decision::Abort;
            self.participating.decided.insert(txn, Decided { decision, durable: true });
            self.persist(Record::Decided { txn, decision }, Urgency::Soon, effects);
        }
        self.wake_reads(promised.stage, txn, effects);
    }

    pub(super) fn acknowledge(&mut self, txn: TxnId, effects: &mut Out) {
        self.counters.acknowledgements_sent += 1;
        let message = Message::Acknowledge { txn };
        effects.push_unheld(Effect::Send { to: txn.coordinator, message });
    }

    pub(in crate::two_phase::any_replica) fn decision_is_durable(&mut self, txn: TxnId) {
        // It may be known to be over everywhere by now.
        if let Some(decided) = self.participating.decided.get_mut(&txn) {
            decided.durable = true;
        }
    }

    /// A coordinator says how far it has come: outcomes below are asked for by nobody any more, and
    /// what is still open below was aborted, since a commit would wait for our acknowledgement.
    pub(super) fn adopt(&mut self, finished_below: TxnId, effects: &mut Out) {
        if !self.remember_finished(finished_below) {
            return;
        }
        let over: Vec<TxnId> = self
            .participating
            .promised
            .range(first_of(finished_below)..finished_below)
            .map(|(txn, _)| *txn)
            .collect();
        for txn in over {
            self.counters.aborted_below_finished += 1;
            self.abort_promised(txn, effects);
            self.participating.decided.remove(&txn);
        }
    }

    /// Forgets outcomes of this coordinator below; whether that was news.
    pub(in crate::two_phase::any_replica) fn remember_finished(&mut self, below: TxnId) -> bool {
        let first = first_of(below);
        let known = self.participating.finished_below.entry(below.coordinator).or_insert(first);
        if below <= *known {
            return false;
        }
        *known = below;
        let over: Vec<TxnId> =
            self.participating.decided.range(first..below).map(|(txn, _)| *txn).collect();
        for txn in over {
            self.participating.decided.remove(&txn);
        }
        true
    }
}

/// Before every transaction of its coordinator.
fn first_of(txn: TxnId) -> TxnId {
    TxnId { epoch: 0, number: 0, ..txn }
}
