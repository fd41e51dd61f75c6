//! What a participant finds in its log, and what it writes there about itself.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::state::{Decided, Promised, Stage};
use super::{Alarm, Out, Participant, ParticipantResume};
use crate::contract::{Effect, NodeId, Position, Time, Urgency};
use crate::request::Writes;
use crate::two_phase::locks::{LockSet, LockTable};
use crate::two_phase::message::{Commit, CommitNumber, Decision, TxnId};
use crate::two_phase::planted::Bug;
use crate::two_phase::record::{
    CoordinatorProgress, DecidedState, ParticipantCheckpoint, ParticipantRecord, Prepared,
    SessionTable,
};

impl Participant {
    pub(super) fn start(&mut self, effects: &mut Out) {
        if self.unfit.is_some() {
            // Neither votes nor answers: better one replica less than a wrong one.
            return;
        }
        self.begin_outside(effects);
        self.incarnation += 1;
        let record = ParticipantRecord::Started { incarnation: self.incarnation };
        self.persist(record, Urgency::Now, effects);
        effects.push(Effect::Resume(ParticipantResume::Serving));
    }

    /// Whatever was prepared when the node stopped is in doubt: locked again, and asked about.
    pub(super) fn serve(&mut self, now: Time, effects: &mut Out) {
        self.serving = true;
        let in_doubt: Vec<TxnId> = self.transactions.keys().collect();
        for txn in in_doubt {
            if self.options.planted.has(Bug::ForgetVoteAtRestart) {
                self.forget(txn);
                continue;
            }
            let at = self.doubt_begins(now);
            let promised = self.transactions.get_mut(&txn).expect("its key was just read");
            if let Stage::Prepared { alarm, .. } = &mut promised.stage {
                *alarm = Some(at);
                self.alarms.set(at, Alarm::Inquire(txn));
            }
        }
        if self.peers_up.contains(&NodeId::COORDINATOR) {
            self.inquire_about_all(effects);
        }
        self.renew(now, effects);
        self.ask_to_join(now, effects);
    }

    /// Whoever is outside has no promises that anybody waits for.
    fn forget_all(&mut self) {
        self.transactions.clear();
        self.locks = LockTable::new(self.options.seed);
        self.prepared_bytes = 0;
        self.early.clear();
    }

    /// Takes back one record; commits are applied again, under the marks they had.
    pub(super) fn replay(&mut self, at: Position, record: ParticipantRecord, effects: &mut Out) {
        match record {
            ParticipantRecord::Started { incarnation } => self.incarnation = incarnation,
            ParticipantRecord::Prepared(prepared) => self.replay_prepared(*prepared),
            ParticipantRecord::Promised { epoch } => self.promised = self.promised.max(epoch),
            ParticipantRecord::Decided { txn, decision } => {
                self.replay_decided(at, txn, decision, effects);
            }
            ParticipantRecord::CommittedAlone { txn, stamp, writes } => {
                effects.push(Effect::Apply { mark: at.0, writes });
                if let Some(stamp) = stamp
                    && !self.options.planted.has(Bug::SessionsNotRecovered)
                {
                    self.sessions.settle(stamp, ());
                }
                self.remember_alone(txn, true);
            }
            ParticipantRecord::View { number, others } => self.lease.replay(number, others),
            ParticipantRecord::Checkpoint(checkpoint) => self.replay_checkpoint(*checkpoint),
            ParticipantRecord::Learned { finished_below, commits } => {
                self.replay_learned(at, finished_below, commits, effects);
            }
            ParticipantRecord::Installed { mark, checkpoint } => {
                self.replay_installed(mark, *checkpoint, effects);
            }
            ParticipantRecord::Outside { life } => {
                self.standing.replay_outside(life);
                self.forget_all();
            }
            ParticipantRecord::Joined { life, from, serve_from } => {
                self.takes_part(life, from, serve_from);
                self.hear_of(serve_from);
            }
        }
    }

    fn replay_prepared(&mut self, prepared: Prepared) {
        let Prepared { txn, participants, writes, checked, finished_below, parallel } = prepared;
        if finished_below > self.finished_below {
            self.finished_below = finished_below;
            self.decided.remove_below(&finished_below);
        }
        let mut locks = LockSet::new(&writes, checked).planted(self.options.planted);
        if self.options.planted.has(Bug::ForgetLocksAtRestart) {
            locks = LockSet::default();
        }
        // No run of this program writes records that contradict each other.
        if self.transactions.contains_key(&txn) || self.locks.acquire(txn, &locks).is_err() {
            self.unfit = Some(format!(
                "the log prepares {txn}, or its keys, twice: run `kvorum store verify`"
            ));
            return;
        }
        let bytes = writes.iter().map(|write| write.bytes()).sum::<usize>()
            + locks.shared.iter().map(|key| key.len()).sum::<usize>();
        self.prepared_bytes += bytes;
        let transaction = writes.into_transaction();
        let stage = Stage::Prepared {
            doubt_from: Time(0),
            alarm: None,
            inquiries: 0,
            reads: BTreeSet::new(),
            commit: None,
        };
        self.transactions.insert(
            txn,
            Promised { participants, transaction, parallel, finished_below, locks, bytes, stage },
        );
    }

