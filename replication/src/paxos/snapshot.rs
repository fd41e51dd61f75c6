//! Snapshots, for a learner so far behind that the log does not reach back to it.
//!
//! ```text
//!  learner                         any replica
//!    │ ── Learn from n ───────────────►│ its log begins later
//!    │ ◄─ Truncated ───────────────────│
//!    │ ── FetchSnapshot ──────────────►│ holds its store as it is
//!    │ ◄─ piece: rows ─────────────────│      one piece at a time is
//!    │ stages them                     │      asked for: flow control
//!    │ ── FetchSnapshot from key ─────►│
//!    │ ◄─ last piece: rows, state ─────│
//!    │ ▓ Installed            (forced) │
//!    │ has the staged rows for its own │
//! ```
//!
//! A snapshot is named by the last slot in it. All replicas have the same rows after the same slot.

use alloc::sync::Arc;

use super::message::{Message, Slot, SnapshotPiece};
use super::planted::Bug;
use super::record::{Record, Replicated};
use super::{Alarm, Out, Replica, Resume, points};
use crate::contract::{Effect, NodeId, ReadId, SnapshotId, Time, Urgency};
use crate::request::{Answer, Key};
use crate::transfer::{Incoming, Outgoing, Sent, Taken};

pub(super) use crate::transfer::PIECES_MAX;

/// What is known of snapshots.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshots {
    outgoing: Outgoing<Replicated>,
    incoming: Option<Incoming<Replicated>>,
    /// All is staged, and its record on its way to the disk.
    installing: Option<Arc<Replicated>>,
}

impl Snapshots {
    pub(super) fn is_installing(&self) -> bool {
        self.installing.is_some()
    }

    /// How much there is of snapshots held, and of pieces that are being read.
    pub(super) fn lengths(&self) -> (usize, usize) {
        self.outgoing.lengths()
    }

    pub(super) fn is_fetching(&self) -> bool {
        self.incoming.is_some()
    }
}

impl Replica {
    /// The log of the one who was asked begins later: a snapshot is needed.
    pub(super) fn truncated(&mut self, now: Time, from: NodeId, first: Slot, effects: &mut Out) {
        let is_answer = self.learner.asking.is_some_and(|(asked, _)| asked == from);
        let is_busy = self.snapshots.is_fetching() || self.snapshots.is_installing();
        if !is_answer || first <= self.learner.chosen.next() || is_busy {
            self.counters.duplicates_dropped += 1;
            return;
        }
        self.snapshots.incoming = Some(Incoming::new(from));
        self.fetch(now, effects);
    }

    fn fetch(&mut self, now: Time, effects: &mut Out) {
        let Some(incoming) = &self.snapshots.incoming else { return };
        let (to, snapshot, from) = (incoming.from, incoming.snapshot, incoming.next.clone());
        self.wait_for(to, now.after(self.options.resend_interval));
        let message = Message::FetchSnapshot { snapshot, from };
        effects.push_unheld(Effect::Send { to, message });
    }

    /// A piece did not come in time. After some tries another replica may do better.
    pub(super) fn fetch_again(&mut self, now: Time, effects: &mut Out) {
        let Some(incoming) = &mut self.snapshots.incoming else { return };
        if incoming.is_silent() {
            return self.fetch(now, effects);
        }
        self.give_up_snapshot(now, effects);
    }

    fn give_up_snapshot(&mut self, now: Time, effects: &mut Out) {
        if let Some(incoming) = self.snapshots.incoming.take() {
            incoming.unstage(effects);
        }
        self.counters.snapshots_given_up += 1;
        self.answer_came();
        self.catch_up(now, None, effects);
    }

    pub(super) fn snapshot_gone(&mut self, now: Time, snapshot: SnapshotId, effects: &mut Out) {
        let is_incoming = |incoming: &Incoming<_>| incoming.snapshot == Some(snapshot);
        if self.snapshots.incoming.as_ref().is_some_and(is_incoming) {
            self.give_up_snapshot(now, effects);
        }
    }

    /// A learner wants a piece.
    pub(super) fn tell_piece(
        &mut self,
        now: Time,
        to: NodeId,
        wanted: Option<SnapshotId>,
        from: Key,
        effects: &mut Out,
    ) {
        if self.snapshots.outgoing.is_full() {
            self.counters.overloaded += 1;
            return;
        }
        let snapshot = match wanted {
            Some(snapshot) => snapshot,
            None => self.snapshot_for_learner(now, effects),
        };
        let read = self.next_read();
        let asked = (read, self.options.snapshot_rows_max);
        if !self.snapshots.outgoing.read(now, to, (snapshot, from), asked, effects) {
            let message = Message::SnapshotGone { snapshot };
            effects.push_unheld(Effect::Send { to, message });
        }
    }

    /// The newest snapshot held, if the log goes on where it ends; else a new one.
    fn snapshot_for_learner(&mut self, now: Time, effects: &mut Out) -> SnapshotId {
        let reaches = self.learner.first_retained().0.saturating_sub(1);
        if let Some((newest, _)) = self.snapshots.outgoing.newest()
            && newest.0 >= reaches
        {
            return newest;
        }
        let mut state = self.learner.replicated();
        if self.options.planted.has(Bug::SnapshotForgetsSessions) {
            state.sessions.clear();
        }
        let snapshot = state.snapshot();
        self.counters.snapshots_taken += 1;
        let held_max = self.options.snapshots_max;
        if self.snapshots.outgoing.hold(now, snapshot, state, held_max, effects) {
            self.alarms.set(now.after(self.options.snapshot_idle_max), Alarm::SnapshotIdle);
        }
        snapshot
    }

