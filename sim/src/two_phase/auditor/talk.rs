//! What the auditor makes of what nodes say: to each other, and to clients.

use kvorum_replication::two_phase::message::{
    CommitNumber, Decision, Knowledge, Message, Parallel, Prepare, TxnId, Vote,
};
use kvorum_replication::{Answer, NodeId, Operation, Outcome, Query, Transaction};

use super::super::diary::{Asked, Diary};
use super::Auditor;
use crate::contents::explains;
use crate::machine;
use crate::process::{Judgement, broken};
use crate::violation::Promise;

impl Auditor {
    /// The coordinator says that everything below is over.
    fn finishes(&mut self, below: TxnId) -> Judgement {
        self.over_below = self.over_below.max(Some(below));
        while let Some(txn) = self.open.first().copied().filter(|txn| *txn < below) {
            self.open.pop_first();
            let is_acknowledged = |node: NodeId| self.acknowledged_by.contains(&(txn, node));
            let prepare = self.prepares.get(&txn);
            let is_over = self.is_recorded(txn)
                && prepare.is_some_and(|it| self.counted(it).all(is_acknowledged));
            if self.is_promised_by_everybody(txn) && !is_over {
                return broken(
                    Promise::Remembers,
                    format!("what is below {below} is said to be over, and {txn} is not"),
                );
            }
        }
        Ok(())
    }

    /// A message is sent.
    pub(in crate::two_phase) fn says(
        &mut self,
        from: NodeId,
        to: NodeId,
        message: &Message,
    ) -> Judgement {
        let counted = match message {
            Message::Prepare(prepare) => Some(prepare.txn),
            Message::Vote { txn, .. }
            | Message::Decide { txn, .. }
            | Message::Acknowledge { txn } => Some(*txn),
            _ => None,
        };
        if let Some(txn) = counted {
            *self.messages.entry(txn).or_default() += 1;
        }
        match message {
            Message::Prepare(prepare) => self.prepares(prepare),
            Message::Vote { txn, vote: Vote::Yes } => self.promises(from, *txn),
            Message::Vote { txn, vote: Vote::Committed } => self.committed_alone(from, *txn),
            Message::Decide { txn, decision, finished_below, epoch } => {
                self.finishes(*finished_below)?;
                self.decides(from, to, *txn, (*decision, *epoch))
            }
            Message::Inform { txn, knowledge: Knowledge::Decided(decision), epoch } => {
                self.decides(from, to, *txn, (*decision, *epoch))
            }
            Message::Recovered(answer) => self.promises_epoch(from, answer.epoch),
            Message::Acknowledge { txn } => self.acknowledges(from, *txn),
            Message::Vote { .. }
            | Message::Inform { .. }
            | Message::Inquire { .. }
            | Message::Recover { .. }
            | Message::Read { .. }
            | Message::ReadAnswer { .. }
            | Message::FetchCommits { .. }
            | Message::Commits { .. }
            | Message::Truncated { .. }
            | Message::FetchSnapshot { .. }
            | Message::SnapshotPiece(_)
            | Message::SnapshotGone { .. }
            | Message::Outside { .. }
            | Message::CatchUp { .. }
            | Message::Join { .. } => Ok(()),
            Message::View(message) => self.says_of_view(from, to, *message),
        }
    }

    fn promises_epoch(&self, node: NodeId, epoch: u64) -> Judgement {
        match self.has(node, |diary| diary.has_promised(epoch)) {
            true => Ok(()),
            false => broken(
                Promise::WaitsForDisk,
                format!("{node} tells what it has prepared, and has not promised epoch {epoch}"),
            ),
        }
    }

    fn prepares(&mut self, prepare: &Prepare) -> Judgement {
        let txn = prepare.txn;
        self.finishes(prepare.finished_below)?;
        if let Some(lost) = self.owed.first() {
            return broken(
                Promise::Remembers,
                format!("{txn} is begun, and {lost} was committed and is not written down"),
            );
        }
        if !self.has(txn.coordinator, |diary| diary.has_started(txn.epoch)) {
            return broken(
                Promise::WaitsForDisk,
                format!("{txn} is begun, and its epoch is not durable at the coordinator"),
            );
        }
        match self.prepares.get(&txn) {
            Some(known) if known.transaction != prepare.transaction => broken(
                Promise::OneDecision,
                format!("{txn} names two transactions: its number was used again"),
            ),
            Some(_) => Ok(()),
            None => {
                self.prepares.insert(txn, prepare.clone());
                if let Some(Parallel { stamp }) = prepare.parallel {
                    self.open.insert(txn);
                    let asked = stamp.map(|stamp| (stamp.client, stamp.sequence));
                    if let Some(asked) = asked {
                        self.asked.entry(asked).or_default().push(txn);
                    }
                }
                Ok(())
            }
        }
    }

