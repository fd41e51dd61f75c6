//! The command line of `kvorumd`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use kvorum_node::FailPoint;
use kvorum_replication::NodeId;
use kvorum_replication::paxos::points as paxos_points;
use kvorum_replication::points::Point;
use kvorum_replication::two_phase::CommitMode;
use kvorum_sim::Planted;

use super::logging::check_filter;
use super::paxos_flags::PaxosFlags;
use super::points::{coordinator_points, participant_points};
use crate::address::host_and_port;
use crate::time::duration;

/// What `kvorumd` is.
pub const ABOUT: &str = "Kvorum's server: one process of a replicated, durable key-value store";

const EXAMPLES: &str = "\
A cluster of three replicas, committing in two phases:
  kvorumd replica --id 1 --listen 127.0.0.1:7101 --data-dir data/r1
  kvorumd replica --id 2 --listen 127.0.0.1:7102 --data-dir data/r2
  kvorumd replica --id 3 --listen 127.0.0.1:7103 --data-dir data/r3
  kvorumd coordinator --listen 127.0.0.1:7100 --data-dir data/c \\
      --replica 1=127.0.0.1:7101 --replica 2=127.0.0.1:7102 --replica 3=127.0.0.1:7103
  kvorum --connect 127.0.0.1:7100 put greeting hello

Five replicas without a coordinator, whichever a client asks (likewise on the others):
  kvorumd replica --id 1 --listen 127.0.0.1:7101 --data-dir data/r1 \\
      --peer 2=127.0.0.1:7102 --peer 3=127.0.0.1:7103 --peer 4=127.0.0.1:7104 \\
      --peer 5=127.0.0.1:7105

Three equal replicas, agreeing by Multi-Paxos; each is told where all the others are:
  kvorumd replica --protocol paxos --id 1 --listen 127.0.0.1:7101 --data-dir data/p1 \\
      --peer 2=127.0.0.1:7102 --peer 3=127.0.0.1:7103
  kvorumd replica --protocol paxos --id 2 --listen 127.0.0.1:7102 --data-dir data/p2 \\
      --peer 1=127.0.0.1:7101 --peer 3=127.0.0.1:7103
  kvorumd replica --protocol paxos --id 3 --listen 127.0.0.1:7103 --data-dir data/p3 \\
      --peer 1=127.0.0.1:7101 --peer 2=127.0.0.1:7102
  kvorum --connect 127.0.0.1:7101,127.0.0.1:7102,127.0.0.1:7103 put greeting hello

Once it serves, a process prints one line on standard output:
  ready ROLE id=ID listen=ADDR
Its log goes to standard error. SIGTERM and SIGINT stop it cleanly; SIGKILL loses nothing that was
acknowledged either.

Exit codes:
  0  stopped cleanly
  1  stopped because something failed while it served, for instance its disk
  2  the command line is wrong
  4  refused: the address is in use, or the data directory is in use or somebody else's
  6  corrupt data";

/// How `kvorumd` is used: the end of its help.
#[must_use]
pub fn examples() -> &'static str {
    EXAMPLES
}

/// The names of `--fail-point`, with what each means: the end of a role's help.
#[must_use]
pub fn fail_points(points: &[Point]) -> String {
    listed("Fail points:", points)
}

/// The same for a replica, whose points depend on its protocol.
fn fail_points_of_replicas() -> String {
    let two_phase = listed(
        "Fail points with --protocol 2pc (with --peer also those of a coordinator):",
        &participant_points(),
    );
    let paxos = listed("Fail points with --protocol paxos:", paxos_points::ALL);
    format!("{two_phase}\n\n{paxos}")
}

fn listed(heading: &str, points: &[Point]) -> String {
    let lines = points.iter().map(|Point { name, moment }| format!("\n  {name:32} {moment}"));
    std::iter::once(heading.to_owned()).chain(lines).collect()
}

/// What to serve as.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Hold a copy of the data
    Replica(Replica),
    /// Decide transactions and answer clients (two-phase commit)
    Coordinator(Coordinator),
}

/// The flags of `kvorumd replica`.
#[derive(Debug, Args)]
#[command(after_long_help = fail_points_of_replicas())]
pub struct Replica {
    /// This replica's number, from 1; no other of the cluster has it
    #[arg(long, value_parser = replica_id)]
    pub id: NodeId,

    /// Where to listen; port 0 takes a free one, which the `ready` line names
    #[arg(long, value_name = "ADDR", value_parser = listen_address)]
    pub listen: SocketAddr,

    /// Where the data lives; made if it is not there, and then this replica's for ever
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,

    /// How the cluster replicates
    #[arg(long, value_enum, default_value_t = Protocol::TwoPhaseCommit)]
    pub protocol: Protocol,

