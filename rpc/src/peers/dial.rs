//! Dialling: the configured peers all the time, and those that a coordinator told of; others when there
//! is something to tell them.

use std::rc::Rc;
use std::sync::Arc;

use capnp::Error;
use capnp_rpc::rpc_twoparty_capnp::Side;
use kvorum_replication::NodeId;
use kvorum_schema::client_capnp::gate;
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{sleep, timeout};

use super::attach::{Failed, introduce};
use super::queue::Peer;
use crate::server::{Connection, Worker};
use crate::vat::{self, Wire};

/// Dials the configured peers whose links live on this worker, as long as they belong to the cluster.
pub(crate) fn start(worker: &Rc<Worker>) -> Vec<JoinHandle<()>> {
    let hub = &worker.service.hub;
    let own =
        hub.peers.options.dial.iter().filter(|(node, _)| hub.worker_of(*node) == worker.index);
    own.map(|(node, _)| spawn_local(keep(Rc::clone(worker), hub.peers.peer(*node)))).collect()
}

/// Dials a peer whose links live on this worker, as long as it belongs to the cluster.
pub(crate) fn keep_linked(worker: &Rc<Worker>, node: NodeId) -> JoinHandle<()> {
    spawn_local(keep(Rc::clone(worker), worker.service.hub.peers.peer(node)))
}

/// Dials a peer once, because messages wait for it.
pub(crate) fn dial_on_demand(worker: &Rc<Worker>, node: NodeId) {
    let (worker, peer) = (Rc::clone(worker), worker.service.hub.peers.peer(node));
    spawn_local(async move {
        let options = &worker.service.hub.peers.options;
        let pause = match dial(&worker, &peer).await {
            Ok(()) => return,
            Err(Failed::Broken(reason)) => {
                tracing::debug!(peer = %node, reason, "could not dial");
                options.backoff_max
            }
            Err(Failed::NotYet { .. }) => options.backoff_max,
            Err(Failed::Refused(reason)) => {
                tracing::error!(peer = %node, reason, "no link");
                options.refused_pause
            }
        };
        peer.dial_failed(std::time::Instant::now() + pause);
    });
}

/// Sees to it that a link stands, as long as the peer belongs to the cluster.
async fn keep(worker: Rc<Worker>, peer: Arc<Peer>) {
    let service = &worker.service;
    let (peers, own) = (&service.hub.peers, service.identity.identity().node);
    let options = &peers.options;
    let mut pause = options.backoff_min;
    let mut told = String::new();
    loop {
        peer.down().await;
        if peer.is_given_up() {
            return tracing::info!(peer = %peer.node, "not dialled any more");
        }
        // If the other dials as well, one of the two goes first, or each pair would have two links.
        if own > peer.node && peer.node != NodeId::COORDINATOR {
            sleep(options.yield_pause).await;
            if peer.is_up() {
                continue;
            }
        }
        let hurried = peers.hurried.notified();
        let (reason, wait) = match dial(&worker, &peer).await {
            Ok(()) => {
                told.clear();
                pause = options.backoff_min;
                sleep(pause).await;
                continue;
            }
            Err(Failed::Broken(reason)) => (reason, pause),
            Err(Failed::NotYet { nearer: true }) => continue,
            Err(Failed::NotYet { nearer: false }) => {
                ("one of the two has not joined the cluster yet".to_owned(), pause)
            }
            Err(Failed::Refused(reason)) => {
                service.note_refusal(&reason);
                (reason, options.refused_pause)
            }
        };
        // A peer that stays away is worth one line, not one for each try.
        if told != reason {
            tracing::warn!(peer = %peer.node, address = peer.address(), reason, "no link");
            told = reason;
        }
        pause = (pause * 2).min(options.backoff_max);
        tokio::select! {
            () = sleep(wait) => {}
            () = hurried => pause = options.backoff_min,
        }
    }
}

/// Makes a link.
async fn dial(worker: &Rc<Worker>, peer: &Peer) -> Result<(), Failed> {
    let address = peer.address();
    let options = &worker.service.hub.peers.options;
    let stream = match timeout(options.connect_timeout, TcpStream::connect(&address)).await {
        Ok(connected) => connected.and_then(|stream| stream.set_nodelay(true).map(|()| stream)),
        Err(_) => return Err(Failed::Broken("it does not answer in time".to_owned())),
    };
    let (read, write) = stream.map_err(|error| Failed::Broken(error.to_string()))?.into_split();
    let wire = Wire::new(worker.limits());
    let connection = Rc::new(Connection::new(address, Rc::clone(&wire), worker.requests.share()));
    wire.set_shortcut(Rc::new(Rc::clone(&connection.deliveries)));
    let mut system = vat::connect(&wire, read, write, Side::Client, None);
    let gate: gate::Client = system.bootstrap(Side::Server);
    let (driver, driven) = (Rc::clone(worker), Rc::clone(&connection));
    spawn_local(async move { driver.drive(driven, system).await });
    let introduced =
        timeout(options.connect_timeout, introduce(worker, &connection, &gate, peer.node)).await;
    let failed = match introduced {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(failed)) => failed,
        Err(_) => Failed::Broken("it does not introduce itself in time".to_owned()),
    };
    wire.close(Error::disconnected("no link came of this connection".to_owned()));
    Err(failed)
}
