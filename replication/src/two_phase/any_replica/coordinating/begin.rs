//! From a client's request to an errand.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::Flight;
use super::state::{Errand, State};
use crate::contract::{Effect, NodeId, RequestId, Time};
use crate::request::{Failure, Outcome, Precondition, Stamp, Transaction};
use crate::sessions::Standing;
use crate::two_phase::any_replica::locks::{Resource, Wanted};
use crate::two_phase::any_replica::message::{Age, Settled, TxnId, Work};
use crate::two_phase::any_replica::{Alarm, Out, Replica, points, reply_failed};
use crate::two_phase::locks::LockSet;
use crate::two_phase::names::are_not_reachable;

impl Replica {
    pub(in crate::two_phase::any_replica) fn transact(
        &mut self,
        now: Time,
        request: RequestId,
        deadline: Time,
        stamp: Option<Stamp>,
        transaction: Transaction,
        effects: &mut Out,
    ) {
        effects.point_unheld(points::COORDINATOR_BEFORE_BEGIN);
        if let Some(flight) = stamp.and_then(|stamp| self.in_flight(stamp)) {
            return self.attach(flight, request, effects);
        }
        match self.admit(now, deadline, stamp, &transaction) {
            Ok(bytes) => {
                let errand = self.errand_of(request, stamp, transaction, bytes);
                self.begin(now, deadline, errand, effects);
            }
            Err(outcome) => effects.push_unheld(Effect::Reply { request, outcome }),
        }
    }

    /// A session is opened by a transaction of its own, so that every replica knows it.
    pub(in crate::two_phase::any_replica) fn open_session(
        &mut self,
        now: Time,
        request: RequestId,
        deadline: Time,
        effects: &mut Out,
    ) {
        let admitted = self
            .check_room()
            .and_then(|()| self.check_load(0))
            .and_then(|()| self.check_time(now, deadline))
            .and_then(|()| self.check_reach());
        if let Err(failure) = admitted {
            return reply_failed(request, failure, effects);
        }
        let client = self.next_client();
        let work = Work::OpenSession { client };
        let errand = Errand {
            waiters: Vec::from([request]),
            stamp: None,
            preconditions: Vec::new(),
            wanted: Arc::new(Wanted::of(&work)),
            work: Some(Arc::new(work)),
            outcome: Outcome::Session(client),
            bytes: 0,
            deadline,
            deaths: 0,
            obstacle: None,
            state: State::BackingOff,
            alarm: None,
        };
        self.begin(now, deadline, errand, effects);
    }

    fn in_flight(&self, stamp: Stamp) -> Option<Flight> {
        self.coordinating.by_stamp.get(&(stamp.client, stamp.sequence)).copied()
    }

    /// The same write is in flight here: both requests get its outcome.
    fn attach(&mut self, flight: Flight, request: RequestId, effects: &mut Out) {
        let waiters = match flight {
            Flight::Errand(age) => {
                &mut self.coordinating.errands.get_mut(&age).expect("it is in flight").waiters
            }
            Flight::Commit(txn) => {
                &mut self.coordinating.commits.get_mut(&txn).expect("it is in flight").waiters
            }
        };
        if waiters.len() < self.options.retries_per_transaction_max {
            waiters.push(request);
            self.counters.retries_attached += 1;
        } else {
            self.counters.unknown += 1;
            let reason = String::from("too many retries of this write wait for its outcome");
            reply_failed(request, Failure::Unknown { reason }, effects);
        }
    }

    /// The bytes of the transaction; or how it ends without being begun. What the stamp says comes
    /// first, since it is about earlier tries as well.
    fn admit(
        &mut self,
        now: Time,
        deadline: Time,
        stamp: Option<Stamp>,
        transaction: &Transaction,
    ) -> Result<usize, Outcome> {
        let invalid = |reason| Outcome::Failed(Failure::Invalid { reason });
        let bytes = self.options.limits.check(transaction).map_err(invalid)?;
        if let Some(stamp) = stamp {
            self.check_stamp(stamp, &transaction.preconditions)?;
        }
        let writes = !transaction.writes.is_empty();
        let room = if writes { self.check_room() } else { Ok(()) };
        let reach = |this: &Self| if writes { this.check_reach() } else { Ok(()) };
        room.and_then(|()| self.check_load(bytes))
            .and_then(|()| self.check_time(now, deadline))
            .and_then(|()| reach(self))
            .map_err(|failure| Outcome::Failed(self.unless_in_flight(stamp, failure)))?;
        Ok(bytes)
    }

    /// What can be said of a stamp before its lock is held: that it was settled, or is no stamp at
    /// all. Whether it is new is for later.
    fn check_stamp(&mut self, stamp: Stamp, preconditions: &[Precondition]) -> Result<(), Outcome> {
        if stamp.sequence == 0 || stamp.answered_below > stamp.sequence {
            let reason = format!(
                "write {} of a session that has every answer below {}",
                stamp.sequence, stamp.answered_below
            );
            return Err(Outcome::Failed(Failure::Invalid { reason }));
        }
        match self.standing(stamp) {
            Standing::Settled(settled) => Err(self.settled_before(settled, preconditions)),
            Standing::Stale => Err(Outcome::Failed(Failure::StaleSequence)),
            // It may be opened, or its older writes settled, by what is in flight.
            Standing::New | Standing::Expired | Standing::TooManyOutstanding => Ok(()),
        }
    }

