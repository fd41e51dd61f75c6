//! Going on without a replica that is silent: the view is changed in the log, all members are told,
//! and then what waited for the silent one waits no more.
//!
//! ```text
//!  coordinator                         members                      silent replica
//!    │ silent for `exclude_after`         │                              ·
//!    │ ▓ View 3: without n3   (forced)    │                              · its lease has run out
//!    │ ── announce view 3 ───────────────►│                              ·
//!    │                                    │ ▓ View 3     (forced)        ·
//!    │ ◄─ renew, knows view 3 ────────────│                              ·
//!    │ from all: what they have promised counts                          ·
//!    │                                                                   │ it is back
//!    │ ◄─ renew ─────────────────────────────────────────────────────────│
//!    │ ── excluded by view 3 ───────────────────────────────────────────►│
//! ```

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::state::{Active, Phase};
use super::{Alarm, Coordinator, CoordinatorResume, Out};
use crate::contract::{Effect, NodeId, Time, Urgency};
use crate::two_phase::message::{Message, TxnId, ViewMessage};
use crate::two_phase::planted::Bug;
use crate::two_phase::points;
use crate::two_phase::record::{CoordinatorRecord, View};

impl Coordinator {
    /// The coordinator serves: it begins to listen for who is there.
    pub(super) fn begin_to_look(&mut self, now: Time, effects: &mut Out) {
        if !self.views.are_kept() {
            return;
        }
        self.views.start(now, self.commits);
        self.view_alarm(now, effects);
    }

    /// Tells the view again to who may not have heard, and looks who is silent.
    pub(super) fn view_alarm(&mut self, now: Time, effects: &mut Out) {
        self.alarms.set(now.after(self.views.interval()), Alarm::View);
        self.give_up_change(now, effects);
        self.change_view(now, effects);
        self.announce(effects);
    }

    pub(super) fn change_view(&mut self, now: Time, effects: &mut Out) {
        if self.waits_to_found() {
            return;
        }
        let round = self.round.as_ref().map(|_| (self.epoch, self.commits));
        let Some(view) = self.views.next(now, round) else { return };
        self.log_view(now, view, effects);
    }

    /// Whether something is not decided that a replica may have promised never to vote on.
    fn waits_to_found(&mut self) -> bool {
        let next = self.next_txn();
        let Some(first) = self.views.founded_behind(next) else { return false };
        let is_voting = |active: &Active| match active.phase {
            Phase::Voting { .. } => true,
            Phase::Alone
            | Phase::Committing { .. }
            | Phase::Committed { .. }
            | Phase::Aborting { .. } => false,
        };
        self.round.is_some()
            || self.transactions.range(..first).any(|(_, active)| is_voting(active))
    }

    pub(super) fn log_view(&mut self, now: Time, view: View, effects: &mut Out) {
        if self.options.planted.has(Bug::ExcludeBeforeDurable) {
            self.view_is_durable(now, effects);
            return self.persist(CoordinatorRecord::View(Box::new(view)), Urgency::Now, effects);
        }
        effects.point(points::COORDINATOR_VIEW_WRITTEN);
        self.persist(CoordinatorRecord::View(Box::new(view)), Urgency::Now, effects);
        effects.point(points::COORDINATOR_VIEW_DURABLE);
        effects.push(Effect::Resume(CoordinatorResume::View));
    }

    pub(super) fn view_is_durable(&mut self, now: Time, effects: &mut Out) {
        let left_out = self.views.is_logged(self.next_txn());
        self.participants = self.views.members();
        self.counters.views += 1;
        self.counters.excluded += left_out.len() as u64;
        self.announce(effects);
        for replica in left_out {
            self.joining.remove(&replica);
            self.outside.remove(&replica);
            self.redirect_reads_of(now, replica, effects);
        }
        self.go_on(now, effects);
        self.answer_change(effects);
        // One change may have to follow on another.
        self.change_view(now, effects);
    }

    fn announce(&mut self, effects: &mut Out) {
        for to in self.views.to_tell() {
            if self.peers_up.contains(&to) {
                self.tell_view(to, effects);
            }
        }
    }

