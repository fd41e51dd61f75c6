//! Tells what is seen on the tour, and whether it is what must be seen.

use std::fmt::Display;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kvorum::cluster::ClusterError;
use kvorum_replication::Happened;
use kvorum_rpc::client::ClientError;
use serde_json::json;

use crate::error::CommandError;
use crate::fresh;
use crate::output::{Format, Output};
use crate::text::printable;

/// What is done stands in so many columns, what is observed behind them.
const DONE_COLUMNS: usize = 46;

/// Why the tour ends early.
#[derive(Debug)]
pub(super) enum Trouble {
    /// An observation is not what it must be. The guide has said so.
    Wrong,
    /// Something could not be done at all.
    Command(CommandError),
}

impl From<CommandError> for Trouble {
    fn from(error: CommandError) -> Self {
        Self::Command(error)
    }
}

impl From<ClientError> for Trouble {
    fn from(error: ClientError) -> Self {
        Self::Command(error.into())
    }
}

impl From<ClusterError> for Trouble {
    fn from(error: ClusterError) -> Self {
        Self::Command(fresh::failed(error))
    }
}

/// Prints scenes and what is observed in them.
pub(super) struct Guide<'a> {
    output: &'a mut Output,
    began: Instant,
    scenes: u32,
    observations: u32,
}

impl<'a> Guide<'a> {
    pub(super) fn new(output: &'a mut Output) -> Self {
        Self { output, began: Instant::now(), scenes: 0, observations: 0 }
    }

    /// Begins a scene.
    pub(super) fn scene(&mut self, title: &str) -> Result<(), Trouble> {
        self.scenes += 1;
        let scene = self.scenes;
        match self.output.format {
            Format::Text => self.output.line(format!("\n{scene}. {title}"))?,
            Format::Json => self.output.json(&json!({"scene": scene, "title": title}))?,
        }
        Ok(self.output.flush()?)
    }

    /// Says what is being done, or what is to be known.
    pub(super) fn note(&mut self, note: impl Display) -> Result<(), Trouble> {
        match self.output.format {
            Format::Text => self.output.line(format!("   {note}"))?,
            Format::Json => self.output.json(&json!({"note": note.to_string()}))?,
        }
        Ok(self.output.flush()?)
    }

    /// Says what was done and what was observed. Ends the tour if that is not right.
    pub(super) fn observe(
        &mut self,
        done: impl Display,
        observed: impl Display,
        is_right: bool,
        expected: &str,
    ) -> Result<(), Trouble> {
        self.observations += 1;
        let (done, observed) = (done.to_string(), observed.to_string());
        match self.output.format {
            Format::Text => {
                self.output.line(format!("   {done:<DONE_COLUMNS$} {observed}"))?;
                if !is_right {
                    self.output.line(format!("   WRONG: it must be: {expected}"))?;
                }
            }
            Format::Json => self.output.json(&json!({
                "done": done, "observed": observed, "expected": expected, "right": is_right
            }))?,
        }
        self.output.flush()?;
        if is_right { Ok(()) } else { Err(Trouble::Wrong) }
    }

    /// Sums up.
    pub(super) fn end(&mut self) -> Result<(), Trouble> {
        let Self { observations, scenes, .. } = *self;
        let seconds = self.began.elapsed().as_secs_f64();
        match self.output.format {
            Format::Text => self.output.line(format!(
                "\nAll {observations} observations in {scenes} scenes were as they must be \
                 ({seconds:.1} s)."
            ))?,
            Format::Json => self.output.json(&json!({
                "observations": observations, "scenes": scenes, "seconds": seconds, "right": true
            }))?,
        }
        Ok(self.output.flush()?)
    }
}

/// A time with the digits that matter.
pub(super) fn shown_time(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1e3;
    if millis < 10.0 { format!("{millis:.2} ms") } else { format!("{millis:.0} ms") }
}

/// How a write ended, and how long that took.
pub(super) fn shown_outcome(outcome: &Result<(), ClientError>, took: Duration) -> String {
    match outcome {
        Ok(()) => format!("committed in {}", shown_time(took)),
        Err(error) => format!("{} after {}", shown_error(error), shown_time(took)),
    }
}

/// What a read was answered, and how long that took.
pub(super) fn shown_value(read: &Result<Option<Bytes>, ClientError>, took: Duration) -> String {
    match read {
        Ok(value) => format!("{} in {}", shown_bytes(value.as_deref()), shown_time(took)),
        Err(error) => format!("{} after {}", shown_error(error), shown_time(took)),
    }
}

/// A value, or that there is none.
pub(super) fn shown_bytes(value: Option<&[u8]>) -> String {
    value.map_or_else(|| "(no such key)".to_owned(), printable)
}

fn shown_error(error: &ClientError) -> String {
    let happened = match error.happened {
        Happened::No => "did not happen",
        Happened::Unknown => "may have happened",
    };
    format!("{} ({happened}): {}", error.kind, error.what)
}