    pub(super) fn snapshot_idle_alarm(&mut self, now: Time, effects: &mut Out) {
        let idle_max = self.options.snapshot_idle_max;
        if self.snapshots.outgoing.let_idle_go(now, idle_max, effects) {
            self.alarms.set(now.after(idle_max), Alarm::SnapshotIdle);
        }
    }

    /// The store has read a piece; false if it was asked something else.
    pub(super) fn piece_came(
        &mut self,
        read: ReadId,
        answer: &mut Option<Answer>,
        effects: &mut Out,
    ) -> bool {
        let (to, message) = match self.snapshots.outgoing.came(read, answer) {
            None => return false,
            Some(Sent::Gone(to, snapshot)) => (to, Message::SnapshotGone { snapshot }),
            Some(Sent::Piece(to, piece)) => {
                self.counters.snapshot_pieces_sent += 1;
                (to, Message::SnapshotPiece(piece))
            }
        };
        effects.push_unheld(Effect::Send { to, message });
        true
    }

    /// A piece has come. What is staged is no part of the store before all of it is there.
    pub(super) fn stage(
        &mut self,
        now: Time,
        from: NodeId,
        piece: SnapshotPiece,
        effects: &mut Out,
    ) {
        let snapshot = piece.snapshot;
        let applied = self.learner.applied;
        let incoming = self.snapshots.incoming.as_mut();
        let Some(incoming) = incoming.filter(|incoming| incoming.wants(from, &piece)) else {
            self.counters.duplicates_dropped += 1;
            return;
        };
        let is_whole = piece.last.as_ref().is_none_or(|state| state.snapshot() == snapshot);
        if !self.has_room {
            return self.wait_for_room(now, effects);
        }
        if snapshot.0 <= applied.0 || !piece.is_sound() || !is_whole {
            return self.give_up_snapshot(now, effects);
        }
        let Taken { first, rows, last } = incoming.take(piece);
        self.counters.snapshot_pieces += 1;
        effects.push_unheld(Effect::Stage { snapshot, first, rows, last });
        effects.point_unheld(points::LEARNER_SNAPSHOT_STAGED);
    }

    /// The store has taken a piece, or could not.
    pub(super) fn staged(
        &mut self,
        now: Time,
        snapshot: SnapshotId,
        is_kept: bool,
        effects: &mut Out,
    ) {
        let incoming = self.snapshots.incoming.as_mut();
        let incoming = incoming.filter(|incoming| incoming.snapshot == Some(snapshot));
        let Some(last) = incoming.and_then(Incoming::staged) else { return };
        match last {
            _ if !is_kept => self.wait_for_room(now, effects),
            _ if snapshot.0 <= self.learner.applied.0 => self.give_up_snapshot(now, effects),
            None => self.fetch(now, effects),
            Some(state) => self.install(state, effects),
        }
    }

    /// What is staged so far is given up, and after a while there may be room to begin anew: not at
    /// once, or a node with a full disk would have the others send it everything again and again.
    fn wait_for_room(&mut self, now: Time, effects: &mut Out) {
        let Some(incoming) = self.snapshots.incoming.take() else { return };
        self.counters.snapshots_without_room += 1;
        self.wait_for(incoming.from, now.after(self.options.resend_interval));
        incoming.unstage(effects);
    }

    /// All rows are staged. From here on nothing is applied before they are in place.
    fn install(&mut self, state: Arc<Replicated>, effects: &mut Out) {
        self.snapshots.incoming = None;
        self.answer_came();
        self.counters.snapshots_installed += 1;
        let checkpoint = self.checkpoint_of(state.clone());
        self.persist(Record::Installed(checkpoint), Urgency::Now, effects);
        let at = self.last;
        self.vote_again(state.applied, effects);
        effects.point(points::LEARNER_SNAPSHOT_DURABLE);
        effects.push(Effect::Install(state.snapshot()));
        effects.point(points::LEARNER_SNAPSHOT_INSTALLED);
        effects.push(Effect::Release(at));
        effects.push(Effect::Resume(Resume::Installed));
        self.snapshots.installing = Some(state);
    }

    /// The rows are in place.
    pub(super) fn installed(&mut self, now: Time, effects: &mut Out) {
        let Some(state) = self.snapshots.installing.take() else { return };
        self.adopt(&state);
        self.slots_are_unknown(state.applied, effects);
        self.reads_up_to(state.applied, effects);
        self.apply_what_is_chosen(now, effects);
        self.catch_up(now, None, effects);
        self.confirm_reads(now, effects);
        self.propose_what_waits(now, effects);
    }

    /// Goes on from the end of a snapshot.
    pub(super) fn adopt(&mut self, state: &Replicated) {
        if !self.learner.restore(state) {
            self.unfit = Some(alloc::string::String::from("a snapshot names no acceptors"));
        }
        self.acceptor.applied(self.learner.applied);
    }
}
