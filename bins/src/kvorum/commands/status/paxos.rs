//! The status of a cluster of Multi-Paxos: who leads, and how far each replica has come.

use std::collections::BTreeMap;

use comfy_table::Table;
use kvorum::standing::Standing;
use serde_json::{Value as Json, json};

use super::{log, row_of_absent, uptime};
use crate::members::Member;

const HEADER: [&str; 10] = [
    "ROLE",
    "ID",
    "ADDRESS",
    "STATE",
    "BALLOT",
    "APPLIED",
    "INCARNATION",
    "LOG",
    "IN FLIGHT",
    "UPTIME",
];

/// The columns of numbers.
const NUMBERS: [usize; 6] = [1, 4, 5, 6, 8, 9];

/// Where the replicas that answered stand.
pub(super) struct Replicas {
    standings: BTreeMap<u32, Standing>,
    leader: Option<u32>,
}

impl Replicas {
    /// `None` if nobody who answered is a replica of Multi-Paxos.
    pub(super) fn of(members: &[Member]) -> Option<Self> {
        let standings = members.iter().filter_map(|member| {
            let (_, status) = member.answer.as_ref().ok()?;
            Some((member.node, Standing::of(status)?))
        });
        let standings: BTreeMap<u32, Standing> = standings.collect();
        let leader = Standing::leader(standings.clone()).map(|(leader, _)| leader);
        (!standings.is_empty()).then_some(Self { standings, leader })
    }

    pub(super) fn table(&self, members: &[Member]) -> Table {
        super::table(members, HEADER, &NUMBERS, |member| self.row(member))
    }

    fn row(&self, member: &Member) -> [String; 10] {
        let standing = self.standings.get(&member.node);
        let (Ok((_, status)), Some(standing)) = (&member.answer, standing) else {
            return row_of_absent(member);
        };
        let role = match standing.leader {
            Some(leader) if leader == member.node => "leader",
            Some(_) => "follower",
            None => "replica",
        };
        let ballot = standing.leader.map(|leader| format!("{}.{leader}", standing.ballot));
        [
            role.to_owned(),
            member.node.to_string(),
            member.address.clone(),
            "up".to_owned(),
            ballot.unwrap_or_else(|| "-".to_owned()),
            applied(standing),
            status.incarnation.to_string(),
            log(status),
            status.in_flight.to_string(),
            uptime(status.uptime_millis),
        ]
    }

    /// Who leads, or why nobody does.
    pub(super) fn words(&self, members: &[Member]) -> String {
        let (up, all) = (self.standings.len(), members.len());
        let majority = all / 2 + 1;
        let mut words = match self.leader {
            Some(leader) => format!("replica {leader} leads; {up} of {all} replicas are up"),
            None if up < majority => format!(
                "nobody leads: {up} of {all} replicas are up, and it takes {majority}. Writes are \
                 refused, and reads but for stale ones"
            ),
            None => format!("nobody leads yet; {up} of {all} replicas are up"),
        };
        for (node, _) in self.standings.iter().filter(|(_, standing)| !standing.votes) {
            words += &format!("\nthe votes of replica {node} do not count");
        }
        words
    }

    /// For programs.
    pub(super) fn add_to(&self, status: &mut Json) {
        status["protocol"] = Json::from("paxos");
        status["leader"] = Json::from(self.leader);
        for process in status["processes"].as_array_mut().into_iter().flatten() {
            let node = process["id"].as_u64().and_then(|node| u32::try_from(node).ok());
            if let Some(standing) = node.and_then(|node| self.standings.get(&node)) {
                process["paxos"] = json!({
                    "leader": standing.leader,
                    "ballot": standing.ballot,
                    "promised": standing.promised,
                    "chosen": standing.chosen,
                    "applied": standing.applied,
                    "votes": standing.votes,
                });
            }
        }
    }
}

fn applied(standing: &Standing) -> String {
    match (standing.applied, standing.chosen) {
        (applied, chosen) if applied == chosen => applied.to_string(),
        (applied, chosen) => format!("{applied} ({chosen} chosen)"),
    }
}
