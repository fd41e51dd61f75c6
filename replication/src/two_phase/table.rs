//! A table by transaction. Transactions are numbered one after another and end nearly in that order,
//! so those that are open stand close together: a window over their numbers finds each by its place,
//! where a tree would compare names at every step.

use alloc::collections::{BTreeMap, VecDeque};
use core::ops::{Bound, Index, RangeBounds};

use super::message::TxnId;
use crate::contract::NodeId;

/// Numbers that the window spans at most. One transaction that takes long must not make it as long as
/// everything begun since: beyond this, the oldest stand beside the window, in a tree.
const WINDOW_MAX: u64 = 8192;

/// What is kept of transactions, in the order of their names.
#[derive(Clone, Debug)]
pub(super) struct TxnTable<T> {
    /// Whose numbers the window spans, and in which epoch.
    line: (NodeId, u64),
    /// The number of the window's first place. If there is none, it means nothing.
    first: u64,
    /// Its first place is taken.
    window: VecDeque<Option<T>>,
    /// The places that are taken.
    in_window: usize,
    /// Those of other epochs, or too far away. All are below the window's first.
    below: BTreeMap<TxnId, T>,
}

impl<T> Default for TxnTable<T> {
    fn default() -> Self {
        Self {
            line: (NodeId::COORDINATOR, 0),
            first: 0,
            window: VecDeque::new(),
            in_window: 0,
            below: BTreeMap::new(),
        }
    }
}

impl<T> TxnTable<T> {
    pub(super) fn len(&self) -> usize {
        self.in_window + self.below.len()
    }

    pub(super) fn get(&self, txn: &TxnId) -> Option<&T> {
        match self.place(txn) {
            Some(place) => self.window[place].as_ref(),
            None => self.below.get(txn),
        }
    }

    pub(super) fn get_mut(&mut self, txn: &TxnId) -> Option<&mut T> {
        match self.place(txn) {
            Some(place) => self.window[place].as_mut(),
            None => self.below.get_mut(txn),
        }
    }

    pub(super) fn contains_key(&self, txn: &TxnId) -> bool {
        self.get(txn).is_some()
    }

    pub(super) fn insert(&mut self, txn: TxnId, value: T) -> Option<T> {
        // Nearly always it is the one that follows the last.
        let place = txn.number.wrapping_sub(self.first);
        let is_next = place == self.window.len() as u64 && 0 < place && place < WINDOW_MAX;
        if is_next && (txn.coordinator, txn.epoch) == self.line {
            self.window.push_back(Some(value));
            self.in_window += 1;
            return None;
        }
        self.insert_anywhere(txn, value)
    }

    fn insert_anywhere(&mut self, txn: TxnId, value: T) -> Option<T> {
        let Some(place) = self.make_place(&txn) else { return self.below.insert(txn, value) };
        let old = self.window[place].replace(value);
        self.in_window += usize::from(old.is_none());
        old
    }

    pub(super) fn remove(&mut self, txn: &TxnId) -> Option<T> {
        let Some(place) = self.place(txn) else { return self.below.remove(txn) };
        let old = self.window[place].take();
        self.in_window -= usize::from(old.is_some());
        if place == 0 {
            self.trim();
        }
        old
    }

