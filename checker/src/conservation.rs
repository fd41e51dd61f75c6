//! What is moved is neither made nor lost: a bank whose transfers keep the sum of all accounts.
//!
//! Every read of all accounts at one moment must find the same sum. It is the plainest test of
//! transactions, since it needs no order of anything: a sum that is wrong is wrong.
//!
//! **Input.** The accounts are all keys that some read of several keys spoke of, and their values
//! are whole numbers. A read counts if it covers them all, and finds at least one: before that the
//! bank is not open. An account that is absent holds nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::history::{Ending, Found, MicroOperation, Operation, Precondition, Record};
use crate::verdict::{Rule, Verdict};

/// Writers of what was read that are shown if none of them was seen in part.
const WRITERS_SHOWN_MAX: usize = 6;

/// Judges every read of all accounts. The sum is the one given, or else the one that most reads
/// found, and of those that are as frequent the one that was found first.
#[must_use]
pub fn conserved(history: &[Record], total: Option<i128>) -> Verdict {
    let mut reads: Vec<(&Record, Accounts<'_>)> =
        history.iter().filter_map(|record| Some((record, Accounts::read(record)?))).collect();
    reads.sort_by_key(|(record, _)| (record.call, record.ret, record.client));
    let accounts: BTreeSet<&str> =
        reads.iter().flat_map(|(_, accounts)| accounts.keys.keys().copied()).collect();
    reads.retain(|(_, read)| read.is_open() && accounts.iter().all(|key| read.covers(key)));
    let mut sums = Vec::with_capacity(reads.len());
    for (record, read) in &reads {
        match read.sum() {
            Ok(sum) => sums.push(sum),
            Err((key, value)) => {
                let words = format!("account {key} was {value:?}, which is no whole number");
                let operations = vec![(*record).clone()];
                return Verdict::violated(Rule::Conservation, words, operations);
            }
        }
    }
    let Some(total) = total.or_else(|| most_frequent(&sums)) else {
        let why = format!("no read covered all {} accounts", accounts.len());
        return Verdict::Undecided { why };
    };
    match sums.iter().position(|sum| *sum != total) {
        None => Verdict::Holds,
        Some(place) => {
            let (record, read) = &reads[place];
            explain(history, record, read, sums[place], total).blaming(record)
        }
    }
}

fn most_frequent(sums: &[i128]) -> Option<i128> {
    let mut counts: BTreeMap<i128, (usize, usize)> = BTreeMap::new();
    for (place, sum) in sums.iter().enumerate() {
        counts.entry(*sum).or_insert((0, place)).0 += 1;
    }
    let first = |place: usize| std::cmp::Reverse(place);
    counts.into_iter().max_by_key(|(_, (count, place))| (*count, first(*place))).map(|(sum, _)| sum)
}

/// What a read found of several keys at one moment.
struct Accounts<'a> {
    keys: BTreeMap<&'a str, Option<&'a str>>,
    /// The range of a scan: all its keys are known, also those that were absent.
    range: Option<(&'a str, Option<&'a str>, bool)>,
}

impl<'a> Accounts<'a> {
    fn read(record: &'a Record) -> Option<Self> {
        if record.ending != Ending::Done {
            return None;
        }
        match &record.operation {
            Operation::GetMany { keys, results } => {
                let keys = keys.iter().zip(results).map(|(k, r)| (k.as_str(), r.as_deref()));
                Some(Self { keys: keys.collect(), range: None })
            }
            Operation::Scan { start, end, rows, more } => {
                let keys = rows.iter().map(|(k, v)| (k.as_str(), Some(v.as_str())));
                Some(Self { keys: keys.collect(), range: Some((start, end.as_deref(), *more)) })
            }
            Operation::MicroOperations(operations) if record.operation.is_read() => {
                let keys = operations.iter().filter_map(|operation| match operation {
                    MicroOperation::Read { key, found: Found::Register(value) } => {
                        Some((key.as_str(), value.as_deref()))
                    }
                    MicroOperation::Read { .. }
                    | MicroOperation::Append { .. }
                    | MicroOperation::Write { .. } => None,
                });
                Some(Self { keys: keys.collect(), range: None })
            }
            Operation::MicroOperations(_)
            | Operation::Get { .. }
            | Operation::Put { .. }
            | Operation::Delete { .. }
            | Operation::CompareAndSet { .. }
            | Operation::Transact { .. } => None,
        }
    }

    fn is_open(&self) -> bool {
        self.keys.values().any(Option::is_some)
    }

    fn covers(&self, key: &str) -> bool {
        if self.keys.contains_key(key) {
            return true;
        }
        self.range.is_some_and(|(start, end, more)| {
            let last = self.keys.keys().next_back();
            let is_before_end = end.is_none_or(|end| key < end);
            start <= key && is_before_end && (!more || last.is_some_and(|last| key <= *last))
        })
    }

