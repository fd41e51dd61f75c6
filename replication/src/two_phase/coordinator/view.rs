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

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use crate::contract::{NodeId, Time};
use crate::two_phase::message::{CommitNumber, TxnId};
use crate::two_phase::options::CoordinatorOptions;
use crate::two_phase::planted::{Bug, Planted};
use crate::two_phase::record::{Member, Missed, View};

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
}

/// The view and what it rests on.
#[derive(Clone, Debug)]
pub(super) struct Views {
    min_replicas: usize,
    exclude_after: Duration,
    lease: Duration,
    planted: Planted,
    /// In force: durable, or never logged.
    current: View,
    /// Its record is on its way.
    pending: Option<View>,
    replicas: Vec<Replica>,
    /// The newest view that left somebody out, as far as is known in this run: all members have to
    /// know it before anything counts as committed without those outside.
    left_out: u64,
    /// When it looked at the silent last.
    looked: Time,
}

impl Views {
    pub(super) fn new(options: &CoordinatorOptions, replicas: &[NodeId]) -> Self {
        let replica = |id: &NodeId| Replica { id: *id, heard: Time(0), knows: 0, needs: None };
        let member = |id: &NodeId| Member { replica: *id, from: TxnId::FIRST };
        let min_replicas = options.min_replicas.clamp(1, replicas.len());
        Self {
            min_replicas,
            exclude_after: options.exclude_after,
            // A quarter for the clocks, and for what a timer comes late.
            lease: options.exclude_after * 3 / 4,
            planted: options.planted,
            current: View {
                number: 0,
                members: replicas.iter().map(member).collect(),
                min_replicas: replicas.len(),
                lease: Duration::ZERO,
                is_founded: false,
                missed: Vec::new(),
            },
            pending: None,
            replicas: replicas.iter().map(replica).collect(),
            left_out: 0,
            looked: Time(0),
        }
    }

    /// How many others a replica has to ask without a lease: so many may be left out.
    pub(super) fn others(&self) -> usize {
        self.replicas.len() - self.current.min_replicas
    }

    /// Whether there are views at all: somebody may be left out, or may have been.
    pub(super) fn are_kept(&self) -> bool {
        self.min_replicas < self.replicas.len() || self.current.number > 0
    }

