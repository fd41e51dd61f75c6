//! The auditor: keeps a book of its own of what everybody said and wrote, and looks after every
//! event whether that fits together.
//!
//! It believes no replica. What is durable it takes from the log's own word and from what a restart
//! finds; what has happened, from the durable records of decisions; what a copy must hold, from the
//! records of what it has carried out.

use std::collections::{BTreeMap, BTreeSet};

use kvorum_replication::two_phase::any_replica::message::{
    Age, Decision, Knowledge, Message, Prepare, TxnId, Vote, Work,
};
use kvorum_replication::two_phase::any_replica::record::{Committed, Record};
use kvorum_replication::{Answer, Failure, NodeId, Operation, Outcome, Position, Transaction};

use super::copies::Copy;
use super::diary::{Asked, Diary, asked};
use super::looks::Look;
use super::sizes::Sizes;
use super::truth::Truth;
use crate::process::{Judgement, LogEnd, broken};
use crate::violation::Promise;

#[derive(Debug)]
pub(super) struct Auditor {
    nodes: BTreeSet<NodeId>,
    pub(super) tries_max: u32,
    pub(super) prepared_max: usize,
    pub(super) diaries: BTreeMap<NodeId, Diary>,
    pub(super) truth: Truth,
    pub(super) copies: BTreeMap<NodeId, Copy>,
    /// So many commits each copy held when it was compared last.
    pub(super) compared: BTreeMap<NodeId, u64>,
    /// What each transaction asks for.
    pub(super) prepares: BTreeMap<TxnId, Prepare>,
    pub(super) ages: BTreeMap<TxnId, Age>,
    /// What each transaction was said to have come to, by anybody.
    decisions: BTreeMap<TxnId, Decision>,
    /// Who has said yes to what, ever.
    voted: BTreeSet<(NodeId, TxnId)>,
    /// Who has said of a commit that it is durable there.
    acknowledged: BTreeSet<(TxnId, NodeId)>,
    /// Each coordinator has said that everything below is over.
    over_below: BTreeMap<NodeId, TxnId>,
    /// The newest try of each age, and how many there were.
    tries: BTreeMap<Age, (TxnId, u32)>,
    /// With which age, in which epoch, a replica tries a write that it was asked for.
    errands: BTreeMap<(NodeId, Asked), (u64, Age)>,
    /// Deaths since the last look: where, and of what age the dead was.
    pub(super) deaths: Vec<(NodeId, TxnId, Age)>,
    pub(super) looks: BTreeMap<NodeId, Look>,
    /// Durable decisions of each coordinator that it may not have heard of when this event began.
    pub(super) unheard: BTreeMap<NodeId, Vec<TxnId>>,
    messages: BTreeMap<TxnId, u64>,
    records: BTreeMap<TxnId, u64>,
    forced: u64,
    pub(super) waits: u64,
    died: u64,
    settled_elsewhere: u64,
    told_no: u64,
    reads: u64,
}

impl Auditor {
    pub(super) fn new(sizes: &Sizes) -> Self {
        Self {
            nodes: sizes.nodes().collect(),
            tries_max: sizes.tries_max,
            prepared_max: sizes.prepared_max,
            diaries: BTreeMap::new(),
            truth: Truth::new(),
            copies: BTreeMap::new(),
            compared: BTreeMap::new(),
            prepares: BTreeMap::new(),
            ages: BTreeMap::new(),
            decisions: BTreeMap::new(),
            voted: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
            over_below: BTreeMap::new(),
            tries: BTreeMap::new(),
            errands: BTreeMap::new(),
            deaths: Vec::new(),
            looks: BTreeMap::new(),
            unheard: BTreeMap::new(),
            messages: BTreeMap::new(),
            records: BTreeMap::new(),
            forced: 0,
            waits: 0,
            died: 0,
            settled_elsewhere: 0,
            told_no: 0,
            reads: 0,
        }
    }

    /// Commits, the messages of their normal course, and the records that they have left in logs.
    pub(super) fn costs(&self) -> (u64, u64, u64) {
        let sum = |of: &BTreeMap<TxnId, u64>| {
            self.truth.commits().filter_map(|txn| of.get(&txn)).sum::<u64>()
        };
        (self.truth.commits().count() as u64, sum(&self.messages), sum(&self.records))
    }

