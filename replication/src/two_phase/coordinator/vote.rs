//! From the votes to the decision.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::batches::Membership;
use super::state::{Active, Nodes, Phase, Waiters};
use super::{Alarm, Coordinator, CoordinatorResume, Out, reply_failed};
use crate::contract::{Effect, NodeId, Time, Urgency};
use crate::request::{Failure, Outcome, Stamp};
use crate::two_phase::message::{CommitNumber, Decision, Message, TxnId, Vote};
use crate::two_phase::names::names;
use crate::two_phase::planted::Bug;
use crate::two_phase::points;
use crate::two_phase::record::CoordinatorRecord;

impl Coordinator {
    pub(super) fn vote(
        &mut self,
        now: Time,
        from: NodeId,
        txn: TxnId,
        vote: Vote,
        effects: &mut Out,
    ) {
        if !self.is_mine(txn) {
            self.counters.strange_dropped += 1;
            return;
        }
        match vote {
            Vote::Yes | Vote::Committed => self.counters.votes_yes += 1,
            _ => self.counters.votes_no += 1,
        }
        let Some(active) = self.transactions.get_mut(&txn) else {
            return self.late_vote(from, txn, &vote, effects);
        };
        match &mut active.phase {
            Phase::Voting { missing } => match missing.iter().position(|node| *node == from) {
                Some(index) => {
                    missing.swap_remove(index);
                    self.count_vote(now, from, txn, vote, effects);
                }
                None => self.counters.duplicates_dropped += 1,
            },
            Phase::Alone if active.participants.contains(&from) => {
                self.decided_alone(from, txn, vote, effects);
            }
            Phase::Alone => self.counters.strange_dropped += 1,
            // It is told as soon as the decision is durable.
            Phase::Committing { .. } | Phase::Aborting { .. } => {
                self.counters.duplicates_dropped += 1;
            }
            Phase::Committed { number, unacknowledged, .. } => {
                let number = *number;
                match vote == Vote::Yes && unacknowledged.contains(&from) {
                    true => self.send_decision(from, txn, Decision::Commit(number), effects),
                    false => self.counters.duplicates_dropped += 1,
                }
            }
        }
    }

    /// A vote on what is over. Whoever says yes waits for the outcome: there was none to commit,
    /// or it has been acknowledged by this very participant, who then ignores the answer.
    fn late_vote(&mut self, from: NodeId, txn: TxnId, vote: &Vote, effects: &mut Out) {
        self.counters.duplicates_dropped += 1;
        if *vote == Vote::Yes && self.views.counts(from, txn) && self.is_over(txn) {
            self.send_decision(from, txn, Decision::Abort, effects);
        }
    }

    fn count_vote(&mut self, now: Time, from: NodeId, txn: TxnId, vote: Vote, effects: &mut Out) {
        if vote == Vote::Yes {
            let active = &self.transactions[&txn];
            let has_all = active.phase == (Phase::Voting { missing: Nodes::new() });
            // Those that are left out do not vote, and whom they ask has to know that.
            if has_all && self.views.is_settled() {
                self.commit(now, txn, effects);
            }
        } else {
            let failure = failure_of(from, txn, vote);
            self.abort(txn, Some(from), failure, effects);
        }
    }

    /// Everybody has promised. In parallel mode it has happened; else it happens when the record is
    /// durable.
    pub(super) fn commit(&mut self, now: Time, txn: TxnId, effects: &mut Out) {
        let number = self.commits.next();
        self.commits = number;
        let active = self.transactions.get_mut(&txn).expect("it has just been voted on");
        active.phase = Phase::Committing { number };
        let alarm = active.alarm.take();
        let batch = core::mem::replace(&mut active.batch, Membership::None);
        active.transaction = None;
        self.in_flight_bytes -= core::mem::take(&mut active.bytes);
        if let Some(at) = alarm {
            self.alarms.cancel(at, Alarm::Transaction(txn));
        }
        if let Some(stamp) = active.stamp {
            self.sessions.settle(stamp, ());
        }
        self.leave_batch(txn, batch);
        self.counters.committed += 1;
        effects.point(points::COORDINATOR_ALL_VOTES);
        if self.is_parallel() {
            self.tell_then_record(now, txn, number, effects);
        } else {
            self.record_then_tell(txn, number, effects);
        }
    }

    /// What has happened is told at once, and the record of it follows with the next sync.
    fn tell_then_record(&mut self, now: Time, txn: TxnId, number: CommitNumber, effects: &mut Out) {
        self.tell_commit(txn, number, effects);
        effects.point(points::COORDINATOR_DECISION_WRITTEN);
        self.write_commit(txn, number, Urgency::Soon, effects);
        effects.point(points::COORDINATOR_DECISION_DURABLE);
        effects.push(Effect::Resume(CoordinatorResume::Committed(txn)));
        // The decisions go with this step, so the next prepare of a key follows them.
        self.is_told(now, txn, number, false);
    }

