//! The scenes in which processes die.

use std::process::ExitStatus;
use std::time::{Duration, Instant};

use kvorum::cluster::{ClusterError, Member};
use kvorum_replication::Happened;
use kvorum_rpc::client::Client;

use super::everyday::{get, observe_get, observe_put, put};
use super::guide::{Guide, Trouble, shown_outcome, shown_time, shown_value};
use super::stage::{Stage, timed};

/// A client that gives up early, so that it sees an unknown outcome.
const IMPATIENT: Duration = Duration::from_millis(500);

/// Between attempts to write.
const POLL: Duration = Duration::from_millis(5);

/// A write needs every replica that is not left out, and one that is silent is.
pub(super) async fn replica_killed(
    stage: &mut Stage,
    guide: &mut Guide<'_>,
) -> Result<(), Trouble> {
    guide
        .scene("A replica is killed: writes go on without it, and it comes back and catches up")?;
    let client = stage.client().await?;
    let killed = Member::Replica(2);
    stage.cluster.await_members(3, stage.patience).await?;
    kill(stage, guide, killed)?;
    observe_put(guide, &client, "greeting", "without you").await?;
    guide.note("that one waited until the silent replica was left out; the next does not")?;
    observe_put(guide, &client, "greeting", "still without you").await?;
    let began = Instant::now();
    let mut answered = 0;
    for _ in 0..30 {
        let (value, _) = get(&client, "greeting").await;
        let is_right = value.is_ok_and(|value| value.as_deref() == Some(b"still without you"));
        answered += u32::from(is_right);
    }
    let observed =
        format!("'still without you' {answered} times, in {}", shown_time(began.elapsed()));
    guide.observe("get greeting, 30 times", observed, answered == 30, "answered every time")?;
    let (started, took) = timed(stage.cluster.start(killed, &[])).await;
    started?;
    guide.note(format!("{killed} is started again: ready in {}", shown_time(took)))?;
    let (let_in, took) = timed(stage.cluster.await_members(3, stage.patience)).await;
    let_in?;
    guide.note(format!("it has caught up, and is let in {} later", shown_time(took)))?;
    observe_put(guide, &client, "greeting", "I am back").await?;
    stage.observe_replicas(guide, "greeting", Some("I am back")).await?;
    stage.observe_replicas(guide, "account/alice", Some("70")).await
}

/// The period of uncertainty: one replica has promised to commit, and who knows whether the others
/// will is gone.
pub(super) async fn coordinator_undecided(
    stage: &mut Stage,
    guide: &mut Guide<'_>,
) -> Result<(), Trouble> {
    guide.scene("The coordinator dies when it has asked one replica, and not the others")?;
    arm(stage, guide, "coordinator-some-prepares-sent").await?;
    let (began, mut impatient) = (Instant::now(), IMPATIENT);
    // On a busy machine, or a slow disk, the votes may come too late for an impatient client, and
    // nothing gets to the point: then another one waits for longer.
    let (outcome, took, ended) = loop {
        let client = stage.cluster.client(Member::Coordinator, impatient).await?;
        let (outcome, took) = put(&client, "colour", "green").await;
        let ended = stage.cluster.await_exit(Member::Coordinator, impatient).await;
        if ended.is_ok() || began.elapsed() > stage.patience {
            break (outcome, took, ended);
        }
        impatient *= 2;
    };
    let observed = shown_outcome(&outcome, took);
    let is_right = outcome.is_err_and(|error| error.happened == Happened::Unknown);
    guide.observe("put colour 'green'", observed, is_right, "it may have happened")?;
    observe_death(guide, ended)?;
    observe_doubt(stage, guide).await?;
    revive_coordinator(stage, guide).await?;
    let client = stage.client().await?;
    guide
        .note("not all have promised, so it is aborted: the old value stands, on every replica")?;
    observe_get(guide, &client, "colour", Some("blue")).await?;
    stage.observe_replicas(guide, "colour", Some("blue")).await
}

/// Every replica has promised, which is the decision, and nobody has heard of it.
pub(super) async fn coordinator_decided(
    stage: &mut Stage,
    guide: &mut Guide<'_>,
) -> Result<(), Trouble> {
    guide.scene("The coordinator dies when all have promised, and has told nobody")?;
    arm(stage, guide, "coordinator-all-votes").await?;
    let client = stage.client().await?;
    let writer = client.clone();
    let patient = tokio::task::spawn_local(async move { put(&writer, "colour", "gold").await });
    let ended = stage.cluster.await_exit(Member::Coordinator, stage.patience).await;
    observe_death(guide, ended)?;
    observe_doubt(stage, guide).await?;
    revive_coordinator(stage, guide).await?;
    let (outcome, took) = patient.await.expect("the put neither panics nor is it cancelled");
    guide.note(
        "the client asked again until it was told; the write carries a stamp: it is one write",
    )?;
    let observed = shown_outcome(&outcome, took);
    guide.observe("put colour 'gold'", observed, outcome.is_ok(), "committed")?;
    observe_get(guide, &client, "colour", Some("gold")).await?;
    stage.observe_replicas(guide, "colour", Some("gold")).await
}

