//! `check`: histories from files, judged.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use kvorum_checker::{History, Limits, LineError, Verdict, linearizable, read_lines, serializable};

use crate::error::{LabError, UNDECIDED, VIOLATED};
use crate::output::Output;

/// Judge what clients saw
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  kvorum-lab check history.jsonl --model linearizable
  kvorum bench --history /dev/stdout ... | kvorum-lab check -")]
pub(crate) struct Check {
    /// Histories, one JSON object a line; `-` is standard input
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,

    /// What was promised
    #[arg(long, value_enum, default_value = "linearizable")]
    pub(crate) model: Model,
}

/// What was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Model {
    /// Each key by itself behaves as one register.
    Linearizable,
    /// The whole store does: strict serializability.
    Serializable,
}

/// Judges each file.
pub(crate) fn check(output: &mut Output, arguments: &Check) -> Result<ExitCode, LabError> {
    let mut code = 0;
    for path in &arguments.files {
        let history = read(path)?;
        let verdict = match arguments.model {
            Model::Linearizable => linearizable(&history, Limits::default()),
            Model::Serializable => serializable(&history, Limits::default()),
        };
        output.line(format!("{}: {verdict}", path.display()))?;
        code = match verdict {
            Verdict::Holds => code,
            Verdict::Violated(_) => VIOLATED,
            Verdict::Undecided { .. } if code == 0 => UNDECIDED,
            Verdict::Undecided { .. } => code,
        };
    }
    Ok(ExitCode::from(code))
}

fn read(path: &Path) -> Result<History, LabError> {
    let cannot = |error| LabError::cannot(&format!("reading {}", path.display()), &error);
    let from: Box<dyn BufRead> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(path).map_err(cannot)?))
    };
    read_lines(from).map_err(|error| match error {
        LineError::Read { source, .. } => cannot(source),
        malformed @ LineError::Malformed { .. } => {
            LabError::usage(format!("{}: {malformed}", path.display()), "")
        }
    })
}