    pub(super) fn record_then_tell(&mut self, txn: TxnId, number: CommitNumber, effects: &mut Out) {
        effects.point(points::COORDINATOR_DECISION_WRITTEN);
        self.write_commit(txn, number, Urgency::Now, effects);
        effects.point(points::COORDINATOR_DECISION_DURABLE);
        self.tell_commit(txn, number, effects);
        // The locks go with this: the next prepare of a key follows the commit on every link.
        effects.push(Effect::Resume(CoordinatorResume::Committed(txn)));
    }

    fn write_commit(
        &mut self,
        txn: TxnId,
        number: CommitNumber,
        urgency: Urgency,
        effects: &mut Out,
    ) {
        let stamp = self.transactions[&txn].stamp;
        let participants = self.to_tell(txn);
        let record = CoordinatorRecord::Committed { txn, number, stamp, participants };
        self.persist(record, urgency, effects);
    }

    /// Who has to be told of a transaction: not who is left out meanwhile.
    fn to_tell(&self, txn: TxnId) -> Arc<[NodeId]> {
        let participants = &self.transactions[&txn].participants;
        let counts = |replica: &NodeId| self.views.counts(*replica, txn);
        match participants.iter().all(counts) {
            true => participants.clone(),
            false => participants.iter().copied().filter(counts).collect(),
        }
    }

    fn tell_commit(&mut self, txn: TxnId, number: CommitNumber, effects: &mut Out) {
        let participants = self.to_tell(txn);
        let active = self.transactions.get_mut(&txn).expect("it is being committed");
        let waiters = core::mem::take(&mut active.waiters);
        for (index, to) in participants.iter().enumerate() {
            self.send_decision(*to, txn, Decision::Commit(number), effects);
            if index == 0 {
                effects.point(points::COORDINATOR_SOME_TOLD);
            }
        }
        effects.point(points::COORDINATOR_BEFORE_REPLY);
        for request in waiters {
            let reply = Effect::Reply { request, outcome: Outcome::Committed };
            effects.push_held(reply, self.options.planted.has(Bug::AnswerBeforeDecisionDurable));
        }
        effects.point(points::COORDINATOR_AFTER_REPLY);
    }

    pub(super) fn commit_is_durable(&mut self, now: Time, txn: TxnId, effects: &mut Out) {
        let Some(active) = self.transactions.get_mut(&txn) else {
            assert!(
                self.options.planted.has(Bug::EndBeforeRecord),
                "a commit ends after it is durable"
            );
            return;
        };
        if let Phase::Committed { recorded, .. } = &mut active.phase {
            *recorded = true;
            return self.end_if_over(txn, effects);
        }
        let Phase::Committing { number } = active.phase else {
            unreachable!("a commit becomes durable once");
        };
        // Retries that came between the record and now.
        for request in active.waiters.drain(..) {
            effects.push(Effect::Reply { request, outcome: Outcome::Committed });
        }
        self.is_told(now, txn, number, true);
    }

    /// Everybody was told of a commit; from here on it is repeated until acknowledged.
    fn is_told(&mut self, now: Time, txn: TxnId, number: CommitNumber, recorded: bool) {
        let alarm = now.after(self.options.resend_interval);
        let unacknowledged = Nodes::from_slice(&self.to_tell(txn));
        let active = self.transactions.get_mut(&txn).expect("it is being committed");
        active.phase = Phase::Committed { number, unacknowledged, recorded };
        active.alarm = Some(alarm);
        let (locks, stamp) = (core::mem::take(&mut active.locks), active.stamp.take());
        self.forget_stamp(stamp);
        self.locks.release(txn, &locks);
        self.alarms.set(alarm, Alarm::Transaction(txn));
    }

