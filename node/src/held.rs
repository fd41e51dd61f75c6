//! Snapshots that are held for the pages of clients' scans.
//!
//! A snapshot of the store is a number, and costs nothing to take; but as long as it is held,
//! compactions keep the versions that it sees. So each is held for a while after its last page, and
//! only so many at a time. There is no clock here: whoever calls says what time it is.

use std::collections::BTreeMap;
use std::time::Duration;

use kvorum_replication::{Answer, Held, NodeId, Page, Time};
use kvorum_storage::{Snapshot, Store};

use crate::keeper::scan;

/// How long a snapshot is held after a page: long enough for a client that writes to a slow disk
/// between two pages, short enough that what is overwritten meanwhile is soon gone.
pub const HELD_FOR: Duration = Duration::from_secs(30);

/// How long it is held after the last page, for one who asks again since the answer was lost.
const HELD_AFTER_LAST: Duration = Duration::from_secs(2);

/// Snapshots held at a time. Each costs some hundred bytes, and the versions that only it sees.
pub(crate) const HELD_MAX: usize = 256;

/// Whoever has not come for its next page for so long gives way if there are too many. Nobody who
/// reads page after page does, so that many scans at once do not keep one another from ending.
const GIVES_WAY_AFTER: Duration = Duration::from_secs(5);

/// The snapshots. See the module's documentation.
pub(crate) struct Holding {
    /// Tells this run's names from those of the runs before.
    run: u64,
    last: u64,
    held: BTreeMap<u64, Hold>,
}

struct Hold {
    snapshot: Snapshot,
    read_at: Time,
    until: Time,
}

impl Holding {
    /// Nothing held. No other run of the same node may have had this number.
    pub(crate) fn new(run: u64) -> Self {
        Self { run, last: 0, held: BTreeMap::new() }
    }

    /// Answers with a page, of the snapshot it names or of a new one.
    pub(crate) fn page(&mut self, now: Time, store: &Store, page: &Page) -> Answer {
        self.drop_expired(now);
        match page.of {
            Some(held) if held.run == self.run => self.next(now, held.number, page),
            Some(_) => Answer::NotHeld,
            None => self.first(now, store, page),
        }
    }

    /// Lets go of what nobody has come back for.
    pub(crate) fn drop_expired(&mut self, now: Time) {
        self.held.retain(|_, hold| now < hold.until);
    }

    fn first(&mut self, now: Time, store: &Store, page: &Page) -> Answer {
        let snapshot = store.snapshot();
        let (rows, more) = match scan(&snapshot, &page.range) {
            Ok(found) => found,
            Err(error) => return Answer::Failed(error.to_string()),
        };
        if !goes_on(page, rows.len(), more) {
            return Answer::Page { rows, more, held: None };
        }
        if !self.make_room(now) {
            return Answer::TooManyHeld;
        }
        self.last += 1;
        let hold = Hold { snapshot, read_at: now, until: now.after(HELD_FOR) };
        self.held.insert(self.last, hold);
        Answer::Page { rows, more, held: Some(self.name(self.last)) }
    }

    fn next(&mut self, now: Time, number: u64, page: &Page) -> Answer {
        let Some(hold) = self.held.get_mut(&number) else { return Answer::NotHeld };
        let (rows, more) = match scan(&hold.snapshot, &page.range) {
            Ok(found) => found,
            Err(error) => return Answer::Failed(error.to_string()),
        };
        let goes_on = goes_on(page, rows.len(), more);
        hold.read_at = now;
        hold.until = now.after(if goes_on { HELD_FOR } else { HELD_AFTER_LAST });
        Answer::Page { rows, more, held: goes_on.then(|| self.name(number)) }
    }

    /// Whether one more may be held. The one that was left alone for longest gives way.
    fn make_room(&mut self, now: Time) -> bool {
        if self.held.len() < HELD_MAX {
            return true;
        }
        let oldest = self.held.iter().min_by_key(|(_, hold)| hold.read_at);
        let Some((&number, hold)) = oldest else { return true };
        let gives_way = now.since(hold.read_at) >= GIVES_WAY_AFTER;
        if gives_way {
            self.held.remove(&number);
        }
        gives_way
    }

    /// The replica's number is for its core to say.
    fn name(&self, number: u64) -> Held {
        Held { by: NodeId(0), run: self.run, number }
    }
}

/// Whether another page may be asked for behind one of so many rows.
fn goes_on(page: &Page, rows: usize, more: bool) -> bool {
    more && !(page.last && rows >= page.range.limit as usize)
}
