//! The bare chain and a fresh cluster in turn, and how far the one is from the other.
//!
//! Each round runs them one right after the other, so that both have the same neighbours on the
//! machine; the medians of the rounds are compared.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

use crate::chain::Chain;

/// What a row asks of Kvorum, and what of the chain if it can do the same.
struct Row {
    name: &'static str,
    clients: usize,
    outstanding: usize,
    /// Beside the sizes and times.
    kvorum: &'static [&'static str],
    /// Keys, each with a value, in a put of the chain.
    pairs: Option<usize>,
}

const ROWS: &[Row] = &[
    Row { name: "put", clients: 64, outstanding: 1, kvorum: &["--mix", "put"], pairs: Some(1) },
    Row { name: "put", clients: 256, outstanding: 1, kvorum: &["--mix", "put"], pairs: Some(1) },
    Row { name: "put", clients: 16, outstanding: 16, kvorum: &["--mix", "put"], pairs: Some(1) },
    Row {
        name: "txn of 2 keys",
        clients: 64,
        outstanding: 1,
        kvorum: &["--mix", "txn", "--txn-keys", "2"],
        pairs: Some(2),
    },
    Row { name: "get", clients: 64, outstanding: 1, kvorum: &["--mix", "get"], pairs: None },
    Row {
        name: "get from replicas",
        clients: 64,
        outstanding: 1,
        kvorum: &["--mix", "get", "--to", "replicas"],
        pairs: None,
    },
];

/// What is compared, and how often.
#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// The program `kvorum`
    #[arg(long, default_value = "target/release/kvorum")]
    kvorum: PathBuf,
    /// How often each is run; the medians count
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// What is measured of each run, after a second of warm-up
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Only rows whose name and numbers of clients and calls hold this, such as `put 64x1`
    #[arg(long, default_value = "", hide_default_value = true)]
    only: String,
    /// More flags for `kvorum bench`, such as `--kvorum-flag=--threads=2`
    #[arg(long = "kvorum-flag", allow_hyphen_values = true)]
    kvorum_flags: Vec<String>,
    /// Print a JSON object a row instead of a table
    #[arg(long)]
    json: bool,
}

/// Runs all, and prints a row for each.
pub(crate) fn run(compare: &Compare) -> Result<()> {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([
        "load",
        "chain/s",
        "p50 us",
        "p99 us",
        "kvorum/s",
        "p50 us",
        "p99 us",
        "kvorum / chain",
        "p50 / p50",
    ]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let rows = ROWS.iter().filter(|row| row.title().contains(&compare.only));
    let mut is_any = false;
    for row in rows {
        is_any = true;
        let result = compare.row(row)?;
        if compare.json {
            println!("{}", serde_json::to_string(&result)?);
        } else {
            table.add_row(result.cells());
        }
    }
    ensure!(is_any, "no row holds `{}`", compare.only);
    if !compare.json {
        println!("{table}");
    }
    Ok(())
}

impl Row {
    fn title(&self) -> String {
        format!("{} {}x{}", self.name, self.clients, self.outstanding)
    }
}

impl Compare {
    fn row(&self, row: &Row) -> Result<Compared> {
        let (mut chain, mut kvorum) = (Vec::new(), Vec::new());
        for round in 1..=self.rounds {
            if let Some(pairs) = row.pairs {
                chain.push(self.run_chain(row, pairs)?);
            }
            kvorum.push(self.run_kvorum(row)?);
            let shown = |runs: &[Run]| runs.last().map_or("-".to_owned(), Run::to_string);
            let (chain, kvorum) = (shown(&chain), shown(&kvorum));
            eprintln!("{}, round {round}: chain {chain}; kvorum {kvorum}", row.title());
        }
        let kvorum = Run::median(&kvorum).context("no round")?;
        let chain = Run::median(&chain);
        let against = chain.as_ref();
        Ok(Compared {
            load: row.title(),
            rate_ratio: against.map(|chain| kvorum.per_second / chain.per_second),
            p50_ratio: against.map(|chain| kvorum.p50_us / chain.p50_us),
            chain,
            kvorum,
        })
    }

    fn run_chain(&self, row: &Row, pairs: usize) -> Result<Run> {
        let measured_ms = self.seconds * 1000;
        let chain = Chain {
            clients: row.clients,
            outstanding: row.outstanding,
            pairs,
            measured_ms,
            ..Chain::default()
        };
        let outcome = chain.run().context("the bare chain")?.outcome;
        Ok(Run {
            per_second: outcome.puts_per_second,
            p50_us: outcome.p50_us,
            p99_us: outcome.p99_us,
        })
    }

    fn run_kvorum(&self, row: &Row) -> Result<Run> {
        #[derive(Deserialize)]
        struct Printed {
            ops_per_second: f64,
            latency_us: Latencies,
        }
        #[derive(Deserialize)]
        struct Latencies {
            p50: f64,
            p99: f64,
        }
        let mut command = Command::new(&self.kvorum);
        command.args(["--output", "json", "bench", "--fresh"]);
        command.args(["--clients", &row.clients.to_string()]);
        command.args(["--outstanding", &row.outstanding.to_string()]);
        command.args(["--seconds", &self.seconds.to_string()]);
        command.args(row.kvorum).args(&self.kvorum_flags);
        let what = || format!("running {}", self.kvorum.display());
        let output = command.output().with_context(what)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {}", what(), said.trim_end());
        let printed: Printed = serde_json::from_slice(&output.stdout).with_context(what)?;
        let Latencies { p50, p99 } = printed.latency_us;
        Ok(Run { per_second: printed.ops_per_second, p50_us: p50, p99_us: p99 })
    }
}

/// One run, or the medians of several.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Run {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
}

