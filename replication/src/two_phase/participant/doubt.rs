//! In doubt: asking how a transaction ended, and answering others who ask (cooperative
//! termination, BHG §7.4).

use alloc::vec::Vec;
use core::time::Duration;

use super::decide::Learnt;
use super::state::{Decided, Stage};
use super::{Alarm, Out, Participant, ParticipantResume};
use crate::contract::{Effect, NodeId, Time, Urgency};
use crate::two_phase::message::{Decision, Knowledge, Message, TxnId};
use crate::two_phase::planted::Bug;
use crate::two_phase::record::ParticipantRecord;

impl Participant {
    /// A transaction has been in doubt for long. Asks the coordinator, and after some tries the
    /// other participants too, ever more rarely.
    pub(super) fn inquire_alarm(&mut self, now: Time, txn: TxnId, effects: &mut Out) {
        let (first, max) = (self.options.inquire_after, self.options.inquire_interval_max);
        let promised = self.transactions.get_mut(&txn).expect("what is over has no alarm");
        let Stage::Prepared { alarm, inquiries, .. } = &mut promised.stage else {
            unreachable!("only what is prepared has an alarm");
        };
        *inquiries = inquiries.saturating_add(1);
        if *inquiries > 1 && self.options.planted.has(Bug::AbortOnTimeoutAfterYes) {
            *alarm = None;
            return self.abort(txn, effects);
        }
        let wait = backed_off(first, max, *inquiries);
        let at = now.after(wait);
        *alarm = Some(at);
        self.alarms.set(at, Alarm::Inquire(txn));
        let ask_peers = *inquiries > self.options.inquiries_before_peers;
        let peers: Vec<NodeId> = promised.participants.to_vec();
        self.send_inquiry(txn.coordinator, txn, effects);
        if ask_peers {
            for peer in peers {
                if peer != self.options.id {
                    self.send_inquiry(peer, txn, effects);
                }
            }
        }
    }

    /// The coordinator can be reached again. It has started anew, or the vote may have been lost.
    pub(super) fn inquire_about_all(&mut self, effects: &mut Out) {
        let in_doubt: Vec<TxnId> = self
            .transactions
            .iter()
            .filter(|(_, promised)| matches!(promised.stage, Stage::Prepared { commit: None, .. }))
            .map(|(txn, _)| txn)
            .collect();
        for txn in in_doubt {
            self.send_inquiry(txn.coordinator, txn, effects);
        }
    }

    fn send_inquiry(&mut self, to: NodeId, txn: TxnId, effects: &mut Out) {
        if self.peers_up.contains(&to) {
            self.counters.inquiries_sent += 1;
            effects.push_unheld(Effect::Send { to, message: Message::Inquire { txn } });
        }
    }

    /// Another participant is in doubt.
    pub(super) fn inquire(&mut self, from: NodeId, txn: TxnId, effects: &mut Out) {
        self.counters.inquiries += 1;
        if txn.coordinator != NodeId::COORDINATOR || from == NodeId::COORDINATOR {
            self.counters.strange_dropped += 1;
            return;
        }
        if let Some((knowledge, epoch)) = self.knowledge(txn) {
            return self.send_knowledge(from, txn, knowledge, epoch, effects);
        }
        self.promise_never(from, txn, effects);
    }

