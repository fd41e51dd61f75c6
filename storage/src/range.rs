//! Ranges of keys.

use std::ops::{Bound, Range, RangeBounds, RangeFrom, RangeFull, RangeInclusive, RangeTo};

use bytes::Bytes;

use crate::cursor::Direction;
use crate::key::Tag;
use crate::segment::SegmentMeta;

/// A range of keys. Made of any Rust range of byte slices, or by [`KeyRange::prefix`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// Where it begins.
    pub from: Bound<Bytes>,
    /// Where it ends.
    pub to: Bound<Bytes>,
}

impl KeyRange {
    /// Every key.
    #[must_use]
    pub fn all() -> KeyRange {
        KeyRange { from: Bound::Unbounded, to: Bound::Unbounded }
    }

    /// Every key that begins so.
    #[must_use]
    pub fn prefix(prefix: &[u8]) -> KeyRange {
        let from = Bound::Included(Bytes::copy_from_slice(prefix));
        // The first key after them: the prefix with its last byte that can rise risen.
        let kept = prefix.iter().rposition(|&byte| byte < u8::MAX);
        let to = kept.map_or(Bound::Unbounded, |last| {
            let mut after = prefix[..=last].to_vec();
            after[last] += 1;
            Bound::Excluded(Bytes::from(after))
        });
        KeyRange { from, to }
    }

    /// Where a walk in this direction begins, for [`Merge::seek`](crate::cursor::Merge::seek).
    pub(crate) fn start(&self, direction: Direction) -> Option<(&[u8], Tag)> {
        // Between a key's versions and its neighbour's there is always a tag to stand on.
        match (direction, &self.from, &self.to) {
            (Direction::Forwards, Bound::Included(key), _) => Some((key, Tag::NEWEST)),
            (Direction::Forwards, Bound::Excluded(key), _) => Some((key, Tag::OLDEST)),
            (Direction::Backwards, _, Bound::Included(key)) => Some((key, Tag::OLDEST)),
            (Direction::Backwards, _, Bound::Excluded(key)) => Some((key, Tag::NEWEST)),
            (Direction::Forwards, Bound::Unbounded, _)
            | (Direction::Backwards, _, Bound::Unbounded) => None,
        }
    }

    /// The key that it begins with or behind.
    pub(crate) fn low(&self) -> Option<&[u8]> {
        key_of(&self.from)
    }

    /// The key that it ends with or before.
    pub(crate) fn high(&self) -> Option<&[u8]> {
        key_of(&self.to)
    }

    /// Whether the segment may hold keys of it.
    pub(crate) fn overlaps(&self, segment: &SegmentMeta) -> bool {
        !self.is_below(&segment.largest) && !self.is_above(&segment.smallest)
    }

    /// Whether the key comes before the range.
    pub(crate) fn is_below(&self, key: &[u8]) -> bool {
        match &self.from {
            Bound::Included(from) => key < from.as_ref(),
            Bound::Excluded(from) => key <= from.as_ref(),
            Bound::Unbounded => false,
        }
    }

    /// Whether the key comes behind the range.
    pub(crate) fn is_above(&self, key: &[u8]) -> bool {
        match &self.to {
            Bound::Included(to) => key > to.as_ref(),
            Bound::Excluded(to) => key >= to.as_ref(),
            Bound::Unbounded => false,
        }
    }
}

fn key_of(bound: &Bound<Bytes>) -> Option<&[u8]> {
    match bound {
        Bound::Included(key) | Bound::Excluded(key) => Some(key),
        Bound::Unbounded => None,
    }
}

fn from_bounds<K: AsRef<[u8]>>(range: &impl RangeBounds<K>) -> KeyRange {
    let copy = |key: &K| Bytes::copy_from_slice(key.as_ref());
    KeyRange { from: range.start_bound().map(copy), to: range.end_bound().map(copy) }
}

impl From<RangeFull> for KeyRange {
    fn from(_: RangeFull) -> KeyRange {
        KeyRange::all()
    }
}

impl<K: AsRef<[u8]>> From<Range<K>> for KeyRange {
    fn from(range: Range<K>) -> KeyRange {
        from_bounds(&range)
    }
}

impl<K: AsRef<[u8]>> From<RangeInclusive<K>> for KeyRange {
    fn from(range: RangeInclusive<K>) -> KeyRange {
        from_bounds(&range)
    }
}

impl<K: AsRef<[u8]>> From<RangeFrom<K>> for KeyRange {
    fn from(range: RangeFrom<K>) -> KeyRange {
        from_bounds(&range)
    }
}

impl<K: AsRef<[u8]>> From<RangeTo<K>> for KeyRange {
    fn from(range: RangeTo<K>) -> KeyRange {
        from_bounds(&range)
    }
}

impl<K: AsRef<[u8]>> From<(Bound<K>, Bound<K>)> for KeyRange {
    fn from(range: (Bound<K>, Bound<K>)) -> KeyRange {
        from_bounds(&range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_the_range_of_all_keys_that_begin_so() {
        let check = |prefix: &[u8], to: Option<&[u8]>| {
            let range = KeyRange::prefix(prefix);
            assert_eq!(range.from, Bound::Included(Bytes::copy_from_slice(prefix)));
            let to = to.map_or(Bound::Unbounded, |to| Bound::Excluded(Bytes::copy_from_slice(to)));
            assert_eq!(range.to, to);
        };
        check(b"ab", Some(b"ac"));
        check(b"a\xff", Some(b"b"));
        check(b"\xff\xff", None);
        check(b"", None);
    }
}
