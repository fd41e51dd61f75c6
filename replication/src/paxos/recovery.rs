//! What a replica finds in its log, and what it writes there about itself.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::message::{Ballot, Batch, Slot};
use super::planted::Bug;
use super::record::{Checkpoint, Record, Replicated};
use super::{Out, Replica, Resume};
use crate::contract::{Effect, Position, Time, Urgency};

impl Replica {
    pub(super) fn start(&mut self, effects: &mut Out) {
        if self.unfit.is_some() {
            // Neither votes nor answers: better one replica less than a wrong one.
            return;
        }
        self.acceptor.restarted(self.options.planted);
        self.incarnation += 1;
        let record = Record::Started { incarnation: self.incarnation, life: self.life };
        self.persist(record, Urgency::Now, effects);
        effects.push(Effect::Resume(Resume::Serving));
    }

    pub(super) fn serve(&mut self, now: Time, effects: &mut Out) {
        self.serving = true;
        self.proposer.begin(now);
        self.honour_forgotten_lease(now);
        self.arm_election(now);
        self.arm_failures(now);
        // What was learnt from others and not applied before the node stopped.
        self.apply_what_is_chosen(now, effects);
    }

    /// Takes back one record; what was applied is applied again, under the marks it had.
    pub(super) fn replay(&mut self, at: Position, record: Record, effects: &mut Out) {
        match record {
            Record::Started { incarnation, life } => {
                self.incarnation = incarnation;
                self.life = life;
            }
            Record::Promised { ballot } => self.acceptor.replay_promise(ballot),
            Record::Accepted { slot, ballot, batch } => self.replay_vote(slot, ballot, batch),
            Record::Learned { slot, batch } => self.replay_learned(slot, batch),
            Record::Chosen { slot, refused } => {
                if !self.replay_chosen(slot, &refused, effects) {
                    let missing = self.learner.applied.next();
                    self.contradiction(
                        at,
                        &format!("{slot} was applied, and {missing} is missing"),
                    );
                }
            }
            Record::Forgot { life } => {
                self.acceptor.forget();
                self.life = life;
            }
            Record::Checkpoint(checkpoint) => self.replay_checkpoint(at, &checkpoint),
            Record::Installed(checkpoint) => {
                self.replay_checkpoint(at, &checkpoint);
                effects.push(Effect::Install(checkpoint.replicated.snapshot()));
            }
        }
    }

    fn replay_vote(&mut self, slot: Slot, ballot: Ballot, batch: Arc<Batch>) {
        match slot > self.learner.applied {
            true => self.acceptor.replay_vote(slot, ballot, batch),
            false => self.acceptor.replay_promise(ballot),
        }
    }

    fn replay_checkpoint(&mut self, at: Position, checkpoint: &Checkpoint) {
        self.incarnation = self.incarnation.max(checkpoint.incarnation);
        self.life = checkpoint.life;
        self.acceptor.replay_promise(checkpoint.promised);
        if checkpoint.replicated.applied < self.learner.applied {
            return self.contradiction(at, "a checkpoint goes back");
        }
        self.adopt(&checkpoint.replicated);
    }

    /// No run of this program writes such a log, so nothing that rests on it may be said.
    fn contradiction(&mut self, at: Position, what: &str) {
        self.unfit.get_or_insert(format!("record {at} contradicts those before it: {what}"));
    }

    /// The whole durable state in one record, and behind it what was accepted in open slots; older
    /// records are not needed then.
    pub(super) fn checkpoint(&mut self, effects: &mut Out) {
        if self.unfit.is_some() || self.snapshots.is_installing() {
            // It would replace the records that show what went wrong, or that are about to count.
            return;
        }
        let mut state = self.learner.replicated();
        if self.options.planted.has(Bug::CheckpointForgetsSessions) {
            state.sessions.iter_mut().for_each(|session| session.settled.clear());
        }
        let state = Arc::new(state);
        let applied = state.applied;
        let checkpoint = self.checkpoint_of(state);
        self.persist(Record::Checkpoint(checkpoint), Urgency::Now, effects);
        let at = self.last;
        self.vote_again(applied, effects);
        effects.push(Effect::Release(at));
    }

    pub(super) fn checkpoint_of(&self, replicated: Arc<Replicated>) -> Checkpoint {
        Checkpoint {
            incarnation: self.incarnation,
            life: self.life,
            promised: match self.options.planted.has(Bug::CheckpointForgetsPromise) {
                true => Ballot::ZERO,
                false => self.acceptor.promised(),
            },
            replicated,
        }
    }

    /// Writes the votes of open slots again, behind a checkpoint, and what others chose in them.
    pub(super) fn vote_again(&mut self, applied: Slot, effects: &mut Out) {
        let forgets = self.options.planted.has(Bug::CheckpointForgetsVotes);
        let votes = self.acceptor.votes().filter(|(slot, _)| *slot > applied && !forgets);
        let votes: Vec<Record> = votes
            .map(|(slot, vote)| {
                let (ballot, batch) = (vote.ballot, vote.batch.clone());
                Record::Accepted { slot, ballot, batch }
            })
            .collect();
        for record in votes {
            self.persist(record, Urgency::Now, effects);
        }
        self.log_known(applied, effects);
    }

    /// Writes what is known to be chosen behind a slot, votes or no votes.
    pub(super) fn log_known(&mut self, applied: Slot, effects: &mut Out) {
        let learned = |(slot, batch): (Slot, &Arc<Batch>)| {
            let batch = batch.clone();
            Record::Learned { slot, batch }
        };
        let known: Vec<Record> = self.learner.known_behind(applied).map(learned).collect();
        for record in known {
            self.persist(record, Urgency::Now, effects);
        }
    }

    /// The last slot applied here.
    #[must_use]
    pub fn applied(&self) -> Slot {
        self.learner.applied
    }

    /// Up to here every batch is chosen and known here.
    #[must_use]
    pub fn chosen(&self) -> Slot {
        self.learner.chosen
    }

    /// The highest ballot promised.
    #[must_use]
    pub fn promised(&self) -> Ballot {
        self.acceptor.promised()
    }

    /// What its acceptor has accepted behind the applied slots, and with which ballots: there, nobody
    /// here knows yet what is chosen.
    pub fn open_votes(&self) -> impl Iterator<Item = (Slot, Ballot, &Batch)> {
        let votes = self.acceptor.votes().filter(|(slot, _)| *slot > self.learner.chosen);
        votes.map(|(slot, vote)| (slot, vote.ballot, &*vote.batch))
    }

    /// Why it takes no part, if it does not: its log contradicts itself, or its store can't be read.
    #[must_use]
    pub fn unfit(&self) -> Option<&String> {
        self.unfit.as_ref()
    }
}
