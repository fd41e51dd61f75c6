//! The tree of segments at one moment: level 0 as it was flushed, the levels below sorted.
//!
//! A tree never changes; a flush or a compaction makes the next one, which shares the levels that
//! stay. Whoever reads keeps the tree that it began with, and with it the segments, even after
//! their files were removed.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::compaction::Shape;
use crate::error::Result;
use crate::key::{Sequence, Tag};
use crate::segment::{self, Segment};
use crate::word::Words;

/// Levels of the tree, level 0 included. With a tenfold step and 256 MiB in level 1, level 6 is
/// full at 25 TiB.
pub(crate) const LEVELS: usize = 7;

/// One tree.
#[derive(Clone, Default)]
pub(crate) struct Levels {
    /// Level 0: what was flushed, newest first; key ranges overlap. Below: by key, ranges disjoint.
    levels: [Arc<Level>; LEVELS],
}

/// Segments by key, whose ranges do not overlap; in level 0 segments in any order.
#[derive(Default)]
pub(crate) struct Level {
    segments: Vec<Arc<Segment>>,
    /// Of their largest keys, side by side: a search among them touches few cache lines.
    ends: Vec<u64>,
    words: Words,
}

impl Level {
    pub(crate) fn new(segments: Vec<Arc<Segment>>) -> Level {
        let words = match (segments.first(), segments.last()) {
            (Some(first), Some(last)) => {
                Words::between(&first.meta().smallest, &last.meta().largest)
            }
            _ => Words::default(),
        };
        let ends = segments.iter().map(|segment| words.of(&segment.meta().largest)).collect();
        Level { segments, ends, words }
    }

    pub(crate) fn segments(&self) -> &[Arc<Segment>] {
        &self.segments
    }

    /// How many segments of a sorted level end before the key: the next may hold it.
    pub(crate) fn count_before(&self, key: &[u8]) -> usize {
        let word = self.words.of(key);
        let from = self.ends.partition_point(|end| *end < word);
        let same = self.ends[from..].iter().take_while(|end| **end == word).count();
        let same = &self.segments[from..from + same];
        from + same.partition_point(|segment| segment.meta().largest.as_ref() < key)
    }

    /// Whether a segment of a sorted level spans the key.
    fn spans(&self, key: &[u8]) -> bool {
        let next = self.segments.get(self.count_before(key));
        next.is_some_and(|segment| segment.meta().spans(key))
    }
}

impl Levels {
    /// From what the manifest lists, with segments in any order.
    pub(crate) fn new(segments: impl IntoIterator<Item = (usize, Arc<Segment>)>) -> Levels {
        Levels::default().edited(&BTreeSet::new(), segments)
    }

    /// The tree after an edit: these ids gone, these segments added.
    pub(crate) fn edited(
        &self,
        removed: &BTreeSet<u64>,
        added: impl IntoIterator<Item = (usize, Arc<Segment>)>,
    ) -> Levels {
        let mut changed: [Option<Vec<Arc<Segment>>>; LEVELS] = Default::default();
        for (level, segments) in changed.iter_mut().enumerate() {
            let stays = |segment: &&Arc<Segment>| !removed.contains(&segment.meta().id);
            let here = self.level(level);
            if !here.iter().all(|segment| stays(&segment)) {
                *segments = Some(here.iter().filter(stays).cloned().collect());
            }
        }
        for (level, segment) in added {
            changed[level].get_or_insert_with(|| self.level(level).to_vec()).push(segment);
        }
        let mut tree = self.clone();
        for (level, segments) in changed.into_iter().enumerate() {
            let Some(mut segments) = segments else { continue };
            if level == 0 {
                // Flushes follow each other, so the greatest sequence tells their order; so does
                // the id, but a repair may have numbered anew.
                segments.sort_by_key(|segment| std::cmp::Reverse(segment.meta().sequence_max));
            } else {
                segments.sort_by(|a, b| a.meta().smallest.cmp(&b.meta().smallest));
            }
            tree.levels[level] = Arc::new(Level::new(segments));
        }
        tree
    }

    /// Where the promise of the levels is broken, if it is.
    pub(crate) fn overlap(&self) -> Option<(usize, u64, u64)> {
        for (number, level) in self.levels.iter().enumerate().skip(1) {
            for pair in level.segments.windows(2) {
                if pair[0].meta().largest >= pair[1].meta().smallest {
                    return Some((number, pair[0].meta().id, pair[1].meta().id));
                }
            }
        }
        None
    }

    pub(crate) fn level(&self, level: usize) -> &[Arc<Segment>] {
        &self.levels[level].segments
    }

    /// The levels below 0, from the top.
    pub(crate) fn sorted(&self) -> &[Arc<Level>] {
        &self.levels[1..]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &Arc<Segment>)> {
        let numbered = self.levels.iter().enumerate();
        numbered
            .flat_map(|(number, level)| level.segments.iter().map(move |segment| (number, segment)))
    }

    /// Whether the range of a segment on this level meets this one.
    pub(crate) fn overlaps(&self, level: usize, smallest: &[u8], largest: &[u8]) -> bool {
        let segments = self.level(level);
        if level == 0 {
            return segments.iter().any(|segment| segment.meta().overlaps(smallest, largest));
        }
        let next = segments.get(self.levels[level].count_before(smallest));
        next.is_some_and(|segment| segment.meta().overlaps(smallest, largest))
    }

    /// Whether a segment on this level or below it may hold the key.
    pub(crate) fn spans_from(&self, first: usize, key: &[u8]) -> bool {
        let spans = |(number, level): (usize, &Arc<Level>)| match number {
            0 => level.segments.iter().any(|segment| segment.meta().spans(key)),
            _ => level.spans(key),
        };
        self.levels.iter().enumerate().skip(first).any(spans)
    }

    /// What the picker needs to know.
    pub(crate) fn shape(&self) -> Shape<'_> {
        self.levels.each_ref().map(|level| level.segments.iter().map(|it| it.meta()).collect())
    }

    /// The newest version of the key that a reader at `sequence` may see: its tag and value.
    pub(crate) fn get(&self, key: &[u8], sequence: Sequence) -> Result<Option<(Tag, Bytes)>> {
        let hash = segment::hash(key);
        for segment in self.candidates(key) {
            if let Some(found) = segment.get(key, hash, sequence)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The same, for who needs the value only for a moment.
    pub(crate) fn get_with<T>(
        &self,
        key: &[u8],
        sequence: Sequence,
        found: impl FnOnce(Tag, &[u8]) -> T,
    ) -> Result<Option<T>> {
        let hash = segment::hash(key);
        let mut found = Some(found);
        for segment in self.candidates(key) {
            let answer = segment.get_with(key, hash, sequence, |tag, value| {
                let found = found.take().expect("the first find is the last");
                found(tag, value)
            })?;
            if answer.is_some() {
                return Ok(answer);
            }
        }
        Ok(None)
    }

    /// The segments that may hold the key. What is higher up is newer, so the first find is the
    /// answer.
    pub(crate) fn candidates(&self, key: &[u8]) -> impl Iterator<Item = &Segment> {
        let sorted = self.sorted().iter().filter(|level| !level.segments.is_empty());
        let below = sorted.filter_map(|level| level.segments.get(level.count_before(key)));
        self.level(0).iter().chain(below).map(|segment| &**segment)
    }
}
