//! A cluster of processes on loopback: replicas, and a coordinator where the protocol has one, each
//! with its own data, that can be killed, paused and restarted at the same address, and that leave
//! nothing behind.
//!
//! Three things end the processes and remove a temporary data directory: dropping the [`Cluster`],
//! also by a panic; a [`Cleaner`], for a thread that waits for signals; and for the processes the
//! kernel, when the thread that started them ends without doing either. So start members on the
//! thread that keeps the cluster.

mod interrupt;
mod member;
mod port;
mod process;
mod witness;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kvorum_replication::Protocol;
use kvorum_rpc::client::ClientError;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tokio::time::timeout;

pub use self::member::Member;
pub use self::port::ReservedPort;
pub use self::process::Program;
use self::process::Watch;

/// A healthy server is ready in milliseconds; recovery of a large log on a slow disk takes longer,
/// as does anything on a machine that is far too busy. Only a hang gets here.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Between looks at a process that has closed its output and is about to be gone.
const EXIT_POLL: Duration = Duration::from_millis(1);

/// How much of a member's log an error quotes.
const LOG_TAIL_BYTES: usize = 2048;

/// What to start, and where its data lives.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// How to run a server.
    pub program: Program,
    /// How the cluster replicates.
    pub protocol: Protocol,
    /// How many replicas, with the numbers from 1.
    pub replicas: u32,
    /// An empty or absent directory that is kept; `None` is a temporary one that is removed.
    pub directory: Option<PathBuf>,
    /// How long a member may take until it serves.
    pub ready_within: Duration,
}

impl ClusterOptions {
    /// Three replicas that commit in two phases, on a temporary directory.
    #[must_use]
    pub fn new(program: Program) -> Self {
        let protocol = Protocol::TwoPhase;
        Self { program, protocol, replicas: 3, directory: None, ready_within: READY_WITHIN }
    }
}

/// What can go wrong with a cluster's processes.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, on what.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// A member does not serve.
    #[error("{member} is not ready after {waited:?}: {why}\n{log}")]
    NotReady {
        /// Which.
        member: Member,
        /// How long it was given.
        waited: Duration,
        /// What it did instead.
        why: String,
        /// The end of what it logged.
        log: String,
    },
    /// A member was to end and still runs.
    #[error("{member} still runs after {waited:?}\n{log}")]
    StillRunning {
        /// Which.
        member: Member,
        /// How long it was given.
        waited: Duration,
        /// The end of what it logged.
        log: String,
    },
    /// A member is gone that nobody told to go.
    #[error("{member} has ended by itself\n{log}")]
    Died {
        /// Which.
        member: Member,
        /// The end of what it logged.
        log: String,
    },
    /// Asked of a member that does not run.
    #[error("{0} does not run")]
    NotRunning(Member),
    /// Asked to start a member that runs.
    #[error("{0} runs already")]
    Running(Member),
    /// A member did not answer, or not well.
    #[error("asking {member}: {source}")]
    Client {
        /// Which.
        member: Member,
        /// Its answer, or why there is none.
        source: ClientError,
    },
    /// What was to come true has not.
    #[error("not settled after {waited:?}: {why}")]
    NotSettled {
        /// How long it was given.
        waited: Duration,
        /// What is the case instead.
        why: String,
    },
    /// The directory holds something else.
    #[error("{0} is not empty: name another directory, or remove it")]
    NotEmpty(PathBuf),
}

/// The processes, and the directory with their data and logs.
#[derive(Debug)]
pub struct Cluster {
    options: ClusterOptions,
    ports: BTreeMap<Member, ReservedPort>,
    /// By whom, to whom, and by way of which address.
    routes: BTreeMap<(Member, Member), SocketAddr>,
    flags: BTreeMap<Member, Vec<OsString>>,
    watches: BTreeMap<Member, Watch>,
    ground: Cleaner,
}

impl Cluster {
    /// Takes ports and a directory; no member runs yet.
    ///
    /// # Errors
    /// If there is no port or directory to be had, or the directory holds something.
    pub fn new(options: ClusterOptions) -> Result<Self, ClusterError> {
        let directory = match &options.directory {
            Some(directory) => empty_directory(directory)?,
            None => tempfile::Builder::new()
                .prefix("kvorum-")
                .tempdir()
                .map_err(io_error("creating a temporary directory"))?
                .keep(),
        };
        let remove = options.directory.is_none();
        let ground = Cleaner { running: Arc::default(), directory, remove };
        let mut ports = BTreeMap::new();
        for member in Member::all(options.protocol, options.replicas) {
            let port = ReservedPort::take().map_err(io_error("taking a port on loopback"))?;
            ports.insert(member, port);
        }
        let (routes, flags, watches) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Ok(Self { options, ports, routes, flags, watches, ground })
    }

