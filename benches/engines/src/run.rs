//! Who runs when: every row of every engine in a process of its own, the engines in turn.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use rustix::process::Signal;

use crate::RunOptions;
use crate::engine::Name;
use crate::report::{self, Sample};
use crate::rows::{Job, Metric, Row};

/// So many keys are loaded if values have 128 bytes; of longer values fewer, of as many bytes.
const KEYS: u64 = 2_000_000;
const KEYS_FOR_BYTES: u64 = 128;

/// A quick run loads the tenth part, and takes less time for each row.
const QUICK_PART: u64 = 10;
const QUICK_SECONDS: f64 = 0.5;

/// Of batches of 100 a fifth of the keys are enough.
const SMALL_BATCHES_PART: u64 = 5;

/// Measures what is asked for and prints the table.
pub(crate) fn run(options: &RunOptions) -> Result<()> {
    let base = options.dir.clone().unwrap_or_else(std::env::temp_dir);
    let dir = tempfile::Builder::new()
        .prefix("kvorum-engines-")
        .tempdir_in(&base)
        .with_context(|| format!("cannot make a directory in {}", base.display()))?;
    let rounds = if options.quick { 1 } else { options.rounds };
    let mut samples = Vec::new();
    for round in 1..=rounds {
        for &value_bytes in &options.value_bytes {
            let bench = Bench::new(options, dir.path(), value_bytes as usize);
            bench.round(round, &mut samples)?;
        }
    }
    report::print(&samples, options.markdown);
    Ok(())
}

/// One size of values.
struct Bench<'a> {
    options: &'a RunOptions,
    dir: &'a Path,
    value_bytes: usize,
    engines: Vec<Name>,
    rows: Vec<Row>,
}

impl Bench<'_> {
    fn new<'a>(options: &'a RunOptions, dir: &'a Path, value_bytes: usize) -> Bench<'a> {
        let mut engines = options.engines.clone();
        if engines.is_empty() {
            engines = Name::all().collect();
        }
        let mut rows = options.rows.clone();
        if rows.is_empty() {
            rows = Row::value_variants().to_vec();
        }
        // What is loaded is read before it is changed.
        rows.sort_unstable();
        rows.dedup();
        Bench { options, dir, value_bytes, engines, rows }
    }

    fn round(&self, round: u32, samples: &mut Vec<Sample>) -> Result<()> {
        for &row in &self.rows {
            for &engine in &self.engines {
                if engine == Name::Raw && row > Row::B {
                    continue;
                }
                let began = Instant::now();
                let metrics = self.row(engine, row)?;
                let seconds = began.elapsed().as_secs_f64();
                let value_bytes = self.value_bytes;
                eprintln!("round {round}, {value_bytes} B, row {row}, {engine}: {seconds:.1} s");
                let sample = Sample { engine, row, value_bytes, keys: self.keys(row), metrics };
                if let Some(file) = &self.options.json {
                    append(file, &sample)?;
                }
                samples.push(sample);
            }
        }
        for &engine in &self.engines {
            let loaded = self.loaded(engine);
            if loaded.exists() {
                fs::remove_dir_all(loaded)?;
            }
        }
        Ok(())
    }

    fn row(&self, engine: Name, row: Row) -> Result<Vec<Metric>> {
        if row.needs_load() || row == Row::C {
            let loaded = self.loaded(engine);
            if row.needs_load() && !loaded.exists() {
                self.row(engine, Row::C)?;
            }
            fs::create_dir_all(&loaded)?;
            return self.measure(engine, row, &loaded);
        }
        let dir = self.dir.join("row");
        fs::create_dir_all(&dir)?;
        if row == Row::G {
            let output = self.child(engine, row, &dir, true)?;
            let is_killed = output.status.signal() == Some(Signal::KILL.as_raw());
            ensure!(is_killed, "{engine}: the loading process was not killed: {}", output.status);
        }
        let metrics = self.measure(engine, row, &dir)?;
        fs::remove_dir_all(&dir)?;
        Ok(metrics)
    }

    /// What row c loaded.
    fn loaded(&self, engine: Name) -> PathBuf {
        self.dir.join(format!("{engine}-{}", self.value_bytes))
    }

    fn measure(&self, engine: Name, row: Row, dir: &Path) -> Result<Vec<Metric>> {
        let output = self.child(engine, row, dir, false)?;
        ensure!(output.status.success(), "{engine}, row {row}: {}", output.status);
        let text = String::from_utf8_lossy(&output.stdout);
        // The command that it runs under may have something to say as well.
        let metrics = text.lines().rev().find_map(|line| serde_json::from_str(line).ok());
        metrics.with_context(|| format!("{engine}, row {row}: no metrics in {text:?}"))
    }

    fn child(&self, engine: Name, row: Row, dir: &Path, prepare: bool) -> Result<Output> {
        let options = self.options;
        let job = Job {
            engine,
            row,
            dir: dir.to_owned(),
            prepare,
            value_bytes: self.value_bytes,
            keys: self.keys(row),
            seconds: if options.quick { QUICK_SECONDS } else { options.seconds },
            cache_bytes: options.cache_mib << 20,
        };
        let program = std::env::current_exe()?;
        // Who is to be killed is killed alone, not what it runs under.
        let under = if prepare { "" } else { options.under.as_str() };
        let mut words = under.split_whitespace().map(std::ffi::OsStr::new);
        let mut command = match words.next() {
            None => Command::new(&program),
            Some(first) => {
                let mut command = Command::new(first);
                command.args(words).arg(&program);
                command
            }
        };
        command.arg("child").arg(serde_json::to_string(&job)?).stderr(Stdio::inherit());
        command.output().with_context(|| format!("cannot run {command:?}"))
    }

    fn keys(&self, row: Row) -> u64 {
        let bytes = (self.value_bytes as u64).max(KEYS_FOR_BYTES);
        let keys = self.options.keys.unwrap_or(KEYS * KEYS_FOR_BYTES / bytes);
        let keys = if self.options.quick { keys / QUICK_PART } else { keys };
        if row == Row::C100 { keys / SMALL_BATCHES_PART } else { keys }
    }
}

fn append(file: &Path, sample: &Sample) -> Result<()> {
    let line = serde_json::to_string(sample)? + "\n";
    let open = OpenOptions::new().create(true).append(true).open(file);
    let written = open.and_then(|mut file| file.write_all(line.as_bytes()));
    written.with_context(|| format!("cannot write {}", file.display()))
}
