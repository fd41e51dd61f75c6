//! How writes of client sessions were settled, so that a retry is answered instead of repeated
//! (Raft dissertation §6.3).
//!
//! The table changes only with records of the log, in their order: what a restarted node rebuilds
//! is what it had, evictions included. `V` says how a write was settled: with one
//! coordinator only commits are remembered, everywhere else refusals too ([`Settled`]).

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use crate::hash::{Hashed, Seeded};
use crate::request::{ClientId, Stamp};

/// Where a table's sessions come from, and so which of them makes room first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Given out here: an unknown session has expired. The least recently used makes room.
    Given,
    /// Learnt from stamps: an unknown session is new, unless it is as old as one that made room.
    /// The oldest makes room, so that "as old as" is one number.
    Learnt,
}

/// How much a table may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SessionLimits {
    pub(crate) sessions_max: usize,
    pub(crate) outstanding_per_session_max: usize,
    pub(crate) outstanding_max: usize,
}

/// What the table says of a stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing<V> {
    New,
    Settled(V),
    Stale,
    Expired,
    TooManyOutstanding,
}

#[derive(Clone, Debug)]
struct Session<V> {
    /// Its place in the line of those that make room, if they stand in one.
    place: u64,
    answered_below: u64,
    settled: BTreeMap<u64, V>,
}

/// The table.
#[derive(Clone, Debug)]
pub(crate) struct Sessions<V> {
    origin: Origin,
    limits: SessionLimits,
    next_client: u64,
    by_client: Hashed<ClientId, Session<V>>,
    order: Order,
    outstanding: usize,
}

/// Which sessions make room before which.
#[derive(Clone, Debug)]
enum Order {
    /// The least recently used first.
    Used(Line),
    /// The oldest first.
    Oldest(BTreeSet<ClientId>),
}

/// Sessions in a line, each at the end when it was used. It leaves a gap where it stood, since nearly
/// every use moves one; now and then the line closes up.
#[derive(Clone, Debug, Default)]
struct Line {
    /// The number of the first place.
    first: u64,
    places: VecDeque<Option<ClientId>>,
    gaps: usize,
}

impl Line {
    /// The number of the place that the next one gets.
    fn end(&self) -> u64 {
        self.first + self.places.len() as u64
    }

    fn push(&mut self, client: ClientId) -> u64 {
        self.places.push_back(Some(client));
        self.end() - 1
    }

    fn remove(&mut self, place: u64) {
        let index = usize::try_from(place - self.first).expect("a line stands in memory");
        self.places[index] = None;
        self.gaps += 1;
        while let Some(None) = self.places.front() {
            self.places.pop_front();
            self.first += 1;
            self.gaps -= 1;
        }
    }

    /// Whether it is mostly gaps, and closing up costs less than what made them.
    fn is_loose(&self) -> bool {
        self.gaps > self.places.len() / 2 + 32
    }

    /// Closes up; the places are others now.
    fn close_up(&mut self) -> impl Iterator<Item = (u64, ClientId)> + '_ {
        self.places.retain(Option::is_some);
        self.gaps = 0;
        (self.first..).zip(self.places.iter().flatten().copied())
    }
}

/// How a write of a session was settled, where refusals are remembered like commits: another copy of
/// the same write, chosen later or tried at another replica, must not happen after the client was
/// told that it did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It happened.
    Committed,
    /// This precondition did not hold.
    Refused {
        /// Its place in the list, from 0.
        precondition: u32,
    },
}

/// One session, as checkpoints and snapshots keep it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionState {
    /// Whose.
    pub client: ClientId,
    /// The client will not ask for writes below this one.
    pub answered_below: u64,
    /// The writes from there on that were settled, in order, and how.
    pub settled: Vec<(u64, Settled)>,
}

impl Sessions<Settled> {
    /// All sessions, those that make room first before the others.
    pub(crate) fn states(&self) -> Vec<SessionState> {
        let state = |(client, answered_below, settled): (_, _, &BTreeMap<u64, Settled>)| {
            let settled = settled.iter().map(|(sequence, how)| (*sequence, *how)).collect();
            SessionState { client, answered_below, settled }
        };
        self.list().map(state).collect()
    }

