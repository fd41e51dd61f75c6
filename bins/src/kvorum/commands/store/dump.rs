//! `store dump`.

use std::os::unix::ffi::OsStrExt as _;

use kvorum_node::offline::{NodeKind, Offline};
use kvorum_storage::inspect::{Layout, SegmentSummary};
use kvorum_storage::{Error, LogItem, ReplayedRecord};
use serde_json::{Map, Value as Json, json};

use super::arguments::Dump;
use super::{corrupt, of_node, of_storage, open, records, show, stats};
use crate::error::CommandError;
use crate::output::{Format, Output};
use crate::text::{printable, quoted, set_field};

pub(super) fn dump(output: &mut Output, arguments: &Dump) -> Result<(), CommandError> {
    let offline = open(&arguments.dir)?;
    let mut dumping = Dumping { output, offline: &offline, arguments, skipped: 0 };
    if arguments.log {
        dumping.log()?;
    } else if arguments.segments {
        dumping.segments()?;
    } else if arguments.manifest {
        dumping.manifest()?;
    } else {
        dumping.rows()?;
    }
    let Dumping { output, skipped, .. } = dumping;
    output.flush()?;
    if skipped == 0 {
        return Ok(());
    }
    let dir = arguments.dir.display();
    Err(corrupt(
        format!("{dir} is damaged: {} skipped", show::count(skipped, "place")),
        "what is printed is not all; kvorum store verify names what is wrong",
    ))
}

struct Dumping<'a> {
    output: &'a mut Output,
    offline: &'a Offline,
    arguments: &'a Dump,
    /// How often something was named that cannot be read.
    skipped: u64,
}