    /// Records that had to be durable before something else was said.
    pub(super) fn forced(&self) -> u64 {
        self.forced
    }

    pub(super) fn happened(&self) -> Vec<(&'static str, u64)> {
        let again = self.tries.values().filter(|(_, tries)| *tries > 1);
        let committed = again.clone().filter(|(last, _)| self.truth.work(*last).is_some());
        let often = self.tries.values().filter(|(_, tries)| *tries > 3);
        vec![
            ("deaths of a younger transaction", self.died),
            ("transactions that others were asked about again", again.count() as u64),
            ("those of them that were committed", committed.count() as u64),
            ("transactions that died more than twice", often.count() as u64),
            ("waits of an older transaction", self.waits),
            ("retries that another replica knew", self.settled_elsewhere),
            ("preconditions that did not hold", self.told_no),
            ("reads that found just what had happened", self.reads),
        ]
    }

    pub(super) fn diary(&mut self, node: NodeId) -> &mut Diary {
        self.diaries.entry(node).or_default()
    }

    fn has(&self, node: NodeId, what: impl FnOnce(&Diary) -> bool) -> bool {
        self.diaries.get(&node).is_some_and(what)
    }

    fn others(&self, node: NodeId) -> impl Iterator<Item = NodeId> {
        self.nodes.iter().copied().filter(move |other| *other != node)
    }

    /// A replica has started, and this is what its log holds.
    pub(super) fn reopened(&mut self, node: NodeId, end: LogEnd) -> Judgement {
        let durable = self.diary(node).durable();
        if end.last < durable {
            return broken(
                Promise::Remembers,
                format!("the log of {node} ends at {}, and {durable} was durable", end.last),
            );
        }
        self.diary(node).lose_tail(end.last);
        self.settle(node, end.last)?;
        let mut copy = Copy::default();
        for txn in self.diary(node).carried_out() {
            copy.carry_out(node, txn, &self.truth)?;
        }
        self.copies.insert(node, copy);
        self.compared.remove(&node);
        self.looks.remove(&node);
        Ok(())
    }

    /// A replica has appended these records, and says that its log is durable so far.
    pub(super) fn noted(
        &mut self,
        node: NodeId,
        notes: Vec<(Position, Record)>,
        end: LogEnd,
    ) -> Judgement {
        let mut carried_out = Vec::new();
        for (at, record) in notes {
            self.appends(node, &record)?;
            if let Record::Decided { txn, decision: Decision::Commit } = &record {
                carried_out.push(*txn);
            }
            self.diary(node).add(at, record);
        }
        self.settle(node, end.durable)?;
        for txn in carried_out {
            self.copies.entry(node).or_default().carry_out(node, txn, &self.truth)?;
        }
        Ok(())
    }

    /// Judges the records that are durable now.
    fn settle(&mut self, node: NodeId, until: Position) -> Judgement {
        while let Some(record) = self.diary(node).next_durable(until) {
            match record {
                Record::Committed(Committed { txn, work, .. }) => {
                    self.unheard.entry(node).or_default().push(txn);
                    self.truth.happens(txn, &work)?;
                }
                Record::Refused { stamp, .. } => self.truth.refuses(asked(stamp))?,
                Record::Started { .. }
                | Record::Prepared(_)
                | Record::Decided { .. }
                | Record::Ended { .. }
                | Record::Checkpoint(_) => {}
            }
        }
        Ok(())
    }

    fn appends(&mut self, node: NodeId, record: &Record) -> Judgement {
        if let Record::Committed(Committed { txn, .. })
        | Record::Ended { txn }
        | Record::Decided { txn, .. } = record
        {
            *self.records.entry(*txn).or_default() += 1;
        }
        match record {
            Record::Prepared(prepared) => {
                *self.records.entry(prepared.txn).or_default() += 1;
                self.forced += 1;
                self.prepares_here(node, prepared.txn)
            }
            Record::Committed(committed) => {
                self.forced += 1;
                self.ages.insert(committed.txn, committed.age);
                self.commits(node, committed)
            }
            Record::Ended { txn } => self.ends(*txn),
            Record::Decided { txn, decision: Decision::Abort } => self.gives_up(node, *txn),
            Record::Started { .. } | Record::Refused { .. } | Record::Checkpoint(_) => {
                self.forced += 1;
                Ok(())
            }
            Record::Decided { decision: Decision::Commit, .. } => Ok(()),
        }
    }

