//! Dialling: the configured peers all the time, the others when there is something to tell them.

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

/// Dials the configured peers whose links live on this worker, for ever.
pub(crate) fn start(worker: &Rc<Worker>) -> Vec<JoinHandle<()>> {
    let hub = &worker.service.hub;
    let own =
        hub.peers.options.dial.iter().filter(|(node, _)| hub.worker_of(*node) == worker.index);
    own.map(|(node, _)| spawn_local(keep(Rc::clone(worker), hub.peers.peer(*node)))).collect()
}

/// Dials a peer once, because messages wait for it.
pub(crate) fn dial_on_demand(worker: &Rc<Worker>, node: NodeId) {
    let (worker, peer) = (Rc::clone(worker), worker.service.hub.peers.peer(node));
    spawn_local(async move {
        let options = &worker.service.hub.peers.options;
        let pause = match dial(&worker, &peer).await {
            Ok(ended) => return drop(ended),
            Err(Failed::Broken(reason)) => {
                tracing::debug!(peer = %node, reason, "could not dial");
                options.backoff_max
            }
            Err(Failed::Refused(reason)) => {
                tracing::error!(peer = %node, reason, "no link");
                options.refused_pause
            }
        };
        peer.dial_failed(std::time::Instant::now() + pause);
    });
}

async fn keep(worker: Rc<Worker>, peer: Arc<Peer>) {
    let options = &worker.service.hub.peers.options;
    let mut pause = options.backoff_min;
    let mut told = String::new();
    loop {
        let (reason, wait) = match dial(&worker, &peer).await {
            Ok(ended) => {
                // Runs until the connection is over.
                let _ = ended.await;
                told.clear();
                pause = options.backoff_min;
                sleep(pause).await;
                continue;
            }
            Err(Failed::Broken(reason)) => (reason, pause),
            Err(Failed::Refused(reason)) => (reason, options.refused_pause),
        };
        // A peer that stays away is worth one line, not one for each try.
        if told != reason {
            tracing::warn!(peer = %peer.node, address = peer.address(), reason, "no link");
            told = reason;
        }
        sleep(wait).await;
        pause = (pause * 2).min(options.backoff_max);
    }
}

/// Makes a link; what is returned ends when its connection has ended.
async fn dial(worker: &Rc<Worker>, peer: &Peer) -> Result<JoinHandle<()>, Failed> {
    let address = peer.address();
    let options = &worker.service.hub.peers.options;
    let stream = match timeout(options.connect_timeout, TcpStream::connect(&address)).await {
        Ok(connected) => connected.and_then(|stream| stream.set_nodelay(true).map(|()| stream)),
        Err(_) => return Err(Failed::Broken("it does not answer in time".to_owned())),
    };
    let (read, write) = stream.map_err(|error| Failed::Broken(error.to_string()))?.into_split();
    let wire = Wire::new(worker.limits());
    let connection = Rc::new(Connection::new(address, Rc::clone(&wire)));
    let mut system = vat::connect(&wire, read, write, Side::Client, None);
    let gate: gate::Client = system.bootstrap(Side::Server);
    let (driver, driven) = (Rc::clone(worker), Rc::clone(&connection));
    let ended = spawn_local(async move { driver.drive(driven, system).await });
    let introduced =
        timeout(options.connect_timeout, introduce(worker, &connection, &gate, peer.node)).await;
    let failed = match introduced {
        Ok(Ok(())) => return Ok(ended),
        Ok(Err(failed)) => failed,
        Err(_) => Failed::Broken("it does not introduce itself in time".to_owned()),
    };
    wire.close(Error::disconnected("no link came of this connection".to_owned()));
    Err(failed)
}
