//! How a store gets from node to node: a snapshot, piece by piece, and with the last piece what is
//! not rows. Protocols decide who asks whom, and what a snapshot means; here stands what a donor
//! holds and what a taker has of it.
//!
//! ```text
//!  taker                               donor
//!    │ ── fetch the newest ──────────────►│ holds its store as it is
//!    │ ◄─ piece: rows ────────────────────│
//!    │ stages them                        │      one piece at a time is asked
//!    │ ── fetch that one, from key ──────►│      for: flow control
//!    │ ◄─ last piece: rows, state ────────│
//!    │ ▓ installed               (forced) │
//!    │ has the staged rows for its own    │
//! ```

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use crate::contract::{Effect, Effects, NodeId, ReadId, SnapshotId, Time};
use crate::request::{Answer, Key, Query, Range, Row};

/// Pieces that a donor's store is about to read; each taker asks for one at a time.
pub(crate) const PIECES_MAX: usize = 64;

/// How often in a row a taker asks one donor for a piece in vain before it turns to another.
const SILENCES_MAX: u32 = 8;

/// A piece of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece<S> {
    /// Of which, as the donor calls it.
    pub snapshot: SnapshotId,
    /// From this key on, as asked.
    pub from: Key,
    /// In byte order of their keys.
    pub rows: Vec<Row>,
    /// With the last piece: what is not rows.
    pub last: Option<Arc<S>>,
}

/// A snapshot that is held for takers.
#[derive(Clone, Debug)]
struct Held<S> {
    state: Arc<S>,
    used: Time,
}

/// Where a piece goes that the store is about to read.
#[derive(Clone, Debug)]
struct Reading {
    to: NodeId,
    snapshot: SnapshotId,
    from: Key,
}

/// What a donor holds.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing<S> {
    held: BTreeMap<SnapshotId, Held<S>>,
    reading: BTreeMap<ReadId, Reading>,
}

/// What becomes of a piece that was asked for.
pub(crate) enum Sent<S> {
    Piece(NodeId, Piece<S>),
    /// The snapshot is not held any more, or the store can't be read.
    Gone(NodeId, SnapshotId),
}

impl<S> Default for Outgoing<S> {
    fn default() -> Self {
        Self { held: BTreeMap::new(), reading: BTreeMap::new() }
    }
}

impl<S> Outgoing<S> {
    /// How many snapshots are held, and how many pieces are being read.
    pub(crate) fn lengths(&self) -> (usize, usize) {
        (self.held.len(), self.reading.len())
    }

    pub(crate) fn is_full(&self) -> bool {
        self.reading.len() >= PIECES_MAX
    }

    /// The snapshot that was taken last.
    pub(crate) fn newest(&self) -> Option<(SnapshotId, &S)> {
        self.held.last_key_value().map(|(snapshot, held)| (*snapshot, &*held.state))
    }

    /// Holds the store as it is now, in the place of what was least asked for if that is too much.
    /// Whether it is the only one held.
    pub(crate) fn hold<M, P, R>(
        &mut self,
        now: Time,
        snapshot: SnapshotId,
        state: S,
        held_max: usize,
        effects: &mut Effects<M, P, R>,
    ) -> bool {
        while self.held.len() >= held_max {
            let idlest = self.held.iter().min_by_key(|(_, held)| held.used);
            let Some(idlest) = idlest.map(|(snapshot, _)| *snapshot) else { break };
            self.let_go(idlest, effects);
        }
        let is_first = self.held.is_empty();
        self.held.insert(snapshot, Held { state: Arc::new(state), used: now });
        effects.push_unheld(Effect::TakeSnapshot(snapshot));
        is_first
    }

    /// Has the store read a piece of a snapshot from a key on; false if it is not held.
    pub(crate) fn read<M, P, R>(
        &mut self,
        now: Time,
        to: NodeId,
        (snapshot, from): (SnapshotId, Key),
        (read, rows_max): (ReadId, u32),
        effects: &mut Effects<M, P, R>,
    ) -> bool {
        let Some(held) = self.held.get_mut(&snapshot) else { return false };
        held.used = now;
        let query = Query::Scan(Range { start: from.clone(), end: None, limit: rows_max });
        self.reading.insert(read, Reading { to, snapshot, from });
        effects.push_unheld(Effect::ReadSnapshot { read, snapshot, query: Box::new(query) });
        true
    }