    /// Another replica of the cluster and where it listens; once for each. Two-phase commit without
    /// it needs a coordinator, which tells; with it, whichever replica a client asks coordinates
    #[arg(long, value_name = "ID=ADDR", value_parser = peer)]
    pub peer: Vec<Peer>,

    /// This replica has lost its disk, or was added to a cluster that has data, and starts on an empty
    /// data directory: it catches up from the others, and takes part once they have taken it in. Not
    /// for two-phase commit with --peer
    #[arg(long)]
    pub rejoin: bool,

    /// Flags of Multi-Paxos.
    #[command(flatten)]
    pub paxos: PaxosFlags,

    /// Flags that every process has.
    #[command(flatten)]
    pub process: Process,
}

/// The flags of `kvorumd coordinator`.
#[derive(Debug, Args)]
#[command(after_long_help = fail_points(&coordinator_points()))]
pub struct Coordinator {
    /// Where to listen; port 0 takes a free one, which the `ready` line names
    #[arg(long, value_name = "ADDR", value_parser = listen_address)]
    pub listen: SocketAddr,

    /// Where the decisions are kept; made if it is not there, and then this coordinator's for ever
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,

    /// A replica and where it listens; once for each that the cluster begins with. Later they may be
    /// left out, but for one that has moved: the data directory remembers who belongs to the cluster.
    /// `kvorum admin replica` adds and removes some
    #[arg(long, value_name = "ID=ADDR", value_parser = peer)]
    pub replica: Vec<Peer>,

    /// When a write is committed
    #[arg(long, value_enum, default_value_t = Commit::Parallel)]
    pub commit: Commit,

    /// Writes go on without replicas that do not answer, as long as so many remain [default: a
    /// majority]. As many as there are: writes wait for every replica, always
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub min_replicas: Option<u32>,

    /// How long a replica may be silent before writes go on without it, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 500)]
    #[arg(value_parser = clap::value_parser!(u64).range(50..=60_000))]
    pub exclude_after: u64,

    /// Flags that every process has.
    #[command(flatten)]
    pub process: Process,
}

/// When a coordinator counts a transaction as committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Commit {
    /// When every replica has promised durably; the coordinator's record follows
    Parallel,
    /// When the coordinator's record of that is durable, too
    AfterDecision,
}

impl From<Commit> for CommitMode {
    fn from(commit: Commit) -> Self {
        match commit {
            Commit::Parallel => Self::Parallel,
            Commit::AfterDecision => Self::AfterDecision,
        }
    }
}

/// Flags that every process has.
#[derive(Debug, Args)]
pub struct Process {
    /// Threads that serve connections [default: one for two processors, 1 to 4]
    #[arg(long, value_name = "N", default_value_t = workers_default(), value_parser = workers)]
    #[arg(hide_default_value = true)]
    pub workers: usize,

    /// How long a request may wait behind others, in milliseconds, when more is asked than can be
    /// done: what would make them wait longer is refused as overloaded at once. Four times what
    /// one takes by itself is enough, so that a fast server seldom comes near this
    #[arg(long, value_name = "MS", default_value_t = 20, value_parser = max_delay)]
    pub max_delay: u64,

    /// Connections at a time; one too many is refused. Fewer if the limit of open files says so
    #[arg(long, value_name = "N", default_value_t = 16_384, value_parser = connections)]
    pub max_connections: usize,

    /// Where other processes reach this one, if not at the address it listens on: with 0.0.0.0 or
    /// behind a proxy
    #[arg(long, value_name = "ADDR", value_parser = host_and_port)]
    pub advertise: Option<String>,

    /// Listen on an address that other machines reach, although nothing is encrypted and nobody is
    /// asked who they are
    #[arg(long)]
    pub insecure: bool,

    /// What to log: error, warn, info, debug or trace, or by module as in `info,kvorum_rpc=debug`
    #[arg(long, value_name = "LEVEL", env = "KVORUM_LOG", default_value = "info")]
    #[arg(value_parser = check_filter)]
    pub log: String,

    /// For tests: die (SIGKILL) or stop (SIGSTOP) at this point of the protocol, or at its N-th
    /// passing; may be repeated. --help lists the names
    #[arg(long, value_name = "NAME=abort|pause[@N]", value_parser = fail_point)]
    pub fail_point: Vec<FailPoint>,

    /// For tests: this replica is reached by way of this address, instead of where it listens; may be
    /// repeated
    #[arg(long, value_name = "ID=ADDR", hide = true, value_parser = peer)]
    pub route: Vec<Peer>,

    /// For tests: a peer, or a client that does not introduce itself, may be silent for so long before
    /// it counts as gone. On a busy machine one that lives may be
    #[arg(long, value_name = "TIME", hide = true, value_parser = duration)]
    pub silence: Option<Duration>,

    /// For tests: the disk is full as long as this file exists; FILE.refused gets a byte for every
    /// operation that was refused for that
    #[arg(long, value_name = "FILE", hide = true)]
    pub disk_full_while: Option<PathBuf>,

