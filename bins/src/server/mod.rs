//! The server: flags in, a serving node out.

mod arguments;

pub use arguments::{ABOUT, Command, Coordinator, EXAMPLES, Peer, Process, Protocol, Replica};
use std::process::ExitCode;
pub fn run(_c: Command) -> ExitCode {
    ExitCode::SUCCESS
}
