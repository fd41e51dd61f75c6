//! Sockets that never block, and a poll that tells which are ready.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

/// As many events are taken at once; whoever has more comes again.
const EVENTS_MAX: usize = 1024;

/// Sockets by number, of which some are ready.
pub(crate) struct Poll {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poll {
    pub(crate) fn new() -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context("making an epoll")?;
        Ok(Self { epoll, events: Vec::with_capacity(EVENTS_MAX) })
    }

    /// From now on tells of a socket by its number.
    pub(crate) fn add(&self, socket: &Socket, number: usize) -> Result<()> {
        let data = epoll::EventData::new_u64(number as u64);
        epoll::add(&self.epoll, &socket.stream, data, epoll::EventFlags::IN)
            .context("watching a socket")
    }

    /// Waits until a socket is ready, or so long; the numbers of those that are go to `ready`.
    pub(crate) fn wait(&mut self, ready: &mut Vec<usize>, at_most: Option<Duration>) -> Result<()> {
        ready.clear();
        self.events.clear();
        let at_most = at_most.map(|time| Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: time.subsec_nanos().into(),
        });
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), at_most.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => bail!("waiting for sockets: {error}"),
        }
        let number = |event: &epoll::Event| usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
        ready.extend(self.events.iter().map(number));
        Ok(())
    }

    /// Also tells when a socket takes bytes again, or no longer does.
    fn watch_writes(&self, socket: &TcpStream, number: usize, watch: bool) -> io::Result<()> {
        let data = epoll::EventData::new_u64(number as u64);
        let writes = if watch { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
        Ok(epoll::modify(&self.epoll, socket, data, epoll::EventFlags::IN | writes)?)
    }
}

/// One connection, with what has come and not been read, and what is to go and has not gone.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    input: Vec<u8>,
    filled: usize,
    output: Vec<u8>,
    sent: usize,
    is_full: bool,
}

impl Socket {
    /// Reads at most so many bytes at once.
    pub(crate) fn new(stream: TcpStream, input_bytes: usize) -> Result<Self> {
        stream.set_nodelay(true).context("setting up a socket")?;
        stream.set_nonblocking(true).context("setting up a socket")?;
        let input = vec![0; input_bytes];
        Ok(Self { stream, input, filled: 0, output: Vec::new(), sent: 0, is_full: false })
    }

    /// Where what is to be sent is added.
    pub(crate) fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    pub(crate) fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Reads once, and hands on each whole record of so many bytes. False if the peer has closed.
    pub(crate) fn read_records(
        &mut self,
        record_bytes: usize,
        mut each: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<bool> {
        match self.stream.read(&mut self.input[self.filled..]) {
            Ok(0) => return Ok(false),
            Ok(count) => self.filled += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            // A peer that goes while bytes are on their way to it.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
            Err(error) => return Err(error).context("reading from a socket"),
        }
        let whole = self.filled - self.filled % record_bytes;
        for record in self.input[..whole].chunks_exact(record_bytes) {
            each(record)?;
        }
        self.input.copy_within(whole..self.filled, 0);
        self.filled -= whole;
        Ok(true)
    }

    /// Sends what there is to send, as far as the system takes it; the rest goes when the poll says
    /// so under this number.
    pub(crate) fn flush(&mut self, poll: &Poll, number: usize) -> Result<()> {
        let mut is_full = false;
        while self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    is_full = true;
                    break;
                }
                Err(error) => return Err(error).context("writing to a socket"),
            }
        }
        if !is_full {
            self.output.clear();
            self.sent = 0;
        }
        if is_full != self.is_full {
            poll.watch_writes(&self.stream, number, is_full).context("watching a socket")?;
            self.is_full = is_full;
        }
        Ok(())
    }
}
