//! The picture of the operations.

use std::collections::BTreeSet;
use std::fmt::{self, Write};

use super::Escaped;
use super::axis::Axis;
use super::lanes::{Bar, Lane, lanes};
use crate::history::Ending;
use crate::times::{Times, absolute, duration, moments};
use crate::verdict::Violation;

const ROW_HEIGHT: f64 = 44.0;
const BAR_HEIGHT: f64 = 14.0;
/// From the top of a row to its bar: room for the text.
const TEXT_HEIGHT: f64 = 22.0;
const LANE_GAP: f64 = 4.0;
const LEFT: f64 = 92.0;
const RIGHT: f64 = 24.0;
/// How far an operation of unknown outcome goes on behind the last moment.
const OPEN_WIDTH: f64 = 70.0;
const TOP: f64 = 4.0;
const AXIS_HEIGHT: f64 = 34.0;
const TICK_CHARACTER_WIDTH: f64 = 7.2;
/// Of the names of clients.
const NAME_MAX: usize = 10;

pub(super) fn write(out: &mut String, violation: &Violation) -> fmt::Result {
    let operations = &violation.operations;
    let moments: BTreeSet<u64> = operations.iter().flat_map(moments).collect();
    let moments: Vec<u64> = moments.into_iter().collect();
    let axis = Axis::new(&moments);
    let lanes = lanes(operations, &violation.blamed, &axis);
    let picture = Picture::new(&axis, &lanes, Times::of(operations));
    picture.write(out, &lanes, &violation.words)?;
    write_legend(out, violation, &axis, picture.times.origin)
}

struct Picture<'a> {
    axis: &'a Axis,
    times: Times,
    width: f64,
    height: f64,
}

