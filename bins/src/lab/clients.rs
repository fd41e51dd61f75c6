//! The clients of a run: many, on a thread of their own, each with an operation at a time, at a
//! pace; and what they saw.
//!
//! A cluster that refuses is asked again after a pause, with something new: a refused operation is
//! over. One of unknown outcome stays unknown, and its client goes on under another number, since
//! the operation may still take place beside the next one.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use kvorum_checker::{Ending, Operation, Precondition, Record};
use kvorum_replication::random::Random;
use kvorum_replication::{Happened, Precondition as Condition, Transaction, Write};
use kvorum_rpc::client::{Client, ClientError, ClientOptions, ErrorKind};
use tokio::task::LocalSet;
use tokio::time::Instant;

use super::clock::{Clock, nanos};
use super::workload::{At, Work, Workload};

/// The pause after the first refusal; doubles with each that follows.
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// The longest pause: a cluster that is back is noticed within it.
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// How patient the least patient client is, and by how much the most patient one is more so. With
/// the first many outcomes stay unknown, with the last most are learned from a restarted cluster.
const TIMEOUT_MIN: Duration = Duration::from_millis(500);
const TIMEOUT_SPREAD: Duration = Duration::from_millis(2500);

/// How long the first connections may take; nothing is broken yet.
const CONNECT: Duration = Duration::from_secs(10);

/// Rows of one scan; a group of keys or all accounts are far fewer.
const SCAN_ROWS: u64 = 4096;

/// Rows of one page: few, so that every scan takes several, and others write meanwhile.
const PAGE_ROWS: u32 = 3;

/// Operations of one run that are kept, about 300 bytes each: beyond it clients stop asking.
const HISTORY_MAX: u64 = 3_000_000;

/// What the clients are to do.
#[derive(Clone, Debug)]
pub(super) struct ClientsOptions {
    pub(super) count: u32,
    /// Operations a second, of all clients together.
    pub(super) rate: u32,
    pub(super) workload: Workload,
    pub(super) keys: u32,
    pub(super) seed: u64,
    /// Where writes are taken; clients begin at one each, and try the others.
    pub(super) entrances: Vec<String>,
    /// Where they find the replicas.
    pub(super) replicas: Vec<String>,
}

/// An operation that somebody saw the end of, and why it did not end well.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) record: Record,
    pub(super) error: Option<ClientError>,
}

/// Clients at work.
#[derive(Debug)]
pub(super) struct Clients {
    shared: Arc<Shared>,
    thread: JoinHandle<Result<Vec<Seen>, ClientError>>,
}

#[derive(Debug)]
struct Shared {
    options: ClientsOptions,
    clock: Clock,
    stopped: AtomicBool,
    asked: AtomicU64,
    acknowledged_writes: AtomicU64,
    /// When the last one was acknowledged.
    last_write_nanos: AtomicU64,
    seen: Mutex<Vec<Seen>>,
}

impl Clients {
    /// Connects all clients, writes what must be there before they begin, and lets them begin.
    pub(super) fn start(options: ClientsOptions, clock: Clock) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            options,
            clock,
            stopped: AtomicBool::new(false),
            asked: AtomicU64::new(0),
            acknowledged_writes: AtomicU64::new(0),
            last_write_nanos: AtomicU64::new(0),
            seen: Mutex::default(),
        });
        let theirs = Arc::clone(&shared);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (ready, is_ready) = mpsc::channel();
        let thread = thread::Builder::new().name("clients".to_owned()).spawn(move || {
            LocalSet::new().block_on(&runtime, run(&theirs, ready))?;
            Ok(std::mem::take(&mut *theirs.seen()))
        })?;
        // Without a word it has failed, and says so when it is joined.
        let _ = is_ready.recv();
        Ok(Self { shared, thread })
    }

    /// Writes acknowledged so far, and when the last one was.
    pub(super) fn acknowledged(&self) -> (u64, u64) {
        let count = self.shared.acknowledged_writes.load(Ordering::Acquire);
        (count, self.shared.last_write_nanos.load(Ordering::Acquire))
    }

    /// Operations begun so far.
    pub(super) fn asked(&self) -> u64 {
        self.shared.asked.load(Ordering::Relaxed)
    }

    /// Whether they have ended by themselves, which is an error.
    pub(super) fn have_failed(&self) -> bool {
        self.thread.is_finished()
    }

    /// Lets each client see the end of what it asked, and hands over what all saw.
    pub(super) async fn stop(self) -> Result<Vec<Seen>, ClientError> {
        self.shared.stopped.store(true, Ordering::Release);
        while !self.thread.is_finished() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Shared {
    fn seen(&self) -> std::sync::MutexGuard<'_, Vec<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.stopped.load(Ordering::Acquire) || self.asked.load(Ordering::Relaxed) >= HISTORY_MAX
    }
}

