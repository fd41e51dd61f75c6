//! From a prepare to the vote.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::state::{Promised, Stage};
use super::{Alarm, Out, Participant, ParticipantResume};
use crate::contract::{Effect, NodeId, Time, Urgency};
use crate::request::{Answer, Key, Query};
use crate::two_phase::locks::LockSet;
use crate::two_phase::message::{Decision, Message, Prepare, TxnId, Vote};
use crate::two_phase::planted::Bug;
use crate::two_phase::points;
use crate::two_phase::record::ParticipantRecord;

impl Participant {
    pub(super) fn prepare(&mut self, from: NodeId, prepare: &Prepare, effects: &mut Out) {
        if !self.is_sensible(from, prepare) {
            self.counters.strange_dropped += 1;
            return;
        }
        if !self.is_current() {
            return self.put_off(from, prepare, effects);
        }
        self.counters.prepares += 1;
        self.adopt(prepare.finished_below, effects);
        if self.is_known(prepare, effects) || self.joins_retry(prepare) {
            return;
        }
        match self.admit(prepare) {
            Ok((locks, bytes)) => self.begin(prepare, locks, bytes, effects),
            // One phase, and the stamp is of a write that is committed already.
            Err(Vote::Committed) => self.send_vote(prepare.txn, Vote::Committed, effects),
            Err(vote) => self.vote_no(prepare.txn, vote, prepare.one_phase.is_some(), effects),
        }
    }

    /// What a coordinator of ours would say. Anything else is a bug or an attack, and not answered.
    fn is_sensible(&self, from: NodeId, prepare: &Prepare) -> bool {
        let txn = prepare.txn;
        from == NodeId::COORDINATOR
            && txn.coordinator == from
            && prepare.finished_below.coordinator == from
            && prepare.finished_below <= txn
            && prepare.participants.contains(&self.options.id)
            && (prepare.one_phase.is_none() || prepare.participants.len() == 1)
            && (prepare.one_phase.is_none() || prepare.parallel.is_none())
    }

    /// Answers a prepare of a transaction that was heard of before.
    fn is_known(&mut self, prepare: &Prepare, effects: &mut Out) -> bool {
        let txn = prepare.txn;
        if let Some(promised) = self.transactions.get(&txn) {
            self.counters.duplicates_dropped += 1;
            // Before its record is durable the vote may not go, and after it goes by itself.
            if matches!(promised.stage, Stage::Prepared { .. }) {
                self.send_vote(txn, Vote::Yes, effects);
            }
            return true;
        }
        let looks_back = !self.options.planted.has(Bug::PrepareAfterDecision);
        if let Some(decided) = self.decided.get(&txn).filter(|_| looks_back) {
            let (decision, durable) = (decided.decision, decided.durable);
            self.counters.duplicates_dropped += 1;
            match decision {
                Decision::Commit(number) if durable => {
                    self.say_committed(txn, number, effects);
                }
                Decision::Commit(_) => {}
                // The vote said why. Without that, the coordinator would take it for the stamp's
                // fault; without an answer it says "unknown".
                Decision::Abort if prepare.one_phase.is_some() => {}
                Decision::Abort => self.send_vote(txn, Vote::Refused, effects),
            }
            return true;
        }
        if self.is_before_joining(txn)
            || txn < self.finished_below && !self.options.planted.has(Bug::StalePrepare)
        {
            self.counters.duplicates_dropped += 1;
            self.send_vote(txn, Vote::Refused, effects);
            return true;
        }
        if txn.epoch < self.promised {
            self.counters.refused_by_promise += 1;
            self.send_vote(txn, Vote::Refused, effects);
            return true;
        }
        false
    }

    /// Takes the locks of a new transaction, or says why not.
    fn admit(&mut self, prepare: &Prepare) -> Result<(LockSet, usize), Vote> {
        let bytes = self.options.limits.check(&prepare.transaction).map_err(|_| Vote::Refused)?;
        if self.transactions.len() >= self.options.prepared_max
            || self.decided.len() >= self.options.decided_max
            || self.prepared_bytes.saturating_add(bytes) > self.options.prepared_bytes_max
        {
            return Err(Vote::Overloaded);
        }
        if let Some(one_phase) = &prepare.one_phase {
            self.check_stamp(one_phase.stamp)?;
        }
        if !self.has_room {
            return Err(Vote::DiskFull);
        }
        let locks = LockSet::of(&prepare.transaction).planted(self.options.planted);
        self.locks.acquire(prepare.txn, &locks).map_err(Vote::Conflict)?;
        Ok((locks, bytes))
    }

    fn begin(&mut self, prepare: &Prepare, locks: LockSet, bytes: usize, effects: &mut Out) {
        let Prepare { txn, one_phase, parallel, finished_below, .. } = *prepare;
        let (participants, transaction) =
            (Arc::clone(&prepare.participants), Arc::clone(&prepare.transaction));
        let read = self.next_read();
        let stage = Stage::Checking { read, one_phase };
        self.prepared_bytes += bytes;
        self.transactions.insert(
            txn,
            Promised { participants, transaction, parallel, finished_below, locks, bytes, stage },
        );
        let preconditions = &prepare.transaction.preconditions;
        if preconditions.is_empty() {
            self.promise(txn, effects);
        } else {
            let keys = preconditions.iter().map(|precondition| precondition.key().clone());
            let keys: Vec<Key> = keys.collect();
            self.checks.insert(read, txn);
            effects.push_unheld(Effect::read(read, Query::GetMany(keys)));
        }
    }

