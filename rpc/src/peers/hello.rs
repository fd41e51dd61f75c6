//! Who may link with whom.

use kvorum_node::{ClusterId, Identity};
use kvorum_replication::{NodeId, Protocol, Role};

use super::equals;
use crate::convert::peer::{Hello, VERSION};
use crate::server::Service;

/// What a node takes over from the other's introduction, durably, before they talk.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// The cluster to join.
    pub(super) cluster: Option<ClusterId>,
    /// Who belongs to it, if that has changed.
    pub(super) members: Option<Vec<(NodeId, String)>>,
    /// Who has joined it, and in which life.
    pub(super) joined: Vec<(NodeId, u64)>,
    /// The other is new, and this node is to found the cluster once it has met all. Not durable.
    pub(super) met: bool,
}

impl Changes {
    pub(super) fn are_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What two nodes that introduced themselves do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Talk.
    Link,
    /// Nothing is wrong, but one of them has to join the cluster before.
    NotYet,
}

/// How this node introduces itself.
pub(super) fn hello(service: &Service) -> Hello {
    let identity = service.identity.identity();
    let (members, joined) = match (identity.protocol, identity.role) {
        (Protocol::TwoPhase, Role::Replica) => (Vec::new(), Vec::new()),
        (Protocol::TwoPhase, Role::Coordinator) | (Protocol::AnyReplica | Protocol::Paxos, _) => {
            (identity.members, identity.joined)
        }
    };
    Hello {
        version: VERSION,
        protocol: identity.protocol,
        cluster: identity.cluster,
        node: identity.node,
        life: identity.life,
        incarnation: service.incarnation,
        window: identity.window,
        address: service.hub.address.clone(),
        members,
        joined,
    }
}

/// Whether this node links with the one that introduced itself, and what it takes over; or why it
/// will not, in words for both sides.
pub(super) fn judge(own: &Identity, other: &Hello) -> Result<(Changes, Verdict), String> {
    if other.version.abs_diff(VERSION) > 1 {
        return Err(format!(
            "{} speaks version {} of the peer protocol, and {} version {VERSION}; upgrade the \
             older one, one version at a time",
            other.node, other.version, own.node
        ));
    }
    if other.protocol != own.protocol {
        return Err(format!(
            "{} runs {}, and {} {}; all nodes of a cluster run the same",
            other.node, other.protocol, own.node, own.protocol
        ));
    }
    if other.node == own.node {
        return Err(format!("both sides are {}; each node needs a number of its own", own.node));
    }
    match own.protocol {
        Protocol::TwoPhase => Ok((with_coordinator(own, other)?, Verdict::Link)),
        Protocol::AnyReplica | Protocol::Paxos => equals::judge(own, other),
    }
}

/// In a cluster with a coordinator, which founds it and says who belongs to it.
fn with_coordinator(own: &Identity, other: &Hello) -> Result<Changes, String> {
    let from_coordinator = other.node == NodeId::COORDINATOR;
    let mut changes = Changes::default();
    match (own.cluster, other.cluster) {
        (Some(ours), Some(theirs)) if ours != theirs => {
            return Err(of_another_cluster((own.node, ours), (other.node, theirs)));
        }
        (Some(_), Some(_)) => {
            // Remembered before a word is said of any transaction. One that has no cluster yet has
            // not joined: it does when the coordinator introduces itself to it.
            if own.role == Role::Coordinator && own.joined_in(other.node).is_none() {
                changes.joined.push((other.node, other.life));
            }
        }
        (None, Some(theirs)) if from_coordinator => {
            if other.joined_in(own.node).is_some() {
                return Err(lost_its_disk(own.node, own.protocol));
            }
            changes.cluster = Some(theirs);
        }
        (Some(_), None) if own.role == Role::Coordinator => {
            if own.joined_in(other.node).is_some() {
                return Err(lost_its_disk(other.node, own.protocol));
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
            changes.members = Some(other.members.clone());
        }
    } else if !own.members.iter().any(|(node, _)| *node == other.node) {
        return Err(format!(
            "{} does not belong to the cluster that {} knows",
            other.node, own.node
        ));
    }
    Ok(changes)
}

pub(super) fn of_another_cluster(own: (NodeId, ClusterId), other: (NodeId, ClusterId)) -> String {
    format!(
        "{} belongs to cluster {}, and {} to cluster {}; check the addresses, or give the node that \
         moved an empty data directory",
        own.0, own.1, other.0, other.1
    )
}

/// An empty disk under an old number: it voted for rows that it does not have any more, and would
/// say of each that there is no such key.
pub(super) fn lost_its_disk(node: NodeId, protocol: Protocol) -> String {
    let remedy = match protocol {
        Protocol::TwoPhase | Protocol::AnyReplica => "give it its data directory back",
        Protocol::Paxos => {
            "give it its data directory back, or start it on an empty one with --rejoin, to come \
             back as a new replica"
        }
    };
    format!(
        "{node} belonged to this cluster before, and its data directory is empty now: the rows and \
         the promises on its disk are gone, so it may not serve; {remedy}"
    )
}