    /// `refused` keeps nothing, so it is not told. What is not known is aborted, so nothing is
    /// written; but of a parallel transaction all participants may still come to be prepared, which
    /// would commit it if the coordinator had forgotten. Of one that was never sent nobody has heard.
    pub(super) fn abort(
        &mut self,
        txn: TxnId,
        refused: Option<NodeId>,
        failure: Failure,
        effects: &mut Out,
    ) {
        self.counters.aborted += 1;
        if self.is_gathered(txn) {
            return fail_all(self.forget(txn).waiters, &failure, effects);
        }
        if !self.is_parallel() || self.options.planted.has(Bug::AbortWithoutRecord) {
            let active = self.forget(txn);
            self.tell_abort(txn, &active.participants, refused, effects);
            return fail_all(active.waiters, &failure, effects);
        }
        let record = CoordinatorRecord::Aborted { txn, finished_below: self.finished_below() };
        let active = self.transactions.get_mut(&txn).expect("it is being voted on");
        active.phase = Phase::Aborting { failure: failure.clone() };
        let participants = active.participants.clone();
        let waiters = core::mem::take(&mut active.waiters);
        let batch = core::mem::replace(&mut active.batch, Membership::None);
        if let Some(at) = active.alarm.take() {
            self.alarms.cancel(at, Alarm::Transaction(txn));
        }
        self.leave_batch(txn, batch);
        effects.point(points::COORDINATOR_ABORT_WRITTEN);
        self.persist(record, Urgency::Now, effects);
        effects.point(points::COORDINATOR_ABORT_DURABLE);
        self.tell_abort(txn, &participants, refused, effects);
        for request in waiters {
            let outcome = Outcome::Failed(failure.clone());
            effects.push(Effect::Reply { request, outcome });
        }
        effects.push(Effect::Resume(CoordinatorResume::Aborted(txn)));
    }

    pub(super) fn tell_abort(
        &mut self,
        txn: TxnId,
        participants: &[NodeId],
        refused: Option<NodeId>,
        effects: &mut Out,
    ) {
        for to in participants.iter().filter(|to| Some(**to) != refused) {
            if self.peers_up.contains(to) && self.may_tell(*to, txn) {
                self.send_decision(*to, txn, Decision::Abort, effects);
            }
        }
    }

    pub(super) fn abort_is_durable(&mut self, txn: TxnId, effects: &mut Out) {
        let active = self.forget(txn);
        let Phase::Aborting { failure } = active.phase else {
            unreachable!("an abort that is in the log stays one");
        };
        // Retries that came between the record and now.
        fail_all(active.waiters, &failure, effects);
        self.aborted.insert(txn);
        self.forget_aborts_below(self.finished_below());
    }

    /// Of what is over at all participants no abort has to be remembered.
    pub(super) fn forget_aborts_below(&mut self, finished_below: TxnId) {
        while self.aborted.first().is_some_and(|txn| *txn < finished_below) {
            self.aborted.pop_first();
        }
    }

    /// The only participant has decided.
    fn decided_alone(&mut self, from: NodeId, txn: TxnId, vote: Vote, effects: &mut Out) {
        let outcome = match vote {
            Vote::Yes => {
                self.counters.strange_dropped += 1;
                return;
            }
            Vote::Committed => {
                self.counters.committed += 1;
                Outcome::Committed
            }
            // Of a transaction that is not over it can only mean the stamp.
            Vote::Refused => {
                self.counters.aborted += 1;
                Outcome::Failed(Failure::SessionExpired)
            }
            vote => {
                self.counters.aborted += 1;
                Outcome::Failed(failure_of(from, txn, vote))
            }
        };
        for request in self.forget(txn).waiters {
            effects.push(Effect::Reply { request, outcome: outcome.clone() });
        }
    }

    /// The only participant may have decided, and does not say how.
    fn unknown_alone(&mut self, txn: TxnId, effects: &mut Out) {
        self.counters.unknown += 1;
        let active = self.forget(txn);
        let replica = active.participants[0];
        for request in active.waiters {
            let reason = format!("{replica}, which decides alone, has not said how {txn} ended");
            reply_failed(request, Failure::Unknown { reason }, effects);
        }
    }

    /// Over a broken link nothing comes. Who is expected back, or left out, is waited for.
    pub(super) fn lose_votes_of(&mut self, peer: NodeId, effects: &mut Out) {
        let mut away = self.unreachable();
        away.push(peer);
        if !self.may_wait_for(&away) {
            for replica in away {
                self.give_up_votes_of(replica, effects);
            }
        }
    }

    fn give_up_votes_of(&mut self, peer: NodeId, effects: &mut Out) {
        let waits_for = |active: &Active| match &active.phase {
            // Who has voted yes has promised: that its link broke since changes nothing.
            Phase::Voting { missing } => missing.contains(&peer),
            Phase::Alone => active.participants.contains(&peer),
            Phase::Committing { .. } | Phase::Committed { .. } | Phase::Aborting { .. } => false,
        };
        let given_up: Vec<TxnId> = self
            .transactions
            .iter()
            .filter(|(_, active)| waits_for(active))
            .map(|(txn, _)| txn)
            .collect();
        for txn in given_up {
            let reason = format!("the link to {peer} broke before it voted");
            self.give_up(txn, reason, effects);
        }
    }

