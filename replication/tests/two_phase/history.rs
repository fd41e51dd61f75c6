//! The judge. The order in which commits were decided is known, and it has to explain everything:
//! what is left is to replay it and to compare. It is the order of their numbers, but for parallel
//! commits whose numbers were lost with the records of them: those got new ones, and nobody may be
//! able to tell.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kvorum_replication::two_phase::message::{Commit, CommitNumber, Decision, TxnId};
use kvorum_replication::two_phase::record::{CoordinatorRecord, ParticipantRecord};
use kvorum_replication::{Happened, Operation, Outcome, Query, RequestId, Stamp, Transaction};

use crate::harness::cluster::answered_once;
use crate::harness::rows::{self, Rows};
use crate::harness::schedule::Counts;
use crate::node::Of;
use crate::room::{Cluster, Event};

type Recorded = BTreeMap<TxnId, (CommitNumber, Option<Stamp>)>;

/// Judges a cluster that has come to rest with every node up.
pub(crate) fn judge(cluster: &Cluster, counts: &mut Counts) -> Result<(), String> {
    let recorded = recorded(cluster)?;
    let mut order = Vec::new();
    for txn in &cluster.order {
        let (_, stamp) = recorded.get(txn).ok_or(format!("{txn} was decided, and is lost"))?;
        order.push((*txn, *stamp));
    }
    let states = replay(&order, &cluster.begun)?;
    same_decisions(cluster, &recorded)?;
    for node in cluster.replicas() {
        let rows = &cluster.machine(node).ok_or("a node is down")?.rows;
        let last = states.last().ok_or("there is a first state")?;
        if rows != last {
            return Err(format!("{node} holds {rows:?}, and the order makes {last:?}"));
        }
    }
    answered_once(&cluster.events)?;
    real_time(cluster, &order, &states, counts)
}

/// The commits that the log of the decider has in the end, with their numbers and stamps.
fn recorded(cluster: &Cluster) -> Result<Recorded, String> {
    let mut recorded = Recorded::new();
    let mut stamps = BTreeSet::new();
    for record in cluster.log(cluster.decider()) {
        let last = recorded.len() as u64;
        let (txn, number, stamp) = match record {
            Of::Participant(ParticipantRecord::CommittedAlone { txn, stamp, .. }) => {
                (*txn, CommitNumber(last + 1), *stamp)
            }
            Of::Coordinator(CoordinatorRecord::Committed { txn, number, stamp, .. }) => {
                (*txn, *number, *stamp)
            }
            Of::Participant(_) | Of::Coordinator(_) => continue,
        };
        if number.0 != last + 1 || recorded.insert(txn, (number, stamp)).is_some() {
            return Err(format!("commit {} is {txn} with number {number}", last + 1));
        }
        if let Some(stamp) = stamp
            && !stamps.insert((stamp.client, stamp.sequence))
        {
            return Err(format!("{stamp:?} was committed twice"));
        }
    }
    Ok(recorded)
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
        rows::write(&mut rows, &transaction.writes);
        states.push(rows);
    }
    Ok(states)
}

/// Atomicity: no replica has decided otherwise than the log of the decider says.
fn same_decisions(cluster: &Cluster, recorded: &Recorded) -> Result<(), String> {
    let alone = cluster.coordinator_options.replicas.len() == 1;
    for node in cluster.replicas() {
        // The rows of another replica stand for the commits up to here.
        let mut base = 0;
        // What was said before does not count any more then.
        let mut wrong = None;
        let mut seen: BTreeSet<TxnId> = BTreeSet::new();
        for record in cluster.log(node) {
            let decided = match record {
                Of::Participant(ParticipantRecord::Decided { txn, decision }) => {
                    vec![(*txn, *decision)]
                }
                Of::Participant(ParticipantRecord::Learned { commits, .. }) => {
                    let decided = |it: &Commit| (it.txn, Decision::Commit(it.number));
                    commits.iter().map(decided).collect()
                }
                Of::Participant(ParticipantRecord::Installed { checkpoint, .. }) => {
                    let applied = checkpoint.coordinators.iter().map(|it| it.applied.0);
                    base = applied.max().unwrap_or_default();
                    wrong = None;
                    checkpoint.decided.iter().map(|it| (it.txn, it.decision)).collect()
                }
                _ => continue,
            };
            for (txn, decision) in decided {
                let right = match decision {
                    Decision::Commit(number) => {
                        seen.insert(txn);
                        recorded.get(&txn).map(|(number, _)| *number) == Some(number)
                    }
                    Decision::Abort => !recorded.contains_key(&txn),
                };
                if !right && wrong.is_none() {
                    wrong = Some(format!("{node} decided {decision:?} on {txn}"));
                }
            }
        }
        if let Some(wrong) = wrong {
            return Err(wrong);
        }
        let is_missing = |(txn, (number, _)): &(&TxnId, &(CommitNumber, _))| {
            number.0 > base && !seen.contains(txn)
        };
        let missing = recorded.iter().find(is_missing);
        if let Some((txn, _)) = missing.filter(|_| !alone) {
            return Err(format!("{node} does not know that {txn} is committed"));
        }
    }
    Ok(())
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
    counts: &mut Counts,
) -> Result<(), String> {
    counts.add("commits", order.len() as u64);
    let mut asked: BTreeMap<RequestId, Asked> = BTreeMap::new();
    let mut first_asked: BTreeMap<(u64, u64), usize> = BTreeMap::new();
    let mut changes: BTreeSet<RequestId> = BTreeSet::new();
    let mut seen = 0;
    for event in &cluster.events {
        match event {
            Event::Asked { request, operation, name, .. } => {
                let (query, stamp) = match operation {
                    Operation::Read(query) | Operation::ReadStale(query) => {
                        (Some(query.clone()), None)
                    }
                    Operation::Transact { stamp, .. } => (None, *stamp),
                    Operation::OpenSession | Operation::ChangeMembers { .. } => (None, None),
                    // No row shows it.
                    Operation::ChangeReplicas(_) => {
                        changes.insert(*request);
                        continue;
                    }
                };
                let named = name.as_ref().map(|(txn, _)| *txn);
                let txn = named.or_else(|| cluster.asked.get(request).copied());
                let mut after = seen;
                if let Some(stamp) = stamp {
                    let key = (stamp.client.0, stamp.sequence);
                    after = *first_asked.entry(key).or_insert(seen);
                }
                asked.insert(*request, Asked { after, query, stamp, txn });
            }
            Event::Answered { request, .. } if changes.contains(request) => {}
            Event::Answered { request, outcome, order_len } => {
                let asked = asked.get(request).ok_or("answered before it was asked")?;
                let upper = (*order_len).min(order.len());
                let prefix = judge_answer(asked, outcome, upper, order, states, counts)
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
    order: &[(TxnId, Option<Stamp>)],
    states: &[Rows],
    counts: &mut Counts,
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
            counts.add("reads", 1);
            (asked.after..=upper)
                .find(|prefix| rows::answer(&states[*prefix], query) == *answer)
                .ok_or_else(|| {
                    format!("{query:?} gave {answer:?}, as never in {}..={upper}", asked.after)
                })
        }
        Outcome::Failed(failure) => {
            match failure.happened() {
                Happened::No => {
                    counts.add("told no", 1);
                    if order.iter().any(|(txn, _)| Some(*txn) == asked.txn) {
                        return Err(format!("it happened, and its client was told {failure:?}"));
                    }
                }
                Happened::Unknown => counts.add("told unknown", 1),
            }
            Ok(0)
        }
    }
}
