//! The one order of batches, carried out as simply as can be: a model of what replicas do with what
//! is chosen.

use std::collections::BTreeMap;
use std::sync::Arc;

use kvorum_replication::paxos::message::{Batch, Command, Member, Slot};
use kvorum_replication::paxos::record::{Refusal, Replicated, SessionState, Settled};
use kvorum_replication::{ClientId, NodeId, Precondition, Stamp, Transaction};

use crate::contents::{Contents, apply};

/// A session, as every replica must know it.
#[derive(Clone, Debug)]
struct Session {
    client: ClientId,
    answered_below: u64,
    settled: BTreeMap<u64, Settled>,
}

#[derive(Debug)]
pub(super) struct Order {
    window: u64,
    sessions_max: usize,
    /// What is in the store before the first slot, and after each.
    contents: Vec<Arc<Contents>>,
    /// What was refused in each slot; the first entry stands for none.
    refused: Vec<Vec<Refusal>>,
    /// Acceptors, from which slot on.
    sets: Vec<(Slot, Arc<[Member]>)>,
    next_client: u64,
    /// Least recently used first.
    sessions: Vec<Session>,
    /// How each write of a session was settled.
    settled: BTreeMap<(ClientId, u64), (Slot, Settled)>,
    /// What happened without a stamp.
    unstamped: Vec<Arc<Transaction>>,
}

impl Order {
    pub(super) fn new(
        founders: impl Iterator<Item = NodeId>,
        window: u64,
        sessions_max: usize,
    ) -> Self {
        let founders = founders.map(|node| Member { node, life: 0 }).collect();
        Self {
            window,
            sessions_max,
            contents: vec![Arc::default()],
            refused: vec![Vec::new()],
            sets: vec![(Slot(1), founders)],
            next_client: 1,
            sessions: Vec::new(),
            settled: BTreeMap::new(),
            unstamped: Vec::new(),
        }
    }

    /// Everything up to here is chosen.
    pub(super) fn last(&self) -> Slot {
        Slot(self.contents.len() as u64 - 1)
    }

    /// What a replica holds that has applied this slot; none if that is not chosen.
    pub(super) fn contents(&self, slot: Slot) -> Option<&Arc<Contents>> {
        self.contents.get(usize::try_from(slot.0).ok()?)
    }

    /// What was refused behind `before`, up to `slot`, which is chosen.
    pub(super) fn refused(&self, before: Slot, slot: Slot) -> impl Iterator<Item = &Refusal> {
        let place = |slot: Slot| usize::try_from(slot.0).unwrap_or(usize::MAX);
        let (from, to) = (place(before.next()), place(slot.next()).min(self.refused.len()));
        self.refused[from.min(to)..to].iter().flatten()
    }

    /// The acceptors of a slot that may be proposed.
    pub(super) fn acceptors(&self, slot: Slot) -> &[Member] {
        let covers = |(from, _): &&(Slot, Arc<[Member]>)| *from <= slot;
        let (_, members) = self.sets.iter().rev().find(covers).unwrap_or(&self.sets[0]);
        members
    }

    /// The newest acceptors, which may not count yet.
    pub(super) fn newest_members(&self) -> &[Member] {
        &self.sets[self.sets.len() - 1].1
    }

    /// How often the members have changed.
    pub(super) fn changes(&self) -> impl Iterator<Item = (&[Member], &[Member])> {
        self.sets.windows(2).map(|pair| (&*pair[0].1, &*pair[1].1))
    }

    pub(super) fn settled(&self, stamp: Stamp) -> Option<Settled> {
        self.settled.get(&(stamp.client, stamp.sequence)).map(|(_, how)| *how)
    }

    /// Where a write of a session was settled.
    pub(super) fn slot_of(&self, stamp: Stamp) -> Option<Slot> {
        self.settled.get(&(stamp.client, stamp.sequence)).map(|(slot, _)| *slot)
    }

