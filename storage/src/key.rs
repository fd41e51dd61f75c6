//! Internal keys: a user's key, and which of its versions.
//!
//! The engine orders all it holds by user key, and the versions of one key newest first. So the
//! first entry at or after `(key, Tag::newest_of(sequence))` is what a reader at that sequence sees.

use std::cmp::Ordering;

/// Keys longer than this are refused.
pub const KEY_BYTES_MAX: usize = 64 << 10;

/// Values longer than this are refused.
pub const VALUE_BYTES_MAX: usize = 16 << 20;

/// Counts the operations that were applied, over the whole life of a store. One batch's
/// operations have neighbouring numbers, and become visible together.
pub(crate) type Sequence = u64;

/// That of every row that was staged. Nothing older is in the store with them, and all that is
/// applied to them is newer.
pub(crate) const SEQUENCE_STAGED: Sequence = 1;

/// That of ingested rows is a multiple of this. So many operations may be applied while rows are
/// written to their files.
pub(crate) const SEQUENCE_STRIDE: Sequence = 1 << 32;

/// What an entry says of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Delete,
    Put,
}

/// An entry's sequence and kind in one number: the greater, the newer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tag(u64);

impl Tag {
    /// Before every entry of its key.
    pub(crate) const NEWEST: Tag = Tag(u64::MAX);
    /// After every entry of its key: sequences begin with one.
    pub(crate) const OLDEST: Tag = Tag(0);

    pub(crate) fn new(sequence: Sequence, kind: Kind) -> Tag {
        assert!(sequence > 0 && sequence < 1 << 63, "sequence {sequence} out of range");
        Tag(sequence << 1 | u64::from(kind == Kind::Put))
    }

    /// Before every entry that a reader at `sequence` may see, after every entry that it may not.
    pub(crate) fn newest_of(sequence: Sequence) -> Tag {
        Tag(sequence << 1 | 1)
    }

    /// From its stored form; `None` for what no writer stores.
    pub(crate) fn from_stored(stored: u64) -> Option<Tag> {
        (stored > 1).then_some(Tag(stored))
    }

    /// Just behind this one, before every older entry of its key. It bounds entries, and is that of
    /// none.
    pub(crate) fn after(self) -> Tag {
        Tag(self.0 - 1)
    }

    /// From the stored form of one that only bounds entries.
    pub(crate) fn bound(stored: u64) -> Tag {
        Tag(stored)
    }

    pub(crate) fn stored(self) -> u64 {
        self.0
    }

    pub(crate) fn sequence(self) -> Sequence {
        self.0 >> 1
    }

    pub(crate) fn kind(self) -> Kind {
        if self.0 & 1 == 1 { Kind::Put } else { Kind::Delete }
    }
}

/// The engine's order: by key, then newest first.
pub(crate) fn compare(a: (&[u8], Tag), b: (&[u8], Tag)) -> Ordering {
    a.0.cmp(b.0).then(b.1.cmp(&a.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_versions_come_first_and_keys_decide_before_versions() {
        let tag = |sequence| Tag::new(sequence, Kind::Put);
        assert_eq!(compare((b"a", tag(2)), (b"a", tag(1))), Ordering::Less);
        assert_eq!(compare((b"a", tag(1)), (b"b", tag(9))), Ordering::Less);
        assert_eq!(compare((b"a", Tag::NEWEST), (b"a", tag(9))), Ordering::Less);
        assert_eq!(compare((b"a", Tag::OLDEST), (b"a", tag(1))), Ordering::Greater);
    }

    #[test]
    fn a_reader_starts_at_its_own_sequence_whatever_the_kind() {
        for kind in [Kind::Put, Kind::Delete] {
            assert!(Tag::newest_of(5) >= Tag::new(5, kind));
            assert!(Tag::newest_of(5) < Tag::new(6, kind));
            assert_eq!(Tag::new(5, kind).kind(), kind);
            assert_eq!(Tag::new(5, kind).sequence(), 5);
        }
    }
}
