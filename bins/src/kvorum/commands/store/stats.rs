//! `store stats`.

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use comfy_table::{CellAlignment, Table, presets};
use kvorum_node::offline::{InDoubt, Offline, Read};
use kvorum_storage::inspect::{Layout, StagedSummary, Summary};
use serde_json::{Map, Value as Json, json};

use super::{corrupt, of_node, open, show};
use crate::error::CommandError;
use crate::output::{Format, Output};
use crate::text::{quoted, set_field};

pub(super) fn stats(output: &mut Output, dir: &Path) -> Result<(), CommandError> {
    let offline = open(dir)?;
    let of_node = |error| of_node(error, dir);
    let read = offline.read().map_err(of_node)?;
    let summary = offline.summary(&read).map_err(of_node)?;
    match output.format {
        Format::Text => print(output, &offline, &read, &summary)?,
        Format::Json => output.json(&json_of(&offline, &read, &summary))?,
    }
    let damaged = read.plan.damage.len() + summary.lost.len();
    if damaged == 0 && read.misread.is_none() {
        return Ok(());
    }
    output.flush()?;
    Err(corrupt(
        format!("{} is damaged, and the numbers leave out what cannot be read", dir.display()),
        "kvorum store verify names what is wrong",
    ))
}

fn print(
    output: &mut Output,
    offline: &Offline,
    read: &Read,
    summary: &Summary,
) -> Result<(), CommandError> {
    let dir = offline.directory().path().display();
    output.line(format!("{dir}: {}\n", show::whose(offline.whose())))?;
    if !summary.levels.is_empty() {
        output.line(format!("{}\n", levels(summary).trim_fmt()))?;
    }
    let mut line = |name: &str, value: String| output.line(format!("{name:<20} {value}"));
    line("files", format!("{}, {} bytes", summary.files, summary.bytes))?;
    if offline.directory().layout() == Layout::Store {
        line("rows", format!("{}, {} bytes of keys and values", summary.keys, summary.row_bytes))?;
        if let Some(ratio) = summary.space_amplification() {
            line("space amplification", format!("{ratio:.2}"))?;
        }
        line("flushed mark", summary.flushed_mark.to_string())?;
        line("flushed position", summary.flushed_position.to_string())?;
        if let Some(staged) = &summary.staged {
            let StagedSummary { mark, segments, bytes, rows } = staged;
            let segments = show::count(*segments, "segment");
            line("staged", format!("{rows} rows as of mark {mark}: {segments}, {bytes} bytes"))?;
        }
        if let Some(generation) = summary.generation {
            line("manifest", generation.to_string())?;
        }
    }
    line("log", show::extent(&summary.log))?;
    line("log bytes", format!("{} of {}", summary.log.frame_bytes, summary.log.bytes))?;
    if let Some(progress) = &read.progress {
        line("applied", format!("slot {}", progress.applied))?;
        line("chosen", format!("slot {}", progress.chosen))?;
        line("promised", format!("ballot {}", progress.promised))?;
    }
    line("in doubt", read.in_doubt.len().to_string())?;
    for txn in &read.in_doubt {
        output.line(format!("  {}", in_doubt(txn)))?;
    }
    Ok(())
}

fn levels(summary: &Summary) -> Table {
    let mut table = Table::new();
    let header = ["LEVEL", "SEGMENTS", "BYTES", "ENTRIES", "TOMBSTONES"];
    table.load_style(presets::NOTHING).set_header(header);
    for (number, level) in summary.levels.iter().enumerate() {
        let cells = [number as u64, level.segments, level.bytes, level.entries, level.deletes];
        table.add_row(cells.map(|cell| cell.to_string()));
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A transaction that had not come to its end, and who may know more.
pub(super) fn in_doubt(in_doubt: &InDoubt) -> String {
    match in_doubt {
        InDoubt::Transaction { txn, participants, is_committed, number, keys } => {
            let nodes: Vec<String> = participants.iter().map(ToString::to_string).collect();
            let nodes = nodes.join(", ");
            match (is_committed, number) {
                (true, Some(number)) => {
                    format!("{txn} committed as {}, not acknowledged by all of {nodes}", number.0)
                }
                (true, None) => format!("{txn} committed, not acknowledged by all of {nodes}"),
                (false, _) => {
                    format!("{txn} prepared, outcome unknown: {}; with {nodes}", some_of(keys))
                }
            }
        }
        InDoubt::Slot { slot, ballot, commands, keys } => {
            let keys = if keys.is_empty() { String::new() } else { format!(": {}", some_of(keys)) };
            let commands = show::count(*commands as u64, "command");
            format!("slot {slot}, {commands} accepted with ballot {ballot}, perhaps chosen{keys}")
        }
    }
}

/// The first keys, and how many more there are.
fn some_of(keys: &BTreeSet<Bytes>) -> String {
    let shown: Vec<String> = keys.iter().take(4).map(|key| quoted(key)).collect();
    let more = keys.len().saturating_sub(shown.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

fn json_of(offline: &Offline, read: &Read, summary: &Summary) -> Json {
    let levels: Vec<Json> = summary
        .levels
        .iter()
        .map(|level| {
            json!({
                "segments": level.segments,
                "bytes": level.bytes,
                "entries": level.entries,
                "tombstones": level.deletes,
            })
        })
        .collect();
    let in_doubt: Vec<Json> = read.in_doubt.iter().map(in_doubt_json).collect();
    let progress = read.progress.as_ref().map(|progress| {
        json!({
            "applied": progress.applied.0,
            "chosen": progress.chosen.0,
            "promised": progress.promised.to_string(),
        })
    });
    json!({
        "dir": offline.directory().path().display().to_string(),
        "node": show::whose_json(offline.whose()),
        "progress": progress,
        "files": summary.files,
        "bytes": summary.bytes,
        "levels": levels,
        "keys": summary.keys,
        "row_bytes": summary.row_bytes,
        "space_amplification": summary.space_amplification(),
        "flushed_mark": summary.flushed_mark,
        "flushed_position": summary.flushed_position.0,
        "staged": summary.staged.map(|staged| {
            json!({
                "mark": staged.mark,
                "segments": staged.segments,
                "bytes": staged.bytes,
                "rows": staged.rows,
            })
        }),
        "manifest": summary.generation,
        "log": show::extent_json(&summary.log),
        "in_doubt": in_doubt,
    })
}

fn in_doubt_json(in_doubt: &InDoubt) -> Json {
    let keys = |keys: &BTreeSet<Bytes>| {
        let key = |key: &Bytes| {
            let mut object = Map::new();
            set_field(&mut object, "key", key);
            Json::Object(object)
        };
        keys.iter().map(key).collect::<Vec<_>>()
    };
    match in_doubt {
        InDoubt::Transaction { txn, participants, is_committed, number, keys: locked } => json!({
            "txn": txn.to_string(),
            "participants": participants.iter().map(|node| node.0).collect::<Vec<_>>(),
            "committed": match number {
                Some(number) => Json::from(number.0),
                None if *is_committed => Json::Bool(true),
                None => Json::Null,
            },
            "keys": keys(locked),
        }),
        InDoubt::Slot { slot, ballot, commands, keys: written } => json!({
            "slot": slot.0,
            "ballot": ballot.to_string(),
            "commands": commands,
            "keys": keys(written),
        }),
    }
}