    /// A record of the log.
    pub(super) fn replay(&mut self, view: View) {
        self.current = view;
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

    /// Something has come from a replica.
    pub(super) fn hear(&mut self, from: NodeId, now: Time) {
        if let Some(replica) = self.replicas.iter_mut().find(|replica| replica.id == from) {
            replica.heard = replica.heard.max(now);
        }
    }

    /// A replica knows this view, durably.
    pub(super) fn knows(&mut self, from: NodeId, view: u64) {
        if let Some(replica) = self.replicas.iter_mut().find(|replica| replica.id == from) {
            replica.knows = replica.knows.max(view);
        }
    }

    /// Who has not said that it knows the view, members and others.
    pub(super) fn to_tell(&self) -> Vec<NodeId> {
        let number = self.current.number;
        let unaware = self.replicas.iter().filter(|replica| replica.knows < number);
        unaware.map(|replica| replica.id).collect()
    }

    /// How long a replica that has asked may serve reads.
    pub(super) fn grant(&self, to: NodeId) -> Option<Duration> {
        let is_in = |view: &View| view.member(to).is_some();
        let stays = is_in(&self.current) && self.pending.as_ref().is_none_or(is_in);
        let replica = self.replicas.iter().find(|replica| replica.id == to)?;
        let is_aware = replica.knows >= self.current.number && replica.needs.is_none();
        (stays && is_aware).then(|| self.lease.min(self.current.lease))
    }

    /// Whether what is promised by all members counts, although others are outside: all know of it.
    pub(super) fn is_settled(&self) -> bool {
        if self.planted.has(Bug::CommitBeforeViewIsKnown) {
            return true;
        }
        let is_aware = |replica: &Replica| replica.knows >= self.left_out;
        let mut members = self.replicas.iter().filter(|replica| self.is_member(replica.id));
        self.current.members.len() == self.replicas.len() || members.all(is_aware)
    }

    /// Whether the cluster can go on without these, once they have been silent for long enough.
    pub(super) fn can_do_without(&self, silent: &[NodeId]) -> bool {
        let stays = |replica: &&Replica| {
            self.is_member(replica.id) && replica.needs.is_none() && !silent.contains(&replica.id)
        };
        let least = self.current.min_replicas.max(self.min_replicas);
        self.current.is_founded && self.replicas.iter().filter(stays).count() >= least
    }

    fn silent(&self, now: Time) -> Vec<NodeId> {
        let patience = match self.planted.has(Bug::ExcludeUnderLease) {
            true => self.exclude_after / 5,
            false => self.exclude_after,
        };
        let is_silent = |it: &&Replica| self.is_member(it.id) && it.heard.after(patience) <= now;
        self.replicas.iter().filter(is_silent).map(|replica| replica.id).collect()
    }

    /// The view to log now, if it is to change.
    pub(super) fn next(&mut self, now: Time, round: Option<(u64, CommitNumber)>) -> Option<View> {
        if now.since(self.looked) > self.exclude_after / 2 {
            // It was stopped itself, and what came meanwhile is yet to be heard.
            for replica in &mut self.replicas {
                replica.heard = replica.heard.max(now);
            }
        }
        self.looked = now;
        if self.pending.is_some() || !self.are_kept() {
            return None;
        }
        let next = self.founding().or_else(|| self.excluding(now, round))?;
        self.pending = Some(next.clone());
        Some(next)
    }

    /// How few may remain is changed, and what a lease is, while all are there. Nobody is left out
    /// before all replicas know that they need a lease, and how many others to ask without one.
    fn founding(&self) -> Option<View> {
        let View { number, ref members, min_replicas, lease, is_founded, .. } = self.current;
        let number_next = number + 1;
        let all_know = self.replicas.iter().all(|replica| replica.knows >= number);
        let lowers = self.min_replicas < min_replicas;
        let longest = lease.max(self.lease);
        let next = |number, is_founded| View {
            missed: self.current.missed.clone(),
            number,
            members: members.clone(),
            min_replicas: self.min_replicas,
            lease: longest,
            is_founded,
        };
        if !is_founded && number > 0 && self.min_replicas == min_replicas {
            return all_know.then(|| next(number, true));
        }
        if number == 0 || lowers && all_know && members.len() == self.replicas.len() {
            return Some(next(number_next, false));
        }
        let changes =
            self.min_replicas > min_replicas && self.replicas.len() > 1 || self.lease > lease;
        changes.then(|| next(number_next, is_founded))
    }

    /// Who is left out while a coordinator that has started asks may not have answered.
    fn excluding(&self, now: Time, round: Option<(u64, CommitNumber)>) -> Option<View> {
        let silent = self.silent(now);
        if silent.is_empty() || !self.can_do_without(&silent) {
            return None;
        }
        let stay = self.current.members.iter().filter(|member| !silent.contains(&member.replica));
        let missed = round.into_iter().flat_map(|(epoch, commits)| {
            silent.iter().map(move |replica| Missed { replica: *replica, epoch, commits })
        });
        Some(View {
            number: self.current.number + 1,
            members: stay.copied().collect(),
            lease: self.lease,
            missed: self.current.missed.iter().copied().chain(missed).collect(),
            ..self.current.clone()
        })
    }

    /// A coordinator starts, and hears from the members only how far the numbers of commits are known.
    pub(super) fn begins_epoch(&mut self, epoch: u64, commits: CommitNumber) {
        let is_outside = |replica: &&Replica| self.current.member(replica.id).is_none();
        let outside: Vec<NodeId> =
            self.replicas.iter().filter(is_outside).map(|replica| replica.id).collect();
        for replica in outside {
            self.misses(Missed { replica, epoch, commits });
        }
    }

    /// The first start that a replica misses is the one that counts.
    fn misses(&mut self, missed: Missed) {
        if self.current.missed.iter().all(|it| it.replica != missed.replica) {
            self.current.missed.push(missed);
        }
    }

    /// Whether what a replica has applied up to here may have got other numbers.
    pub(super) fn is_suspect(&self, replica: NodeId, applied: CommitNumber, promised: u64) -> bool {
        let missed = self.current.missed.iter().find(|it| it.replica == replica);
        missed.is_some_and(|it| applied > it.commits && promised < it.epoch)
    }

    /// The view in which a replica is back, from this transaction on; none if not now.
    pub(super) fn with(&mut self, replica: NodeId, from: TxnId) -> Option<View> {
        let knows = |it: &Replica| it.id == replica && it.knows >= self.current.number;
        let is_ready = self.current.is_founded
            && self.pending.is_none()
            && self.is_settled()
            && self.replicas.iter().any(knows);
        if !is_ready {
            return None;
        }
        let mut next = self.current.clone();
        next.number += 1;
        next.members.push(Member { replica, from });
        next.members.sort_unstable_by_key(|member| member.replica);
        next.missed.retain(|missed| missed.replica != replica);
        self.pending = Some(next.clone());
        self.needs(replica, CommitNumber(u64::MAX));
        Some(next)
    }

    /// Before it has applied this commit a replica does not count among those that remain: it may be
    /// held by others only.
    pub(super) fn needs(&mut self, replica: NodeId, commit: CommitNumber) {
        if let Some(it) = self.replicas.iter_mut().find(|it| it.id == replica) {
            it.needs = Some(commit);
        }
    }

    /// A replica has come so far.
    pub(super) fn has_applied(&mut self, replica: NodeId, applied: CommitNumber) {
        if let Some(it) = self.replicas.iter_mut().find(|it| it.id == replica) {
            it.needs = it.needs.filter(|needed| *needed > applied);
        }
    }

    /// A member says that it takes part in nothing: it is left out, if that may be.
    pub(super) fn is_lost(&mut self, replica: NodeId) {
        if let Some(it) = self.replicas.iter_mut().find(|it| it.id == replica) {
            it.heard = Time(0);
            it.needs = Some(CommitNumber(u64::MAX));
        }
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
