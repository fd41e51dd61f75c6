//! The faults as spans on the time axis, a row for each member, a colour for each kind.

use std::collections::BTreeMap;
use std::ops::Range;

use super::charts::{push, shades};
use super::slices::Slices;
use super::text::{escaped, moment};
use super::{FaultSpan, Report};
use crate::lab::numbers::lasting;

/// So many colours the page has; kinds beyond them begin anew.
const COLOURS: usize = 8;

/// The colour of each kind of fault, by name.
pub(super) fn colours(report: &Report) -> BTreeMap<&str, usize> {
    let mut colours = BTreeMap::new();
    for fault in &report.faults {
        let next = colours.len() % COLOURS;
        colours.entry(&fault.kind[..]).or_insert(next);
    }
    colours
}

/// A row for each member, and the colours' names below.
pub(super) fn lanes(report: &Report, slices: &Slices, outages: &[Range<u64>]) -> String {
    let colours = colours(report);
    let mut rows = String::new();
    for member in members(report) {
        rows.push_str(&row(member, report, &colours, slices, outages));
    }
    rows
}

/// Which colour is which kind.
pub(super) fn legend(report: &Report) -> String {
    let mut legend = String::new();
    for (kind, colour) in colours(report) {
        let kind = escaped(kind);
        push(&mut legend, format_args!("<span><i class=\"key kind{colour}\"></i>{kind}</span>"));
    }
    legend
}

/// All that something was done to, in the report's order; whom it does not name come last.
fn members(report: &Report) -> Vec<&str> {
    let mut members: Vec<&str> = report.members.iter().map(String::as_str).collect();
    for fault in &report.faults {
        for member in &fault.whom {
            if !members.contains(&&member[..]) {
                members.push(member);
            }
        }
    }
    if members.is_empty() && !report.faults.is_empty() {
        members.push("all");
    }
    members
}

fn row(
    member: &str,
    report: &Report,
    colours: &BTreeMap<&str, usize>,
    slices: &Slices,
    outages: &[Range<u64>],
) -> String {
    let mut faults: Vec<&FaultSpan> =
        report.faults.iter().filter(|fault| fault.strikes(member)).collect();
    faults.sort_by_key(|fault| (fault.from, fault.to));
    // Faults that overlap stand below each other: each goes where the last one ended before.
    let mut ends: Vec<u64> = Vec::new();
    let mut spans = String::new();
    for fault in faults {
        let level = ends.iter().position(|end| *end <= fault.from).unwrap_or(ends.len());
        match ends.get_mut(level) {
            Some(end) => *end = fault.to,
            None => ends.push(fault.to),
        }
        let from = slices.percent(fault.from);
        let width = slices.percent(fault.to) - from;
        let colour = colours.get(&fault.kind[..]).copied().unwrap_or_default();
        let idle = if fault.fired == 0 { " idle" } else { "" };
        let words = escaped(&fault.words());
        push(
            &mut spans,
            format_args!(
                "<i class=\"fault kind{colour}{idle}\" style=\"left:{from:.3}%;width:{width:.3}%;\
                 --level:{level}\" title=\"{words}\"></i>"
            ),
        );
    }
    let levels = ends.len().max(1);
    let name = escaped(member);
    let shades = shades(slices, outages);
    format!(
        "<div class=\"plot lane\"><div class=\"axis\" title=\"{name}\">{name}</div>\
         <div class=\"area\" style=\"--levels:{levels}\">{shades}{spans}</div></div>\n"
    )
}

impl FaultSpan {
    pub(super) fn strikes(&self, member: &str) -> bool {
        self.whom.is_empty() || self.whom.iter().any(|name| name == member)
    }

    /// Whom it was done to, in words.
    pub(super) fn victims(&self) -> String {
        if self.whom.is_empty() { "all".to_owned() } else { self.whom.join(", ") }
    }

    fn words(&self) -> String {
        let lasted = lasting(self.to.saturating_sub(self.from));
        format!("{}: {}, at {} for {lasted}", self.name, self.victims(), moment(self.from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(kind: &str, whom: &[&str], from: u64, to: u64) -> FaultSpan {
        let whom = whom.iter().map(|&name| name.to_owned()).collect();
        FaultSpan { kind: kind.to_owned(), name: kind.to_owned(), whom, from, to, fired: 1 }
    }

    #[test]
    fn everybody_who_was_struck_has_a_row() {
        let mut report = Report { members: vec!["coordinator".to_owned()], ..Report::default() };
        assert_eq!(members(&report), ["coordinator"]);
        report.faults = vec![fault("kill", &["replica 9"], 0, 1), fault("pause", &[], 0, 1)];
        assert_eq!(members(&report), ["coordinator", "replica 9"]);
        report.members.clear();
        report.faults.remove(0);
        assert_eq!(members(&report), ["all"]);
        assert_eq!(colours(&report), BTreeMap::from([("pause", 0)]));
    }

    #[test]
    fn faults_that_overlap_stand_below_each_other() {
        let report = Report {
            length: std::time::Duration::from_secs(1),
            members: vec!["m".to_owned()],
            faults: vec![
                fault("a", &["m"], 0, 500_000_000),
                fault("b", &["m"], 100_000_000, 200_000_000),
                fault("b", &[], 200_000_000, 300_000_000),
                fault("a", &["m"], 600_000_000, 700_000_000),
            ],
            ..Report::default()
        };
        let html = lanes(&report, &Slices::of(&report), &[]);
        assert!(html.contains("--levels:2\""), "{html}");
        let spans: Vec<&str> = html.split("<i class=\"fault ").skip(1).collect();
        let expected = [("kind0", 0), ("kind1", 1), ("kind1", 1), ("kind0", 0)];
        assert_eq!(spans.len(), expected.len());
        for (span, (kind, level)) in spans.iter().zip(expected) {
            assert!(
                span.starts_with(kind) && span.contains(&format!("--level:{level}\"")),
                "{span}"
            );
        }
    }
}
