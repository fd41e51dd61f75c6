//! What the auditor makes of what nodes say: to each other, and to clients.

use kvorum_replication::two_phase::message::{
    CommitNumber, Decision, Knowledge, Message, Parallel, Prepare, TxnId, Vote,
};
use kvorum_replication::{NodeId, Operation, Outcome, Transaction};

use super::super::diary::Diary;
use super::Auditor;
use crate::process::{Judgement, broken};
use crate::violation::Promise;

impl Auditor {
    /// The coordinator says that everything below is over.
    fn finishes(&mut self, below: TxnId) -> Judgement {
        self.over_below = self.over_below.max(Some(below));
        while let Some(txn) = self.open.first().copied().filter(|txn| *txn < below) {
            self.open.pop_first();
            let is_acknowledged = |node: &NodeId| self.acknowledged.contains(&(txn, *node));
            let participants = self.prepares.get(&txn).map(|prepare| prepare.participants.clone());
            let is_over = self.is_recorded(txn)
                && participants.is_some_and(|them| them.iter().all(is_acknowledged));
            if self.is_promised_by_all(txn) && !is_over {
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
            | Message::Join { .. }
            | Message::View(_) => Ok(()),
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
        self.bound.insert((node, txn));
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
        if decision == Decision::Abort && self.acknowledged.contains(&(txn, whom)) {
            return Ok(());
        }
        if decision == Decision::Abort && self.is_promised_by_all(txn) {
            return broken(
                Promise::OneDecision,
                format!("{who} tells {whom} that {txn} is aborted, which all have promised"),
            );
        }
        let (known, by) = *self.decisions.entry(txn).or_insert(said);
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

    /// What is committed by everybody's promise may be told before it is written down.
    fn tells_parallel(
        &mut self,
        who: NodeId,
        whom: NodeId,
        txn: TxnId,
        number: CommitNumber,
    ) -> Judgement {
        if !self.is_promised_by_all(txn) {
            return broken(
                Promise::WaitsForDisk,
                format!("{who} tells {whom} that {txn} is committed, which not all have promised"),
            );
        }
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
                self.acknowledged.insert((txn, node));
                let newest = self.newest_acknowledged.entry(node).or_default();
                *newest = number.max(*newest);
                Ok(())
            }
            // Its rows came from another replica, who had it.
            None if self.is_in_rows(node, txn) => {
                self.acknowledged.insert((txn, node));
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
        operation: &Operation,
        outcome: &Outcome,
    ) -> Judgement {
        let (Outcome::Committed, Operation::Transact { stamp, transaction }) = (outcome, operation)
        else {
            return Ok(());
        };
        let is_written = match stamp.map(|stamp| (stamp.client, stamp.sequence)) {
            // With one replica it is that one that writes it down.
            Some(asked) => {
                self.diaries.values().any(|diary| diary.has_committed_for(asked))
                    || self
                        .asked
                        .get(&asked)
                        .is_some_and(|txns| txns.iter().any(|txn| self.is_promised_by_all(*txn)))
            }
            None => self.is_committed(transaction),
        };
        match is_written {
            true => Ok(()),
            false => broken(
                Promise::WaitsForDisk,
                format!("{node} tells a client that {operation:?} is done; no durable record does"),
            ),
        }
    }

    fn is_committed(&self, transaction: &Transaction) -> bool {
        let asked = self.prepares.values().filter(|it| *it.transaction == *transaction);
        asked.into_iter().any(|prepare| {
            let txn = prepare.txn;
            self.diaries.values().any(|it| it.committed(txn).is_some() || it.has_alone(txn))
                || self.is_promised_by_all(txn)
        })
    }
}
