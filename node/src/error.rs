//! What can go wrong in a node, besides what its engine says.

use std::path::PathBuf;

use kvorum_replication::{NodeId, Position, Protocol, Role};

/// Why a node cannot start, or has stopped.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The engine or the log failed.
    #[error(transparent)]
    Storage(#[from] kvorum_storage::Error),

    /// A record of the log cannot be what this node wrote.
    #[error("record {at} of the log in {} is not what a {role} writes: {what}", dir.display())]
    Record {
        /// The log's directory.
        dir: PathBuf,
        /// The record.
        at: Position,
        /// Who reads it.
        role: Role,
        /// What does not fit.
        what: String,
    },

    /// The data directory belongs to somebody else.
    #[error(
        "{} belongs to {found_role} {found_node}, not to {role} {node}: \
         start that one on it, or give this one a directory of its own", dir.display()
    )]
    WrongIdentity {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        found_role: Role,
        /// Whose it is.
        found_node: NodeId,
        /// Who asked.
        role: Role,
        /// Who asked.
        node: NodeId,
    },

    /// The data directory belongs to a cluster that replicates in another way.
    #[error(
        "{} belongs to a cluster of {found}, not of {asked}: start it with that protocol, or give \
         this one a directory of its own", dir.display()
    )]
    WrongProtocol {
        /// The directory.
        dir: PathBuf,
        /// What it was made for.
        found: Protocol,
        /// What was asked for.
        asked: Protocol,
    },

    /// The directory was made with another window, which must stay the same for ever.
    #[error(
        "{} belongs to a cluster with a window of {found} slots, not {asked}: all replicas must \
         agree on it, for ever", dir.display()
    )]
    WrongWindow {
        /// The directory.
        dir: PathBuf,
        /// What it was made with.
        found: u64,
        /// What was asked for.
        asked: u64,
    },

    /// Nobody could fill a node that lost its disk.
    #[error("under {protocol}, {node} cannot come back with an empty directory")]
    CannotRejoin {
        /// Who.
        node: NodeId,
        /// What it was started with.
        protocol: Protocol,
    },

    /// The node on this directory belongs to another cluster.
    #[error("{} belongs to cluster {found}, not to {asked}", dir.display())]
    WrongCluster {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        found: String,
        /// Who asked.
        asked: String,
    },

    /// A fail point's words are off.
    #[error("{0}")]
    FailPoint(String),

    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}
