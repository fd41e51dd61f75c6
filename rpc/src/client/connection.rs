//! One connection of a client, and how to get one.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::time::Duration;

use capnp::capability::Promise;
use capnp::{Error, ErrorKind};
use capnp_rpc::rpc_twoparty_capnp::Side;
use kvorum_schema::admin_capnp::admin;
use kvorum_schema::client_capnp::gate;
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};

use super::types::ClientOptions;
use crate::hot::{Asking, Question, Response, Store, Unheard};
use crate::vat::{self, Limits, Wire};

/// How often a connection is looked after.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

pub(super) struct Connection {
    pub(super) address: String,
    pub(super) store: Store,
    gate: gate::Client,
    admin: OnceCell<admin::Client>,
    wire: Rc<Wire>,
    /// Calls that were not answered yet.
    waiting: Rc<Cell<usize>>,
}

/// Why an address gave no connection.
pub(super) enum Unreachable {
    /// Nobody answers there, or not as a server of ours.
    Away(String),
    /// The server does not let us in.
    Refused(String),
}

/// How a call ended that has no answer.
pub(super) enum Unanswered {
    /// The connection is gone, and the answer with it.
    Lost(String),
    /// The time is over.
    Late,
    /// The server answered with an error of its own.
    Failed(Error),
}

impl Connection {
    /// Connects, and shows the token.
    pub(super) async fn open(address: &str, options: &ClientOptions) -> Result<Self, Unreachable> {
        let away = |error: std::io::Error| Unreachable::Away(error.to_string());
        let stream = TcpStream::connect(address).await.map_err(away)?;
        stream.set_nodelay(true).map_err(away)?;
        let (read, write) = stream.into_split();
        let wire = Wire::new(Limits::default());
        wire.trust();
        let asking = Rc::new(Asking::default());
        wire.set_shortcut(Rc::clone(&asking) as _);
        let mut system = vat::connect(&wire, read, write, Side::Client, None);
        let gate: gate::Client = system.bootstrap(Side::Server);
        let closing = CloseOnDrop(Some(Rc::clone(&wire)));
        spawn_local(async move {
            if let Err(violation) = system.await {
                tracing::warn!(reason = %violation, "the connection to the server was closed");
            }
        });
        let store = Store::open(&wire, &asking, &options.token).await;
        let store = store.map_err(|error| greeted(&wire, &error))?;
        let address = address.to_owned();
        closing.keep();
        let waiting = Rc::new(Cell::new(0));
        let watch = Watch {
            wire: Rc::clone(&wire),
            asking,
            waiting: Rc::clone(&waiting),
            gate: gate.clone(),
            token: options.token.clone(),
            silence_max: options.silence_timeout,
        };
        spawn_local(watch.keep());
        Ok(Self { address, store, gate, admin: OnceCell::new(), wire, waiting })
    }

    /// The interface for looking at the process.
    pub(super) async fn admin(
        &self,
        token: &[u8],
        deadline: Instant,
    ) -> Result<admin::Client, Unanswered> {
        if let Some(admin) = self.admin.get() {
            return Ok(admin.clone());
        }
        let mut request = self.gate.admin_request();
        request.get().set_token(token);
        let response = self.call(request.send().promise, deadline).await?;
        let admin = response.get().and_then(|results| results.get_admin());
        Ok(self.admin.get_or_init(|| admin.unwrap_or_else(broken_admin)).clone())
    }

    /// Waits for the answer to a call on the store, at most until `deadline`. The call is never
    /// taken back.
    pub(super) async fn answer(
        &self,
        asked: Result<Question, Error>,
        deadline: Instant,
    ) -> Result<Response, Unanswered> {
        let _waiting = Waiting::new(&self.waiting);
        let answer = match asked {
            Ok(question) => question.within(deadline).await,
            Err(error) => Err(error.into()),
        };
        answer.map_err(|unheard| match unheard {
            Unheard::Late => Unanswered::Late,
            Unheard::Failed(error) => self.unanswered(error),
        })
    }

