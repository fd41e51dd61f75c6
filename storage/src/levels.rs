//! The tree of segments at one moment: level 0 as it was flushed, the levels below sorted.
//!
//! A tree never changes; a flush or a compaction makes the next one. Whoever reads keeps the tree
//! that it began with, and with it the segments, even after their files were removed.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::compaction::Shape;
use crate::error::Result;
use crate::key::{Sequence, Tag};
use crate::segment::{self, Segment};

/// Levels of the tree, level 0 included. With a tenfold step and 256 MiB in level 1, level 6 is
/// full at 25 TiB.
pub(crate) const LEVELS: usize = 7;

/// One tree.
#[derive(Clone, Default)]
pub(crate) struct Levels {
    /// Level 0: what was flushed, newest first; key ranges overlap. Below: by key, ranges disjoint.
    levels: [Vec<Arc<Segment>>; LEVELS],
}

impl Levels {
    /// From what the manifest lists, with segments in any order.
    pub(crate) fn new(segments: impl IntoIterator<Item = (usize, Arc<Segment>)>) -> Levels {
        let mut tree = Levels::default();
        for (level, segment) in segments {
            tree.levels[level].push(segment);
        }
        tree.sort();
        tree
    }

    /// The tree after an edit: these ids gone, these segments added.
    pub(crate) fn edited(
        &self,
        removed: &BTreeSet<u64>,
        added: impl IntoIterator<Item = (usize, Arc<Segment>)>,
    ) -> Levels {
        let mut tree = self.clone();
        for level in &mut tree.levels {
            level.retain(|segment| !removed.contains(&segment.meta().id));
        }
        for (level, segment) in added {
            tree.levels[level].push(segment);
        }
        tree.sort();
        tree
    }

    fn sort(&mut self) {
        let [flushed, sorted @ ..] = &mut self.levels;
        // Flushes follow each other, so the greatest sequence tells their order; so does the id,
        // but a repair may have numbered anew.
        flushed.sort_by_key(|segment| std::cmp::Reverse(segment.meta().sequence_max));
        for level in sorted {
            level.sort_by(|a, b| a.meta().smallest.cmp(&b.meta().smallest));
        }
    }

    /// Where the promise of the levels is broken, if it is.
    pub(crate) fn overlap(&self) -> Option<(usize, u64, u64)> {
        for (number, level) in self.levels.iter().enumerate().skip(1) {
            for pair in level.windows(2) {
                if pair[0].meta().largest >= pair[1].meta().smallest {
                    return Some((number, pair[0].meta().id, pair[1].meta().id));
                }
            }
        }
        None
    }

    pub(crate) fn level(&self, level: usize) -> &[Arc<Segment>] {
        &self.levels[level]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &Arc<Segment>)> {
        let numbered = self.levels.iter().enumerate();
        numbered.flat_map(|(number, level)| level.iter().map(move |segment| (number, segment)))
    }

    /// Whether the range of a segment on this level meets this one.
    pub(crate) fn overlaps(&self, level: usize, smallest: &[u8], largest: &[u8]) -> bool {
        let segments = &self.levels[level];
        if level == 0 {
            return segments.iter().any(|segment| segment.meta().overlaps(smallest, largest));
        }
        let at = segments.partition_point(|segment| segment.meta().largest.as_ref() < smallest);
        segments.get(at).is_some_and(|segment| segment.meta().overlaps(smallest, largest))
    }

    /// Whether a segment on this level or below it may hold the key.
    pub(crate) fn spans_from(&self, first: usize, key: &[u8]) -> bool {
        let spans = |(number, level): (usize, &Vec<Arc<Segment>>)| {
            if number == 0 {
                return level.iter().any(|segment| segment.meta().spans(key));
            }
            let at = level.partition_point(|segment| segment.meta().largest.as_ref() < key);
            level.get(at).is_some_and(|segment| segment.meta().spans(key))
        };
        self.levels.iter().enumerate().skip(first).any(spans)
    }

    /// What the picker needs to know.
    pub(crate) fn shape(&self) -> Shape<'_> {
        self.levels.each_ref().map(|level| level.iter().map(|segment| segment.meta()).collect())
    }

    /// The newest version of the key that a reader at `sequence` may see: its tag and value.
    ///
    /// What is higher up is newer, so the first find is the answer.
    pub(crate) fn get(&self, key: &[u8], sequence: Sequence) -> Result<Option<(Tag, Bytes)>> {
        let hash = segment::hash(key);
        let [flushed, sorted @ ..] = &self.levels;
        for segment in flushed {
            if let Some(found) = segment.get(key, hash, sequence)? {
                return Ok(Some(found));
            }
        }
        for level in sorted {
            let at = level.partition_point(|segment| segment.meta().largest.as_ref() < key);
            let Some(segment) = level.get(at) else { continue };
            if let Some(found) = segment.get(key, hash, sequence)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}
