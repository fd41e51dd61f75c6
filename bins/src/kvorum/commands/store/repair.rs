//! `store repair`.

use kvorum_node::offline::Offline;
use kvorum_node::{ClusterId, NodeError};
use kvorum_storage::repair::{Loss, Repaired, Target};
use kvorum_storage::{Error, LogOptions, Options};
use serde_json::{Value as Json, json};

use super::arguments::Repair;
use super::{corrupt, of_node, open, refused, show};
use crate::error::CommandError;
use crate::output::{Format, Output};

pub(super) fn repair(output: &mut Output, arguments: &Repair) -> Result<(), CommandError> {
    let dir = &arguments.dir;
    let offline = open(dir)?;
    let target = arguments.into.as_deref().map_or(Target::InPlace, Target::Into);
    // As for a server's log: no client shall write what would pass for a frame.
    let id = ClusterId::random()
        .map_err(|error| CommandError::io("the system gives no random numbers", &error))?;
    let salt = id.0.first_chunk().copied().map_or(0, u64::from_le_bytes);
    let options =
        Options { log: LogOptions { salt, ..LogOptions::default() }, ..Options::default() };
    let repaired = offline.repair(target, &options).map_err(|error| match error {
        // The damaged directory has been opened, so that this speaks of the other one.
        NodeError::Storage(Error::Invalid { .. }) => refused(error.to_string(), ""),
        other => of_node(other, dir),
    })?;
    match output.format {
        Format::Text => print(output, &offline, &repaired)?,
        Format::Json => output.json(&json_of(&offline, &repaired))?,
    }
    if repaired.losses.is_empty() {
        return Ok(());
    }
    output.flush()?;
    Err(corrupt(
        format!("not everything could be saved; {} must not be served", repaired.dir.display()),
        "kvorum store dump reads what is left; the other replicas hold the same rows",
    ))
}

fn print(output: &mut Output, offline: &Offline, repaired: &Repaired) -> Result<(), CommandError> {
    let dir = offline.directory().path().display();
    output.line(format!("{dir}: {}", show::whose(offline.whose())))?;
    if !repaired.was_damaged {
        return output.line("nothing is damaged, and nothing was done");
    }
    output.line(match &repaired.kept {
        None => format!("repaired into {}; what was there is as it was", repaired.dir.display()),
        Some(kept) => format!("repaired in place; what was there is in {}", kept.display()),
    })?;
    if repaired.manifest_rebuilt {
        output.line("manifest: made again from the segments")?;
    }
    if repaired.segments_kept + repaired.segments_rewritten > 0 {
        output.line(format!(
            "segments: {} kept as they are, {} written again with {} entries",
            repaired.segments_kept, repaired.segments_rewritten, repaired.entries_rewritten
        ))?;
    }
    if repaired.staged_left_out > 0 {
        output.line(format!(
            "staged rows: {} left out; nothing says that they were needed",
            show::count(repaired.staged_left_out, "segment")
        ))?;
    }
    output.line(format!("log: {} kept", show::count(repaired.records, "record")))?;
    if repaired.records_behind > 0 {
        output.line(format!(
            "log: {} that can be read follow a hole and were left out",
            show::count(repaired.records_behind, "record")
        ))?;
    }
    for loss in &repaired.losses {
        output.line(format!("lost: {loss}"))?;
    }
    output.line(match repaired.losses.is_empty() {
        true => "nothing is lost: a server may start on it",
        false => "no server starts on it: see the file REPAIR in it",
    })
}

fn json_of(offline: &Offline, repaired: &Repaired) -> Json {
    let losses: Vec<String> = repaired.losses.iter().map(Loss::to_string).collect();
    json!({
        "dir": offline.directory().path().display().to_string(),
        "node": show::whose_json(offline.whose()),
        "was_damaged": repaired.was_damaged,
        "result": repaired.dir.display().to_string(),
        "kept": repaired.kept.as_ref().map(|kept| kept.display().to_string()),
        "manifest_rebuilt": repaired.manifest_rebuilt,
        "segments_kept": repaired.segments_kept,
        "segments_rewritten": repaired.segments_rewritten,
        "entries_rewritten": repaired.entries_rewritten,
        "staged_left_out": repaired.staged_left_out,
        "records": repaired.records,
        "records_behind": repaired.records_behind,
        "losses": losses,
        "may_serve": repaired.losses.is_empty(),
    })
}
