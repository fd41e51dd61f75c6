//! Introductions.

use kvorum_node::ClusterId;
use kvorum_replication::{NodeId, Protocol};
use kvorum_schema::peer_capnp as schema;

use super::super::{MEMBERS_MAX, Rejected, check_list, length, short_text};

/// Of `peer.capnp`; a node two versions away is refused.
pub(crate) const VERSION: u32 = 1;

/// How a node introduces itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) version: u32,
    pub(crate) protocol: Protocol,
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) node: NodeId,
    pub(crate) life: u64,
    pub(crate) incarnation: u64,
    pub(crate) window: u64,
    pub(crate) address: String,
    pub(crate) members: Vec<(NodeId, String)>,
    /// Who has belonged to the cluster, and in which life last.
    pub(crate) joined: Vec<(NodeId, u64)>,
}

impl Hello {
    /// In which life, as it says, a node has joined the cluster last.
    pub(crate) fn joined_in(&self, node: NodeId) -> Option<u64> {
        self.joined.iter().find(|(joined, _)| *joined == node).map(|(_, life)| *life)
    }
}

pub(crate) fn read_hello(reader: schema::hello::Reader<'_>) -> Result<Hello, Rejected> {
    let cluster = match reader.get_cluster()? {
        [] => None,
        id => Some(ClusterId(id.try_into().map_err(|_| {
            Rejected::Invalid(format!("a cluster id of {} bytes; they have 16", id.len()))
        })?)),
    };
    let members = reader.get_members()?;
    check_list("members", members.len(), MEMBERS_MAX)?;
    let (joined, lives) = (reader.get_joined()?, reader.get_lives()?);
    check_list("joined replicas", joined.len(), MEMBERS_MAX)?;
    if lives.len() > joined.len() {
        return Err(Rejected::Invalid("more lives than joined replicas".to_owned()));
    }
    let lives = lives.iter().chain(std::iter::repeat(0));
    Ok(Hello {
        version: reader.get_version(),
        protocol: match reader.get_protocol()? {
            schema::Protocol::TwoPhase => Protocol::TwoPhase,
            schema::Protocol::AnyReplica => Protocol::AnyReplica,
            schema::Protocol::Paxos => Protocol::Paxos,
        },
        cluster,
        node: NodeId(reader.get_node()),
        life: reader.get_life(),
        incarnation: reader.get_incarnation(),
        window: reader.get_window(),
        address: short_text(reader.get_address()?)?,
        members: members
            .iter()
            .map(|member| Ok((NodeId(member.get_node()), short_text(member.get_address()?)?)))
            .collect::<Result<_, Rejected>>()?,
        joined: joined.iter().map(NodeId).zip(lives).collect(),
    })
}

pub(crate) fn write_hello(hello: &Hello, mut builder: schema::hello::Builder<'_>) {
    builder.set_version(hello.version);
    builder.set_protocol(match hello.protocol {
        Protocol::TwoPhase => schema::Protocol::TwoPhase,
        Protocol::AnyReplica => schema::Protocol::AnyReplica,
        Protocol::Paxos => schema::Protocol::Paxos,
    });
    if let Some(cluster) = hello.cluster {
        builder.set_cluster(&cluster.0);
    }
    builder.set_node(hello.node.0);
    builder.set_life(hello.life);
    builder.set_incarnation(hello.incarnation);
    builder.set_window(hello.window);
    builder.set_address(&hello.address);
    let count = length(hello.joined.len());
    let mut joined = builder.reborrow().init_joined(count);
    for (index, (node, _)) in (0..).zip(&hello.joined) {
        joined.set(index, node.0);
    }
    let mut lives = builder.reborrow().init_lives(count);
    for (index, (_, life)) in (0..).zip(&hello.joined) {
        lives.set(index, *life);
    }
    let mut members = builder.init_members(length(hello.members.len()));
    for (index, (node, address)) in (0..).zip(&hello.members) {
        let mut member = members.reborrow().get(index);
        member.set_node(node.0);
        member.set_address(address);
    }
}
