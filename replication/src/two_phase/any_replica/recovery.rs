//! What a replica finds in its log, and what it writes there about itself.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::coordinating::{Commit, Coordinating};
use super::locks::{Asked, Locks, Wanted};
use super::message::{Age, Decision, Settled, TxnId, Work};
use super::participating::{Decided, Doubt, Participating, Promised, Stage};
use super::planted::Bug;
use super::record::{Checkpoint, Committed, CommittedState, Prepared, Record, SessionTable};
use super::{Alarm, Out, Replica, Resume, apply};
use crate::contract::{Effect, NodeId, Position, Time, Urgency};

impl Replica {
    /// A new incarnation, durable before the first transaction gets its number.
    pub(super) fn start(&mut self, effects: &mut Out) {
        if self.unfit.is_some() {
            // Neither votes nor answers: better one replica less than a wrong one.
            return;
        }
        self.incarnation += 1;
        if !self.options.planted.has(Bug::EpochNotPersisted) {
            let incarnation = self.incarnation;
            self.persist(Record::Started { incarnation }, Urgency::Now, effects);
        }
        effects.push(Effect::Resume(Resume::Serving));
    }

    /// What was decided here and not carried out on this copy is carried out now, before anybody can
    /// ask; what was promised to others is in doubt: locked again, and asked about.
    pub(super) fn serve(&mut self, now: Time, effects: &mut Out) {
        self.serving = true;
        self.finish_commits(now, effects);
        let in_doubt: Vec<TxnId> = self.participating.promised.keys().copied().collect();
        for txn in in_doubt {
            if self.options.planted.has(Bug::ForgetVoteAtRestart) {
                self.forget(txn);
                continue;
            }
            let at = self.doubt_begins(now);
            let promised = self.participating.promised.get_mut(&txn).expect("it was just listed");
            if let Stage::Prepared(doubt) = &mut promised.stage {
                doubt.alarm = Some(at);
                self.alarms.set(at, Alarm::Inquire(txn));
            }
        }
        let peers: Vec<NodeId> = self.peers_up.iter().copied().collect();
        for peer in peers {
            self.resend_commits_to(peer, effects);
            self.inquire_about_all_of(peer, effects);
        }
    }

    /// First all of them, visible at once, then their records: none waits for another's.
    fn finish_commits(&mut self, now: Time, effects: &mut Out) {
        let alarm = now.after(self.options.resend_interval);
        let mut carried_out = Vec::new();
        for (txn, commit) in &mut self.coordinating.commits {
            carried_out.extend(commit.work.take().map(|work| (*txn, work)));
            commit.alarm = Some(alarm);
            self.alarms.set(alarm, Alarm::Commit(*txn));
        }
        let mut mark = self.last;
        for (_, work) in &carried_out {
            mark = mark.next();
            apply(work, mark, effects);
        }
        for (txn, work) in carried_out {
            self.settle(&work);
            let decision = Decision::Commit;
            self.persist(Record::Decided { txn, decision }, Urgency::Soon, effects);
            self.locks.release(txn);
            self.forget_if_over(txn);
        }
        if self.options.planted.has(Bug::ForgetDecisionsAtRestart) {
            let commits = core::mem::take(&mut self.coordinating.commits);
            for txn in commits.into_keys() {
                self.alarms.cancel(alarm, Alarm::Commit(txn));
            }
        }
    }

    /// One without other replicas has nobody to tell, and would never end.
    fn forget_if_over(&mut self, txn: TxnId) {
        let Some(commit) = self.coordinating.commits.get(&txn) else { return };
        if commit.work.is_none() && commit.unacknowledged.is_empty() {
            if let Some(alarm) = commit.alarm {
                self.alarms.cancel(alarm, Alarm::Commit(txn));
            }
            self.coordinating.commits.remove(&txn);
        }
    }

