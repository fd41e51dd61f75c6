//! The page, from top to bottom.

use super::charts::{latency, throughput, time_axis};
use super::lanes::{lanes, legend};
use super::slices::{Slices, outages};
use super::tables::{faults, kinds, operations, troubles};
use super::text::{date, escaped, length, moment, nanos_of};
use super::{Finding, JudgeVerdict, PointEnding, Report};
use crate::lab::numbers::{counted, grouped, lasting};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("hover.js");

/// Nothing is fetched and nothing but what is in the page runs, whatever a key or a value says.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      img-src data:";

/// One self-contained page.
#[must_use]
pub fn html(report: &Report) -> String {
    let slices = Slices::of(report);
    let title = escaped(&report.title);
    let sections = [
        headline(report),
        section("What the judges say", &judges(report)),
        section("The run over time", &timeline(report, &slices)),
        section("Faults", &(kinds(report) + &faults(report))),
        section("Operations", &operations(report)),
        section("Operations that were not done", &troubles(report)),
    ];
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <title>{}: {title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{}</main>\n\
         <script type=\"application/json\" id=\"slices\">{}</script>\n<script>\n{SCRIPT}</script>\n\
         </body>\n</html>\n",
        report.finding().name(),
        sections.concat(),
        hover(report, &slices),
    )
}

impl Finding {
    fn name(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::Violated => "violated",
            Self::Undecided => "undecided",
        }
    }
}

fn section(title: &str, content: &str) -> String {
    format!("<section>\n<h2>{title}</h2>\n{content}</section>\n")
}

/// The verdict in big, and what there is to know at once.
fn headline(report: &Report) -> String {
    let finding = report.finding();
    let verdict = match finding {
        Finding::Holds => "Every promise was kept",
        Finding::Violated => "A promise was broken",
        Finding::Undecided if report.verdicts.is_empty() => "Nobody has judged this run",
        Finding::Undecided => "Undecided: a judge gave up",
    };
    let facts: String = own_facts(report)
        .iter()
        .chain(&report.facts)
        .map(|(name, value)| {
            format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escaped(name), escaped(value))
        })
        .collect();
    let command = match &report.command[..] {
        "" => String::new(),
        command => format!("<pre class=\"command\">{}</pre>\n", escaped(command)),
    };
    format!(
        "<header class=\"{}\">\n<p class=\"title\">{}</p>\n<h1>{verdict}</h1>\n{command}</header>\n\
         <dl class=\"facts\">\n{facts}</dl>\n",
        finding.name(),
        escaped(&report.title)
    )
}

/// What the page counts itself, so that it agrees with its charts.
fn own_facts(report: &Report) -> Vec<(String, String)> {
    let count = |ending| {
        let of_ending = report.operations.iter().filter(|operation| operation.ending == ending);
        of_ending.count() as u64
    };
    let ok = count(PointEnding::Ok);
    let [refused, unknown] = [PointEnding::Refused, PointEnding::Unknown].map(count).map(grouped);
    let seconds = report.length.as_secs_f64().max(1e-9);
    #[expect(clippy::cast_precision_loss, reason = "it is shown with few digits")]
    let rate = ok as f64 / seconds;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let rate = grouped(rate.round() as u64);
    let mut facts = vec![
        ("operations".to_owned(), grouped(report.operations.len() as u64)),
        ("done".to_owned(), format!("{}, {rate} a second", grouped(ok))),
        ("not done".to_owned(), format!("{refused} refused, {unknown} unknown")),
        ("faults".to_owned(), grouped(report.faults.len() as u64)),
    ];
    if report.operations.iter().any(|operation| operation.writes) {
        let away = || outages(report).into_iter().map(|outage| outage.end - outage.start);
        let available = 100.0 * (1.0 - part(away().sum(), nanos_of(report.length)));
        let longest = away().max().map_or_else(|| "none".to_owned(), lasting);
        facts.push(("available for writes".to_owned(), format!("{available:.1} % of the time")));
        facts.push(("longest outage".to_owned(), longest));
    }
    facts.push(("length".to_owned(), length(report.length)));
    if report.began_unix > 0 {
        facts.push(("began".to_owned(), date(report.began_unix)));
    }
    facts
}

#[expect(clippy::cast_precision_loss, reason = "it is shown with three digits")]
fn part(nanos: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { (nanos as f64 / of as f64).min(1.0) }
}

