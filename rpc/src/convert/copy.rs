//! Keys and values copied out of messages: many in one allocation.
//!
//! A command's key and value are made on a worker, and freed on the node's thread when the batch they
//! are in is let go. One allocation each for them, and one more for the first to share them, would be
//! four for every small write; slices of one chunk need none.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};

/// Copies share chunks of so many bytes: for about a hundred small writes. Whoever keeps one of them
/// keeps all, so it must not be much more.
const CHUNK_BYTES: usize = 16 << 10;

/// A longer one has an allocation of its own, which then is no large part of the work.
const SHARED_BYTES_MAX: usize = 1 << 10;

thread_local! {
    /// What is left of this thread's chunk.
    static CHUNK: RefCell<BytesMut> = RefCell::default();
}

/// Copies bytes into this thread's chunk. For what is kept no longer than others that came with it.
pub(super) fn copy(bytes: &[u8]) -> Bytes {
    if bytes.len() > SHARED_BYTES_MAX {
        return Bytes::copy_from_slice(bytes);
    }
    CHUNK.with_borrow_mut(|chunk| {
        if chunk.capacity() < bytes.len() {
            *chunk = BytesMut::with_capacity(CHUNK_BYTES);
        }
        chunk.extend_from_slice(bytes);
        chunk.split().freeze()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_what_was_copied_and_lie_together() {
        let originals: Vec<Vec<u8>> = (0..2 * CHUNK_BYTES)
            .step_by(97)
            .map(|seed| {
                (0..seed % (SHARED_BYTES_MAX + 2)).map(|byte| (byte ^ seed) as u8).collect()
            })
            .collect();
        let copies: Vec<Bytes> = originals.iter().map(|bytes| copy(bytes)).collect();
        for (copied, original) in copies.iter().zip(&originals) {
            assert_eq!(copied, original);
        }
        let (first, second) = (copy(b"first"), copy(b"second"));
        assert_eq!(first.as_ptr().wrapping_add(first.len()), second.as_ptr());
        drop(first);
        assert_eq!(second, "second");
    }
}
