//! The coordinating side: from a client's request to the decision, and until everybody has it.
//!
//! What a client asks for is an *errand*. It may take several *tries*, each with a number of its own;
//! only one at a time, and all of the same age. A try that is decided to commit leaves its errand.

mod begin;
mod checks;
mod complete;
mod state;
mod tries;
mod vote;

use alloc::collections::{BTreeMap, BTreeSet};

pub(super) use self::state::{Commit, Flight};

use self::state::Errand;
use super::ByTxn;
use super::locks::Resource;
use super::message::{Age, TxnId};
use crate::contract::{NodeId, ReadId};
use crate::request::ClientId;

/// What a replica remembers as a coordinator.
#[derive(Clone, Debug, Default)]
pub(super) struct Coordinating {
    /// Numbers used in this incarnation.
    pub(super) begun: u64,
    /// What clients asked for, not answered yet.
    pub(super) errands: BTreeMap<Age, Errand>,
    pub(super) errand_bytes: usize,
    /// The tries under way.
    pub(super) tries: ByTxn<Age>,
    /// Decided to commit, and not over.
    pub(super) commits: ByTxn<Commit>,
    /// Bytes of those whose record may not be durable.
    pub(super) committing_bytes: usize,
    /// Writes with a stamp that are not answered.
    pub(super) by_stamp: BTreeMap<(ClientId, u64), Flight>,
    /// Errands that hold nothing, and wait for this to be let go here.
    pub(super) parked: BTreeMap<Resource, BTreeSet<Age>>,
    /// Reads of preconditions that the store is about to answer.
    pub(super) checks: BTreeMap<ReadId, Age>,
    /// The greatest number of a session that was tried in this incarnation.
    pub(super) last_client: u64,
}

impl Coordinating {
    pub(super) fn next_txn(&self, coordinator: NodeId, epoch: u64) -> TxnId {
        TxnId { coordinator, epoch, number: self.begun + 1 }
    }

    /// The oldest number that is not over.
    pub(super) fn oldest(&self) -> Option<TxnId> {
        let first = self.tries.keys().next().into_iter().chain(self.commits.keys().next());
        first.min().copied()
    }
}
