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
        (Protocol::TwoPhase, Role::Coordinator) => {
            // Of all that there ever were, those that belong to it now.
            let is_member = |node| identity.members.iter().any(|(member, _)| *member == node);
            let joined = identity.joined.iter().filter(|(node, _)| is_member(*node));
            (identity.members.clone(), joined.copied().collect())
        }
        (Protocol::AnyReplica | Protocol::Paxos, _) => (identity.members, identity.joined),
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
        Protocol::TwoPhase => with_coordinator(own, other),
        Protocol::AnyReplica | Protocol::Paxos => equals::judge(own, other),
    }
}

/// In a cluster with a coordinator, which founds it and says who belongs to it. A replica takes others
/// of its cluster also if it does not know them yet: one that was added may have heard of it before
/// the others, and is to ask them for what it misses. It refuses those that belonged to it.
fn with_coordinator(own: &Identity, other: &Hello) -> Result<(Changes, Verdict), String> {
    let from_coordinator = other.node == NodeId::COORDINATOR;
    let mut changes = Changes::default();
    match (own.cluster, other.cluster) {
        (Some(ours), Some(theirs)) if ours != theirs => {
            return Err(of_another_cluster((own.node, ours), (other.node, theirs)));
        }
        (Some(_), Some(_)) => {
            let known = own.joined_in(other.node);
            if known.is_some_and(|known| other.life < known) {
                return Err(outlived(other.node));
            }
            if other.joined_in(own.node).is_some_and(|known| own.life < known) {
                return Err(outlived(own.node));
            }
            // Remembered before a word is said of any transaction. One that has no cluster yet has
            // not joined: it does when the coordinator introduces itself to it.
            if own.role == Role::Coordinator && known != Some(other.life) {
                changes.joined.push((other.node, other.life));
            }
        }
        (None, Some(theirs)) if from_coordinator => {
            if other.joined_in(own.node).is_some_and(|known| own.life <= known) {
                return Err(lost_its_disk(own.node, own.protocol));
            }
            changes.cluster = Some(theirs);
        }
        (Some(_), None) if own.role == Role::Coordinator => {
            if own.joined_in(other.node).is_some_and(|known| other.life <= known) {
                return Err(lost_its_disk(other.node, own.protocol));
            }
        }
        // Two replicas, one of which has met no coordinator.
        (None, Some(_) | None) | (Some(_), None) => return Ok((changes, Verdict::NotYet)),
    }
    if from_coordinator && own.role == Role::Replica {
        if !other.members.iter().any(|(node, _)| *node == own.node) {
            return Err(format!(
                "the coordinator does not count {} among its replicas: it was removed, or never \
                 added; kvorum admin replica add has it know a new one",
                own.node
            ));
        }
        if other.members != own.members {
            changes.members = Some(other.members.clone());
        }
        // So that it does not take an old disk for one of them either.
        let is_news = |(node, life): &&(NodeId, u64)| own.joined_in(*node) < Some(*life);
        changes.joined.extend(other.joined.iter().filter(is_news));
    } else if !own.members.iter().any(|(node, _)| *node == other.node)
        && (own.role == Role::Coordinator || own.joined_in(other.node).is_some())
    {
        return Err(format!(
            "{} does not belong to the cluster that {} knows",
            other.node, own.node
        ));
    }
    Ok((changes, Verdict::Link))
}

pub(super) fn of_another_cluster(own: (NodeId, ClusterId), other: (NodeId, ClusterId)) -> String {
    format!(
        "{} belongs to cluster {}, and {} to cluster {}; check the addresses, or give the node that \
         moved an empty data directory",
        own.0, own.1, other.0, other.1
    )
}

/// Another disk has taken the place of this one, which holds promises that are nobody's by now.
pub(super) fn outlived(node: NodeId) -> String {
    format!(
        "{node} has come back in a later life since, with another data directory; this one is not \
         to be used any more"
    )
}

