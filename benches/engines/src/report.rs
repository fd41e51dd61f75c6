//! The table: medians of each engine, and how far ours is ahead.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

use crate::engine::Name;
use crate::rows::{Metric, Row, Unit};

/// What one process measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) engine: Name,
    pub(crate) row: Row,
    pub(crate) value_bytes: usize,
    pub(crate) keys: u64,
    pub(crate) metrics: Vec<Metric>,
}

/// Makes the table from samples that were kept.
pub(crate) fn from_files(files: &[PathBuf], markdown: bool) -> Result<()> {
    let mut samples = Vec::new();
    for file in files {
        let what = || format!("cannot read {}", file.display());
        let text = fs::read_to_string(file).with_context(what)?;
        for line in text.lines() {
            samples.push(serde_json::from_str(line).with_context(what)?);
        }
    }
    print(&samples, markdown);
    Ok(())
}

/// Prints a table for each size of values.
pub(crate) fn print(samples: &[Sample], markdown: bool) {
    let mut sizes: Vec<usize> = samples.iter().map(|sample| sample.value_bytes).collect();
    sizes.sort_unstable();
    sizes.dedup();
    for value_bytes in sizes {
        let of_size =
            samples.iter().filter(|sample| sample.value_bytes == value_bytes).cloned().collect();
        println!("{}", Sheet::new(of_size).render(markdown));
    }
}

/// One table.
struct Sheet {
    samples: Vec<Sample>,
    engines: Vec<Name>,
    /// Row and name of each metric, in the order in which they were measured.
    lines: Vec<(Row, String)>,
}

impl Sheet {
    fn new(mut samples: Vec<Sample>) -> Sheet {
        samples.sort_by_key(|sample| (sample.row, sample.engine));
        let mut engines: Vec<Name> = samples.iter().map(|sample| sample.engine).collect();
        engines.sort_unstable();
        engines.dedup();
        let mut lines = Vec::new();
        for sample in &samples {
            for metric in &sample.metrics {
                let line = (sample.row, metric.name.clone());
                if !lines.contains(&line) {
                    lines.push(line);
                }
            }
        }
        Sheet { samples, engines, lines }
    }

    /// The median of what was measured, with its metric.
    fn median(&self, engine: Name, row: Row, name: &str) -> Option<Metric> {
        let of_row = |sample: &&Sample| sample.engine == engine && sample.row == row;
        let metrics = self.samples.iter().filter(of_row).flat_map(|sample| &sample.metrics);
        let mut metrics: Vec<&Metric> = metrics.filter(|metric| metric.name == name).collect();
        metrics.sort_by(|a, b| a.value.total_cmp(&b.value));
        metrics.get(metrics.len() / 2).map(|&metric| metric.clone())
    }

    fn render(&self, markdown: bool) -> String {
        let mut table = Table::new();
        table.load_style(if markdown { presets::ASCII_MARKDOWN } else { presets::NOTHING });
        let engines = self.engines.iter().map(Name::to_string);
        table.set_header([String::new(), String::new()].into_iter().chain(engines));
        for (row, name) in &self.lines {
            table.add_row(self.line(*row, name));
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let first = &self.samples[0];
        let keys = self.samples.iter().map(|sample| sample.keys).max().unwrap_or(0);
        let title = format!("Values of {} bytes, {keys} keys", first.value_bytes);
        let title = if markdown { format!("### {title}\n") } else { title };
        format!("{title}\n{table}\n{}", self.share_of_raw())
    }

    fn line(&self, row: Row, name: &str) -> Vec<String> {
        let ours = self.median(Name::Kvorum, row, name);
        let cell = |&engine: &Name| {
            let Some(theirs) = self.median(engine, row, name) else { return "-".to_owned() };
            let value = theirs.to_string();
            match &ours {
                Some(ours) if engine != Name::Kvorum => {
                    format!("{value} ({})", ratio(ours, &theirs))
                }
                _ => value,
            }
        };
        let head = [row.to_string(), name.to_owned()].into_iter();
        head.chain(self.engines.iter().map(cell)).collect()
    }

    /// How near row b comes to what the device allows.
    fn share_of_raw(&self) -> String {
        let name = "durable put, 16 threads";
        let raw = self.median(Name::Raw, Row::B, name);
        let ours = self.median(Name::Kvorum, Row::B, name);
        let (Some(raw), Some(ours)) = (raw, ours) else { return String::new() };
        let share = 100.0 * ours.value / raw.value;
        format!("\nDurable puts by 16 threads: {share:.0} % of grouped direct writes alone.\n")
    }
}

/// How many times as good ours is: above 1 it is ahead.
fn ratio(ours: &Metric, theirs: &Metric) -> String {
    let ratio = if ours.more { ours.value / theirs.value } else { theirs.value / ours.value };
    match ratio {
        ratio if !ratio.is_finite() => "-".to_owned(),
        ratio if ratio >= 100.0 => format!("{ratio:.0}x"),
        ratio if ratio >= 10.0 => format!("{ratio:.1}x"),
        ratio => format!("{ratio:.2}x"),
    }
}

impl std::fmt::Display for Metric {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = |value: f64| usize::from(value < 100.0) + usize::from(value < 10.0);
        let value = self.value;
        match self.unit {
            Unit::PerSecond if value >= 10e6 => write!(f, "{:.1} M/s", value / 1e6),
            Unit::PerSecond if value >= 10e3 => {
                write!(f, "{:.*} k/s", digits(value / 1e3), value / 1e3)
            }
            Unit::PerSecond => write!(f, "{value:.0} /s"),
            Unit::Microseconds if value >= 10e3 => {
                write!(f, "{:.*} ms", digits(value / 1e3), value / 1e3)
            }
            Unit::Microseconds => write!(f, "{value:.*} µs", digits(value)),
            Unit::Milliseconds => write!(f, "{value:.*} ms", digits(value)),
            Unit::Mebibytes => write!(f, "{value:.0} MiB"),
            Unit::Times => write!(f, "{value:.2}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(engine: Name, value: f64, more: bool) -> Sample {
        let metric = Metric { name: "m".to_owned(), value, unit: Unit::PerSecond, more };
        Sample { engine, row: Row::A, value_bytes: 128, keys: 1, metrics: vec![metric] }
    }

    #[test]
    fn cells_are_medians_and_ratios_say_how_far_ours_is_ahead() {
        let check = |more, expected: [&str; 4]| {
            let ours = [1.0, 90.0, 4.0].map(|value| sample(Name::Kvorum, value, more));
            let theirs = [2.0, 1.0, 500.0].map(|value| sample(Name::Lmdb, value, more));
            let sheet = Sheet::new(ours.into_iter().chain(theirs).collect());
            assert_eq!(sheet.engines, [Name::Kvorum, Name::Lmdb]);
            assert_eq!(sheet.line(Row::A, "m"), expected);
        };
        check(true, ["a", "m", "4 /s", "2 /s (2.00x)"]);
        check(false, ["a", "m", "4 /s", "2 /s (0.50x)"]);
    }
}
