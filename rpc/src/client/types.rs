//! What a client is built with, and what it is told when all is well.

use std::time::Duration;

use kvorum_replication::Row;

/// How a [`Client`](super::Client) finds its cluster, and how patient it is.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Where to connect, `host:port` each; tried in turn, the first that answers is used.
    pub addresses: Vec<String>,
    /// Shown at the gate; empty where the cluster asks for none.
    pub token: Vec<u8>,
    /// How long one operation may take, retries included.
    pub timeout: Duration,
    /// How long connecting to one address may take.
    pub connect_timeout: Duration,
    /// How long a server may be silent while an answer is waited for; then it is asked whether it
    /// lives, and if it does not say so either, another one is tried.
    pub silence_timeout: Duration,
    /// The first pause before a lost connection is tried again; doubles up to
    /// [`ClientOptions::backoff_max`].
    pub backoff_min: Duration,
    /// The longest such pause.
    pub backoff_max: Duration,
    /// What becomes of a write that meets another one in flight.
    pub on_conflict: OnConflict,
}

/// What becomes of a write, or a transaction, that meets another one in flight on one of its keys:
/// the first to arrive proceeds, the others cannot commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnConflict {
    /// It fails at once with [`ErrorKind::Conflict`](super::ErrorKind::Conflict), and has not
    /// happened. The caller decides whether it still wants it.
    #[default]
    Fail,
    /// It waits a while, by chance and longer each time, and tries again until its time is over;
    /// then it fails with the conflict it met last.
    Retry,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            token: Vec::new(),
            timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(1),
            silence_timeout: Duration::from_millis(1500),
            backoff_min: Duration::from_millis(10),
            backoff_max: Duration::from_millis(500),
            on_conflict: OnConflict::default(),
        }
    }
}

impl ClientOptions {
    /// The defaults, for these addresses.
    #[must_use]
    pub fn new(addresses: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { addresses: addresses.into_iter().map(Into::into).collect(), ..Self::default() }
    }
}

/// Part of a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanPage {
    /// In byte order of the keys.
    pub rows: Vec<Row>,
    /// Whether the range holds more behind them.
    pub more: bool,
}

/// How one process of the cluster is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessStatus {
    /// `coordinator` or `replica`.
    pub role: String,
    /// How its cluster replicates, in words.
    pub protocol: String,
    /// Its number.
    pub node: u32,
    /// Who decides for the cluster, as far as it knows; under protocols that elect somebody.
    pub leader: Option<u32>,
    /// Hexadecimal; empty while the process has not joined one.
    pub cluster: String,
    /// Where it listens.
    pub address: String,
    /// The version of its program.
    pub version: String,
    /// How often it has started on its data, this run included.
    pub incarnation: u64,
    /// The last record appended to its log.
    pub log_last: u64,
    /// The last record that is durable.
    pub log_durable: u64,
    /// Transactions begun and not ended.
    pub in_flight: u64,
    /// Transactions whose outcome is not known here, or not acknowledged by all.
    pub in_doubt: u64,
    /// Keys locked.
    pub locks: u64,
    /// How long it has served, in milliseconds.
    pub uptime_millis: u64,
    /// Every node of the cluster that it knows, itself included.
    pub members: Vec<MemberStatus>,
    /// Counters by name.
    pub counters: Vec<(String, u64)>,
}

/// A node of the cluster as another one sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its number.
    pub node: u32,
    /// Where it listens.
    pub address: String,
    /// Whether the process that answers has a link to it.
    pub up: bool,
}
