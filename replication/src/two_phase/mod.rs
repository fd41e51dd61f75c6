//! Two-phase commit.

pub mod message;
pub mod record;
