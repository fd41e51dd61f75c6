//! The project's own chores: `cargo xtask ci`, `tidy` and `codegen`.

use std::path::PathBuf;
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

/// The workspace's root folder. Cargo names it at run time; a program that remembered where it was
/// built would look at the wrong files once the folder had moved and its target folder had stayed.
fn root() -> PathBuf {
    let xtask = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let xtask = xtask.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    xtask.parent().expect("xtask lies in the workspace's root").to_path_buf()
}

fn main() -> Result<ExitCode> {
    let root = &root();
    let passed = match Arguments::parse().chore {
        Chore::Ci => ci::run(root)?,
        Chore::Tidy => tidy::run(root)?,
        Chore::Codegen { check: false } => {
            codegen::generate(root)?;
            true
        }
        Chore::Codegen { check: true } => {
            println!("generated code is fresh, compared by {:?}", codegen::check(root)?);
            true
        }
    };
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
