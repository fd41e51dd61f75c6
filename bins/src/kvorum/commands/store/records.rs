//! How records of a log are shown.

use kvorum_node::offline::{Meaning, NodeKind, meaning};
use kvorum_replication::Write;
use kvorum_storage::inspect::{Layout, own_batch};
use kvorum_storage::{LogDamage, Operation, ReplayedRecord};
use serde_json::{Map, Value as Json, json};

use super::show;
use crate::text::{quoted, set_field};

/// Reads a record as its owner does.
pub(super) fn read(
    node: Option<NodeKind>,
    layout: Layout,
    record: &ReplayedRecord,
) -> Result<Meaning, String> {
    match (node, layout) {
        (Some(node), _) => meaning(node, record.kind, &record.payload),
        (None, Layout::Store) => {
            let batch = own_batch(record)?.unwrap_or_default();
            let write = |operation: &Operation| match operation {
                Operation::Put { key, value } => Write::Put(key.clone(), value.clone()),
                Operation::Delete { key } => Write::Delete(key.clone()),
            };
            let writes = batch.operations().map(write).collect();
            Ok(Meaning { name: "batch", writes, ..Meaning::default() })
        }
        // What an unknown owner's records mean nobody here knows.
        (None, Layout::Log) => {
            let fields = vec![
                ("kind", record.kind.to_string()),
                ("bytes", record.payload.len().to_string()),
            ];
            Ok(Meaning { name: "record", fields, ..Meaning::default() })
        }
    }
}

/// Whether the record writes a key that begins so.
pub(super) fn concerns(meaning: &Meaning, prefix: &[u8]) -> bool {
    prefix.is_empty() || meaning.writes.iter().any(|write| write.key().starts_with(prefix))
}

/// On one line.
pub(super) fn text(record: &ReplayedRecord, meaning: &Meaning) -> String {
    let mut line = format!("{:>8}  {:<15}", record.position.0, meaning.name);
    if let Some(txn) = meaning.txn {
        line.push_str(&format!(" {txn}"));
    }
    for (name, value) in &meaning.fields {
        line.push_str(&format!(" {name}={value}"));
    }
    for write in &meaning.writes {
        line.push_str(&match write {
            Write::Put(key, value) => format!(" put {} {}", quoted(key), quoted(value)),
            Write::Delete(key) => format!(" del {}", quoted(key)),
        });
    }
    for key in &meaning.checked {
        line.push_str(&format!(" check {}", quoted(key)));
    }
    line
}

pub(super) fn json(record: &ReplayedRecord, meaning: &Meaning) -> Map<String, Json> {
    let mut object = Map::new();
    object.insert("position".to_owned(), Json::from(record.position.0));
    object.insert("kind".to_owned(), Json::from(record.kind));
    object.insert("name".to_owned(), Json::from(meaning.name));
    if let Some(txn) = meaning.txn {
        object.insert("txn".to_owned(), Json::from(txn.to_string()));
    }
    for (name, value) in &meaning.fields {
        let value =
            value.parse().map_or_else(|_| Json::from(value.as_str()), |n: u64| Json::from(n));
        object.insert(name.replace('-', "_"), value);
    }
    if !meaning.writes.is_empty() {
        object.insert("writes".to_owned(), meaning.writes.iter().map(write_json).collect());
    }
    if !meaning.checked.is_empty() {
        let key = |key: &bytes::Bytes| {
            let mut object = Map::new();
            set_field(&mut object, "key", key);
            Json::Object(object)
        };
        object.insert("checked".to_owned(), meaning.checked.iter().map(key).collect());
    }
    object
}

fn write_json(write: &Write) -> Json {
    let op = match write {
        Write::Put(..) => "put",
        Write::Delete(_) => "del",
    };
    let Json::Object(mut object) = json!({"op": op}) else {
        unreachable!("it was written as an object")
    };
    set_field(&mut object, "key", write.key());
    if let Write::Put(_, value) = write {
        set_field(&mut object, "value", value);
    }
    Json::Object(object)
}

/// What cannot be read of a log, for a warning.
pub(super) fn damage(damage: &LogDamage) -> String {
    let LogDamage { file, offset, what, lost, open_ended } = damage;
    let lost = match (lost.is_empty(), open_ended) {
        (true, false) => "nothing is lost by it".to_owned(),
        _ => format!("skipped {}", show::records(lost, *open_ended)),
    };
    format!("{}: byte {offset}: {what}: {lost}", file.display())
}
