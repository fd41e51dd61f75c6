//! `bench`: puts a load on a cluster and tells how it bore it.

mod arguments;
mod progress;
mod report;

use std::time::Duration;

use kvorum::cluster::Cluster;
use kvorum::load::{Load, LoadError, Summary};
use kvorum::server::Protocol;
use kvorum_replication::{Happened, NodeId};
use kvorum_rpc::client::{Client, ClientOptions, ErrorKind};
use tokio::task::LocalSet;

pub(crate) use self::arguments::Bench;
use self::arguments::To;
use crate::arguments::Global;
use crate::connection;
use crate::error::{CommandError, Kind};
use crate::fresh;
use crate::output::Output;

/// A fresh cluster is ready for writes within milliseconds.
const LINKS_WITHIN: Duration = Duration::from_secs(10);

/// Runs the load and prints what came of it.
pub(crate) fn bench(
    global: &Global,
    output: &mut Output,
    bench: Bench,
) -> Result<(), CommandError> {
    let fresh = bench.fresh.then_some((bench.protocol, bench.replicas));
    let to = bench.to;
    let mut options = bench.into_options()?;
    // Ends when it is dropped, which is at the end of this function.
    let cluster =
        fresh.map(|(protocol, count)| start_fresh(protocol, count, global.timeout)).transpose()?;
    let connect = cluster.as_ref().map_or_else(|| global.connect.clone(), Cluster::connect);
    let client = connection::options(connect, global.timeout);
    if to == To::Replicas {
        options.read_from = replicas(client.clone())?;
    }
    let load = Load::start(options.clone(), &client).map_err(failed)?;
    progress::show(&load, &options);
    let summary = load.join().map_err(failed)?;
    report::print(output, &options, &summary)?;
    check(&summary)
}

fn start_fresh(
    protocol: Protocol,
    replicas: u32,
    timeout: Duration,
) -> Result<Cluster, CommandError> {
    let mut cluster = fresh::cluster(protocol.replication(), replicas, None)?;
    let started = block_on(async {
        cluster.start_all().await?;
        cluster.await_links(LINKS_WITHIN.max(timeout)).await
    })?;
    started.map_err(fresh::failed)?;
    Ok(cluster)
}

/// Where the replicas are, as the process says that a client is sent to.
fn replicas(options: ClientOptions) -> Result<Vec<String>, CommandError> {
    let status = block_on(async { Client::connect(options).await?.status().await })??;
    let members = status.members.into_iter().filter(|member| member.up);
    let others = members.map(|member| (member.node, member.address));
    // Among equals the one that is asked is one of them, and may not name itself.
    let all = others.chain([(status.node, status.address)]);
    let mut replicas: Vec<_> =
        all.filter(|(node, _)| NodeId(*node) != NodeId::COORDINATOR).collect();
    replicas.sort_unstable();
    replicas.dedup_by_key(|(node, _)| *node);
    if replicas.is_empty() {
        return Err(CommandError {
            kind: Kind::Cluster(ErrorKind::Unavailable),
            happened: Happened::No,
            what: "no replica is up to read from".to_owned(),
            remedy: "see `kvorum status`".to_owned(),
        });
    }
    Ok(replicas.into_iter().map(|(_, address)| address).collect())
}

fn block_on<F: Future>(future: F) -> Result<F::Output, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CommandError::io("cannot start the runtime", &error))?;
    Ok(LocalSet::new().block_on(&runtime, future))
}

/// A run in which nothing was acknowledged has not shown anything.
fn check(summary: &Summary) -> Result<(), CommandError> {
    let counts = summary.counts;
    let refused = counts.unavailable + counts.overloaded;
    let why = match (counts.ok, refused, counts.ended()) {
        (0, 1.., _) => "the cluster was unavailable all the time",
        (0, 0, 0) => "no operation began and ended in the time that is measured",
        _ => return Ok(()),
    };
    Err(CommandError {
        kind: Kind::Cluster(ErrorKind::Unavailable),
        happened: Happened::No,
        what: format!("nothing was acknowledged, {why}"),
        remedy: "see `kvorum status`".to_owned(),
    })
}

fn failed(error: LoadError) -> CommandError {
    match error {
        LoadError::Client(error) => error.into(),
        LoadError::Io { what, source } => CommandError::io(&what, &source),
    }
}
