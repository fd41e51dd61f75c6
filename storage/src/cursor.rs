//! Walks many sorted sources as if they were one.
//!
//! The sources stand in a queue, the one whose entry comes next in front. A step moves that one on
//! and puts it where it belongs, which is mostly in front again: a deep level holds most of the
//! entries. So a queue in order needs fewer comparisons than a heap or a tree of losers while
//! sources are few, and they are: a handful of memtables, level 0, and one for each level below.
//! What is compared are words, beside each other in the queue; keys only where words are the same.

use std::cmp::Ordering;

use bytes::Bytes;

use crate::error::Result;
use crate::key::{Tag, compare};
use crate::word::Words;

pub(crate) use crate::source::Source;

/// Which way a walk goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// From the smallest key up.
    #[default]
    Forwards,
    /// From the largest key down.
    Backwards,
}

/// All entries of several sources in order, or in reverse.
pub(crate) struct Merge {
    sources: Vec<Source>,
    /// Those that are at an entry, in the order in which their entries come.
    queue: Vec<Head>,
    direction: Direction,
    words: Words,
}

/// A source in the queue.
#[derive(Clone, Copy)]
struct Head {
    rank: u64,
    source: usize,
}

impl Merge {
    /// Starts at the first entry at or after `to`, or backwards at the last one before it.
    pub(crate) fn new(
        sources: Vec<Source>,
        to: Option<(&[u8], Tag)>,
        direction: Direction,
    ) -> Result<Merge> {
        let mut merge = Merge::idle(sources, None, None);
        merge.seek(to, direction)?;
        Ok(merge)
    }

    /// At no entry yet. Keys that are not between `low` and `high` are not of much interest.
    pub(crate) fn idle(sources: Vec<Source>, low: Option<&[u8]>, high: Option<&[u8]>) -> Merge {
        let smallest = sources.iter().filter_map(|it| it.extent()).map(|extent| extent.0).min();
        let largest = sources.iter().filter_map(|it| it.extent()).map(|extent| extent.1).max();
        let words = match (smallest.max(low), largest.into_iter().chain(high).min()) {
            (Some(low), Some(high)) => Words::between(low, high),
            _ => Words::default(),
        };
        let queue = Vec::with_capacity(sources.len());
        Merge { sources, queue, direction: Direction::Forwards, words }
    }

    /// To the first entry at or after `to`, or backwards to the last one before it. After an error
    /// it is at no entry.
    pub(crate) fn seek(&mut self, to: Option<(&[u8], Tag)>, direction: Direction) -> Result<()> {
        self.queue.clear();
        self.direction = direction;
        for number in 0..self.sources.len() {
            let sought = self.sources[number].seek(to, direction);
            sought.inspect_err(|_| self.queue.clear())?;
            if self.sources[number].is_valid() {
                let rank = self.rank(self.sources[number].key());
                let head = Head { rank, source: number };
                let place = self.queue.partition_point(|other| self.is_before(other, &head));
                self.queue.insert(place, head);
            }
        }
        Ok(())
    }

    /// Forwards, on to the first entry at or after `to`, by a search instead of steps.
    pub(crate) fn skip_to(&mut self, to: (&[u8], Tag)) -> Result<()> {
        while let Some((key, tag)) = self.current()
            && compare((key, tag), to) == Ordering::Less
        {
            self.move_first(|source| source.seek(Some(to), Direction::Forwards))?;
        }
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn step(&mut self) -> Result<()> {
        let direction = self.direction;
        self.move_first(|source| source.step(direction))
    }

    /// The key and tag of the current entry.
    #[inline(always)]
    pub(crate) fn current(&self) -> Option<(&[u8], Tag)> {
        self.first().map(|source| (source.key(), source.tag()))
    }

    /// The value of the current entry.
    pub(crate) fn value(&self) -> Bytes {
        self.first().map_or_else(Bytes::new, Source::value)
    }

    /// The same, for who needs it only until the next step.
    #[inline(always)]
    pub(crate) fn value_ref(&self) -> &[u8] {
        self.first().map_or(&[], Source::value_ref)
    }

    /// Where the current entry stands in the walk: never before an entry that came earlier.
    #[inline(always)]
    pub(crate) fn current_rank(&self) -> u64 {
        self.queue.first().map_or(u64::MAX, |head| head.rank)
    }

    /// Where a key stands in a walk of this direction: of two keys with different ranks the one
    /// with the smaller comes first.
    #[inline(always)]
    pub(crate) fn rank_in(&self, key: &[u8], direction: Direction) -> u64 {
        match direction {
            Direction::Forwards => self.words.of(key),
            Direction::Backwards => !self.words.of(key),
        }
    }

    /// Lets go of all sources: there is nothing more to come.
    pub(crate) fn end(&mut self) {
        self.queue.clear();
        self.sources.clear();
    }

    #[inline(always)]
    fn first(&self) -> Option<&Source> {
        self.queue.first().map(|head| &self.sources[head.source])
    }

    #[inline(always)]
    fn rank(&self, key: &[u8]) -> u64 {
        self.rank_in(key, self.direction)
    }

    /// Moves the source in front on, and puts it where it belongs.
    #[inline(always)]
    fn move_first(&mut self, on: impl FnOnce(&mut Source) -> Result<()>) -> Result<()> {
        let Some(first) = self.queue.first() else { return Ok(()) };
        let number = first.source;
        let source = &mut self.sources[number];
        let moved = on(source);
        if moved.is_err() || !source.is_valid() {
            self.queue.remove(0);
            return moved;
        }
        let head = Head { rank: self.rank(self.sources[number].key()), source: number };
        match self.queue.get(1) {
            Some(second) if !self.is_before(&head, second) => self.put_back(head),
            _ => self.queue[0] = head,
        }
        Ok(())
    }

    /// Puts the source in front behind the next and all others that come before it.
    fn put_back(&mut self, head: Head) {
        let before = self.queue[2..].partition_point(|other| self.is_before(other, &head));
        self.queue.copy_within(1..2 + before, 0);
        self.queue[1 + before] = head;
    }

    #[inline(always)]
    fn is_before(&self, a: &Head, b: &Head) -> bool {
        match a.rank.cmp(&b.rank) {
            Ordering::Less => true,
            Ordering::Greater => false,
            Ordering::Equal => self.is_before_at_same_rank(a, b),
        }
    }

    #[cold]
    fn is_before_at_same_rank(&self, a: &Head, b: &Head) -> bool {
        let place = |head: &Head| {
            let source = &self.sources[head.source];
            (source.key(), source.tag())
        };
        let order = compare(place(a), place(b));
        match self.direction {
            Direction::Forwards => order == Ordering::Less,
            Direction::Backwards => order == Ordering::Greater,
        }
    }
}