    fn replay_decided(&mut self, at: Position, txn: TxnId, decision: Decision, effects: &mut Out) {
        let promised = self.transactions.contains_key(&txn).then(|| self.forget(txn));
        let mut pledge = None;
        if let Decision::Commit(number) = decision {
            self.applied = self.applied.max(number);
            if let Some(promised) = promised {
                pledge = promised.pledge();
                let writes = Writes::Of(Arc::clone(&promised.transaction));
                effects.push(Effect::Apply { mark: at.0, writes });
                let pledge = pledge.clone();
                let commit = Commit { number, txn, pledge, transaction: promised.transaction };
                self.recent.push(commit, self.options.recent_bytes_max);
            }
        }
        if txn >= self.finished_below {
            self.decided.insert(txn, Decided { pledge, ..Decided::new(decision, true) });
        }
    }

    /// A checkpoint stands for every record before it.
    pub(super) fn replay_checkpoint(&mut self, checkpoint: ParticipantCheckpoint) {
        self.incarnation = checkpoint.incarnation;
        self.promised = checkpoint.promised;
        checkpoint.sessions.restore_into(&mut self.sessions);
        self.transactions.clear();
        self.locks = LockTable::new(self.options.seed);
        self.prepared_bytes = 0;
        self.decided = checkpoint
            .decided
            .into_iter()
            .map(|DecidedState { txn, decision, pledge }| {
                (txn, Decided { pledge, ..Decided::new(decision, true) })
            })
            .collect();
        for progress in checkpoint.coordinators {
            self.finished_below = progress.finished_below;
            self.applied = progress.applied;
        }
        for prepared in checkpoint.prepared {
            self.replay_prepared(prepared);
        }
    }

    /// The whole durable state in one record, after which older ones are not needed.
    pub(super) fn checkpoint(&mut self, effects: &mut Out) {
        if self.unfit.is_some() || self.is_installing() {
            // It would replace the records that show what went wrong, or that are about to count.
            return;
        }
        let checkpoint = Box::new(self.checkpoint_now());
        self.persist(ParticipantRecord::Checkpoint(checkpoint), Urgency::Now, effects);
        let at = self.last;
        self.persist_standing(effects);
        self.persist_view(effects);
        effects.push(Effect::Release(at));
    }

    /// What a checkpoint holds.
    pub(super) fn checkpoint_now(&self) -> ParticipantCheckpoint {
        let progress =
            CoordinatorProgress { finished_below: self.finished_below, applied: self.applied };
        let in_log = |promised: &Promised| match promised.stage {
            Stage::Logging => !self.options.planted.has(Bug::CheckpointForgetsPromises),
            Stage::Prepared { .. } => true,
            // Nothing of it is in the log yet; or its commit is.
            Stage::Checking { .. } | Stage::Alone(_) => false,
        };
        let mut checkpoint = ParticipantCheckpoint {
            incarnation: self.incarnation,
            promised: self.promised,
            prepared: self
                .transactions
                .iter()
                .filter(|(txn, promised)| in_log(promised) && !self.is_ended(*txn))
                .map(|(txn, promised)| promised.record(txn))
                .collect(),
            decided: self.decided.iter().map(|(txn, it)| self.decided_state(txn, it)).collect(),
            coordinators: Vec::from([progress]),
            sessions: SessionTable::of(&self.sessions),
        };
        if self.options.planted.has(Bug::CheckpointForgetsSessions) {
            for session in &mut checkpoint.sessions.sessions {
                session.answered_below = 0;
                session.committed.clear();
            }
        }
        checkpoint
    }

    fn decided_state(&self, txn: TxnId, decided: &Decided) -> DecidedState {
        let forgets = self.options.planted.has(Bug::CheckpointForgetsPledges);
        let pledge = decided.pledge.clone().filter(|_| !forgets);
        DecidedState { txn, decision: decided.decision, pledge }
    }

    /// The newest commit applied here.
    #[must_use]
    pub fn applied(&self) -> CommitNumber {
        self.applied
    }
}
