//! Every parser of stored bytes is fed with bytes that nobody wrote: real files, changed in ways that
//! their formats suggest, mostly with right checksums, so that what is behind them is reached.
//!
//! ```text
//! corpus ──► mutate ──► sums ──► targets: open, read, verify, look, repair, write on
//!            flips, numbers,     no panic, no endless loop, bounded memory, and what is not
//!            moved blocks, ...   refused agrees with itself
//! ```
//!
//! A case follows from a target and its [`Entropy`]: a number for `kvorum-tests fuzz`, bytes for a
//! fuzzer that is led by coverage (`fuzz/`).

pub mod driver;

mod archive;
mod corpus;
mod entropy;
mod mutate;
mod sums;
mod targets;

pub use self::entropy::Entropy;
pub use self::targets::{Seen, Target};
