//! The shell around a protocol core.
//!
//! A [`Node`] joins one core to one log and, on a replica, the store that lives on that log. It
//! performs the core's effects in the order the contract asks for, and knows neither threads nor
//! sockets: the simulator drives it directly. A [`Runner`] is what drives it in production: an event
//! loop fed by a [`Handle`], a thread that syncs the log in groups, and one that flushes and
//! compacts. [`IdentityFile`] says whose a data directory is.

mod clock;
mod codec;
mod error;
mod fail_points;
mod held;
mod identity;
mod inspector;
mod journal;
mod keeper;
mod mailbox;
mod node;
pub mod offline;
pub mod planted;
mod report;
mod runner;
mod syncer;

pub use codec::StoredRecord;
pub use error::NodeError;
pub use fail_points::{Action, FailPoint, FailPoints};
pub use held::HELD_FOR;
pub use identity::{Claim, ClusterId, Identity, IdentityFile, JOINED_MAX, read_identity};
pub use inspector::Inspector;
pub use journal::{CHECKPOINT_BYTES, SOON};
pub use mailbox::{
    BACKLOG_BYTES_MAX, Detached, DiskWait, Event, Handle, Outbox, REQUESTS_MAX, Refused, Turn,
    detached,
};
pub use node::Node;
pub use report::Report;
pub use runner::Runner;
