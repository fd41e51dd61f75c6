//! The node as a server sees it, whichever protocol it runs.

use std::sync::mpsc::SyncSender;

use kvorum_node::{DiskWait, Event, Handle, Refused, Report};
use kvorum_replication::{Answer, NodeId, Protocol, Query, Request, Time};

use crate::convert::peer::{Carried, Delivery};

/// Something that happens to the node.
pub(crate) enum Post {
    /// A client asks.
    Request(Request),
    /// A peer's messages, in its order.
    Delivered { from: NodeId, delivery: Delivery, bytes: usize },
    /// A link to a peer stands.
    PeerUp(NodeId),
    /// The last link to a peer broke.
    PeerDown(NodeId),
    /// Somebody wants to know how the node is.
    Report(SyncSender<Report>),
}

/// Where posts go.
pub(crate) trait Door: Send + Sync {
    /// What the node runs.
    fn protocol(&self) -> Protocol;

    /// The node's clock, in which deadlines are given.
    fn now(&self) -> Time;

    /// Hands posts over in order, waking the node once for all of them. Requests that do not fit
    /// come back with the reason.
    fn submit(&self, posts: Vec<Post>) -> Vec<(Request, Refused)>;

    /// As [`Door::submit`]; the node may take its turn on this thread, sync its log on it if `wait`
    /// lets it, and speak to the peers' queues and the workers' ports before this returns.
    fn drive(&self, posts: Vec<Post>, wait: DiskWait) -> Vec<(Request, Refused)>;

    /// Answers a client's query on this thread, unless something is in its way.
    fn read(&self, query: &Query) -> Option<Answer>;

    /// Whether so much waits that links should stop reading for a while.
    fn is_backlogged(&self) -> bool;

    /// Whether the node has stopped.
    fn is_closed(&self) -> bool;
}

impl<M: Carried> Door for Handle<M> {
    fn protocol(&self) -> Protocol {
        M::PROTOCOL
    }

    fn now(&self) -> Time {
        Self::now(self)
    }

    fn submit(&self, posts: Vec<Post>) -> Vec<(Request, Refused)> {
        Self::submit(self, posts.into_iter().filter_map(event))
    }

    fn drive(&self, posts: Vec<Post>, wait: DiskWait) -> Vec<(Request, Refused)> {
        Self::drive(self, posts.into_iter().filter_map(event), wait)
    }

    fn read(&self, query: &Query) -> Option<Answer> {
        Self::read(self, query)
    }

    fn is_backlogged(&self) -> bool {
        Self::is_backlogged(self)
    }

    fn is_closed(&self) -> bool {
        Self::is_closed(self)
    }
}

/// The post in the node's own words; none for messages of another protocol, which inboxes refuse
/// before they come here.
fn event<M: Carried>(post: Post) -> Option<Event<M>> {
    Some(match post {
        Post::Request(request) => Event::Request(request),
        Post::Delivered { from, delivery, bytes } => {
            Event::Messages { from, messages: M::of(delivery)?, bytes }
        }
        Post::PeerUp(peer) => Event::PeerUp(peer),
        Post::PeerDown(peer) => Event::PeerDown(peer),
        Post::Report(answer) => Event::Report(answer),
    })
}
