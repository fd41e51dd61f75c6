//! The command line of `kvorum store`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Look at a data directory while no server runs on it: of a replica, a coordinator or an embedded store
#[derive(Debug, Subcommand)]
pub(crate) enum Store {
    Verify(Verify),
    Dump(Dump),
    Stats(Stats),
    Repair(Repair),
}

/// Check every byte that counts, and name everything that is wrong
///
/// Changes nothing, not even the torn end that a crash may have left on the log: the next start of
/// the server cuts it.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes:
  0  sound; a torn end and files that a crash left behind are reported, and are no damage
  4  not a data directory, or a running process uses it
  6  damaged: each finding names the file, the byte, what it costs and what to do

Examples:
  kvorum store verify kvorum-data/r1
  kvorum --output json store verify kvorum-data/r1 | jq '.findings[]'")]
pub(crate) struct Verify {
    /// What the server was given as --data-dir
    pub(crate) dir: PathBuf,
}

/// Print the rows, or with a flag the log, the segments or the manifest
///
/// Rows are printed as by `scan` and, in JSON, as by `export`, so that `import` reads them. Of a
/// damaged directory everything is printed that can be read; what cannot is named on standard
/// error, and the exit code is then 6. Transactions in doubt are not among the rows, since
/// only their coordinator knows how they ended; they are named.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kvorum store dump kvorum-data/r1 --prefix user/ --limit 10
  kvorum --output json store dump kvorum-data/r1 > rows.jsonl
  kvorum store dump kvorum-data/r1 --log    what was voted, decided and written, in order
  kvorum store dump kvorum-data/c --log     the coordinator's decisions")]
pub(crate) struct Dump {
    /// What the server was given as --data-dir
    pub(crate) dir: PathBuf,
    /// The records of the log, with their meaning
    #[arg(long, group = "part")]
    pub(crate) log: bool,
    /// The segments
    #[arg(long, group = "part")]
    pub(crate) segments: bool,
    /// The manifest, and whose the directory is
    #[arg(long, group = "part")]
    pub(crate) manifest: bool,
    /// Only rows whose keys begin with this; with --log only records that write such keys
    #[arg(long, value_name = "P", default_value = "", hide_default_value = true)]
    pub(crate) prefix: OsString,
    /// At most so many
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
}

/// Count files, bytes, rows, levels and log records, and transactions in doubt
///
/// Reads all rows, to count those that are live.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  kvorum store stats kvorum-data/r1")]
pub(crate) struct Stats {
    /// What the server was given as --data-dir
    pub(crate) dir: PathBuf,
}

/// Save what can be saved of a damaged directory, and name what is lost
///
/// Nothing is deleted. Sound segments are taken over, damaged ones and the manifest are made again
/// from what can be read, and of the log everything up to its first hole is kept. A directory in
/// which nothing needed was lost may be served again. Otherwise a file REPAIR in it says what is
/// missing, and no server starts on it: it might show old rows, and a replica that has forgotten a
/// vote might give another. Such a directory can still be read, with `dump`.
///
/// A repair that was broken off is simply started again.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes:
  0  nothing is lost, or nothing was wrong: a server may start on the result
  4  not a data directory, or a running process uses it
  6  something is lost: it is named, here and in the file REPAIR

Examples:
  kvorum store repair kvorum-data/r1 --into kvorum-data/r1-repaired
  kvorum store repair kvorum-data/r1 --in-place     what was there goes to kvorum-data/r1/lost-1")]
#[command(group = clap::ArgGroup::new("where").required(true))]
pub(crate) struct Repair {
    /// What the server was given as --data-dir
    pub(crate) dir: PathBuf,
    /// Put the result into this directory, which must be new or empty
    #[arg(long, value_name = "NEW", group = "where")]
    pub(crate) into: Option<PathBuf>,
    /// Put the result in the place of the damaged directory, whose files are first moved aside
    #[arg(long, group = "where")]
    pub(crate) in_place: bool,
}
