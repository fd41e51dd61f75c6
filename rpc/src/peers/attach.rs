//! Making a link of a connection: introductions both ways, inboxes both ways.

use std::rc::Rc;

use capnp::Error;
use kvorum_replication::NodeId;
use kvorum_schema::client_capnp::gate;
use kvorum_schema::peer_capnp::{attached, inbox};

use super::hello::{Verdict, hello, judge};
use super::joining::remember;
use super::link::{Admission, Inbox, Link};
use super::queue::LinkOf;
use crate::convert::peer::{Hello, read_hello, write_hello};
use crate::server::{Connection, Worker};

/// Why no link came of a connection.
pub(super) enum Failed {
    /// The connection failed; trying again may work.
    Broken(String),
    /// One of the two has not joined the cluster; whether that has come nearer.
    NotYet { nearer: bool },
    /// One of the two does not want the other.
    Refused(String),
}

/// What a node that introduced itself is told.
pub(crate) enum Attached {
    /// The link stands.
    Accepted(Hello, inbox::Client),
    /// It may come again.
    NotYet(Hello),
}

/// A node introduced itself over a connection that came in: links with it, or says why not.
pub(crate) async fn accept(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    theirs: Hello,
    their_inbox: inbox::Client,
) -> Result<Attached, String> {
    if connection.link().is_some() {
        return Err("this connection has a link already".to_owned());
    }
    let service = &worker.service;
    let (changes, verdict) = judge(&service.identity.identity(), &theirs)?;
    remember(service, theirs.node, changes).await?;
    if verdict == Verdict::NotYet {
        return Ok(Attached::NotYet(hello(service)));
    }
    let own_inbox = Inbox::open(worker, connection, theirs.node, Admission::open());
    link(worker, connection, &theirs, theirs.node, their_inbox)?;
    Ok(Attached::Accepted(hello(service), own_inbox))
}

/// Introduces this node over a connection that it dialled.
pub(super) async fn introduce(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    gate: &gate::Client,
    expected: NodeId,
) -> Result<(), Failed> {
    let service = &worker.service;
    let admission = Admission::closed();
    let own_inbox = Inbox::open(worker, connection, expected, Rc::clone(&admission));
    let mut request = gate.attach_request();
    write_hello(&hello(service), request.get().init_hello());
    request.get().set_inbox(own_inbox);
    let response = request.send().promise.await.map_err(broken)?;
    let attached = response.get().and_then(|answer| answer.get_result()).map_err(broken)?;
    let (theirs, their_inbox) =
        read_attached(attached).map_err(broken)?.map_err(Failed::Refused)?;
    if theirs.node != expected {
        return Err(Failed::Refused(format!(
            "{expected} was expected, and {} answers",
            theirs.node
        )));
    }
    let (changes, verdict) =
        judge(&service.identity.identity(), &theirs).map_err(Failed::Refused)?;
    let nearer = remember(service, theirs.node, changes).await.map_err(Failed::Refused)?;
    let (Verdict::Link, Some(their_inbox)) = (verdict, their_inbox) else {
        return Err(Failed::NotYet { nearer });
    };
    let own = service.identity.identity().node;
    link(worker, connection, &theirs, own, their_inbox).map_err(Failed::Broken)?;
    admission.admit();
    Ok(())
}

/// The other's introduction, with its inbox if it links; or why it refuses.
type Introduced = Result<(Hello, Option<inbox::Client>), String>;

fn read_attached(attached: attached::Reader<'_>) -> Result<Introduced, Error> {
    Ok(match attached.which()? {
        attached::Accepted(accepted) => {
            Ok((read_hello(accepted.get_hello()?)?, Some(accepted.get_inbox()?)))
        }
        attached::NotYet(hello) => Ok((read_hello(hello?)?, None)),
        attached::Refused(reason) => Err(reason?.to_string()?),
    })
}

fn broken(error: Error) -> Failed {
    Failed::Broken(error.to_string())
}

fn link(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    theirs: &Hello,
    dialler: NodeId,
    inbox: inbox::Client,
) -> Result<(), String> {
    if !connection.deliveries.can_deliver() {
        return Err("its inbox is not its own".to_owned());
    }
    let service = &worker.service;
    let peer = service.hub.peers.peer(theirs.node);
    peer.set_advertised(&theirs.address);
    let (peer_node, at, incarnation) = (theirs.node, &connection.from, theirs.incarnation);
    tracing::info!(peer = %peer_node, %at, incarnation, "linked");
    let of = LinkOf {
        incarnation,
        by_lower: dialler == service.identity.identity().node.min(theirs.node),
        by_us: dialler != theirs.node,
    };
    connection.set_link(Link::start(service, peer, of, connection, inbox));
    Ok(())
}
