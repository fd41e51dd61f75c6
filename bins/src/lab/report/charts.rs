//! Throughput and latency over time.
//!
//! A chart's drawing is stretched to the page's width, whatever that is, and lines keep their
//! thickness; so no text is in it. Axes are labelled beside it, at percentages of its size.

use std::fmt::Write as _;
use std::ops::Range;

use super::PointEnding;
use super::slices::{Latencies, Slices, round_up};
use crate::lab::numbers::grouped;

/// The height of a drawing in its own units; its width is a unit for each slice.
const HEIGHT: f64 = 100.0;

/// About so many lines across the throughput.
const RATE_STEPS: f64 = 4.0;

/// At most so many labels on the time axis; on a narrow page every other one is left out.
const TIME_LABELS_MAX: u64 = 10;

/// Labels are not closer than what they can say: a millisecond.
const LABEL_NANOS_MIN: u64 = 1_000_000;

/// One of a slice's latencies.
type Value = fn(Latencies) -> u64;

/// Operations a second, by ending, one upon the other.
pub(super) fn throughput(slices: &Slices, outages: &[Range<u64>]) -> String {
    let totals = slices.each.iter().map(|slice| slices.rate(slice.ended.iter().sum()));
    let (step, top) = rate_scale(totals.fold(0.0, f64::max));
    let mut lines = Vec::new();
    let mut rate = 0.0;
    while rate <= top + step / 2.0 {
        lines.push((rate / top, rate_label(rate, step)));
        rate += step;
    }
    let mut below = vec![0.0; slices.count()];
    let mut areas = String::new();
    for ending in [PointEnding::Ok, PointEnding::Refused, PointEnding::Unknown] {
        let count = |slice: &super::slices::Slice| slice.ended[ending as usize];
        if slices.each.iter().all(|slice| count(slice) == 0) {
            continue;
        }
        let rates = slices.each.iter().map(|slice| slices.rate(count(slice)) / top * HEIGHT);
        let above: Vec<f64> = below.iter().zip(rates).map(|(below, rate)| below + rate).collect();
        let path = area(&below, &above);
        write_path(&mut areas, ending.class(), &path);
        below = above;
    }
    plot("throughput", &lines, &areas, slices, outages)
}

/// How long what was done had taken, on a logarithmic scale.
pub(super) fn latency(slices: &Slices, outages: &[Range<u64>]) -> String {
    let all = || slices.each.iter().filter_map(|slice| slice.took);
    let shortest = all().map(|took| took.p50).min().unwrap_or(1_000_000);
    let longest = all().map(|took| took.max).max().unwrap_or(1_000_000);
    let (low, high) = decades(shortest, longest);
    let lines: Vec<_> = (low..=high)
        .map(|power| (f64::from(power - low) / f64::from(high - low), power_label(power)))
        .collect();
    let height = |nanos: u64| {
        #[expect(clippy::cast_precision_loss, reason = "it is drawn")]
        let power = (nanos.max(1) as f64).log10();
        (power - f64::from(low)) / f64::from(high - low) * HEIGHT
    };
    let mut drawn = String::new();
    let values: [(&str, Value); 3] =
        [("max", |took| took.max), ("p99", |took| took.p99), ("p50", |took| took.p50)];
    for (class, value) in values {
        let heights: Vec<Option<f64>> =
            slices.each.iter().map(|slice| slice.took.map(|took| height(value(took)))).collect();
        write_path(&mut drawn, class, &line(&heights));
    }
    plot("latency", &lines, &drawn, slices, outages)
}

/// The labels of the time axis, which all charts share.
pub(super) fn time_axis(slices: &Slices) -> String {
    let step = time_step(slices.end());
    let mut labels = String::new();
    for index in 0..=slices.end() / step {
        let at = slices.percent(index * step);
        let narrow = if index % 2 == 1 { " class=\"odd\"" } else { "" };
        // What stands at the very end would stick out.
        if at < 97.0 {
            let label = time_label(index * step, step);
            push(&mut labels, format_args!("<span{narrow} style=\"left:{at:.3}%\">{label}</span>"));
        }
    }
    format!(
        "<div class=\"plot time\"><div class=\"axis\"></div><div class=\"ticks\">{labels}</div></div>\n"
    )
}