    fn prepares_here(&self, node: NodeId, txn: TxnId) -> Judgement {
        match self.diaries.get(&node).and_then(|diary| diary.decided(txn)) {
            Some((decision, _)) => broken(
                Promise::OneDecision,
                format!("{node} promises {txn}, of which it had written down: {decision:?}"),
            ),
            None => Ok(()),
        }
    }

    /// A coordinator writes down a commit.
    fn commits(&self, node: NodeId, committed: &Committed) -> Judgement {
        let txn = committed.txn;
        if !self.has(node, |diary| diary.has_started(txn.epoch)) {
            let what = format!("{txn} is committed, and its epoch is not durable at {node}");
            return broken(Promise::WaitsForDisk, what);
        }
        if let Some(other) = self.others(node).find(|other| !self.voted.contains(&(*other, txn))) {
            let what = format!("{txn} is committed, and {other} has never voted yes on it");
            return broken(Promise::Atomic, what);
        }
        if self.decisions.get(&txn) == Some(&Decision::Abort) {
            let what = format!("{node} commits {txn}, and somebody was told that it is aborted");
            return broken(Promise::OneDecision, what);
        }
        match self.prepares.get(&txn) {
            Some(prepare) if prepare.work != committed.work => broken(
                Promise::OneDecision,
                format!("{node} commits of {txn} something else than what others prepared"),
            ),
            Some(_) | None => Ok(()),
        }
    }

    /// A coordinator writes down that a commit is over.
    fn ends(&self, txn: TxnId) -> Judgement {
        self.is_over(txn, "writes down that it is over")
    }

    fn is_over(&self, txn: TxnId, how: &str) -> Judgement {
        let mut others = self.others(txn.coordinator);
        match others.find(|other| !self.acknowledged.contains(&(txn, *other))) {
            Some(other) => broken(
                Promise::Remembers,
                format!("of {txn}, which {other} has not acknowledged, its coordinator {how}"),
            ),
            None => Ok(()),
        }
    }

    /// A participant writes down that a transaction is aborted. It may not decide that by itself
    /// once it has promised.
    fn gives_up(&mut self, node: NodeId, txn: TxnId) -> Judgement {
        let has_promised = self.has(node, |diary| diary.in_doubt().contains(&txn));
        if !has_promised {
            self.forced += 1;
            return Ok(());
        }
        let was_told = self.decisions.get(&txn) == Some(&Decision::Abort);
        let is_over = self.over_below.get(&txn.coordinator).is_some_and(|below| txn < *below);
        let age = self.ages.get(&txn);
        let is_tried_again =
            age.and_then(|age| self.tries.get(age)).is_some_and(|(last, _)| txn < *last);
        match was_told || is_over || is_tried_again {
            true => Ok(()),
            false => broken(
                Promise::Remembers,
                format!("{node} has promised {txn}, and gives it up though nobody told it to"),
            ),
        }
    }

    /// A message is sent.
    pub(super) fn says(&mut self, from: NodeId, to: NodeId, message: &Message) -> Judgement {
        if let Message::Prepare(Prepare { txn, .. })
        | Message::Vote { txn, .. }
        | Message::Decide { txn, .. }
        | Message::Acknowledge { txn } = message
        {
            *self.messages.entry(*txn).or_default() += 1;
        }
        match message {
            Message::Prepare(prepare) => {
                self.is_past(prepare.finished_below)?;
                self.prepares(prepare)
            }
            Message::Vote { txn, vote, .. } => self.votes(from, *txn, vote),
            Message::Decide { txn, decision, finished_below } => {
                self.is_past(*finished_below)?;
                self.decides(from, to, *txn, *decision)
            }
            Message::Inform { txn, knowledge: Knowledge::Decided(decision) } => {
                self.informs(from, to, *txn, *decision)
            }
            Message::Acknowledge { txn } => self.acknowledges(from, *txn),
            Message::Inform { knowledge: Knowledge::Undecided, .. } | Message::Inquire { .. } => {
                Ok(())
            }
        }
    }

