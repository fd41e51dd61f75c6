//! From silence to leadership.
//!
//! Pre-vote keeps a node that cannot hear the leader from deposing it again and again: it asks first
//! who else hears none, and those who do say no. A leader that is not heard by anybody, or hears
//! nobody, steps down by itself (heartbeat.rs): pre-vote alone would leave it in its place for ever.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use core::time::Duration;

use super::{Stage, Term};
use crate::contract::{Effect, NodeId, Time};
use crate::paxos::message::{Ballot, Member, Message, Promise};
use crate::paxos::planted::Bug;
use crate::paxos::{Alarm, Out, Replica, points};

impl Replica {
    /// Sets the election alarm anew, to ring after a while chosen by chance.
    pub(in crate::paxos) fn arm_election(&mut self, now: Time) {
        let wait = self.election_timeout();
        self.ring_election(now.after(wait));
    }

    fn ring_election(&mut self, at: Time) {
        if let Some(old) = self.proposer.election_at.replace(at) {
            self.alarms.cancel(old, Alarm::Election);
        }
        self.alarms.set(at, Alarm::Election);
    }

    fn election_timeout(&mut self) -> Duration {
        let (min, max) = (self.options.election_timeout_min, self.options.election_timeout_max);
        let spread = max.saturating_sub(min);
        let nanos = u64::try_from(spread.as_nanos()).unwrap_or(u64::MAX).max(1);
        // Those who duel wait longer and longer, and by chance: one of them gets through.
        let doublings = self.proposer.failures.min(self.options.backoff_doublings_max);
        let room = nanos.saturating_mul(1 << doublings.min(16));
        min + Duration::from_nanos(self.random.below(room))
    }

    pub(in crate::paxos) fn election_alarm(&mut self, now: Time, effects: &mut Out) {
        self.proposer.election_at = None;
        if self.leads() {
            return;
        }
        let due = self.proposer.heard.after(self.options.election_timeout_min);
        if self.proposer.follows && now < due {
            // Heard meanwhile. Not `due` itself, or all would wake together.
            let wait = self.election_timeout();
            return self.ring_election(self.proposer.heard.after(wait).max(due));
        }
        self.proposer.follows = false;
        if !self.is_member() {
            self.ask_to_join(now, effects);
            return self.ring_election(now.after(self.options.election_timeout_min));
        }
        if !matches!(self.proposer.stage, Stage::Following) {
            self.proposer.failures = self.proposer.failures.saturating_add(1);
            self.counters.campaigns_failed += 1;
        }
        self.arm_election(now);
        if self.may_campaign(now) {
            self.canvass(now, None, effects);
        }
    }

    pub(super) fn may_campaign(&self, now: Time) -> bool {
        self.has_room
            && self.unfit.is_none()
            && self.roles.proposer_is_up()
            && self.roles.acceptor_is_up()
            && !self.has_leased_to_another(now, self.options.id)
    }

    /// The link to the leader broke: no need to wait for its silence, but not all at once.
    pub(in crate::paxos) fn lose_leader(&mut self, now: Time) {
        self.proposer.follows = false;
        let nanos = u64::try_from(self.options.election_timeout_min.as_nanos()).unwrap_or(1);
        let wait = Duration::from_nanos(self.random.below(nanos.max(1)));
        // It may be up, and only the link be broken; before its lease is over nobody is elected.
        self.ring_election(self.leased_until(now).after(wait));
    }

    /// Asks who would promise; `instead_of` a leader, if that one has asked for it.
    pub(super) fn canvass(&mut self, now: Time, instead_of: Option<Ballot>, effects: &mut Out) {
        let seen = self.proposer.seen.max(self.acceptor.promised());
        let ballot = seen.outbid_by(self.options.id);
        let granted = BTreeSet::from([self.me()]);
        self.proposer.stage = Stage::PreVoting { ballot, granted };
        self.counters.pre_votes += 1;
        for to in self.others() {
            let message = Message::PreVote { ballot, instead_of };
            effects.push_unheld(Effect::Send { to, message });
        }
        self.campaign_if_granted(now, effects);
    }

