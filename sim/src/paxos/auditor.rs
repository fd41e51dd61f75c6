//! The auditor: keeps a book of its own of what everybody said, wrote and held, and looks after
//! every event whether that fits together.
//!
//! It believes no node. What is durable it takes from the log's own word and from what a restart
//! finds; what is chosen, from the votes that are durable, counted over all logs as no node can; what
//! a replica must hold, from the batches chosen, in the order of the slots.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use kvorum_replication::paxos::audit::{ReplicaAudit, Table};
use kvorum_replication::paxos::message::{Ballot, Batch, Member, Slot};
use kvorum_replication::paxos::record::{Checkpoint, Record, Refusal, Replicated};
use kvorum_replication::{NodeId, Position};

use super::diary::Diary;
use super::leases::Leases;
use super::order::Order;
use super::sizes::{Failing, Sizes};
use super::words;
use crate::contents::Contents;
use crate::process::{Judgement, LogEnd, Rows, broken};
use crate::violation::Promise;

/// A look at a core.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(super) audit: ReplicaAudit,
    /// Why it takes no part, if so.
    pub(super) unfit: Option<String>,
}

/// What was accepted in a slot with a ballot, and by whom. One batch, unless somebody forgot.
type Votes = Vec<(Arc<Batch>, BTreeSet<Member>)>;

#[derive(Debug)]
pub(super) struct Auditor {
    pub(super) diaries: BTreeMap<NodeId, Diary>,
    /// Acceptors forget on purpose and vote at once: all that is looked for is a slot in which two
    /// batches are chosen. What else is broken then is of no interest.
    pub(super) amnesia: bool,
    pub(super) votes: BTreeMap<(Slot, Ballot), Votes>,
    /// What was proposed.
    pub(super) proposed: BTreeMap<(Slot, Ballot), Arc<Batch>>,
    /// The highest ballot that each acceptor has promised, durably.
    pub(super) floors: BTreeMap<Member, Ballot>,
    /// Who has promised each ballot, durably, when a proposer asked for it.
    pub(super) promisers: BTreeMap<Ballot, BTreeSet<Member>>,
    pub(super) chosen: BTreeMap<Slot, (Ballot, Arc<Batch>)>,
    pub(super) order: Order,
    /// In which life and incarnation its node campaigned with each ballot.
    pub(super) campaigns: BTreeMap<Ballot, (u64, u64)>,
    /// Ballots with which somebody has led.
    pub(super) led: BTreeSet<Ballot>,
    pub(super) leases: Leases,
    /// The last slot of which a client was told that something in it happened.
    pub(super) acknowledged: Slot,
    /// Sessions that clients were told of.
    pub(super) told: BTreeSet<u64>,
    /// The replicated state after a slot, as the first one wrote it down or sent it.
    states: BTreeMap<Slot, Arc<Replicated>>,
    /// The slot after which each replica was found to hold what it must.
    pub(super) looked: BTreeMap<NodeId, Slot>,
    /// How far each has known in this run that slots are chosen.
    known: BTreeMap<NodeId, Slot>,
    pub(super) snapshots_installed: u64,
    /// Lives that began because an acceptor forgot.
    forgot: BTreeSet<Member>,
}

impl Auditor {
    pub(super) fn new(sizes: &Sizes) -> Self {
        Self {
            diaries: sizes.nodes().map(|node| (node, Diary::new(0))).collect(),
            amnesia: matches!(sizes.failing, Failing::Amnesia(_)),
            votes: BTreeMap::new(),
            proposed: BTreeMap::new(),
            floors: BTreeMap::new(),
            promisers: BTreeMap::new(),
            chosen: BTreeMap::new(),
            order: Order::new(sizes.founders(), sizes.window, sizes.sessions_max),
            campaigns: BTreeMap::new(),
            led: BTreeSet::new(),
            leases: Leases::new(sizes.lease()),
            acknowledged: Slot::ZERO,
            told: BTreeSet::new(),
            states: BTreeMap::new(),
            looked: BTreeMap::new(),
            known: BTreeMap::new(),
            snapshots_installed: 0,
            forgot: BTreeSet::new(),
        }
    }

