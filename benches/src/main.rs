//! Standard loads, each on a fresh cluster of real processes on this machine:
//! `cargo run --release -p kvorum-benches`.
//!
//! A single load of any other shape is `kvorum bench --fresh`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use comfy_table::{CellAlignment, Table, presets};
use kvorum::cluster::{Cluster, ClusterOptions, Member, Program};
use kvorum::load::{Keys, Load, LoadOptions, Mix, Summary, Until};
use kvorum_rpc::client::ClientOptions;
use serde_json::json;
use tokio::task::LocalSet;

/// A fresh cluster is ready for writes within milliseconds.
const LINKS_WITHIN: Duration = Duration::from_secs(10);

const WARM_UP: Duration = Duration::from_secs(1);

/// Keys of the loads that read.
const KEYS: u64 = 10_000;

/// What is measured: a mix, and so many clients with so many operations in flight each.
const LOADS: &[(&str, u32, u32)] = &[
    ("put", 1, 1),
    ("put", 16, 1),
    ("put", 64, 1),
    ("put", 256, 1),
    ("put", 8, 32),
    ("get", 1, 1),
    ("get", 64, 1),
    ("get", 8, 32),
    ("put=5,get=95", 64, 1),
    ("put=50,get=50", 64, 1),
];

/// Runs standard loads, each on a fresh cluster
#[derive(Parser)]
#[command(name = "kvorum-benches")]
struct Arguments {
    /// How long each load is measured, after a second of warm-up
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Only loads of this mix
    #[arg(long)]
    mix: Option<String>,
    /// Print a JSON object a load instead of a table
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    serve: Option<Hidden>,
}

#[derive(Subcommand)]
enum Hidden {
    /// Serve, as kvorumd does
    #[command(hide = true, subcommand)]
    Serve(kvorum::server::Command),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Hidden::Serve(command)) = &arguments.serve {
        return kvorum::server::run(command);
    }
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["LOAD", "CLIENTS", "IN FLIGHT", "OPS/S", "P50", "P99", "P99.9", "NOT OK"]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let is_wanted = |mix: &str| arguments.mix.as_ref().is_none_or(|wanted| wanted == mix);
    for &(mix, clients, outstanding) in LOADS.iter().filter(|(mix, ..)| is_wanted(mix)) {
        let options = options(mix, clients, outstanding, Duration::from_secs(arguments.seconds))?;
        let summary = measure(options)?;
        if arguments.json {
            println!("{}", object(mix, clients, outstanding, &summary));
        } else {
            eprintln!("{mix}, {clients} x {outstanding}: {:.0} ops/s", summary.per_second());
            table.add_row(row(mix, clients, outstanding, &summary));
        }
    }
    if !arguments.json {
        println!("{table}");
    }
    Ok(())
}

fn options(mix: &str, clients: u32, outstanding: u32, seconds: Duration) -> Result<LoadOptions> {
    let mix: Mix = mix.parse().map_err(anyhow::Error::msg)?;
    let keys = if mix.is_only_puts() { Keys::Unique } else { Keys::Among(KEYS) };
    let until = Until::Elapsed(seconds);
    let warm_up = WARM_UP;
    Ok(LoadOptions { clients, outstanding, until, warm_up, mix, keys, ..LoadOptions::default() })
}

fn measure(options: LoadOptions) -> Result<Summary> {
    let program = Program::with_subcommand(std::env::current_exe()?, "serve");
    let mut cluster = Cluster::new(ClusterOptions::new(program))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        cluster.start_all().await?;
        cluster.await_links(LINKS_WITHIN).await
    })?;
    let address = cluster.address(Member::Coordinator).to_string();
    Ok(Load::start(options, &ClientOptions::new([address]))?.join()?)
}

fn row(mix: &str, clients: u32, outstanding: u32, summary: &Summary) -> Vec<String> {
    let millis = |time: Duration| format!("{:.2} ms", time.as_secs_f64() * 1e3);
    vec![
        mix.to_owned(),
        clients.to_string(),
        outstanding.to_string(),
        format!("{:.0}", summary.per_second()),
        millis(summary.latency(50.0)),
        millis(summary.latency(99.0)),
        millis(summary.latency(99.9)),
        not_ok(summary).to_string(),
    ]
}

fn object(mix: &str, clients: u32, outstanding: u32, summary: &Summary) -> serde_json::Value {
    let micros = |time: Duration| (time.as_secs_f64() * 1e6).round();
    json!({
        "mix": mix,
        "clients": clients,
        "outstanding": outstanding,
        "ops_per_second": summary.per_second().round(),
        "p50_us": micros(summary.latency(50.0)),
        "p99_us": micros(summary.latency(99.0)),
        "p99_9_us": micros(summary.latency(99.9)),
        "not_ok": not_ok(summary),
    })
}

/// Attempts that did not end well.
fn not_ok(summary: &Summary) -> u64 {
    let counts = summary.counts;
    counts.ended() - counts.ok + counts.unavailable + counts.overloaded
}
