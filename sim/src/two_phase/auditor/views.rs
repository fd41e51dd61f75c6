//! The auditor's book of views: who counts by the coordinator's durable log, who knows that, and who
//! was left out and let in again.

use std::collections::BTreeSet;

use kvorum_replication::two_phase::message::{CommitNumber, Decision, Prepare, TxnId, ViewMessage};
use kvorum_replication::two_phase::record::{Member, View};
use kvorum_replication::{NodeId, Position};

use super::super::diary::Diary;
use super::Auditor;
use crate::process::{Judgement, broken};
use crate::violation::Promise;

/// What became of the views, in numbers.
#[derive(Debug, Default)]
pub(in crate::two_phase) struct OfViews {
    /// Views after the first.
    pub(in crate::two_phase) changes: u64,
    /// Replicas that a view leaves out, and the one before does not.
    pub(in crate::two_phase) excluded: u64,
    /// Replicas that a view names, and the one before does not.
    pub(in crate::two_phase) added: u64,
    /// The reverse.
    pub(in crate::two_phase) removed: u64,
    /// Replicas that found themselves left out, and forgot what they had promised.
    pub(in crate::two_phase) left_out: u64,
    /// The same, let in again.
    pub(in crate::two_phase) rejoined: u64,
    /// They took the rows of another replica.
    pub(in crate::two_phase) rejoined_by_rows: u64,
    /// Replicas held commits under numbers that others have now.
    pub(in crate::two_phase) astray: u64,
    /// Disks of replicas that were left out.
    pub(in crate::two_phase) disks_lost_outside: u64,
    pub(in crate::two_phase) leases: u64,
    /// Questions to the others, for want of a lease.
    pub(in crate::two_phase) asks: u64,
    away: BTreeSet<NodeId>,
    by_rows: BTreeSet<NodeId>,
}

impl Auditor {
    fn coordinator(&self) -> Option<&Diary> {
        self.diaries.get(&NodeId::COORDINATOR)
    }

    /// The newest view whose record is durable.
    pub(super) fn view(&self) -> Option<&View> {
        self.coordinator().and_then(|diary| diary.views().next_back())
    }

    /// Whether writes that are begun now need this replica.
    pub(in crate::two_phase) fn is_member(&self, replica: NodeId) -> bool {
        match self.view() {
            Some(view) => view.member(replica).is_some(),
            None => self.founders.contains(&replica),
        }
    }

    /// The replicas, as the coordinator's log says durably.
    pub(in crate::two_phase) fn replicas(&self) -> Vec<NodeId> {
        self.view().map_or_else(|| self.founders.clone(), |view| view.replicas.clone())
    }

    /// Whether a replica had this number, durably.
    pub(in crate::two_phase) fn was_replica(&self, node: NodeId) -> bool {
        self.founders.contains(&node) || self.view().is_some_and(|view| node <= view.highest)
    }

    /// Whose promises count of those who were asked.
    pub(super) fn counted(&self, prepare: &Prepare) -> impl Iterator<Item = NodeId> {
        let (view, txn) = (self.view(), prepare.txn);
        let counts = move |node: &NodeId| {
            view.is_none_or(|view| view.member(*node).is_some_and(|member| member.from <= txn))
        };
        prepare.participants.iter().copied().filter(counts)
    }

    /// Whether all members know, durably, of the newest view that left somebody out; or nobody is.
    pub(super) fn is_settled(&self) -> bool {
        let Some(view) = self.view() else { return true };
        if view.members.len() == view.replicas.len() {
            return true;
        }
        let views: Vec<&View> = self.coordinator().into_iter().flat_map(Diary::views).collect();
        let leaves_out = |pair: &&[&View]| {
            pair[0].members.iter().any(|member| pair[1].member(member.replica).is_none())
        };
        let left_out = views.windows(2).rfind(leaves_out).map_or(0, |pair| pair[1].number);
        // Who has lost its disk knew it before, and takes part in nothing now.
        let knows = |node: NodeId| {
            self.has(node, |diary| {
                diary.knows_view() >= left_out || diary.durable() == Position::default()
            })
        };
        view.members.iter().all(|member| knows(member.replica))
    }

