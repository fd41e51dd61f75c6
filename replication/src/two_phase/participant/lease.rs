//! The right to serve fresh reads, where replicas may be left out.
//!
//! ```text
//!  replica                                coordinator
//!    │ ◄─ announce view 1, ask 1 other ─────│
//!    │ ▓ View 1                (forced)     │ from here on fresh reads need a lease
//!    │ ── renew at 07:00, knows view 1 ────►│
//!    │ ◄─ grant 375 ms for 07:00 ───────────│
//!    │ serves until 07:00,375 by its clock  │
//! ```
//!
//! Without a lease it asks the others which view they know. If as many as may be left out know of this one
//! and none newer, then nothing was committed without this replica when they said so, and what waited for
//! the answer is read. A replica that was never told of a view is never left out, and needs none of this.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;
use core::time::Duration;

use super::state::Asker;
use super::{Alarm, Out, Participant, ParticipantResume};
use crate::contract::{Effect, NodeId, Time, Urgency};
use crate::request::{Failure, Query};
use crate::two_phase::message::{Message, ViewMessage};
use crate::two_phase::planted::Bug;
use crate::two_phase::points;
use crate::two_phase::record::ParticipantRecord;

/// What a replica knows of views, and until when it may serve.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    /// The newest view that it has heard of; 0 for none, ever. It is a member, if not outside.
    view: u64,
    /// The same, durably.
    durable: u64,
    /// Without a lease so many others have to know of no newer one.
    others: usize,
    /// It was left out by this view; 0 if not.
    excluded_by: u64,
    until: Time,
    /// How often it asks for one.
    interval: Duration,
    alarm: Option<Time>,
    /// Reads that came without a lease.
    waiting: Vec<Unleased>,
    /// The last question to the others, for how many of those that wait, and who has answered.
    round: u64,
    asked_for: usize,
    answers: BTreeSet<NodeId>,
}

#[derive(Clone, Debug)]
struct Unleased {
    asker: Asker,
    query: Query,
    deadline: Time,
    until: Time,
}

impl Lease {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            view: 0,
            durable: 0,
            others: 0,
            excluded_by: 0,
            until: Time(0),
            interval,
            alarm: None,
            waiting: Vec::new(),
            round: 0,
            asked_for: 0,
            answers: BTreeSet::new(),
        }
    }

    pub(super) fn replay(&mut self, view: u64, others: usize) {
        self.view = view;
        self.durable = view;
        self.others = others;
    }

    pub(super) fn view(&self) -> u64 {
        self.view
    }

    pub(super) fn waiting_len(&self) -> usize {
        self.waiting.len()
    }
}

impl Participant {
    /// Whether fresh reads may be served at this time.
    pub(super) fn may_read(&self, now: Time) -> bool {
        // Where nobody may be left out, nobody was without knowing.
        let may_be_left_out = self.lease.others > 0 || self.lease.excluded_by > 0;
        let is_needed = self.lease.view > 0 && may_be_left_out;
        !is_needed || now < self.lease.until || self.options.planted.has(Bug::ReadWithoutLease)
    }

    /// Writes the view behind a record that stands for all before it.
    pub(super) fn persist_view(&mut self, effects: &mut Out) {
        let (number, others) = (self.lease.view, self.lease.others);
        if number > 0 {
            self.persist(ParticipantRecord::View { number, others }, Urgency::Now, effects);
        }
    }

