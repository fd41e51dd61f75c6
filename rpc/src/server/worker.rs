//! One worker: a thread with its own runtime, on which its connections live and die.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use capnp::Error;
use capnp_rpc::RpcSystem;
use capnp_rpc::rpc_twoparty_capnp::Side;
use kvorum_schema::client_capnp::gate;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle as TaskHandle, spawn_local};
use tokio::time::{Instant, MissedTickBehavior, sleep, timeout};

use super::ServerError;
use super::accept::accept;
use super::connection::Connection;
use super::gate::Gate;
use super::hub::{Command, Port, Service, count};
use super::requests::Requests;
use crate::hot;
use crate::peers;
use crate::vat::{self, Budget, Limits, Wire};

/// How often deadlines and limits of time are looked at.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);

/// How long connections may take to say goodbye when the server stops.
const GOODBYE: Duration = Duration::from_secs(2);

pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) service: Arc<Service>,
    pub(crate) requests: Requests,
    refusals: hot::Refusals,
    /// Of messages that have begun and not ended.
    budget: Rc<Budget>,
    connections: RefCell<HashMap<u64, Rc<Connection>>>,
    number: Cell<u64>,
    /// What keeps links with peers that it was told of after its start.
    keeping: RefCell<Vec<TaskHandle<()>>>,
}

pub(super) fn start(
    index: usize,
    service: Arc<Service>,
    commands: mpsc::UnboundedReceiver<Command>,
    listener: Option<TcpListener>,
) -> Result<JoinHandle<()>, ServerError> {
    // A local runtime cannot be moved to the thread it is for, so that thread builds it, and says
    // how that went.
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    let thread = thread::Builder::new()
        .name(format!("rpc-{index}"))
        .spawn(move || run(index, service, commands, listener, &sender))
        .map_err(ServerError::Thread)?;
    match receiver.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => Err(ServerError::Thread(error)),
        Err(_) => Err(ServerError::Thread(io::Error::other("the thread ended at once"))),
    }
}

fn run(
    index: usize,
    service: Arc<Service>,
    commands: mpsc::UnboundedReceiver<Command>,
    listener: Option<TcpListener>,
    started: &SyncSender<io::Result<()>>,
) {
    let runtime =
        match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime,
            Err(error) => return drop(started.send(Err(error))),
        };
    let worker = Rc::new(Worker {
        index,
        requests: Requests::new(&service, index),
        refusals: hot::Refusals::new(&service),
        budget: Budget::new(service.hub.options.unfinished_bytes_max),
        service,
        connections: RefCell::default(),
        number: Cell::new(0),
        keeping: RefCell::default(),
    });
    runtime.block_on(async move {
        let listener = listener.map(tokio::net::TcpListener::from_std).transpose();
        match listener {
            Ok(listener) => {
                let _ = started.send(Ok(()));
                worker.serve(commands, listener).await;
            }
            Err(error) => drop(started.send(Err(error))),
        }
    });
    // What still runs on blocking threads reads a file or waits for a report; it ends by itself.
    runtime.shutdown_background();
}

impl Worker {
    async fn serve(
        self: Rc<Self>,
        commands: mpsc::UnboundedReceiver<Command>,
        listener: Option<tokio::net::TcpListener>,
    ) {
        let worker = Rc::clone(&self);
        let submitting = spawn_local(async move { worker.requests.submit().await });
        let worker = Rc::clone(&self);
        let watching = spawn_local(async move { worker.watch().await });
        let worker = Rc::clone(&self);
        let commanded = spawn_local(async move { worker.obey(commands).await });
        let worker = Rc::clone(&self);
        let accepting = listener.map(|listener| spawn_local(accept(worker, listener)));
        let dialling = peers::start(&self);
        // Ends when the server stops.
        self.requests.route().await;
        let dialling = dialling.into_iter().chain(self.keeping.take());
        for task in [submitting, watching, commanded].into_iter().chain(accepting).chain(dialling) {
            task.abort();
        }
        self.say_goodbye().await;
    }

    async fn obey(self: Rc<Self>, mut commands: mpsc::UnboundedReceiver<Command>) {
        while let Some(command) = commands.recv().await {
            match command {
                Command::Open(stream, from) => match TcpStream::from_std(stream) {
                    Ok(stream) => self.open(stream, from.to_string()),
                    Err(error) => {
                        tracing::warn!(%from, %error, "could not open a connection");
                        self.service.hub.connections.fetch_sub(1, Ordering::Relaxed);
                    }
                },
                Command::Dial(peer) => peers::dial_on_demand(&self, peer),
                Command::Keep(peer) => {
                    self.keeping.borrow_mut().push(peers::keep_linked(&self, peer));
                }
                Command::Drain(done, until) => {
                    spawn_local(drain(Rc::clone(&self), done, until.into()));
                }
            }
        }
    }

