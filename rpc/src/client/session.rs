//! Stamps: what makes a write that is asked for twice happen once.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use kvorum_replication::{ClientId, Stamp};

/// The numbers of a client's writes within its session.
#[derive(Debug, Default)]
pub(super) struct Session {
    client: Cell<Option<ClientId>>,
    next: Cell<u64>,
    /// Of the writes up to the last, from the first whose outcome is not known yet and that may be
    /// asked for again: whether it is one of those.
    open: RefCell<VecDeque<bool>>,
}

impl Session {
    pub(super) fn client(&self) -> Option<ClientId> {
        self.client.get()
    }

    pub(super) fn begin(&self, client: ClientId) {
        self.client.set(Some(client));
        self.next.set(0);
        self.open.borrow_mut().clear();
    }

    /// The cluster does not know this session any more, if it is still the current one.
    pub(super) fn expire(&self, client: ClientId) {
        if self.client.get() == Some(client) {
            self.client.set(None);
        }
    }

    /// The number of a new write.
    pub(super) fn take(&self) -> u64 {
        let sequence = self.next.get() + 1;
        self.next.set(sequence);
        self.open.borrow_mut().push_back(true);
        sequence
    }

    /// This write will not be asked for again.
    pub(super) fn settle(&self, client: ClientId, sequence: u64) {
        if self.client.get() != Some(client) {
            return;
        }
        let mut open = self.open.borrow_mut();
        let index = sequence.checked_sub(self.first(&open));
        let index = index.and_then(|index| usize::try_from(index).ok());
        if let Some(write) = index.and_then(|index| open.get_mut(index)) {
            *write = false;
        }
        while open.pop_front_if(|is_open| !*is_open).is_some() {}
    }

    /// The lowest that is open; the next one if none is.
    fn first(&self, open: &VecDeque<bool>) -> u64 {
        self.next.get() + 1 - open.len() as u64
    }

    /// The stamp of a write as it is to be sent now.
    pub(super) fn stamp(&self, client: ClientId, sequence: u64) -> Stamp {
        let open = self.open.borrow();
        let answered_below = match self.client.get() == Some(client) {
            true => self.first(&open).min(sequence),
            // Of a session that is gone nothing more is known.
            false => 0,
        };
        Stamp { client, sequence, answered_below }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answered_below_is_the_lowest_open_write() {
        let session = Session::default();
        let client = ClientId(7);
        session.begin(client);
        let (first, second, third) = (session.take(), session.take(), session.take());
        assert_eq!((first, second, third), (1, 2, 3));
        assert_eq!(session.stamp(client, third).answered_below, 1);
        session.settle(client, second);
        assert_eq!(session.stamp(client, third).answered_below, 1);
        session.settle(client, first);
        assert_eq!(session.stamp(client, third).answered_below, 3);
    }

    #[test]
    fn one_that_stays_open_holds_back_those_behind_it_and_no_others() {
        let session = Session::default();
        let client = ClientId(7);
        session.begin(client);
        for _ in 0..3 {
            let sequence = session.take();
            session.settle(client, sequence);
        }
        let slow = session.take();
        for _ in 0..1000 {
            let sequence = session.take();
            assert_eq!(session.stamp(client, sequence).answered_below, slow);
            session.settle(client, sequence);
            // Nobody settles a write twice, but it would do no harm.
            session.settle(client, sequence);
        }
        session.settle(client, slow);
        let last = session.take();
        assert_eq!(session.stamp(client, last).answered_below, last);
        session.settle(client, last);
        assert!(session.open.borrow().is_empty());
    }

    #[test]
    fn a_new_session_counts_anew_and_forgets_the_old_one() {
        let session = Session::default();
        session.begin(ClientId(1));
        session.take();
        session.expire(ClientId(2));
        assert_eq!(session.client(), Some(ClientId(1)));
        session.expire(ClientId(1));
        assert_eq!(session.client(), None);
        session.begin(ClientId(3));
        assert_eq!(session.take(), 1);
        session.settle(ClientId(1), 1);
        assert_eq!(session.stamp(ClientId(3), 1).answered_below, 1);
    }
}
