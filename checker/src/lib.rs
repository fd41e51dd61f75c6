//! Judges histories of a key-value store.
//!
//! A history is what clients saw: each operation with the time it was called, the time it
//! returned, and how it ended. Nothing here knows how the store works, and nothing here is shared
//! with it, so that a bug cannot hide on both sides. The judges:
//!
//! - [`linearizable`]: each key by itself behaves as one register on which operations happen one at
//!   a time, each between its call and its return (Herlihy and Wing 1990).
//! - [`atomic`]: whoever reads several keys at once sees all of a transaction or nothing of it.
//! - [`serializable`]: the whole store behaves so, transactions over many keys included: strict
//!   serializability. It implies both others; they find the same faults sooner and say more simply
//!   what is wrong.
//! - [`acyclic`]: transactions, on lists or on registers, do not depend on one another in a cycle. It
//!   never gives up, and names the anomaly (Adya 1999; Kingsbury and Alvaro 2020).
//! - [`conserved`]: what is moved between accounts is neither made nor lost.
//! - [`sessions`]: each client reads its own writes, and what it sees never goes back (Terry et al.
//!   1994).
//! - [`converged`]: all copies hold the same rows.
//!
//! An operation whose outcome the client never learned may have happened at any time after its
//! call, or may not; a verdict is a violation only if neither assumption explains what was seen.

mod drawing;
mod history;
mod lines;
mod times;
mod verdict;

mod atomicity;
mod conservation;
mod convergence;
mod cycles;
mod explain;
mod linearizability;
mod search;
mod sessions;
mod settle;
mod steps;
mod words;

pub use atomicity::atomic;
pub use conservation::conserved;
pub use convergence::converged;
pub use cycles::{Isolation, Transactions, acyclic, anomalies};
pub use drawing::{timeline, timeline_page};
pub use history::{Ending, Found, History, MicroOperation, Operation, Precondition, Record};
pub use linearizability::{Limits, linearizable, serializable};
pub use lines::{Entry, FinalCopy, LineError, read_entries, read_lines, write_copy, write_line};
pub use sessions::{session, sessions};
pub use verdict::{Cycle, CycleKind, Difference, Guarantee, Rule, Verdict, Violation};
