//! Locks of one replica, and who waits for them: *wait-die* (Rosenkrantz, Stearns and Lewis 1978).
//!
//! Whoever finds others in its way, holding a lock or waiting for one, may wait behind them if it is
//! older than all of them; else it dies. So waits go from older to younger only, at each replica and
//! over all of them, and never close a circle; and the oldest of all never dies. Who waits has a
//! claim on all it wants: what comes later does not slip past it. Locks are given in the order of
//! arrival, which here is from the youngest to the oldest.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Bound;

use super::audit::Wait;
use super::message::{Age, TxnId, Work};
use super::planted::{Bug, Planted};
use crate::request::{ClientId, Key, Range, Stamp};
use crate::two_phase::locks::LockSet;

/// What can be locked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Resource {
    Key(Key),
    /// A session: alone while it is opened, shared by its writes.
    Session(ClientId),
    /// One write of a session, by its sequence: two tries of it are not in flight at once.
    Write(ClientId, u64),
}

/// What one transaction locks, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Nobody else may lock these at all.
    pub(super) exclusive: Vec<Resource>,
    /// Others may share these.
    pub(super) shared: Vec<Resource>,
}

impl Wanted {
    pub(super) fn of(work: &Work) -> Self {
        match work {
            Work::OpenSession { client } => {
                Self { exclusive: Vec::from([Resource::Session(*client)]), shared: Vec::new() }
            }
            Work::Write { stamp, writes, checked } => {
                Self::of_keys(LockSet::new(writes, checked.clone()), *stamp)
            }
        }
    }

    pub(super) fn of_keys(keys: LockSet, stamp: Option<Stamp>) -> Self {
        let written = keys.exclusive.into_iter().map(Resource::Key);
        let checked = keys.shared.into_iter().map(Resource::Key);
        let Some(Stamp { client, sequence, .. }) = stamp else {
            return Self { exclusive: written.collect(), shared: checked.collect() };
        };
        // Before the keys: that another try of the same write is in the way says more than that its
        // keys are.
        let mut exclusive = Vec::from([Resource::Write(client, sequence)]);
        let mut shared = Vec::from([Resource::Session(client)]);
        exclusive.extend(written);
        shared.extend(checked);
        Self { exclusive, shared }
    }

    fn each(&self) -> impl Iterator<Item = (&Resource, Mode)> {
        let exclusive = self.exclusive.iter().map(|resource| (resource, Mode::Exclusive));
        exclusive.chain(self.shared.iter().map(|resource| (resource, Mode::Shared)))
    }
}

/// What came of a request for locks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// All of them are held.
    Held,
    /// It waits for younger ones.
    Waits,
    /// Somebody older, holding this or waiting for it, was in the way; or the queue is full. Nothing
    /// is kept.
    Dies(Resource),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Exclusive,
    Shared,
}

impl Mode {
    fn goes_with(self, other: Self) -> bool {
        self == Self::Shared && other == Self::Shared
    }
}

/// Counts arrivals in the queue.
type Ticket = u64;

/// Who holds a resource, and who waits for it.
#[derive(Clone, Debug, Default)]
struct Place {
    /// One exclusive holder, or any number of those who share.
    holders: Vec<(TxnId, Mode)>,
    claims: BTreeMap<Ticket, (TxnId, Mode)>,
}

#[derive(Clone, Debug)]
struct Party {
    age: Age,
    wanted: Arc<Wanted>,
    /// Its place in the queue, while it waits.
    ticket: Option<Ticket>,
}

/// The locks of one replica.
#[derive(Clone, Debug)]
pub(super) struct Locks {
    places: BTreeMap<Resource, Place>,
    /// Who holds or waits.
    parties: BTreeMap<TxnId, Party>,
    waiting: usize,
    waiting_max: usize,
    last_ticket: Ticket,
    /// What was let go since [`Locks::hand_on`] was called last.
    freed: BTreeSet<Resource>,
    planted: Planted,
}

impl Locks {
    pub(super) fn new(waiting_max: usize, planted: Planted) -> Self {
        Self {
            places: BTreeMap::new(),
            parties: BTreeMap::new(),
            waiting: 0,
            waiting_max,
            last_ticket: 0,
            freed: BTreeSet::new(),
            planted,
        }
    }

