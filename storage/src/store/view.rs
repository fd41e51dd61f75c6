//! All that a reader needs, as it is at one moment.

use std::sync::Arc;

use bytes::Bytes;

use crate::cursor::{Direction, Source};
use crate::error::Result;
use crate::key::{Kind, Sequence};
use crate::levels::{LEVELS, Levels};
use crate::memtable::Memtable;
use crate::scan::{KeyRange, Scan};
use crate::segment::Check;

/// The memtables and the tree. The active memtable goes on to grow; all else never changes.
pub(crate) struct View {
    /// How often all of it was replaced since the store was opened.
    pub(crate) installs: u64,
    pub(super) active: Arc<Memtable>,
    /// Frozen memtables, newest first.
    pub(super) frozen: Vec<Arc<Memtable>>,
    pub(super) levels: Arc<Levels>,
}

impl View {
    /// The key's value for a reader at `sequence`. What is above is newer: the first find counts.
    pub(crate) fn get(&self, key: &[u8], sequence: Sequence) -> Result<Option<Bytes>> {
        for memtable in std::iter::once(&self.active).chain(&self.frozen) {
            if let Some((tag, value)) = memtable.get(key, sequence) {
                return Ok((tag.kind() == Kind::Put).then_some(value));
            }
        }
        let found = self.levels.get(key, sequence)?;
        Ok(found.and_then(|(tag, value)| (tag.kind() == Kind::Put).then_some(value)))
    }

    pub(crate) fn scan(
        &self,
        range: KeyRange,
        direction: Direction,
        sequence: Sequence,
    ) -> Result<Scan> {
        let memtables = std::iter::once(&self.active).chain(&self.frozen);
        let mut sources: Vec<Source> = memtables.map(Source::memtable).collect();
        let flushed = self.levels.level(0).iter();
        sources.extend(flushed.map(|segment| Source::segment(segment, Check::Once)));
        for level in 1..LEVELS {
            if !self.levels.level(level).is_empty() {
                sources.push(Source::level(self.levels.level(level).to_vec(), Check::Once));
            }
        }
        Scan::new(sources, range, direction, sequence)
    }

    /// The same with the active memtable frozen, and a new one.
    pub(super) fn frozen(&self) -> View {
        let mut frozen = vec![Arc::clone(&self.active)];
        frozen.extend(self.frozen.iter().cloned());
        View {
            installs: self.installs,
            active: Arc::new(Memtable::new()),
            frozen,
            levels: Arc::clone(&self.levels),
        }
    }

    /// The same with a new active memtable in the place of one in which nothing is.
    pub(super) fn with_new_active(&self) -> View {
        View {
            installs: self.installs,
            active: Arc::new(Memtable::new()),
            frozen: self.frozen.clone(),
            levels: Arc::clone(&self.levels),
        }
    }

    /// The same without the oldest frozen memtable, if it was flushed, and with another tree.
    pub(super) fn flushed(&self, flushed: Option<&Arc<Memtable>>, levels: Levels) -> View {
        let is_left = |memtable: &&Arc<Memtable>| {
            flushed.is_none_or(|flushed| !Arc::ptr_eq(flushed, memtable))
        };
        View {
            installs: self.installs,
            active: Arc::clone(&self.active),
            frozen: self.frozen.iter().filter(is_left).cloned().collect(),
            levels: Arc::new(levels),
        }
    }
}
