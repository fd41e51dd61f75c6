//! The scenes in which nothing fails.

use std::time::Duration;

use bytes::Bytes;
use kvorum::cluster::Member;
use kvorum_replication::{Precondition, Range, Transaction, Write};
use kvorum_rpc::client::{Client, ClientError, ErrorKind, ProcessStatus};

use super::guide::{Guide, Trouble, shown_bytes, shown_outcome, shown_time, shown_value};
use super::stage::{Stage, timed};

/// A put of the tour.
pub(super) async fn put(
    client: &Client,
    key: &'static str,
    value: &'static str,
) -> (Result<(), ClientError>, Duration) {
    timed(client.put(Bytes::from_static(key.as_bytes()), Bytes::from_static(value.as_bytes())))
        .await
}

/// A get of the tour.
pub(super) async fn get(
    client: &Client,
    key: &'static str,
) -> (Result<Option<Bytes>, ClientError>, Duration) {
    timed(client.get(Bytes::from_static(key.as_bytes()))).await
}

/// Puts, and sees that it is committed.
pub(super) async fn observe_put(
    guide: &mut Guide<'_>,
    client: &Client,
    key: &'static str,
    value: &'static str,
) -> Result<(), Trouble> {
    let (outcome, took) = put(client, key, value).await;
    let observed = shown_outcome(&outcome, took);
    guide.observe(format!("put {key} '{value}'"), observed, outcome.is_ok(), "committed")
}

/// Gets, and sees this value.
pub(super) async fn observe_get(
    guide: &mut Guide<'_>,
    client: &Client,
    key: &'static str,
    expected: Option<&'static str>,
) -> Result<(), Trouble> {
    let (value, took) = get(client, key).await;
    let observed = shown_value(&value, took);
    let is_right = value.is_ok_and(|value| value.as_deref() == expected.map(str::as_bytes));
    let expected = shown_bytes(expected.map(str::as_bytes));
    guide.observe(format!("get {key}"), observed, is_right, &expected)
}

/// Four processes, each with its own data.
pub(super) async fn start(stage: &mut Stage, guide: &mut Guide<'_>) -> Result<(), Trouble> {
    guide.scene("A coordinator and three replicas, each a process with its own data")?;
    let (started, took) = timed(stage.cluster.start_all()).await;
    started?;
    let directory = stage.cluster.directory().display().to_string();
    guide.note(format!("ready in {}; data in {directory}", shown_time(took)))?;
    stage.cluster.await_links(stage.patience).await?;
    for member in stage.cluster.members() {
        let status = stage.cluster.status(member).await?;
        let process = stage.cluster.process_id(member).unwrap_or_default();
        let links = status.members.iter().filter(|other| other.up && other.node != status.node);
        let links: Vec<_> = links.map(|other| format!("n{}", other.node)).collect();
        let observed = format!(
            "process {process}, {}, started {} time, linked to {}",
            status.address,
            status.incarnation,
            links.join(" ")
        );
        let role = if member == Member::Coordinator { "coordinator" } else { "replica" };
        let is_right = status.role == role && status.incarnation == 1;
        guide.observe(format!("status of {member}"), observed, is_right, "started once")?;
    }
    Ok(())
}

/// The three things that everybody does.
pub(super) async fn put_get_delete(
    stage: &mut Stage,
    guide: &mut Guide<'_>,
) -> Result<(), Trouble> {
    guide.scene("Put, get, delete: each write is on the disk of every replica before it counts")?;
    let client = stage.client().await?;
    observe_put(guide, &client, "greeting", "hello").await?;
    observe_get(guide, &client, "greeting", Some("hello")).await?;
    stage.observe_replicas(guide, "greeting", Some("hello")).await?;
    observe_put(guide, &client, "greeting", "hello again").await?;
    observe_get(guide, &client, "greeting", Some("hello again")).await?;
    observe_put(guide, &client, "farewell", "goodbye").await?;
    let (outcome, took) = timed(client.delete(Bytes::from_static(b"farewell"))).await;
    let observed = shown_outcome(&outcome, took);
    guide.observe("del farewell", observed, outcome.is_ok(), "committed")?;
    observe_get(guide, &client, "farewell", None).await?;
    stage.observe_replicas(guide, "farewell", None).await
}

