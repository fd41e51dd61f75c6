//! One sorted source of entries: a memtable, a segment, or a level of segments.

use std::sync::Arc;

use bytes::Bytes;

use crate::cursor::Direction;
use crate::error::Result;
use crate::key::Tag;
use crate::levels::Level;
use crate::memtable::{Memtable, MemtableCursor};
use crate::segment::{Check, Segment, SegmentCursor};

/// Walks one source.
pub(crate) enum Source {
    Memtable(MemtableCursor),
    Segment(SegmentCursor, Arc<Segment>),
    Level(LevelCursor),
}

impl Source {
    pub(crate) fn memtable(memtable: &Arc<Memtable>) -> Source {
        Source::Memtable(MemtableCursor::new(Arc::clone(memtable)))
    }

    pub(crate) fn segment(segment: &Arc<Segment>, check: Check) -> Source {
        Source::Segment(SegmentCursor::new(Arc::clone(segment), check), Arc::clone(segment))
    }

    /// Segments in order, whose ranges do not overlap.
    pub(crate) fn level(level: &Arc<Level>, check: Check) -> Source {
        Source::Level(LevelCursor { level: Arc::clone(level), check, current: None })
    }

    /// The smallest and the largest key, where that is known.
    pub(crate) fn extent(&self) -> Option<(&[u8], &[u8])> {
        let (first, last) = match self {
            Source::Memtable(_) => return None,
            Source::Segment(_, segment) => (segment, segment),
            Source::Level(cursor) => {
                let segments = cursor.level.segments();
                (segments.first()?, segments.last()?)
            }
        };
        Some((&first.meta().smallest, &last.meta().largest))
    }

    /// Forwards, to the first entry at or after `to`, or the very first; backwards, to the last
    /// entry before it, or the very last.
    pub(crate) fn seek(&mut self, to: Option<(&[u8], Tag)>, direction: Direction) -> Result<()> {
        match (self, direction) {
            (Source::Memtable(cursor), Direction::Forwards) => cursor.seek(to),
            (Source::Memtable(cursor), Direction::Backwards) => cursor.seek_before(to),
            (Source::Segment(cursor, _), Direction::Forwards) => cursor.seek(to)?,
            (Source::Segment(cursor, _), Direction::Backwards) => cursor.seek_before(to)?,
            (Source::Level(cursor), direction) => cursor.seek(to, direction)?,
        }
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn step(&mut self, direction: Direction) -> Result<()> {
        match (self, direction) {
            (Source::Memtable(cursor), Direction::Forwards) => cursor.next(),
            (Source::Memtable(cursor), Direction::Backwards) => cursor.previous(),
            (Source::Segment(cursor, _), Direction::Forwards) => cursor.next()?,
            (Source::Segment(cursor, _), Direction::Backwards) => cursor.previous()?,
            (Source::Level(cursor), direction) => cursor.step(direction)?,
        }
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn is_valid(&self) -> bool {
        match self {
            Source::Memtable(cursor) => cursor.is_valid(),
            Source::Segment(cursor, _) => cursor.is_valid(),
            Source::Level(cursor) => cursor.current.is_some(),
        }
    }

    #[inline(always)]
    pub(crate) fn key(&self) -> &[u8] {
        match self {
            Source::Memtable(cursor) => cursor.key(),
            Source::Segment(cursor, _) => cursor.key(),
            Source::Level(cursor) => cursor.current.as_ref().map_or(&[], |(_, c)| c.key()),
        }
    }

    #[inline(always)]
    pub(crate) fn tag(&self) -> Tag {
        match self {
            Source::Memtable(cursor) => cursor.tag(),
            Source::Segment(cursor, _) => cursor.tag(),
            Source::Level(cursor) => cursor.current.as_ref().map_or(Tag::OLDEST, |(_, c)| c.tag()),
        }
    }

    pub(crate) fn value(&self) -> Bytes {
        match self {
            Source::Memtable(cursor) => cursor.value(),
            Source::Segment(cursor, _) => cursor.value(),
            Source::Level(cursor) => {
                cursor.current.as_ref().map_or_else(Bytes::new, |(_, c)| c.value())
            }
        }
    }

    /// The same, for who needs it only until the next step.
    #[inline(always)]
    pub(crate) fn value_ref(&self) -> &[u8] {
        match self {
            Source::Memtable(cursor) => cursor.value_ref(),
            Source::Segment(cursor, _) => cursor.value_ref(),
            Source::Level(cursor) => cursor.current.as_ref().map_or(&[], |(_, c)| c.value_ref()),
        }
    }
}

/// Walks the segments of one sorted level, one after the other. Of these it has one open.
pub(crate) struct LevelCursor {
    level: Arc<Level>,
    check: Check,
    /// The segment it is in; `None` before the first seek and after an error or either end.
    current: Option<(usize, SegmentCursor)>,
}

impl LevelCursor {
    fn seek(&mut self, to: Option<(&[u8], Tag)>, direction: Direction) -> Result<()> {
        let segments = self.level.segments();
        let first = match (to, direction) {
            // The segment that holds `to`, or follows it.
            (Some((key, _)), Direction::Forwards) => Some(self.level.count_before(key)),
            // The segment that holds `to`, or comes before it.
            (Some((key, _)), Direction::Backwards) => {
                let next = self.level.count_before(key);
                let begins = segments.get(next).is_some_and(|it| it.meta().smallest <= key);
                if begins { Some(next) } else { next.checked_sub(1) }
            }
            (None, Direction::Forwards) => Some(0),
            (None, Direction::Backwards) => segments.len().checked_sub(1),
        };
        self.enter(first, to, direction)?;
        self.leave_segment(direction)
    }

    #[inline(always)]
    fn step(&mut self, direction: Direction) -> Result<()> {
        let Some((_, cursor)) = &mut self.current else { return Ok(()) };
        let stepped = match direction {
            Direction::Forwards => cursor.next(),
            Direction::Backwards => cursor.previous(),
        };
        if stepped.is_ok() && cursor.is_valid() {
            return Ok(());
        }
        stepped.inspect_err(|_| self.current = None)?;
        self.leave_segment(direction)
    }

    /// Into a segment, if there is one of that number.
    fn enter(
        &mut self,
        number: Option<usize>,
        to: Option<(&[u8], Tag)>,
        direction: Direction,
    ) -> Result<()> {
        let last = self.current.take();
        let segment = number.and_then(|number| Some((number, self.level.segments().get(number)?)));
        let Some((number, segment)) = segment else { return Ok(()) };
        let mut cursor = match last {
            // Seeking in it again costs less than opening it again.
            Some((last, cursor)) if last == number => cursor,
            _ => SegmentCursor::new(Arc::clone(segment), self.check),
        };
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
