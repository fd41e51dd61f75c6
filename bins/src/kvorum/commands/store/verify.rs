//! `store verify`.

use std::path::Path;

use kvorum_node::offline::Offline;
use kvorum_storage::inspect::{Grade, Layout, Verified};
use serde_json::{Value as Json, json};

use super::{corrupt, of_node, open, show};
use crate::error::CommandError;
use crate::output::{Format, Output};

pub(super) fn verify(output: &mut Output, dir: &Path) -> Result<(), CommandError> {
    let offline = open(dir)?;
    let verified = offline.verify().map_err(|error| of_node(error, dir))?;
    match output.format {
        Format::Text => print(output, &offline, &verified)?,
        Format::Json => output.json(&json_of(&offline, &verified))?,
    }
    let damaged = verified.findings.iter().filter(|finding| finding.grade == Grade::Damage).count();
    if damaged == 0 {
        return Ok(());
    }
    output.flush()?;
    Err(corrupt(
        format!("{} is damaged: {}", dir.display(), show::count(damaged as u64, "finding")),
        "nothing was changed. kvorum store repair saves what is not lost",
    ))
}

fn print(output: &mut Output, offline: &Offline, verified: &Verified) -> Result<(), CommandError> {
    let dir = offline.directory().path().display();
    output.line(format!("{dir}: {}", show::whose(offline.whose())))?;
    if offline.directory().layout() == Layout::Store {
        output.line(format!(
            "segments: {}, {} entries in {}, {} bytes",
            verified.segments,
            verified.entries,
            show::count(verified.blocks, "block"),
            verified.segment_bytes
        ))?;
    }
    output.line(format!("log: {}", show::extent(&verified.log)))?;
    for finding in &verified.findings {
        output.line(show::finding(finding))?;
        output.line(format!("         {}", show::remedy(finding)))?;
    }
    output.line(if verified.is_sound() { "sound" } else { "damaged" })
}

fn json_of(offline: &Offline, verified: &Verified) -> Json {
    let findings: Vec<Json> = verified.findings.iter().map(show::finding_json).collect();
    json!({
        "dir": offline.directory().path().display().to_string(),
        "node": show::whose_json(offline.whose()),
        "sound": verified.is_sound(),
        "segments": verified.segments,
        "blocks": verified.blocks,
        "entries": verified.entries,
        "segment_bytes": verified.segment_bytes,
        "log": show::extent_json(&verified.log),
        "findings": findings,
    })
}
