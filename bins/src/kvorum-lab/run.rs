//! `run`: real processes, real faults, and the history judged.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use kvorum::cluster::{ClusterError, Program};
use kvorum::lab::nemesis::Kind;
use kvorum::lab::report::{self, Finding, JudgeVerdict};
use kvorum::lab::run::{Doing, Progress, RunError, RunOptions, run as make};
use kvorum::lab::summary::Outcome;
use kvorum::lab::workload::Workload;
use kvorum::time::duration;
use kvorum_replication::Protocol as Replicates;
use serde_json::json;

use crate::arguments::Protocol;
use crate::error::{LabError, UNDECIDED, VIOLATED, can_write};
use crate::output::{Format, Output};
use crate::plant::Plant;

/// Real processes on this machine, broken while clients use them; what clients saw is judged
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
What can be broken:
  kill        SIGKILL of one process, several or all, and a restart
  pause       SIGSTOP, and SIGCONT after a while
  fail-point  a process dies or stops at a named point of the protocol
  partition   processes do not reach each other: one, halves, or all but a bridge
  one-way     one direction is cut
  delay       messages are late, each by another time
  slow        messages pass at a trickle
  reset       connections are reset
  client      clients do not reach a process
  disk-full   a disk has no room
  clock       clocks jump, ahead and back
  all         all of these

Examples:
  kvorum-lab run --seconds 60 --nemesis kill,pause,partition --report run.html
  kvorum-lab run --clients 32 --workload bank --nemesis all --history history.jsonl")]
pub(crate) struct Run {
    /// The protocol
    #[arg(long, value_name = "P", value_enum, default_value = "2pc")]
    pub(crate) protocol: Protocol,

    /// Two-phase commit without a coordinator process: whichever replica is asked coordinates
    #[arg(long)]
    pub(crate) any_replica: bool,

    /// Replicas, beside the coordinator if the protocol has one
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=9))]
    pub(crate) replicas: u32,

    /// Clients, each with two connections: to where writes are taken, and to a replica
    #[arg(long, value_name = "N", default_value_t = 16)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) clients: u32,

    /// How long things are broken
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub(crate) seconds: Duration,

    /// What to break, such as kill,pause,partition [default: nothing]
    #[arg(long, value_name = "LIST", value_parser = Kinds::read)]
    pub(crate) nemesis: Option<Kinds>,

    /// All chance in faults and clients follows from it
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,

    /// What clients do: register or bank
    #[arg(long, value_name = "NAME", default_value = "register")]
    pub(crate) workload: Workload,

    /// Keys, or accounts, that clients share
    #[arg(long, value_name = "N", default_value_t = 16)]
    #[arg(value_parser = clap::value_parser!(u32).range(2..=1_000))]
    pub(crate) keys: u32,

    /// Operations a second of all clients together; more make judging slower
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub(crate) rate: u32,

    /// Write what was asked and answered to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) history: Option<PathBuf>,

    /// Write the report to this file, an HTML page
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,

    /// Keep data and logs in this directory, which is new or empty; else they are removed
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,

    /// For tests: how soon everything must work again once nothing is broken any more
    #[arg(long, value_name = "TIME", hide = true, default_value = "10s", value_parser = duration)]
    pub(crate) back_within: Duration,

    /// For tests: a flag that every server is started with; may be repeated
    #[arg(long, value_name = "FLAG", hide = true, allow_hyphen_values = true)]
    pub(crate) server_flag: Vec<String>,

    /// Whether the servers have a bug on purpose.
    #[command(flatten)]
    pub(crate) plant: Plant,
}

/// What to break, from a list.
#[derive(Clone, Debug)]
pub(crate) struct Kinds(Vec<Kind>);

impl Kinds {
    fn read(text: &str) -> Result<Self, String> {
        Kind::list(text).map(Self)
    }
}

