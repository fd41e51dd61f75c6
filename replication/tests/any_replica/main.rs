//! Two-phase commit through any replica, whole replicas together: scenario scripts as golden traces,
//! and random schedules with crashes and a hostile network, judged against the order in which
//! decisions became durable.

mod cluster;
mod history;
mod machine;
mod random;
mod script;
mod show;
