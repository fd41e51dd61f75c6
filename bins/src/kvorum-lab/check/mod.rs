//! `check`: histories from files, judged.

mod file;
mod print;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, ValueEnum};
use kvorum_checker::{
    Isolation, Limits, Verdict, acyclic, conserved, converged, linearizable, serializable, sessions,
};

use crate::error::{LabError, UNDECIDED, VIOLATED};
use crate::output::Output;
use file::{File, read};

/// Judge what clients saw
///
/// Reads histories that `kvorum-lab run`, `kvorum-lab sim` and `kvorum bench` write with --history,
/// or anything else that writes the same lines.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Lines, one JSON object each; times are nanoseconds of one clock:
  {\"client\":1,\"op\":\"put\",\"key\":\"k\",\"value\":\"v\",\"call\":10,\"ret\":20,\"ok\":true}
  {\"client\":2,\"op\":\"get\",\"key\":\"k\",\"call\":12,\"ret\":18,\"ok\":true,\"result\":\"v\"}
  {\"client\":1,\"op\":\"cas\",\"key\":\"k\",\"expected\":\"v\",\"value\":\"w\",\"call\":30,\"ret\":44,\"ok\":false}
  {\"client\":3,\"op\":\"del\",\"key\":\"k\",\"call\":31,\"ret\":90,\"ok\":\"unknown\"}
  {\"copy\":\"replica 1\",\"rows\":[[\"k\",\"v\"]]}
  Others are mget, scan, txn, list and rw; see docs/lab.md.

Examples:
  kvorum-lab check history.jsonl
  kvorum-lab check history.jsonl --model serializable --timeline wrong.html
  kvorum-lab check *.jsonl                  a line for each
  zcat history.jsonl.gz | kvorum-lab check -

Exit code 0 says that the promise was kept, 1 that it was not, 2 that a line is wrong, 4 that a file
cannot be read, 5 that the judge gave up. Of several files the first of 1, 2, 4, 5 that fits one.")]
pub(crate) struct Check {
    /// Histories; `-` is standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    /// What was promised
    #[arg(long, value_enum, default_value = "linearizable")]
    model: Model,

    /// With --model bank: the sum of all accounts [default: what most reads found]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    total: Option<i128>,

    /// Draw the operations that cannot all be true, as an HTML page
    #[arg(long, value_name = "FILE")]
    timeline: Option<PathBuf>,
}

/// What was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Model {
    /// Each key by itself behaves as one register on which operations happen one at a time
    Linearizable,
    /// All keys together behave so: strict serializability
    Serializable,
    /// The four session guarantees, each by itself and all together
    Session,
    /// Transfers keep the sum of all accounts, as every read of all of them shows
    Bank,
    /// Transactions of appends and reads of whole lists have one order, which respects real time
    ListAppend,
    /// All copies hold the same rows in the end
    Convergence,
}

impl Model {
    fn name(self) -> &'static str {
        match self {
            Self::Linearizable => "linearizable",
            Self::Serializable => "serializable",
            Self::Session => "session",
            Self::Bank => "bank",
            Self::ListAppend => "list-append",
            Self::Convergence => "convergence",
        }
    }

    fn judge(self, file: &File, total: Option<i128>) -> Verdict {
        match self {
            Self::Linearizable => linearizable(&file.history, Limits::default()),
            // Cycles are found at once, and say more; the search also finds what is no cycle.
            Self::Serializable => match acyclic(&file.history, Isolation::StrictSerializable) {
                violated @ Verdict::Violated(_) => violated,
                Verdict::Holds | Verdict::Undecided { .. } => {
                    serializable(&file.history, Limits::default())
                }
            },
            // The plainest comes first, so that what is wrong is said as simply as it can be.
            Self::Session => worst(sessions(&file.history).into_iter().map(|(_, verdict)| verdict)),
            Self::Bank => conserved(&file.history, total),
            Self::ListAppend => acyclic(&file.history, Isolation::StrictSerializable),
            Self::Convergence => converged(&file.copies),
        }
    }

    /// Whether it judges copies, and not operations.
    fn is_of_copies(self) -> bool {
        match self {
            Self::Convergence => true,
            Self::Linearizable
            | Self::Serializable
            | Self::Session
            | Self::Bank
            | Self::ListAppend => false,
        }
    }
}

/// Judges each file.
pub(crate) fn check(output: &mut Output, arguments: &Check) -> Result<ExitCode, LabError> {
    let [path] = &arguments.files[..] else { return check_many(output, arguments) };
    let began = Instant::now();
    let file = read(path, output.is_watched())?;
    refuse_nothing(arguments.model, &file)?;
    let verdict = arguments.model.judge(&file, arguments.total);
    print::one(output, arguments.model, &file, &verdict)?;
    draw(output, arguments, &verdict)?;
    output.note(&format!("judged in {:.2} s", began.elapsed().as_secs_f64()))?;
    Ok(ExitCode::from(code(&verdict)))
}

/// A line for each; what is wrong with one file does not hide what is wrong with another.
fn check_many(output: &mut Output, arguments: &Check) -> Result<ExitCode, LabError> {
    if arguments.timeline.is_some() {
        return Err(LabError::usage("--timeline draws one history", "give one file"));
    }
    let mut codes = Vec::new();
    for path in &arguments.files {
        let file = read(path, output.is_watched());
        let file = file.and_then(|file| refuse_nothing(arguments.model, &file).map(|()| file));
        codes.push(match file {
            Ok(file) => {
                let verdict = arguments.model.judge(&file, arguments.total);
                print::one_of_many(output, arguments.model, &file, &verdict)?;
                code(&verdict)
            }
            Err(error) => {
                output.error(&error)?;
                error.code()
            }
        });
        output.flush()?;
    }
    // In the order in which `--help` names them.
    let first = [VIOLATED, 2, 4, UNDECIDED].into_iter().find(|code| codes.contains(code));
    Ok(ExitCode::from(first.unwrap_or(0)))
}

/// The first that is violated, else the first that is undecided.
fn worst(verdicts: impl Iterator<Item = Verdict>) -> Verdict {
    let mut worst = Verdict::Holds;
    for verdict in verdicts {
        match verdict {
            Verdict::Holds => {}
            Verdict::Violated(_) => return verdict,
            Verdict::Undecided { .. } if worst.holds() => worst = verdict,
            Verdict::Undecided { .. } => {}
        }
    }
    worst
}

fn code(verdict: &Verdict) -> u8 {
    match verdict {
        Verdict::Holds => 0,
        Verdict::Violated(_) => VIOLATED,
        Verdict::Undecided { .. } => UNDECIDED,
    }
}

/// A promise about nothing is always kept, which is hardly what was to be known.
fn refuse_nothing(model: Model, file: &File) -> Result<(), LabError> {
    let (missing, line) = match model.is_of_copies() {
        true if file.copies.len() < 2 => ("two copies", "{\"copy\":NAME,\"rows\":[[KEY,VALUE]]}"),
        false if file.history.is_empty() => ("an operation", "{\"client\":N,\"op\":...}"),
        true | false => return Ok(()),
    };
    Err(LabError::usage(
        format!("{}: --model {} needs {missing}", file.name, model.name()),
        format!("a line is {line}"),
    ))
}

fn draw(output: &mut Output, arguments: &Check, verdict: &Verdict) -> Result<(), LabError> {
    let Some(path) = &arguments.timeline else { return Ok(()) };
    let Some(violation) = verdict.violation() else {
        return output.note("nothing to draw: no violation was found");
    };
    fs::write(path, kvorum_checker::timeline_page(violation))
        .map_err(|error| LabError::cannot(&format!("writing {}", path.display()), &error))?;
    output.note(&format!("drawn in {}", path.display()))
}
