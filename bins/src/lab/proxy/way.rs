//! One direction between two processes: its condition, and what ran into it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kvorum_replication::random::Random;
use tokio::sync::watch;

use crate::cluster::Member;

/// An end of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// All clients together.
    Clients,
    /// A process of the cluster.
    Member(Member),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clients => f.write_str("clients"),
            Self::Member(member) => member.fmt(f),
        }
    }
}

impl From<Member> for Place {
    fn from(member: Member) -> Self {
        Self::Member(member)
    }
}

/// What becomes of bytes that go one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// They pass at once.
    #[default]
    Open,
    /// They wait, ends of connections too, until that is over or the connection is reset; nobody is
    /// told. No connection comes about.
    Cut,
    /// They pass later, in their order.
    Delayed {
        /// By at least this.
        delay: Duration,
        /// And by at most so much more.
        jitter: Duration,
    },
    /// They pass at this rate.
    Slow {
        /// For each connection.
        bytes_per_second: u32,
    },
}

/// What a way has carried, and what ran into its conditions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes that reached the other side.
    pub carried_bytes: u64,
    /// Pieces that found the way cut, and had to wait; the end of a connection is one too.
    pub held: u64,
    /// Their bytes.
    pub held_bytes: u64,
    /// Bytes that waited and were lost with their connection.
    pub dropped_bytes: u64,
    /// Pieces that were delayed.
    pub delayed: u64,
    /// Pieces that were slowed down.
    pub slowed: u64,
    /// Connections that could not come about since the way was cut.
    pub dials_held: u64,
    /// Connections that were reset.
    pub resets: u64,
}

impl Traffic {
    /// The sum of two.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.combine(other, u64::saturating_add)
    }

    /// What has come to pass since an earlier look.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        self.combine(earlier, u64::saturating_sub)
    }

    fn combine(self, other: Self, with: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            carried_bytes: with(self.carried_bytes, other.carried_bytes),
            held: with(self.held, other.held),
            held_bytes: with(self.held_bytes, other.held_bytes),
            dropped_bytes: with(self.dropped_bytes, other.dropped_bytes),
            delayed: with(self.delayed, other.delayed),
            slowed: with(self.slowed, other.slowed),
            dials_held: with(self.dials_held, other.dials_held),
            resets: with(self.resets, other.resets),
        }
    }
}

/// The counters behind [`Traffic`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) carried_bytes: AtomicU64,
    pub(super) held: AtomicU64,
    pub(super) held_bytes: AtomicU64,
    pub(super) dropped_bytes: AtomicU64,
    pub(super) delayed: AtomicU64,
    pub(super) slowed: AtomicU64,
    pub(super) dials_held: AtomicU64,
    pub(super) resets: AtomicU64,
}

/// One direction between two processes.
#[derive(Debug)]
pub(super) struct Way {
    condition: watch::Sender<Condition>,
    jitter: Mutex<Random>,
    pub(super) counters: Counters,
}

impl Way {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            condition: watch::Sender::default(),
            jitter: Mutex::new(Random::new(seed)),
            counters: Counters::default(),
        }
    }

    pub(super) fn set(&self, condition: Condition) {
        self.condition.send_replace(condition);
    }

    pub(super) fn condition(&self) -> Condition {
        *self.condition.borrow()
    }

    pub(super) fn is_cut(&self) -> bool {
        self.condition() == Condition::Cut
    }

    /// Sees the condition change.
    pub(super) fn watch(&self) -> watch::Receiver<Condition> {
        self.condition.subscribe()
    }

    /// Waits until bytes may pass.
    pub(super) async fn passable(&self) {
        // The sender lives as long as this.
        let _ = self.watch().wait_for(|condition| *condition != Condition::Cut).await;
    }

    /// How long bytes that arrive now are kept back.
    pub(super) fn delay(&self) -> Option<Duration> {
        let Condition::Delayed { delay, jitter } = self.condition() else { return None };
        let most = u64::try_from(jitter.as_nanos()).unwrap_or(u64::MAX);
        let mut random = self.jitter.lock().unwrap_or_else(PoisonError::into_inner);
        Some(delay + Duration::from_nanos(random.below(most.max(1))))
    }

    pub(super) fn traffic(&self) -> Traffic {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        Traffic {
            carried_bytes: read(&counters.carried_bytes),
            held: read(&counters.held),
            held_bytes: read(&counters.held_bytes),
            dropped_bytes: read(&counters.dropped_bytes),
            delayed: read(&counters.delayed),
            slowed: read(&counters.slowed),
            dials_held: read(&counters.dials_held),
            resets: read(&counters.resets),
        }
    }
}

/// Adds to a counter; nobody orders anything by it.
pub(super) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// Two ends, in no order, for what happens to their connections as a whole.
#[derive(Debug, Default)]
pub(super) struct Pair {
    resets: watch::Sender<u64>,
}

impl Pair {
    pub(super) fn reset(&self) {
        self.resets.send_modify(|resets| *resets += 1);
    }

    /// Sees every reset from now on.
    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.resets.subscribe()
    }
}
