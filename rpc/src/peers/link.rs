//! A link: batches out, an inbox in, and a pulse.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use capnp::{Error, any_pointer};
use kvorum_replication::{NodeId, Protocol};
use kvorum_schema::peer_capnp::inbox;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{Instant, sleep};

use super::queue::{LinkOf, Peer};
use crate::convert::Rejected;
use crate::convert::peer::{Delivery, any_replica, paxos, two_phase};
use crate::hot::{Deliveries, Mailslot};
use crate::server::{Connection, Post, Service, Worker};
use crate::turn::end_of_turn;
use crate::vat::Wire;

/// How often an inbox looks whether a node that had too much waiting can take more.
const BACKLOG_PAUSE: Duration = Duration::from_millis(2);

/// What a message takes in a mailbox beside its bytes on the wire.
const MESSAGE_BYTES: usize = 64;

/// The sending half of a link.
pub(crate) struct Link {
    service: Arc<Service>,
    peer: Arc<Peer>,
    id: u64,
    wire: Rc<Wire>,
    deliveries: Rc<Deliveries>,
    inbox: inbox::Client,
    ready: Arc<Notify>,
    tasks: RefCell<Vec<AbortHandle>>,
    ended: Cell<bool>,
}

impl Link {
    /// Registers the link, and lets it speak.
    pub(super) fn start(
        service: &Arc<Service>,
        peer: Arc<Peer>,
        of: LinkOf,
        connection: &Connection,
        inbox: inbox::Client,
    ) -> Rc<Self> {
        let ready = Arc::new(Notify::new());
        let id = peer.add_link(service.door.as_ref(), of, Arc::clone(&ready));
        connection.deliveries.set_answered(Arc::clone(&ready));
        let link = Rc::new(Self {
            service: Arc::clone(service),
            peer,
            id,
            wire: Rc::clone(&connection.wire),
            deliveries: Rc::clone(&connection.deliveries),
            inbox,
            ready,
            tasks: RefCell::default(),
            ended: Cell::new(false),
        });
        let speaking = spawn_local(Rc::clone(&link).speak());
        let beating = spawn_local(Rc::clone(&link).beat());
        link.tasks.borrow_mut().extend([speaking.abort_handle(), beating.abort_handle()]);
        link
    }

    /// Takes the link out of service. What was sent over it may be lost.
    pub(crate) fn end(&self) {
        if self.ended.replace(true) {
            return;
        }
        for task in self.tasks.borrow_mut().drain(..) {
            task.abort();
        }
        if self.peer.remove_link(self.service.door.as_ref(), self.id) {
            tracing::warn!(peer = %self.peer.node, "lost the last link");
        }
    }

    /// Whether everything that was said has been taken.
    pub(crate) fn is_drained(&self) -> bool {
        self.peer.is_drained(self.id)
    }

    /// Delivers what waits, at most a window of batches at a time, for ever.
    async fn speak(self: Rc<Self>) {
        let options = &self.service.hub.peers.options;
        loop {
            self.ready.notified().await;
            end_of_turn().await;
            while self.has_room() {
                let Some((batch, bytes)) = self.peer.take(self.id, options) else { break };
                self.deliver(&batch, bytes);
            }
        }
    }

    fn has_room(&self) -> bool {
        let options = &self.service.hub.peers.options;
        let (batches, bytes) = self.deliveries.under_way();
        batches < options.window && bytes <= options.window_bytes
    }

    fn deliver(&self, batch: &Delivery, bytes: usize) {
        let method = method_of(self.service.door.protocol());
        self.deliveries.deliver(&self.wire, method, bytes, |params| match batch {
            Delivery::TwoPhase(batch) => two_phase::write_messages(batch, params.init_as()),
            Delivery::Paxos(batch) => paxos::write_messages(batch, params.init_as()),
            Delivery::AnyReplica(batch) => any_replica::write_messages(batch, params.init_as()),
        });
    }

