//! Who may link with whom.

use kvorum_node::{ClusterId, Identity};
use kvorum_replication::{NodeId, Protocol, Role};

use crate::convert::peer::{Hello, VERSION};
use crate::server::Service;

/// What a node takes over from the other's introduction before they talk.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Adoption {
    /// The cluster to join.
    pub(super) cluster: Option<ClusterId>,
    /// Who belongs to it, if that has changed.
    pub(super) members: Option<Vec<(NodeId, String)>>,
}

/// How this node introduces itself.
pub(super) fn hello(service: &Service) -> Hello {
    let identity = service.identity.identity();
    let (members, joined) = match identity.role {
        Role::Coordinator => (identity.members, identity.joined),
        Role::Replica => (Vec::new(), Vec::new()),
    };
    Hello {
        version: VERSION,
        protocol: service.door.protocol(),
        life: 0,
        window: 0,
        cluster: identity.cluster,
        node: identity.node,
        incarnation: service.incarnation,
        address: service.hub.address.clone(),
        members,
        joined: joined.into_iter().map(|node| (node, 0)).collect(),
    }
}

/// Whether this node links with the one that introduced itself; why not, in words for both sides.
pub(super) fn admit(protocol: Protocol, own: &Identity, other: &Hello) -> Result<Adoption, String> {
    if other.version.abs_diff(VERSION) > 1 {
        return Err(format!(
            "{} speaks version {} of the peer protocol, and {} version {VERSION}; upgrade the \
             older one, one version at a time",
            other.node, other.version, own.node
        ));
    }
    if other.protocol != protocol {
        return Err(format!(
            "{} runs {}, and {} {protocol}; all nodes of a cluster run the same",
            other.node, other.protocol, own.node
        ));
    }
    if other.node == own.node {
        return Err(format!("both sides are {}; each node needs a number of its own", own.node));
    }
    let from_coordinator = other.node == NodeId::COORDINATOR;
    let mut adoption = Adoption::default();
    match (own.cluster, other.cluster) {
        (Some(ours), Some(theirs)) if ours != theirs => {
            return Err(format!(
                "{} belongs to cluster {ours}, and {} to cluster {theirs}; check the addresses, or \
                 give the node that moved an empty data directory",
                own.node, other.node
            ));
        }
        (Some(_), Some(_)) => {}
        (None, Some(theirs)) if from_coordinator => {
            if other.joined.iter().any(|(node, _)| *node == own.node) {
                return Err(lost_its_disk(own.node));
            }
            adoption.cluster = Some(theirs);
        }
        (Some(_), None) if own.role == Role::Coordinator => {
            if own.joined.contains(&other.node) {
                return Err(lost_its_disk(other.node));
            }
        }
        (None, Some(_) | None) => {
            return Err(format!("{} has met no coordinator yet", own.node));
        }
        (Some(_), None) => {
            return Err(format!("{} has met no coordinator yet", other.node));
        }
    }
    if from_coordinator && own.role == Role::Replica {
        if !other.members.iter().any(|(node, _)| *node == own.node) {
            return Err(format!(
                "the coordinator does not name {} among its replicas; start it with --replica {}=...",
                own.node, own.node.0
            ));
        }
        if other.members != own.members {
            adoption.members = Some(other.members.clone());
        }
    } else if !own.members.iter().any(|(node, _)| *node == other.node) {
        return Err(format!(
            "{} does not belong to the cluster that {} knows",
            other.node, own.node
        ));
    }
    Ok(adoption)
}

/// An empty disk under an old number: it voted for rows that it does not have any more, and would
/// say of each that there is no such key.
fn lost_its_disk(node: NodeId) -> String {
    format!(
        "{node} belonged to this cluster before, and its data directory is empty now: the rows and \
         the promises on its disk are gone, so it may not serve; give it its data directory back"
    )
}
