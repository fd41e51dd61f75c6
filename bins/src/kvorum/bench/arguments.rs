//! What `bench` is told on the command line.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::{Args, ValueEnum};
use kvorum::load::{
    Arrivals, Distribution, HISTORY_VALUE_BYTES_MIN, KEY_BYTES_MIN, Keys, LoadOptions, Mix, Pace,
    Until,
};
use kvorum::server::Protocol;
use kvorum::time::duration;

use crate::error::CommandError;
use crate::limits;

/// How long it runs if nothing else is said.
const SECONDS: Duration = Duration::from_secs(10);

/// The warm-up of a run that is limited by time.
const WARM_UP: Duration = Duration::from_secs(1);

/// How many keys there are if they are used more than once and nothing else is said.
const KEYS: u64 = 10_000;

/// An open loop does not wait for answers, so each connection has room for some.
const OUTSTANDING_OPEN: u32 = 64;

/// Many of each: a typing error is not to exhaust the machine.
const CLIENTS_MAX: i64 = 10_000;
const OUTSTANDING_MAX: i64 = 10_000;
const THREADS_MAX: i64 = 64;
const REPLICAS_MAX: i64 = 9;
const TXN_KEYS_MAX: i64 = 1_000;
const SCAN_ROWS_MAX: i64 = 10_000;

/// A timer and a connection can do no more.
const RATE_MAX: f64 = 1e7;

/// Measure how fast the cluster answers, and that it does
///
/// Each client is a connection of its own that asks again as soon as it is answered. Refusals that
/// will pass are tried anew after a pause, so that a bench lives through restarts of the cluster.
/// With --rate operations begin by the clock, and what is refused is only counted.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Mixes:
  put, get, del, cas (compare-and-set), txn (puts of --txn-keys keys at once), scan (--scan-rows
  rows from a key on) and rmw (read-modify-write: a get, then a cas, from the beginning if somebody
  else was faster), alone or with weights: --mix put=5,get=95
  Puts and transactions alone use each key once, unless --keys is given; everything else uses 10000
  keys, which are put before the clock starts if anything reads.

Rates:
  Without --rate the loop is closed: as many operations as clients times outstanding are always in
  flight. With it the loop is open: operations begin by the clock whatever becomes of those before,
  and latencies count from the time that was meant, so that a cluster that stands still shows in all
  that should have begun meanwhile (no coordinated omission). What finds all clients times
  outstanding in flight begins late; what has not begun at the end is counted.

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
  kvorum bench --mix get --clients 64 --to replicas
  kvorum bench --mix rmw --keys 100000 --distribution zipfian
  kvorum bench --rate 20000 --clients 64
  kvorum --output json bench | jq .ops_per_second")]
pub(crate) struct Bench {
    /// Connections
    #[arg(long, value_name = "N", default_value_t = 16)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=CLIENTS_MAX))]
    clients: u32,

    /// Operations in flight on each connection; with --rate, at most [default: 1, with --rate 64]
    #[arg(long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=OUTSTANDING_MAX))]
    outstanding: Option<u32>,

    /// Begin so many operations a second, whatever becomes of those before (open loop)
    #[arg(long, value_name = "N", value_parser = rate)]
    rate: Option<f64>,

    /// How they are apart
    #[arg(long, value_name = "HOW", value_enum, requires = "rate")]
    #[arg(default_value_t = Apart::Poisson)]
    arrivals: Apart,

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

    /// Which of them how often: uniform, zipfian[=0.99] or hot[=50] (percent to one key)
    #[arg(long, value_name = "HOW", default_value_t = Distribution::Uniform)]
    distribution: Distribution,

    /// How many keys a transaction puts
    #[arg(long, value_name = "N", default_value_t = 2)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=TXN_KEYS_MAX))]
    txn_keys: u32,

    /// How many rows a scan reads at most
    #[arg(long, value_name = "N", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=SCAN_ROWS_MAX))]
    scan_rows: u32,

    /// Who answers reads
    #[arg(long, value_name = "WHO", value_enum, default_value_t = To::Coordinator)]
    pub(super) to: To,

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
    pub(super) fresh: bool,

    /// How the cluster of --fresh replicates
    #[arg(long, value_name = "PROTOCOL", value_enum, requires = "fresh")]
    #[arg(default_value_t = Protocol::TwoPhaseCommit)]
    pub(super) protocol: Protocol,

    /// How many replicas it has
    #[arg(long, value_name = "N", default_value_t = 3, requires = "fresh")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=REPLICAS_MAX))]
    pub(super) replicas: u32,

    /// Write what was asked and answered to this file, for a checker
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
}

/// Who answers reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum To {
    /// Whoever --connect names, as for writes
    Coordinator,
    /// The replicas themselves, each client another one in turn
    Replicas,
}

/// How the operations of an open loop are apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Apart {
    /// Always the same
    Fixed,
    /// As those of many who do not know of each other
    Poisson,
}

