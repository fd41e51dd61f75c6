//! Walks over the visible version of each key in a range, in either direction.

use bytes::Bytes;

use crate::cursor::{Direction, Merge, Source};
use crate::error::Result;
use crate::key::{Kind, Sequence, Tag};
use crate::range::KeyRange;

/// So many versions of one key are passed step by step; then it is searched for what follows them.
const STEPS_MAX: usize = 8;

/// Walks the keys of a range and their values, in both directions, as they were when it was made.
///
/// It begins at no entry. [`Cursor::next`] and [`Cursor::previous`] go on from where it is: from
/// nowhere to the first or the last entry of the range, and from behind an end back into it. What
/// they answer with is borrowed until the next call: nothing is allocated or counted for it.
///
/// It keeps what it reads from alive, memtables and removed segments included: one that is not
/// let go of soon is better made anew. After an error it goes nowhere until it is sent somewhere.
pub struct Cursor {
    merge: Merge,
    range: KeyRange,
    sequence: Sequence,
    place: Place,
    /// The key that was looked at last, and its rank in the direction of the walk.
    key: Vec<u8>,
    rank: u64,
    /// Only keys of these ranks and greater ones can be beyond the range's ends: the one that a walk
    /// backwards comes to, and the one forwards.
    from_rank: u64,
    to_rank: u64,
    /// Of the current entry, if the way there was backwards. Forwards, `merge` is at the entry.
    value: Bytes,
}

/// Where a cursor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Nowhere,
    BeforeFirst,
    /// At an entry, that it came to in this direction.
    Entry(Direction),
    BehindLast,
    Failed,
}

/// A key and its value.
type Entry<'a> = (&'a [u8], &'a [u8]);

impl Cursor {
    /// Over sources that hold all that the range has at `sequence`.
    pub(crate) fn new(sources: Vec<Source>, range: KeyRange, sequence: Sequence) -> Cursor {
        let merge = Merge::idle(sources, range.low(), range.high());
        let rank = |key: Option<&[u8]>, direction| {
            key.map_or(u64::MAX, |key| merge.rank_in(key, direction))
        };
        let from_rank = rank(range.low(), Direction::Backwards);
        let to_rank = rank(range.high(), Direction::Forwards);
        let (place, key, value) = (Place::Nowhere, Vec::new(), Bytes::new());
        Cursor { merge, range, sequence, place, key, rank: 0, from_rank, to_rank, value }
    }

