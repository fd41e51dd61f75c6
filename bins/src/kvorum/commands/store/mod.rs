//! `store`: looks at a data directory, and mends it, while no server runs on it.

mod arguments;
mod dump;
mod records;
mod repair;
mod show;
mod stats;
mod verify;

use std::path::Path;
use std::sync::Arc;

use kvorum_node::NodeError;
use kvorum_node::offline::Offline;
use kvorum_replication::Happened;
use kvorum_storage::Error;
use kvorum_storage::vfs::RealVfs;

pub(crate) use arguments::Store;

use crate::error::{CommandError, Kind};
use crate::output::Output;

/// Does one of the commands.
pub(crate) fn store(output: &mut Output, command: &Store) -> Result<(), CommandError> {
    match command {
        Store::Verify(arguments) => verify::verify(output, &arguments.dir),
        Store::Dump(arguments) => dump::dump(output, arguments),
        Store::Stats(arguments) => stats::stats(output, &arguments.dir),
        Store::Repair(arguments) => repair::repair(output, arguments),
    }
}

/// Takes hold of a data directory.
fn open(dir: &Path) -> Result<Offline, CommandError> {
    Offline::open(Arc::new(RealVfs), dir).map_err(|error| of_node(error, dir))
}

/// What an error of looking at a directory means to whoever asked for it.
fn of_node(error: NodeError, dir: &Path) -> CommandError {
    match error {
        NodeError::Storage(error) => of_storage(&error, dir),
        other => refused(other.to_string(), ""),
    }
}

fn of_storage(error: &Error, dir: &Path) -> CommandError {
    let what = error.to_string();
    match error {
        Error::Locked { .. } => refused(
            format!("{} is in use by a running process", dir.display()),
            "stop it first; a running server is asked with kvorum status and kvorum inspect",
        ),
        Error::Corrupt { .. } | Error::Missing { .. } | Error::Incomplete { .. } => {
            corrupt(what, "kvorum store verify names all that is wrong")
        }
        Error::Invalid { .. } => {
            refused(what, "name the directory that the server was given as --data-dir")
        }
        Error::Io { .. } | Error::DiskFull { .. } => {
            refused(what, "see that the directory is there and can be read")
        }
        Error::Poisoned { .. } | Error::Overloaded { .. } => refused(what, ""),
    }
}

fn refused(what: impl Into<String>, remedy: impl Into<String>) -> CommandError {
    let (what, remedy) = (what.into(), remedy.into());
    CommandError { kind: Kind::Refused, happened: Happened::No, what, remedy }
}

fn corrupt(what: impl Into<String>, remedy: impl Into<String>) -> CommandError {
    let (what, remedy) = (what.into(), remedy.into());
    CommandError { kind: Kind::Corrupt, happened: Happened::No, what, remedy }
}
