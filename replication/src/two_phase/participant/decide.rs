//! From the decision to the acknowledgement.

use alloc::sync::Arc;
use alloc::vec::Vec;

use smallvec::SmallVec;

use super::state::{Decided, Early, Promised, Stage, Told};
use super::{Alarm, Out, Participant, ParticipantResume};
use crate::contract::{Effect, NodeId, Urgency};
use crate::request::Writes;
use crate::two_phase::message::{Commit, CommitNumber, Decision, Message, TxnId};
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
                // Mostly it is the one whose turn has come, and nothing has to be put in order.
                match self.early.is_empty() && self.is_next(number) && !self.keeps_still() {
                    true => {
                        let mut turn = SmallVec::new();
                        self.take_entry(number, Early::Prepared(txn), &mut turn);
                        self.apply(turn, effects);
                    }
                    false => {
                        self.early.insert(number, Early::Prepared(txn));
                        self.apply_in_order(effects);
                    }
                }
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
        self.is_of_before(told.epoch) && self.transactions.get(&txn).is_some_and(is_parallel)
    }

    /// Whether the numbers of parallel commits are from before the promise to a later epoch.
    pub(super) fn is_of_before(&self, epoch: u64) -> bool {
        epoch < self.promised && !self.options.planted.has(Bug::TakeOldNumbers)
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
            // It was never prepared here, or that is forgotten: others have it.
            None => {
                self.counters.strange_dropped += 1;
                self.hear_of(number);
            }
        }
    }

    /// Applies the commits whose turn has come: first all of them, visible at once, then their
    /// records, behind which the acknowledgements wait. The promise is durable here and the
    /// decision is durable at the coordinator, who keeps it until it is acknowledged; if this
    /// replica crashes before its own record is durable, the transaction is in doubt again, and
    /// locked, so nobody can see that it was applied too early.
    pub(super) fn apply_in_order(&mut self, effects: &mut Out) {
        let turn = self.take_turn();
        match turn.is_empty() {
            true => self.counters.commits_out_of_order += u64::from(!self.early.is_empty()),
            false => self.apply(turn, effects),
        }
    }

    fn apply(&mut self, mut turn: SmallVec<[Turn; 1]>, effects: &mut Out) {
        effects.point(points::PARTICIPANT_DECISION_RECEIVED);
        let mut mark = self.last;
        for entry in &turn {
            mark = mark.next();
            effects.push(Effect::Apply { mark: mark.0, writes: entry.writes() });
        }
        effects.point(points::PARTICIPANT_APPLIED);
        for entry in &mut turn {
            match entry {
                Turn::Prepared { txn, number, .. } => {
                    let (txn, decision) = (*txn, Decision::Commit(*number));
                    let record = ParticipantRecord::Decided { txn, decision };
                    self.persist(record, Urgency::Soon, effects);
                    self.acknowledge_when_durable(txn, effects);
                }
                Turn::Learned(commits) => {
                    let finished_below = self.finished_below;
                    let open: Vec<TxnId> = commits.iter().map(|commit| commit.txn).collect();
                    let commits = core::mem::take(commits);
                    let record = ParticipantRecord::Learned { finished_below, commits };
                    self.persist(record, Urgency::Soon, effects);
                    for txn in open.into_iter().filter(|txn| *txn >= finished_below) {
                        self.acknowledge_when_durable(txn, effects);
                    }
                }
            }
        }
        for entry in &mut turn {
            if let Turn::Prepared { txn, stage, .. } = entry {
                self.wake_reads(*txn, stage, effects);
            }
        }
    }

    /// The commits whose turn has come, one entry for each record.
    fn take_turn(&mut self) -> SmallVec<[Turn; 1]> {
        let mut turn: SmallVec<[Turn; 1]> = SmallVec::new();
        if self.keeps_still() {
            return turn;
        }
        while let Some((number, _)) = self.early.first_key_value() {
            let number = *number;
            if !self.is_next(number) {
                break;
            }
            let early = self.early.remove(&number).expect("it was just looked at");
            self.take_entry(number, early, &mut turn);
        }
        turn
    }

    /// Whether nothing may be applied: rows that are staged take the place of all that is.
    fn keeps_still(&self) -> bool {
        self.is_installing() && !self.options.planted.has(Bug::ApplyWhileInstalling)
    }

    /// Whether it is the turn of the commit of this number.
    fn is_next(&self, number: CommitNumber) -> bool {
        number == self.applied.next()
            || self.options.planted.has(Bug::LearnTwice) && number <= self.applied
            || self.options.planted.has(Bug::ApplyOutOfOrder)
    }

    /// Takes a commit whose turn has come into those that are applied now.
    fn take_entry(&mut self, number: CommitNumber, early: Early, turn: &mut SmallVec<[Turn; 1]>) {
        self.applied = self.applied.max(number);
        let commit = match early {
            Early::Prepared(txn) => {
                let promised = self.forget(txn);
                let pledge = promised.pledge();
                let Promised { transaction, stage, .. } = promised;
                let Stage::Prepared { commit: Some(Told { epoch, .. }), .. } = stage else {
                    unreachable!("only what is prepared and decided has its turn");
                };
                let commit = Commit { number, txn, pledge, transaction };
                self.remember_commit(&commit, epoch);
                let writes = Writes::Of(Arc::clone(&commit.transaction));
                turn.push(Turn::Prepared { txn, number, writes, stage });
                commit
            }
            Early::Learned { commit, epoch } => {
                if commit.txn >= self.finished_below {
                    self.remember_commit(&commit, epoch);
                }
                match turn.last_mut() {
                    Some(Turn::Learned(commits)) => commits.push(commit.clone()),
                    Some(Turn::Prepared { .. }) | None => {
                        turn.push(Turn::Learned(Vec::from([commit.clone()])));
                    }
                }
                commit
            }
        };
        self.recent.push(commit, self.options.recent_bytes_max);
    }

    fn remember_commit(&mut self, commit: &Commit, epoch: u64) {
        let (pledge, decision) = (commit.pledge.clone(), Decision::Commit(commit.number));
        self.decided.insert(commit.txn, Decided { epoch, pledge, ..Decided::new(decision, false) });
    }

    /// A commit is applied, and the record that says so is the last one.
    fn acknowledge_when_durable(&mut self, txn: TxnId, effects: &mut Out) {
        self.counters.committed += 1;
        effects.point(points::PARTICIPANT_BEFORE_ACKNOWLEDGE);
        self.counters.acknowledgements_sent += 1;
        let acknowledgement =
            Effect::Send { to: txn.coordinator, message: Message::Acknowledge { txn } };
        let bug = Bug::AcknowledgeBeforeDurable;
        effects.push_held(acknowledgement, self.options.planted.has(bug));
        effects.point(points::PARTICIPANT_ACKNOWLEDGED);
        effects.push(Effect::Resume(ParticipantResume::Decided(txn)));
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
        self.remember_below(finished_below);
        // What is committed below may still be on its way to a replica that has just come back.
        if self.is_current() {
            self.abort_what_is_over(effects);
        }
    }

    /// Outcomes below are asked for by nobody any more.
    pub(super) fn remember_below(&mut self, finished_below: TxnId) {
        if finished_below > self.finished_below {
            self.finished_below = finished_below;
            self.decided.remove_below(&finished_below);
        }
    }

    /// What is still prepared below was aborted.
    pub(super) fn abort_what_is_over(&mut self, effects: &mut Out) {
        let over: Vec<TxnId> = self
            .transactions
            .range(..self.finished_below)
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

/// Commits that are applied under one mark.
enum Turn {
    /// This one was prepared here; its outcome is all that has to be written.
    Prepared { txn: TxnId, number: CommitNumber, writes: Writes, stage: Stage },
    /// These were not.
    Learned(Vec<Commit>),
}

impl Turn {
    fn writes(&self) -> Writes {
        match self {
            Self::Prepared { writes, .. } => writes.clone(),
            Self::Learned(commits) => {
                let writes = commits.iter().flat_map(|commit| &commit.transaction.writes);
                Writes::List(writes.cloned().collect())
            }
        }
    }
}
