//! The contract between a protocol core and the shell that runs it.
//!
//! ```text
//!            now, Input                     Effect, in order
//!   shell ───────────────► Core::step ───────────────────────► shell
//!     ▲                                                          │
//!     └── Message, Read, Resume, Timer ◄── network, store, log ◄─┘
//! ```
//!
//! Rules the shell keeps, and a core may rely on:
//!
//! 1. **What follows a [`Effect::Persist`] in the same step waits until that record is durable.**
//!    What stands before it does not wait. So nothing that rests on a record leaves before the
//!    record would survive a crash, and a core cannot forget to wait: it would have to reorder.
//! 2. Effects that wait are released in the order of their records, across steps.
//! 3. [`Effect::Resume`] comes back as [`Input::Resume`], [`Effect::Read`] as [`Input::Read`] and
//!    [`Effect::Stage`] as [`Input::Staged`] before any other input is handed over. A core that must
//!    know that its record is durable puts a `Resume` behind the `Persist`.
//! 4. After a crash the records come back through [`Core::recover`] in order, a prefix of what was
//!    persisted that holds at least everything that was durable; then [`Input::Started`].
//! 5. Messages may be lost, repeated and reordered. Timers fire at or after the time asked for.
//!
//! Rules a core keeps: same inputs, same effects. No clock, no hash-map iteration, no chance but
//! from the seed it was built with. Every queue and table it grows has a limit with a name.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use crate::request::{Answer, Outcome, Query, Request, Row, Writes};

/// Names a process of the cluster. Replicas carry the number given by `--id`, from 1; a two-phase
/// commit coordinator is [`NodeId::COORDINATOR`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

impl NodeId {
    /// The coordinator process of a two-phase commit cluster.
    pub const COORDINATOR: Self = Self(0);
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// Nanoseconds on the node's own monotonic clock; only differences mean anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// Later than every time a core will see.
    pub const NEVER: Self = Self(u64::MAX);

    /// This time plus `wait`, at most [`Time::NEVER`].
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// How long from `earlier` to this time; zero if `earlier` is the later one.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// The number of a record in its node's log. The first is 1, and there are no gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl Position {
    /// Before the first record.
    pub const ZERO: Self = Self(0);

    /// The position of the record that follows this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Names a client's request from its arrival at a node to its reply; unique within one run of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Names a read that a core asked of its own store. Chosen by the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

/// Names a whole state of a store, on the node whose store it is: what is staged and installed, by
/// the mark that the store has from then on; what is held for others, by one that is not below the
/// mark of the last batch in it. Under Multi-Paxos marks are slots, and mean the same on all nodes.
/// Where they are positions in a node's own log, a snapshot changes its name on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId(pub u64);

/// How soon a record has to be durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Urgency {
    /// Somebody waits for it: sync with the next group (a forced write, in the papers).
    Now,
    /// Nobody does: it rides with the next group that is synced anyway, or goes within
    /// milliseconds (an unforced write). What follows it in its step waits all the same.
    Soon,
}

/// What a core is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input<M, R> {
    /// Recovery is over; the first input of every run.
    Started,
    /// A client asks.
    Request(Request),
    /// Another node says.
    Message {
        /// Who sent it.
        from: NodeId,
        /// What it says.
        message: M,
    },
    /// A link to this node stands. Messages sent before it may have been lost.
    PeerUp(NodeId),
    /// The link broke; what was sent over it may have been lost.
    PeerDown(NodeId),
    /// The time last asked for by [`Effect::SetTimer`] has come.
    Timer,
    /// The answer to [`Effect::Read`].
    Read {
        /// As the core named it.
        read: ReadId,
        /// What the store holds, or why it could not say.
        answer: Answer,
    },
    /// The answer to [`Effect::Stage`].
    Staged {
        /// As the core named it.
        snapshot: SnapshotId,
        /// Whether the rows were taken; after the last of them, whether all are durable. If not, for
        /// want of room mostly, nothing is staged any more, and a record must not rest on it.
        is_kept: bool,
    },
    /// A [`Effect::Resume`] whose turn has come.
    Resume(R),
    /// Whether the disk has room; true until said otherwise. Without room a core takes nothing on
    /// that it would have to remember, and says so. What it has taken on goes its way: records that
    /// it persists wait until there is room.
    Room(bool),
    /// The log has grown long: persist a checkpoint record, and [`Effect::Release`] what is older.
    Checkpoint,
    /// The node stops cleanly in a moment: have others take over what they would have to miss it
    /// for. What was said by then is sent.
    Stopping,
}