    /// Removes everything below.
    pub(super) fn remove_below(&mut self, txn: &TxnId) {
        if self.below.first_key_value().is_some_and(|(first, _)| first < txn) {
            self.below = self.below.split_off(txn);
        }
        for _ in 0..self.places_below(txn) {
            let old = self.window.pop_front().flatten();
            self.in_window -= usize::from(old.is_some());
            self.first = self.first.wrapping_add(1);
        }
        self.trim();
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn first_key(&self) -> Option<TxnId> {
        match self.below.first_key_value() {
            Some((txn, _)) => Some(*txn),
            None => (!self.window.is_empty()).then(|| self.name(0)),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (TxnId, &T)> + Clone {
        self.range(..)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (TxnId, &mut T)> {
        let (line, first) = (self.line, self.first);
        let name = move |place: usize| TxnId {
            coordinator: line.0,
            epoch: line.1,
            number: first + place as u64,
        };
        let below = self.below.iter_mut().map(|(txn, value)| (*txn, value));
        let window = self.window.iter_mut().enumerate();
        let in_window =
            window.filter_map(move |(place, value)| Some((name(place), value.as_mut()?)));
        below.chain(in_window)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = TxnId> {
        self.iter().map(|(txn, _)| txn)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.below.values().chain(self.window.iter().flatten())
    }

    pub(super) fn range(
        &self,
        range: impl RangeBounds<TxnId>,
    ) -> impl Iterator<Item = (TxnId, &T)> + Clone {
        let begin = match range.start_bound() {
            Bound::Included(txn) => self.places_below(txn),
            Bound::Excluded(txn) => self.places_to(txn),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(txn) => self.places_to(txn),
            Bound::Excluded(txn) => self.places_below(txn),
            Bound::Unbounded => self.window.len(),
        };
        let in_window = self.window.range(begin..end.max(begin)).enumerate();
        let below = self.below.range(range).map(|(txn, value)| (*txn, value));
        below.chain(in_window.filter_map(move |(index, value)| {
            value.as_ref().map(|value| (self.name(begin + index), value))
        }))
    }

    /// The transaction of a place in the window.
    fn name(&self, place: usize) -> TxnId {
        let (coordinator, epoch) = self.line;
        TxnId { coordinator, epoch, number: self.first + place as u64 }
    }

    /// Its place, if the window reaches there.
    fn place(&self, txn: &TxnId) -> Option<usize> {
        let place = txn.number.wrapping_sub(self.first);
        let is_in = place < self.window.len() as u64 && (txn.coordinator, txn.epoch) == self.line;
        // It is below the length of a window.
        is_in.then_some(place as usize)
    }

    /// How many places of the window are below the transaction's.
    fn places_below(&self, txn: &TxnId) -> usize {
        match (txn.coordinator, txn.epoch).cmp(&self.line) {
            core::cmp::Ordering::Less => 0,
            core::cmp::Ordering::Greater => self.window.len(),
            core::cmp::Ordering::Equal => {
                let below = txn.number.saturating_sub(self.first);
                usize::try_from(below).map_or(self.window.len(), |it| it.min(self.window.len()))
            }
        }
    }

    /// How many places of the window are not above the transaction's.
    fn places_to(&self, txn: &TxnId) -> usize {
        self.places_below(txn) + usize::from(self.place(txn).is_some())
    }

    /// The transaction's place, the window having been moved there; none if it goes below.
    fn make_place(&mut self, txn: &TxnId) -> Option<usize> {
        if let Some(place) = self.place(txn) {
            return Some(place);
        }
        let last_below = self.below.last_key_value().map(|(last, _)| *last);
        if last_below.is_some_and(|last| *txn <= last) {
            return None;
        }
        if self.window.is_empty() {
            (self.line, self.first) = ((txn.coordinator, txn.epoch), txn.number);
            self.window.push_back(None);
            return Some(0);
        }
        match (txn.coordinator, txn.epoch).cmp(&self.line) {
            core::cmp::Ordering::Less => None,
            core::cmp::Ordering::Greater => Some(self.begin_at(txn)),
            core::cmp::Ordering::Equal if txn.number < self.first => self.grow_down(txn),
            core::cmp::Ordering::Equal => Some(self.grow_up(txn)),
        }
    }

    /// The window begins anew at a transaction that is above all of it.
    fn begin_at(&mut self, txn: &TxnId) -> usize {
        self.put_below(self.window.len());
        (self.line, self.first) = ((txn.coordinator, txn.epoch), txn.number);
        self.window.push_back(None);
        0
    }

    fn grow_up(&mut self, txn: &TxnId) -> usize {
        let place = txn.number - self.first;
        if place >= 2 * WINDOW_MAX {
            return self.begin_at(txn);
        }
        let excess = (place + 1).saturating_sub(WINDOW_MAX) as usize;
        self.put_below(excess.min(self.window.len()));
        if self.window.is_empty() {
            return self.begin_at(txn);
        }
        let place = (txn.number - self.first) as usize;
        self.window.resize_with(place + 1, || None);
        place
    }

    fn grow_down(&mut self, txn: &TxnId) -> Option<usize> {
        let places = self.first - txn.number;
        if places + self.window.len() as u64 > WINDOW_MAX {
            return None;
        }
        for _ in 0..places {
            self.window.push_front(None);
        }
        self.first = txn.number;
        Some(0)
    }

    /// The first so many places leave the window.
    fn put_below(&mut self, places: usize) {
        for _ in 0..places {
            let name = self.name(0);
            if let Some(value) = self.window.pop_front().flatten() {
                self.in_window -= 1;
                self.below.insert(name, value);
            }
            self.first = self.first.wrapping_add(1);
        }
        self.trim();
    }

    /// The first place of the window is always a taken one.
    fn trim(&mut self) {
        while let Some(None) = self.window.front() {
            self.window.pop_front();
            self.first = self.first.wrapping_add(1);
        }
    }
}

impl<T> Index<&TxnId> for TxnTable<T> {
    type Output = T;

    fn index(&self, txn: &TxnId) -> &T {
        self.get(txn).expect("only what is in the table is looked up")
    }
}

impl<T> FromIterator<(TxnId, T)> for TxnTable<T> {
    fn from_iter<I: IntoIterator<Item = (TxnId, T)>>(rows: I) -> Self {
        let mut table = Self::default();
        for (txn, value) in rows {
            table.insert(txn, value);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::random::Random;

    fn txn(epoch: u64, number: u64) -> TxnId {
        TxnId { coordinator: NodeId::COORDINATOR, epoch, number }
    }

    /// Some transaction near the others mostly, and far from them now and then.
    fn some(random: &mut Random, at: u64) -> TxnId {
        match random.below(64) {
            0 => txn(random.below(3), random.below(100)),
            1 => txn(2, at + random.below(4 * WINDOW_MAX)),
            2 => txn(2, random.next_u64()),
            3 => txn(2, u64::MAX - random.below(2)),
            4 => TxnId { coordinator: NodeId(1), ..txn(2, at) },
            _ => txn(2, at + random.below(40)),
        }
    }

    fn check_same(table: &TxnTable<u64>, model: &BTreeMap<TxnId, u64>, random: &mut Random) {
        assert_eq!(table.len(), model.len());
        assert_eq!(table.first_key(), model.keys().next().copied());
        let rows: Vec<(TxnId, u64)> = model.iter().map(|(txn, value)| (*txn, *value)).collect();
        assert_eq!(table.iter().map(|(txn, value)| (txn, *value)).collect::<Vec<_>>(), rows);
        assert!(table.values().eq(model.values()));
        let Some((from, _)) = rows.get(random.below(rows.len() as u64 + 1) as usize) else {
            return;
        };
        let list = |range: (Bound<TxnId>, Bound<TxnId>)| {
            let found: Vec<TxnId> = table.range(range).map(|(txn, _)| txn).collect();
            let expected: Vec<TxnId> = model.range(range).map(|(txn, _)| *txn).collect();
            assert_eq!(found, expected, "{range:?}");
        };
        for from in [*from, TxnId { number: from.number.saturating_sub(1), ..*from }] {
            list((Bound::Included(from), Bound::Unbounded));
            list((Bound::Excluded(from), Bound::Unbounded));
            list((Bound::Unbounded, Bound::Included(from)));
            list((Bound::Unbounded, Bound::Excluded(from)));
        }
    }

    #[test]
    fn it_is_an_ordered_map() {
        for seed in 0..40 {
            let random = &mut Random::new(seed);
            let (mut table, mut model) = (TxnTable::default(), BTreeMap::new());
            let mut at = 1;
            for step in 0..1200 {
                let txn = some(random, at);
                match random.below(8) {
                    0..=3 => assert_eq!(table.insert(txn, step), model.insert(txn, step)),
                    4 | 5 => assert_eq!(table.remove(&txn), model.remove(&txn)),
                    6 => {
                        if let Some(value) = table.get_mut(&txn) {
                            *value += 1;
                        }
                        if let Some(value) = model.get_mut(&txn) {
                            *value += 1;
                        }
                    }
                    // Not all at once, mostly.
                    _ if random.below(4) == 0 && (txn.number < 4 * WINDOW_MAX || step % 9 == 0) => {
                        table.remove_below(&txn);
                        model = model.split_off(&txn);
                    }
                    _ => at += random.below(20),
                }
                assert_eq!(table.get(&txn), model.get(&txn));
                assert_eq!(table.contains_key(&txn), model.contains_key(&txn));
                check_same(&table, &model, random);
            }
            table.clear();
            assert_eq!(table.len(), 0);
        }
    }

    #[test]
    fn one_that_takes_long_does_not_make_the_window_long() {
        let mut table = TxnTable::default();
        for number in 1..=4 * WINDOW_MAX {
            table.insert(txn(1, number), number);
            if number > 10 {
                table.remove(&txn(1, number - 5));
            }
            assert!(table.window.len() as u64 <= WINDOW_MAX);
        }
        assert_eq!(
            table.keys().map(|txn| txn.number).take(6).collect::<Vec<_>>(),
            [1, 2, 3, 4, 5, 4 * WINDOW_MAX - 4]
        );
        assert_eq!(table.window.len(), 5, "what it leaves behind is not looked through");
        // Of a number that nobody can have given there is no long window either.
        table.insert(txn(1, u64::MAX), 0);
        assert_eq!(table.window.len(), 1);
        assert_eq!(table.len(), 11);
    }

    #[test]
    fn a_new_epoch_has_a_window_of_its_own() {
        let mut table: TxnTable<u64> = (1..4).map(|number| (txn(1, number), number)).collect();
        table.insert(txn(2, 1), 10);
        assert_eq!(table.line.1, 2);
        table.insert(txn(1, 9), 9);
        assert_eq!(table.values().copied().collect::<Vec<_>>(), [1, 2, 3, 9, 10]);
        table.remove_below(&txn(2, 0));
        assert_eq!(table.values().copied().collect::<Vec<_>>(), [10]);
    }
}