    /// The store has read a piece; nothing if it was asked something else, and then the answer is
    /// still there.
    pub(crate) fn came(&mut self, read: ReadId, answer: &mut Option<Answer>) -> Option<Sent<S>> {
        let Reading { to, snapshot, from } = self.reading.remove(&read)?;
        let held = self.held.get(&snapshot);
        let (Some(held), Some(Answer::Rows { rows, more })) = (held, answer.take()) else {
            return Some(Sent::Gone(to, snapshot));
        };
        let last = (!more).then(|| held.state.clone());
        Some(Sent::Piece(to, Piece { snapshot, from, rows, last }))
    }

    /// Lets go what nobody has asked for lately; whether anything is left.
    pub(crate) fn let_idle_go<M, P, R>(
        &mut self,
        now: Time,
        idle_max: Duration,
        effects: &mut Effects<M, P, R>,
    ) -> bool {
        let is_idle = |held: &Held<S>| now.since(held.used) >= idle_max;
        let idle: Vec<SnapshotId> =
            self.held.iter().filter(|(_, it)| is_idle(it)).map(|(snapshot, _)| *snapshot).collect();
        for snapshot in idle {
            self.let_go(snapshot, effects);
        }
        !self.held.is_empty()
    }

    fn let_go<M, P, R>(&mut self, snapshot: SnapshotId, effects: &mut Effects<M, P, R>) {
        self.held.remove(&snapshot);
        effects.push_unheld(Effect::DropSnapshot(snapshot));
    }
}

/// A snapshot that is coming in.
#[derive(Clone, Debug)]
pub(crate) struct Incoming<S> {
    /// The donor.
    pub(crate) from: NodeId,
    /// `None` until the first piece names it.
    pub(crate) snapshot: Option<SnapshotId>,
    /// Rows from this key on are missing.
    pub(crate) next: Key,
    /// How often in a row no piece came in time.
    silences: u32,
    /// The store has not said yet that it took a piece; what came with it, if it was the last.
    staging: Option<Option<Arc<S>>>,
}

/// What is to be staged of a piece.
pub(crate) struct Taken {
    pub(crate) first: bool,
    pub(crate) rows: Vec<Row>,
    pub(crate) last: bool,
}

impl<S> Incoming<S> {
    pub(crate) fn new(from: NodeId) -> Self {
        Self { from, snapshot: None, next: Key::new(), silences: 0, staging: None }
    }

    /// A piece did not come in time. Whether the donor is worth asking again.
    pub(crate) fn is_silent(&mut self) -> bool {
        self.silences += 1;
        self.silences < SILENCES_MAX
    }

    /// Whether this is the piece that was asked for.
    pub(crate) fn wants(&self, from: NodeId, piece: &Piece<S>) -> bool {
        self.from == from
            && self.snapshot.is_none_or(|named| named == piece.snapshot)
            && self.next == piece.from
            && self.staging.is_none()
    }

    /// Takes a piece that was wanted.
    pub(crate) fn take(&mut self, piece: Piece<S>) -> Taken {
        let Piece { snapshot, from: _, rows, last } = piece;
        let first = self.snapshot.is_none();
        self.snapshot = Some(snapshot);
        self.silences = 0;
        if let Some((key, _)) = rows.last() {
            // The shortest key behind it.
            let mut next = Vec::from(&key[..]);
            next.push(0);
            self.next = Key::from(next);
        }
        let is_last = last.is_some();
        self.staging = Some(last);
        Taken { first, rows, last: is_last }
    }

    /// The store has answered for the piece that was given to it; with what came with the piece, if
    /// it was the last one.
    pub(crate) fn staged(&mut self) -> Option<Option<Arc<S>>> {
        self.staging.take()
    }

    /// Rows that nobody will install take no room.
    pub(crate) fn unstage<M, P, R>(self, effects: &mut Effects<M, P, R>) {
        if let Some(snapshot) = self.snapshot {
            let rows = Vec::new();
            effects.push_unheld(Effect::Stage { snapshot, first: true, rows, last: false });
        }
    }
}

impl<S> Piece<S> {
    /// Whether its rows are where it says, in their order, and lead on.
    pub(crate) fn is_sound(&self) -> bool {
        self.rows.windows(2).all(|pair| pair[0].0 < pair[1].0)
            && self.rows.first().is_none_or(|(key, _)| *key >= self.from)
            && (self.last.is_some() || !self.rows.is_empty())
    }
}
