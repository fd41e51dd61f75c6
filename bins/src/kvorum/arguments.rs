//! The command line of `kvorum`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use kvorum::address::host_and_port;
use kvorum::time::duration;

use crate::conflicts::Conflicts;
use crate::output::Format;
use crate::reading::Reading;

const ABOUT: &str = "Kvorum: a durable key-value store that is replicated the way you choose";

const EXAMPLES: &str = "\
Examples:
  kvorum demo                               a whole cluster on this machine, and a tour of it
  kvorum put greeting 'hello world'
  kvorum get greeting
  kvorum put photo - < photo.jpg            the value from standard input
  kvorum --output json scan --prefix user/
  kvorum shell
  kvorum store verify kvorum-data/r1        a data directory, while no server runs on it

Which cluster:
  --connect, or the environment variable KVORUM_CONNECT, names one or more processes of it; the
  first that answers is used, and the next if that one is lost. It may send the client on to the
  one that can serve. Without either it is 127.0.0.1:7100.

Keys and values:
  are any bytes: keys 1 byte to 64 KiB, values up to 16 MiB. `get` prints a value as it is. Where
  text is printed line by line, a backslash and everything that is not printable are escaped
  (\\\\ \\n \\t \\r \\0 \\xHH). In JSON, a field that is not UTF-8 is in base64 under its name with
  `_base64` behind it: {\"key\":\"photo\",\"value_base64\":\"/9j/4AA=\"}.

Exit codes:
  0  done
  1  there is no such key
  2  the command line or the input is wrong
  3  conflict, or a precondition does not hold: it did not happen
  4  unavailable, overloaded, disk full, refused, or a scan's snapshot is gone: it did not happen
  5  the outcome is unknown: it may have happened
  6  corrupt data
Errors go to standard error; with --output json as {\"error\":..., \"kind\":..., \"happened\":\"no\"|\"unknown\"}.";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "kvorum", version, about = ABOUT, after_help = EXAMPLES)]
#[command(max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command knows.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// The cluster: a coordinator's address, or those of any replicas where all are equal
    #[arg(long, global = true, value_name = "ADDR[,ADDR...]", env = "KVORUM_CONNECT")]
    #[arg(value_delimiter = ',', value_parser = host_and_port)]
    #[arg(default_value = "127.0.0.1:7100")]
    pub(crate) connect: Vec<String>,

    /// How to print: text for people, JSON (an object a line) for programs
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value = "text")]
    pub(crate) output: Format,

    /// How long an operation may take, as in 500ms, 5s or 1m
    #[arg(long, global = true, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Put(Put),
    Get(Get),
    Del(Del),
    Scan(Scan),
    Txn(Txn),
    Shell(Shell),
    Status(Status),
    Inspect(Inspect),
    Export(Export),
    Import(Import),
    Bench(crate::bench::Bench),
    Demo(crate::demo::Demo),
    #[command(subcommand)]
    Store(crate::commands::Store),
    /// Change who belongs to a cluster while it runs
    #[command(subcommand)]
    Admin(Admin),
    /// Serve, as kvorumd does
    #[command(hide = true, subcommand)]
    Serve(kvorum::server::Command),
}

/// What an administrator does.
#[derive(Debug, Subcommand)]
pub(crate) enum Admin {
    /// Add or remove a replica (two-phase commit with a coordinator)
    #[command(subcommand)]
    Replica(ReplicaChange),
}

/// How the replicas change.
#[derive(Debug, Subcommand)]
pub(crate) enum ReplicaChange {
    Add(AddReplica),
    Remove(RemoveReplica),
}

/// Have the cluster one replica more
///
/// Returns once the coordinator has that in its log; writes go on. The replica takes part once it runs
/// and has caught up: start it on an empty data directory, with --rejoin. Fine if it was added before.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  kvorum admin replica add 4=127.0.0.1:7104
  kvorumd replica --id 4 --listen 127.0.0.1:7104 --data-dir data/r4 --rejoin")]
