//! What came of a run, as one HTML page that needs no network and no other file.
//!
//! Whoever runs fills a [`Report`] in; [`html`] makes the page. All times in it are nanoseconds
//! since the run began.

mod page;

mod charts;
mod lanes;
mod slices;
mod tables;
mod text;

use std::time::Duration;

pub use page::html;

/// All that the page shows.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What the page is about, such as `2pc under kill, pause, partition`.
    pub title: String,
    /// The command that makes such a run again.
    pub command: String,
    /// Name and value of what else there is to know: versions, clients, how much was lost.
    pub facts: Vec<(String, String)>,
    /// When it began, in seconds since 1970.
    pub began_unix: u64,
    /// How long it was.
    pub length: Duration,
    /// The processes, in the order in which they are drawn.
    pub members: Vec<String>,
    /// What clients asked and how it ended, in any order.
    pub operations: Vec<OperationPoint>,
    /// What was broken, in any order.
    pub faults: Vec<FaultSpan>,
    /// What the judges say; none if nobody judged.
    pub verdicts: Vec<JudgeVerdict>,
    /// How the cluster got over each fault.
    pub recoveries: Vec<Recovery>,
}

/// One operation of a client.
#[derive(Clone, Debug)]
pub struct OperationPoint {
    /// When it was called.
    pub start: u64,
    /// When its client learned the outcome, or gave up.
    pub end: u64,
    /// `put`, `get`, `txn` and so on.
    pub kind: &'static str,
    /// Whether it changes anything.
    pub writes: bool,
    /// How it ended.
    pub ending: PointEnding,
    /// Who asked what, and why it did not end well; wanted of those that did not.
    pub words: Option<Box<str>>,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PointEnding {
    /// It happened.
    Ok,
    /// It did not happen, and the client was told so.
    Refused,
    /// Nobody told the client whether it happened.
    Unknown,
}

/// Something was broken for a while.
#[derive(Clone, Debug)]
pub struct FaultSpan {
    /// Its kind, as `--nemesis` names it; spans of one kind have one colour.
    pub kind: String,
    /// What was done, such as `partition, both ways`.
    pub name: String,
    /// The members it was done to, by their names in [`Report::members`]; empty means all.
    pub whom: Vec<String>,
    /// When it began.
    pub from: u64,
    /// When it was undone; for what cannot be undone, when the process served again.
    pub to: u64,
    /// How often it is known to have struck: 1 for a kill, for a partition the connections and
    /// messages that ran into it. What never struck proves nothing.
    pub fired: u64,
}

/// How the cluster got over a fault.
#[derive(Clone, Debug)]
pub struct Recovery {
    /// Which, by its place in [`Report::faults`].
    pub fault: usize,
    /// The first write after its end that was acknowledged.
    pub first_write: Option<u64>,
    /// How long no write was acknowledged around it.
    pub unavailable: Duration,
}

/// What a judge says of the history.
#[derive(Clone, Debug)]
pub struct JudgeVerdict {
    /// Which judge, such as `linearizable`.
    pub judge: String,
    /// What it found.
    pub finding: Finding,
    /// In words; for a violation the operations too, a line each.
    pub words: String,
    /// The checker's drawing of the offending part, a fragment of HTML with everything escaped that
    /// came from the history (`kvorum_checker::timeline`). It is put into the page as it is.
    pub timeline_html: Option<String>,
}

/// Whether a promise was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It was.
    Holds,
    /// It was not.
    Violated,
    /// The judge gave up at its limit.
    Undecided,
}

impl Report {
    /// The verdict over all: violated if one judge says so, and undecided if one gave up or nobody
    /// judged.
    #[must_use]
    pub fn finding(&self) -> Finding {
        let says = |finding| self.verdicts.iter().any(|verdict| verdict.finding == finding);
        if says(Finding::Violated) {
            Finding::Violated
        } else if says(Finding::Undecided) || self.verdicts.is_empty() {
            Finding::Undecided
        } else {
            Finding::Holds
        }
    }
}
