//! Taking over the rows of another replica, when its memory of commits begins too late.
//!
//! A snapshot has its donor's name while it travels. It is staged under a mark of this replica: the
//! position that its record would have, were it written when the last rows come. Marks are positions
//! of records here, so that is above all that was applied, and below all that will be, as long as
//! nothing is applied until the rows are in place.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use super::state::{Decided, Promised, Stage};
use super::{Out, Participant, ParticipantResume};
use crate::contract::{Effect, NodeId, Position, SnapshotId, Time, Urgency};
use crate::transfer::{Incoming, Taken};
use crate::two_phase::message::{Commit, Decision, Message, SnapshotPiece, TxnId};
use crate::two_phase::planted::Bug;
use crate::two_phase::points;
use crate::two_phase::record::{
    AppliedState, ParticipantCheckpoint, ParticipantRecord, Replicated,
};

/// All rows of a snapshot have come, and are not in place.
#[derive(Clone, Debug)]
pub(super) struct Installing {
    /// What is prepared here and ended there. It is locked, and reads wait for it, until the rows are
    /// in place.
    ended: BTreeSet<TxnId>,
    /// Commits that are known here once the record is durable.
    adopted: Vec<TxnId>,
}

impl Participant {
    /// Nothing may be applied, promised or read: all rows are there, and not in place.
    pub(super) fn is_installing(&self) -> bool {
        self.installing.is_some()
    }

    /// Whether a transaction is over with the rows that are about to be put in place.
    pub(super) fn is_ended(&self, txn: TxnId) -> bool {
        self.installing.as_ref().is_some_and(|installing| installing.ended.contains(&txn))
    }

    pub(super) fn fetch_piece(&mut self, now: Time, effects: &mut Out) {
        let Some(incoming) = &self.catch_up.incoming else { return };
        let (to, snapshot, from) = (incoming.from, incoming.snapshot, incoming.next.clone());
        self.wait_until(now.after(self.options.catch_up_interval));
        let message = Message::FetchSnapshot { snapshot, from };
        effects.push_unheld(Effect::Send { to, message });
    }

    /// A piece did not come in time. After some tries another replica may do better.
    pub(super) fn fetch_piece_again(&mut self, now: Time, effects: &mut Out) {
        match self.catch_up.incoming.as_mut().is_some_and(Incoming::is_silent) {
            true => self.fetch_piece(now, effects),
            false => self.give_up_snapshot(now, effects),
        }
    }

    pub(super) fn give_up_snapshot(&mut self, now: Time, effects: &mut Out) {
        self.counters.snapshots_given_up += 1;
        self.unstage(effects);
        self.apply_in_order(effects);
        match self.misses_some() {
            true => self.ask_next(now, effects),
            false => self.stop_waiting_for_commits(),
        }
    }

    /// It is let in with what it has.
    pub(super) fn need_not_begin_anew(&mut self, effects: &mut Out) {
        if self.is_to_begin_anew() {
            self.forget_to_begin_anew();
            if self.catch_up.incoming.is_some() {
                self.counters.snapshots_given_up += 1;
                self.unstage(effects);
                self.stop_waiting_for_commits();
            }
        }
    }

    /// What was staged so far is given up, and what was held back for it goes on.
    fn unstage(&mut self, effects: &mut Out) {
        self.installing = None;
        if let Some(incoming) = self.catch_up.incoming.take() {
            incoming.unstage(effects);
        }
    }

    pub(super) fn snapshot_gone(
        &mut self,
        now: Time,
        from: NodeId,
        snapshot: SnapshotId,
        effects: &mut Out,
    ) {
        let is_incoming =
            |it: &Incoming<_>| it.from == from && it.snapshot.is_none_or(|named| named == snapshot);
        if self.catch_up.incoming.as_ref().is_some_and(is_incoming) {
            self.give_up_snapshot(now, effects);
        }
    }

