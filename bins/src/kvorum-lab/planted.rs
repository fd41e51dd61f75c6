//! `planted`: bugs on purpose, each of which must be found.

use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use kvorum_sim::planted::{Bounds, Bug, Found, Hunted, Place, Row};
use serde_json::{Value as Json, json};

use crate::error::{LabError, VIOLATED};
use crate::output::{Format, Output};
use crate::quiet::quietly;

/// Where the numbers are.
const SEEDS_COLUMN: usize = 2;

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
    /// The bugs to look for [default: all]
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
        [] => Bug::all().collect(),
        bugs => bugs.to_vec(),
    };
    if arguments.list {
        return list(output, &bugs);
    }
    let rows = quietly(|| rows(output, arguments, &bugs));
    let wrong = rows.iter().filter(|row| !row.is_right()).count();
    print(output, &rows, wrong)?;
    output.note(&format!("in {:.1} s", began.elapsed().as_secs_f64()))?;
    Ok(ExitCode::from(if wrong == 0 { 0 } else { VIOLATED }))
}

fn rows(output: &Output, arguments: &Hunt, bugs: &[Bug]) -> Vec<Row> {
    let bar = match output.is_watched() {
        true => ProgressBar::new(bugs.len() as u64 + 2),
        false => ProgressBar::hidden(),
    };
    bar.set_style(ProgressStyle::with_template(STYLE).expect("the template is a constant"));
    let bounds =
        Bounds { seeds_max: arguments.seeds, control: arguments.control, ..Bounds::default() };
    let controls = [Place::Cluster, Place::Engine].map(|place| (place, None));
    let hunts = bugs.iter().map(|bug| (bug.place(), Some(*bug)));
    let rows = controls.into_iter().chain(hunts).map(|(place, bug)| {
        bar.set_message(name(bug));
        bar.tick();
        let row = match bug {
            Some(bug) => Row::of(bug, &bounds),
            None => Row::control(place, &bounds),
        };
        bar.inc(1);
        row
    });
    let rows = rows.collect();
    bar.finish_and_clear();
    rows
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

fn print(output: &mut Output, rows: &[Row], wrong: usize) -> Result<(), LabError> {
    if output.format == Format::Json {
        return output.json(&rows.iter().map(object).collect());
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "BUG",
        "IN",
        "SEEDS",
        "TRAP, AND THE PROMISE THAT BROKE",
    ]);
    for row in rows {
        let trap = row.bug.map(|bug| format!("{}\n", bug.trap())).unwrap_or_default();
        let words = format!("{trap}-> {}", words(row));
        table.add_row([name(row.bug), row.place.name(), &seeds(row).to_string(), &words]);
    }
    if let Some(column) = table.column_mut(SEEDS_COLUMN) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    output.line(table.trim_fmt())?;
    let bugs = rows.iter().filter(|row| row.bug.is_some()).count();
    match wrong {
        0 => output.line(format!("\nverdict: all {bugs} bugs were found, and nothing without one")),
        wrong => output.line(format!("\nverdict: WRONG in {wrong} of {} rows", rows.len())),
    }
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
        "in": row.place.name(),
        "right": row.is_right(),
        "seeds": seeds(row),
        "promise": violation.map(|violation| violation.promise.words()),
        "what": violation.map(|violation| &violation.what[..]),
    })
}
