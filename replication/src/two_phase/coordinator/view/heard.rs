//! What was heard of each replica, and what follows from silence.

use alloc::vec::Vec;
use core::time::Duration;

use super::{Replica, Views};
use crate::contract::{NodeId, Time};
use crate::two_phase::message::CommitNumber;
use crate::two_phase::planted::Bug;
use crate::two_phase::record::View;

impl Views {
    /// Something has come from a replica. Of one that is to be removed, or takes part in nothing, it is
    /// as if nothing came: so it is left out as one that is silent, when its lease has run out.
    pub(in crate::two_phase::coordinator) fn hear(&mut self, from: NodeId, now: Time) {
        if self.is_leaving(from) {
            return;
        }
        let replica = self.replicas.iter_mut().find(|replica| replica.id == from);
        if let Some(replica) = replica.filter(|replica| !replica.is_lost) {
            replica.heard = replica.heard.max(now);
            replica.is_cut_off = false;
        }
    }

    /// The link to a replica broke.
    pub(in crate::two_phase::coordinator) fn is_cut_off(&mut self, peer: NodeId) {
        if let Some(replica) = self.replicas.iter_mut().find(|replica| replica.id == peer) {
            replica.is_cut_off = true;
        }
    }

    /// A replica knows this view, durably.
    pub(in crate::two_phase::coordinator) fn knows(&mut self, from: NodeId, view: u64) {
        if let Some(replica) = self.replicas.iter_mut().find(|replica| replica.id == from) {
            replica.knows = replica.knows.max(view);
        }
    }

    /// Who has not said that it knows the view, members and others.
    pub(in crate::two_phase::coordinator) fn to_tell(&self) -> Vec<NodeId> {
        let number = self.current.number;
        let unaware = self.replicas.iter().filter(|replica| replica.knows < number);
        unaware.map(|replica| replica.id).collect()
    }

    /// How long a replica that has asked may serve reads.
    pub(in crate::two_phase::coordinator) fn grant(&self, to: NodeId) -> Option<Duration> {
        let is_in = |view: &View| view.member(to).is_some();
        let stays = is_in(&self.current)
            && self.pending.as_ref().is_none_or(is_in)
            && (!self.is_leaving(to) || self.planted.has(Bug::RemoveUnderLease));
        let replica = self.replicas.iter().find(|replica| replica.id == to)?;
        let is_aware = replica.knows >= self.current.number && replica.needs.is_none();
        (stays && is_aware).then(|| self.lease.min(self.current.lease))
    }

    /// Whether what is promised by all members counts, although others are outside: all know of it.
    pub(in crate::two_phase::coordinator) fn is_settled(&self) -> bool {
        if self.planted.has(Bug::CommitBeforeViewIsKnown) {
            return true;
        }
        let is_aware = |replica: &Replica| replica.knows >= self.left_out;
        let mut members = self.replicas.iter().filter(|replica| self.is_member(replica.id));
        self.current.members.len() == self.count() || members.all(is_aware)
    }

    /// Whether every member has said that it knows the current view.
    pub(super) fn all_members_know(&self) -> bool {
        let mut members = self.replicas.iter().filter(|replica| self.is_member(replica.id));
        members.all(|replica| replica.knows >= self.current.number)
    }

    pub(super) fn silent(&self, now: Time) -> Vec<NodeId> {
        let patience = match self.planted.has(Bug::ExcludeUnderLease) {
            true => self.exclude_after / 5,
            false => self.exclude_after,
        };
        let is_silent = |it: &&Replica| self.is_member(it.id) && it.heard.after(patience) <= now;
        self.replicas.iter().filter(is_silent).map(|replica| replica.id).collect()
    }

    /// Members that may be down, or are outside. Each says something several times in this time.
    pub(in crate::two_phase::coordinator) fn away(&self, now: Time) -> Vec<NodeId> {
        let patience = self.exclude_after / 2;
        let is_away =
            |it: &&Replica| it.is_lost || it.is_cut_off || it.heard.after(patience) <= now;
        let members = self.replicas.iter().filter(|it| self.is_member(it.id));
        members.filter(is_away).map(|replica| replica.id).collect()
    }

    /// Whether the cluster can go on without these, once they have been silent for long enough.
    pub(in crate::two_phase::coordinator) fn can_do_without(&self, silent: &[NodeId]) -> bool {
        let stays = |replica: &&Replica| {
            self.is_member(replica.id) && replica.needs.is_none() && !silent.contains(&replica.id)
        };
        let least = self.current.min_replicas.max(self.least());
        self.current.is_founded && self.replicas.iter().filter(stays).count() >= least
    }

    /// Whether the cluster can go on without this one and those that are silent.
    pub(in crate::two_phase::coordinator) fn can_leave_out(
        &self,
        replica: NodeId,
        now: Time,
    ) -> bool {
        let mut without = self.silent(now);
        without.push(replica);
        self.can_do_without(&without)
    }

    /// Before it has applied this commit a replica does not count among those that remain: it may be
    /// held by others only.
    pub(in crate::two_phase::coordinator) fn needs(
        &mut self,
        replica: NodeId,
        commit: CommitNumber,
    ) {
        if let Some(it) = self.replicas.iter_mut().find(|it| it.id == replica) {
            it.needs = Some(commit);
            it.is_lost = false;
        }
    }

    /// A replica has come so far.
    pub(in crate::two_phase::coordinator) fn has_applied(
        &mut self,
        replica: NodeId,
        applied: CommitNumber,
    ) {
        if let Some(it) = self.replicas.iter_mut().find(|it| it.id == replica) {
            it.needs = it.needs.filter(|needed| *needed > applied);
        }
    }

    /// A member says that it takes part in nothing: it is left out, if that may be. Not at once: the word
    /// may be late, from before an earlier coordinator let it in, and then it holds a lease.
    pub(in crate::two_phase::coordinator) fn is_lost(&mut self, replica: NodeId) {
        if let Some(it) = self.replicas.iter_mut().find(|it| it.id == replica) {
            it.is_lost = true;
            // Nor does it know any more which view there is.
            it.knows = 0;
            it.needs = Some(CommitNumber(u64::MAX));
        }
    }
}
