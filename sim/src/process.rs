//! A process as the simulator drives it, whatever protocol it runs.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use kvorum_node::{Node, NodeError, Report, StoredRecord, Turn};
use kvorum_replication::{Core, Input, NodeId, Request, Row, Time};
use kvorum_storage::vfs::Vfs;
use kvorum_storage::{Log, Store};

use crate::violation::Violation;

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

/// A running node, of any core with these messages.
pub(crate) trait Process<M> {
    /// Lets something happen to it.
    fn step(&mut self, now: Time, happening: Happening<M>) -> Result<(), NodeError>;
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
    fn turn(&mut self) -> &mut Turn<M>;
    /// See [`Node::log`].
    fn log(&self) -> &Arc<Log>;
    /// See [`Node::store`].
    fn store(&self) -> Option<&Store>;
    /// See [`Node::report`].
    fn report(&self, now: Time) -> Report;
    /// All rows it holds.
    fn rows(&self) -> Result<Vec<Row>, NodeError>;
}

impl<C> Process<C::Message> for Node<C>
where
    C: Core,
    C::Record: StoredRecord,
{
    fn step(&mut self, now: Time, happening: Happening<C::Message>) -> Result<(), NodeError> {
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

    fn turn(&mut self) -> &mut Turn<C::Message> {
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
}

/// A cluster of one protocol: who belongs to it, how each is opened, and what must be true of what
/// they say to each other.
pub(crate) trait Protocol {
    /// What the nodes say to each other.
    type Message: Clone + Debug;

    /// All nodes, each with the fail points at which it can be stopped.
    fn members(&self) -> Vec<(NodeId, Vec<&'static str>)>;

    /// The node that takes writes.
    fn writer(&self) -> NodeId;

    /// Opens a node on its disk. The seed is for the protocol's own chances.
    fn open(
        &mut self,
        node: NodeId,
        vfs: Arc<dyn Vfs>,
        seed: u64,
    ) -> Result<Box<dyn Process<Self::Message>>, NodeError>;

    /// Looks at a message that is sent: an error says which promise it breaks.
    fn observe(
        &mut self,
        from: NodeId,
        to: NodeId,
        message: &Self::Message,
    ) -> Result<(), Violation>;

    /// A message in a few words, for the trace.
    fn describe(&self, message: &Self::Message) -> String;

    /// Whether there is so little room that a client may be told that its session has expired.
    fn may_expire_sessions(&self) -> bool;

    /// The fail point at which the process is to be let go on to the end of its step and to write
    /// its log, without a sync, before it dies.
    fn is_written_point(&self, point: &str) -> bool;
}