    /// Asks a silent peer whether it lives, and gives the link up if it does not say so.
    async fn beat(self: Rc<Self>) {
        let options = &self.service.hub.peers.options;
        let asking = Rc::new(Cell::new(false));
        let mut slept_at = Instant::now();
        loop {
            sleep(options.ping_interval).await;
            let now = Instant::now();
            // If this process itself stood still, the peer's words wait in the socket: read first.
            let late = now - slept_at > options.ping_interval + options.liveness_timeout / 2;
            slept_at = now;
            let silent = self.wire.silent_for(now).min(self.sending_for(now));
            if !late && silent > options.liveness_timeout {
                return self.fail(format!("silent for {} ms", silent.as_millis()));
            }
            if self.deliveries.under_way().0 == 0 && self.peer.is_superseded(self.id) {
                tracing::debug!(peer = %self.peer.node, "one link of two is enough");
                self.wire.close(Error::disconnected("another link stands".to_owned()));
                return self.end();
            }
            // What it was to be told last has left by then.
            if self.deliveries.under_way().0 == 0 && self.peer.is_left_over(self.id) {
                return self.fail("it does not belong to the cluster any more".to_owned());
            }
            if !asking.replace(true) {
                let (ping, asking) = (self.inbox.ping_request().send().promise, Rc::clone(&asking));
                spawn_local(async move {
                    // An error is the connection's end, which is noticed by itself.
                    let _ = ping.await;
                    asking.set(false);
                });
            }
        }
    }

    /// A large delivery may take longer than a peer may be silent; while its bytes move, it lives.
    fn sending_for(&self, now: Instant) -> Duration {
        match self.wire.backlog() {
            0 => Duration::MAX,
            _ => self.wire.stalled_for(now),
        }
    }

    fn fail(&self, reason: String) {
        if !self.ended.get() {
            tracing::warn!(peer = %self.peer.node, reason, "gave up a link");
            self.wire.close(Error::disconnected(reason));
            self.end();
        }
    }
}

/// The method of an inbox for a protocol's messages, as the schema numbers them.
fn method_of(protocol: Protocol) -> u16 {
    match protocol {
        Protocol::TwoPhase => 0,
        Protocol::Paxos => 2,
        Protocol::AnyReplica => 3,
    }
}

/// Whether the other side has been let in: its first delivery may overtake our decision.
pub(super) struct Admission {
    open: Cell<bool>,
    opened: Notify,
}

impl Admission {
    pub(super) fn open() -> Rc<Self> {
        Rc::new(Self { open: Cell::new(true), opened: Notify::new() })
    }

    pub(super) fn closed() -> Rc<Self> {
        Rc::new(Self { open: Cell::new(false), opened: Notify::new() })
    }

    pub(super) fn admit(&self) {
        self.open.set(true);
        self.opened.notify_waiters();
    }

    fn is_open(&self) -> bool {
        self.open.get()
    }

    async fn admitted(&self) {
        while !self.open.get() {
            self.opened.notified().await;
        }
    }
}

/// The receiving half of a link.
pub(super) struct Inbox {
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    from: NodeId,
    admission: Rc<Admission>,
}

impl Inbox {
    /// Opens a connection's inbox, for the other side to be given.
    pub(super) fn open(
        worker: &Rc<Worker>,
        connection: &Rc<Connection>,
        from: NodeId,
        admission: Rc<Admission>,
    ) -> inbox::Client {
        let (worker, connection) = (Rc::clone(worker), Rc::clone(connection));
        let inbox = Rc::new(Self { worker, connection, from, admission });
        inbox.connection.deliveries.set_slot(Rc::clone(&inbox) as _);
        capnp_rpc::new_client_from_rc(inbox)
    }
}

