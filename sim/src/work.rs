//! Two kinds of work with a sense of its own, beside the mixed one: a bank, and lists.
//!
//! Both are transactions that read what they change: on the wire, preconditions that name the values
//! read before.

use kvorum_checker::{Found, History, MicroOperation, Operation, Precondition, Record};

use crate::client::Client;
use crate::plan::{ClientKnobs, Work};

/// What an account holds before anybody touched it.
const BALANCE: i64 = 100;

impl Client {
    /// Moves money from one account to another, if both still hold what this client thinks.
    pub(crate) fn transfer(&mut self, knobs: &ClientKnobs) -> Operation {
        let (from, to) = (self.key(knobs), self.key(knobs));
        let amount = i64::try_from(self.chance.between(1, 20)).unwrap_or(0);
        let mut preconditions = Vec::new();
        let mut writes = Vec::new();
        // From an account to itself nothing moves.
        let moves = if from == to { vec![(from, 0)] } else { vec![(from, -amount), (to, amount)] };
        for (account, amount) in moves {
            let known = self.known.get(&account).cloned().flatten();
            let balance = balance(known.as_deref()).unwrap_or(BALANCE) + amount;
            preconditions.push(still(&account, known));
            writes.push((account, Some(format!("{balance} {}", self.short_value()))));
        }
        Operation::Transact { preconditions, writes }
    }

    /// Appends to some lists, if they still are what this client thinks.
    pub(crate) fn append(&mut self, knobs: &ClientKnobs) -> Operation {
        let element = self.short_value();
        let mut preconditions = Vec::new();
        let mut writes = Vec::new();
        for list in self.some_keys(knobs) {
            let known = self.known.get(&list).cloned().flatten();
            let longer = match &known {
                Some(elements) => format!("{elements} {element}"),
                None => element.clone(),
            };
            preconditions.push(still(&list, known));
            writes.push((list, Some(longer)));
        }
        Operation::Transact { preconditions, writes }
    }
}

fn still(key: &str, known: Option<String>) -> Precondition {
    match known {
        Some(value) => Precondition::Equals(key.to_owned(), value),
        None => Precondition::Absent(key.to_owned()),
    }
}

/// The balance that a value begins with; none if it is no account's.
fn balance(value: Option<&str>) -> Option<i64> {
    match value {
        None => Some(BALANCE),
        Some(value) => value.split(' ').next()?.parse().ok(),
    }
}

/// Why a look at the whole bank cannot be right, if it cannot.
pub(crate) fn money_is_wrong(knobs: &ClientKnobs, record: &Record) -> Option<String> {
    let Operation::Scan { start, end: None, rows, more: false } = &record.operation else {
        return None;
    };
    if knobs.work != Work::Bank || !start.is_empty() {
        return None;
    }
    let accounts = i64::try_from(knobs.keys).unwrap_or(i64::MAX);
    let untouched = accounts - i64::try_from(rows.len()).unwrap_or(i64::MAX);
    let held: Option<i64> = rows.iter().map(|(_, value)| balance(Some(value))).sum();
    let total = held.map(|held| held + untouched * BALANCE);
    match total {
        Some(total) if total == accounts * BALANCE => None,
        _ => Some(format!("all accounts together hold {total:?}, not {}", accounts * BALANCE)),
    }
}

/// A history of lists as such: what a value says is the list, and a changed value an append.
pub(crate) fn as_lists(history: &History) -> History {
    let list = |value: &Option<String>| {
        let elements = value.iter().flat_map(|value| value.split(' '));
        Found::List(elements.map(str::to_owned).collect())
    };
    let read = |key: &String, value: &Option<String>| MicroOperation::Read {
        key: key.clone(),
        found: list(value),
    };
    let convert = |record: &Record| {
        let operations = match &record.operation {
            Operation::Get { key, result } => vec![read(key, result)],
            Operation::GetMany { keys, results } => {
                keys.iter().zip(results).map(|(key, value)| read(key, value)).collect()
            }
            Operation::Scan { rows, .. } => {
                rows.iter().map(|(key, value)| read(key, &Some(value.clone()))).collect()
            }
            Operation::Transact { preconditions, writes } => {
                let was = preconditions.iter().map(|precondition| match precondition {
                    Precondition::Equals(key, value) => read(key, &Some(value.clone())),
                    Precondition::Absent(key) | Precondition::Present(key) => read(key, &None),
                });
                let appends = writes.iter().map(|(key, value)| {
                    let element = value.as_deref().and_then(|value| value.rsplit(' ').next());
                    let value = element.unwrap_or_default().to_owned();
                    MicroOperation::Append { key: key.clone(), value }
                });
                was.chain(appends).collect()
            }
            other => return Record { operation: other.clone(), ..record.clone() },
        };
        Record { operation: Operation::MicroOperations(operations), ..record.clone() }
    };
    history.iter().map(convert).collect()
}
