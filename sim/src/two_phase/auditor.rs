//! The auditor: keeps a book of its own of what everybody said, wrote and held, and looks after
//! every event whether that fits together.
//!
//! It believes no node. What is durable it takes from the log's own word and from what a restart
//! finds; what is committed, from the records; what a replica must hold, from the transactions that
//! the prepares named, in the order of the commits. Of what is committed in parallel the promises are
//! the records: it has happened when all are durable, and its place in the order may change only as
//! long as nobody has it who survives.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::Arc;

use bytes::Bytes;
use kvorum_replication::two_phase::audit::{CoordinatorAudit, ParticipantAudit, Table};
use kvorum_replication::two_phase::message::{
    CommitNumber, Decision, Knowledge, Message, Parallel, Prepare, TxnId, Vote,
};
use kvorum_replication::{NodeId, Operation, Outcome, Position, Transaction, Write};

use super::diary::{Asked, Diary, Note};
use crate::process::{Judgement, LogEnd, Rows, broken};
use crate::violation::Promise;

/// What a replica must hold.
type Contents = BTreeMap<Bytes, Bytes>;

/// A look at a core.
#[derive(Debug)]
pub(crate) enum Facts {
    Coordinator(CoordinatorAudit),
    Participant(ParticipantAudit),
}

#[derive(Debug)]
pub(super) struct Auditor {
    diaries: BTreeMap<NodeId, Diary>,
    /// What each transaction asks for, and who votes on it.
    prepares: BTreeMap<TxnId, Prepare>,
    /// The same, by whose write it is.
    asked: BTreeMap<Asked, Vec<TxnId>>,
    /// Parallel transactions that nobody has said to be over.
    open: BTreeSet<TxnId>,
    /// What each transaction was said to have come to, by anybody, and by which epoch's coordinator.
    decisions: BTreeMap<TxnId, (Decision, u64)>,
    /// Who has said yes to what, ever.
    voted: BTreeSet<(NodeId, TxnId)>,
    /// The same, as long as it binds.
    bound: BTreeSet<(NodeId, TxnId)>,
    /// Who has said of a commit that it is durable there.
    acknowledged: BTreeSet<(TxnId, NodeId)>,
    /// The newest commit that each has acknowledged.
    newest_acknowledged: BTreeMap<NodeId, CommitNumber>,
    /// The coordinator has said that everything below is over.
    over_below: Option<TxnId>,
    /// Which transaction has each place in the serial order; the first has place 1.
    order: Vec<TxnId>,
    /// So many of these places are given for good, as far as the coordinator of this run goes.
    settled: usize,
    /// Parallel commits whose records the coordinator has lost: it has to write them again before it
    /// begins anything.
    owed: BTreeSet<TxnId>,
    /// What a replica holds after each of them; the first entry is the empty beginning.
    contents: Vec<Arc<Contents>>,
    /// What each replica was found to hold last: so many commits, of its own or in the order.
    looked: BTreeMap<NodeId, (CommitNumber, usize)>,
    /// Messages about each transaction that are part of its normal course.
    pub(super) messages: BTreeMap<TxnId, u64>,
    /// Records that each transaction has left in logs.
    pub(super) records: BTreeMap<TxnId, u64>,
    /// What replicas got from each other.
    pub(super) learned: u64,
    pub(super) snapshots_installed: u64,
    pub(super) let_in: u64,
}

impl Auditor {
    pub(super) fn new(nodes: impl Iterator<Item = NodeId>) -> Self {
        Self {
            diaries: nodes.map(|node| (node, Diary::default())).collect(),
            prepares: BTreeMap::new(),
            asked: BTreeMap::new(),
            open: BTreeSet::new(),
            decisions: BTreeMap::new(),
            voted: BTreeSet::new(),
            bound: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
            newest_acknowledged: BTreeMap::new(),
            over_below: None,
            order: Vec::new(),
            settled: 0,
            owed: BTreeSet::new(),
            contents: vec![Arc::default()],
            looked: BTreeMap::new(),
            messages: BTreeMap::new(),
            records: BTreeMap::new(),
            learned: 0,
            snapshots_installed: 0,
            let_in: 0,
        }
    }

    /// A replica has lost its disk, and is bound by nothing that it knows of.
    pub(super) fn lost_disk(&mut self, node: NodeId) {
        self.diaries.insert(node, Diary::default());
        self.looked.remove(&node);
        self.newest_acknowledged.remove(&node);
        self.bound.retain(|(bound, _)| *bound != node);
    }

    /// Whether this life of a replica was let in, durably.
    pub(super) fn is_let_in(&self, node: NodeId, life: u64) -> bool {
        self.has(node, |diary| diary.is_let_in(life))
    }

    /// Transactions with a place in the order.
    pub(super) fn order(&self) -> &[TxnId] {
        &self.order
    }

    fn diary(&mut self, node: NodeId) -> &mut Diary {
        self.diaries.entry(node).or_default()
    }

