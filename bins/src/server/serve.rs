//! From flags to a serving node, and back to nothing.
//!
//! Order matters: the data directory is locked before anything else is touched, the address is taken
//! before a long recovery is begun in vain, and nobody is served before the node has recovered.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use kvorum_node::{
    Claim, FailPoints, Identity, IdentityFile, Node, NodeError, Runner, StoredRecord,
};
use kvorum_replication::points::Point;
use kvorum_replication::{Core, NodeId};
use kvorum_rpc::server::{Carried, Inspect, Server, ServerError, ServerOptions, Serving};
use kvorum_storage::vfs::{RealVfs, Vfs};
use tokio::sync::oneshot;

use super::arguments::{Peer, Process};
use super::error::ServeError;
use super::peers::others;
use super::ready::{hand_over, ready};
use super::signals::{End, Signals};
use super::{clock_jumps, files, full_disk};

/// What is the same for every role.
pub(super) struct Setup<'a> {
    /// What it says it is.
    pub(super) claim: Claim,
    pub(super) listen: SocketAddr,
    pub(super) data_dir: &'a Path,
    /// Whom this node connects to, as the flags say.
    pub(super) peers: &'a [Peer],
    pub(super) process: &'a Process,
    pub(super) points: &'a [Point],
}

/// Serves until a signal or an error ends it.
pub(super) fn serve<C>(
    setup: &Setup<'_>,
    open: impl FnOnce(Arc<dyn Vfs>, Vec<String>, &Identity, &[Peer]) -> Result<Node<C>, NodeError>,
) -> Result<(), ServeError>
where
    C: Core<Message: Carried> + Send + 'static,
    C::Record: StoredRecord + Send,
    C::Resume: Send,
{
    let of_node = |error| ServeError::of_node(error, setup.data_dir);
    let known: Vec<&str> = setup.points.iter().map(|point| point.name).collect();
    let fail_points = FailPoints::new(setup.process.fail_point.clone(), &known).map_err(of_node)?;
    let vfs = disk(setup)?;
    let identity = IdentityFile::open(Arc::clone(&vfs), setup.data_dir, &setup.claim);
    let identity = Arc::new(identity.map_err(of_node)?);
    let peers = others(setup, &identity.identity())?;
    let (server, outbox) =
        Server::bind(server_options(setup, &peers)).map_err(|error| of_rpc(error, setup))?;
    let mut node = open(vfs, fail_points.names(), &identity.identity(), &peers).map_err(of_node)?;
    node.set_planted(setup.process.planted().node);
    let (ended, node_end) = oneshot::channel();
    let on_end = Box::new(move || {
        // Nobody waits any more if the end was asked for.
        let _ = ended.send(());
    });
    let runner = Runner::start(node, outbox, fail_points, on_end).map_err(of_node)?;
    if let Some(control) = &setup.process.clock_wrong_by {
        clock_jumps::follow(control, runner.handle()).map_err(cannot_break)?;
    }
    let inspector = runner.inspector();
    let inspect: Inspect =
        Arc::new(move |start, limit| inspector.rows(start, limit).map_err(|e| e.to_string()));
    let address = server.local_addr();
    match server.serve(runner.handle(), identity, Some(inspect)) {
        Ok(serving) => {
            until_the_end(setup, &peers, address, serving, runner, node_end)?.map_err(of_node)
        }
        Err(error) => {
            // A node that could not start says better why than the server that waited for it.
            runner.stop().map_err(of_node)?;
            Err(of_rpc(error, setup))
        }
    }
}

/// The disk, which a test may want to be full at times.
fn disk(setup: &Setup<'_>) -> Result<Arc<dyn Vfs>, ServeError> {
    let real: Arc<dyn Vfs> = Arc::new(RealVfs);
    match &setup.process.disk_full_while {
        Some(control) => full_disk::full_while(real, control).map_err(cannot_break),
        None => Ok(real),
    }
}

fn cannot_break(error: io::Error) -> ServeError {
    ServeError::failed(format!("cannot fail as the test wants: {error}"), "")
}

