//! Letting a replica in again that has lost its disk, and with it what it had promised.

use alloc::format;
use alloc::vec::Vec;

use super::state::Phase;
use super::{Coordinator, Out};
use crate::contract::{Effect, NodeId, Time};
use crate::request::Failure;
use crate::two_phase::message::{CommitNumber, Message, TxnId};
use crate::two_phase::planted::Bug;

impl Coordinator {
    /// A replica takes part in nothing, and has come so far.
    pub(super) fn outside(
        &mut self,
        now: Time,
        from: NodeId,
        life: u64,
        applied: CommitNumber,
        effects: &mut Out,
    ) {
        // A replica that decides alone has nobody to catch up from.
        if !self.participants.contains(&from) || self.participants.len() == 1 {
            self.counters.strange_dropped += 1;
            return;
        }
        // It says so again and again. A word that comes late counts for a while only.
        self.outside.insert(from, now.after(self.options.vote_timeout));
        self.void_votes(from, effects);
        // A number that is not durable may be given out again, and in a round more may come.
        let is_recorded = |phase: &Phase| match phase {
            Phase::Committing { .. } | Phase::Committed { recorded: false, .. } => false,
            Phase::Voting { .. }
            | Phase::Alone
            | Phase::Committed { recorded: true, .. }
            | Phase::Aborting { .. } => true,
        };
        let is_settled = self.round.is_none()
            && self.transactions.values().all(|active| is_recorded(&active.phase));
        let to = self.commits;
        let message = if is_settled && applied >= to {
            self.outside.remove(&from);
            self.counters.joins_sent += 1;
            Message::Join { life, from: self.next_txn(), serve_from: to }
        } else {
            Message::CatchUp { to }
        };
        effects.push(Effect::Send { to: from, message });
    }

    /// What waits for votes may have one of an earlier life, which nobody remembers. Nothing is
    /// decided there, so it is aborted.
    fn void_votes(&mut self, from: NodeId, effects: &mut Out) {
        if self.options.planted.has(Bug::JoinKeepsOldVotes) {
            return;
        }
        let voting = self.transactions.iter().filter(|(_, active)| match active.phase {
            Phase::Voting { .. } => active.participants.contains(&from),
            Phase::Alone
            | Phase::Committing { .. }
            | Phase::Committed { .. }
            | Phase::Aborting { .. } => false,
        });
        let voting: Vec<TxnId> = voting.map(|(txn, _)| txn).collect();
        for txn in voting {
            self.counters.votes_voided += 1;
            let reason = format!("{from} has lost its disk, and what it had voted");
            self.abort(txn, None, Failure::Unavailable { reason }, effects);
        }
    }
}
