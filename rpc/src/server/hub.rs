//! What the workers and the node's thread know together.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use kvorum_node::IdentityFile;
use kvorum_replication::{NodeId, Outcome, Protocol, RequestId, Role};
use tokio::sync::{Notify, mpsc};

use super::admission::KINDS;
use super::door::Door;
use super::{Inspect, ServerOptions};
use crate::peers::Peers;

/// A request's id names its worker in the top byte.
pub(super) const WORKERS_MAX: usize = 256;

/// Shared by all threads of a server.
pub(crate) struct Hub {
    pub(crate) options: ServerOptions,
    /// What others are told to connect to.
    pub(crate) address: String,
    pub(crate) peers: Peers,
    ports: Vec<Port>,
    pub(crate) connections: AtomicUsize,
    pub(crate) counters: Counters,
    stopping: AtomicBool,
}

/// What `status` tells of the transport.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections_opened: AtomicU64,
    pub(crate) connections_refused: AtomicU64,
    pub(crate) violations: AtomicU64,
    pub(crate) messages_in: AtomicU64,
    pub(crate) messages_out: AtomicU64,
    pub(crate) flushes: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) submits: AtomicU64,
    pub(crate) overloaded: AtomicU64,
}

/// The way to one worker.
pub(crate) struct Port {
    replies: Mutex<Vec<(RequestId, Outcome)>>,
    pub(crate) arrived: Notify,
    /// None is lost for there being many: whoever waits for a peer to be dialled would wait for ever.
    /// There are no more connections than are allowed, and of each peer one command of a kind, or one
    /// for each change of the members.
    commands: mpsc::UnboundedSender<Command>,
    gauges: Gauges,
}

/// What `status` tells of a worker as it is.
#[derive(Debug, Default)]
struct Gauges {
    limits: [AtomicUsize; KINDS],
    unfinished_bytes: AtomicUsize,
}

/// What a worker is asked to do.
pub(crate) enum Command {
    /// Serve this connection.
    Open(TcpStream, SocketAddr),
    /// Dial this peer, somebody has a message for it.
    Dial(NodeId),
    /// See to it that a link with this peer stands.
    Keep(NodeId),
    /// Say when everything has left the process, or the time is over.
    Drain(SyncSender<()>, Instant),
}

/// A server with the node that it serves.
pub(crate) struct Service {
    pub(crate) hub: Arc<Hub>,
    pub(crate) door: Arc<dyn Door>,
    pub(crate) identity: Arc<IdentityFile>,
    pub(crate) inspect: Option<Inspect>,
    pub(crate) incarnation: u64,
    /// Whether this node belongs to no cluster yet.
    pub(crate) outside: AtomicBool,
    /// Why it does not, as far as it is known.
    pub(crate) refusal: Mutex<String>,
    /// Held by whoever changes the replicas of the cluster: one at a time.
    pub(super) changing: tokio::sync::Mutex<()>,
}

impl Hub {
    pub(super) fn new(
        options: ServerOptions,
        local_addr: SocketAddr,
        commands: Vec<mpsc::UnboundedSender<Command>>,
    ) -> Self {
        let address = options.advertise.clone().unwrap_or_else(|| local_addr.to_string());
        let port = |commands| Port {
            replies: Mutex::default(),
            arrived: Notify::new(),
            commands,
            gauges: Gauges::default(),
        };
        Self {
            address,
            peers: Peers::new(options.peers.clone()),
            ports: commands.into_iter().map(port).collect(),
            connections: AtomicUsize::new(0),
            counters: Counters::default(),
            stopping: AtomicBool::new(false),
            options,
        }
    }

    pub(crate) fn port(&self, worker: usize) -> &Port {
        &self.ports[worker]
    }

    pub(crate) fn workers(&self) -> usize {
        self.ports.len()
    }

    /// Gives a worker something to do; false if it has ended.
    pub(crate) fn command(&self, worker: usize, command: Command) -> bool {
        self.ports[worker].commands.send(command).is_ok()
    }

    /// How many requests may be under way in all workers, by kind.
    pub(super) fn limits(&self) -> [u64; KINDS] {
        std::array::from_fn(|kind| {
            let of = |port: &Port| port.gauges.limits[kind].load(Ordering::Relaxed) as u64;
            self.ports.iter().map(of).sum()
        })
    }

