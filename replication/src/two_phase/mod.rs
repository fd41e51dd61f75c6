//! Two-phase commit with presumed abort (Gray 1978; Mohan, Lindsay and Obermarck 1986; Bernstein,
//! Hadzilacos and Goodman 1987, ch. 7), over replicas that each hold everything.
//!
//! **Promise.** A transaction happens on every replica or on none, all transactions happen in one
//! order that respects real time (strict serializability), and what was acknowledged survives any
//! crash. The price: a write needs every replica, and a participant that has voted yes waits for
//! the decision, however long that takes.
//!
//! ```text
//! client    coordinator                 participant (each)
//!   │  request   │                           │
//!   │──────────► │ locks its keys            │
//!   │            │ ─── Prepare ────────────► │ locks, checks preconditions
//!   │            │                           │ ▓ Prepared            (forced)
//!   │            │ ◄── Vote yes ──────────── │ from here on in doubt
//!   │ all yes:   │ ▓ Committed #n  (forced)  │
//!   │ ◄─ done ── │ ─── Decide commit #n ───► │ applies in the order of n, unlocks
//!   │            │                           │ ░ Decided           (unforced)
//!   │            │ ◄── Acknowledge ───────── │
//!   │            │ ░ Ended       (unforced)  │
//!
//!   a no, or a vote that does not come: the client is told that it did not happen, and those who
//!   may have promised are told Decide abort. Nothing is written and nothing acknowledged: what the
//!   coordinator does not know is aborted.
//!
//!   in doubt:  Inquire ──► coordinator, later the other participants ──► Inform
//! ```
//!
//! **Departures from the papers**, each argued in `docs/protocols/two-phase-commit.md`: commits are
//! numbered, and participants apply them in the order of their numbers; nobody waits for a lock; a
//! participant does not force its decision before it applies it; an abort and the pruning of old
//! outcomes ride on a bound that every prepare and decision carries; with one replica there is one
//! phase, and the replica remembers the clients' stamps.
//!
//! The two roles are two cores, [`Coordinator`] and [`Participant`], under the contract of
//! [`crate::contract`]. What the shell has to keep, beyond the rules there: marks of applied writes
//! may be ahead of the durable log, so the store must sync the log up to a mark before it flushes
//! what carries it; and it may cut the log at a released position only when everything applied
//! before the release is flushed.
//!
//! [`any_replica`] is a core of its own for clusters without a coordinator process. It shares the names
//! of transactions and the sets of keys that they lock, and little else.

mod alarms;
pub mod any_replica;
pub mod audit;
pub mod coordinator;
mod locks;
pub mod message;
mod names;
pub mod options;
pub mod participant;
pub mod planted;
pub mod points;
pub mod record;
mod table;

pub use coordinator::{Coordinator, CoordinatorResume};
pub use options::{CommitMode, CoordinatorOptions, ParticipantOptions};
pub use participant::{Participant, ParticipantResume};
