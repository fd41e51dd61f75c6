//! Applying what is chosen, in the order of the slots.
//!
//! Nothing here waits for a record: what is chosen is safe with a majority. What is applied and
//! what is said to clients goes before the records of the step; the record that it was applied
//! follows in the same step, so that the shell has it in the log before the rows can be flushed.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::execute::{Judge, Overlay, keys_checked};
use crate::contract::{Effect, ReadId, Time, Urgency};
use crate::paxos::message::{Batch, Slot};
use crate::paxos::planted::Bug;
use crate::paxos::record::{Record, Refusal};
use crate::paxos::{Out, Replica, points};
use crate::request::{Answer, Key, Query};

/// A slot whose preconditions the store is asked about.
#[derive(Clone, Debug)]
pub(in crate::paxos) struct Applying {
    read: ReadId,
    keys: Vec<Key>,
}

impl Replica {
    /// Applies all that is known without a gap, up to one that has to ask the store first.
    pub(in crate::paxos) fn apply_what_is_chosen(&mut self, now: Time, effects: &mut Out) {
        if self.snapshots.is_installing() && !self.options.planted.has(Bug::ApplyWhileInstalling) {
            return;
        }
        let before = self.learner.applied;
        let mut refused = Vec::new();
        while self.learner.applying.is_none() && self.learner.applied < self.learner.chosen {
            let Some((slot, batch)) = self.learner.next_known() else { break };
            let keys = keys_checked(batch);
            if !keys.is_empty() {
                let read = self.next_read();
                effects.push_unheld(Effect::read(read, Query::GetMany(keys.clone())));
                self.learner.applying = Some(Applying { read, keys });
                break;
            }
            let judge = Judge::Rows(Overlay::new(keys, Vec::new()));
            self.apply(slot, judge, &mut refused, effects);
        }
        self.has_applied(now, before, refused, effects);
    }

    /// The store has answered what the preconditions of the next slot speak of; false if it was
    /// asked something else.
    pub(in crate::paxos) fn preconditions_came(
        &mut self,
        now: Time,
        read: ReadId,
        answer: &Answer,
        effects: &mut Out,
    ) -> bool {
        let Some(applying) = self.learner.applying.take_if(|applying| applying.read == read) else {
            return false;
        };
        let Some((slot, _)) = self.learner.next_known() else { return true };
        let Answer::Values(values) = answer else {
            // It cannot know what the others know, and must not guess.
            self.unfit = Some(format!("the preconditions of {slot} can't be read: {answer:?}"));
            return true;
        };
        let before = self.learner.applied;
        let mut refused = Vec::new();
        let judge = Judge::Rows(Overlay::new(applying.keys, values.clone()));
        self.apply(slot, judge, &mut refused, effects);
        self.has_applied(now, before, refused, effects);
        self.apply_what_is_chosen(now, effects);
        true
    }

    fn apply(
        &mut self,
        slot: Slot,
        mut judge: Judge<'_>,
        refused: &mut Vec<Refusal>,
        effects: &mut Out,
    ) {
        effects.point_unheld(points::LEARNER_BEFORE_APPLY);
        let skips = self.options.planted.has(Bug::ApplyOverGap);
        assert!(slot == self.learner.applied.next() || skips, "slots are applied in their order");
        let batch = self.learner.known.remove(&slot).expect("what is chosen and next is known");
        let result = self.learner.execute(slot, &batch, self.options.window, &mut judge);
        self.counters.applied += 1;
        self.counters.commands_applied += batch.commands.len() as u64;
        self.counters.preconditions_failed += result.refused.len() as u64;
        refused.extend(result.refused);
        if !result.writes.is_empty() {
            effects.push_unheld(Effect::Apply { mark: slot.0, writes: result.writes.into() });
        }
        self.answer_slot(slot, &batch, &result.verdicts, effects);
        let (slots, bytes) = (self.options.retained_slots_max, self.options.retained_bytes_max);
        self.learner.retain(batch, slots, bytes);
    }

    /// Some slots were applied in this step: say so in the log, and see who waited for that.
    fn has_applied(&mut self, now: Time, before: Slot, refused: Vec<Refusal>, effects: &mut Out) {
        let slot = self.learner.applied;
        if slot == before {
            return;
        }
        self.persist(Record::Chosen { slot, refused }, Urgency::Soon, effects);
        effects.point(match self.leads() {
            true => points::PROPOSER_CHOSEN_DURABLE,
            false => points::LEARNER_CHOSEN_DURABLE,
        });
        self.acceptor.applied(slot);
        self.reads_up_to(slot, effects);
        self.confirm_reads(now, effects);
        self.propose_what_waits(now, effects);
    }

    /// Applies again, in recovery, what the log says was applied; false if the log does not have it.
    pub(in crate::paxos) fn replay_chosen(
        &mut self,
        slot: Slot,
        refused: &[Refusal],
        effects: &mut Out,
    ) -> bool {
        while self.learner.applied < slot {
            let next = self.learner.applied.next();
            let learned = self.learner.known.remove(&next);
            let voted = || self.acceptor.vote(next).map(|vote| vote.batch.clone());
            let Some(batch) = learned.or_else(voted) else { return false };
            let forgets = self.options.planted.has(Bug::RefusalNotReplayed);
            let mut judge = Judge::Log(if forgets { &[] } else { refused });
            let result = self.learner.execute(next, &batch, self.options.window, &mut judge);
            if !result.writes.is_empty() {
                effects.push(Effect::Apply { mark: next.0, writes: result.writes.into() });
            }
            let (slots, bytes) = (self.options.retained_slots_max, self.options.retained_bytes_max);
            self.learner.retain(batch, slots, bytes);
            self.acceptor.applied(next);
        }
        self.learner.chosen = self.learner.chosen.max(self.learner.applied);
        self.learner.advance();
        true
    }

    /// Takes back what others chose.
    pub(in crate::paxos) fn replay_learned(&mut self, slot: Slot, batch: Arc<Batch>) {
        if slot > self.learner.applied {
            self.learner.known.insert(slot, batch);
            self.learner.advance();
        }
    }
}
