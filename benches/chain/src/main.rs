//! The bare chain: the bytes of a two-phase commit with parallel commit, through the same number of
//! processes over plain TCP on loopback, with the same syncs, and no store. It is what Kvorum is
//! measured against, since nothing that does the same can be faster here.

mod chain;
mod client;
mod compare;
mod coordinator;
mod log;
mod replica;
mod socket;
mod wire;

use std::net::TcpListener;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::chain::Chain;
use crate::client::Clients;
use crate::compare::Compare;
use crate::coordinator::Coordinator;
use crate::replica::Replica;

/// What processes, loopback and syncs allow a two-phase commit on this machine
#[derive(Debug, Parser)]
#[command(name = "kvorum-chain")]
struct Arguments {
    #[command(subcommand)]
    command: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Run the bare chain once and print what came of it, as a JSON object
    Run(Chain),
    /// Run the bare chain and fresh clusters of Kvorum in turn, and print how they compare
    Compare(Compare),
    #[command(hide = true)]
    Replica(Replica),
    #[command(hide = true)]
    Coordinator(Coordinator),
    #[command(hide = true)]
    Client(Clients),
}

fn main() -> ExitCode {
    match run(&Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(role: &Role) -> Result<()> {
    if !matches!(role, Role::Run(_) | Role::Compare(_)) {
        set_parent_process_death_signal(Some(Signal::KILL)).context("ending with the parent")?;
    }
    match role {
        Role::Run(chain) => {
            println!("{}", serde_json::to_string(&chain.run()?)?);
            Ok(())
        }
        Role::Compare(compare) => compare::run(compare),
        Role::Replica(replica) => replica::run(replica),
        Role::Coordinator(coordinator) => coordinator::run(coordinator),
        Role::Client(clients) => client::run(clients),
    }
}

/// Says where a process listens, on the one line that it prints.
fn announce(listener: &TcpListener) -> Result<()> {
    println!("{}", listener.local_addr().context("listening")?);
    Ok(())
}