    /// From its next start on, `from` dials `to` at this address instead of where that one listens:
    /// something there passes it on.
    pub fn route(&mut self, from: Member, to: Member, by_way_of: SocketAddr) {
        self.routes.insert((from, to), by_way_of);
    }

    /// From its next start on, a member is always started with these flags as well.
    pub fn set_flags(&mut self, member: Member, flags: Vec<OsString>) {
        self.flags.insert(member, flags);
    }

    /// Starts every member that does not run, all at once, and waits until all are ready.
    ///
    /// # Errors
    /// If one does not get ready.
    pub async fn start_all(&mut self) -> Result<(), ClusterError> {
        let mut started = Vec::new();
        for member in self.members() {
            if !self.is_running(member) {
                self.spawn(member, &[])?;
                started.push(member);
            }
        }
        for member in started {
            self.await_ready(member).await?;
        }
        Ok(())
    }

    /// Starts a member, with flags beyond the usual ones, and waits until it is ready. A member
    /// that ran before comes back at its address, on its data.
    ///
    /// # Errors
    /// If it runs already, cannot be started, or does not get ready.
    pub async fn start(&mut self, member: Member, flags: &[&str]) -> Result<(), ClusterError> {
        self.spawn(member, flags)?;
        self.await_ready(member).await
    }

    /// Starts a member and does not wait.
    ///
    /// # Errors
    /// If it runs already or cannot be started.
    pub fn spawn(&mut self, member: Member, flags: &[&str]) -> Result<(), ClusterError> {
        if self.is_running(member) {
            return Err(ClusterError::Running(member));
        }
        let mut arguments = self.arguments(member);
        arguments.extend(flags.iter().map(Into::into));
        let log = self.open_log(member)?;
        // Held while spawning, so that a cleaner on another thread misses no child.
        let mut running = self.ground.lock();
        let spawned = self.options.program.spawn(&arguments, log);
        let what = format!("starting {}", self.options.program.path().display());
        let (child, watch) = spawned.map_err(io_error(what))?;
        running.insert(member, child);
        drop(running);
        self.watches.insert(member, watch);
        Ok(())
    }

    /// What a member is always started with.
    fn arguments(&self, member: Member) -> Vec<OsString> {
        let addresses: BTreeMap<Member, SocketAddr> =
            self.ports.iter().map(|(&member, port)| (member, port.address())).collect();
        let routes = self.routes.iter().filter(|((from, _), _)| *from == member);
        let routes = routes.map(|((_, to), address)| (*to, *address)).collect();
        let data = self.data_directory(member);
        let mut arguments = member.arguments(self.options.protocol, &addresses, &routes, &data);
        arguments.extend(self.flags.get(&member).into_iter().flatten().cloned());
        arguments
    }

    /// Waits until a member that was spawned is ready. One that does not get there is killed.
    ///
    /// # Errors
    /// If it ends, says something else, or says nothing in time.
    pub async fn await_ready(&mut self, member: Member) -> Result<(), ClusterError> {
        let waited = self.options.ready_within;
        let watch = self.watches.get_mut(&member).ok_or(ClusterError::NotRunning(member))?;
        let why = match timeout(waited, &mut watch.ready).await {
            Ok(Ok(line)) if member.is_ready_line(&line, self.address(member)) => return Ok(()),
            Ok(Ok(line)) => format!("it printed {line:?}"),
            Ok(Err(_)) => "it ended".to_owned(),
            Err(_) => "it said nothing".to_owned(),
        };
        // It may be gone already, and what it did instead is the better error anyway.
        let _ = self.kill(member);
        Err(ClusterError::NotReady { member, waited, why, log: self.log_tail(member) })
    }

