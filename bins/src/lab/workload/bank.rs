//! Accounts with balances: transfers move money, reads of all accounts must find all of it.

use std::collections::BTreeMap;

use kvorum_checker::{Ending, Operation, Precondition, Record};
use kvorum_replication::random::Random;

use super::{At, anywhere, one};

/// What each account has at first.
const OPENING_BALANCE: u64 = 100;

/// A transfer moves at most so much.
const AMOUNT_MAX: u64 = 5;

/// Out of a hundred, reads of all accounts.
const READS: u64 = 40;

/// All accounts.
pub(super) fn keys(count: u32) -> Vec<String> {
    (0..count).map(|number| format!("account-{number:03}")).collect()
}

/// What all accounts hold together.
pub(in crate::lab) fn total(accounts: u32) -> u64 {
    u64::from(accounts) * OPENING_BALANCE
}

/// The balance in a value; the rest of the value says who wrote it.
pub(in crate::lab) fn balance(value: &str) -> Option<u64> {
    value.split_once(' ')?.0.parse().ok()
}

/// What one client asks.
#[derive(Debug)]
pub(in crate::lab) struct Bank {
    client: u64,
    keys: Vec<String>,
    /// The last value that this client saw of each account.
    seen: BTreeMap<String, String>,
    made: u64,
}

impl Bank {
    pub(super) fn new(client: u64, accounts: u32) -> Self {
        Self { client, keys: keys(accounts), seen: BTreeMap::new(), made: 0 }
    }

    pub(super) fn opening(&self) -> Operation {
        let value = |(key, number): (&String, u32)| {
            (key.clone(), Some(format!("{OPENING_BALANCE} opening.{number}")))
        };
        let writes = self.keys.iter().zip(0..).map(value).collect();
        Operation::Transact { preconditions: Vec::new(), writes }
    }

    pub(super) fn next(&mut self, random: &mut Random) -> (At, Operation) {
        let read = random.below(100) < READS || self.seen.len() < self.keys.len();
        let transfer = if read { None } else { self.transfer(random) };
        match transfer {
            Some(transfer) => (At::Entrance, transfer),
            None => {
                let (start, end) = ("account-".to_owned(), Some("account.".to_owned()));
                (anywhere(random), Operation::Scan { start, end, rows: Vec::new(), more: false })
            }
        }
    }

    /// From one account to another, if both are as this client saw them, and there is enough.
    fn transfer(&mut self, random: &mut Random) -> Option<Operation> {
        let from = one(&self.keys, random).clone();
        let to = one(&self.keys, random).clone();
        let (had, got) = (self.seen.get(&from)?.clone(), self.seen.get(&to)?.clone());
        let amount = 1 + random.below(AMOUNT_MAX);
        let left = balance(&had)?.checked_sub(amount)?;
        let grown = balance(&got)? + amount;
        if from == to {
            return None;
        }
        self.made += 1;
        let mark = format!("{}.{}", self.client, self.made);
        let writes = vec![
            (from.clone(), Some(format!("{left} {mark}"))),
            (to.clone(), Some(format!("{grown} {mark}"))),
        ];
        let preconditions = vec![Precondition::Equals(from, had), Precondition::Equals(to, got)];
        Some(Operation::Transact { preconditions, writes })
    }

    pub(super) fn learn(&mut self, record: &Record) {
        let told = match &record.operation {
            Operation::Scan { rows, .. } => rows.clone(),
            Operation::Transact { writes, .. } => writes
                .iter()
                .filter_map(|(key, value)| Some((key.clone(), value.clone()?)))
                .collect(),
            Operation::Get { .. }
            | Operation::GetMany { .. }
            | Operation::Put { .. }
            | Operation::Delete { .. }
            | Operation::CompareAndSet { .. }
            | Operation::MicroOperations(_) => Vec::new(),
        };
        match record.ending {
            Ending::Done => self.seen.extend(told),
            // Somebody was faster: read before the next transfer.
            Ending::PreconditionFailed(_) => self.seen.clear(),
            Ending::NotDone | Ending::Unknown => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfers_keep_the_total() {
        let mut bank = Bank::new(1, 4);
        let mut random = Random::new(5);
        let mut accounts: BTreeMap<String, String> = BTreeMap::new();
        let mut transfers = 0;
        let mut next = Some(bank.opening());
        for _ in 0..500 {
            let mut operation = next.take().unwrap_or_else(|| bank.next(&mut random).1);
            match &mut operation {
                Operation::Scan { rows, .. } => *rows = accounts.clone().into_iter().collect(),
                Operation::Transact { preconditions, writes } => {
                    for precondition in preconditions {
                        let Precondition::Equals(key, value) = precondition else { panic!() };
                        assert_eq!(accounts.get(key), Some(&*value));
                    }
                    transfers += 1;
                    accounts.extend(writes.clone().into_iter().map(|(k, v)| (k, v.unwrap())));
                }
                other => panic!("{other}"),
            }
            let sum: u64 = accounts.values().map(|value| balance(value).unwrap()).sum();
            assert_eq!((accounts.len(), sum), (4, total(4)));
            let (client, call, ret, ending) = (1, 1, 2, Ending::Done);
            bank.learn(&Record { client, call, ret, ending, operation });
        }
        assert!(transfers > 100, "{transfers}");
    }
}
