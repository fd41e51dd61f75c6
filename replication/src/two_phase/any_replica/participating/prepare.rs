//! From a prepare to the vote.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use super::{Doubt, Promised, Stage};
use crate::contract::{Effect, NodeId, Time, Urgency};
use crate::limits::Limits;
use crate::request::{Precondition, Stamp, Transaction};
use crate::sessions::Standing;
use crate::two_phase::any_replica::locks::{Asked, Resource, Wanted};
use crate::two_phase::any_replica::message::{Decision, Message, Prepare, TxnId, Vote, Work};
use crate::two_phase::any_replica::planted::Bug;
use crate::two_phase::any_replica::record::Record;
use crate::two_phase::any_replica::{Alarm, Out, Replica, Resume, points};

impl Replica {
    pub(in crate::two_phase::any_replica) fn prepare(
        &mut self,
        from: NodeId,
        prepare: Prepare,
        effects: &mut Out,
    ) {
        let Some(bytes) = self.sensible_bytes(from, &prepare) else {
            self.counters.strange_dropped += 1;
            return;
        };
        self.clock = self.clock.max(prepare.age.clock);
        self.adopt(prepare.finished_below, effects);
        if self.is_known(&prepare, effects) {
            return;
        }
        let txn = prepare.txn;
        if let Err(vote) = self.may_take(&prepare, bytes) {
            return self.vote_no(txn, vote, effects);
        }
        self.drop_earlier_try(&prepare, effects);
        let work = self.seen_by_participants(&prepare.work);
        match self.locks.ask(txn, prepare.age, Arc::new(Wanted::of(&work))) {
            Asked::Dies(resource) => self.vote_no(txn, vote_of_death(resource), effects),
            Asked::Held => {
                self.take(prepare, work, bytes);
                self.got_locks(txn, effects);
            }
            Asked::Waits => {
                self.counters.waited += 1;
                self.take(prepare, work, bytes);
            }
        }
    }

    /// The bytes of what a coordinator of ours would ask. Anything else is a bug or an attack, and not
    /// answered.
    fn sensible_bytes(&self, from: NodeId, prepare: &Prepare) -> Option<usize> {
        let Prepare { txn, age, participants, work, finished_below } = prepare;
        let is_sensible = txn.coordinator == from
            && age.first.coordinator == from
            && age.first <= *txn
            && finished_below.coordinator == from
            && finished_below <= txn
            && *participants == self.replicas;
        is_sensible.then(|| bytes_of(work, &self.options.limits)).flatten()
    }

    /// What is left of it with a bug on purpose.
    fn seen_by_participants(&self, work: &Arc<Work>) -> Arc<Work> {
        match &**work {
            Work::Write { stamp: Some(_), writes, checked }
                if self.options.planted.has(Bug::RetryElsewhereIsNew) =>
            {
                let (writes, checked) = (writes.clone(), checked.clone());
                Arc::new(Work::Write { stamp: None, writes, checked })
            }
            _ => work.clone(),
        }
    }

    /// Answers a prepare of a transaction that was heard of before.
    fn is_known(&mut self, prepare: &Prepare, effects: &mut Out) -> bool {
        let txn = prepare.txn;
        if let Some(promised) = self.participating.promised.get(&txn) {
            self.counters.duplicates_dropped += 1;
            // Before its record is durable the vote may not go, and after it goes by itself.
            if matches!(promised.stage, Stage::Prepared(_)) {
                self.send_vote(txn, Vote::Yes, effects);
            }
            return true;
        }
        let looks_back = !self.options.planted.has(Bug::PrepareAfterDecision);
        let decided = self.participating.decided.get(&txn).copied().filter(|_| looks_back);
        if let Some(decided) = decided {
            self.counters.duplicates_dropped += 1;
            match decided.decision {
                Decision::Commit if decided.durable => self.acknowledge(txn, effects),
                Decision::Commit => {}
                Decision::Abort => self.send_vote(txn, Vote::Refused, effects),
            }
            return true;
        }
        let is_stale =
            self.participating.is_finished(txn) && !self.options.planted.has(Bug::StalePrepare);
        // A later try of the same transaction is here already.
        let is_outdone =
            self.participating.by_age.get(&prepare.age).is_some_and(|later| *later > txn);
        if is_stale || is_outdone {
            self.counters.duplicates_dropped += 1;
            self.send_vote(txn, Vote::Refused, effects);
        }
        is_stale || is_outdone
    }

