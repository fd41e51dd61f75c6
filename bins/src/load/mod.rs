//! A load on a cluster: many clients that ask without pause, what came of it, and how long it took.
//!
//! A loop is closed or open. In a closed one each of the `clients x outstanding` workers asks again as
//! soon as it was answered, so the latencies are those of a system that is offered exactly as much
//! as it takes; they say nothing about queueing (coordinated omission). In an open one the clock says
//! when an operation is to begin, whatever became of those before; its latency counts from that time,
//! also if all workers were busy then. What is refused is counted and not asked again.
//!
//! Unavailability does not end a load. In a closed loop what certainly did not happen is tried anew
//! after a pause; what may have happened is counted as unknown and left alone, since only the history, and not a
//! client, can tell what became of it.

mod mix;

mod distribution;

mod workload;

mod store;

mod worker;

mod pace;

mod desk;

mod ticker;

mod shared;

mod books;

mod tally;

mod history;

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use kvorum_replication::random::Random;
use kvorum_rpc::client::{Client, ClientError, ClientOptions};
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::LocalOptions;
use tokio::sync::watch;

use self::books::Books;
use self::desk::Desk;
pub use self::distribution::Distribution;
use self::history::History;
pub use self::mix::Mix;
use self::pace::Schedule;
pub use self::pace::{Arrivals, Pace};
use self::shared::Shared;
use self::store::Doors;
pub use self::tally::{Counts, Summary};
use self::worker::Worker;
use self::workload::{Pool, Workload};

/// Names the keys of a load at their full width, and still leaves room for 2^48 of them.
pub const KEY_BYTES_MIN: usize = 8;

/// Below this the values of a history could repeat, and a checker could not tell writes apart.
pub const HISTORY_VALUE_BYTES_MIN: usize = 24;

/// What to ask, how often, and by how many at once.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Connections.
    pub clients: u32,
    /// Operations in flight on each connection; in an open loop at most so many.
    pub outstanding: u32,
    /// Threads that share the connections.
    pub threads: u32,
    /// When to end.
    pub until: Until,
    /// What is asked in this time from the start is not measured.
    pub warm_up: Duration,
    /// What is asked.
    pub mix: Mix,
    /// What makes an operation begin.
    pub pace: Pace,
    /// Of which keys.
    pub keys: Keys,
    /// Which of them how often, if they are used more than once.
    pub distribution: Distribution,
    /// How many keys a transaction puts.
    pub transaction_keys: u32,
    /// How many rows a scan reads at most.
    pub scan_rows: u32,
    /// Where reads go, each client's to one of these addresses, in turn; none of its own stands for
    /// the connection over which it writes.
    pub read_from: Vec<String>,
    /// The size of a key; at least [`KEY_BYTES_MIN`].
    pub key_bytes: usize,
    /// The size of a value; at least [`HISTORY_VALUE_BYTES_MIN`] with a history.
    pub value_bytes: usize,
    /// All chance in the load follows from it, and so do its keys.
    pub seed: u64,
    /// Without an acknowledgement for so long, the load ends with the error that was last seen.
    pub give_up_after: Duration,
    /// Where to write what was asked and answered, a JSON object a line.
    pub history: Option<PathBuf>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            clients: 16,
            outstanding: 1,
            threads: 1,
            until: Until::Elapsed(Duration::from_secs(10)),
            warm_up: Duration::ZERO,
            mix: Mix::PUTS,
            pace: Pace::Closed,
            keys: Keys::Unique,
            distribution: Distribution::Uniform,
            transaction_keys: 2,
            scan_rows: 100,
            read_from: Vec::new(),
            key_bytes: 16,
            value_bytes: 128,
            seed: 0,
            give_up_after: Duration::from_secs(30),
            history: None,
        }
    }
}

/// When a load ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// So many operations have ended one way or another; those refused as unavailable and tried
    /// anew do not count.
    Operations(u64),
    /// So much time has passed, the warm-up not included.
    Elapsed(Duration),
}

/// Which keys are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// Each once, by the whole load.
    Unique,
    /// Each often, out of so many.
    Among(u64),
}