    /// The store has answered what the preconditions speak of; the locks hold it still.
    pub(super) fn checked(&mut self, txn: TxnId, answer: Answer, effects: &mut Out) {
        let promised = &self.transactions[&txn];
        let preconditions = &promised.transaction.preconditions;
        let vote = match answer {
            Answer::Values(values) if values.len() == preconditions.len() => {
                let failed = preconditions
                    .iter()
                    .zip(&values)
                    .position(|(precondition, value)| !precondition.holds(value.as_ref()));
                failed.map(|index| Vote::PreconditionFailed {
                    index: u32::try_from(index).unwrap_or(u32::MAX),
                    key: preconditions[index].key().clone(),
                })
            }
            Answer::Failed(reason) => Some(Vote::Failed(reason)),
            Answer::Values(_)
            | Answer::Value(_)
            | Answer::Rows { .. }
            | Answer::Page { .. }
            | Answer::NotHeld
            | Answer::TooManyHeld
            | Answer::TooLarge { .. } => {
                Some(Vote::Failed(String::from("the store answered something else")))
            }
        };
        match vote {
            None => self.promise(txn, effects),
            Some(vote) => {
                let promised = self.forget(txn);
                let one_phase =
                    matches!(promised.stage, Stage::Checking { one_phase: Some(_), .. });
                self.vote_no(txn, vote, one_phase, effects);
            }
        }
    }

    /// Everything holds: make it durable, and only then say yes.
    fn promise(&mut self, txn: TxnId, effects: &mut Out) {
        let promised = self.transactions.get_mut(&txn).expect("it is being checked");
        let stage = core::mem::replace(&mut promised.stage, Stage::Logging);
        if let Stage::Checking { one_phase: Some(one_phase), .. } = stage {
            return self.commit_alone(txn, one_phase.stamp, effects);
        }
        let record = promised.record(txn);
        effects.point(points::PARTICIPANT_BEFORE_VOTE);
        self.persist(ParticipantRecord::Prepared(Box::new(record)), Urgency::Now, effects);
        effects.point(points::PARTICIPANT_VOTE_DURABLE);
        self.counters.votes_yes_sent += 1;
        let message = Message::Vote { txn, vote: Vote::Yes };
        let vote = Effect::Send { to: txn.coordinator, message };
        effects.push_held(vote, self.options.planted.has(Bug::VoteBeforePreparedDurable));
        effects.point(points::PARTICIPANT_VOTE_SENT);
        effects.push(Effect::Resume(ParticipantResume::Prepared(txn)));
    }

    /// From here on others decide.
    pub(super) fn vote_has_gone(&mut self, now: Time, txn: TxnId) {
        let doubt_from = self.doubt_begins(now);
        // It may have been aborted while its record was on the way.
        let Some(promised) = self.transactions.get_mut(&txn) else { return };
        promised.stage = Stage::Prepared {
            doubt_from,
            alarm: Some(doubt_from),
            inquiries: 0,
            reads: BTreeSet::new(),
            commit: None,
        };
        self.alarms.set(doubt_from, Alarm::Inquire(txn));
    }

    fn vote_no(&mut self, txn: TxnId, vote: Vote, one_phase: bool, effects: &mut Out) {
        match vote {
            Vote::Conflict(_) => self.counters.conflicts += 1,
            Vote::PreconditionFailed { .. } => self.counters.preconditions_failed += 1,
            Vote::Overloaded => self.counters.overloaded += 1,
            Vote::DiskFull => self.counters.disk_full += 1,
            Vote::Refused | Vote::Failed(_) => self.counters.refused += 1,
            Vote::Yes | Vote::Committed => unreachable!("these are no refusals"),
        }
        // Unanswered if there is no room to remember it: the coordinator then says "unknown".
        if !one_phase || self.remember_refusal(txn) {
            self.send_vote(txn, vote, effects);
        }
    }

    /// Sends a vote that rests on no record of this step.
    pub(super) fn send_vote(&mut self, txn: TxnId, vote: Vote, effects: &mut Out) {
        match vote {
            Vote::Yes | Vote::Committed => self.counters.votes_yes_sent += 1,
            _ => self.counters.votes_no_sent += 1,
        }
        let message = Message::Vote { txn, vote };
        effects.push_unheld(Effect::Send { to: txn.coordinator, message });
    }

    /// Forgets a transaction that is being prepared, its locks and its alarm. Reads that wait for
    /// it are the caller's to wake.
    pub(super) fn forget(&mut self, txn: TxnId) -> Promised {
        let promised = self.transactions.remove(&txn).expect("only what is known is forgotten");
        match &promised.stage {
            Stage::Checking { read, .. } => {
                self.checks.remove(read);
            }
            Stage::Prepared { alarm: Some(alarm), .. } => {
                self.alarms.cancel(*alarm, Alarm::Inquire(txn));
            }
            Stage::Prepared { alarm: None, .. } | Stage::Logging | Stage::Alone(_) => {}
        }
        self.locks.release(txn, &promised.locks);
        self.prepared_bytes -= promised.bytes;
        promised
    }

    /// When a transaction that is prepared now begins to be in doubt: not all at the same moment.
    pub(super) fn doubt_begins(&mut self, now: Time) -> Time {
        let wait = self.options.inquire_after;
        let spread = u64::try_from(wait.as_nanos() / 4).unwrap_or(u64::MAX).max(1);
        let jitter = core::time::Duration::from_nanos(self.random.below(spread));
        now.after(wait).after(jitter)
    }
}
