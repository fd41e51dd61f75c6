//! A replica: takes batches, makes them durable, votes.
//!
//! Each of its lanes takes whatever has come, writes it as one group and syncs, while the other
//! takes what comes meanwhile. The places of groups follow the order in which they came, and votes
//! leave in that order: a group counts only when all before it are durable.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Result, anyhow};
use clap::Args;

use crate::log::{Buffer, End, Log};
use crate::{announce, wire};

/// As much is read at once.
const INPUT_BYTES: usize = 1 << 20;

/// One of the copies.
#[derive(Debug, Args)]
pub(crate) struct Replica {
    /// Where its log goes.
    #[arg(long)]
    data: PathBuf,
    #[arg(long)]
    body_bytes: usize,
    /// Groups that may be on their way to the disk at once.
    #[arg(long, default_value_t = 2)]
    lanes: usize,
}

/// Votes of one group, or none yet.
type Votes = Option<Vec<u8>>;

struct Shared {
    log: Log,
    body_bytes: usize,
    input: Mutex<Input>,
    output: Mutex<Output>,
}

struct Input {
    stream: TcpStream,
    bytes: Vec<u8>,
    filled: usize,
    end: End,
    groups: u64,
}

struct Output {
    stream: TcpStream,
    /// The group whose votes are next.
    next: u64,
    waiting: VecDeque<Votes>,
    bytes: Vec<u8>,
}

/// Serves one coordinator until it goes.
pub(crate) fn run(replica: &Replica) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").context("listening")?;
    let log = Log::create(&replica.data)?;
    announce(&listener)?;
    let (stream, _) = listener.accept().context("accepting the coordinator")?;
    stream.set_nodelay(true).context("setting up a socket")?;
    let reading = stream.try_clone().context("setting up a socket")?;
    let bytes = vec![0; INPUT_BYTES + wire::BATCH_HEADER_BYTES];
    let (end, waiting) = (End::default(), VecDeque::new());
    let shared = Shared {
        log,
        body_bytes: replica.body_bytes,
        input: Mutex::new(Input { stream: reading, bytes, filled: 0, end, groups: 0 }),
        output: Mutex::new(Output { stream, next: 0, waiting, bytes: Vec::new() }),
    };
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..replica.lanes).map(|_| scope.spawn(|| lane(&shared))).collect();
        lanes.into_iter().try_for_each(|lane| lane.join().map_err(|_| anyhow!("a lane"))?)
    })
}

fn lane(shared: &Shared) -> Result<()> {
    let mut group = Buffer::with_capacity(INPUT_BYTES);
    let mut votes = Vec::new();
    loop {
        group.clear();
        votes.clear();
        let Some((number, at)) = take(shared, &mut group, &mut votes)? else { return Ok(()) };
        shared.log.write(&group, at).context("writing the log")?;
        votes = vote(shared, number, votes)?;
    }
}

/// Waits for something to come, and takes all of it that is whole. None if nothing will come.
fn take(shared: &Shared, group: &mut Buffer, votes: &mut Vec<u8>) -> Result<Option<(u64, u64)>> {
    let input = &mut *lock(&shared.input);
    loop {
        if input.filled == input.bytes.len() {
            input.bytes.resize(2 * input.filled, 0);
        }
        let count = match input.stream.read(&mut input.bytes[input.filled..]) {
            // It goes while votes are on their way to it.
            Err(error) if is_gone(&error) => 0,
            count => count.context("reading from the coordinator")?,
        };
        if count == 0 {
            return Ok(None);
        }
        input.filled += count;
        let whole = wire::whole_batches(&input.bytes[..input.filled], shared.body_bytes, votes)?;
        if whole > 0 {
            group.extend_from_slice(&input.bytes[..whole]);
            input.bytes.copy_within(whole..input.filled, 0);
            input.filled -= whole;
            let at = shared.log.place(&mut input.end, group);
            input.groups += 1;
            return Ok(Some((input.groups - 1, at)));
        }
    }
}

/// Sends the votes of a group that is durable, and those that waited for it. Gives back a buffer.
fn vote(shared: &Shared, number: u64, votes: Vec<u8>) -> Result<Vec<u8>> {
    let output = &mut *lock(&shared.output);
    let index = usize::try_from(number - output.next).context("a group came twice")?;
    if output.waiting.len() <= index {
        output.waiting.resize(index + 1, None);
    }
    output.waiting[index] = Some(votes);
    output.bytes.clear();
    let mut used = Vec::new();
    while let Some(Some(votes)) = output.waiting.pop_front_if(|votes| votes.is_some()) {
        output.bytes.extend_from_slice(&votes);
        output.next += 1;
        used = votes;
    }
    match output.stream.write_all(&output.bytes) {
        // It has gone, and the next one who reads will see it.
        Err(error) if is_gone(&error) => Ok(used),
        written => written.context("writing to the coordinator").map(|()| used),
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
