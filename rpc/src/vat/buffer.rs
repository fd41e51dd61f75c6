//! Bytes that have arrived and were not read, aligned so that messages can be read where they lie.

use capnp::Word;

/// An idle connection keeps no larger buffer than this.
const IDLE_BYTES_MAX: usize = 4 << 10;

/// A queue of bytes. What is taken off it is always a whole number of words, so that the first
/// message in it begins at a word, as its readers need it.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    words: Vec<Word>,
    start: usize,
    end: usize,
}

impl Buffer {
    pub(super) fn unread(&self) -> &[u8] {
        &Word::words_to_bytes(&self.words)[self.start..self.end]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The memory it takes.
    pub(super) fn held_bytes(&self) -> usize {
        self.words.capacity() * 8
    }

    /// Takes the first bytes off.
    pub(super) fn take(&mut self, bytes: usize) {
        assert!(bytes.is_multiple_of(8), "messages are whole words");
        self.start += bytes;
    }

    pub(super) fn append(&mut self, bytes: &[u8]) {
        let end = self.end + bytes.len();
        if end > self.words.len() * 8 {
            let words = end.div_ceil(8).max(self.words.len() * 2);
            let mut grown = Word::allocate_zeroed_vec(words);
            let unread = self.start..self.end;
            Word::words_to_bytes_mut(&mut grown)[unread.clone()]
                .copy_from_slice(&Word::words_to_bytes(&self.words)[unread]);
            self.words = grown;
        }
        Word::words_to_bytes_mut(&mut self.words)[self.end..end].copy_from_slice(bytes);
        self.end = end;
    }

    /// Drops what was taken off already, and memory that an idle connection does not need.
    pub(super) fn tidy(&mut self) {
        let unread = self.start..self.end;
        self.end -= self.start;
        self.start = 0;
        Word::words_to_bytes_mut(&mut self.words).copy_within(unread, 0);
        if self.end == 0 && self.words.len() * 8 > IDLE_BYTES_MAX {
            self.words = Vec::new();
        }
    }
}