    pub(super) fn diary(&mut self, node: NodeId) -> &mut Diary {
        self.diaries.entry(node).or_insert_with(|| Diary::new(0))
    }

    /// A node has lost its disk, and will begin anew under this life.
    pub(super) fn lost_disk(&mut self, node: NodeId, life: u64) {
        self.diaries.insert(node, Diary::new(life));
        self.looked.remove(&node);
        self.known.remove(&node);
    }

    /// A node has started, and this is what its log holds.
    pub(super) fn reopened(&mut self, node: NodeId, end: LogEnd) -> Judgement {
        let until = self.diary(node).until();
        if end.last < until {
            return broken(
                Promise::Remembers,
                format!("the log of {node} ends at {}, and {until} was durable", end.last),
            );
        }
        self.diary(node).lose_tail(end.last);
        self.leases.restarted(node);
        self.settle(node, end.last)?;
        self.looked.remove(&node);
        self.known.remove(&node);
        Ok(())
    }

    /// A node has appended these records, and says that its log is durable so far.
    pub(super) fn noted(
        &mut self,
        node: NodeId,
        notes: Vec<(Position, Record)>,
        end: LogEnd,
    ) -> Judgement {
        for (at, record) in notes {
            self.appends(node, &record)?;
            self.diary(node).add(at, record);
        }
        self.settle(node, end.durable)
    }

    /// Judges the records that are durable now.
    fn settle(&mut self, node: NodeId, until: Position) -> Judgement {
        while let Some(record) = self.diary(node).next_durable(until) {
            self.is_durable(node, &record)?;
            self.diary(node).has_judged(&record);
        }
        Ok(())
    }

    /// A record is appended: what it says of what was chosen has to be so.
    fn appends(&mut self, node: NodeId, record: &Record) -> Judgement {
        match record {
            Record::Learned { slot, batch } => self.learns(node, *slot, batch),
            Record::Chosen { slot, refused } => self.applies(node, *slot, refused),
            Record::Checkpoint(checkpoint) => self.writes_state(node, checkpoint),
            Record::Installed(checkpoint) => {
                self.snapshots_installed += 1;
                self.writes_state(node, checkpoint)
            }
            Record::Promised { ballot } => self.leases.promises(node, *ballot),
            Record::Started { .. } | Record::Accepted { .. } | Record::Forgot { .. } => Ok(()),
        }
    }

    /// A node takes a batch for chosen.
    pub(super) fn learns(&self, node: NodeId, slot: Slot, batch: &Arc<Batch>) -> Judgement {
        match self.chosen.get(&slot) {
            Some((_, chosen)) if chosen == batch => Ok(()),
            _ if self.amnesia => Ok(()),
            Some((ballot, chosen)) => broken(
                Promise::OneChosen,
                format!(
                    "{node} takes {} for chosen in {slot}, where with ballot {ballot} {} was",
                    words::batch(batch),
                    words::batch(chosen)
                ),
            ),
            None => broken(
                Promise::OneChosen,
                format!(
                    "{node} takes {} for chosen in {slot}, where nothing is",
                    words::batch(batch)
                ),
            ),
        }
    }

    /// A node has applied slots, and says what was refused in them.
    fn applies(&mut self, node: NodeId, slot: Slot, refused: &[Refusal]) -> Judgement {
        let before = self.diary(node).appended.applied;
        if self.amnesia {
            return Ok(());
        }
        if slot < before || slot > self.order.last() {
            let last = self.order.last();
            return broken(
                Promise::OneOrder,
                format!("{node} has applied up to {slot}, after {before}; chosen is up to {last}"),
            );
        }
        let expected = self.order.refused(before, slot);
        if !expected.eq(refused.iter()) {
            let expected: Vec<&Refusal> = self.order.refused(before, slot).collect();
            return broken(
                Promise::HoldsCommits,
                format!(
                    "{node} finds that of the slots behind {before} up to {slot} {refused:?} is \
                     refused, and it is {expected:?}"
                ),
            );
        }
        Ok(())
    }

