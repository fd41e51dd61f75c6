//! What a judge may look at in a running replica, after any step. Nothing of the protocol depends on
//! it.

use alloc::vec::Vec;

use super::Replica;
use super::message::{Age, TxnId};
use super::participating::Stage;
pub use crate::two_phase::audit::Table;

/// A look at a replica.
#[derive(Clone, Debug)]
pub struct ReplicaAudit {
    /// What clients asked of this replica and were not answered, by age, with the try that is under
    /// way.
    pub errands: Vec<(Age, Option<TxnId>)>,
    /// Own transactions that are decided and not over.
    pub commits: Vec<TxnId>,
    /// Others' transactions without an outcome.
    pub open: Vec<TxnId>,
    /// Those among them that it has promised to commit if told so.
    pub promised: Vec<TxnId>,
    /// Who holds locks, own transactions and others', once each.
    pub lock_holders: Vec<TxnId>,
    /// Who waits for locks with a claim, once each.
    pub lock_waiters: Vec<TxnId>,
    /// For whom they wait: who holds what they want, or has an earlier claim to it.
    pub waits: Vec<Wait>,
    /// Whether its log contradicts itself.
    pub is_unfit: bool,
    /// What it keeps.
    pub tables: Vec<Table>,
}

/// One transaction waits here for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Who waits.
    pub waiter: TxnId,
    /// How old it is.
    pub waiter_age: Age,
    /// For whom.
    pub waits_for: TxnId,
    /// How old that one is.
    pub age: Age,
}

pub(super) fn of(replica: &Replica) -> ReplicaAudit {
    let (options, coordinating) = (&replica.options, &replica.coordinating);
    let participating = &replica.participating;
    // What is being prepared gets an outcome that is remembered, room or not.
    let outcomes_max = options.decided_max.saturating_add(options.prepared_max);
    let unacknowledged_max = options.unacknowledged_max.saturating_add(options.in_flight_max);
    let tables = [
        ("errands", coordinating.errands.len(), options.in_flight_max),
        ("bytes in flight", coordinating.errand_bytes, options.in_flight_bytes_max),
        ("unacknowledged", coordinating.commits.len(), unacknowledged_max),
        ("transactions", participating.promised.len(), options.prepared_max),
        ("bytes prepared", participating.bytes, options.prepared_bytes_max),
        ("outcomes", participating.decided.len(), outcomes_max),
        ("waiting reads", replica.reads.waiting.len(), options.waiting_reads_max),
        ("impatient reads", replica.reads.impatient.len(), options.impatient_reads_max),
        ("sessions", replica.sessions.len(), options.sessions_max),
    ];
    let open = participating.promised.iter();
    ReplicaAudit {
        errands: coordinating
            .errands
            .iter()
            .map(|(age, errand)| (*age, errand.state.try_under_way()))
            .collect(),
        commits: coordinating.commits.keys().copied().collect(),
        open: open.clone().map(|(txn, _)| *txn).collect(),
        promised: open
            .filter(|(_, promised)| !matches!(promised.stage, Stage::Waiting))
            .map(|(txn, _)| *txn)
            .collect(),
        lock_holders: replica.locks.holders().collect(),
        lock_waiters: replica.locks.waiters().collect(),
        waits: replica.locks.waits(),
        is_unfit: replica.unfit.is_some(),
        tables: tables.into_iter().map(|(name, len, max)| Table { name, len, max }).collect(),
    }
}
