//! From a client's request to the prepares.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

use super::batches::Membership;
use super::state::{Active, Nodes, Phase, Waiters};
use super::{Alarm, Coordinator, Out, reply_failed};
use crate::contract::{Effect, NodeId, RequestId, Time};
use crate::request::{Failure, Outcome, Stamp, Transaction};
use crate::sessions::Standing;
use crate::two_phase::locks::LockSet;
use crate::two_phase::message::{Message, OnePhase, Parallel, Prepare, TxnId};
use crate::two_phase::names::are_not_reachable;
use crate::two_phase::planted::Bug;
use crate::two_phase::points;

impl Coordinator {
    pub(super) fn transact(
        &mut self,
        now: Time,
        request: RequestId,
        deadline: Time,
        stamp: Option<Stamp>,
        transaction: Transaction,
        effects: &mut Out,
    ) {
        effects.point(points::COORDINATOR_BEFORE_BEGIN);
        if let Some(txn) = stamp.and_then(|stamp| self.in_flight(stamp)) {
            return self.attach(txn, request, effects);
        }
        match self.admit(now, deadline, stamp, &transaction) {
            Ok((locks, bytes)) => {
                let alarm = now.after(self.options.vote_timeout).min(deadline);
                let active = Active {
                    phase: self.first_phase(),
                    participants: self.participants.clone(),
                    stamp,
                    waiters: Waiters::from_slice(&[request]),
                    locks,
                    bytes,
                    alarm: Some(alarm),
                    batch: Membership::None,
                    transaction: None,
                };
                self.begin(active, transaction, effects);
            }
            Err(outcome) => effects.push(Effect::Reply { request, outcome }),
        }
    }

    fn in_flight(&self, stamp: Stamp) -> Option<TxnId> {
        self.by_stamp.get(&(stamp.client, stamp.sequence)).copied()
    }

    /// The same write is in flight: both requests get its outcome.
    fn attach(&mut self, txn: TxnId, request: RequestId, effects: &mut Out) {
        let active = self.transactions.get_mut(&txn).expect("a stamp in flight has a transaction");
        if active.waiters.len() < self.options.retries_per_transaction_max {
            active.waiters.push(request);
        } else {
            let reason = String::from("too many retries of this write wait for its outcome");
            reply_failed(request, Failure::Unknown { reason }, effects);
        }
    }

    /// What the transaction would lock, and its bytes; or how it ends without being begun.
    fn admit(
        &mut self,
        now: Time,
        deadline: Time,
        stamp: Option<Stamp>,
        transaction: &Transaction,
    ) -> Result<(LockSet, usize), Outcome> {
        let invalid = |reason| Outcome::Failed(Failure::Invalid { reason });
        let bytes = self.options.limits.check(transaction).map_err(invalid)?;
        if let Some(stamp) = stamp {
            self.check_stamp(stamp)?;
        }
        self.check_room().map_err(Outcome::Failed)?;
        self.check_load(bytes).map_err(Outcome::Failed)?;
        self.check_reach(now, deadline).map_err(Outcome::Failed)?;
        let locks = LockSet::of(transaction).planted(self.options.planted);
        self.locks.acquire(self.next_txn(), &locks).map_err(|key| {
            self.counters.conflicts += 1;
            Outcome::Failed(Failure::Conflict { key })
        })?;
        Ok((locks, bytes))
    }

    fn check_stamp(&mut self, stamp: Stamp) -> Result<(), Outcome> {
        if stamp.sequence == 0 || stamp.answered_below > stamp.sequence {
            let reason = format!(
                "write {} of a session that has every answer below {}",
                stamp.sequence, stamp.answered_below
            );
            return Err(Outcome::Failed(Failure::Invalid { reason }));
        }
        let in_flight = self.in_flight_of.get(&stamp.client).copied().unwrap_or(0);
        match self.sessions.standing(stamp, in_flight) {
            Standing::New => Ok(()),
            Standing::Settled(()) if self.options.planted.has(Bug::RetryIsNew) => Ok(()),
            Standing::Stale if self.options.planted.has(Bug::StaleSequenceIsNew) => Ok(()),
            Standing::Settled(()) => {
                self.counters.retries_answered += 1;
                Err(Outcome::Committed)
            }
            Standing::Stale => Err(Outcome::Failed(Failure::StaleSequence)),
            Standing::Expired => Err(Outcome::Failed(Failure::SessionExpired)),
            Standing::TooManyOutstanding => {
                let reason = format!(
                    "more than {} writes of one session without a word that they were answered",
                    self.options.outstanding_per_session_max
                );
                Err(Outcome::Failed(Failure::Invalid { reason }))
            }
        }
    }

