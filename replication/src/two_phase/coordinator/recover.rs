//! What the coordinator finds in its log, and what it writes there about itself.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::batches::Membership;
use super::state::{Active, Nodes, Phase, Waiters};
use super::{Alarm, Coordinator, CoordinatorResume, Out};
use crate::contract::{Effect, NodeId, Time, Urgency};
use crate::two_phase::locks::LockSet;
use crate::two_phase::message::{CommitNumber, TxnId};
use crate::two_phase::options::CommitMode;
use crate::two_phase::planted::Bug;
use crate::two_phase::record::{
    CommittedState, CoordinatorCheckpoint, CoordinatorRecord, SessionTable, View,
};

impl Coordinator {
    /// A new epoch, durable before the first transaction gets its number.
    pub(super) fn start(&mut self, effects: &mut Out) {
        self.epoch += 1;
        self.begin_round();
        if self.is_parallel() {
            self.parallel_epoch = self.epoch;
        }
        if self.options.planted.has(Bug::EpochNotPersisted) {
            return effects.push(Effect::Resume(CoordinatorResume::Serving));
        }
        let commit = self.commit_mode();
        let record = CoordinatorRecord::Started { epoch: self.epoch, commit };
        self.persist(record, Urgency::Now, effects);
        effects.push(Effect::Resume(CoordinatorResume::Serving));
    }

    pub(super) fn serve(&mut self, now: Time, effects: &mut Out) {
        self.serving = true;
        let alarm = now.after(self.options.resend_interval);
        let open: Vec<TxnId> = self.transactions.keys().collect();
        for txn in open {
            let active = self.transactions.get_mut(&txn).expect("its name was just read");
            active.alarm = Some(alarm);
            self.alarms.set(alarm, Alarm::Transaction(txn));
        }
        let peers: Vec<NodeId> = self.peers_up.iter().copied().collect();
        for peer in peers {
            self.resend_commits_to(peer, effects);
            self.ask_to_recover(peer, effects);
        }
        self.set_round_alarm(now);
        self.begin_to_look(now, effects);
    }

    /// Records from disk are taken as they are; a checkpoint replaces all that came before.
    pub(super) fn replay(&mut self, record: CoordinatorRecord) {
        match record {
            CoordinatorRecord::Started { epoch, commit } => {
                self.epoch = epoch;
                if self.asks_at_start(commit) {
                    self.views.begins_epoch(epoch, self.commits);
                }
                if commit == CommitMode::Parallel {
                    self.parallel_epoch = epoch;
                }
            }
            CoordinatorRecord::SessionOpened { client } => self.sessions.opened(client),
            CoordinatorRecord::Committed { txn, number, stamp, participants } => {
                self.commits = self.commits.max(number);
                // One without participants has nobody to tell, and would never end.
                let takes_up = !self.options.planted.has(Bug::ForgetDecisionsAtRestart);
                if !participants.is_empty() && takes_up {
                    self.transactions.insert(txn, committed(number, participants));
                }
                if let Some(stamp) = stamp
                    && !self.options.planted.has(Bug::SessionsNotRecovered)
                {
                    self.sessions.settle(stamp, ());
                }
            }
            CoordinatorRecord::Aborted { txn, finished_below } => {
                self.over_below = self.over_below.max(finished_below);
                self.aborted.insert(txn);
                self.forget_aborts_below(finished_below);
            }
            CoordinatorRecord::Ended { txn } => {
                self.transactions.remove(&txn);
            }
            CoordinatorRecord::View(view) => self.replay_view(*view),
            CoordinatorRecord::Checkpoint(checkpoint) => {
                self.epoch = checkpoint.epoch;
                self.parallel_epoch = checkpoint.parallel_epoch;
                self.over_below = checkpoint.finished_below;
                self.aborted = checkpoint.aborted.into_iter().collect();
                self.commits = checkpoint.commits;
                checkpoint.sessions.restore_into(&mut self.sessions);
                self.transactions = checkpoint
                    .committed
                    .into_iter()
                    .map(|state| (state.txn, committed(state.number, state.participants)))
                    .collect();
            }
        }
    }

