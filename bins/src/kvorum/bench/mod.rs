//! `bench`: puts a load on a cluster and tells how it bore it.

mod progress;
mod report;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::Args;
use kvorum::cluster::Cluster;
use kvorum::load::{
    HISTORY_VALUE_BYTES_MIN, KEY_BYTES_MIN, Keys, Load, LoadError, LoadOptions, Mix, Summary, Until,
};
use kvorum::server::Protocol;
use kvorum::time::duration;
use kvorum_replication::Happened;
use kvorum_rpc::client::ErrorKind;
use tokio::task::LocalSet;

use crate::arguments::Global;
use crate::connection;
use crate::error::{CommandError, Kind};
use crate::fresh;
use crate::limits;
use crate::output::Output;

/// How long it runs if nothing else is said.
const SECONDS: Duration = Duration::from_secs(10);

/// The warm-up of a run that is limited by time.
const WARM_UP: Duration = Duration::from_secs(1);

/// How many keys there are if they are used more than once and nothing else is said.
const KEYS: u64 = 10_000;

/// A fresh cluster is ready for writes within milliseconds.
const LINKS_WITHIN: Duration = Duration::from_secs(10);

/// Many of each: a typing error is not to exhaust the machine.
const CLIENTS_MAX: i64 = 10_000;
const OUTSTANDING_MAX: i64 = 10_000;
const THREADS_MAX: i64 = 64;
const REPLICAS_MAX: i64 = 9;

/// Measure how fast the cluster answers, and that it does
///
/// Each client is a connection of its own that asks again as soon as it is answered. Refusals that
/// will pass are tried anew after a pause, so that a bench lives through restarts of the cluster.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Mixes:
  put, get, del and cas (compare-and-set), alone or with weights: --mix put=5,get=95
  Puts use each key once, unless --keys is given; everything else uses 10000 keys, which are put
  before the clock starts.

History:
  one JSON object an operation:
  {\"client\":1,\"op\":\"put\",\"key\":\"k\",\"value\":\"v\",\"call\":NS,\"ret\":NS,\"ok\":true|false|\"unknown\"}

Exit codes: 0 if it ran to its end and anything was acknowledged, else as for other commands.

Examples:
  kvorum bench --clients 64 --seconds 10
  kvorum bench --fresh --clients 64         on a cluster of its own, on this machine
  kvorum bench --fresh --protocol paxos --replicas 5
  kvorum bench --clients 16 --ops 100000 --history history.jsonl
  kvorum bench --mix get --clients 8 --outstanding 32
  kvorum --output json bench | jq .ops_per_second")]
pub(crate) struct Bench {
    /// Connections
    #[arg(long, value_name = "N", default_value_t = 16)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=CLIENTS_MAX))]
    clients: u32,

    /// Operations in flight on each connection
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=OUTSTANDING_MAX))]
    outstanding: u32,

    /// Threads that share the connections
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=THREADS_MAX))]
    threads: u32,

    /// Stop after so many operations
    #[arg(long, value_name = "N", conflicts_with = "seconds")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    ops: Option<u64>,

    /// Stop after this time, the warm-up not included [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    seconds: Option<Duration>,

    /// Do not measure this first part [default: 1s, and nothing with --ops]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    warm_up: Option<Duration>,

    /// What to ask, see below
    #[arg(long, value_name = "MIX", default_value_t = Mix::PUTS)]
    mix: Mix,

    /// Use so many keys, each of them often
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    keys: Option<u64>,

    /// The size of a key
    #[arg(long, value_name = "N", default_value_t = 16)]
    key_bytes: usize,

    /// The size of a value
    #[arg(long, value_name = "N", default_value_t = 128)]
    value_bytes: usize,

    /// Make the same keys and choices as another run with this seed [default: the time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// End with an error if nothing was acknowledged for so long
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    give_up: Duration,

    /// Start a cluster on this machine, use it instead of --connect, and remove it at the end
    #[arg(long)]
    fresh: bool,

    /// How the cluster of --fresh replicates
    #[arg(long, value_name = "PROTOCOL", value_enum, requires = "fresh")]
    #[arg(default_value_t = Protocol::TwoPhaseCommit)]
    protocol: Protocol,

    /// How many replicas it has
    #[arg(long, value_name = "N", default_value_t = 3, requires = "fresh")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=REPLICAS_MAX))]
    replicas: u32,

    /// Write what was asked and answered to this file, for a checker
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
}

/// Runs the load and prints what came of it.
pub(crate) fn bench(
    global: &Global,
    output: &mut Output,
    bench: Bench,
) -> Result<(), CommandError> {
    let fresh = bench.fresh.then_some((bench.protocol, bench.replicas));
    let options = bench.into_options()?;
    // Ends when it is dropped, which is at the end of this function.
    let cluster =
        fresh.map(|(protocol, count)| start_fresh(protocol, count, global.timeout)).transpose()?;
    let connect = cluster.as_ref().map_or_else(|| global.connect.clone(), Cluster::connect);
    let client = connection::options(connect, global.timeout);
    let load = Load::start(options.clone(), &client).map_err(failed)?;
    progress::show(&load, &options);
    let summary = load.join().map_err(failed)?;
    report::print(output, &options, &summary)?;
    check(&summary)
}

fn start_fresh(
    protocol: Protocol,
    replicas: u32,
    timeout: Duration,
) -> Result<Cluster, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CommandError::io("cannot start the runtime", &error))?;
    let mut cluster = fresh::cluster(protocol.replication(), replicas, None)?;
    let started = LocalSet::new().block_on(&runtime, async {
        cluster.start_all().await?;
        cluster.await_links(LINKS_WITHIN.max(timeout)).await
    });
    started.map_err(fresh::failed)?;
    Ok(cluster)
}

