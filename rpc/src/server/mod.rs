//! The server: a few threads that take connections, and bring requests to the node and its answers
//! back.
//!
//! ```text
//!   listener ─► worker 0..n, each its own thread and runtime: connections live and die there
//!                  │ gathered once a turn                      ▲ one batch, one wake
//!                  ▼                                           │
//!               Handle ─► node's event loop ─► Outbox ─────────┴─► queues of the peers' links
//! ```
//!
//! capnp-rpc lives on one thread, so nothing of a connection ever leaves its worker. Requests cross
//! to the node, and answers back, in batches: one lock and one wake for all of a turn.

mod accept;
mod admin;
mod admission;
mod connection;
mod door;
mod error;
mod gate;
mod hub;
pub(crate) mod key_value;
mod outbox;
mod replicas;
mod requests;
mod worker;

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use kvorum_node::{Event, Handle, IdentityFile, Outbox, Report};
use kvorum_replication::Row;
use tokio::sync::mpsc;

pub use crate::convert::peer::{Carried, Delivery};
use crate::peers;
pub use crate::peers::PeerOptions;
pub(crate) use admission::{Kind, Share};
pub(crate) use connection::Connection;
pub(crate) use door::{Door, Post};
pub use error::ServerError;
pub(crate) use hub::Service;
use hub::{Command, Hub};
use outbox::HubOutbox;
pub(crate) use requests::Asker;
pub(crate) use worker::Worker;

/// How long a node may take to say how it is when serving begins. Only a hang gets there.
const REPORT_WAIT: Duration = Duration::from_secs(60);

/// How a server listens, and what it allows.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What other nodes and clients are told to connect to; the address listened on if `None`.
    pub advertise: Option<String>,
    /// Threads that serve connections.
    pub workers: usize,
    /// Connections at a time; more are told so and closed at once.
    pub connections_max: usize,
    /// Calls of one connection that may be under way; more are not read until some are answered.
    pub in_flight_per_connection_max: usize,
    /// A larger message closes its connection.
    pub message_bytes_max: usize,
    /// What messages that have begun and not ended may hold on all connections of one worker; those
    /// that began first are closed for more. At least two of the largest messages.
    pub unfinished_bytes_max: usize,
    /// Requests of one worker that may wait for the node, by kind: gets, scans, writes. More are
    /// refused as overloaded; mostly far fewer, by `wait_max`.
    pub requests_max: usize,
    /// How long a request may wait behind others on the average, beyond what it takes by itself;
    /// what would make them wait longer is refused as overloaded at once.
    pub wait_max: Duration,
    /// Their bytes; likewise.
    pub request_bytes_max: usize,
    /// How long a connection may take until it has shown its token or introduced itself.
    pub handshake_timeout: Duration,
    /// How long a connection may stay without a word.
    pub idle_timeout: Duration,
    /// How long a connection may take over a message (a long one may take longer, but not stand
    /// still), go without taking its answers, or have too many calls under way.
    pub stall_timeout: Duration,
    /// The deadline of requests that name none.
    pub request_timeout: Duration,
    /// The longest deadline a request may name.
    pub request_timeout_max: Duration,
    /// What clients must show at the gate; empty lets everybody in.
    pub token: Vec<u8>,
    /// Links to other nodes.
    pub peers: PeerOptions,
    /// Listens on addresses that are not loopback.
    pub insecure: bool,
    /// The program's version, for `status`.
    pub version: String,
}

