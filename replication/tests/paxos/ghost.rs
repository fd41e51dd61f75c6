//! A ghost that sees the logs of all acceptors at once, as no node can, and checks after every step
//! what the papers promise.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kvorum_replication::paxos::ReplicaOptions;
use kvorum_replication::paxos::message::{Ballot, Batch, Command, Member, Message, Slot};
use kvorum_replication::paxos::record::Record;
use kvorum_replication::{ClientId, NodeId, Precondition, Transaction, Write};

use crate::harness::rows::{self, Rows};
use crate::harness::show::writes as words;
use crate::room::{Machine, Output};
use crate::show;

/// What became of a client's write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Committed,
    Refused,
}

/// A transaction of the order, with its place and its fate.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) slot: usize,
    pub(crate) stamp: Option<(ClientId, u64)>,
    pub(crate) transaction: Arc<Transaction>,
    pub(crate) fate: Fate,
}

/// What one node's log has said so far.
#[derive(Clone, Debug, Default)]
struct Watched {
    scanned: usize,
    life: u64,
    promised: Option<Ballot>,
    /// In this run of the node.
    chosen: Slot,
}

/// A batch, and who has accepted it.
type Voted = (Arc<Batch>, BTreeSet<Member>);

#[derive(Debug)]
pub(crate) struct Ghost {
    window: u64,
    nodes: BTreeMap<NodeId, Watched>,
    /// By slot and ballot: what was accepted, and by whom. One batch, unless somebody forgot.
    votes: BTreeMap<(Slot, Ballot), Vec<Voted>>,
    chosen: BTreeMap<Slot, Arc<Batch>>,
    /// Acceptors, from which slot on.
    sets: Vec<(Slot, Vec<Member>)>,
    /// The rows before the first slot and after each.
    pub(crate) states: Vec<Rows>,
    writes: Vec<Vec<Write>>,
    pub(crate) order: Vec<Entry>,
    settled: BTreeMap<(ClientId, u64), Fate>,
    answered_below: BTreeMap<ClientId, u64>,
    next_client: u64,
    /// The first thing that was wrong.
    pub(crate) wrong: Option<String>,
    /// Slots in which two batches were chosen: what an amnesiac acceptor leads to.
    pub(crate) split: BTreeSet<Slot>,
    /// Looks at nothing.
    pub(crate) is_blind: bool,
}

impl Ghost {
    pub(crate) fn new(options: &ReplicaOptions) -> Self {
        let founders = options.founders.iter().map(|node| Member { node: *node, life: 0 });
        Self {
            window: options.window,
            nodes: BTreeMap::new(),
            votes: BTreeMap::new(),
            chosen: BTreeMap::new(),
            sets: vec![(Slot(1), founders.collect())],
            states: vec![Rows::new()],
            writes: vec![Vec::new()],
            order: Vec::new(),
            settled: BTreeMap::new(),
            answered_below: BTreeMap::new(),
            next_client: 1,
            wrong: None,
            split: BTreeSet::new(),
            is_blind: false,
        }
    }

    pub(crate) fn chosen_without_gap(&self) -> usize {
        self.states.len() - 1
    }

    fn complain(&mut self, what: String) {
        self.wrong.get_or_insert(what);
    }

    pub(crate) fn stopped(&mut self, node: NodeId) {
        self.nodes.entry(node).or_default().chosen = Slot::ZERO;
    }

    pub(crate) fn wiped(&mut self, node: NodeId) {
        self.nodes.insert(node, Watched::default());
    }

    /// A node has made a step.
    pub(crate) fn watch(&mut self, node: NodeId, machine: &Machine, outputs: &[Output]) {
        if self.is_blind {
            return;
        }
        let mut watched = self.nodes.remove(&node).unwrap_or_default();
        let records =
            &machine.disk.log[watched.scanned.min(machine.disk.durable)..machine.disk.durable];
        for record in records {
            self.record(node, &mut watched, record);
        }
        watched.scanned = machine.disk.durable;
        let chosen = machine.core.chosen();
        if chosen < watched.chosen {
            self.complain(format!("{node} knew {} to be chosen, and now {chosen}", watched.chosen));
        }
        watched.chosen = chosen;
        if let Some(why) = machine.core.unfit() {
            self.complain(format!("{node} is unfit: {why}"));
        }
        for output in outputs {
            match output {
                Output::Send(_, Message::Promise(promise)) => {
                    if watched.promised.is_none_or(|promised| promised < promise.ballot) {
                        let ballot = promise.ballot;
                        self.complain(format!(
                            "{node} tells of promise {ballot}, which is not durable"
                        ));
                    }
                }
                Output::Send(_, Message::Accepted { ballot, slot, life }) => {
                    let member = Member { node, life: *life };
                    if !self.has_voted(member, *slot, *ballot) && *slot > machine.core.applied() {
                        self.complain(format!(
                            "{node} tells of vote {slot}@{ballot}, which is not durable"
                        ));
                    }
                }
                Output::Apply(mark, writes) => self.applied(node, *mark, writes),
                Output::Install(snapshot, rows) => {
                    if *rows != self.states[snapshot.0 as usize] {
                        self.complain(format!(
                            "{node} installs other rows than there are after #{}",
                            snapshot.0
                        ));
                    }
                }
                Output::Send(..) | Output::Reply(..) => {}
            }
        }
        self.nodes.insert(node, watched);
    }

