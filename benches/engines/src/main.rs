//! The engine of Kvorum beside its peers, on one machine and under one load:
//! `cargo run --release -p kvorum-engines`, and with `--features peers` the peers as well.
//!
//! What is measured, what is equal and what is not is in `benches/engines/README.md`.

mod run;

mod report;

mod rows;

mod raw;

mod engine;

mod kvorum;

#[cfg(feature = "peers")]
mod peers;

mod load;

mod process;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::engine::Name;
use crate::rows::{Job, Row};

/// Measures our engine beside its peers: rows a to i
#[derive(Parser)]
#[command(name = "kvorum-engines", args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(flatten)]
    run: RunOptions,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Make the table from what `--json` gathered
    Report {
        /// Files of JSON lines
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// As Markdown
        #[arg(long)]
        markdown: bool,
    },
    /// One engine's row, in a process of its own
    #[command(hide = true)]
    Child {
        /// The job, as JSON
        job: String,
    },
}

/// What is to be measured.
#[derive(Args, Clone, Debug)]
pub(crate) struct RunOptions {
    /// Whom to measure; without it, all that this program was built with, and the raw device
    #[arg(long, value_delimiter = ',')]
    engines: Vec<Name>,
    /// Which rows
    #[arg(long, value_delimiter = ',')]
    rows: Vec<Row>,
    /// How often; the table has medians
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Few keys, short rows and one round: to see that it works
    #[arg(long)]
    quick: bool,
    /// Bytes of a value
    #[arg(long, value_delimiter = ',', default_value = "128", value_parser = clap::value_parser!(u32).range(32..=65536))]
    value_bytes: Vec<u32>,
    /// Keys to load; without it 2,000,000, or as many as have their bytes if values are longer
    #[arg(long)]
    keys: Option<u64>,
    /// How long each row that runs against the clock runs
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// The cache that each engine is given
    #[arg(long, default_value_t = 256)]
    cache_mib: usize,
    /// Where the stores lie while they are measured: on the disk in question
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Append each result to this file as a line of JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Print the table as Markdown
    #[arg(long)]
    markdown: bool,
    /// A command to put before each process that is measured, such as `perf stat`
    #[arg(long, default_value = "")]
    under: String,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.command {
        None => run::run(&arguments.run),
        Some(Command::Report { files, markdown }) => report::from_files(files, *markdown),
        Some(Command::Child { job }) => rows::run(&Job::parse(job)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