    /// Takes back one record; commits are applied again, under the marks they had.
    pub(super) fn replay(&mut self, at: Position, record: Record, effects: &mut Out) {
        match record {
            Record::Started { incarnation } => self.incarnation = incarnation,
            Record::Prepared(prepared) => self.replay_prepared(prepared),
            Record::Committed(Committed { txn, age, participants, work }) => {
                self.replay_committed(txn, age, Some(work), &participants);
            }
            Record::Decided { txn, decision } => self.replay_decided(at, txn, decision, effects),
            Record::Ended { txn } => {
                if let Some(commit) = self.coordinating.commits.remove(&txn)
                    && commit.work.is_some()
                {
                    self.contradicts_itself(txn);
                }
            }
            Record::Refused { stamp, precondition } => {
                if !self.options.planted.has(Bug::SessionsNotRecovered) {
                    self.sessions.settle(stamp, Settled::Refused { precondition });
                }
            }
            Record::Checkpoint(checkpoint) => self.replay_checkpoint(checkpoint),
        }
    }

    /// No run of this program writes records that contradict each other.
    fn contradicts_itself(&mut self, txn: TxnId) {
        self.unfit =
            Some(format!("the log contradicts itself about {txn}: run `kvorum store verify`"));
    }

    fn lock_again(&mut self, txn: TxnId, age: Age, work: &Work) {
        self.clock = self.clock.max(age.clock);
        let mut wanted = Wanted::of(work);
        if self.options.planted.has(Bug::ForgetLocksAtRestart)
            || (self.options.planted.has(Bug::OwnCopyUnlocked)
                && txn.coordinator == self.options.id)
        {
            wanted = Wanted::default();
        }
        if self.locks.ask(txn, age, Arc::new(wanted)) != Asked::Held {
            self.contradicts_itself(txn);
        }
    }

    fn replay_prepared(&mut self, prepared: Prepared) {
        let Prepared { txn, age, participants, work, finished_below } = prepared;
        self.remember_finished(finished_below);
        let is_known = self.participating.promised.contains_key(&txn)
            || self.coordinating.commits.contains_key(&txn);
        if is_known || self.unfit.is_some() {
            return self.contradicts_itself(txn);
        }
        self.lock_again(txn, age, &work);
        let bytes = bytes_of(&work);
        self.participating.bytes += bytes;
        self.participating.by_age.insert(age, txn);
        let doubt = Doubt { from: Time(0), alarm: None, inquiries: 0, reads: BTreeSet::new() };
        let stage = Stage::Prepared(doubt);
        self.participating
            .promised
            .insert(txn, Promised { age, participants, work, finished_below, bytes, stage });
    }

    fn replay_committed(
        &mut self,
        txn: TxnId,
        age: Age,
        work: Option<Arc<Work>>,
        participants: &[NodeId],
    ) {
        let is_known = self.participating.promised.contains_key(&txn)
            || self.coordinating.commits.contains_key(&txn);
        if is_known || self.unfit.is_some() {
            return self.contradicts_itself(txn);
        }
        match &work {
            Some(work) => self.lock_again(txn, age, work),
            None => self.clock = self.clock.max(age.clock),
        }
        self.coordinating.commits.insert(txn, Commit::recovered(age, work, participants));
    }

    fn replay_decided(&mut self, at: Position, txn: TxnId, decision: Decision, effects: &mut Out) {
        if self.unfit.is_some() {
            return;
        }
        let work = match self.coordinating.commits.get_mut(&txn) {
            Some(commit) => {
                let Some(work) = commit.work.take() else { return self.contradicts_itself(txn) };
                self.locks.release(txn);
                self.forget_if_over(txn);
                Some(work)
            }
            None => {
                let is_promised = self.participating.promised.contains_key(&txn);
                let work = is_promised.then(|| self.forget(txn).work);
                if !self.participating.is_finished(txn) && txn.coordinator != self.options.id {
                    let decided = Decided { decision, durable: true };
                    self.participating.decided.insert(txn, decided);
                }
                work
            }
        };
        let (Some(work), Decision::Commit) = (work, decision) else { return };
        if self.options.planted.has(Bug::SessionsNotRecovered) {
            if let Work::OpenSession { .. } = &*work {
                self.settle(&work);
            }
        } else {
            self.settle(&work);
        }
        apply(&work, at, effects);
    }

