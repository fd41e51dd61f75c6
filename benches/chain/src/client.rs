//! The load: each client asks again as soon as it is answered, all of them in one loop.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::socket::{Poll, Socket};
use crate::wire::{NUMBER_BYTES, number};

/// Answers to all that a client has outstanding fit.
const ANSWERS_BYTES: usize = 16 << 10;

/// A minute: longer ones count as that.
const LATENCY_MAX_NANOS: u64 = 60_000_000_000;

/// A latency is told from another one if they differ in the first three digits.
const SIGNIFICANT_DIGITS: u8 = 3;

/// The clients of a run, all in this process.
#[derive(Debug, Args)]
pub(crate) struct Clients {
    /// The coordinator.
    #[arg(long)]
    connect: SocketAddr,
    #[arg(long)]
    clients: usize,
    #[arg(long)]
    outstanding: usize,
    #[arg(long)]
    body_bytes: usize,
    #[arg(long)]
    warm_up_ms: u64,
    #[arg(long)]
    measured_ms: u64,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) puts_per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// With those of the warm-up.
    pub(crate) puts: u64,
}

/// Runs the load, prints what came of it, and stays until its input ends.
pub(crate) fn run(clients: &Clients) -> Result<()> {
    let outcome = Load::connect(clients)?.run(clients)?;
    println!("{}", serde_json::to_string(&outcome).context("printing the outcome")?);
    io::copy(&mut io::stdin(), &mut io::sink()).context("waiting for the end")?;
    Ok(())
}

struct Load {
    poll: Poll,
    sockets: Vec<Socket>,
    outstanding: usize,
    /// When each put began: those of one client stand beside each other.
    began: Vec<Instant>,
    bodies: Bodies,
}

impl Load {
    fn connect(clients: &Clients) -> Result<Self> {
        let poll = Poll::new()?;
        let mut sockets = Vec::new();
        for number in 0..clients.clients {
            let stream = TcpStream::connect(clients.connect).context("reaching the coordinator")?;
            let socket = Socket::new(stream, ANSWERS_BYTES)?;
            poll.add(&socket, number)?;
            sockets.push(socket);
        }
        let outstanding = clients.outstanding;
        let began = vec![Instant::now(); clients.clients * outstanding];
        Ok(Self { poll, sockets, outstanding, began, bodies: Bodies::new(clients.body_bytes) })
    }

    fn run(mut self, clients: &Clients) -> Result<Outcome> {
        let mut latencies_nanos =
            Histogram::<u64>::new_with_bounds(1, LATENCY_MAX_NANOS, SIGNIFICANT_DIGITS)?;
        for client in 0..self.sockets.len() {
            for put in client * self.outstanding..(client + 1) * self.outstanding {
                self.ask(client, put, Instant::now());
            }
            self.sockets[client].flush(&self.poll, client)?;
        }
        let from = Instant::now() + Duration::from_millis(clients.warm_up_ms);
        let end = from + Duration::from_millis(clients.measured_ms);
        let (mut ready, mut answered, mut puts) = (Vec::new(), Vec::new(), 0);
        loop {
            self.poll.wait(&mut ready, None)?;
            for &client in &ready {
                let is_open = self.sockets[client].read_records(NUMBER_BYTES, |answer| {
                    answered.push(usize::try_from(number(answer))?);
                    Ok(())
                })?;
                ensure!(is_open, "the coordinator has gone");
                let now = Instant::now();
                if now >= end {
                    return Ok(outcome(&latencies_nanos, clients.measured_ms, puts));
                }
                for put in answered.drain(..) {
                    ensure!(put / self.outstanding == client, "an answer to another one");
                    puts += 1;
                    if now >= from {
                        latencies_nanos.saturating_record(nanos(now - self.began[put]));
                    }
                    self.ask(client, put, now);
                }
                self.sockets[client].flush(&self.poll, client)?;
            }
        }
    }

    fn ask(&mut self, client: usize, put: usize, now: Instant) {
        self.began[put] = now;
        let output = self.sockets[client].output();
        output.extend_from_slice(&(put as u64).to_le_bytes());
        self.bodies.next(output);
    }
}

fn outcome(latencies_nanos: &Histogram<u64>, measured_ms: u64, puts: u64) -> Outcome {
    #[expect(clippy::cast_precision_loss, reason = "nobody counts to 2^52 here")]
    let micros = |percentile| latencies_nanos.value_at_percentile(percentile) as f64 / 1e3;
    #[expect(clippy::cast_precision_loss, reason = "nobody counts to 2^52 here")]
    let puts_per_second = latencies_nanos.len() as f64 * 1e3 / measured_ms as f64;
    Outcome { puts_per_second, p50_us: micros(50.0), p99_us: micros(99.0), puts }
}

/// Makes up keys and values: the beginning is another one each time, which is all that the disk and
/// the sockets could see.
struct Bodies {
    made: u64,
    filler: Vec<u8>,
}

impl Bodies {
    fn new(body_bytes: usize) -> Self {
        Self { made: 0, filler: vec![b'v'; body_bytes] }
    }

    fn next(&mut self, output: &mut Vec<u8>) {
        self.made += 1;
        let scattered = self.made.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        let begin = scattered.len().min(self.filler.len());
        output.extend_from_slice(&scattered[..begin]);
        output.extend_from_slice(&self.filler[begin..]);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
