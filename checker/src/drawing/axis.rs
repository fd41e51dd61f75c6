//! Where each moment is on the page.
//!
//! A part of a long history is often a few operations of microseconds that lie minutes apart: to
//! scale, they would be dots. So each stretch between two moments has a least width, by which order
//! can be seen, and a greatest one; a stretch that is cut short is marked.

/// A stretch between two moments is at least this wide: else they cannot be told apart.
const STRETCH_WIDTH_MIN: f64 = 34.0;
/// And at most this many times as wide as it would be if all were as long as the middle one.
const STRETCH_WIDTH_MAX: f64 = 190.0;
/// What a stretch of middling length gets.
const STRETCH_WIDTH_USUAL: f64 = 64.0;
/// Where operations are few, stretches are made wider up to this width of the whole.
const WIDTH_WANTED: f64 = 860.0;

pub(super) struct Axis {
    /// Moments, and where they are.
    places: Vec<(u64, f64)>,
    /// The middles of stretches that are longer than they look.
    pub(super) cuts: Vec<f64>,
}

impl Axis {
    /// For moments in order, each once.
    pub(super) fn new(moments: &[u64]) -> Self {
        let gaps: Vec<u64> = moments.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mut sorted = gaps.clone();
        sorted.sort_unstable();
        let middle = sorted.get(sorted.len() / 2).map_or(1.0, |gap| to_f64(*gap));
        let widths: Vec<f64> = gaps
            .iter()
            .map(|gap| {
                let width = to_f64(*gap) / middle * STRETCH_WIDTH_USUAL;
                width.clamp(STRETCH_WIDTH_MIN, STRETCH_WIDTH_MAX)
            })
            .collect();
        let whole: f64 = widths.iter().sum();
        let wider = (WIDTH_WANTED / whole.max(1.0)).clamp(1.0, 3.0);
        let mut axis = Self { places: Vec::new(), cuts: Vec::new() };
        let mut x = 0.0;
        axis.places.extend(moments.first().map(|first| (*first, x)));
        for ((moment, width), gap) in moments.iter().skip(1).zip(&widths).zip(&gaps) {
            if to_f64(*gap) / middle * STRETCH_WIDTH_USUAL > 1.5 * STRETCH_WIDTH_MAX {
                axis.cuts.push(x + width * wider / 2.0);
            }
            x += width * wider;
            axis.places.push((*moment, x));
        }
        axis
    }

    /// Where a moment is that the axis was made for.
    pub(super) fn at(&self, moment: u64) -> f64 {
        match self.places.binary_search_by_key(&moment, |(moment, _)| *moment) {
            Ok(place) => self.places[place].1,
            Err(_) => 0.0,
        }
    }

    pub(super) fn width(&self) -> f64 {
        self.places.last().map_or(0.0, |(_, x)| *x)
    }

    /// Moments far enough apart for texts of this width under them.
    pub(super) fn ticks(&self, text_width: f64) -> Vec<(u64, f64)> {
        let mut ticks: Vec<(u64, f64)> = Vec::new();
        for (moment, x) in &self.places {
            if ticks.last().is_none_or(|(_, last)| x - last >= text_width) {
                ticks.push((*moment, *x));
            }
        }
        ticks
    }
}

#[expect(clippy::cast_precision_loss, reason = "a place on a page")]
fn to_f64(number: u64) -> f64 {
    number as f64
}
