//! The judge. Commits have numbers, so the serial order that has to explain everything is known:
//! what is left is to replay it and to compare.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kvorum_replication::two_phase::message::{CommitNumber, Decision, TxnId};
use kvorum_replication::two_phase::record::{CoordinatorRecord, ParticipantRecord};
use kvorum_replication::{
    Happened, Key, NodeId, Operation, Outcome, Query, RequestId, Stamp, Transaction, Value, Write,
};

use crate::cluster::{Cluster, Event};
use crate::machine;

type Rows = BTreeMap<Key, Value>;

/// What a run came to.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) commits: usize,
    pub(crate) reads: usize,
    pub(crate) refused: usize,
    pub(crate) unknown: usize,
}

/// Judges a cluster that has come to rest with every node up.
pub(crate) fn judge(cluster: &Cluster) -> Result<Verdict, String> {
    let begun = begun(&cluster.events);
    let order = serial_order(cluster)?;
    let states = replay(&order, &begun)?;
    same_decisions(cluster, &order)?;
    for node in cluster.nodes().into_iter().skip(1) {
        let rows = &cluster.participant(node).ok_or("a node is down")?.rows;
        let last = states.last().ok_or("there is a first state")?;
        if rows != last {
            return Err(format!("{node} holds {rows:?}, and the order makes {last:?}"));
        }
    }
    answered_once(cluster)?;
    real_time(cluster, &order, &states)
}

fn begun(events: &[Event]) -> BTreeMap<TxnId, Arc<Transaction>> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Begun { txn, transaction, .. } => Some((*txn, transaction.clone())),
            _ => None,
        })
        .collect()
}

/// The commits in their order, with their stamps.
fn serial_order(cluster: &Cluster) -> Result<Vec<(TxnId, Option<Stamp>)>, String> {
    let mut order = Vec::new();
    if let [only] = cluster.coordinator_options.replicas[..] {
        for record in cluster.participant_log(only) {
            if let ParticipantRecord::CommittedAlone { txn, stamp, .. } = record {
                order.push((*txn, *stamp));
            }
        }
    } else {
        for record in cluster.coordinator_log() {
            if let CoordinatorRecord::Committed { txn, number, stamp, .. } = record {
                order.push((*txn, *stamp));
                if number.0 != order.len() as u64 {
                    return Err(format!("commit {} of {txn} has number {number}", order.len()));
                }
            }
        }
    }
    let mut stamps = BTreeSet::new();
    for stamp in order.iter().filter_map(|(_, stamp)| *stamp) {
        if !stamps.insert((stamp.client, stamp.sequence)) {
            return Err(format!("{stamp:?} was committed twice"));
        }
    }
    Ok(order)
}

/// The rows before the first commit and after each.
fn replay(
    order: &[(TxnId, Option<Stamp>)],
    begun: &BTreeMap<TxnId, Arc<Transaction>>,
) -> Result<Vec<Rows>, String> {
    let mut states = vec![Rows::new()];
    for (txn, _) in order {
        let transaction = begun.get(txn).ok_or(format!("{txn} was never begun"))?;
        let mut rows = states[states.len() - 1].clone();
        for precondition in &transaction.preconditions {
            if !precondition.holds(rows.get(precondition.key())) {
                return Err(format!("{txn} was committed against {precondition:?}"));
            }
        }
        for write in &transaction.writes {
            match write {
                Write::Put(key, value) => rows.insert(key.clone(), value.clone()),
                Write::Delete(key) => rows.remove(key),
            };
        }
        states.push(rows);
    }
    Ok(states)
}

/// Atomicity: no replica has decided otherwise than the order says.
fn same_decisions(cluster: &Cluster, order: &[(TxnId, Option<Stamp>)]) -> Result<(), String> {
    let alone = cluster.coordinator_options.replicas.len() == 1;
    let numbers: BTreeMap<TxnId, CommitNumber> = order
        .iter()
        .enumerate()
        .map(|(index, (txn, _))| (*txn, CommitNumber(index as u64 + 1)))
        .collect();
    for node in cluster.nodes().into_iter().skip(1) {
        let mut seen = BTreeSet::new();
        for record in cluster.participant_log(node) {
            let ParticipantRecord::Decided { txn, decision } = record else { continue };
            let right = match decision {
                Decision::Commit(number) => {
                    seen.insert(*txn);
                    numbers.get(txn) == Some(number)
                }
                Decision::Abort => !numbers.contains_key(txn),
            };
            if !right {
                return Err(format!("{node} decided {decision:?} on {txn}"));
            }
        }
        if !alone && seen.len() != order.len() {
            return Err(format!("{node} knows {} of {} commits", seen.len(), order.len()));
        }
    }
    Ok(())
}

