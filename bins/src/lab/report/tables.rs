//! The numbers behind the charts, as tables.

use std::collections::BTreeMap;

use super::charts::push;
use super::lanes::colours;
use super::slices::Latencies;
use super::text::{escaped, length, moment, nanos_of};
use super::{FaultSpan, OperationPoint, PointEnding, Recovery, Report};
use crate::lab::numbers::{counted, grouped, lasting};

/// Faults listed one by one; a run of an hour has thousands.
const FAULTS_MAX: usize = 200;

/// Operations of one ending that are listed one by one.
const OPERATIONS_MAX: usize = 200;

/// Rows that are shown at once; longer tables are folded away.
const OPEN_ROWS_MAX: usize = 12;

/// The kinds of faults: how many, how often they struck, how the cluster got over them.
pub(super) fn kinds(report: &Report) -> String {
    if report.faults.is_empty() {
        return "<p>Nothing was broken in this run.</p>\n".to_owned();
    }
    let mut rows = String::new();
    for (kind, colour) in colours(report) {
        let of_kind = |fault: &FaultSpan| fault.kind == kind;
        let faults = || report.faults.iter().filter(|fault| of_kind(fault));
        let fired: u64 = faults().map(|fault| fault.fired).sum();
        let recoveries = report
            .recoveries
            .iter()
            .filter_map(|recovery| Some((report.faults.get(recovery.fault)?, recovery)))
            .filter(|(fault, _)| of_kind(fault));
        let (mut took, mut away) = (Vec::new(), Vec::new());
        for (fault, recovery) in recoveries {
            took.extend(recovery.after(fault));
            away.push(nanos_of(recovery.unavailable));
        }
        let [median, worst] = median_and_worst(took);
        let away = away.into_iter().max().map_or_else(nothing, lasting);
        let idle = if fired == 0 { " bad" } else { "" };
        push(
            &mut rows,
            format_args!(
                "<tr><td><i class=\"key kind{colour}\"></i>{}</td><td class=\"n\">{}</td>\
                 <td class=\"n{idle}\">{}</td><td class=\"n\">{median}</td><td class=\"n\">{worst}</td>\
                 <td class=\"n\">{away}</td></tr>\n",
                escaped(kind),
                grouped(faults().count() as u64),
                grouped(fired),
            ),
        );
    }
    table(
        &[
            "fault",
            "#times",
            "#struck",
            "#first write after it, median",
            "#worst",
            "#longest without writes",
        ],
        &rows,
    )
}

fn median_and_worst(mut nanos: Vec<u64>) -> [String; 2] {
    nanos.sort_unstable();
    let median = nanos.get(nanos.len().saturating_sub(1) / 2);
    [median, nanos.last()].map(|nanos| nanos.copied().map_or_else(nothing, lasting))
}

/// The faults one by one, by time.
pub(super) fn faults(report: &Report) -> String {
    if report.faults.is_empty() {
        return String::new();
    }
    let colours = colours(report);
    let recoveries: BTreeMap<usize, &Recovery> =
        report.recoveries.iter().map(|recovery| (recovery.fault, recovery)).collect();
    let mut faults: Vec<(usize, &FaultSpan)> = report.faults.iter().enumerate().collect();
    faults.sort_by_key(|(_, fault)| (fault.from, fault.to));
    let mut rows = String::new();
    for (index, fault) in faults.iter().take(FAULTS_MAX) {
        let recovery = recoveries.get(index);
        let colour = colours.get(&fault.kind[..]).copied().unwrap_or_default();
        let idle = if fault.fired == 0 { " bad" } else { "" };
        push(
            &mut rows,
            format_args!(
                "<tr><td class=\"n\">{}</td><td class=\"n\">{}</td><td><i class=\"key kind{colour}\"></i>{}</td>\
                 <td>{}</td><td class=\"n{idle}\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>\n",
                moment(fault.from),
                lasting(fault.to.saturating_sub(fault.from)),
                escaped(&fault.name),
                escaped(&fault.victims()),
                grouped(fault.fired),
                recovery.and_then(|recovery| recovery.after(fault)).map_or_else(nothing, lasting),
                recovery.map_or_else(nothing, |recovery| length(recovery.unavailable)),
            ),
        );
    }
    let header =
        ["#from", "#for", "fault", "whom", "#struck", "#first write after it", "#without writes"];
    let table = table(&header, &rows) + &rest(faults.len(), FAULTS_MAX);
    folded(
        &format!("All {}", counted(faults.len() as u64, "fault", "faults")),
        faults.len(),
        &table,
    )
}