    fn writes_state(&mut self, node: NodeId, checkpoint: &Checkpoint) -> Judgement {
        let appended = self.diary(node).appended;
        if checkpoint.replicated.applied < appended.applied && !self.amnesia {
            return broken(
                Promise::Remembers,
                format!(
                    "{node} has applied {}, and goes back to {}",
                    appended.applied, checkpoint.replicated.applied
                ),
            );
        }
        if checkpoint.promised < appended.promised && !self.amnesia {
            return broken(
                Promise::Remembers,
                format!(
                    "{node} has promised {}, and writes into a checkpoint {}",
                    appended.promised, checkpoint.promised
                ),
            );
        }
        self.names_state(node, &checkpoint.replicated)
    }

    /// A node writes down, or tells, what follows from all slots up to one.
    pub(super) fn names_state(&mut self, node: NodeId, state: &Arc<Replicated>) -> Judgement {
        if self.amnesia {
            return Ok(());
        }
        let slot = state.applied;
        if slot > self.order.last() {
            let last = self.order.last();
            return broken(
                Promise::OneOrder,
                format!("{node} knows what follows from {slot}, and chosen is up to {last}"),
            );
        }
        if slot == self.order.last() && !self.order.is_state(state) {
            return broken(
                Promise::HoldsCommits,
                format!("after {slot} {node} has other sessions or members than follow: {state:?}"),
            );
        }
        let known = self.states.entry(slot).or_insert_with(|| state.clone());
        if known != state {
            return broken(
                Promise::Converges,
                format!("after {slot} the sessions of {node} are {state:?}; another's: {known:?}"),
            );
        }
        Ok(())
    }

    /// A record is durable: what it promises binds, and what it votes for counts.
    fn is_durable(&mut self, node: NodeId, record: &Record) -> Judgement {
        let durable = self.diary(node).durable;
        let member = Member { node, life: durable.life };
        match record {
            Record::Promised { ballot } => {
                self.promisers.entry(*ballot).or_default().insert(member);
                self.promises(member, durable.promised, *ballot)
            }
            Record::Accepted { slot, ballot, batch } => {
                let votes = self.votes.get(&(*slot, *ballot)).map_or(&[][..], |votes| votes);
                // Those of open slots are written again behind a checkpoint.
                if votes.iter().any(|(_, voters)| voters.contains(&member)) && !self.amnesia {
                    return Ok(());
                }
                self.promises(member, durable.promised, *ballot)?;
                self.votes(member, *slot, *ballot, batch)
            }
            Record::Forgot { life } => {
                self.forgot.insert(Member { node, life: *life });
                Ok(())
            }
            Record::Started { .. }
            | Record::Learned { .. }
            | Record::Chosen { .. }
            | Record::Checkpoint(_)
            | Record::Installed(_) => Ok(()),
        }
    }

    /// An acceptor promises or accepts: nothing below what it had promised.
    fn promises(&mut self, member: Member, before: Ballot, ballot: Ballot) -> Judgement {
        if ballot < before && !self.amnesia {
            return broken(
                Promise::KeepsPromises,
                format!("{} promises or accepts {ballot}, and had promised {before}", member.node),
            );
        }
        let floor = self.floors.entry(member).or_insert(ballot);
        *floor = ballot.max(*floor);
        Ok(())
    }

    fn votes(
        &mut self,
        member: Member,
        slot: Slot,
        ballot: Ballot,
        batch: &Arc<Batch>,
    ) -> Judgement {
        let votes = self.votes.entry((slot, ballot)).or_default();
        let place = votes.iter().position(|(proposed, _)| proposed == batch);
        let place = place.unwrap_or_else(|| {
            votes.push((batch.clone(), BTreeSet::new()));
            votes.len() - 1
        });
        votes[place].1.insert(member);
        // A vote promises its ballot.
        self.promisers.entry(ballot).or_default().insert(member);
        let voters = &votes[place].1;
        if votes.len() > 1 && !self.amnesia {
            return broken(
                Promise::OneProposal,
                format!(
                    "with ballot {ballot} {} and {} were proposed in {slot}",
                    words::batch(&votes[0].0),
                    words::batch(&votes[1].0)
                ),
            );
        }
        if !is_majority(self.order.acceptors(slot), |member| voters.contains(member)) {
            return Ok(());
        }
        match self.chosen.get(&slot) {
            Some((first, chosen)) if chosen != batch => broken(
                Promise::OneChosen,
                format!(
                    "two batches are chosen in {slot}: with ballot {first} {}, with ballot \
                     {ballot} {}",
                    words::batch(chosen),
                    words::batch(batch)
                ),
            ),
            Some(_) => Ok(()),
            None => {
                self.chosen.insert(slot, (ballot, batch.clone()));
                while let Some((_, next)) = self.chosen.get(&self.order.last().next()) {
                    self.order.push(next);
                }
                Ok(())
            }
        }
    }