impl Dumping<'_> {
    fn rows(&mut self) -> Result<(), CommandError> {
        if self.offline.directory().layout() == Layout::Log {
            return Err(CommandError::usage(
                "a coordinator keeps no rows",
                "its decisions are in its log: --log",
            ));
        }
        let read = self.offline.read().map_err(|error| of_node(error, &self.arguments.dir))?;
        for damage in &read.plan.damage {
            self.warn(&records::damage(damage))?;
        }
        if read.plan.unused > 0 {
            let unused = show::count(read.plan.unused, "record");
            let warning =
                format!("{unused} behind the damage can be read (--log) and may not be applied");
            self.warn(&warning)?;
        }
        if let Some((position, what)) = &read.misread {
            self.warn(&format!(
                "record {position} is none of ours: {what}; none behind it is applied"
            ))?;
        }
        // Not a flaw of the directory, but a reader should know.
        for txn in &read.in_doubt {
            self.output.warn(&format!("in doubt, and not shown: {}", stats::in_doubt(txn)))?;
        }
        let prefix = self.arguments.prefix.as_bytes();
        let storage = |error: Error| of_storage(&error, &self.arguments.dir);
        let mut rows = self.offline.directory().rows(&read.overlay, prefix).map_err(storage)?;
        let mut left = self.arguments.limit.unwrap_or(u64::MAX);
        loop {
            let row = if left > 0 { rows.next().map_err(storage)? } else { None };
            for keys in rows.take_lost() {
                self.warn(&show::lost_keys(&keys))?;
            }
            let Some((key, value)) = row else { return Ok(()) };
            left -= 1;
            match self.output.format {
                Format::Text => {
                    self.output.line(format!("{}\t{}", printable(&key), printable(&value)))?;
                }
                Format::Json => {
                    let mut object = Map::new();
                    set_field(&mut object, "key", &key);
                    set_field(&mut object, "value", &value);
                    self.output.object(object)?;
                }
            }
        }
    }

    fn log(&mut self) -> Result<(), CommandError> {
        let node = self.offline.whose().kind();
        let storage = |error: Error| of_storage(&error, &self.arguments.dir);
        let mut survey = self.offline.directory().log().map_err(storage)?;
        let mut left = self.arguments.limit.unwrap_or(u64::MAX);
        while left > 0
            && let Some(item) = survey.next().map_err(storage)?
        {
            match item {
                LogItem::Record(record) => left -= u64::from(self.record(node, &record)?),
                LogItem::Damage(damage) => self.warn(&records::damage(&damage))?,
                LogItem::Torn(torn) => {
                    let (file, offset, bytes) = (torn.file.display(), torn.offset, torn.bytes);
                    self.output
                        .note(&format!("{file}: byte {offset}: a torn end of {bytes} bytes"))?;
                }
            }
        }
        Ok(())
    }

    /// Prints a record, unless it is filtered out; whether it was.
    fn record(
        &mut self,
        node: Option<NodeKind>,
        record: &ReplayedRecord,
    ) -> Result<bool, CommandError> {
        match records::read(node, self.offline.directory().layout(), record) {
            Ok(meaning) => {
                if !records::concerns(&meaning, self.arguments.prefix.as_bytes()) {
                    return Ok(false);
                }
                match self.output.format {
                    Format::Text => self.output.line(records::text(record, &meaning))?,
                    Format::Json => self.output.object(records::json(record, &meaning))?,
                }
                Ok(true)
            }
            Err(what) => {
                self.warn(&format!("record {} is none of ours: {what}", record.position))?;
                Ok(false)
            }
        }
    }

    fn segments(&mut self) -> Result<(), CommandError> {
        let storage = |error: Error| of_storage(&error, &self.arguments.dir);
        let segments = self.offline.directory().segments().map_err(storage)?;
        let limit = self.arguments.limit.and_then(|limit| usize::try_from(limit).ok());
        for segment in segments.into_iter().take(limit.unwrap_or(usize::MAX)) {
            match segment {
                Err(error) => self.warn(&error.to_string())?,
                Ok(segment) => match self.output.format {
                    Format::Text => self.output.line(segment_text(&segment))?,
                    Format::Json => self.output.object(segment_json(&segment))?,
                },
            }
        }
        Ok(())
    }

    fn manifest(&mut self) -> Result<(), CommandError> {
        let directory = self.offline.directory();
        let whose = show::whose(self.offline.whose());
        let Some(manifest) = directory.manifest_summary() else {
            self.output.line(format!("{}: {whose}", directory.path().display()))?;
            return match directory.layout() {
                Layout::Log => Ok(()),
                Layout::Store => self.warn("the manifest is missing or damaged"),
            };
        };
        match self.output.format {
            Format::Text => {
                self.output.line(format!("{}: {whose}", directory.path().display()))?;
                for (name, value) in manifest {
                    self.output.line(format!("{name:<20} {value}"))?;
                }
            }
            Format::Json => {
                let mut object: Map<String, Json> = manifest
                    .into_iter()
                    .map(|(name, value)| (name.replace(' ', "_"), Json::from(value)))
                    .collect();
                object.insert("node".to_owned(), show::whose_json(self.offline.whose()));
                self.output.object(object)?;
            }
        }
        Ok(())
    }

    fn warn(&mut self, what: &str) -> Result<(), CommandError> {
        self.skipped += 1;
        self.output.warn(what)
    }
}

fn segment_text(segment: &SegmentSummary) -> String {
    let SegmentSummary {
        id,
        level,
        staged,
        bytes,
        entries,
        deletes,
        sequence_max,
        smallest,
        largest,
    } = segment;
    let level = match (level, staged) {
        (Some(level), _) => format!("level {level}"),
        (None, true) => "staged".to_owned(),
        (None, false) => "level -".to_owned(),
    };
    format!(
        "{id:016x} {level}, {bytes} bytes, {entries} entries, {deletes} tombstones, newest \
         {sequence_max}, from {} to {}",
        quoted(smallest),
        quoted(largest)
    )
}

fn segment_json(segment: &SegmentSummary) -> Map<String, Json> {
    let json = json!({
        "id": format!("{:016x}", segment.id),
        "level": segment.level,
        "staged": segment.staged,
        "bytes": segment.bytes,
        "entries": segment.entries,
        "tombstones": segment.deletes,
        "newest": segment.sequence_max,
    });
    let Json::Object(mut object) = json else { unreachable!("it was written as an object") };
    set_field(&mut object, "smallest", &segment.smallest);
    set_field(&mut object, "largest", &segment.largest);
    object
}
