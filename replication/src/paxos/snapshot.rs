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

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::message::{Message, Slot, SnapshotPiece};
use super::planted::Bug;
use super::record::{Record, Replicated};
use super::{Alarm, Out, Replica, Resume, points};
use crate::contract::{Effect, NodeId, ReadId, SnapshotId, Time, Urgency};
use crate::request::{Answer, Key, Query, Range};

/// Pieces that the store is about to read; each learner asks for one at a time.
pub(super) const PIECES_MAX: usize = 64;

/// A snapshot that is held for learners.
#[derive(Clone, Debug)]
struct Held {
    state: Arc<Replicated>,
    used: Time,
}

/// A snapshot that is coming in.
#[derive(Clone, Debug)]
struct Incoming {
    from: NodeId,
    /// `None` until the first piece names it.
    snapshot: Option<SnapshotId>,
    /// Rows from this key on are missing.
    next: Key,
    /// How often in a row no piece came in time.
    silences: u32,
    /// The store has not said yet that it took a piece; what came with it, if it was the last.
    staging: Option<Option<Arc<Replicated>>>,
}

/// What is known of snapshots.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshots {
    held: BTreeMap<SnapshotId, Held>,
    /// Pieces that the store is asked for: for whom, of which, from where.
    pieces: BTreeMap<ReadId, (NodeId, SnapshotId, Key)>,
    incoming: Option<Incoming>,
    /// All is staged, and its record on its way to the disk.
    installing: Option<Arc<Replicated>>,
}

impl Snapshots {
    pub(super) fn is_installing(&self) -> bool {
        self.installing.is_some()
    }

    /// How much there is of snapshots held, and of pieces that are being read.
    pub(super) fn lengths(&self) -> (usize, usize) {
        (self.held.len(), self.pieces.len())
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
        let next = Key::new();
        let incoming = Incoming { from, snapshot: None, next, silences: 0, staging: None };
        self.snapshots.incoming = Some(incoming);
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
        incoming.silences += 1;
        if incoming.silences < 8 {
            return self.fetch(now, effects);
        }
        self.give_up_snapshot(now, effects);
    }

    fn give_up_snapshot(&mut self, now: Time, effects: &mut Out) {
        let incoming = self.snapshots.incoming.take();
        self.unstage(incoming, effects);
        self.counters.snapshots_given_up += 1;
        self.answer_came();
        self.catch_up(now, None, effects);
    }

    /// Rows that nobody will install take no room.
    fn unstage(&mut self, incoming: Option<Incoming>, effects: &mut Out) {
        if let Some(snapshot) = incoming.and_then(|incoming| incoming.snapshot) {
            let rows = Vec::new();
            effects.push_unheld(Effect::Stage { snapshot, first: true, rows, last: false });
        }
    }

    pub(super) fn snapshot_gone(&mut self, now: Time, snapshot: SnapshotId, effects: &mut Out) {
        let is_incoming = |incoming: &Incoming| incoming.snapshot == Some(snapshot);
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
        if self.snapshots.pieces.len() >= PIECES_MAX {
            self.counters.overloaded += 1;
            return;
        }
        let snapshot = match wanted {
            Some(snapshot) => snapshot,
            None => self.snapshot_for_learner(now, effects),
        };
        let Some(held) = self.snapshots.held.get_mut(&snapshot) else {
            let message = Message::SnapshotGone { snapshot };
            return effects.push_unheld(Effect::Send { to, message });
        };
        held.used = now;
        let read = self.next_read();
        let limit = self.options.snapshot_rows_max;
        let query = Query::Scan(Range { start: from.clone(), end: None, limit });
        self.snapshots.pieces.insert(read, (to, snapshot, from));
        effects.push_unheld(Effect::ReadSnapshot { read, snapshot, query: Box::new(query) });
    }

