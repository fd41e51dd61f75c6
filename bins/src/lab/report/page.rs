//! The page, from top to bottom.

use super::text::escaped;
use super::{Finding, Report};

/// One self-contained page.
#[must_use]
pub fn html(report: &Report) -> String {
    let title = escaped(&report.title);
    let verdict = match report.finding() {
        Finding::Holds => "holds",
        Finding::Violated => "violated",
        Finding::Undecided => "undecided",
    };
    let facts: String = report
        .facts
        .iter()
        .map(|(name, value)| format!("<dt>{}</dt><dd>{}</dd>\n", escaped(name), escaped(value)))
        .collect();
    let verdicts: String = report
        .verdicts
        .iter()
        .map(|verdict| {
            format!(
                "<h2>{}</h2>\n<pre>{}</pre>\n",
                escaped(&verdict.judge),
                escaped(&verdict.words)
            )
        })
        .collect();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{title}</title>\n\
         <h1>{verdict}</h1>\n<p>{title}</p>\n<pre>{}</pre>\n<dl>\n{facts}</dl>\n{verdicts}</html>\n",
        escaped(&report.command)
    )
}