    /// The coordinator writes down a view, once more or a new one.
    pub(super) fn changes_view(&mut self, view: &View) -> Judgement {
        let Some(newest) = self.coordinator().and_then(Diary::newest_view) else {
            self.of_views.changes += 1;
            return Ok(());
        };
        let ids = |view: &View| view.members.iter().map(|it| it.replica).collect::<BTreeSet<_>>();
        let (before, after) = (ids(newest), ids(view));
        let number = newest.number;
        let (had, has) = (newest.replicas.len() as u64, view.replicas.len() as u64);
        let is_changed = newest.replicas != view.replicas;
        if let Some(wrong) = is_changed.then(|| self.wrong_change(newest, view)).flatten() {
            return broken(Promise::OneView, wrong);
        }
        let leaves_out = !before.is_subset(&after);
        match view.number {
            same if same == number && before == after && !is_changed => Ok(()),
            next if next == number + 1 && (!leaves_out || after.len() >= newest.min_replicas) => {
                let gone: Vec<NodeId> = before.difference(&after).copied().collect();
                self.of_views.changes += 1;
                self.of_views.excluded += gone.len() as u64;
                self.of_views.added += has.saturating_sub(had);
                self.of_views.removed += had.saturating_sub(has);
                Ok(())
            }
            other => broken(
                Promise::OneView,
                format!(
                    "the coordinator goes on with view {other} of {after:?}, and the last was \
                     {number} of {before:?}"
                ),
            ),
        }
    }

    /// Replicas come and go singly, under numbers of their own, outside, and when all members know
    /// that they do.
    fn wrong_change(&self, before: &View, after: &View) -> Option<String> {
        let added: Vec<NodeId> =
            after.replicas.iter().copied().filter(|it| !before.replicas.contains(it)).collect();
        let removed: Vec<NodeId> =
            before.replicas.iter().copied().filter(|it| !after.replicas.contains(it)).collect();
        let unaware = before.members.iter().map(|it| it.replica).find(|member| {
            !self.has(*member, |diary| {
                diary.knows_view() >= before.number || diary.durable() == Position::default()
            })
        });
        // Who came back takes part from the next transaction on when the record was durable, which may
        // be later than the record says.
        let stays =
            |(was, is): (&Member, &Member)| was.replica == is.replica && was.from <= is.from;
        let all_stay = before.members.len() == after.members.len()
            && before.members.iter().zip(&after.members).all(stays);
        if added.len() + removed.len() != 1 || !all_stay {
            return Some(format!("{added:?} come at once while {removed:?} go"));
        }
        if let Some(used) = added.into_iter().find(|it| *it <= before.highest) {
            return Some(format!("{used} is added, and a replica had that number"));
        }
        if let Some(member) = unaware {
            return Some(format!(
                "the replicas change before {member} knows view {}",
                before.number
            ));
        }
        (after.is_founded || after.highest < before.highest)
            .then(|| "the replicas change, and nobody has to know".to_owned())
    }

    /// The coordinator writes down a commit: nobody is passed over who counts, and all members know
    /// of it if somebody is left out.
    pub(super) fn counts_all(&self, txn: TxnId, participants: &[NodeId]) -> Judgement {
        let Some(prepare) = self.prepares.get(&txn) else { return Ok(()) };
        let is_forgotten = |node: &NodeId| !participants.contains(node);
        if let Some(node) = self.counted(prepare).find(is_forgotten) {
            let what = format!("{txn} is committed without {node}, which counts");
            return broken(Promise::Atomic, what);
        }
        match participants.len() < self.replicas().len() && !self.is_settled() {
            true => broken(
                Promise::OneView,
                format!("{txn} is committed without all, and not all members know the view"),
            ),
            false => Ok(()),
        }
    }

