//! Sessions: every replica remembers every session and how its writes were settled, so that a retry
//! at any of them is answered instead of repeated.
//!
//! The tables of two replicas may differ in what they have forgotten, since commits that have nothing
//! to do with each other come in different orders. That costs an answer "session expired" at worst:
//! a write happens only if *every* replica takes its stamp for new.

use super::Replica;
use super::message::{Settled, Work};
use super::record::SessionTable;
use crate::request::{ClientId, Stamp};
use crate::sessions::{Sessions, Standing};

impl Replica {
    /// What this copy's table says of a stamp whose locks are held, or about to be asked for.
    pub(super) fn standing(&self, stamp: Stamp) -> Standing<Settled> {
        let in_flight = self.locks.writes_of(stamp.client).saturating_sub(1);
        self.sessions.standing(stamp, in_flight)
    }

    /// What a commit does to the sessions on this copy. It comes with the record that the copy has
    /// it, so that a restart finds the same table.
    pub(super) fn settle(&mut self, work: &Work) {
        match work {
            Work::OpenSession { client } => self.sessions.opened(*client),
            Work::Write { stamp: Some(stamp), .. } => {
                self.sessions.settle(*stamp, Settled::Committed);
            }
            Work::Write { stamp: None, .. } => {}
        }
    }

    /// A number that no other replica gives out, and that this one has not tried: each takes every
    /// N-th, from its own place on. It is above all that were opened, so that numbers grow together.
    pub(super) fn next_client(&mut self) -> ClientId {
        let replicas = self.replicas.len() as u64;
        let place = self.replicas.iter().position(|replica| *replica == self.options.id);
        let place = place.expect("this replica is one of them") as u64;
        let tried = self.coordinating.last_client;
        let least = self.sessions.next_client().0.max(tried.saturating_add(1));
        let behind = (least - 1) % replicas;
        let client = least.saturating_add((place + replicas - behind) % replicas);
        self.coordinating.last_client = client;
        ClientId(client)
    }
}

impl SessionTable {
    pub(super) fn of(sessions: &Sessions<Settled>) -> Self {
        Self { next_client: sessions.next_client().0, sessions: sessions.states() }
    }

    pub(super) fn restore_into(self, sessions: &mut Sessions<Settled>) {
        sessions.restore_states(self.next_client, &self.sessions);
    }
}
