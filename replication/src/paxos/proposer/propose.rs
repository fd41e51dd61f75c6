//! Phase 2: one batch after the other, several at a time.
//!
//! A command that comes while no slot is open gets one at once. While some are, it waits for the end
//! of the shell's turn, an alarm that is due as soon as it is set, so that all that came in the turn
//! shares a slot: a record, a message to each acceptor and an answer for all of it. When the pipeline
//! is full, what comes meanwhile shares the next slot. So batches form under load and cost no latency
//! without it.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::term::Open;
use super::{Gathering, Stage};
use crate::contract::{Effect, NodeId, Time};
use crate::paxos::message::{Ballot, Batch, Member, Message, Slot};
use crate::paxos::planted::Bug;
use crate::paxos::{Alarm, Out, Replica, Resume, points};

/// An accept that is not answered waits twice as long each time until it is sent again, up to so many
/// times: what is late because it is large, or because a disk is slow, would come later still behind
/// copies of itself. Lost it is only with its link, and a new link is told everything at once.
const RESEND_DOUBLINGS_MAX: u32 = 4;

/// What goes into the next slot.
enum Next {
    Batch(Arc<Batch>),
    /// Chosen already.
    Skip,
    Nothing,
}

impl Replica {
    /// Proposes what was found in phase 1, no-ops in the gaps, and then what clients wait for, as
    /// far as the window and the pipeline allow.
    pub(in crate::paxos) fn propose_what_waits(&mut self, now: Time, effects: &mut Out) {
        while let Stage::Leading(term) = &mut self.proposer.stage {
            // What somebody knows to be chosen is to be learnt, not proposed.
            term.next = term.next.max(term.base.next()).max(self.learner.applied.next());
            let (ballot, slot) = (term.ballot, term.next);
            match self.next_batch(now, ballot, slot) {
                Next::Batch(batch) => self.propose(now, ballot, slot, batch, effects),
                Next::Skip => {}
                Next::Nothing => return,
            }
            if let Some(term) = self.proposer.leading() {
                term.next = slot.next();
            }
        }
    }

    fn next_batch(&mut self, now: Time, ballot: Ballot, slot: Slot) -> Next {
        let (learner, planted) = (&self.learner, self.options.planted);
        let pending = learner.membership.pending(learner.applied);
        let Stage::Leading(term) = &mut self.proposer.stage else { return Next::Nothing };
        // There is no slot behind the last one a number can name; only a liar speaks of it.
        if slot > learner.applied.plus(self.options.window) || slot.next() == slot {
            return Next::Nothing;
        }
        if learner.knows(slot) {
            return Next::Skip;
        }
        let is_promised = learner.membership.is_quorum(slot, |member| term.has_promised(member));
        // Half of what an acceptor holds: it may not have heard of the other half that it is chosen.
        // What it refused would be sent again only after a while.
        if term.open.len() >= self.options.pipeline_max
            || term.open_bytes > self.options.accepted_bytes_max / 2
            || (!is_promised && !planted.has(Bug::NewMembersUnasked))
        {
            return Next::Nothing;
        }
        let found = term.found.remove(&slot).filter(|_| !planted.has(Bug::SkipFoundBatch));
        if let Some((_, batch)) = found {
            self.counters.reproposed += 1;
            return Next::Batch(batch);
        }
        let no_op = Arc::new(Batch { origin: ballot, commands: Vec::new() });
        if slot <= term.recovered_to {
            if planted.has(Bug::GapLeftOpen) {
                return Next::Skip;
            }
            self.counters.gaps_filled += 1;
            return Next::Batch(no_op);
        }
        let is_idle = term.open.is_empty();
        if self.gathers_on(now, is_idle) {
            return Next::Nothing;
        }
        if let Some(batch) = self.take_batch(ballot, slot) {
            return Next::Batch(batch);
        }
        // Nobody writes, and new members wait for their slot to come.
        match pending {
            Some(from) if slot < from => {
                self.counters.window_filled += 1;
                Next::Batch(no_op)
            }
            _ => Next::Nothing,
        }
    }

