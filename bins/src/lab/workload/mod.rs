//! What clients ask of a cluster under trial.
//!
//! Every value is written once in a run, so that a read says whose write it saw. Keys are few, so
//! that clients meet.

mod bank;
mod register;

use std::fmt;
use std::str::FromStr;

use kvorum_checker::{Operation, Record};
use kvorum_replication::random::Random;

pub(super) use self::bank::{Bank, balance, total};
pub(super) use self::register::{Register, is_kept};

/// A sort of work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Workload {
    /// Puts, deletes, compare-and-sets, transactions, reads and scans over few keys, and puts of
    /// keys that nobody touches again, which must all be there at the end.
    #[default]
    Register,
    /// Money moved between accounts, which must not grow or shrink.
    Bank,
}

impl Workload {
    const ALL: [Self; 2] = [Self::Register, Self::Bank];

    /// As the command line calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Bank => "bank",
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Workload {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|workload| workload.name() == text);
        found.ok_or_else(|| format!("`{text}` is none of register, bank"))
    }
}

/// Where a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// Where writes are taken: at the coordinator, or at whichever replica answers.
    Entrance,
    /// At one replica, always the same, which answers reads.
    Replica,
}

/// Makes up what one client asks.
#[derive(Debug)]
pub(super) enum Work {
    Register(Register),
    Bank(Bank),
}

impl Work {
    /// Of one client, over so many keys.
    pub(super) fn new(workload: Workload, client: u64, keys: u32) -> Self {
        match workload {
            Workload::Register => Self::Register(Register::new(client, keys)),
            Workload::Bank => Self::Bank(Bank::new(client, keys)),
        }
    }

    /// What must be there before clients begin.
    pub(super) fn opening(&self) -> Option<Operation> {
        match self {
            Self::Register(_) => None,
            Self::Bank(bank) => Some(bank.opening()),
        }
    }

    /// The next operation, its answers still empty, and where to ask.
    pub(super) fn next(&mut self, random: &mut Random) -> (At, Operation) {
        match self {
            Self::Register(register) => register.next(random),
            Self::Bank(bank) => bank.next(random),
        }
    }

    /// What became of an operation.
    pub(super) fn learn(&mut self, record: &Record) {
        match self {
            Self::Register(register) => register.learn(record),
            Self::Bank(bank) => bank.learn(record),
        }
    }
}

/// The keys that several clients use, for the reads at the end.
pub(super) fn shared_keys(workload: Workload, keys: u32) -> Vec<String> {
    match workload {
        Workload::Register => register::keys(keys),
        Workload::Bank => bank::keys(keys),
    }
}

/// One of a slice.
fn one<'a, T>(of: &'a [T], random: &mut Random) -> &'a T {
    &of[usize::try_from(random.below(of.len() as u64)).expect("it is below a length")]
}

/// A read goes where writes go, or straight to a replica.
fn anywhere(random: &mut Random) -> At {
    match random.below(2) {
        0 => At::Entrance,
        _ => At::Replica,
    }
}
