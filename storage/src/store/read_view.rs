//! One moment, held for many reads.

use std::sync::Arc;

use bytes::Bytes;

use super::View;
use crate::cursor::Direction;
use crate::error::Result;
use crate::key::Sequence;
use crate::range::KeyRange;
use crate::scan::{Cursor, Scan};

/// What the store was when it was taken, for reads that belong together or follow each other
/// closely.
///
/// Unlike a [`Snapshot`](crate::Snapshot) it is nothing that the store knows of: taking one costs
/// a count, and reading from it none. In return it holds what it reads from, memory and the files
/// of removed segments included, as a [`Scan`] does: good for as long as a request takes.
#[derive(Clone)]
pub struct ReadView {
    view: Arc<View>,
    sequence: Sequence,
}

impl ReadView {
    /// The view must have been taken before the sequence.
    pub(super) fn new(view: Arc<View>, sequence: Sequence) -> ReadView {
        ReadView { view, sequence }
    }

    /// The key's value at that moment.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.view.get(key, self.sequence)
    }

    /// What `found` makes of the key's value, as in [`Store::get_with`](crate::Store::get_with).
    pub fn get_with<T>(&self, key: &[u8], found: impl FnOnce(&[u8]) -> T) -> Result<Option<T>> {
        self.view.get_with(key, self.sequence, found)
    }

    /// The keys of a range and their values at that moment.
    pub fn scan(&self, range: impl Into<KeyRange>, direction: Direction) -> Result<Scan> {
        Scan::new(self.cursor(range), direction)
    }

    /// Walks a range both ways, as it was at that moment.
    #[must_use]
    pub fn cursor(&self, range: impl Into<KeyRange>) -> Cursor {
        self.view.cursor(range.into(), self.sequence)
    }
}