    /// Somebody would like to know whether it may campaign. Yes, if this node could promise, and hears
    /// no leader but the one that has asked to be replaced, which counts on no lease any more. One that
    /// has left says no: it would not promise, and a no makes the asker learn what it knows.
    pub(in crate::paxos) fn pre_vote(
        &mut self,
        now: Time,
        from: NodeId,
        ballot: Ballot,
        instead_of: Option<Ballot>,
        effects: &mut Out,
    ) {
        let leader = self.proposer.leader_ballot();
        let is_replaced = instead_of == Some(leader) && leader != Ballot::ZERO;
        if is_replaced {
            self.give_lease_back(leader);
        }
        let seen = self.proposer.seen.max(self.acceptor.promised());
        let is_heard = now < self.proposer.heard.after(self.options.election_timeout_min);
        let has_leader = self.leads() || (self.proposer.follows && is_heard);
        let granted = (is_replaced || !has_leader)
            && self.has_room
            && self.is_member()
            && ballot > self.acceptor.promised()
            && !self.has_leased_to_another(now, from);
        let message = Message::PreVoteAnswer { ballot, life: self.life, granted, seen };
        effects.push_unheld(Effect::Send { to: from, message });
    }

    pub(in crate::paxos) fn pre_vote_answer(
        &mut self,
        now: Time,
        from: Member,
        asked: Ballot,
        is_granted: bool,
        seen: Ballot,
        effects: &mut Out,
    ) {
        self.proposer.see(seen);
        if !is_granted && self.learner.asking.is_none() {
            // It hears a leader that does not speak to this node: perhaps because this one was left
            // out, and does not know it yet.
            self.ask_for_batches(now, Some(from.node), effects);
        }
        let Stage::PreVoting { ballot, granted } = &mut self.proposer.stage else { return };
        if *ballot == asked && is_granted {
            granted.insert(from);
            self.campaign_if_granted(now, effects);
        }
    }

    fn campaign_if_granted(&mut self, now: Time, effects: &mut Out) {
        let Stage::PreVoting { ballot, granted } = &self.proposer.stage else { return };
        let next = self.learner.applied.next();
        if self.learner.membership.is_quorum(next, |member| granted.contains(&member))
            && *ballot > self.acceptor.promised()
            && self.may_campaign(now)
        {
            let ballot = *ballot;
            self.campaign(now, ballot, effects);
        }
    }

    /// Phase 1a. The ballot is durable before anybody hears of it: a restarted proposer must not
    /// use it again for something else.
    fn campaign(&mut self, now: Time, ballot: Ballot, effects: &mut Out) {
        effects.point(points::PROPOSER_BEFORE_PREPARE);
        self.counters.campaigns += 1;
        self.proposer.see(ballot);
        self.proposer.stage = Stage::Campaigning(Box::new(Term::new(ballot, now)));
        self.alarms.set(now.after(self.options.resend_interval), Alarm::Resend(ballot));
        self.promise_durably(ballot, effects);
        effects.point(points::PROPOSER_BALLOT_DURABLE);
        let from = self.learner.applied.next();
        for (index, to) in self.others().into_iter().enumerate() {
            self.counters.prepares_sent += 1;
            let prepare = Effect::Send { to, message: Message::Prepare { ballot, from } };
            effects.push_held(prepare, self.options.planted.has(Bug::BallotUsedAgain));
            if index == 0 {
                effects.point(points::PROPOSER_SOME_PREPARES_SENT);
            }
        }
    }

    /// This node's own promise is durable.
    pub(in crate::paxos) fn own_promise(&mut self, now: Time, ballot: Ballot, effects: &mut Out) {
        let first = self.learner.applied.next();
        if self.proposer.term(ballot).is_none() || !self.roles.acceptor_is_up() {
            return;
        }
        let mut promise = self.promise(ballot, first);
        while let Some(more) = promise.more {
            let rest = self.promise(ballot, more);
            promise.accepted.extend(rest.accepted);
            promise.more = rest.more;
        }
        self.promise_came(now, self.options.id, promise, effects);
    }

