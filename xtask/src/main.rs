//! The project's own chores: `cargo xtask ci`, `tidy` and `codegen`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod ci;
mod codegen;
mod tidy;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Kvorum's own chores")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Everything that a change has to pass, in the order that fails fastest.
    Ci,
    /// Check what no compiler checks: who imports whom, sizes, names, links, docs.
    Tidy,
    /// Make the Rust code of the Cap'n Proto schema (needs the `capnp` tool).
    Codegen {
        /// Change nothing; fail if the checked-in code is stale.
        #[arg(long)]
        check: bool,
    },
}

/// The workspace's root folder.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace's root")
}

fn main() -> Result<ExitCode> {
    let passed = match Arguments::parse().chore {
        Chore::Ci => ci::run(root())?,
        Chore::Tidy => tidy::run(root())?,
        Chore::Codegen { check: false } => {
            codegen::generate(root())?;
            true
        }
        Chore::Codegen { check: true } => {
            println!("generated code is fresh, compared by {:?}", codegen::check(root())?);
            true
        }
    };
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
