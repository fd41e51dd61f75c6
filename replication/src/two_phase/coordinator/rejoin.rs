//! Letting a replica in again: one that was left out, or that has lost its disk and with it what it had
//! promised.

use alloc::format;
use alloc::vec::Vec;

use super::state::{Active, Phase};
use super::{Coordinator, Out};
use crate::contract::{Effect, NodeId, Time};
use crate::request::Failure;
use crate::two_phase::message::{CommitNumber, Message, TxnId};
use crate::two_phase::planted::Bug;

/// What a replica says that takes part in nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Returned {
    pub(super) life: u64,
    pub(super) applied: CommitNumber,
    /// No number that it has is from before this epoch.
    pub(super) promised: u64,
}

/// A member that is back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Joining {
    life: u64,
    /// What it was told when it was let in.
    told: Option<CommitNumber>,
}

impl Coordinator {
    /// A replica takes part in nothing, and has come so far.
    pub(super) fn outside(
        &mut self,
        now: Time,
        from: NodeId,
        returned: Returned,
        effects: &mut Out,
    ) {
        // What it has was judged when it was decided to take it back.
        if self.joining.get(&from).is_some_and(|known| known.life == returned.life) {
            return self.let_in_again(from, returned, effects);
        }
        match self.views.is_member(from) {
            false if self.views.is_replica(from) => {
                self.take_back(now, from, returned, effects);
            }
            true if self.views.are_kept() => {
                // It has lost what it had promised, or this coordinator what it had told it.
                self.views.is_lost(from);
                self.change_view(now, effects);
                let stays = self.views.logged().member(from).is_some();
                if stays && !self.views.can_leave_out(from, now) {
                    self.outside_as_member(now, from, returned, effects);
                }
            }
            _ => self.outside_as_member(now, from, returned, effects),
        }
    }

    /// A replica that was left out is back: when it lags by little, writes need it from the next
    /// transaction on. What was begun before goes its way without it, and comes to it as what it
    /// missed did. Nothing is asked of it before that is decided.
    fn take_back(&mut self, now: Time, from: NodeId, returned: Returned, effects: &mut Out) {
        let Returned { life, applied, promised } = returned;
        let to = self.commits;
        let anew = self.views.is_suspect(from, applied, promised)
            && !self.options.planted.has(Bug::TrustMissedNumbers);
        let lag = to.0.saturating_sub(applied.0);
        let is_near = lag <= self.options.join_lag_max && !anew && self.round.is_none();
        let next = self.next_txn();
        match is_near.then(|| self.views.with(from, next)).flatten() {
            Some(view) => {
                self.joining.insert(from, Joining { life, told: None });
                self.log_view(now, view, effects);
            }
            None => {
                let message = Message::CatchUp { to, anew };
                effects.push_unheld(Effect::Send { to: from, message });
            }
        }
    }

    /// Lets members in for which all that was begun before them has its place in the order, durably.
    pub(super) fn let_in(&mut self, effects: &mut Out) {
        if self.joining.is_empty() || self.round.is_some() {
            return;
        }
        let waiting: Vec<(NodeId, Joining)> = self
            .joining
            .iter()
            .filter(|(_, joining)| joining.told.is_none())
            .map(|(replica, joining)| (*replica, *joining))
            .collect();
        for (replica, joining) in waiting {
            let Some(from) = self.views.current().member(replica).map(|member| member.from) else {
                // Its view is on its way.
                continue;
            };
            let is_open = |active: &Active| match active.phase {
                Phase::Committed { recorded, .. } => !recorded,
                Phase::Voting { .. }
                | Phase::Alone
                | Phase::Committing { .. }
                | Phase::Aborting { .. } => true,
            };
            let before = self.transactions.range(..from);
            let planted = self.options.planted.has(Bug::JoinBeforeDecided);
            if before.map(|(_, active)| active).any(is_open) && !planted {
                continue;
            }
            let told = Joining { told: Some(self.commits), ..joining };
            self.joining.insert(replica, told);
            self.views.needs(replica, self.commits);
            self.counters.rejoined += 1;
            self.say_join(replica, told, effects);
            self.resend_prepares_to(replica, effects);
        }
    }

    /// It says that it is outside, and was let in, or will be once its view is durable: the word is
    /// late, or the answer to it was lost.
    fn let_in_again(&mut self, from: NodeId, returned: Returned, effects: &mut Out) {
        let joining = self.joining[&from];
        if joining.told.is_some() {
            self.say_join(from, joining, effects);
            return self.resend_prepares_to(from, effects);
        }
        let message = Message::CatchUp { to: self.commits, anew: false };
        if returned.applied < self.commits {
            effects.push_unheld(Effect::Send { to: from, message });
        }
    }

    fn say_join(&mut self, to: NodeId, joining: Joining, effects: &mut Out) {
        let Joining { life, told } = joining;
        let (view, others) = (self.views.current(), self.views.others());
        let (Some(member), Some(serve_from)) = (view.member(to), told) else { return };
        self.counters.joins_sent += 1;
        let (from, view) = (member.from, view.number);
        let message = Message::Join { life, from, serve_from, view, others };
        effects.push_unheld(Effect::Send { to, message });
    }

    /// As before there were views, or if too few would remain: nobody writes until it is back.
    fn outside_as_member(
        &mut self,
        now: Time,
        from: NodeId,
        returned: Returned,
        effects: &mut Out,
    ) {
        let Returned { life, applied, .. } = returned;
        // A replica that decides alone has nobody to catch up from.
        if !self.participants.contains(&from) || self.views.count() == 1 {
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
            self.views.needs(from, to);
            self.counters.joins_sent += 1;
            let (view, others) = (self.views.current().number, self.views.others());
            Message::Join { life, from: self.next_txn(), serve_from: to, view, others }
        } else {
            Message::CatchUp { to, anew: false }
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
