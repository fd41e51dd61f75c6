//! The participating side: promises others' transactions, waits for the decision, and does as it is
//! told. From its yes vote on it may not decide by itself.

mod decide;
mod doubt;
mod prepare;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;

use super::ByTxn;
use super::message::{Age, Decision, TxnId, Work};
use super::record::Prepared;
use crate::contract::{NodeId, ReadId, Time};

/// What a replica remembers as a participant.
#[derive(Clone, Debug, Default)]
pub(super) struct Participating {
    /// Everything between the arrival of its prepare and its outcome.
    pub(super) promised: ByTxn<Promised>,
    /// Bytes of their keys and values.
    pub(super) bytes: usize,
    /// Their ages: of tries of the same transaction only the last counts.
    pub(super) by_age: BTreeMap<Age, TxnId>,
    /// Outcomes, until they are known to be over everywhere.
    pub(super) decided: ByTxn<Decided>,
    /// Of each coordinator that was heard of, below what everything is over.
    pub(super) finished_below: BTreeMap<NodeId, TxnId>,
}

impl Participating {
    pub(super) fn is_finished(&self, txn: TxnId) -> bool {
        self.finished_below.get(&txn.coordinator).is_some_and(|below| txn < *below)
    }

    /// Those whose outcome has been missing for longer than a healthy round takes.
    pub(super) fn in_doubt(&self, now: Time) -> usize {
        let is_in_doubt = |promised: &&Promised| match &promised.stage {
            Stage::Prepared(doubt) => doubt.from <= now,
            Stage::Waiting | Stage::Logging => false,
        };
        self.promised.values().filter(is_in_doubt).count()
    }
}

/// Another's transaction whose prepare has come and whose outcome has not.
#[derive(Clone, Debug)]
pub(super) struct Promised {
    pub(super) age: Age,
    pub(super) participants: Arc<[NodeId]>,
    pub(super) work: Arc<Work>,
    pub(super) finished_below: TxnId,
    pub(super) bytes: usize,
    pub(super) stage: Stage,
}

impl Promised {
    /// What the log keeps of it.
    pub(super) fn record(&self, txn: TxnId) -> Prepared {
        Prepared {
            txn,
            age: self.age,
            participants: self.participants.clone(),
            work: self.work.clone(),
            finished_below: self.finished_below,
        }
    }
}

/// How far it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// In the queue for locks; nothing is promised.
    Waiting,
    /// The promise is in the log, and may not be durable: the vote has not gone out, so nobody can
    /// have decided to commit, and a read need not wait.
    Logging,
    /// The vote is out. Only others can say how this ends.
    Prepared(Doubt),
}

/// What goes with a vote that is out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Doubt {
    /// From here on it counts as in doubt.
    pub(super) from: Time,
    /// When it asks for the outcome next.
    pub(super) alarm: Option<Time>,
    /// How often it has asked.
    pub(super) inquiries: u32,
    /// Reads that wait for it.
    pub(super) reads: BTreeSet<ReadId>,
}

/// An outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decided {
    pub(super) decision: Decision,
    pub(super) durable: bool,
}
