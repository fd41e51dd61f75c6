//! Random operations by many threads, in a process that is killed at random times, for as long as one
//! says; and in turn over a disk in memory whose power fails.
//!
//! ```text
//! parent ── starts ──► child: opens, compares with the ledger, works, writes down what it does
//!    │                   │
//!    └──── SIGKILL ──────┘      and again
//! ```

pub mod child;
mod report;

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use self::child::{COUNTS, Opened};
use self::report::Report;
use super::power::PowerTrial;
use super::probe;
use super::random::{Random, hash};

/// A process under trial is ready after this long, or the trial has failed.
const PATIENCE: Duration = Duration::from_secs(300);

/// However short the time is, so often, and until something was compared.
const ROUNDS_MIN: u64 = 2;

/// How long power stays on.
const POWER_FOR: Duration = Duration::from_millis(150);

/// What to do, and when it is wrong.
#[derive(Clone, Debug)]
pub struct Soak {
    /// How long.
    pub seconds: u64,
    /// Decides what is done, and when the kills come.
    pub seed: u64,
    /// A write that takes longer is a violation, unless the machine stood still.
    pub stall: Duration,
    /// Even if it did.
    pub strict: bool,
    /// Where the store is. Kept if something is wrong.
    pub dir: PathBuf,
    /// This program.
    pub program: PathBuf,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// For people.
    pub text: String,
    /// For programs.
    pub json: String,
    /// Processes that were killed.
    pub kills: u64,
    /// Power cuts.
    pub cuts: u64,
    /// What must not be.
    pub violations: Vec<String>,
}

impl Soak {
    /// Kills and compares until the time is over or something is wrong.
    ///
    /// # Errors
    /// If it cannot be done at all. What is wrong with the store is in the outcome.
    pub fn run(&self) -> Result<Outcome> {
        std::fs::create_dir_all(&self.dir)?;
        let began = Instant::now();
        let mut report = Report::default();
        let mut power = PowerTrial::new(self.seed);
        let mut shown = Instant::now();
        for round in 0.. {
            let spent = began.elapsed().saturating_sub(Duration::from_secs(self.seconds));
            let has_begun = round >= ROUNDS_MIN && report.has_compared();
            if spent > Duration::ZERO && (has_begun || spent > PATIENCE) || report.is_wrong() {
                break;
            }
            if let Err(error) = self.kill(round, &mut report) {
                report.violations.push(format!("round {round}: {error:#}"));
                break;
            }
            if let Err(error) = power.cut(POWER_FOR) {
                let cut = power.cuts.cuts;
                report.violations.push(format!("power cut {cut}, seed {}: {error:#}", self.seed));
                break;
            }
            if shown.elapsed() > Duration::from_secs(5) {
                shown = Instant::now();
                println!("{:>5} s  {}", began.elapsed().as_secs(), report.line(power.cuts.cuts));
            }
        }
        report.end(&power, bytes_in(&self.dir.join("store"))?, began.elapsed());
        Ok(report.outcome(self))
    }

    /// One life of a process.
    fn kill(&self, round: u64, report: &mut Report) -> Result<()> {
        let mut random = Random::new(hash(&[self.seed, round]));
        let mut process = Killed(self.start(round)?);
        let began = Instant::now();
        let lines = lines_of(&mut process.0)?;
        // Some die before they are ready.
        let early = random.one_in(6).then(|| Duration::from_micros(random.below(80_000)));
        let ready = match lines.recv_timeout(early.unwrap_or(PATIENCE)) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Timeout) if early.is_some() => None,
            Err(RecvTimeoutError::Timeout) => bail!("not ready after {PATIENCE:?}"),
            Err(RecvTimeoutError::Disconnected) => bail!("{}", self.said(&mut process.0)?),
        };
        if let Some(ready) = ready {
            let opened: Opened = ready.parse().with_context(|| format!("it says {ready:?}"))?;
            report.opened(&opened);
            let lives = match random.below(12) {
                0 => 3_000 + random.below(3_000),
                1..3 => random.below(100),
                _ => 20 + random.below(2_000),
            };
            match lines.recv_timeout(Duration::from_millis(lives)) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(line) => bail!("{line}"),
                Err(RecvTimeoutError::Disconnected) => bail!("{}", self.said(&mut process.0)?),
            }
        } else {
            report.early_kills += 1;
        }
        process.0.kill()?;
        let status = process.0.wait()?;
        if status.signal() != Some(9) {
            bail!("it was to be killed, and ended by itself: {}", self.said(&mut process.0)?);
        }
        report.kills += 1;
        report.lived += began.elapsed();
        let (histogram, events) = probe::read(&self.dir)?;
        report.add_times(&histogram, &events, self.stall, round);
        report.add_counts(&std::fs::read_to_string(self.dir.join(COUNTS)).unwrap_or_default());
        for name in child::LEFT_BY_A_LIFE {
            let _ = std::fs::remove_file(self.dir.join(name));
        }
        Ok(())
    }

    fn start(&self, round: u64) -> Result<Child> {
        let errors = std::fs::File::create(self.dir.join("errors"))?;
        Command::new(&self.program)
            .arg("soak-child")
            .args(["--round", &round.to_string(), "--seed", &self.seed.to_string()])
            .args(["--stall-ms", &self.stall.as_millis().to_string()])
            .arg("--dir")
            .arg(&self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .context("starting the process to be killed")
    }

    /// Why a process ended that should not have.
    fn said(&self, process: &mut Child) -> Result<String> {
        let status = process.wait()?;
        let errors = std::fs::read_to_string(self.dir.join("errors")).unwrap_or_default();
        Ok(format!("{status}: {}", errors.trim()))
    }
}

/// Does not outlive whoever started it.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn lines_of(process: &mut Child) -> Result<Receiver<String>> {
    let stdout = process.stdout.take().context("its output was taken")?;
    let (send, receive) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                break;
            }
        }
    });
    Ok(receive)
}

fn bytes_in(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { bytes_in(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

impl Outcome {
    /// # Errors
    /// If something is wrong.
    pub fn check(&self) -> Result<()> {
        let count = self.violations.len();
        ensure!(count == 0, "{count} violations:\n{}", self.violations.join("\n"));
        Ok(())
    }
}