    fn has(&self, node: NodeId, what: impl FnOnce(&Diary) -> bool) -> bool {
        self.diaries.get(&node).is_some_and(what)
    }

    /// A node has started, and this is what its log holds.
    pub(super) fn reopened(&mut self, node: NodeId, end: LogEnd) -> Judgement {
        let diary = self.diary(node);
        let (durable, last) = (diary.durable(), end.last);
        if last < durable {
            return broken(
                Promise::Remembers,
                format!("the log of {node} ends at {last}, and {durable} was durable"),
            );
        }
        diary.reopened(last);
        if node == NodeId::COORDINATOR {
            let newest = usize::try_from(diary.newest_commit().0).unwrap_or(usize::MAX);
            self.lost_from(newest);
        }
        self.looked.remove(&node);
        Ok(())
    }

    /// The coordinator has lost the records of what came after the first so many commits. What was to
    /// be committed by its record is not; what was by everybody's promise is.
    fn lost_from(&mut self, newest: usize) {
        let is_parallel = |txn: &TxnId| self.parallel(*txn).is_some();
        let kept = self.order.iter().rposition(is_parallel).map_or(0, |last| last + 1);
        self.order.truncate(kept.max(newest));
        self.contents.truncate(self.order.len() + 1);
        self.settled = newest;
        self.owed = self.order.iter().skip(newest).copied().collect();
    }

    /// What a prepare said of the parallel commit that it asks for.
    fn parallel(&self, txn: TxnId) -> Option<Parallel> {
        self.prepares.get(&txn)?.parallel
    }

    /// Whether a parallel transaction is committed: all its promises are durable, and the coordinator
    /// has not decided against it before it knew that.
    fn is_promised_by_all(&self, txn: TxnId) -> bool {
        let Some(prepare) = self.prepares.get(&txn) else { return false };
        let has_promised = |node: &NodeId| self.has(*node, |diary| diary.has_prepared(txn));
        prepare.parallel.is_some()
            && prepare.participants.iter().all(has_promised)
            && !self.has(txn.coordinator, |diary| diary.has_aborted(txn))
    }