    pub(super) fn of_view(
        &mut self,
        now: Time,
        from: NodeId,
        message: ViewMessage,
        effects: &mut Out,
    ) {
        let is_coordinator = from == NodeId::COORDINATOR;
        match message {
            ViewMessage::Announce { view, others } if is_coordinator => {
                self.hear_of_view(now, view, others, effects);
            }
            ViewMessage::Grant { incarnation, at, lease } if is_coordinator => {
                if incarnation == self.incarnation {
                    self.take_lease(now, at, lease, effects);
                }
            }
            ViewMessage::Excluded { view, others } if is_coordinator => {
                self.is_left_out(view, others, effects);
            }
            ViewMessage::Ask { round, incarnation } if !is_coordinator => {
                self.tell_view(from, round, incarnation, effects);
            }
            ViewMessage::Heard { round, incarnation, view } if !is_coordinator => {
                let is_answer = incarnation == self.incarnation && round == self.lease.round;
                // Who knows an older one may be a replica no more, and not have heard of it.
                if is_answer && view == self.lease.view {
                    self.view_is_the_newest(now, from, effects);
                }
            }
            ViewMessage::Announce { .. }
            | ViewMessage::Renew { .. }
            | ViewMessage::Grant { .. }
            | ViewMessage::Excluded { .. }
            | ViewMessage::Ask { .. }
            | ViewMessage::Heard { .. } => self.counters.strange_dropped += 1,
        }
    }

    fn hear_of_view(&mut self, now: Time, view: u64, others: usize, effects: &mut Out) {
        if view <= self.lease.view {
            // Before it is durable nothing is said of it, and after that it is by itself.
            if self.lease.durable == self.lease.view {
                self.renew(now, effects);
            }
            return;
        }
        self.know_view(view, others, effects);
    }

    fn know_view(&mut self, view: u64, others: usize, effects: &mut Out) {
        self.lease.view = view;
        self.lease.others = others;
        self.persist_view(effects);
        effects.point(points::PARTICIPANT_VIEW_DURABLE);
        effects.push(Effect::Resume(ParticipantResume::View(view)));
    }

    pub(super) fn view_is_durable(&mut self, now: Time, view: u64, effects: &mut Out) {
        self.lease.durable = self.lease.durable.max(view);
        self.renew(now, effects);
        if self.standing.is_outside && !self.misses_some() {
            self.ask_to_join(now, effects);
        }
    }

    /// Asks for a lease, and says which view it knows.
    pub(super) fn renew(&mut self, now: Time, effects: &mut Out) {
        if self.lease.view == 0 || !self.serving {
            return;
        }
        let next = now.after(self.lease.interval);
        if let Some(alarm) = self.lease.alarm.replace(next) {
            self.alarms.cancel(alarm, Alarm::Lease);
        }
        self.alarms.set(next, Alarm::Lease);
        if self.peers_up.contains(&NodeId::COORDINATOR) {
            self.counters.renewals_sent += 1;
            let (incarnation, view) = (self.incarnation, self.lease.durable);
            let applied = self.applied;
            let renew = ViewMessage::Renew { incarnation, at: now, view, applied };
            self.send_of_view(NodeId::COORDINATOR, renew, effects);
        }
    }

    pub(super) fn lease_alarm(&mut self, now: Time, effects: &mut Out) {
        self.lease.alarm = None;
        if self.lease.until <= now {
            self.lease.interval = self.options.renew_interval;
        }
        self.expire_unleased(now, effects);
        self.renew(now, effects);
        self.ask_for_view(effects);
    }

    fn send_of_view(&mut self, to: NodeId, message: ViewMessage, effects: &mut Out) {
        effects.push_unheld(Effect::Send { to, message: Message::View(message) });
    }

    fn take_lease(&mut self, now: Time, at: Time, lease: Duration, effects: &mut Out) {
        self.lease.excluded_by = 0;
        self.lease.until = self.lease.until.max(at.after(lease));
        // Two may be lost.
        self.lease.interval = lease / 4;
        if now < self.lease.until {
            self.read_what_waited(now, usize::MAX, effects);
        }
    }

    /// The coordinator goes on without this replica. It may be a late word, from before it was let in
    /// again.
    fn is_left_out(&mut self, view: u64, others: usize, effects: &mut Out) {
        if view < self.lease.view || self.alone > 0 {
            self.counters.outdated_dropped += 1;
            return;
        }
        // It will be said again.
        if self.is_installing() {
            return;
        }
        self.lease.excluded_by = view;
        self.lease.until = Time(0);
        if !self.standing.is_outside {
            // Before the view: who knows it, and not that he is outside, would be a member.
            self.go_outside(effects);
        }
        if view > self.lease.view {
            let others = match self.options.planted.has(Bug::JoinKeepsOthers) {
                true => self.lease.others,
                false => others,
            };
            self.know_view(view, others, effects);
        }
        for Unleased { asker, .. } in core::mem::take(&mut self.lease.waiting) {
            let failure = self.no_lease();
            self.fail_read(asker, failure, effects);
        }
    }

