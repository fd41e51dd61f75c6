//! Handing leadership over without a silence (leadership transfer, Ongaro §3.10): a leader that stops
//! cleanly, has no room for its own votes or is no member any more asks another replica to campaign at
//! once. It goes on leading until that one is elected, so nothing is lost if nobody takes over.

use alloc::vec::Vec;

use crate::contract::{Effect, NodeId, Time};
use crate::paxos::message::{Ballot, Message};
use crate::paxos::{Out, Replica};

impl Replica {
    /// Asks the replica that has answered last to take over; next time, another one.
    pub(in crate::paxos) fn hand_over(&mut self, now: Time, effects: &mut Out) {
        let (_, members) = self.learner.membership.newest();
        let mut others: Vec<NodeId> = members.iter().map(|member| member.node).collect();
        others.retain(|node| *node != self.options.id && self.peers_up.contains(node));
        let Some(term) = self.proposer.leading() else { return };
        if others.iter().all(|node| term.handed_to.contains(node)) {
            term.handed_to.clear();
        }
        others.retain(|node| !term.handed_to.contains(node));
        let Some(to) = others.into_iter().max_by_key(|node| term.last_ack(*node)) else { return };
        term.handed_to.push(to);
        // Whoever is elected need not wait for the end of this one's lease.
        term.handed_at = Some(now);
        self.counters.hand_overs_sent += 1;
        let message = Message::TakeOver { ballot: term.ballot };
        effects.push_unheld(Effect::Send { to, message });
    }

    /// Asks again, and somebody else, if nobody has taken over since.
    pub(in crate::paxos) fn hand_over_again(&mut self, now: Time, effects: &mut Out) {
        let patience = self.options.election_timeout_min;
        let Some(term) = self.proposer.leading() else { return };
        if term.handed_at.is_none_or(|handed| now >= handed.after(patience)) {
            self.hand_over(now, effects);
        }
    }

    /// The leader would like this node to lead. It asks the others first all the same: if they could
    /// not promise, it would depose the leader for nothing.
    pub(in crate::paxos) fn take_over(
        &mut self,
        now: Time,
        from: NodeId,
        ballot: Ballot,
        effects: &mut Out,
    ) {
        let asks = self.proposer.leader() == Some(from) && self.proposer.leader_ballot() == ballot;
        if !asks || !self.is_member() || self.leads() {
            self.counters.duplicates_dropped += 1;
            return;
        }
        self.give_lease_back(ballot);
        if self.may_campaign(now) {
            self.counters.taken_over += 1;
            self.arm_election(now);
            self.canvass(now, Some(ballot), effects);
        }
    }
}
