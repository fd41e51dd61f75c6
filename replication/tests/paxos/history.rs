//! The judge of what clients were told. The order of the slots is known, so it has to explain every
//! answer, within real time.

use std::collections::BTreeMap;

use kvorum_replication::{
    Failure, Happened, Operation, Outcome, Query, RequestId, Stamp, Transaction, Write,
};

use crate::ghost::{Entry, Fate};
use crate::harness::cluster::answered_once;
use crate::harness::rows;
use crate::harness::schedule::Counts;
use crate::room::{Cluster, Event};

/// Judges a cluster that has come to rest.
pub(crate) fn judge(cluster: &Cluster, counts: &mut Counts) -> Result<(), String> {
    let ghost = &cluster.ghost;
    if let Some(what) = &ghost.wrong {
        return Err(what.clone());
    }
    answered_once(&cluster.events)?;
    real_time(cluster, counts)
}

/// A request as it came.
struct Asked {
    /// Slots that somebody had seen the effect of before.
    after: usize,
    query: Option<(Query, bool)>,
    stamp: Option<Stamp>,
    transaction: Option<Transaction>,
}

impl Asked {
    fn is(&self, entry: &Entry) -> bool {
        match (self.stamp, &self.transaction) {
            (Some(stamp), _) => entry.stamp == Some((stamp.client, stamp.sequence)),
            (None, Some(transaction)) => {
                entry.stamp.is_none()
                    && is_unique(transaction)
                    && *entry.transaction == *transaction
            }
            (None, None) => false,
        }
    }
}

/// Every put has a value of its own, so a transaction with one is found again.
fn is_unique(transaction: &Transaction) -> bool {
    transaction.writes.iter().any(|write| matches!(write, Write::Put(..)))
}

/// Linearizability: each answer fits a prefix of the order that is not shorter than what anybody had
/// seen before the request, and not longer than what was chosen before the answer. Taking the
/// shortest that fits asks the least of those who come later, so it errs never.
fn real_time(cluster: &Cluster, counts: &mut Counts) -> Result<(), String> {
    counts.add("slots", cluster.ghost.chosen_without_gap() as u64);
    let mut asked: BTreeMap<RequestId, Asked> = BTreeMap::new();
    let mut first_asked: BTreeMap<(u64, u64), usize> = BTreeMap::new();
    let mut seen = 0;
    for event in &cluster.events {
        match event {
            Event::Asked { request, operation, .. } => {
                let (query, stamp, transaction) = match operation {
                    Operation::Read(query) => (Some((query.clone(), false)), None, None),
                    Operation::ReadStale(query) => (Some((query.clone(), true)), None, None),
                    Operation::Transact { stamp, transaction } => {
                        (None, *stamp, Some(transaction.clone()))
                    }
                    Operation::OpenSession
                    | Operation::ChangeMembers { .. }
                    | Operation::ChangeReplicas(_) => (None, None, None),
                };
                let mut after = seen;
                if let Some(stamp) = stamp {
                    let key = (stamp.client.0, stamp.sequence);
                    after = *first_asked.entry(key).or_insert(seen);
                }
                asked.insert(*request, Asked { after, query, stamp, transaction });
            }
            Event::Answered { request, outcome, order_len } => {
                let asked = asked.get(request).ok_or("answered before it was asked")?;
                let prefix = judge_answer(cluster, asked, outcome, *order_len, counts)
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
    cluster: &Cluster,
    asked: &Asked,
    outcome: &Outcome,
    chosen: usize,
    counts: &mut Counts,
) -> Result<usize, String> {
    let ghost = &cluster.ghost;
    match outcome {
        Outcome::Session(_) => Ok(0),
        Outcome::Committed => {
            counts.add("commits", 1);
            let is_known =
                asked.stamp.is_some() || asked.transaction.as_ref().is_some_and(is_unique);
            if !is_known {
                return Ok(0);
            }
            let is_it = |entry: &&Entry| entry.fate == Fate::Committed && asked.is(entry);
            let slot = ghost.order.iter().find(is_it).ok_or("an acknowledged write is lost")?.slot;
            if slot <= asked.after || slot > chosen {
                return Err(format!("slot {slot} is not in {}..{chosen}", asked.after));
            }
            Ok(slot)
        }
        Outcome::Answer(answer) => {
            let (query, is_stale) = asked.query.as_ref().ok_or("an answer to no question")?;
            let from = if *is_stale { 0 } else { asked.after };
            let fits = |prefix: &usize| rows::answer(&ghost.states[*prefix], query) == *answer;
            let prefix = (from..=chosen).find(fits).ok_or_else(|| {
                format!("{query:?} gave {answer:?}, as never in {from}..={chosen}")
            })?;
            if *is_stale {
                counts.add("stale reads", 1);
                return Ok(0);
            }
            counts.add("reads", 1);
            Ok(prefix)
        }
        Outcome::Failed(failure) => {
            match failure.happened() {
                Happened::No => {
                    counts.add("told no", 1);
                    // Of a write with a stamp another try may have happened, but not if it was
                    // refused in its turn.
                    let is_final = asked.stamp.is_none()
                        || matches!(failure, Failure::PreconditionFailed { .. });
                    let is_it = |entry: &Entry| entry.fate == Fate::Committed && asked.is(entry);
                    if is_final && ghost.order.iter().any(is_it) {
                        return Err(format!("it happened, and its client was told {failure:?}"));
                    }
                }
                Happened::Unknown => counts.add("told unknown", 1),
            }
            Ok(0)
        }
    }
}
