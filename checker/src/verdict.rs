//! What a judge says.

use std::fmt;

use crate::history::{Deed, Record};
use crate::times::{Times, absolute};

/// What a judge says of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The history keeps the promise.
    Holds,
    /// It does not, and this shows it.
    Violated(Box<Violation>),
    /// The search was given up at its limit: neither is known.
    Undecided {
        /// What was searched, and how far.
        why: String,
    },
}

/// What a history was found to break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A read answered with what nobody wrote.
    Fabricated,
    /// A key does not behave as one register.
    Linearizability,
    /// Part of a transaction was seen without the rest.
    Atomicity,
    /// No order of the transactions explains what was seen.
    Serializability,
    /// Copies differ.
    Convergence,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fabricated => "value from nowhere",
            Self::Linearizability => "not linearizable",
            Self::Atomicity => "not atomic",
            Self::Serializability => "not strictly serializable",
            Self::Convergence => "copies differ",
        })
    }
}

/// A broken promise, with the evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// What is wrong, in a sentence.
    pub words: String,
    /// The operations that cannot all be true, by call time; few where the judge could tell them
    /// apart from the rest.
    pub operations: Vec<Record>,
    /// The places in `operations` of those that fit nowhere between the others; none where the judge
    /// cannot say.
    pub blamed: Vec<usize>,
    /// What differs between copies, where copies were judged.
    pub differences: Vec<Difference>,
}

/// A key that is not the same on all copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which.
    pub key: String,
    /// The name of each copy, and what the key is there.
    pub values: Vec<(String, Option<String>)>,
}

impl Verdict {
    /// Whether the history is known to keep the promise.
    #[must_use]
    pub fn holds(&self) -> bool {
        matches!(self, Self::Holds)
    }

    /// The violation, if one was found.
    #[must_use]
    pub fn violation(&self) -> Option<&Violation> {
        match self {
            Self::Violated(violation) => Some(violation),
            Self::Holds | Self::Undecided { .. } => None,
        }
    }

    pub(crate) fn violated(rule: Rule, words: String, mut operations: Vec<Record>) -> Self {
        operations.sort_by_key(|record| (record.call, record.ret, record.client));
        let (blamed, differences) = (Vec::new(), Vec::new());
        Self::Violated(Box::new(Violation { rule, words, operations, blamed, differences }))
    }

    /// The same, with what differs between copies.
    pub(crate) fn with_differences(mut self, differences: Vec<Difference>) -> Self {
        if let Self::Violated(violation) = &mut self {
            violation.differences = differences;
        }
        self
    }

    /// The same, with one of the operations named as the one that fits nowhere.
    pub(crate) fn blaming(mut self, record: &Record) -> Self {
        if let Self::Violated(violation) = &mut self {
            let place = violation.operations.iter().position(|operation| operation == record);
            violation.blamed.extend(place);
        }
        self
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Holds => f.write_str("holds"),
            Self::Violated(violation) => violation.fmt(f),
            Self::Undecided { why } => write!(f, "undecided: {why}"),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.words)?;
        let times = Times::of(&self.operations);
        let rows: Vec<[String; 3]> = self
            .operations
            .iter()
            .map(|record| {
                let client = format!("client {}", record.client);
                [client, Deed(record).to_string(), times.span(record)]
            })
            .collect();
        let width = |column: usize| {
            let widths = rows.iter().map(|row| row[column].chars().count());
            widths.max().unwrap_or(0).min(DEED_WIDTH_MAX)
        };
        let (clients, deeds) = (width(0), width(1));
        for (place, [client, deed, span]) in rows.iter().enumerate() {
            let mark = if self.blamed.contains(&place) { '>' } else { ' ' };
            write!(f, "\n{mark} {client:clients$}  {deed:deeds$}  {span}")?;
        }
        if times.origin > 0 {
            write!(f, "\n  (times since {} of the history)", absolute(times.origin))?;
        }
        Ok(())
    }
}

/// Longer operations push their times to the right.
const DEED_WIDTH_MAX: usize = 60;
