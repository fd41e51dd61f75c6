//! Every process of a cluster, each asked itself.

use futures::future::join_all;
use kvorum_replication::{Happened, NodeId};
use kvorum_rpc::client::{Client, ErrorKind, MemberStatus, ProcessStatus};

use crate::arguments::Global;
use crate::connection::connect_to;
use crate::error::{CommandError, Kind};

/// A process of the cluster, as it answered or as it did not.
pub(crate) struct Member {
    /// Its number.
    pub(crate) node: u32,
    /// Where it listens, as the process that was asked first says.
    pub(crate) address: String,
    /// What it says of itself and a connection to ask more, or why it is down.
    pub(crate) answer: Result<(Client, ProcessStatus), CommandError>,
}

impl Member {
    /// Whether it holds data.
    pub(crate) fn is_replica(&self) -> bool {
        NodeId(self.node) != NodeId::COORDINATOR
    }

    /// `coordinator` or `replica`, as far as its number tells.
    pub(crate) fn role(&self) -> &'static str {
        if self.is_replica() { "replica" } else { "coordinator" }
    }
}

/// The members that the connected process knows, in the order of their numbers.
pub(crate) async fn ask_all(client: &Client, global: &Global) -> Result<Vec<Member>, CommandError> {
    let first = client.status().await?;
    let mut members = first.members.clone();
    if !members.iter().any(|member| member.node == first.node) {
        members.push(MemberStatus { node: first.node, address: first.address.clone(), up: true });
    }
    members.sort_by_key(|member| member.node);
    let answers = members.into_iter().map(async |member| {
        let answer = if member.node == first.node {
            Ok((client.clone(), first.clone()))
        } else {
            ask(&member, &first.cluster, global).await
        };
        Member { node: member.node, address: member.address, answer }
    });
    Ok(join_all(answers).await)
}

async fn ask(
    member: &MemberStatus,
    cluster: &str,
    global: &Global,
) -> Result<(Client, ProcessStatus), CommandError> {
    let client = connect_to(&member.address, global).await?;
    let status = client.status().await?;
    let same_cluster = cluster.is_empty() || status.cluster.is_empty() || status.cluster == cluster;
    if status.node == member.node && same_cluster {
        return Ok((client, status));
    }
    // A port that was free again went to somebody else.
    let (role, node, other) = (&status.role, status.node, &status.cluster);
    Err(CommandError {
        kind: Kind::Cluster(ErrorKind::Refused),
        happened: Happened::No,
        what: format!("another process answers there: {role} {node} of cluster {other}"),
        remedy: String::new(),
    })
}
