//! Phase 1b: the promise, and what was accepted before it.

use alloc::vec::Vec;

use super::super::message::{Accepted, Ballot, Message, Promise, Slot};
use super::super::record::Record;
use super::super::{Out, Replica, Resume};
use crate::contract::{Effect, NodeId, Time, Urgency};
use crate::paxos::planted::Bug;
use crate::paxos::points;

impl Replica {
    pub(in crate::paxos) fn prepare(
        &mut self,
        now: Time,
        from: NodeId,
        ballot: Ballot,
        first: Slot,
        effects: &mut Out,
    ) {
        if ballot.node != from || ballot == Ballot::ZERO {
            self.counters.strange_dropped += 1;
            return;
        }
        if !self.is_member() {
            self.counters.dropped_not_serving += 1;
            return;
        }
        self.proposer.see(ballot);
        let promises_all = self.options.planted.has(Bug::PromiseBelowPromise);
        let is_too_late = ballot < self.acceptor.promised && !promises_all;
        if is_too_late || self.has_leased_to_another(now, from) {
            return self.refuse(from, effects);
        }
        if ballot == self.acceptor.promised {
            // Before its record is durable the promise may not go, and after it goes by itself.
            if ballot <= self.acceptor.durable {
                let message = Message::Promise(self.promise(ballot, first));
                self.counters.promises_sent += 1;
                effects.push_unheld(Effect::Send { to: from, message });
            }
            return;
        }
        if !self.has_room {
            self.counters.disk_full += 1;
            return;
        }
        effects.point(points::ACCEPTOR_BEFORE_PROMISE);
        self.step_down_for(now, ballot, effects);
        self.proposer.wait_anew(now);
        self.promise_durably(ballot, effects);
        effects.point(points::ACCEPTOR_PROMISE_DURABLE);
        self.counters.promises_sent += 1;
        let message = Message::Promise(self.promise(ballot, first));
        let promise = Effect::Send { to: from, message };
        effects.push_held(promise, self.options.planted.has(Bug::PromiseBeforeDurable));
        effects.point(points::ACCEPTOR_PROMISE_SENT);
    }

    /// Writes the promise; what is pushed behind it waits until it is durable.
    pub(in crate::paxos) fn promise_durably(&mut self, ballot: Ballot, effects: &mut Out) {
        self.acceptor.promised = ballot;
        self.persist(Record::Promised { ballot }, Urgency::Now, effects);
        effects.push(Effect::Resume(Resume::Promised(ballot)));
    }

    /// A promise is durable, unless it was forgotten meanwhile.
    pub(in crate::paxos) fn promise_is_durable(&mut self, ballot: Ballot) {
        self.acceptor.durable = self.acceptor.durable.max(ballot).min(self.acceptor.promised);
    }

    /// What this acceptor has accepted from a slot on: per slot the ballot of its vote, never the
    /// promised one, or a proposer would take the wrong batch for the newest.
    pub(in crate::paxos) fn promise(&self, ballot: Ballot, first: Slot) -> Promise {
        let chosen = self.learner.applied;
        let mut promise =
            Promise { ballot, life: self.life, chosen, accepted: Vec::new(), more: None };
        let mut bytes = 0;
        for (slot, vote) in self.acceptor.votes.range(first.max(chosen.next())..) {
            if promise.accepted.len() >= self.options.piece_slots_max
                || (bytes > 0 && bytes + vote.bytes > self.options.piece_bytes_max)
            {
                promise.more = Some(*slot);
                break;
            }
            bytes += vote.bytes;
            let tells_promised = self.options.planted.has(Bug::TellPromisedBallot);
            let ballot = if tells_promised { ballot } else { vote.ballot };
            let batch = vote.batch.clone();
            promise.accepted.push(Accepted { slot: *slot, ballot, batch });
        }
        promise
    }
}
