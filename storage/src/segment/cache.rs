//! Keeps decompressed blocks, up to a number of bytes.
//!
//! Blocks that are not compressed lie in the memory map, and the system keeps their pages; these
//! would otherwise be decompressed at each read. Which one goes is decided by CLOCK (Corbató, 1968):
//! a hand goes round, and takes the first block that was not read since it came by last. The blocks
//! are spread over shards, each with its own lock, which is held for a look-up or for putting a block
//! in, never while one is decompressed.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::filter::mix;

const SHARDS: usize = 16;

/// Decompressed blocks of all segments of a store.
pub(crate) struct BlockCache {
    shards: [Mutex<Shard>; SHARDS],
    shard_bytes_max: usize,
}

/// A block's segment and its number there. No two segments of a store ever share an id.
type Id = (u64, usize);

#[derive(Default)]
struct Shard {
    places: HashMap<Id, usize, BuildHasherDefault<IdHasher>>,
    blocks: Vec<Kept>,
    hand: usize,
    bytes: usize,
}

struct Kept {
    id: Id,
    block: Bytes,
    was_read: bool,
}

impl BlockCache {
    /// One for at most so many bytes; of none, it keeps nothing.
    pub(crate) fn new(bytes_max: usize) -> BlockCache {
        BlockCache { shards: Default::default(), shard_bytes_max: bytes_max / SHARDS }
    }

    /// A block, if it is there. Nothing is allocated.
    pub(super) fn get(&self, id: Id) -> Option<Bytes> {
        let mut shard = self.shard(id);
        let place = *shard.places.get(&id)?;
        let kept = &mut shard.blocks[place];
        kept.was_read = true;
        Some(kept.block.clone())
    }

    /// Keeps a block, unless it would take a good part of the room alone.
    pub(super) fn put(&self, id: Id, block: &Bytes) {
        let bytes = block.len() + size_of::<Kept>();
        if bytes > self.shard_bytes_max / 4 {
            return;
        }
        let mut shard = self.shard(id);
        if shard.places.contains_key(&id) {
            return;
        }
        while shard.bytes + bytes > self.shard_bytes_max {
            shard.let_one_go();
        }
        let place = shard.blocks.len();
        shard.places.insert(id, place);
        shard.blocks.push(Kept { id, block: block.clone(), was_read: false });
        shard.bytes += bytes;
    }

    fn shard(&self, id: Id) -> MutexGuard<'_, Shard> {
        // Blocks that are read one after the other are in different shards.
        let shard = &self.shards[(id.0 as usize).wrapping_add(id.1) % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    /// There is one: what the shard holds is above its limit.
    fn let_one_go(&mut self) {
        loop {
            self.hand = if self.hand < self.blocks.len() { self.hand } else { 0 };
            let kept = &mut self.blocks[self.hand];
            if !std::mem::take(&mut kept.was_read) {
                break;
            }
            self.hand += 1;
        }
        // The last one takes its place. It may have been put in just now: the hand goes on, so that
        // it has a round's time to be read.
        let gone = self.blocks.swap_remove(self.hand);
        self.places.remove(&gone.id);
        self.bytes -= gone.block.len() + size_of::<Kept>();
        if let Some(moved) = self.blocks.get(self.hand) {
            self.places.insert(moved.id, self.hand);
        }
        self.hand += 1;
    }
}

/// Hashes ids, which no stranger chooses.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = mix(self.0 ^ number);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amount;

    fn held(cache: &BlockCache) -> usize {
        cache.shards.iter().map(|shard| shard.lock().unwrap().bytes).sum()
    }

    #[test]
    fn keeps_what_is_read_and_no_more_than_it_may() {
        let bytes_max = 1 << 20;
        let cache = BlockCache::new(bytes_max);
        let block = |number: usize| Bytes::from(vec![number as u8; 1000]);
        let numbers = amount(5_000, 1_500);
        for number in 0..numbers {
            cache.put((7, number), &block(number));
            assert!(held(&cache) <= bytes_max);
            for hot in 0..amount(200, 5).min(number + 1) {
                assert_eq!(cache.get((7, hot)), Some(block(hot)), "{hot} after {number}");
            }
        }
        assert!(held(&cache) > bytes_max / 2);
        let kept = (0..numbers).filter(|number| cache.get((7, *number)).is_some()).count();
        assert!(kept < 1100, "{kept}");
        assert_eq!(cache.get((8, 0)), None);
    }

    #[test]
    fn what_is_too_large_is_not_kept() {
        let cache = BlockCache::new(1 << 20);
        cache.put((1, 1), &Bytes::from(vec![0; 100_000]));
        assert_eq!((cache.get((1, 1)), held(&cache)), (None, 0));
        let nothing = BlockCache::new(0);
        nothing.put((1, 1), &Bytes::from_static(b"block"));
        assert_eq!(nothing.get((1, 1)), None);
    }
}
