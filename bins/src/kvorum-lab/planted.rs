//! `planted`: bugs on purpose, each of which must be found.

use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use kvorum::lab::numbers::counted;
use kvorum_sim::planted::{Bounds, Bug, Found, Hunted, Row};
use serde_json::{Value as Json, json};

use crate::error::{LabError, VIOLATED};
use crate::output::{Format, Output};
use crate::quiet::quietly;

const STYLE: &str = "{bar:30} {pos} of {len}: {msg}  {elapsed} gone";

/// Give nodes each known bug on purpose, and show after how many seeds the simulator finds it
///
/// A simulator that finds nothing may be blind. First comes a control without any bug, in which
/// nothing must be found.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  kvorum-lab planted
  kvorum-lab planted --list
  kvorum-lab planted forget-vote-at-restart --seeds 500
  kvorum-lab sim --plant forget-vote-at-restart

Exit code 1 says that a bug was not found, or that something was found without one.")]
pub(crate) struct Hunt {
    /// The bugs to look for [default: all that a simulator can find soon]
    #[arg(value_name = "BUG", value_parser = bug)]
    bugs: Vec<Bug>,

    /// Name the bugs, and end
    #[arg(long)]
    list: bool,

    /// At most so many seeds for each bug
    #[arg(long, value_name = "N", default_value_t = Bounds::default().seeds_max)]
    seeds: u64,

    /// So many seeds without a bug
    #[arg(long, value_name = "N", default_value_t = Bounds::default().control)]
    control: u64,
}

/// Reads a bug's name.
fn bug(name: &str) -> Result<Bug, String> {
    Bug::by_name(name)
        .ok_or_else(|| "there is no such bug; see `kvorum-lab planted --list`".to_owned())
}

/// Hunts.
pub(crate) fn planted(output: &mut Output, arguments: &Hunt) -> Result<ExitCode, LabError> {
    let began = Instant::now();
    let bugs = match &arguments.bugs[..] {
        [] => Bug::hunted().collect(),
        bugs => bugs.to_vec(),
    };
    if arguments.list {
        return list(output, &bugs);
    }
    let rows = quietly(|| hunt(output, arguments, &bugs))?;
    let wrong = rows.iter().filter(|row| !row.is_right()).count();
    match output.format {
        Format::Json => output.json(&rows.iter().map(object).collect())?,
        Format::Text if wrong > 0 => {
            output.line(format!("\nverdict: WRONG in {wrong} of {} rows", rows.len()))?;
        }
        Format::Text => output.line(format!(
            "\nverdict: {} found, and nothing without one",
            counted(bugs.len() as u64, "bug was", "bugs were")
        ))?,
    }
    output.note(&format!("in {:.1} s", began.elapsed().as_secs_f64()))?;
    Ok(ExitCode::from(if wrong == 0 { 0 } else { VIOLATED }))
}

/// Hunts one after the other, and tells of each at once: all of them take minutes.
fn hunt(output: &mut Output, arguments: &Hunt, bugs: &[Bug]) -> Result<Vec<Row>, LabError> {
    let bar = match output.is_watched() {
        true => ProgressBar::new(bugs.len() as u64 + 1),
        false => ProgressBar::hidden(),
    };
    bar.set_style(ProgressStyle::with_template(STYLE).expect("the template is a constant"));
    let bounds =
        Bounds { seeds_max: arguments.seeds, control: arguments.control, ..Bounds::default() };
    let mut rows = Vec::with_capacity(bugs.len() + 1);
    if output.format == Format::Text {
        output.line(line("BUG", "SEEDS", "IN", "TRAP, AND THE PROMISE THAT BROKE"))?;
    }
    for bug in std::iter::once(None).chain(bugs.iter().copied().map(Some)) {
        bar.set_message(name(bug));
        bar.tick();
        let row = Row::new(bug, &bounds);
        bar.inc(1);
        if output.format == Format::Text {
            bar.suspend(|| print(output, &row))?;
        }
        rows.push(row);
    }
    bar.finish_and_clear();
    Ok(rows)
}

fn print(output: &mut Output, row: &Row) -> Result<(), LabError> {
    let (seeds, broken) = (seeds(row).to_string(), format!("-> {}", words(row)));
    match row.bug {
        None => output.line(line(name(None), &seeds, place(row), &broken))?,
        Some(bug) => {
            output.line(line(bug.name(), &seeds, place(row), bug.trap()))?;
            output.line(line("", "", "", &broken))?;
        }
    }
    output.flush()
}

fn line(bug: &str, seeds: &str, place: &str, words: &str) -> String {
    format!(" {bug:<31} {seeds:>5}  {place:<7}  {words}")
}

fn name(bug: Option<Bug>) -> &'static str {
    bug.map_or("(none)", Bug::name)
}

fn list(output: &mut Output, bugs: &[Bug]) -> Result<ExitCode, LabError> {
    if output.format == Format::Json {
        let object =
            |bug: &Bug| json!({"bug": bug.name(), "trap": bug.trap(), "breaks": bug.rule()});
        output.json(&bugs.iter().map(object).collect())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["BUG", "TRAP"]);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    for bug in bugs {
        table.add_row([bug.name(), bug.trap()]);
    }
    output.line(table.trim_fmt())?;
    Ok(ExitCode::SUCCESS)
}

/// What was simulated.
fn place(row: &Row) -> &'static str {
    row.bug.map_or("all", |bug| bug.place().name())
}

/// How many seeds it took, or were run in vain.
fn seeds(row: &Row) -> u64 {
    match &row.hunted {
        Hunted::Found(Found { seed, .. }) | Hunted::Unsound(Found { seed, .. }) => seed + 1,
        Hunted::Nothing { seeds } => *seeds,
    }
}

fn words(row: &Row) -> String {
    match &row.hunted {
        Hunted::Found(found) => found.violation.promise.words().to_owned(),
        Hunted::Nothing { .. } if row.bug.is_none() => "nothing, as it must be".to_owned(),
        Hunted::Nothing { .. } => "NOT FOUND".to_owned(),
        Hunted::Unsound(Found { seed, violation }) => {
            format!("WITHOUT A BUG ON PURPOSE seed {seed} breaks: {violation}")
        }
    }
}

fn object(row: &Row) -> Json {
    let violation = match &row.hunted {
        Hunted::Found(found) | Hunted::Unsound(found) => Some(&found.violation),
        Hunted::Nothing { .. } => None,
    };
    json!({
        "bug": row.bug.map(Bug::name),
        "trap": row.bug.map(Bug::trap),
        "in": place(row),
        "right": row.is_right(),
        "seeds": seeds(row),
        "promise": violation.map(|violation| violation.promise.words()),
        "what": violation.map(|violation| &violation.what[..]),
    })
}
