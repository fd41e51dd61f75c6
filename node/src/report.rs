//! What a node tells of itself when asked.

use kvorum_replication::Status;

/// How a node is: its core's status, and its log's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What the core says.
    pub status: Status,
    /// The last record appended to the log.
    pub log_last: u64,
    /// The last record that is durable.
    pub log_durable: u64,
    /// How long this process has served, in milliseconds.
    pub uptime_millis: u64,
    /// Counters by name of the store and the log.
    pub counters: Vec<(String, u64)>,
}