    /// A coordinator says that everything below is over: then everybody has what was committed.
    fn is_past(&mut self, below: TxnId) -> Judgement {
        let first = TxnId { epoch: 0, number: 0, ..below };
        let before = self.over_below.insert(below.coordinator, below).unwrap_or(first);
        if below < before {
            self.over_below.insert(below.coordinator, before);
            return Ok(());
        }
        let over: Vec<TxnId> = self.prepares.range(before..below).map(|(txn, _)| *txn).collect();
        over.into_iter()
            .filter(|txn| self.truth.work(*txn).is_some())
            .try_for_each(|txn| self.is_over(txn, "says that it is over"))
    }

    fn prepares(&mut self, prepare: &Prepare) -> Judgement {
        let (txn, age) = (prepare.txn, prepare.age);
        if !self.has(txn.coordinator, |diary| diary.has_started(txn.epoch)) {
            let what = format!("{txn} is begun, and its epoch is not durable at the coordinator");
            return broken(Promise::WaitsForDisk, what);
        }
        match self.prepares.get(&txn) {
            Some(known) if known.work != prepare.work || known.age != age => broken(
                Promise::OneDecision,
                format!("{txn} names two transactions: its number was used again"),
            ),
            Some(_) => Ok(()),
            None => {
                self.prepares.insert(txn, prepare.clone());
                self.ages.insert(txn, age);
                let tries = self.tries.entry(age).or_insert((txn, 0));
                *tries = (txn, tries.1 + 1);
                if tries.1 > self.tries_max {
                    let what =
                        format!("{txn} is try {} of what may have {}", tries.1, self.tries_max);
                    return broken(Promise::Bounded, what);
                }
                self.keeps_age(prepare)
            }
        }
    }

    /// As long as nobody was answered, a write that is tried again is as old as it was.
    fn keeps_age(&mut self, prepare: &Prepare) -> Judgement {
        let Work::Write { stamp: Some(stamp), .. } = &*prepare.work else { return Ok(()) };
        let (txn, age) = (prepare.txn, prepare.age);
        let before = self.errands.insert((txn.coordinator, asked(*stamp)), (txn.epoch, age));
        match before {
            Some((epoch, older)) if epoch == txn.epoch && older != age => broken(
                Promise::KeepsAge,
                format!("{txn} is as old as {age}, and an earlier try of it was as old as {older}"),
            ),
            Some(_) | None => Ok(()),
        }
    }

    fn votes(&mut self, node: NodeId, txn: TxnId, vote: &Vote) -> Judgement {
        match vote {
            Vote::Yes => {
                if !self.has(node, |diary| diary.has_prepared(txn)) {
                    return broken(
                        Promise::WaitsForDisk,
                        format!("{node} votes yes on {txn}, and its promise is not durable"),
                    );
                }
                self.voted.insert((node, txn));
                Ok(())
            }
            Vote::Conflict(_) | Vote::InFlight => {
                self.died += 1;
                if let Some(age) = self.ages.get(&txn) {
                    self.deaths.push((node, txn, *age));
                }
                Ok(())
            }
            Vote::Settled(_) => {
                self.settled_elsewhere += 1;
                Ok(())
            }
            Vote::StaleSequence
            | Vote::SessionExpired
            | Vote::Refused
            | Vote::Overloaded
            | Vote::DiskFull
            | Vote::Absent => Ok(()),
        }
    }