impl Recovery {
    /// How long after the fault's end a write was acknowledged.
    fn after(&self, fault: &FaultSpan) -> Option<u64> {
        self.first_write.map(|first| first.saturating_sub(fault.to))
    }
}

/// Operations by kind and ending.
pub(super) fn operations(report: &Report) -> String {
    let mut kinds: BTreeMap<&str, Vec<&OperationPoint>> = BTreeMap::new();
    for operation in &report.operations {
        kinds.entry(operation.kind).or_default().push(operation);
    }
    if kinds.is_empty() {
        return "<p>No client asked for anything.</p>\n".to_owned();
    }
    let mut rows = String::new();
    for (kind, operations) in &kinds {
        rows.push_str(&operations_row(kind, operations));
    }
    if kinds.len() > 1 {
        rows.push_str(&operations_row("all", &report.operations.iter().collect::<Vec<_>>()));
    }
    table(&["operation", "#ok", "#refused", "#unknown", "#ok: p50", "#p90", "#p99", "#max"], &rows)
}

fn operations_row(kind: &str, operations: &[&OperationPoint]) -> String {
    let of = |ending| operations.iter().filter(move |operation| operation.ending == ending);
    let took = of(PointEnding::Ok).map(|operation| operation.took()).collect();
    let took = Latencies::of(took);
    let cells = [PointEnding::Ok, PointEnding::Refused, PointEnding::Unknown]
        .map(|ending| grouped(of(ending).count() as u64));
    let values: [fn(Latencies) -> u64; 4] =
        [|took| took.p50, |took| took.p90, |took| took.p99, |took| took.max];
    let times = values.map(|value| took.map_or_else(nothing, |took| lasting(value(took))));
    let numbers: String =
        cells.iter().chain(&times).map(|cell| format!("<td class=\"n\">{cell}</td>")).collect();
    format!("<tr><td>{}</td>{numbers}</tr>\n", escaped(kind))
}

/// What did not end well, one by one: first what nobody knows of.
pub(super) fn troubles(report: &Report) -> String {
    let mut page = String::new();
    for (ending, title) in [
        (PointEnding::Unknown, "of unknown outcome: may have happened, or not"),
        (PointEnding::Refused, "refused: did not happen"),
    ] {
        let mut operations: Vec<&OperationPoint> =
            report.operations.iter().filter(|operation| operation.ending == ending).collect();
        operations.sort_by_key(|operation| (operation.start, operation.end));
        if operations.is_empty() {
            continue;
        }
        let mut rows = String::new();
        for operation in operations.iter().take(OPERATIONS_MAX) {
            let words = operation.words.as_deref().unwrap_or("");
            push(
                &mut rows,
                format_args!(
                    "<tr><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td><td class=\"words\">{}</td></tr>\n",
                    moment(operation.start),
                    lasting(operation.took()),
                    escaped(operation.kind),
                    escaped(words),
                ),
            );
        }
        let count = counted(operations.len() as u64, "operation", "operations");
        let table = table(&["#called", "#took", "operation", "what and why"], &rows)
            + &rest(operations.len(), OPERATIONS_MAX);
        page.push_str(&folded(&format!("{count} {title}"), operations.len(), &table));
    }
    if page.is_empty() {
        return "<p>None: every operation was done.</p>\n".to_owned();
    }
    page
}

/// A table; a column's name with `#` before it is one of numbers.
fn table(header: &[&str], rows: &str) -> String {
    let header: String = header
        .iter()
        .map(|name| match name.strip_prefix('#') {
            Some(name) => format!("<th class=\"n\">{name}</th>"),
            None => format!("<th>{name}</th>"),
        })
        .collect();
    format!(
        "<div class=\"wide\"><table>\n<thead><tr>{header}</tr></thead>\n<tbody>\n{rows}</tbody>\n\
         </table></div>\n"
    )
}

fn folded(title: &str, rows: usize, table: &str) -> String {
    let open = if rows <= OPEN_ROWS_MAX { " open" } else { "" };
    format!("<details{open}><summary>{title}</summary>\n{table}</details>\n")
}

fn rest(all: usize, shown: usize) -> String {
    match all.saturating_sub(shown) {
        0 => String::new(),
        more => format!("<p class=\"note\">and {} more</p>\n", grouped(more as u64)),
    }
}

fn nothing() -> String {
    "\u{2013}".to_owned()
}
