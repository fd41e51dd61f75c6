//! What a judge may look at in a running core, after any step. Nothing of the protocol depends on
//! it.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::message::{CommitNumber, TxnId};
pub use crate::audit::Table;
use crate::contract::RequestId;
use crate::request::Transaction;

/// A look at a coordinator.
#[derive(Clone, Debug)]
pub struct CoordinatorAudit {
    /// Transactions that are not over.
    pub open: Vec<TxnId>,
    /// Those among them that nobody was asked to prepare yet.
    pub gathered: Vec<(TxnId, Arc<Transaction>)>,
    /// Requests that wait for the outcome of one.
    pub waiting: Vec<(RequestId, TxnId)>,
    /// Who holds locks, once for each.
    pub lock_holders: Vec<TxnId>,
    /// What was told after a restart contradicts its log, and how.
    pub contradiction: Option<String>,
    /// What it keeps.
    pub tables: Vec<Table>,
}

/// A look at a participant.
#[derive(Clone, Debug)]
pub struct ParticipantAudit {
    /// Transactions without an outcome.
    pub open: Vec<TxnId>,
    /// Those among them that it has promised to commit if told so.
    pub promised: Vec<TxnId>,
    /// Who holds locks, once for each.
    pub lock_holders: Vec<TxnId>,
    /// The newest commit applied.
    pub applied: CommitNumber,
    /// One-phase commits that are not durable yet.
    pub alone: usize,
    /// Whether it takes part in nothing.
    pub is_outside: bool,
    /// Whether rows of another replica are about to take the place of its own.
    pub is_installing: bool,
    /// Whether its log contradicts itself.
    pub is_unfit: bool,
    /// What it keeps.
    pub tables: Vec<Table>,
}