    /// Phase 1b, at the proposer.
    pub(in crate::paxos) fn promise_came(
        &mut self,
        now: Time,
        from: NodeId,
        promise: Promise,
        effects: &mut Out,
    ) {
        let member = Member { node: from, life: promise.life };
        let is_member = self.learner.membership.contains(member);
        let ballot = promise.ballot;
        let Some(term) = self.proposer.term(ballot) else {
            self.counters.duplicates_dropped += 1;
            return;
        };
        if !is_member {
            // It has lost what it knew and is not let in again yet, or it has left.
            self.counters.strange_dropped += 1;
            return;
        }
        let more = promise.more;
        term.promise(from, promise, self.options.planted);
        if let Some(first) = more {
            if !term.ask_from(member, first) {
                self.counters.duplicates_dropped += 1;
                return;
            }
            self.counters.prepares_sent += 1;
            let message = Message::Prepare { ballot, from: first };
            return effects.push_unheld(Effect::Send { to: from, message });
        }
        self.lead_if_promised(now, effects);
        self.propose_what_waits(now, effects);
        self.confirm_reads(now, effects);
    }

    fn lead_if_promised(&mut self, now: Time, effects: &mut Out) {
        let Stage::Campaigning(term) = &self.proposer.stage else { return };
        let next = self.learner.applied.next();
        let is_quorum = self.learner.membership.is_quorum(next, |member| term.has_promised(member));
        if !is_quorum && !self.options.planted.has(Bug::LeadAlone) {
            return;
        }
        let Stage::Campaigning(mut term) =
            core::mem::replace(&mut self.proposer.stage, Stage::Following)
        else {
            unreachable!("it was looked at a moment ago");
        };
        effects.point(points::PROPOSER_ELECTED);
        self.counters.elected += 1;
        term.next = next;
        term.confirmed = (0, now);
        term.progress = (self.learner.applied, now);
        self.proposer.leader = term.ballot;
        self.proposer.follows = true;
        self.proposer.failures = 0;
        let (base, told_by, ballot) = (term.base, term.base_told_by, term.ballot);
        self.proposer.stage = Stage::Leading(term);
        self.learner.announced = self.learner.announced.max(base);
        self.alarms.set(now.after(self.options.heartbeat_interval), Alarm::Heartbeat(ballot));
        self.beat(now, effects);
        self.catch_up(now, told_by.filter(|node| *node != self.options.id), effects);
        self.ask_leader_for_reads(now, effects);
    }

    /// A leader with this ballot has spoken.
    pub(in crate::paxos) fn hear_leader(&mut self, now: Time, ballot: Ballot, effects: &mut Out) {
        self.proposer.see(ballot);
        self.step_down_for(now, ballot, effects);
        let is_new = self.proposer.leader != ballot || !self.proposer.follows;
        self.proposer.leader = self.proposer.leader.max(ballot);
        self.proposer.heard = now;
        self.proposer.follows = true;
        if is_new {
            self.proposer.failures = 0;
            if !matches!(self.proposer.stage, Stage::Following) {
                self.proposer.stage = Stage::Following;
            }
            self.redirect_queue(effects);
            self.ask_again(now, effects);
        }
    }

    /// A higher ballot than this node's own is about.
    pub(in crate::paxos) fn step_down_for(&mut self, now: Time, ballot: Ballot, effects: &mut Out) {
        let own = match &self.proposer.stage {
            Stage::Leading(term) | Stage::Campaigning(term) => term.ballot,
            Stage::Following | Stage::PreVoting { .. } => return,
        };
        if ballot > own {
            self.step_down(now, effects);
        }
    }

    pub(in crate::paxos) fn refused(&mut self, now: Time, promised: Ballot, effects: &mut Out) {
        self.proposer.see(promised);
        self.step_down_for(now, promised, effects);
    }

    /// Back to the beginning. What is proposed may still be chosen; what waits for a slot waits for
    /// the next leader.
    pub(in crate::paxos) fn step_down(&mut self, now: Time, effects: &mut Out) {
        let stage = core::mem::replace(&mut self.proposer.stage, Stage::Following);
        match stage {
            Stage::Leading(_) => {
                self.counters.stepped_down += 1;
                self.proposer.follows = false;
                self.proposer.heard = now;
            }
            Stage::Campaigning(_) => {
                self.counters.campaigns_failed += 1;
                self.proposer.failures = self.proposer.failures.saturating_add(1);
            }
            Stage::Following | Stage::PreVoting { .. } => {}
        }
        self.arm_election(now);
        self.reads_lose_leader(now, effects);
    }
}
