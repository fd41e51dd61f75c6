//! The command line of `kvorum-lab`.

use std::ops::Range;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::check::Check;
use crate::output::Format;
use crate::run::Run;
use crate::sim::Sim;

const ABOUT: &str =
    "Kvorum's lab: simulates clusters, breaks real ones, and judges what clients saw";

const EXAMPLES: &str = "\
Examples:
  kvorum-lab sim --seeds 0..2000            2000 simulated clusters, each with its own faults
  kvorum-lab sim --seed 7 --trace           one of them, line by line, the same on every machine
  kvorum-lab run --nemesis kill,pause,partition --seconds 60 --report run.html
  kvorum-lab check history.jsonl --model linearizable

Exit codes:
  0  every promise was kept
  1  one was not
  2  the command line or an input file is wrong
  4  it could not be run, or a file could not be read
  5  a judge gave up: neither is known
Errors go to standard error; with --output json as {\"error\":..., \"kind\":...}.";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "kvorum-lab", version, about = ABOUT, after_help = EXAMPLES)]
#[command(max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command knows.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// How to print: text for people, JSON (an object a line) for programs
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value = "text")]
    pub(crate) output: Format,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Sim(Sim),
    Run(Run),
    Check(Check),
    #[cfg(feature = "planted-bugs")]
    Planted(crate::planted::Hunt),
    /// Give the nodes each known bug on purpose, and find it
    #[cfg(not(feature = "planted-bugs"))]
    #[command(hide = true)]
    Planted {
        /// Whatever the command would have taken.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        _words: Vec<String>,
    },
    /// Serve, as kvorumd does
    #[command(hide = true, subcommand)]
    Serve(kvorum::server::Command),
}

/// Which protocol is put to the test.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    // Not a documentation comment: it would make every help text longer.
    #[default]
    #[value(name = "2pc")]
    TwoPhase,
    #[value(name = "paxos")]
    Paxos,
}

/// Reads `A..B`: from A up to and without B.
pub(crate) fn range(text: &str) -> Result<Range<u64>, String> {
    let how = || "write it as A..B, two whole numbers, A being less than B".to_owned();
    let (from, to) = text.split_once("..").ok_or_else(how)?;
    let (from, to) = (from.parse().map_err(|_| how())?, to.parse().map_err(|_| how())?);
    if from >= to {
        return Err(how());
    }
    Ok(from..to)
}

#[cfg(test)]
mod tests {
    use super::*;

    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn ranges_have_a_first_and_a_last() {
        assert_eq!(range("0..2000"), Ok(0..2000));
        assert_eq!(range("7..8"), Ok(7..8));
        for wrong in
            ["", "7", "..", "0..", "..7", "7..7", "8..7", "a..b", "0...7", "0..=7", "-1..7"]
        {
            assert!(range(wrong).is_err(), "{wrong}");
        }
    }
}
