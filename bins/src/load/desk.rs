//! Where the workers of an open loop wait for something to do.
//!
//! A worker takes a seat; the desk gives it the next operation's time when that has come. While all
//! are busy nothing is kept of what comes due but its time, in the [`Schedule`]: the next worker that
//! is free begins it late, and its latency says so. What has not begun when the load ends is counted.
//!
//! Seats stand at tables, one for each connection. What comes due between two looks at the clock goes
//! to one table, the next time to the next: it leaves in one write, as it would from any program that
//! shares a connection among its users. A load that spends its time on a write for each operation
//! would be the bottleneck long before the cluster is.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::books::Books;
use super::pace::Schedule;
use super::shared::Shared;
use super::ticker::{Ticker, WAKES_APART};
use super::{LoadError, io_error};

/// While nobody is free there is nothing to wake for: who gets free looks by himself.
const WAKE_WHILE_BUSY: Duration = Duration::from_millis(1);

/// However far the next operation is: the load may be stopped before.
const WAKE_ANYWAY: Duration = Duration::from_millis(50);

/// The desk of one thread.
pub(super) struct Desk {
    shared: Arc<Shared>,
    books: Rc<Books>,
    schedule: RefCell<Schedule>,
    free: RefCell<Free>,
    /// Something is due, and nobody was free for it.
    is_behind: Cell<bool>,
    closed: Cell<bool>,
}

/// The workers that are free.
#[derive(Default)]
struct Free {
    /// By table.
    seats: Vec<VecDeque<Rc<Seat>>>,
    /// Tables where somebody is free; the one whose turn is over for longest is the next.
    tables: VecDeque<usize>,
}

impl Free {
    fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    fn sit(&mut self, seat: &Rc<Seat>) {
        if self.seats.len() <= seat.table {
            self.seats.resize_with(seat.table + 1, VecDeque::new);
        }
        if self.seats[seat.table].is_empty() {
            self.tables.push_back(seat.table);
        }
        self.seats[seat.table].push_back(Rc::clone(seat));
    }

    /// Who is free at the table whose turn it is, and has been for longest.
    fn take(&mut self) -> Option<Rc<Seat>> {
        let seats = &mut self.seats[*self.tables.front()?];
        let seat = seats.pop_front();
        if seats.is_empty() {
            self.tables.pop_front();
        }
        seat
    }

    /// It is the next table's turn.
    fn turn(&mut self) {
        if self.tables.len() > 1 {
            self.tables.rotate_left(1);
        }
    }
}

/// Where one worker waits.
pub(super) struct Seat {
    table: usize,
    given: Cell<Given>,
    waker: RefCell<Option<Waker>>,
}

#[derive(Clone, Copy, Default)]
enum Given {
    #[default]
    Nothing,
    /// An operation that was to begin at this time.
    Begin(u64),
    Closed,
}

impl Seat {
    /// At the table of this connection.
    pub(super) fn new(table: usize) -> Self {
        Self { table, given: Cell::default(), waker: RefCell::default() }
    }
}

impl Desk {
    pub(super) fn new(shared: Arc<Shared>, books: Rc<Books>, schedule: Schedule) -> Self {
        let (schedule, free) = (RefCell::new(schedule), RefCell::default());
        let (is_behind, closed) = (Cell::new(false), Cell::new(false));
        Self { shared, books, schedule, free, is_behind, closed }
    }

    /// When the worker's next operation was to begin, once that has come; none at the end.
    pub(super) async fn next(&self, seat: &Rc<Seat>) -> Option<u64> {
        self.sit(seat);
        // Else whoever looks at the clock comes soon, and has more to give away.
        if self.is_behind.get() || self.closed.get() {
            self.hand_out(self.shared.now_nanos());
        }
        poll_fn(|context| match seat.given.take() {
            Given::Nothing => {
                *seat.waker.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            }
            Given::Begin(at) => Poll::Ready(Some(at)),
            Given::Closed => Poll::Ready(None),
        })
        .await
    }

    /// Gives what comes due to those who are free, until the load ends.
    pub(super) async fn serve(&self) -> Result<(), LoadError> {
        let mut ticker = Ticker::new().map_err(io_error("making a timer"))?;
        loop {
            let now = self.shared.now_nanos();
            self.hand_out(now);
            let next = self.schedule.borrow().next_at();
            let Some(next) = next.filter(|_| !self.closed.get()) else { return Ok(()) };
            let least = match self.free.borrow().is_empty() {
                true => WAKE_WHILE_BUSY,
                false => WAKES_APART,
            };
            let wait = Duration::from_nanos(next.saturating_sub(now)).max(least).min(WAKE_ANYWAY);
            ticker.wait(wait).await.map_err(io_error("waiting for a timer"))?;
        }
    }

    fn sit(&self, seat: &Rc<Seat>) {
        self.free.borrow_mut().sit(seat);
    }

