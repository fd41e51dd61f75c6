//! The status of a cluster that commits in two phases: who takes part, and how far each has come.

use std::collections::BTreeMap;

use comfy_table::Table;
use kvorum::view::{Seat, Views};
use serde_json::{Value as Json, json};

use super::{log, row_of_absent, uptime};
use crate::members::Member;

const HEADER: [&str; 11] = [
    "ROLE",
    "ID",
    "ADDRESS",
    "STATE",
    "INCARNATION",
    "LOG",
    "APPLIED",
    "IN FLIGHT",
    "IN DOUBT",
    "LOCKS",
    "UPTIME",
];

/// The columns of numbers.
const NUMBERS: [usize; 7] = [1, 4, 6, 7, 8, 9, 10];

/// What the processes say of the view that answered.
pub(super) struct Standings {
    views: Option<Views>,
    seats: BTreeMap<u32, Seat>,
}

impl Standings {
    pub(super) fn of(members: &[Member]) -> Self {
        let answers = || {
            members.iter().filter_map(|member| Some((member.node, &member.answer.as_ref().ok()?.1)))
        };
        let seats = answers().filter_map(|(node, status)| Some((node, Seat::of(status)?)));
        let views = answers().find_map(|(_, status)| Views::of(status));
        Self { views, seats: seats.collect() }
    }

    pub(super) fn table(&self, members: &[Member]) -> Table {
        super::table(members, HEADER, &NUMBERS, |member| self.row(member))
    }

    fn row(&self, member: &Member) -> [String; 11] {
        let Ok((_, status)) = &member.answer else { return row_of_absent(member) };
        let state = match self.seats.get(&member.node) {
            Some(seat) if seat.outside => "outside",
            Some(_) | None => "up",
        };
        [
            status.role.clone(),
            member.node.to_string(),
            member.address.clone(),
            state.to_owned(),
            status.incarnation.to_string(),
            log(status),
            self.applied(member),
            status.in_flight.to_string(),
            status.in_doubt.to_string(),
            status.locks.to_string(),
            uptime(status.uptime_millis),
        ]
    }

    /// How far a process has come; of a replica that is not let in, also by how much it lags.
    fn applied(&self, member: &Member) -> String {
        match (self.seats.get(&member.node), &self.views) {
            (Some(seat), Some(_)) if seat.outside => {
                format!("{} ({} behind)", seat.applied, self.lag(seat))
            }
            (Some(seat), _) => seat.applied.to_string(),
            (None, Some(views)) if !member.is_replica() => views.commits.to_string(),
            (None, _) => "-".to_owned(),
        }
    }

    /// How many writes a replica misses. They were asked one after the other, so a replica that is
    /// well may seem to be ahead.
    fn lag(&self, seat: &Seat) -> u64 {
        self.views.map_or(0, |views| views.commits.saturating_sub(seat.applied))
    }

    /// What to do about a cluster that is none yet, or what it goes on without.
    pub(super) fn words(&self, members: &[Member]) -> Option<String> {
        match members {
            [Member { node, answer: Ok((_, status)), .. }] if status.cluster.is_empty() => {
                return Some(format!(
                    "replica {node} has met no coordinator yet: start one that names it with \
                     --replica"
                ));
            }
            _ => {}
        }
        let views = self.views.filter(|views| views.outside > 0)?;
        let all = views.members + views.outside;
        let mut words = format!(
            "writes go on without {} of {all} replicas since view {}",
            views.outside, views.number
        );
        let gone = members.iter().filter(|member| {
            let is_outside = self.seats.get(&member.node).is_none_or(|seat| seat.outside);
            member.is_replica() && (is_outside || has_not_joined(member))
        });
        for member in gone {
            words += &match self.seats.get(&member.node) {
                _ if has_not_joined(member) => format!(
                    "\nreplica {} runs, and has not joined the cluster; if it was started without \
                     --rejoin, empty its data directory, and start it again with the flag",
                    member.node
                ),
                Some(seat) => {
                    format!("\nreplica {} catches up: {} behind", member.node, self.lag(seat))
                }
                None => format!("\nreplica {} is down", member.node),
            };
        }
        Some(words)
    }

    /// For programs.
    pub(super) fn add_to(&self, status: &mut Json) {
        if let Some(views) = self.views {
            status["views"] = json!({
                "number": views.number,
                "founded": views.founded,
                "members": views.members,
                "outside": views.outside,
                "excluded": views.excluded,
                "rejoined": views.rejoined,
                "commits": views.commits,
            });
        }
        for process in status["processes"].as_array_mut().into_iter().flatten() {
            let node = process["id"].as_u64().and_then(|node| u32::try_from(node).ok());
            if let Some(seat) = node.and_then(|node| self.seats.get(&node)) {
                process["view"] = json!({
                    "number": seat.view,
                    "outside": seat.outside,
                    "may_read": seat.may_read,
                    "applied": seat.applied,
                    "behind": self.lag(seat),
                });
            }
        }
    }
}

/// Whether it answers and knows of no cluster yet: one that was just started on an empty directory, or
/// one that the coordinator refuses, since it was started there without `--rejoin`.
fn has_not_joined(member: &Member) -> bool {
    member.answer.as_ref().is_ok_and(|(_, status)| status.cluster.is_empty())
}
