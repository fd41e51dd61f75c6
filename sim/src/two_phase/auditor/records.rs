//! What the auditor makes of what nodes write down: the order of the commits, and what each replica
//! gives which place in it.

use std::sync::Arc;

use kvorum_replication::two_phase::message::{CommitNumber, Decision, TxnId};
use kvorum_replication::{NodeId, Position};

use super::super::diary::{Diary, Note};
use super::Auditor;
use crate::contents::{Contents, apply};
use crate::process::{Judgement, LogEnd, broken};
use crate::violation::Promise;

impl Auditor {
    /// A node has appended these records, and says that its log is durable so far.
    pub(in crate::two_phase) fn noted(
        &mut self,
        node: NodeId,
        notes: Vec<(Position, Note)>,
        end: LogEnd,
    ) -> Judgement {
        for (at, note) in notes {
            match &note {
                Note::Committed { txn, number, participants, .. } => {
                    self.commits(*txn, *number, participants)?;
                }
                Note::Ended { txn } => self.ends(*txn)?,
                Note::Prepared { txn } => self.keeps_promise(node, *txn)?,
                Note::Decided { txn, decision: Decision::Commit(number) } => {
                    self.takes_number(node, *txn, *number)?;
                }
                Note::Learned { commits } => {
                    self.learned += commits.len() as u64;
                    for (txn, number) in commits {
                        self.takes_number(node, *txn, *number)?;
                    }
                }
                Note::Installed { decided, .. } => {
                    self.snapshots_installed += 1;
                    self.begins_anew(node);
                    for (txn, decision) in decided {
                        if let Decision::Commit(number) = decision {
                            self.takes_number(node, *txn, *number)?;
                        }
                    }
                }
                Note::View(view) => self.changes_view(view)?,
                Note::Outside { life } => self.goes_outside(node, *life)?,
                Note::Joined { .. } => self.joins(node),
                Note::Decided { .. }
                | Note::Aborted { .. }
                | Note::Promised { .. }
                | Note::Alone { .. }
                | Note::Started { .. }
                | Note::KnowsView { .. }
                | Note::Other => {}
            }
            if let Note::Committed { txn, .. }
            | Note::Aborted { txn }
            | Note::Ended { txn }
            | Note::Prepared { txn }
            | Note::Decided { txn, .. }
            | Note::Alone { txn, .. } = &note
            {
                *self.records.entry(*txn).or_default() += 1;
            }
            self.diary(node).add(at, note);
        }
        self.diary(node).is_durable(end.durable);
        Ok(())
    }

    /// The coordinator writes down a commit.
    fn commits(&mut self, txn: TxnId, number: CommitNumber, participants: &[NodeId]) -> Judgement {
        if !self.prepares.contains_key(&txn) {
            return broken(
                Promise::OneDecision,
                format!("{txn} is committed, and nobody was asked to prepare it"),
            );
        }
        let is_parallel = self.parallel(txn).is_some();
        // What a member had promised that is outside nobody can ask it: all others' promises are enough
        // for a coordinator that has started.
        let has_promised = |diary: &Diary| diary.has_prepared(txn) || diary.standing().is_outside;
        let lacks = |node: &&NodeId| match is_parallel {
            true => !self.has(**node, has_promised),
            false => !self.voted.contains(&(**node, txn)),
        };
        if let Some(node) = participants.iter().find(lacks) {
            return broken(
                Promise::Atomic,
                format!("{txn} is committed, and {node} has not promised to"),
            );
        }
        self.counts_all(txn, participants)?;
        self.owed.remove(&txn);
        self.place(txn, number)
    }

    /// Gives a commit its place in the order. One that the coordinator has lost the record of may be
    /// given to another, if nobody has it.
    pub(super) fn place(&mut self, txn: TxnId, number: CommitNumber) -> Judgement {
        let index = usize::try_from(number.0).unwrap_or(usize::MAX).saturating_sub(1);
        let holder = self.order.get(index).copied();
        if holder == Some(txn) && index < self.settled {
            return Ok(());
        }
        if index != self.settled {
            let last = self.settled;
            return broken(
                Promise::OneOrder,
                format!("{txn} is committed as {number}, and the last commit was #{last}"),
            );
        }
        if let Some(other) = holder.filter(|holder| *holder != txn) {
            self.leaves_behind(other, number);
        }
        if let Some(other) = holder.filter(|holder| *holder != txn)
            && let Some(node) = self.has_number(other, number)
        {
            return broken(
                Promise::OneOrder,
                format!("{txn} is committed as {number}, which is {other} at {node}"),
            );
        }
        let Some(prepare) = self.prepares.get(&txn) else { return Ok(()) };
        let mut contents = self.contents.get(index).map_or_else(Contents::new, |it| (**it).clone());
        apply(&mut contents, &prepare.transaction.writes);
        if index < self.order.len() {
            self.order[index] = txn;
            self.contents[index + 1] = Arc::new(contents);
        } else {
            self.order.push(txn);
            self.contents.push(Arc::new(contents));
        }
        self.settled = index + 1;
        Ok(())
    }

    /// A replica that counts, and has written down this number of the transaction.
    pub(super) fn has_number(&self, txn: TxnId, number: CommitNumber) -> Option<NodeId> {
        let has_it = |diary: &Diary| {
            diary.decided(txn).is_some_and(|(decision, _)| decision == Decision::Commit(number))
        };
        let mut members = self.diaries.iter().filter(|(node, _)| self.is_member(**node));
        members.find(|(_, diary)| has_it(diary)).map(|(node, _)| *node)
    }

    /// A replica writes down a promise. Not of what a restarted coordinator was told there is not.
    fn keeps_promise(&self, node: NodeId, txn: TxnId) -> Judgement {
        let newest = self.diaries.get(&node).map_or(0, Diary::newest_promise);
        match txn.epoch < newest {
            true => broken(
                Promise::Remembers,
                format!("{node} prepares {txn}, and has promised epoch {newest}"),
            ),
            false => Ok(()),
        }
    }

    /// A replica writes down the place that it has given a commit.
    fn takes_number(&mut self, node: NodeId, txn: TxnId, number: CommitNumber) -> Judgement {
        let index = usize::try_from(number.0).unwrap_or(usize::MAX).saturating_sub(1);
        match self.order.get(index) {
            Some(holder) if *holder == txn => Ok(()),
            // It does not know yet that the others go on without it.
            _ if !self.is_member(node) && self.decisions.contains_key(&txn) => {
                self.astray.insert(node);
                Ok(())
            }
            holder => broken(
                Promise::OneOrder,
                format!("{node} applies {txn} as {number}, which is {holder:?}"),
            ),
        }
    }

    /// The coordinator writes down that a commit is over.
    fn ends(&mut self, txn: TxnId) -> Judgement {
        let is_missing = |node: &NodeId| !self.acknowledged_by.contains(&(txn, *node));
        let missing =
            self.prepares.get(&txn).and_then(|prepare| self.counted(prepare).find(is_missing));
        match missing {
            Some(node) => broken(
                Promise::Remembers,
                format!("the coordinator forgets {txn}, which {node} has not acknowledged"),
            ),
            None if self.parallel(txn).is_some() && !self.is_recorded(txn) => broken(
                Promise::Remembers,
                format!("the coordinator lets everybody forget {txn}, and has no durable record"),
            ),
            None => Ok(()),
        }
    }

    pub(super) fn is_recorded(&self, txn: TxnId) -> bool {
        self.has(txn.coordinator, |diary| diary.committed(txn).is_some())
    }
}