    pub(super) fn has_unstamped(&self, transaction: &Transaction) -> bool {
        self.unstamped.iter().rev().any(|done| **done == *transaction)
    }

    /// Whether this is what follows from the slots up to the last, besides the rows.
    pub(super) fn is_state(&self, state: &Replicated) -> bool {
        let same = |(ours, theirs): (&Session, &SessionState)| {
            let settled = ours.settled.iter().map(|(sequence, how)| (*sequence, *how));
            (ours.client, ours.answered_below) == (theirs.client, theirs.answered_below)
                && settled.eq(theirs.settled.iter().copied())
        };
        let (_, newest) = &self.sets[self.sets.len() - 1];
        self.next_client == state.next_client
            && self.sessions.len() == state.sessions.len()
            && self.sessions.iter().zip(&state.sessions).all(same)
            && state.members.last().is_some_and(|(_, members)| members == newest)
    }

    /// Whether this session was given out.
    pub(super) fn has_opened(&self, client: ClientId) -> bool {
        client.0 < self.next_client
    }

    /// Carries out the batch of the next slot.
    pub(super) fn push(&mut self, batch: &Batch) {
        let slot = self.last().next();
        let before = self.contents[self.contents.len() - 1].clone();
        let mut after = before.clone();
        let mut refused = Vec::new();
        for (index, command) in (0_u32..).zip(&batch.commands) {
            match command {
                Command::OpenSession => self.open_session(),
                Command::ChangeMembers(members) => {
                    let (newest, _) = self.sets[self.sets.len() - 1];
                    if newest <= slot.next() {
                        self.sets.push((slot.plus(self.window), members.clone()));
                    }
                }
                Command::Transact { stamp, transaction } => {
                    if !self.is_new(*stamp) {
                        continue;
                    }
                    let failed = fails(transaction, &after);
                    match failed {
                        Some(precondition) => refused.push(Refusal { slot, index, precondition }),
                        None => apply(Arc::make_mut(&mut after), &transaction.writes),
                    }
                    let how = failed.map_or(Settled::Committed, |precondition| Settled::Refused {
                        precondition,
                    });
                    match stamp {
                        Some(stamp) => self.settle(*stamp, how),
                        None if failed.is_none() => self.unstamped.push(transaction.clone()),
                        None => {}
                    }
                }
            }
        }
        self.contents.push(after);
        self.refused.push(refused);
    }

    fn open_session(&mut self) {
        let client = ClientId(self.next_client);
        self.next_client += 1;
        self.sessions.push(Session { client, answered_below: 0, settled: BTreeMap::new() });
        if self.sessions.len() > self.sessions_max {
            self.sessions.remove(0);
        }
    }

    /// Whether a write is to be done when its turn comes.
    fn is_new(&self, stamp: Option<Stamp>) -> bool {
        let Some(stamp) = stamp else { return true };
        let session = self.sessions.iter().find(|session| session.client == stamp.client);
        session.is_some_and(|session| {
            !session.settled.contains_key(&stamp.sequence)
                && stamp.sequence >= session.answered_below
        })
    }

    fn settle(&mut self, stamp: Stamp, how: Settled) {
        self.settled.insert((stamp.client, stamp.sequence), (self.last().next(), how));
        let place = self.sessions.iter().position(|session| session.client == stamp.client);
        let mut session = self.sessions.remove(place.expect("only writes of known ones are new"));
        session.answered_below = session.answered_below.max(stamp.answered_below);
        session.settled = session.settled.split_off(&session.answered_below);
        if stamp.sequence >= session.answered_below {
            session.settled.insert(stamp.sequence, how);
        }
        self.sessions.push(session);
    }
}

/// The first precondition that does not hold.
fn fails(transaction: &Transaction, contents: &Contents) -> Option<u32> {
    let holds = |it: &Precondition| it.holds(contents.get(it.key()));
    let failed = transaction.preconditions.iter().position(|it| !holds(it))?;
    u32::try_from(failed).ok()
}
