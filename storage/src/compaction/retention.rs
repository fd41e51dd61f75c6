//! Which entries nobody can see any more.

use crate::key::{Kind, Sequence, Tag};

/// Decides over entries that come in the engine's order: by key, newest first.
pub(crate) struct Retention {
    /// The sequences at which somebody reads, rising. The last is that of readers yet to come.
    readers: Vec<Sequence>,
    key: Vec<u8>,
    /// The sequence of the next newer entry of the same key; `None` at a key's newest.
    newer: Option<Sequence>,
}

impl Retention {
    /// For these readers, in rising order, `now` being where the next reader would begin.
    pub(crate) fn new(snapshots: impl IntoIterator<Item = Sequence>, now: Sequence) -> Retention {
        let mut readers: Vec<Sequence> = snapshots.into_iter().collect();
        readers.push(now);
        assert!(readers.is_sorted(), "a snapshot is never ahead of what is visible");
        Retention { readers, key: Vec::new(), newer: None }
    }

    /// Whether some reader can see the entry, or needs it to not see an older one. `is_oldest`
    /// answers whether nothing below what is merged holds the key.
    pub(crate) fn keeps(
        &mut self,
        key: &[u8],
        tag: Tag,
        is_oldest: impl FnOnce(&[u8]) -> bool,
    ) -> bool {
        if self.key != key {
            self.key.clear();
            self.key.extend_from_slice(key);
            self.newer = None;
        }
        let newer = self.newer.replace(tag.sequence());
        // The first reader for whom the entry is not too new. Entries newer than all readers are
        // kept: their reader may come.
        let first = self.readers.partition_point(|&reader| reader < tag.sequence());
        let reader = self.readers.get(first);
        let seen = match (newer, reader) {
            (None, _) => true,
            (Some(newer), Some(&reader)) => reader < newer,
            (Some(_), None) => true,
        };
        // A delete that every reader sees, with nothing below it, says what absence says.
        seen && !(tag.kind() == Kind::Delete && first == 0 && is_oldest(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries as `put k 5`, newest first; answers which are kept.
    fn check(snapshots: &[Sequence], now: Sequence, oldest: bool, entries: &str, kept: &str) {
        let mut retention = Retention::new(snapshots.iter().copied(), now);
        let keeps = |entry: &&str| {
            let words: Vec<&str> = entry.split(' ').collect();
            let kind = if words[0] == "put" { Kind::Put } else { Kind::Delete };
            let tag = Tag::new(words[2].parse().unwrap(), kind);
            retention.keeps(words[1].as_bytes(), tag, |_| oldest)
        };
        let left: Vec<&str> = entries.split(", ").filter(keeps).collect();
        assert_eq!(left.join(", "), kept, "{entries} with {snapshots:?} and {now}");
    }

    #[test]
    fn without_snapshots_the_newest_of_each_key_is_kept() {
        check(&[], 9, false, "put a 5, put a 3, del a 1, put b 2", "put a 5, put b 2");
    }

    #[test]
    fn each_snapshot_keeps_what_it_sees() {
        check(&[3], 9, false, "put a 5, put a 3, put a 1", "put a 5, put a 3");
        check(&[4], 9, false, "put a 5, put a 3, put a 1", "put a 5, put a 3");
        check(&[2], 9, false, "put a 5, put a 3, put a 1", "put a 5, put a 1");
        check(&[1, 2, 4], 9, false, "put a 5, put a 3, put a 1", "put a 5, put a 3, put a 1");
        check(&[2, 2], 9, false, "put a 5", "put a 5");
    }

    #[test]
    fn what_is_not_visible_yet_hides_nothing() {
        check(&[], 4, false, "put a 7, put a 5, put a 3, put a 1", "put a 7, put a 5, put a 3");
    }

    #[test]
    fn a_delete_goes_once_there_is_nothing_left_to_delete() {
        check(&[], 9, true, "del a 5, put a 3, put b 1", "put b 1");
        check(&[], 9, false, "del a 5, put a 3, put b 1", "del a 5, put b 1");
        check(&[4], 9, true, "del a 5, put a 3", "del a 5, put a 3");
        check(&[5], 9, true, "del a 5, put a 3", "");
        check(&[], 4, true, "del a 5, put a 3", "del a 5, put a 3");
        check(&[3], 9, true, "put a 5, del a 3, put a 1", "put a 5");
    }
}