    /// A piece has come. What is staged is no part of the store before all of it is there.
    pub(super) fn stage(
        &mut self,
        now: Time,
        from: NodeId,
        piece: SnapshotPiece,
        effects: &mut Out,
    ) {
        let is_anew = self.is_to_begin_anew();
        let incoming = self.catch_up.incoming.as_mut();
        let Some(incoming) = incoming.filter(|incoming| incoming.wants(from, &piece)) else {
            self.counters.duplicates_dropped += 1;
            return;
        };
        if !self.has_room {
            self.counters.snapshots_without_room += 1;
            return self.begin_anew_after(self.options.catch_up_interval_max, now, effects);
        }
        // Who begins anew can't compare the numbers: he may have them of other commits.
        let is_useful = piece.last.as_ref().is_none_or(|state| {
            state.finished_below.coordinator == NodeId::COORDINATOR
                && (is_anew
                    || state.applied > self.applied
                    || self.options.planted.has(Bug::InstallOlder))
        });
        if !piece.is_sound() || !is_useful || self.alone > 0 {
            return self.give_up_snapshot(now, effects);
        }
        let Taken { first, rows, last } = incoming.take(piece);
        self.counters.snapshot_pieces += 1;
        let mark = SnapshotId(self.last.next().0);
        if last {
            self.installing = Some(Installing { ended: BTreeSet::new(), adopted: Vec::new() });
        }
        effects.push_unheld(Effect::Stage { snapshot: mark, first, rows, last });
        effects.point_unheld(points::PARTICIPANT_SNAPSHOT_STAGED);
    }

    /// The store has taken a piece, or could not.
    pub(super) fn staged(&mut self, now: Time, mark: SnapshotId, is_kept: bool, effects: &mut Out) {
        let incoming = self.catch_up.incoming.as_mut();
        let Some(last) = incoming.and_then(Incoming::staged) else { return };
        match last {
            _ if !is_kept => {
                self.counters.snapshots_without_room += 1;
                self.begin_anew_after(self.options.catch_up_interval_max, now, effects);
            }
            None => self.fetch_piece(now, effects),
            // The donor knows its numbers for certain with its next sync.
            Some(state) if self.is_outdated_state(&state) => {
                self.counters.outdated_dropped += 1;
                self.begin_anew_after(self.options.catch_up_interval, now, effects);
            }
            Some(state) => self.install(mark, &state, effects),
        }
    }

    /// Whether commits in it may have other numbers by now: see [`Message::Decide`].
    fn is_outdated_state(&self, state: &Replicated) -> bool {
        self.is_of_before(state.epoch) && state.committed.iter().any(|it| it.pledge.is_some())
    }

    /// After a while there may be room to begin anew: not at once, or a replica with a full disk
    /// would have the others send it everything again and again.
    fn begin_anew_after(&mut self, wait: Duration, now: Time, effects: &mut Out) {
        self.unstage(effects);
        self.apply_in_order(effects);
        self.nobody_is_asked();
        self.wait_until(now.after(wait));
    }

    /// All rows are staged, durably. From here on they count, and nothing else does.
    fn install(&mut self, mark: SnapshotId, state: &Arc<Replicated>, effects: &mut Out) {
        self.catch_up.incoming = None;
        self.stop_waiting_for_commits();
        self.counters.snapshots_installed += 1;
        let ended = self.adopt_state(state);
        let adopted = state.committed.iter().map(|it| it.txn).collect();
        self.installing = Some(Installing { ended, adopted });
        self.has_numbers_since(self.promised);
        let (mark, checkpoint) = (mark.0, Box::new(self.checkpoint_now()));
        self.persist(ParticipantRecord::Installed { mark, checkpoint }, Urgency::Now, effects);
        let at = self.last;
        self.persist_standing(effects);
        self.persist_view(effects);
        effects.point(points::PARTICIPANT_SNAPSHOT_DURABLE);
        effects.push(Effect::Install(SnapshotId(mark)));
        effects.point(points::PARTICIPANT_SNAPSHOT_INSTALLED);
        effects.push(Effect::Release(at));
        for AppliedState { txn, .. } in &state.committed {
            self.counters.acknowledgements_sent += 1;
            let message = Message::Acknowledge { txn: *txn };
            effects.push(Effect::Send { to: txn.coordinator, message });
        }
        effects.push(Effect::Resume(ParticipantResume::Installed));
    }

