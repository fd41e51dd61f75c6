//! A run: real processes on loopback, clients, a nemesis, and judges.
//!
//! ```text
//!   clients ────────────► coordinator ◄─┐ if there is one
//!      └──── reads ─────► replicas  ◄───┤ every link between two of them through a proxy
//!   nemesis: signals, fail points, control files, proxies
//!   then: everything heals, clients go on for a while, copies are compared, the history is judged
//! ```

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use kvorum_checker::{Ending, History, Operation, Record, write_line};
use kvorum_replication::Protocol;
use kvorum_rpc::client::{ClientError, ProcessStatus};
use tokio::task::LocalSet;

use super::absences::Watcher;
use super::clients::{Clients, ClientsOptions, text};
use super::clock::Clock;
use super::judge::{Copy, Evidence, judge, verdict};
use super::leaders::Leaders;
use super::nemesis::{Clocks, Disks, Kind, Links, Processes, Schedule, Strike, check_alive};
use super::proxy::{Network, Place, Route};
use super::report::{Finding, JudgeVerdict};
use super::summary::{Outcome, acknowledged_writes};
use super::workload::{Workload, shared_keys};
use crate::cluster::{Cluster, ClusterError, ClusterOptions, Member, Program};
use crate::view::Views;

/// How long clients go on after that.
const CALM: Duration = Duration::from_millis(500);

/// Between looks at the clients.
const POLL: Duration = Duration::from_millis(20);

/// The client of the reads at the end has a number that no other one gets.
const LAST_CLIENT: u64 = u64::MAX >> 1;

/// What to run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// How to start a server.
    pub program: Program,
    /// How the cluster replicates.
    pub protocol: Protocol,
    /// How many, beside the coordinator if there is one.
    pub replicas: u32,
    /// How many clients.
    pub clients: u32,
    /// Operations a second, of all clients together. It bounds what the judges get to see.
    pub rate: u32,
    /// How long the cluster is broken.
    pub length: Duration,
    /// Everything must work again within this, once nothing is broken any more.
    pub back_within: Duration,
    /// What to break.
    pub nemesis: Vec<Kind>,
    /// All chance in faults and clients follows from it; when a message arrives does not.
    pub seed: u64,
    /// What clients do.
    pub workload: Workload,
    /// Over how many keys.
    pub keys: u32,
    /// Where to write what clients saw, if anywhere.
    pub history: Option<PathBuf>,
    /// An empty or absent directory for data and logs; a temporary one otherwise.
    pub directory: Option<PathBuf>,
    /// Flags for every server beyond the usual ones.
    pub server_flags: Vec<String>,
    /// Whether a signal that ends this process cleans up first. Takes SIGINT, SIGTERM and SIGHUP.
    pub heeds_signals: bool,
    /// The command line that repeats it.
    pub command: String,
}

impl RunOptions {
    /// A calm run of a minute: three replicas, sixteen clients.
    #[must_use]
    pub fn new(program: Program) -> Self {
        Self {
            program,
            protocol: Protocol::TwoPhase,
            replicas: 3,
            clients: 16,
            rate: 1000,
            length: Duration::from_secs(60),
            // The promise is 5 s after the restart; a busy machine gets some more.
            back_within: Duration::from_secs(10),
            nemesis: Vec::new(),
            seed: 0,
            workload: Workload::Register,
            keys: 16,
            history: None,
            directory: None,
            server_flags: Vec::new(),
            heeds_signals: false,
            command: String::new(),
        }
    }
}

/// How far a run is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// How long it has run.
    pub elapsed: Duration,
    /// Operations begun.
    pub operations: u64,
    /// Writes acknowledged.
    pub acknowledged: u64,
    /// What it is at.
    pub doing: Doing,
}

/// What a run is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Clients ask while things break.
    Breaking,
    /// Everything is whole, and must work again.
    Healing,
    /// The history is judged.
    Judging,
}