    pub(super) fn check_room(&mut self) -> Result<(), Failure> {
        if self.has_room {
            return Ok(());
        }
        self.counters.disk_full += 1;
        Err(Failure::DiskFull { node: NodeId::COORDINATOR })
    }

    fn check_load(&mut self, bytes: usize) -> Result<(), Failure> {
        let oldest = self.finished_below();
        // One of an earlier epoch holds no number of this one back.
        let span = match oldest.epoch == self.epoch {
            true => self.next_txn().number - oldest.number,
            false => self.begun,
        };
        if self.transactions.len() >= self.options.in_flight_max
            || self.in_flight_bytes.saturating_add(bytes) > self.options.in_flight_bytes_max
            || span >= self.options.unfinished_span_max
        {
            self.counters.overloaded += 1;
            return Err(Failure::Overloaded);
        }
        Ok(())
    }

    fn check_reach(&self, now: Time, deadline: Time) -> Result<(), Failure> {
        let down = self.unreachable();
        if !down.is_empty() && !self.may_wait_for(&down) {
            let reason = format!("{}, and {}", self.views.needed(), are_not_reachable(&down));
            return Err(Failure::Unavailable { reason });
        }
        let outside = self.outside.iter().find(|(_, until)| **until > now);
        if let Some((replica, _)) = outside {
            let reason = format!(
                "a write needs every replica, and {replica} has lost its disk and catches up"
            );
            return Err(Failure::Unavailable { reason });
        }
        if deadline <= now {
            let reason = String::from("the deadline had passed when the request arrived");
            return Err(Failure::Unavailable { reason });
        }
        Ok(())
    }

    fn first_phase(&self) -> Phase {
        match self.views.count() {
            1 => Phase::Alone,
            _ => Phase::Voting { missing: Nodes::from_slice(&self.participants) },
        }
    }

    /// Its locks are taken under the number that it gets here.
    fn begin(&mut self, mut active: Active, transaction: Transaction, effects: &mut Out) {
        let txn = self.next_txn();
        self.begun += 1;
        self.counters.begun += 1;
        self.in_flight_bytes += active.bytes;
        if let Some(stamp) = active.stamp {
            self.remember_stamp(stamp, txn);
        }
        if let Some(alarm) = active.alarm {
            self.alarms.set(alarm, Alarm::Transaction(txn));
        }
        let transaction = Arc::new(transaction);
        if self.views.are_kept() {
            active.transaction = Some(Arc::clone(&transaction));
        }
        self.transactions.insert(txn, active);
        effects.point(points::COORDINATOR_BEGUN);
        self.gather(txn, transaction, effects);
    }

    /// The prepare of a transaction that waits for votes, once more. One that is gathered is sent
    /// with its batch.
    pub(super) fn prepare_again(&self, txn: TxnId) -> Option<Prepare> {
        let active = &self.transactions[&txn];
        let transaction = active.transaction.clone()?;
        (active.batch != Membership::Gathered).then(|| self.prepare_of(txn, transaction))
    }

    fn prepare_of(&self, txn: TxnId, transaction: Arc<Transaction>) -> Prepare {
        let Active { phase, participants, stamp, .. } = &self.transactions[&txn];
        Prepare {
            txn,
            participants: participants.clone(),
            transaction,
            one_phase: (*phase == Phase::Alone).then_some(OnePhase { stamp: *stamp }),
            parallel: self.is_parallel().then_some(Parallel { stamp: *stamp }),
            // More may be over than when it began.
            finished_below: self.finished_below(),
        }
    }

    pub(super) fn send_prepares(
        &mut self,
        txn: TxnId,
        transaction: Arc<Transaction>,
        effects: &mut Out,
    ) {
        let prepare = Arc::new(self.prepare_of(txn, transaction));
        let participants = prepare.participants.iter().filter(|to| self.may_tell(**to, txn));
        let participants: Nodes = participants.copied().collect();
        for (index, to) in participants.into_iter().enumerate() {
            self.counters.prepares_sent += 1;
            let message = Message::Prepare(Arc::clone(&prepare));
            effects.push(Effect::Send { to, message });
            if index == 0 {
                effects.point(points::COORDINATOR_SOME_PREPARES_SENT);
            }
        }
    }
}
