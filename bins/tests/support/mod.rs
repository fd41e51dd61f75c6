//! Runs the binaries as a shell would.

#![expect(clippy::unwrap_used, reason = "in a test's helpers as in the test itself")]
#![allow(dead_code, reason = "each test binary uses a part")]

pub(crate) mod clients;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::mem;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use kvorum::cluster::{Cluster, ClusterOptions, Member, Program, ReservedPort};
use kvorum_replication::{Protocol, Row};
use serde_json::Value as Json;
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;

/// Longer than anything here takes on a busy machine; only a hang gets there.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// How often a log is looked at.
const POLL: Duration = Duration::from_millis(20);

/// What a command did.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl fmt::Debug for Ran {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ran = formatter.debug_struct("Ran");
        ran.field("code", &self.code).field("stdout", &String::from_utf8_lossy(&self.stdout));
        ran.field("stderr", &self.stderr).finish()
    }
}

impl Ran {
    /// Standard output as text.
    #[track_caller]
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    /// Standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Json {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The error as JSON.
    #[track_caller]
    pub(crate) fn error(&self) -> Json {
        serde_json::from_str(&self.stderr).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Fails unless the command ended with this code, standard error holding all of `words`.
    #[track_caller]
    pub(crate) fn failed(&self, code: i32, words: &[&str]) -> &Self {
        assert_eq!(self.code, code, "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in {self:?}");
        }
        self
    }

    /// Fails unless the command ended well and silently on standard error.
    #[track_caller]
    pub(crate) fn succeeded(&self) -> &Self {
        assert_eq!((self.code, &self.stderr[..]), (0, ""), "{self:?}");
        self
    }
}

/// The client, talking to nobody in particular.
pub(crate) fn client() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvorum"));
    command.env_remove("KVORUM_CONNECT").env_remove("KVORUM_LOG");
    command
}

/// The lab.
pub(crate) fn lab() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvorum-lab"));
    command.env_remove("KVORUM_LOG");
    command
}

/// Whether there is nothing in a directory.
pub(crate) fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().next().is_none()
}

/// How many processes have the directory on their command line.
pub(crate) fn processes_in(directory: &Path) -> usize {
    let directory = directory.to_str().unwrap();
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let command_lines =
        processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    command_lines.filter(|line| String::from_utf8_lossy(line).contains(directory)).count()
}

/// Waits until no process has the directory on its command line.
#[track_caller]
pub(crate) fn await_no_process_in(directory: &Path) {
    let began = Instant::now();
    while processes_in(directory) > 0 {
        assert!(began.elapsed() < PATIENCE, "processes are left");
        thread::yield_now();
    }
}

/// The server.
pub(crate) fn server() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvorumd"));
    command.env_remove("KVORUM_LOG");
    command
}