/// What a core wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect<M, P, R> {
    /// Append a record to the node's log. What follows in this step waits until it is durable.
    Persist {
        /// The record's position; the core counts, the node checks.
        at: Position,
        /// What recovery will hand back.
        record: P,
        /// Whether somebody waits for it.
        urgency: Urgency,
    },
    /// Send a message; it may be lost.
    Send {
        /// To whom.
        to: NodeId,
        /// What to say.
        message: M,
    },
    /// Apply writes to the store, all or none, visible to the next read. Nothing is written to
    /// disk: recovery repeats it from the record it rests on. That record may stand behind it in the
    /// same step: the shell appends a step's records before it applies, and makes the log durable up
    /// to there before what was applied goes to a segment.
    Apply {
        /// Never falls; recovery skips marks that the store's segments already cover.
        mark: u64,
        /// In order; the last write of a key wins.
        writes: Writes,
    },
    /// Answer a client. Exactly one for each [`Input::Request`].
    Reply {
        /// Which request.
        request: RequestId,
        /// How it ended.
        outcome: Outcome,
    },
    /// Ask the store for its newest state; answered by [`Input::Read`].
    Read {
        /// The core's name for it.
        read: ReadId,
        /// What is asked.
        query: Box<Query>,
    },
    /// Hold the store as it is now, everything applied before this effect included, under this name,
    /// which is not below the mark of the last [`Effect::Apply`]. A snapshot does not outlive the
    /// process, and the shell holds a few at a time: the oldest gives way.
    TakeSnapshot(SnapshotId),
    /// As [`Effect::Read`], of a snapshot that is held; answered by [`Input::Read`], and that with
    /// [`Answer::Failed`] if it is not held any more. The shell may answer a scan with fewer rows than
    /// asked for, as long as it says that there are more.
    ReadSnapshot {
        /// The core's name for it.
        read: ReadId,
        /// Of which.
        snapshot: SnapshotId,
        /// What is asked.
        query: Box<Query>,
    },
    /// The snapshot is not needed any more.
    DropSnapshot(SnapshotId),
    /// Put rows aside for [`Effect::Install`], behind those staged before, in byte order of their
    /// keys. They are no part of the store yet, and no reader sees them. Answered by
    /// [`Input::Staged`]. What a crash leaves behind without a record that rests on it may be thrown
    /// away.
    Stage {
        /// To be what. The name that comes with the last rows counts.
        snapshot: SnapshotId,
        /// Throw away what was staged before.
        first: bool,
        /// The next rows.
        rows: Vec<Row>,
        /// These are all: make them durable, so that a record may rest on them.
        last: bool,
    },
    /// Have the staged rows, and nothing else, in the store, as if everything up to this mark had
    /// been applied: all at once for readers, and for a crash. It stands behind a record that says
    /// so, written after the staged rows were durable; recovery repeats it from there, and a store
    /// whose segments already reach the mark skips it, as it skips an [`Effect::Apply`]. While the
    /// disk has no room for it, it waits, and with it what stands behind it. Snapshots taken before
    /// keep their rows.
    Install(SnapshotId),
    /// Ask for [`Input::Timer`] at this time; replaces what was asked for before.
    SetTimer(Time),
    /// Hand this back as [`Input::Resume`] once everything before it was performed.
    Resume(R),
    /// Nothing before this position is needed for recovery any more.
    Release(Position),
    /// A named point at which a test may make the process die or pause; emitted only when armed.
    Point(&'static str),
}

impl<M, P, R> Effect<M, P, R> {
    /// An [`Effect::Read`].
    #[must_use]
    pub fn read(read: ReadId, query: Query) -> Self {
        Self::Read { read, query: Box::new(query) }
    }
}

/// Collects the effects of steps.
#[derive(Clone, Debug)]
pub struct Effects<M, P, R> {
    list: VecDeque<Effect<M, P, R>>,
    /// Where the first record stands, if one does.
    held_from: Option<usize>,
    armed: Vec<String>,
}

impl<M, P, R> Default for Effects<M, P, R> {
    fn default() -> Self {
        Self { list: VecDeque::new(), held_from: None, armed: Vec::new() }
    }
}

impl<M, P, R> Effects<M, P, R> {
    /// An empty list that records no fail points.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty list that records the fail points of these names.
    #[must_use]
    pub fn with_points(armed: Vec<String>) -> Self {
        Self { armed, ..Self::default() }
    }

    /// Adds an effect behind the others.
    pub fn push(&mut self, effect: Effect<M, P, R>) {
        if self.held_from.is_none() && matches!(effect, Effect::Persist { .. }) {
            self.held_from = Some(self.list.len());
        }
        self.list.push_back(effect);
    }

    /// Adds an effect that rests on no record: it goes before the first [`Effect::Persist`] that
    /// was collected, and so does not wait for it. A timer set behind a record would come late, and
    /// replace a newer one.
    pub fn push_unheld(&mut self, effect: Effect<M, P, R>) {
        let Some(held_from) = &mut self.held_from else { return self.push(effect) };
        self.list.insert(*held_from, effect);
        *held_from += 1;
    }

