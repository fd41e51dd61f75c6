//! Making a link of a connection: introductions both ways, inboxes both ways.

use std::rc::Rc;
use std::sync::Arc;

use kvorum_replication::{NodeId, Role};
use kvorum_schema::client_capnp::gate;
use kvorum_schema::peer_capnp::{attached, inbox};

use super::hello::{admit, hello};
use super::link::{Admission, Inbox, Link};
use crate::convert::peer::{Hello, read_hello, write_hello};
use crate::server::{Connection, Service, Worker};

/// Why no link came of a connection.
pub(super) enum Failed {
    /// The connection failed; trying again may work.
    Broken(String),
    /// One of the two does not want the other.
    Refused(String),
}

/// A node introduced itself over a connection that came in: links with it, or says why not.
pub(crate) async fn accept(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    theirs: Hello,
    their_inbox: inbox::Client,
) -> Result<(Hello, inbox::Client), String> {
    if connection.link().is_some() {
        return Err("this connection has a link already".to_owned());
    }
    take_over(&worker.service, &theirs).await?;
    mark_joined(&worker.service, &theirs).await?;
    let admission = Admission::open();
    let own_inbox = Inbox::new(worker, connection, theirs.node, admission);
    link(worker, connection, &theirs, their_inbox);
    Ok((hello(&worker.service), capnp_rpc::new_client(own_inbox)))
}

/// Introduces this node over a connection that it dialled.
pub(super) async fn introduce(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    gate: &gate::Client,
    expected: NodeId,
) -> Result<(), Failed> {
    let admission = Admission::closed();
    let own_inbox = Inbox::new(worker, connection, expected, Rc::clone(&admission));
    let mut request = gate.attach_request();
    write_hello(&hello(&worker.service), request.get().init_hello());
    request.get().set_inbox(capnp_rpc::new_client(own_inbox));
    let response = request.send().promise.await.map_err(broken)?;
    let (theirs, their_inbox) = match response.get().and_then(|answer| answer.get_result()) {
        Ok(result) => match result.which().map_err(|error| broken(error.into()))? {
            attached::Accepted(accepted) => {
                let theirs = accepted.get_hello().map_err(broken)?;
                let theirs = read_hello(theirs).map_err(|rejected| broken(rejected.into()))?;
                (theirs, accepted.get_inbox().map_err(broken)?)
            }
            attached::Refused(reason) => {
                let reason = reason.map_err(broken)?.to_string();
                return Err(Failed::Refused(reason.unwrap_or_default()));
            }
            attached::NotYet(_) => return Err(Failed::Broken("it is not ready yet".to_owned())),
        },
        Err(error) => return Err(broken(error)),
    };
    if theirs.node != expected {
        return Err(Failed::Refused(format!(
            "{expected} was expected, and {} answers",
            theirs.node
        )));
    }
    take_over(&worker.service, &theirs).await.map_err(Failed::Refused)?;
    mark_joined(&worker.service, &theirs).await.map_err(Failed::Refused)?;
    link(worker, connection, &theirs, their_inbox);
    admission.admit();
    Ok(())
}

fn broken(error: capnp::Error) -> Failed {
    Failed::Broken(error.to_string())
}

/// Decides about the other node, and remembers what it says of the cluster, durably.
async fn take_over(service: &Arc<Service>, theirs: &Hello) -> Result<(), String> {
    let adoption = admit(service.door.protocol(), &service.identity.identity(), theirs)?;
    if adoption.cluster.is_none() && adoption.members.is_none() {
        return Ok(());
    }
    let theirs = Arc::clone(service);
    let remembered = tokio::task::spawn_blocking(move || {
        if let Some(cluster) = adoption.cluster {
            theirs.identity.adopt_cluster(cluster)?;
            tracing::info!(%cluster, "joined a cluster");
        }
        match adoption.members {
            Some(members) => theirs.identity.set_members(members),
            None => Ok(()),
        }
    });
    match remembered.await {
        Ok(Ok(())) => {
            service.learn_members();
            Ok(())
        }
        Ok(Err(error)) => Err(format!("the cluster could not be remembered: {error}")),
        Err(error) => Err(format!("the cluster could not be remembered: {error}")),
    }
}

/// A coordinator remembers, before it says a word of any transaction, that this replica has joined.
/// One that has no cluster yet has not: it joins when the coordinator introduces itself to it.
async fn mark_joined(service: &Arc<Service>, theirs: &Hello) -> Result<(), String> {
    let identity = service.identity.identity();
    let known = identity.joined.contains(&theirs.node);
    if identity.role != Role::Coordinator || theirs.cluster.is_none() || known {
        return Ok(());
    }
    let (service, node) = (Arc::clone(service), theirs.node);
    let marked = tokio::task::spawn_blocking(move || service.identity.mark_joined(node)).await;
    match marked {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("the replica could not be remembered: {error}")),
        Err(error) => Err(format!("the replica could not be remembered: {error}")),
    }
}

fn link(worker: &Rc<Worker>, connection: &Rc<Connection>, theirs: &Hello, inbox: inbox::Client) {
    let peer = worker.service.hub.peers.peer(theirs.node);
    tracing::info!(
        peer = %theirs.node,
        at = %connection.from,
        incarnation = theirs.incarnation,
        "linked"
    );
    connection.set_link(Link::start(&worker.service, peer, Rc::clone(&connection.wire), inbox));
}