    /// The newest snapshot held, if the log goes on where it ends; else a new one.
    fn snapshot_for_learner(&mut self, now: Time, effects: &mut Out) -> SnapshotId {
        let reaches = self.learner.first_retained().0.saturating_sub(1);
        if let Some((newest, _)) = self.snapshots.held.last_key_value()
            && newest.0 >= reaches
        {
            return *newest;
        }
        while self.snapshots.held.len() >= self.options.snapshots_max {
            let idlest = self.snapshots.held.iter().min_by_key(|(_, held)| held.used);
            let Some(idlest) = idlest.map(|(snapshot, _)| *snapshot) else { break };
            self.drop_snapshot(idlest, effects);
        }
        let mut state = self.learner.replicated();
        if self.options.planted.has(Bug::SnapshotForgetsSessions) {
            state.sessions.clear();
        }
        let state = Arc::new(state);
        let snapshot = state.snapshot();
        self.counters.snapshots_taken += 1;
        if self.snapshots.held.is_empty() {
            self.alarms.set(now.after(self.options.snapshot_idle_max), Alarm::SnapshotIdle);
        }
        self.snapshots.held.insert(snapshot, Held { state, used: now });
        effects.push_unheld(Effect::TakeSnapshot(snapshot));
        snapshot
    }

    fn drop_snapshot(&mut self, snapshot: SnapshotId, effects: &mut Out) {
        self.snapshots.held.remove(&snapshot);
        effects.push_unheld(Effect::DropSnapshot(snapshot));
    }

    pub(super) fn snapshot_idle_alarm(&mut self, now: Time, effects: &mut Out) {
        let idle = self.options.snapshot_idle_max;
        let is_idle = |held: &Held| now.since(held.used) >= idle;
        let mut idle: Vec<SnapshotId> = Vec::new();
        idle.extend(
            self.snapshots.held.iter().filter(|(_, it)| is_idle(it)).map(|(snapshot, _)| *snapshot),
        );
        for snapshot in idle {
            self.drop_snapshot(snapshot, effects);
        }
        if !self.snapshots.held.is_empty() {
            self.alarms.set(now.after(self.options.snapshot_idle_max), Alarm::SnapshotIdle);
        }
    }

    /// The store has read a piece; false if it was asked something else.
    pub(super) fn piece_came(
        &mut self,
        read: ReadId,
        answer: &mut Option<Answer>,
        effects: &mut Out,
    ) -> bool {
        let Some((to, snapshot, from)) = self.snapshots.pieces.remove(&read) else { return false };
        let held = self.snapshots.held.get(&snapshot);
        let (Some(held), Some(Answer::Rows { rows, more })) = (held, answer.take()) else {
            // Dropped meanwhile, or the store can't be read: the learner asks somebody else.
            let message = Message::SnapshotGone { snapshot };
            effects.push_unheld(Effect::Send { to, message });
            return true;
        };
        let last = (!more).then(|| held.state.clone());
        self.counters.snapshot_pieces_sent += 1;
        let message = Message::SnapshotPiece(SnapshotPiece { snapshot, from, rows, last });
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
        let SnapshotPiece { snapshot, from: first, rows, last } = piece;
        let is_wanted = |it: &&mut Incoming| {
            it.from == from
                && it.snapshot.is_none_or(|named| named == snapshot)
                && it.next == first
                && it.staging.is_none()
        };
        let applied = self.learner.applied;
        let Some(incoming) = self.snapshots.incoming.as_mut().filter(is_wanted) else {
            self.counters.duplicates_dropped += 1;
            return;
        };
        let in_order = rows.windows(2).all(|pair| pair[0].0 < pair[1].0)
            && rows.first().is_none_or(|(key, _)| *key >= first);
        let is_whole = last.as_ref().is_none_or(|state| state.snapshot() == snapshot);
        let leads_on = last.is_some() || !rows.is_empty();
        if !self.has_room {
            return self.wait_for_room(now, effects);
        }
        if snapshot.0 <= applied.0 || !in_order || !is_whole || !leads_on {
            return self.give_up_snapshot(now, effects);
        }
        let is_first = incoming.snapshot.is_none();
        incoming.snapshot = Some(snapshot);
        incoming.silences = 0;
        if let Some((key, _)) = rows.last() {
            // The shortest key behind it.
            let mut next = Vec::from(&key[..]);
            next.push(0);
            incoming.next = Key::from(next);
        }
        self.counters.snapshot_pieces += 1;
        let is_last = last.is_some();
        incoming.staging = Some(last);
        effects.push_unheld(Effect::Stage { snapshot, first: is_first, rows, last: is_last });
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
        let Some(last) = incoming.and_then(|incoming| incoming.staging.take()) else { return };
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
        self.unstage(Some(incoming), effects);
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
