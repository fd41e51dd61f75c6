//! The trials of real processes at full length, by hand: `cargo run --release -p kvorum-tests`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use kvorum::load::{Keys, LoadOptions, Until};
use kvorum_replication::two_phase::points;
use kvorum_tests::damage::directories;
use kvorum_tests::fail_points::{Trouble, try_point};
use kvorum_tests::load::{Kill, kill_under_mix, kill_under_puts};
use kvorum_tests::race::race;
use kvorum_tests::{cluster, program, run};

/// Tries real processes on this machine
#[derive(Parser)]
#[command(name = "kvorum-tests")]
#[expect(clippy::large_enum_variant, reason = "it is made once, at the start")]
enum Arguments {
    /// Let two clients put different values to one key at the same moment, over and over
    Race {
        /// How often
        #[arg(long, default_value_t = 1000)]
        rounds: u32,
    },
    /// Kill all four processes in the middle of a load, and look for what was acknowledged
    Kill {
        /// Puts in all
        #[arg(long, default_value_t = 100_000)]
        ops: u64,
        /// Clients that put
        #[arg(long, default_value_t = 16)]
        clients: u32,
        /// The size of a value; large ones make the stores flush and compact
        #[arg(long, default_value_t = 128)]
        value_bytes: usize,
        /// How often all are killed, spread over the load
        #[arg(long, default_value_t = 3)]
        kills: u64,
        /// The longest time from the restart to the next acknowledgement, in milliseconds
        #[arg(long, default_value_t = 2000)]
        writable_within: u64,
    },
    /// Kill processes, one or all, under a contended mix of operations, and judge what clients saw
    Mix {
        /// Operations in all
        #[arg(long, default_value_t = 50_000)]
        ops: u64,
        /// Clients
        #[arg(long, default_value_t = 8)]
        clients: u32,
        /// Keys
        #[arg(long, default_value_t = 10)]
        keys: u64,
        /// How often somebody is killed, spread over the load
        #[arg(long, default_value_t = 20)]
        kills: u64,
    },
    /// Kill and pause coordinator and replica at each point of the protocol
    FailPoints {
        /// How often
        #[arg(long, default_value_t = 1)]
        rounds: u32,
    },
    /// Damage small data directories in every single way, and look what is read from them then
    Damage {
        /// Every STEP-th byte and length instead of each
        #[arg(long, default_value_t = 1)]
        step: usize,
    },
    /// Serve, as kvorumd does
    #[command(hide = true, subcommand)]
    Serve(kvorum::server::Command),
}

fn main() -> ExitCode {
    let tried = match Arguments::parse() {
        Arguments::Serve(command) => return kvorum::server::run(&command),
        Arguments::Race { rounds } => run(try_race(rounds)),
        Arguments::Kill { ops, clients, value_bytes, kills, writable_within } => {
            let until = Until::Operations(ops);
            let options = LoadOptions { clients, value_bytes, until, ..LoadOptions::default() };
            let at = (1..=kills).map(|kill| kill * ops / (kills + 1));
            let kills = at.map(|at| Kill { at, member: None }).collect();
            run(try_kill(options, kills, Duration::from_millis(writable_within)))
        }
        Arguments::Mix { ops, clients, keys, kills } => run(try_mix(ops, clients, keys, kills)),
        Arguments::FailPoints { rounds } => run(try_fail_points(rounds)),
        Arguments::Damage { step } => try_damage(step.max(1)),
    };
    match tried {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn try_damage(step: usize) -> Result<()> {
    let mut wrong = Vec::new();
    for directory in directories()? {
        println!("{}", directory.name);
        let mut outcome = directory.damage_all(step)?;
        println!("{outcome}");
        wrong.append(&mut outcome.failures);
    }
    ensure!(wrong.is_empty(), "{} failures, of which the first are:\n{}", wrong.len(), {
        wrong.truncate(20);
        wrong.join("\n")
    });
    Ok(())
}

async fn try_race(rounds: u32) -> Result<()> {
    let cluster = cluster(program(&std::env::current_exe()?)).await?;
    println!("{:?}", race(&cluster, rounds).await?);
    Ok(())
}

async fn try_kill(options: LoadOptions, kills: Vec<Kill>, writable_within: Duration) -> Result<()> {
    let mut cluster = cluster(program(&std::env::current_exe()?)).await?;
    let outcome = kill_under_puts(&mut cluster, options, &kills).await?;
    println!("acknowledged before each kill: {:?}", outcome.acknowledged_at_kill);
    println!("ready again after: {:?}", outcome.ready_after);
    println!("writable again after: {:?}", outcome.writable_after);
    println!("{:?}", outcome.summary.counts);
    println!("{:.0} ops/s, {} keys", outcome.summary.per_second(), outcome.keys);
    let slowest = outcome.writable_after.iter().max();
    ensure!(slowest <= Some(&writable_within), "writable again only after {slowest:?}");
    Ok(())
}

async fn try_mix(ops: u64, clients: u32, keys: u64, kills: u64) -> Result<()> {
    let mut cluster = cluster(program(&std::env::current_exe()?)).await?;
    let options = LoadOptions {
        clients,
        until: Until::Operations(ops),
        mix: "put=2,get=4,cas=2,del=1".parse().map_err(anyhow::Error::msg)?,
        keys: Keys::Among(keys),
        ..LoadOptions::default()
    };
    // Everybody in turn, and all at once. Under contention about half of the operations are done.
    let victims: Vec<_> = cluster.members().map(Some).chain([None]).collect();
    let kills: Vec<_> = (1..=kills)
        .zip(victims.iter().cycle())
        .map(|(kill, &member)| Kill { at: kill * ops / (3 * (kills + 1)), member })
        .collect();
    let outcome = kill_under_mix(&mut cluster, options, &kills).await?;
    println!("{:?}", outcome.summary.counts);
    println!("writable again after at most {:?}", outcome.writable_after.iter().max());
    println!("{} operations in the history, which has an order", outcome.operations);
    Ok(())
}

async fn try_fail_points(rounds: u32) -> Result<()> {
    let mut cluster = cluster(program(&std::env::current_exe()?)).await?;
    for round in 1..=rounds {
        for point in points::COORDINATOR.iter().chain(points::PARTICIPANT) {
            let troubles = [Trouble::Killed, Trouble::KilledWhileClientRetries, Trouble::Paused];
            for trouble in troubles {
                try_point(&mut cluster, point, trouble).await?;
                println!("round {round}: {trouble:?} at {}", point.name);
            }
        }
    }
    Ok(())
}
