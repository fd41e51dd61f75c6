//! The acceptor: promises, votes, and forgets neither.
//!
//! It answers only for what is durable: every answer stands behind its record, and a repeated
//! question is answered at once only if the record is known to be durable. A promise covers all
//! slots, to infinity (Paxos Made Simple §3).

mod lease;
mod prepare;

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use self::lease::Lease;
use super::message::{Ballot, Batch, Message, Slot};
use super::record::Record;
use super::{Out, Replica, Resume};
use crate::contract::{Effect, NodeId, Time, Urgency};
use crate::paxos::planted::{Bug, Planted};
use crate::paxos::points;

/// A vote in a slot.
#[derive(Clone, Debug)]
pub(super) struct Vote {
    pub(super) ballot: Ballot,
    pub(super) batch: Arc<Batch>,
    bytes: usize,
    is_durable: bool,
}

impl Vote {
    /// As a judge is told of it.
    pub(super) fn audit(&self, slot: Slot) -> (Slot, Ballot, Ballot, bool) {
        (slot, self.ballot, self.batch.origin, self.is_durable)
    }
}

/// What an acceptor knows.
#[derive(Clone, Debug)]
pub(super) struct Acceptor {
    /// Nothing below is accepted.
    promised: Ballot,
    /// The highest promise that would survive a crash.
    durable: Ballot,
    /// Votes in slots that are not applied here. What is applied is chosen, and needs none.
    votes: BTreeMap<Slot, Vote>,
    bytes: usize,
    lease: Lease,
}

impl Acceptor {
    pub(super) fn new() -> Self {
        Self {
            promised: Ballot::ZERO,
            durable: Ballot::ZERO,
            votes: BTreeMap::new(),
            bytes: 0,
            lease: Lease::new(),
        }
    }

    pub(super) fn promised(&self) -> Ballot {
        self.promised
    }

    /// The highest promise that would survive a crash.
    pub(super) fn promised_durably(&self) -> Ballot {
        self.durable
    }

    /// Of batches accepted and not applied.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn vote(&self, slot: Slot) -> Option<&Vote> {
        self.votes.get(&slot)
    }

    /// Votes in slots up to one, and cast with this ballot, if one is named.
    pub(super) fn votes_up_to(
        &self,
        slot: Slot,
        ballot: Option<Ballot>,
    ) -> impl Iterator<Item = (Slot, &Arc<Batch>)> {
        let cast =
            move |(_, vote): &(&Slot, &Vote)| ballot.is_none_or(|ballot| vote.ballot == ballot);
        self.votes.range(..=slot).filter(cast).map(|(slot, vote)| (*slot, &vote.batch))
    }

    pub(super) fn votes(&self) -> impl Iterator<Item = (Slot, &Vote)> {
        self.votes.iter().map(|(slot, vote)| (*slot, vote))
    }

    /// Takes back a promise from the log.
    pub(super) fn replay_promise(&mut self, ballot: Ballot) {
        self.promised = self.promised.max(ballot);
        self.durable = self.promised;
    }

    /// Takes back a vote from the log.
    pub(super) fn replay_vote(&mut self, slot: Slot, ballot: Ballot, batch: Arc<Batch>) {
        self.replay_promise(ballot);
        self.insert(slot, ballot, batch, true);
    }

    fn insert(&mut self, slot: Slot, ballot: Ballot, batch: Arc<Batch>, is_durable: bool) {
        let bytes = batch.bytes();
        self.bytes += bytes;
        let old = self.votes.insert(slot, Vote { ballot, batch, bytes, is_durable });
        self.bytes -= old.map_or(0, |vote| vote.bytes);
    }

    /// With bugs: what a restart leaves of it.
    pub(super) fn restarted(&mut self, planted: Planted) {
        if planted.has(Bug::ForgetPromiseAtRestart) {
            (self.promised, self.durable) = (Ballot::ZERO, Ballot::ZERO);
        }
        if planted.has(Bug::ForgetVotesAtRestart) {
            (self.votes, self.bytes) = (BTreeMap::new(), 0);
        }
    }

    /// Everything up to this slot is applied.
    pub(super) fn applied(&mut self, slot: Slot) {
        while let Some(vote) = self.votes.first_entry()
            && *vote.key() <= slot
        {
            self.bytes -= vote.remove().bytes;
        }
    }

    /// Loses everything, but for the lease that it may have given: nobody forgets the time.
    pub(super) fn forget(&mut self) {
        *self = Self { lease: self.lease.clone(), ..Self::new() };
    }
}