async fn run(shared: &Arc<Shared>, ready: mpsc::Sender<()>) -> Result<(), ClientError> {
    let mut seeds = Random::new(shared.options.seed);
    let mut askers = Vec::new();
    for number in 0..shared.options.count {
        askers.push(Asker::new(number, seeds.next_u64(), shared).await?);
    }
    if let Some(first) = askers.first_mut()
        && let Some(opening) = first.work.opening()
        && let Some(error) = first.ask(At::Entrance, opening).await
    {
        return Err(error);
    }
    // Whoever starts the clients may have given up.
    let _ = ready.send(());
    let asking = askers.into_iter().map(|asker| tokio::task::spawn_local(asker.run()));
    for ended in futures::future::join_all(asking).await {
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic.into_panic());
        }
    }
    Ok(())
}

/// One client.
struct Asker {
    shared: Arc<Shared>,
    /// In the history.
    number: u64,
    entrance: Client,
    replica: Client,
    work: Work,
    random: Random,
    pause: Duration,
}

impl Asker {
    async fn new(number: u32, seed: u64, shared: &Arc<Shared>) -> Result<Self, ClientError> {
        let options = &shared.options;
        let mut random = Random::new(seed);
        let patience = Duration::from_nanos(random.below(nanos(TIMEOUT_SPREAD)));
        let timeout = TIMEOUT_MIN + patience;
        let turn = number as usize;
        let replica = &options.replicas[turn % options.replicas.len()];
        let mut entrances = options.entrances.clone();
        entrances.rotate_left(turn % options.entrances.len());
        let patient = |addresses: Vec<String>| ClientOptions {
            connect_timeout: CONNECT,
            timeout,
            ..ClientOptions::new(addresses)
        };
        let entrance = Client::connect(patient(entrances)).await?;
        let replica = Client::connect(patient(vec![replica.clone()])).await?;
        let work = Work::new(options.workload, number.into(), options.keys);
        let (shared, number) = (Arc::clone(shared), number.into());
        Ok(Self { shared, number, entrance, replica, work, random, pause: PAUSE_MIN })
    }

    async fn run(mut self) {
        let options = &self.shared.options;
        let mean = Duration::from_secs(1) * options.count / options.rate.max(1);
        let mut next = Instant::now() + self.up_to(mean);
        while !self.shared.is_over() {
            tokio::time::sleep_until(next).await;
            if self.shared.is_over() {
                return;
            }
            let (at, operation) = self.work.next(&mut self.random);
            if self.ask(at, operation).await.is_some_and(|error| is_refusal(&error)) {
                let pause = self.pause / 2 + self.up_to(self.pause / 2);
                tokio::time::sleep(pause).await;
                self.pause = (self.pause * 2).min(PAUSE_MAX);
            } else {
                self.pause = PAUSE_MIN;
            }
            // What was missed is not made up for: a cluster that is back is not to be flooded.
            next = (next + mean / 2 + self.up_to(mean)).max(Instant::now());
        }
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        Duration::from_nanos(self.random.below(nanos(most).max(1)))
    }

