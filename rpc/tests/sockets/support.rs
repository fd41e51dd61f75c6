//! Servers on loopback whose nodes are played by the test.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kvorum_node::{Claim, Event, IdentityFile, Outbox, Report, Turn, detached};
use kvorum_replication::two_phase::message::Message;
use kvorum_replication::{
    Answer, ClientId, Failure, Held, NodeId, Operation, Outcome, Page, Query, Role, Row, Status,
    Transaction, Write,
};
use kvorum_rpc::client::{Client, ClientError, ClientOptions};
use kvorum_rpc::server::{Server, ServerOptions, Serving};
use tokio::net::TcpSocket;

/// How long a test waits for what must come. However slow or busy the machine is, only a hang gets
/// there.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// What happened to a node, for a test that waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// A link to this node stands.
    Up(NodeId),
    /// The last link to it broke.
    Down(NodeId),
    /// It sent these.
    Messages(NodeId, Vec<Message>),
}

/// How a played node behaves: told of each event, says what it wants.
pub(crate) type Behaviour = Box<dyn FnMut(&Event<Message>, &mut Turn<Message>) + Send>;

/// A served node that the test plays.
pub(crate) struct Played {
    pub(crate) address: SocketAddr,
    pub(crate) identity: Arc<IdentityFile>,
    pub(crate) seen: Receiver<Seen>,
    kept: RefCell<VecDeque<Seen>>,
    outbox: Arc<Mutex<Box<dyn Outbox<Message>>>>,
    serving: Option<Serving>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Loopback, any port; who is refused comes back soon, and nobody is taken for dead who is only slow.
pub(crate) fn options() -> ServerOptions {
    let mut options = ServerOptions::new("127.0.0.1:0".parse().expect("an address"));
    options.handshake_timeout = PATIENCE;
    options.peers.refused_pause = Duration::from_millis(50);
    options.peers.liveness_timeout = PATIENCE;
    options
}

/// A client that waits as a test does, of servers at these addresses.
pub(crate) fn patient(addresses: impl IntoIterator<Item = impl Into<String>>) -> ClientOptions {
    ClientOptions {
        timeout: PATIENCE / 2,
        connect_timeout: PATIENCE / 2,
        silence_timeout: PATIENCE / 2,
        ..ClientOptions::new(addresses)
    }
}

/// Tries what has to do with time. A busy machine may be late for all of it: so it is tried with
/// longer and longer times until it is right. What is wrong is wrong however long it takes.
#[track_caller]
pub(crate) fn at_some_pace(first: Duration, trial: impl Fn(Duration) -> Result<(), String>) {
    let mut pace = first;
    while let Err(why) = trial(pace) {
        pace *= 2;
        assert!(pace < first * 100, "{why}");
    }
}

/// A port at which nobody listens, as long as this is held.
pub(crate) struct Nowhere(TcpSocket);

impl Nowhere {
    pub(crate) fn take() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self(socket)
    }

    pub(crate) fn address(&self) -> String {
        self.0.local_addr().unwrap().to_string()
    }
}

/// Starts a server, and a thread that plays its node.
pub(crate) fn play(
    role: Role,
    node: NodeId,
    identity: Option<Arc<IdentityFile>>,
    options: ServerOptions,
    behaviour: Behaviour,
) -> Played {
    play_logged(role, node, identity, options, Vec::new(), behaviour)
}

