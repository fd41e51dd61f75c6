//! The coordinator: one loop over all sockets.
//!
//! In each turn it takes what has come from whoever has something, sends the new prepares to the
//! replicas as one batch, and then the answers. A transaction is decided when all have voted: that
//! they have all prepared it is the decision (parallel commit). The decisions travel with the next
//! batch, and go to a log of the coordinator's own that nobody waits for.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::log::{Buffer, End, Log};
use crate::socket::{Poll, Socket};
use crate::wire::{Batch, NUMBER_BYTES, number};
use crate::{announce, wire};

/// Votes of thousands of prepares fit.
const VOTES_BYTES: usize = 64 << 10;

/// What a client may send at once.
const PUTS_BYTES: usize = 16 << 10;

/// Decisions go alone if no batch has come for so long.
const DECISIONS_WAIT_MAX: Duration = Duration::from_millis(1);

/// Between two syncs of the decisions: nobody waits for them.
const DECISIONS_SYNC: Duration = Duration::from_millis(2);

/// Puts of clients, made durable by all replicas.
#[derive(Debug, Args)]
pub(crate) struct Coordinator {
    /// Where its log goes.
    #[arg(long)]
    data: PathBuf,
    #[arg(long)]
    body_bytes: usize,
    /// The replicas.
    #[arg(long, required = true)]
    replica: Vec<SocketAddr>,
    /// How many clients will connect.
    #[arg(long)]
    clients: usize,
    /// More batches than that are not begun before the first has its votes: what comes meanwhile
    /// is one batch.
    #[arg(long, default_value_t = 2)]
    depth: usize,
}

/// Serves until a client or a replica goes.
pub(crate) fn run(coordinator: &Coordinator) -> Result<()> {
    let decided = Decided::start(&coordinator.data)?;
    let mut sockets = Vec::new();
    for address in &coordinator.replica {
        let stream = TcpStream::connect(address).with_context(|| format!("reaching {address}"))?;
        sockets.push(Socket::new(stream, VOTES_BYTES)?);
    }
    let listener = TcpListener::bind("127.0.0.1:0").context("listening")?;
    announce(&listener)?;
    let put_bytes = NUMBER_BYTES + coordinator.body_bytes;
    for _ in 0..coordinator.clients {
        let (stream, _) = listener.accept().context("accepting a client")?;
        sockets.push(Socket::new(stream, PUTS_BYTES.max(put_bytes))?);
    }
    let poll = Poll::new()?;
    for (number, socket) in sockets.iter().enumerate() {
        poll.add(socket, number)?;
    }
    let replicas = coordinator.replica.len();
    let turns = Turns {
        sockets,
        put_bytes,
        depth: coordinator.depth.max(1),
        transactions: Transactions::new(replicas),
        batch: Batch::default(),
        in_flight: VecDeque::new(),
        answered: Vec::new(),
        decided,
    };
    turns.run(poll)
}

struct Turns {
    /// The replicas', then the clients'.
    sockets: Vec<Socket>,
    put_bytes: usize,
    depth: usize,
    transactions: Transactions,
    batch: Batch,
    /// The transaction that follows the last of each batch without all its votes.
    in_flight: VecDeque<u64>,
    /// Whose sockets have answers to send.
    answered: Vec<usize>,
    decided: Arc<Decided>,
}

impl Turns {
    fn run(mut self, mut poll: Poll) -> Result<()> {
        let mut ready = Vec::new();
        loop {
            let has_waiting = !self.batch.is_empty() && self.in_flight.is_empty();
            poll.wait(&mut ready, has_waiting.then_some(DECISIONS_WAIT_MAX))?;
            for &number in &ready {
                if !self.read(number)? {
                    return Ok(());
                }
                if self.sockets[number].has_output() {
                    self.sockets[number].flush(&poll, number)?;
                }
            }
            self.decide();
            self.send_batch(&poll, ready.is_empty())?;
            for number in self.answered.drain(..) {
                // It may have been answered twice, and then nothing is left.
                self.sockets[number].flush(&poll, number)?;
            }
        }
    }

    /// Takes what has come over a socket. False if its other end has gone.
    fn read(&mut self, number: usize) -> Result<bool> {
        let (transactions, batch) = (&mut self.transactions, &mut self.batch);
        let socket = &mut self.sockets[number];
        if number < transactions.voted.len() {
            return socket.read_records(NUMBER_BYTES, |vote| transactions.vote(number, vote));
        }
        socket.read_records(self.put_bytes, |put| {
            let (put_number, body) = put.split_at(NUMBER_BYTES);
            let transaction = transactions.begin(number, wire::number(put_number));
            batch.prepare(transaction, body);
            Ok(())
        })
    }