    /// The entry it is at, if it is at one.
    #[inline]
    #[must_use]
    pub fn entry(&self) -> Option<Entry<'_>> {
        match self.place {
            Place::Entry(Direction::Forwards) => Some((&self.key, self.merge.value_ref())),
            Place::Entry(Direction::Backwards) => Some((&self.key, &self.value)),
            Place::Nowhere | Place::BeforeFirst | Place::BehindLast | Place::Failed => None,
        }
    }

    /// The value of the entry it is at, to be kept.
    #[must_use]
    pub fn value(&self) -> Option<Bytes> {
        match self.place {
            Place::Entry(Direction::Forwards) => Some(self.merge.value()),
            Place::Entry(Direction::Backwards) => Some(self.value.clone()),
            Place::Nowhere | Place::BeforeFirst | Place::BehindLast | Place::Failed => None,
        }
    }

    /// To the first entry of the range.
    pub fn first(&mut self) -> Result<Option<Entry<'_>>> {
        let place = self.enter(Direction::Forwards);
        self.arrive(place)
    }

    /// To the last entry of the range.
    pub fn last(&mut self) -> Result<Option<Entry<'_>>> {
        let place = self.enter(Direction::Backwards);
        self.arrive(place)
    }

    /// To the first entry of the range at or after this key.
    pub fn seek(&mut self, key: &[u8]) -> Result<Option<Entry<'_>>> {
        if self.range.is_below(key) {
            return self.first();
        }
        let sought = self.merge.seek(Some((key, Tag::NEWEST)), Direction::Forwards);
        let place = sought.and_then(|()| self.find_forwards(false));
        self.arrive(place)
    }

    /// To the last entry of the range at or before this key.
    pub fn seek_back(&mut self, key: &[u8]) -> Result<Option<Entry<'_>>> {
        if self.range.is_above(key) {
            return self.last();
        }
        let sought = self.merge.seek(Some((key, Tag::OLDEST)), Direction::Backwards);
        let place = sought.and_then(|()| self.find_backwards());
        self.arrive(place)
    }

    /// To the next entry of the range.
    #[expect(clippy::should_implement_trait, reason = "an iterator could not lend its items")]
    #[inline]
    pub fn next(&mut self) -> Result<Option<Entry<'_>>> {
        let place = self.go(Direction::Forwards);
        self.arrive(place)
    }

    /// To the entry of the range before this one.
    #[inline]
    pub fn previous(&mut self) -> Result<Option<Entry<'_>>> {
        let place = self.go(Direction::Backwards);
        self.arrive(place)
    }

    #[inline]
    fn arrive(&mut self, place: Result<Place>) -> Result<Option<Entry<'_>>> {
        match place {
            Ok(place) => {
                self.place = place;
                Ok(self.entry())
            }
            Err(error) => {
                self.place = Place::Failed;
                Err(error)
            }
        }
    }

    #[inline(always)]
    fn go(&mut self, direction: Direction) -> Result<Place> {
        match (self.place, direction) {
            (Place::Entry(Direction::Forwards), Direction::Forwards) => {
                self.merge.step()?;
                self.find_forwards(true)
            }
            (Place::Entry(Direction::Backwards), Direction::Backwards) => self.find_backwards(),
            (Place::Entry(_), _) => self.turn(direction),
            (Place::Nowhere, _)
            | (Place::BeforeFirst, Direction::Forwards)
            | (Place::BehindLast, Direction::Backwards) => self.enter(direction),
            (Place::BeforeFirst | Place::BehindLast | Place::Failed, _) => Ok(self.place),
        }
    }

    /// Into the range, at the end where a walk in this direction begins.
    fn enter(&mut self, direction: Direction) -> Result<Place> {
        self.merge.seek(self.range.start(direction), direction)?;
        match direction {
            Direction::Forwards => self.find_forwards(false),
            Direction::Backwards => self.find_backwards(),
        }
    }

    /// Goes on from the current entry in the other direction.
    fn turn(&mut self, direction: Direction) -> Result<Place> {
        match direction {
            Direction::Forwards => {
                self.merge.seek(Some((&self.key, Tag::OLDEST)), direction)?;
                self.find_forwards(false)
            }
            Direction::Backwards => {
                self.merge.seek(Some((&self.key, Tag::NEWEST)), direction)?;
                self.find_backwards()
            }
        }
    }

    /// From where `merge` is to a visible entry. Versions come newest first: the first that is not
    /// too new is the one. If `is_noted`, what is left of the key noted last is passed.
    #[inline]
    fn find_forwards(&mut self, mut is_noted: bool) -> Result<Place> {
        let (mut steps, mut last_rank) = (0, None);
        while let Some((key, tag)) = self.merge.current() {
            let rank = self.merge.current_rank();
            if rank >= self.to_rank && self.range.is_above(key) {
                break;
            }
            let is_older = is_noted && rank == self.rank && key == self.key;
            if !is_older && tag.sequence() <= self.sequence {
                self.rank = rank;
                self.key.clear();
                self.key.extend_from_slice(key);
                is_noted = true;
                if tag.kind() == Kind::Put {
                    return Ok(Place::Entry(Direction::Forwards));
                }
                steps = 0;
            } else if last_rank.replace(rank) == Some(rank) {
                steps += 1;
            } else {
                steps = 0;
            }
            if steps < STEPS_MAX {
                self.merge.step()?;
            } else {
                self.pass_versions(is_older)?;
                steps = 0;
            }
        }
        Ok(Place::BehindLast)
    }

    /// On by a search: from a version that is too new to the first that is not, or else to what
    /// follows the current key.
    fn pass_versions(&mut self, is_older: bool) -> Result<()> {
        let Some((key, _)) = self.merge.current() else { return Ok(()) };
        let key = key.to_vec();
        let tag = if is_older { Tag::OLDEST } else { Tag::newest_of(self.sequence) };
        self.merge.skip_to((&key, tag))
    }

    /// As [`Cursor::find_forwards`], the other way: versions come oldest first, so the last that is
    /// not too new is the one.
    fn find_backwards(&mut self) -> Result<Place> {
        while let Some((key, _)) = self.merge.current() {
            let rank = self.merge.current_rank();
            if rank >= self.from_rank && self.range.is_below(key) {
                break;
            }
            self.rank = rank;
            self.key.clear();
            self.key.extend_from_slice(key);
            if let Some(value) = self.last_visible()? {
                self.value = value;
                return Ok(Place::Entry(Direction::Backwards));
            }
        }
        Ok(Place::BeforeFirst)
    }

    /// Passes all versions of the key noted, backwards. Answers with the visible one's value.
    fn last_visible(&mut self) -> Result<Option<Bytes>> {
        let mut seen = None;
        let mut steps = 0;
        while let Some((key, tag)) = self.merge.current()
            && self.merge.current_rank() == self.rank
            && key == self.key
        {
            if steps == STEPS_MAX {
                return self.search_visible();
            }
            if tag.sequence() <= self.sequence {
                seen = (tag.kind() == Kind::Put).then(|| self.merge.value());
            }
            self.merge.step()?;
            steps += 1;
        }
        Ok(seen)
    }

    /// The same by searches instead of steps.
    fn search_visible(&mut self) -> Result<Option<Bytes>> {
        let newest = Tag::newest_of(self.sequence);
        self.merge.seek(Some((&self.key, newest)), Direction::Forwards)?;
        let seen = match self.merge.current() {
            Some((key, tag)) if key == self.key && tag.kind() == Kind::Put => {
                Some(self.merge.value())
            }
            _ => None,
        };
        self.merge.seek(Some((&self.key, Tag::NEWEST)), Direction::Backwards)?;
        Ok(seen)
    }
}

