//! Outside: a replica that has lost its disk has forgotten what it promised, and one that was left out
//! by a view does not know what was committed without it. It takes part in nothing before it has
//! caught up and the coordinator has let it in again.
//!
//! ```text
//!  replica, life 7                        coordinator
//!    │ ▓ Outside, life 7       (forced)     │
//!    │ ── outside: life 7, at #0 ──────────►│ votes of its former lives are void: what waits
//!    │                                      │ for votes is aborted
//!    │ ◄─ catch up to #9 ───────────────────│
//!    │ takes #1 to #9 from another replica  │
//!    │ ── outside: life 7, at #9 ──────────►│
//!    │ ◄─ join: life 7, from t1.12, at #9 ──│
//!    │ ▓ Joined                (forced)     │
//! ```
//!
//! Why that is safe: whatever a former life voted yes on is aborted when the coordinator lets this
//! one in, or committed with a number up to the one that this one has to apply first. So nobody
//! waits for a promise that is forgotten. Of transactions before the first one that it takes part in
//! it knows nothing, and says so: it never promises not to vote on them.

use alloc::vec::Vec;

use super::{Alarm, Out, Participant, ParticipantResume};
use crate::contract::{Effect, NodeId, Time, Urgency};
use crate::two_phase::message::{CommitNumber, Message, Prepare, TxnId, Vote};
use crate::two_phase::planted::Bug;
use crate::two_phase::record::ParticipantRecord;

/// Whether a replica takes part, and from where on.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    /// 0 for a replica that has never lost its disk.
    pub(super) life: u64,
    pub(super) is_outside: bool,
    /// Whether it was ever outside.
    is_written: bool,
    /// Whether that it is outside is durable.
    is_durable: bool,
    /// Transactions before this one were never asked of this life.
    from: TxnId,
    /// Nothing is promised or read before this commit is applied.
    serve_from: CommitNumber,
    /// Prepares that came before that, or while rows were put in place.
    put_off: Vec<(NodeId, Prepare)>,
    /// When it asks to be let in next.
    alarm: Option<Time>,
}

impl Standing {
    pub(super) fn new() -> Self {
        let from = TxnId { coordinator: NodeId::COORDINATOR, epoch: 0, number: 0 };
        Self {
            life: 0,
            is_outside: false,
            is_written: false,
            is_durable: true,
            from,
            serve_from: CommitNumber::ZERO,
            put_off: Vec::new(),
            alarm: None,
        }
    }

    pub(super) fn replay_outside(&mut self, life: u64) {
        self.life = life;
        self.is_outside = true;
        self.is_written = true;
    }

    fn replay_joined(&mut self, life: u64, from: TxnId, serve_from: CommitNumber) {
        self.life = life;
        self.is_outside = false;
        self.is_written = true;
        self.from = from;
        self.serve_from = serve_from;
    }

    pub(super) fn put_off_len(&self) -> usize {
        self.put_off.len()
    }
}

impl Participant {
    /// Whether this replica takes part in nothing.
    #[must_use]
    pub fn is_outside(&self) -> bool {
        self.standing.is_outside && !self.options.planted.has(Bug::ServeOutside)
    }

    /// Whether what is applied may be read, and promises be made on it.
    pub(super) fn is_current(&self) -> bool {
        let has_applied = self.applied >= self.standing.serve_from;
        !self.is_outside() && !self.is_installing() && has_applied
    }

    /// A replica begins on an empty disk that it knows to have lost.
    pub(super) fn begin_outside(&mut self, effects: &mut Out) {
        if self.last.0 == 0 && self.options.life > 0 {
            self.standing.replay_outside(self.options.life);
            self.persist_standing(effects);
        }
    }

    /// The others go on without this replica. What it has promised nobody waits for, and of what was
    /// committed meanwhile it knows nothing: it takes part in nothing, and catches up.
    pub(super) fn go_outside(&mut self, effects: &mut Out) {
        let open: Vec<TxnId> = self.transactions.keys().collect();
        for txn in open {
            let promised = self.forget(txn);
            self.fail_reads(promised.stage, effects);
        }
        self.early.clear();
        self.standing.put_off.clear();
        self.standing.replay_outside(self.standing.life);
        self.persist_standing(effects);
        self.counters.left_out += 1;
        self.standing.is_durable = false;
        effects.push(Effect::Resume(ParticipantResume::Outside));
    }

    /// Only now it may be said: who forgets that it is outside would take what comes for its own.
    pub(super) fn outside_is_durable(&mut self, now: Time, effects: &mut Out) {
        self.standing.is_durable = true;
        self.ask_to_join(now, effects);
    }

    /// Writes how it stands behind a record that stands for all before it.
    pub(super) fn persist_standing(&mut self, effects: &mut Out) {
        let Standing { life, is_outside, from, serve_from, .. } = self.standing;
        if !self.standing.is_written {
            return;
        }
        let record = match is_outside {
            true => ParticipantRecord::Outside { life },
            false => ParticipantRecord::Joined { life, from, serve_from },
        };
        self.persist(record, Urgency::Now, effects);
    }

