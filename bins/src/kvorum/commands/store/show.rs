//! How findings and extents are shown.

use kvorum_node::offline::Whose;
use kvorum_replication::Protocol;
use kvorum_storage::inspect::{Finding, Grade, Lost};
use kvorum_storage::{LogExtent, LostKeys};
use serde_json::{Map, Value as Json, json};

use crate::text::{quoted, set_field};

/// Whose a directory is, in a few words.
pub(super) fn whose(whose: &Whose) -> String {
    match whose {
        Whose::Node(identity) => {
            let cluster = identity.cluster.map(|cluster| format!(" of cluster {cluster}"));
            let (role, node) = (identity.role, identity.node);
            let cluster = cluster.unwrap_or_else(|| ", of no cluster yet".to_owned());
            let protocol = match identity.protocol {
                Protocol::TwoPhase => String::new(),
                protocol => format!(", under {protocol}"),
            };
            let life = match identity.life {
                0 => String::new(),
                life => format!(", in its life {life}"),
            };
            format!("{role} {node}{cluster}{protocol}{life}")
        }
        Whose::Lost { kind, .. } => format!("{} of unknown identity", kind.role),
        Whose::Nobody => "a store that no node runs on".to_owned(),
    }
}

pub(super) fn whose_json(whose: &Whose) -> Json {
    match whose {
        Whose::Node(identity) => json!({
            "role": identity.role.to_string(),
            "id": identity.node.0,
            "cluster": identity.cluster.map(|cluster| cluster.to_string()),
            "protocol": identity.protocol.to_string(),
            "life": identity.life,
        }),
        Whose::Lost { kind, .. } => json!({"role": kind.role.to_string()}),
        Whose::Nobody => Json::Null,
    }
}

pub(super) fn grade(grade: Grade) -> &'static str {
    match grade {
        Grade::Damage => "damage",
        Grade::Torn => "torn",
        Grade::Leftover => "leftover",
        Grade::Unknown => "unknown",
    }
}

/// A finding's file, place and flaw, in one line.
pub(super) fn finding(finding: &Finding) -> String {
    let Finding { grade: how, file, offset, what, .. } = finding;
    let file = file.display();
    match *offset {
        0 => format!("{:<8} {file}: {what}", grade(*how)),
        offset => format!("{:<8} {file}: byte {offset}: {what}", grade(*how)),
    }
}

/// What a finding costs, and what to do about it.
pub(super) fn remedy(finding: &Finding) -> String {
    match (finding.grade, &finding.lost) {
        (Grade::Torn, _) => "nothing is lost: nobody was told that it was written; the next start \
                             cuts it"
            .to_owned(),
        (Grade::Leftover, _) => "nothing is lost: what is written next replaces it".to_owned(),
        (Grade::Unknown, _) => "left alone".to_owned(),
        (Grade::Damage, Lost::Nothing) => "nothing is lost: kvorum store repair makes it \
                                           again from the rest"
            .to_owned(),
        (Grade::Damage, Lost::Keys(keys)) => {
            format!("lost here: rows {}; kvorum store repair saves the others", range(keys))
        }
        (Grade::Damage, Lost::Records { positions, open_ended }) => {
            format!(
                "lost here: {}; kvorum store repair saves what stands before",
                records(positions, *open_ended)
            )
        }
        (Grade::Damage, Lost::File) => "cannot be made again: take the file from a copy of the \
                                        directory, or give this node's work to a new cluster"
            .to_owned(),
    }
}

/// Records by their positions.
pub(super) fn records(positions: &std::ops::Range<u64>, open_ended: bool) -> String {
    let last = positions.end.saturating_sub(1);
    match (positions.end.saturating_sub(positions.start), open_ended) {
        (0, _) => "an unknown number of records".to_owned(),
        (1, false) => format!("record {last}"),
        (1, true) => format!("record {last} and perhaps more"),
        (_, false) => format!("records {} to {last}", positions.start),
        (_, true) => format!("records {} to {last} and perhaps more", positions.start),
    }
}

/// Between which keys.
pub(super) fn range(keys: &LostKeys) -> String {
    match &keys.to {
        Some(to) => format!("from {} to {}", quoted(&keys.from), quoted(to)),
        None => format!("from {} on", quoted(&keys.from)),
    }
}

/// What was skipped, for a warning.
pub(super) fn lost_keys(keys: &LostKeys) -> String {
    let LostKeys { file, offset, why, .. } = keys;
    format!(
        "skipped {}, byte {offset}: {why}: rows {} may be missing or old",
        file.display(),
        range(keys)
    )
}

pub(super) fn finding_json(finding: &Finding) -> Json {
    let lost = match &finding.lost {
        Lost::Nothing => json!({"kind": "nothing"}),
        Lost::Keys(keys) => lost_keys_json(keys),
        Lost::Records { positions, open_ended } => json!({
            "kind": "records",
            "first": positions.start,
            "last": positions.end.saturating_sub(1),
            "more": open_ended,
        }),
        Lost::File => json!({"kind": "file"}),
    };
    json!({
        "grade": grade(finding.grade),
        "file": finding.file.display().to_string(),
        "offset": finding.offset,
        "what": finding.what,
        "lost": lost,
        "remedy": remedy(finding),
    })
}

fn lost_keys_json(keys: &LostKeys) -> Json {
    let mut object = Map::from_iter([("kind".to_owned(), Json::from("keys"))]);
    set_field(&mut object, "from", &keys.from);
    if let Some(to) = &keys.to {
        set_field(&mut object, "to", to);
    }
    Json::Object(object)
}

/// How far a log goes, in words.
pub(super) fn extent(log: &LogExtent) -> String {
    let files = count(log.files as u64, "file");
    let first = log.first.map_or(1, |first| first.0);
    match log.records {
        0 => format!("{files}, no records, the next is {first}"),
        records => format!(
            "{files}, {} from {first} to {} in {}",
            count(records, "record"),
            log.last,
            count(log.frames, "frame")
        ),
    }
}

pub(super) fn extent_json(log: &LogExtent) -> Json {
    json!({
        "files": log.files,
        "bytes": log.bytes,
        "frame_bytes": log.frame_bytes,
        "frames": log.frames,
        "records": log.records,
        "first": log.first.map(|first| first.0),
        "last": log.last.0,
    })
}

/// `1 file`, `2 files`.
pub(super) fn count(number: u64, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        many => format!("{many} {what}s"),
    }
}
