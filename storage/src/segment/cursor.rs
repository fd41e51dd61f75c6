//! Walks a segment, block by block.

use std::sync::Arc;

use bytes::Bytes;

use super::entries::EntryCursor;
use super::reader::{Check, Segment};
use crate::codec::Malformed;
use crate::error::{Error, Result};
use crate::key::Tag;

/// Walks a segment, which it keeps alive. After an error it is at no entry.
pub(crate) struct SegmentCursor {
    segment: Arc<Segment>,
    check: Check,
    /// The block it is in; `None` before the first seek and after an error or either end.
    block: Option<(usize, EntryCursor)>,
    /// Memory for the keys of the next block.
    key: Vec<u8>,
}

impl SegmentCursor {
    pub(crate) fn new(segment: Arc<Segment>, check: Check) -> SegmentCursor {
        SegmentCursor { segment, check, block: None, key: Vec::new() }
    }

    /// To the first entry at or after `to`, or the very first.
    pub(crate) fn seek(&mut self, to: Option<(&[u8], Tag)>) -> Result<()> {
        self.leave();
        let number = match to {
            Some((key, tag)) => self.segment.block_of(key, tag)?,
            None => 0,
        };
        self.enter(number, |cursor| cursor.seek(to))?;
        self.leave_block_forwards()
    }

    /// To the last entry before `to`, or the very last.
    pub(crate) fn seek_before(&mut self, to: Option<(&[u8], Tag)>) -> Result<()> {
        self.leave();
        let number = match to {
            Some((key, tag)) => self.segment.block_of(key, tag)?,
            None => self.segment.blocks()? - 1,
        };
        self.enter(number, |cursor| cursor.seek_before(to))?;
        self.leave_block_backwards()
    }

    #[inline(always)]
    pub(crate) fn next(&mut self) -> Result<()> {
        let Some((_, cursor)) = &mut self.block else { return Ok(()) };
        match cursor.next() {
            Ok(()) if cursor.is_valid() => Ok(()),
            Ok(()) => self.leave_block_forwards(),
            Err(malformed) => Err(self.lied(malformed)),
        }
    }

    #[inline(always)]
    pub(crate) fn previous(&mut self) -> Result<()> {
        let Some((_, cursor)) = &mut self.block else { return Ok(()) };
        match cursor.previous() {
            Ok(()) if cursor.is_valid() => Ok(()),
            Ok(()) => self.leave_block_backwards(),
            Err(malformed) => Err(self.lied(malformed)),
        }
    }

    #[inline(always)]
    pub(crate) fn is_valid(&self) -> bool {
        self.block.is_some()
    }

    #[inline(always)]
    pub(crate) fn key(&self) -> &[u8] {
        self.block.as_ref().map_or(&[], |(_, cursor)| cursor.key())
    }

    #[inline(always)]
    pub(crate) fn tag(&self) -> Tag {
        self.block.as_ref().map_or(Tag::OLDEST, |(_, cursor)| cursor.tag())
    }

    pub(crate) fn value(&self) -> Bytes {
        self.block.as_ref().map_or_else(Bytes::new, |(_, cursor)| cursor.value())
    }

    /// The same, for who needs it only until the next step.
    #[inline(always)]
    pub(crate) fn value_ref(&self) -> &[u8] {
        self.block.as_ref().map_or(&[], |(_, cursor)| cursor.value_ref())
    }

    /// After an error: the block it is in makes no sense.
    #[cold]
    fn lied(&mut self, malformed: Malformed) -> Error {
        let number = self.block.as_ref().map_or(0, |(number, _)| *number);
        self.leave();
        self.segment.lied(number, malformed)
    }

    fn leave(&mut self) {
        if let Some((_, cursor)) = self.block.take() {
            self.key = cursor.into_key();
        }
    }

    /// Into a block, if there is one of that number.
    fn enter(
        &mut self,
        number: usize,
        seek: impl FnOnce(&mut EntryCursor) -> std::result::Result<(), Malformed>,
    ) -> Result<()> {
        self.leave();
        if number < self.segment.blocks()? {
            let key = std::mem::take(&mut self.key);
            let cursor = self.segment.data_block(number, self.check, key)?;
            let (_, cursor) = self.block.insert((number, cursor));
            seek(cursor).map_err(|malformed| self.lied(malformed))?;
        }
        Ok(())
    }

    /// If past the end of the block, on to the next one.
    #[inline(never)]
    fn leave_block_forwards(&mut self) -> Result<()> {
        while let Some((number, cursor)) = &self.block
            && !cursor.is_valid()
        {
            self.enter(number + 1, |cursor| cursor.seek(None))?;
        }
        Ok(())
    }

    /// If past the beginning of the block, back to the one before.
    #[inline(never)]
    fn leave_block_backwards(&mut self) -> Result<()> {
        while let Some((number, cursor)) = &self.block
            && !cursor.is_valid()
        {
            match number.checked_sub(1) {
                Some(number) => self.enter(number, |cursor| cursor.seek_before(None))?,
                None => self.leave(),
            }
        }
        Ok(())
    }
}
