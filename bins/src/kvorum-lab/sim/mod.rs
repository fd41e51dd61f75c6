//! `sim`: whole clusters on one thread each, from seeds.

mod print;
mod reduced;
mod seeds;

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, ValueEnum};
use kvorum_checker::{History, write_line};
use kvorum_replication::paxos::AcceptorRestart;
use kvorum_sim::planted::Place;
use kvorum_sim::{Setup, Shrunk, Simulate, shrink};

use crate::arguments::range;
use crate::error::{LabError, VIOLATED, can_write};
use crate::output::Output;
use crate::plant::Plant;
use crate::quiet::quietly;
use reduced::Reduced;

/// Runs that are spent on making a failing one smaller: seconds.
const SHRINK_RUNS_MAX: u32 = 1_000;

const THREADS_MAX: i64 = 256;

/// Simulate whole clusters from seeds, each with its own faults, and judge them
///
/// Real cores on the real engine, over a virtual network, virtual disks and virtual time. The seed
/// decides everything: the same seed is the same run on every machine. If one breaks a promise, it
/// is made smaller, and one command is printed that repeats it.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  kvorum-lab sim --seeds 0..2000
  kvorum-lab sim --any-replica --seeds 0..2000
  kvorum-lab sim --protocol paxos --seeds 0..2000
  kvorum-lab sim --protocol paxos --acceptor-restart amnesia
  kvorum-lab sim --seed 7 --trace | less
  kvorum-lab sim --seed 7 --history seven.jsonl
  kvorum-lab --output json sim | jq .faults")]
pub(crate) struct Sim {
    /// The protocol, or `engine`: a store by itself against a model [default: 2pc]
    #[arg(long, value_name = "P", value_enum)]
    protocol: Option<Subject>,

    /// Two-phase commit without a coordinator process: any replica takes any request
    #[arg(long)]
    any_replica: bool,

    /// Seeds from A up to and without B
    #[arg(long, value_name = "A..B", value_parser = range, default_value = "0..200")]
    seeds: Range<u64>,

    /// This seed alone
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    seed: Option<u64>,

    /// Print what happens, line by line
    #[arg(long, requires = "seed")]
    trace: bool,

    /// What an acceptor of Multi-Paxos that stops by itself knows when it comes back: all it knew;
    /// nothing, and it asks to be let in again; nothing, and it votes at once, which breaks Paxos
    #[arg(long, value_name = "HOW", value_enum)]
    acceptor_restart: Option<Restart>,

    /// Threads that share the seeds [default: as many as this machine runs at once]
    #[arg(long, value_name = "N", conflicts_with = "seed")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=THREADS_MAX))]
    threads: Option<u32>,

    /// Go on after a violation
    #[arg(long, conflicts_with = "seed")]
    keep_going: bool,

    /// Show what nodes and stores did as well
    #[arg(long)]
    activity: bool,

    /// Write what clients saw to this file: of --seed, or of the first seed that breaks a promise
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,

    #[command(flatten)]
    reduced: Reduced,

    #[command(flatten)]
    plant: Plant,
}

/// What is simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Subject {
    // Not documentation comments: they would make every help text longer.
    #[value(name = "2pc")]
    TwoPhase,
    Paxos,
    Engine,
}

/// What an acceptor knows that comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Restart {
    // Not documentation comments: they would make every help text longer.
    Durable,
    Rejoin,
    Amnesia,
}

impl Subject {
    fn place(self) -> Place {
        match self {
            Self::TwoPhase => Place::TwoPhase,
            Self::Paxos => Place::Paxos,
            Self::Engine => Place::Engine,
        }
    }
}