    /// An event is over, and this is how a node is now.
    pub(super) fn looks(&mut self, node: NodeId, facts: &Facts, rows: Rows<'_>) -> Judgement {
        if self.amnesia || facts.unfit.is_some() {
            return Ok(());
        }
        let ReplicaAudit { promised, chosen, applied, tables, .. } = &facts.audit;
        if let Some(Table { name, len, max }) = tables.iter().find(|table| table.len > table.max) {
            let what = format!("{node} has {len} {name}, and may have {max}");
            return broken(Promise::Bounded, what);
        }
        let diary = self.diary(node);
        let (durable, appended) = (diary.durable, diary.appended);
        // What it has forgotten on purpose it knows no more.
        if *promised < durable.promised.min(appended.promised) {
            return broken(
                Promise::Remembers,
                format!("{node} knows of the promise {promised}, and had {}", durable.promised),
            );
        }
        let known = self.known.insert(node, *chosen).unwrap_or(Slot::ZERO);
        if *chosen < known || *chosen > self.order.last() {
            let last = self.order.last();
            return broken(
                Promise::OneOrder,
                format!(
                    "{node} takes slots up to {chosen} for chosen, and knew {known}; chosen is up to \
                     {last}"
                ),
            );
        }
        self.holds(node, *applied, durable.applied, rows)
    }

    /// A replica holds what the batches say that it has applied.
    fn holds(&mut self, node: NodeId, applied: Slot, durable: Slot, rows: Rows<'_>) -> Judgement {
        let last = self.looked.get(&node).copied();
        if last == Some(applied) {
            return Ok(());
        }
        let before = last.unwrap_or(durable).max(durable);
        if applied < before {
            return broken(
                Promise::Remembers,
                format!("{node} has applied up to {applied}, and had up to {before}"),
            );
        }
        let Some(expected) = self.order.contents(applied) else {
            let what = format!("{node} has applied {applied}, and not all up to it is chosen");
            return broken(Promise::OneOrder, what);
        };
        // A disk that fails is told of where it matters; here there is nothing to compare.
        let Ok(rows) = rows() else { return Ok(()) };
        self.looked.insert(node, applied);
        let rows: Contents = rows.into_iter().collect();
        let keys: BTreeSet<&Bytes> = rows.keys().chain(expected.keys()).collect();
        match keys.into_iter().find(|key| rows.get(*key) != expected.get(*key)) {
            None => Ok(()),
            Some(key) => broken(
                Promise::HoldsCommits,
                format!(
                    "{node}, with everything up to {applied}, holds {} under {}, and the batches \
                     say {}",
                    shown(rows.get(key)),
                    String::from_utf8_lossy(key),
                    shown(expected.get(key)),
                ),
            ),
        }
    }

    /// Who may be let in again, and was: acceptors that forgot, and nodes that lost their disks.
    pub(super) fn let_in(&self) -> (u64, u64) {
        let mut counts = (0, 0);
        for (before, after) in self.order.changes() {
            let is_old = |member: &&Member| !before.contains(member);
            for member in after.iter().filter(is_old).filter(|member| member.life > 0) {
                match self.forgot.contains(member) {
                    true => counts.0 += 1,
                    false => counts.1 += 1,
                }
            }
        }
        counts
    }
}

/// Whether those who are `in_favour` are more than half.
pub(super) fn is_majority(members: &[Member], in_favour: impl Fn(&Member) -> bool) -> bool {
    members.iter().filter(|member| in_favour(member)).count() > members.len() / 2
}

fn shown(value: Option<&Bytes>) -> String {
    value.map_or_else(|| "nothing".to_owned(), |it| crate::words::text(it))
}