pub(crate) struct AddReplica {
    /// Its number, above those of all replicas that the cluster ever had, and where it listens
    #[arg(value_name = "ID=ADDR", value_parser = kvorum::server::peer)]
    pub(crate) replica: kvorum::server::Peer,
    /// Wait until it takes part, however long that takes
    #[arg(long)]
    pub(crate) wait: bool,
    /// Wait no longer than this, as in 30s or 10m: then the exit code is 5, and the replica stays added
    #[arg(long, value_name = "TIME", requires = "wait", value_parser = duration)]
    pub(crate) wait_timeout: Option<Duration>,
}

/// Have the cluster one replica less
///
/// It may be running or lost for good. Writes go on without it, and it serves no fresh reads from then
/// on; stop it, if it runs. Nobody has its number ever again. Fine if it was removed before.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  kvorum admin replica remove 3")]
pub(crate) struct RemoveReplica {
    /// Its number
    #[arg(value_name = "ID", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) replica: u32,
}

/// Set the value of a key
///
/// Returns once the value is durable, on every replica or on a majority as the protocol has it, and
/// prints nothing.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kvorum put greeting 'hello world'
  kvorum put photo - < photo.jpg
  printf '%s' - | kvorum put dash -         a value that is one dash")]
pub(crate) struct Put {
    /// Any bytes, 1 to 65536 of them
    pub(crate) key: OsString,
    /// Any bytes, at most 16 MiB; `-` reads them from standard input
    #[arg(allow_negative_numbers = true)]
    pub(crate) value: OsString,
    #[command(flatten)]
    pub(crate) conflicts: Conflicts,
}

/// Print the value of a key, as it is, and a newline
///
/// Of several keys it prints what they hold at one moment, each on a line, as KEY<tab>VALUE; one that
/// is not there as KEY alone, and then the exit code is 1.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kvorum get greeting
  kvorum get greeting || echo 'exit code 1: there is no such key'
  kvorum get account/alice account/bob      both as they are at one moment
  kvorum get greeting --read stale          what the connected replica has, although it may be old
  kvorum --output json get photo            {\"key\":\"photo\",\"value_base64\":\"/9j/4AA=\"}")]
pub(crate) struct Get {
    /// The key, or several of them
    #[arg(required = true, value_name = "KEY")]
    pub(crate) keys: Vec<OsString>,
    #[command(flatten)]
    pub(crate) reading: Reading,
}

/// Remove a key; fine if it is not there
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  kvorum del greeting")]
pub(crate) struct Del {
    /// The key
    pub(crate) key: OsString,
    #[command(flatten)]
    pub(crate) conflicts: Conflicts,
}

/// Print the rows of a range in byte order of the keys, as KEY<tab>VALUE
///
/// However many there are, they are shown as they were at one moment: a replica holds a snapshot of
/// the store until the last of them are read. If nobody reads on for 30 seconds, it lets go of it,
/// and the scan fails.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kvorum scan                               everything
  kvorum scan --prefix user/ --limit 10
  kvorum scan --from b --to d               keys from b up to and without d
  kvorum --output json scan | jq -r .key")]
pub(crate) struct Scan {
    /// Only keys that begin with this
    #[arg(long, value_name = "P", default_value = "", hide_default_value = true)]
    pub(crate) prefix: OsString,
    /// Only keys from this one on
    #[arg(long, value_name = "KEY", default_value = "", hide_default_value = true)]
    pub(crate) from: OsString,
    /// Only keys before this one
    #[arg(long, value_name = "KEY")]
    pub(crate) to: Option<OsString>,
    /// At most so many rows
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Print keys without values
    #[arg(long)]
    pub(crate) keys_only: bool,
    #[command(flatten)]
    pub(crate) reading: Reading,
}

/// Run one transaction, whose statements are read from standard input
///
/// All checks hold and all writes happen, at one moment, or nothing does.
#[derive(Debug, Args)]
#[command(after_help = "\
Statements, one a line:
  check KEY absent          the key is not there
  check KEY present         the key is there
  check KEY = VALUE         the key is there and has this value
  get KEY...                show what these keys hold, as KEY<tab>VALUE; KEY alone is not there
  put KEY VALUE
  del KEY
  cas KEY OLD NEW           compare and set: check KEY = OLD, put KEY NEW
  add KEY NUMBER            add to the whole number that the key holds, and show the sum
