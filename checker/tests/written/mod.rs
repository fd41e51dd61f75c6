//! Histories as short lines, for tests: `CLIENT CALL RET OPERATION [-> ANSWER]`.
//!
//! `RET` is `?` if the outcome is unknown; a leading `!` on the operation says it did not happen,
//! `!0` that its precondition 0 failed. `-` stands for an absent key. Transactions of
//! micro-operations are written `append x 1, read x [1 2], write y 3, read y 3, read z`.

use kvorum_checker::{Ending, Found, History, MicroOperation, Operation, Precondition, Record};

/// Reads such lines; panics on nonsense, which is a mistake in the test.
pub(crate) fn history(text: &str) -> History {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(record).collect()
}

fn record(line: &str) -> Record {
    let (asked, answer) = match line.split_once("->") {
        Some((asked, answer)) => (asked, Some(answer.trim())),
        None => (line, None),
    };
    let words: Vec<&str> = asked.split_whitespace().collect();
    let [client, call, ret, operation, rest @ ..] = &words[..] else { panic!("short: {line}") };
    let (client, call) = (client.parse().unwrap(), call.parse().unwrap());
    let (mut ending, ret) = match *ret {
        "?" => (Ending::Unknown, call),
        ret => (Ending::Done, ret.parse().unwrap()),
    };
    let mut operation = *operation;
    if let Some(name) = operation.strip_prefix('!') {
        operation = name.trim_start_matches(|c: char| c.is_ascii_digit());
        let index = &name[..name.len() - operation.len()];
        ending = index.parse().map_or(Ending::NotDone, Ending::PreconditionFailed);
    }
    let operation = parse(operation, rest, answer).unwrap_or_else(|| panic!("nonsense: {line}"));
    Record { client, call, ret, ending, operation }
}

fn parse(operation: &str, rest: &[&str], answer: Option<&str>) -> Option<Operation> {
    let words =
        |text: &str| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
    Some(match (operation, rest) {
        ("get", [key]) => Operation::Get { key: key.to_string(), result: answer.and_then(value) },
        ("mget", keys) => Operation::GetMany {
            keys: keys.iter().map(|key| key.to_string()).collect(),
            results: words(answer?).iter().map(|word| value(word)).collect(),
        },
        ("scan", [start, end]) => Operation::Scan {
            start: start.to_string(),
            end: value(end),
            rows: words(answer?)
                .iter()
                .filter(|word| *word != "more")
                .map(|row| pair(row).map(|(k, v)| (k, v.unwrap())).unwrap())
                .collect(),
            more: answer?.ends_with("more"),
        },
        ("put", [row]) => {
            let (key, value) = pair(row)?;
            Operation::Put { key, value: value? }
        }
        ("del", [key]) => Operation::Delete { key: key.to_string() },
        ("cas", [key, expected, new]) => Operation::CompareAndSet {
            key: key.to_string(),
            expected: value(expected),
            value: new.to_string(),
        },
        ("txn", parts) => {
            let (mut preconditions, mut writes) = (Vec::new(), Vec::new());
            for part in parts {
                match part.strip_prefix("if:") {
                    Some(check) => preconditions.push(precondition(check)?),
                    None => writes.push(pair(part)?),
                }
            }
            Operation::Transact { preconditions, writes }
        }
        ("append" | "read" | "write", _) => {
            let text = format!("{operation} {}", rest.join(" "));
            Operation::MicroOperations(text.split(',').map(micro).collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

fn micro(text: &str) -> Option<MicroOperation> {
    let (verb, rest) = text.trim().split_once(' ')?;
    let (key, argument) = match rest.trim().split_once(' ') {
        Some((key, argument)) => (key.to_owned(), Some(argument.trim())),
        None => (rest.to_owned(), None),
    };
    Some(match (verb, argument) {
        ("append", Some(added)) => MicroOperation::Append { key, value: added.to_owned() },
        ("write", Some(new)) => MicroOperation::Write { key, value: value(new) },
        ("read", None) => MicroOperation::Read { key, found: Found::Unanswered },
        ("read", Some(found)) => {
            let list = found.strip_prefix('[').and_then(|found| found.strip_suffix(']'));
            let found = match list {
                Some(list) => Found::List(list.split_whitespace().map(str::to_owned).collect()),
                None => Found::Register(value(found)),
            };
            MicroOperation::Read { key, found }
        }
        _ => return None,
    })
}

/// `k` must be there, `k=-` must not, `k=v` must be v.
fn precondition(text: &str) -> Option<Precondition> {
    Some(match text.split_once('=') {
        None => Precondition::Present(text.to_owned()),
        Some((key, "-")) => Precondition::Absent(key.to_owned()),
        Some((key, value)) => Precondition::Equals(key.to_owned(), value.to_owned()),
    })
}

fn pair(text: &str) -> Option<(String, Option<String>)> {
    let (key, new) = text.split_once('=')?;
    Some((key.to_owned(), value(new)))
}

fn value(text: &str) -> Option<String> {
    (text != "-").then(|| text.to_owned())
}