impl ServerOptions {
    /// The defaults, listening there.
    #[must_use]
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            advertise: None,
            workers: 1,
            connections_max: 16_384,
            in_flight_per_connection_max: 4096,
            message_bytes_max: 32 << 20,
            unfinished_bytes_max: 128 << 20,
            requests_max: 16_384,
            wait_max: Duration::from_millis(20),
            request_bytes_max: 256 << 20,
            handshake_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(600),
            stall_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(5),
            request_timeout_max: Duration::from_secs(60),
            token: Vec::new(),
            peers: PeerOptions::default(),
            insecure: false,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    fn check(&self) -> Result<(), ServerError> {
        if !self.listen.ip().is_loopback() && !self.insecure {
            return Err(ServerError::NotLoopback { address: self.listen });
        }
        if self.workers == 0 || self.workers > hub::WORKERS_MAX {
            return Err(ServerError::Options(format!(
                "{} workers; there must be 1 to {}",
                self.workers,
                hub::WORKERS_MAX
            )));
        }
        if self.in_flight_per_connection_max == 0 || self.connections_max == 0 {
            return Err(ServerError::Options("a limit of 0 would serve nobody".to_owned()));
        }
        // While a message grows, its buffer may be twice as large as what is there.
        if self.unfinished_bytes_max < 2 * self.message_bytes_max {
            return Err(ServerError::Options(format!(
                "unfinished messages may hold {} bytes, and two of {} must fit",
                self.unfinished_bytes_max, self.message_bytes_max
            )));
        }
        self.peers.check().map_err(ServerError::Options)
    }
}

/// What reads the rows a node holds itself, past the protocol, from any thread.
pub type Inspect =
    Arc<dyn Fn(Bytes, u32) -> Result<(Vec<Row>, bool), String> + Send + Sync + 'static>;

/// A bound listener that does not serve yet.
pub struct Server {
    hub: Arc<Hub>,
    listener: TcpListener,
    local_addr: SocketAddr,
    commands: Vec<mpsc::UnboundedReceiver<Command>>,
}

impl Server {
    /// Takes the address. The outbox is for the node, which does not run yet.
    pub fn bind<M: Carried>(
        options: ServerOptions,
    ) -> Result<(Self, Box<dyn Outbox<M>>), ServerError> {
        options.check()?;
        let address = options.listen;
        let bound = |source| ServerError::Bind { address, source };
        let listener = TcpListener::bind(address).map_err(bound)?;
        listener.set_nonblocking(true).map_err(bound)?;
        let local_addr = listener.local_addr().map_err(bound)?;
        let (senders, commands) = (0..options.workers).map(|_| mpsc::unbounded_channel()).unzip();
        let hub = Arc::new(Hub::new(options, local_addr, senders));
        let outbox = HubOutbox::new(Arc::clone(&hub));
        Ok((Self { hub, listener, local_addr, commands }, Box::new(outbox)))
    }

    /// Where clients and peers connect, the port that was taken included.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves. A coordinator that belongs to no cluster yet founds one, and remembers its members; in
    /// a cluster without one the replica with the lowest number does, once it has met all the others.
    ///
    /// # Panics
    /// If the identity is of another protocol than the node: a mistake of the program.
    pub fn serve<M: Carried>(
        self,
        handle: Handle<M>,
        identity: Arc<IdentityFile>,
        inspect: Option<Inspect>,
    ) -> Result<Serving, ServerError> {
        let report = report(&handle)?;
        assert_eq!(identity.identity().protocol, M::PROTOCOL, "one process, one protocol");
        let hub = &self.hub;
        let logged = &report.status.replicas;
        peers::prepare(&identity, &hub.address, &hub.options.peers.dial, logged)?;
        let service = Arc::new(Service {
            hub: Arc::clone(&self.hub),
            door: Arc::new(handle),
            identity,
            inspect,
            incarnation: report.status.incarnation,
            outside: AtomicBool::new(false),
            refusal: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
        });
        service.learn_members();
        let mut listener = Some(self.listener);
        let mut serving = Serving { hub: self.hub, threads: Vec::new() };
        for (index, commands) in self.commands.into_iter().enumerate() {
            let (service, listener) = (Arc::clone(&service), listener.take());
            let thread = worker::start(index, service, commands, listener)?;
            serving.threads.push(thread);
        }
        Ok(serving)
    }
}

fn report<M>(handle: &Handle<M>) -> Result<Report, ServerError> {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    handle.submit([Event::Report(sender)]);
    receiver.recv_timeout(REPORT_WAIT).map_err(|_| ServerError::NodeSilent)
}

/// A server that serves.
pub struct Serving {
    hub: Arc<Hub>,
    threads: Vec<JoinHandle<()>>,
}

impl Serving {
    /// Closes the listener and every connection, and waits for the workers.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.hub.stop();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker had panicked");
            }
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.end();
    }
}