    /// Asks, and notes what came of it.
    async fn ask(&mut self, at: At, mut operation: Operation) -> Option<ClientError> {
        let client = match at {
            At::Entrance => &self.entrance,
            At::Replica => &self.replica,
        };
        let shared = &self.shared;
        shared.asked.fetch_add(1, Ordering::Relaxed);
        let call = shared.clock.nanos();
        let error = perform(client, &mut operation).await.err();
        let ret = shared.clock.nanos();
        let ending = error.as_ref().map_or(Ending::Done, |error| ending(&operation, error));
        if ending == Ending::Done && writes(&operation) {
            shared.last_write_nanos.fetch_max(ret, Ordering::AcqRel);
            shared.acknowledged_writes.fetch_add(1, Ordering::AcqRel);
        }
        let record = Record { client: self.number, call, ret, ending, operation };
        self.work.learn(&record);
        if ending == Ending::Unknown {
            self.number += u64::from(shared.options.count);
        }
        shared.seen().push(Seen { record, error: error.clone() });
        error
    }
}

/// Whether an operation changes anything.
pub(super) fn writes(operation: &Operation) -> bool {
    match operation {
        Operation::Put { .. }
        | Operation::Delete { .. }
        | Operation::CompareAndSet { .. }
        | Operation::Transact { .. }
        | Operation::MicroOperations(_) => true,
        Operation::Get { .. } | Operation::GetMany { .. } | Operation::Scan { .. } => false,
    }
}

/// Whether the cluster would not, or could not be reached; a conflict or a precondition is an
/// answer of a cluster that is well.
fn is_refusal(error: &ClientError) -> bool {
    !matches!(error.kind, ErrorKind::Conflict | ErrorKind::PreconditionFailed)
}

/// What a failure says of the operation.
fn ending(operation: &Operation, error: &ClientError) -> Ending {
    match (error.happened, error.failed_precondition) {
        (Happened::Unknown, _) if writes(operation) => Ending::Unknown,
        (Happened::No, Some(place)) => Ending::PreconditionFailed(place),
        // A read that was not answered says nothing.
        (Happened::No | Happened::Unknown, _) => Ending::NotDone,
    }
}

/// Asks the cluster, and fills in what it answers.
async fn perform(client: &Client, operation: &mut Operation) -> Result<(), ClientError> {
    let transaction = match operation {
        Operation::Get { key, result } => {
            *result = client.get(bytes(key)).await?.map(|value| text(&value));
            return Ok(());
        }
        Operation::Scan { start, end, rows, more } => {
            let end = end.as_ref().map(|end| bytes(end));
            let mut pages = client.rows(bytes(start), end).page_rows(PAGE_ROWS).limit(SCAN_ROWS);
            let mut found = Vec::new();
            while let Some(page) = pages.next().await? {
                found.extend(page.iter().map(|(key, value)| (text(key), text(value))));
            }
            (*rows, *more) = (found, pages.was_cut());
            return Ok(());
        }
        Operation::GetMany { keys, results } => {
            let values = client.get_many(keys.iter().map(|key| bytes(key)).collect()).await?;
            *results = values.iter().map(|value| value.as_ref().map(|value| text(value))).collect();
            return Ok(());
        }
        Operation::MicroOperations(_) => unreachable!("no workload makes up such an operation"),
        Operation::Put { key, value } => {
            return client.put(bytes(key), bytes(value)).await;
        }
        Operation::Delete { key } => return client.delete(bytes(key)).await,
        Operation::CompareAndSet { key, expected, value } => Transaction {
            preconditions: vec![match expected {
                Some(expected) => Condition::Equals(bytes(key), bytes(expected)),
                None => Condition::Absent(bytes(key)),
            }],
            writes: vec![Write::Put(bytes(key), bytes(value))],
        },
        Operation::Transact { preconditions, writes } => Transaction {
            preconditions: preconditions.iter().map(condition).collect(),
            writes: writes.iter().map(write).collect(),
        },
    };
    client.transact(transaction).await
}

fn condition(precondition: &Precondition) -> Condition {
    match precondition {
        Precondition::Absent(key) => Condition::Absent(bytes(key)),
        Precondition::Present(key) => Condition::Present(bytes(key)),
        Precondition::Equals(key, value) => Condition::Equals(bytes(key), bytes(value)),
    }
}

fn write((key, value): &(String, Option<String>)) -> Write {
    match value {
        Some(value) => Write::Put(bytes(key), bytes(value)),
        None => Write::Delete(bytes(key)),
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// Bytes as text. A run's own keys and values are; what is not would be a value from nowhere, and
/// is judged as such.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
