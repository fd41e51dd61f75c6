//! Transactions that depend on one another in a cycle, and what else no order of them explains.
//!
//! After Adya, *Weak Consistency: A Generalized Theory and Optimistic Implementations for Distributed
//! Transactions* (MIT, 1999), chapters 3 and 4, and Kingsbury and Alvaro, *Elle: Inferring Isolation
//! Anomalies from Experimental Observations* (VLDB 2020).
//!
//! ```text
//! Transactions ─► Facts: who happened, what each read of others and left behind    anomalies of values
//!                   └► Dependencies: ww, wr, rw, real time        lists, registers: order of versions
//!                        └► shortest cycle of each class ─► words
//! ```
//!
//! **Promise.** What is reported is real: whatever an edge says must hold in every order of the
//! transactions that explains what was read, so that a cycle shows that there is none. What is not
//! reported need not be right: the order of versions is known for lists as far as somebody read
//! them, and for registers as far as unique values, read-modify-writes and time tell it. On lists
//! that are all read at the end, nothing is missed.
//!
//! **Unknown outcomes.** A transaction whose outcome nobody told counts as happened if somebody read
//! something of it that only it wrote; else it is left out, which is always possible.
//!
//! **Departures.** Elle's G2 with predicates is not looked for; a scan is a read of every key of its
//! range. What Adya calls a direct anti-dependency may here skip versions in between: it is then one
//! followed by overwrites. A version order that rests on times makes a cycle "-realtime".
//!
//! **Cost.** As many nodes and edges as micro-operations, but for the absent keys of scans; time
//! `n log n`.

mod dependencies;
mod elements;
pub(crate) mod facts;
pub(crate) mod finding;
pub(crate) mod graph;
mod lists;
mod registers;
mod shortest;
pub(crate) mod transactions;
mod words;

pub use transactions::Transactions;

use crate::history::Record;
use crate::verdict::Verdict;
use facts::Facts;
use finding::Finding;

/// What an order of transactions must respect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// What was read.
    Serializable,
    /// What was read, and that who had returned comes before who was called later.
    StrictSerializable,
}

/// Judges transactions by their dependencies: on lists, on registers, or the operations of a
/// key-value store, best with unique values. A violation is the plainest anomaly there is.
#[must_use]
pub fn acyclic(history: &[Record], isolation: Isolation) -> Verdict {
    first(anomalies(history, isolation))
}

/// The first anomaly of each kind that was found, the plainest first.
#[must_use]
pub fn anomalies(history: &[Record], isolation: Isolation) -> Vec<Verdict> {
    let transactions = Transactions::of(history);
    let findings = judge(&transactions, isolation).into_iter();
    findings.map(|finding| finding.verdict(|at| history[at as usize].clone())).collect()
}

impl Transactions {
    /// As [`acyclic`], for a history that was not kept.
    #[must_use]
    pub fn acyclic(&self, isolation: Isolation) -> Verdict {
        first(self.anomalies(isolation))
    }

    /// As [`anomalies`], for a history that was not kept.
    #[must_use]
    pub fn anomalies(&self, isolation: Isolation) -> Vec<Verdict> {
        let findings = judge(self, isolation).into_iter();
        findings.map(|finding| finding.verdict(|at| self.record(at))).collect()
    }
}

fn first(violations: Vec<Verdict>) -> Verdict {
    violations.into_iter().next().unwrap_or(Verdict::Holds)
}

fn judge(transactions: &Transactions, isolation: Isolation) -> Vec<Finding> {
    let mut facts = Facts::of(transactions);
    let (graph, follower) = dependencies::graph(&facts, isolation);
    let cycles = shortest::cycles(&graph, &facts, isolation);
    let mut findings = std::mem::take(&mut facts.findings);
    for cycle in &cycles {
        findings.add(words::finding(&facts, &follower, cycle));
    }
    findings.into_sorted()
}