/// As [`play`]; its log says that the cluster has these replicas.
pub(crate) fn play_logged(
    role: Role,
    node: NodeId,
    identity: Option<Arc<IdentityFile>>,
    options: ServerOptions,
    logged: Vec<NodeId>,
    behaviour: Behaviour,
) -> Played {
    let claim = Claim::two_phase(role, node);
    let identity = identity.unwrap_or_else(|| Arc::new(IdentityFile::in_memory(&claim).unwrap()));
    let (server, outbox) = Server::bind(options).unwrap();
    let address = server.local_addr();
    let outbox = Arc::new(Mutex::new(outbox));
    let (handle, mailbox) = detached();
    let (sender, seen) = channel();
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, voice) = (Arc::clone(&stop), Arc::clone(&outbox));
    let thread = std::thread::spawn(move || {
        let mut events = VecDeque::new();
        let mut behaviour = behaviour;
        while !stopped.load(Ordering::Acquire) {
            mailbox.take(&mut events, Duration::from_millis(20));
            let mut turn = Turn::default();
            for event in events.drain(..) {
                note(&event, role, &logged, &sender);
                behaviour(&event, &mut turn);
            }
            if !turn.is_empty() {
                voice.lock().unwrap().deliver(&mut turn);
            }
        }
        mailbox.close();
    });
    let serving = server.serve(handle, Arc::clone(&identity), None).unwrap();
    Played {
        address,
        identity,
        seen,
        kept: RefCell::default(),
        outbox,
        serving: Some(serving),
        stop,
        thread: Some(thread),
    }
}

fn note(event: &Event<Message>, role: Role, logged: &[NodeId], sender: &Sender<Seen>) {
    let seen = match event {
        Event::PeerUp(peer) => Seen::Up(*peer),
        Event::PeerDown(peer) => Seen::Down(*peer),
        Event::Messages { from, messages, .. } => Seen::Messages(*from, messages.clone()),
        Event::Report(answer) => return drop(answer.send(report(role, logged))),
        Event::Request(_) | Event::Stopping | Event::Stop => return,
    };
    // The test may not care to look.
    let _ = sender.send(seen);
}

fn report(role: Role, logged: &[NodeId]) -> Report {
    Report {
        status: Status {
            role,
            incarnation: 3,
            in_flight: 0,
            in_doubt: 0,
            locks: 0,
            leader: None,
            peers_up: Vec::new(),
            replicas: logged.to_vec(),
            counters: vec![("played", 1)],
        },
        log_last: 11,
        log_durable: 10,
        uptime_millis: 5,
        counters: Vec::new(),
    }
}

