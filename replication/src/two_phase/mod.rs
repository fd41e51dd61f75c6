//! Two-phase commit.

pub mod message;
pub mod points;
pub mod record;