    /// Kills a member with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill(&mut self, member: Member) -> Result<(), ClusterError> {
        self.watches.remove(&member);
        let child = self.ground.lock().remove(&member);
        let mut child = child.ok_or(ClusterError::NotRunning(member))?;
        end(&mut child).map(drop).map_err(io_error(format!("killing {member}")))
    }

    /// Kills every member that runs with SIGKILL, all before waiting for the first to be gone.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn kill_all(&mut self) -> Result<(), ClusterError> {
        self.watches.clear();
        end_all(&mut self.ground.lock()).map_err(io_error("killing the cluster"))
    }

    /// Stops a member where it stands, without its noticing (SIGSTOP), and waits until it does: its
    /// threads run on for a moment, long enough to commit something.
    ///
    /// # Errors
    /// If it does not run.
    pub fn pause(&mut self, member: Member) -> Result<(), ClusterError> {
        self.signal(member, Signal::STOP)?;
        let running = self.ground.lock();
        let child = running.get(&member).ok_or(ClusterError::NotRunning(member))?;
        // Nothing is reaped here: one that died meanwhile is noticed as ever.
        let stopped = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let waited = waitid(WaitId::Pid(process_number(child)), stopped);
        waited.map(drop).map_err(|error| io_error(format!("pausing {member}"))(error.into()))
    }

    /// Lets a paused member go on (SIGCONT).
    ///
    /// # Errors
    /// If it does not run.
    pub fn resume(&mut self, member: Member) -> Result<(), ClusterError> {
        self.signal(member, Signal::CONT)
    }

    /// Whether a member stands still, by [`Cluster::pause`] or by its own doing.
    ///
    /// # Errors
    /// If it does not run, or the kernel does not say.
    pub fn is_stopped(&self, member: Member) -> Result<bool, ClusterError> {
        let process = self.process_id(member).ok_or(ClusterError::NotRunning(member))?;
        let stat = fs::read_to_string(format!("/proc/{process}/stat"));
        let stat = stat.map_err(io_error(format!("looking at {member}")))?;
        // The name before it is in parentheses, and may hold anything.
        Ok(stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')))
    }

    /// Asks a member to stop (SIGTERM) and waits until it is gone.
    ///
    /// # Errors
    /// If it does not run, or does not stop in time.
    pub async fn stop(
        &mut self,
        member: Member,
        within: Duration,
    ) -> Result<ExitStatus, ClusterError> {
        self.signal(member, Signal::TERM)?;
        self.await_exit(member, within).await
    }

    /// Waits until a member is gone by its own doing.
    ///
    /// # Errors
    /// If it does not run, or goes on running.
    pub async fn await_exit(
        &mut self,
        member: Member,
        within: Duration,
    ) -> Result<ExitStatus, ClusterError> {
        let began = Instant::now();
        if let Some(watch) = self.watches.get_mut(&member) {
            // It says how it ended below; here it matters only that it did, or that time is up.
            let _ = timeout(within, &mut watch.ended).await;
        }
        loop {
            if let Some(status) = self.try_reap(member)? {
                return Ok(status);
            }
            if began.elapsed() >= within {
                let log = self.log_tail(member);
                return Err(ClusterError::StillRunning { member, waited: within, log });
            }
            tokio::time::sleep(EXIT_POLL).await;
        }
    }

    /// Whether a member runs. One that died on its own is noticed.
    pub fn is_running(&mut self, member: Member) -> bool {
        matches!(self.try_reap(member), Ok(None))
    }

    /// Where a member listens, or will when it runs.
    ///
    /// # Panics
    /// If the cluster has no such member.
    #[must_use]
    pub fn address(&self, member: Member) -> SocketAddr {
        self.ports.get(&member).expect("the caller asks for a member of this cluster").address()
    }

    /// Every member; the coordinator first, if there is one.
    pub fn members(&self) -> impl Iterator<Item = Member> + use<> {
        Member::all(self.options.protocol, self.options.replicas)
    }

    /// Every member that holds data.
    pub fn replicas(&self) -> impl Iterator<Item = Member> + use<> {
        self.members().filter(|member| *member != Member::Coordinator)
    }

    /// The members that clients connect to: the coordinator, or whichever replica.
    pub fn entrances(&self) -> impl Iterator<Item = Member> + use<> {
        let entrances = match self.options.protocol {
            Protocol::TwoPhase => 1,
            Protocol::AnyReplica | Protocol::Paxos => usize::MAX,
        };
        self.members().take(entrances)
    }

    /// Where clients connect.
    #[must_use]
    pub fn connect(&self) -> Vec<String> {
        self.entrances().map(|member| self.address(member).to_string()).collect()
    }

    /// How it replicates.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.options.protocol
    }

    /// The process number of a member that runs.
    #[must_use]
    pub fn process_id(&self, member: Member) -> Option<u32> {
        self.ground.lock().get(&member).map(Child::id)
    }

    /// Holds all that the cluster writes.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.ground.directory
    }

    /// A member's data.
    #[must_use]
    pub fn data_directory(&self, member: Member) -> PathBuf {
        self.ground.directory.join(member.directory_name())
    }

    /// The end of what a member has logged, over all its runs.
    #[must_use]
    pub fn log_tail(&self, member: Member) -> String {
        let log = fs::read(self.log_path(member)).unwrap_or_default();
        let tail = &log[log.len().saturating_sub(LOG_TAIL_BYTES)..];
        format!("end of the log of {member}:\n{}", String::from_utf8_lossy(tail).trim_end())
    }

    /// What cleans up from another thread.
    #[must_use]
    pub fn cleaner(&self) -> Cleaner {
        self.ground.clone()
    }

    fn log_path(&self, member: Member) -> PathBuf {
        self.ground.directory.join(format!("{}.log", member.directory_name()))
    }

    fn open_log(&self, member: Member) -> Result<File, ClusterError> {
        let path = self.log_path(member);
        let opened = OpenOptions::new().create(true).append(true).open(&path);
        opened.map_err(io_error(format!("opening {}", path.display())))
    }

    fn signal(&mut self, member: Member, signal: Signal) -> Result<(), ClusterError> {
        let running = self.ground.lock();
        let child = running.get(&member).ok_or(ClusterError::NotRunning(member))?;
        // Not reaped, so the number is still its own.
        let sent = kill_process(process_number(child), signal);
        sent.map_err(|error| io_error(format!("signalling {member}"))(error.into()))
    }

    /// How a member ended, if it did; it does not count as running after that.
    fn try_reap(&mut self, member: Member) -> Result<Option<ExitStatus>, ClusterError> {
        let mut running = self.ground.lock();
        let child = running.get_mut(&member).ok_or(ClusterError::NotRunning(member))?;
        let status = child.try_wait().map_err(io_error(format!("waiting for {member}")))?;
        if status.is_some() {
            running.remove(&member);
            drop(running);
            self.watches.remove(&member);
        }
        Ok(status)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.ground.clean();
    }
}

