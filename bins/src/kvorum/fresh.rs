//! A cluster of this command's own: on loopback, of this very binary, and gone when it ends.

use std::io;
use std::path::PathBuf;

use kvorum::cluster::{Cluster, ClusterError, ClusterOptions, Program};
use kvorum_replication::Protocol;

use crate::error::CommandError;

/// Takes ports and a directory for so many replicas, and for a coordinator if the protocol has one;
/// none runs yet. If a signal ends this process, they end with it.
pub(crate) fn cluster(
    protocol: Protocol,
    replicas: u32,
    directory: Option<PathBuf>,
) -> Result<Cluster, CommandError> {
    let this =
        std::env::current_exe().map_err(|error| CommandError::io("finding itself", &error))?;
    let program = Program::with_subcommand(this, "serve");
    let options = ClusterOptions { protocol, replicas, directory, ..ClusterOptions::new(program) };
    let cluster = Cluster::new(options).map_err(failed)?;
    let signals = cluster.cleaner().clean_up_on_signals();
    signals.map_err(|error| CommandError::io("cannot wait for signals", &error))?;
    Ok(cluster)
}

/// What a cluster's error means to who asked for it.
pub(crate) fn failed(error: ClusterError) -> CommandError {
    match error {
        ClusterError::NotEmpty(_) => CommandError::usage(error.to_string(), ""),
        ClusterError::Client { source, .. } => source.into(),
        error => CommandError::io("the cluster", &io::Error::other(error)),
    }
}
