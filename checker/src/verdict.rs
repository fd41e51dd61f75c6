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

/// What a history was found to break; of transactions, the plainest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// A read answered with what nobody wrote.
    Fabricated,
    /// A transaction contradicts what it had itself read or written before.
    Internal,
    /// An element is in a list more often than it was appended.
    DuplicateElement,
    /// No one order of a list's elements is what all reads of it show.
    IncompatibleOrder,
    /// Adya's G1a: a read found what a transaction wrote that did not happen.
    AbortedRead,
    /// Adya's G1b: a read found what its writer overwrote in the same transaction.
    IntermediateRead,
    /// Two transactions read one version and both overwrote it.
    LostUpdate,
    /// Transactions depend on one another in a cycle.
    Cycle(Cycle),
    /// A key does not behave as one register.
    Linearizability,
    /// Part of a transaction was seen without the rest.
    Atomicity,
    /// No order of the transactions explains what was seen.
    Serializability,
    /// What must stay the same in sum did not.
    Conservation,
    /// A client was not given what its session promises.
    Session(Guarantee),
    /// No order of writes gives clients all four session guarantees together.
    Sessions,
    /// Copies differ.
    Convergence,
}

/// A cycle of dependencies, by the least that it needs, in Adya's words and Elle's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cycle {
    /// Whether it needs that a transaction had returned before another was called.
    pub realtime: bool,
    /// Its dependencies.
    pub kind: CycleKind,
}

/// Which dependencies make a cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CycleKind {
    /// Writes that overwrite one another.
    G0,
    /// Also reads of what others wrote.
    G1c,
    /// Also one anti-dependency: a read of what another overwrote.
    GSingle,
    /// More than one anti-dependency, each on an item (not on a predicate).
    G2Item,
}

/// A session guarantee (Terry et al., PDIS 1994).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guarantee {
    /// A client's reads reflect its own earlier writes.
    ReadYourWrites,
    /// A client's reads reflect what its earlier reads reflected.
    MonotonicReads,
    /// A client's writes come in the order in which it wrote them.
    MonotonicWrites,
    /// A client's writes come after those that it had read before.
    WritesFollowReads,
}

impl Guarantee {
    /// All four.
    pub const ALL: [Self; 4] = [
        Self::ReadYourWrites,
        Self::MonotonicReads,
        Self::MonotonicWrites,
        Self::WritesFollowReads,
    ];
}

impl fmt::Display for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadYourWrites => "read your writes",
            Self::MonotonicReads => "monotonic reads",
            Self::MonotonicWrites => "monotonic writes",
            Self::WritesFollowReads => "writes follow reads",
        })
    }
}

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            CycleKind::G0 => "G0",
            CycleKind::G1c => "G1c",
            CycleKind::GSingle => "G-single",
            CycleKind::G2Item => "G2-item",
        })?;
        f.write_str(if self.realtime { "-realtime" } else { "" })
    }
}

impl Rule {
    /// Whether the words call the operations T1, T2 and so on.
    fn names_transactions(self) -> bool {
        match self {
            Self::Internal
            | Self::DuplicateElement
            | Self::IncompatibleOrder
            | Self::AbortedRead
            | Self::IntermediateRead
            | Self::LostUpdate
            | Self::Cycle(_) => true,
            Self::Fabricated
            | Self::Linearizability
            | Self::Atomicity
            | Self::Serializability
            | Self::Conservation
            | Self::Session(_)
            | Self::Sessions
            | Self::Convergence => false,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fabricated => "value from nowhere",
            Self::Internal => "internal inconsistency",
            Self::DuplicateElement => "duplicate element",
            Self::IncompatibleOrder => "incompatible order",
            Self::AbortedRead => "G1a (aborted read)",
            Self::IntermediateRead => "G1b (intermediate read)",
            Self::LostUpdate => "lost update",
            Self::Cycle(cycle) => return cycle.fmt(f),
            Self::Linearizability => "not linearizable",
            Self::Atomicity => "not atomic",
            Self::Serializability => "not strictly serializable",
            Self::Conservation => "not conserved",
            Self::Session(guarantee) => return write!(f, "not {guarantee}"),
            Self::Sessions => "not the session guarantees together",
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
            .zip(1..)
            .map(|(record, place)| {
                let name = if self.rule.names_transactions() {
                    format!("T{place} ")
                } else {
                    String::new()
                };
                let client = format!("{name}client {}", record.client);
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