    /// Whether the commands that wait for a slot wait for others to share it with.
    fn gathers_on(&mut self, now: Time, is_idle: bool) -> bool {
        let options = &self.options;
        let is_enough = self.proposer.queue.len() >= options.batch_commands_max
            || self.proposer.queue_bytes >= options.batch_bytes_max;
        let is_over = self.proposer.gathering == Gathering::Over;
        if options.gather.is_zero() || is_idle || is_enough || is_over {
            return false;
        }
        if self.proposer.gathering == Gathering::No && !self.proposer.queue.is_empty() {
            self.proposer.gathering = Gathering::Waits;
            self.alarms.set(now.after(options.gather), Alarm::Gathered);
        }
        !self.proposer.queue.is_empty()
    }

    /// The shell's turn is over, or the wait for others is.
    pub(in crate::paxos) fn gathered_alarm(&mut self, now: Time, effects: &mut Out) {
        self.proposer.gathering = Gathering::Over;
        self.propose_what_waits(now, effects);
        self.proposer.gathering = Gathering::No;
    }

    /// Phase 2a. The leader's own vote is one like the others: it counts once it is durable, and
    /// nobody waits for it.
    fn propose(
        &mut self,
        now: Time,
        ballot: Ballot,
        slot: Slot,
        batch: Arc<Batch>,
        effects: &mut Out,
    ) {
        self.counters.proposed += 1;
        effects.point(points::PROPOSER_BEFORE_ACCEPT);
        let chosen = self.learner.chosen;
        let acceptors = self.acceptors_reached(slot);
        for (index, to) in acceptors.into_iter().enumerate() {
            self.counters.accepts_sent += 1;
            let message = Message::Accept { ballot, slot, batch: batch.clone(), chosen };
            effects.push_unheld(Effect::Send { to, message });
            if index == 0 {
                effects.point(points::PROPOSER_SOME_ACCEPTS_SENT);
            }
        }
        let term = self.proposer.term(ballot).expect("only a leader proposes");
        let open = Open { batch: batch.clone(), votes: Vec::new(), sent: now, resent: 0 };
        term.open_bytes += batch.bytes();
        term.open.insert(slot, open);
        self.vote_for(slot, ballot, batch, effects);
    }

    /// This node's acceptor was away, and votes now for what the leader beside it proposed meanwhile.
    pub(in crate::paxos) fn vote_for_own(&mut self, effects: &mut Out) {
        let Stage::Leading(term) = &self.proposer.stage else { return };
        let ballot = term.ballot;
        let has_voted =
            |slot: &Slot| self.acceptor.vote(*slot).is_some_and(|vote| vote.ballot == ballot);
        let open = term.open.iter().filter(|(slot, _)| !has_voted(slot));
        let open: Vec<(Slot, Arc<Batch>)> =
            open.map(|(slot, open)| (*slot, open.batch.clone())).collect();
        for (slot, batch) in open {
            self.vote_for(slot, ballot, batch, effects);
        }
    }

    /// The leader's own vote, if it has one.
    fn vote_for(&mut self, slot: Slot, ballot: Ballot, batch: Arc<Batch>, effects: &mut Out) {
        if self.roles.acceptor_is_up() && self.is_acceptor_of(slot) {
            self.cast_vote(slot, ballot, batch, effects);
            effects.point(points::PROPOSER_OWN_VOTE_DURABLE);
            let voted = Effect::Resume(Resume::Voted { ballot, slot });
            effects.push_held(voted, self.options.planted.has(Bug::CountOwnVoteEarly));
        }
    }

    fn is_acceptor_of(&self, slot: Slot) -> bool {
        self.learner.membership.of(slot).contains(&self.me())
    }

    /// The others of a slot's acceptors. One without a link is asked when that stands again.
    fn acceptors_reached(&self, slot: Slot) -> Vec<NodeId> {
        let nodes = self.learner.membership.of(slot).iter().map(|member| member.node);
        nodes.filter(|node| self.peers_up.contains(node)).collect()
    }