impl PointEnding {
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}

/// A chart: labelled lines across (at a part of the height), what is drawn, and outages behind it.
fn plot(
    class: &str,
    lines: &[(f64, String)],
    drawn: &str,
    slices: &Slices,
    outages: &[Range<u64>],
) -> String {
    let (mut labels, mut grid) = (String::new(), String::new());
    let width = slices.count();
    for (part, label) in lines {
        let percent = part * 100.0;
        push(&mut labels, format_args!("<span style=\"bottom:{percent:.2}%\">{label}</span>"));
        let y = HEIGHT - part * HEIGHT;
        push(&mut grid, format_args!("<path class=\"grid\" d=\"M0 {y:.2}H{width}\"/>"));
    }
    format!(
        "<div class=\"plot {class}\"><div class=\"axis\">{labels}</div>\
         <div class=\"area\">{}<svg viewBox=\"0 0 {width} {HEIGHT}\" preserveAspectRatio=\"none\" \
         aria-hidden=\"true\">{grid}{drawn}</svg></div></div>\n",
        shades(slices, outages)
    )
}

/// Outages, to stand behind a chart.
pub(super) fn shades(slices: &Slices, outages: &[Range<u64>]) -> String {
    let mut shades = String::new();
    for outage in outages {
        let (from, to) = (slices.percent(outage.start), slices.percent(outage.end));
        let width = to - from;
        push(
            &mut shades,
            format_args!("<i class=\"outage\" style=\"left:{from:.3}%;width:{width:.3}%\"></i>"),
        );
    }
    shades
}

fn write_path(to: &mut String, class: &str, path: &str) {
    push(to, format_args!("<path class=\"{class}\" d=\"{path}\"/>"));
}

/// A stair for each slice, filled from `below` to `above`.
fn area(below: &[f64], above: &[f64]) -> String {
    let mut path = String::new();
    for (index, height) in above.iter().enumerate() {
        let command = if index == 0 { 'M' } else { 'L' };
        let y = HEIGHT - height;
        push(&mut path, format_args!("{command}{index} {y:.2}H{}", index + 1));
    }
    for (index, height) in below.iter().enumerate().rev() {
        let y = HEIGHT - height;
        push(&mut path, format_args!("V{y:.2}H{index}"));
    }
    path.push('Z');
    path
}

/// A line through the middles of the slices, broken where there is nothing.
fn line(heights: &[Option<f64>]) -> String {
    let mut path = String::new();
    for (index, height) in heights.iter().enumerate() {
        let Some(height) = height else { continue };
        let y = HEIGHT - height;
        let before = index.checked_sub(1).and_then(|before| heights[before]);
        if before.is_none() {
            // Short and not of no length, so that a point that stands alone is seen.
            push(&mut path, format_args!("M{index}.4 {y:.2}"));
        }
        push(&mut path, format_args!("L{index}.6 {y:.2}"));
    }
    path
}

/// The distance between lines across, and the last of them, for rates up to this.
fn rate_scale(highest: f64) -> (f64, f64) {
    // Tenths, so that a run of a few operations has a scale too.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let tenths = (highest.max(0.1) * 10.0 / RATE_STEPS).ceil() as u64;
    #[expect(clippy::cast_precision_loss, reason = "it is drawn")]
    let step = round_up(tenths) as f64 / 10.0;
    (step, (highest / step).ceil().max(1.0) * step)
}

