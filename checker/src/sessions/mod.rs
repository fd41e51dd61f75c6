//! The four session guarantees.
//!
//! Terry et al., *Session Guarantees for Weakly Consistent Replicated Data* (PDIS 1994). A read sees
//! some set of writes, and answers for each key with the last one of them in an order that all
//! writes have. In a session, which is a client,
//!
//! - *read your writes*: a read sees the session's earlier writes;
//! - *monotonic reads*: a read sees what the session's earlier reads answered with;
//! - *monotonic writes*: writes are ordered as the session wrote them, and who sees one sees those
//!   before it;
//! - *writes follow reads*: a write is ordered after what the session had read before, and who sees
//!   it sees that too.
//!
//! **Promise.** A violation means that no sets of writes and no order of them keep the guarantee:
//! what must be seen is saturated, what must be ordered before what follows from it, and a cycle in
//! that is a contradiction (after Bouajjani et al., *On Verifying Causal Consistency*, POPL 2017).
//! Each guarantee is judged by itself, and then all four together, which is causal consistency: most
//! of what a user would call a violation contradicts two of them only together (a client that reads
//! an older value than it wrote may have had its writes swapped, or one of them missed).
//!
//! **What is left out**, so that nothing is reported that is not so: values that were written twice,
//! an absent key that somebody may have removed, preconditions (a store may check them elsewhere than
//! it reads), and what a session wrote with unknown outcome, until somebody has read it.
//!
//! **Cost.** Each guarantee alone takes about as long as sorting; all together takes the number of
//! sessions for each read.

mod alone;
mod order;
mod together;

use std::collections::BTreeMap;

use crate::cycles::facts::Facts;
use crate::cycles::transactions::{Transactions, small};
use crate::history::{Ending, Operation, Record};
use crate::verdict::{Guarantee, Rule, Verdict};
use order::Constraints;

/// Judges one guarantee by itself. A client that asks several things at once counts as several.
#[must_use]
pub fn session(history: &[Record], guarantee: Guarantee) -> Verdict {
    let transactions = Transactions::of(history);
    let facts = Facts::of(&transactions);
    judge_alone(history, &Sessions::of(history, &facts), guarantee)
}

/// Judges each guarantee by itself, and then all four together.
#[must_use]
pub fn sessions(history: &[Record]) -> Vec<(Rule, Verdict)> {
    let transactions = Transactions::of(history);
    let facts = Facts::of(&transactions);
    let sessions = Sessions::of(history, &facts);
    let alone = Guarantee::ALL
        .map(|guarantee| (Rule::Session(guarantee), judge_alone(history, &sessions, guarantee)));
    let together = (Rule::Sessions, together::judge(history, &sessions));
    alone.into_iter().chain([together]).collect()
}

fn judge_alone(history: &[Record], sessions: &Sessions<'_>, guarantee: Guarantee) -> Verdict {
    let mut constraints = Constraints::new(history, sessions, Rule::Session(guarantee));
    match guarantee {
        Guarantee::ReadYourWrites => alone::read_your_writes(&mut constraints),
        Guarantee::MonotonicReads => alone::monotonic_reads(&mut constraints),
        Guarantee::MonotonicWrites => alone::monotonic_writes(&mut constraints),
        Guarantee::WritesFollowReads => alone::writes_follow_reads(&mut constraints),
    }
    constraints.judge()
}

/// A history as what each session read and wrote.
struct Sessions<'a> {
    facts: &'a Facts<'a>,
    /// For each session its operations, one after the other. A client that asks several things at once
    /// has several sessions.
    clients: Vec<Vec<Step>>,
    /// For each record where it is: in which session, and the place there.
    places: Vec<(u32, u32)>,
}

/// An operation of a session.
struct Step {
    record: u32,
    reads: Vec<Seen>,
    /// Keys, and values left there.
    writes: Vec<(u32, u32)>,
    /// Whether the client knows that it happened.
    known: bool,
}

/// What a read found of a key: the record that wrote it, or `None` for a key's beginning.
#[derive(Clone, Copy)]
struct Seen {
    key: u32,
    writer: Option<u32>,
}

impl<'a> Sessions<'a> {
    fn of(history: &[Record], facts: &'a Facts<'a>) -> Self {
        let mut reads: Vec<Vec<Seen>> = vec![Vec::new(); history.len()];
        for (reader, value) in &facts.reads {
            let transactions = facts.transactions;
            let key = transactions.values[*value as usize].object;
            let is_register = !transactions.objects[key as usize].is_list;
            if is_register && is_session_read(&history[*reader as usize]) {
                reads[*reader as usize].push(Seen { key, writer: facts.source(*value) });
            }
        }
        let mut writes: Vec<Vec<(u32, u32)>> = vec![Vec::new(); history.len()];
        for (key, writer, value) in &facts.installs {
            if !facts.transactions.objects[*key as usize].is_list {
                writes[*writer as usize].push((*key, *value));
            }
        }
        let mut sessions = Self { facts, clients: Vec::new(), places: vec![(0, 0); history.len()] };
        // For each client its sessions, and when each is free.
        let mut of_client: BTreeMap<u64, Vec<(usize, u64)>> = BTreeMap::new();
        for record in &facts.order {
            let at = *record as usize;
            let Record { client, call, ret, ending, .. } = history[at];
            // Who goes on without an answer does not wait for one.
            let free_from = if ending == Ending::Unknown { call } else { ret };
            let of_client = of_client.entry(client).or_default();
            let free = of_client.iter_mut().find(|(_, free_at)| *free_at <= call);
            let session = match free {
                Some((session, free_at)) => {
                    *free_at = free_from;
                    *session
                }
                None => {
                    sessions.clients.push(Vec::new());
                    of_client.push((sessions.clients.len() - 1, free_from));
                    sessions.clients.len() - 1
                }
            };
            let step = Step {
                record: *record,
                reads: std::mem::take(&mut reads[at]),
                writes: std::mem::take(&mut writes[at]),
                known: ending == Ending::Done,
            };
            if !step.reads.is_empty() || !step.writes.is_empty() {
                let steps = &mut sessions.clients[session];
                sessions.places[at] = (small(session), small(steps.len()));
                steps.push(step);
            }
        }
        sessions
    }

    fn step(&self, record: u32) -> &Step {
        let (client, place) = self.places[record as usize];
        &self.clients[client as usize][place as usize]
    }
}

/// Whether what a record found was read in the session's name, and not only required.
fn is_session_read(record: &Record) -> bool {
    record.ending == Ending::Done
        && match &record.operation {
            Operation::Get { .. }
            | Operation::GetMany { .. }
            | Operation::Scan { .. }
            | Operation::MicroOperations(_) => true,
            Operation::Put { .. }
            | Operation::Delete { .. }
            | Operation::CompareAndSet { .. }
            | Operation::Transact { .. } => false,
        }
}
