//! One peer as all threads see it: what waits for it, and which links it has.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kvorum_replication::NodeId;
use tokio::sync::Notify;

use super::PeerOptions;
use super::waiting::Waiting;
use crate::convert::peer::Delivery;
use crate::server::{Door, Post};

/// Two links made within this time were dialled by both sides at once.
const CROSSING: Duration = Duration::from_secs(1);

pub(crate) struct Peer {
    pub(crate) node: NodeId,
    state: Mutex<State>,
    /// The last link broke.
    gone: Notify,
}

/// What decides which of several links is spoken over.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinkOf {
    /// The peer's.
    pub(super) incarnation: u64,
    /// Whether the node with the lower number dialled it. Both sides see links that cross in another
    /// order, and prefer this one.
    pub(super) by_lower: bool,
    /// Whether this node dialled it.
    pub(super) by_us: bool,
}

#[derive(Default)]
struct State {
    queue: Waiting,
    /// The last one is spoken over.
    links: Vec<LinkRef>,
    next_link: u64,
    address: String,
    /// What it tells clients to connect to.
    advertised: String,
    on_demand: bool,
    /// It belongs to the cluster, as far as this node knows.
    wanted: bool,
    /// It did, and was removed. Of one that is neither this node may just not have heard yet.
    removed: bool,
    /// A task has been given this peer to keep a link with, and has not given that up.
    kept: bool,
    dialling: bool,
    /// After a failure nobody dials before this.
    not_before: Option<Instant>,
    dropped: u64,
}

struct LinkRef {
    id: u64,
    of: LinkOf,
    since: Instant,
    ready: Arc<Notify>,
}

impl Peer {
    pub(super) fn new(node: NodeId) -> Self {
        Self { node, state: Mutex::default(), gone: Notify::new() }
    }

    /// It belongs to the cluster, and is there.
    pub(super) fn set_address(&self, address: &str, on_demand: bool) {
        let mut state = self.lock();
        state.wanted = true;
        state.removed = false;
        state.on_demand = on_demand;
        if state.address != address {
            address.clone_into(&mut state.address);
            state.not_before = None;
        }
    }

    /// It does not belong to the cluster any more: nobody dials it, and links with it end.
    pub(super) fn set_unwanted(&self) {
        let mut state = self.lock();
        state.removed |= state.wanted;
        state.wanted = false;
        state.on_demand = false;
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.lock().wanted
    }

    /// True unless some task keeps a link already: the caller's is to.
    pub(super) fn is_to_be_kept(&self) -> bool {
        !std::mem::replace(&mut self.lock().kept, true)
    }

    /// Whether the task that keeps a link may end: then another one is needed if it is wanted again.
    pub(super) fn is_given_up(&self) -> bool {
        let mut state = self.lock();
        state.kept &= state.wanted;
        !state.kept
    }

    pub(super) fn address(&self) -> String {
        self.lock().address.clone()
    }

    pub(super) fn set_advertised(&self, address: &str) {
        // One who listens everywhere does not know where it is.
        let is_somewhere = !["0.0.0.0:", "[::]:"].iter().any(|all| address.starts_with(all));
        if is_somewhere {
            address.clone_into(&mut self.lock().advertised);
        }
    }

    pub(super) fn address_for_clients(&self) -> String {
        let state = self.lock();
        match state.advertised.is_empty() {
            true => state.address.clone(),
            false => state.advertised.clone(),
        }
    }

    /// Waits until no link stands. For one task at a time.
    pub(super) async fn down(&self) {
        while self.is_up() {
            self.gone.notified().await;
        }
    }

    pub(super) fn is_up(&self) -> bool {
        !self.lock().links.is_empty()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// Queues what fits and drops the rest. True if somebody has to dial first.
    pub(super) fn send(&self, messages: Delivery, options: &PeerOptions) -> bool {
        let mut state = self.lock();
        let mut dial = false;
        if state.links.is_empty() && !state.dialling {
            let may_dial = state.on_demand
                && !state.address.is_empty()
                && state.not_before.is_none_or(|not_before| not_before <= Instant::now());
            if !may_dial {
                state.dropped += messages.len() as u64;
                return false;
            }
            state.dialling = true;
            dial = true;
        }
        let dropped = state.queue.push(messages, options);
        state.dropped += dropped as u64;
        if let Some(link) = state.links.last() {
            link.ready.notify_one();
        }
        dial
    }

    /// Takes what the next delivery over this link carries, and says about how many bytes that is;
    /// nothing if another link is spoken over.
    pub(super) fn take(&self, link: u64, options: &PeerOptions) -> Option<(Delivery, usize)> {
        let mut state = self.lock();
        match state.links.last() {
            Some(newest) if newest.id == link => state.queue.take(options),
            Some(_) | None => None,
        }
    }

    /// Whether another link has been spoken over for so long that nobody speaks over this one, and
    /// it is ours to end: only the side that dialled does, or both could end one of two.
    pub(super) fn is_superseded(&self, link: u64) -> bool {
        let state = self.lock();
        let Some(newest) = state.links.last() else { return false };
        let mine = state.links.iter().find(|known| known.id == link);
        newest.id != link
            && newest.since.elapsed() > CROSSING
            && mine.is_some_and(|mine| mine.of.by_us && mine.since.elapsed() > CROSSING)
    }

    /// Whether the link is with one that does not belong to the cluster any more, and it is ours to
    /// end: we have dialled it, or it is with one that was removed, who runs on and does not know.
    pub(super) fn is_left_over(&self, link: u64) -> bool {
        let state = self.lock();
        let mine = state.links.iter().find(|known| known.id == link);
        !state.wanted && mine.is_some_and(|mine| mine.of.by_us || state.removed)
    }

    /// Whether nothing waits that this link would carry.
    pub(super) fn is_drained(&self, link: u64) -> bool {
        let state = self.lock();
        state.queue.is_empty() || state.links.last().is_none_or(|newest| newest.id != link)
    }

    /// A link stands. The node is told under the lock, so that ups and downs reach it in order,
    /// whichever threads they come from.
    pub(super) fn add_link(&self, door: &dyn Door, of: LinkOf, ready: Arc<Notify>) -> u64 {
        let mut state = self.lock();
        let id = state.next_link;
        state.next_link += 1;
        state.dialling = false;
        state.not_before = None;
        let link = LinkRef { id, of, since: Instant::now(), ready };
        let place = state.links.len() - usize::from(state.speaks_on(&link));
        state.links.insert(place, link);
        state.links[state.links.len() - 1].ready.notify_one();
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
        self.gone.notify_one();
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
    /// Whether the link spoken over stays so when this one comes: it is of the same run of the peer,
    /// the two cross, and both sides prefer it.
    fn speaks_on(&self, new: &LinkRef) -> bool {
        self.links.last().is_some_and(|old| {
            let crosses = new.since.duration_since(old.since) < CROSSING;
            old.of.incarnation > new.of.incarnation
                || (old.of.incarnation == new.of.incarnation
                    && crosses
                    && old.of.by_lower
                    && !new.of.by_lower)
        })
    }

    fn forget(&mut self) {
        let forgotten = std::mem::take(&mut self.queue);
        self.dropped += forgotten.len() as u64;
    }
}
