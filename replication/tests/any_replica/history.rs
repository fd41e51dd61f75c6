//! The judge. A transaction happens when its decision becomes durable, so the serial order that has
//! to explain everything is known: what is left is to replay it and to compare.

use std::collections::{BTreeMap, BTreeSet};

use kvorum_replication::two_phase::any_replica::message::{Age, Decision, TxnId, Work};
use kvorum_replication::two_phase::any_replica::record::{Committed, Record};
use kvorum_replication::{
    ClientId, Failure, Happened, Key, NodeId, Operation, Outcome, Query, RequestId, Stamp,
    Transaction,
};

use crate::harness::cluster::answered_once;
use crate::harness::rows::{self, Rows};
use crate::harness::schedule::Counts;
use crate::room::{Cluster, Event};

/// Judges a cluster that has come to rest with every node up.
pub(crate) fn judge(cluster: &Cluster, counts: &mut Counts) -> Result<(), String> {
    answered_once(&cluster.events)?;
    once_each(&cluster.order)?;
    let states = replay(cluster)?;
    for node in cluster.nodes() {
        same_decisions(cluster, node)?;
        let rows = &cluster.machine(node).ok_or("a node is down")?.rows;
        let last = states.last().ok_or("there is a first state")?;
        if rows != last {
            return Err(format!("{node} holds {rows:?}, and the order makes {last:?}"));
        }
    }
    real_time(cluster, &states, counts)
}

fn stamp_of(committed: &Committed) -> Option<(ClientId, u64)> {
    match &*committed.work {
        Work::Write { stamp, .. } => stamp.map(|stamp| (stamp.client, stamp.sequence)),
        Work::OpenSession { .. } => None,
    }
}

/// No stamp, no session and no request twice.
fn once_each(order: &[Committed]) -> Result<(), String> {
    let (mut txns, mut ages) = (BTreeSet::new(), BTreeSet::new());
    let (mut stamps, mut sessions) = (BTreeSet::new(), BTreeSet::new());
    for committed in order {
        let is_new = match &*committed.work {
            Work::OpenSession { client } => sessions.insert(*client),
            Work::Write { .. } => stamp_of(committed).is_none_or(|stamp| stamps.insert(stamp)),
        };
        if !is_new || !txns.insert(committed.txn) || !ages.insert(committed.age) {
            return Err(format!("{committed:?} was committed twice"));
        }
    }
    Ok(())
}

/// What each request wanted, by the age it was given.
fn wanted(events: &[Event]) -> BTreeMap<Age, Transaction> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Asked {
                name: Some(age),
                operation: Operation::Transact { transaction, .. },
                ..
            } => Some((*age, transaction.clone())),
            _ => None,
        })
        .collect()
}

/// The rows before the first commit and after each; all preconditions have to hold.
fn replay(cluster: &Cluster) -> Result<Vec<Rows>, String> {
    let wanted = wanted(&cluster.events);
    let mut states = vec![Rows::new()];
    for committed in &cluster.order {
        let mut rows = states[states.len() - 1].clone();
        if let Work::Write { writes, .. } = &*committed.work {
            let transaction =
                wanted.get(&committed.age).ok_or(format!("{} was never begun", committed.txn))?;
            if transaction.writes != *writes {
                return Err(format!("{committed:?} is not what was asked for: {transaction:?}"));
            }
            for precondition in &transaction.preconditions {
                if !precondition.holds(rows.get(precondition.key())) {
                    return Err(format!(
                        "{} was committed against {precondition:?}",
                        committed.txn
                    ));
                }
            }
            rows::write(&mut rows, writes);
        }
        states.push(rows);
    }
    Ok(states)
}

/// Atomicity: no replica has decided otherwise than the order says, each knows all of it, and has
/// carried out what conflicts in the same order.
fn same_decisions(cluster: &Cluster, node: NodeId) -> Result<(), String> {
    let places: BTreeMap<TxnId, usize> =
        cluster.order.iter().enumerate().map(|(place, it)| (it.txn, place)).collect();
    let mut seen = BTreeSet::new();
    let mut last_write: BTreeMap<&Key, usize> = BTreeMap::new();
    for record in cluster.log(node) {
        let Record::Decided { txn, decision } = record else { continue };
        let place = places.get(txn).copied();
        if place.is_some() != (*decision == Decision::Commit) {
            return Err(format!("{node} decided {decision:?} on {txn}"));
        }
        let Some(place) = place else { continue };
        if !seen.insert(*txn) {
            return Err(format!("{node} carried {txn} out twice"));
        }
        let Work::Write { writes, .. } = &*cluster.order[place].work else { continue };
        for write in writes {
            let before = last_write.insert(write.key(), place).unwrap_or(0);
            if before > place {
                return Err(format!("{node} wrote {:?} in another order", write.key()));
            }
        }
    }
    match seen.len() == cluster.order.len() {
        true => Ok(()),
        false => Err(format!("{node} knows {} of {} commits", seen.len(), cluster.order.len())),
    }
}