/// Ends a cluster's processes and removes its temporary directory, from any thread.
#[derive(Clone, Debug)]
pub struct Cleaner {
    running: Arc<Mutex<BTreeMap<Member, Child>>>,
    directory: PathBuf,
    remove: bool,
}

impl Cleaner {
    /// Cleans up. Errors are passed over: this is the last thing that happens to a cluster, and
    /// what is gone already needs no cleaning.
    pub fn clean(&self) {
        self.clean_locked(&mut self.lock());
    }

    /// Cleans up and ends this process. Whoever else wants to start, end or clean up anything of
    /// the cluster meanwhile waits for that end, so nothing is started behind it and no other error
    /// code overtakes this one.
    pub fn clean_and_exit(&self, code: i32) -> ! {
        let mut running = self.lock();
        self.clean_locked(&mut running);
        std::process::exit(code)
    }

    fn clean_locked(&self, running: &mut BTreeMap<Member, Child>) {
        let _ = end_all(running);
        if self.remove {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Member, Child>> {
        // A panic while it was held must not keep the processes alive.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Kills all, and waits until all are gone. One that resists spares no other.
fn end_all(running: &mut BTreeMap<Member, Child>) -> io::Result<()> {
    let killed: Vec<_> = running.values_mut().map(Child::kill).collect();
    let reaped: Vec<_> = running.values_mut().map(end).collect();
    running.clear();
    killed.into_iter().collect::<io::Result<()>>()?;
    reaped.into_iter().try_for_each(|reaped| reaped.map(drop))
}

/// Kills a child and waits until it is gone.
fn end(child: &mut Child) -> io::Result<ExitStatus> {
    child.kill()?;
    child.wait()
}

fn process_number(child: &Child) -> Pid {
    let number = i32::try_from(child.id()).expect("process numbers are positive and below 2^22");
    Pid::from_raw(number).expect("no child has the number zero")
}

fn empty_directory(directory: &Path) -> Result<PathBuf, ClusterError> {
    let what = format!("creating {}", directory.display());
    fs::create_dir_all(directory).map_err(io_error(what.clone()))?;
    let mut entries = fs::read_dir(directory).map_err(io_error(what.clone()))?;
    if entries.next().is_some() {
        return Err(ClusterError::NotEmpty(directory.to_owned()));
    }
    // A member started elsewhere must find it all the same.
    fs::canonicalize(directory).map_err(io_error(what))
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> ClusterError {
    let what = what.into();
    move |source| ClusterError::Io { what, source }
}