/// Everything at once.
pub(super) async fn all_killed(stage: &mut Stage, guide: &mut Guide<'_>) -> Result<(), Trouble> {
    guide.scene("All four are killed at once")?;
    let client = stage.client().await?;
    observe_put(guide, &client, "greeting", "still here").await?;
    stage.cluster.kill_all()?;
    guide.note("SIGKILL to all four")?;
    let (started, took) = timed(stage.cluster.start_all()).await;
    started?;
    stage.cluster.await_links(stage.patience).await?;
    guide.note(format!("all four started again: ready in {}", shown_time(took)))?;
    observe_get(guide, &client, "greeting", Some("still here")).await?;
    observe_get(guide, &client, "colour", Some("gold")).await?;
    observe_get(guide, &client, "farewell", None).await?;
    observe_writable(stage, guide, &client, "farewell", "until next time").await?;
    stage.observe_replicas(guide, "farewell", Some("until next time")).await
}

/// Kills a process.
fn kill(stage: &mut Stage, guide: &mut Guide<'_>, member: Member) -> Result<(), Trouble> {
    let process = stage.cluster.process_id(member).unwrap_or_default();
    stage.cluster.kill(member)?;
    guide.note(format!("SIGKILL to {member}, process {process}"))
}

/// Restarts the coordinator so that it kills itself at a point of the protocol.
async fn arm(stage: &mut Stage, guide: &mut Guide<'_>, point: &str) -> Result<(), Trouble> {
    stage.cluster.kill(Member::Coordinator)?;
    let flag = format!("{point}=abort");
    stage.cluster.start(Member::Coordinator, &["--fail-point", &flag]).await?;
    stage.cluster.await_links(stage.patience).await?;
    guide.note(format!("the coordinator is restarted with --fail-point {flag}"))
}

/// Sees the coordinator die at its fail point: a scene in which it did not would show nothing.
fn observe_death(
    guide: &mut Guide<'_>,
    ended: Result<ExitStatus, ClusterError>,
) -> Result<(), Trouble> {
    let observed = match &ended {
        Ok(status) => format!("it is gone: {status}"),
        Err(error) => error.to_string(),
    };
    guide.observe("the coordinator", observed, ended.is_ok(), "killed by itself")
}

/// While a replica does not know how a transaction ended, it answers no read of its keys, and it
/// answers all others.
async fn observe_doubt(stage: &mut Stage, guide: &mut Guide<'_>) -> Result<(), Trouble> {
    let replica = Member::Replica(1);
    let status = stage.cluster.status(replica).await?;
    let observed = format!("{} in flight, {} locked", status.in_flight, status.locks);
    let is_right = (status.in_flight, status.locks) == (1, 1);
    guide.observe(format!("status of {replica}"), observed, is_right, "one in flight, one lock")?;
    let client = stage.cluster.client(replica, stage.patience).await?;
    let (value, took) = get(&client, "greeting").await;
    let is_right = matches!(&value, Ok(Some(value)) if value == "I am back");
    let done = format!("get greeting, of {replica}");
    guide.observe(done, shown_value(&value, took), is_right, "I am back")?;
    let client = stage.cluster.client(replica, IMPATIENT).await?;
    let (value, took) = get(&client, "colour").await;
    let done = format!("get colour, of {replica}");
    guide.observe(done, shown_value(&value, took), value.is_err(), "refused: it is in doubt")
}

async fn revive_coordinator(stage: &mut Stage, guide: &mut Guide<'_>) -> Result<(), Trouble> {
    let (started, took) = timed(stage.cluster.start(Member::Coordinator, &[])).await;
    started?;
    let (linked, took_links) = timed(stage.cluster.await_links(stage.patience)).await;
    linked?;
    guide.note(format!(
        "the coordinator is started again: ready in {}, linked to all replicas {} later",
        shown_time(took),
        shown_time(took_links)
    ))
}

/// Puts until it is taken, and sees that this was soon.
async fn observe_writable(
    stage: &Stage,
    guide: &mut Guide<'_>,
    client: &Client,
    key: &'static str,
    value: &'static str,
) -> Result<(), Trouble> {
    let began = Instant::now();
    let mut attempts = 1;
    let (mut outcome, mut took) = put(client, key, value).await;
    while outcome.is_err() && began.elapsed() < stage.patience {
        tokio::time::sleep(POLL).await;
        (outcome, took) = put(client, key, value).await;
        attempts += 1;
    }
    let observed = format!(
        "{}; {} after the restart, at attempt {attempts}",
        shown_outcome(&outcome, took),
        shown_time(began.elapsed())
    );
    guide.observe(format!("put {key} '{value}'"), observed, outcome.is_ok(), "committed")
}