impl Mailslot for Inbox {
    fn take(
        &self,
        method: u16,
        params: any_pointer::Reader<'_>,
        bytes: usize,
    ) -> Result<bool, Error> {
        let protocol = self.worker.service.door.protocol();
        if !self.admission.is_open() || method != method_of(protocol) {
            return Ok(false);
        }
        let delivery = match protocol {
            Protocol::TwoPhase => {
                let params = params.get_as::<inbox::deliver_params::Reader<'_>>()?;
                two_phase::read_messages(params.get_messages()?).map(Delivery::TwoPhase)
            }
            Protocol::Paxos => {
                let params = params.get_as::<inbox::deliver_paxos_params::Reader<'_>>()?;
                paxos::read_messages(params.get_messages()?).map(Delivery::Paxos)
            }
            Protocol::AnyReplica => {
                let params = params.get_as::<inbox::deliver_any_replica_params::Reader<'_>>()?;
                any_replica::read_messages(params.get_messages()?).map(Delivery::AnyReplica)
            }
        };
        let delivery = delivery.map_err(|rejected| self.reject(rejected.into()))?;
        let bytes = bytes + MESSAGE_BYTES * delivery.len();
        self.put(delivery, bytes);
        Ok(true)
    }

    fn has_room(&self) -> bool {
        let door = &self.worker.service.door;
        !door.is_backlogged() || door.is_closed()
    }
}

impl inbox::Server for Inbox {
    async fn deliver(
        self: Rc<Self>,
        params: inbox::DeliverParams,
        _results: inbox::DeliverResults,
    ) -> Result<(), Error> {
        self.admission.admitted().await;
        let read = match params.get()?.get_messages() {
            Ok(messages) => two_phase::read_messages(messages).map(Delivery::TwoPhase),
            Err(error) => Err(error.into()),
        };
        drop(params);
        self.deliver_slowly(Protocol::TwoPhase, read).await
    }

    async fn deliver_paxos(
        self: Rc<Self>,
        params: inbox::DeliverPaxosParams,
        _results: inbox::DeliverPaxosResults,
    ) -> Result<(), Error> {
        self.admission.admitted().await;
        let read = match params.get()?.get_messages() {
            Ok(messages) => paxos::read_messages(messages).map(Delivery::Paxos),
            Err(error) => Err(error.into()),
        };
        drop(params);
        self.deliver_slowly(Protocol::Paxos, read).await
    }

    async fn deliver_any_replica(
        self: Rc<Self>,
        params: inbox::DeliverAnyReplicaParams,
        _results: inbox::DeliverAnyReplicaResults,
    ) -> Result<(), Error> {
        self.admission.admitted().await;
        let read = match params.get()?.get_messages() {
            Ok(messages) => any_replica::read_messages(messages).map(Delivery::AnyReplica),
            Err(error) => Err(error.into()),
        };
        drop(params);
        self.deliver_slowly(Protocol::AnyReplica, read).await
    }

    async fn ping(
        self: Rc<Self>,
        _params: inbox::PingParams,
        _results: inbox::PingResults,
    ) -> Result<(), Error> {
        Ok(())
    }
}

impl Inbox {
    /// Hands over what came.
    async fn deliver_slowly(
        &self,
        of: Protocol,
        read: Result<Delivery, Rejected>,
    ) -> Result<(), Error> {
        let door = &self.worker.service.door;
        if of != door.protocol() {
            let error = format!("a message of {of} to a node of {}", door.protocol());
            return Err(self.reject(Error::failed(error)));
        }
        let delivery = read.map_err(|rejected| self.reject(rejected.into()))?;
        let bytes = delivery.bytes();
        self.put(delivery, bytes);
        // The answer is what makes room in the sender's window: a node that cannot keep up delays it.
        while !self.has_room() {
            sleep(BACKLOG_PAUSE).await;
        }
        Ok(())
    }

    fn put(&self, delivery: Delivery, bytes: usize) {
        self.worker.requests.post(Post::Delivered { from: self.from, delivery, bytes });
    }

    /// What this peer says cannot be understood, so nothing more of it should be.
    fn reject(&self, error: Error) -> Error {
        tracing::error!(peer = %self.from, %error, "a delivery could not be read");
        self.connection.wire.close(Error::failed(format!("a delivery could not be read: {error}")));
        error
    }
}