/// Why a load could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A cluster that says so, or does not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A file or a thread.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why not.
        source: std::io::Error,
    },
}

/// A load under way.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<(), LoadError>>>,
}

impl Load {
    /// Connects every client, writes the keys that are to be read, and begins.
    ///
    /// # Errors
    /// If a client cannot connect, or the history cannot be written.
    pub fn start(options: LoadOptions, client: &ClientOptions) -> Result<Self, LoadError> {
        let history = options.history.as_deref().map(History::create).transpose()?;
        let shared = Arc::new(Shared::new(options, history));
        let (phase_sender, phase) = watch::channel(Phase::Connect);
        let (report, reports) = mpsc::channel();
        let mut threads = Vec::new();
        for number in 0..shared.options.threads {
            let thread = ThreadOfClients {
                number,
                shared: Arc::clone(&shared),
                client: client.clone(),
                phase: phase.clone(),
                report: report.clone(),
            };
            let name = format!("load-{number}");
            let spawned = thread::Builder::new().name(name).spawn(move || thread.run());
            threads.push(spawned.map_err(io_error("starting a thread"))?);
        }
        drop(report);
        let load = Self { shared, threads };
        let fills = load.shared.options.mix.reads() && load.shared.options.keys != Keys::Unique;
        for phase in [Phase::Fill, Phase::Measure] {
            // Each thread reports when it is through with what comes before; one that failed says
            // so when it is joined, and without `phase_sender` the others end.
            if reports.iter().take(load.threads.len()).count() < load.threads.len() {
                drop(phase_sender);
                return Err(load.join().err().unwrap_or_else(|| {
                    unreachable!("a thread that ends without a report ends with an error")
                }));
            }
            if phase == Phase::Measure {
                load.shared.begin();
            }
            if phase == Phase::Fill && !fills {
                load.shared.nothing_to_fill();
            }
            phase_sender.send_replace(phase);
        }
        Ok(load)
    }