impl Replica {
    /// Phase 2b.
    pub(super) fn accept(
        &mut self,
        now: Time,
        from: NodeId,
        ballot: Ballot,
        slot: Slot,
        batch: Arc<Batch>,
        effects: &mut Out,
    ) {
        if ballot.node != from || slot == Slot::ZERO {
            self.counters.strange_dropped += 1;
            return;
        }
        let accepts_all = self.options.planted.has(Bug::AcceptBelowPromise);
        if ballot < self.acceptor.promised.max(self.proposer.leader_ballot()) && !accepts_all {
            return self.refuse(from, effects);
        }
        self.hear_leader(now, ballot, effects);
        if !self.is_member() {
            self.counters.dropped_not_serving += 1;
            return;
        }
        if slot <= self.learner.applied {
            // Chosen, so whatever this ballot proposes there is the same batch.
            return self.send_accepted(from, ballot, slot, effects);
        }
        if let Some(vote) = self.acceptor.votes.get(&slot)
            && vote.ballot == ballot
        {
            self.counters.duplicates_dropped += 1;
            // Before its record is durable the vote may not go, and after it goes by itself.
            if vote.is_durable {
                self.send_accepted(from, ballot, slot, effects);
            }
            return;
        }
        if self.has_room_for(slot, &batch) {
            effects.point(points::ACCEPTOR_BEFORE_ACCEPT);
            self.cast_vote(slot, ballot, batch, effects);
            effects.point(points::ACCEPTOR_ACCEPT_DURABLE);
            self.send_accepted_behind(from, ballot, slot, effects);
            effects.point(points::ACCEPTOR_ACCEPTED_SENT);
            effects.push(Effect::Resume(Resume::Voted { ballot, slot }));
        }
    }

    /// Whether this node can remember one vote more. A leader stays within its window behind what
    /// it has applied; one that is far ahead of this node can do without it for now.
    fn has_room_for(&mut self, slot: Slot, batch: &Batch) -> bool {
        if !self.has_room {
            self.counters.disk_full += 1;
            return false;
        }
        // A vote in the next slot is always taken: all the others wait for it, and with it go.
        let is_next = slot == self.learner.applied.next();
        let old = self.acceptor.votes.get(&slot).map_or(0, |vote| vote.bytes);
        let bytes = (self.acceptor.bytes - old).saturating_add(batch.bytes());
        if slot > self.learner.applied.plus(self.options.window.saturating_mul(4))
            || (bytes > self.options.accepted_bytes_max && !is_next)
        {
            self.counters.overloaded += 1;
            return false;
        }
        true
    }

    /// Writes the vote. It is one only once its record is durable.
    pub(super) fn cast_vote(
        &mut self,
        slot: Slot,
        ballot: Ballot,
        batch: Arc<Batch>,
        effects: &mut Out,
    ) {
        self.acceptor.promised = ballot;
        self.acceptor.insert(slot, ballot, batch.clone(), false);
        self.persist(Record::Accepted { slot, ballot, batch }, Urgency::Now, effects);
    }

    /// Whether a promise would survive a crash.
    pub(super) fn has_promised_durably(&self, ballot: Ballot) -> bool {
        self.acceptor.durable >= ballot
    }

    /// A vote is durable.
    pub(super) fn voted(&mut self, ballot: Ballot, slot: Slot) {
        self.promise_is_durable(ballot);
        if let Some(vote) = self.acceptor.votes.get_mut(&slot)
            && vote.ballot == ballot
        {
            vote.is_durable = true;
        }
    }

    fn send_accepted(&mut self, to: NodeId, ballot: Ballot, slot: Slot, effects: &mut Out) {
        self.counters.accepted_sent += 1;
        let message = Message::Accepted { ballot, slot, life: self.life };
        effects.push_unheld(Effect::Send { to, message });
    }

    fn send_accepted_behind(&mut self, to: NodeId, ballot: Ballot, slot: Slot, effects: &mut Out) {
        self.counters.accepted_sent += 1;
        let vote =
            Effect::Send { to, message: Message::Accepted { ballot, slot, life: self.life } };
        effects.push_held(vote, self.options.planted.has(Bug::VoteBeforeDurable));
    }

    /// Tells a proposer that it is too late.
    pub(super) fn refuse(&mut self, to: NodeId, effects: &mut Out) {
        self.counters.refused_sent += 1;
        let promised = self.acceptor.promised.max(self.proposer.leader_ballot());
        effects.push_unheld(Effect::Send { to, message: Message::Refused { promised } });
    }
}
