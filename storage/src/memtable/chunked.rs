//! An array that grows without moving what it holds, so that readers need no lock.

use std::sync::OnceLock;

/// So many chunks are made while the array doubles: what was made and is not used yet is an eighth
/// at most.
const STEPS: usize = 8;
const STEP_BITS: u32 = STEPS.ilog2();
/// Enough for every `u32`: what a larger first chunk saves is never made.
const CHUNKS: usize = 1 + (u32::BITS - STEP_BITS) as usize * STEPS;

/// The first chunk holds `1 << FIRST_BITS` items, at least eight; each later one an eighth of all
/// that were there when the array had last doubled.
pub(super) struct Chunked<T, const FIRST_BITS: u32> {
    chunks: [OnceLock<Box<[T]>>; CHUNKS],
}

impl<T: Default, const FIRST_BITS: u32> Chunked<T, FIRST_BITS> {
    pub(super) fn new() -> Self {
        const { assert!(FIRST_BITS >= STEP_BITS) };
        Chunked { chunks: [const { OnceLock::new() }; CHUNKS] }
    }

    /// The item, if its chunk was made.
    #[inline]
    pub(super) fn get(&self, index: u32) -> Option<&T> {
        let (chunk, within, _) = place(index, FIRST_BITS);
        self.chunks[chunk].get()?.get(within)
    }

    /// The item, in a new chunk if need be.
    #[inline]
    pub(super) fn get_or_grow(&self, index: u32) -> &T {
        let (chunk, within, items) = place(index, FIRST_BITS);
        &self.chunks[chunk].get_or_init(|| (0..items).map(|_| T::default()).collect())[within]
    }
}

/// The chunk of an index, the place in it, and how many there are.
fn place(index: u32, first_bits: u32) -> (usize, usize, usize) {
    if index >> first_bits == 0 {
        return (0, index as usize, 1 << first_bits);
    }
    let top = index.ilog2();
    let chunk_bits = top - STEP_BITS;
    let step = (index >> chunk_bits) as usize - STEPS;
    let chunk = 1 + (top - first_bits) as usize * STEPS + step;
    (chunk, (index & ((1 << chunk_bits) - 1)) as usize, 1 << chunk_bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amount;

    #[test]
    fn places_are_distinct_and_dense() {
        for first_bits in [3, 4, 8] {
            let mut last = (0, 0, 1 << first_bits);
            for index in 1..amount(100_000, 500) {
                let place = place(index, first_bits);
                let follows = (place.0 == last.0 && place.1 == last.1 + 1)
                    || (place.0 == last.0 + 1 && place.1 == 0 && last.1 + 1 == last.2);
                assert!(follows, "{index} is at {place:?}, after {last:?}");
                assert!(place.2 <= (index as usize / STEPS).max(1 << first_bits), "{place:?}");
                last = place;
            }
            assert!(place(u32::MAX, first_bits).0 < CHUNKS);
        }
    }

    #[test]
    fn holds_what_was_put_in() {
        let cells: Chunked<OnceLock<u32>, 3> = Chunked::new();
        assert!(cells.get(1000).is_none());
        let indexes = amount(3000, 200);
        for index in 0..indexes {
            cells.get_or_grow(index).set(index).unwrap();
        }
        assert!((0..indexes).all(|index| cells.get(index).unwrap().get() == Some(&index)));
    }
}
