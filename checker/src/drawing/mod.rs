//! A violation as a picture for a browser: one lane for each client, time to the right.
//!
//! Inline SVG and CSS only: nothing is fetched, nothing runs, so that the page can be kept beside the
//! history and opened years later. Every text of the history is escaped.

mod axis;
mod lanes;
mod svg;

use std::fmt::{self, Write};

use crate::verdict::Violation;

/// Rows of a table of differences; more are only counted.
const ROWS_SHOWN_MAX: usize = 100;

/// A violation as a fragment of HTML that brings its own style: words, then a picture of the
/// operations, or a table where copies differ.
#[must_use]
pub fn timeline(violation: &Violation) -> String {
    let mut out = String::new();
    write_fragment(&mut out, violation).expect("writing to a string does not fail");
    out
}

/// The same as a page of its own.
#[must_use]
pub fn timeline_page(violation: &Violation) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{}</title>\n<style>{PAGE_STYLE}</style>\n</head>\n<body>\n{}</body>\n</html>\n",
        Escaped(&violation.rule.to_string()),
        timeline(violation),
    )
}

const PAGE_STYLE: &str = ":root{color-scheme:light dark}\
    body{margin:2rem auto;padding:0 1rem;max-width:1200px;background:#fcfcfb;color:#1c1e21}\
    @media (prefers-color-scheme:dark){body{background:#15171a;color:#e6e7e9}}";

/// Colours by what they mean, once for light and once for dark.
const STYLE: &str = "\
.kv-timeline{--ink:#1c1e21;--soft:#62676e;--line:#d9dbdf;--lane:#f1f2f4;--ok:#3f7fc1;--ok-fill:#cfe1f4;\
--bad:#c62828;--bad-fill:#f8d0cf;--open:#8a6d1f;--open-fill:#f3e4b8;\
color:var(--ink);font:15px/1.5 system-ui,sans-serif}\
@media (prefers-color-scheme:dark){.kv-timeline{--ink:#e6e7e9;--soft:#a0a6ae;--line:#3a3e44;--lane:#1f2226;\
--ok:#6aa9e9;--ok-fill:#1e3a57;--bad:#ff7b74;--bad-fill:#5c1f1d;--open:#d8b455;--open-fill:#4a3c14}}\
.kv-timeline h3{margin:0 0 .25rem;font-size:1.05rem;color:var(--bad)}\
.kv-timeline p{margin:0 0 .75rem;max-width:75ch;overflow-wrap:anywhere}\
.kv-timeline .small{font-size:13px;color:var(--soft)}\
.kv-timeline .scroll{overflow-x:auto}\
.kv-timeline svg{display:block}\
.kv-timeline text{fill:var(--ink);font:12.5px/1 ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace}\
.kv-timeline .tick{fill:var(--soft);font-size:11.5px}\
.kv-timeline .who{font-family:system-ui,sans-serif;font-size:13px}\
.kv-timeline .lane{fill:var(--lane)}\
.kv-timeline .grid{stroke:var(--line);stroke-width:1}\
.kv-timeline .gap{stroke:var(--soft);stroke-width:1.25;fill:none}\
.kv-timeline .bar{fill:var(--ok-fill);stroke:var(--ok);stroke-width:1.5}\
.kv-timeline .open .bar{stroke:var(--open)}\
.kv-timeline .open.bad .bar,.kv-timeline .bad .bar{fill:var(--bad-fill);stroke:var(--bad);stroke-width:2}\
.kv-timeline .bad text{fill:var(--bad);font-weight:700}\
.kv-timeline .guide{stroke:var(--soft);stroke-dasharray:3 3;opacity:0}\
.kv-timeline .bad .guide{stroke:var(--bad);opacity:.55}\
.kv-timeline .deed:hover .guide{opacity:1}\
.kv-timeline .deed:hover .bar{stroke-width:3}\
.kv-timeline table{border-collapse:collapse;font-size:14px}\
.kv-timeline th,.kv-timeline td{border:1px solid var(--line);padding:.3rem .6rem;text-align:left;\
overflow-wrap:anywhere;max-width:32ch}\
.kv-timeline th{background:var(--lane)}\
.kv-timeline td.bad{background:var(--bad-fill)}\
.kv-timeline td i{color:var(--soft)}";

fn write_fragment(out: &mut String, violation: &Violation) -> fmt::Result {
    writeln!(out, "<section class=\"kv-timeline\">\n<style>{STYLE}</style>")?;
    writeln!(out, "<h3>{}</h3>", Escaped(&violation.rule.to_string()))?;
    writeln!(out, "<p>{}</p>", Escaped(&violation.words))?;
    if !violation.operations.is_empty() {
        svg::write(out, violation)?;
    }
    if !violation.differences.is_empty() {
        write_differences(out, violation)?;
    }
    writeln!(out, "</section>")
}

fn write_differences(out: &mut String, violation: &Violation) -> fmt::Result {
    let differences = &violation.differences;
    writeln!(out, "<div class=\"scroll\"><table>\n<tr><th>key</th>")?;
    for (name, _) in differences.iter().take(1).flat_map(|difference| &difference.values) {
        writeln!(out, "<th>{}</th>", Escaped(name))?;
    }
    writeln!(out, "</tr>")?;
    for difference in differences.iter().take(ROWS_SHOWN_MAX) {
        write!(out, "<tr><td>{}</td>", Escaped(&difference.key))?;
        let values: Vec<&Option<String>> = difference.values.iter().map(|(_, v)| v).collect();
        let most = |value: &Option<String>| values.iter().filter(|v| **v == value).count();
        let usual = values.iter().map(|value| most(value)).max().unwrap_or(0);
        for value in &values {
            let class = if most(value) < usual { " class=\"bad\"" } else { "" };
            match value {
                Some(value) => write!(out, "<td{class}>{}</td>", Escaped(value))?,
                None => write!(out, "<td{class}><i>absent</i></td>")?,
            }
        }
        writeln!(out, "</tr>")?;
    }
    writeln!(out, "</table></div>")?;
    if let Some(rest) = differences.len().checked_sub(ROWS_SHOWN_MAX).filter(|rest| *rest > 0) {
        writeln!(out, "<p class=\"small\">and {rest} more keys</p>")?;
    }
    Ok(())
}

/// Text that HTML and XML show as it is.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                // Not allowed in a page at all, and invisible.
                control if control.is_control() => f.write_char('\u{fffd}')?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}
