//! The trials of real processes at full length, by hand: `cargo run --release -p kvorum-tests`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use clap::Parser;
use kvorum::cluster::Member;
use kvorum::load::{Keys, LoadOptions, Until};
use kvorum_replication::two_phase::points;
use kvorum_tests::connections::{self, Visit};
use kvorum_tests::damage::{directories, held};
use kvorum_tests::engine::crash::{Crash, Use};
use kvorum_tests::engine::disk_full::{self, small::Kind};
use kvorum_tests::engine::failures;
use kvorum_tests::engine::soak::{self, Soak};
use kvorum_tests::fail_points::{Trouble, is_of_commits, try_point, try_point_beside};
use kvorum_tests::fuzz::{Entropy, Target, driver};
use kvorum_tests::load::{Kill, kill_under_mix, kill_under_puts};
use kvorum_tests::race::race;
use kvorum_tests::rejoin::Rejoin;
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
    /// Kill a replica under load, write while it is away, and measure how soon it is a member again;
    /// then kill the coordinator
    Rejoin {
        /// Keys that it misses, of 16 bytes, with values of 128
        #[arg(long, default_value_t = 1_000_000)]
        keys: u64,
        /// Operations a second that are judged, half of them writes
        #[arg(long, default_value_t = 2000)]
        rate: u32,
        /// Connections that write at full speed while it comes back, each with sixteen puts at a time
        #[arg(long, default_value_t = 4)]
        writers: u32,
    },
    /// Kill and pause coordinator and replica at each point of the protocol
    FailPoints {
        /// How often
        #[arg(long, default_value_t = 1)]
        rounds: u32,
    },
    /// Have thousands of visitors say nothing, or half a message, to a coordinator and to a replica,
    /// and see what they cost
    Connections {
        /// Visitors
        #[arg(long, default_value_t = 10_000)]
        count: usize,
    },
    /// Damage small data directories in every single way, and look what is read from them then
    Damage {
        /// Every STEP-th byte and length instead of each
        #[arg(long, default_value_t = 1)]
        step: usize,
    },
    /// Kill a process at work on an embedded store over and over, cut the power of a disk in memory
    /// in turn, and compare what is left with what was acknowledged
    Soak {
        /// How long
        #[arg(long, default_value_t = 600)]
        seconds: u64,
        /// Decides what is done; one that is not told is taken from the clock
        #[arg(long)]
        seed: Option<u64>,
        /// The longest time that a write may take, in milliseconds
        #[arg(long, default_value_t = 50)]
        stall_ms: u64,
        /// Count a stall even if bystanders stood still as well
        #[arg(long)]
        strict: bool,
        /// Where the store is; a new directory of the system's temporary one if not told
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// The process that `soak` kills
    #[command(hide = true)]
    SoakChild {
        #[arg(long)]
        seed: u64,
        #[arg(long)]
        round: u64,
        #[arg(long)]
        stall_ms: u64,
        #[arg(long)]
        dir: PathBuf,
    },
    /// Cut the power around each change of the disk, with many outcomes each time
    Crash {
        /// How many runs, each with another seed
        #[arg(long, default_value_t = 10)]
        runs: u64,
        /// That of the first run
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Batches of a run
        #[arg(long, default_value_t = 150)]
        batches: u64,
        /// Random outcomes of each cut
        #[arg(long, default_value_t = 16)]
        subsets: u64,
    },
    /// Leave no room for each operation of the disk in turn
    DiskFull {
        /// Every STEP-th time that an operation comes up
        #[arg(long, default_value_t = 1)]
        step: u64,
    },
    /// The process that works on a small file system
    #[command(hide = true)]
    DiskFullChild {
        #[arg(long)]
        dir: PathBuf,
    },
    /// Feed every parser of stored bytes with files that were changed
    Fuzz {
        /// How long, for each target
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Only this one: store, log, codec, batch, identity or records
        #[arg(long)]
        target: Option<String>,
        /// Decides on the cases; one that is not told is taken from the clock
        #[arg(long)]
        seed: Option<u64>,
        /// Only this case of the seed, in this process: to see what is wrong
        #[arg(long)]
        case: Option<u64>,
    },
    /// The process that may crash
    #[command(hide = true)]
    FuzzChild {
        #[arg(long)]
        target: String,
        #[arg(long)]
        seed: u64,
        #[arg(long)]
        first: u64,
        #[arg(long)]
        dir: PathBuf,
    },
    /// The process that holds a store which another wants to open
    #[command(hide = true)]
    HoldChild {
        #[arg(long)]
        dir: PathBuf,
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
        Arguments::Rejoin { keys, rate, writers } => {
            run(try_rejoin(&Rejoin { keys, rate, writers }))
        }
        Arguments::FailPoints { rounds } => run(try_fail_points(rounds)),
        Arguments::Connections { count } => run(try_connections(count)),
        Arguments::Damage { step } => try_damage(step.max(1)),
        Arguments::HoldChild { dir } => held::hold(&dir),
        Arguments::Soak { seconds, seed, stall_ms, strict, dir } => {
            try_soak(seconds, seed, Duration::from_millis(stall_ms), strict, dir)
        }
        Arguments::SoakChild { seed, round, stall_ms, dir } => {
            soak::child::run(&dir, seed, round, Duration::from_millis(stall_ms))
        }
        Arguments::Crash { runs, seed, batches, subsets } => {
            try_crash(runs, seed, batches, subsets)
        }
        Arguments::DiskFull { step } => try_disk_full(step),
        Arguments::Fuzz { seconds, target, seed, case } => try_fuzz(seconds, target, seed, case),
        Arguments::FuzzChild { target, seed, first, dir } => {
            driver::run_child(&target, seed, first, &dir)
        }
        Arguments::DiskFullChild { dir } => disk_full::small::run_child(&dir),
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
    let counts = failures::run(step as u64)?;
    println!("a disk that fails once and says that all is well then\n{counts}");
    wrong.extend(counts.violations);
    held::try_held(&std::env::current_exe()?)?;
    println!("a store that another process has open: refused, and free when it has died");
    ensure!(wrong.is_empty(), "{} failures, of which the first are:\n{}", wrong.len(), {
        wrong.truncate(20);
        wrong.join("\n")
    });
    Ok(())
}

fn try_soak(
    seconds: u64,
    seed: Option<u64>,
    stall: Duration,
    strict: bool,
    dir: Option<PathBuf>,
) -> Result<()> {
    let clock =
        || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_millis() as u64);
    let seed = seed.unwrap_or_else(clock);
    let dir = match dir {
        Some(dir) => dir,
        None => tempfile::Builder::new().prefix("kvorum-soak-").tempdir()?.keep(),
    };
    println!("seed {seed}, in {}", dir.display());
    let program = std::env::current_exe()?;
    let soak = Soak { seconds, seed, stall, strict, dir, program };
    let outcome = soak.run()?;
    println!("{}{}", outcome.text, outcome.json);
    outcome.check()?;
    std::fs::remove_dir_all(&soak.dir)?;
    Ok(())
}