    /// A node has appended these records, and says that its log is durable so far.
    pub(super) fn noted(
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
                    for (txn, decision) in decided {
                        if let Decision::Commit(number) = decision {
                            self.takes_number(node, *txn, *number)?;
                        }
                    }
                }
                Note::Joined { .. } => self.let_in += 1,
                Note::Decided { .. }
                | Note::Aborted { .. }
                | Note::Promised { .. }
                | Note::Alone { .. }
                | Note::Started { .. }
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
        let lacks = |node: &&NodeId| match is_parallel {
            true => !self.has(**node, |diary| diary.has_prepared(txn)),
            false => !self.voted.contains(&(**node, txn)),
        };
        if let Some(node) = participants.iter().find(lacks) {
            return broken(
                Promise::Atomic,
                format!("{txn} is committed, and {node} has not promised to"),
            );
        }
        self.owed.remove(&txn);
        self.place(txn, number)
    }

    /// Gives a commit its place in the order. One that the coordinator has lost the record of may be
    /// given to another, if nobody has it.
    fn place(&mut self, txn: TxnId, number: CommitNumber) -> Judgement {
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

    /// A replica that has written down this number of the transaction.
    fn has_number(&self, txn: TxnId, number: CommitNumber) -> Option<NodeId> {
        let has_it = |diary: &Diary| {
            diary.decided(txn).is_some_and(|(decision, _)| decision == Decision::Commit(number))
        };
        self.diaries.iter().find(|(_, diary)| has_it(diary)).map(|(node, _)| *node)
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
    fn takes_number(&self, node: NodeId, txn: TxnId, number: CommitNumber) -> Judgement {
        let index = usize::try_from(number.0).unwrap_or(usize::MAX).saturating_sub(1);
        match self.order.get(index) {
            Some(holder) if *holder == txn => Ok(()),
            holder => broken(
                Promise::OneOrder,
                format!("{node} applies {txn} as {number}, which is {holder:?}"),
            ),
        }
    }

    /// The coordinator writes down that a commit is over.
    fn ends(&mut self, txn: TxnId) -> Judgement {
        let participants = self.prepares.get(&txn).map(|prepare| prepare.participants.clone());
        let missing = participants.iter().flat_map(|them| them.iter());
        match missing.copied().find(|node| !self.acknowledged.contains(&(txn, *node))) {
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

    fn is_recorded(&self, txn: TxnId) -> bool {
        self.has(txn.coordinator, |diary| diary.committed(txn).is_some())
    }

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
    pub(super) fn says(&mut self, from: NodeId, to: NodeId, message: &Message) -> Judgement {
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
    pub(super) fn answers(
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

    /// An event is over, and this is how a node is now.
    pub(super) fn looks(&mut self, node: NodeId, facts: &Facts, rows: Rows<'_>) -> Judgement {
        match facts {
            Facts::Coordinator(audit) => {
                if let Some(why) = &audit.contradiction {
                    return broken(Promise::Remembers, format!("{node} can't go on: {why}"));
                }
                tables(node, &audit.tables)?;
                locks(node, &audit.lock_holders, &audit.open)
            }
            Facts::Participant(audit) => {
                if audit.is_unfit {
                    let what = format!("{node} finds that its own log contradicts itself");
                    return broken(Promise::Remembers, what);
                }
                // Who decides alone finds outcomes in its log that it may forget with the next
                // prepare, and no sooner.
                let starting = self.diary(node).alone_len() > 0;
                let bounded = audit.tables.iter().filter(|it| !starting || it.name != "outcomes");
                tables(node, bounded)?;
                locks(node, &audit.lock_holders, &audit.open)?;
                self.still_bound(node, audit)?;
                self.holds(node, audit, rows)
            }
        }
    }

    /// Who has voted yes knows of it until it is over.
    fn still_bound(&mut self, node: NodeId, audit: &ParticipantAudit) -> Judgement {
        let first = TxnId { coordinator: NodeId(0), epoch: 0, number: 0 };
        let bound = self.bound.range((node, first)..).take_while(|(it, _)| *it == node);
        let freed: Vec<TxnId> =
            bound.map(|(_, txn)| *txn).filter(|txn| !audit.promised.contains(txn)).collect();
        for txn in freed {
            let is_over = match self.decisions.get(&txn) {
                Some((Decision::Commit(number), _)) => *number <= audit.applied,
                Some((Decision::Abort, _)) => true,
                None => self.over_below.is_some_and(|below| txn < below),
            };
            if !is_over {
                return broken(
                    Promise::Remembers,
                    format!("{node} has voted yes on {txn}, which is not over, and has forgotten"),
                );
            }
            self.bound.remove(&(node, txn));
        }
        Ok(())
    }

    /// A replica holds what the commits up to its newest one say.
    fn holds(&mut self, node: NodeId, audit: &ParticipantAudit, rows: Rows<'_>) -> Judgement {
        let alone = self.diary(node).alone_len();
        let seen = (audit.applied, alone);
        let last = self.looked.get(&node).copied();
        if last == Some(seen) || audit.alone > 0 || audit.is_installing {
            return Ok(());
        }
        let acknowledged = self.newest_acknowledged.get(&node).copied().unwrap_or_default();
        let before = last.map_or(acknowledged, |(applied, _)| applied.max(acknowledged));
        if audit.applied < before {
            return broken(
                Promise::Remembers,
                format!("{node} holds the commits up to {}, and had {before}", audit.applied),
            );
        }
        let place = usize::try_from(audit.applied.0).unwrap_or(usize::MAX);
        let Some(contents) = self.contents.get(place).cloned() else {
            let what = format!("{node} has applied {}, which is no commit", audit.applied);
            return broken(Promise::OneOrder, what);
        };
        let mut expected = (*contents).clone();
        apply(&mut expected, self.diary(node).alone_writes());
        // A disk that fails is told of where it matters; here there is nothing to compare.
        let Ok(rows) = rows() else { return Ok(()) };
        self.looked.insert(node, seen);
        let rows: Contents = rows.into_iter().collect();
        let keys: BTreeSet<&Bytes> = rows.keys().chain(expected.keys()).collect();
        match keys.into_iter().find(|key| rows.get(*key) != expected.get(*key)) {
            None => Ok(()),
            Some(key) => broken(
                Promise::HoldsCommits,
                format!(
                    "{node}, with the commits up to {} and {alone} of its own, holds {} under \
                     {}, and the commits say {}",
                    audit.applied,
                    shown(rows.get(key)),
                    String::from_utf8_lossy(key),
                    shown(expected.get(key)),
                ),
            ),
        }
    }
}

fn shown(value: Option<&Bytes>) -> String {
    value.map_or_else(|| "nothing".to_owned(), |it| String::from_utf8_lossy(it).into_owned())
}

fn apply<'a>(contents: &mut Contents, writes: impl IntoIterator<Item = &'a Write>) {
    for write in writes {
        match write {
            Write::Put(key, value) => contents.insert(key.clone(), value.clone()),
            Write::Delete(key) => contents.remove(key),
        };
    }
}

fn tables<'a>(node: impl Display, tables: impl IntoIterator<Item = &'a Table>) -> Judgement {
    match tables.into_iter().find(|table| table.len > table.max) {
        Some(Table { name, len, max }) => {
            broken(Promise::Bounded, format!("{node} has {len} {name}, and may have {max}"))
        }
        None => Ok(()),
    }
}

fn locks(node: impl Display, holders: &[TxnId], open: &[TxnId]) -> Judgement {
    match holders.iter().find(|txn| !open.contains(txn)) {
        Some(txn) => {
            broken(Promise::LocksEnd, format!("{node} holds a lock for {txn}, which is over"))
        }
        None => Ok(()),
    }
}
