//! The view: which replicas a write needs now, who was heard of when, and who is to be left out.
//!
//! A pure piece: it is told what happens and says what to log. What is in the log counts, and only
//! that: a view is nobody's before its record is durable.
//!
//! ```text
//!  heard of          silent for `exclude_after`            View logged            all members know
//!  ───────────────────┼──────────────────────────────────────┼──────────────────────────┼─────────►
//!   transactions need it │ they wait for it, its lease runs out │ new ones do not need it  │ old ones neither
//! ```
//!
//! **Why nobody who is left out shows what is old.** A replica serves fresh reads under a lease, which
//! it asks for with its own time and which ends on its own clock. It is shorter than the silence after
//! which a replica is left out, by more than clocks drift. Without a lease, because the coordinator is
//! away, it asks others which view they know. A view leaves at least `min_replicas` in, so of any
//! others that are as many as may be left out, one is in every newer view; and nothing counts as
//! committed without those outside before all members know of the view, durably.

mod heard;
mod next;
#[cfg(test)]
mod tests;

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use crate::contract::{NodeId, Time};
use crate::request::ReplicaChange;
use crate::two_phase::message::{CommitNumber, TxnId};
use crate::two_phase::options::CoordinatorOptions;
use crate::two_phase::planted::{Bug, Planted};
use crate::two_phase::record::{Member, View};

/// What the coordinator knows of one replica, in this run.
#[derive(Clone, Copy, Debug)]
struct Replica {
    id: NodeId,
    /// When something came from it last; leases were granted no later.
    heard: Time,
    /// The newest view that it has said to know, durably.
    knows: u64,
    /// It is a member that was taken back, and is not known to have come so far that it could vote.
    needs: Option<CommitNumber>,
    /// It is a member, and has said that it takes part in nothing.
    is_lost: bool,
    /// Its link broke, and nothing has come from it since.
    is_cut_off: bool,
}

impl Replica {
    fn new(id: NodeId) -> Self {
        Self { id, heard: Time(0), knows: 0, needs: None, is_lost: false, is_cut_off: false }
    }
}

/// The view and what it rests on.
#[derive(Clone, Debug)]
pub(super) struct Views {
    /// As in the options.
    min_replicas: usize,
    exclude_after: Duration,
    lease: Duration,
    planted: Planted,
    /// In force: durable, or never logged.
    current: View,
    /// Its record is on its way.
    pending: Option<View>,
    /// How the replicas are to change.
    change: Option<ReplicaChange>,
    /// One for each that the current view names.
    replicas: Vec<Replica>,
    /// The newest view that left somebody out, as far as is known in this run: all members have to
    /// know it before anything counts as committed without those outside.
    left_out: u64,
    /// The next transaction when all members were found to know the first view.
    aware_from: Option<TxnId>,
    /// When it looked at the silent last.
    looked: Time,
}

impl Views {
    /// Of these replicas, in the order of their numbers; of others, if the log says so.
    pub(super) fn new(options: &CoordinatorOptions, replicas: &[NodeId]) -> Self {
        let member = |id: &NodeId| Member { replica: *id, from: TxnId::FIRST };
        Self {
            min_replicas: options.min_replicas,
            exclude_after: options.exclude_after,
            // A quarter for the clocks, and for what a timer comes late.
            lease: match options.planted.has(Bug::LeaseWithoutMargin) {
                true => options.exclude_after,
                false => options.exclude_after * 3 / 4,
            },
            planted: options.planted,
            current: View {
                number: 0,
                replicas: replicas.to_vec(),
                highest: replicas.last().copied().unwrap_or(NodeId::COORDINATOR),
                members: replicas.iter().map(member).collect(),
                min_replicas: replicas.len(),
                lease: Duration::ZERO,
                is_founded: false,
                missed: Vec::new(),
            },
            pending: None,
            change: None,
            replicas: replicas.iter().map(|id| Replica::new(*id)).collect(),
            left_out: 0,
            aware_from: None,
            looked: Time(0),
        }
    }

    /// How many of so many replicas have to remain.
    fn least_of(&self, replicas: usize) -> usize {
        match self.min_replicas {
            0 => replicas / 2 + 1,
            asked => asked.min(replicas),
        }
    }

