//! Two-phase commit through any replica, whole replicas together: scenario scripts as golden traces,
//! and random schedules with crashes and a hostile network, judged against the order in which
//! decisions became durable.

mod cluster;
mod contention;
mod history;
mod machine;
#[cfg(feature = "planted-bugs")]
mod planted;
mod random;
mod script;
mod show;
