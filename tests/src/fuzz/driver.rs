//! Runs cases in a process of its own, which may crash, hang or take all memory that it is given.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::entropy::Entropy;
use super::targets::{Seen, Target};

/// A case that takes longer goes round in circles.
const CASE_MAX: Duration = Duration::from_secs(20);

/// Address space of the process, in KiB: what no length in a file may make it take.
const MEMORY_KIB: u64 = 4 << 20;

/// So many failures of a target are enough.
const FAILURES_MAX: usize = 20;

/// Between looks at the process.
const POLL: Duration = Duration::from_millis(50);

/// A line of four numbers: cases that were refused, damaged, taken; and the case at hand.
const PROGRESS: &str = "progress";

/// How often what.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Cases that were refused.
    pub refused: u64,
    /// Cases in which damage was found later.
    pub damaged: u64,
    /// Cases that were taken as they are.
    pub taken: u64,
    /// Cases that must not be, with what was seen.
    pub failures: Vec<(u64, String)>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { refused, damaged, taken, failures } = self;
        let cases = refused + damaged + taken;
        write!(f, "{cases} cases, {refused} refused, {damaged} found damaged, {taken} taken")?;
        write!(f, ", {} failures", failures.len())?;
        for (case, what) in failures {
            write!(f, "\n  case {case}: {what}")?;
        }
        Ok(())
    }
}

/// The target of a name.
///
/// # Errors
/// If there is none.
pub fn target(name: &str) -> Result<Target> {
    let found = Target::ALL.into_iter().find(|target| target.name() == name);
    found.with_context(|| format!("there is no target {name:?}"))
}

/// Tries cases for so long.
///
/// # Errors
/// If it cannot be done.
pub fn run(target: Target, program: &Path, seed: u64, time: Duration) -> Result<Outcome> {
    let dir = tempfile::Builder::new().prefix("kvorum-fuzz-").tempdir()?;
    let (began, mut outcome, mut first) = (Instant::now(), Outcome::default(), 0);
    while began.elapsed() < time && outcome.failures.len() < FAILURES_MAX {
        let errors = File::create(dir.path().join("errors"))?;
        let mut process = Command::new("sh")
            .args(["-c", &format!("ulimit -v {MEMORY_KIB}; exec \"$0\" \"$@\"")])
            .arg(program)
            .args(["fuzz-child", "--target", target.name()])
            .args(["--seed", &seed.to_string(), "--first", &first.to_string()])
            .arg("--dir")
            .arg(dir.path())
            .env("RUST_BACKTRACE", "0")
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()?;
        let (mut last, mut since) = (None, Instant::now());
        let ended = loop {
            if let Some(status) = process.try_wait()? {
                break Some(status);
            }
            let case = progress(dir.path()).map(|[_, _, _, case]| case);
            if case != last {
                (last, since) = (case, Instant::now());
            }
            if began.elapsed() >= time || since.elapsed() > CASE_MAX {
                process.kill()?;
                process.wait()?;
                break None;
            }
            std::thread::sleep(POLL);
        };
        let [refused, damaged, taken, case] = progress(dir.path()).unwrap_or([0, 0, 0, first]);
        outcome.refused += refused;
        outcome.damaged += damaged;
        outcome.taken += taken;
        let said = std::fs::read_to_string(dir.path().join("errors")).unwrap_or_default();
        match ended {
            Some(status) => outcome.failures.push((case, what(status, &said))),
            None if since.elapsed() > CASE_MAX => {
                outcome.failures.push((case, format!("not done after {CASE_MAX:?}")));
            }
            None => break,
        }
        first = case + 1;
        let _ = std::fs::remove_file(dir.path().join(PROGRESS));
    }
    Ok(outcome)
}

fn what(status: ExitStatus, said: &str) -> String {
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    format!("{status}: {}", lines.join(" | "))
}

fn progress(dir: &Path) -> Option<[u64; 4]> {
    let text = std::fs::read_to_string(dir.join(PROGRESS)).ok()?;
    let numbers: Vec<u64> = text.split_whitespace().filter_map(|it| it.parse().ok()).collect();
    numbers.try_into().ok()
}

/// Tries case after case until one fails, or for ever.
///
/// # Errors
/// With the first failure.
pub fn run_child(name: &str, seed: u64, first: u64, dir: &Path) -> Result<()> {
    let target = target(name)?;
    let file = File::create(dir.join(PROGRESS))?;
    let [mut refused, mut damaged, mut taken] = [0_u64; 3];
    for case in first.. {
        let line = format!("{refused:020} {damaged:020} {taken:020} {case:020}\n");
        file.write_all_at(line.as_bytes(), 0)?;
        let mut entropy = Entropy::of_case(name, seed, case);
        let tried = catch_unwind(AssertUnwindSafe(|| target.try_case(&mut entropy)));
        match tried {
            Ok(Ok(Seen::Refused)) => refused += 1,
            Ok(Ok(Seen::Damaged)) => damaged += 1,
            Ok(Ok(Seen::Taken)) => taken += 1,
            Ok(Err(error)) => return Err(error),
            // It has said where.
            Err(_) => anyhow::bail!("a panic"),
        }
    }
    Ok(())
}
