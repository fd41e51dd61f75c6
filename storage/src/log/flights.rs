//! Frames on their way to the disk, and how far the log has come by them.
//!
//! Each turn of a leader is a *flight*: the frames that it has given a place. Several may be in the
//! air; they can land in any order, but what counts is the part of the log up to the first that has
//! not:
//!
//! ```text
//!   durable │ landed, synced │ landed │ in the air │ landed │ in the air
//!                            ▲        ▲
//!                      durable        written
//! ```
//!
//! A sync makes durable what had landed when it began. Landings are numbered for that.

use std::collections::VecDeque;

use super::frame::Group;

#[derive(Debug)]
enum Progress {
    InTheAir,
    /// The disk had no room. It keeps its place, and is written there again before anything else.
    Refused(Vec<Group>),
    /// As the landing of this number.
    Landed(u64),
}

#[derive(Debug)]
struct Flight {
    id: u64,
    /// Where its first frame goes.
    offset: u64,
    /// The position of its last record.
    last: u64,
    progress: Progress,
}

/// The flights that are not durable yet, in the order of the file.
#[derive(Debug, Default)]
pub(super) struct Flights {
    queue: VecDeque<Flight>,
    departures: u64,
    landings: u64,
    /// The landings that the syncs which have begun cover.
    syncing: u64,
    /// Those that the syncs which have succeeded cover.
    synced: u64,
    written: u64,
    durable: u64,
}

impl Flights {
    /// Everything up to `durable` is.
    pub(super) fn new(durable: u64) -> Self {
        Self { written: durable, durable, ..Self::default() }
    }

