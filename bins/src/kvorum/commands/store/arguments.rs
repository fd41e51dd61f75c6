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
/// error, and the exit code is then 6. Transactions in doubt are not among the rows: only their
/// coordinator knows.
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
