//! How large each level should be.
//!
//! The bottom level decides: each level above it may hold a `level_step`th of it, so that whatever
//! is overwritten up there is a small part of the whole (Dong et al., "Optimizing Space
//! Amplification in RocksDB", CIDR 2017). The uppermost sorted level in use is the *base*: level 0
//! is merged right into it, past the empty ones between. A small store has level 0 and the bottom.

use crate::levels::LEVELS;
use crate::planted::Planted;
use crate::segment::SegmentMeta;

/// The deepest level.
pub(crate) const BOTTOM: usize = LEVELS - 1;

/// When a level is too large.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// So many segments in level 0 are due.
    pub(crate) level0_segments: usize,
    /// So many bytes in level 0 are due, be they ever so few segments.
    pub(crate) level0_bytes: u64,
    /// While the bottom level is no larger, it is the only sorted one; and so on upwards.
    pub(crate) base_bytes_max: u64,
    pub(crate) level_step: u64,
    pub(crate) planted: Planted,
}

/// The segments of each level: level 0 newest first, the others by key.
pub(crate) type Shape<'a> = [Vec<&'a SegmentMeta>; LEVELS];

/// What each level may hold, as the tree is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Targets {
    /// The level that level 0 goes to.
    pub(crate) base: usize,
    /// Nothing above the base, and whatever comes at the bottom.
    pub(crate) bytes_max: [u64; LEVELS],
}

impl Limits {
    pub(crate) fn targets(&self, shape: &Shape<'_>) -> Targets {
        // What lies on any level will be at the bottom one day.
        let mut bytes = shape[1..].iter().map(|level| bytes_of(level)).max().unwrap_or(0);
        let mut targets = Targets { base: BOTTOM, bytes_max: [0; LEVELS] };
        targets.bytes_max[BOTTOM] = u64::MAX;
        while bytes > self.base_bytes_max && targets.base > 1 {
            targets.base -= 1;
            bytes /= self.level_step;
            // A base smaller than what is merged into it at once would only pass it on.
            targets.bytes_max[targets.base] = bytes.max(self.level0_bytes);
        }
        targets
    }

    /// Bytes that the levels between hold beyond their targets.
    pub(crate) fn excess(&self, shape: &Shape<'_>) -> u64 {
        let targets = self.targets(shape);
        let beyond =
            |level: usize| bytes_of(&shape[level]).saturating_sub(targets.bytes_max[level]);
        (1..BOTTOM).map(beyond).sum()
    }
}

pub(crate) fn bytes_of(segments: &[&SegmentMeta]) -> u64 {
    segments.iter().map(|segment| segment.bytes).sum()
}