/// Every request is answered once, unless the node it was asked of died.
fn answered_once(cluster: &Cluster) -> Result<(), String> {
    let mut open: BTreeMap<RequestId, NodeId> = BTreeMap::new();
    let mut answered = BTreeSet::new();
    for event in &cluster.events {
        match event {
            Event::Asked { node, request, .. } => {
                open.insert(*request, *node);
            }
            Event::Answered { request, .. } => {
                if !answered.insert(*request) || open.remove(request).is_none() {
                    return Err(format!("r{} was answered again", request.0));
                }
            }
            Event::Crashed { node } => open.retain(|_, asked| asked != node),
            Event::Begun { .. } => {}
        }
    }
    match open.first_key_value() {
        Some((request, node)) => Err(format!("{node} never answered r{}", request.0)),
        None => Ok(()),
    }
}

/// A request as it came.
struct Asked {
    /// Commits that somebody had seen the effect of before.
    after: usize,
    query: Option<Query>,
    stamp: Option<Stamp>,
    txn: Option<TxnId>,
}

/// Strict serializability: each answer fits a prefix of the order that is not shorter than what
/// anybody had seen before the request, and not longer than what was decided before the answer.
/// Taking the shortest that fits asks the least of those who come later, so it errs never.
fn real_time(
    cluster: &Cluster,
    order: &[(TxnId, Option<Stamp>)],
    states: &[Rows],
) -> Result<Verdict, String> {
    let mut verdict = Verdict { commits: order.len(), ..Verdict::default() };
    let mut asked: BTreeMap<RequestId, Asked> = BTreeMap::new();
    let mut first_asked: BTreeMap<(u64, u64), usize> = BTreeMap::new();
    let mut seen = 0;
    for event in &cluster.events {
        match event {
            Event::Asked { request, operation, .. } => {
                let (query, stamp) = match operation {
                    Operation::Read(query) | Operation::ReadStale(query) => {
                        (Some(query.clone()), None)
                    }
                    Operation::Transact { stamp, .. } => (None, *stamp),
                    Operation::OpenSession | Operation::ChangeMembers { .. } => (None, None),
                };
                let mut after = seen;
                if let Some(stamp) = stamp {
                    let key = (stamp.client.0, stamp.sequence);
                    after = *first_asked.entry(key).or_insert(seen);
                }
                asked.insert(*request, Asked { after, query, stamp, txn: None });
            }
            Event::Begun { request, txn, .. } => {
                asked.get_mut(request).ok_or("begun before it was asked")?.txn = Some(*txn);
            }
            Event::Answered { request, outcome, commits } => {
                let asked = asked.get(request).ok_or("answered before it was asked")?;
                let upper = (*commits).min(order.len());
                let prefix = judge_answer(asked, outcome, upper, order, states, &mut verdict)
                    .map_err(|why| format!("r{}: {why}", request.0))?;
                seen = seen.max(prefix);
            }
            Event::Crashed { .. } => {}
        }
    }
    Ok(verdict)
}

/// The prefix of the order that the answer shows to its client.
fn judge_answer(
    asked: &Asked,
    outcome: &Outcome,
    upper: usize,
    order: &[(TxnId, Option<Stamp>)],
    states: &[Rows],
    verdict: &mut Verdict,
) -> Result<usize, String> {
    match outcome {
        Outcome::Session(_) => Ok(0),
        Outcome::Committed => {
            let same = |of: Option<Stamp>| match (of, asked.stamp) {
                (Some(of), Some(stamp)) => {
                    (of.client, of.sequence) == (stamp.client, stamp.sequence)
                }
                _ => false,
            };
            let place = order
                .iter()
                .position(|(txn, stamp)| Some(*txn) == asked.txn || same(*stamp))
                .ok_or("an acknowledged write is lost")?
                + 1;
            if place <= asked.after || place > upper {
                return Err(format!("commit {place} is not in {}..{upper}", asked.after));
            }
            Ok(place)
        }
        Outcome::Answer(answer) => {
            let query = asked.query.as_ref().ok_or("an answer to no question")?;
            verdict.reads += 1;
            (asked.after..=upper)
                .find(|prefix| machine::answer(&states[*prefix], query) == *answer)
                .ok_or_else(|| {
                    format!("{query:?} gave {answer:?}, as never in {}..={upper}", asked.after)
                })
        }
        Outcome::Failed(failure) => {
            match failure.happened() {
                Happened::No => {
                    verdict.refused += 1;
                    if order.iter().any(|(txn, _)| Some(*txn) == asked.txn) {
                        return Err(format!("it happened, and its client was told {failure:?}"));
                    }
                }
                Happened::Unknown => verdict.unknown += 1,
            }
            Ok(0)
        }
    }
}