    /// For tests: the node's clock is wrong by as many milliseconds as this file says; FILE.jumps
    /// gets a byte for every jump
    #[arg(long, value_name = "FILE", hide = true)]
    pub clock_wrong_by: Option<PathBuf>,

    /// For tests of the tests: the node has this bug
    #[cfg(feature = "planted-bugs")]
    #[arg(long, value_name = "BUG", hide = true, value_parser = planted_bug)]
    pub plant: Option<kvorum_sim::planted::Bug>,
}

impl Process {
    /// The bug that the node has, if any. An ordinary build has neither flag nor bug.
    pub(super) fn planted(&self) -> Planted {
        #[cfg(feature = "planted-bugs")]
        if let Some(bug) = self.plant {
            return Planted::of(bug);
        }
        Planted::default()
    }
}

/// How a cluster replicates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// Two-phase commit: atomic, strictly serializable, every replica has every write
    #[value(name = "2pc")]
    TwoPhaseCommit,
    /// Multi-Paxos: linearizable, available while a majority of the replicas is
    Paxos,
}

impl Protocol {
    /// As the cores know it.
    #[must_use]
    pub fn replication(self) -> kvorum_replication::Protocol {
        match self {
            Self::TwoPhaseCommit => kvorum_replication::Protocol::TwoPhase,
            Self::Paxos => kvorum_replication::Protocol::Paxos,
        }
    }
}

/// Another process, from `ID=ADDR`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its number.
    pub id: NodeId,
    /// Where it listens, `host:port`.
    pub address: String,
}

/// Worker threads beyond this only get in each other's way.
const WORKERS_MAX: usize = 64;

/// Who would wait for a minute does not want to be refused, and has given up before.
const MAX_DELAY_MILLIS: u64 = 60_000;

/// A thread that serves connections keeps about one other thread busy, the node's, and several
/// processes may share the machine. Fewer threads also batch better.
fn workers_default() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| (processors.get() / 2).clamp(1, 4))
}

fn listen_address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "it is an IP address and a port, for instance 127.0.0.1:7101".to_owned())
}

fn replica_id(text: &str) -> Result<NodeId, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("a replica's id is a whole number from 1".to_owned()),
        Ok(id) => Ok(NodeId(id)),
    }
}

/// Reads `ID=ADDR`, of a replica.
///
/// # Errors
/// If it is none, with what is wrong with it.
pub fn peer(text: &str) -> Result<Peer, String> {
    let (id, address) = text
        .split_once('=')
        .ok_or_else(|| "write it as ID=ADDR, for instance 1=127.0.0.1:7101".to_owned())?;
    let id = replica_id(id)?;
    let address = host_and_port(address)?;
    Ok(Peer { id, address })
}

fn workers(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=WORKERS_MAX) => Ok(count),
        _ => Err(format!("it is a number from 1 to {WORKERS_MAX}")),
    }
}

fn max_delay(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(millis @ 1..=MAX_DELAY_MILLIS) => Ok(millis),
        _ => Err(format!("it is a number of milliseconds from 1 to {MAX_DELAY_MILLIS}")),
    }
}

fn connections(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("it is a number from 1".to_owned()),
        Ok(count) => Ok(count),
    }
}

#[cfg(feature = "planted-bugs")]
fn planted_bug(text: &str) -> Result<kvorum_sim::planted::Bug, String> {
    kvorum_sim::planted::Bug::by_name(text).ok_or_else(|| "there is no such bug".to_owned())
}

fn fail_point(text: &str) -> Result<FailPoint, String> {
    text.parse().map_err(|error: kvorum_node::NodeError| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_have_an_id_and_an_address() {
        let expected = Peer { id: NodeId(3), address: "[::1]:7103".to_owned() };
        assert_eq!(peer("3=[::1]:7103"), Ok(expected));
        let wrong = ["", "3", "=a:1", "0=a:1", "x=a:1", "1=", "1=a"];
        for wrong in wrong {
            assert!(peer(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn servers_listen_on_an_ip_address_and_a_port() {
        for good in ["127.0.0.1:7101", "[::1]:0"] {
            assert!(listen_address(good).is_ok(), "{good}");
        }
        for wrong in ["7101", "localhost:7101", "127.0.0.1", "::1:7101:x"] {
            assert!(listen_address(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ids_and_workers_are_bounded() {
        assert_eq!(replica_id("1"), Ok(NodeId(1)));
        assert!(replica_id("0").is_err());
        assert!(replica_id("-1").is_err());
        assert_eq!(workers("64"), Ok(64));
        assert!(workers("0").is_err());
        assert!(workers("65").is_err());
        assert_eq!((max_delay("1"), connections("1")), (Ok(1), Ok(1)));
        assert!(max_delay("0").is_err());
        assert!(max_delay("60001").is_err());
        assert!(connections("0").is_err());
    }
}