    /// Takes back what [`Sessions::states`] told, instead of all there is.
    pub(crate) fn restore_states(&mut self, next_client: u64, states: &[SessionState]) {
        let states = states.iter().map(|state| {
            (state.client, state.answered_below, state.settled.iter().copied().collect())
        });
        self.restore(next_client, states);
    }
}

impl<V: Clone> Sessions<V> {
    pub(crate) fn new(origin: Origin, limits: SessionLimits) -> Self {
        Self {
            origin,
            limits,
            next_client: 1,
            // Sessions are given out, so nobody chooses their numbers.
            by_client: Hashed::with_hasher(Seeded::new(0)),
            order: match origin {
                Origin::Given => Order::Used(Line::default()),
                Origin::Learnt => Order::Oldest(BTreeSet::new()),
            },
            outstanding: 0,
        }
    }

    /// The number that the next session given out gets.
    pub(crate) fn next_client(&self) -> ClientId {
        ClientId(self.next_client)
    }

    /// A session was given out.
    pub(crate) fn opened(&mut self, client: ClientId) {
        self.next_client = self.next_client.max(client.0.saturating_add(1));
        self.insert(client, 0, BTreeMap::new());
        self.make_room();
    }

    /// What is known of a write, `in_flight` others of the same session not being decided yet.
    pub(crate) fn standing(&self, stamp: Stamp, in_flight: usize) -> Standing<V> {
        let Some(session) = self.by_client.get(&stamp.client) else {
            let learnable = self.origin == Origin::Learnt && stamp.client.0 >= self.next_client;
            return if learnable { Standing::New } else { Standing::Expired };
        };
        if let Some(how) = session.settled.get(&stamp.sequence) {
            return Standing::Settled(how.clone());
        }
        if stamp.sequence < session.answered_below {
            return Standing::Stale;
        }
        let max = self.limits.outstanding_per_session_max;
        if session.settled.len() + in_flight < max {
            return Standing::New;
        }
        // Only now count without those that this very stamp lets us forget.
        match session.settled.range(stamp.answered_below..).count() + in_flight < max {
            true => Standing::New,
            false => Standing::TooManyOutstanding,
        }
    }

    /// A write was settled.
    pub(crate) fn settle(&mut self, stamp: Stamp, how: V) {
        let is_learnt = self.origin == Origin::Learnt && stamp.client.0 >= self.next_client;
        if is_learnt && !self.by_client.contains_key(&stamp.client) {
            self.insert(stamp.client, 0, BTreeMap::new());
        }
        let Some(session) = self.by_client.get_mut(&stamp.client) else { return };
        session.answered_below = session.answered_below.max(stamp.answered_below);
        // Nearly always there is one to forget, and nothing to allocate for it.
        while session.settled.first_key_value().is_some_and(|(it, _)| *it < session.answered_below)
        {
            session.settled.pop_first();
            self.outstanding -= 1;
        }
        if stamp.sequence >= session.answered_below
            && session.settled.insert(stamp.sequence, how).is_none()
        {
            self.outstanding += 1;
        }
        // A learnt session keeps its place, and the one used last has the last one.
        if let Order::Used(line) = &mut self.order
            && session.place + 1 != line.end()
        {
            line.remove(session.place);
            session.place = line.push(stamp.client);
            if line.is_loose() {
                self.close_up();
            }
        }
        self.make_room();
    }

    fn close_up(&mut self) {
        let Order::Used(line) = &mut self.order else { return };
        for (place, client) in line.close_up() {
            let session = self.by_client.get_mut(&client);
            session.expect("who stands in the line is known").place = place;
        }
    }

    /// Sessions in the table.
    pub(crate) fn len(&self) -> usize {
        self.by_client.len()
    }

