//! What a coordinator looks at while it holds the locks of its own copy: the stamp, and what
//! preconditions speak of. Nobody else looks: whoever changes one of these keys needs this replica's
//! vote, which waits for these locks.

use alloc::string::String;
use alloc::vec::Vec;

use super::state::State;
use crate::contract::{Effect, Time, Urgency};
use crate::request::{Answer, Failure, Key, Outcome, Precondition, Query, Stamp};
use crate::sessions::Standing;
use crate::two_phase::any_replica::message::{Age, Settled, TxnId};
use crate::two_phase::any_replica::planted::Bug;
use crate::two_phase::any_replica::record::Record;
use crate::two_phase::any_replica::{Out, Replica, Resume};

impl Replica {
    /// The locks of this replica are held.
    pub(super) fn hold(&mut self, now: Time, age: Age, txn: TxnId, effects: &mut Out) {
        self.counters.tries += 1;
        let errand = self.errand(age);
        errand.obstacle = None;
        errand.state = State::Waiting(txn);
        if let Some(stamp) = errand.stamp
            && let Err(outcome) = self.check_standing(age, stamp)
        {
            return self.finish(age, &outcome, effects);
        }
        let keys: Vec<Key> =
            self.errand(age).preconditions.iter().map(|it| it.key().clone()).collect();
        if keys.is_empty() {
            return self.ask_others(now, age, txn, effects);
        }
        let read = self.next_read();
        self.coordinating.checks.insert(read, age);
        self.errand(age).state = State::Checking(txn, read);
        effects.push_unheld(Effect::read(read, Query::GetMany(keys)));
    }

    fn check_standing(&mut self, age: Age, stamp: Stamp) -> Result<(), Outcome> {
        match self.standing(stamp) {
            Standing::New => Ok(()),
            Standing::Settled(settled) => {
                let preconditions = self.errand(age).preconditions.clone();
                Err(self.settled_before(settled, &preconditions))
            }
            Standing::Stale => Err(Outcome::Failed(Failure::StaleSequence)),
            Standing::Expired => Err(Outcome::Failed(Failure::SessionExpired)),
            Standing::TooManyOutstanding => {
                let reason = alloc::format!(
                    "more than {} writes of one session without a word that they were answered",
                    self.options.outstanding_per_session_max
                );
                Err(Outcome::Failed(Failure::Invalid { reason }))
            }
        }
    }

    /// The store has answered what the preconditions speak of; the locks hold it still.
    pub(in crate::two_phase::any_replica) fn checked(
        &mut self,
        now: Time,
        age: Age,
        answer: Answer,
        effects: &mut Out,
    ) {
        let errand = self.errand(age);
        let State::Checking(txn, _) = errand.state else {
            unreachable!("a check that was given up is forgotten");
        };
        errand.state = State::Waiting(txn);
        match judge(&errand.preconditions, answer) {
            Ok(()) if errand.work.is_none() => {
                // It holds at this moment, at which nothing that was decided is missing here.
                self.counters.checked_alone += 1;
                let outcome = self.errand(age).outcome.clone();
                self.finish(age, &outcome, effects);
            }
            Ok(()) => self.ask_others(now, age, txn, effects),
            Err(failure) => self.refuse(age, txn, failure, effects),
        }
    }

    /// It does not happen. With a stamp this replica sees to it that no other try of it does, at
    /// whatever replica, before it says so: an earlier one may be on its way here.
    fn refuse(&mut self, age: Age, txn: TxnId, failure: Failure, effects: &mut Out) {
        let (stamp, index) = match (self.errand(age).stamp, &failure) {
            (Some(stamp), Failure::PreconditionFailed { index, .. }) => (stamp, *index),
            (_, Failure::PreconditionFailed { .. }) => {
                self.counters.preconditions_failed += 1;
                return self.finish(age, &Outcome::Failed(failure), effects);
            }
            _ => return self.fail(age, failure, effects),
        };
        self.counters.preconditions_failed += 1;
        if self.options.planted.has(Bug::RefusalForgotten) {
            return self.finish(age, &Outcome::Failed(failure), effects);
        }
        if !self.has_room {
            self.counters.disk_full += 1;
            let failure = Failure::DiskFull { node: self.options.id };
            return self.fail(age, failure, effects);
        }
        self.sessions.settle(stamp, Settled::Refused { precondition: index });
        self.set_errand_alarm(age, None);
        let errand = self.errand(age);
        errand.state = State::Refusing(txn);
        errand.outcome = Outcome::Failed(failure);
        self.persist(Record::Refused { stamp, precondition: index }, Urgency::Now, effects);
        effects.push(Effect::Resume(Resume::Refused(age)));
        // Until then the locks keep other tries from being told of what may be lost.
    }

    pub(in crate::two_phase::any_replica) fn refusal_is_durable(
        &mut self,
        age: Age,
        effects: &mut Out,
    ) {
        let outcome = self.errand(age).outcome.clone();
        self.finish(age, &outcome, effects);
    }
}

/// Whether all of them hold.
fn judge(preconditions: &[Precondition], answer: Answer) -> Result<(), Failure> {
    match answer {
        Answer::Values(values) if values.len() == preconditions.len() => {
            let failed = preconditions
                .iter()
                .zip(&values)
                .position(|(precondition, value)| !precondition.holds(value.as_ref()));
            failed.map_or(Ok(()), |index| {
                Err(Failure::PreconditionFailed {
                    index: u32::try_from(index).unwrap_or(u32::MAX),
                    key: preconditions[index].key().clone(),
                })
            })
        }
        Answer::Failed(reason) => Err(Failure::Storage { reason }),
        Answer::Values(_)
        | Answer::Value(_)
        | Answer::Rows { .. }
        | Answer::Page { .. }
        | Answer::NotHeld
        | Answer::TooManyHeld
        | Answer::TooLarge { .. } => {
            let reason = String::from("the store answered something else");
            Err(Failure::Storage { reason })
        }
    }
}
