//! From the decision to its end: telling it until everybody has it, and answering who asks.

use alloc::vec::Vec;

use super::state::Phase;
use super::{Alarm, Coordinator, Out};
use crate::contract::{Effect, NodeId, Time, Urgency};
use crate::two_phase::message::{CommitNumber, Decision, Knowledge, Message, TxnId};
use crate::two_phase::planted::Bug;
use crate::two_phase::points;
use crate::two_phase::record::CoordinatorRecord;

impl Coordinator {
    pub(super) fn acknowledge(&mut self, from: NodeId, txn: TxnId, effects: &mut Out) {
        if !self.is_mine(txn) {
            self.counters.strange_dropped += 1;
            return;
        }
        self.counters.acknowledgements += 1;
        let Some(active) = self.transactions.get_mut(&txn) else {
            self.counters.duplicates_dropped += 1;
            return;
        };
        let Phase::Committed { unacknowledged, .. } = &mut active.phase else {
            // Nobody was told yet.
            self.counters.strange_dropped += 1;
            return;
        };
        let Some(index) = unacknowledged.iter().position(|node| *node == from) else {
            self.counters.duplicates_dropped += 1;
            return;
        };
        unacknowledged.swap_remove(index);
        self.end_if_over(txn, effects);
    }

    /// A commit is over when everybody has acknowledged it, and its own record is durable: until then
    /// the promises stand for it, and nobody may forget his.
    pub(super) fn end_if_over(&mut self, txn: TxnId, effects: &mut Out) {
        let Phase::Committed { unacknowledged, recorded, .. } = &self.transactions[&txn].phase
        else {
            unreachable!("only what is committed is acknowledged");
        };
        let planted = self.options.planted;
        let is_acknowledged = unacknowledged.is_empty()
            || planted.has(Bug::EndBeforeAllAcknowledged)
                && unacknowledged.len() < self.transactions[&txn].participants.len();
        if is_acknowledged && (*recorded || planted.has(Bug::EndBeforeRecord)) {
            effects.point(points::COORDINATOR_ALL_ACKNOWLEDGED);
            self.forget(txn);
            self.persist(CoordinatorRecord::Ended { txn }, Urgency::Soon, effects);
        }
    }

    /// A link stands again: what was sent over the broken one may be lost, so the commits go again,
    /// in their order and before anything else.
    pub(super) fn resend_commits_to(&mut self, peer: NodeId, effects: &mut Out) {
        let mut commits: Vec<(CommitNumber, TxnId)> = self
            .transactions
            .iter()
            .filter_map(|(txn, active)| match &active.phase {
                Phase::Committed { number, unacknowledged, .. }
                    if unacknowledged.contains(&peer) =>
                {
                    Some((*number, txn))
                }
                _ => None,
            })
            .collect();
        commits.sort_unstable();
        for (number, txn) in commits {
            self.counters.commits_resent += 1;
            self.send_decision(peer, txn, Decision::Commit(number), effects);
        }
    }

    /// No acknowledgement in time, though a link stands: the message was lost, or the replica is
    /// slow.
    pub(super) fn resend_commit(&mut self, now: Time, txn: TxnId, effects: &mut Out) {
        let alarm = now.after(self.options.resend_interval);
        let active = self.transactions.get_mut(&txn).expect("an alarm's transaction is known");
        active.alarm = Some(alarm);
        self.alarms.set(alarm, Alarm::Transaction(txn));
        let Phase::Committed { number, unacknowledged, .. } = &active.phase else {
            unreachable!("only what was told is told again");
        };
        let number = *number;
        let peers_up = &self.peers_up;
        let reachable: Vec<NodeId> =
            unacknowledged.iter().copied().filter(|node| peers_up.contains(node)).collect();
        for to in reachable {
            self.counters.commits_resent += 1;
            self.send_decision(to, txn, Decision::Commit(number), effects);
        }
    }

    /// Somebody in doubt asks. What is not known is aborted: a commit is not forgotten before
    /// everybody has acknowledged it. But after a restart not everything is known again at once.
    pub(super) fn inquire(&mut self, from: NodeId, txn: TxnId, effects: &mut Out) {
        self.counters.inquiries += 1;
        if !self.is_mine(txn) {
            self.counters.strange_dropped += 1;
            return;
        }
        if !self.views.counts(from, txn) && !self.options.planted.has(Bug::AbortToExcluded) {
            // It may be over without a word of that replica, and was not aborted for that.
            if !self.views.is_member(from) {
                self.tell_view(from, effects);
            }
            return;
        }
        let knowledge = match self.transactions.get(&txn).map(|active| &active.phase) {
            None if self.options.planted.has(Bug::PresumeCommit) => {
                Knowledge::Decided(Decision::Commit(self.commits.next()))
            }
            None if self.is_over(txn) => Knowledge::Decided(Decision::Abort),
            Some(Phase::Committed { number, .. }) => Knowledge::Decided(Decision::Commit(*number)),
            Some(
                Phase::Voting { .. }
                | Phase::Alone
                | Phase::Committing { .. }
                | Phase::Aborting { .. },
            )
            | None => Knowledge::Undecided,
        };
        self.counters.informs_sent += 1;
        let message = Message::Inform { txn, knowledge, epoch: self.epoch };
        effects.push(Effect::Send { to: from, message });
    }

    /// Whether a transaction that is not open is over, and not merely unknown after a restart.
    pub(super) fn is_over(&self, txn: TxnId) -> bool {
        self.round.is_none()
            || txn < self.over_below
            || self.aborted.contains(&txn)
            || self.options.planted.has(Bug::PresumeBeforeRecovery)
    }
}