    /// Locks all, or waits, or dies.
    pub(super) fn ask(&mut self, txn: TxnId, age: Age, wanted: Arc<Wanted>) -> Asked {
        assert!(!self.parties.contains_key(&txn), "a transaction asks once");
        let mut in_the_way = None;
        for (resource, mode) in wanted.each() {
            let Some(place) = self.places.get(resource) else { continue };
            for other in self.others(place, mode, Ticket::MAX) {
                let must_die = self.parties[&other].age.is_older_than(&age);
                if must_die && !self.planted.has(Bug::WaitForOlder) {
                    return Asked::Dies(resource.clone());
                }
                in_the_way = Some(resource);
            }
        }
        match in_the_way {
            None => {
                self.take(txn, &wanted);
                self.parties.insert(txn, Party { age, wanted, ticket: None });
                Asked::Held
            }
            Some(resource) if self.waiting >= self.waiting_max => Asked::Dies(resource.clone()),
            Some(_) => {
                self.enqueue(txn, age, wanted);
                Asked::Waits
            }
        }
    }

    /// Who is in the way of this mode: who holds the place, and who waits for it with an earlier
    /// ticket.
    fn others(
        &self,
        place: &Place,
        mode: Mode,
        before: Ticket,
    ) -> impl Iterator<Item = TxnId> + use<> {
        let before = if self.planted.has(Bug::LockWithoutClaim) { 0 } else { before };
        let claims = place.claims.range(..before).map(|(_, claim)| claim);
        let found: Vec<TxnId> = place
            .holders
            .iter()
            .chain(claims)
            .filter(|(_, other)| !other.goes_with(mode))
            .map(|(txn, _)| *txn)
            .collect();
        found.into_iter()
    }

    fn take(&mut self, txn: TxnId, wanted: &Wanted) {
        for (resource, mode) in wanted.each() {
            self.places.entry(resource.clone()).or_default().holders.push((txn, mode));
        }
    }

    fn enqueue(&mut self, txn: TxnId, age: Age, wanted: Arc<Wanted>) {
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        for (resource, mode) in wanted.each() {
            let place = self.places.entry(resource.clone()).or_default();
            place.claims.insert(ticket, (txn, mode));
        }
        self.waiting += 1;
        self.parties.insert(txn, Party { age, wanted, ticket: Some(ticket) });
    }

    /// Lets go what the transaction holds, or waits for.
    pub(super) fn release(&mut self, txn: TxnId) {
        let party = self.parties.remove(&txn).expect("who lets go has asked");
        if let Some(ticket) = party.ticket {
            self.waiting -= 1;
            self.drop_claims(ticket, &party.wanted);
        } else {
            for (resource, _) in party.wanted.each() {
                let place = self.places.get_mut(resource).expect("what is held has a place");
                place.holders.retain(|(holder, _)| *holder != txn);
                if place.holders.is_empty() && place.claims.is_empty() {
                    self.places.remove(resource);
                }
            }
        }
        self.freed.extend(party.wanted.each().map(|(resource, _)| resource.clone()));
    }

    fn drop_claims(&mut self, ticket: Ticket, wanted: &Wanted) {
        for (resource, _) in wanted.each() {
            let place = self.places.get_mut(resource).expect("what is claimed has a place");
            place.claims.remove(&ticket);
            if place.holders.is_empty() && place.claims.is_empty() {
                self.places.remove(resource);
            }
        }
    }

    /// Gives what was let go to those who wait for it. Says who holds its locks now, and what was
    /// let go, for those who wait without a claim.
    pub(super) fn hand_on(&mut self) -> (Vec<TxnId>, BTreeSet<Resource>) {
        let freed = core::mem::take(&mut self.freed);
        let mut candidates: BTreeMap<Ticket, TxnId> = BTreeMap::new();
        for place in freed.iter().filter_map(|resource| self.places.get(resource)) {
            for (ticket, (txn, mode)) in &place.claims {
                candidates.insert(*ticket, *txn);
                // Who comes behind it is in no better place than it.
                if *mode == Mode::Exclusive && !self.planted.has(Bug::LockWithoutClaim) {
                    break;
                }
            }
        }
        let mut granted = Vec::new();
        for (ticket, txn) in candidates {
            let wanted = self.parties[&txn].wanted.clone();
            let is_free = wanted.each().all(|(resource, mode)| {
                let place = &self.places[resource];
                self.others(place, mode, ticket).next().is_none()
            });
            if is_free {
                self.drop_claims(ticket, &wanted);
                self.take(txn, &wanted);
                self.waiting -= 1;
                self.parties.get_mut(&txn).expect("it waits").ticket = None;
                granted.push(txn);
            }
        }
        (granted, freed)
    }

    /// Whether somebody holds it or waits for it.
    pub(super) fn is_taken(&self, resource: &Resource) -> bool {
        self.places.contains_key(resource)
    }

