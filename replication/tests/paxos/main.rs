//! Multi-Paxos, whole replicas together: scenario scripts as golden traces, and random schedules
//! with crashes and a hostile network, watched after every step by a ghost that sees all logs.

mod forge;
mod ghost;
#[allow(dead_code, reason = "no room uses every piece of the furniture")]
#[path = "../harness/mod.rs"]
mod harness;
mod history;
#[cfg(feature = "planted-bugs")]
mod planted;
mod random;
mod roles;
mod room;
mod script;
mod show;
mod timing;