    /// Everything up to here has been handed to the system.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Everything up to here is durable.
    pub(super) fn durable(&self) -> u64 {
        self.durable
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// How many landings there were.
    pub(super) fn landings(&self) -> u64 {
        self.landings
    }

    /// Whether the landing of this number is durable.
    pub(super) fn is_synced(&self, landing: u64) -> bool {
        landing <= self.synced
    }

    /// Frames whose last record is `last` are now written at `offset`, behind all others.
    pub(super) fn depart(&mut self, offset: u64, last: u64) -> u64 {
        self.departures += 1;
        let id = self.departures;
        self.queue.push_back(Flight { id, offset, last, progress: Progress::InTheAir });
        id
    }

    /// All of the flight is written.
    pub(super) fn land(&mut self, id: u64) {
        self.landings += 1;
        let index = self.index(id);
        self.queue[index].progress = Progress::Landed(self.landings);
        let landed = |flight: &&Flight| matches!(flight.progress, Progress::Landed(_));
        if let Some(flight) = self.queue.iter().take_while(landed).last() {
            self.written = flight.last;
        }
        self.join(index);
    }

    /// Makes one of a flight and the one before, if no sync tells them apart: else a log that is
    /// never synced would have no end of them.
    fn join(&mut self, index: usize) {
        let Some(before) = index.checked_sub(1) else { return };
        let syncing = self.syncing;
        if matches!(self.queue[before].progress, Progress::Landed(landing) if landing > syncing) {
            // The later landing covers both.
            let before = self.queue.remove(before).expect("it was just looked at");
            self.queue[index - 1].offset = before.offset;
        }
    }

    /// The disk has no room for the flight now.
    pub(super) fn refuse(&mut self, id: u64, groups: Vec<Group>) {
        let index = self.index(id);
        self.queue[index].progress = Progress::Refused(groups);
    }

    pub(super) fn has_refused(&self) -> bool {
        self.queue.iter().any(|flight| matches!(flight.progress, Progress::Refused(_)))
    }

    /// The first flight that was refused is in the air again: its number, place and groups.
    pub(super) fn depart_again(&mut self) -> Option<(u64, u64, Vec<Group>)> {
        self.queue.iter_mut().find_map(|flight| {
            match std::mem::replace(&mut flight.progress, Progress::InTheAir) {
                Progress::Refused(groups) => Some((flight.id, flight.offset, groups)),
                progress => {
                    flight.progress = progress;
                    None
                }
            }
        })
    }

    /// Whether a record has landed and a sync would bring it nearer to being durable: no sync has
    /// begun since it landed, or since one before it did. Who landed that one may want no sync.
    pub(super) fn needs_sync(&self, position: u64) -> bool {
        let is_new = |flight: &Flight| matches!(flight.progress, Progress::Landed(landing) if landing > self.syncing);
        let Some(at) = self.queue.iter().position(|flight| flight.last >= position) else {
            return false;
        };
        matches!(self.queue[at].progress, Progress::Landed(_))
            && self.queue.range(..=at).any(is_new)
    }

    /// A sync begins; the answer goes to [`Flights::end_sync`].
    pub(super) fn begin_sync(&mut self) -> u64 {
        self.syncing = self.landings;
        self.landings
    }

    /// The sync that began at this landing has succeeded.
    pub(super) fn end_sync(&mut self, landing: u64) {
        self.synced = self.synced.max(landing);
        let synced = self.synced;
        while let Some(flight) = self.queue.pop_front_if(
            |flight| matches!(flight.progress, Progress::Landed(landing) if landing <= synced),
        ) {
            self.durable = flight.last;
        }
    }

    fn index(&self, id: u64) -> usize {
        let index = self.queue.iter().rposition(|flight| flight.id == id);
        index.expect("a flight stays in the queue until it has landed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn so_far(flights: &Flights) -> (u64, u64) {
        (flights.written(), flights.durable())
    }

    #[test]
    fn only_an_unbroken_beginning_counts() {
        let mut flights = Flights::new(4);
        let (first, second, third) =
            (flights.depart(0, 5), flights.depart(64, 7), flights.depart(128, 8));
        assert_eq!(so_far(&flights), (4, 4));
        flights.land(second);
        assert_eq!(so_far(&flights), (4, 4));
        assert!(flights.needs_sync(6) && flights.needs_sync(7));
        assert!(!flights.needs_sync(5) && !flights.needs_sync(8));
        let sync = flights.begin_sync();
        assert!(!flights.needs_sync(7));
        flights.land(first);
        assert_eq!(so_far(&flights), (7, 4));
        flights.end_sync(sync);
        assert_eq!(so_far(&flights), (7, 4), "the first landed after that sync had begun");
        assert!(flights.needs_sync(5));
        assert!(flights.needs_sync(7), "nobody else may want what it waits for");
        let sync = flights.begin_sync();
        flights.land(third);
        flights.end_sync(sync);
        assert_eq!(so_far(&flights), (8, 7));
        let sync = flights.begin_sync();
        flights.end_sync(sync);
        assert_eq!(so_far(&flights), (8, 8));
        assert!(flights.is_empty());
    }

    #[test]
    fn syncs_that_overlap_count_for_what_each_has_seen() {
        let mut flights = Flights::new(0);
        let (first, second) = (flights.depart(0, 1), flights.depart(64, 2));
        flights.land(first);
        let early = flights.begin_sync();
        flights.land(second);
        let late = flights.begin_sync();
        flights.end_sync(late);
        assert_eq!(flights.durable(), 2, "the later one covers what the earlier one does");
        flights.end_sync(early);
        assert_eq!(flights.durable(), 2);
    }

    #[test]
    fn what_nobody_syncs_is_one_flight() {
        let mut flights = Flights::new(0);
        for last in 1..100 {
            let id = flights.depart(last * 64, last);
            flights.land(id);
            assert_eq!((flights.queue.len(), flights.written()), (1, last));
        }
        let sync = flights.begin_sync();
        for last in 100..200 {
            let id = flights.depart(last * 64, last);
            flights.land(id);
        }
        assert_eq!(flights.queue.len(), 2, "a sync tells them apart");
        flights.end_sync(sync);
        assert_eq!(so_far(&flights), (199, 99));
    }

    #[test]
    fn what_was_refused_keeps_its_place() {
        let mut flights = Flights::new(0);
        let (first, second) = (flights.depart(512, 1), flights.depart(640, 2));
        flights.refuse(first, Vec::new());
        flights.land(second);
        let sync = flights.begin_sync();
        flights.end_sync(sync);
        assert!(flights.has_refused());
        assert_eq!(so_far(&flights), (0, 0));
        let (again, offset, _) = flights.depart_again().unwrap();
        assert_eq!((again, offset, flights.has_refused()), (first, 512, false));
        assert!(flights.depart_again().is_none());
        flights.land(again);
        assert_eq!(so_far(&flights), (2, 0));
        let sync = flights.begin_sync();
        flights.end_sync(sync);
        assert_eq!(flights.durable(), 2);
    }
}