fn server_options(setup: &Setup<'_>, peers: &[Peer]) -> ServerOptions {
    let mut options = ServerOptions::new(setup.listen);
    options.workers = setup.process.workers;
    options.connections_max = files::make_room(setup.process.max_connections);
    options.wait_max = Duration::from_millis(setup.process.max_delay);
    options.insecure = setup.process.insecure;
    options.advertise.clone_from(&setup.process.advertise);
    if setup.listen.ip().is_unspecified() && setup.process.advertise.is_none() {
        tracing::warn!(listen = %setup.listen, "others cannot connect to it by that name: --advertise");
    }
    if let Some(silence) = setup.process.silence {
        options.handshake_timeout = silence;
        options.peers.connect_timeout = silence;
        options.peers.liveness_timeout = silence;
    }
    options.peers.dial = dialled(peers, &setup.process.route);
    options
}

/// Where to reach whom: where they listen, except where a test says otherwise.
fn dialled(peers: &[Peer], routes: &[Peer]) -> Vec<(NodeId, String)> {
    let direct = peers.iter().filter(|peer| routes.iter().all(|route| route.id != peer.id));
    direct.chain(routes).map(|peer| (peer.id, peer.address.clone())).collect()
}

/// What the server's error means to whoever started it.
fn of_rpc(error: ServerError, setup: &Setup<'_>) -> ServeError {
    let what = error.to_string();
    match error {
        ServerError::Bind { .. } => ServeError::refused(what, ""),
        ServerError::NotLoopback { .. } | ServerError::Options(_) => ServeError::usage(what, ""),
        ServerError::NodeSilent | ServerError::Thread(_) => ServeError::failed(what, ""),
        ServerError::Identity(error) => ServeError::of_node(error, setup.data_dir),
    }
}

/// Says on standard output that the process serves.
fn announce(setup: &Setup<'_>, address: SocketAddr) {
    let (role, id) = (setup.claim.role, setup.claim.node.0);
    let mut stdout = io::stdout().lock();
    let line = writeln!(stdout, "ready {role} id={id} listen={address}");
    if let Err(error) = line.and_then(|()| stdout.flush()) {
        tracing::warn!(%error, "nobody reads the ready line");
    }
    let (data_dir, version) = (setup.data_dir.display(), env!("CARGO_PKG_VERSION"));
    tracing::info!(%role, id, %address, %data_dir, version, "serving");
}

/// Serves until the end, and makes it a clean one. The outer error is this process's, the inner one
/// the node's.
fn until_the_end<M: Carried>(
    setup: &Setup<'_>,
    peers: &[Peer],
    address: SocketAddr,
    serving: Serving,
    runner: Runner<M>,
    mut node_end: oneshot::Receiver<()>,
) -> Result<Result<(), NodeError>, ServeError> {
    let no_signals =
        |error: io::Error| ServeError::failed(format!("cannot wait for signals: {error}"), "");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(no_signals)?.block_on(async {
        let mut signals = Signals::take().map_err(no_signals)?;
        let handle = runner.handle();
        let early_end = tokio::select! {
            () = ready(&handle, setup, peers) => None,
            end = signals.or_end_of(&mut node_end) => Some(end),
        };
        let end = match early_end {
            Some(end) => end,
            None => {
                announce(setup, address);
                signals.or_end_of(&mut node_end).await
            }
        };
        match end {
            End::Asked(signal) => {
                tracing::info!(signal, "stopping");
                tokio::select! {
                    () = hand_over(&handle, setup) => {}
                    signal = signals.next() => return Err(hurried(signal)),
                }
            }
            End::Node => tracing::error!("the node has ended"),
        }
        stop(serving, runner, &mut signals).await
    })
}

/// Stops everything, unless a second signal says to leave at once.
async fn stop<M: Carried>(
    serving: Serving,
    runner: Runner<M>,
    signals: &mut Signals,
) -> Result<Result<(), NodeError>, ServeError> {
    let (sender, stopped) = oneshot::channel();
    let stop = move || {
        serving.stop();
        // Nobody waits any more if a second signal came.
        let _ = sender.send(runner.stop());
    };
    thread::Builder::new()
        .name("stop".to_owned())
        .spawn(stop)
        .map_err(|error| ServeError::failed(format!("cannot stop cleanly: {error}"), ""))?;
    tokio::select! {
        stopped = stopped => Ok(stopped.expect("a panic aborts the process")),
        signal = signals.next() => Err(hurried(signal)),
    }
}

/// Somebody who has asked before does not want to wait.
fn hurried(signal: &str) -> ServeError {
    ServeError::failed(
        format!("stopped at once by a second {signal}"),
        "what was acknowledged is safe",
    )
}
