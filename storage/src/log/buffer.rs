//! A byte buffer that begins where a direct write may begin: at an aligned address.

use crate::codec::{VARINT_BYTES_MAX, put_varint};

/// The alignment in memory. No file system asks for more than a page.
const MEMORY_ALIGNMENT: usize = 4096;

/// The least that is allocated, which the frame of some dozen small records fits into.
const CAPACITY_MIN: usize = 8 << 10;

/// Bytes at an aligned address, that can be added to. A `Vec` with a little more room than is
/// asked for, of which the bytes before the first aligned one are left unused.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

impl Buffer {
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }

    pub(super) fn clear(&mut self) {
        self.bytes.truncate(self.start);
    }

    /// Cuts to this many bytes, if it has more.
    pub(super) fn truncate(&mut self, len: usize) {
        self.bytes.truncate(self.start + len);
    }

    /// Cuts to, or fills with zeros up to, this many bytes.
    pub(super) fn resize(&mut self, len: usize) {
        self.reserve(len.saturating_sub(self.len()));
        self.bytes.resize(self.start + len, 0);
    }

    /// Makes room, so that adding as much does not move the bytes.
    #[inline]
    pub(super) fn reserve(&mut self, more: usize) {
        if more > self.bytes.capacity() - self.bytes.len() {
            self.grow(self.len() + more);
        }
    }

    #[cold]
    fn grow(&mut self, needed: usize) {
        let room = needed.max(2 * self.len()).max(CAPACITY_MIN);
        let mut bytes: Vec<u8> = Vec::with_capacity(room + MEMORY_ALIGNMENT);
        // Where addresses are not known, as in an interpreter, nothing is written directly either.
        let offset = bytes.as_ptr().align_offset(MEMORY_ALIGNMENT);
        let start = if offset < MEMORY_ALIGNMENT { offset } else { 0 };
        bytes.resize(start, 0);
        bytes.extend_from_slice(self.bytes());
        *self = Self { bytes, start };
    }

    pub(super) fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    /// Adds a record: its kind, its length, and all of its parts.
    pub(super) fn put_record(&mut self, kind: u8, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        self.reserve(1 + VARINT_BYTES_MAX + length);
        self.bytes.push(kind);
        put_varint(&mut self.bytes, length as u64);
        for part in parts {
            self.extend_from_slice(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amount;

    #[test]
    fn whatever_is_added_the_beginning_is_aligned() {
        let mut buffer = Buffer::default();
        let mut expected = Vec::new();
        for round in 0..amount(60_u8, 8) {
            let more = usize::from(round) * amount(97, 700);
            buffer.extend_from_slice(&[round]);
            buffer.extend_from_slice(&vec![round; more]);
            expected.push(round);
            expected.resize(expected.len() + more, round);
            assert_eq!(buffer.bytes(), expected);
            assert_eq!(buffer.bytes().as_ptr().align_offset(MEMORY_ALIGNMENT), 0);
        }
        buffer.resize(expected.len() + 5000);
        assert!(buffer.bytes()[expected.len()..].iter().all(|byte| *byte == 0));
        buffer.resize(3);
        assert_eq!(buffer.bytes(), &expected[..3]);
        buffer.clear();
        assert_eq!((buffer.len(), buffer.bytes()), (0, &[][..]));
    }
}
