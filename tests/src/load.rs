//! Processes are killed in the middle of a load. What was acknowledged is there afterwards, on every
//! replica, what clients saw meanwhile has an order that explains it, and the load goes on.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use kvorum::cluster::{Cluster, Member};
use kvorum::load::{Load, LoadOptions, Summary};
use kvorum_checker::{
    Ending, History, Limits, Operation, Record, Verdict, linearizable, read_lines,
};
use kvorum_rpc::client::ClientOptions;

use crate::PATIENCE;

/// Between looks at the load.
const POLL: Duration = Duration::from_millis(1);

/// Clients with higher numbers are not the load's.
const CLIENT_AFTERWARDS: u64 = u32::MAX as u64;

/// A blow to the cluster.
#[derive(Clone, Copy, Debug)]
pub struct Kill {
    /// After so many acknowledgements in all.
    pub at: u64,
    /// Whom; `None` is everybody at once.
    pub member: Option<Member>,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// Acknowledged before each kill.
    pub acknowledged_at_kill: Vec<u64>,
    /// From each restart, when the first process was started, until all were ready.
    pub ready_after: Vec<Duration>,
    /// From each restart until the next acknowledgement.
    pub writable_after: Vec<Duration>,
    /// What the load says.
    pub summary: Summary,
    /// Operations in the history.
    pub operations: usize,
    /// Keys that are there on every replica.
    pub keys: usize,
}

/// Puts a load of unique keys on the cluster, with kills, and looks for each of them.
///
/// # Errors
/// If an acknowledged put is not there on every replica, a refused one is, replicas differ, a lock
/// is left, or the cluster does not take writes again.
pub async fn kill_under_puts(
    cluster: &mut Cluster,
    options: LoadOptions,
    kills: &[Kill],
) -> Result<Outcome> {
    let (outcome, history, rows) = kill_under_load(cluster, options, kills).await?;
    check_puts(&history, &rows)?;
    Ok(outcome)
}

/// Puts a load on the cluster, with kills, and looks for an order that explains what clients saw,
/// reads of all keys afterwards included.
///
/// # Errors
/// If there is none, replicas differ, a lock is left, or the cluster does not take writes again.
pub async fn kill_under_mix(
    cluster: &mut Cluster,
    options: LoadOptions,
    kills: &[Kill],
) -> Result<Outcome> {
    let (outcome, mut history, rows) = kill_under_load(cluster, options, kills).await?;
    let keys: Vec<_> = rows.keys().cloned().collect();
    history.extend(read_afterwards(cluster, &history, &keys).await?);
    match linearizable(&history, Limits::default()) {
        Verdict::Holds => Ok(outcome),
        verdict => anyhow::bail!("{verdict:#?}"),
    }
}

async fn kill_under_load(
    cluster: &mut Cluster,
    options: LoadOptions,
    kills: &[Kill],
) -> Result<(Outcome, History, BTreeMap<Bytes, Bytes>)> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("history.jsonl");
    let address = cluster.address(Member::Coordinator).to_string();
    let options = LoadOptions { history: Some(file.clone()), give_up_after: PATIENCE, ..options };
    let client = ClientOptions { connect_timeout: PATIENCE, ..ClientOptions::new([address]) };
    let load = Load::start(options, &client)?;
    let (mut acknowledged_at_kill, mut ready_after, mut writable_after) =
        (Vec::new(), Vec::new(), Vec::new());
    for kill in kills {
        await_acknowledged(&load, kill.at).await?;
        match kill.member {
            Some(member) => cluster.kill(member)?,
            None => cluster.kill_all()?,
        }
        let before = load.counts().ok;
        let restarted = Instant::now();
        cluster.start_all().await?;
        ready_after.push(restarted.elapsed());
        await_acknowledged(&load, before + 1).await.context("after the restart")?;
        acknowledged_at_kill.push(before);
        writable_after.push(restarted.elapsed());
    }
    // The load has threads of its own; this one has nothing else to do until they end.
    let summary = load.join()?;
    let rows = cluster.settled(PATIENCE).await?;
    let rows: BTreeMap<Bytes, Bytes> = rows.into_iter().collect();
    let history = read_history(&file)?;
    let (operations, keys) = (history.len(), rows.len());
    let outcome =
        Outcome { acknowledged_at_kill, ready_after, writable_after, summary, operations, keys };
    Ok((outcome, history, rows))
}

pub(crate) async fn await_acknowledged(load: &Load, count: u64) -> Result<()> {
    let mut last = (load.counts().ok, Instant::now());
    while last.0 < count {
        ensure!(!load.is_finished(), "the load ended before {count}: {:?}", load.counts());
        ensure!(last.1.elapsed() < PATIENCE, "nothing is acknowledged: {:?}", load.counts());
        tokio::time::sleep(POLL).await;
        let ok = load.counts().ok;
        if ok > last.0 {
            last = (ok, Instant::now());
        }
    }
    Ok(())
}

pub(crate) fn read_history(file: &Path) -> Result<History> {
    let history = read_lines(BufReader::new(File::open(file)?))?;
    ensure!(!history.is_empty(), "the history is empty");
    Ok(history)
}

/// Every acknowledged put is there, nothing refused is, and nobody else's.
fn check_puts(history: &[Record], rows: &BTreeMap<Bytes, Bytes>) -> Result<()> {
    let (mut lost, mut undead, mut explained) = (Vec::new(), Vec::new(), 0);
    for record in history {
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

/// A read of each key after everything else.
async fn read_afterwards(
    cluster: &Cluster,
    history: &[Record],
    keys: &[Bytes],
) -> Result<Vec<Record>> {
    let client = cluster.client(Member::Coordinator, PATIENCE).await?;
    let after = history.iter().map(|record| record.call.max(record.ret)).max().unwrap_or(0) + 1;
    let mut reads = Vec::new();
    for key in keys {
        let result = client.get(key.clone()).await?.map(text).transpose()?;
        reads.push(Record {
            client: CLIENT_AFTERWARDS,
            call: after,
            ret: after + 1,
            ending: Ending::Done,
            operation: Operation::Get { key: text(key.clone())?, result },
        });
    }
    Ok(reads)
}

fn text(bytes: Bytes) -> Result<String> {
    Ok(String::from_utf8(bytes.into())?)
}
