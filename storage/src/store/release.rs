//! Which part of the log nobody needs any more.
//!
//! The owner says from which position on it still needs the log. The store needs, besides, every
//! record whose batch is not yet in a segment. So an owner's word takes effect once all that had
//! been applied when it was given is flushed.

use std::collections::VecDeque;

use crate::log::Position;

/// Words of the owner that wait for a flush. More are merged: they then take effect a little later.
const PENDING_MAX: usize = 64;

#[derive(Default)]
pub(super) struct Releases {
    /// `(before, mark)`, both rising: once `mark` is flushed, what is before `before` can go.
    pending: VecDeque<(Position, u64)>,
    /// The last position given.
    given: Position,
}

impl Releases {
    /// The owner needs nothing before `before`; the last batch applied had this mark.
    pub(super) fn add(&mut self, before: Position, mark: u64) {
        let last = self.pending.back().copied();
        if before <= last.map_or(self.given, |(position, _)| position) {
            return;
        }
        // The new word says more than the last one. It takes its place if both wait for the same
        // flush, or if there is no other.
        let full = self.pending.len() == PENDING_MAX;
        if full || last.is_some_and(|(_, last_mark)| last_mark == mark) {
            self.pending.pop_back();
        }
        self.pending.push_back((before, mark));
    }

    /// A word that was given and could not be followed: it is given again.
    pub(super) fn put_back(&mut self, before: Position, mark: u64) {
        self.pending.push_front((before, mark));
    }

    /// What can go now that this mark is flushed; each word is given once.
    pub(super) fn take(&mut self, flushed_mark: u64) -> Option<Position> {
        let mut before = None;
        while let Some(&(position, mark)) = self.pending.front()
            && mark <= flushed_mark
        {
            self.given = position;
            before = Some(position);
            self.pending.pop_front();
        }
        before
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_waits_for_the_flush_of_what_was_applied_before_it() {
        let mut releases = Releases::default();
        releases.add(Position(10), 3);
        releases.add(Position(20), 3);
        releases.add(Position(15), 4);
        releases.add(Position(30), 5);
        assert_eq!(releases.take(2), None);
        assert_eq!(releases.take(3), Some(Position(20)));
        assert_eq!(releases.take(4), None);
        assert_eq!(releases.take(9), Some(Position(30)));
        assert!(releases.is_empty());
        releases.add(Position(30), 9);
        assert_eq!(releases.take(9), None, "given once");
        releases.put_back(Position(30), 9);
        assert_eq!(releases.take(9), Some(Position(30)), "given again");
    }

    #[test]
    fn what_waits_is_bounded_and_never_released_early() {
        let mut releases = Releases::default();
        for step in 1..=1000 {
            releases.add(Position(step), step);
        }
        assert!(releases.pending.len() <= PENDING_MAX);
        for flushed in 1..=1000 {
            assert!(releases.take(flushed).is_none_or(|before| before.0 <= flushed));
        }
        assert!(releases.is_empty());
    }
}
