//! What a repair could not save, in words that stay beside the result.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use crate::inspect::{Directory, LogPlan};
use crate::log::Position;
use crate::segment::LostKeys;

/// Something that could not be saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Versions of keys.
    Keys(LostKeys),
    /// Records of the log; perhaps more behind them.
    Records {
        /// Where they were.
        dir: PathBuf,
        /// Their positions.
        positions: Range<u64>,
        /// Nobody knows how far the log went on.
        open_ended: bool,
    },
    /// The manifest is gone, and among the segments are some that it no longer named: with them
    /// keys may have come back that had been deleted.
    Leftovers,
    /// Rows that the log says to install: nobody knows whether that was done, or they are not there.
    Staged {
        /// The mark that they are the state at, if a record says it.
        mark: Option<u64>,
        /// In a few words.
        why: &'static str,
    },
    /// The manifest is gone, and rows were ingested: nobody knows whether all of them became part of
    /// the store, and what the log says has taken the place of some that were newer.
    Ingested,
    /// A record that its owner cannot have written.
    Misread {
        /// Which.
        position: Position,
        /// Why not.
        what: String,
    },
    /// What an earlier repair could not save.
    Earlier {
        /// In its words.
        what: String,
    },
    /// Something of the owner's.
    Owner {
        /// In its words.
        what: String,
    },
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keys(LostKeys { file, offset, why, from, to }) => {
                let file = file.display();
                write!(f, "rows from \"{}\" ", from.escape_ascii())?;
                match to {
                    Some(to) => write!(f, "to \"{}\"", to.escape_ascii())?,
                    None => write!(f, "on")?,
                }
                write!(f, ": {file}, byte {offset}: {why}")
            }
            Self::Records { dir, positions: Range { start, end }, open_ended } => {
                let dir = dir.display();
                match end.saturating_sub(*start) {
                    0 => write!(f, "records of the log in {dir}, nobody knows how many"),
                    count => {
                        let more = if *open_ended { ", and perhaps more" } else { "" };
                        let last = end - 1;
                        write!(
                            f,
                            "{count} records of the log in {dir}, from {start} to {last}{more}"
                        )
                    }
                }
            }
            Self::Leftovers => write!(
                f,
                "the manifest, and with it the word on which segments count: keys that had been \
                 deleted may be back"
            ),
            Self::Staged { mark, why } => {
                match mark {
                    Some(mark) => write!(f, "the rows of mark {mark}, ")?,
                    None => write!(f, "rows that were staged, ")?,
                }
                write!(f, "which were to take the place of all others: {why}")
            }
            Self::Ingested => write!(
                f,
                "the manifest, and with it the word on when rows were ingested: older values from \
                 the log may have taken their place, and rows of an ingest that never ended may be \
                 among the others"
            ),
            Self::Misread { position, what } => {
                write!(f, "record {position} of the log is none of its owner's: {what}")
            }
            Self::Earlier { what } => write!(f, "lost in an earlier repair: {what}"),
            Self::Owner { what } => write!(f, "{what}"),
        }
    }
}

/// The records that are lost if only what is planned is used of the log: all from the first hole
/// on, whether they can be read or not.
pub(super) fn of_log(source: &Directory, plan: &LogPlan, losses: &mut Vec<Loss>) {
    if !plan.is_lossy {
        return;
    }
    let holes = plan.damage.iter().map(|damage| damage.lost.end).max().unwrap_or_default();
    let flushed = source.manifest().map_or(0, |manifest| manifest.flushed_position.0 + 1);
    let end = holes.max(plan.extent.last.0 + 1).max(flushed).max(plan.used.end);
    let open_ended = plan.damage.iter().any(|damage| damage.open_ended);
    let positions = plan.lost_from..end.max(plan.lost_from);
    losses.push(Loss::Records { dir: source.log_dir(), positions, open_ended });
}