    /// Tells the view to a replica, and whether it is in.
    pub(super) fn tell_view(&mut self, to: NodeId, effects: &mut Out) {
        let (view, others) = (self.views.current().number, self.views.others());
        let message = match self.views.is_member(to) {
            true => ViewMessage::Announce { view, others },
            false => ViewMessage::Excluded { view, others },
        };
        self.send_of_view(to, message, effects);
    }

    fn send_of_view(&mut self, to: NodeId, message: ViewMessage, effects: &mut Out) {
        effects.push_unheld(Effect::Send { to, message: Message::View(message) });
    }

    pub(super) fn of_view(
        &mut self,
        now: Time,
        from: NodeId,
        message: ViewMessage,
        effects: &mut Out,
    ) {
        let ViewMessage::Renew { incarnation, at, view, applied } = message else {
            self.counters.strange_dropped += 1;
            return;
        };
        if !self.views.was_replica(from) || view > self.views.logged().number {
            // It knows more than the log.
            self.counters.strange_dropped += 1;
            return;
        }
        let was_settled = self.views.is_settled();
        self.views.knows(from, view);
        self.views.has_applied(from, applied);
        if view < self.views.current().number || !self.views.is_member(from) {
            self.tell_view(from, effects);
        }
        if let Some(lease) = self.views.grant(from) {
            self.counters.leases += 1;
            self.send_of_view(from, ViewMessage::Grant { incarnation, at, lease }, effects);
        }
        if !was_settled && self.views.is_settled() {
            effects.point(points::COORDINATOR_VIEW_KNOWN);
            self.go_on(now, effects);
        }
        self.change_view(now, effects);
    }

    /// Nobody waits for who is left out, once all members know that.
    fn go_on(&mut self, now: Time, effects: &mut Out) {
        if !self.views.is_settled() {
            return;
        }
        let mut decided = Vec::new();
        let mut acknowledged = Vec::new();
        let views = &self.views;
        for (txn, active) in self.transactions.iter_mut() {
            match &mut active.phase {
                Phase::Voting { missing } => {
                    missing.retain(|replica| views.counts(*replica, txn));
                    if missing.is_empty() {
                        decided.push(txn);
                    }
                }
                Phase::Committed { unacknowledged, .. } => {
                    let before = unacknowledged.len();
                    unacknowledged.retain(|replica| views.counts(*replica, txn));
                    if unacknowledged.len() < before {
                        acknowledged.push(txn);
                    }
                }
                Phase::Alone | Phase::Committing { .. } | Phase::Aborting { .. } => {}
            }
        }
        for txn in decided {
            self.commit(now, txn, effects);
        }
        for txn in acknowledged {
            self.end_if_over(txn, effects);
        }
        self.go_on_with_round(now, effects);
    }

    /// Whether a replica takes part in the transaction still. To nobody else it is said what is over:
    /// who is left out, and does not know it, would take what it has prepared for aborted.
    pub(super) fn may_tell(&self, to: NodeId, txn: TxnId) -> bool {
        self.views.counts(to, txn)
    }

    /// Those that cannot be reached, and whether writes may wait for them all the same: they will be
    /// back, or left out.
    pub(super) fn may_wait_for(&self, peers: &[NodeId]) -> bool {
        self.views.are_kept() && self.views.can_do_without(peers)
    }

    pub(super) fn unreachable(&self) -> Vec<NodeId> {
        let members = self.participants.iter().copied();
        members.filter(|replica| !self.peers_up.contains(replica)).collect()
    }

    /// A link stands again: what waits for the vote of that replica is sent to it once more.
    pub(super) fn resend_prepares_to(&mut self, peer: NodeId, effects: &mut Out) {
        let waits_for = |active: &Active| match &active.phase {
            Phase::Voting { missing } => missing.contains(&peer),
            Phase::Alone
            | Phase::Committing { .. }
            | Phase::Committed { .. }
            | Phase::Aborting { .. } => false,
        };
        let waiting = self.transactions.iter().filter(|(_, active)| waits_for(active));
        let waiting: Vec<TxnId> = waiting.map(|(txn, _)| txn).collect();
        for txn in waiting {
            if let Some(prepare) = self.prepare_again(txn) {
                self.counters.prepares_sent += 1;
                effects.push(Effect::Send { to: peer, message: Message::Prepare(prepare.into()) });
            }
        }
    }
}
