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

    /// Something has come from a replica. Of one that is to be removed, or takes part in nothing, it is
    /// as if nothing came: so it is left out as one that is silent, when its lease has run out.
    pub(super) fn hear(&mut self, from: NodeId, now: Time) {
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
    pub(super) fn is_cut_off(&mut self, peer: NodeId) {
        if let Some(replica) = self.replicas.iter_mut().find(|replica| replica.id == peer) {
            replica.is_cut_off = true;
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
        let stays = is_in(&self.current)
            && self.pending.as_ref().is_none_or(is_in)
            && (!self.is_leaving(to) || self.planted.has(Bug::RemoveUnderLease));
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
        self.current.members.len() == self.count() || members.all(is_aware)
    }

    /// Whether the cluster can go on without these, once they have been silent for long enough.
    pub(super) fn can_do_without(&self, silent: &[NodeId]) -> bool {
        let stays = |replica: &&Replica| {
            self.is_member(replica.id) && replica.needs.is_none() && !silent.contains(&replica.id)
        };
        let least = self.current.min_replicas.max(self.least());
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
    pub(super) fn founded_behind(&mut self, next_txn: TxnId) -> Option<TxnId> {
        let is_first = self.current.number == 1 && !self.current.is_founded;
        (is_first && self.all_members_know()).then(|| *self.aware_from.get_or_insert(next_txn))
    }

    /// Whether every member has said that it knows the current view.
    fn all_members_know(&self) -> bool {
        let mut members = self.replicas.iter().filter(|replica| self.is_member(replica.id));
        members.all(|replica| replica.knows >= self.current.number)
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

    /// Members that may be down, or are outside. Each says something several times in this time.
    pub(super) fn away(&self, now: Time) -> Vec<NodeId> {
        let patience = self.exclude_after / 2;
        let is_away =
            |it: &&Replica| it.is_lost || it.is_cut_off || it.heard.after(patience) <= now;
        let members = self.replicas.iter().filter(|it| self.is_member(it.id));
        members.filter(is_away).map(|replica| replica.id).collect()
    }

    /// The replicas are to be changed so, or not any more.
    pub(super) fn want(&mut self, change: Option<ReplicaChange>) {
        self.change = change;
    }

    /// Whether the replicas are so, by the current view.
    pub(super) fn are_so(&self, change: ReplicaChange) -> bool {
        match change {
            ReplicaChange::Add(replica) => self.is_replica(replica),
            ReplicaChange::Remove(replica) => !self.is_replica(replica),
        }
    }

    /// Whether a view with other replicas is on its way.
    pub(super) fn is_changing(&self) -> bool {
        self.pending.as_ref().is_some_and(|next| next.replicas != self.current.replicas)
    }

    /// How many members would be too few without one of them, and how many would be.
    pub(super) fn too_few_without(&self, replica: NodeId) -> Option<(usize, usize)> {
        let least = self.current.min_replicas.max(self.least());
        let others = self.current.members.iter().filter(|it| it.replica != replica).count();
        (self.is_member(replica) && others < least).then_some((least, others))
    }

    fn is_leaving(&self, replica: NodeId) -> bool {
        self.change == Some(ReplicaChange::Remove(replica))
    }

    /// The view in which a replica is back, from this transaction on; none if not now.
    pub(super) fn with(&mut self, replica: NodeId, from: TxnId) -> Option<View> {
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

    /// Before it has applied this commit a replica does not count among those that remain: it may be
    /// held by others only.
    pub(super) fn needs(&mut self, replica: NodeId, commit: CommitNumber) {
        if let Some(it) = self.replicas.iter_mut().find(|it| it.id == replica) {
            it.needs = Some(commit);
            it.is_lost = false;
        }
    }

    /// A replica has come so far.
    pub(super) fn has_applied(&mut self, replica: NodeId, applied: CommitNumber) {
        if let Some(it) = self.replicas.iter_mut().find(|it| it.id == replica) {
            it.needs = it.needs.filter(|needed| *needed > applied);
        }
    }

    /// A member says that it takes part in nothing: it is left out, if that may be. Not at once: the word
    /// may be late, from before an earlier coordinator let it in, and then it holds a lease.
    pub(super) fn is_lost(&mut self, replica: NodeId) {
        if let Some(it) = self.replicas.iter_mut().find(|it| it.id == replica) {
            it.is_lost = true;
            // Nor does it know any more which view there is.
            it.knows = 0;
            it.needs = Some(CommitNumber(u64::MAX));
        }
    }

    /// Whether the cluster can go on without this one and those that are silent.
    pub(super) fn can_leave_out(&self, replica: NodeId, now: Time) -> bool {
        let mut without = self.silent(now);
        without.push(replica);
        self.can_do_without(&without)
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

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    const EXCLUDE_AFTER: Duration = Duration::from_millis(400);

    fn time(millis: u64) -> Time {
        Time(0).after(Duration::from_millis(millis))
    }

    fn txn(number: u64) -> TxnId {
        TxnId { coordinator: NodeId::COORDINATOR, epoch: 1, number }
    }

    fn options(min_replicas: usize) -> CoordinatorOptions {
        CoordinatorOptions {
            min_replicas,
            exclude_after: EXCLUDE_AFTER,
            ..CoordinatorOptions::default()
        }
    }

    fn replicas(count: u32) -> Vec<NodeId> {
        (1..=count).map(NodeId).collect()
    }

    /// So many replicas of which so many must remain, founded, all heard of at zero.
    fn founded(count: u32, min_replicas: usize) -> Views {
        let mut views = Views::new(&options(min_replicas), &replicas(count));
        views.start(time(0), CommitNumber::ZERO);
        for _ in 0..2 {
            let view = views.next(time(0), None).expect("it is to be founded");
            views.is_logged(txn(1));
            all_know(&mut views, view.number);
        }
        assert!(views.current().is_founded);
        views
    }

    fn all_know(views: &mut Views, number: u64) {
        for member in views.members().iter() {
            views.knows(*member, number);
        }
    }

    /// These are heard of, as often as it is looked, up to this time; then the view to log, if any.
    fn live(views: &mut Views, (from, to): (u64, u64), heard: &[u32]) -> Option<View> {
        for millis in (from..=to).step_by(80) {
            for id in heard {
                views.hear(NodeId(*id), time(millis));
            }
            if let Some(view) = views.next(time(millis), None) {
                return Some(view);
            }
        }
        None
    }

    fn ids(view: &View) -> Vec<u32> {
        view.members.iter().map(|member| member.replica.0).collect()
    }

    fn leaves_out(views: &mut Views, from: u64, heard: &[u32]) -> u64 {
        let view = live(views, (from, from + 560), heard).expect("somebody is silent");
        assert_eq!(ids(&view), heard);
        views.is_logged(txn(9));
        view.number
    }

    #[test]
    fn who_is_silent_is_left_out_by_one_view_together() {
        let mut views = founded(5, 3);
        assert_eq!(views.others(), 2);
        let view = live(&mut views, (0, 560), &[1, 2, 3]).expect("two are silent");
        assert_eq!((view.number, ids(&view)), (2, vec![1, 2, 3]));
        // What is on its way is no view yet, and no second one is decided meanwhile.
        assert!(views.is_member(NodeId(4)) && views.grant(NodeId(4)).is_none());
        assert!(live(&mut views, (560, 2000), &[1, 2]).is_none());
        assert_eq!(views.is_logged(txn(1)), [NodeId(4), NodeId(5)]);
    }

    #[test]
    fn one_that_was_stopped_itself_blames_nobody() {
        let mut views = founded(3, 2);
        assert!(live(&mut views, (0, 160), &[1, 2, 3]).is_none());
        assert!(views.next(time(5_000), None).is_none());
        // From then on silence counts again.
        assert!(live(&mut views, (5_000, 5_380), &[1, 2]).is_none());
        let view = live(&mut views, (5_400, 5_480), &[1, 2]).expect("the third is silent");
        assert_eq!(ids(&view), [1, 2]);
    }

    #[test]
    fn with_too_few_nobody_is_left_out_until_one_is_back() {
        let mut views = founded(3, 2);
        assert!(live(&mut views, (0, 2_000), &[1]).is_none());
        assert!(!views.can_do_without(&[NodeId(2), NodeId(3)]));
        let view = live(&mut views, (2_080, 2_160), &[1, 3]).expect("two are there again");
        assert_eq!(ids(&view), [1, 3]);
    }

    #[test]
    fn a_longer_lease_of_an_earlier_run_is_waited_for() {
        let mut views = founded(3, 2);
        let before = views.current().clone();
        let short = CoordinatorOptions { exclude_after: EXCLUDE_AFTER / 4, ..options(2) };
        let mut views_now = Views::new(&short, &replicas(3));
        views_now.replay(before);
        views_now.start(time(0), CommitNumber::ZERO);
        all_know(&mut views_now, 1);
        // 100 ms of silence, and the 225 ms by which the old lease is longer, and an eighth of that.
        let excluded_at = (0..600).step_by(20).find(|millis| {
            views_now.hear(NodeId(1), time(*millis));
            views_now.hear(NodeId(2), time(*millis));
            views_now.next(time(*millis), None).is_some()
        });
        assert_eq!(excluded_at, Some(360));
        // A longer one is in the log before anybody is granted it.
        let long = CoordinatorOptions { exclude_after: EXCLUDE_AFTER * 2, ..options(2) };
        views = Views { min_replicas: 2, ..Views::new(&long, &replicas(3)) };
        views.replay(founded(3, 2).current().clone());
        views.start(time(0), CommitNumber::ZERO);
        all_know(&mut views, 1);
        assert_eq!(views.grant(NodeId(1)), Some(EXCLUDE_AFTER * 3 / 4));
        let view = views.next(time(0), None).expect("leases get longer");
        assert_eq!((view.number, view.lease), (2, EXCLUDE_AFTER * 3 / 2));
    }

    #[test]
    fn all_members_must_know_the_newest_view_that_left_somebody_out() {
        let mut views = founded(5, 3);
        let second = leaves_out(&mut views, 0, &[1, 2, 3, 4]);
        assert!(!views.is_settled());
        all_know(&mut views, second);
        assert!(views.is_settled());
        let third = leaves_out(&mut views, 560, &[1, 2, 3]);
        views.knows(NodeId(1), third);
        views.knows(NodeId(2), third);
        assert!(!views.is_settled());
        // Nobody is taken back before.
        views.knows(NodeId(5), third);
        assert!(views.with(NodeId(5), txn(20)).is_none());
        views.knows(NodeId(3), third);
        assert!(views.is_settled());
        let fourth = views.with(NodeId(5), txn(20)).expect("it knows the view");
        assert_eq!((fourth.number, ids(&fourth)), (third + 1, vec![1, 2, 3, 5]));
        views.is_logged(txn(22));
        // It leaves nobody out: what those before it know is enough.
        assert!(views.is_settled());
        assert!(!views.counts(NodeId(5), txn(21)) && views.counts(NodeId(5), txn(22)));
    }

    #[test]
    fn who_has_not_what_the_others_have_is_not_enough_without_them() {
        let mut views = founded(3, 2);
        let number = leaves_out(&mut views, 0, &[1, 2]);
        all_know(&mut views, number);
        views.knows(NodeId(3), number);
        let back = views.with(NodeId(3), txn(5)).expect("it is near");
        views.is_logged(txn(5));
        views.knows(NodeId(3), back.number);
        assert!(!views.can_do_without(&[NodeId(2)]) && views.grant(NodeId(3)).is_none());
        views.needs(NodeId(3), CommitNumber(7));
        views.has_applied(NodeId(3), CommitNumber(6));
        assert!(!views.can_do_without(&[NodeId(2)]));
        views.has_applied(NodeId(3), CommitNumber(7));
        assert!(views.can_do_without(&[NodeId(2)]) && views.grant(NodeId(3)).is_some());
    }

    #[test]
    fn of_the_starts_that_a_replica_missed_the_first_counts() {
        let mut views = founded(3, 2);
        leaves_out(&mut views, 0, &[1, 2]);
        views.begins_epoch(4, CommitNumber(10));
        views.begins_epoch(5, CommitNumber(30));
        let is_suspect =
            |applied, promised| views.is_suspect(NodeId(3), CommitNumber(applied), promised);
        assert_eq!([is_suspect(10, 3), is_suspect(11, 3), is_suspect(11, 4)], [false, true, false]);
        assert!(!views.is_suspect(NodeId(2), CommitNumber(99), 0));
    }

    #[test]
    fn who_is_added_is_outside_and_nobody_is_left_out_before_all_know() {
        let mut views = founded(3, 0);
        assert_eq!((views.others(), views.current().highest), (1, NodeId(3)));
        views.want(Some(ReplicaChange::Add(NodeId(4))));
        let view = views.next(time(0), None).expect("it is to be added");
        assert_eq!((view.min_replicas, view.highest, ids(&view)), (3, NodeId(4), vec![1, 2, 3]));
        assert!(!views.is_replica(NodeId(4)) && views.is_changing());
        assert!(views.is_logged(txn(1)).is_empty());
        views.want(None);
        assert!(views.is_replica(NodeId(4)) && !views.is_member(NodeId(4)));
        // The third never hears of it.
        for member in [1, 2] {
            views.knows(NodeId(member), view.number);
        }
        assert!(live(&mut views, (0, 2_000), &[1, 2, 3]).is_none());
        views.knows(NodeId(3), view.number);
        assert!(views.next(time(2_000), None).expect("all know").is_founded);
        views.is_logged(txn(1));
        views.knows(NodeId(4), view.number);
        let back = views.with(NodeId(4), txn(5)).expect("it knows the view");
        assert_eq!(ids(&back), [1, 2, 3, 4]);
    }

    #[test]
    fn who_is_to_be_removed_is_silent_and_has_no_lease() {
        let mut views = founded(4, 0);
        views.want(Some(ReplicaChange::Remove(NodeId(3))));
        assert!(views.grant(NodeId(3)).is_none() && views.grant(NodeId(2)).is_some());
        let left_out = live(&mut views, (0, 560), &[1, 2, 3, 4]).expect("it counts as silent");
        assert_eq!((ids(&left_out), left_out.replicas.len()), (vec![1, 2, 4], 4));
        views.is_logged(txn(1));
        assert!(views.with(NodeId(3), txn(2)).is_none());
        all_know(&mut views, left_out.number);
        let removed = views.next(time(560), None).expect("nobody needs it");
        assert_eq!((removed.replicas.len(), removed.min_replicas), (3, 2));
        views.is_logged(txn(1));
        assert!(views.are_so(ReplicaChange::Remove(NodeId(3))) && views.was_replica(NodeId(3)));
        // While what was committed before a start is asked for, nothing is changed.
        all_know(&mut views, removed.number);
        views.want(Some(ReplicaChange::Add(NodeId(5))));
        let round = Some((2, CommitNumber::ZERO));
        assert!(views.next(time(560), round).expect("all know").is_founded);
        views.is_logged(txn(1));
        assert!(views.next(time(560), round).is_none());
        assert!(views.next(time(560), None).is_some());
    }

    #[test]
    fn a_view_from_before_replicas_could_change_has_those_of_the_start() {
        let mut views = Views::new(&options(2), &replicas(3));
        let old = View {
            number: 4,
            replicas: Vec::new(),
            highest: NodeId::COORDINATOR,
            ..views.current().clone()
        };
        views.replay(old);
        assert_eq!((views.count(), views.current().highest), (3, NodeId(3)));
    }

    #[test]
    fn more_may_be_asked_to_remain_at_once_and_fewer_when_all_are_there() {
        let mut views = founded(3, 2);
        let number = leaves_out(&mut views, 0, &[1, 2]);
        let view = views.current().clone();
        let mut fewer = Views::new(&options(1), &replicas(3));
        fewer.replay(view.clone());
        fewer.start(time(0), CommitNumber::ZERO);
        all_know(&mut fewer, number);
        assert!(live(&mut fewer, (0, 320), &[1, 2]).is_none());
        let mut more = Views::new(&options(3), &replicas(3));
        more.replay(view);
        more.start(time(0), CommitNumber::ZERO);
        let next = more.next(time(0), None).expect("it is said at once");
        assert_eq!((next.number, next.min_replicas, ids(&next)), (number + 1, 3, vec![1, 2]));
    }
}