/// Why a run could not be made. That something was found to be wrong is no error but a verdict.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The cluster could not be started.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The clients could not begin.
    #[error("clients: {0}")]
    Clients(#[from] ClientError),
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why not.
        source: io::Error,
    },
}

/// Makes a run on this thread, which starts the processes, and says every now and then how far it
/// is.
///
/// # Errors
/// If it could not be made.
pub fn run(options: &RunOptions, progress: &mut dyn FnMut(&Progress)) -> Result<Outcome, RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(io_error("starting a runtime"))?;
    LocalSet::new().block_on(&runtime, trial(options, progress))
}

async fn trial(
    options: &RunOptions,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Outcome, RunError> {
    let began_unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut stage = Stage::set(options).await?;
    let clock = Clock::start();
    let clients = Clients::start(stage.clients(options), clock).map_err(io_error("clients"))?;
    let leaders = Leaders::watch(&stage.cluster, clock);
    let absences = Watcher::watch(&stage.cluster);
    let say = |doing, progress: &mut dyn FnMut(&Progress)| {
        let (acknowledged, _) = clients.acknowledged();
        let (elapsed, operations) = (clock.elapsed(), clients.asked());
        progress(&Progress { elapsed, operations, acknowledged, doing });
    };
    let mut verdicts = Vec::new();
    let (strikes, broken) = {
        let mut breaking = std::pin::pin!(stage.break_things(options, clock, &leaders));
        loop {
            say(Doing::Breaking, progress);
            tokio::select! {
                broken = &mut breaking => break broken,
                () = tokio::time::sleep(POLL) => {}
            }
            if clients.have_failed() {
                // Says why when it is joined; nothing of the run would be worth judging.
                let failed = clients.stop().await.err();
                return Err(failed.map_or_else(ended_early, RunError::Clients));
            }
        }
    };
    say(Doing::Healing, progress);
    let broke_nanos = clock.nanos();
    verdicts.extend(broken.err().map(|why| verdict("processes", Finding::Violated, why)));
    verdicts.push(stage.heal(options.back_within, &clients, clock).await);
    tokio::time::sleep(CALM).await;
    let absences = absences.map(Watcher::stop);
    let length = clock.elapsed();
    say(Doing::Judging, progress);
    let seen = clients.stop().await?;
    let leaders = leaders.stop();
    let (copies, reads) = stage.last_look(options, clock, &mut verdicts).await;
    let history: History = seen.iter().map(|seen| seen.record.clone()).chain(reads).collect();
    if let Some(file) = &options.history {
        let written = write_history(file, &history);
        written.map_err(io_error(format!("writing {}", file.display())))?;
    }
    verdicts.extend(judge(&Evidence {
        history: &history,
        copies: &copies,
        strikes: &strikes,
        kinds: &options.nemesis,
        protocol: options.protocol,
        replicas: &stage.cluster.replicas().collect::<Vec<_>>(),
        leaders: &leaders,
        acknowledged: &acknowledged_writes(&seen),
        broke_nanos,
        workload: options.workload,
        keys: options.keys,
    }));
    let mut outcome =
        Outcome::new(options, began_unix.as_secs(), length, broke_nanos, &seen, strikes, verdicts);
    outcome.numbers.absences = absences;
    Ok(outcome)
}

/// The cluster and the network that it is on.
struct Stage {
    cluster: Cluster,
    network: Network,
}

impl Stage {
    /// Starts everything.
    async fn set(options: &RunOptions) -> Result<Self, RunError> {
        let cluster_options = ClusterOptions {
            protocol: options.protocol,
            replicas: options.replicas,
            directory: options.directory.clone(),
            ..ClusterOptions::new(options.program.clone())
        };
        let mut cluster = Cluster::new(cluster_options)?;
        if options.heeds_signals {
            let heeded = cluster.cleaner().clean_up_on_signals();
            heeded.map_err(io_error("waiting for signals"))?;
        }
        let routes = routes(&cluster, options.nemesis.contains(&Kind::Client));
        let network = Network::start(&routes, options.seed).map_err(io_error("proxies"))?;
        for Route { from, to, .. } in routes {
            if let (Place::Member(one), Place::Member(other)) = (from, to) {
                cluster.route(one, other, network.address(from, to));
            }
        }
        for member in cluster.members() {
            let mut flags: Vec<_> = options.server_flags.iter().map(Into::into).collect();
            if options.nemesis.contains(&Kind::DiskFull) {
                flags.extend(Disks::flags(cluster.directory(), member));
            }
            if options.nemesis.contains(&Kind::Clock) {
                flags.extend(Clocks::flags(cluster.directory(), member));
            }
            cluster.set_flags(member, flags);
        }
        cluster.start_all().await?;
        cluster.await_links(options.back_within).await?;
        Ok(Self { cluster, network })
    }

    fn clients(&self, options: &RunOptions) -> ClientsOptions {
        let is_routed = options.nemesis.contains(&Kind::Client);
        let address = |member: Member| -> SocketAddr {
            match is_routed {
                true => self.network.address(Place::Clients, member.into()),
                false => self.cluster.address(member),
            }
        };
        let entrances = self.cluster.entrances().map(|member| address(member).to_string());
        ClientsOptions {
            count: options.clients,
            rate: options.rate,
            workload: options.workload,
            keys: options.keys,
            seed: options.seed,
            entrances: entrances.collect(),
            replicas: self.cluster.replicas().map(|member| address(member).to_string()).collect(),
        }
    }

    /// Lets all hands strike, for the length of the run; and says what they broke, and what did not
    /// bear it.
    async fn break_things(
        &mut self,
        options: &RunOptions,
        clock: Clock,
        leaders: &Leaders,
    ) -> (Vec<Strike>, Result<(), String>) {
        let schedule = |hand| Schedule::new(clock, options.seed, hand, options.length);
        let (members, kinds) = (self.cluster.members().collect::<Vec<_>>(), &options.nemesis);
        let directory = self.cluster.directory().to_owned();
        let if_asked = |kind| if kinds.contains(&kind) { members.clone() } else { Vec::new() };
        let mut disks = Disks::new(&directory, if_asked(Kind::DiskFull), schedule(2));
        let mut clocks = Clocks::new(&directory, if_asked(Kind::Clock), schedule(3));
        let mut links = Links::new(&self.network, members, schedule(1), kinds, leaders.known());
        let mut processes = Processes::new(&mut self.cluster, schedule(0), kinds, leaders.known());
        let (died, (), stuck, stopped) =
            tokio::join!(processes.run(), links.run(), disks.run(), clocks.run());
        let mut strikes = processes.strikes;
        strikes.append(&mut links.strikes);
        strikes.append(&mut disks.strikes);
        strikes.append(&mut clocks.strikes);
        strikes.sort_by_key(|strike| strike.from);
        let stuck = stuck.and(stopped).map_err(|error| format!("a control file: {error}"));
        let end = clock.at(options.length).into();
        tokio::time::sleep_until(end).await;
        // Other hands strike on after the one that looks; healing would start again whoever died.
        let died = died.and_then(|()| check_alive(&mut self.cluster));
        (strikes, died.map_err(|error| error.to_string()).and(stuck))
    }

    /// Makes everything whole, and waits until writes are acknowledged again.
    async fn heal(
        &mut self,
        back_within: Duration,
        clients: &Clients,
        clock: Clock,
    ) -> JudgeVerdict {
        const JUDGE: &str = "back in service";
        self.network.heal();
        let began = clock.elapsed();
        let back = async {
            for member in self.cluster.members() {
                if self.cluster.is_running(member) {
                    // Whoever is not stopped does not mind.
                    self.cluster.resume(member)?;
                }
            }
            self.cluster.start_all().await?;
            self.cluster.await_links(back_within).await?;
            match self.cluster.protocol() {
                Protocol::TwoPhase => self.await_members(back_within).await,
                Protocol::AnyReplica | Protocol::Paxos => Ok(()),
            }
        };
        if let Err(error) = back.await {
            return verdict(JUDGE, Finding::Violated, error.to_string());
        }
        let (before, _) = clients.acknowledged();
        while clients.acknowledged().0 == before {
            if clock.elapsed() > began + back_within {
                let words = format!("no write was acknowledged within {back_within:?} of healing");
                return verdict(JUDGE, Finding::Violated, words);
            }
            tokio::time::sleep(POLL).await;
        }
        let waited = (clock.elapsed() - began).as_millis();
        let words = format!("links, members and writes {waited} ms after everything was healed");
        verdict(JUDGE, Finding::Holds, words)
    }

    /// Waits until nobody is outside any more.
    async fn await_members(&self, within: Duration) -> Result<(), ClusterError> {
        let all_are_in =
            |status: &ProcessStatus| Views::of(status).is_some_and(|views| views.outside == 0);
        self.cluster.await_status(Member::Coordinator, within, all_are_in).await.map(drop)
    }

    /// What each replica holds when nothing is under way any more, and a read of every key that
    /// clients shared, from every process.
    async fn last_look(
        &self,
        options: &RunOptions,
        clock: Clock,
        verdicts: &mut Vec<JudgeVerdict>,
    ) -> (Vec<Copy>, Vec<Record>) {
        let settled = self.cluster.settled(options.back_within).await;
        verdicts.push(match settled {
            Ok(rows) => {
                let words = format!("nothing locked or in doubt, {} rows on each", rows.len());
                verdict("settled", Finding::Holds, words)
            }
            Err(error) => verdict("settled", Finding::Violated, error.to_string()),
        });
        let mut copies = Vec::new();
        let mut reads = Vec::new();
        for member in self.cluster.members() {
            let looked = self.look(member, options, clock, &mut copies, &mut reads).await;
            if let Err(error) = looked {
                let words = format!("{member} does not answer: {error}");
                verdicts.push(verdict("last reads", Finding::Violated, words));
            }
        }
        (copies, reads)
    }

    async fn look(
        &self,
        member: Member,
        options: &RunOptions,
        clock: Clock,
        copies: &mut Vec<Copy>,
        reads: &mut Vec<Record>,
    ) -> Result<(), ClusterError> {
        let patience = options.back_within;
        let client = self.cluster.client(member, patience).await?;
        for key in shared_keys(options.workload, options.keys) {
            let call = clock.nanos();
            let read = client.get(key.clone().into()).await;
            let result = read.map_err(|source| ClusterError::Client { member, source })?;
            let operation = Operation::Get { key, result: result.map(|value| text(&value)) };
            let (client, ret) = (LAST_CLIENT, clock.nanos());
            reads.push(Record { client, call, ret, ending: Ending::Done, operation });
        }
        if member != Member::Coordinator {
            let rows = self.cluster.rows(member).await?;
            let rows = rows.iter().map(|(key, value)| (text(key), text(value))).collect();
            copies.push((member.to_string(), rows));
        }
        Ok(())
    }
}

/// Who dials whom: the coordinator its replicas, replicas each other, and clients everybody if they
/// are to be cut off.
fn routes(cluster: &Cluster, clients_too: bool) -> Vec<Route> {
    let mut routes = Vec::new();
    let to = |from: Place, to: Member| Route { from, to: to.into(), listens: cluster.address(to) };
    for from in cluster.members() {
        let others = cluster.replicas().filter(|to| *to != from);
        routes.extend(others.map(|other| to(from.into(), other)));
    }
    if clients_too {
        routes.extend(cluster.members().map(|member| to(Place::Clients, member)));
    }
    routes
}

fn write_history(file: &Path, history: &History) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(file)?);
    history.iter().try_for_each(|record| write_line(&mut file, record))?;
    file.flush()
}

fn ended_early() -> RunError {
    let source = io::Error::other("they ended before they were told to");
    RunError::Io { what: "clients".to_owned(), source }
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> RunError {
    let what = what.into();
    move |source| RunError::Io { what, source }
}
