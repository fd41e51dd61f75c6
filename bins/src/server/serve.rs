//! From flags to a serving node, and back to nothing.
//!
//! Order matters: the data directory is locked before anything else is touched, the address is taken
//! before a long recovery is begun in vain, and nobody is served before the node has recovered.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use kvorum_node::{
    Claim, Event, FailPoints, Handle, IdentityFile, Node, NodeError, Runner, StoredRecord,
};
use kvorum_replication::two_phase::message::Message;
use kvorum_replication::two_phase::{
    Coordinator as CoordinatorCore, CoordinatorOptions, Participant, ParticipantOptions, points,
};
use kvorum_replication::{Core, NodeId, Role};
use kvorum_rpc::server::{Inspect, Server, ServerError, ServerOptions, Serving};
use kvorum_sim::Planted;
use kvorum_storage::vfs::{RealVfs, Vfs};
use kvorum_storage::{LogOptions, Options};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::arguments::{Coordinator, Peer, Process, Protocol, Replica};
use super::error::ServeError;
use super::signals::{End, Signals};
use super::{clock_jumps, full_disk};

/// How long a coordinator that serves waits for links to its replicas before it says that it is
/// ready. Replicas that run answer within milliseconds; for those that do not nobody should wait.
const LINKS_WAIT: Duration = Duration::from_secs(1);

/// Between looks at the links.
const LINKS_POLL: Duration = Duration::from_millis(5);

/// What is the same for every role.
struct Setup<'a> {
    role: Role,
    id: NodeId,
    listen: SocketAddr,
    data_dir: &'a Path,
    /// Whom this node connects to.
    peers: &'a [Peer],
    process: &'a Process,
    points: &'a [points::Point],
}

/// Serves as a replica until a signal or an error ends it.
pub(super) fn replica(arguments: &Replica) -> Result<(), ServeError> {
    check_peers("--peer", &arguments.peer)?;
    let Protocol::TwoPhaseCommit = arguments.protocol;
    let setup = Setup {
        role: Role::Replica,
        id: arguments.id,
        listen: arguments.listen,
        data_dir: &arguments.data_dir,
        peers: &arguments.peer,
        process: &arguments.process,
        points: points::PARTICIPANT,
    };
    let planted = arguments.process.planted();
    let options = ParticipantOptions {
        id: arguments.id,
        seed: seed()?,
        planted: planted.two_phase,
        ..Default::default()
    };
    let log = log_options(planted)?;
    serve(&setup, |vfs, armed| {
        let core = Participant::new(options);
        let options = Options { log, planted: planted.storage, ..Options::default() };
        Node::open_store(vfs, &arguments.data_dir, options, core, armed)
    })
}

/// Serves as a coordinator until a signal or an error ends it.
pub(super) fn coordinator(arguments: &Coordinator) -> Result<(), ServeError> {
    check_peers("--replica", &arguments.replica)?;
    let setup = Setup {
        role: Role::Coordinator,
        id: NodeId::COORDINATOR,
        listen: arguments.listen,
        data_dir: &arguments.data_dir,
        peers: &arguments.replica,
        process: &arguments.process,
        points: points::COORDINATOR,
    };
    let replicas = arguments.replica.iter().map(|replica| replica.id).collect();
    let planted = arguments.process.planted();
    let options = CoordinatorOptions {
        replicas,
        seed: seed()?,
        planted: planted.two_phase,
        ..Default::default()
    };
    let log = log_options(planted)?;
    serve(&setup, |vfs, armed| {
        let core = CoordinatorCore::new(options);
        Node::open_log(vfs, &arguments.data_dir, log, core, armed)
    })
}

/// Refuses peers that cannot all be there.
fn check_peers(flag: &str, peers: &[Peer]) -> Result<(), ServeError> {
    for (index, peer) in peers.iter().enumerate() {
        let earlier = &peers[..index];
        if earlier.iter().any(|other| other.id == peer.id) {
            return Err(ServeError::usage(
                format!("{flag} names replica {} twice", peer.id.0),
                "name each replica once",
            ));
        }
        if let Some(other) = earlier.iter().find(|other| other.address == peer.address) {
            return Err(ServeError::usage(
                format!(
                    "{flag} says that replicas {} and {} both listen on {}",
                    other.id.0, peer.id.0, peer.address
                ),
                "each replica is a process with an address of its own",
            ));
        }
    }
    Ok(())
}

