//! Puts on an etcd cluster, as `kvorum bench` puts on a Kvorum cluster: so many clients, each with a
//! connection of its own and one call outstanding, keys of 16 bytes that are used once, values of
//! 128 bytes. `benches/peers/etcd.sh` runs the two in turn.
//!
//! The two messages of etcd's API that it needs are written out below, so that no `protoc` is.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use hdrhistogram::Histogram;
use serde_json::json;
use tokio::task::{JoinSet, LocalSet};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

/// Before the clock starts.
const WARM_UP: Duration = Duration::from_secs(1);

const CONNECT_WITHIN: Duration = Duration::from_secs(10);

const KEY_BYTES: usize = 16;
const VALUE_BYTES: usize = 128;

/// Latencies up to a minute, to three digits.
const HIGHEST_MICROS: u64 = 60_000_000;
const DIGITS: u8 = 3;

/// Measures puts on an etcd cluster and prints one JSON object
#[derive(Parser)]
#[command(name = "etcd-load")]
struct Arguments {
    /// Connections, one call outstanding on each
    #[arg(long, default_value_t = 64)]
    clients: u32,
    /// How long it is measured, after a second of warm-up
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Where etcd's servers listen for clients; clients take them in turn
    #[arg(long, value_name = "URL", required = true, value_delimiter = ',')]
    endpoints: Vec<String>,
}

/// `etcdserverpb.PutRequest`, without the fields that are left at their defaults.
#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `etcdserverpb.PutResponse`, of which nothing is read.
#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

/// When the load is measured.
struct Clock {
    from: Instant,
    until: Instant,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let latencies = LocalSet::new().block_on(&runtime, run(&arguments))?;
    let seconds = f64::from(u32::try_from(arguments.seconds).context("too many seconds")?);
    #[expect(clippy::cast_precision_loss, reason = "a count of puts is far below 2^52")]
    let per_second = (latencies.len() as f64 / seconds).round();
    println!(
        "{}",
        json!({
            "clients": arguments.clients,
            "ops_per_second": per_second,
            "p50_us": latencies.value_at_quantile(0.50),
            "p99_us": latencies.value_at_quantile(0.99),
            "p99_9_us": latencies.value_at_quantile(0.999),
        })
    );
    Ok(())
}

async fn run(arguments: &Arguments) -> Result<Histogram<u64>> {
    let from = Instant::now() + WARM_UP;
    let until = from + Duration::from_secs(arguments.seconds);
    let clock = Rc::new(Clock { from, until });
    let mut clients = JoinSet::new();
    for (client, endpoint) in (0..arguments.clients).zip(arguments.endpoints.iter().cycle()) {
        clients.spawn_local(puts(client, endpoint.clone(), Rc::clone(&clock)));
    }
    let mut latencies = Histogram::new_with_max(HIGHEST_MICROS, DIGITS)?;
    while let Some(ended) = clients.join_next().await {
        latencies.add(ended??)?;
    }
    Ok(latencies)
}

/// One client: puts one after the other. A put counts if it is answered while the clock runs.
async fn puts(client: u32, endpoint: String, clock: Rc<Clock>) -> Result<Histogram<u64>> {
    let endpoint = Endpoint::from_shared(endpoint)?.connect_timeout(CONNECT_WITHIN);
    let mut service = tonic::client::Grpc::new(endpoint.connect().await?);
    let mut latencies = Histogram::new_with_max(HIGHEST_MICROS, DIGITS)?;
    let value = vec![b'v'; VALUE_BYTES];
    for number in 0_u32.. {
        let key = format!("{client:06}{number:0width$}", width = KEY_BYTES - 6).into_bytes();
        let request = tonic::Request::new(PutRequest { key, value: value.clone() });
        service.ready().await?;
        let asked = Instant::now();
        let codec: ProstCodec<PutRequest, PutResponse> = ProstCodec::default();
        let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
        service.unary(request, path, codec).await?;
        let answered = Instant::now();
        if answered >= clock.until {
            break;
        }
        if answered >= clock.from {
            let micros = u64::try_from((answered - asked).as_micros())?;
            latencies.record(micros.clamp(1, HIGHEST_MICROS))?;
        }
    }
    Ok(latencies)
}