impl<'a> Picture<'a> {
    fn new(axis: &'a Axis, lanes: &[Lane<'_>], times: Times) -> Self {
        let bars = || lanes.iter().flat_map(|lane| &lane.bars);
        let open = bars().any(|bar| bar.to.is_infinite());
        let ends = axis.width() + if open { OPEN_WIDTH } else { 0.0 };
        let width = LEFT + bars().map(Bar::text_end).fold(ends, f64::max) + RIGHT;
        let rows: usize = lanes.iter().map(|lane| lane.rows).sum();
        let height = TOP + height_of(rows) + LANE_GAP * to_f64(lanes.len()) + AXIS_HEIGHT;
        Self { axis, times, width, height }
    }

    fn write(&self, out: &mut String, lanes: &[Lane<'_>], words: &str) -> fmt::Result {
        let Self { width, height, .. } = self;
        writeln!(
            out,
            "<div class=\"scroll\"><svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" \
             height=\"{height:.0}\" viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" \
             aria-label=\"{}\">",
            Escaped(words)
        )?;
        writeln!(
            out,
            "<defs><pattern id=\"kv-hatch\" width=\"7\" height=\"7\" patternUnits=\"userSpaceOnUse\" \
             patternTransform=\"rotate(45)\"><rect width=\"7\" height=\"7\" \
             style=\"fill:var(--open-fill)\"/><line x1=\"0\" y1=\"0\" x2=\"0\" y2=\"7\" \
             style=\"stroke:var(--open);stroke-width:3;opacity:.55\"/></pattern></defs>"
        )?;
        self.write_lanes(out, lanes)?;
        self.write_axis(out)?;
        let mut y = TOP;
        for lane in lanes {
            for bar in &lane.bars {
                self.write_bar(out, bar, y + height_of(bar.row))?;
            }
            y += height_of(lane.rows) + LANE_GAP;
        }
        writeln!(out, "</svg></div>")
    }

    fn write_lanes(&self, out: &mut String, lanes: &[Lane<'_>]) -> fmt::Result {
        let mut y = TOP;
        for lane in lanes {
            let height = height_of(lane.rows);
            let name = format!("client {}", lane.client);
            let name = if name.len() > NAME_MAX { name.replace("client ", "c") } else { name };
            writeln!(
                out,
                "<rect class=\"lane\" x=\"0\" y=\"{y:.0}\" width=\"{:.0}\" height=\"{height:.0}\" \
                 rx=\"4\"/><text class=\"who\" x=\"10\" y=\"{:.0}\">{}</text>",
                self.width,
                y + height / 2.0 + 4.5,
                Escaped(&name)
            )?;
            y += height + LANE_GAP;
        }
        Ok(())
    }

    fn write_axis(&self, out: &mut String) -> fmt::Result {
        let bottom = self.height - AXIS_HEIGHT;
        let longest = self.axis.ticks(0.0).iter().map(|(at, _)| self.times.at(*at).len()).max();
        let text_width = (to_f64(longest.unwrap_or(0)) + 2.0) * TICK_CHARACTER_WIDTH;
        for (moment, x) in self.axis.ticks(text_width) {
            let x = LEFT + x;
            writeln!(
                out,
                "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{:.1}\"/>\
                 <text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                bottom + 6.0,
                bottom + 20.0,
                Escaped(&self.times.at(moment))
            )?;
        }
        writeln!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{bottom:.1}\" x2=\"{:.1}\" y2=\"{bottom:.1}\"/>",
            LEFT + self.axis.width()
        )?;
        for cut in &self.axis.cuts {
            let x = LEFT + cut;
            writeln!(
                out,
                "<path class=\"gap\" d=\"M{:.1} {:.1}l5 -10M{:.1} {:.1}l5 -10\"/>",
                x - 5.0,
                bottom + 5.0,
                x,
                bottom + 5.0
            )?;
        }
        Ok(())
    }

    fn write_bar(&self, out: &mut String, bar: &Bar<'_>, y: f64) -> fmt::Result {
        let record = bar.record;
        let unknown = record.ending == Ending::Unknown;
        let class = match (bar.blamed, unknown) {
            (true, true) => "deed bad open",
            (true, false) => "deed bad",
            (false, true) => "deed open",
            (false, false) => "deed",
        };
        let (from, to) = (LEFT + bar.from, LEFT + bar.to.min(self.axis.width() + OPEN_WIDTH));
        let top = y + TEXT_HEIGHT;
        let whole = format!("{record}\n{}", self.times.span(record));
        let took = if unknown { 0 } else { record.ret - record.call };
        writeln!(
            out,
            "<g class=\"{class}\"><title>{} ({})</title>",
            Title(&whole),
            duration(took)
        )?;
        for x in if unknown { vec![from] } else { vec![from, to] } {
            let bottom = self.height - AXIS_HEIGHT;
            writeln!(
                out,
                "<line class=\"guide\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\"/>"
            )?;
        }
        let bottom = top + BAR_HEIGHT;
        if unknown {
            // Open to the right: no line there.
            writeln!(
                out,
                "<path class=\"bar\" style=\"fill:url(#kv-hatch)\" \
                 d=\"M{to:.1} {top:.1}H{from:.1}V{bottom:.1}H{to:.1}\"/>"
            )?;
        } else {
            writeln!(
                out,
                "<rect class=\"bar\" x=\"{from:.1}\" y=\"{top:.1}\" width=\"{:.1}\" \
                 height=\"{BAR_HEIGHT}\" rx=\"2\"/>",
                (to - from).max(3.0)
            )?;
        }
        let text_at = top - 6.0;
        writeln!(out, "<text x=\"{from:.1}\" y=\"{text_at:.1}\">{}</text></g>", Escaped(&bar.text))
    }
}

fn write_legend(out: &mut String, violation: &Violation, axis: &Axis, origin: u64) -> fmt::Result {
    write!(out, "<p class=\"small\">Each bar is an operation, from its call to its return.")?;
    if !violation.blamed.is_empty() {
        write!(out, " Red: it fits nowhere between the others.")?;
    }
    if violation.operations.iter().any(|record| record.ending == Ending::Unknown) {
        write!(out, " Hatched: its outcome was never learned; it may have happened at any time.")?;
    }
    if origin > 0 {
        write!(out, " Time zero is {} of the history.", absolute(origin))?;
    }
    if !axis.cuts.is_empty() {
        write!(out, " Where the axis is cut (//), a long time is drawn short.")?;
    }
    writeln!(out, "</p>")
}

/// A text of several lines.
struct Title<'a>(&'a str);

impl fmt::Display for Title<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, line) in self.0.lines().enumerate() {
            if place > 0 {
                f.write_char('\n')?;
            }
            write!(f, "{}", Escaped(line))?;
        }
        Ok(())
    }
}

fn height_of(rows: usize) -> f64 {
    to_f64(rows) * ROW_HEIGHT
}

fn to_f64(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}