    /// Whether there is room for it, and no read has waited too long for what it writes.
    fn may_take(&mut self, prepare: &Prepare, bytes: usize) -> Result<(), Vote> {
        let participating = &self.participating;
        if participating.promised.len() >= self.options.prepared_max
            || participating.decided.len() >= self.options.decided_max
            || participating.bytes.saturating_add(bytes) > self.options.prepared_bytes_max
        {
            return Err(Vote::Overloaded);
        }
        if !self.has_room {
            return Err(Vote::DiskFull);
        }
        match self.key_of_impatient_read(&prepare.work, prepare.age) {
            Some(key) => {
                self.counters.died_of_reads += 1;
                Err(Vote::Conflict(key))
            }
            None => Ok(()),
        }
    }

    /// Its coordinator has given an earlier try of it up before it began this one; the abort is late
    /// or lost.
    fn drop_earlier_try(&mut self, prepare: &Prepare, effects: &mut Out) {
        if let Some(earlier) = self.participating.by_age.get(&prepare.age).copied() {
            self.counters.superseded += 1;
            self.abort_promised(earlier, effects);
        }
    }

    fn take(&mut self, prepare: Prepare, work: Arc<Work>, bytes: usize) {
        let Prepare { txn, age, participants, work: _, finished_below } = prepare;
        self.participating.bytes += bytes;
        self.participating.by_age.insert(age, txn);
        let stage = Stage::Waiting;
        let promised = Promised { age, participants, work, finished_below, bytes, stage };
        self.participating.promised.insert(txn, promised);
    }

    /// All locks are held, so what the sessions say of its stamp stays true: make it durable, and only
    /// then say yes.
    pub(in crate::two_phase::any_replica) fn got_locks(&mut self, txn: TxnId, effects: &mut Out) {
        let promised = self.participating.promised.get_mut(&txn).expect("who has locks is known");
        let stamp = match &*promised.work {
            Work::Write { stamp, .. } => *stamp,
            Work::OpenSession { .. } => None,
        };
        if let Some(vote) = stamp.and_then(|stamp| self.vote_of_stamp(stamp)) {
            self.forget(txn);
            return self.vote_no(txn, vote, effects);
        }
        let promised = self.participating.promised.get_mut(&txn).expect("it was there just now");
        promised.stage = Stage::Logging;
        let record = promised.record(txn);
        effects.point(points::PARTICIPANT_BEFORE_VOTE);
        self.persist(Record::Prepared(record), Urgency::Now, effects);
        effects.point(points::PARTICIPANT_VOTE_DURABLE);
        self.counters.votes_yes_sent += 1;
        let message = Message::Vote { txn, vote: Vote::Yes, clock: self.clock };
        let vote = Effect::Send { to: txn.coordinator, message };
        effects.push_held(vote, self.options.planted.has(Bug::VoteBeforePreparedDurable));
        effects.point(points::PARTICIPANT_VOTE_SENT);
        effects.push(Effect::Resume(Resume::Prepared(txn)));
    }

    fn vote_of_stamp(&self, stamp: Stamp) -> Option<Vote> {
        match self.standing(stamp) {
            Standing::New => None,
            Standing::Settled(settled) => Some(Vote::Settled(settled)),
            Standing::Stale => Some(Vote::StaleSequence),
            Standing::Expired => Some(Vote::SessionExpired),
            Standing::TooManyOutstanding => Some(Vote::Overloaded),
        }
    }

