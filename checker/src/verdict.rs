//! What a judge says.

use std::fmt;

use crate::history::Record;

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
        Self::Violated(Box::new(Violation { rule, words, operations }))
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
        for operation in &self.operations {
            write!(f, "\n  {operation}")?;
        }
        Ok(())
    }
}
