//! A durable log-structured key-value engine: checked log, sorted segments, compaction.

pub mod codec;
mod error;
pub mod log;
pub mod vfs;

pub use error::{Error, Result};
pub use log::{Log, LogOptions, Position};