impl Played {
    /// Waits for something to be seen; what was seen before it is kept for later waits.
    pub(crate) fn wait_for(&self, what: impl Fn(&Seen) -> bool) -> Seen {
        let until = Instant::now() + PATIENCE;
        let mut kept = self.kept.borrow_mut();
        if let Some(at) = kept.iter().position(&what) {
            return kept.remove(at).expect("just found there");
        }
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let seen = self.seen.recv_timeout(left).expect("seen in time");
            if what(&seen) {
                return seen;
            }
            kept.push_back(seen);
        }
    }

    /// What was seen of this within a moment, if anything was.
    pub(crate) fn has_seen(&self, what: impl Fn(&Seen) -> bool) -> Option<Seen> {
        let seen = self.seen.recv_timeout(Duration::from_millis(50)).ok();
        self.kept.borrow_mut().extend(seen);
        let mut kept = self.kept.borrow_mut();
        kept.iter().position(what).and_then(|at| kept.remove(at))
    }

    /// Says something as the node would.
    pub(crate) fn say(&self, sends: Vec<(NodeId, Message)>) {
        self.outbox.lock().unwrap().deliver(&mut Turn { replies: Vec::new(), sends });
    }

    pub(crate) fn drain(&self) {
        self.outbox.lock().unwrap().drain(PATIENCE);
    }

    pub(crate) fn connect_to(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn end(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(serving) = self.serving.take() {
            serving.stop();
        }
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Played {
    fn drop(&mut self) {
        self.end();
    }
}

/// A node that keeps rows in memory and answers at once: enough of a coordinator for clients.
#[derive(Default)]
pub(crate) struct Rows {
    rows: BTreeMap<Bytes, Bytes>,
    sessions: u64,
    /// The copies that scans are read of.
    held: Vec<BTreeMap<Bytes, Bytes>>,
    /// Stamps of the writes that happened, and how often each was asked for.
    pub(crate) asked: BTreeMap<(ClientId, u64), u32>,
}

impl Rows {
    pub(crate) fn answer(&mut self, operation: &Operation) -> Outcome {
        match operation {
            Operation::OpenSession => {
                self.sessions += 1;
                Outcome::Session(ClientId(self.sessions))
            }
            Operation::Read(Query::Get(key)) | Operation::ReadStale(Query::Get(key)) => {
                Outcome::Answer(Answer::Value(self.rows.get(key).cloned()))
            }
            Operation::Read(Query::GetMany(keys)) | Operation::ReadStale(Query::GetMany(keys)) => {
                let values = keys.iter().map(|key| self.rows.get(key).cloned());
                Outcome::Answer(Answer::Values(values.collect()))
            }
            Operation::Read(Query::Scan(range)) | Operation::ReadStale(Query::Scan(range)) => {
                let mut rows = self.rows.iter().filter(|(key, _)| range.contains(key));
                let page = rows.by_ref().take(range.limit as usize);
                let page = page.map(|(key, value)| (key.clone(), value.clone())).collect();
                Outcome::Answer(Answer::Rows { rows: page, more: rows.next().is_some() })
            }
            Operation::Read(Query::Page(page)) | Operation::ReadStale(Query::Page(page)) => {
                self.page(page)
            }
            Operation::ChangeMembers { .. } | Operation::ChangeReplicas(_) => Outcome::Committed,
            Operation::Transact { stamp, transaction } => {
                if let Some(stamp) = stamp {
                    let asked = self.asked.entry((stamp.client, stamp.sequence)).or_default();
                    *asked += 1;
                    if *asked > 1 {
                        return Outcome::Committed;
                    }
                }
                self.transact(transaction)
            }
        }
    }

    /// Holds whole copies, for ever.
    fn page(&mut self, page: &Page) -> Outcome {
        let number = page.of.map_or(self.held.len() as u64 + 1, |held| held.number);
        if page.of.is_none() {
            self.held.push(self.rows.clone());
        }
        let index = usize::try_from(number - 1).unwrap();
        let Some(rows) = self.held.get(index) else {
            return Outcome::Failed(Failure::SnapshotExpired);
        };
        let mut rows = rows.iter().filter(|(key, _)| page.range.contains(key));
        let found = rows.by_ref().take(page.range.limit as usize);
        let found: Vec<Row> = found.map(|(key, value)| (key.clone(), value.clone())).collect();
        let more = rows.next().is_some();
        let held = (more && !page.last).then_some(Held { by: NodeId(1), run: 1, number });
        Outcome::Answer(Answer::Page { rows: found, more, held })
    }

    fn transact(&mut self, transaction: &Transaction) -> Outcome {
        for (index, precondition) in (0..).zip(&transaction.preconditions) {
            let key = precondition.key();
            if !precondition.holds(self.rows.get(key)) {
                let key = key.clone();
                return Outcome::Failed(Failure::PreconditionFailed { index, key });
            }
        }
        for write in &transaction.writes {
            match write {
                Write::Put(key, value) => drop(self.rows.insert(key.clone(), value.clone())),
                Write::Delete(key) => drop(self.rows.remove(key)),
            }
        }
        Outcome::Committed
    }
}

/// Answers every request from memory.
pub(crate) fn rows() -> Behaviour {
    let mut rows = Rows::default();
    Box::new(move |event, turn| {
        if let Event::Request(request) = event {
            turn.replies.push((request.id, rows.answer(&request.operation)));
        }
    })
}

/// Says nothing by itself.
pub(crate) fn silent() -> Behaviour {
    Box::new(|_, _| {})
}

/// A coordinator that answers clients from memory.
pub(crate) fn coordinator(options: ServerOptions) -> Played {
    play(Role::Coordinator, NodeId::COORDINATOR, None, options, rows())
}

/// Runs a test's client on a runtime of its own.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("done in time") })
}

pub(crate) async fn client(played: &Played) -> Client {
    connect(played).await.unwrap()
}

pub(crate) async fn connect(played: &Played) -> Result<Client, ClientError> {
    Client::connect(patient([played.connect_to()])).await
}
