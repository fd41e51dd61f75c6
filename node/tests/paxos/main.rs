//! Paxos replicas over real logs and stores, on disks in memory: the core and the shell around it fit.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod cluster;
mod crashes;
mod full;
mod machine;
mod offline;
mod restarts;
mod snapshots;
