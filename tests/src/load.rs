//! Everything is killed in the middle of a load. What was acknowledged is there afterwards, on every
//! replica, and the load goes on.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use kvorum::cluster::{Cluster, Member};
use kvorum::load::{Load, LoadOptions, Summary};
use kvorum_checker::{Ending, Operation, read_lines};
use kvorum_rpc::client::ClientOptions;

use crate::PATIENCE;

/// Between looks at the load.
const POLL: Duration = Duration::from_millis(1);

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// Acknowledged before each kill.
    pub acknowledged_at_kill: Vec<u64>,
    /// From each restart, when the first process was started, until the next acknowledgement.
    pub writable_after: Vec<Duration>,
    /// What the load says.
    pub summary: Summary,
    /// Keys that are there on every replica.
    pub keys: usize,
}

/// Puts a load on the cluster and kills all of it at these numbers of acknowledgements.
///
/// # Errors
/// If an acknowledged put is not there on every replica, replicas differ, a lock is left, or the
/// cluster does not take writes again.
pub async fn kill_all_under_load(
    cluster: &mut Cluster,
    options: LoadOptions,
    kills: &[u64],
) -> Result<Outcome> {
    let directory = tempfile::tempdir()?;
    let history = directory.path().join("history.jsonl");
    let address = cluster.address(Member::Coordinator).to_string();
    let options = LoadOptions { history: Some(history.clone()), ..options };
    let load = Load::start(options, &ClientOptions::new([address]))?;
    let (mut acknowledged_at_kill, mut writable_after) = (Vec::new(), Vec::new());
    for &kill in kills {
        await_acknowledged(&load, kill).await?;
        cluster.kill_all()?;
        let before = load.counts().ok;
        let restarted = Instant::now();
        cluster.start_all().await?;
        await_acknowledged(&load, before + 1).await.context("writing after the restart")?;
        acknowledged_at_kill.push(before);
        writable_after.push(restarted.elapsed());
    }
    // The load has threads of its own; this one has nothing else to do until they end.
    let summary = load.join()?;
    let rows = cluster.settled(PATIENCE).await?;
    let rows: BTreeMap<Bytes, Bytes> = rows.into_iter().collect();
    check_acknowledged(&history, &rows)?;
    Ok(Outcome { acknowledged_at_kill, writable_after, summary, keys: rows.len() })
}

async fn await_acknowledged(load: &Load, count: u64) -> Result<()> {
    let mut last = (load.counts().ok, Instant::now());
    while last.0 < count {
        ensure!(!load.is_finished(), "the load ended before {count} puts: {:?}", load.counts());
        ensure!(last.1.elapsed() < PATIENCE, "nothing is acknowledged: {:?}", load.counts());
        tokio::time::sleep(POLL).await;
        let ok = load.counts().ok;
        if ok > last.0 {
            last = (ok, Instant::now());
        }
    }
    Ok(())
}

/// Every acknowledged put is there, nothing refused is, and nobody else's.
fn check_acknowledged(history: &Path, rows: &BTreeMap<Bytes, Bytes>) -> Result<()> {
    let history = read_lines(BufReader::new(File::open(history)?))?;
    ensure!(!history.is_empty(), "the history is empty");
    let (mut lost, mut undead, mut explained) = (Vec::new(), Vec::new(), 0);
    for record in &history {
        let Operation::Put { key, value } = &record.operation else { continue };
        let held = rows.get(key.as_bytes());
        let is_there = held.is_some_and(|held| held == value.as_bytes());
        explained += usize::from(is_there);
        match record.ending {
            Ending::Done if !is_there => lost.push((key, held)),
            Ending::NotDone if is_there => undead.push(key),
            Ending::Done | Ending::NotDone | Ending::PreconditionFailed(_) | Ending::Unknown => {}
        }
    }
    ensure!(lost.is_empty(), "{} acknowledged puts are lost, as {:?}", lost.len(), lost[0]);
    ensure!(undead.is_empty(), "{} refused puts happened, as {:?}", undead.len(), undead[0]);
    ensure!(explained == rows.len(), "{} of {} rows are of the load", explained, rows.len());
    Ok(())
}
