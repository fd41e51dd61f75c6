//! Walks the entries of a block of either version.

use bytes::Bytes;

use super::{Version, block, version1};
use crate::codec::Malformed;
use crate::key::Tag;

/// Walks the entries of one block. After an error it is at no entry.
pub(super) enum EntryCursor {
    Version1(version1::BlockCursor),
    Version2(block::BlockCursor),
}

use EntryCursor::{Version1, Version2};

impl EntryCursor {
    /// At no entry. The key is for its memory only.
    pub(super) fn new(
        version: Version,
        block: Bytes,
        key: Vec<u8>,
    ) -> Result<EntryCursor, Malformed> {
        Ok(match version {
            Version::One => Version1(version1::BlockCursor::new(version1::Block::parse(block)?)),
            Version::Two => Version2(block::BlockCursor::new(block, key)?),
        })
    }

    /// The memory of its key, for the next cursor.
    pub(super) fn into_key(self) -> Vec<u8> {
        match self {
            Version1(_) => Vec::new(),
            Version2(cursor) => cursor.into_key(),
        }
    }

    #[inline(always)]
    pub(super) fn is_valid(&self) -> bool {
        match self {
            Version1(cursor) => cursor.is_valid(),
            Version2(cursor) => cursor.is_valid(),
        }
    }

    #[inline(always)]
    pub(super) fn key(&self) -> &[u8] {
        match self {
            Version1(cursor) => cursor.key(),
            Version2(cursor) => cursor.key(),
        }
    }

    #[inline(always)]
    pub(super) fn tag(&self) -> Tag {
        match self {
            Version1(cursor) => cursor.tag(),
            Version2(cursor) => cursor.tag(),
        }
    }

    pub(super) fn value(&self) -> Bytes {
        match self {
            Version1(cursor) => cursor.value(),
            Version2(cursor) => cursor.value(),
        }
    }

    #[inline(always)]
    pub(super) fn value_ref(&self) -> &[u8] {
        match self {
            Version1(cursor) => cursor.value_ref(),
            Version2(cursor) => cursor.value_ref(),
        }
    }

    /// Whether a look-up by this hash of its key comes upon the current entry.
    pub(super) fn is_found_by(&self, hash: u64) -> bool {
        match self {
            Version1(_) => true,
            Version2(cursor) => cursor.fingerprint() == Some(block::fingerprint(hash)),
        }
    }

    pub(super) fn seek(&mut self, to: Option<(&[u8], Tag)>) -> Result<(), Malformed> {
        match self {
            Version1(cursor) => cursor.seek(to),
            Version2(cursor) => cursor.seek(to),
        }
    }

    pub(super) fn seek_before(&mut self, to: Option<(&[u8], Tag)>) -> Result<(), Malformed> {
        match self {
            Version1(cursor) => cursor.seek_before(to),
            Version2(cursor) => cursor.seek_before(to),
        }
    }

    #[inline(always)]
    pub(super) fn next(&mut self) -> Result<(), Malformed> {
        match self {
            Version1(cursor) => cursor.next(),
            Version2(cursor) => cursor.next(),
        }
    }

    pub(super) fn previous(&mut self) -> Result<(), Malformed> {
        match self {
            Version1(cursor) => cursor.previous(),
            Version2(cursor) => cursor.previous(),
        }
    }
}