/// Each judge's verdict, and what it is about if something is wrong.
fn judges(report: &Report) -> String {
    if report.verdicts.is_empty() {
        return "<p>Nothing: no judge was asked.</p>\n".to_owned();
    }
    // What is wrong comes first.
    let mut verdicts: Vec<&JudgeVerdict> = report.verdicts.iter().collect();
    verdicts.sort_by_key(|verdict| match verdict.finding {
        Finding::Violated => 0,
        Finding::Undecided => 1,
        Finding::Holds => 2,
    });
    let mut page = String::new();
    for verdict in verdicts {
        let (judge, name) = (escaped(&verdict.judge), verdict.finding.name());
        // A word that only repeats the verdict is left out.
        let words = match verdict.words.trim() {
            words if words.is_empty() || words == name => String::new(),
            words if verdict.finding == Finding::Holds && !words.contains('\n') => {
                format!("<span class=\"note\">{}</span>", escaped(words))
            }
            words => format!("<pre>{}</pre>", escaped(words)),
        };
        page.push_str(&format!(
            "<div class=\"judge\"><b class=\"chip {name}\">{name}</b> <strong>{judge}</strong> {words}</div>\n"
        ));
        if let Some(timeline) = &verdict.timeline_html {
            page.push_str(&format!("<div class=\"evidence\">{timeline}</div>\n"));
        }
    }
    page
}

/// The charts and the faults on one time axis.
fn timeline(report: &Report, slices: &Slices) -> String {
    if report.operations.is_empty() && report.faults.is_empty() {
        return "<p>Nothing happened.</p>\n".to_owned();
    }
    let outages = outages(report);
    let axis = time_axis(slices);
    let outage_key = match outages.len() {
        0 => String::new(),
        _ => "<span><i class=\"key outage\"></i>no write acknowledged</span>".to_owned(),
    };
    let faults = match lanes(report, slices, &outages) {
        rows if rows.is_empty() => String::new(),
        rows => format!(
            "<h3>Faults, by member <span class=\"legend\">{}</span></h3>\n{rows}{axis}",
            legend(report)
        ),
    };
    format!(
        "<div class=\"charts\">\n\
         <h3>Operations a second <span class=\"legend\">\
         <span><i class=\"key ok\"></i>ok</span><span><i class=\"key refused\"></i>refused</span>\
         <span><i class=\"key unknown\"></i>unknown</span>{outage_key}</span></h3>\n{}{axis}\
         <h3>Time until done <span class=\"legend\"><span><i class=\"key line p50\"></i>p50</span>\
         <span><i class=\"key line p99\"></i>p99</span><span><i class=\"key line max\"></i>max</span>\
         </span></h3>\n{}{axis}{faults}</div>\n\
         <p class=\"hover\" aria-live=\"off\">{}, each {} long.\
         <span class=\"pointer\"> Point at a chart to read its numbers.</span></p>\n",
        throughput(slices, &outages),
        latency(slices, &outages),
        counted(slices.count() as u64, "slice", "slices"),
        lasting(slices.nanos),
    )
}

/// What is shown of each slice when somebody points at it: a JSON array of strings, which cannot
/// end the script element it stands in.
fn hover(report: &Report, slices: &Slices) -> String {
    let words: Vec<String> = slices
        .each
        .iter()
        .enumerate()
        .map(|(index, slice)| {
            let from = slices.nanos.saturating_mul(index as u64);
            let to = from.saturating_add(slices.nanos);
            let [ok, refused, unknown] = slice.ended.map(|count| {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "saturates"
                )]
                let rate = slices.rate(count).round() as u64;
                grouped(rate)
            });
            let took = slice.took.map_or_else(String::new, |took| {
                let [p50, p99, max] = [took.p50, took.p99, took.max].map(lasting);
                format!("; p50 {p50}, p99 {p99}, max {max}")
            });
            let active = report.faults.iter().filter(|fault| fault.from < to && fault.to >= from);
            let mut active: Vec<String> =
                active.map(|fault| format!("{}: {}", fault.name, fault.victims())).collect();
            active.dedup();
            let active =
                if active.is_empty() { String::new() } else { format!("\n{}", active.join("; ")) };
            format!(
                "{}: {ok} ok, {refused} refused, {unknown} unknown a second{took}{active}",
                moment(from)
            )
        })
        .collect();
    serde_json::Value::from(words).to_string().replace('<', "\\u003c")
}
