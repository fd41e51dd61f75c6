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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use bytes::Bytes;
    use kvorum_replication::Range;
    use kvorum_storage::vfs::MemoryVfs;
    use kvorum_storage::{Batch, Durability, Options};

    use super::*;

    const START: Time = Time(1_000_000_000);

    fn key(number: u32) -> Bytes {
        Bytes::from(format!("{number:03}"))
    }

    /// A store of the keys 000 to 009, all with this value.
    fn store() -> Store {
        let options = Options::default();
        let store = Store::open(Arc::new(MemoryVfs::new()), Path::new("/data"), options).unwrap();
        write(&store, "old");
        store
    }

    fn write(store: &Store, value: &'static str) {
        let mut batch = Batch::new();
        for number in 0..10 {
            batch.put(key(number), Bytes::from_static(value.as_bytes()));
        }
        store.write(batch, Durability::Buffered).unwrap();
    }

    fn page(start: u32, limit: u32, of: Option<Held>) -> Page {
        Page { range: Range { start: key(start), end: None, limit }, last: false, of }
    }

    /// The values of a page, and where the next one is.
    fn told(answer: Answer) -> (Vec<Bytes>, bool, Option<Held>) {
        match answer {
            Answer::Page { rows, more, held } => {
                (rows.into_iter().map(|(_, value)| value).collect(), more, held)
            }
            other => panic!("no page: {other:?}"),
        }
    }

    #[test]
    fn all_pages_are_of_the_moment_of_the_first() {
        let (store, mut holding) = (store(), Holding::new(7));
        let (values, more, held) = told(holding.page(START, &store, &page(0, 4, None)));
        assert_eq!((values.len(), more), (4, true));
        let held = held.unwrap();
        assert_eq!((held.run, held.number), (7, 1));
        write(&store, "new");
        let (values, more, again) = told(holding.page(START, &store, &page(4, 4, Some(held))));
        assert_eq!((values, more, again), (vec![Bytes::from("old"); 4], true, Some(held)));
        let (values, more, again) = told(holding.page(START, &store, &page(8, 4, Some(held))));
        assert_eq!((values, more, again), (vec![Bytes::from("old"); 2], false, None));
        let (values, ..) = told(holding.page(START, &store, &page(8, 4, None)));
        assert_eq!(values, ["new"; 2]);
    }

    #[test]
    fn what_fits_into_one_page_is_not_held() {
        let (store, mut holding) = (store(), Holding::new(7));
        for (limit, last) in [(10, false), (20, false), (3, true)] {
            let page = Page { last, ..page(0, limit, None) };
            assert_eq!(told(holding.page(START, &store, &page)).2, None, "{limit}");
        }
        assert!(holding.held.is_empty());
    }

    #[test]
    fn a_snapshot_is_held_for_a_while_after_each_page() {
        let (store, mut holding) = (store(), Holding::new(7));
        let held = told(holding.page(START, &store, &page(0, 1, None))).2;
        let nearly = HELD_FOR - Duration::from_nanos(1);
        let later = START.after(nearly);
        told(holding.page(later, &store, &page(1, 1, held)));
        let later = later.after(nearly);
        told(holding.page(later, &store, &page(2, 1, held)));
        let late = later.after(HELD_FOR);
        assert_eq!(holding.page(late, &store, &page(3, 1, held)), Answer::NotHeld);
        assert!(holding.held.is_empty());
    }

    #[test]
    fn who_asks_for_the_last_page_again_gets_it_again() {
        let (store, mut holding) = (store(), Holding::new(7));
        let held = told(holding.page(START, &store, &page(0, 9, None))).2;
        for _ in 0..2 {
            let (values, more, none) = told(holding.page(START, &store, &page(9, 9, held)));
            assert_eq!((values.len(), more, none), (1, false, None));
        }
        let later = START.after(HELD_AFTER_LAST);
        assert_eq!(holding.page(later, &store, &page(9, 9, held)), Answer::NotHeld);
    }

    #[test]
    fn names_of_other_runs_and_made_up_ones_are_not_held() {
        let (store, mut holding) = (store(), Holding::new(7));
        let held = told(holding.page(START, &store, &page(0, 1, None))).2.unwrap();
        for strange in [Held { run: 6, ..held }, Held { number: 2, ..held }] {
            let answer = holding.page(START, &store, &page(1, 1, Some(strange)));
            assert_eq!(answer, Answer::NotHeld);
        }
    }

    #[test]
    fn one_that_is_left_alone_gives_way_and_one_that_is_read_does_not() {
        let (store, mut holding) = (store(), Holding::new(7));
        let first = told(holding.page(START, &store, &page(0, 1, None))).2;
        let mut second = None;
        for _ in 1..HELD_MAX {
            second = told(holding.page(START, &store, &page(0, 1, None))).2;
        }
        assert_eq!(holding.page(START, &store, &page(0, 1, None)), Answer::TooManyHeld);
        // Such that fit into a page need none.
        told(holding.page(START, &store, &page(0, 10, None)));
        let later = START.after(GIVES_WAY_AFTER);
        told(holding.page(later, &store, &page(1, 1, first)));
        let newest = told(holding.page(later, &store, &page(0, 1, None))).2;
        assert!(newest.is_some());
        assert_eq!(holding.held.len(), HELD_MAX);
        for held in [first, second, newest] {
            told(holding.page(later, &store, &page(1, 1, held)));
        }
    }
}
