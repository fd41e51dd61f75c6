//! What a batch comes to: the same on every replica, since it follows from the batches before it.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::Learner;
use crate::paxos::message::{Batch, Command, Slot};
use crate::paxos::planted::Bug;
use crate::paxos::record::{Refusal, Settled};
use crate::request::{ClientId, Key, Transaction, Value, Write};
use crate::sessions::Standing;

/// What a command came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::paxos) enum Verdict {
    /// This session is open.
    Session(ClientId),
    /// The members change.
    Done,
    /// They do not: another change is on its way.
    NoChange,
    /// The transaction happened or was refused, now or when it was chosen before.
    Settled(Settled),
    /// Its client had said that it would not ask again.
    Stale,
    /// Its session is not known any more.
    Expired,
    /// Its session has too many.
    TooManyOutstanding,
}

/// What a batch came to.
#[derive(Debug, Default)]
pub(super) struct Result {
    pub(super) verdicts: Vec<Verdict>,
    pub(super) writes: Vec<Write>,
    pub(super) refused: Vec<Refusal>,
}

/// Keys that the store is asked about before a batch can be executed.
pub(super) fn keys_checked(batch: &Batch) -> Vec<Key> {
    let transactions = batch.commands.iter().filter_map(|command| match command {
        Command::Transact { transaction, .. } => Some(transaction),
        Command::OpenSession | Command::ChangeMembers(_) => None,
    });
    let mut keys: Vec<Key> = transactions
        .flat_map(|transaction| transaction.preconditions.iter())
        .map(|precondition| precondition.key().clone())
        .collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// The rows before a batch, as far as it asks, with what its own commands have written on top.
pub(super) struct Overlay {
    rows: BTreeMap<Key, Option<Value>>,
}

impl Overlay {
    pub(super) fn new(keys: Vec<Key>, values: Vec<Option<Value>>) -> Self {
        Self { rows: keys.into_iter().zip(values).collect() }
    }

    fn write(&mut self, write: &Write) {
        let (key, value) = match write {
            Write::Put(key, value) => (key, Some(value.clone())),
            Write::Delete(key) => (key, None),
        };
        if let Some(row) = self.rows.get_mut(key) {
            *row = value;
        }
    }

    /// The first precondition that does not hold.
    fn fails(&self, transaction: &Transaction) -> Option<u32> {
        let fails = transaction.preconditions.iter().position(|precondition| {
            let row = self.rows.get(precondition.key());
            !precondition.holds(row.and_then(Option::as_ref))
        });
        fails.map(|index| u32::try_from(index).unwrap_or(u32::MAX))
    }
}

/// Whether a transaction's preconditions hold, in its turn.
pub(super) enum Judge<'a> {
    /// As the rows say.
    Rows(Overlay),
    /// As the log says: recovery must not look at a store that may be ahead of it.
    Log(&'a [Refusal]),
}

impl Judge<'_> {
    fn refuses(&self, slot: Slot, index: u32, transaction: &Transaction) -> Option<u32> {
        match self {
            Self::Rows(overlay) => overlay.fails(transaction),
            Self::Log(refused) => {
                let is_this = |it: &&Refusal| it.slot == slot && it.index == index;
                refused.iter().find(is_this).map(|refusal| refusal.precondition)
            }
        }
    }

    fn has_written(&mut self, write: &Write) {
        match self {
            Self::Rows(overlay) => overlay.write(write),
            Self::Log(_) => {}
        }
    }
}

impl Learner {
    /// Carries out a batch on the replicated state, and says what it writes.
    pub(super) fn execute(
        &mut self,
        slot: Slot,
        batch: &Batch,
        window: u64,
        judge: &mut Judge<'_>,
    ) -> Result {
        let mut result = Result::default();
        for (index, command) in (0_u32..).zip(&batch.commands) {
            let verdict = match command {
                Command::OpenSession => {
                    let client = self.sessions.next_client();
                    self.sessions.opened(client);
                    Verdict::Session(client)
                }
                Command::ChangeMembers(members) => {
                    let wait = if self.planted.has(Bug::MembersAtOnce) { 1 } else { window };
                    match self.membership.change(slot, wait, members.clone()) {
                        true => Verdict::Done,
                        false => Verdict::NoChange,
                    }
                }
                Command::Transact { stamp, transaction } => {
                    let looks_up = !self.planted.has(Bug::RetryIsNew);
                    let stamp = stamp.as_ref();
                    let known = stamp.filter(|_| looks_up);
                    match known.map_or(Standing::New, |it| self.sessions.standing(*it, 0)) {
                        Standing::New => {
                            let how = decide(slot, index, transaction, judge, &mut result);
                            let forgets = how != Settled::Committed
                                && self.planted.has(Bug::RefusalForgotten);
                            if let Some(stamp) = stamp.filter(|_| !forgets) {
                                self.sessions.settle(*stamp, how);
                            }
                            Verdict::Settled(how)
                        }
                        // Chosen twice, in this slot or another: it happens once.
                        Standing::Settled(how) => Verdict::Settled(how),
                        Standing::Stale => Verdict::Stale,
                        Standing::Expired => Verdict::Expired,
                        Standing::TooManyOutstanding => Verdict::TooManyOutstanding,
                    }
                }
            };
            result.verdicts.push(verdict);
        }
        self.applied = slot;
        self.membership.applied(slot);
        result
    }
}

fn decide(
    slot: Slot,
    index: u32,
    transaction: &Transaction,
    judge: &mut Judge<'_>,
    result: &mut Result,
) -> Settled {
    if let Some(precondition) = judge.refuses(slot, index, transaction) {
        result.refused.push(Refusal { slot, index, precondition });
        return Settled::Refused { precondition };
    }
    for write in &transaction.writes {
        judge.has_written(write);
        result.writes.push(write.clone());
    }
    Settled::Committed
}
