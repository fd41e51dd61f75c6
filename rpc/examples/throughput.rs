//! How many calls a second the transport carries, and how many of them share a write.
//!
//! One server, one worker, a node that answers at once, and clients on the main thread: what is
//! measured is our transport, not a database. `cargo run --release --example
//! throughput -p kvorum-rpc [SECONDS]`.

#![expect(clippy::print_stdout, reason = "it is a program that prints what it measured")]

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kvorum_node::{Claim, Event, IdentityFile, Report, Turn, detached};
use kvorum_replication::two_phase::message::Message;
use kvorum_replication::{Answer, ClientId, NodeId, Operation, Outcome, Role, Status};
use kvorum_rpc::client::{Client, ClientOptions};
use kvorum_rpc::server::{Server, ServerOptions};

const VALUE_BYTES: usize = 200;

type Failed = Box<dyn std::error::Error>;

fn main() -> Result<(), Failed> {
    let seconds = std::env::args().nth(1).map_or(Ok(2), |seconds| seconds.parse())?;
    let options = ServerOptions::new("127.0.0.1:0".parse()?);
    let (server, mut outbox) = Server::bind(options)?;
    let address = server.local_addr().to_string();
    let claim = Claim::two_phase(Role::Coordinator, NodeId::COORDINATOR);
    let identity = Arc::new(IdentityFile::in_memory(&claim)?);
    let (handle, mailbox) = detached::<Message>();
    std::thread::spawn(move || {
        let value = Bytes::from(vec![7; VALUE_BYTES]);
        let mut events = VecDeque::new();
        let mut turn = Turn::default();
        loop {
            mailbox.take(&mut events, Duration::from_secs(1));
            for event in events.drain(..) {
                answer(event, &value, &mut turn);
            }
            outbox.deliver(&mut turn);
        }
    });
    let serving = server.serve(handle, identity, None)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?;
    println!("connections x calls   calls/s   us/call   calls a write (requests, answers)");
    for (connections, outstanding) in
        [(1, 1), (1, 16), (1, 64), (1, 256), (16, 16), (64, 1), (64, 4)]
    {
        runtime.block_on(measure(&address, connections, outstanding, seconds))?;
    }
    serving.stop();
    Ok(())
}

fn answer(event: Event<Message>, value: &Bytes, turn: &mut Turn<Message>) {
    match event {
        Event::Request(request) => {
            let outcome = match request.operation {
                Operation::OpenSession => Outcome::Session(ClientId(1)),
                Operation::Read(_) | Operation::ReadStale(_) => {
                    Outcome::Answer(Answer::Value(Some(value.clone())))
                }
                Operation::Transact { .. }
                | Operation::ChangeMembers { .. }
                | Operation::ChangeReplicas(_) => Outcome::Committed,
            };
            turn.replies.push((request.id, outcome));
        }
        Event::Report(sender) => drop(sender.send(report())),
        Event::Messages { .. }
        | Event::PeerUp(_)
        | Event::PeerDown(_)
        | Event::Stopping
        | Event::Stop => {}
    }
}

fn report() -> Report {
    Report {
        status: Status {
            role: Role::Coordinator,
            incarnation: 1,
            in_flight: 0,
            in_doubt: 0,
            locks: 0,
            leader: None,
            peers_up: Vec::new(),
            replicas: Vec::new(),
            counters: Vec::new(),
        },
        log_last: 0,
        log_durable: 0,
        uptime_millis: 0,
        counters: Vec::new(),
    }
}

async fn measure(
    address: &str,
    connections: usize,
    outstanding: usize,
    seconds: u64,
) -> Result<(), Failed> {
    let observer = Client::connect(ClientOptions::new([address])).await?;
    let mut clients = Vec::new();
    for _ in 0..connections {
        clients.push(Client::connect(ClientOptions::new([address])).await?);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = counters(&observer).await?;
    let (start, until) = (Instant::now(), Instant::now() + Duration::from_secs(seconds));
    let calls = Rc::new(std::cell::Cell::new(0_u64));
    let tasks: Vec<_> = clients
        .iter()
        .flat_map(|client| (0..outstanding).map(|_| client.clone()))
        .map(|client| {
            let calls = Rc::clone(&calls);
            tokio::task::spawn_local(async move {
                let (key, value) = (Bytes::from_static(b"key"), Bytes::from(vec![7; VALUE_BYTES]));
                while Instant::now() < until {
                    client.put(key.clone(), value.clone()).await?;
                    calls.set(calls.get() + 1);
                }
                Ok::<_, kvorum_rpc::client::ClientError>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    let elapsed = start.elapsed();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let after = counters(&observer).await?;
    let [messages_out, flushes, events, submits] =
        std::array::from_fn(|index| (after[index] - before[index]).max(1) as f64);
    let rate = calls.get() as f64 / elapsed.as_secs_f64();
    println!(
        "{connections:>11} x {outstanding:<5} {rate:>9.0} {:>9.2}   {:.1} a submit, {:.1} a write",
        1e6 / rate,
        events / submits,
        messages_out / flushes,
    );
    Ok(())
}

async fn counters(client: &Client) -> Result<[u64; 4], Failed> {
    let status = client.status().await?;
    let of = |name: &str| {
        let found = status.counters.iter().find(|(counter, _)| counter == name);
        found.map_or(0, |(_, value)| *value)
    };
    Ok(["rpc_messages_out", "rpc_flushes", "rpc_events", "rpc_submits"].map(of))
}
