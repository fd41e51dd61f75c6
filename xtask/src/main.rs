//! The project's own chores: `cargo xtask codegen` and the like.

use std::path::Path;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod codegen;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Kvorum's own chores")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
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

fn main() -> Result<()> {
    match Arguments::parse().chore {
        Chore::Codegen { check: false } => codegen::generate(root()),
        Chore::Codegen { check: true } => {
            println!("generated code is fresh, compared by {:?}", codegen::check(root())?);
            Ok(())
        }
    }
}
