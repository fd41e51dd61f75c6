//! Heartbeats: they keep the others from campaigning, carry how far is chosen, and their answers
//! tell the leader that it still is one.
//!
//! A leader that a majority has not answered for an election timeout steps down (check-quorum, Ongaro
//! §6.2): it could choose nothing, and those who can hear it would never look for another.

use super::{Proposer, Stage};
use crate::contract::{Effect, NodeId, Time};
use crate::paxos::message::{Ballot, Member, Message, Slot};
use crate::paxos::planted::Bug;
use crate::paxos::{Alarm, Out, Replica};

impl Proposer {
    /// The heartbeat that proves that this node led after now: the next one.
    pub(in crate::paxos) fn next_round(&mut self) -> Option<u64> {
        self.leading().map(|term| term.round + 1)
    }

    /// The newest heartbeat that a quorum has answered.
    pub(in crate::paxos) fn confirmed_round(&mut self) -> u64 {
        self.leading().map_or(0, |term| term.confirmed.0)
    }

    /// Whether a heartbeat for reads should be sent now: none that was is still out.
    pub(in crate::paxos) fn begins_read_round(&mut self) -> bool {
        let Some(term) = self.leading() else { return false };
        let is_out = term.read_round.is_some_and(|round| round > term.confirmed.0);
        if !is_out {
            term.read_round = Some(term.round + 1);
        }
        !is_out
    }
}

impl Replica {
    pub(in crate::paxos) fn heartbeat_alarm(
        &mut self,
        now: Time,
        ballot: Ballot,
        effects: &mut Out,
    ) {
        if self.proposer.leads_with() != Some(ballot) {
            return;
        }
        self.alarms.set(now.after(self.options.heartbeat_interval), Alarm::Heartbeat(ballot));
        if !self.is_member() {
            // It has left; one of those who have not need not wait for its silence.
            self.hand_over(now, effects);
        }
        if self.should_resign(now) {
            return self.step_down(now, effects);
        }
        if !self.has_room {
            self.hand_over_again(now, effects);
        }
        self.beat(now, effects);
    }

    /// A leader that nobody hears, that cannot learn what was chosen before it, or that has left.
    fn should_resign(&mut self, now: Time) -> bool {
        let patience = self.options.election_timeout_max;
        let (chosen, is_member) = (self.learner.chosen, self.is_member());
        let Some(term) = self.proposer.leading() else { return false };
        if chosen > term.progress.0 || chosen >= term.base {
            term.progress = (chosen, now);
        }
        let is_stuck = now.since(term.progress.1) > patience.saturating_mul(4);
        let is_unheard = now.since(term.confirmed.1) > patience;
        if is_stuck || is_unheard {
            self.counters.quorum_lost += 1;
        }
        is_stuck || is_unheard || !is_member || self.unfit.is_some()
    }

    /// Sends a heartbeat to all, and answers it for this node.
    pub(in crate::paxos) fn beat(&mut self, now: Time, effects: &mut Out) {
        let chosen = self.learner.chosen;
        let Some(term) = self.proposer.leading() else { return };
        let (ballot, round) = (term.ballot, term.begin_round(now));
        for to in self.others() {
            self.counters.heartbeats_sent += 1;
            let message = Message::Heartbeat { ballot, chosen, round };
            effects.push_unheld(Effect::Send { to, message });
        }
        if self.roles.acceptor_is_up() {
            let me = self.me();
            self.heartbeat_acked(now, me, ballot, round, effects);
        }
    }

    pub(in crate::paxos) fn heartbeat(
        &mut self,
        now: Time,
        from: NodeId,
        ballot: Ballot,
        chosen: Slot,
        round: u64,
        effects: &mut Out,
    ) {
        if ballot.node != from {
            self.counters.strange_dropped += 1;
            return;
        }
        // The answer says that no higher ballot was promised: what reads rest on.
        if ballot < self.acceptor.promised().max(self.proposer.leader_ballot()) {
            return self.refuse(from, effects);
        }
        self.hear_leader(now, ballot, effects);
        if self.roles.acceptor_is_up() && self.is_member() {
            self.grant_lease(now, ballot);
            let message = Message::HeartbeatAck { ballot, round, life: self.life };
            self.counters.heartbeat_acks_sent += 1;
            effects.push_unheld(Effect::Send { to: from, message });
        }
        self.hear_chosen(now, from, ballot, chosen, effects);
        if !self.is_member() {
            self.join_if_caught_up(effects);
        }
    }

    pub(in crate::paxos) fn heartbeat_acked(
        &mut self,
        now: Time,
        member: Member,
        ballot: Ballot,
        round: u64,
        effects: &mut Out,
    ) {
        let Stage::Leading(term) = &mut self.proposer.stage else { return };
        if term.ballot == ballot && term.ack(member, round, &self.learner.membership) {
            self.confirm_reads(now, effects);
        }
    }

    /// Whether the leader has applied all that may have been chosen before it, so that it knows the
    /// acceptors of all slots in which anything can be chosen.
    pub(in crate::paxos) fn is_recovered(&self) -> bool {
        let Stage::Leading(term) = &self.proposer.stage else { return false };
        let membership = &self.learner.membership;
        (self.learner.applied >= term.recovered_to
            || self.options.planted.has(Bug::ReadBeforeRecovered))
            && membership.is_quorum_everywhere(|member| term.has_promised(member))
    }

    /// Whether the leader may answer reads without asking: a quorum has promised nobody else
    /// anything since it was sent a heartbeat. Counted from when that was sent, which is earlier
    /// than when it came, and shortened by what clocks may differ. One that has asked another to take
    /// over has none any more.
    pub(in crate::paxos) fn holds_lease(&mut self, now: Time) -> bool {
        let Some(lease) = self.options.lease else { return false };
        let left = 1000_u32.saturating_sub(self.options.clock_drift_permille);
        let counted = lease.saturating_mul(left) / 1000;
        let is_unchecked = self.options.planted.has(Bug::LeaseUnchecked);
        let (newest, _) = self.learner.membership.newest();
        let Some(term) = self.proposer.leading() else { return false };
        let has_all = term.confirmed.0 > 0 && term.confirmed_by == newest;
        let holds = has_all && term.handed_at.is_none() && now < term.confirmed.1.after(counted);
        holds || is_unchecked
    }
}