    /// What a retry is told.
    pub(super) fn settled_before(
        &mut self,
        settled: Settled,
        preconditions: &[Precondition],
    ) -> Outcome {
        self.counters.retries_answered += 1;
        match settled {
            Settled::Committed => Outcome::Committed,
            Settled::Refused { precondition } => {
                let place = usize::try_from(precondition).unwrap_or(usize::MAX);
                Outcome::Failed(match preconditions.get(place) {
                    Some(it) => {
                        Failure::PreconditionFailed { index: precondition, key: it.key().clone() }
                    }
                    None => Failure::Invalid {
                        reason: String::from("another write with this stamp was refused before"),
                    },
                })
            }
        }
    }

    fn check_room(&mut self) -> Result<(), Failure> {
        if self.has_room {
            return Ok(());
        }
        self.counters.disk_full += 1;
        Err(Failure::DiskFull { node: self.options.id })
    }

    fn check_load(&mut self, bytes: usize) -> Result<(), Failure> {
        let coordinating = &self.coordinating;
        let span = match coordinating.oldest() {
            // One of an earlier incarnation holds no number of this one back.
            Some(oldest) if oldest.epoch == self.incarnation => {
                coordinating.begun.saturating_sub(oldest.number)
            }
            Some(_) => coordinating.begun,
            None => 0,
        };
        if coordinating.errands.len() >= self.options.in_flight_max
            || coordinating.errand_bytes.saturating_add(bytes) > self.options.in_flight_bytes_max
            || coordinating.commits.len() >= self.options.unacknowledged_max
            || span >= self.options.unfinished_span_max
        {
            self.counters.overloaded += 1;
            return Err(Failure::Overloaded);
        }
        Ok(())
    }

    fn check_time(&self, now: Time, deadline: Time) -> Result<(), Failure> {
        match deadline <= now {
            true => Err(Failure::Unavailable {
                reason: String::from("the deadline had passed when the request arrived"),
            }),
            false => Ok(()),
        }
    }

    pub(super) fn check_reach(&self) -> Result<(), Failure> {
        let others = self.others.iter().copied();
        let down: Vec<NodeId> = others.filter(|it| !self.peers_up.contains(it)).collect();
        if down.is_empty() {
            return Ok(());
        }
        let reason = format!("a write needs every replica, and {}", are_not_reachable(&down));
        Err(Failure::Unavailable { reason })
    }

    /// What a client may be told instead, if another try of its write is known to be in flight:
    /// that this one did not happen says nothing then.
    pub(super) fn unless_in_flight(&self, stamp: Option<Stamp>, failure: Failure) -> Failure {
        let is_in_flight = stamp.is_some_and(|stamp| {
            self.locks.is_taken(&Resource::Write(stamp.client, stamp.sequence))
        });
        match (is_in_flight, failure) {
            (true, Failure::Unavailable { reason }) => Failure::Unknown {
                reason: format!("another try of this write is in flight, and {reason}"),
            },
            (true, Failure::Overloaded | Failure::DiskFull { .. } | Failure::Conflict { .. }) => {
                Failure::Unknown { reason: String::from("another try of this write is in flight") }
            }
            (_, failure) => failure,
        }
    }

    fn errand_of(
        &self,
        request: RequestId,
        stamp: Option<Stamp>,
        transaction: Transaction,
        bytes: usize,
    ) -> Errand {
        let Transaction { preconditions, writes } = transaction;
        let checked = preconditions.iter().map(|it| it.key().clone()).collect();
        let keys = LockSet::new(&writes, checked);
        let work = (!writes.is_empty())
            .then(|| Arc::new(Work::Write { stamp, writes, checked: keys.shared.clone() }));
        // What only looks has nothing that a stamp could guard.
        let stamp = stamp.filter(|_| work.is_some());
        let wanted = Wanted::of_keys(keys, stamp);
        Errand {
            waiters: Vec::from([request]),
            stamp,
            preconditions,
            work,
            outcome: Outcome::Committed,
            wanted: Arc::new(wanted),
            bytes,
            deadline: Time::NEVER,
            deaths: 0,
            obstacle: None,
            state: State::BackingOff,
            alarm: None,
        }
    }

    /// Gives an errand its age, and begins its first try.
    fn begin(&mut self, now: Time, deadline: Time, mut errand: Errand, effects: &mut Out) {
        self.counters.begun += 1;
        let first = self.next_number();
        let age = self.new_age(first);
        errand.deadline = deadline.min(now.after(self.options.write_wait_max));
        errand.alarm = Some(errand.deadline);
        self.alarms.set(errand.deadline, Alarm::Errand(age));
        self.coordinating.errand_bytes += errand.bytes;
        if let Some(stamp) = errand.stamp {
            let name = (stamp.client, stamp.sequence);
            self.coordinating.by_stamp.insert(name, Flight::Errand(age));
        }
        self.coordinating.errands.insert(age, errand);
        self.start_try(now, age, first, effects);
    }

    pub(super) fn new_age(&mut self, first: TxnId) -> Age {
        self.clock = self.clock.saturating_add(1);
        Age { clock: self.clock, first }
    }
}
