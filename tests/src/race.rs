//! Two clients put different values to one key at the same moment, over and over.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use kvorum::cluster::{Cluster, Member};
use kvorum_replication::Happened;
use kvorum_rpc::client::{Client, ClientError, ErrorKind};

use crate::{PATIENCE, value_in};

const KEY: &[u8] = b"contended";

/// What came of the rounds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Rounds.
    pub rounds: u32,
    /// Puts that were told of a conflict.
    pub conflicts: u32,
    /// Rounds in which both puts were taken, one after the other.
    pub both_taken: u32,
    /// All of it.
    pub elapsed: Duration,
}

/// Runs so many rounds, or more until the two meet.
///
/// # Errors
/// If in a round nobody was acknowledged, somebody was told anything but a conflict, the replicas
/// do not hold the value of an acknowledged put, or a lock is left; or if in no round of all there
/// was a conflict.
pub async fn race(cluster: &Cluster, rounds: u32) -> Result<Outcome> {
    let left = cluster.client(Member::Coordinator, PATIENCE).await?;
    let right = cluster.client(Member::Coordinator, PATIENCE).await?;
    let began = Instant::now();
    let mut outcome = Outcome::default();
    // More rounds than that only until the racers meet once.
    while outcome.rounds < rounds || outcome.conflicts == 0 && began.elapsed() < PATIENCE {
        let round = outcome.rounds;
        outcome.rounds += 1;
        // Both get to go first equally often.
        let racers = if round % 2 == 0 { [&left, &right] } else { [&right, &left] };
        let acknowledged =
            one_round(cluster, racers, round).await.with_context(|| format!("round {round}"))?;
        outcome.conflicts += 2 - acknowledged;
        outcome.both_taken += u32::from(acknowledged == 2);
    }
    outcome.elapsed = began.elapsed();
    ensure!(outcome.conflicts > 0, "the racers never met, which shows nothing: {outcome:?}");
    Ok(outcome)
}

/// How many of the two were acknowledged.
async fn one_round(cluster: &Cluster, racers: [&Client; 2], round: u32) -> Result<u32> {
    let values = ["first", "second"].map(|which| Bytes::from(format!("{which} of {round}")));
    let put = async |which: usize| {
        racers[which].put(Bytes::from_static(KEY), values[which].clone()).await
    };
    let (first, second) = futures::join!(put(0), put(1));
    let outcomes = [first, second];
    let acknowledged = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    ensure!(acknowledged > 0, "nobody was acknowledged: {outcomes:?}");
    let refused = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
    for error in refused {
        ensure!(is_conflict(error), "not a conflict: {error:?}");
    }
    let rows = cluster.settled(PATIENCE).await?;
    let held = value_in(&rows, KEY).context("the key is gone")?;
    let is_acknowledged =
        outcomes.iter().zip(&values).any(|(outcome, value)| outcome.is_ok() && held == value);
    ensure!(is_acknowledged, "the replicas hold {held:?}; outcomes {outcomes:?}");
    Ok(u32::try_from(acknowledged)?)
}

fn is_conflict(error: &ClientError) -> bool {
    error.kind == ErrorKind::Conflict && error.happened == Happened::No
}