/// Runs a command to its end, with this on its standard input.
pub(crate) fn run(command: &mut Command, input: &[u8]) -> Ran {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = thread::scope(|scope| {
        // A command that does not want its input closes it, which is its right.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().unwrap()
    });
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: output.stdout,
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A cluster, and how the client gets at it.
pub(crate) struct Fixture {
    runtime: Runtime,
    pub(crate) cluster: Cluster,
    /// Where clients connect: the coordinator's address, or those of all replicas.
    pub(crate) connect: String,
}

impl Fixture {
    /// Starts a cluster of three replicas that commits in two phases. Writes wait for every replica:
    /// who takes one away is to see what becomes of them.
    #[track_caller]
    pub(crate) fn start() -> Self {
        let fixture = Self::start_of(Protocol::TwoPhase, 3, &["--min-replicas", "3"]);
        fixture.await_service();
        fixture
    }

    /// Starts a cluster of three replicas, of which one may be left out, and waits until that is so.
    #[track_caller]
    pub(crate) fn with_views() -> Self {
        let fixture = Self::start_of(Protocol::TwoPhase, 3, &[]);
        fixture.await_members(3);
        fixture.await_service();
        fixture
    }

    /// Waits until the coordinator needs so many replicas for a write, and may do with less.
    #[track_caller]
    pub(crate) fn await_members(&self, count: u64) {
        let waited = self.cluster.await_members(count, PATIENCE);
        LocalSet::new().block_on(&self.runtime, waited).unwrap();
    }

    /// Starts a cluster of Multi-Paxos, each replica with these flags as well.
    #[track_caller]
    pub(crate) fn paxos(replicas: u32, flags: &[&str]) -> Self {
        Self::start_of(Protocol::Paxos, replicas, flags)
    }

    /// Starts a cluster of three replicas, each of which coordinates.
    #[track_caller]
    pub(crate) fn any_replica() -> Self {
        Self::start_of(Protocol::AnyReplica, 3, &[])
    }

    #[track_caller]
    fn start_of(protocol: Protocol, replicas: u32, flags: &[&str]) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let program = Program::new(env!("CARGO_BIN_EXE_kvorumd"));
        let ready_within = PATIENCE;
        let options =
            ClusterOptions { protocol, replicas, ready_within, ..ClusterOptions::new(program) };
        let mut cluster = Cluster::new(options).unwrap();
        for member in cluster.members() {
            // Nobody is taken for dead who is only slow.
            let silence = ["--silence".to_owned(), seconds(PATIENCE)];
            // A coordinator's flags are no replica's.
            let is_for = protocol != Protocol::TwoPhase || member == Member::Coordinator;
            let flags = flags.iter().filter(|_| is_for).map(|flag| (*flag).to_owned());
            cluster.set_flags(member, silence.into_iter().chain(flags).map(Into::into).collect());
        }
        runtime.block_on(cluster.start_all()).unwrap();
        let connect = cluster.connect().join(",");
        Self { runtime, cluster, connect }
    }

    /// The replica that all follow, once they do.
    #[track_caller]
    pub(crate) fn leader(&self) -> Member {
        let local = LocalSet::new();
        local.block_on(&self.runtime, self.cluster.await_leader(PATIENCE)).unwrap()
    }

    /// The replica that leads, as far as those say that answer; one of these is asked last.
    pub(crate) fn leader_among(&self, last: &[Member]) -> Option<Member> {
        let mut members: Vec<Member> = self.cluster.replicas().collect();
        members.sort_by_key(|member| last.contains(member));
        members.into_iter().find_map(|member| {
            let ran = self.ask(member, ["--output", "json", "status"]);
            let leader = (ran.code == 0).then(|| ran.json()["leader"].as_u64())??;
            u32::try_from(leader).ok().map(Member::Replica)
        })
    }

    /// Waits until a member is gone by its own doing.
    #[track_caller]
    pub(crate) fn exit_of(&mut self, member: Member) -> ExitStatus {
        self.runtime.block_on(self.cluster.await_exit(member, PATIENCE)).unwrap()
    }

    /// Whether a member is gone by its own doing, by then.
    pub(crate) fn has_ended(&mut self, member: Member, within: Duration) -> bool {
        self.runtime.block_on(self.cluster.await_exit(member, within)).is_ok()
    }

    /// What every replica holds, once that is the same.
    #[track_caller]
    pub(crate) fn settled(&self) -> Vec<Row> {
        let local = LocalSet::new();
        local.block_on(&self.runtime, self.cluster.settled(PATIENCE)).unwrap()
    }

    /// Runs the client with these arguments, connected to one member.
    pub(crate) fn ask<A: AsRef<OsStr>>(
        &self,
        member: Member,
        arguments: impl IntoIterator<Item = A>,
    ) -> Ran {
        self.feed_to(member, arguments, "")
    }

    /// As [`Self::ask`], with this input.
    pub(crate) fn feed_to<A: AsRef<OsStr>>(
        &self,
        member: Member,
        arguments: impl IntoIterator<Item = A>,
        input: impl AsRef<[u8]>,
    ) -> Ran {
        let address = self.cluster.address(member).to_string();
        let mut client = self.client();
        run(client.env("KVORUM_CONNECT", address).args(patient(arguments)), input.as_ref())
    }

    /// Starts every member that does not run, and waits until all serve.
    #[track_caller]
    pub(crate) fn start_all(&mut self) {
        self.runtime.block_on(self.cluster.start_all()).unwrap();
    }

    /// Asks a member to stop, and waits until it has.
    #[track_caller]
    pub(crate) fn stop(&mut self, member: Member) -> ExitStatus {
        self.runtime.block_on(self.cluster.stop(member, PATIENCE)).unwrap()
    }

    /// Starts a member that was killed, and waits until it serves.
    #[track_caller]
    pub(crate) fn restart(&mut self, member: Member) {
        self.restart_with(member, &[]);
    }

    /// As [`Self::restart`], with flags beyond the usual ones.
    #[track_caller]
    pub(crate) fn restart_with(&mut self, member: Member, flags: &[&str]) {
        self.runtime.block_on(self.cluster.start(member, flags)).unwrap();
    }

    /// Waits until the coordinator has found its replicas: it is ready before.
    #[track_caller]
    pub(crate) fn await_service(&self) {
        once_available(|| self.kvorum(["del", "is it there?"])).succeeded();
    }

    /// Waits until a member has logged these words.
    #[track_caller]
    pub(crate) fn await_log(&self, member: Member, words: &str) {
        let began = Instant::now();
        while !self.cluster.log_tail(member).contains(words) {
            assert!(began.elapsed() < PATIENCE, "{}", self.cluster.log_tail(member));
            thread::sleep(POLL);
        }
    }

    /// The client, connected to the cluster.
    pub(crate) fn client(&self) -> Command {
        let mut command = client();
        command.env("KVORUM_CONNECT", &self.connect);
        command
    }

    /// Runs the client with these arguments.
    pub(crate) fn kvorum<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Ran {
        run(self.client().args(patient(arguments)), b"")
    }

    /// Runs the client with these arguments and this input.
    pub(crate) fn feed<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
        input: impl AsRef<[u8]>,
    ) -> Ran {
        run(self.client().args(patient(arguments)), input.as_ref())
    }

    /// Writes so much that on a busy machine a link may fall silent over it, and break: what did
    /// not happen is written again.
    #[track_caller]
    pub(crate) fn put_large(&self, key: &str, value: &[u8]) {
        once_available(|| self.feed(["put", key, "-"], value)).succeeded();
    }
}

