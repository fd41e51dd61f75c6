//! Which lane and which row of it each operation gets.

use std::collections::BTreeMap;

use super::axis::Axis;
use crate::history::{Deed, Ending, Record};

/// Of a monospaced character at the size of an operation's text.
const CHARACTER_WIDTH: f64 = 7.6;
/// Longer texts are cut; all of it is shown when the pointer rests on it.
const TEXT_MAX: usize = 56;
/// Between the end of one operation and the next in a row.
const SPACE: f64 = 14.0;

pub(super) struct Bar<'a> {
    pub(super) record: &'a Record,
    pub(super) blamed: bool,
    pub(super) text: String,
    pub(super) from: f64,
    pub(super) to: f64,
    /// Its row within its lane.
    pub(super) row: usize,
}

pub(super) struct Lane<'a> {
    pub(super) client: u64,
    pub(super) bars: Vec<Bar<'a>>,
    pub(super) rows: usize,
}

/// Lanes in the order of their clients' first operations.
pub(super) fn lanes<'a>(operations: &'a [Record], blamed: &[usize], axis: &Axis) -> Vec<Lane<'a>> {
    let mut lanes: Vec<Lane<'a>> = Vec::new();
    let mut of_client: BTreeMap<u64, usize> = BTreeMap::new();
    for (place, record) in operations.iter().enumerate() {
        let lane = *of_client.entry(record.client).or_insert_with(|| {
            lanes.push(Lane { client: record.client, bars: Vec::new(), rows: 0 });
            lanes.len() - 1
        });
        lanes[lane].add(bar(record, blamed.contains(&place), axis));
    }
    lanes
}

fn bar<'a>(record: &'a Record, blamed: bool, axis: &Axis) -> Bar<'a> {
    let from = axis.at(record.call);
    let to = match record.ending {
        Ending::Unknown => f64::INFINITY,
        Ending::Done | Ending::NotDone | Ending::PreconditionFailed(_) => axis.at(record.ret),
    };
    Bar { record, blamed, text: shortened(&Deed(record).to_string()), from, to, row: 0 }
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= TEXT_MAX {
        return text.to_owned();
    }
    text.chars().take(TEXT_MAX - 1).chain(['…']).collect()
}

impl<'a> Lane<'a> {
    /// Puts it into the first row that has room for it and its text.
    fn add(&mut self, mut bar: Bar<'a>) {
        let end_of_row = |row: usize| {
            let ends = self.bars.iter().filter(|bar| bar.row == row).map(Bar::end);
            ends.fold(f64::NEG_INFINITY, f64::max)
        };
        bar.row = (0..self.rows).find(|row| end_of_row(*row) <= bar.from).unwrap_or(self.rows);
        self.rows = self.rows.max(bar.row + 1);
        self.bars.push(bar);
    }
}

impl Bar<'_> {
    /// The right end of its text.
    pub(super) fn text_end(&self) -> f64 {
        let characters = u32::try_from(self.text.chars().count()).unwrap_or(u32::MAX);
        self.from + f64::from(characters) * CHARACTER_WIDTH
    }

    fn end(&self) -> f64 {
        self.to.max(self.text_end()) + SPACE
    }
}
