//! The store through its own door: what was acknowledged is there, what is damaged is reported.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod model;
mod support;