    /// Adds an effect that waits for the records before it; by a planted bug it does not.
    pub(crate) fn push_held(&mut self, effect: Effect<M, P, R>, by_bug_unheld: bool) {
        if by_bug_unheld { self.push_unheld(effect) } else { self.push(effect) }
    }

    /// Marks a fail point, if it is armed: a run that arms none pays for one comparison.
    #[inline]
    pub fn point(&mut self, name: &'static str) {
        if !self.armed.is_empty() && self.is_armed(name) {
            self.list.push_back(Effect::Point(name));
        }
    }

    /// As [`Effects::point`], among the effects that rest on no record.
    pub fn point_unheld(&mut self, name: &'static str) {
        if !self.armed.is_empty() && self.is_armed(name) {
            self.push_unheld(Effect::Point(name));
        }
    }

    #[cold]
    fn is_armed(&self, name: &str) -> bool {
        self.armed.iter().any(|armed| armed == name)
    }

    /// Takes what was collected, in order.
    pub fn drain(&mut self) -> alloc::collections::vec_deque::Drain<'_, Effect<M, P, R>> {
        self.held_from = None;
        self.list.drain(..)
    }

    /// Takes the first of what was collected, if it rests on no record: no [`Effect::Persist`].
    pub fn pop_unheld(&mut self) -> Option<Effect<M, P, R>> {
        if let Some(held_from) = &mut self.held_from {
            *held_from = held_from.checked_sub(1)?;
        }
        self.list.pop_front()
    }

    /// Moves the first [`Effect::Persist`] and what stands behind it to the end of `into`. Nothing
    /// stands before it any more.
    pub fn append_held_to(&mut self, into: &mut VecDeque<Effect<M, P, R>>) {
        debug_assert!(self.held_from.is_none_or(|held_from| held_from == 0), "that goes first");
        self.held_from = None;
        into.append(&mut self.list);
    }

    /// What was collected and not taken, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Effect<M, P, R>> {
        self.list.iter()
    }

    /// Whether nothing was collected since the last [`Effects::drain`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// How a cluster replicates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Two-phase commit with a coordinator process.
    TwoPhase,
    /// Two-phase commit coordinated by whichever replica a client asks.
    AnyReplica,
    /// Multi-Paxos.
    Paxos,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TwoPhase => "two-phase commit",
            Self::AnyReplica => "two-phase commit through any replica",
            Self::Paxos => "Multi-Paxos",
        })
    }
}

/// What a node does in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Decides transactions of a two-phase commit cluster.
    Coordinator,
    /// Holds a copy of the data.
    Replica,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Coordinator => "coordinator",
            Self::Replica => "replica",
        })
    }
}

/// What `kvorum status` shows of a core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What it is.
    pub role: Role,
    /// How often this node has started on its data, this run included.
    pub incarnation: u64,
    /// Transactions begun and not ended: on a replica prepared or being prepared.
    pub in_flight: u64,
    /// Transactions this node voted yes on and does not know the outcome of, for longer than a
    /// healthy round takes; on a coordinator, committed ones that some replica has not acknowledged.
    pub in_doubt: u64,
    /// Keys locked.
    pub locks: u64,
    /// Who decides for the cluster, as far as this node knows; under protocols that elect somebody.
    pub leader: Option<NodeId>,
    /// Peers this node has a link to.
    pub peers_up: Vec<NodeId>,
    /// Of a coordinator, the replicas that its log says the cluster has; empty if it does not say, and
    /// elsewhere.
    pub replicas: Vec<NodeId>,
    /// Counters by name, in a fixed order: messages and forced and unforced records by type.
    pub counters: Vec<(&'static str, u64)>,
}

/// A protocol's state machine. See the rules at the top of this module.
pub trait Core {
    /// What nodes say to each other.
    type Message: Clone + fmt::Debug;
    /// What the log keeps.
    type Record: Clone + fmt::Debug;
    /// What [`Effect::Resume`] carries.
    type Resume: Clone + fmt::Debug;

    /// Handles one input.
    fn step(
        &mut self,
        now: Time,
        input: Input<Self::Message, Self::Resume>,
        effects: &mut Effects<Self::Message, Self::Record, Self::Resume>,
    );

    /// Takes back one record of the log, oldest first, before [`Input::Started`]. May only emit
    /// [`Effect::Apply`], with the mark that the live run gave it, and [`Effect::Install`].
    fn recover(
        &mut self,
        at: Position,
        record: Self::Record,
        effects: &mut Effects<Self::Message, Self::Record, Self::Resume>,
    );

    /// Whether the store as it is now answers this query of a client, just as it would if a request
    /// for it came now. A driver that is told so need not hand the core the request, and may read
    /// the store at any time from now on until it answers: what it holds then is not older.
    fn reads_at_once(&mut self, _now: Time, _query: &Query) -> bool {
        false
    }

    /// What `kvorum status` shows.
    fn status(&self, now: Time) -> Status;
}
