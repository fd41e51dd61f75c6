//! Multi-Paxos, whole replicas together: scenario scripts as golden traces, and random schedules
//! with crashes and a hostile network, watched after every step by a ghost that sees all logs.

mod cluster;
mod forge;
mod ghost;
mod history;
mod machine;
#[cfg(feature = "planted-bugs")]
mod planted;
mod random;
mod roles;
mod script;
mod show;
mod timing;
