//! Embedded writes between their place in the log and the moment when readers see them.
//!
//! ```text
//!  place in the log ─► inserted ─────────────────────┐
//!  (in order, under      (any number at once, while  ├─► visible: in the order of the log
//!   one lock)             others append and sync)    │
//!                   └─► as durable as it asks for ───┘
//! ```
//!
//! Each has a ticket, in the order of the log. It is passed once its batch is in the memtable, all
//! of it, and is as durable as was asked for; and readers see what was passed. So nothing is ever
//! shown that a crash or a failed sync could still take back, unless its writer asked for no more
//! than that.

use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed,
    Ordering::Release, Ordering::SeqCst,
};
use std::sync::{Condvar, Mutex, PoisonError};

use super::lock;
use super::write::Durability::{self, Buffered, Sync};
use crate::key::Sequence;
use crate::log::Position;

/// So many writes may be on their way at once: each has a thread that waits for it, but for those
/// that a full disk has refused.
const TICKETS: usize = 1024;

/// The batch is in the memtable.
const INSERTED: u8 = 1;
/// It need not be durable before it is seen, but handed to the system.
const BUFFERED: u8 = 2;

/// Counts the writes, in the order of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticket(u64);

#[derive(Default)]
struct Slot {
    position: AtomicU64,
    last_sequence: AtomicU64,
    state: AtomicU8,
}

pub(super) struct InFlight {
    slots: Box<[Slot]>,
    /// How many tickets were given.
    given: AtomicU64,
    /// Up to here the system has the log, as far as anyone was told. A writer that was told of an
    /// error may have gone without knowing: others know for it.
    written: AtomicU64,
    /// How many were passed; the lock is held by who passes them.
    passed: Mutex<u64>,
    /// The same, to be asked without the lock.
    seen_passed: AtomicU64,
    /// So many threads wait for others to insert.
    waiting: AtomicUsize,
    moved: Condvar,
    /// A thread panicked while it inserted.
    is_broken: AtomicBool,
}

impl InFlight {
    /// For a store whose writes all go this way, or for one where none does.
    pub(super) fn new(embedded: bool) -> InFlight {
        let slots = if embedded { TICKETS } else { 0 };
        InFlight {
            slots: (0..slots).map(|_| Slot::default()).collect(),
            given: AtomicU64::new(0),
            written: AtomicU64::new(0),
            passed: Mutex::new(0),
            seen_passed: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            moved: Condvar::new(),
            is_broken: AtomicBool::new(false),
        }
    }

    /// Whether there is no ticket left. The caller holds the right to apply.
    pub(super) fn is_full(&self) -> bool {
        assert!(!self.is_broken.load(SeqCst), "no thread panicked while it inserted a batch");
        let waiting = self.given.load(Relaxed) - self.seen_passed.load(Acquire);
        waiting >= self.slots.len() as u64
    }

    /// A ticket for the batch at this position. The caller holds the right to apply.
    pub(super) fn begin(
        &self,
        position: Position,
        last_sequence: Sequence,
        durability: Durability,
    ) -> Inserting<'_> {
        assert!(!self.is_full(), "the caller has looked");
        let ticket = Ticket(self.given.load(Relaxed));
        let slot = self.slot(ticket);
        slot.position.store(position.0, Relaxed);
        slot.last_sequence.store(last_sequence, Relaxed);
        let state = match durability {
            Sync => 0,
            Buffered => BUFFERED,
        };
        slot.state.store(state, Relaxed);
        // Whoever passes tickets looks at the slot from here on.
        self.given.store(ticket.0 + 1, Release);
        Inserting { in_flight: self, ticket, is_done: false }
    }

    /// The system has the log up to here.
    pub(super) fn note_written(&self, position: Position) {
        self.written.fetch_max(position.0, SeqCst);
    }

    /// Passes what can be passed, `durable` being where the log is durable.
    pub(super) fn advance(&self, durable: Position, visible: &AtomicU64) {
        self.pass(&mut lock(&self.passed), durable, visible);
    }

    /// Waits until readers see this sequence. All up to it must be as durable as was asked for, so
    /// that only threads that are about to insert are waited for.
    pub(super) fn wait(&self, sequence: Sequence, durable: Position, visible: &AtomicU64) {
        if visible.load(Acquire) >= sequence {
            return;
        }
        let mut passed = lock(&self.passed);
        loop {
            self.pass(&mut passed, durable, visible);
            if visible.load(Acquire) >= sequence {
                return;
            }
            self.waiting.fetch_add(1, SeqCst);
            // Once more: who inserted before it could see that somebody waits wakes nobody.
            self.pass(&mut passed, durable, visible);
            if visible.load(Acquire) < sequence && !self.is_broken.load(SeqCst) {
                passed = self.moved.wait(passed).unwrap_or_else(PoisonError::into_inner);
            }
            self.waiting.fetch_sub(1, SeqCst);
            assert!(!self.is_broken.load(SeqCst), "no thread panicked while it inserted a batch");
        }
    }

    fn pass(&self, passed: &mut u64, durable: Position, visible: &AtomicU64) {
        let given = self.given.load(Acquire);
        let written = self.written.load(SeqCst).max(durable.0);
        let mut last = None;
        while *passed < given {
            let slot = self.slot(Ticket(*passed));
            let state = slot.state.load(SeqCst);
            let reached = if state & BUFFERED == 0 { durable.0 } else { written };
            if state & INSERTED == 0 || slot.position.load(Relaxed) > reached {
                break;
            }
            last = Some(slot.last_sequence.load(Relaxed));
            *passed += 1;
        }
        if let Some(last) = last {
            // From here on readers see the batches: all of each.
            visible.store(last, Release);
            self.seen_passed.store(*passed, Release);
            // Among those who sleep some may wait for a batch that was in the memtable already, and
            // was not yet as durable as it should be: nobody has inserted since, to wake them.
            if self.waiting.load(SeqCst) > 0 {
                self.moved.notify_all();
            }
        }
    }

    fn slot(&self, ticket: Ticket) -> &Slot {
        &self.slots[ticket.0 as usize % self.slots.len()]
    }

    fn wake(&self) {
        if self.waiting.load(SeqCst) > 0 {
            // Who waits holds the lock until he sleeps.
            drop(lock(&self.passed));
            self.moved.notify_all();
        }
    }
}