    pub(super) fn says_of_view(
        &mut self,
        from: NodeId,
        to: NodeId,
        message: ViewMessage,
    ) -> Judgement {
        match message {
            ViewMessage::Announce { view, .. } | ViewMessage::Excluded { view, .. } => {
                let newest = self.view().map_or(0, |view| view.number);
                if view > newest {
                    return broken(
                        Promise::WaitsForDisk,
                        format!("{from} tells {to} of view {view}, and view {newest} is durable"),
                    );
                }
            }
            ViewMessage::Renew { view, .. } => {
                let knows = self.diary(from).knows_view();
                if view > knows {
                    return broken(
                        Promise::WaitsForDisk,
                        format!("{from} says that it knows view {view}, and has {knows} durably"),
                    );
                }
            }
            ViewMessage::Grant { .. } => {
                self.of_views.leases += 1;
                if !self.is_member(to) {
                    let what = format!("{to} is granted a lease, and is left out");
                    return broken(Promise::OneView, what);
                }
            }
            ViewMessage::Ask { .. } => self.of_views.asks += 1,
            ViewMessage::Heard { .. } => {}
        }
        Ok(())
    }

    /// A replica takes part in nothing from here on, and is bound by nothing.
    pub(super) fn goes_outside(&mut self, node: NodeId, life: u64) -> Judgement {
        let standing = self.diary(node).standing();
        if standing.is_outside || standing.life != life {
            return Ok(());
        }
        let lacks = |view: &View| view.member(node).is_none();
        let is_left_out = self.coordinator().is_some_and(|diary| diary.views().any(lacks));
        if !is_left_out {
            return broken(
                Promise::OneView,
                format!("{node} takes part in nothing any more, and no view leaves it out"),
            );
        }
        self.bound.retain(|(bound, _)| *bound != node);
        self.of_views.left_out += 1;
        self.of_views.away.insert(node);
        self.of_views.by_rows.remove(&node);
        Ok(())
    }

    /// A replica takes the rows of another one for its own.
    pub(super) fn begins_anew(&mut self, node: NodeId) {
        if self.diary(node).standing().is_outside {
            self.looked.remove(&node);
            self.newest_acknowledged.remove(&node);
            self.astray.remove(&node);
            self.of_views.by_rows.insert(node);
        }
    }

    /// A replica is let in again: what it holds counts.
    pub(super) fn joins(&mut self, node: NodeId) {
        if !self.diary(node).standing().is_outside {
            return;
        }
        self.astray.remove(&node);
        match self.of_views.away.remove(&node) {
            true => self.of_views.rejoined += 1,
            false => self.let_in += 1,
        }
        self.of_views.rejoined_by_rows += u64::from(self.of_views.by_rows.remove(&node));
    }

    /// A commit gets another number. Who is left out and knows the old one can't go on from there.
    pub(super) fn leaves_behind(&mut self, txn: TxnId, number: CommitNumber) {
        let has_it = |diary: &Diary| {
            diary.decided(txn).is_some_and(|(decision, _)| decision == Decision::Commit(number))
        };
        let behind = self.diaries.iter().filter(|(node, diary)| {
            **node != NodeId::COORDINATOR && !self.is_member(**node) && has_it(diary)
        });
        let behind: Vec<NodeId> = behind.map(|(node, _)| *node).collect();
        for node in behind {
            self.of_views.astray += u64::from(self.astray.insert(node));
        }
    }

    /// Whether the members other than this one keep all that was committed, whatever becomes of it.
    pub(in crate::two_phase) fn can_do_without(&self, node: NodeId) -> bool {
        let keeps_all = |replica: &NodeId| {
            let mut commits = (1..).map(CommitNumber).zip(&self.order);
            let holds_all = |diary: &Diary| {
                !diary.standing().is_outside
                    && commits.all(|(number, txn)| diary.keeps(*txn, number))
            };
            !self.astray.contains(replica) && self.has(*replica, holds_all)
        };
        let others = self.diaries.keys().copied().filter(|other| {
            *other != NodeId::COORDINATOR && *other != node && self.is_member(*other)
        });
        let others: Vec<NodeId> = others.collect();
        !others.is_empty() && others.iter().all(keeps_all)
    }
}
