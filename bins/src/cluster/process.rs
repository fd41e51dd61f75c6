//! One server process: started, watched, signalled, waited for.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;

use tokio::sync::oneshot;

/// Far above the length of a ready line; a longer first line is cut here.
const READY_LINE_BYTES_MAX: u64 = 4096;

/// How to run the server: a program, and what comes before the role on its command line.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// A server binary, such as `kvorumd`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), arguments: Vec::new() }
    }

    /// A binary with the server behind a subcommand.
    pub fn with_subcommand(path: impl Into<PathBuf>, subcommand: impl Into<OsString>) -> Self {
        Self { path: path.into(), arguments: vec![subcommand.into()] }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Starts the program so that it dies with the calling thread, whatever that one dies of.
    pub(super) fn spawn(&self, arguments: &[OsString], log: File) -> io::Result<(Child, Watch)> {
        let mut command = Command::new(&self.path);
        command.args(&self.arguments).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        // Its own group: an interrupt typed at the terminal is the parent's to act on.
        command.process_group(0);
        die_with_parent(&mut command);
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().expect("standard output was asked to be a pipe");
        Ok((child, Watch::new(stdout)?))
    }
}

/// Asks the kernel to kill the child when the thread that starts it ends. A destructor cannot
/// promise that: it does not run when the parent is killed.
#[cfg(target_os = "linux")]
fn die_with_parent(command: &mut Command) {
    use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

    let parent = getpid();
    let ask = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the line above.
        if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    };
    // SAFETY: the closure runs between fork and exec and only makes system calls: it neither
    // allocates nor takes a lock (a `From<ErrorKind>` error is a plain value).
    unsafe {
        command.pre_exec(ask);
    }
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent(_command: &mut Command) {}

/// What a process says of itself on standard output: its first line, and, by closing it, its end.
#[derive(Debug)]
pub(super) struct Watch {
    /// The first line.
    pub(super) ready: oneshot::Receiver<String>,
    /// Fails when standard output is closed, which a process does at the latest by dying.
    pub(super) ended: oneshot::Receiver<Infallible>,
}

impl Watch {
    fn new(stdout: ChildStdout) -> io::Result<Self> {
        let (ready_sender, ready) = oneshot::channel();
        let (ended_sender, ended) = oneshot::channel();
        let read = move || {
            let mut first = String::new();
            let mut stdout = BufReader::new(stdout);
            let read = stdout.by_ref().take(READY_LINE_BYTES_MAX).read_line(&mut first);
            if read.is_ok() && !first.is_empty() {
                // Nobody to tell if the cluster is being torn down already.
                let _ = ready_sender.send(first.trim_end().to_owned());
            }
            // Whatever else it prints must not block it.
            let _ = io::copy(&mut stdout, &mut io::sink());
            drop(ended_sender);
        };
        thread::Builder::new().name("server-output".to_owned()).spawn(read)?;
        Ok(Self { ready, ended })
    }
}