    /// The sessions as a checkpoint keeps them, those that make room first before the others: whose
    /// it is, below what its writes are answered, and how those from there on were settled.
    pub(crate) fn list(&self) -> impl Iterator<Item = (ClientId, u64, &BTreeMap<u64, V>)> {
        let (used, oldest) = match &self.order {
            Order::Used(line) => (Some(line.places.iter().flatten()), None),
            Order::Oldest(clients) => (None, Some(clients.iter())),
        };
        let clients = used.into_iter().flatten().chain(oldest.into_iter().flatten());
        clients.map(|client| {
            let session = &self.by_client[client];
            (*client, session.answered_below, &session.settled)
        })
    }

    /// Takes back what a checkpoint kept, instead of all there is.
    pub(crate) fn restore(
        &mut self,
        next_client: u64,
        sessions: impl Iterator<Item = (ClientId, u64, BTreeMap<u64, V>)>,
    ) {
        *self = Self::new(self.origin, self.limits);
        self.next_client = next_client;
        for (client, answered_below, settled) in sessions {
            self.insert(client, answered_below, settled);
        }
        self.make_room();
    }

    fn insert(&mut self, client: ClientId, answered_below: u64, settled: BTreeMap<u64, V>) {
        self.remove(client);
        self.outstanding += settled.len();
        let place = match &mut self.order {
            Order::Used(line) => line.push(client),
            Order::Oldest(clients) => {
                clients.insert(client);
                0
            }
        };
        self.by_client.insert(client, Session { place, answered_below, settled });
    }

    fn remove(&mut self, client: ClientId) {
        if let Some(session) = self.by_client.remove(&client) {
            self.outstanding -= session.settled.len();
            match &mut self.order {
                Order::Used(line) => line.remove(session.place),
                Order::Oldest(clients) => {
                    clients.remove(&client);
                }
            }
        }
    }