    /// Whether a message concerns a replica that takes part in nothing.
    pub(super) fn hears_outside(message: &Message) -> bool {
        match message {
            Message::Commits { .. }
            | Message::Truncated { .. }
            | Message::SnapshotPiece(_)
            | Message::SnapshotGone { .. }
            | Message::CatchUp { .. }
            | Message::Join { .. }
            | Message::Recover { .. }
            | Message::View(_) => true,
            // Who takes part in nothing hands nothing on.
            Message::FetchCommits { .. }
            | Message::FetchSnapshot { .. }
            | Message::Recovered(_) => false,
            Message::Prepare(_)
            | Message::Vote { .. }
            | Message::Decide { .. }
            | Message::Acknowledge { .. }
            | Message::Inquire { .. }
            | Message::Inform { .. }
            | Message::Read { .. }
            | Message::ReadAnswer { .. }
            | Message::Outside { .. } => false,
        }
    }

    /// Asks to be let in; again and again, for as long as it is outside.
    pub(super) fn ask_to_join(&mut self, now: Time, effects: &mut Out) {
        if !self.standing.is_outside || !self.standing.is_durable || !self.serving {
            return;
        }
        if self.peers_up.contains(&NodeId::COORDINATOR) {
            let Standing { life, .. } = self.standing;
            let (applied, promised) = (self.applied, self.numbers_since());
            let message = Message::Outside { life, applied, promised };
            effects.push_unheld(Effect::Send { to: NodeId::COORDINATOR, message });
        }
        let at = now.after(self.options.catch_up_interval);
        if let Some(alarm) = self.standing.alarm.replace(at) {
            self.alarms.cancel(alarm, Alarm::Join);
        }
        self.alarms.set(at, Alarm::Join);
    }

    /// More is applied than a moment ago, and by a leap: see who waited for that.
    pub(super) fn has_caught_up(&mut self, now: Time, effects: &mut Out) {
        if self.is_outside() && !self.misses_some() {
            self.ask_to_join(now, effects);
        }
        self.take_up_what_was_put_off(effects);
    }

    /// The coordinator lets this replica in.
    pub(super) fn join(
        &mut self,
        now: Time,
        from: NodeId,
        life: u64,
        (first, serve_from): (TxnId, CommitNumber),
        (view, others): (u64, usize),
        effects: &mut Out,
    ) {
        let is_asked = self.standing.is_outside && life == self.standing.life;
        if from != NodeId::COORDINATOR || first.coordinator != from || !is_asked {
            self.counters.strange_dropped += 1;
            return;
        }
        // It has been left out once more since.
        if view < self.lease.view() {
            self.counters.outdated_dropped += 1;
            return;
        }
        // A later coordinator was told that this one is outside, and counts on that.
        if first.epoch < self.promised {
            self.counters.outdated_dropped += 1;
            return;
        }
        // The coordinator trusts what is applied here, and from here on nothing may be taken back.
        self.need_not_begin_anew(effects);
        // What it promises from here on is written behind this.
        self.takes_part(life, first, serve_from);
        self.persist_standing(effects);
        self.is_let_in(view, others, effects);
        self.counters.joined += 1;
        self.hear_of(serve_from);
        // Writes wait for it: this is no lost message that may come again.
        self.ask_for_what_is_missing(now, effects);
        self.take_up_what_was_put_off(effects);
    }

    /// It is let in by a coordinator that trusts the numbers it has, and asks it for no promise: none of
    /// an older epoch is believed any more, and what it hands on is of this one.
    pub(super) fn takes_part(&mut self, life: u64, from: TxnId, serve_from: CommitNumber) {
        self.standing.replay_joined(life, from, serve_from);
        if !self.options.planted.has(Bug::JoinWithoutPromise) {
            self.promised = self.promised.max(from.epoch);
        }
    }

    /// Whether a transaction was begun before this life took part: nothing is known of it.
    pub(super) fn is_before_joining(&self, txn: TxnId) -> bool {
        txn < self.standing.from
    }

    /// A prepare that can't be judged yet.
    pub(super) fn put_off(&mut self, from: NodeId, prepare: &Prepare, effects: &mut Out) {
        if self.standing.put_off.len() >= self.options.prepared_max {
            self.counters.overloaded += 1;
            return self.send_vote(prepare.txn, Vote::Overloaded, effects);
        }
        self.standing.put_off.push((from, prepare.clone()));
    }

    pub(super) fn take_up_what_was_put_off(&mut self, effects: &mut Out) {
        if !self.is_current() {
            return;
        }
        for (from, prepare) in core::mem::take(&mut self.standing.put_off) {
            self.prepare(from, &prepare, effects);
        }
    }
}
