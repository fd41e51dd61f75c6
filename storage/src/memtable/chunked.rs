//! An array that grows without moving what it holds, so that readers need no lock.

use std::sync::OnceLock;

/// The first chunk holds `1 << FIRST_BITS` items; each later one is as large as all before it
/// together.
pub(super) struct Chunked<T, const FIRST_BITS: u32> {
    /// Enough for every `u32`: what a larger first chunk saves is never made.
    chunks: [OnceLock<Box<[T]>>; u32::BITS as usize + 1],
}

impl<T: Default, const FIRST_BITS: u32> Chunked<T, FIRST_BITS> {
    pub(super) fn new() -> Self {
        Chunked { chunks: [const { OnceLock::new() }; u32::BITS as usize + 1] }
    }

    /// The item, if its chunk was made.
    pub(super) fn get(&self, index: u32) -> Option<&T> {
        let (chunk, within) = place(index, FIRST_BITS);
        self.chunks[chunk].get()?.get(within)
    }

    /// The item, in a new chunk if need be.
    pub(super) fn get_or_grow(&self, index: u32) -> &T {
        let (chunk, within) = place(index, FIRST_BITS);
        let items = 1usize << (FIRST_BITS + (chunk as u32).saturating_sub(1));
        &self.chunks[chunk].get_or_init(|| (0..items).map(|_| T::default()).collect())[within]
    }
}

fn place(index: u32, first_bits: u32) -> (usize, usize) {
    if index >> first_bits == 0 {
        return (0, index as usize);
    }
    let top = index.ilog2();
    ((top - first_bits + 1) as usize, (index - (1 << top)) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_distinct_and_dense() {
        for first_bits in [0, 2, 8] {
            let mut last = (0, 0);
            for index in 1..100_000 {
                let place = place(index, first_bits);
                let follows = (place.0 == last.0 && place.1 == last.1 + 1)
                    || (place.0 == last.0 + 1 && place.1 == 0);
                assert!(follows, "{index} is at {place:?}, after {last:?}");
                last = place;
            }
            assert_eq!(place(u32::MAX, first_bits).0, (u32::BITS - first_bits) as usize);
        }
    }

    #[test]
    fn holds_what_was_put_in() {
        let cells: Chunked<OnceLock<u32>, 3> = Chunked::new();
        assert!(cells.get(1000).is_none());
        for index in 0..3000 {
            cells.get_or_grow(index).set(index).unwrap();
        }
        assert!((0..3000).all(|index| cells.get(index).unwrap().get() == Some(&index)));
    }
}