    /// What this participant may say about a transaction, and of which epoch's coordinator that is;
    /// nothing if it has never voted on it.
    fn knowledge(&self, txn: TxnId) -> Option<(Knowledge, u64)> {
        let planted = self.options.planted;
        let decided = |decision| Knowledge::Decided(decision);
        match self.transactions.get(&txn).map(|promised| &promised.stage) {
            Some(Stage::Prepared { commit: Some(told), .. }) => {
                return Some((decided(Decision::Commit(told.number)), told.epoch));
            }
            // A vote that is still on the way will be yes.
            Some(Stage::Prepared { commit: None, .. } | Stage::Logging | Stage::Alone(_)) => {
                return Some((Knowledge::Undecided, self.promised));
            }
            Some(Stage::Checking { .. }) if self.lease.view() > 0 => {
                return Some((Knowledge::Undecided, self.promised));
            }
            Some(Stage::Checking { .. }) => return None,
            None => {}
        }
        match self.decided.get(&txn) {
            Some(known @ Decided { decision: Decision::Commit(number), .. }) => {
                Some((decided(Decision::Commit(*number)), self.epoch_known(known)))
            }
            Some(Decided { decision: Decision::Abort, durable: true, .. }) => {
                Some((decided(Decision::Abort), self.promised))
            }
            // A promise never to vote yes that is not durable is none.
            Some(Decided { decision: Decision::Abort, durable: false, .. }) => {
                Some((Knowledge::Undecided, self.promised))
            }
            // An earlier life of this replica may have voted on it.
            None if self.is_before_joining(txn) => Some((Knowledge::Undecided, self.promised)),
            // Who is left out is not waited for: what is over may be committed all the same, and a
            // promise not to vote is worth nothing, since one day the vote may not be needed.
            None if self.lease.view() > 0 && !planted.has(Bug::PromiseNeverInView) => {
                Some((Knowledge::Undecided, self.promised))
            }
            // A commit is not over while the one who asks has not acknowledged it.
            None if txn < self.finished_below => Some((decided(Decision::Abort), self.promised)),
            None => None,
        }
    }

    /// Of which epoch's coordinator a commit's number is. One has said so. If it forgets the number,
    /// this participant tells it when it asks; what is durable here it has told to whom it has
    /// promised.
    pub(super) fn epoch_known(&self, decided: &Decided) -> u64 {
        match decided.durable {
            true => self.promised.max(decided.epoch),
            false => decided.epoch,
        }
    }

    /// It can't be committed without this participant's vote. Promises, durably, never to give it:
    /// then it is aborted, whatever comes later.
    fn promise_never(&mut self, from: NodeId, txn: TxnId, effects: &mut Out) {
        let epoch = self.promised;
        if self.options.planted.has(Bug::AbortWithoutPromise) {
            let knowledge = Knowledge::Decided(Decision::Abort);
            return self.send_knowledge(from, txn, knowledge, epoch, effects);
        }
        if self.decided.len() >= self.options.decided_max {
            self.counters.overloaded += 1;
            return self.send_knowledge(from, txn, Knowledge::Undecided, epoch, effects);
        }
        if self.transactions.contains_key(&txn) {
            self.forget(txn);
        }
        self.counters.promised_never += 1;
        let decision = Decision::Abort;
        self.decided.insert(txn, Decided::new(decision, false));
        self.persist(ParticipantRecord::Decided { txn, decision }, Urgency::Now, effects);
        self.counters.informs_sent += 1;
        let knowledge = Knowledge::Decided(decision);
        let message = Message::Inform { txn, knowledge, epoch };
        effects.push(Effect::Send { to: from, message });
        effects.push(Effect::Resume(ParticipantResume::Decided(txn)));
    }

    fn send_knowledge(
        &mut self,
        to: NodeId,
        txn: TxnId,
        knowledge: Knowledge,
        epoch: u64,
        effects: &mut Out,
    ) {
        self.counters.informs_sent += 1;
        let message = Message::Inform { txn, knowledge, epoch };
        effects.push_unheld(Effect::Send { to, message });
    }

    /// The answer to an inquiry of ours.
    pub(super) fn inform(
        &mut self,
        from: NodeId,
        txn: TxnId,
        knowledge: Knowledge,
        epoch: u64,
        effects: &mut Out,
    ) {
        self.counters.informs += 1;
        // Only about what is in doubt here, and only from who can know.
        let may_know = self.transactions.get(&txn).is_some_and(|promised| {
            from == txn.coordinator || promised.participants.contains(&from)
        });
        match knowledge {
            Knowledge::Decided(decision) if may_know => {
                self.learn(txn, Learnt { decision, epoch }, effects);
            }
            Knowledge::Decided(_) => self.counters.duplicates_dropped += 1,
            Knowledge::Undecided => {}
        }
    }
}

/// Twice the wait for each time it was asked, up to the greatest.
fn backed_off(first: Duration, max: Duration, times: u32) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(times)).min(max).max(first.min(max))
}