fn serve<C>(
    setup: &Setup<'_>,
    open: impl FnOnce(Arc<dyn Vfs>, Vec<String>) -> Result<Node<C>, NodeError>,
) -> Result<(), ServeError>
where
    C: Core<Message = Message> + Send + 'static,
    C::Record: StoredRecord + Send,
    C::Resume: Send,
{
    let of_node = |error| ServeError::of_node(error, setup.data_dir);
    let known: Vec<&str> = setup.points.iter().map(|point| point.name).collect();
    let fail_points = FailPoints::new(setup.process.fail_point.clone(), &known).map_err(of_node)?;
    let vfs = disk(setup)?;
    let claim = Claim::two_phase(setup.role, setup.id);
    let identity = IdentityFile::open(Arc::clone(&vfs), setup.data_dir, &claim);
    let identity = Arc::new(identity.map_err(of_node)?);
    check_members(setup, &identity)?;
    let (server, outbox) =
        Server::bind(server_options(setup)).map_err(|error| of_rpc(error, setup))?;
    let mut node = open(vfs, fail_points.names()).map_err(of_node)?;
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
        Ok(serving) => until_the_end(setup, address, serving, runner, node_end)?.map_err(of_node),
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

/// A coordinator keeps its replicas: one that is new has none of the rows, and one that is gone
/// would miss what follows.
fn check_members(setup: &Setup<'_>, identity: &IdentityFile) -> Result<(), ServeError> {
    if setup.role != Role::Coordinator {
        return Ok(());
    }
    let members = identity.identity().members;
    let mut known: Vec<NodeId> = members.into_iter().map(|(id, _)| id).collect();
    known.retain(|id| *id != NodeId::COORDINATOR);
    known.sort_unstable();
    let mut named: Vec<NodeId> = setup.peers.iter().map(|peer| peer.id).collect();
    named.sort_unstable();
    if known.is_empty() || known == named {
        return Ok(());
    }
    let list =
        |ids: &[NodeId]| ids.iter().map(|id| id.0.to_string()).collect::<Vec<_>>().join(", ");
    Err(ServeError::refused(
        format!(
            "the cluster in {} has the replicas {}, and --replica names {}",
            setup.data_dir.display(),
            list(&known),
            list(&named)
        ),
        "name exactly those (their addresses may change): a replica that joined later would lack \
         the rows written before",
    ))
}

fn server_options(setup: &Setup<'_>) -> ServerOptions {
    let mut options = ServerOptions::new(setup.listen);
    options.workers = setup.process.workers;
    options.insecure = setup.process.insecure;
    options.advertise.clone_from(&setup.process.advertise);
    if setup.listen.ip().is_unspecified() && setup.process.advertise.is_none() {
        tracing::warn!(listen = %setup.listen, "others cannot connect to it by that name: --advertise");
    }
    options.peers.dial = setup.peers.iter().map(|peer| (peer.id, peer.address.clone())).collect();
    options
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
    let (role, id) = (setup.role, setup.id.0);
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
fn until_the_end(
    setup: &Setup<'_>,
    address: SocketAddr,
    serving: Serving,
    runner: Runner<Message>,
    mut node_end: oneshot::Receiver<()>,
) -> Result<Result<(), NodeError>, ServeError> {
    let no_signals =
        |error: io::Error| ServeError::failed(format!("cannot wait for signals: {error}"), "");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(no_signals)?.block_on(async {
        let mut signals = Signals::take().map_err(no_signals)?;
        let handle = runner.handle();
        let linked = timeout(LINKS_WAIT, linked(&handle, setup));
        let early_end = tokio::select! {
            _ = linked => None,
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
            End::Asked(signal) => tracing::info!(signal, "stopping"),
            End::Node => tracing::error!("the node has ended"),
        }
        stop(serving, runner, &mut signals).await
    })
}

/// Waits until a coordinator has a link to each of its replicas: whoever reads the ready line may
/// write.
async fn linked(handle: &Handle<Message>, setup: &Setup<'_>) {
    if setup.role != Role::Coordinator {
        return;
    }
    loop {
        let (sender, receiver) = mpsc::sync_channel(1);
        handle.submit([Event::Report(sender)]);
        sleep(LINKS_POLL).await;
        let peers_up = receiver.try_recv().map(|report| report.status.peers_up).unwrap_or_default();
        if setup.peers.iter().all(|peer| peers_up.contains(&peer.id)) {
            return;
        }
    }
}

/// Stops everything, unless a second signal says to leave at once.
async fn stop(
    serving: Serving,
    runner: Runner<Message>,
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
        signal = signals.next() => Err(ServeError::failed(
            format!("stopped at once by a second {signal}"),
            "what was acknowledged is safe",
        )),
    }
}

/// The log's options, with chance in them, so that no client can write a value that would pass for a
/// frame of the log.
fn log_options(planted: Planted) -> Result<LogOptions, ServeError> {
    Ok(LogOptions { salt: seed()?, planted: planted.storage, ..LogOptions::default() })
}

/// Chance for the cores, which take it as a number: replicas that restart together shall not ask
/// together.
fn seed() -> Result<u64, ServeError> {
    let id = kvorum_node::ClusterId::random().map_err(|error| {
        ServeError::failed(format!("the system gives no random numbers: {error}"), "")
    })?;
    let (seed, _) = id.0.split_first_chunk().expect("sixteen bytes begin with eight");
    Ok(u64::from_le_bytes(*seed))
}