    /// What unfinished messages hold in all workers.
    pub(super) fn unfinished_bytes(&self) -> u64 {
        let of = |port: &Port| port.gauges.unfinished_bytes.load(Ordering::Relaxed) as u64;
        self.ports.iter().map(of).sum()
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        for port in &self.ports {
            port.arrived.notify_one();
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// The worker that a peer's dialled link lives on.
    pub(crate) fn worker_of(&self, peer: NodeId) -> usize {
        peer.0 as usize % self.ports.len()
    }
}

impl Port {
    /// Hands a worker its share of the node's answers, and leaves `replies` empty.
    pub(super) fn put(&self, replies: &mut Vec<(RequestId, Outcome)>) {
        if replies.is_empty() {
            return;
        }
        self.lock().append(replies);
        self.arrived.notify_one();
    }

    /// What has arrived, in exchange for an empty list.
    pub(super) fn take(&self, into: &mut Vec<(RequestId, Outcome)>) {
        std::mem::swap(&mut *self.lock(), into);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Lets `status` see how the worker is.
    pub(super) fn show(&self, limits: [usize; KINDS], unfinished_bytes: usize) {
        for (gauge, limit) in self.gauges.limits.iter().zip(limits) {
            gauge.store(limit, Ordering::Relaxed);
        }
        self.gauges.unfinished_bytes.store(unfinished_bytes, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(RequestId, Outcome)>> {
        self.replies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service {
    /// The address of another member for clients; empty if it is not known.
    pub(crate) fn address_of(&self, node: NodeId) -> String {
        self.hub.peers.address_of(node)
    }

    /// Where to look at a member: among equals where it says that it is; a coordinator says where its
    /// replicas are.
    pub(super) fn address_for(&self, node: NodeId, known: String) -> String {
        let said = match self.door.protocol() {
            Protocol::TwoPhase => String::new(),
            Protocol::AnyReplica | Protocol::Paxos => self.address_of(node),
        };
        if said.is_empty() { known } else { said }
    }

    /// Lets the transport know where the other members are, and whether this node is one of them.
    pub(crate) fn learn_members(&self) {
        let identity = self.identity.identity();
        // Who is to catch up, or has no lease, needs another replica at once.
        let keep = identity.protocol == Protocol::TwoPhase;
        for peer in self.hub.peers.learn(identity.node, &identity.members, keep) {
            self.hub.command(self.hub.worker_of(peer), Command::Keep(peer));
        }
        let is_outside = match identity.protocol {
            // Until its coordinator has come it knows nothing, and cannot send clients there either.
            Protocol::TwoPhase => {
                identity.role == Role::Replica
                    && identity.cluster.is_none()
                    && identity.members.is_empty()
            }
            Protocol::AnyReplica | Protocol::Paxos => identity.cluster.is_none(),
        };
        self.outside.store(is_outside, Ordering::Release);
    }

    /// Introduces this node anew to all others but one: they are to hear who belongs to the cluster.
    pub(super) fn introduce_anew(&self, but: NodeId) {
        let identity = self.identity.identity();
        for (node, _) in identity.members {
            if ![identity.node, but].contains(&node) {
                self.hub.command(self.hub.worker_of(node), Command::Dial(node));
            }
        }
    }

    /// Another node and this one do not link: if this one is in no cluster, that may be why.
    pub(crate) fn note_refusal(&self, reason: &str) {
        reason.clone_into(&mut self.refusal.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Whether no client is served: what a node without a cluster holds is nobody's data.
    pub(crate) fn is_outside(&self) -> bool {
        self.outside.load(Ordering::Acquire)
    }

    /// Why no client is served.
    pub(crate) fn why_outside(&self) -> Option<String> {
        if !self.is_outside() {
            return None;
        }
        let refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        let node = self.identity.identity().node;
        Some(match refusal.is_empty() {
            true if self.door.protocol() == Protocol::TwoPhase => {
                format!("{node} has met no coordinator yet: start one that names it")
            }
            true => format!("{node} has not joined its cluster yet; a new one needs all of them"),
            false => format!("{node} has not joined its cluster: {refusal}"),
        })
    }
}

/// Adds to a counter; nobody orders anything by it.
pub(crate) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
