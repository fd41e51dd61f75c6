//! Walks a segment, block by block.

use std::sync::Arc;

use bytes::Bytes;

use super::block::BlockCursor;
use super::reader::{Check, Segment};
use crate::codec::Malformed;
use crate::error::Result;
use crate::key::Tag;

/// Walks a segment, which it keeps alive. After an error it is at no entry.
pub(crate) struct SegmentCursor {
    segment: Arc<Segment>,
    check: Check,
    /// The block it is in; `None` before the first seek and after an error or either end.
    block: Option<(usize, BlockCursor)>,
}

impl SegmentCursor {
    pub(crate) fn new(segment: Arc<Segment>, check: Check) -> SegmentCursor {
        SegmentCursor { segment, check, block: None }
    }

    /// To the first entry at or after `to`, or the very first.
    pub(crate) fn seek(&mut self, to: Option<(&[u8], Tag)>) -> Result<()> {
        self.block = None;
        let number = match to {
            Some((key, tag)) => self.segment.blocks_before(key, tag)?,
            None => 0,
        };
        self.enter(number, |cursor| cursor.seek(to))?;
        self.leave_block_forwards()
    }

    /// To the last entry before `to`, or the very last.
    pub(crate) fn seek_before(&mut self, to: Option<(&[u8], Tag)>) -> Result<()> {
        self.block = None;
        let blocks = self.segment.blocks()?;
        let number = match to {
            // The block that holds `to`, or follows it; at the end, the last one.
            Some((key, tag)) => self.segment.blocks_before(key, tag)?.min(blocks.saturating_sub(1)),
            None => blocks.saturating_sub(1),
        };
        self.enter(number, |cursor| cursor.seek_before(to))?;
        self.leave_block_backwards()
    }

    pub(crate) fn next(&mut self) -> Result<()> {
        self.step(BlockCursor::next)?;
        self.leave_block_forwards()
    }

    pub(crate) fn previous(&mut self) -> Result<()> {
        self.step(BlockCursor::previous)?;
        self.leave_block_backwards()
    }

    pub(crate) fn is_valid(&self) -> bool {
        self.block.is_some()
    }

    pub(crate) fn key(&self) -> &[u8] {
        self.block.as_ref().map_or(&[], |(_, cursor)| cursor.key())
    }

    pub(crate) fn tag(&self) -> Tag {
        self.block.as_ref().map_or(Tag::OLDEST, |(_, cursor)| cursor.tag())
    }

    pub(crate) fn value(&self) -> Bytes {
        self.block.as_ref().map_or_else(Bytes::new, |(_, cursor)| cursor.value())
    }

    /// The same, for who needs it only until the next step.
    pub(crate) fn value_ref(&self) -> &[u8] {
        self.block.as_ref().map_or(&[], |(_, cursor)| cursor.value_ref())
    }

    fn step(
        &mut self,
        step: impl FnOnce(&mut BlockCursor) -> std::result::Result<(), Malformed>,
    ) -> Result<()> {
        let Some((number, cursor)) = &mut self.block else { return Ok(()) };
        let number = *number;
        step(cursor).map_err(|malformed| {
            self.block = None;
            self.segment.lied(number, malformed)
        })
    }

    /// Into a block, if there is one of that number.
    fn enter(
        &mut self,
        number: usize,
        seek: impl FnOnce(&mut BlockCursor) -> std::result::Result<(), Malformed>,
    ) -> Result<()> {
        self.block = None;
        if number < self.segment.blocks()? {
            self.block = Some((number, self.segment.data_block(number, self.check)?));
        }
        self.step(seek)
    }

    /// If past the end of the block, on to the next one.
    fn leave_block_forwards(&mut self) -> Result<()> {
        while let Some((number, cursor)) = &self.block
            && !cursor.is_valid()
        {
            self.enter(number + 1, |cursor| cursor.seek(None))?;
        }
        Ok(())
    }

    /// If past the beginning of the block, back to the one before.
    fn leave_block_backwards(&mut self) -> Result<()> {
        while let Some((number, cursor)) = &self.block
            && !cursor.is_valid()
        {
            match number.checked_sub(1) {
                Some(number) => self.enter(number, |cursor| cursor.seek_before(None))?,
                None => self.block = None,
            }
        }
        Ok(())
    }
}
