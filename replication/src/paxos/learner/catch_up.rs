//! Catching up: asking one replica at a time for what was chosen, one answer at a time.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::contract::{Effect, NodeId, Time};
use crate::paxos::message::{Ballot, Batch, Message, Slot};
use crate::paxos::{Alarm, Out, Replica};

impl Replica {
    /// Asks for what is chosen and not known here, if anything is and nobody is asked yet.
    pub(in crate::paxos) fn catch_up(
        &mut self,
        now: Time,
        whom: Option<NodeId>,
        effects: &mut Out,
    ) {
        let is_behind = self.learner.chosen < self.learner.announced;
        if is_behind && self.learner.asking.is_none() {
            self.ask_for_batches(now, whom, effects);
        }
    }

    /// Asks somebody, whether or not there is anything.
    pub(in crate::paxos) fn ask_for_batches(
        &mut self,
        now: Time,
        whom: Option<NodeId>,
        effects: &mut Out,
    ) {
        if self.snapshots.is_installing() {
            return;
        }
        let Some(to) = whom.or_else(|| self.some_peer()) else { return };
        let alarm = now.after(self.options.resend_interval);
        self.wait_for(to, alarm);
        self.counters.learns_sent += 1;
        let from = self.learner.chosen.next();
        effects.push_unheld(Effect::Send { to, message: Message::Learn { from } });
    }

    /// One question is out; it is repeated, to somebody else, unless an answer comes.
    pub(in crate::paxos) fn wait_for(&mut self, peer: NodeId, alarm: Time) {
        self.answer_came();
        self.alarms.set(alarm, Alarm::CatchUp);
        self.learner.asking = Some((peer, alarm));
    }

    pub(in crate::paxos) fn answer_came(&mut self) {
        if let Some((_, alarm)) = self.learner.asking.take() {
            self.alarms.cancel(alarm, Alarm::CatchUp);
        }
    }

    fn some_peer(&mut self) -> Option<NodeId> {
        let peers: Vec<NodeId> = match self.peers_up.is_empty() {
            true => self.others(),
            false => self.peers_up.iter().copied().collect(),
        };
        let choice = self.random.below(peers.len().max(1) as u64);
        peers.get(usize::try_from(choice).ok()?).copied()
    }

    pub(in crate::paxos) fn catch_up_alarm(&mut self, now: Time, effects: &mut Out) {
        self.learner.asking = None;
        self.counters.catch_ups_repeated += 1;
        if self.snapshots.is_fetching() {
            return self.fetch_again(now, effects);
        }
        self.catch_up(now, None, effects);
    }

    /// Somebody asks what was chosen from a slot on.
    pub(in crate::paxos) fn tell_learner(&mut self, to: NodeId, from: Slot, effects: &mut Out) {
        let first = self.learner.first_retained();
        if from < first {
            self.counters.truncated_sent += 1;
            return effects.push_unheld(Effect::Send { to, message: Message::Truncated { first } });
        }
        let mut batches: Vec<Arc<Batch>> = Vec::new();
        let mut bytes = 0;
        let mut slot = from;
        while slot <= self.learner.chosen && batches.len() < self.options.piece_slots_max {
            let Some(batch) = self.learner.batch(slot) else { break };
            if !batches.is_empty() && bytes + batch.bytes() > self.options.piece_bytes_max {
                break;
            }
            bytes += batch.bytes();
            batches.push(batch.clone());
            slot = slot.next();
        }
        self.counters.learned_sent += 1;
        let leader = self.proposer.leader_ballot();
        let chosen = self.learner.chosen;
        let message = Message::Learned { from, batches, chosen, leader };
        effects.push_unheld(Effect::Send { to, message });
    }

    /// The answer: one record each, then all that is without a gap is applied.
    pub(in crate::paxos) fn batches_came(
        &mut self,
        now: Time,
        peer: NodeId,
        from: Slot,
        batches: Vec<Arc<Batch>>,
        (chosen, leader): (Slot, Ballot),
        effects: &mut Out,
    ) {
        self.proposer.hear_of_leader(leader);
        self.step_down_for(now, leader, effects);
        if !self.has_room && !batches.is_empty() {
            self.counters.disk_full += 1;
            return;
        }
        if self.learner.asking.is_some_and(|(asked, _)| asked == peer) {
            self.answer_came();
        }
        let before = self.learner.chosen;
        let mut slot = from;
        for batch in batches {
            self.learn(slot, batch, effects);
            slot = slot.next();
        }
        self.learner.announced = self.learner.announced.max(chosen);
        self.apply_what_is_chosen(now, effects);
        if self.learner.chosen > before {
            self.catch_up(now, Some(peer), effects);
        } else if self.learner.chosen < self.learner.announced && self.learner.asking.is_none() {
            // This one knows no more; it is not asked again and again.
            self.wait_for(peer, now.after(self.options.resend_interval));
        }
        self.join_if_caught_up(effects);
    }

    /// A node whose votes do not count follows from afar, and asks to be let in if it was in.
    pub(in crate::paxos) fn ask_to_join(&mut self, now: Time, effects: &mut Out) {
        if self.learner.asking.is_none() {
            self.ask_for_batches(now, None, effects);
        }
    }

    pub(in crate::paxos) fn join_if_caught_up(&mut self, effects: &mut Out) {
        let leader = self.proposer.leader_ballot().node;
        let (_, members) = self.learner.membership.newest();
        let was_in = members.iter().any(|it| it.node == self.options.id && it.life < self.life);
        let is_behind = self.learner.applied < self.learner.announced;
        if was_in && !is_behind && leader != self.options.id && leader != Ballot::ZERO.node {
            self.counters.joins_sent += 1;
            let message = Message::Join { life: self.life };
            effects.push_unheld(Effect::Send { to: leader, message });
        }
    }
}
