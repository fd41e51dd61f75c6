//! Starts the processes of the chain, lets the load run, and sums up.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;

use crate::client::Outcome;

/// The unit of times in `/proc`: Linux fixes it for programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// What is run.
#[derive(Clone, Debug, Args)]
pub(crate) struct Chain {
    /// Connections
    #[arg(long, default_value_t = Self::default().clients)]
    pub(crate) clients: usize,
    /// Puts in flight on each connection
    #[arg(long, default_value_t = Self::default().outstanding)]
    pub(crate) outstanding: usize,
    /// Keys, each with a value, in one put
    #[arg(long, default_value_t = Self::default().pairs)]
    pub(crate) pairs: usize,
    /// The size of a key
    #[arg(long, default_value_t = Self::default().key_bytes)]
    pub(crate) key_bytes: usize,
    /// The size of a value
    #[arg(long, default_value_t = Self::default().value_bytes)]
    pub(crate) value_bytes: usize,
    /// How many replicas
    #[arg(long, default_value_t = Self::default().replicas)]
    pub(crate) replicas: usize,
    /// What is not measured at the beginning
    #[arg(long, default_value_t = Self::default().warm_up_ms)]
    pub(crate) warm_up_ms: u64,
    /// What is measured
    #[arg(long, default_value_t = Self::default().measured_ms)]
    pub(crate) measured_ms: u64,
    /// Groups that a replica may have on their way to the disk at once
    #[arg(long, default_value_t = Self::default().lanes)]
    pub(crate) lanes: usize,
    /// Batches that may be at the replicas at once
    #[arg(long, default_value_t = Self::default().depth)]
    pub(crate) depth: usize,
}

/// What came of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
    /// Time of a processor for each put, in microseconds: of the clients, of the coordinator, and
    /// of the replicas together.
    pub(crate) client_cpu_us: f64,
    pub(crate) coordinator_cpu_us: f64,
    pub(crate) replicas_cpu_us: f64,
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            clients: 64,
            outstanding: 1,
            pairs: 1,
            key_bytes: 16,
            value_bytes: 128,
            replicas: 3,
            warm_up_ms: 1000,
            measured_ms: 5000,
            lanes: 2,
            depth: 1,
        }
    }
}

impl Chain {
    /// Runs once, in a directory of its own where temporary files go.
    pub(crate) fn run(&self) -> Result<Report> {
        ensure!(self.clients * self.outstanding > 0, "nobody to ask");
        ensure!(self.clients * self.outstanding <= crate::wire::BATCH_MAX, "too many at once");
        let directory = tempfile::Builder::new().prefix("kvorum-chain-").tempdir()?;
        let body_bytes = (self.pairs * (self.key_bytes + self.value_bytes)).to_string();
        let mut replicas = Vec::new();
        for number in 1..=self.replicas {
            let data = directory.path().join(format!("replica-{number}"));
            let lanes = self.lanes.to_string();
            let flags = ["replica", "--data", text(&data)?, "--body-bytes", &body_bytes];
            replicas.push(Process::start(&[&flags[..], &["--lanes", &lanes]].concat())?);
        }
        let mut addresses = Vec::new();
        for replica in &mut replicas {
            addresses.push(replica.line()?);
        }
        let (clients, depth) = (self.clients.to_string(), self.depth.to_string());
        let data = directory.path().join("coordinator");
        let flags = ["coordinator", "--data", text(&data)?, "--body-bytes", &body_bytes];
        let more = ["--clients", &clients, "--depth", &depth];
        let to = addresses.iter().flat_map(|address| ["--replica", address]);
        let flags: Vec<_> = flags.into_iter().chain(more).chain(to).collect();
        let mut coordinator = Process::start(&flags)?;
        let address = coordinator.line()?;
        let outstanding = self.outstanding.to_string();
        let (warm_up, measured) = (self.warm_up_ms.to_string(), self.measured_ms.to_string());
        let mut client = Process::start(
            &[
                &["client", "--connect", &address, "--clients", &clients][..],
                &["--outstanding", &outstanding, "--body-bytes", &body_bytes],
                &["--warm-up-ms", &warm_up, "--measured-ms", &measured],
            ]
            .concat(),
        )?;
        let outcome: Outcome = serde_json::from_str(&client.line()?).context("what came of it")?;
        #[expect(clippy::cast_precision_loss, reason = "nobody counts to 2^52 here")]
        let each = |seconds: f64| seconds * 1e6 / outcome.puts.max(1) as f64;
        let of_replicas: Result<Vec<f64>> = replicas.iter().map(Process::cpu_seconds).collect();
        Ok(Report {
            client_cpu_us: each(client.cpu_seconds()?),
            coordinator_cpu_us: each(coordinator.cpu_seconds()?),
            replicas_cpu_us: each(of_replicas?.iter().sum()),
            outcome,
        })
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("the path of temporary files is not text")
}

/// A process of the chain, which ends with this.
struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("starting a process")?;
        let output = child.stdout.take().context("the output was not piped")?;
        Ok(Self { child, output: BufReader::new(output) })
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line).context("reading what a process says")?;
        ensure!(!line.is_empty(), "a process has ended");
        Ok(line.trim_end().to_owned())
    }

    fn cpu_seconds(&self) -> Result<f64> {
        cpu_seconds(self.child.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How long a process has been on a processor.
pub(crate) fn cpu_seconds(process: u32) -> Result<f64> {
    let path = format!("/proc/{process}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    // The name before it is in parentheses, and may hold anything.
    let (_, fields) = stat.rsplit_once(") ").context("a process without a name")?;
    let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<f64>);
    let ticks: f64 = ticks.sum::<Result<f64, _>>().context("times of a process")?;
    Ok(ticks / TICKS_PER_SECOND)
}
