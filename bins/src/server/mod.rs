//! The server: flags in, a serving node out.
//!
//! `kvorumd` is a thin main over this, and so is the hidden `kvorum serve`, by which the client's
//! binary alone can start a whole cluster.

mod arguments;
mod clock_jumps;
mod error;
mod files;
mod full_disk;
mod logging;
mod paxos_flags;
mod peers;
mod points;
mod ready;
mod roles;
mod serve;
mod signals;

use std::io::{self, Write as _};
use std::process::ExitCode;

pub use arguments::{
    ABOUT, Command, Coordinator, Peer, Process, Protocol, Replica, examples, fail_points, peer,
};
pub use paxos_flags::PaxosFlags;
pub use points::{any_replica_points, coordinator_points, participant_points};

/// Serves until a signal or an error ends it.
#[must_use]
pub fn run(command: &Command) -> ExitCode {
    let process = match command {
        Command::Replica(replica) => &replica.process,
        Command::Coordinator(coordinator) => &coordinator.process,
    };
    logging::start(&process.log);
    let result = match command {
        Command::Replica(replica) => roles::replica(replica),
        Command::Coordinator(coordinator) => roles::coordinator(coordinator),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // There is nobody to tell that standard error is gone.
            let _ = writeln!(io::stderr(), "{error}");
            error.exit_code()
        }
    }
}
