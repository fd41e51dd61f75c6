//! The gate: every check that a change has to pass, one after the other, stopping at the first that
//! fails. A developer runs exactly what continuous integration runs.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::{codegen, tidy};

/// The command that README.md gives for running the tests; the last step is this one, to the letter.
const TEST_COMMAND: &str = "cargo test --workspace";

/// One check.
struct Step {
    /// How a person would run it alone.
    command: &'static str,
    /// Environment that it needs, as a person would write it before the command.
    environment: Option<(&'static str, &'static str)>,
    work: Work,
}

enum Work {
    /// Run the command as it stands.
    Command,
    /// Call this; it says what it found.
    Call(fn(&Path) -> Result<bool>),
}

/// Cheap checks first, so that a change which fails does so early.
const STEPS: [Step; 8] = [
    Step { command: "cargo fmt --all --check", environment: None, work: Work::Command },
    Step { command: "cargo xtask tidy", environment: None, work: Work::Call(tidy::run) },
    Step { command: "cargo xtask codegen --check", environment: None, work: Work::Call(generated) },
    Step {
        command: "cargo clippy --workspace --all-targets -- -D warnings",
        environment: None,
        work: Work::Command,
    },
    Step {
        command: "cargo clippy --workspace --all-targets --features kvorum/planted-bugs -- -D warnings",
        environment: None,
        work: Work::Command,
    },
    Step {
        command: "cargo doc --workspace --no-deps",
        environment: Some(("RUSTDOCFLAGS", "-D warnings")),
        work: Work::Command,
    },
    // Who finds no bug that is there on purpose would find no other. One build for the simulator's bugs
    // and the cores', without all that serves clients: the feature changes what everything rests on.
    Step {
        command: "cargo test -p kvorum-replication -p kvorum-sim --features kvorum-sim/planted-bugs --test any_replica --test paxos --test two_phase --test planted planted",
        environment: None,
        work: Work::Command,
    },
    Step { command: TEST_COMMAND, environment: None, work: Work::Command },
];

/// Runs every step; false if one failed.
pub(crate) fn run(root: &Path) -> Result<bool> {
    let began = Instant::now();
    for (index, step) in STEPS.iter().enumerate() {
        println!("\n== {}/{}: {step}", index + 1, STEPS.len());
        let step_began = Instant::now();
        if !step.run(root)? {
            eprintln!(
                "\n== FAILED: {step}\n   Run it alone from the repository's root to see why."
            );
            return Ok(false);
        }
        println!("== passed in {:.1} s", step_began.elapsed().as_secs_f64());
    }
    println!("\n== all {} steps passed in {:.0} s", STEPS.len(), began.elapsed().as_secs_f64());
    Ok(true)
}

impl Step {
    fn run(&self, root: &Path) -> Result<bool> {
        match self.work {
            Work::Call(call) => call(root),
            Work::Command => {
                let mut words = self.command.split(' ');
                let program = words.next().expect("split yields at least one word");
                let status = Command::new(program)
                    .args(words)
                    .envs(self.environment)
                    .current_dir(root)
                    .status()
                    .with_context(|| format!("cannot start `{}`", self.command))?;
                Ok(status.success())
            }
        }
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some((name, value)) = self.environment {
            write!(f, "{name}={value:?} ")?;
        }
        f.write_str(self.command)
    }
}

fn generated(root: &Path) -> Result<bool> {
    match codegen::check(root) {
        Ok(how) => println!("generated code is fresh, compared by {how:?}"),
        Err(error) => {
            eprintln!("{error:#}");
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_step_is_the_test_command_of_the_readme() {
        let last = STEPS.last().expect("there are steps");
        assert_eq!(last.command, TEST_COMMAND);
        assert!(last.environment.is_none(), "the README's command has no environment");
        let readme = std::fs::read_to_string(crate::root().join("README.md")).unwrap();
        assert!(
            readme.lines().any(|line| line == TEST_COMMAND),
            "README.md does not give `{TEST_COMMAND}` on a line of its own"
        );
    }
}
