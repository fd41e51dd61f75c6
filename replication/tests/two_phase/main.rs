//! Two-phase commit, both cores together: scenario scripts as golden traces, and random schedules
//! with crashes and a hostile network, judged against one serial order.

mod damaged;
#[allow(dead_code, reason = "no room uses every piece of the furniture")]
#[path = "../harness/mod.rs"]
mod harness;
mod history;
mod limits;
mod node;
#[cfg(feature = "planted-bugs")]
mod planted;
mod random;
mod room;
mod script;
mod show;
