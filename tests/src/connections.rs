//! Ten thousand visitors who say nothing, or begin a message and do not end it: what they cost a
//! server, and whether others are served meanwhile.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use capnp::message::Builder;
use capnp::traits::HasTypeId as _;
use capnp_rpc::rpc_capnp::message;
use kvorum::cluster::{Cluster, Member};
use kvorum_rpc::client::Client;
use kvorum_schema::client_capnp::gate;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::PATIENCE;

/// Connections opened beside each other: the system's queue of a listener is short.
const AT_A_TIME: usize = 64;

/// Files of this process besides the connections.
const FILES_BESIDES: u64 = 200;

/// Long enough for the servers to have looked at what was sent.
const SETTLE: Duration = Duration::from_millis(700);

/// A server's watch over unfinished messages shows within this.
const LOOK: Duration = Duration::from_millis(100);

/// What a visitor does once it is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    /// Nothing.
    Silent,
    /// It introduces itself, and then nothing.
    Idle,
    /// It introduces itself, announces a message of so many bytes, and sends so many of them.
    Half {
        /// Announced.
        announced: usize,
        /// Sent.
        sent: usize,
    },
}

impl fmt::Display for Visit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => write!(f, "say nothing"),
            Self::Idle => write!(f, "are let in, and say nothing"),
            Self::Half { announced, sent } => write!(f, "send {sent} bytes of {announced}"),
        }
    }
}

/// What a server looked like.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Resident memory.
    pub resident_bytes: u64,
    /// Connections it has.
    pub connections: u64,
    /// What unfinished messages hold, as it says.
    pub unfinished_bytes: u64,
    /// How long a put took meanwhile.
    pub put: Duration,
}

/// What many visits cost.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Without visitors.
    pub before: Look,
    /// With all of them there.
    pub during: Look,
    /// When they have left.
    pub after: Look,
}

/// Has so many visitors come to a member, and looks at it before, during and after.
///
/// # Errors
/// If this process may not open that many connections, or the server does not serve others.
pub async fn visit(cluster: &Cluster, member: Member, count: usize, visit: Visit) -> Result<Cost> {
    raise_limit(count)?;
    let client = cluster.client(Member::Coordinator, PATIENCE).await?;
    let before = look(cluster, member, &client).await?;
    let address = cluster.address(member);
    let mut visitors = Vec::with_capacity(count);
    while visitors.len() < count {
        let some = AT_A_TIME.min(count - visitors.len());
        let opened = futures::future::join_all((0..some).map(|_| open(address, visit))).await;
        for visitor in opened {
            visitors.push(visitor?);
        }
    }
    tokio::time::sleep(SETTLE).await;
    let during = look(cluster, member, &client).await?;
    drop(visitors);
    let until = Instant::now() + PATIENCE;
    let after = loop {
        let after = look(cluster, member, &client).await?;
        if after.connections <= before.connections + 1 {
            break after;
        }
        ensure!(Instant::now() < until, "{} connections are still there", after.connections);
        tokio::time::sleep(LOOK).await;
    };
    Ok(Cost { before, during, after })
}

async fn open(address: SocketAddr, visit: Visit) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await.context("cannot connect")?;
    let half = match visit {
        Visit::Silent => return Ok(stream),
        Visit::Idle => Vec::new(),
        Visit::Half { announced, sent } => {
            let words = u32::try_from(announced / 8)?;
            let mut begun = [0, words].map(u32::to_le_bytes).concat();
            begun.resize(8 + sent, 0);
            begun
        }
    };
    stream.write_all(&introduction()?).await?;
    // The answers may be in one piece or in several; only that there is one matters.
    stream.read_exact(&mut [0; 64]).await.context("the server does not answer")?;
    // A server that has no room for more closes those that began first.
    let _ = stream.write_all(&half).await;
    Ok(stream)
}

/// Asks for the gate, and at the gate for the store.
fn introduction() -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut bootstrap = Builder::new_default();
    bootstrap.init_root::<message::Builder<'_>>().init_bootstrap().set_question_id(0);
    capnp::serialize::write_message(&mut bytes, &bootstrap)?;
    let mut ask = Builder::new_default();
    let mut call = ask.init_root::<message::Builder<'_>>().init_call();
    call.set_question_id(1);
    call.set_interface_id(gate::Client::TYPE_ID);
    call.reborrow().init_target().init_promised_answer().set_question_id(0);
    call.init_params().init_content().init_as::<gate::client_params::Builder<'_>>();
    capnp::serialize::write_message(&mut bytes, &ask)?;
    Ok(bytes)
}

async fn look(cluster: &Cluster, member: Member, client: &Client) -> Result<Look> {
    let began = Instant::now();
    client.put(Bytes::from_static(b"visited"), Bytes::from_static(b"yes")).await?;
    let put = began.elapsed();
    let status = cluster.status(member).await?;
    let counter = |name: &str| {
        let found = status.counters.iter().find(|(counter, _)| counter == name);
        found.map(|(_, value)| *value).with_context(|| format!("no counter {name}"))
    };
    Ok(Look {
        resident_bytes: resident(cluster.process_id(member).context("it does not run")?)?,
        connections: counter("rpc_connections")?,
        unfinished_bytes: counter("rpc_unfinished_bytes")?,
        put,
    })
}

fn resident(process: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kilobytes.context("no VmRSS in /proc")?.parse::<u64>()? << 10)
}

fn raise_limit(count: usize) -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    let wanted = count as u64 + FILES_BESIDES;
    ensure!(
        limit.maximum.is_none_or(|files| files >= wanted),
        "{wanted} files are needed, and the limit is {:?}: ulimit -n",
        limit.maximum
    );
    Ok(())
}
