//! A process as the simulator drives it, whatever protocol it runs.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use kvorum_node::{Node, NodeError, Report, StoredRecord, Turn};
use kvorum_replication::{Core, Input, NodeId, Operation, Outcome, Position, Request, Row, Time};
use kvorum_storage::vfs::Vfs;
use kvorum_storage::{Log, Store};

use crate::faults::Fault;
use crate::machine::Asked;
use crate::violation::{Promise, Violation};

/// What can happen to a process from outside.
#[derive(Debug)]
pub(crate) enum Happening<M> {
    /// It has started.
    Started,
    /// A client asks.
    Request(Request),
    /// A peer says.
    Message {
        /// Who.
        from: NodeId,
        /// What.
        message: M,
    },
    /// A link to a peer stands.
    PeerUp(NodeId),
    /// The link to a peer broke.
    PeerDown(NodeId),
}

/// How far a log has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogEnd {
    /// The last record.
    pub(crate) last: Position,
    /// The last one that is durable, as the log says.
    pub(crate) durable: Position,
}

/// What a judge says: nothing, or which promise is broken.
pub(crate) type Judgement = Result<(), Violation>;

/// A broken promise.
pub(crate) fn broken(promise: Promise, what: String) -> Judgement {
    Err(Violation { promise, what })
}

/// Asks a node for all rows it holds.
pub(crate) type Rows<'a> = &'a dyn Fn() -> Result<Vec<Row>, NodeError>;

/// A core that a protocol's judge can look at.
pub(crate) trait Audited<P: Protocol>: Core<Message = P::Message> {
    /// How it is.
    fn facts(&self) -> P::Facts;
    /// What a record says.
    fn note(record: Self::Record) -> P::Note;
}

/// A running node of a protocol.
pub(crate) trait Process<P: Protocol> {
    /// Lets something happen to it.
    fn step(&mut self, now: Time, happening: Happening<P::Message>) -> Result<(), NodeError>;
    /// See [`Node::settle`].
    fn settle(&mut self, now: Time) -> Result<(), NodeError>;
    /// See [`Node::fire_timer`].
    fn fire_timer(&mut self, now: Time) -> Result<(), NodeError>;
    /// See [`Node::timer`].
    fn timer(&self) -> Option<Time>;
    /// See [`Node::sync_due`].
    fn sync_due(&self, now: Time) -> Option<Time>;
    /// See [`Node::take_point`].
    fn take_point(&mut self) -> Option<&'static str>;
    /// See [`Node::turn`].
    fn turn(&mut self) -> &mut Turn<P::Message>;
    /// See [`Node::log`].
    fn log(&self) -> &Arc<Log>;
    /// See [`Node::store`].
    fn store(&self) -> Option<&Store>;
    /// See [`Node::report`].
    fn report(&self, now: Time) -> Report;
    /// All rows it holds.
    fn rows(&self) -> Result<Vec<Row>, NodeError>;
    /// What it has appended to its log since it was last asked.
    fn notes(&mut self) -> Vec<(Position, P::Note)>;
    /// How its core is.
    fn facts(&self) -> P::Facts;
}

impl<P: Protocol, C: Audited<P>> Process<P> for Node<C>
where
    C::Record: StoredRecord,
{
    fn step(&mut self, now: Time, happening: Happening<P::Message>) -> Result<(), NodeError> {
        let input = match happening {
            Happening::Started => Input::Started,
            Happening::Request(request) => Input::Request(request),
            Happening::Message { from, message } => Input::Message { from, message },
            Happening::PeerUp(peer) => Input::PeerUp(peer),
            Happening::PeerDown(peer) => Input::PeerDown(peer),
        };
        Self::step(self, now, input)
    }

    fn settle(&mut self, now: Time) -> Result<(), NodeError> {
        Self::settle(self, now)
    }

    fn fire_timer(&mut self, now: Time) -> Result<(), NodeError> {
        Self::fire_timer(self, now)
    }

    fn timer(&self) -> Option<Time> {
        Self::timer(self)
    }

    fn sync_due(&self, now: Time) -> Option<Time> {
        Self::sync_due(self, now)
    }

    fn take_point(&mut self) -> Option<&'static str> {
        Self::take_point(self)
    }

    fn turn(&mut self) -> &mut Turn<P::Message> {
        Self::turn(self)
    }

    fn log(&self) -> &Arc<Log> {
        Self::log(self)
    }

    fn store(&self) -> Option<&Store> {
        Self::store(self)
    }

    fn report(&self, now: Time) -> Report {
        Self::report(self, now)
    }

    fn rows(&self) -> Result<Vec<Row>, NodeError> {
        let mut rows: Vec<Row> = Vec::new();
        let inspector = self.inspector();
        loop {
            // The first key after another one is that key with a zero byte behind it.
            let start = rows
                .last()
                .map_or_else(Bytes::new, |(key, _)| Bytes::from([key.as_ref(), &[0]].concat()));
            let (more_rows, more) = inspector.rows(start, u32::MAX)?;
            rows.extend(more_rows);
            if !more {
                return Ok(rows);
            }
        }
    }

    fn notes(&mut self) -> Vec<(Position, P::Note)> {
        let records = self.take_records().into_iter();
        records.map(|(at, record)| (at, C::note(record))).collect()
    }

    fn facts(&self) -> P::Facts {
        self.core().facts()
    }
}

