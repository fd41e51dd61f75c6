//! A restarted coordinator asks what is prepared here. Its record of a parallel commit may be lost,
//! and then the promises are all that says so.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::state::{Early, Promised, Stage};
use super::{Out, Participant, ParticipantResume};
use crate::contract::{Effect, NodeId, Urgency};
use crate::two_phase::message::{Decision, Message, Recalled, Recovered, TxnId};
use crate::two_phase::planted::Bug;
use crate::two_phase::points;
use crate::two_phase::record::{ParticipantRecord, Pledge};

impl Participant {
    /// Promises to prepare nothing of an older epoch any more, and tells what is prepared when that
    /// is durable: everything prepared before stands before it in the log.
    pub(super) fn promise_epoch(
        &mut self,
        from: NodeId,
        epoch: u64,
        first: TxnId,
        effects: &mut Out,
    ) {
        self.counters.recovers += 1;
        if from != NodeId::COORDINATOR || epoch < self.promised {
            self.counters.strange_dropped += 1;
            return;
        }
        if self.options.planted.has(Bug::RecoverWithoutPromise) {
            self.look_again();
            return self.tell(epoch, first, effects);
        }
        if epoch == self.promised {
            // Before the promise is durable the answer may not go, and after it goes by itself.
            if self.promise_is_durable {
                self.tell(epoch, first, effects);
            }
            return;
        }
        self.promised = epoch;
        self.promise_is_durable = false;
        self.drop_checks();
        self.drop_old_numbers();
        self.look_again();
        self.persist(ParticipantRecord::Promised { epoch }, Urgency::Now, effects);
        effects.point(points::PARTICIPANT_EPOCH_PROMISED);
        effects.push(Effect::Resume(ParticipantResume::Promised { epoch, first }));
    }

    /// What nothing was promised of is of an older epoch, and never will be.
    fn drop_checks(&mut self) {
        let is_check = |promised: &Promised| matches!(promised.stage, Stage::Checking { .. });
        let checks: Vec<TxnId> = self
            .transactions
            .iter()
            .filter(|(txn, promised)| txn.epoch < self.promised && is_check(promised))
            .map(|(txn, _)| txn)
            .collect();
        for txn in checks {
            self.forget(txn);
        }
    }

    /// What another replica has passed on and is not applied is not told either. It may get another
    /// number, and is passed on again.
    fn drop_old_numbers(&mut self) {
        let is_old = |early: &Early| match early {
            Early::Learned { commit, epoch } => {
                commit.pledge.is_some() && self.is_of_before(*epoch)
            }
            Early::Prepared(_) => false,
        };
        let old = self.early.iter().filter(|(_, early)| is_old(early));
        for number in old.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.early.remove(&number);
        }
    }

    pub(super) fn epoch_is_promised(&mut self, epoch: u64, first: TxnId, effects: &mut Out) {
        if epoch == self.promised {
            self.promise_is_durable = true;
            self.tell(epoch, first, effects);
        }
    }

    /// Tells of parallel transactions of older epochs that are prepared here, or were and are
    /// committed: as many as go into one message.
    fn tell(&mut self, epoch: u64, first: TxnId, effects: &mut Out) {
        let max = self.options.recalled_max;
        let mut recalled: Vec<Recalled> = self.open_from(first, epoch).take(max + 1).collect();
        recalled.extend(self.committed_from(first, epoch).take(max + 1));
        recalled.sort_unstable_by_key(|it| it.txn);
        let next = recalled.get(max).map(|it| it.txn);
        recalled.truncate(max);
        self.counters.recovered_sent += 1;
        let applied = self.applied;
        let is_outside = self.is_outside();
        let answer = Recovered { epoch, first, applied, recalled, next, is_outside };
        let message = Message::Recovered(Box::new(answer));
        effects.push(Effect::Send { to: NodeId::COORDINATOR, message });
    }

    fn open_from(&self, first: TxnId, epoch: u64) -> impl Iterator<Item = Recalled> {
        let open = self.transactions.range(first..);
        open.take_while(move |(txn, _)| txn.epoch < epoch).filter_map(|(txn, promised)| {
            let Pledge { participants, stamp } = promised.pledge()?;
            let number = match &promised.stage {
                Stage::Prepared { commit, .. } => commit.map(|told| told.number),
                Stage::Checking { .. } | Stage::Logging | Stage::Alone(_) => return None,
            };
            // What is being installed has it among the outcomes.
            let recalled = Recalled { txn, participants, stamp, number };
            (!self.is_ended(txn)).then_some(recalled)
        })
    }

    fn committed_from(&self, first: TxnId, epoch: u64) -> impl Iterator<Item = Recalled> {
        let decided = self.decided.range(first..);
        decided.take_while(move |(txn, _)| txn.epoch < epoch).filter_map(|(txn, decided)| {
            let Pledge { participants, stamp } = decided.pledge.clone()?;
            match decided.decision {
                Decision::Commit(number) => {
                    Some(Recalled { txn, participants, stamp, number: Some(number) })
                }
                Decision::Abort => None,
            }
        })
    }
}
