//! Trials of real processes: they are killed and paused where it hurts, and then must agree.
//!
//! Each trial is a function over a [`Cluster`], which a test calls for a
//! few rounds and the `kvorum-tests` binary for as many as one likes. A trial proves that its fault
//! fired: a calm run is an error.
//!
//! The processes under trial are the `kvorum-tests` binary itself behind its `serve` subcommand: it
//! runs the same server as `kvorumd`, and cargo never lets it be older than the tests.

pub mod connections;
pub mod damage;
pub mod engine;
pub mod fail_points;
pub mod fuzz;
pub mod load;
pub mod race;
pub mod rejoin;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use kvorum::cluster::{Cluster, ClusterOptions, Member, Program};
use kvorum_replication::Row;
use std::path::Path;
use std::time::Duration;
use tokio::task::LocalSet;

/// Everything that must come true does so within this, or the trial has failed. Longer than
/// anything takes on a busy machine; only a hang gets there.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// How to run a server under trial; `KVORUM_SERVER` names another binary, such as a `kvorumd` of
/// another version.
pub fn program(this: &Path) -> Program {
    match std::env::var_os("KVORUM_SERVER") {
        Some(server) => Program::new(server),
        None => Program::with_subcommand(this, "serve"),
    }
}

/// Runs a trial on this thread, which also is the one that starts processes.
///
/// # Errors
/// Those of the trial.
pub fn run<T>(trial: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, trial)
}

/// A fresh cluster of three replicas, ready for writes, which wait for every replica: a trial is to
/// see what becomes of a transaction while one of them is away.
///
/// # Errors
/// If it does not get there.
pub async fn cluster(program: Program) -> Result<Cluster> {
    cluster_with(program, &["--min-replicas", "3"]).await
}

/// The same, the coordinator with these flags instead.
///
/// # Errors
/// If it does not get there.
pub async fn cluster_with(program: Program, of_coordinator: &[&str]) -> Result<Cluster> {
    let options = ClusterOptions { ready_within: PATIENCE, ..ClusterOptions::new(program) };
    let mut cluster = Cluster::new(options)?;
    for member in cluster.members() {
        // Nobody is taken for dead who is only slow.
        let mut flags = vec!["--silence".into(), format!("{}s", PATIENCE.as_secs()).into()];
        if member == Member::Coordinator {
            flags.extend(of_coordinator.iter().map(Into::into));
        }
        cluster.set_flags(member, flags);
    }
    cluster.start_all().await?;
    cluster.await_links(PATIENCE).await?;
    Ok(cluster)
}

/// The value of a key among rows.
#[must_use]
pub fn value_in<'a>(rows: &'a [Row], key: &[u8]) -> Option<&'a Bytes> {
    rows.iter().find(|(row, _)| row == key).map(|(_, value)| value)
}

/// Checks that a process ended as it does when it is killed.
fn ensure_killed(status: std::process::ExitStatus) -> Result<()> {
    use std::os::unix::process::ExitStatusExt as _;
    ensure!(status.signal() == Some(9), "it was to kill itself, and ended with {status}");
    Ok(())
}

/// What a process is doing, as the kernel says: `T` is stopped.
fn process_state(process: u32) -> Result<char> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, rest) = stat.rsplit_once(") ").context("no state in /proc")?;
    rest.chars().next().context("no state in /proc")
}