/// A batch on its way into the memtable. If its thread panics, nothing that comes later can become
/// visible any more, and whoever waits for it is told.
pub(super) struct Inserting<'a> {
    in_flight: &'a InFlight,
    ticket: Ticket,
    is_done: bool,
}

impl Inserting<'_> {
    pub(super) fn done(mut self) {
        self.is_done = true;
        self.in_flight.slot(self.ticket).state.fetch_or(INSERTED, SeqCst);
        self.in_flight.wake();
    }
}

impl Drop for Inserting<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            self.in_flight.is_broken.store(true, SeqCst);
            self.in_flight.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_shown_in_order_once_they_are_inserted_and_durable() {
        let (in_flight, visible) = (InFlight::new(true), AtomicU64::new(0));
        let shows = |durable, expected| {
            in_flight.advance(Position(durable), &visible);
            assert_eq!(visible.load(Relaxed), expected);
        };
        let first = in_flight.begin(Position(1), 10, Sync);
        let second = in_flight.begin(Position(2), 11, Sync);
        let third = in_flight.begin(Position(3), 15, Buffered);
        second.done();
        shows(3, 0);
        first.done();
        shows(0, 0);
        shows(1, 10);
        shows(2, 11);
        in_flight.note_written(Position(3));
        shows(2, 11);
        third.done();
        shows(2, 15);
        in_flight.wait(15, Position(3), &visible);
    }

    #[test]
    fn tickets_are_used_again() {
        let (in_flight, visible) = (InFlight::new(true), AtomicU64::new(0));
        for round in 0..3 {
            let begun: Vec<_> = (1..=TICKETS as u64)
                .map(|number| {
                    let number = round * TICKETS as u64 + number;
                    in_flight.begin(Position(number), number, Sync)
                })
                .collect();
            assert!(in_flight.is_full());
            begun.into_iter().rev().for_each(|inserting| {
                inserting.done();
            });
            in_flight.advance(Position(u64::MAX), &visible);
            assert_eq!(visible.load(Relaxed), (round + 1) * TICKETS as u64);
            assert!(!in_flight.is_full());
        }
    }

    /// It could never be seen, and the tickets would run out: then whoever asked for one would ask
    /// for ever.
    #[test]
    fn nothing_gets_a_place_behind_a_batch_whose_thread_panicked() {
        let in_flight = InFlight::new(true);
        drop(in_flight.begin(Position(1), 1, Sync));
        let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| in_flight.is_full()));
        assert!(asked.is_err());
    }

    #[test]
    fn who_waits_is_woken_by_who_inserts_or_panics() {
        for panics in [false, true] {
            let (in_flight, visible) = (InFlight::new(true), AtomicU64::new(0));
            let first = in_flight.begin(Position(1), 1, Sync);
            in_flight.begin(Position(2), 2, Sync).done();
            std::thread::scope(|scope| {
                let waits = || in_flight.wait(2, Position(2), &visible);
                let waiting = [scope.spawn(waits), scope.spawn(waits)];
                while in_flight.waiting.load(SeqCst) < 2 {
                    std::thread::yield_now();
                }
                if panics {
                    drop(first)
                } else {
                    first.done();
                }
                for waiting in waiting {
                    assert_eq!(waiting.join().is_err(), panics);
                }
            });
        }
    }

    /// The first had its place and was then told that the disk is full. The second was not.
    #[test]
    fn who_is_told_of_an_error_holds_nobody_up() {
        let (in_flight, visible) = (InFlight::new(true), AtomicU64::new(0));
        in_flight.begin(Position(1), 1, Buffered).done();
        in_flight.advance(Position(0), &visible);
        assert_eq!(visible.load(Relaxed), 0);
        in_flight.begin(Position(2), 2, Buffered).done();
        in_flight.note_written(Position(2));
        in_flight.wait(2, Position(0), &visible);
        assert_eq!(visible.load(Relaxed), 2);
    }

    #[test]
    fn who_waits_is_woken_by_who_passes_him() {
        let (in_flight, visible) = (InFlight::new(true), AtomicU64::new(0));
        // They are in the memtable, and not written yet.
        in_flight.begin(Position(1), 1, Buffered).done();
        in_flight.begin(Position(2), 2, Buffered).done();
        let (returned, returns) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                in_flight.wait(2, Position(0), &visible);
                returned.send(()).unwrap();
            });
            while in_flight.waiting.load(SeqCst) < 1 {
                std::thread::yield_now();
            }
            // Who has this lock knows that the other sleeps.
            drop(lock(&in_flight.passed));
            in_flight.note_written(Position(2));
            in_flight.advance(Position(0), &visible);
            let woken = returns.recv_timeout(std::time::Duration::from_secs(300));
            // So that a test that fails ends.
            in_flight.wake();
            woken.unwrap();
        });
    }
}
