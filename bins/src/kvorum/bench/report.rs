//! What came of a load: sentences for people, an object for programs.

use std::time::Duration;

use kvorum::load::{Arrivals, Keys, LoadOptions, Pace, Summary};
use serde_json::{Value as Json, json};

use crate::error::CommandError;
use crate::output::{Format, Output};

/// Prints the summary.
pub(super) fn print(
    output: &mut Output,
    options: &LoadOptions,
    summary: &Summary,
) -> Result<(), CommandError> {
    match output.format {
        Format::Text => output.line(text(options, summary)),
        Format::Json => output.json(&object(options, summary)),
    }
}

fn text(options: &LoadOptions, summary: &Summary) -> String {
    let LoadOptions { clients, outstanding, mix, key_bytes, value_bytes, .. } = options;
    let keys = match options.keys {
        Keys::Unique => "unique keys".to_owned(),
        Keys::Among(keys) => format!("{keys} keys ({})", options.distribution),
    };
    let pace = match options.pace {
        Pace::Closed => format!("{clients} clients with {outstanding} outstanding each"),
        Pace::Open { rate, arrivals } => format!(
            "{rate} a second ({}) by {clients} clients with at most {outstanding} outstanding each",
            name(arrivals)
        ),
    };
    let counts = summary.counts;
    let is_open = options.pace != Pace::Closed;
    let mut lines = vec![
        format!("{mix}: {pace}; {keys} of {key_bytes} bytes, values of {value_bytes} bytes"),
        format!(
            "{:.0} ops/s: {} ok in {:.2} s",
            summary.per_second(),
            counts.ok,
            summary.elapsed.as_secs_f64()
        ),
        format!(
            "latency: p50 {}  p99 {}  p99.9 {}  max {}",
            shown(summary.latency(50.0)),
            shown(summary.latency(99.0)),
            shown(summary.latency(99.9)),
            shown(summary.latency_max())
        ),
        format!("longest time without an acknowledgement: {}", shown(summary.longest_pause)),
    ];
    if is_open && counts.overloaded > 0 {
        let (half, most) = (shown(summary.refusal(50.0)), shown(summary.refusal(99.0)));
        lines.push(format!("refused as overloaded within: p50 {half}  p99 {most}"));
    }
    if counts.retried > 0 {
        lines.push(format!("read-modify-writes from the beginning: {}", counts.retried));
    }
    lines.push(format!("the load took {} of a processor for each", shown(summary.cpu_each())));
    let others = [
        (counts.conflict, "conflict"),
        (counts.precondition_failed, "precondition failed"),
        (counts.unknown, "outcome unknown"),
        (counts.unavailable, if is_open { "unavailable" } else { "unavailable, tried anew" }),
        (counts.overloaded, if is_open { "overloaded" } else { "overloaded, tried anew" }),
        (counts.not_begun, "not begun in time"),
    ];
    let others = others.into_iter().filter(|(count, _)| *count > 0);
    let others: Vec<_> = others.map(|(count, what)| format!("{count} {what}")).collect();
    if !others.is_empty() {
        lines.push(format!("not ok: {}", others.join(", ")));
    }
    lines.join("\n")
}

fn name(arrivals: Arrivals) -> &'static str {
    match arrivals {
        Arrivals::Fixed => "fixed",
        Arrivals::Poisson => "poisson",
    }
}

/// Three digits, in the unit that suits.
fn shown(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    let (number, unit) = match micros {
        ..1e3 => (micros, "us"),
        ..1e6 => (micros / 1e3, "ms"),
        _ => (micros / 1e6, "s"),
    };
    match number {
        ..10.0 => format!("{number:.2} {unit}"),
        ..100.0 => format!("{number:.1} {unit}"),
        _ => format!("{number:.0} {unit}"),
    }
}

fn object(options: &LoadOptions, summary: &Summary) -> Json {
    let micros = |time: Duration| (time.as_secs_f64() * 1e9).round() / 1e3;
    let rounded = |number: f64| (number * 1e3).round() / 1e3;
    let counts = summary.counts;
    let (rate, arrivals) = match options.pace {
        Pace::Closed => (None, None),
        Pace::Open { rate, arrivals } => (Some(rate), Some(name(arrivals))),
    };
    json!({
        "mix": options.mix.to_string(),
        "clients": options.clients,
        "outstanding": options.outstanding,
        "threads": options.threads,
        "rate": rate,
        "arrivals": arrivals,
        "keys": match options.keys {
            Keys::Unique => Json::from("unique"),
            Keys::Among(keys) => Json::from(keys),
        },
        "distribution": options.distribution.to_string(),
        "key_bytes": options.key_bytes,
        "value_bytes": options.value_bytes,
        "seed": options.seed,
        "seconds": rounded(summary.elapsed.as_secs_f64()),
        "ops_per_second": rounded(summary.per_second()),
        "latency_us": {
            "mean": micros(summary.latency_mean()),
            "p50": micros(summary.latency(50.0)),
            "p90": micros(summary.latency(90.0)),
            "p99": micros(summary.latency(99.0)),
            "p99_9": micros(summary.latency(99.9)),
            "max": micros(summary.latency_max()),
        },
        "overloaded_us": {
            "p50": micros(summary.refusal(50.0)),
            "p99": micros(summary.refusal(99.0)),
        },
        "longest_pause_us": micros(summary.longest_pause),
        "client_cpu_us": micros(summary.cpu_each()),
        "ok": counts.ok,
        "conflict": counts.conflict,
        "precondition_failed": counts.precondition_failed,
        "unknown": counts.unknown,
        "unavailable": counts.unavailable,
        "overloaded": counts.overloaded,
        "retried": counts.retried,
        "not_begun": counts.not_begun,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits() {
        let cases = [
            (0, "0.00 us"),
            (1_234, "1.23 us"),
            (99_940, "99.9 us"),
            (123_456, "123 us"),
            (1_234_000, "1.23 ms"),
            (56_789_000, "56.8 ms"),
            (12_345_000_000, "12.3 s"),
        ];
        for (nanos, expected) in cases {
            assert_eq!(shown(Duration::from_nanos(nanos)), expected);
        }
    }
}
