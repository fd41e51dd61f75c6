//! The tries of an errand: from its age to the locks of this replica, and how it ends without a
//! commit.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use super::state::{Errand, State};
use crate::contract::{Effect, NodeId, Time};
use crate::request::{Failure, Outcome};
use crate::two_phase::any_replica::locks::{Asked, Resource, Wanted};
use crate::two_phase::any_replica::message::{Age, Decision, TxnId};
use crate::two_phase::any_replica::planted::Bug;
use crate::two_phase::any_replica::{Alarm, Out, Replica};
use crate::two_phase::names::names;

impl Replica {
    /// A number that no try had.
    pub(super) fn next_number(&mut self) -> TxnId {
        let txn = self.coordinating.next_txn(self.options.id, self.incarnation);
        self.coordinating.begun += 1;
        txn
    }

    pub(super) fn errand(&mut self, age: Age) -> &mut Errand {
        self.coordinating.errands.get_mut(&age).expect("an errand lasts until it is answered")
    }

    /// Asks for the locks of this replica first: who loses here costs nobody else anything.
    pub(super) fn start_try(&mut self, now: Time, age: Age, txn: TxnId, effects: &mut Out) {
        let mut wanted = self.errand(age).wanted.clone();
        if self.options.planted.has(Bug::OwnCopyUnlocked) {
            wanted = Arc::new(Wanted::default());
        }
        match self.locks.ask(txn, age, wanted) {
            Asked::Held => {
                self.use_number(age, txn);
                self.hold(now, age, txn, effects);
            }
            Asked::Waits => {
                self.counters.waited += 1;
                self.use_number(age, txn);
                self.errand(age).state = State::Waiting(txn);
            }
            Asked::Dies(resource) => self.park(age, resource),
        }
    }

    fn use_number(&mut self, age: Age, txn: TxnId) {
        self.coordinating.begun = self.coordinating.begun.max(txn.number);
        self.coordinating.tries.insert(txn, age);
    }

    /// Nobody was asked yet, so nothing is held anywhere: it waits here, without a claim, until what
    /// is in its way is let go. Nobody waits for it, so this closes no circle.
    fn park(&mut self, age: Age, resource: Resource) {
        self.counters.parked += 1;
        let errand = self.errand(age);
        errand.obstacle = Some(resource.clone());
        errand.state = State::Parked(resource.clone());
        self.coordinating.parked.entry(resource).or_default().insert(age);
    }

    /// This was let go, and handed on to those who have a claim. Those without one try in the order
    /// of their age, until one of them finds it taken again; then so do all behind it.
    pub(in crate::two_phase::any_replica) fn wake_parked(
        &mut self,
        now: Time,
        resource: &Resource,
        effects: &mut Out,
    ) {
        while let Some(age) = self.next_parked(resource) {
            let age = self.start_again(now, age, effects);
            let parked_again =
                self.coordinating.errands.get(&age).is_some_and(
                    |errand| matches!(&errand.state, State::Parked(on) if on == resource),
                );
            if parked_again {
                return;
            }
        }
    }

    fn next_parked(&mut self, resource: &Resource) -> Option<Age> {
        let parked = self.coordinating.parked.get_mut(resource)?;
        let age = parked.pop_first();
        if parked.is_empty() {
            self.coordinating.parked.remove(resource);
        }
        age
    }

    /// Another number, the same age: in time it is the oldest of all.
    fn start_again(&mut self, now: Time, mut age: Age, effects: &mut Out) -> Age {
        let txn = self.coordinating.next_txn(self.options.id, self.incarnation);
        if self.options.planted.has(Bug::YoungAgain) {
            age = self.rejuvenate(age, txn);
        }
        self.start_try(now, age, txn, effects);
        age
    }

    fn rejuvenate(&mut self, age: Age, txn: TxnId) -> Age {
        let younger = self.new_age(txn);
        let errand = self.coordinating.errands.remove(&age).expect("it is tried again");
        if let Some(alarm) = errand.alarm {
            self.alarms.cancel(alarm, Alarm::Errand(age));
            self.alarms.set(alarm, Alarm::Errand(younger));
        }
        if let Some(stamp) = errand.stamp {
            let flight = super::Flight::Errand(younger);
            self.coordinating.by_stamp.insert((stamp.client, stamp.sequence), flight);
        }
        self.coordinating.errands.insert(younger, errand);
        younger
    }