    /// Gives what is due now to those who are free, table after table.
    fn hand_out(&self, now_nanos: u64) {
        if self.closed.get() || self.shared.is_over(now_nanos) {
            return self.close();
        }
        while !self.free.borrow().is_empty() {
            let due = self.schedule.borrow_mut().take(now_nanos);
            let Some(at) = due else { break };
            if !self.shared.take_ticket(now_nanos) {
                return self.close();
            }
            self.give(Given::Begin(at));
        }
        self.free.borrow_mut().turn();
        let next = self.schedule.borrow().next_at();
        self.is_behind.set(next.is_some_and(|next| next <= now_nanos));
        if next.is_none() {
            self.close();
        }
    }

    /// Nothing more begins.
    fn close(&self) {
        if !self.closed.replace(true) {
            let end = self.shared.end_nanos();
            // One that is limited by operations has begun them all.
            if end < u64::MAX {
                let from = self.shared.measured_from_nanos().unwrap_or(end);
                let left = self.schedule.borrow_mut().take_rest(end, from);
                self.books.count_not_begun(left);
            }
        }
        while !self.free.borrow().is_empty() {
            self.give(Given::Closed);
        }
    }

    fn give(&self, given: Given) {
        let Some(seat) = self.free.borrow_mut().take() else { return };
        seat.given.set(given);
        let waker = seat.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kvorum_replication::Happened;
    use kvorum_replication::random::Random;
    use kvorum_rpc::client::{ClientError, ErrorKind};

    use super::*;
    use crate::load::worker::{Attempt, Ended};
    use crate::load::{Arrivals, LoadOptions, Pace, Summary, Until};

    const MILLI: u64 = 1_000_000;
    const SECOND: u64 = 1_000 * MILLI;

    /// A service that answers so many at once, each in a millisecond.
    struct Service {
        servers: usize,
        /// So many more may wait; others are refused, in a tenth of a millisecond.
        waiting_max: usize,
        /// Nothing ends in this time.
        stands_still: std::ops::Range<u64>,
        /// When each server is free.
        free_at: Vec<u64>,
    }

    impl Service {
        fn new(servers: usize, waiting_max: usize) -> Self {
            Self { servers, waiting_max, stands_still: 0..0, free_at: vec![0; servers] }
        }

        /// When the answer to a question at this time comes, and whether it is a good one.
        fn ask(&mut self, now: u64) -> (u64, bool) {
            let server = (0..self.servers).min_by_key(|server| self.free_at[*server]).unwrap();
            let free_at = self.free_at[server].max(now);
            if (free_at - now) / MILLI * self.servers as u64 > self.waiting_max as u64 {
                return (now + MILLI / 10, false);
            }
            let mut done = free_at + MILLI;
            if self.stands_still.contains(&done) {
                done = self.stands_still.end + MILLI;
            }
            self.free_at[server] = done;
            (done, true)
        }
    }

    /// Runs a load of two seconds, after one that is not measured, against a service and a clock that
    /// only this function turns.
    fn play(rate: f64, workers: usize, service: Service) -> Summary {
        play_until(Until::Elapsed(Duration::from_secs(2)), rate, workers, service)
    }

    /// A desk whose load is one second old when it is measured, and has begun.
    fn begun(until: Until, rate: f64) -> (Arc<Shared>, Rc<Books>, Desk) {
        let arrivals = Arrivals::Fixed;
        let shared = Arc::new(Shared::new(
            LoadOptions {
                pace: Pace::Open { rate, arrivals },
                until,
                warm_up: Duration::from_secs(1),
                ..LoadOptions::default()
            },
            None,
        ));
        shared.begin();
        let (begun, end) = (shared.begun().unwrap(), shared.end_nanos());
        let schedule = Schedule::new(rate, arrivals, Random::new(1), begun, end);
        let books = Rc::new(Books::new(0, Arc::clone(&shared)));
        let desk = Desk::new(Arc::clone(&shared), Rc::clone(&books), schedule);
        (shared, books, desk)
    }

    fn play_until(until: Until, rate: f64, workers: usize, mut service: Service) -> Summary {
        let (shared, books, desk) = begun(until, rate);
        let begun = shared.begun().unwrap();
        let seats: Vec<_> = (0..workers).map(|worker| Rc::new(Seat::new(worker / 3))).collect();
        seats.iter().for_each(|seat| desk.sit(seat));
        // By the time at which they end: who asked, for when, and whether it is done.
        let mut under_way: BTreeSet<(u64, usize, u64, bool)> = BTreeSet::new();
        loop {
            let next = desk.schedule.borrow().next_at().filter(|_| !desk.free.borrow().is_empty());
            let ends = under_way.first().map(|(end, ..)| *end);
            let Some(now) = next.into_iter().chain(ends).min() else { break };
            while under_way.first().is_some_and(|(end, ..)| *end <= now) {
                let (return_nanos, worker, begin, is_done) = under_way.pop_first().unwrap();
                books.count(&attempt(return_nanos, is_done), begin);
                desk.sit(&seats[worker]);
            }
            desk.hand_out(now);
            for (worker, seat) in seats.iter().enumerate() {
                if let Given::Begin(at) = seat.given.take() {
                    assert!(at <= now, "it began before its time");
                    let (end, is_done) = service.ask(now - begun);
                    under_way.insert((begun + end, worker, at, is_done));
                }
            }
        }
        assert!(desk.closed.get() && desk.free.borrow().is_empty());
        books.close(Duration::ZERO);
        shared.summary()
    }

    fn attempt(return_nanos: u64, is_done: bool) -> Attempt {
        let refused = (!is_done).then(|| ClientError {
            kind: ErrorKind::Overloaded,
            happened: Happened::No,
            failed_precondition: None,
            what: String::new(),
            remedy: String::new(),
        });
        let ended = if is_done { Ended::Done(None) } else { Ended::NotDone };
        Attempt { ended, refused, return_nanos }
    }

    #[track_caller]
    fn near(found: u64, expected: u64) {
        assert!(found.abs_diff(expected) <= expected / 100 + 2, "{found} instead of {expected}");
    }

    fn micros(time: Duration) -> u64 {
        u64::try_from(time.as_micros()).unwrap()
    }

    #[test]
    fn what_is_due_at_once_goes_over_one_connection_and_what_comes_then_over_the_next() {
        let (shared, _, desk) = begun(Until::Elapsed(Duration::from_secs(2)), 1_000.0);
        let begun = shared.begun().unwrap();
        let seats: Vec<_> = (0..12).map(|worker| Rc::new(Seat::new(worker / 4))).collect();
        seats.iter().for_each(|seat| desk.sit(seat));
        let given = |millis| {
            desk.hand_out(begun + millis * MILLI);
            let begins = |seat: &Rc<Seat>| matches!(seat.given.take(), Given::Begin(_));
            (0..12).filter(|worker| begins(&seats[*worker])).collect::<Vec<_>>()
        };
        assert_eq!(given(3), [0, 1, 2]);
        assert_eq!(given(6), [4, 5, 6]);
        assert_eq!(given(9), [8, 9, 10]);
        assert!(!desk.is_behind.get());
        // Three connections have one free worker each.
        assert_eq!(given(13), [3, 7, 11]);
        assert!(desk.is_behind.get() && desk.free.borrow().is_empty());
        desk.sit(&seats[5]);
        assert_eq!(given(13), [5]);
        assert!(!desk.is_behind.get());
    }

    #[test]
    fn with_room_to_spare_every_operation_begins_in_time() {
        let summary = play(3_000.0, 100, Service::new(10, 1_000));
        near(summary.counts.ok, 6_000);
        assert_eq!((summary.counts.not_begun, summary.counts.overloaded), (0, 0));
        near(micros(summary.latency(50.0)), 1_000);
        near(micros(summary.latency_max()), 1_000);
        near(micros(summary.elapsed), 2_000_000);
    }

    #[test]
    fn a_service_that_stands_still_shows_in_all_that_should_have_begun_meanwhile() {
        let stands_still = 2 * SECOND..2 * SECOND + SECOND / 2;
        // Of so few workers most are not even free to ask.
        for workers in [5, 2_000] {
            let service = Service { stands_still: stands_still.clone(), ..Service::new(5, 10_000) };
            let summary = play(1_000.0, workers, service);
            near(summary.counts.ok, 2_000);
            near(micros(summary.latency_max()), 501_000);
            // A quarter of the two seconds; the last of it waited least.
            assert!(micros(summary.latency(74.0)) < 150_000);
            assert!(micros(summary.latency(90.0)) > 250_000, "{:?}", summary.latency(90.0));
        }
    }

    #[test]
    fn what_is_refused_is_counted_apart() {
        let summary = play(20_000.0, 1_000, Service::new(10, 50));
        near(summary.counts.ok, 20_000);
        near(summary.counts.overloaded, 20_000);
        assert_eq!(summary.counts.not_begun, 0);
        assert!(micros(summary.latency_max()) < 10_000, "{:?}", summary.latency_max());
        near(micros(summary.refusal(99.0)), 100);
    }

    #[test]
    fn what_finds_nobody_free_begins_late_or_not_at_all() {
        let summary = play(20_000.0, 10, Service::new(10, 50));
        near(summary.counts.ok + summary.counts.not_begun, 40_000);
        // Each second half of what is due is done, so the last one waited half the time.
        near(micros(summary.latency_max()), 1_500_000);
        assert_eq!(summary.counts.overloaded, 0);
    }

    #[test]
    fn a_load_of_so_many_operations_ends_when_all_are_begun() {
        let summary = play_until(Until::Operations(1_500), 1_000.0, 10, Service::new(10, 50));
        // A thousand of them while it warmed up.
        near(summary.counts.ok, 500);
        assert_eq!(summary.counts.not_begun, 0);
    }
}