/// Runs the cluster, breaks it, judges the history.
pub(crate) fn run(output: &mut Output, arguments: &Run) -> Result<ExitCode, LabError> {
    let protocol = match (arguments.protocol, arguments.any_replica) {
        (Protocol::TwoPhase, false) => Replicates::TwoPhase,
        (Protocol::TwoPhase, true) => Replicates::AnyReplica,
        (Protocol::Paxos, false) => Replicates::Paxos,
        (Protocol::Paxos, true) => {
            return Err(LabError::usage(
                "--any-replica is a way of two-phase commit".to_owned(),
                "leave it out: under paxos clients may ask any replica anyway",
            ));
        }
    };
    for path in arguments.report.iter().chain(&arguments.history) {
        can_write(path)?;
    }
    let this =
        std::env::current_exe().map_err(|error| LabError::cannot("finding itself", &error))?;
    let command: Vec<String> = std::env::args().skip(1).collect();
    let mut server_flags = arguments.server_flag.clone();
    server_flags.extend(arguments.plant.flag().split_whitespace().map(str::to_owned));
    let options = RunOptions {
        protocol,
        replicas: arguments.replicas,
        clients: arguments.clients,
        rate: arguments.rate,
        length: arguments.seconds,
        back_within: arguments.back_within,
        nemesis: arguments.nemesis.clone().map(|kinds| kinds.0).unwrap_or_default(),
        seed: arguments.seed,
        workload: arguments.workload,
        keys: arguments.keys,
        history: arguments.history.clone(),
        directory: arguments.data_dir.clone(),
        server_flags,
        heeds_signals: true,
        command: format!("kvorum-lab {}", command.join(" ")),
        ..RunOptions::new(Program::with_subcommand(this, "serve"))
    };
    let mut line = Line { is_watched: output.is_watched(), shown: 0 };
    let outcome = make(&options, &mut |progress| line.show(progress));
    line.clear();
    let outcome = outcome.map_err(|error| failed(&error))?;
    print(output, &outcome)?;
    if let Some(file) = &arguments.report {
        let doing = format!("writing {}", file.display());
        fs::write(file, report::html(&outcome.report))
            .map_err(|error| LabError::cannot(&doing, &error))?;
    }
    Ok(match outcome.finding() {
        Finding::Holds => ExitCode::SUCCESS,
        Finding::Violated => ExitCode::from(VIOLATED),
        Finding::Undecided => ExitCode::from(UNDECIDED),
    })
}

fn print(output: &mut Output, outcome: &Outcome) -> Result<(), LabError> {
    match output.format {
        Format::Text => output.line(outcome.to_string()),
        Format::Json => {
            for strike in &outcome.strikes {
                output.json(&json!({
                    "fault": strike.kind.name(), "name": strike.name, "from": strike.from,
                    "to": strike.to, "fired": strike.fired, "evidence": strike.evidence,
                }))?;
            }
            for JudgeVerdict { judge, finding, words, .. } in &outcome.report.verdicts {
                output.json(&json!({
                    "judge": judge, "finding": name(*finding), "words": words,
                }))?;
            }
            let numbers = &outcome.numbers;
            output.json(&json!({
                "verdict": name(outcome.finding()), "ok": numbers.ok,
                "refused": numbers.refused, "unknown": numbers.unknown,
                "acknowledged_writes": numbers.acknowledged_writes,
                "available_slices": numbers.available.0, "slices": numbers.available.1,
            }))
        }
    }
}

fn name(finding: Finding) -> &'static str {
    match finding {
        Finding::Holds => "holds",
        Finding::Violated => "violated",
        Finding::Undecided => "undecided",
    }
}

fn failed(error: &RunError) -> LabError {
    match error {
        RunError::Cluster(ClusterError::NotEmpty(_)) => LabError::usage(error.to_string(), ""),
        RunError::Cluster(_) | RunError::Clients(_) | RunError::Io { .. } => {
            LabError::CannotRun { what: error.to_string(), remedy: String::new() }
        }
    }
}

/// A line on a terminal that says how far the run is.
struct Line {
    is_watched: bool,
    /// The last tenth of a second that was shown.
    shown: u128,
}

impl Line {
    fn show(&mut self, progress: &Progress) {
        let Progress { elapsed, operations, acknowledged, doing } = progress;
        let now = elapsed.as_millis() / 100;
        if !self.is_watched || (now == self.shown && *doing == Doing::Breaking) {
            return;
        }
        self.shown = now;
        let doing = match doing {
            Doing::Breaking => "breaking",
            Doing::Healing => "healing",
            Doing::Judging => "judging",
        };
        // What cannot be shown is no reason to fail.
        let _ = write!(
            io::stderr(),
            "\r\x1b[K{:.1} s, {doing}: {operations} operations, {acknowledged} writes acknowledged",
            elapsed.as_secs_f64()
        );
    }

    fn clear(&self) {
        if self.is_watched {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
