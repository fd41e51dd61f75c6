//! The log through its own door: what was acknowledged is there, what is damaged is reported.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod append;
mod crash;
mod cut;
mod damage;
mod fault;
mod fixture;
mod flight;
mod format;
mod group;
