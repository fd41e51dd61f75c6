//! An array that grows without moving what it holds, so that readers need no lock.

use std::sync::OnceLock;

/// Items of the first chunk; each later one is as large as all before it together.
const FIRST: usize = 1 << FIRST_BITS;
const FIRST_BITS: u32 = 8;
/// Enough for every `u32`.
const CHUNKS: usize = (u32::BITS - FIRST_BITS + 1) as usize;

pub(super) struct Chunked<T> {
    chunks: [OnceLock<Box<[T]>>; CHUNKS],
}

impl<T: Default> Chunked<T> {
    pub(super) fn new() -> Chunked<T> {
        Chunked { chunks: [const { OnceLock::new() }; CHUNKS] }
    }

    /// The item, if its chunk was made.
    pub(super) fn get(&self, index: u32) -> Option<&T> {
        let (chunk, within) = place(index);
        self.chunks[chunk].get()?.get(within)
    }

    /// The item and those behind it in its chunk, if that was made.
    pub(super) fn run(&self, index: u32) -> Option<&[T]> {
        let (chunk, within) = place(index);
        self.chunks[chunk].get()?.get(within..)
    }

    /// The item, in a new chunk if need be.
    pub(super) fn get_or_grow(&self, index: u32) -> &T {
        &self.run_or_grow(index)[0]
    }

    /// The item and those behind it in its chunk, a new one if need be. It is never empty.
    pub(super) fn run_or_grow(&self, index: u32) -> &[T] {
        let (chunk, within) = place(index);
        let items = self.chunks[chunk]
            .get_or_init(|| (0..chunk_items(chunk)).map(|_| T::default()).collect());
        &items[within..]
    }
}

/// The first index from this one on with so many items, at most [`FIRST`], behind it in its chunk.
pub(super) fn with_room(index: u32, items: usize) -> Option<u32> {
    let (chunk, within) = place(index);
    let room = chunk_items(chunk) - within;
    if items <= room { Some(index) } else { index.checked_add(u32::try_from(room).ok()?) }
}

fn chunk_items(chunk: usize) -> usize {
    if chunk == 0 { FIRST } else { FIRST << (chunk - 1) }
}

fn place(index: u32) -> (usize, usize) {
    let index = index as usize;
    if index < FIRST {
        return (0, index);
    }
    let top = index.ilog2();
    ((top - FIRST_BITS + 1) as usize, index - (1 << top))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_distinct_and_dense() {
        let mut last = (0, 0);
        for index in 1..100_000 {
            let place = place(index);
            let follows = (place.0 == last.0 && place.1 == last.1 + 1)
                || (place.0 == last.0 + 1 && place.1 == 0);
            assert!(follows, "{index} is at {place:?}, after {last:?}");
            last = place;
        }
        assert_eq!(place(u32::MAX).0, CHUNKS - 1);
    }

    #[test]
    fn what_stands_together_is_in_one_chunk() {
        let cells: Chunked<OnceLock<u32>> = Chunked::new();
        let mut index = 1;
        for items in (1..=18).cycle().take(10_000) {
            let place = with_room(index, items).unwrap();
            assert!(place >= index && place - index < 18, "little is left unused");
            assert!(cells.run_or_grow(place).len() >= items);
            index = place + u32::try_from(items).unwrap();
        }
        assert_eq!(with_room(u32::MAX, 2), None);
    }

    #[test]
    fn holds_what_was_put_in() {
        let cells: Chunked<OnceLock<u32>> = Chunked::new();
        assert!(cells.get(1000).is_none());
        for index in 0..3000 {
            cells.get_or_grow(index).set(index).unwrap();
        }
        assert!((0..3000).all(|index| cells.get(index).unwrap().get() == Some(&index)));
    }
}