/// Simulates, and says what came of it.
pub(crate) fn sim(output: &mut Output, arguments: &Sim) -> Result<ExitCode, LabError> {
    let began = Instant::now();
    if arguments.seed.is_none() && (arguments.trace || !arguments.reduced.is_nothing()) {
        // clap lets it pass: to it, --seeds is a reason why --seed is not needed.
        return Err(LabError::usage(
            "--trace, and the flags of a smaller run, are for one seed",
            "name it: --seed N",
        ));
    }
    if arguments.acceptor_restart.is_some() && arguments.place() != Place::Paxos {
        return Err(LabError::usage(
            "--acceptor-restart is for Multi-Paxos",
            "say so: --protocol paxos",
        ));
    }
    let is_other = arguments.protocol.is_some_and(|it| it != Subject::TwoPhase);
    if arguments.any_replica && is_other {
        return Err(LabError::usage(
            "--any-replica is for two-phase commit",
            "say so: --protocol 2pc",
        ));
    }
    let code = match arguments.seed {
        Some(seed) => one(output, arguments, seed),
        None => seeds::run(output, arguments),
    }?;
    output.note(&format!("in {:.1} s", began.elapsed().as_secs_f64()))?;
    Ok(code)
}

/// One seed. With a trace nothing else is printed but the verdict, so that two runs can be compared.
fn one(output: &mut Output, arguments: &Sim, seed: u64) -> Result<ExitCode, LabError> {
    if let Some(path) = &arguments.history {
        can_write(path)?;
    }
    let setup = Setup {
        traced: arguments.trace,
        reduction: arguments.reduced.reduction(),
        ..arguments.setup(seed)
    };
    let mut run = quietly(|| (arguments.simulate())(&setup));
    if let Some(trace) = run.trace.take() {
        output.text(trace)?;
    }
    if let Some(path) = &arguments.history {
        write_history(path, &run.history)?;
    }
    let violation = run.violation.clone();
    let shrunk = match &violation {
        // What somebody has made smaller already stays as they want it.
        Some(_) if !arguments.trace && arguments.reduced.is_nothing() => {
            smaller(output, arguments, seed)?
        }
        Some(_) | None => None,
    };
    print::one(output, arguments, &setup, run, shrunk.as_ref())?;
    Ok(ExitCode::from(if violation.is_some() { VIOLATED } else { 0 }))
}

/// Makes the run of this seed, which breaks a promise, smaller.
fn smaller(output: &mut Output, arguments: &Sim, seed: u64) -> Result<Option<Shrunk>, LabError> {
    output.note(&format!("making seed {seed} smaller, in at most {SHRINK_RUNS_MAX} runs ..."))?;
    let failing = arguments.setup(seed);
    Ok(quietly(|| shrink(arguments.simulate(), &failing, SHRINK_RUNS_MAX)))
}

impl Sim {
    /// What is said, else what shows the planted bug, else a cluster.
    fn place(&self) -> Place {
        let said = match self.any_replica {
            true => Some(Place::AnyReplica),
            false => self.protocol.map(Subject::place),
        };
        said.or_else(|| self.plant.place()).unwrap_or(Place::TwoPhase)
    }

    /// The whole run of a seed.
    fn setup(&self, seed: u64) -> Setup {
        let acceptor_restart = self.acceptor_restart.map(|restart| match restart {
            Restart::Durable => AcceptorRestart::Durable,
            Restart::Rejoin => AcceptorRestart::Rejoin,
            Restart::Amnesia => AcceptorRestart::Amnesia,
        });
        Setup { planted: self.plant.planted(), acceptor_restart, ..Setup::new(seed) }
    }

    fn simulate(&self) -> Simulate {
        self.place().simulate()
    }

    /// The command that repeats a run.
    fn command(&self, setup: &Setup) -> String {
        format!("kvorum-lab sim {}{} {setup}", self.place().flags(), self.plant.flag())
    }
}

fn write_history(path: &Path, history: &History) -> Result<(), LabError> {
    let write = || -> io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        history.iter().try_for_each(|record| write_line(&mut file, record))?;
        file.flush()
    };
    write().map_err(|error| LabError::cannot(&format!("writing {}", path.display()), &error))
}