/// A request as it came.
struct Asked {
    /// Commits that somebody had seen the effect of before.
    after: usize,
    operation: Operation,
    age: Option<Age>,
}

impl Asked {
    fn stamp(&self) -> Option<(ClientId, u64)> {
        match &self.operation {
            Operation::Transact { stamp: Some(Stamp { client, sequence, .. }), .. } => {
                Some((*client, *sequence))
            }
            _ => None,
        }
    }
}

/// Strict serializability: each answer fits a prefix of the order that is not shorter than what
/// anybody had seen before the request, and not longer than what was durable before the answer.
/// Taking the shortest that fits asks the least of those who come later, so it errs never.
fn real_time(cluster: &Cluster, states: &[Rows], counts: &mut Counts) -> Result<(), String> {
    counts.add("commits", cluster.order.len() as u64);
    let mut asked: BTreeMap<RequestId, Asked> = BTreeMap::new();
    let mut first_asked: BTreeMap<(ClientId, u64), usize> = BTreeMap::new();
    let mut seen = 0;
    for event in &cluster.events {
        match event {
            Event::Asked { request, operation, name: age, .. } => {
                let mut request_of = Asked { after: seen, operation: operation.clone(), age: *age };
                if let Some(stamp) = request_of.stamp() {
                    request_of.after = *first_asked.entry(stamp).or_insert(seen);
                }
                asked.insert(*request, request_of);
            }
            Event::Answered { request, outcome, order_len } => {
                let asked = asked.get(request).ok_or("answered before it was asked")?;
                let upper = (*order_len).min(cluster.order.len());
                let prefix = judge_answer(asked, outcome, upper, &cluster.order, states, counts)
                    .map_err(|why| format!("r{}: {why}", request.0))?;
                seen = seen.max(prefix);
            }
            Event::Crashed { .. } => {}
        }
    }
    Ok(())
}

/// The prefix of the order that the answer shows to its client.
fn judge_answer(
    asked: &Asked,
    outcome: &Outcome,
    upper: usize,
    order: &[Committed],
    states: &[Rows],
    counts: &mut Counts,
) -> Result<usize, String> {
    let is_it = |it: &Committed| {
        asked.age == Some(it.age) || (asked.stamp().is_some() && asked.stamp() == stamp_of(it))
    };
    match (outcome, &asked.operation) {
        (Outcome::Session(client), _) => {
            let is_it = |it: &Committed| *it.work == Work::OpenSession { client: *client };
            match order.iter().take(upper).any(is_it) {
                true => Ok(0),
                false => Err(format!("session {client} is not durable")),
            }
        }
        (Outcome::Committed, Operation::Transact { transaction, .. }) => {
            if transaction.writes.is_empty() {
                let holds = |rows: &Rows| {
                    let mut all = transaction.preconditions.iter();
                    all.all(|it| it.holds(rows.get(it.key())))
                };
                return (asked.after..=upper)
                    .find(|prefix| holds(&states[*prefix]))
                    .ok_or_else(|| format!("{transaction:?} held never"));
            }
            let place = order.iter().position(is_it).ok_or("an acknowledged write is lost")? + 1;
            if place <= asked.after || place > upper {
                return Err(format!("commit {place} is not in {}..{upper}", asked.after));
            }
            Ok(place)
        }
        (Outcome::Answer(answer), Operation::Read(query) | Operation::ReadStale(query)) => {
            counts.add("reads", 1);
            judge_read(query, answer, asked.after, upper, states)
        }
        (Outcome::Failed(failure), _) => {
            counts.add("told no", u64::from(failure.happened() == Happened::No));
            counts.add("told unknown", u64::from(failure.happened() == Happened::Unknown));
            // A precondition that failed is said of all tries of the write, the rest of this one.
            let is_final = matches!(failure, Failure::PreconditionFailed { .. });
            let mut happened = order.iter().filter(|it| match is_final {
                true => is_it(it),
                false => asked.age == Some(it.age),
            });
            match happened.next() {
                Some(it) if failure.happened() == Happened::No => {
                    Err(format!("{} happened, and its client was told {failure:?}", it.txn))
                }
                _ => Ok(0),
            }
        }
        (outcome, operation) => Err(format!("{operation:?} was answered {outcome:?}")),
    }
}

fn judge_read(
    query: &Query,
    answer: &kvorum_replication::Answer,
    after: usize,
    upper: usize,
    states: &[Rows],
) -> Result<usize, String> {
    (after..=upper)
        .find(|prefix| rows::answer(&states[*prefix], query) == *answer)
        .ok_or_else(|| format!("{query:?} gave {answer:?}, as never in {after}..={upper}"))
}
