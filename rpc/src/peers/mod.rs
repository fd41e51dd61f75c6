//! Links to the other nodes of the cluster.
//!
//! ```text
//!   node's turn ─► Peers::send ─► queue of each peer ─► its newest link ─► deliver, a batch a call
//!   node's mailbox ◄─ messages, PeerUp, PeerDown ◄─ inboxes of all its links
//! ```
//!
//! A link is one connection, whoever dialled it: both sides hand over an inbox when they attach,
//! and both deliver over it. Several links to one peer may stand for a while (both dialled at once,
//! or the peer has restarted and the old connection has not noticed): one is spoken over, all are
//! listened to, and those that nobody speaks over are given up. A peer is up while one stands.
//! Where both sides dial, the one with the lower number does so first.

mod attach;
mod dial;
mod equals;
mod hello;
mod joining;
mod link;
mod queue;
mod waiting;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kvorum_replication::NodeId;
use tokio::sync::Notify;

pub(crate) use attach::{Attached, accept};
pub(crate) use dial::{dial_on_demand, keep_linked, start};
use joining::Met;
pub(crate) use joining::prepare;
pub(crate) use link::Link;
use queue::Peer;

use crate::convert::MEMBERS_MAX;
use crate::convert::peer::Delivery;

/// How links are made and kept.
#[derive(Clone, Debug)]
pub struct PeerOptions {
    /// Whom this node dials, from its start on and again whenever the link breaks.
    pub dial: Vec<(NodeId, String)>,
    /// The pause after a first failure to dial; doubles up to [`PeerOptions::backoff_max`].
    pub backoff_min: Duration,
    /// The longest such pause.
    pub backoff_max: Duration,
    /// How long the side with the higher number leaves dialling to the other.
    pub yield_pause: Duration,
    /// The pause after the peer refused: that needs somebody to change something.
    pub refused_pause: Duration,
    /// How long connecting and introducing may take.
    pub connect_timeout: Duration,
    /// How often a silent link is asked whether it lives.
    pub ping_interval: Duration,
    /// A link silent for longer is dead.
    pub liveness_timeout: Duration,
    /// Deliveries under way at a time. Answers to them are held back for a while.
    pub window: usize,
    /// Their bytes; one more may be under way than fits.
    pub window_bytes: usize,
    /// Bytes of one delivery, unless a single message is larger.
    pub batch_bytes_max: usize,
    /// Messages of one delivery.
    pub batch_messages_max: usize,
    /// Messages that may wait for one peer; more are dropped, as a network would.
    pub queue_messages_max: usize,
    /// Their bytes; likewise.
    pub queue_bytes_max: usize,
}

impl Default for PeerOptions {
    fn default() -> Self {
        Self {
            dial: Vec::new(),
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_millis(500),
            yield_pause: Duration::from_millis(50),
            refused_pause: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(2),
            ping_interval: Duration::from_millis(500),
            liveness_timeout: Duration::from_secs(2),
            window: 64,
            window_bytes: 4 << 20,
            batch_bytes_max: 1 << 20,
            batch_messages_max: 4096,
            queue_messages_max: 131_072,
            queue_bytes_max: 256 << 20,
        }
    }
}

impl PeerOptions {
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.window == 0 || self.batch_messages_max == 0 {
            return Err("a link with a window or batch of 0 would carry nothing".to_owned());
        }
        if self.dial.len() >= MEMBERS_MAX {
            return Err(format!("{} peers; at most {} are", self.dial.len(), MEMBERS_MAX - 1));
        }
        for (index, (node, _)) in self.dial.iter().enumerate() {
            if self.dial[..index].iter().any(|(other, _)| other == node) {
                return Err(format!("{node} is named twice; each node has one address"));
            }
        }
        Ok(())
    }
}

/// Everything known of the other nodes; shared by all threads.
pub(crate) struct Peers {
    pub(crate) options: PeerOptions,
    table: Mutex<HashMap<NodeId, Arc<Peer>>>,
    /// Messages for nodes nobody knows.
    dropped: AtomicU64,
    /// Something has changed for which those who wait to dial again need not wait longer.
    hurried: Notify,
    met: Met,
}

impl Peers {
    pub(crate) fn new(options: PeerOptions) -> Self {
        let peers = Self {
            options,
            table: Mutex::default(),
            dropped: AtomicU64::new(0),
            hurried: Notify::new(),
            met: Met::default(),
        };
        for (node, address) in &peers.options.dial {
            // Dialled all the time, so never on demand.
            let peer = peers.peer(*node);
            peer.set_address(address, false);
            peer.is_to_be_kept();
        }
        peers
    }

    /// Queues messages for a peer. True if the peer is to be dialled.
    pub(crate) fn send(&self, to: NodeId, messages: Delivery) -> bool {
        let peer = self.lock().get(&to).cloned();
        match peer {
            Some(peer) => peer.send(messages, &self.options),
            None => {
                self.dropped.fetch_add(messages.len() as u64, Ordering::Relaxed);
                false
            }
        }
    }

    /// Remembers where the members are, and that nobody else is wanted. Nobody dials itself, and a
    /// coordinator dials its replicas, not they it; the others are dialled when there is something to
    /// tell them. With `keep`, says whom to dial all the time from now on.
    pub(crate) fn learn(
        &self,
        own: NodeId,
        members: &[(NodeId, String)],
        keep: bool,
    ) -> Vec<NodeId> {
        let is_member = |node: NodeId| members.iter().any(|(member, _)| *member == node);
        for (node, peer) in &*self.lock() {
            if *node != NodeId::COORDINATOR && !is_member(*node) {
                peer.set_unwanted();
            }
        }
        let mut kept = Vec::new();
        for (node, address) in members.iter().filter(|(node, _)| *node != own) {
            let dialled = self.options.dial.iter().any(|(dialled, _)| dialled == node);
            let peer = self.peer(*node);
            // Where one that was configured is dialled is not for the others to say.
            if !(dialled && peer.is_wanted()) {
                let is_other = *node != NodeId::COORDINATOR;
                peer.set_address(address, is_other);
                if is_other && keep && peer.is_to_be_kept() {
                    kept.push(*node);
                }
            }
        }
        kept
    }

    pub(crate) fn is_up(&self, node: NodeId) -> bool {
        self.lock().get(&node).is_some_and(|peer| peer.is_up())
    }

    /// Where clients reach a node, as it said itself when it was last linked with, or as whoever set
    /// this one up says; empty if nobody has.
    pub(crate) fn address_of(&self, node: NodeId) -> String {
        self.lock().get(&node).map_or(String::new(), |peer| peer.address_for_clients())
    }

    /// Lets everybody who waits to dial again do so now.
    fn hurry(&self) {
        self.hurried.notify_waiters();
    }

    /// Messages that were dropped because no link could take them.
    pub(crate) fn dropped(&self) -> u64 {
        let of_peers: u64 = self.lock().values().map(|peer| peer.dropped()).sum();
        of_peers + self.dropped.load(Ordering::Relaxed)
    }

    fn peer(&self, node: NodeId) -> Arc<Peer> {
        Arc::clone(self.lock().entry(node).or_insert_with(|| Arc::new(Peer::new(node))))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Arc<Peer>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