    fn promises(&mut self, node: NodeId, txn: TxnId) -> Judgement {
        if !self.has(node, |diary| diary.has_prepared(txn)) {
            return broken(
                Promise::WaitsForDisk,
                format!("{node} votes yes on {txn}, and its promise is not durable"),
            );
        }
        if self.has(node, |diary| diary.has_prepared_after_decision(txn)) {
            return broken(
                Promise::OneDecision,
                format!("{node} promises and votes yes on {txn}, whose end it had written down"),
            );
        }
        self.voted.insert((node, txn));
        // The vote may leave after the word that it takes part in nothing: nobody counts it.
        if !self.diary(node).standing().is_outside {
            self.bound.insert((node, txn));
        }
        Ok(())
    }

    fn committed_alone(&mut self, node: NodeId, txn: TxnId) -> Judgement {
        let stamp = self.prepares.get(&txn).and_then(|prepare| prepare.one_phase?.stamp);
        let is_there = self.has(node, |diary| {
            let asked = stamp.map(|stamp| (stamp.client, stamp.sequence));
            diary.has_alone(txn) || asked.is_some_and(|asked| diary.has_committed_for(asked))
        });
        match is_there {
            true => Ok(()),
            false => broken(
                Promise::WaitsForDisk,
                format!("{node} says that {txn} is committed there, and no durable record does"),
            ),
        }
    }

    /// Nobody may say of a transaction what contradicts what anybody said before. One exception:
    /// who has acknowledged a commit cannot be hurt by hearing that it was aborted, which is what
    /// is presumed of all that is over, and is the answer to a message from long ago.
    fn decides(
        &mut self,
        who: NodeId,
        whom: NodeId,
        txn: TxnId,
        said: (Decision, u64),
    ) -> Judgement {
        let (decision, epoch) = said;
        if decision == Decision::Abort && self.acknowledged_by.contains(&(txn, whom)) {
            return Ok(());
        }
        if decision == Decision::Abort && self.is_promised_by_everybody(txn) {
            return broken(
                Promise::OneDecision,
                format!("{who} tells {whom} that {txn} is aborted, which all have promised"),
            );
        }
        let (known, by) = *self.decisions.entry(txn).or_insert(said);
        // Nobody believes a number of an older epoch; who was left out may still say it.
        let is_outdated = matches!((known, decision), (Decision::Commit(_), Decision::Commit(_)))
            && epoch < by
            && !self.is_member(who);
        if is_outdated {
            return Ok(());
        }
        if known != decision && !self.may_change(txn, (known, by), said) {
            return broken(
                Promise::OneDecision,
                format!("{who} tells {whom} that {txn} is {decision:?}, and it was {known:?}"),
            );
        }
        self.decisions.insert(txn, (decision, by.max(epoch)));
        let Decision::Commit(number) = decision else { return Ok(()) };
        match self.parallel(txn) {
            Some(_) => self.tells_parallel(who, whom, txn, number),
            None => self.tells_recorded(who, whom, txn, number),
        }
    }

    /// Whether a parallel commit may get another number: from a later coordinator, and nobody has
    /// the old one.
    fn may_change(&self, txn: TxnId, known: (Decision, u64), said: (Decision, u64)) -> bool {
        let ((Decision::Commit(old), before), (Decision::Commit(_), epoch)) = (known, said) else {
            return false;
        };
        self.parallel(txn).is_some() && epoch > before && self.has_number(txn, old).is_none()
    }

    /// What has happened stays so, whatever becomes of the view.
    fn is_committed_in_parallel(&self, txn: TxnId) -> bool {
        self.told.contains(&txn) || self.is_recorded(txn) || self.is_promised_by_all(txn)
    }

    /// What is committed by everybody's promise may be told before it is written down.
    fn tells_parallel(
        &mut self,
        who: NodeId,
        whom: NodeId,
        txn: TxnId,
        number: CommitNumber,
    ) -> Judgement {
        if !self.is_committed_in_parallel(txn) {
            return broken(
                Promise::WaitsForDisk,
                format!("{who} tells {whom} that {txn} is committed, which not all have promised"),
            );
        }
        self.told.insert(txn);
        match who == txn.coordinator {
            true => self.place(txn, number),
            false => Ok(()),
        }
    }