/// Asks again what was refused because nobody could serve it just then, and did not happen: on a busy
/// machine a leader may be lost, or a link not stand yet.
pub(crate) fn once_available(ask: impl Fn() -> Ran) -> Ran {
    let began = Instant::now();
    loop {
        let ran = ask();
        if ran.code != 4 || began.elapsed() > PATIENCE {
            return ran;
        }
    }
}

/// The arguments, with a timeout that only a hang gets to unless they name one: that of the client
/// is for people, and shorter than a stall of a machine that does much else.
fn patient<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Vec<OsString> {
    let mut patient: Vec<OsString> =
        arguments.into_iter().map(|argument| argument.as_ref().to_owned()).collect();
    if !patient.iter().any(|argument| argument == "--timeout") {
        patient.splice(0..0, ["--timeout".into(), seconds(PATIENCE).into()]);
    }
    patient
}

/// A time as it stands on a command line.
pub(crate) fn seconds(time: Duration) -> String {
    format!("{}s", time.as_secs())
}

/// Runs the client with these arguments.
pub(crate) fn kvorum<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Ran {
    run(client().args(arguments), b"")
}

/// Runs the client with these arguments, connected to the process at this address.
pub(crate) fn kvorum_at<A: AsRef<OsStr>>(
    address: &str,
    arguments: impl IntoIterator<Item = A>,
) -> Ran {
    run(client().env("KVORUM_CONNECT", address).args(patient(arguments)), b"")
}

/// An address at which nobody listens, as long as this process lives.
pub(crate) fn dead_address() -> String {
    let port = ReservedPort::take().unwrap();
    let address = port.address().to_string();
    mem::forget(port);
    address
}

/// A server that runs; killed when dropped.
pub(crate) struct Server {
    child: Child,
    /// Until it is closed.
    stdout: Option<BufReader<ChildStdout>>,
    /// The line it printed when it was ready.
    pub(crate) ready: String,
}

impl Server {
    /// Starts a server and waits until it is ready.
    #[track_caller]
    pub(crate) fn start<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Self {
        Self::spawn(server().args(arguments).stderr(Stdio::inherit()))
    }

    /// As [`Self::start`], of a command whose standard error is set up already.
    #[track_caller]
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut ready = String::new();
        stdout.read_line(&mut ready).unwrap();
        let ready = ready.trim_end().to_owned();
        assert!(ready.starts_with("ready "), "{ready:?}, {:?}", child.try_wait());
        Self { child, stdout: Some(stdout), ready }
    }

    /// A replica on this directory, at a free port.
    #[track_caller]
    pub(crate) fn replica(id: u32, data_dir: &Path) -> Self {
        let id = id.to_string();
        let arguments =
            ["replica", "--silence", "5m", "--id", &id, "--listen", "127.0.0.1:0", "--data-dir"];
        Self::start(arguments.iter().map(OsStr::new).chain([data_dir.as_os_str()]))
    }

    /// The address in its ready line.
    pub(crate) fn address(&self) -> &str {
        self.ready.rsplit_once("listen=").unwrap().1
    }

    /// Its process.
    pub(crate) fn pid(&self) -> String {
        self.child.id().to_string()
    }

    /// Sends it a signal, by name.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.pid()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "the server does not end");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// What else it printed on standard output until it ended.
    pub(crate) fn rest_of_output(&mut self) -> String {
        let mut rest = String::new();
        self.stdout.as_mut().unwrap().read_to_string(&mut rest).unwrap();
        rest
    }

    /// What it wrote to standard error, if that was set up as a pipe.
    pub(crate) fn rest_of_errors(&mut self) -> String {
        let mut rest = String::new();
        self.child.stderr.as_mut().unwrap().read_to_string(&mut rest).unwrap();
        rest
    }

    /// Stops reading what it prints, as a pipe to a program that ended.
    pub(crate) fn close_outputs(&mut self) {
        self.stdout = None;
        self.child.stderr = None;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