    fn record(&mut self, node: NodeId, watched: &mut Watched, record: &Record) {
        match record {
            Record::Started { life, .. } => watched.life = *life,
            Record::Promised { ballot } => {
                if watched.promised.is_some_and(|promised| promised > *ballot) {
                    self.complain(format!("{node} promises {ballot}, less than before"));
                }
                watched.promised = watched.promised.max(Some(*ballot));
            }
            Record::Accepted { slot, ballot, batch } => {
                let member = Member { node, life: watched.life };
                let is_new = !self.has_voted(member, *slot, *ballot);
                if is_new && watched.promised.is_some_and(|promised| promised > *ballot) {
                    self.complain(format!("{node} accepts {slot}@{ballot} against its promise"));
                }
                watched.promised = watched.promised.max(Some(*ballot));
                self.vote(*slot, *ballot, member, batch);
            }
            Record::Forgot { life } => {
                watched.life = *life;
                watched.promised = None;
            }
            Record::Learned { slot, batch } => {
                if self.chosen.get(slot).is_none_or(|chosen| chosen.origin != batch.origin) {
                    self.complain(format!("{node} has learnt {slot} wrongly"));
                }
            }
            Record::Checkpoint(checkpoint) | Record::Installed(checkpoint) => {
                watched.promised = watched.promised.max(Some(checkpoint.promised));
            }
            Record::Chosen { .. } => {}
        }
    }

    fn has_voted(&self, member: Member, slot: Slot, ballot: Ballot) -> bool {
        let votes = self.votes.get(&(slot, ballot)).map(Vec::as_slice).unwrap_or_default();
        votes.iter().any(|(_, voters)| voters.contains(&member))
    }

    fn vote(&mut self, slot: Slot, ballot: Ballot, member: Member, batch: &Arc<Batch>) {
        let votes = self.votes.entry((slot, ballot)).or_default();
        let place = votes.iter().position(|(proposed, _)| proposed == batch);
        let place = place.unwrap_or_else(|| {
            votes.push((batch.clone(), BTreeSet::new()));
            votes.len() - 1
        });
        votes[place].1.insert(member);
        let voters = votes[place].1.clone();
        if votes.len() > 1 {
            self.complain(format!("two batches were proposed in {slot}@{ballot}"));
        }
        let covers = |(from, _): &&(Slot, Vec<Member>)| *from <= slot;
        let Some((_, members)) = self.sets.iter().rev().find(covers) else { return };
        if members.iter().filter(|member| voters.contains(member)).count() * 2 <= members.len() {
            return;
        }
        match self.chosen.get(&slot) {
            Some(chosen) if chosen != batch => {
                self.split.insert(slot);
                let (one, other) = (show::batch(chosen), show::batch(batch));
                self.complain(format!("two batches are chosen in {slot}: {one} and {other}"));
            }
            Some(_) => {}
            None => {
                self.chosen.insert(slot, batch.clone());
                self.extend();
            }
        }
    }

    /// Carries out, as simply as can be, what is chosen without a gap.
    fn extend(&mut self) {
        while let Some(batch) = self.chosen.get(&Slot(self.states.len() as u64)).cloned() {
            let slot = self.states.len();
            let mut rows = self.states[slot - 1].clone();
            let mut writes = Vec::new();
            for command in &batch.commands {
                match command {
                    Command::OpenSession => {
                        self.answered_below.insert(ClientId(self.next_client), 0);
                        self.next_client += 1;
                    }
                    Command::ChangeMembers(members) => {
                        let at = Slot(slot as u64);
                        if self.sets[self.sets.len() - 1].0 <= at.next() {
                            self.sets.push((at.plus(self.window), members.to_vec()));
                        }
                    }
                    Command::Transact { stamp, transaction } => {
                        if let Some(stamp) = stamp {
                            let key = (stamp.client, stamp.sequence);
                            let Some(below) = self.answered_below.get_mut(&stamp.client) else {
                                continue;
                            };
                            if self.settled.contains_key(&key) || stamp.sequence < *below {
                                continue;
                            }
                            *below = stamp.answered_below.max(*below);
                        }
                        let holds = |it: &Precondition| it.holds(rows.get(it.key()));
                        let fate = match transaction.preconditions.iter().all(holds) {
                            true => Fate::Committed,
                            false => Fate::Refused,
                        };
                        if fate == Fate::Committed {
                            writes.extend(transaction.writes.iter().cloned());
                            rows::write(&mut rows, &transaction.writes);
                        }
                        let stamp = stamp.map(|stamp| (stamp.client, stamp.sequence));
                        if let Some(stamp) = stamp {
                            self.settled.insert(stamp, fate);
                        }
                        let transaction = transaction.clone();
                        self.order.push(Entry { slot, stamp, transaction, fate });
                    }
                }
            }
            self.states.push(rows);
            self.writes.push(writes);
        }
    }

    fn applied(&mut self, node: NodeId, mark: u64, writes: &[Write]) {
        let expected = usize::try_from(mark).ok().and_then(|slot| self.writes.get(slot));
        let what = match expected {
            None => format!("{node} applies #{mark}, which is not chosen"),
            Some(expected) if *expected != writes => format!(
                "{node} applies #{mark} as {}, and it is {}",
                words(writes),
                words(expected)
            ),
            Some(_) => return,
        };
        self.complain(what);
    }
}