    /// Serves a connection that was accepted.
    fn open(self: &Rc<Self>, stream: TcpStream, from: String) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(from, %error, "the connection was gone before it was served");
            self.service.hub.connections.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let (read, write) = stream.into_split();
        let wire = Wire::new(self.limits());
        wire.set_budget(&self.budget);
        let share = self.requests.share();
        let connection = Rc::new(Connection::new(from, Rc::clone(&wire), share));
        let serving = hot::Serving::new(Rc::clone(self), &connection);
        wire.set_shortcut(Rc::new(serving));
        let server = Gate::new(Rc::clone(self), Rc::clone(&connection));
        let gate: gate::Client = capnp_rpc::new_client(server);
        let system = vat::connect(&wire, read, write, Side::Server, Some(gate.client));
        count(&self.service.hub.counters.connections_opened, 1);
        let worker = Rc::clone(self);
        spawn_local(async move {
            worker.drive(connection, system).await;
            worker.service.hub.connections.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// Drives a connection to its end, and says in the log why it ended if not by itself.
    pub(crate) async fn drive(&self, connection: Rc<Connection>, system: RpcSystem<Side>) {
        let number = self.number.get() + 1;
        self.number.set(number);
        self.connections.borrow_mut().insert(number, Rc::clone(&connection));
        // A panic in capnp-rpc, should a hostile message find one, ends this connection only.
        let ended = spawn_local(system).await;
        connection.end();
        self.connections.borrow_mut().remove(&number);
        self.count_traffic(&connection);
        let from = &connection.from;
        match ended {
            Ok(Ok(())) => tracing::debug!(from, "a connection ended"),
            Ok(Err(violation)) => {
                count(&self.service.hub.counters.violations, 1);
                tracing::warn!(from, reason = %violation, "closed a connection");
            }
            Err(panic) => {
                count(&self.service.hub.counters.violations, 1);
                connection.wire.close(Error::failed("an internal error".to_owned()));
                tracing::error!(from, %panic, "a connection broke the server's code");
            }
        }
    }

    /// Refuses a call of a hot method for there being too many.
    pub(crate) fn refuse(&self, wire: &Wire, method: hot::Method, question: u32) {
        self.requests.count_refusal();
        self.refusals.say(wire, method, question);
    }

    pub(crate) fn limits(&self) -> Limits {
        let options = &self.service.hub.options;
        Limits {
            message_bytes_max: options.message_bytes_max,
            calls_max: options.in_flight_per_connection_max,
            ..Limits::default()
        }
    }

    /// Looks after deadlines and limits of time, for ever.
    async fn watch(&self) {
        let mut ticks = tokio::time::interval(WATCH_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.requests.sweep();
            self.requests.tell_load();
            self.port().show(self.requests.limits(), self.budget.held_bytes());
            let now = Instant::now();
            for connection in self.connections() {
                connection.watch(&self.service.hub.options, now);
                self.count_traffic(&connection);
            }
        }
    }

    fn port(&self) -> &Port {
        self.service.hub.port(self.index)
    }

    fn count_traffic(&self, connection: &Connection) {
        let counters = &self.service.hub.counters;
        let (messages_in, messages_out, flushes) = connection.traffic();
        count(&counters.messages_in, messages_in);
        count(&counters.messages_out, messages_out);
        count(&counters.flushes, flushes);
    }

    fn connections(&self) -> Vec<Rc<Connection>> {
        self.connections.borrow().values().cloned().collect()
    }

    /// Whether everything that was said has left the process.
    fn is_drained(&self) -> bool {
        self.requests.is_idle()
            && self.service.hub.port(self.index).is_empty()
            && self.connections.borrow().values().all(|connection| {
                connection.wire.backlog() == 0
                    && connection.link().is_none_or(|link| link.is_drained())
            })
    }

    async fn say_goodbye(&self) {
        for connection in self.connections() {
            connection.wire.close(Error::disconnected("the server stops".to_owned()));
        }
        let all_gone = async {
            for connection in self.connections() {
                connection.wire.finished().await;
            }
        };
        // Whoever does not listen is not waited for.
        let _ = timeout(GOODBYE, all_gone).await;
    }
}

/// Waits until what was said has left, seen twice so that a handler in between is not missed.
async fn drain(worker: Rc<Worker>, done: SyncSender<()>, until: Instant) {
    let mut drained = 0;
    while drained < 2 && Instant::now() < until {
        sleep(Duration::from_millis(1)).await;
        drained = if worker.is_drained() { drained + 1 } else { 0 };
    }
    let _ = done.send(());
}
