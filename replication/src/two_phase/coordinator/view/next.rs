//! Which view is to be logged next, if another one is.

use alloc::vec::Vec;

use super::{Replica, Views};
use crate::contract::{NodeId, Time};
use crate::request::ReplicaChange;
use crate::two_phase::message::{CommitNumber, TxnId};
use crate::two_phase::planted::Bug;
use crate::two_phase::record::{Member, Missed, View};

impl Views {
    /// The view to log now, if it is to change.
    pub(in crate::two_phase::coordinator) fn next(
        &mut self,
        now: Time,
        round: Option<(u64, CommitNumber)>,
    ) -> Option<View> {
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
        let changed = || self.changing(now).filter(|_| round.is_none());
        let next = self.founding().or_else(changed).or_else(|| self.excluding(now, round))?;
        self.pending = Some(next.clone());
        Some(next)
    }

    /// How few may remain is changed, and what a lease is, while all are there. Nobody is left out
    /// before all who could serve reads know that they need a lease, and how many others to ask
    /// without one.
    fn founding(&self) -> Option<View> {
        let View { number, min_replicas, lease, is_founded, .. } = self.current;
        let least = self.least();
        let next = |is_founded| View {
            number: number + 1,
            min_replicas: least,
            lease: lease.max(self.lease),
            is_founded,
            ..self.current.clone()
        };
        if !is_founded && number > 0 {
            let view = || View { is_founded: true, ..self.current.clone() };
            return self.all_members_know().then(view);
        }
        let all_are_there = self.current.members.len() == self.count();
        if number == 0 || least < min_replicas && self.all_members_know() && all_are_there {
            return Some(next(false));
        }
        let changes = least > min_replicas && self.count() > 1 || self.lease > lease;
        changes.then(|| next(is_founded))
    }

    /// What was begun before this one has to be decided before the first view is founded, if that is all
    /// that is left to do for it. Who knew of no view may have promised never to vote on it, and others may
    /// have aborted it for that: one that is left out must not have been asked.
    pub(in crate::two_phase::coordinator) fn founded_behind(
        &mut self,
        next_txn: TxnId,
    ) -> Option<TxnId> {
        let is_first = self.current.number == 1 && !self.current.is_founded;
        (is_first && self.all_members_know()).then(|| *self.aware_from.get_or_insert(next_txn))
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
    pub(in crate::two_phase::coordinator) fn begins_epoch(
        &mut self,
        epoch: u64,
        commits: CommitNumber,
    ) {
        let is_outside = |replica: &&Replica| self.current.member(replica.id).is_none();
        let outside: Vec<NodeId> =
            self.replicas.iter().filter(is_outside).map(|replica| replica.id).collect();
        for replica in outside {
            self.misses(Missed { replica, epoch, commits });
        }
    }

    /// The first start that a replica misses is the one that counts.
    pub(super) fn misses(&mut self, missed: Missed) {
        if self.current.missed.iter().all(|it| it.replica != missed.replica) {
            self.current.missed.push(missed);
        }
    }

    /// Whether what a replica has applied up to here may have got other numbers.
    pub(in crate::two_phase::coordinator) fn is_suspect(
        &self,
        replica: NodeId,
        applied: CommitNumber,
        promised: u64,
    ) -> bool {
        let missed = self.current.missed.iter().find(|it| it.replica == replica);
        missed.is_some_and(|it| applied > it.commits && promised < it.epoch)
    }

    /// The view in which the replicas are as they are to be. Who is a member is left out first. Others
    /// have to be asked of now than before, so it is founded anew; and before that nobody is left out. So
    /// nothing is changed while a member may be down: it would be waited for until it is back.
    fn changing(&self, now: Time) -> Option<View> {
        let change = self.change?;
        let may_change =
            self.current.is_founded && self.all_members_know() && self.away(now).is_empty();
        if !may_change {
            return None;
        }
        let mut next = View { number: self.current.number + 1, ..self.current.clone() };
        match change {
            ReplicaChange::Add(replica) => {
                // Above all others, so in the order of the numbers.
                next.replicas.push(replica);
                next.highest = next.highest.max(replica);
            }
            ReplicaChange::Remove(replica) if self.is_member(replica) => return None,
            ReplicaChange::Remove(replica) => {
                next.replicas.retain(|it| *it != replica);
                next.missed.retain(|missed| missed.replica != replica);
            }
        }
        next.min_replicas = self.least_of(next.replicas.len());
        next.is_founded = self.planted.has(Bug::ChangeBeforeKnown);
        Some(next)
    }

    /// The replicas are to be changed so, or not any more.
    pub(in crate::two_phase::coordinator) fn want(&mut self, change: Option<ReplicaChange>) {
        self.change = change;
    }

    /// Whether the replicas are so, by the current view.
    pub(in crate::two_phase::coordinator) fn are_so(&self, change: ReplicaChange) -> bool {
        match change {
            ReplicaChange::Add(replica) => self.is_replica(replica),
            ReplicaChange::Remove(replica) => !self.is_replica(replica),
        }
    }

    /// Whether a view with other replicas is on its way.
    pub(in crate::two_phase::coordinator) fn is_changing(&self) -> bool {
        self.pending.as_ref().is_some_and(|next| next.replicas != self.current.replicas)
    }

    /// How many members would be too few without one of them, and how many would be.
    pub(in crate::two_phase::coordinator) fn too_few_without(
        &self,
        replica: NodeId,
    ) -> Option<(usize, usize)> {
        let least = self.current.min_replicas.max(self.least());
        let others = self.current.members.iter().filter(|it| it.replica != replica).count();
        (self.is_member(replica) && others < least).then_some((least, others))
    }

    pub(super) fn is_leaving(&self, replica: NodeId) -> bool {
        self.change == Some(ReplicaChange::Remove(replica))
    }

    /// The view in which a replica is back, from this transaction on; none if not now.
    pub(in crate::two_phase::coordinator) fn with(
        &mut self,
        replica: NodeId,
        from: TxnId,
    ) -> Option<View> {
        let knows = |it: &Replica| it.id == replica && it.knows >= self.current.number;
        let is_ready = self.current.is_founded
            && self.pending.is_none()
            && !self.is_leaving(replica)
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
}