    /// Writes of a session that are in flight.
    pub(super) fn writes_of(&self, client: ClientId) -> usize {
        let all = Resource::Write(client, 0)..=Resource::Write(client, u64::MAX);
        self.places.range(all).count()
    }

    /// Who holds the key alone.
    pub(super) fn writer(&self, key: &Key) -> Option<TxnId> {
        self.places.get(&Resource::Key(key.clone())).and_then(writer)
    }

    /// Who holds a key of the range alone; a transaction with several keys in it comes several times.
    pub(super) fn writers_in(&self, range: &Range) -> impl Iterator<Item = TxnId> {
        // A range whose end is before its start holds nothing, and would make the map panic.
        let empty = range.end.as_ref().is_some_and(|end| *end <= range.start);
        let start = Resource::Key(range.start.clone());
        let end = match &range.end {
            _ if empty => Bound::Included(start.clone()),
            Some(end) => Bound::Excluded(Resource::Key(end.clone())),
            // Keys come before everything else.
            None => Bound::Excluded(Resource::Session(ClientId(0))),
        };
        self.places
            .range((Bound::Included(start), end))
            .filter(move |_| !empty)
            .filter_map(|(_, place)| writer(place))
    }

    /// Who holds a lock.
    pub(super) fn holders(&self) -> impl Iterator<Item = TxnId> {
        self.parties.iter().filter(|(_, party)| party.ticket.is_none()).map(|(txn, _)| *txn)
    }

    /// Who waits for one.
    pub(super) fn waiters(&self) -> impl Iterator<Item = TxnId> {
        self.parties.iter().filter(|(_, party)| party.ticket.is_some()).map(|(txn, _)| *txn)
    }

    /// Who waits for whom.
    pub(super) fn waits(&self) -> Vec<Wait> {
        let mut waits = Vec::new();
        for (waiter, party) in &self.parties {
            let Some(ticket) = party.ticket else { continue };
            for (resource, mode) in party.wanted.each() {
                let Some(place) = self.places.get(resource) else { continue };
                let claims = place.claims.range(..ticket).map(|(_, claim)| claim);
                let others = place.holders.iter().chain(claims);
                for (other, _) in others.filter(|(_, other)| !other.goes_with(mode)) {
                    waits.push(Wait {
                        waiter: *waiter,
                        waiter_age: party.age,
                        waits_for: *other,
                        age: self.parties[other].age,
                    });
                }
            }
        }
        waits
    }

    /// Keys, sessions and writes locked.
    pub(super) fn len(&self) -> usize {
        self.places.values().filter(|place| !place.holders.is_empty()).count()
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }
}

