//! Two-phase commit.

mod alarms;
pub mod coordinator;
mod counters;
mod locks;
pub mod message;
pub mod options;
pub mod participant;
pub mod points;
pub mod record;
mod sessions;

pub use coordinator::{Coordinator, CoordinatorResume};
pub use options::{CoordinatorOptions, ParticipantOptions};
pub use participant::{Participant, ParticipantResume};