    /// A try that waited has the locks of this replica.
    pub(in crate::two_phase::any_replica) fn got_own_locks(
        &mut self,
        now: Time,
        txn: TxnId,
        effects: &mut Out,
    ) {
        let age = self.coordinating.tries[&txn];
        self.hold(now, age, txn, effects);
    }

    /// Somebody older was in the way at another replica. Tries again later, unless it has too often.
    pub(super) fn die(
        &mut self,
        now: Time,
        age: Age,
        refused: NodeId,
        obstacle: Resource,
        effects: &mut Out,
    ) {
        self.counters.died += 1;
        self.abort_try(age, Some(refused), effects);
        let tries_max = self.options.tries_max;
        let (first, max) = (self.options.back_off_first, self.options.back_off_max);
        let errand = self.errand(age);
        errand.obstacle = Some(obstacle);
        errand.deaths = errand.deaths.saturating_add(1);
        let deaths = errand.deaths;
        if deaths >= tries_max {
            return self.give_up(age, String::from("older transactions were in the way"), effects);
        }
        let wait = first.saturating_mul(2_u32.saturating_pow(deaths - 1)).min(max.max(first));
        let wait = self.some_of(wait);
        let errand = self.errand(age);
        errand.state = State::BackingOff;
        let alarm = now.after(wait).min(errand.deadline);
        self.set_errand_alarm(age, Some(alarm));
    }

