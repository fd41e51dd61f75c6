//! From the prepares to the decision.

use alloc::format;
use alloc::vec::Vec;

use super::Flight;
use super::state::{Commit, Errand, State};
use crate::contract::{Effect, NodeId, Time, Urgency};
use crate::request::{Failure, Outcome};
use crate::two_phase::any_replica::locks::Resource;
use crate::two_phase::any_replica::message::{Age, Decision, Message, Prepare, TxnId, Vote};
use crate::two_phase::any_replica::planted::Bug;
use crate::two_phase::any_replica::record::{Committed, Record};
use crate::two_phase::any_replica::{Alarm, Out, Replica, Resume, apply, points};

impl Replica {
    /// The locks of this copy are held, and what has to hold does.
    pub(super) fn ask_others(&mut self, now: Time, age: Age, txn: TxnId, effects: &mut Out) {
        if let Err(failure) = self.check_reach() {
            return self.fail(age, failure, effects);
        }
        effects.point_unheld(points::COORDINATOR_BEGUN);
        if self.others.is_empty() {
            return self.commit(age, txn, effects);
        }
        let missing = self.others.to_vec();
        let alarm = now.after(self.options.vote_timeout);
        let errand = self.errand(age);
        let alarm = alarm.min(errand.deadline);
        errand.state = State::Voting { txn, missing };
        let work = errand.work.clone().expect("what only looks asks nobody else");
        self.set_errand_alarm(age, Some(alarm));
        let prepare = Prepare {
            txn,
            age,
            participants: self.replicas.clone(),
            work,
            finished_below: self.own_finished_below(),
        };
        for (index, to) in self.others.clone().iter().enumerate() {
            self.counters.prepares_sent += 1;
            let message = Message::Prepare(prepare.clone());
            effects.push_unheld(Effect::Send { to: *to, message });
            if index == 0 {
                effects.point_unheld(points::COORDINATOR_SOME_PREPARES_SENT);
            }
        }
    }

    pub(in crate::two_phase::any_replica) fn vote(
        &mut self,
        now: Time,
        from: NodeId,
        txn: TxnId,
        vote: Vote,
        clock: u64,
        effects: &mut Out,
    ) {
        if !self.is_mine(txn) {
            self.counters.strange_dropped += 1;
            return;
        }
        self.clock = self.clock.max(clock);
        let age = self.coordinating.tries.get(&txn).copied();
        let voting = age.and_then(|age| {
            let errand = self.coordinating.errands.get_mut(&age)?;
            match &mut errand.state {
                State::Voting { missing, .. } => Some((age, missing)),
                _ => None,
            }
        });
        let Some((age, missing)) = voting else {
            return self.late_vote(from, txn, &vote, effects);
        };
        let Some(index) = missing.iter().position(|replica| *replica == from) else {
            self.counters.duplicates_dropped += 1;
            return;
        };
        missing.swap_remove(index);
        let is_last = missing.is_empty();
        match vote {
            Vote::Yes if is_last => self.commit(age, txn, effects),
            Vote::Yes => {}
            vote => self.voted_no(now, from, age, vote, effects),
        }
    }

    /// A vote on what is decided, or over. Whoever says yes waits for the outcome: there was none to
    /// commit, or it has been acknowledged by this very participant, who then ignores the answer.
    fn late_vote(&mut self, from: NodeId, txn: TxnId, vote: &Vote, effects: &mut Out) {
        self.counters.duplicates_dropped += 1;
        if *vote != Vote::Yes {
            return;
        }
        match self.coordinating.commits.get(&txn) {
            None => self.send_decision(from, txn, Decision::Abort, effects),
            // It is told as soon as the decision is durable.
            Some(commit) if commit.work.is_some() => {}
            Some(commit) if commit.unacknowledged.contains(&from) => {
                self.send_decision(from, txn, Decision::Commit, effects);
            }
            Some(_) => {}
        }
    }

    fn voted_no(&mut self, now: Time, from: NodeId, age: Age, vote: Vote, effects: &mut Out) {
        let stamp = self.errand(age).stamp;
        let failure = match vote {
            Vote::Conflict(key) => {
                return self.die(now, age, from, Resource::Key(key), effects);
            }
            Vote::InFlight if let Some(stamp) = stamp => {
                let obstacle = Resource::Write(stamp.client, stamp.sequence);
                return self.die(now, age, from, obstacle, effects);
            }
            Vote::Settled(settled) => {
                let preconditions = self.errand(age).preconditions.clone();
                let outcome = self.settled_before(settled, &preconditions);
                self.abort_try(age, Some(from), effects);
                return self.finish(age, &outcome, effects);
            }
            Vote::StaleSequence => Failure::StaleSequence,
            Vote::SessionExpired => Failure::SessionExpired,
            Vote::Overloaded => Failure::Overloaded,
            Vote::DiskFull => Failure::DiskFull { node: from },
            Vote::Refused => Failure::Unavailable { reason: format!("{from} has given it up") },
            Vote::Absent => Failure::Unavailable { reason: format!("{from} takes no part yet") },
            Vote::InFlight | Vote::Yes => {
                Failure::Unavailable { reason: format!("{from} votes out of turn") }
            }
        };
        self.abort_try(age, Some(from), effects);
        self.fail(age, failure, effects);
    }