    /// Waits for an answer that capnp-rpc brings. A call is never cancelled, since a cancelled one
    /// would stay in both sides' tables until the connection ends: it goes on by itself.
    pub(super) async fn call<T: 'static>(
        &self,
        promise: Promise<T, Error>,
        deadline: Instant,
    ) -> Result<T, Unanswered> {
        let waiting = Waiting::new(&self.waiting);
        let answer = tokio::time::timeout_at(deadline, spawn_local(promise)).await;
        drop(waiting);
        match answer {
            Ok(Ok(answer)) => answer.map_err(|error| self.unanswered(error)),
            Ok(Err(panic)) => {
                // capnp-rpc broke; this connection is not to be trusted any more.
                self.close("an internal error");
                Err(Unanswered::Lost(panic.to_string()))
            }
            Err(_) => Err(Unanswered::Late),
        }
    }

    fn unanswered(&self, error: Error) -> Unanswered {
        match self.is_closed() {
            true => Unanswered::Lost(error.to_string()),
            false => Unanswered::Failed(error),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.wire.is_closed()
    }

    pub(super) fn close(&self, reason: &str) {
        self.wire.close(Error::disconnected(reason.to_owned()));
    }

    pub(super) fn silent_for(&self) -> Duration {
        self.wire.silent_for(Instant::now())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close("the client left");
    }
}

/// One that waits for an answer, be it that it stops waiting.
struct Waiting(Rc<Cell<usize>>);

impl Waiting {
    fn new(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Tells who waits for an answer when the time is over. Asks a server that is silent while answers
/// are waited for whether it lives, and gives the connection up if it does not say so: another server
/// may answer meanwhile.
struct Watch {
    wire: Rc<Wire>,
    asking: Rc<Asking>,
    waiting: Rc<Cell<usize>>,
    gate: gate::Client,
    token: Vec<u8>,
    silence_max: Duration,
}

impl Watch {
    async fn keep(self) {
        let asking = Rc::new(Cell::new(false));
        // Since when an answer is waited for.
        let mut since = None;
        let mut slept_at = Instant::now();
        while !self.wire.is_closed() {
            sleep(WATCH_INTERVAL).await;
            let now = Instant::now();
            self.asking.expire(now);
            // If this process itself stood still, the answers wait in the socket: read them first.
            let is_late = now - slept_at > WATCH_INTERVAL + self.silence_max / 4;
            slept_at = now;
            if self.waiting.get() == 0 || is_late {
                since = None;
                continue;
            }
            let waited = now - *since.get_or_insert(now);
            let silent = self.wire.silent_for(now).min(waited);
            let stuck = self.wire.stalled_for(now);
            // A large request may take longer than that to leave; while its bytes move, all is well.
            if silent > self.silence_max && (self.wire.backlog() == 0 || stuck > self.silence_max) {
                let reason = "the server was silent for too long".to_owned();
                return self.wire.close(Error::disconnected(reason));
            }
            if silent > self.silence_max / 3 && !asking.replace(true) {
                let mut request = self.gate.client_request();
                request.get().set_token(&self.token);
                let (asked, asking) = (request.send().promise, Rc::clone(&asking));
                spawn_local(async move {
                    // That an answer comes, whichever, is the answer.
                    let _ = asked.await;
                    asking.set(false);
                });
            }
        }
    }
}

/// Ends a connection whose opening was given up half-way.
struct CloseOnDrop(Option<Rc<Wire>>);

impl CloseOnDrop {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        if let Some(wire) = &self.0 {
            wire.close(Error::disconnected("the client left".to_owned()));
        }
    }
}

/// Opens a connection within a time.
pub(super) async fn open_within(
    address: &str,
    options: &ClientOptions,
    wait: Duration,
) -> Result<Connection, Unreachable> {
    match timeout(wait, Connection::open(address, options)).await {
        Ok(opened) => opened,
        Err(_) => Err(Unreachable::Away(format!("no answer within {} ms", wait.as_millis()))),
    }
}

/// What the first answer's absence means.
fn greeted(wire: &Wire, error: &Error) -> Unreachable {
    match wire.is_closed() {
        true if error.kind == ErrorKind::Overloaded => Unreachable::Away(error.extra.clone()),
        true => Unreachable::Away(format!("no Kvorum server answers: {error}")),
        false => Unreachable::Refused(error.extra.clone()),
    }
}

fn broken_admin(error: Error) -> admin::Client {
    capnp::capability::FromClientHook::new(capnp_rpc::new_broken_cap(error).hook)
}
