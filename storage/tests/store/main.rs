//! The store through its own door: what was acknowledged is there, what is damaged is reported.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod background;
mod doors;
mod model;
mod parallel;
mod stage;
mod stage_faults;
mod stage_model;
mod stage_races;
mod stats;
mod threads;
mod walks;

mod checkpoint;
mod crash;
mod damage;
mod faults;
mod format;
mod ingest;

mod overlap;
mod replay;
mod replica;
mod support;