    /// Who is left out is waited for by nobody.
    fn replay_view(&mut self, view: View) {
        self.views.replay(view);
        self.participants = self.views.members();
        let views = &self.views;
        let mut over = Vec::new();
        for (txn, active) in self.transactions.iter_mut() {
            if let Phase::Committed { unacknowledged, .. } = &mut active.phase {
                unacknowledged.retain(|replica| views.counts(*replica, txn));
                if unacknowledged.is_empty() {
                    over.push(txn);
                }
            }
        }
        for txn in over {
            self.transactions.remove(&txn);
        }
    }

    /// The whole durable state in one record, after which older ones are not needed; and the view
    /// behind it.
    pub(super) fn checkpoint(&mut self, effects: &mut Out) {
        let finished_below = self.finished_below();
        self.forget_aborts_below(finished_below);
        let is_aborting = |active: &Active| matches!(active.phase, Phase::Aborting { .. });
        let aborting =
            self.transactions.iter().filter(|(_, it)| is_aborting(it)).map(|(txn, _)| txn);
        let mut checkpoint = CoordinatorCheckpoint {
            epoch: self.epoch,
            parallel_epoch: self.parallel_epoch,
            finished_below,
            sessions: SessionTable::of(&self.sessions),
            commits: self.commits,
            committed: self.transactions.iter().filter_map(committed_state).collect(),
            aborted: self.aborted.iter().copied().chain(aborting).collect(),
        };
        if self.options.planted.has(Bug::CheckpointForgetsAborts) {
            checkpoint.aborted.clear();
        }
        if self.options.planted.has(Bug::CheckpointForgetsDecisions) {
            let is_durable = |txn: &TxnId| {
                matches!(self.transactions[txn].phase, Phase::Committed { recorded: true, .. })
            };
            checkpoint.committed.retain(|state| is_durable(&state.txn));
        }
        if self.options.planted.has(Bug::CheckpointForgetsSessions) {
            for session in &mut checkpoint.sessions.sessions {
                session.answered_below = 0;
                session.committed.clear();
            }
        }
        self.persist(CoordinatorRecord::Checkpoint(Box::new(checkpoint)), Urgency::Now, effects);
        let at = self.last;
        let view = self.views.logged().clone();
        if view.number > 0 && !self.options.planted.has(Bug::CheckpointForgetsView) {
            self.persist(CoordinatorRecord::View(Box::new(view)), Urgency::Now, effects);
        }
        effects.push(Effect::Release(at));
    }
}

/// A commit is in the log from the moment it is decided, durable or not: the checkpoint comes
/// after it there.
fn committed_state((txn, active): (TxnId, &Active)) -> Option<CommittedState> {
    match &active.phase {
        Phase::Committing { number } => {
            Some(CommittedState { txn, number: *number, participants: active.participants.clone() })
        }
        // It only waits for its record, which is durable before the checkpoint.
        Phase::Committed { unacknowledged, .. } if unacknowledged.is_empty() => None,
        Phase::Committed { number, unacknowledged, .. } => Some(CommittedState {
            txn,
            number: *number,
            participants: unacknowledged.as_slice().into(),
        }),
        Phase::Voting { .. } | Phase::Alone | Phase::Aborting { .. } => None,
    }
}

fn committed(number: CommitNumber, participants: Arc<[NodeId]>) -> Active {
    Active {
        phase: Phase::Committed {
            number,
            unacknowledged: Nodes::from_slice(&participants),
            recorded: true,
        },
        participants,
        stamp: None,
        waiters: Waiters::new(),
        locks: LockSet::default(),
        bytes: 0,
        alarm: None,
        batch: Membership::None,
        transaction: None,
    }
}