    fn give_up(&mut self, txn: TxnId, reason: String, effects: &mut Out) {
        match self.transactions[&txn].phase {
            Phase::Alone if !self.is_gathered(txn) => self.unknown_alone(txn, effects),
            Phase::Alone | Phase::Voting { .. } => {
                self.abort(txn, None, Failure::Unavailable { reason }, effects);
            }
            Phase::Committing { .. } | Phase::Committed { .. } | Phase::Aborting { .. } => {
                unreachable!("what is decided is never given up")
            }
        }
    }

    pub(super) fn transaction_alarm(&mut self, now: Time, txn: TxnId, effects: &mut Out) {
        let active = self.transactions.get_mut(&txn).expect("what is over has no alarm");
        active.alarm = None;
        if active.batch == Membership::Gathered {
            let reason = String::from("its time was over before the replicas were asked");
            return self.give_up(txn, reason, effects);
        }
        match &active.phase {
            Phase::Voting { missing } => {
                let reason = format!("no vote from {} in time", names(missing));
                if self.options.planted.has(Bug::CountLateYes) && !active.waiters.is_empty() {
                    let alarm = now.after(self.options.vote_timeout);
                    active.alarm = Some(alarm);
                    self.alarms.set(alarm, Alarm::Transaction(txn));
                    for request in core::mem::take(&mut active.waiters) {
                        let failure = Failure::Unavailable { reason: reason.clone() };
                        reply_failed(request, failure, effects);
                    }
                    return;
                }
                self.give_up(txn, reason, effects);
            }
            Phase::Alone => self.unknown_alone(txn, effects),
            Phase::Committed { .. } => self.resend_commit(now, txn, effects),
            Phase::Committing { .. } | Phase::Aborting { .. } => {
                unreachable!("the log says when a decision is durable")
            }
        }
    }

    /// Forgets a transaction and all it holds.
    pub(super) fn forget(&mut self, txn: TxnId) -> Active {
        let active = self.transactions.remove(&txn).expect("only what is known is forgotten");
        if let Some(at) = active.alarm {
            self.alarms.cancel(at, Alarm::Transaction(txn));
        }
        self.forget_stamp(active.stamp);
        self.locks.release(txn, &active.locks);
        self.in_flight_bytes -= active.bytes;
        self.leave_batch(txn, active.batch);
        active
    }

    pub(super) fn remember_stamp(&mut self, stamp: Stamp, txn: TxnId) {
        if self.by_stamp.insert((stamp.client, stamp.sequence), txn).is_none() {
            *self.in_flight_of.entry(stamp.client).or_default() += 1;
        }
    }

    fn forget_stamp(&mut self, stamp: Option<Stamp>) {
        let Some(stamp) = stamp else { return };
        if self.by_stamp.remove(&(stamp.client, stamp.sequence)).is_none() {
            return;
        }
        let in_flight = self.in_flight_of.get_mut(&stamp.client);
        let in_flight = in_flight.expect("a stamp in flight is counted");
        *in_flight -= 1;
        if *in_flight == 0 {
            self.in_flight_of.remove(&stamp.client);
        }
    }

    pub(super) fn send_decision(
        &mut self,
        to: NodeId,
        txn: TxnId,
        decision: Decision,
        effects: &mut Out,
    ) {
        match decision {
            Decision::Commit(CommitNumber(_)) => self.counters.commits_sent += 1,
            Decision::Abort => self.counters.aborts_sent += 1,
        }
        let finished_below = self.finished_below();
        let message = Message::Decide { txn, decision, finished_below, epoch: self.epoch };
        let decide = Effect::Send { to, message };
        effects.push_held(decide, self.options.planted.has(Bug::TellBeforeDecisionDurable));
    }
}

fn fail_all(waiters: Waiters, failure: &Failure, effects: &mut Out) {
    for request in waiters {
        reply_failed(request, failure.clone(), effects);
    }
}

/// What a client is told of a vote against its transaction.
fn failure_of(from: NodeId, txn: TxnId, vote: Vote) -> Failure {
    match vote {
        Vote::Conflict(key) => Failure::Conflict { key },
        Vote::PreconditionFailed { index, key } => Failure::PreconditionFailed { index, key },
        Vote::Overloaded => Failure::Overloaded,
        Vote::DiskFull => Failure::DiskFull { node: from },
        Vote::Failed(reason) => Failure::Storage { reason: format!("{from}: {reason}") },
        Vote::Refused => Failure::Unavailable { reason: format!("{from} has given {txn} up") },
        Vote::Yes | Vote::Committed => {
            Failure::Unavailable { reason: format!("{from} votes on {txn} out of turn") }
        }
    }
}
