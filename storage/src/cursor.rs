//! Walks many sorted sources as if they were one.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::Result;
use crate::key::{Tag, compare};
use crate::memtable::{Memtable, MemtableCursor};
use crate::segment::{Check, Segment, SegmentCursor};

/// Which way a walk goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// From the smallest key up.
    #[default]
    Forwards,
    /// From the largest key down.
    Backwards,
}

/// One sorted source of entries.
pub(crate) enum Source {
    Memtable(MemtableCursor),
    Segment(SegmentCursor),
    Level(LevelCursor),
}

impl Source {
    pub(crate) fn memtable(memtable: &Arc<Memtable>) -> Source {
        Source::Memtable(MemtableCursor::new(Arc::clone(memtable)))
    }

    pub(crate) fn segment(segment: &Arc<Segment>, check: Check) -> Source {
        Source::Segment(SegmentCursor::new(Arc::clone(segment), check))
    }

    /// Segments in order, whose ranges do not overlap.
    pub(crate) fn level(segments: Vec<Arc<Segment>>, check: Check) -> Source {
        Source::Level(LevelCursor { segments, check, current: None })
    }

    fn seek(&mut self, to: Option<(&[u8], Tag)>, direction: Direction) -> Result<()> {
        match (self, direction) {
            (Source::Memtable(cursor), Direction::Forwards) => cursor.seek(to),
            (Source::Memtable(cursor), Direction::Backwards) => cursor.seek_before(to),
            (Source::Segment(cursor), Direction::Forwards) => cursor.seek(to)?,
            (Source::Segment(cursor), Direction::Backwards) => cursor.seek_before(to)?,
            (Source::Level(cursor), direction) => cursor.seek(to, direction)?,
        }
        Ok(())
    }

    fn step(&mut self, direction: Direction) -> Result<()> {
        match (self, direction) {
            (Source::Memtable(cursor), Direction::Forwards) => cursor.next(),
            (Source::Memtable(cursor), Direction::Backwards) => cursor.previous(),
            (Source::Segment(cursor), Direction::Forwards) => cursor.next()?,
            (Source::Segment(cursor), Direction::Backwards) => cursor.previous()?,
            (Source::Level(cursor), direction) => cursor.step(direction)?,
        }
        Ok(())
    }

    fn is_valid(&self) -> bool {
        match self {
            Source::Memtable(cursor) => cursor.is_valid(),
            Source::Segment(cursor) => cursor.is_valid(),
            Source::Level(cursor) => cursor.current.is_some(),
        }
    }

    fn key(&self) -> &[u8] {
        match self {
            Source::Memtable(cursor) => cursor.key(),
            Source::Segment(cursor) => cursor.key(),
            Source::Level(cursor) => cursor.current.as_ref().map_or(&[], |(_, c)| c.key()),
        }
    }

    fn tag(&self) -> Tag {
        match self {
            Source::Memtable(cursor) => cursor.tag(),
            Source::Segment(cursor) => cursor.tag(),
            Source::Level(cursor) => cursor.current.as_ref().map_or(Tag::OLDEST, |(_, c)| c.tag()),
        }
    }

    fn value(&self) -> Bytes {
        match self {
            Source::Memtable(cursor) => cursor.value(),
            Source::Segment(cursor) => cursor.value(),
            Source::Level(cursor) => {
                cursor.current.as_ref().map_or_else(Bytes::new, |(_, c)| c.value())
            }
        }
    }
}

/// Walks the segments of one sorted level, one after the other.
pub(crate) struct LevelCursor {
    segments: Vec<Arc<Segment>>,
    check: Check,
    current: Option<(usize, SegmentCursor)>,
}

