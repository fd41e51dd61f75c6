//! Looking at directories that nobody has open, and mending them: all damage is named, nothing is
//! changed by looking, and what was not hit is saved.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod flips;
mod hostile;
mod ingested;
mod looks;
mod repair;
mod staged;

mod support;