    /// It is in this view, and was let in.
    pub(super) fn is_let_in(&mut self, view: u64, others: usize, effects: &mut Out) {
        self.lease.excluded_by = 0;
        if view > self.lease.view {
            self.know_view(view, others, effects);
        }
    }

    fn no_lease(&self) -> Failure {
        let id = self.options.id;
        let reason = match self.lease.excluded_by {
            0 => format!("{id} can't know whether the others go on without it"),
            view => format!("the others go on without {id} since view {view}"),
        };
        Failure::Unavailable { reason }
    }

    /// A read has come, and the others may go on without this replica.
    pub(super) fn read_without_lease(
        &mut self,
        now: Time,
        asker: Asker,
        query: Query,
        deadline: Time,
        effects: &mut Out,
    ) {
        if self.lease.excluded_by > 0 {
            let failure = self.no_lease();
            return self.fail_read(asker, failure, effects);
        }
        if self.lease.waiting.len() >= self.options.waiting_reads_max {
            self.counters.overloaded += 1;
            return self.fail_read(asker, Failure::Overloaded, effects);
        }
        self.counters.reads_unleased += 1;
        let until = deadline.min(now.after(self.options.read_wait_max));
        self.lease.waiting.push(Unleased { asker, query, deadline, until });
        if self.lease.asked_for == 0 {
            self.ask_for_view(effects);
        }
    }

    /// Asks the others for the view they know, for all reads that wait.
    fn ask_for_view(&mut self, effects: &mut Out) {
        self.lease.asked_for = self.lease.waiting.len();
        self.lease.answers.clear();
        if self.lease.asked_for == 0 {
            return;
        }
        self.lease.round += 1;
        let (round, incarnation) = (self.lease.round, self.incarnation);
        let peers: Vec<NodeId> = self.peers_up.iter().copied().collect();
        for to in peers.into_iter().filter(|peer| *peer != NodeId::COORDINATOR) {
            self.send_of_view(to, ViewMessage::Ask { round, incarnation }, effects);
        }
    }

    fn tell_view(&mut self, to: NodeId, round: u64, incarnation: u64, effects: &mut Out) {
        let view = self.lease.view;
        // It may have been told of one, and lost its disk.
        if view > 0 && !self.is_outside() {
            let heard = ViewMessage::Heard { round, incarnation, view };
            self.send_of_view(to, heard, effects);
        }
    }

    fn view_is_the_newest(&mut self, now: Time, from: NodeId, effects: &mut Out) {
        self.lease.answers.insert(from);
        if self.lease.asked_for == 0 || self.lease.answers.len() < self.lease.others {
            return;
        }
        let asked_for = core::mem::take(&mut self.lease.asked_for);
        self.read_what_waited(now, asked_for, effects);
        self.ask_for_view(effects);
    }

    fn read_what_waited(&mut self, now: Time, count: usize, effects: &mut Out) {
        let count = count.min(self.lease.waiting.len());
        self.lease.asked_for = self.lease.asked_for.saturating_sub(count);
        let waited: Vec<Unleased> = self.lease.waiting.drain(..count).collect();
        for Unleased { asker, query, deadline, .. } in waited {
            self.read(now, asker, query, deadline, effects);
        }
    }

    fn expire_unleased(&mut self, now: Time, effects: &mut Out) {
        let waiting = core::mem::take(&mut self.lease.waiting);
        let (expired, waiting): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|read| read.until <= now);
        self.lease.waiting = waiting;
        for Unleased { asker, .. } in expired {
            self.counters.reads_expired += 1;
            let failure = self.no_lease();
            self.fail_read(asker, failure, effects);
        }
    }
}
