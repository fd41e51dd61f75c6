//! Two-phase commit, both cores together: scenario scripts as golden traces, and random schedules
//! with crashes and a hostile network, judged against one serial order.

mod cluster;
mod damaged;
mod history;
mod machine;
mod random;
mod script;
mod show;