    fn make_room(&mut self) {
        while self.by_client.len() > self.limits.sessions_max
            || self.outstanding > self.limits.outstanding_max
        {
            let first = match &self.order {
                Order::Used(line) => line.places.front().copied().flatten(),
                Order::Oldest(clients) => clients.first().copied(),
            };
            let Some(client) = first else { return };
            self.remove(client);
            if self.origin == Origin::Learnt {
                self.next_client = self.next_client.max(client.0.saturating_add(1));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    const LIMITS: SessionLimits =
        SessionLimits { sessions_max: 2, outstanding_per_session_max: 3, outstanding_max: 4 };

    fn stamp(client: u64, sequence: u64, answered_below: u64) -> Stamp {
        Stamp { client: ClientId(client), sequence, answered_below }
    }

    fn listed(table: &Sessions<()>) -> Vec<(ClientId, u64, BTreeMap<u64, ()>)> {
        table.list().map(|(client, below, settled)| (client, below, settled.clone())).collect()
    }

    fn given(sessions: u64) -> Sessions<()> {
        let mut table = Sessions::new(Origin::Given, LIMITS);
        for client in 1..=sessions {
            assert_eq!(table.next_client(), ClientId(client));
            table.opened(ClientId(client));
        }
        table
    }

    #[test]
    fn a_write_is_new_then_committed_then_stale() {
        let mut table = given(1);
        assert_eq!(table.standing(stamp(1, 1, 1), 0), Standing::New);
        table.settle(stamp(1, 1, 1), ());
        assert_eq!(table.standing(stamp(1, 1, 1), 0), Standing::Settled(()));
        // Another write does not forget it, unless it says that its answer has arrived.
        table.settle(stamp(1, 3, 1), ());
        assert_eq!(table.standing(stamp(1, 1, 1), 0), Standing::Settled(()));
        assert_eq!(table.standing(stamp(1, 2, 1), 0), Standing::New);
        table.settle(stamp(1, 4, 2), ());
        assert_eq!(table.standing(stamp(1, 1, 1), 0), Standing::Stale);
        assert_eq!(table.standing(stamp(1, 3, 2), 0), Standing::Settled(()));
    }

    #[test]
    fn a_session_remembers_so_many_writes_and_no_more() {
        let mut table = given(1);
        table.settle(stamp(1, 1, 1), ());
        table.settle(stamp(1, 2, 1), ());
        assert_eq!(table.standing(stamp(1, 3, 1), 0), Standing::New);
        assert_eq!(table.standing(stamp(1, 3, 1), 1), Standing::TooManyOutstanding);
        // What the stamp itself lets go does not count.
        assert_eq!(table.standing(stamp(1, 3, 3), 1), Standing::New);
    }

    #[test]
    fn the_least_recently_used_makes_room() {
        let mut table = given(2);
        table.settle(stamp(1, 1, 1), ());
        table.opened(ClientId(3));
        assert_eq!(table.standing(stamp(2, 1, 1), 0), Standing::Expired);
        assert_eq!(table.standing(stamp(1, 1, 1), 0), Standing::Settled(()));
        assert_eq!(table.standing(stamp(9, 1, 1), 0), Standing::Expired);
        // A commit of an evicted session is no session.
        table.settle(stamp(2, 1, 1), ());
        assert_eq!(table.standing(stamp(2, 1, 1), 0), Standing::Expired);
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn the_line_of_sessions_stays_short_and_in_order() {
        let limits = SessionLimits {
            sessions_max: 50,
            outstanding_per_session_max: 3,
            outstanding_max: 999,
        };
        let mut table = Sessions::new(Origin::Given, limits);
        let mut used = Vec::new();
        for client in 1..=50 {
            table.opened(ClientId(client));
            used.push(ClientId(client));
        }
        let random = &mut crate::random::Random::new(3);
        for sequence in 1..3000 {
            // Some are never used, and stay where they are.
            let client = ClientId(1 + random.below(30));
            table.settle(stamp(client.0, sequence, sequence), ());
            used.retain(|it| *it != client);
            used.push(client);
            let order: Vec<ClientId> = table.list().map(|(client, ..)| client).collect();
            assert_eq!(order, used);
            let Order::Used(line) = &table.order else { panic!("they were given out") };
            assert!(line.places.len() <= 2 * 50 + 66, "{} places", line.places.len());
            assert_eq!(line.places.iter().flatten().count() + line.gaps, line.places.len());
        }
    }

    #[test]
    fn too_many_outstanding_writes_make_room_too() {
        let mut table = given(2);
        for sequence in 1..=3 {
            table.settle(stamp(1, sequence, 1), ());
        }
        table.settle(stamp(2, 1, 1), ());
        assert_eq!(table.len(), 2);
        table.settle(stamp(2, 2, 1), ());
        assert_eq!(table.standing(stamp(1, 1, 1), 0), Standing::Expired);
        assert_eq!(table.standing(stamp(2, 1, 1), 0), Standing::Settled(()));
    }

    #[test]
    fn a_learnt_table_forgets_the_oldest_and_knows_what_that_means() {
        let mut table = Sessions::new(Origin::Learnt, LIMITS);
        for client in [5, 2, 7] {
            assert_eq!(table.standing(stamp(client, 1, 1), 0), Standing::New);
            table.settle(stamp(client, 1, 1), ());
        }
        // 2 was the oldest, though not the least recently used; 1 is as old, 3 is not.
        assert_eq!(table.standing(stamp(2, 1, 1), 0), Standing::Expired);
        assert_eq!(table.standing(stamp(1, 1, 1), 0), Standing::Expired);
        assert_eq!(table.standing(stamp(3, 1, 1), 0), Standing::New);
        assert_eq!(table.standing(stamp(5, 1, 1), 0), Standing::Settled(()));
        // One that is too old is not learnt again.
        table.settle(stamp(1, 2, 1), ());
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn a_checkpoint_keeps_all_of_it_and_its_order() {
        for origin in [Origin::Given, Origin::Learnt] {
            let mut table = Sessions::new(origin, LIMITS);
            for client in [1, 2] {
                if origin == Origin::Given {
                    table.opened(ClientId(client));
                }
                table.settle(stamp(client, 1, 1), ());
            }
            table.settle(stamp(1, 2, 1), ());
            let mut restored = Sessions::new(origin, LIMITS);
            let kept = listed(&table);
            restored.restore(table.next_client().0, kept.clone().into_iter());
            assert_eq!(listed(&restored), kept);
            for table in [&mut table, &mut restored] {
                table.opened(ClientId(8));
            }
            assert_eq!(listed(&restored), listed(&table), "both evict the same");
        }
    }
}
