//! For replicas that miss commits: what this one has of them, or all its rows.
//!
//! Whatever is applied here may be handed on. It is decided: the coordinator has said so, or another
//! replica whom it had told.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{Alarm, Out, Participant};
use crate::contract::{Effect, NodeId, ReadId, SnapshotId, Time};
use crate::request::{Answer, Key};
use crate::transfer::Sent;
use crate::two_phase::message::{Commit, CommitNumber, Decision, Message, TxnId};
use crate::two_phase::planted::Bug;
use crate::two_phase::record::{AppliedState, Replicated};

impl Participant {
    /// A replica misses commits from this one on.
    pub(super) fn fetch_commits(&mut self, to: NodeId, from: CommitNumber, effects: &mut Out) {
        let first = self.recent.first().unwrap_or_else(|| self.applied.next());
        if from < first && !self.options.planted.has(Bug::CatchUpOverGap) {
            self.counters.truncated_sent += 1;
            return effects.push_unheld(Effect::Send { to, message: Message::Truncated { first } });
        }
        let mut commits: Vec<Commit> = Vec::new();
        let mut bytes = 0;
        for (commit, more) in self.recent.from(from) {
            bytes += more;
            let is_full = commits.len() >= self.options.piece_commits_max
                || bytes > self.options.piece_bytes_max;
            if is_full && !commits.is_empty() {
                break;
            }
            commits.push(commit.clone());
        }
        self.counters.commits_passed_on += commits.len() as u64;
        let (applied, finished_below) = (self.applied, self.finished_below);
        let epoch = self.epoch_of(commits.iter().map(|commit| commit.txn));
        let message = Message::Commits { from, commits, applied, finished_below, epoch };
        effects.push_unheld(Effect::Send { to, message });
    }

    /// Of which coordinator all of these numbers are, as this replica may say it of each to one in
    /// doubt. What is not remembered any more is durable everywhere, and its number with it.
    fn epoch_of(&self, commits: impl Iterator<Item = TxnId>) -> u64 {
        let epochs =
            commits.filter_map(|txn| self.decided.get(&txn)).map(|it| self.epoch_known(it));
        epochs.min().unwrap_or(self.promised)
    }

    /// A replica wants a piece of a snapshot.
    pub(super) fn fetch_snapshot(
        &mut self,
        now: Time,
        to: NodeId,
        wanted: Option<SnapshotId>,
        from: Key,
        effects: &mut Out,
    ) {
        // What is committed alone has no number, and what is being installed is not there yet.
        if self.outgoing.is_full() || self.alone > 0 || self.is_installing() {
            self.counters.overloaded += 1;
            return;
        }
        let snapshot = match wanted {
            Some(snapshot) => snapshot,
            None => self.snapshot_for_another(now, effects),
        };
        let read = self.next_read();
        let asked = (read, self.options.snapshot_rows_max);
        if !self.outgoing.read(now, to, (snapshot, from), asked, effects) {
            let message = Message::SnapshotGone { snapshot };
            effects.push_unheld(Effect::Send { to, message });
        }
    }

    /// The newest snapshot held, if the recent commits go on where it ends; else a new one.
    fn snapshot_for_another(&mut self, now: Time, effects: &mut Out) -> SnapshotId {
        let first = self.recent.first().unwrap_or_else(|| self.applied.next());
        if let Some((newest, state)) = self.outgoing.newest()
            && state.applied.next() >= first
        {
            return newest;
        }
        self.counters.snapshots_taken += 1;
        // All that is applied rests on records up to here, so this is not below their marks. Another
        // state has another name: between them there is a record.
        let snapshot = SnapshotId(self.last.0);
        let state = self.replicated();
        if self.outgoing.hold(now, snapshot, state, self.options.snapshots_max, effects) {
            self.alarms.set(now.after(self.options.snapshot_idle_max), Alarm::SnapshotIdle);
        }
        snapshot
    }

    fn replicated(&self) -> Replicated {
        let committed = self.decided.iter().filter_map(|(txn, decided)| match decided.decision {
            // Number zero is what this replica decided alone.
            Decision::Commit(number) if number > CommitNumber::ZERO => {
                Some(AppliedState { txn, number, pledge: decided.pledge.clone() })
            }
            Decision::Commit(_) | Decision::Abort => None,
        });
        let forgets = self.options.planted.has(Bug::SnapshotForgetsOutcomes);
        Replicated {
            applied: self.applied,
            finished_below: self.finished_below,
            committed: if forgets { Vec::new() } else { committed.collect() },
            // It is what counts when the last piece goes.
            epoch: 0,
        }
    }

    /// The store has read a piece; false if it was asked something else.
    pub(super) fn piece_came(
        &mut self,
        read: ReadId,
        answer: &mut Option<Answer>,
        effects: &mut Out,
    ) -> bool {
        let (to, message) = match self.outgoing.came(read, answer) {
            None => return false,
            Some(Sent::Gone(to, snapshot)) => (to, Message::SnapshotGone { snapshot }),
            Some(Sent::Piece(to, mut piece)) => {
                self.counters.snapshot_pieces_sent += 1;
                if let Some(state) = &mut piece.last {
                    let epoch = self.epoch_of(state.committed.iter().map(|it| it.txn));
                    Arc::make_mut(state).epoch = epoch;
                }
                (to, Message::SnapshotPiece(piece))
            }
        };
        effects.push_unheld(Effect::Send { to, message });
        true
    }

    pub(super) fn snapshot_idle_alarm(&mut self, now: Time, effects: &mut Out) {
        let idle_max = self.options.snapshot_idle_max;
        if self.outgoing.let_idle_go(now, idle_max, effects) {
            self.alarms.set(now.after(idle_max), Alarm::SnapshotIdle);
        }
    }
}