    fn tells_recorded(
        &self,
        who: NodeId,
        whom: NodeId,
        txn: TxnId,
        number: CommitNumber,
    ) -> Judgement {
        let written = self.diaries.get(&txn.coordinator).and_then(|diary| diary.committed(txn));
        match written {
            Some(place) if place == number => Ok(()),
            Some(place) => broken(
                Promise::OneOrder,
                format!("{who} tells {whom} that {txn} is {number}, and it was written as {place}"),
            ),
            None => broken(
                Promise::WaitsForDisk,
                format!("{who} tells {whom} that {txn} is committed, which no durable record says"),
            ),
        }
    }

    fn acknowledges(&mut self, node: NodeId, txn: TxnId) -> Judgement {
        match self.diary(node).decided(txn) {
            Some((Decision::Commit(number), true)) => {
                self.acknowledged_by.insert((txn, node));
                let newest = self.newest_acknowledged.entry(node).or_default();
                *newest = number.max(*newest);
                Ok(())
            }
            // Its rows came from another replica, who had it.
            None if self.is_in_rows(node, txn) => {
                self.acknowledged_by.insert((txn, node));
                Ok(())
            }
            known => broken(
                Promise::WaitsForDisk,
                format!(
                    "{node} acknowledges {txn}; what it wrote of it, and whether that is durable: \
                     {known:?}"
                ),
            ),
        }
    }

    fn is_in_rows(&self, node: NodeId, txn: TxnId) -> bool {
        let installed = self.diaries.get(&node).map_or(CommitNumber::ZERO, Diary::installed);
        match self.decisions.get(&txn) {
            Some((Decision::Commit(number), _)) => *number <= installed,
            Some((Decision::Abort, _)) | None => false,
        }
    }

    /// A client is told how its request ended.
    pub(in crate::two_phase) fn answers(
        &mut self,
        node: NodeId,
        asked: &machine::Asked,
        outcome: &Outcome,
    ) -> Judgement {
        match (&asked.operation, outcome) {
            (Operation::Transact { stamp, transaction }, Outcome::Committed) => {
                let stamp = stamp.map(|stamp| (stamp.client, stamp.sequence));
                self.answers_commit(node, stamp, transaction)
            }
            (Operation::Read(query), Outcome::Answer(answer)) => {
                self.answers_read(node, asked.acknowledged, query, answer)
            }
            _ => Ok(()),
        }
    }

    /// A read shows all that any client had been told of when it was asked for.
    fn answers_read(
        &self,
        node: NodeId,
        acknowledged: u64,
        query: &Query,
        answer: &Answer,
    ) -> Judgement {
        let from = usize::try_from(acknowledged).unwrap_or(usize::MAX).min(self.order.len());
        let mut fresh = self.contents.iter().skip(from);
        // Who decides alone keeps no order for others.
        if self.replicas().len() == 1 || fresh.any(|contents| explains(contents, query, answer)) {
            return Ok(());
        }
        broken(
            Promise::Serializable,
            format!(
                "{node} answers {query:?} with {answer:?}, and not out of the first {from} commits or \
                 more, of which clients had been told when that was asked"
            ),
        )
    }

    fn answers_commit(
        &mut self,
        node: NodeId,
        asked: Option<Asked>,
        transaction: &Transaction,
    ) -> Judgement {
        let is_written = match asked {
            // With one replica it is that one that writes it down.
            Some(asked) => {
                let of_session = self.asked.get(&asked).into_iter().flatten();
                self.diaries.values().any(|diary| diary.has_committed_for(asked))
                    || of_session.copied().any(|txn| self.is_committed_in_parallel(txn))
            }
            None => self.is_committed(transaction),
        };
        if !is_written {
            return broken(
                Promise::WaitsForDisk,
                format!(
                    "{node} tells a client that {transaction:?} is done; no durable record does"
                ),
            );
        }
        let is_it = |txn: &TxnId| {
            self.prepares.get(txn).is_some_and(|prepare| *prepare.transaction == *transaction)
        };
        let place = self.order.iter().position(is_it).map_or(0, |index| index as u64 + 1);
        self.acknowledged = self.acknowledged.max(place);
        Ok(())
    }

    fn is_committed(&self, transaction: &Transaction) -> bool {
        let asked = self.prepares.values().filter(|it| *it.transaction == *transaction);
        asked.into_iter().any(|prepare| {
            let txn = prepare.txn;
            self.diaries.values().any(|it| it.committed(txn).is_some() || it.has_alone(txn))
                || self.is_committed_in_parallel(txn)
        })
    }
}
