//! All entries of many segments in order, damaged ones included, as far as they can be read.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};

use bytes::Bytes;

use super::{Directory, map_segment};
use crate::error::{Error, Result};
use crate::key::compare;
use crate::segment::{Entry, LostKeys, Piece, Salvage, SegmentMeta, path_of};

/// Segments whose ranges do not overlap, in order; a single one of level 0.
type Input = Vec<(u64, Option<SegmentMeta>)>;

/// Merges segments, forwards.
pub(crate) struct Entries<'a> {
    directory: &'a Directory,
    from: Bytes,
    heap: BinaryHeap<Head>,
    /// What could not be read so far.
    pub(crate) lost: Vec<LostKeys>,
}

/// One input and its current entry.
struct Head {
    entry: Entry,
    rest: Walk,
}

struct Walk {
    waiting: VecDeque<(u64, Option<SegmentMeta>)>,
    salvage: Option<Salvage>,
    block: VecDeque<Entry>,
}

impl<'a> Entries<'a> {
    /// From this key on.
    pub(crate) fn new(directory: &'a Directory, inputs: Vec<Input>, from: Bytes) -> Result<Self> {
        let heap = BinaryHeap::new();
        let mut entries = Self { directory, from, heap, lost: Vec::new() };
        for input in inputs {
            let ends_before = |meta: &SegmentMeta| meta.largest < entries.from;
            let waiting: VecDeque<_> = input
                .into_iter()
                .filter(|(_, meta)| !meta.as_ref().is_some_and(ends_before))
                .collect();
            let walk = Walk { waiting, salvage: None, block: VecDeque::new() };
            entries.put_back(walk)?;
        }
        Ok(entries)
    }

    /// The segments of a directory, each level below 0 as one input.
    pub(crate) fn of_tree(directory: &'a Directory, from: Bytes) -> Result<Self> {
        let mut inputs: Vec<Input> = Vec::new();
        let mut levels: Vec<Input> = Vec::new();
        for (level, id, meta) in directory.tree() {
            match level {
                None | Some(0) => inputs.push(vec![(id, meta)]),
                Some(level) => {
                    levels.resize(levels.len().max(level), Vec::new());
                    levels[level - 1].push((id, meta));
                }
            }
        }
        for mut level in levels {
            let smallest = |meta: &Option<SegmentMeta>| meta.as_ref().map(|m| m.smallest.clone());
            level.sort_by_key(|(_, meta)| smallest(meta));
            inputs.push(level);
        }
        Self::new(directory, inputs, from)
    }

    /// Those that wait to be installed.
    pub(crate) fn of_staged(directory: &'a Directory, from: Bytes) -> Result<Self> {
        let staged = directory.staged().into_iter().flat_map(|staged| &staged.segments);
        let input = staged.map(|meta| (meta.id, Some(meta.clone()))).collect();
        Self::new(directory, vec![input], from)
    }

    /// The next entry: by key, and of one key the newest first.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>> {
        let Some(Head { entry, rest }) = self.heap.pop() else { return Ok(None) };
        self.put_back(rest)?;
        Ok(Some(entry))
    }

    fn put_back(&mut self, mut walk: Walk) -> Result<()> {
        while let Some(entry) = walk.next(self.directory, &self.from, &mut self.lost)? {
            if entry.key >= self.from {
                self.heap.push(Head { entry, rest: walk });
                break;
            }
        }
        Ok(())
    }
}

impl Walk {
    fn next(
        &mut self,
        directory: &Directory,
        from: &[u8],
        lost: &mut Vec<LostKeys>,
    ) -> Result<Option<Entry>> {
        loop {
            if let Some(entry) = self.block.pop_front() {
                return Ok(Some(entry));
            }
            match self.salvage.as_mut().and_then(Salvage::next) {
                Some(Piece::Block(entries)) => self.block = entries.into(),
                Some(Piece::Lost(keys)) => lost.push(keys),
                None => {
                    let Some((id, meta)) = self.waiting.pop_front() else { return Ok(None) };
                    self.salvage = open(directory, id, meta, lost)?.map(|mut salvage| {
                        salvage.skip_to(from);
                        salvage
                    });
                }
            }
        }
    }
}

fn open(
    directory: &Directory,
    id: u64,
    meta: Option<SegmentMeta>,
    lost: &mut Vec<LostKeys>,
) -> Result<Option<Salvage>> {
    let path = path_of(&directory.segments_dir(), id);
    match map_segment(directory, id) {
        Ok(map) => Ok(Some(Salvage::new(&path, id, map, meta))),
        Err(Error::Missing { .. }) => {
            let (from, to) = match meta {
                Some(meta) => (meta.smallest, Some(meta.largest)),
                None => (Bytes::new(), None),
            };
            let why = "the file is missing".to_owned();
            lost.push(LostKeys { file: path, offset: 0, why, from, to });
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

impl Ord for Head {
    fn cmp(&self, other: &Head) -> Ordering {
        // A heap's greatest comes first.
        compare((&other.entry.key, other.entry.tag), (&self.entry.key, self.entry.tag))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Head) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Head) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Head {}
