//! One peer as all threads see it: what waits for it, and which links it has.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use kvorum_replication::NodeId;
use tokio::sync::Notify;

use super::PeerOptions;
use crate::convert::peer::PeerMessage;
use crate::server::{Door, Post};

pub(crate) struct Peer {
    pub(crate) node: NodeId,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<(PeerMessage, usize)>,
    bytes: usize,
    /// Oldest first; the last one is spoken over.
    links: Vec<LinkRef>,
    next_link: u64,
    address: String,
    on_demand: bool,
    dialling: bool,
    /// After a failure nobody dials before this.
    not_before: Option<Instant>,
    dropped: u64,
}

struct LinkRef {
    id: u64,
    ready: Arc<Notify>,
}

impl Peer {
    pub(super) fn new(node: NodeId) -> Self {
        Self { node, state: Mutex::default() }
    }

    pub(super) fn set_address(&self, address: &str, on_demand: bool) {
        let mut state = self.lock();
        state.on_demand = on_demand;
        if state.address != address {
            address.clone_into(&mut state.address);
            state.not_before = None;
        }
    }

    pub(super) fn address(&self) -> String {
        self.lock().address.clone()
    }

    pub(super) fn is_up(&self) -> bool {
        !self.lock().links.is_empty()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// Queues what fits and drops the rest. True if somebody has to dial first.
    pub(super) fn send(&self, messages: &mut Vec<PeerMessage>, options: &PeerOptions) -> bool {
        let mut state = self.lock();
        let mut dial = false;
        if state.links.is_empty() && !state.dialling {
            let may_dial = state.on_demand
                && !state.address.is_empty()
                && state.not_before.is_none_or(|not_before| not_before <= Instant::now());
            if !may_dial {
                state.dropped += messages.len() as u64;
                messages.clear();
                return false;
            }
            state.dialling = true;
            dial = true;
        }
        for message in messages.drain(..) {
            let bytes = message.bytes();
            let full = state.queue.len() >= options.queue_messages_max
                || (state.bytes > 0 && state.bytes + bytes > options.queue_bytes_max);
            match full {
                true => state.dropped += 1,
                false => {
                    state.bytes += bytes;
                    state.queue.push_back((message, bytes));
                }
            }
        }
        if let Some(link) = state.links.last() {
            link.ready.notify_one();
        }
        dial
    }

    /// Takes what the next delivery over this link carries; nothing if another link is spoken over.
    pub(super) fn take(&self, link: u64, options: &PeerOptions) -> Vec<PeerMessage> {
        let mut state = self.lock();
        let mut batch = Vec::new();
        if state.links.last().is_none_or(|newest| newest.id != link) {
            return batch;
        }
        let mut batch_bytes = 0;
        while let Some((_, bytes)) = state.queue.front() {
            batch_bytes += bytes;
            let full = batch_bytes > options.batch_bytes_max && !batch.is_empty();
            if full || batch.len() == options.batch_messages_max {
                break;
            }
            if let Some((message, bytes)) = state.queue.pop_front() {
                state.bytes -= bytes;
                batch.push(message);
            }
        }
        batch
    }

    /// Whether nothing waits that this link would carry.
    pub(super) fn is_drained(&self, link: u64) -> bool {
        let state = self.lock();
        state.queue.is_empty() || state.links.last().is_none_or(|newest| newest.id != link)
    }

    /// A link stands. The node is told under the lock, so that ups and downs reach it in order,
    /// whichever threads they come from.
    pub(super) fn add_link(&self, door: &dyn Door, ready: Arc<Notify>) -> u64 {
        let mut state = self.lock();
        let id = state.next_link;
        state.next_link += 1;
        state.dialling = false;
        state.not_before = None;
        ready.notify_one();
        state.links.push(LinkRef { id, ready });
        door.submit(vec![Post::PeerUp(self.node)]);
        id
    }

    /// A link broke; the node is told if it was the last. True if it was.
    pub(super) fn remove_link(&self, door: &dyn Door, id: u64) -> bool {
        let mut state = self.lock();
        let before = state.links.len();
        state.links.retain(|link| link.id != id);
        if state.links.len() == before {
            return false;
        }
        if let Some(newest) = state.links.last() {
            newest.ready.notify_one();
            return false;
        }
        if !state.dialling {
            state.forget();
        }
        door.submit(vec![Post::PeerDown(self.node)]);
        true
    }

    /// Dialling on demand failed: what waited is lost, and nobody tries again before `not_before`.
    pub(super) fn dial_failed(&self, not_before: Instant) {
        let mut state = self.lock();
        state.dialling = false;
        state.not_before = Some(not_before);
        if state.links.is_empty() {
            state.forget();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget(&mut self) {
        self.dropped += self.queue.len() as u64;
        self.queue.clear();
        self.bytes = 0;
    }
}