impl Bench {
    /// What the load is to be; where reads go is found out by asking the cluster.
    pub(super) fn into_options(self) -> Result<LoadOptions, CommandError> {
        let keys = match self.keys {
            Some(keys) => Keys::Among(keys),
            None if self.mix.is_only_puts() => Keys::Unique,
            None => Keys::Among(KEYS),
        };
        let (until, warm_up) = match (self.ops, self.seconds) {
            (Some(operations), _) => (Until::Operations(operations), Duration::ZERO),
            (None, seconds) => (Until::Elapsed(seconds.unwrap_or(SECONDS)), WARM_UP),
        };
        let arrivals = match self.arrivals {
            Apart::Fixed => Arrivals::Fixed,
            Apart::Poisson => Arrivals::Poisson,
        };
        let (pace, outstanding) = match self.rate {
            Some(rate) => (Pace::Open { rate, arrivals }, OUTSTANDING_OPEN),
            None => (Pace::Closed, 1),
        };
        let options = LoadOptions {
            clients: self.clients,
            outstanding: self.outstanding.unwrap_or(outstanding),
            threads: self.threads.min(self.clients),
            until,
            warm_up: self.warm_up.unwrap_or(warm_up),
            mix: self.mix,
            pace,
            keys,
            distribution: self.distribution,
            transaction_keys: self.txn_keys,
            scan_rows: self.scan_rows,
            read_from: Vec::new(),
            key_bytes: self.key_bytes,
            value_bytes: self.value_bytes,
            seed: self.seed.unwrap_or_else(time_as_seed),
            give_up_after: self.give_up,
            history: self.history,
        };
        check_sizes(&options)?;
        check_keys(&options)?;
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

fn check_keys(options: &LoadOptions) -> Result<(), CommandError> {
    let LoadOptions { mix, keys, transaction_keys, distribution, .. } = options;
    match keys {
        Keys::Unique if *distribution != Distribution::Uniform => {
            return Err(CommandError::usage(
                "keys that are used once have no distribution",
                "say of how many keys with --keys",
            ));
        }
        Keys::Among(keys) if mix.transacts() && *keys < u64::from(*transaction_keys) => {
            return Err(CommandError::usage(
                format!("a transaction of {transaction_keys} keys cannot be made of {keys}"),
                "give more --keys or less --txn-keys",
            ));
        }
        _ => {}
    }
    if options.history.is_some() && mix.scans() {
        return Err(CommandError::usage(
            "a history has no scans that end at a limit",
            "leave out --history, or the scans",
        ));
    }
    Ok(())
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.001..=RATE_MAX).contains(&rate) => Ok(rate),
        _ => Err(format!("`{text}` is no number from 0.001 to {RATE_MAX}")),
    }
}

/// Another one for each run, so that the keys of two runs are not the same.
fn time_as_seed() -> u64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // The lower half: it is there that two runs differ.
    u64::try_from(since_1970.as_nanos() & u128::from(u64::MAX)).unwrap_or_default()
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

        assert_eq!(plain.pace, Pace::Closed);

        let open = options("--rate 5000 --clients 4").unwrap();
        let arrivals = Arrivals::Poisson;
        assert_eq!((open.pace, open.outstanding), (Pace::Open { rate: 5000.0, arrivals }, 64));
        let fixed = options("--rate 0.5 --arrivals fixed --outstanding 2").unwrap();
        let arrivals = Arrivals::Fixed;
        assert_eq!((fixed.pace, fixed.outstanding), (Pace::Open { rate: 0.5, arrivals }, 2));

        assert_eq!(options("--mix txn --txn-keys 3").unwrap().keys, Keys::Unique);
        assert_eq!(options("--mix txn=1,get=1").unwrap().keys, Keys::Among(KEYS));
        let skewed = options("--keys 9 --distribution hot=70").unwrap().distribution;
        assert_eq!(skewed, Distribution::Hot { percent: 70 });
        assert_eq!(options("--mix put --keys 5").unwrap().keys, Keys::Among(5));
        assert_eq!(options("--mix put=1,get=9").unwrap().keys, Keys::Among(KEYS));
        assert_eq!(options("--seconds 500ms").unwrap().until, Until::Elapsed(SECONDS / 20));
    }

    #[test]
    fn wrong_flags_are_refused_with_a_remedy() {
        for (flags, remedy) in [
            ("--rate 0", "no number from 0.001"),
            ("--rate NaN", "no number from 0.001"),
            ("--arrivals fixed", "--rate"),
            ("--distribution zipfian", "with --keys"),
            ("--mix txn --keys 1", "more --keys"),
            ("--mix scan --history h", "leave out --history"),
            ("--txn-keys 0", "not in 1..="),
            ("--to nowhere", "possible values"),
            ("--clients 0", "not in 1..="),
            ("--ops 0", "not in 1.."),
            ("--ops 1 --seconds 1", "cannot be used with"),
            ("--mix set", "none of put, get, del, cas, txn, scan, rmw"),
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