    /// What has come of it so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.counts()
    }

    /// How long it has run, and the part of it that is done, from 0 to 1.
    #[must_use]
    pub fn progress(&self) -> (Duration, f64) {
        self.shared.progress()
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Asks nothing more; what is in flight is waited for by [`Load::join`].
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// Waits for the end, and sums up.
    ///
    /// # Errors
    /// If a client was told something that no patience helps against, or patience ran out.
    pub fn join(self) -> Result<Summary, LoadError> {
        let mut failed = None;
        for thread in self.threads {
            match thread.join() {
                Ok(ended) => failed = failed.or(ended.err()),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        match failed.or_else(|| self.shared.take_failure()) {
            Some(error) => Err(error),
            None => Ok(self.shared.summary()),
        }
    }
}

/// One thread, and the clients that live on it.
struct ThreadOfClients {
    number: u32,
    shared: Arc<Shared>,
    client: ClientOptions,
    phase: watch::Receiver<Phase>,
    report: mpsc::Sender<()>,
}

impl ThreadOfClients {
    fn run(self) -> Result<(), LoadError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .map_err(io_error("starting a runtime"))?;
        runtime.block_on(self.run_clients())
    }

    async fn run_clients(mut self) -> Result<(), LoadError> {
        let shared = Arc::clone(&self.shared);
        let books = Rc::new(Books::new(self.number, Arc::clone(&shared)));
        let mut workers = self.connect(&books).await?;
        if !self.begins(Phase::Fill).await {
            return Ok(());
        }
        workers = together(workers.into_iter().map(Worker::fill)).await;
        if !shared.options.mix.writes() {
            self.come_back(&mut workers).await?;
        }
        if !self.begins(Phase::Measure).await {
            return Ok(());
        }
        let cpu = cpu_time();
        match shared.options.pace {
            Pace::Closed => {
                together(workers.into_iter().map(Worker::measure)).await;
            }
            Pace::Open { rate, arrivals } => {
                let schedule = self.schedule(rate, arrivals);
                let desk = Rc::new(Desk::new(Arc::clone(&shared), Rc::clone(&books), schedule));
                let serving = Rc::clone(&desk);
                let serving = tokio::task::spawn_local(async move { serving.serve().await });
                let measured =
                    workers.into_iter().map(|worker| worker.measure_at(Rc::clone(&desk)));
                together(measured).await;
                rethrow(serving.await)?;
            }
        }
        books.close(cpu_time().saturating_sub(cpu));
        Ok(())
    }

    /// Connects this thread's clients.
    async fn connect(&self, books: &Rc<Books>) -> Result<Vec<Worker<Doors>>, LoadError> {
        let options = &self.shared.options;
        let pool = Pool::new(options);
        let mine = (self.number..options.clients).step_by(options.threads as usize);
        let mut workers = Vec::new();
        for client in mine {
            let doors = self.doors(client).await?;
            for slot in 0..options.outstanding {
                let number = client * options.outstanding + slot;
                let random = self.random_of(number);
                let workload = Workload::new(options, number, random, pool.clone());
                let (shared, books) = (Arc::clone(&self.shared), Rc::clone(books));
                workers.push(Worker::new(number, doors.clone(), workload, shared, books));
            }
        }
        Ok(workers)
    }

    async fn doors(&self, client: u32) -> Result<Doors, LoadError> {
        let read_from = &self.shared.options.read_from;
        let main = Client::connect(self.options_of(client, &self.client.addresses)).await?;
        let reads = match read_from.is_empty() {
            true => None,
            false => Some(Client::connect(self.options_of(client, read_from)).await?),
        };
        Ok(Doors { main, reads })
    }

    /// Who wrote keys to be read was sent to where writes go, and would read there.
    async fn come_back(&self, workers: &mut [Worker<Doors>]) -> Result<(), LoadError> {
        let outstanding = self.shared.options.outstanding as usize;
        let mine = (self.number..).step_by(self.shared.options.threads as usize);
        for (client, workers) in mine.zip(workers.chunks_mut(outstanding)) {
            let doors = self.doors(client).await?;
            workers.iter_mut().for_each(|worker| worker.set_store(doors.clone()));
        }
        Ok(())
    }

    /// Reports that this thread is through with what comes before, and waits for the phase. False if
    /// another thread has failed.
    async fn begins(&mut self, phase: Phase) -> bool {
        // Nobody hears it if another thread has failed; then nobody sends a phase either.
        let _ = self.report.send(());
        self.phase.wait_for(|&now| now == phase).await.is_ok()
    }

    /// This thread's part of all arrivals.
    fn schedule(&self, rate: f64, arrivals: Arrivals) -> Schedule {
        let begin = self.shared.begun().unwrap_or_default();
        let end = self.shared.end_nanos();
        // Behind those of the workers.
        let random = self.random_of(u32::MAX - self.number);
        let rate = rate / f64::from(self.shared.options.threads);
        Schedule::new(rate, arrivals, random, begin, end)
    }

    /// Clients begin with different addresses, where any will do: each replica gets its share of the
    /// reads.
    fn options_of(&self, client: u32, addresses: &[String]) -> ClientOptions {
        let mut addresses = addresses.to_vec();
        if !addresses.is_empty() {
            let first = client as usize % addresses.len();
            addresses.rotate_left(first);
        }
        ClientOptions { addresses, ..self.client.clone() }
    }

    fn random_of(&self, worker: u32) -> Random {
        let mut random = Random::new(self.shared.options.seed);
        Random::new(random.next_u64() ^ u64::from(worker))
    }
}

/// Where a load stands. Each phase begins when all threads are through with the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connect,
    Fill,
    Measure,
}

/// Runs all as tasks of this thread, and gives back what they end with.
async fn together<F>(futures: impl Iterator<Item = F>) -> Vec<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    let tasks = futures.map(tokio::task::spawn_local);
    let ended = futures::future::join_all(tasks).await;
    ended.into_iter().map(rethrow).collect()
}

/// How long this thread has been on a processor.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::from_secs(seconds)
        + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or_default())
}

fn rethrow<T>(joined: Result<T, tokio::task::JoinError>) -> T {
    joined.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

fn io_error(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> LoadError {
    let what = what.into();
    move |source| LoadError::Io { what, source }
}
