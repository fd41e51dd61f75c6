//! From the decision to its end: telling it until everybody has it, and answering who asks.

use alloc::vec::Vec;

use crate::contract::{Effect, NodeId, Time, Urgency};
use crate::two_phase::any_replica::message::{Decision, Knowledge, Message, TxnId};
use crate::two_phase::any_replica::planted::Bug;
use crate::two_phase::any_replica::record::Record;
use crate::two_phase::any_replica::{Alarm, Out, Replica, points};

impl Replica {
    pub(in crate::two_phase::any_replica) fn acknowledged(
        &mut self,
        from: NodeId,
        txn: TxnId,
        effects: &mut Out,
    ) {
        if !self.is_mine(txn) {
            self.counters.strange_dropped += 1;
            return;
        }
        self.counters.acknowledgements += 1;
        let Some(commit) = self.coordinating.commits.get_mut(&txn) else {
            self.counters.duplicates_dropped += 1;
            return;
        };
        if commit.work.is_some() {
            // Nobody was told yet.
            self.counters.strange_dropped += 1;
            return;
        }
        let Some(index) = commit.unacknowledged.iter().position(|node| *node == from) else {
            self.counters.duplicates_dropped += 1;
            return;
        };
        commit.unacknowledged.swap_remove(index);
        let is_over = commit.unacknowledged.is_empty()
            || self.options.planted.has(Bug::EndBeforeAllAcknowledged);
        if is_over {
            effects.point(points::COORDINATOR_ALL_ACKNOWLEDGED);
            if let Some(at) = commit.alarm {
                self.alarms.cancel(at, Alarm::Commit(txn));
            }
            self.coordinating.commits.remove(&txn);
            self.persist(Record::Ended { txn }, Urgency::Soon, effects);
        }
    }

    /// A link stands again: what was sent over the broken one may be lost, so the commits go again.
    pub(in crate::two_phase::any_replica) fn resend_commits_to(
        &mut self,
        peer: NodeId,
        effects: &mut Out,
    ) {
        let commits: Vec<TxnId> = self
            .coordinating
            .commits
            .iter()
            .filter(|(_, it)| it.work.is_none() && it.unacknowledged.contains(&peer))
            .map(|(txn, _)| *txn)
            .collect();
        for txn in commits {
            self.counters.commits_resent += 1;
            self.send_decision(peer, txn, Decision::Commit, effects);
        }
    }

    /// No acknowledgement in time, though a link stands: the message was lost, or the replica is
    /// slow.
    pub(in crate::two_phase::any_replica) fn resend_commit(
        &mut self,
        now: Time,
        txn: TxnId,
        effects: &mut Out,
    ) {
        let alarm = now.after(self.options.resend_interval);
        let commit = self.coordinating.commits.get_mut(&txn).expect("what is over has no alarm");
        commit.alarm = Some(alarm);
        self.alarms.set(alarm, Alarm::Commit(txn));
        let peers_up = &self.peers_up;
        let reachable: Vec<NodeId> =
            commit.unacknowledged.iter().copied().filter(|node| peers_up.contains(node)).collect();
        for to in reachable {
            self.counters.commits_resent += 1;
            self.send_decision(to, txn, Decision::Commit, effects);
        }
    }

    /// Somebody in doubt asks. What is not known is aborted: a commit is not forgotten before
    /// everybody has acknowledged it.
    pub(in crate::two_phase::any_replica) fn inquired_as_coordinator(
        &mut self,
        from: NodeId,
        txn: TxnId,
        effects: &mut Out,
    ) {
        self.counters.inquiries += 1;
        if !self.is_mine(txn) {
            self.counters.strange_dropped += 1;
            return;
        }
        let knowledge = match self.coordinating.commits.get(&txn) {
            Some(commit) if commit.work.is_none() => Knowledge::Decided(Decision::Commit),
            Some(_) => Knowledge::Undecided,
            None if self.coordinating.tries.contains_key(&txn) => Knowledge::Undecided,
            None if self.options.planted.has(Bug::PresumeCommit) => {
                Knowledge::Decided(Decision::Commit)
            }
            None => Knowledge::Decided(Decision::Abort),
        };
        self.counters.informs_sent += 1;
        effects.push_unheld(Effect::Send { to: from, message: Message::Inform { txn, knowledge } });
    }
}