fn writer(place: &Place) -> Option<TxnId> {
    match place.holders[..] {
        [(txn, Mode::Exclusive)] => Some(txn),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::String;
    use alloc::vec;

    use super::*;
    use crate::contract::NodeId;

    fn txn(number: u64) -> TxnId {
        TxnId { coordinator: NodeId(1), epoch: 1, number }
    }

    /// By the letters of two words; the number is the age too, so a smaller one is older.
    fn ask(locks: &mut Locks, number: u64, writes: &str, checks: &str) -> Asked {
        let age = Age { clock: number, first: txn(number) };
        let resource = |letter: char| Resource::Key(Key::from(vec![letter as u8]));
        let wanted = Wanted {
            exclusive: writes.chars().map(resource).collect(),
            shared: checks.chars().map(resource).collect(),
        };
        locks.ask(txn(number), age, Arc::new(wanted))
    }

    fn dies(letter: char) -> Asked {
        Asked::Dies(Resource::Key(Key::from(vec![letter as u8])))
    }

    fn granted(locks: &mut Locks) -> Vec<u64> {
        locks.hand_on().0.into_iter().map(|txn| txn.number).collect()
    }

    fn locks() -> Locks {
        Locks::new(3, Planted::default())
    }

    #[test]
    fn who_is_older_waits_and_who_is_younger_dies() {
        // Held by transaction 5, wanted by another, and what comes of it.
        let cases = [
            (("a", ""), 9, ("a", ""), dies('a')),
            (("a", ""), 3, ("a", ""), Asked::Waits),
            (("a", ""), 9, ("b", ""), Asked::Held),
            (("", "a"), 9, ("", "a"), Asked::Held),
            (("", "a"), 9, ("a", ""), dies('a')),
            (("", "a"), 3, ("a", ""), Asked::Waits),
            (("a", ""), 3, ("", "a"), Asked::Waits),
            (("b", ""), 9, ("a", "bc"), dies('b')),
        ];
        for ((held_writes, held_checks), other, (writes, checks), expected) in cases {
            let mut locks = locks();
            assert_eq!(ask(&mut locks, 5, held_writes, held_checks), Asked::Held);
            let asked = ask(&mut locks, other, writes, checks);
            assert_eq!(asked, expected, "{other} wants {writes}/{checks}");
            if !matches!(asked, Asked::Dies(_)) {
                locks.release(txn(other));
            }
            locks.release(txn(5));
            assert_eq!((locks.len(), locks.waiting(), locks.places.len()), (0, 0, 0));
        }
    }

    #[test]
    fn one_older_among_those_in_the_way_is_enough_to_die() {
        let mut locks = locks();
        assert_eq!(ask(&mut locks, 9, "a", ""), Asked::Held);
        assert_eq!(ask(&mut locks, 2, "b", ""), Asked::Held);
        assert_eq!(ask(&mut locks, 5, "ab", ""), dies('b'));
        assert_eq!(locks.waiting(), 0, "who dies keeps no claim");
    }

    #[test]
    fn who_waits_has_a_claim_on_all_it_wants() {
        let mut locks = locks();
        assert_eq!(ask(&mut locks, 9, "a", ""), Asked::Held);
        assert_eq!(ask(&mut locks, 5, "ab", ""), Asked::Waits);
        // The lock is free, and the claim of an older one is in the way.
        assert_eq!(ask(&mut locks, 7, "b", ""), dies('b'));
        // Who is older still waits behind it.
        assert_eq!(ask(&mut locks, 3, "b", ""), Asked::Waits);
        locks.release(txn(9));
        assert_eq!(granted(&mut locks), [5]);
        locks.release(txn(5));
        assert_eq!(granted(&mut locks), [3]);
        locks.release(txn(3));
        assert_eq!(locks.places.len(), 0);
    }

    #[test]
    fn those_who_share_are_let_in_together_and_no_further_than_a_claim() {
        let mut locks = locks();
        assert_eq!(ask(&mut locks, 9, "a", ""), Asked::Held);
        assert_eq!(ask(&mut locks, 8, "", "a"), Asked::Waits);
        assert_eq!(ask(&mut locks, 7, "", "a"), Asked::Waits);
        assert_eq!(ask(&mut locks, 6, "a", ""), Asked::Waits);
        assert_eq!(ask(&mut locks, 5, "a", ""), dies('a'), "the queue is full");
        locks.release(txn(9));
        assert_eq!(granted(&mut locks), [8, 7]);
        locks.release(txn(7));
        assert_eq!(granted(&mut locks), [] as [u64; 0]);
        locks.release(txn(8));
        assert_eq!(granted(&mut locks), [6]);
    }

    #[test]
    fn who_leaves_the_queue_lets_those_behind_it_in() {
        let mut locks = locks();
        assert_eq!(ask(&mut locks, 9, "a", ""), Asked::Held);
        assert_eq!(ask(&mut locks, 5, "ab", ""), Asked::Waits);
        assert_eq!(ask(&mut locks, 3, "b", ""), Asked::Waits);
        locks.release(txn(5));
        let (granted, freed) = locks.hand_on();
        assert_eq!(granted, [txn(3)]);
        assert_eq!(freed.len(), 2, "those who wait without a claim hear of both");
    }

    #[test]
    fn writers_are_found_by_key_and_range() {
        let mut locks = locks();
        ask(&mut locks, 1, "bd", "c");
        ask(&mut locks, 2, "e", "c");
        let session = Wanted { exclusive: vec![Resource::Session(ClientId(1))], shared: vec![] };
        locks.ask(txn(3), Age { clock: 3, first: txn(3) }, Arc::new(session));
        let key = |name: &str| Key::from(String::from(name));
        assert_eq!(locks.writer(&key("b")), Some(txn(1)));
        assert_eq!(locks.writer(&key("c")), None);
        let cases: [(&str, Option<&str>, &[u64]); 6] = [
            ("a", None, &[1, 1, 2]),
            ("b", Some("d"), &[1]),
            ("c", Some("e"), &[1]),
            ("d", Some("d"), &[]),
            ("z", Some("a"), &[]),
            ("", Some("b"), &[]),
        ];
        for (start, end, writers) in cases {
            let range = Range { start: key(start), end: end.map(key), limit: 1 };
            let found: Vec<u64> = locks.writers_in(&range).map(|txn| txn.number).collect();
            assert_eq!(found, writers, "{start}..{end:?}");
        }
    }
}
