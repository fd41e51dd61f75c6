//! The replication protocols of Kvorum, each a deterministic state machine.
//!
//! Nothing here knows a clock, a socket, a disk or a thread. A core is handed an [`Input`] and the
//! time, and answers with [`Effect`]s; the node performs them over a real log and real sockets, the
//! simulator over a virtual disk and network, and neither can be told apart from inside. Read
//! [`contract`] first: its rules are what makes a core correct after a crash.

#![no_std]

extern crate alloc;

mod alarms;
mod audit;
pub mod contract;
mod counters;
mod hash;
pub mod limits;
pub mod paxos;
mod planted;
pub mod points;
pub mod random;
pub mod request;
mod sessions;
pub mod transfer;
pub mod two_phase;

pub use contract::{
    Core, Effect, Effects, Input, NodeId, Position, Protocol, ReadId, RequestId, Role, SnapshotId,
    Status, Time, Urgency,
};
pub use limits::Limits;
pub use request::{
    Answer, ClientId, Failure, Happened, Held, Key, Operation, Outcome, Page, Precondition, Query,
    Range, ReplicaChange, Request, Row, Stamp, Transaction, Value, Write, Writes,
};
pub use sessions::{SessionState, Settled};