impl Run {
    fn median(runs: &[Self]) -> Option<Self> {
        let of = |what: fn(&Self) -> f64| {
            let mut all: Vec<f64> = runs.iter().map(what).collect();
            all.sort_by(f64::total_cmp);
            let upper = all.get(all.len() / 2)?;
            let lower = all.get(all.len().saturating_sub(1) / 2)?;
            Some(f64::midpoint(*lower, *upper))
        };
        Some(Self {
            per_second: of(|run| run.per_second)?,
            p50_us: of(|run| run.p50_us)?,
            p99_us: of(|run| run.p99_us)?,
        })
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { per_second, p50_us, p99_us } = self;
        write!(f, "{per_second:.0}/s, p50 {p50_us:.0} us, p99 {p99_us:.0} us")
    }
}

/// A row of the table.
#[derive(Debug, Serialize)]
struct Compared {
    load: String,
    chain: Option<Run>,
    kvorum: Run,
    rate_ratio: Option<f64>,
    p50_ratio: Option<f64>,
}

impl Compared {
    fn cells(&self) -> Vec<String> {
        let run = |run: Option<&Run>| match run {
            Some(Run { per_second, p50_us, p99_us }) => {
                [per_second, p50_us, p99_us].map(|number| format!("{number:.0}"))
            }
            None => [const { String::new() }; 3],
        };
        let ratio = |ratio: Option<f64>| ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"));
        let runs = run(self.chain.as_ref()).into_iter().chain(run(Some(&self.kvorum)));
        let ratios = [ratio(self.rate_ratio), ratio(self.p50_ratio)];
        [self.load.clone()].into_iter().chain(runs).chain(ratios).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_that_of_each_figure_by_itself() {
        let run = |per_second, p50_us, p99_us| Run { per_second, p50_us, p99_us };
        assert_eq!(Run::median(&[]), None);
        assert_eq!(Run::median(&[run(1.0, 2.0, 3.0)]), Some(run(1.0, 2.0, 3.0)));
        let runs = [run(1.0, 30.0, 9.0), run(3.0, 10.0, 7.0), run(2.0, 20.0, 8.0)];
        assert_eq!(Run::median(&runs), Some(run(2.0, 20.0, 8.0)));
        assert_eq!(Run::median(&runs[..2]), Some(run(2.0, 20.0, 8.0)));
    }
}