    /// From here on others decide.
    pub(in crate::two_phase::any_replica) fn vote_has_gone(&mut self, now: Time, txn: TxnId) {
        let from = self.doubt_begins(now);
        // It may have been aborted while its record was on the way.
        let promised = self.participating.promised.get_mut(&txn);
        let Some(promised) = promised.filter(|it| it.stage == Stage::Logging) else { return };
        let doubt = Doubt { from, alarm: Some(from), inquiries: 0, reads: BTreeSet::new() };
        promised.stage = Stage::Prepared(doubt);
        self.alarms.set(from, Alarm::Inquire(txn));
    }

    fn vote_no(&mut self, txn: TxnId, vote: Vote, effects: &mut Out) {
        match vote {
            Vote::Overloaded => self.counters.overloaded += 1,
            Vote::DiskFull => self.counters.disk_full += 1,
            _ => {}
        }
        self.send_vote(txn, vote, effects);
    }

    /// Sends a vote that rests on no record of this step.
    pub(super) fn send_vote(&mut self, txn: TxnId, vote: Vote, effects: &mut Out) {
        match vote {
            Vote::Yes => self.counters.votes_yes_sent += 1,
            _ => self.counters.votes_no_sent += 1,
        }
        let message = Message::Vote { txn, vote, clock: self.clock };
        effects.push_unheld(Effect::Send { to: txn.coordinator, message });
    }

    /// A replica that takes no part yet says so, instead of letting a coordinator wait.
    pub(in crate::two_phase::any_replica) fn excuse(
        &mut self,
        from: NodeId,
        message: &Message,
        effects: &mut Out,
    ) {
        if let Message::Prepare(Prepare { txn, .. }) = message
            && txn.coordinator == from
            && !self.participating.promised.contains_key(txn)
        {
            self.send_vote(*txn, Vote::Absent, effects);
        }
    }

    /// Those of this coordinator that wait here will not be asked for their vote again: it gives up
    /// whoever's link broke.
    pub(in crate::two_phase::any_replica) fn drop_waiters_of(&mut self, coordinator: NodeId) {
        let waits = |(txn, promised): (&TxnId, &Promised)| {
            (txn.coordinator == coordinator && promised.stage == Stage::Waiting).then_some(*txn)
        };
        let dropped: Vec<TxnId> = self.participating.promised.iter().filter_map(waits).collect();
        for txn in dropped {
            self.counters.waiters_dropped += 1;
            self.forget(txn);
        }
    }

    /// Forgets a transaction without an outcome, its locks or its place in the queue, and its alarm.
    /// Reads that wait for it are the caller's to wake.
    pub(in crate::two_phase::any_replica) fn forget(&mut self, txn: TxnId) -> Promised {
        let promised = self.participating.promised.remove(&txn);
        let promised = promised.expect("only what is known is forgotten");
        if let Stage::Prepared(Doubt { alarm: Some(alarm), .. }) = &promised.stage {
            self.alarms.cancel(*alarm, Alarm::Inquire(txn));
        }
        self.participating.by_age.remove(&promised.age);
        self.participating.bytes -= promised.bytes;
        self.locks.release(txn);
        promised
    }

    /// When a transaction that is prepared now begins to be in doubt: not all at the same moment.
    pub(in crate::two_phase::any_replica) fn doubt_begins(&mut self, now: Time) -> Time {
        let wait = self.options.inquire_after;
        let spread = u64::try_from(wait.as_nanos() / 4).unwrap_or(u64::MAX).max(1);
        now.after(wait).after(Duration::from_nanos(self.random.below(spread)))
    }
}

fn vote_of_death(resource: Resource) -> Vote {
    match resource {
        Resource::Key(key) => Vote::Conflict(key),
        Resource::Session(_) | Resource::Write(..) => Vote::InFlight,
    }
}

/// The bytes of the keys and values, if they keep the limits.
fn bytes_of(work: &Work, limits: &Limits) -> Option<usize> {
    let Work::Write { writes, checked, .. } = work else { return Some(0) };
    let preconditions = checked.iter().cloned().map(Precondition::Present).collect();
    let transaction = Transaction { preconditions, writes: writes.clone() };
    limits.check(&transaction).ok().filter(|_| !writes.is_empty())
}
