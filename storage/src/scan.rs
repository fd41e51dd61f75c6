//! Range scans: the visible version of each key in a range, in either direction.

use std::ops::{Bound, Range, RangeBounds, RangeFrom, RangeFull, RangeInclusive, RangeTo};

use bytes::Bytes;

use crate::cursor::{Direction, Merge, Source};
use crate::error::Result;
use crate::key::{Kind, Sequence, Tag};

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

    /// Where a walk in this direction begins, for [`Merge::new`].
    fn start(&self, direction: Direction) -> Option<(&[u8], Tag)> {
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

    /// Whether a walk in this direction that meets this key is beyond its end.
    fn ends_before(&self, key: &[u8], direction: Direction) -> bool {
        match direction {
            Direction::Forwards => match &self.to {
                Bound::Included(to) => key > to.as_ref(),
                Bound::Excluded(to) => key >= to.as_ref(),
                Bound::Unbounded => false,
            },
            Direction::Backwards => match &self.from {
                Bound::Included(from) => key < from.as_ref(),
                Bound::Excluded(from) => key <= from.as_ref(),
                Bound::Unbounded => false,
            },
        }
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

/// The keys of a range and their values, as they were when the scan began.
///
/// It keeps what it reads from alive, memtables and removed segments included: a scan that is not
/// finished soon is better begun anew from where it got to. After an error it has ended.
pub struct Scan {
    merge: Merge,
    range: KeyRange,
    direction: Direction,
    sequence: Sequence,
}

impl Scan {
    pub(crate) fn new(
        sources: Vec<Source>,
        range: KeyRange,
        direction: Direction,
        sequence: Sequence,
    ) -> Result<Scan> {
        let merge = Merge::new(sources, range.start(direction), direction)?;
        Ok(Scan { merge, range, direction, sequence })
    }

    /// Versions come newest first: the first that is not too new is the one.
    fn next_forwards(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        while let Some((key, tag)) = self.merge.current() {
            if self.range.ends_before(key, self.direction) {
                return Ok(None);
            }
            if tag.sequence() > self.sequence {
                self.merge.step()?;
                continue;
            }
            let (key, value) = (Bytes::copy_from_slice(key), self.merge.value());
            self.merge.step()?;
            while self.merge.current().is_some_and(|(next, _)| next == key) {
                self.merge.step()?;
            }
            if tag.kind() == Kind::Put {
                return Ok(Some((key, value)));
            }
        }
        Ok(None)
    }

    /// Versions come oldest first: the last that is not too new is the one.
    fn next_backwards(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        while let Some((key, _)) = self.merge.current() {
            if self.range.ends_before(key, self.direction) {
                return Ok(None);
            }
            let key = Bytes::copy_from_slice(key);
            let mut seen = None;
            while let Some((next, tag)) = self.merge.current()
                && next == key
            {
                if tag.sequence() <= self.sequence {
                    seen = (tag.kind() == Kind::Put).then(|| self.merge.value());
                }
                self.merge.step()?;
            }
            if let Some(value) = seen {
                return Ok(Some((key, value)));
            }
        }
        Ok(None)
    }
}

impl Iterator for Scan {
    type Item = Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = match self.direction {
            Direction::Forwards => self.next_forwards(),
            Direction::Backwards => self.next_backwards(),
        };
        if !matches!(next, Ok(Some(_))) {
            self.merge.end();
        }
        next.transpose()
    }
}

impl std::iter::FusedIterator for Scan {}

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