    /// Nobody may say of a transaction what contradicts what anybody said before. One exception:
    /// who has acknowledged a commit cannot be hurt by hearing that it was aborted, which is what
    /// is presumed of all that is over, and is the answer to a message from long ago.
    fn decides(&mut self, who: NodeId, whom: NodeId, txn: TxnId, decision: Decision) -> Judgement {
        if decision == Decision::Abort && self.acknowledged.contains(&(txn, whom)) {
            return Ok(());
        }
        let known = *self.decisions.entry(txn).or_insert(decision);
        if known != decision {
            return broken(
                Promise::OneDecision,
                format!("{who} tells {whom} that {txn} is {decision:?}, and it was {known:?}"),
            );
        }
        let is_written = self.has(txn.coordinator, |diary| diary.has_committed(txn));
        match decision {
            Decision::Commit if !is_written => broken(
                Promise::WaitsForDisk,
                format!("{who} tells {whom} that {txn} is committed, which no durable record says"),
            ),
            Decision::Abort if self.truth.work(txn).is_some() => broken(
                Promise::OneDecision,
                format!("{who} tells {whom} that {txn} is aborted, and it has happened"),
            ),
            Decision::Commit | Decision::Abort => Ok(()),
        }
    }

    /// The answer to an inquiry. A participant says "aborted" only if it knows, or will see to it.
    fn informs(&mut self, who: NodeId, whom: NodeId, txn: TxnId, decision: Decision) -> Judgement {
        if decision == Decision::Abort && who != txn.coordinator {
            let written = self.diaries.get(&who).and_then(|diary| diary.decided(txn));
            let knows = written == Some((Decision::Abort, true))
                || self.decisions.get(&txn) == Some(&Decision::Abort)
                || self.over_below.get(&txn.coordinator).is_some_and(|below| txn < *below);
            if !knows {
                let what = format!(
                    "{who} tells {whom} that {txn} is aborted, and has not promised \
                     durably never to vote for it"
                );
                return broken(Promise::WaitsForDisk, what);
            }
        }
        self.decides(who, whom, txn, decision)
    }

    fn acknowledges(&mut self, node: NodeId, txn: TxnId) -> Judgement {
        match self.diary(node).decided(txn) {
            Some((Decision::Commit, true)) => {
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

    /// A client is told how its request ended.
    pub(super) fn answers(
        &mut self,
        node: NodeId,
        operation: &Operation,
        outcome: &Outcome,
    ) -> Judgement {
        match operation {
            Operation::OpenSession => match outcome {
                Outcome::Session(client) if !self.truth.has_opened(*client) => broken(
                    Promise::WaitsForDisk,
                    format!("{node} gives out session {}, which no durable record opens", client.0),
                ),
                _ => Ok(()),
            },
            Operation::Transact { stamp, transaction } => {
                let stamp = stamp.map(asked);
                if let Some(stamp) = stamp {
                    self.errands.remove(&(node, stamp));
                }
                self.answers_write(node, stamp, transaction, outcome)
            }
            Operation::Read(query) | Operation::ReadStale(query) => {
                let Outcome::Answer(answer) = outcome else { return Ok(()) };
                if let Answer::Failed(_) = answer {
                    return Ok(());
                }
                self.reads += 1;
                let unheard = self.unheard.get(&node).map_or(&[][..], |unheard| unheard);
                match self.truth.explains(query, answer, unheard) {
                    true => Ok(()),
                    false => broken(
                        Promise::ReadsTruth,
                        format!(
                            "{node} answers {} with {}, and what has happened says {}",
                            crate::words::asked(query),
                            crate::words::found(answer),
                            crate::words::found(&self.truth.now(query)),
                        ),
                    ),
                }
            }
            Operation::ChangeMembers { .. } | Operation::ChangeReplicas(_) => Ok(()),
        }
    }

    fn answers_write(
        &mut self,
        node: NodeId,
        stamp: Option<Asked>,
        transaction: &Transaction,
        outcome: &Outcome,
    ) -> Judgement {
        let is_written = match (outcome, stamp) {
            // What only looks leaves no record.
            _ if transaction.writes.is_empty() => true,
            (Outcome::Committed, Some(stamp)) => self.truth.has_committed(stamp),
            (Outcome::Committed, None) => self.truth.has_written(&transaction.writes),
            (Outcome::Failed(Failure::PreconditionFailed { .. }), Some(stamp)) => {
                self.told_no += 1;
                self.truth.has_refused(stamp)
            }
            _ => true,
        };
        match is_written {
            true => Ok(()),
            false => broken(
                Promise::WaitsForDisk,
                format!(
                    "{node} tells a client of {transaction:?}: {}; no durable record does",
                    crate::words::outcome(outcome)
                ),
            ),
        }
    }
}
