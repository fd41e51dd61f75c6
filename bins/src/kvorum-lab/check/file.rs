//! A history's file.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use kvorum_checker::{
    Ending, Entry, FinalCopy, History, LineError, MicroOperation, Operation, Precondition,
    read_entries,
};

use crate::error::LabError;

/// Between signs of life.
const REFRESH: Duration = Duration::from_millis(100);

/// Lines between two looks at the clock.
const LINES: u64 = 1_000;

/// What a file says.
pub(super) struct File {
    /// As it was given.
    pub(super) name: String,
    pub(super) history: History,
    pub(super) copies: Vec<FinalCopy>,
}

/// Reads a file, or standard input if it is `-`.
pub(super) fn read(path: &Path, watched: bool) -> Result<File, LabError> {
    let cannot = |error| LabError::cannot(&format!("reading {}", path.display()), &error);
    let (name, from): (_, Box<dyn BufRead>) = if path == Path::new("-") {
        ("standard input".to_owned(), Box::new(io::stdin().lock()))
    } else {
        let file = std::fs::File::open(path).map_err(cannot)?;
        (path.display().to_string(), Box::new(BufReader::new(file)))
    };
    let bar = if watched { spinner() } else { ProgressBar::hidden() };
    let mut file = File { name, history: History::new(), copies: Vec::new() };
    for (entry, line) in read_entries(from).zip(1u64..) {
        match entry {
            Ok(Entry::Operation(record)) => file.history.push(record),
            Ok(Entry::Copy(copy)) => file.copies.push(copy),
            Err(error) => return Err(failed(&file.name, error)),
        }
        if line.is_multiple_of(LINES) {
            bar.set_message(format!("{line} lines"));
        }
    }
    bar.finish_and_clear();
    Ok(file)
}

fn failed(name: &str, error: LineError) -> LabError {
    match error {
        // Bytes that are no text were read all right.
        LineError::Read { source, .. } if source.kind() != io::ErrorKind::InvalidData => {
            LabError::cannot(&format!("reading {name}"), &source)
        }
        malformed @ (LineError::Read { .. } | LineError::Malformed { .. }) => LabError::usage(
            format!("{name}: {malformed}"),
            "`kvorum-lab check --help` shows how a line is written",
        ),
    }
}

fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    bar.set_style(
        ProgressStyle::with_template("{spinner} {msg}").expect("the template is a constant"),
    );
    bar.enable_steady_tick(REFRESH);
    bar
}

impl File {
    /// How many operations ended so.
    pub(super) fn ended(&self, is: fn(Ending) -> bool) -> u64 {
        self.history.iter().filter(|record| is(record.ending)).count() as u64
    }

    pub(super) fn clients(&self) -> u64 {
        self.history.iter().map(|record| record.client).collect::<BTreeSet<_>>().len() as u64
    }

    pub(super) fn keys(&self) -> u64 {
        let mut keys = BTreeSet::new();
        for record in &self.history {
            keys.extend(keys_of(&record.operation));
        }
        keys.len() as u64
    }

    /// From the first call to the last return.
    pub(super) fn length(&self) -> Duration {
        let first = self.history.iter().map(|record| record.call).min().unwrap_or(0);
        let known = self.history.iter().filter(|record| record.ending != Ending::Unknown);
        let last = known.map(|record| record.ret).max().unwrap_or(first);
        Duration::from_nanos(last.saturating_sub(first))
    }
}

/// The keys that an operation names or found.
fn keys_of(operation: &Operation) -> Vec<&str> {
    match operation {
        Operation::Get { key, .. }
        | Operation::Put { key, .. }
        | Operation::Delete { key }
        | Operation::CompareAndSet { key, .. } => vec![key],
        Operation::GetMany { keys, .. } => keys.iter().map(String::as_str).collect(),
        Operation::Scan { rows, .. } => rows.iter().map(|(key, _)| &key[..]).collect(),
        Operation::Transact { preconditions, writes } => {
            let checked = preconditions.iter().map(|precondition| match precondition {
                Precondition::Absent(key)
                | Precondition::Present(key)
                | Precondition::Equals(key, _) => &key[..],
            });
            checked.chain(writes.iter().map(|(key, _)| &key[..])).collect()
        }
        Operation::MicroOperations(parts) => parts
            .iter()
            .map(|part| match part {
                MicroOperation::Append { key, .. }
                | MicroOperation::Write { key, .. }
                | MicroOperation::Read { key, .. } => &key[..],
            })
            .collect(),
    }
}