/// Two writers of one key. The first is held up by stopping a replica, so that they surely meet.
pub(super) async fn conflict(stage: &mut Stage, guide: &mut Guide<'_>) -> Result<(), Trouble> {
    guide.scene("Two writers of one key: the first proceeds, the other is told at once")?;
    let (first, second) = (stage.client().await?, stage.client().await?);
    let slow = Member::Replica(3);
    guide.note(format!(
        "{slow} is stopped for a moment, so that the first put is still in flight"
    ))?;
    stage.cluster.pause(slow)?;
    let first = tokio::task::spawn_local(async move { put(&first, "colour", "red").await });
    // Not merely in flight: that is also what was committed before and is not acknowledged yet.
    let holds_lock = |status: &ProcessStatus| status.locks == 1;
    stage.cluster.await_status(Member::Coordinator, stage.patience, holds_lock).await?;
    let (outcome, took) = put(&second, "colour", "blue").await;
    stage.cluster.resume(slow)?;
    let observed = shown_outcome(&outcome, took);
    let is_right = outcome.is_err_and(|error| error.kind == ErrorKind::Conflict);
    guide.observe("put colour 'blue' (second)", observed, is_right, "a conflict")?;
    let (outcome, took) = first.await.expect("the put neither panics nor is it cancelled");
    let observed = shown_outcome(&outcome, took);
    guide.observe("put colour 'red' (first)", observed, outcome.is_ok(), "committed")?;
    observe_get(guide, &second, "colour", Some("red")).await?;
    stage.observe_replicas(guide, "colour", Some("red")).await?;
    observe_put(guide, &second, "colour", "blue").await?;
    observe_get(guide, &second, "colour", Some("blue")).await
}

/// Several keys at one moment, if what was read is still so.
pub(super) async fn transaction(stage: &mut Stage, guide: &mut Guide<'_>) -> Result<(), Trouble> {
    guide.scene("A transaction over two keys, with a check: all of it happens, or nothing")?;
    let client = stage.client().await?;
    observe_put(guide, &client, "account/alice", "100").await?;
    observe_put(guide, &client, "account/bob", "0").await?;
    let done = "txn: check alice = 100; put alice 70, bob 30";
    let (outcome, took) = timed(client.transact(transfer())).await;
    guide.observe(done, shown_outcome(&outcome, took), outcome.is_ok(), "committed")?;
    observe_accounts(guide, &client).await?;
    let (outcome, took) = timed(client.transact(transfer())).await;
    let observed = shown_outcome(&outcome, took);
    let is_right = outcome.is_err_and(|error| error.kind == ErrorKind::PreconditionFailed);
    guide.observe("the same again", observed, is_right, "the check does not hold any more")?;
    observe_accounts(guide, &client).await?;
    stage.observe_replicas(guide, "account/bob", Some("30")).await
}

fn transfer() -> Transaction {
    let (alice, bob) = (Bytes::from_static(b"account/alice"), Bytes::from_static(b"account/bob"));
    Transaction {
        preconditions: vec![
            Precondition::Equals(alice.clone(), Bytes::from_static(b"100")),
            Precondition::Present(bob.clone()),
        ],
        writes: vec![
            Write::Put(alice, Bytes::from_static(b"70")),
            Write::Put(bob, Bytes::from_static(b"30")),
        ],
    }
}

/// Both accounts as one scan sees them.
async fn observe_accounts(guide: &mut Guide<'_>, client: &Client) -> Result<(), Trouble> {
    let range = Range {
        start: Bytes::from_static(b"account/"),
        end: Some(Bytes::from_static(b"account0")),
        limit: 10,
    };
    let rows = client.scan(range).await?.rows;
    let shown = rows
        .iter()
        .map(|(key, value)| format!("{} = {}", shown_bytes(Some(key)), shown_bytes(Some(value))));
    let observed = shown.collect::<Vec<_>>().join(", ");
    let expected = "account/alice = 70, account/bob = 30";
    guide.observe("scan --prefix account/", &observed, observed == expected, expected)
}
