//! In doubt: asking how a transaction ended, and answering others who ask (cooperative
//! termination, BHG §7.4).

use alloc::vec::Vec;
use core::time::Duration;

use super::{Decided, Stage};
use crate::contract::{Effect, NodeId, Time, Urgency};
use crate::two_phase::any_replica::message::{Decision, Knowledge, Message, TxnId, Vote};
use crate::two_phase::any_replica::planted::Bug;
use crate::two_phase::any_replica::record::Record;
use crate::two_phase::any_replica::{Alarm, Out, Replica, Resume};

impl Replica {
    /// A transaction has been in doubt for long. Asks its coordinator, and after some tries, or if
    /// that is not reachable, the other participants too, ever more rarely.
    pub(in crate::two_phase::any_replica) fn inquire_alarm(
        &mut self,
        now: Time,
        txn: TxnId,
        effects: &mut Out,
    ) {
        let (first, max) = (self.options.inquire_after, self.options.inquire_interval_max);
        let promised =
            self.participating.promised.get_mut(&txn).expect("what is over has no alarm");
        let Stage::Prepared(doubt) = &mut promised.stage else {
            unreachable!("only what is prepared has an alarm");
        };
        doubt.inquiries = doubt.inquiries.saturating_add(1);
        if doubt.inquiries > 1 && self.options.planted.has(Bug::AbortOnTimeoutAfterYes) {
            doubt.alarm = None;
            return self.abort_promised(txn, effects);
        }
        let at = now.after(backed_off(first, max, doubt.inquiries));
        doubt.alarm = Some(at);
        self.alarms.set(at, Alarm::Inquire(txn));
        let ask_peers = doubt.inquiries > self.options.inquiries_before_peers
            || !self.peers_up.contains(&txn.coordinator);
        let peers: Vec<NodeId> = promised.participants.to_vec();
        self.send_inquiry(txn.coordinator, txn, effects);
        if ask_peers {
            for peer in peers.into_iter().filter(|peer| *peer != txn.coordinator) {
                self.send_inquiry(peer, txn, effects);
            }
        }
    }

    /// A coordinator can be reached again. It has started anew, or the vote may have been lost.
    pub(in crate::two_phase::any_replica) fn inquire_about_all_of(
        &mut self,
        coordinator: NodeId,
        effects: &mut Out,
    ) {
        let in_doubt: Vec<TxnId> = self
            .participating
            .promised
            .iter()
            .filter(|(txn, promised)| {
                txn.coordinator == coordinator && matches!(promised.stage, Stage::Prepared(_))
            })
            .map(|(txn, _)| *txn)
            .collect();
        for txn in in_doubt {
            self.send_inquiry(coordinator, txn, effects);
        }
    }

    fn send_inquiry(&mut self, to: NodeId, txn: TxnId, effects: &mut Out) {
        if self.peers_up.contains(&to) {
            self.counters.inquiries_sent += 1;
            effects.push_unheld(Effect::Send { to, message: Message::Inquire { txn } });
        }
    }

    /// Another participant is in doubt.
    pub(in crate::two_phase::any_replica) fn inquired(
        &mut self,
        from: NodeId,
        txn: TxnId,
        effects: &mut Out,
    ) {
        self.counters.inquiries += 1;
        if !self.others.contains(&txn.coordinator) || from == txn.coordinator {
            self.counters.strange_dropped += 1;
            return;
        }
        match self.knowledge(txn) {
            Some(knowledge) => self.send_knowledge(from, txn, knowledge, effects),
            None => self.promise_never(from, txn, effects),
        }
    }

    /// What this participant may say about a transaction; nothing if it has never voted on it.
    fn knowledge(&self, txn: TxnId) -> Option<Knowledge> {
        match self.participating.promised.get(&txn).map(|promised| &promised.stage) {
            // A vote that is still on the way will be yes.
            Some(Stage::Prepared(_) | Stage::Logging) => return Some(Knowledge::Undecided),
            Some(Stage::Waiting) => return None,
            None => {}
        }
        match self.participating.decided.get(&txn) {
            // The coordinator has said so, and its log remembers; ours need not.
            Some(Decided { decision: Decision::Commit, .. }) => {
                Some(Knowledge::Decided(Decision::Commit))
            }
            Some(Decided { decision: Decision::Abort, durable: true }) => {
                Some(Knowledge::Decided(Decision::Abort))
            }
            // A promise never to vote yes that is not durable is none.
            Some(Decided { decision: Decision::Abort, durable: false }) => {
                Some(Knowledge::Undecided)
            }
            // A commit is not over while the one who asks has not acknowledged it.
            None if self.participating.is_finished(txn) => {
                Some(Knowledge::Decided(Decision::Abort))
            }
            None => None,
        }
    }

    /// It can't be committed without this participant's vote. Promises, durably, never to give it:
    /// then it is aborted, whatever comes later.
    fn promise_never(&mut self, from: NodeId, txn: TxnId, effects: &mut Out) {
        if self.options.planted.has(Bug::AbortWithoutPromise) {
            return self.send_knowledge(from, txn, Knowledge::Decided(Decision::Abort), effects);
        }
        if self.participating.decided.len() >= self.options.decided_max || !self.has_room {
            self.counters.overloaded += 1;
            return self.send_knowledge(from, txn, Knowledge::Undecided, effects);
        }
        if self.participating.promised.contains_key(&txn) {
            // It waits for locks, and its coordinator waits for the vote.
            self.forget(txn);
            self.send_vote(txn, Vote::Refused, effects);
        }
        self.counters.promised_never += 1;
        let decision = Decision::Abort;
        self.participating.decided.insert(txn, Decided { decision, durable: false });
        self.persist(Record::Decided { txn, decision }, Urgency::Now, effects);
        self.counters.informs_sent += 1;
        let knowledge = Knowledge::Decided(decision);
        effects.push(Effect::Send { to: from, message: Message::Inform { txn, knowledge } });
        effects.push(Effect::Resume(Resume::Decided(txn)));
    }

    fn send_knowledge(&mut self, to: NodeId, txn: TxnId, knowledge: Knowledge, effects: &mut Out) {
        self.counters.informs_sent += 1;
        effects.push_unheld(Effect::Send { to, message: Message::Inform { txn, knowledge } });
    }

    /// The answer to an inquiry of ours.
    pub(in crate::two_phase::any_replica) fn informed(
        &mut self,
        from: NodeId,
        txn: TxnId,
        knowledge: Knowledge,
        effects: &mut Out,
    ) {
        self.counters.informs += 1;
        // Only about what is in doubt here, and only from who can know.
        let may_know = self
            .participating
            .promised
            .get(&txn)
            .is_some_and(|promised| promised.participants.contains(&from));
        match knowledge {
            Knowledge::Decided(decision) if may_know => self.learn(txn, decision, effects),
            Knowledge::Decided(_) => self.counters.duplicates_dropped += 1,
            Knowledge::Undecided => {}
        }
    }
}

/// Twice the wait for each time it was asked, up to the greatest.
fn backed_off(first: Duration, max: Duration, times: u32) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(times)).min(max).max(first.min(max))
}
