//! What came of simulations, for people and for programs.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use kvorum::lab::numbers::{counted, grouped};
use kvorum_sim::{Activity, Fault, Run, Setup, Shrunk, Totals, Violation};
use serde_json::{Map, Value as Json, json};

use super::Sim;
use crate::error::LabError;
use crate::output::{Format, Output};

/// Seeds named in a verdict; more are only counted.
const SEEDS_SHOWN_MAX: usize = 20;

/// One seed.
pub(super) fn one(
    output: &mut Output,
    arguments: &Sim,
    setup: &Setup,
    run: Run,
    shrunk: Option<&Shrunk>,
) -> Result<(), LabError> {
    let mut totals = Totals::default();
    totals.add(run);
    if output.format == Format::Text && setup.traced {
        return verdict(output, arguments, &totals, shrunk);
    }
    many(output, arguments, &totals, shrunk)
}

/// All seeds together.
pub(super) fn many(
    output: &mut Output,
    arguments: &Sim,
    totals: &Totals,
    shrunk: Option<&Shrunk>,
) -> Result<(), LabError> {
    match output.format {
        Format::Json => return output.json(&object(arguments, totals, shrunk)),
        Format::Text => {}
    }
    let seeds = match arguments.seed {
        Some(seed) => format!("seed {seed}"),
        None => counted(totals.seeds, "seed", "seeds"),
    };
    output.line(format!(
        "{}: {seeds}, {:.2} simulated hours\n\
         {}: {} done, {} refused, {} of unknown outcome\n",
        arguments.place().name(),
        simulated(totals).as_secs_f64() / 3_600.0,
        counted(totals.operations(), "operation", "operations"),
        grouped(totals.done),
        grouped(totals.refused),
        grouped(totals.unknown),
    ))?;
    output.line(table(["FAULT", "STRUCK"], faults(arguments, totals)))?;
    if !totals.happened.is_empty() {
        output.line("")?;
        output.line(table(["WHAT ALSO HAPPENED", "TIMES"], activity(&totals.happened)))?;
    }
    let never = never(arguments, totals);
    if !never.is_empty() {
        output.line(format!("\nnever: {}", never.join(", ")))?;
    }
    if arguments.activity {
        output.line("")?;
        output.line(table(["WHAT NODES AND STORES DID", "TIMES"], activity(&totals.activity)))?;
    }
    output.line("")?;
    verdict(output, arguments, totals, shrunk)
}

fn verdict(
    output: &mut Output,
    arguments: &Sim,
    totals: &Totals,
    shrunk: Option<&Shrunk>,
) -> Result<(), LabError> {
    let Some((seed, first)) = totals.violations.first() else {
        return output.line("verdict: every promise was kept");
    };
    match shrunk {
        None => output.line(format!("seed {seed}: {first}\n"))?,
        // What the whole run shows is the same promise broken, among much that is beside the point.
        Some(Shrunk { setup, violation, runs }) => {
            output.line(format!("seed {seed}, made smaller in {runs} runs: {violation}\n"))?;
            output.line(format!("again: {}\n", arguments.command(&setup.clone().traced())))?;
        }
    }
    let seeds = totals.violations.iter().map(|(seed, _)| seed.to_string());
    let mut seeds: Vec<String> = seeds.take(SEEDS_SHOWN_MAX).collect();
    if totals.violations.len() > seeds.len() {
        seeds.push(format!("and {} more", totals.violations.len() - seeds.len()));
    }
    output.line(format!("verdict: BROKEN by seed {}", seeds.join(", ")))
}

fn table<'a>(header: [&str; 2], rows: impl Iterator<Item = (&'a str, u64)>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for (name, count) in rows {
        table.add_row([name, &grouped(count)]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

/// The faults that can strike, and how often they did.
fn faults(arguments: &Sim, totals: &Totals) -> impl Iterator<Item = (&'static str, u64)> {
    let place = arguments.place();
    let can = Fault::ALL.iter().copied().filter(move |fault| fault.strikes(place));
    can.map(|fault| (fault.name(), totals.faults.of(fault)))
}

/// What should have struck or happened, and did not.
fn never<'a>(arguments: &Sim, totals: &'a Totals) -> Vec<&'a str> {
    let faults = totals.faults.never(arguments.place());
    let mut never: Vec<&'a str> = faults.into_iter().map(Fault::name).collect();
    let happened = activity(&totals.happened).filter(|(_, count)| *count == 0);
    never.extend(happened.map(|(name, _)| name));
    never
}

fn simulated(totals: &Totals) -> Duration {
    Duration::from_nanos_u128(totals.nanoseconds)
}

fn object(arguments: &Sim, totals: &Totals, shrunk: Option<&Shrunk>) -> Json {
    let violations = totals.violations.iter().map(|(seed, violation)| {
        let mut object = violation_object(violation);
        object.insert("seed".to_owned(), Json::from(*seed));
        Json::from(object)
    });
    let mut object = json!({
        "protocol": arguments.place().name(),
        "seeds": totals.seeds,
        "simulated_seconds": simulated(totals).as_secs_f64(),
        "operations": totals.operations(),
        "done": totals.done,
        "refused": totals.refused,
        "unknown": totals.unknown,
        "faults": object_of(faults(arguments, totals)),
        "happened": object_of(activity(&totals.happened)),
        "never": never(arguments, totals),
        "activity": object_of(activity(&totals.activity)),
        "violations": violations.collect::<Vec<_>>(),
    });
    if let Some(Shrunk { setup, violation, runs }) = shrunk {
        let mut smaller = violation_object(violation);
        smaller.insert("again".to_owned(), arguments.command(&setup.clone().traced()).into());
        smaller.insert("runs".to_owned(), Json::from(*runs));
        object["shrunk"] = Json::from(smaller);
    }
    object
}

fn activity(activity: &Activity) -> impl Iterator<Item = (&str, u64)> {
    activity.iter().map(|(name, count)| (&name[..], *count))
}

fn object_of<'a>(counts: impl Iterator<Item = (&'a str, u64)>) -> Json {
    counts.map(|(name, count)| (name.to_owned(), Json::from(count))).collect()
}

fn violation_object(violation: &Violation) -> Map<String, Json> {
    let mut object = Map::new();
    object.insert("promise".to_owned(), violation.promise.words().into());
    object.insert("what".to_owned(), violation.what.clone().into());
    object
}