    /// Answers what all have voted on.
    fn decide(&mut self) {
        let mut decisions = self.decided.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((transaction, client, put)) = self.transactions.decide() {
            let output = self.sockets[client].output();
            if output.is_empty() {
                self.answered.push(client);
            }
            output.extend_from_slice(&put.to_le_bytes());
            self.batch.decide(transaction);
            decisions.extend_from_slice(&transaction.to_le_bytes());
        }
        let decided = self.transactions.first;
        while self.in_flight.pop_front_if(|end| *end <= decided).is_some() {}
    }

    /// Sends what waits, unless enough is under way; decisions without prepares only if asked.
    fn send_batch(&mut self, poll: &Poll, is_idle: bool) -> Result<()> {
        let has_prepares = self.batch.prepares() > 0;
        if self.in_flight.len() >= self.depth || !(has_prepares || is_idle) {
            return Ok(());
        }
        if self.batch.is_empty() {
            return Ok(());
        }
        for number in 0..self.transactions.voted.len() {
            self.batch.write_to(self.sockets[number].output());
            self.sockets[number].flush(poll, number)?;
        }
        self.batch.clear();
        if has_prepares {
            self.in_flight.push_back(self.transactions.next());
        }
        Ok(())
    }
}

/// Transactions under way, in order. Replicas vote in this order as well.
struct Transactions {
    /// The client and the number of its put.
    open: VecDeque<(usize, u64)>,
    first: u64,
    /// The transaction that each replica votes on next.
    voted: Vec<u64>,
}

impl Transactions {
    fn new(replicas: usize) -> Self {
        Self { open: VecDeque::new(), first: 0, voted: vec![0; replicas] }
    }

    fn next(&self) -> u64 {
        self.first + self.open.len() as u64
    }

    fn begin(&mut self, client: usize, put: u64) -> u64 {
        let transaction = self.next();
        self.open.push_back((client, put));
        transaction
    }

    fn vote(&mut self, replica: usize, vote: &[u8]) -> Result<()> {
        let transaction = number(vote);
        let expected = self.voted[replica];
        ensure!(transaction == expected, "a vote on {transaction} instead of {expected}");
        self.voted[replica] += 1;
        Ok(())
    }

    /// The next that all have voted on, its client and the number of its put.
    fn decide(&mut self) -> Option<(u64, usize, u64)> {
        let transaction = self.first;
        if self.voted.iter().any(|voted| *voted <= transaction) {
            return None;
        }
        let (client, put) = self.open.pop_front()?;
        self.first += 1;
        Some((transaction, client, put))
    }
}

/// Decisions on their way to the log.
struct Decided {
    bytes: Mutex<Vec<u8>>,
}

impl Decided {
    fn start(path: &Path) -> Result<Arc<Self>> {
        let log = Log::create(path)?;
        let decided = Arc::new(Self { bytes: Mutex::default() });
        let shared = Arc::clone(&decided);
        thread::Builder::new()
            .name("decisions".to_owned())
            .spawn(move || {
                if let Err(error) = shared.keep(&log) {
                    eprintln!("{error:#}");
                    std::process::exit(1);
                }
            })
            .context("starting a thread")?;
        Ok(decided)
    }

    fn keep(&self, log: &Log) -> Result<()> {
        let (mut end, mut group) = (End::default(), Buffer::with_capacity(VOTES_BYTES));
        let mut taken = Vec::new();
        loop {
            thread::sleep(DECISIONS_SYNC);
            std::mem::swap(
                &mut taken,
                &mut self.bytes.lock().unwrap_or_else(PoisonError::into_inner),
            );
            if taken.is_empty() {
                continue;
            }
            group.clear();
            group.extend_from_slice(&taken);
            taken.clear();
            let at = log.place(&mut end, &mut group);
            log.write(&group, at).context("writing the log of decisions")?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_decided_when_all_have_voted() {
        let mut transactions = Transactions::new(2);
        assert_eq!((transactions.begin(5, 50), transactions.begin(6, 60)), (0, 1));
        let vote = |transaction: u64| transaction.to_le_bytes();
        transactions.vote(0, &vote(0)).unwrap();
        transactions.vote(0, &vote(1)).unwrap();
        assert_eq!(transactions.decide(), None);
        transactions.vote(1, &vote(0)).unwrap();
        assert_eq!(transactions.decide(), Some((0, 5, 50)));
        assert_eq!(transactions.decide(), None);
        assert!(transactions.vote(1, &vote(2)).is_err(), "one was left out");
        transactions.vote(1, &vote(1)).unwrap();
        assert_eq!(transactions.decide(), Some((1, 6, 60)));
        assert_eq!(transactions.decide(), None);
    }
}