impl Bench {
    fn into_options(self) -> Result<LoadOptions, CommandError> {
        let keys = match self.keys {
            Some(keys) => Keys::Among(keys),
            None if self.mix.is_only_puts() => Keys::Unique,
            None => Keys::Among(KEYS),
        };
        let (until, warm_up) = match (self.ops, self.seconds) {
            (Some(operations), _) => (Until::Operations(operations), Duration::ZERO),
            (None, seconds) => (Until::Elapsed(seconds.unwrap_or(SECONDS)), WARM_UP),
        };
        let options = LoadOptions {
            clients: self.clients,
            outstanding: self.outstanding,
            threads: self.threads.min(self.clients),
            until,
            warm_up: self.warm_up.unwrap_or(warm_up),
            mix: self.mix,
            keys,
            key_bytes: self.key_bytes,
            value_bytes: self.value_bytes,
            seed: self.seed.unwrap_or_else(time_as_seed),
            give_up_after: self.give_up,
            history: self.history,
        };
        check_sizes(&options)?;
        Ok(options)
    }
}

fn check_sizes(options: &LoadOptions) -> Result<(), CommandError> {
    let (key, value) = (options.key_bytes, options.value_bytes);
    if !(KEY_BYTES_MIN..=limits::KEY_BYTES_MAX).contains(&key) {
        return Err(CommandError::usage(
            format!("--key-bytes {key} is out of range"),
            format!("give from {KEY_BYTES_MIN} to {}", limits::KEY_BYTES_MAX),
        ));
    }
    if value > limits::VALUE_BYTES_MAX {
        return Err(CommandError::usage(
            format!("--value-bytes {value} is out of range"),
            format!("give at most {}", limits::VALUE_BYTES_MAX),
        ));
    }
    if options.history.is_some() && value < HISTORY_VALUE_BYTES_MIN {
        return Err(CommandError::usage(
            format!("in a history every value is different, and --value-bytes {value} is too few"),
            format!("give at least {HISTORY_VALUE_BYTES_MIN}"),
        ));
    }
    Ok(())
}

/// Another one for each run, so that the keys of two runs are not the same.
fn time_as_seed() -> u64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // The lower half: it is there that two runs differ.
    u64::try_from(since_1970.as_nanos() & u128::from(u64::MAX)).unwrap_or_default()
}

/// A run in which nothing was acknowledged has not shown anything.
fn check(summary: &Summary) -> Result<(), CommandError> {
    let counts = summary.counts;
    let refused = counts.unavailable + counts.overloaded;
    let why = match (counts.ok, refused, counts.ended()) {
        (0, 1.., _) => "the cluster was unavailable all the time",
        (0, 0, 0) => "no operation began and ended in the time that is measured",
        _ => return Ok(()),
    };
    Err(CommandError {
        kind: Kind::Cluster(ErrorKind::Unavailable),
        happened: Happened::No,
        what: format!("nothing was acknowledged, {why}"),
        remedy: "see `kvorum status`".to_owned(),
    })
}

fn failed(error: LoadError) -> CommandError {
    match error {
        LoadError::Client(error) => error.into(),
        LoadError::Io { what, source } => CommandError::io(&what, &source),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct CommandLine {
        #[command(flatten)]
        bench: Bench,
    }

    fn options(flags: &str) -> Result<LoadOptions, String> {
        let words = std::iter::once("bench").chain(flags.split_whitespace());
        let parsed = CommandLine::try_parse_from(words).map_err(|error| error.to_string())?;
        parsed.bench.into_options().map_err(|error| format!("{}; {}", error.what, error.remedy))
    }

    #[test]
    fn flags_become_options() {
        let plain = options("").unwrap();
        assert_eq!((plain.clients, plain.outstanding, plain.threads), (16, 1, 1));
        assert_eq!(plain.until, Until::Elapsed(Duration::from_secs(10)));
        assert_eq!((plain.warm_up, plain.keys), (Duration::from_secs(1), Keys::Unique));
        assert_eq!((plain.key_bytes, plain.value_bytes), (16, 128));

        let counted = options("--ops 1000 --clients 2 --threads 4").unwrap();
        assert_eq!((counted.until, counted.warm_up), (Until::Operations(1000), Duration::ZERO));
        assert_eq!(counted.threads, 2, "a thread without a client is of no use");

        assert_eq!(options("--mix put --keys 5").unwrap().keys, Keys::Among(5));
        assert_eq!(options("--mix put=1,get=9").unwrap().keys, Keys::Among(KEYS));
        assert_eq!(options("--seconds 500ms").unwrap().until, Until::Elapsed(SECONDS / 20));
    }

    #[test]
    fn wrong_flags_are_refused_with_a_remedy() {
        for (flags, remedy) in [
            ("--clients 0", "not in 1..="),
            ("--ops 0", "not in 1.."),
            ("--ops 1 --seconds 1", "cannot be used with"),
            ("--mix set", "none of put, get, del, cas"),
            ("--key-bytes 7", "from 8 to 65536"),
            ("--key-bytes 65537", "from 8 to 65536"),
            ("--value-bytes 16777217", "at most 16777216"),
            ("--value-bytes 23 --history h", "at least 24"),
        ] {
            let error = options(flags).unwrap_err();
            assert!(error.contains(remedy), "{flags}: {error}");
        }
    }
}
