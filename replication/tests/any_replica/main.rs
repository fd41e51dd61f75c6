//! Two-phase commit through any replica, whole replicas together: scenario scripts as golden traces,
//! and random schedules with crashes and a hostile network, judged against the order in which
//! decisions became durable.

mod contention;
#[allow(dead_code, reason = "no room uses every piece of the furniture")]
#[path = "../harness/mod.rs"]
mod harness;
mod history;
#[cfg(feature = "planted-bugs")]
mod planted;
mod random;
mod room;
mod script;
mod show;