    /// How many have to remain, of those that there are.
    fn least(&self) -> usize {
        self.least_of(self.count())
    }

    /// How many writes need, in words.
    pub(super) fn needed(&self) -> String {
        match (self.least(), self.count()) {
            (least, count) if least >= count => String::from("a write needs every replica"),
            (least, count) => format!("writes need {least} of {count} replicas"),
        }
    }

    /// How many replicas the cluster has.
    pub(super) fn count(&self) -> usize {
        self.current.replicas.len()
    }

    pub(super) fn is_replica(&self, node: NodeId) -> bool {
        self.current.replicas.contains(&node)
    }

    /// Whether it is one, or may have been.
    pub(super) fn was_replica(&self, node: NodeId) -> bool {
        node != NodeId::COORDINATOR && node <= self.current.highest
    }

    /// How many others a replica has to ask without a lease: so many may be left out.
    pub(super) fn others(&self) -> usize {
        self.count().saturating_sub(self.current.min_replicas)
    }

    /// Whether there are views at all: somebody may be left out, or may have been, or the replicas are
    /// to change.
    pub(super) fn are_kept(&self) -> bool {
        self.least() < self.count() || self.current.number > 0 || self.change.is_some()
    }

    /// A record of the log.
    pub(super) fn replay(&mut self, mut view: View) {
        if view.replicas.is_empty() {
            view.replicas.clone_from(&self.current.replicas);
            view.highest = self.current.highest;
        }
        self.current = view;
        self.name_replicas();
    }

    /// What is known of replicas that the current view does not name is forgotten.
    fn name_replicas(&mut self) {
        let known = core::mem::take(&mut self.replicas);
        let of = |id: &NodeId| known.iter().find(|it| it.id == *id).copied();
        let named = self.current.replicas.iter();
        self.replicas = named.map(|id| of(id).unwrap_or_else(|| Replica::new(*id))).collect();
    }

    /// A run begins. Whoever was granted a lease before it is heard of now: nobody remembers when.
    pub(super) fn start(&mut self, now: Time, commits: CommitNumber) {
        let longer = self.current.lease.saturating_sub(self.lease);
        for replica in &mut self.replicas {
            replica.heard = now.after(longer + longer / 8);
            replica.knows = 0;
            let was_away =
                self.current.member(replica.id).is_some_and(|member| member.from > TxnId::FIRST);
            replica.needs = was_away.then_some(commits);
        }
        self.left_out = self.current.number;
        self.looked = now;
    }

    /// How often it has to be looked at who is silent.
    pub(super) fn interval(&self) -> Duration {
        self.exclude_after / 5
    }

    pub(super) fn current(&self) -> &View {
        &self.current
    }

    /// What is in the log, durable or not.
    pub(super) fn logged(&self) -> &View {
        self.pending.as_ref().unwrap_or(&self.current)
    }

    pub(super) fn members(&self) -> Arc<[NodeId]> {
        self.current.members.iter().map(|member| member.replica).collect()
    }

    pub(super) fn is_member(&self, replica: NodeId) -> bool {
        self.current.member(replica).is_some()
    }

    /// Whether the replica's vote on the transaction is needed. Of one that was begun before it came
    /// back it is not, whatever it had promised.
    pub(super) fn counts(&self, replica: NodeId, txn: TxnId) -> bool {
        self.current.member(replica).is_some_and(|member| member.from <= txn)
    }

    /// The record of the next view is durable: it is in force. Who is left out by it. What was begun
    /// while the record was on its way was begun without who is back by it, so he takes part from
    /// the next transaction on.
    pub(super) fn is_logged(&mut self, next_txn: TxnId) -> Vec<NodeId> {
        let mut next = self.pending.take().expect("only what is on its way becomes durable");
        for member in &mut next.members {
            if self.current.member(member.replica).is_none() {
                member.from = next_txn;
            }
        }
        let before = core::mem::replace(&mut self.current, next);
        self.name_replicas();
        let left_out: Vec<NodeId> = before
            .members
            .iter()
            .map(|member| member.replica)
            .filter(|replica| !self.is_member(*replica))
            .collect();
        if !left_out.is_empty() {
            self.left_out = self.current.number;
        }
        left_out
    }
}