They run in their order: `get` and `add` see what stands above them. A check speaks of the store as
it was before the transaction.
Words are split as in a shell: 'single quotes' take everything as it stands, \"double quotes\" and
bare words know \\n \\t \\r \\0 \\xHH \\\\ and a backslash before any sign. A word that begins
with # begins a comment.

Example:
  kvorum txn <<'END'
  check account/alice = 100
  check account/bob present
  put account/alice 70
  put account/bob 30        # all of it, or nothing
  END

Exit code 3 says that a check does not hold, or that another transaction holds one of the keys or
has changed one that was shown, and that nothing happened. With --on-conflict retry such a
transaction is tried again until --timeout is over; a check that does not hold is told at once.")]
pub(crate) struct Txn {
    #[command(flatten)]
    pub(crate) conflicts: Conflicts,
}

/// Talk to the cluster line by line, with history, completion and help
///
/// Reads commands from a pipe as well; then it goes on after a command that failed, and the exit
/// code is that of the first one that did.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kvorum shell
  printf 'put a 1\\nget a\\n' | kvorum shell")]
pub(crate) struct Shell {
    #[command(flatten)]
    pub(crate) conflicts: Conflicts,
}

/// Show each process of the cluster: its role, address, whether it is up, and how it is
///
/// Asks the connected process for the members, then each of them itself. That one is down is shown
/// and is no error.
#[derive(Debug, Args)]
#[command(after_help = "\
Columns:
  INCARNATION  how often the process has started on its data
  LOG          records appended to its log; `(N synced)` if the disk does not have all yet
  IN FLIGHT    transactions begun and not ended
  IN DOUBT     on a replica: voted yes, outcome not known for longer than usual;
               on a coordinator: committed, not yet acknowledged by every replica
  LOCKS        keys that are locked
  BALLOT       of the leader that a replica follows, as ROUND.LEADER (Multi-Paxos)
  APPLIED      the last slot in its store; `(N chosen)` if it knows of more (Multi-Paxos)

Examples:
  kvorum status
  kvorum --output json status | jq '.processes[] | select(.up | not)'")]
pub(crate) struct Status {
    /// Show the counters of each process as well
    #[arg(long)]
    pub(crate) counters: bool,
}

/// Show what each replica holds, asking every one of them, and whether all hold the same
///
/// Rows in flight may make replicas differ for a moment; `equal` is true only if every replica of
/// the cluster answered and all hold the same rows. The exit code is 0 either way.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kvorum inspect                            the first rows on each replica, counts, digests, verdict
  kvorum inspect --prefix user/ --limit 5
  kvorum inspect --limit 0                  the verdict without rows
  kvorum --output json inspect | jq .equal")]
pub(crate) struct Inspect {
    /// Only keys that begin with this
    #[arg(long, value_name = "P", default_value = "", hide_default_value = true)]
    pub(crate) prefix: OsString,
    /// Show at most so many rows; all are compared
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) limit: usize,
}

/// Write all rows as JSON, one a line, for `kvorum import`
///
/// All of them as they were at one moment, like those of a scan.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kvorum export > backup.jsonl
  kvorum export --prefix user/ users.jsonl
  kvorum export --read stale                what is left on one replica of too few")]
pub(crate) struct Export {
    /// Only keys that begin with this
    #[arg(long, value_name = "P", default_value = "", hide_default_value = true)]
    pub(crate) prefix: OsString,
    #[command(flatten)]
    pub(crate) reading: Reading,
    /// Where to write; standard output if there is none
    pub(crate) file: Option<PathBuf>,
}

/// Put the rows of a file that `kvorum export` wrote
///
/// Each row is put on its own; an import that stopped half way can simply be run again.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  kvorum import backup.jsonl")]
pub(crate) struct Import {
    /// Where to read; standard input if there is none
    pub(crate) file: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