    fn some_of(&mut self, wait: Duration) -> Duration {
        let most = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX).max(1);
        Duration::from_nanos(self.random.below(most) + 1)
    }

    pub(super) fn set_errand_alarm(&mut self, age: Age, alarm: Option<Time>) {
        let before = core::mem::replace(&mut self.errand(age).alarm, alarm);
        if let Some(at) = before {
            self.alarms.cancel(at, Alarm::Errand(age));
        }
        if let Some(at) = alarm {
            self.alarms.set(at, Alarm::Errand(age));
        }
    }

    pub(in crate::two_phase::any_replica) fn errand_alarm(
        &mut self,
        now: Time,
        age: Age,
        effects: &mut Out,
    ) {
        let errand = self.errand(age);
        errand.alarm = None;
        let is_late = now >= errand.deadline;
        match &errand.state {
            State::BackingOff if !is_late => {
                let deadline = errand.deadline;
                self.set_errand_alarm(age, Some(deadline));
                self.start_again(now, age, effects);
            }
            State::Voting { missing, .. } => {
                let reason = format!("no vote from {} in time", names(missing));
                self.abort_try(age, None, effects);
                self.fail(age, Failure::Unavailable { reason }, effects);
            }
            State::Parked(_) | State::BackingOff | State::Waiting(_) => {
                self.give_up(age, String::from("older transactions were in the way"), effects);
            }
            State::Checking(..) => {
                let reason = String::from("the store has not answered in time");
                self.fail(age, Failure::Unavailable { reason }, effects);
            }
            State::Refusing(_) => unreachable!("the log says when a refusal is durable"),
        }
    }

    /// It did not get what it needs in time.
    fn give_up(&mut self, age: Age, reason: String, effects: &mut Out) {
        self.counters.given_up += 1;
        let failure = match &self.errand(age).obstacle {
            Some(Resource::Key(key)) => Failure::Conflict { key: key.clone() },
            Some(Resource::Write(..) | Resource::Session(_)) => Failure::Unknown {
                reason: String::from("another try of this write is in flight, or in doubt"),
            },
            // It was older than all in its way, and waited for them.
            None => Failure::Unavailable { reason },
        };
        self.fail(age, failure, effects);
    }

    pub(super) fn fail(&mut self, age: Age, failure: Failure, effects: &mut Out) {
        // Its own claim does not count.
        self.let_go(age);
        let stamp = self.errand(age).stamp;
        let failure = self.unless_in_flight(stamp, failure);
        match failure {
            Failure::Conflict { .. } => self.counters.conflicts += 1,
            Failure::Unavailable { .. } => self.counters.unavailable += 1,
            Failure::Unknown { .. } => self.counters.unknown += 1,
            _ => {}
        }
        self.finish(age, &Outcome::Failed(failure), effects);
    }

    /// Answers everybody who waits, and forgets the errand.
    pub(super) fn finish(&mut self, age: Age, outcome: &Outcome, effects: &mut Out) {
        let errand = self.forget_errand(age);
        if let Some(stamp) = errand.stamp {
            self.coordinating.by_stamp.remove(&(stamp.client, stamp.sequence));
        }
        for request in errand.waiters {
            effects.push_unheld(Effect::Reply { request, outcome: outcome.clone() });
        }
    }

    /// Forgets an errand, its alarm, its place where it is parked, and what it holds here.
    pub(super) fn forget_errand(&mut self, age: Age) -> Errand {
        self.set_errand_alarm(age, None);
        self.let_go(age);
        let errand = self.coordinating.errands.remove(&age).expect("it was there a moment ago");
        self.coordinating.errand_bytes -= errand.bytes;
        errand
    }

    /// Ends what the errand waits for at this replica.
    fn let_go(&mut self, age: Age) {
        let errand = self.errand(age);
        match core::mem::replace(&mut errand.state, State::BackingOff) {
            State::BackingOff => {}
            State::Parked(resource) => {
                if let Some(parked) = self.coordinating.parked.get_mut(&resource) {
                    parked.remove(&age);
                    if parked.is_empty() {
                        self.coordinating.parked.remove(&resource);
                    }
                }
            }
            State::Checking(txn, read) => {
                self.coordinating.checks.remove(&read);
                self.end_try(txn);
            }
            State::Waiting(txn) | State::Voting { txn, .. } | State::Refusing(txn) => {
                self.end_try(txn);
            }
        }
    }

    fn end_try(&mut self, txn: TxnId) {
        self.coordinating.tries.remove(&txn);
        self.locks.release(txn);
    }

    /// Undoes a try that others were asked about. Nothing is written: what is not known is aborted.
    /// `refused` keeps nothing, so it is not told.
    pub(super) fn abort_try(&mut self, age: Age, refused: Option<NodeId>, effects: &mut Out) {
        let State::Voting { txn, .. } = self.errand(age).state else {
            unreachable!("nobody else was asked");
        };
        self.counters.aborted += 1;
        self.let_go(age);
        for to in self.others.clone().iter().filter(|to| Some(**to) != refused) {
            if self.peers_up.contains(to) {
                self.send_decision(*to, txn, Decision::Abort, effects);
            }
        }
    }

    /// A link stands anew; what was sent over the old one may be lost.
    pub(in crate::two_phase::any_replica) fn give_up_votes_of(
        &mut self,
        peer: NodeId,
        effects: &mut Out,
    ) {
        let waits_for = |errand: &Errand| {
            // Who has voted yes has promised: that its link broke since changes nothing.
            matches!(&errand.state, State::Voting { missing, .. } if missing.contains(&peer))
        };
        for age in self.ages_of(waits_for) {
            let reason = format!("the link to {peer} broke before it voted");
            self.abort_try(age, None, effects);
            self.fail(age, Failure::Unavailable { reason }, effects);
        }
    }

    /// A replica can't be reached: what has not got its vote will not get it.
    pub(in crate::two_phase::any_replica) fn give_up_what_needs(
        &mut self,
        peer: NodeId,
        effects: &mut Out,
    ) {
        self.give_up_votes_of(peer, effects);
        let needs = |errand: &Errand| {
            let has_asked = matches!(errand.state, State::Voting { .. } | State::Refusing(_));
            errand.work.is_some() && !has_asked
        };
        for age in self.ages_of(needs) {
            let reason = format!("a write needs every replica, and {peer} is not reachable");
            self.fail(age, Failure::Unavailable { reason }, effects);
        }
    }

    fn ages_of(&self, is_meant: impl Fn(&Errand) -> bool) -> Vec<Age> {
        let errands = self.coordinating.errands.iter();
        errands.filter(|(_, errand)| is_meant(errand)).map(|(age, _)| *age).collect()
    }
}