/// An empty disk under an old number: it voted for rows that it does not have any more, and would
/// say of each that there is no such key. Or a new one that was added to a cluster that has rows.
pub(super) fn lost_its_disk(node: NodeId, protocol: Protocol) -> String {
    let remedy = match protocol {
        Protocol::AnyReplica => "give it its data directory back",
        Protocol::TwoPhase | Protocol::Paxos => {
            "give it its data directory back, or start it on an empty one with --rejoin, to come \
             back as a new replica"
        }
    };
    format!(
        "{node} belonged to this cluster before, and its data directory is empty now: the rows and \
         the promises on its disk are gone, so it may not serve; {remedy}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: ClusterId = ClusterId([7; 16]);

    fn at(node: u32) -> (NodeId, String) {
        (NodeId(node), format!("at:{node}"))
    }

    /// A coordinator of replicas 1 to 3, which joined in these lives.
    fn coordinator(joined: &[(u32, u64)]) -> Identity {
        Identity {
            role: Role::Coordinator,
            members: (0..=3).map(at).collect(),
            joined: joined.iter().map(|(node, life)| (NodeId(*node), *life)).collect(),
            ..replica(0, 0, Some(OURS))
        }
    }

    fn replica(node: u32, life: u64, cluster: Option<ClusterId>) -> Identity {
        Identity {
            protocol: Protocol::TwoPhase,
            role: Role::Replica,
            node: NodeId(node),
            life,
            window: 0,
            cluster,
            members: Vec::new(),
            joined: Vec::new(),
        }
    }

    fn introduction(of: &Identity) -> Hello {
        let is_coordinator = of.role == Role::Coordinator;
        let of = of.clone();
        Hello {
            version: VERSION,
            protocol: of.protocol,
            cluster: of.cluster,
            node: of.node,
            life: of.life,
            incarnation: 1,
            window: of.window,
            address: String::new(),
            members: if is_coordinator { of.members } else { Vec::new() },
            joined: if is_coordinator { of.joined } else { Vec::new() },
        }
    }

    /// What each of two says of the other: what it takes over, or why it does not link.
    fn check(own: &Identity, other: &Identity, expected: Result<Changes, &str>) {
        let judged = judge(own, &introduction(other));
        match (judged, expected) {
            (Ok((changes, verdict)), Ok(expected)) => {
                assert_eq!((changes, verdict), (expected, Verdict::Link));
            }
            (Err(reason), Err(words)) => assert!(reason.contains(words), "{reason}"),
            (judged, expected) => panic!("{judged:?}, and not {expected:?}"),
        }
    }

    fn joined(node: u32, life: u64) -> Vec<(NodeId, u64)> {
        vec![(NodeId(node), life)]
    }

    #[test]
    fn a_replica_without_a_cluster_is_taken_for_what_it_is() {
        let joins = |known: &[(u32, u64)]| Changes {
            cluster: Some(OURS),
            members: Some((0..=3).map(at).collect()),
            joined: known.iter().map(|(node, life)| (NodeId(*node), *life)).collect(),
            ..Changes::default()
        };
        // Never seen: also one that says that it comes to data.
        for life in [0, 5] {
            check(&replica(3, life, None), &coordinator(&[]), Ok(joins(&[])));
            check(&coordinator(&[]), &replica(3, life, None), Ok(Changes::default()));
        }
        // It was there, or was added: empty, it has to begin a later life.
        for (known, life) in [(0, 0), (5, 0), (5, 4), (5, 5)] {
            let words = "start it on an empty one with --rejoin";
            check(&replica(3, life, None), &coordinator(&[(3, known)]), Err(words));
            check(&coordinator(&[(3, known)]), &replica(3, life, None), Err(words));
        }
        for (known, life) in [(0, 5), (5, 6)] {
            let knows = [(3, known)];
            check(&replica(3, life, None), &coordinator(&knows), Ok(joins(&knows)));
            check(&coordinator(&knows), &replica(3, life, None), Ok(Changes::default()));
        }
    }

    #[test]
    fn a_life_is_remembered_and_an_older_one_refused() {
        let lives = |known: &[(u32, u64)], life| {
            let expected = Changes { joined: joined(3, life), ..Changes::default() };
            check(&coordinator(known), &replica(3, life, Some(OURS)), Ok(expected));
        };
        lives(&[], 0);
        lives(&[], 5);
        lives(&[(3, 0)], 5);
        let same = &replica(3, 5, Some(OURS));
        check(&coordinator(&[(3, 5)]), same, Ok(Changes::default()));
        // The disk that was lost is found again.
        let words = "a later life since";
        check(&coordinator(&[(3, 5)]), &replica(3, 0, Some(OURS)), Err(words));
        check(&replica(3, 0, Some(OURS)), &coordinator(&[(3, 5)]), Err(words));
        let (members, joined) = ((0..=3).map(at).collect(), joined(3, 5));
        let told = Identity { members, joined, ..replica(1, 0, Some(OURS)) };
        check(&told, &replica(3, 0, Some(OURS)), Err(words));
        check(&told, same, Ok(Changes::default()));
    }

    #[test]
    fn replicas_hear_who_belongs_to_the_cluster_and_in_which_life() {
        let knows = Identity {
            members: (0..=2).map(at).collect(),
            joined: vec![(NodeId(1), 0), (NodeId(3), 0)],
            ..replica(2, 0, Some(OURS))
        };
        let expected = Changes {
            members: Some((0..=3).map(at).collect()),
            joined: vec![(NodeId(2), 0), (NodeId(3), 5)],
            ..Changes::default()
        };
        check(&knows, &coordinator(&[(1, 0), (2, 0), (3, 5)]), Ok(expected));
    }

    #[test]
    fn replicas_of_a_cluster_link_and_others_do_not() {
        let (one, four) = (replica(1, 0, Some(OURS)), replica(4, 5, Some(OURS)));
        // Each may have heard of the other, or not yet.
        check(&one, &four, Ok(Changes::default()));
        check(&four, &one, Ok(Changes::default()));
        let removed = Identity { joined: joined(4, 5), ..one.clone() };
        check(&removed, &four, Err("does not belong to the cluster"));
        let other = replica(4, 0, Some(ClusterId([8; 16])));
        check(&one, &other, Err("belongs to cluster"));
        let new = replica(4, 0, None);
        for (own, other) in [(&one, &new), (&new, &one), (&new, &replica(5, 0, None))] {
            let not_yet = Ok((Changes::default(), Verdict::NotYet));
            assert_eq!(judge(own, &introduction(other)), not_yet);
        }
        // With the coordinator only those that it counts.
        check(&coordinator(&[]), &four, Err("does not belong to the cluster"));
        check(&four, &coordinator(&[]), Err("it was removed, or never added"));
    }
}