    /// Everybody has promised, and this replica with the record: from when it is durable on, it has
    /// happened.
    fn commit(&mut self, age: Age, txn: TxnId, effects: &mut Out) {
        self.counters.committed += 1;
        self.set_errand_alarm(age, None);
        let errand = self.coordinating.errands.remove(&age).expect("it is being decided");
        self.coordinating.errand_bytes -= errand.bytes;
        self.coordinating.committing_bytes += errand.bytes;
        self.coordinating.tries.remove(&txn);
        let Errand { waiters, stamp, work, outcome, bytes, .. } = errand;
        let work = work.expect("what only looks commits nothing");
        if let Some(stamp) = stamp {
            let name = (stamp.client, stamp.sequence);
            self.coordinating.by_stamp.insert(name, Flight::Commit(txn));
        }
        let commit = Commit {
            age,
            work: Some(work.clone()),
            waiters: Vec::new(),
            stamp,
            bytes,
            unacknowledged: self.others.to_vec(),
            alarm: None,
        };
        self.coordinating.commits.insert(txn, commit);

        effects.point(points::COORDINATOR_ALL_VOTES);
        if self.options.planted.has(Bug::ApplyBeforeDecisionDurable) {
            apply(&work, self.last.next(), effects);
        }
        effects.point(points::COORDINATOR_DECISION_WRITTEN);
        let participants = self.others.clone();
        let record = Committed { txn, age, participants: participants.clone(), work };
        self.persist(Record::Committed(record), Urgency::Now, effects);
        effects.point(points::COORDINATOR_DECISION_DURABLE);
        for (index, to) in participants.iter().enumerate() {
            let decide = self.decision_for(*to, txn, Decision::Commit);
            effects.push_held(decide, self.options.planted.has(Bug::TellBeforeDecisionDurable));
            if index == 0 {
                effects.point(points::COORDINATOR_SOME_TOLD);
            }
        }
        effects.point(points::COORDINATOR_BEFORE_REPLY);
        for request in waiters {
            let reply = Effect::Reply { request, outcome: outcome.clone() };
            effects.push_held(reply, self.options.planted.has(Bug::AnswerBeforeDecisionDurable));
        }
        effects.point(points::COORDINATOR_AFTER_REPLY);
        effects.push(Effect::Resume(Resume::Committed(txn)));
    }

    /// It has happened, everybody is being told, and now it is done on this copy too. That has a
    /// record of its own, since others' commits may have been applied since the decision was
    /// written: marks never fall.
    pub(in crate::two_phase::any_replica) fn commit_is_durable(
        &mut self,
        now: Time,
        txn: TxnId,
        effects: &mut Out,
    ) {
        let alarm = now.after(self.options.resend_interval);
        let commit = self.coordinating.commits.get_mut(&txn).expect("it lasts until it is applied");
        let work = commit.work.take().expect("a commit becomes durable once");
        self.coordinating.committing_bytes -= core::mem::take(&mut commit.bytes);
        let waiters = core::mem::take(&mut commit.waiters);
        if let Some(stamp) = commit.stamp.take() {
            self.coordinating.by_stamp.remove(&(stamp.client, stamp.sequence));
        }
        match commit.unacknowledged.is_empty() {
            true => {
                self.coordinating.commits.remove(&txn);
            }
            false => {
                commit.alarm = Some(alarm);
                self.alarms.set(alarm, Alarm::Commit(txn));
            }
        }
        if !self.options.planted.has(Bug::ApplyBeforeDecisionDurable) {
            apply(&work, self.last.next(), effects);
        }
        self.settle(&work);
        let decision = Decision::Commit;
        self.persist(Record::Decided { txn, decision }, Urgency::Soon, effects);
        self.locks.release(txn);
        for request in waiters {
            effects.push_unheld(Effect::Reply { request, outcome: Outcome::Committed });
        }
        self.checkpoint_if_small(effects);
    }

    /// Tells an abort, or again of a commit that is durable: neither rests on a record of this step.
    pub(super) fn send_decision(
        &mut self,
        to: NodeId,
        txn: TxnId,
        decision: Decision,
        effects: &mut Out,
    ) {
        let decide = self.decision_for(to, txn, decision);
        effects.push_unheld(decide);
    }

    fn decision_for(
        &mut self,
        to: NodeId,
        txn: TxnId,
        decision: Decision,
    ) -> Effect<Message, Record, Resume> {
        match decision {
            Decision::Commit => self.counters.commits_sent += 1,
            Decision::Abort => self.counters.aborts_sent += 1,
        }
        let finished_below = self.own_finished_below();
        Effect::Send { to, message: Message::Decide { txn, decision, finished_below } }
    }

    /// Of this replica's own transactions, everything below the answer is over.
    pub(in crate::two_phase::any_replica) fn own_finished_below(&self) -> TxnId {
        let next = self.coordinating.next_txn(self.options.id, self.incarnation);
        self.coordinating.oldest().unwrap_or(next)
    }
}
