//! `admin replica`.

use std::time::Duration;

use kvorum::server::Peer;
use kvorum::view::{Seat, Views};
use kvorum_replication::Happened;
use kvorum_rpc::client::{Client, ErrorKind};
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::arguments::{AddReplica, Global, RemoveReplica, ReplicaChange};
use crate::error::{CommandError, Kind};
use crate::members::{Member, ask_all};
use crate::output::{Format, Output};

/// Between looks at one that is to take part.
const POLL: Duration = Duration::from_millis(200);

/// Has the cluster one replica more, or one less.
pub(crate) async fn change_replicas(
    client: &Client,
    output: &mut Output,
    global: &Global,
    change: &ReplicaChange,
) -> Result<(), CommandError> {
    match change {
        ReplicaChange::Add(arguments) => add(client, output, global, arguments).await,
        ReplicaChange::Remove(arguments) => remove(client, output, arguments).await,
    }
}

async fn add(
    client: &Client,
    output: &mut Output,
    global: &Global,
    arguments: &AddReplica,
) -> Result<(), CommandError> {
    let AddReplica { replica: Peer { id, address }, wait, .. } = arguments;
    client.add_replica(id.0, address).await?;
    if output.format == Format::Text {
        output.line(format!("replica {} at {address} belongs to the cluster", id.0))?;
    }
    if *wait {
        until_it_takes_part(client, output, global, arguments).await?;
    }
    match (output.format, wait) {
        (Format::Json, true) => {
            output.json(&json!({"added": id.0, "address": address, "takes_part": true}))
        }
        (Format::Json, false) => output.json(&json!({"added": id.0, "address": address})),
        (Format::Text, true) => output.line("it takes part"),
        (Format::Text, false) => {
            output.line(format!(
                "start it on an empty data directory, unless it runs:\n  {}",
                how_to_start(arguments)
            ))?;
            output.line("kvorum status shows when it takes part")
        }
    }
}

fn how_to_start(arguments: &AddReplica) -> String {
    let Peer { id, address } = &arguments.replica;
    format!("kvorumd replica --id {} --listen {address} --data-dir DIR --rejoin", id.0)
}

async fn remove(
    client: &Client,
    output: &mut Output,
    arguments: &RemoveReplica,
) -> Result<(), CommandError> {
    let RemoveReplica { replica } = *arguments;
    client.remove_replica(replica).await?;
    match output.format {
        Format::Json => output.json(&json!({"removed": replica})),
        Format::Text => output.line(format!(
            "replica {replica} does not belong to the cluster any more: stop it, if it runs, and \
             remove its data directory"
        )),
    }
}

/// Waits until the replica takes part, or for as long as it was told to.
async fn until_it_takes_part(
    client: &Client,
    output: &mut Output,
    global: &Global,
    arguments: &AddReplica,
) -> Result<(), CommandError> {
    let mut told = String::new();
    let looking = look(client, output, global, arguments, &mut told);
    let Some(limit) = arguments.wait_timeout else { return looking.await };
    match timeout(limit, looking).await {
        Ok(looked) => looked,
        Err(_) => Err(takes_no_part_yet(arguments, limit, &told)),
    }
}

/// Looks at the replica until it takes part, and says what it does meanwhile. That somebody does not
/// answer is no reason to give up; that the replica was removed again is: it never will take part.
async fn look(
    client: &Client,
    output: &mut Output,
    global: &Global,
    arguments: &AddReplica,
    told: &mut String,
) -> Result<(), CommandError> {
    loop {
        let progress = match ask_all(client, global).await {
            Ok(members) if is_removed(arguments, &members) => return Err(removed(arguments)),
            Ok(members) => progress(arguments, &members),
            Err(error) => Some(error.what),
        };
        let Some(progress) = progress else { return Ok(()) };
        if progress != *told {
            output.note(&progress)?;
            *told = progress;
        }
        sleep(POLL).await;
    }
}

/// Whether the coordinator, which alone is sure to know, does not count it among the replicas.
fn is_removed(arguments: &AddReplica, members: &[Member]) -> bool {
    let coordinator = members.iter().find(|member| !member.is_replica());
    let Some(Ok((_, status))) = coordinator.map(|coordinator| &coordinator.answer) else {
        return false;
    };
    !status.members.iter().any(|member| member.node == arguments.replica.id.0)
}

fn removed(arguments: &AddReplica) -> CommandError {
    CommandError {
        kind: Kind::Cluster(ErrorKind::Conflict),
        happened: Happened::No,
        what: format!("replica {} was removed while it was waited for", arguments.replica.id.0),
        remedy: "its number is nobody's ever again: add one with another".to_owned(),
    }
}

/// It may take part yet.
fn takes_no_part_yet(arguments: &AddReplica, limit: Duration, told: &str) -> CommandError {
    let mut what = format!(
        "replica {} belongs to the cluster, and does not take part after {} ms",
        arguments.replica.id.0,
        limit.as_millis()
    );
    // The first look may take as long as that.
    if let Some(first) = told.lines().next() {
        what = format!("{what}: {first}");
    }
    CommandError {
        kind: Kind::Cluster(ErrorKind::Unknown),
        happened: Happened::Unknown,
        what,
        remedy: "see kvorum status, or wait for it once more with the same command".to_owned(),
    }
}

/// What it does, in words; nothing if it takes part.
fn progress(arguments: &AddReplica, members: &[Member]) -> Option<String> {
    let id = arguments.replica.id.0;
    let answer = members.iter().find(|member| member.node == id).map(|member| &member.answer);
    let Some(Ok((_, status))) = answer else {
        return Some(format!(
            "it does not run; start it on an empty data directory:\n  {}",
            how_to_start(arguments)
        ));
    };
    match Seat::of(status) {
        _ if status.cluster.is_empty() => Some(format!(
            "it runs, and has not joined the cluster; if it was started without --rejoin, stop it, \
             empty its data directory, and start it again:\n  {}",
            how_to_start(arguments)
        )),
        Some(seat) if seat.outside => {
            let commits = members.iter().find_map(|member| {
                let (_, status) = member.answer.as_ref().ok()?;
                Views::of(status).map(|views| views.commits)
            });
            let behind = commits.unwrap_or_default().saturating_sub(seat.applied);
            Some(format!("it catches up: {behind} behind"))
        }
        Some(_) => None,
        None => Some("it is no replica of two-phase commit with a coordinator".to_owned()),
    }
}