impl LevelCursor {
    fn seek(&mut self, to: Option<(&[u8], Tag)>, direction: Direction) -> Result<()> {
        let count = self.segments.len();
        let first = match (to, direction) {
            // The segment that holds `to`, or follows it.
            (Some((key, _)), Direction::Forwards) => {
                Some(self.segments.partition_point(|segment| segment.meta().largest < key))
            }
            // The segment that holds `to`, or comes before it.
            (Some((key, _)), Direction::Backwards) => self
                .segments
                .partition_point(|segment| segment.meta().smallest <= key)
                .checked_sub(1),
            (None, Direction::Forwards) => Some(0),
            (None, Direction::Backwards) => count.checked_sub(1),
        };
        self.enter(first, to, direction)?;
        self.leave_segment(direction)
    }

    fn step(&mut self, direction: Direction) -> Result<()> {
        if let Some((_, cursor)) = &mut self.current {
            match direction {
                Direction::Forwards => cursor.next()?,
                Direction::Backwards => cursor.previous()?,
            }
        }
        self.leave_segment(direction)
    }

    fn enter(
        &mut self,
        number: Option<usize>,
        to: Option<(&[u8], Tag)>,
        direction: Direction,
    ) -> Result<()> {
        self.current = None;
        let segment = number.and_then(|number| Some((number, self.segments.get(number)?)));
        let Some((number, segment)) = segment else { return Ok(()) };
        let mut cursor = SegmentCursor::new(Arc::clone(segment), self.check);
        match direction {
            Direction::Forwards => cursor.seek(to)?,
            Direction::Backwards => cursor.seek_before(to)?,
        }
        self.current = Some((number, cursor));
        Ok(())
    }

    /// If past the end of the segment, on to the neighbour.
    fn leave_segment(&mut self, direction: Direction) -> Result<()> {
        while let Some((number, cursor)) = &self.current
            && !cursor.is_valid()
        {
            let number = match direction {
                Direction::Forwards => Some(number + 1),
                Direction::Backwards => number.checked_sub(1),
            };
            self.enter(number, None, direction)?;
        }
        Ok(())
    }
}

/// All entries of several sources in order, or in reverse.
pub(crate) struct Merge {
    sources: BinaryHeap<Ordered>,
    direction: Direction,
}

impl Merge {
    /// Starts at the first entry at or after `to`, or backwards at the last one before it.
    pub(crate) fn new(
        sources: Vec<Source>,
        to: Option<(&[u8], Tag)>,
        direction: Direction,
    ) -> Result<Merge> {
        let mut heap = Vec::with_capacity(sources.len());
        for mut source in sources {
            source.seek(to, direction)?;
            if source.is_valid() {
                heap.push(Ordered { source, direction });
            }
        }
        Ok(Merge { sources: heap.into(), direction })
    }

    /// The key and tag of the current entry.
    pub(crate) fn current(&self) -> Option<(&[u8], Tag)> {
        self.sources.peek().map(|top| (top.source.key(), top.source.tag()))
    }

    /// The value of the current entry.
    pub(crate) fn value(&self) -> Bytes {
        self.sources.peek().map_or_else(Bytes::new, |top| top.source.value())
    }

    /// Lets go of all sources: there is nothing more to come.
    pub(crate) fn end(&mut self) {
        self.sources.clear();
    }

    pub(crate) fn step(&mut self) -> Result<()> {
        let Some(mut top) = self.sources.peek_mut() else { return Ok(()) };
        let stepped = top.source.step(self.direction);
        if stepped.is_err() || !top.source.is_valid() {
            PeekMut::pop(top);
        }
        stepped
    }
}

/// A source that is at an entry, ordered so that a heap's greatest is the next in the walk.
struct Ordered {
    source: Source,
    direction: Direction,
}

impl Ord for Ordered {
    fn cmp(&self, other: &Ordered) -> Ordering {
        let ours = (self.source.key(), self.source.tag());
        let order = compare(ours, (other.source.key(), other.source.tag()));
        match self.direction {
            Direction::Forwards => order.reverse(),
            Direction::Backwards => order,
        }
    }
}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Ordered) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ordered {
    fn eq(&self, other: &Ordered) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Ordered {}