/// The keys of a range and their values, as they were when the scan began: a [`Cursor`] that goes
/// one way.
///
/// It is an iterator over what can be kept. [`Scan::advance`] answers with what is lent until the
/// next call, which costs less. After an error the scan has ended.
pub struct Scan {
    cursor: Cursor,
    direction: Direction,
    state: State,
}

/// How far a scan is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the first entry, which was not given away yet.
    Begun,
    Going,
    Ended,
}

impl Scan {
    pub(crate) fn new(mut cursor: Cursor, direction: Direction) -> Result<Scan> {
        match direction {
            Direction::Forwards => cursor.first()?,
            Direction::Backwards => cursor.last()?,
        };
        Ok(Scan { cursor, direction, state: State::Begun })
    }

    /// The next key and its value, until the next call.
    #[inline]
    pub fn advance(&mut self) -> Result<Option<Entry<'_>>> {
        let moved = match (self.state, self.direction) {
            (State::Begun, _) => Ok(()),
            (State::Going, Direction::Forwards) => self.cursor.next().map(drop),
            (State::Going, Direction::Backwards) => self.cursor.previous().map(drop),
            (State::Ended, _) => return Ok(None),
        };
        self.state = State::Going;
        if moved.is_err() || self.cursor.entry().is_none() {
            self.state = State::Ended;
            // What it has read from need not be kept any longer.
            self.cursor.merge.end();
        }
        moved.map(|()| self.cursor.entry())
    }
}

impl Iterator for Scan {
    type Item = Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        let key = match self.advance() {
            Ok(entry) => Bytes::copy_from_slice(entry?.0),
            Err(error) => return Some(Err(error)),
        };
        self.cursor.value().map(|value| Ok((key, value)))
    }
}

impl std::iter::FusedIterator for Scan {}
