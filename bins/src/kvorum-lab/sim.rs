//! `sim`: whole clusters on one thread each, from seeds.

use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use kvorum_sim::{Counts, two_phase};

use crate::arguments::{Protocol, range};
use crate::error::{LabError, VIOLATED};
use crate::output::Output;

/// Simulate clusters from seeds, each with its own faults, and judge them
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  kvorum-lab sim --seeds 0..2000
  kvorum-lab sim --seed 7 --trace | less")]
pub(crate) struct Sim {
    /// The protocol
    #[arg(long, value_name = "P", value_enum, default_value = "2pc")]
    pub(crate) protocol: Protocol,

    /// Seeds from A up to and without B
    #[arg(long, value_name = "A..B", value_parser = range, default_value = "0..200")]
    pub(crate) seeds: Range<u64>,

    /// One seed
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    pub(crate) seed: Option<u64>,

    /// Print what happens, line by line
    #[arg(long, requires = "seed")]
    pub(crate) trace: bool,

    /// Threads that share the seeds [default: as many as there are processors]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,

    /// Go on after a violation
    #[arg(long)]
    pub(crate) keep_going: bool,

    /// Write what clients saw to this file
    #[arg(long, value_name = "FILE", requires = "seed")]
    pub(crate) history: Option<PathBuf>,
}

/// Simulates, and says what came of it.
pub(crate) fn sim(output: &mut Output, arguments: &Sim) -> Result<ExitCode, LabError> {
    let seeds = arguments.seed.map_or_else(|| arguments.seeds.clone(), |seed| seed..seed + 1);
    let mut faults = Counts::default();
    for seed in seeds {
        let run = two_phase::simulate(seed, arguments.trace);
        faults.add(&run.faults);
        if let Some(trace) = run.trace {
            output.text(trace)?;
        }
        if let Some(violation) = run.violation {
            output.line(format!("seed {seed}: {violation}"))?;
            return Ok(ExitCode::from(VIOLATED));
        }
    }
    output.line(faults.to_string())?;
    Ok(ExitCode::SUCCESS)
}