    /// What this replica knows becomes what the donor knew, and what it has promised besides. The
    /// answer is what is prepared here and ended there.
    fn adopt_state(&mut self, state: &Replicated) -> BTreeSet<TxnId> {
        self.applied = state.applied;
        if self.is_to_begin_anew() {
            // What it was told of later commits may have other numbers now: it is told again.
            let is_later = |decided: &Decided| match decided.decision {
                Decision::Commit(number) => number > state.applied,
                Decision::Abort => false,
            };
            let later = self.decided.iter().filter(|(_, decided)| is_later(decided));
            for txn in later.map(|(txn, _)| txn).collect::<Vec<_>>() {
                self.decided.remove(&txn);
            }
        }
        self.begun_anew(state.epoch);
        self.recent.clear();
        self.early = self.early.split_off(&state.applied.next());
        self.remember_below(state.finished_below);
        for AppliedState { txn, number, pledge } in &state.committed {
            let decided = Decided::new(Decision::Commit(*number), false);
            if *txn >= self.finished_below {
                let (epoch, pledge) = (state.epoch, pledge.clone());
                self.decided.insert(*txn, Decided { epoch, pledge, ..decided });
            }
        }
        // The preconditions of these were looked up in rows that are gone. They get no vote.
        let is_checking = |promised: &Promised| matches!(promised.stage, Stage::Checking { .. });
        let checking = self.transactions.iter().filter(|(_, promised)| is_checking(promised));
        for txn in checking.map(|(txn, _)| txn).collect::<Vec<_>>() {
            self.forget(txn);
        }
        let is_ended = |txn: &TxnId, stage: &Stage| match stage {
            Stage::Prepared { commit: Some(told), .. } => told.number <= state.applied,
            // What is over was applied there, or aborted.
            Stage::Prepared { commit: None, .. } | Stage::Logging => {
                *txn < state.finished_below || self.decided.contains_key(txn)
            }
            Stage::Checking { .. } | Stage::Alone(_) => false,
        };
        let open = self.transactions.iter();
        open.filter(|(txn, promised)| is_ended(txn, &promised.stage)).map(|(txn, _)| txn).collect()
    }

    /// The rows are in place.
    pub(super) fn installed(&mut self, now: Time, effects: &mut Out) {
        let Some(Installing { ended, adopted }) = self.installing.take() else { return };
        for txn in adopted {
            self.decision_is_durable(txn);
        }
        for txn in ended {
            // Somebody may have said meanwhile that it was aborted.
            if self.transactions.contains_key(&txn) {
                let mut promised = self.forget(txn);
                self.wake_reads(txn, &mut promised.stage, effects);
            }
        }
        self.apply_in_order(effects);
        if self.misses_some() {
            self.ask_next(now, effects);
        }
        self.has_caught_up(now, effects);
    }

    /// As a crash found it: the rows that the record stands for are in the store, or go there now.
    pub(super) fn replay_installed(
        &mut self,
        mark: u64,
        checkpoint: ParticipantCheckpoint,
        effects: &mut Out,
    ) {
        self.early.clear();
        self.recent.clear();
        self.has_numbers_since(checkpoint.promised);
        self.replay_checkpoint(checkpoint);
        effects.push(Effect::Install(SnapshotId(mark)));
    }

    /// Commits that were learnt from others, each with the record's mark.
    pub(super) fn replay_learned(
        &mut self,
        at: Position,
        finished_below: TxnId,
        commits: Vec<Commit>,
        effects: &mut Out,
    ) {
        self.remember_below(finished_below);
        let mut writes = Vec::new();
        for commit in commits {
            if self.transactions.contains_key(&commit.txn) {
                self.forget(commit.txn);
            }
            writes.extend(commit.transaction.writes.iter().cloned());
            self.applied = self.applied.max(commit.number);
            if commit.txn >= self.finished_below {
                let decided = Decided::new(Decision::Commit(commit.number), true);
                let pledge = commit.pledge.clone();
                self.decided.insert(commit.txn, Decided { pledge, ..decided });
            }
            self.recent.push(commit, self.options.recent_bytes_max);
        }
        effects.push(Effect::Apply { mark: at.0, writes: writes.into() });
    }
}