/// A cluster of one protocol: who belongs to it, how each is opened, and what must be true of what
/// they say to each other.
pub(crate) trait Protocol: Sized {
    /// What the nodes say to each other.
    type Message: Clone + Debug;
    /// What a judge has to know of a record.
    type Note;
    /// How a core is, for a judge.
    type Facts;

    /// All nodes, each with the fail points at which it can be stopped.
    fn members(&self) -> Vec<(NodeId, Vec<&'static str>)>;

    /// The node that takes all writes, if one does by its office. Otherwise clients ask any, and go
    /// where they are sent.
    fn writer(&self) -> Option<NodeId>;

    /// Whether all nodes take writes alike.
    fn anyone_writes(&self) -> bool {
        false
    }

    /// The node that matters most at the moment, if there is such a one.
    fn leader(&self) -> Option<NodeId> {
        self.writer()
    }

    /// Faults that can strike here beside those of every protocol, and how often.
    fn own_strikes(&self) -> &'static [(u64, Fault)] {
        &[]
    }

    /// How much faster one clock may run than another, in thousandths, if anything rests on that.
    /// Then no clock jumps either.
    fn drift_permille(&self) -> Option<u64> {
        None
    }

    /// Whether clients ask for reads that may be old.
    fn reads_stale(&self) -> bool {
        false
    }

    /// Opens a node on its disk. The seed is for the protocol's own chances.
    fn open(
        &mut self,
        node: NodeId,
        vfs: Arc<dyn Vfs>,
        seed: u64,
    ) -> Result<Box<dyn Process<Self>>, NodeError>;

    /// Something happens to a node, whose clock shows this.
    fn at(&mut self, _node: NodeId, _time: Time) {}

    /// What a read that begins now has to show at least, in the protocol's own count.
    fn acknowledged(&self) -> u64 {
        0
    }

    /// A node has been opened: does its log hold what it must?
    fn reopened(&mut self, node: NodeId, end: LogEnd) -> Judgement;

    /// A node has appended records.
    fn noted(&mut self, node: NodeId, notes: Vec<(Position, Self::Note)>, end: LogEnd)
    -> Judgement;

    /// A node sends a message.
    fn says(&mut self, from: NodeId, to: NodeId, message: &Self::Message) -> Judgement;

    /// A node answers a client. So much was acknowledged when it asked.
    fn answers(&mut self, node: NodeId, asked: &Asked, outcome: &Outcome) -> Judgement;

    /// An event is over: is the node as it must be?
    fn looks(&mut self, node: NodeId, facts: &Self::Facts, rows: Rows<'_>) -> Judgement;

    /// Why a node takes no part any more although its process runs, if that is so. Only a fault of
    /// its disk excuses that; somebody starts it anew.
    fn unfit(&self, facts: &Self::Facts) -> Option<String>;

    /// What is not at rest, if anything is not, when no request is open.
    fn unrest(&self, nodes: &[(NodeId, Self::Facts)]) -> Option<String>;

    /// Nothing is to fail by itself any more, from the next start of each node on.
    fn heal(&mut self) {}

    /// Whether the cluster can bear it that a node loses its disk now, for good.
    fn may_lose_disk(&self, _node: NodeId) -> bool {
        false
    }

    /// A node has lost its disk.
    fn lost_disk(&mut self, _node: NodeId) {}

    /// What an operator may ask for who wants other replicas.
    fn other_members(&self, _number: u64) -> Option<Operation> {
        None
    }

    /// Whether what this node holds at the end has to be what the others hold.
    fn is_replica(&self, _node: NodeId) -> bool {
        true
    }

    /// The fail points that a node passes when it takes over a snapshot.
    fn snapshot_points(&self) -> &'static [&'static str] {
        &[]
    }

    /// The fault that a counter of a core stands for, if it counts one.
    fn fault_counted(&self, _counter: &str) -> Option<Fault> {
        None
    }

    /// Whether what a core shows under this name is no count of what it did.
    fn is_gauge(&self, _counter: &str) -> bool {
        false
    }

    /// Whether it is of no interest that a promise is broken.
    fn forgives(&self, _promise: Promise) -> bool {
        false
    }

    /// What the judge has counted, by name.
    fn counted(&self) -> Vec<(&'static str, u64)>;

    /// What has to happen in some run, or the runs show nothing, and how often it did.
    fn happened(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// A message in a few words, for the trace.
    fn describe(&self, message: &Self::Message) -> String;

    /// A record in a few words, for the trace.
    fn describe_note(&self, note: &Self::Note) -> String;

    /// Whether there is so little room that a client may be told that its session has expired.
    fn may_expire_sessions(&self) -> bool;

    /// The fail point at which the process is to be let go on to the end of its step and to write
    /// its log, without a sync, before it dies.
    fn is_written_point(&self, point: &str) -> bool;
}
