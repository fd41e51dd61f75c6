//! The status of a cluster that commits in two phases.

use comfy_table::Table;

use super::{log, row_of_absent, uptime};
use crate::members::Member;

const HEADER: [&str; 10] = [
    "ROLE",
    "ID",
    "ADDRESS",
    "STATE",
    "INCARNATION",
    "LOG",
    "IN FLIGHT",
    "IN DOUBT",
    "LOCKS",
    "UPTIME",
];

/// The columns of numbers.
const NUMBERS: [usize; 6] = [1, 4, 6, 7, 8, 9];

pub(super) fn table(members: &[Member]) -> Table {
    super::table(members, HEADER, &NUMBERS, row)
}

fn row(member: &Member) -> [String; 10] {
    let Ok((_, status)) = &member.answer else { return row_of_absent(member) };
    [
        status.role.clone(),
        member.node.to_string(),
        member.address.clone(),
        "up".to_owned(),
        status.incarnation.to_string(),
        log(status),
        status.in_flight.to_string(),
        status.in_doubt.to_string(),
        status.locks.to_string(),
        uptime(status.uptime_millis),
    ]
}

/// What to do about a cluster that is none yet.
pub(super) fn words(members: &[Member]) -> Option<String> {
    match members {
        [Member { node, answer: Ok((_, status)), .. }] if status.cluster.is_empty() => {
            Some(format!(
                "replica {node} has met no coordinator yet: start one that names it with --replica"
            ))
        }
        _ => None,
    }
}
