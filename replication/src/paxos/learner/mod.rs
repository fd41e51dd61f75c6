//! The learner: finds out what is chosen, and applies it slot by slot.
//!
//! It learns from the leader's word of how far is chosen, if the acceptor beside it voted for the
//! very same proposal, and else asks for the batches themselves.

mod apply;
mod catch_up;
mod execute;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;

pub(super) use self::apply::Applying;
pub(super) use self::execute::Verdict;
use super::membership::Membership;
use super::message::{Ballot, Batch, Slot};
use super::options::ReplicaOptions;
use super::planted::{Bug, Planted};
use super::record::{Record, Replicated, Settled};
use super::{Out, Replica};
use crate::contract::{NodeId, Time, Urgency};
use crate::sessions::{Origin, SessionLimits, Sessions};

/// Applied batches that learners may still ask for, the newest last.
#[derive(Clone, Debug, Default)]
pub(super) struct Retained {
    /// With their bytes: an old one is looked at no more than it must.
    batches: VecDeque<(Arc<Batch>, usize)>,
    bytes: usize,
}

/// What a learner knows.
#[derive(Clone, Debug)]
pub(super) struct Learner {
    /// The last slot applied.
    pub(super) applied: Slot,
    /// Up to here every batch is chosen and known.
    pub(super) chosen: Slot,
    /// Up to here every batch is chosen, as somebody said.
    pub(super) announced: Slot,
    /// Batches that are chosen and not applied.
    known: BTreeMap<Slot, Arc<Batch>>,
    /// The slot whose preconditions the store is asked about.
    applying: Option<Applying>,
    retained: Retained,
    pub(super) sessions: Sessions<Settled>,
    pub(super) membership: Membership,
    /// Whom it has asked for batches or for a snapshot, and when it asks somebody else.
    pub(super) asking: Option<(NodeId, Time)>,
    planted: Planted,
}

impl Learner {
    pub(super) fn new(options: &ReplicaOptions) -> Self {
        let limits = SessionLimits {
            sessions_max: options.sessions_max,
            outstanding_per_session_max: options.outstanding_per_session_max,
            outstanding_max: options.outstanding_max,
        };
        Self {
            applied: Slot::ZERO,
            chosen: Slot::ZERO,
            announced: Slot::ZERO,
            known: BTreeMap::new(),
            applying: None,
            retained: Retained::default(),
            sessions: Sessions::new(Origin::Given, limits),
            membership: Membership::founders(&options.founders),
            asking: None,
            planted: options.planted,
        }
    }

    /// Whether the batch of this slot is known to be chosen.
    pub(super) fn knows(&self, slot: Slot) -> bool {
        slot <= self.applied || self.known.contains_key(&slot)
    }

    /// Batches that are chosen, behind a slot and behind all that is applied.
    pub(super) fn known_behind(&self, slot: Slot) -> impl Iterator<Item = (Slot, &Arc<Batch>)> {
        self.known.range(slot.next()..).map(|(slot, batch)| (*slot, batch))
    }

    /// What follows from the batches applied, besides the rows.
    pub(super) fn replicated(&self) -> Replicated {
        Replicated {
            applied: self.applied,
            members: self.membership.list(),
            next_client: self.sessions.next_client().0,
            sessions: self.sessions.states(),
        }
    }

    /// Begins where a checkpoint or a snapshot ends; false if that is not a state.
    pub(super) fn restore(&mut self, replicated: &Replicated) -> bool {
        let Some(membership) = Membership::restore(replicated.members.clone()) else {
            return false;
        };
        self.membership = membership;
        self.sessions.restore_states(replicated.next_client, &replicated.sessions);
        if replicated.applied != self.applied {
            self.retained = Retained::default();
        }
        self.applied = replicated.applied;
        self.known = self.known.split_off(&self.applied.next());
        self.chosen = self.applied;
        self.advance();
        true
    }

    /// The batch to be applied next. Without bugs its slot is the one behind the last applied.
    fn next_known(&self) -> Option<(Slot, &Arc<Batch>)> {
        self.known.first_key_value().map(|(slot, batch)| (*slot, batch))
    }

    /// As far as batches are known without a gap.
    fn advance(&mut self) {
        for slot in self.known.range(self.chosen.next()..).map(|(slot, _)| *slot) {
            let is_next = slot == self.chosen.next() || self.planted.has(Bug::ApplyOverGap);
            if !is_next || slot == self.chosen {
                break;
            }
            self.chosen = slot;
        }
        self.announced = self.announced.max(self.chosen);
    }

    /// The first slot whose batch is still in memory.
    pub(super) fn first_retained(&self) -> Slot {
        Slot(self.applied.next().0.saturating_sub(self.retained.batches.len() as u64))
    }

    /// Batches that learners may still ask for.
    pub(super) fn retained(&self) -> usize {
        self.retained.batches.len()
    }

    /// Their bytes.
    pub(super) fn retained_bytes(&self) -> usize {
        self.retained.bytes
    }

    fn retain(&mut self, batch: Arc<Batch>, slots_max: usize, bytes_max: usize) {
        let bytes = batch.bytes();
        self.retained.bytes += bytes;
        self.retained.batches.push_back((batch, bytes));
        while self.retained.batches.len() > slots_max || self.retained.bytes > bytes_max {
            let Some((_, bytes)) = self.retained.batches.pop_front() else { return };
            self.retained.bytes -= bytes;
        }
    }

    /// A batch that is known to be chosen and still in memory.
    fn batch(&self, slot: Slot) -> Option<&Arc<Batch>> {
        if slot > self.applied {
            return self.known.get(&slot);
        }
        let index = slot.0.checked_sub(self.first_retained().0)?;
        self.retained.batches.get(usize::try_from(index).ok()?).map(|(batch, _)| batch)
    }
}

impl Replica {
    /// This batch is chosen. Recovery must find it: in this node's own vote, or else in a record of
    /// what others chose.
    pub(super) fn learn(&mut self, slot: Slot, batch: Arc<Batch>, effects: &mut Out) {
        if self.learner.knows(slot) {
            return;
        }
        let is_logged =
            self.acceptor.vote(slot).is_some_and(|vote| vote.batch.origin == batch.origin);
        if !is_logged {
            self.counters.learned += 1;
            let record = Record::Learned { slot, batch: batch.clone() };
            self.persist(record, Urgency::Soon, effects);
        }
        self.learner.known.insert(slot, batch);
        self.learner.advance();
    }

    /// A leader says how far is chosen. What this node's acceptor accepted with that leader's ballot
    /// is what was chosen: a ballot proposes one batch a slot. Of what it accepted with another
    /// ballot nothing is known.
    pub(super) fn hear_chosen(
        &mut self,
        now: Time,
        from: NodeId,
        ballot: Ballot,
        chosen: Slot,
        effects: &mut Out,
    ) {
        if !self.roles.learner_is_up() {
            return;
        }
        self.learner.announced = self.learner.announced.max(chosen);
        if self.learner.chosen >= chosen {
            return;
        }
        let ballot = (!self.options.planted.has(Bug::LearnAnyVote)).then_some(ballot);
        for (slot, batch) in self.acceptor.votes_up_to(chosen, ballot) {
            self.learner.known.entry(slot).or_insert_with(|| batch.clone());
        }
        self.learner.advance();
        self.apply_what_is_chosen(now, effects);
        self.catch_up(now, Some(from), effects);
    }
}