    fn sum(&self) -> Result<i128, (&'a str, &'a str)> {
        self.keys.iter().try_fold(0i128, |sum, (key, value)| match value {
            None => Ok(sum),
            Some(text) => {
                let value: i64 = text.parse().map_err(|_| (*key, *text))?;
                Ok(sum + i128::from(value))
            }
        })
    }
}

fn explain(
    history: &[Record],
    record: &Record,
    read: &Accounts<'_>,
    sum: i128,
    total: i128,
) -> Verdict {
    let difference = if sum < total {
        format!("{} less than", total - sum)
    } else {
        format!("{} more than", sum - total)
    };
    let mut words = format!(
        "client {} found {sum} in all accounts, {difference} the {total} there are",
        record.client
    );
    let mut operations = vec![record.clone()];
    if let Some(torn) = torn(history, record, read) {
        let Torn { transfer, seen, missed } = torn;
        words.push_str(&format!(
            "; it saw {seen} of client {}'s {}, and {missed}, as it was before that",
            transfer.client, transfer.operation,
        ));
        operations.push(transfer.clone());
    } else {
        words.push_str("; beside it is who wrote what it found");
        operations.extend(writers(history, record, read).into_iter().cloned());
    }
    Verdict::violated(Rule::Conservation, words, operations)
}

/// A transfer of which the read saw one side.
struct Torn<'a> {
    transfer: &'a Record,
    seen: String,
    missed: String,
}

fn torn<'a>(history: &'a [Record], record: &Record, read: &Accounts<'_>) -> Option<Torn<'a>> {
    let row = |key: &str| {
        format!("{key}={}", read.keys.get(key).copied().flatten().unwrap_or("(absent)"))
    };
    let candidates = may_be_seen(history, record).filter_map(|transfer| {
        let Operation::Transact { preconditions, writes } = &transfer.operation else {
            return None;
        };
        let found = |key: &str| read.keys.get(key).copied().flatten();
        let (seen, _) =
            writes.iter().find(|(key, value)| value.is_some() && found(key) == value.as_deref())?;
        let missed = preconditions.iter().find_map(|precondition| match precondition {
            Precondition::Equals(key, before) => {
                let after = writes.iter().rfind(|(written, _)| written == key)?.1.as_deref();
                let is_missed = found(key) == Some(before) && after != Some(before);
                is_missed.then_some(key)
            }
            Precondition::Absent(_) | Precondition::Present(_) => None,
        })?;
        Some(Torn { transfer, seen: row(seen), missed: row(missed) })
    });
    // Values come back in a bank: the transfer nearest to the read is the likeliest.
    candidates.min_by_key(|torn| torn.transfer.call.abs_diff(record.call))
}

/// For each account the last one that wrote what was found there.
fn writers<'a>(history: &'a [Record], record: &Record, read: &Accounts<'_>) -> Vec<&'a Record> {
    let mut last: HashMap<&str, &Record> = HashMap::new();
    for writer in may_be_seen(history, record) {
        for (key, value) in written(&writer.operation) {
            if read.keys.get(key).copied().flatten() == Some(value)
                && last.get(key).is_none_or(|other| other.call < writer.call)
            {
                last.insert(key, writer);
            }
        }
    }
    let mut writers: Vec<&Record> = last.into_values().collect();
    writers.sort_by_key(|writer| (std::cmp::Reverse(writer.call), writer.client));
    writers.dedup();
    writers.truncate(WRITERS_SHOWN_MAX);
    writers
}

/// What may have happened before the read was over.
fn may_be_seen<'a>(history: &'a [Record], record: &Record) -> impl Iterator<Item = &'a Record> {
    let until = record.ret;
    history.iter().filter(move |other| {
        matches!(other.ending, Ending::Done | Ending::Unknown) && other.call <= until
    })
}

fn written(operation: &Operation) -> Vec<(&str, &str)> {
    match operation {
        Operation::Put { key, value } | Operation::CompareAndSet { key, value, .. } => {
            vec![(key, value)]
        }
        Operation::Transact { writes, .. } => {
            writes.iter().filter_map(|(key, value)| Some((&**key, value.as_deref()?))).collect()
        }
        Operation::MicroOperations(operations) => operations
            .iter()
            .filter_map(|operation| match operation {
                MicroOperation::Write { key, value: Some(value) } => Some((&**key, &**value)),
                MicroOperation::Write { .. }
                | MicroOperation::Append { .. }
                | MicroOperation::Read { .. } => None,
            })
            .collect(),
        Operation::Get { .. }
        | Operation::GetMany { .. }
        | Operation::Scan { .. }
        | Operation::Delete { .. } => Vec::new(),
    }
}