/// A seed for those who do not care.
fn clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_millis() as u64)
}

fn try_fuzz(
    seconds: u64,
    target: Option<String>,
    seed: Option<u64>,
    case: Option<u64>,
) -> Result<()> {
    let seed = seed.unwrap_or_else(clock);
    let targets: Vec<Target> = match target {
        Some(name) => vec![driver::target(&name)?],
        None => Target::ALL.to_vec(),
    };
    let mut failures = 0;
    for target in targets {
        if let Some(case) = case {
            let seen = target.try_case(&mut Entropy::of_case(target.name(), seed, case))?;
            println!("{}: {seen:?}", target.name());
            continue;
        }
        let program = std::env::current_exe()?;
        let outcome = driver::run(target, &program, seed, Duration::from_secs(seconds))?;
        println!("{:9} seed {seed}: {outcome}", target.name());
        failures += outcome.failures.len();
    }
    ensure!(failures == 0, "{failures} failures");
    Ok(())
}

fn try_crash(runs: u64, seed: u64, batches: u64, subsets: u64) -> Result<()> {
    for seed in seed..seed + runs {
        for how in [Use::Embedded, Use::Owned] {
            let counts = Crash { seed, batches, subsets, again_every: 20 }.run(how)?;
            println!("{how:?}, seed {seed}\n{counts}");
            ensure!(counts.violations.is_empty(), "{} violations", counts.violations.len());
            ensure!(counts.at_stake > 0 && counts.again > 0, "nothing was ever at stake");
        }
    }
    Ok(())
}

fn try_disk_full(step: u64) -> Result<()> {
    let counts = disk_full::run(step)?;
    println!("each operation in turn\n{counts}");
    ensure!(counts.violations.is_empty(), "{} violations", counts.violations.len());
    ensure!(counts.refused > 0 && counts.healed > 0, "there was always room");
    for kind in [Kind::Tmpfs, Kind::Ext4] {
        match disk_full::small::run(kind, &std::env::current_exe()?)? {
            Some(said) => println!("a small {kind:?}\n  {said}"),
            None => println!("a small {kind:?}\n  cannot be mounted here"),
        }
    }
    Ok(())
}

async fn try_connections(count: usize) -> Result<()> {
    let half = |announced, sent| Visit::Half { announced, sent };
    // A replica also keeps what its peers need; nothing of that grows here.
    for member in [Member::Coordinator, Member::Replica(1)] {
        // Each begins with a fresh server: what an allocator keeps of one would hide the next.
        for visit in [Visit::Silent, Visit::Idle, half(16 << 20, 8), half(1 << 20, 64 << 10)] {
            let cluster = cluster(program(&std::env::current_exe()?)).await?;
            let cost = connections::visit(&cluster, member, count, visit).await?;
            let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            println!(
                "{member}: {count} {visit}: {:.0} MiB before, {:.0} with {} of them there, {:.0} \
                 after; unfinished messages held {:.1} MiB; a put took {:?}, and {:?} meanwhile",
                mebibytes(cost.before.resident_bytes),
                mebibytes(cost.during.resident_bytes),
                cost.during.connections - cost.before.connections,
                mebibytes(cost.after.resident_bytes),
                mebibytes(cost.during.unfinished_bytes),
                cost.before.put,
                cost.during.put,
            );
        }
    }
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

async fn try_rejoin(rejoin: &Rejoin) -> Result<()> {
    let program = program(&std::env::current_exe()?);
    let began = Instant::now();
    let say = |what: &str| eprintln!("{:6.1} s: {what}", began.elapsed().as_secs_f64());
    let outcome = rejoin.run(program, say).await?;
    println!("{outcome}");
    outcome.check()
}

async fn try_fail_points(rounds: u32) -> Result<()> {
    let mut cluster = cluster(program(&std::env::current_exe()?)).await?;
    for round in 1..=rounds {
        for point in points::COORDINATOR.iter().chain(points::PARTICIPANT) {
            if !is_of_commits(point) {
                try_point_beside(&mut cluster, point).await?;
                println!("round {round}: {}", point.name);
                continue;
            }
            let troubles = [Trouble::Killed, Trouble::KilledWhileClientRetries, Trouble::Paused];
            for trouble in troubles {
                try_point(&mut cluster, point, trouble).await?;
                println!("round {round}: {trouble:?} at {}", point.name);
            }
        }
    }
    Ok(())
}
