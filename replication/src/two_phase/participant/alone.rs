//! One phase: with a single replica there is nobody to disagree, so it decides by itself, in one
//! record, and answers for retries as well.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::state::{Alone, Decided, Stage};
use super::{Out, Participant, ParticipantResume};
use crate::contract::{Effect, Urgency};
use crate::request::{Stamp, Writes};
use crate::sessions::Standing;
use crate::two_phase::message::{CommitNumber, Decision, Message, Prepare, TxnId, Vote};
use crate::two_phase::planted::Bug;
use crate::two_phase::points;
use crate::two_phase::record::ParticipantRecord;

/// Retries that wait for one commit; a client sends one at a time, and one that is dropped here is
/// answered with "unknown" by the coordinator in time.
const RETRIES_MAX: usize = 16;

impl Participant {
    /// Whether the same write is being committed under another number: both get its vote.
    pub(super) fn joins_retry(&mut self, prepare: &Prepare) -> bool {
        let Some(stamp) = prepare.one_phase.and_then(|one_phase| one_phase.stamp) else {
            return false;
        };
        let Some(first) = self.alone_stamps.get(&(stamp.client, stamp.sequence)) else {
            return false;
        };
        let promised = self.transactions.get_mut(first).expect("its record is on the way");
        let Stage::Alone(alone) = &mut promised.stage else {
            unreachable!("a one-phase commit stays one until it is durable");
        };
        if alone.retries.len() < RETRIES_MAX {
            alone.retries.push(prepare.txn);
        }
        true
    }

    /// Whether the stamp is a new write's; if not, how the vote is.
    pub(super) fn check_stamp(&self, stamp: Option<Stamp>) -> Result<(), Vote> {
        let Some(stamp) = stamp else { return Ok(()) };
        match self.sessions.standing(stamp, 0) {
            Standing::New => Ok(()),
            Standing::Settled(()) if self.options.planted.has(Bug::RetryIsNew) => Ok(()),
            Standing::Stale if self.options.planted.has(Bug::StaleSequenceIsNew) => Ok(()),
            Standing::Settled(()) => Err(Vote::Committed),
            Standing::Stale | Standing::Expired => Err(Vote::Refused),
            Standing::TooManyOutstanding => Err(Vote::Overloaded),
        }
    }

    /// Everything holds. What is decided is decided by this record, so nothing of it is visible
    /// before the record is durable.
    pub(super) fn commit_alone(&mut self, txn: TxnId, stamp: Option<Stamp>, effects: &mut Out) {
        let promised = self.transactions.get_mut(&txn).expect("it was just checked");
        promised.stage = Stage::Alone(Alone { stamp, retries: Vec::new() });
        let writes = Writes::Of(Arc::clone(&promised.transaction));
        self.alone += 1;
        self.counters.committed_alone += 1;
        if let Some(stamp) = stamp {
            self.sessions.settle(stamp, ());
            self.alone_stamps.insert((stamp.client, stamp.sequence), txn);
        }
        self.remember_alone(txn, false);
        effects.point(points::PARTICIPANT_BEFORE_VOTE);
        let record = ParticipantRecord::CommittedAlone { txn, stamp, writes: writes.clone() };
        self.persist(record, Urgency::Now, effects);
        effects.point(points::PARTICIPANT_VOTE_DURABLE);
        effects.push(Effect::Apply { mark: self.last.0, writes });
        effects.point(points::PARTICIPANT_APPLIED);
        self.counters.votes_yes_sent += 1;
        let message = Message::Vote { txn, vote: Vote::Committed };
        effects.push(Effect::Send { to: txn.coordinator, message });
        effects.point(points::PARTICIPANT_VOTE_SENT);
        effects.push(Effect::Resume(ParticipantResume::CommittedAlone(txn)));
    }

    pub(super) fn committed_alone(&mut self, txn: TxnId, effects: &mut Out) {
        let promised = self.forget(txn);
        let Stage::Alone(alone) = promised.stage else {
            unreachable!("a one-phase commit stays one until it is durable");
        };
        self.alone -= 1;
        if let Some(stamp) = alone.stamp {
            self.alone_stamps.remove(&(stamp.client, stamp.sequence));
        }
        self.decision_is_durable(txn);
        for retry in alone.retries {
            self.send_vote(retry, Vote::Committed, effects);
        }
    }

    /// Remembers a one-phase commit, so that a repeated prepare of it is not done twice.
    pub(super) fn remember_alone(&mut self, txn: TxnId, durable: bool) {
        if txn >= self.finished_below {
            // Number zero: it has no place among the commits that a coordinator decides.
            let decision = Decision::Commit(CommitNumber::ZERO);
            self.decided.insert(txn, Decided::new(decision, durable));
        }
    }

    /// Remembers that a one-phase transaction was refused: the client is told that it did not
    /// happen, so a repeated prepare must not make it happen. (With a coordinator that decides, a
    /// refused one may be voted on again, since nobody would commit it.) Whether there was room.
    pub(super) fn remember_refusal(&mut self, txn: TxnId) -> bool {
        if self.decided.len() >= self.options.decided_max {
            return false;
        }
        self.decided.insert(txn, Decided::new(Decision::Abort, true));
        true
    }

    /// Says again that a transaction is committed here, durably.
    pub(super) fn say_committed(&mut self, txn: TxnId, number: CommitNumber, effects: &mut Out) {
        if number == CommitNumber::ZERO {
            self.send_vote(txn, Vote::Committed, effects);
        } else {
            self.acknowledge(txn, effects);
        }
    }
}
