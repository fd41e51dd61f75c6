//! `run`: real processes, real faults, and the history judged.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use kvorum::time::duration;

use crate::arguments::Protocol;
use crate::error::LabError;
use crate::output::Output;

/// Real processes on this machine, broken while clients use them; what clients saw is judged
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  kvorum-lab run --seconds 60 --nemesis kill,pause,partition --report run.html
  kvorum-lab run --clients 32 --history history.jsonl")]
pub(crate) struct Run {
    /// The protocol
    #[arg(long, value_name = "P", value_enum, default_value = "2pc")]
    pub(crate) protocol: Protocol,

    /// Replicas beside the coordinator
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=9))]
    pub(crate) replicas: u32,

    /// Clients, each a connection of its own
    #[arg(long, value_name = "N", default_value_t = 16)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) clients: u32,

    /// How long clients ask
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub(crate) seconds: Duration,

    /// What to break, such as kill,pause,partition
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) nemesis: Vec<String>,

    /// Write what was asked and answered to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) history: Option<PathBuf>,

    /// Write the report to this file, an HTML page
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
}

/// Runs the cluster, breaks it, judges the history.
pub(crate) fn run(_output: &mut Output, arguments: &Run) -> Result<ExitCode, LabError> {
    // The engine of this is made beside this; until it is merged, nothing is pretended.
    Err(LabError::CannotRun {
        what: format!("this build cannot run {:?} on real processes", arguments.protocol),
        remedy: "use `kvorum-lab sim`".to_owned(),
    })
}