    /// A checkpoint stands for every record before it.
    fn replay_checkpoint(&mut self, checkpoint: Checkpoint) {
        self.incarnation = checkpoint.incarnation;
        self.clock = self.clock.max(checkpoint.clock);
        self.locks = Locks::new(self.options.prepared_max, self.options.planted);
        self.coordinating = Coordinating::default();
        self.participating = Participating::default();
        checkpoint.sessions.restore_into(&mut self.sessions);
        for below in checkpoint.finished_below {
            self.remember_finished(below);
        }
        for (txn, decision) in checkpoint.decided {
            self.participating.decided.insert(txn, Decided { decision, durable: true });
        }
        for CommittedState { txn, age, participants, work } in checkpoint.committed {
            self.replay_committed(txn, age, work, &participants);
        }
        for prepared in checkpoint.prepared {
            self.replay_prepared(prepared);
        }
    }

    /// A checkpoint is one record, so it waits while too much is on its way to the disk: own commits
    /// whose records are not durable are in it, with what they write.
    pub(super) fn ask_for_checkpoint(&mut self, effects: &mut Out) {
        self.wants_checkpoint = self.unfit.is_none();
        self.checkpoint_if_small(effects);
    }

    pub(super) fn checkpoint_if_small(&mut self, effects: &mut Out) {
        let bytes = self.coordinating.committing_bytes.saturating_add(self.participating.bytes);
        let is_small =
            bytes <= self.options.checkpoint_bytes_max || self.coordinating.committing_bytes == 0;
        if self.wants_checkpoint && is_small {
            self.wants_checkpoint = false;
            self.checkpoint(effects);
        }
    }

    /// The whole durable state in one record, after which older ones are not needed.
    fn checkpoint(&mut self, effects: &mut Out) {
        let participating = &self.participating;
        let in_log = |promised: &Promised| match promised.stage {
            Stage::Logging => !self.options.planted.has(Bug::CheckpointForgetsPromises),
            Stage::Prepared(_) => true,
            // Nothing of it is in the log yet.
            Stage::Waiting => false,
        };
        let prepared = participating.promised.iter().filter(|(_, promised)| in_log(promised));
        let forgets_decisions = self.options.planted.has(Bug::CheckpointForgetsDecisions);
        let commits = self.coordinating.commits.iter();
        let checkpoint = Checkpoint {
            incarnation: self.incarnation,
            clock: self.clock,
            prepared: prepared.map(|(txn, promised)| promised.record(*txn)).collect(),
            decided: participating.decided.iter().map(|(txn, it)| (*txn, it.decision)).collect(),
            finished_below: participating.finished_below.values().copied().collect(),
            committed: commits
                .filter(|(_, commit)| !(forgets_decisions && commit.work.is_some()))
                .map(|(txn, commit)| CommittedState {
                    txn: *txn,
                    age: commit.age,
                    participants: commit.unacknowledged.as_slice().into(),
                    work: commit.work.clone(),
                })
                .collect(),
            sessions: SessionTable::of(&self.sessions),
        };
        self.persist(Record::Checkpoint(checkpoint), Urgency::Now, effects);
        effects.push(Effect::Release(self.last));
    }
}

fn bytes_of(work: &Work) -> usize {
    match work {
        Work::OpenSession { .. } => 0,
        Work::Write { writes, checked, .. } => {
            writes.iter().map(|write| write.bytes()).sum::<usize>()
                + checked.iter().map(|key| key.len()).sum::<usize>()
        }
    }
}