    /// Phase 2b, at the proposer. A batch that a quorum of its slot's acceptors has accepted with
    /// one ballot is chosen.
    pub(in crate::paxos) fn accepted(
        &mut self,
        now: Time,
        member: Member,
        ballot: Ballot,
        slot: Slot,
        effects: &mut Out,
    ) {
        let Stage::Leading(term) = &mut self.proposer.stage else {
            self.counters.duplicates_dropped += 1;
            return;
        };
        let acceptors = self.learner.membership.of(slot);
        let Some(open) = term.open.get_mut(&slot).filter(|_| term.ballot == ballot) else {
            self.counters.duplicates_dropped += 1;
            return;
        };
        let of_another_life = |it: &Member| it.node == member.node;
        let member = match acceptors.iter().find(|it| of_another_life(it)) {
            Some(known) if self.options.planted.has(Bug::CountFormerLife) => *known,
            Some(_) | None => member,
        };
        if !acceptors.contains(&member) {
            self.counters.strange_dropped += 1;
            return;
        }
        if open.votes.contains(&member) {
            self.counters.duplicates_dropped += 1;
            return;
        }
        open.votes.push(member);
        let votes = &open.votes;
        let is_quorum = self.learner.membership.is_quorum(slot, |member| votes.contains(&member));
        if !is_quorum && !self.options.planted.has(Bug::OneVoteChooses) {
            return;
        }
        let Some(open) = term.open.remove(&slot) else { return };
        term.open_bytes -= open.batch.bytes();
        self.counters.chosen += 1;
        effects.point(points::PROPOSER_CHOSEN);
        self.learn(slot, open.batch, effects);
        self.apply_what_is_chosen(now, effects);
        self.propose_what_waits(now, effects);
    }

    /// Says again what was not answered: messages get lost.
    pub(in crate::paxos) fn resend_alarm(&mut self, now: Time, ballot: Ballot, effects: &mut Out) {
        if self.proposer.term(ballot).is_none() {
            return;
        }
        self.alarms.set(now.after(self.options.resend_interval), Alarm::Resend(ballot));
        self.resend_prepares(ballot, None, effects);
        self.resend_accepts(now, None, effects);
    }

    /// A link stands again: what was sent over the broken one may be lost.
    pub(in crate::paxos) fn resend_to(&mut self, now: Time, peer: NodeId, effects: &mut Out) {
        let ballot = match &self.proposer.stage {
            Stage::Leading(term) | Stage::Campaigning(term) => term.ballot,
            Stage::Following | Stage::PreVoting { .. } => return,
        };
        self.resend_prepares(ballot, Some(peer), effects);
        self.resend_accepts(now, Some(peer), effects);
    }

    fn resend_prepares(&mut self, ballot: Ballot, only: Option<NodeId>, effects: &mut Out) {
        // Before its own promise is durable nobody may hear of a ballot.
        if !self.has_promised_durably(ballot) {
            return;
        }
        let first = self.learner.applied.next();
        for to in self.others() {
            let acceptors = self.learner.membership.lives_of(to);
            let Some(term) = self.proposer.term(ballot) else { return };
            // In the life that counts: the promise of a former one says nothing of its slots.
            let has_answered = acceptors.iter().all(|member| term.has_promised(*member));
            let is_asked = only.is_none_or(|only| only == to) && self.peers_up.contains(&to);
            if has_answered || !is_asked {
                continue;
            }
            let from = term.tells_from(to, first);
            self.counters.prepares_sent += 1;
            effects.push_unheld(Effect::Send { to, message: Message::Prepare { ballot, from } });
        }
    }

    fn resend_accepts(&mut self, now: Time, only: Option<NodeId>, effects: &mut Out) {
        let Stage::Leading(term) = &mut self.proposer.stage else { return };
        let (ballot, chosen) = (term.ballot, self.learner.chosen);
        for (slot, open) in &mut term.open {
            let patience =
                self.options.resend_interval * (1 << open.resent.min(RESEND_DOUBLINGS_MAX));
            let is_due = now >= open.sent.after(patience);
            if only.is_none() && !is_due {
                continue;
            }
            if only.is_none() {
                open.sent = now;
                open.resent += 1;
            }
            for member in self.learner.membership.of(*slot) {
                let to = member.node;
                let is_asked = only.is_none_or(|only| only == to) && self.peers_up.contains(&to);
                if to == self.options.id || !is_asked || open.votes.contains(member) {
                    continue;
                }
                self.counters.accepts_resent += 1;
                let (slot, batch) = (*slot, open.batch.clone());
                let message = Message::Accept { ballot, slot, batch, chosen };
                effects.push_unheld(Effect::Send { to, message });
            }
        }
    }
}
