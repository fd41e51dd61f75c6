//! The server.

use std::process::ExitCode;

use clap::Parser;

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "kvorumd", version, about = kvorum::server::ABOUT)]
#[command(after_help = kvorum::server::examples())]
#[command(max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: kvorum::server::Command,
}

fn main() -> ExitCode {
    kvorum::server::run(&Arguments::parse().command)
}