fn rate_label(rate: f64, step: f64) -> String {
    if step < 1.0 {
        return format!("{rate:.1}");
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let whole = rate.round() as u64;
    grouped(whole)
}

/// The powers of ten that enclose these times; not the same one twice.
fn decades(shortest: u64, longest: u64) -> (u32, u32) {
    let low = shortest.max(1).ilog10();
    let high = longest.max(1).checked_sub(1).and_then(u64::checked_ilog10).map_or(0, |log| log + 1);
    // Ten to the nineteenth is the last that fits.
    let high = high.max(low + 1).min(19);
    (low.min(high - 1), high)
}

/// Ten to this, in nanoseconds.
fn power_label(power: u32) -> String {
    let unit = ["ns", "\u{b5}s", "ms"].get(power as usize / 3);
    match unit {
        Some(unit) => format!("{} {unit}", 10u64.pow(power % 3)),
        None => format!("{} s", grouped(10u64.pow(power - 9))),
    }
}

/// The distance between labels of the time axis.
fn time_step(end: u64) -> u64 {
    const SECOND: u64 = 1_000_000_000;
    let least = end.div_ceil(TIME_LABELS_MAX).max(1);
    let minutes = [15, 30, 60, 120, 300, 600, 1_200, 1_800, 3_600];
    match minutes.into_iter().find(|seconds| seconds * SECOND >= least) {
        Some(seconds) if least > 10 * SECOND => seconds * SECOND,
        _ => round_up(least.max(LABEL_NANOS_MIN)),
    }
}

fn time_label(nanos: u64, step: u64) -> String {
    let (seconds, millis) = (nanos / 1_000_000_000, nanos / 1_000_000);
    match step {
        ..1_000_000_000 => {
            format!("{seconds}.{:03}", millis % 1_000)
                .trim_end_matches('0')
                .trim_end_matches('.')
                .to_owned()
                + " s"
        }
        1_000_000_000..11_000_000_000 => format!("{seconds} s"),
        _ => format!("{}:{:02}", seconds / 60, seconds % 60),
    }
}

pub(super) fn push(to: &mut String, words: std::fmt::Arguments<'_>) {
    to.write_fmt(words).expect("writing to a string cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn scales_enclose_what_is_drawn() {
        for (highest, step, top) in
            [(0.0, 0.1, 0.1), (1.0, 0.5, 1.0), (7.0, 2.0, 8.0), (4_321.0, 2_000.0, 6_000.0)]
        {
            let (found_step, found_top) = rate_scale(highest);
            assert!((found_step - step).abs() < 1e-9, "{highest}: {found_step}");
            assert!((found_top - top).abs() < 1e-9, "{highest}: {found_top}");
        }
        assert_eq!(decades(1_000, 1_000), (3, 4));
        assert_eq!(decades(999, 1_001), (2, 4));
        assert_eq!(decades(0, 0), (0, 1));
        assert_eq!(decades(u64::MAX, u64::MAX), (18, 19));
        let labels = [(0, "1 ns"), (4, "10 \u{b5}s"), (8, "100 ms"), (9, "1 s"), (13, "10,000 s")];
        for (power, label) in labels {
            assert_eq!(power_label(power), label);
        }
    }

    #[test]
    fn times_have_few_round_labels() {
        let cases = [
            (SECOND, SECOND / 10, "0.1 s"),
            (10 * SECOND, SECOND, "1 s"),
            (60 * SECOND, 10 * SECOND, "10 s"),
            (120 * SECOND, 15 * SECOND, "0:15"),
            (3_600 * SECOND, 600 * SECOND, "10:00"),
        ];
        for (end, step, label) in cases {
            assert_eq!(time_step(end), step, "{end}");
            assert_eq!(time_label(step, step), label);
        }
        assert!(time_step(u64::MAX) > u64::MAX / 20);
    }

    #[test]
    fn paths_follow_the_slices() {
        assert_eq!(area(&[0.0, 0.0], &[50.0, 25.0]), "M0 50.00H1L1 75.00H2V100.00H1V100.00H0Z");
        let heights = [Some(10.0), None, Some(20.0), Some(30.0)];
        assert_eq!(line(&heights), "M0.4 90.00L0.6 90.00M2.4 80.00L2.6 80.00L3.6 70.00");
    }
}
