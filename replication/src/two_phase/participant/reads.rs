//! Reads. A key that nobody is about to write is read at once; else the read waits until those who
//! were prepared when it came have an outcome, and then reads the newest.
//!
//! Why that is strictly serializable: what has been acknowledged before a read began has a yes vote
//! of this replica, so it is applied here or prepared; if it is prepared the read waits for it. And
//! commits are applied in the order of their numbers, here and everywhere, so what is read is a
//! prefix of one history, not before the read began and not after it ended. It waits for those that
//! were prepared when it came and for no later ones, so writers can't starve it.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;

use super::state::{Asker, Stage, WaitingRead};
use super::{Alarm, Out, Participant, reply_failed};
use crate::contract::{Effect, NodeId, ReadId, Time};
use crate::request::{Answer, Failure, Operation, Outcome, Page, Query, Range, Request};
use crate::two_phase::message::{Message, TxnId};
use crate::two_phase::planted::Bug;

impl Participant {
    pub(super) fn request(&mut self, now: Time, request: Request, effects: &mut Out) {
        let Request { id, deadline, operation } = request;
        match operation {
            Operation::Read(_) | Operation::ReadStale(_) if self.unfit.is_some() => {
                let reason = self.unfit.clone().unwrap_or_default();
                reply_failed(id, Failure::Storage { reason }, effects);
            }
            Operation::Read(_) | Operation::ReadStale(_) if !self.serving => {
                let reason = format!("{} is starting", self.options.id);
                reply_failed(id, Failure::Unavailable { reason }, effects);
            }
            Operation::Read(_) | Operation::ReadStale(_) if !self.is_current() => {
                let reason = format!("{} is catching up with the others", self.options.id);
                reply_failed(id, Failure::Unavailable { reason }, effects);
            }
            Operation::Read(query) if !self.may_read(now) => {
                self.read_without_lease(now, Asker::Client(id), query, deadline, effects);
            }
            // A fresh read costs no more here, unless its keys are in doubt.
            Operation::Read(query) | Operation::ReadStale(query) => {
                self.read(now, Asker::Client(id), query, deadline, effects);
            }
            Operation::OpenSession
            | Operation::Transact { .. }
            | Operation::ChangeMembers { .. }
            | Operation::ChangeReplicas(_) => {
                reply_failed(id, Failure::Redirect { to: NodeId::COORDINATOR }, effects);
            }
        }
    }

    /// Whether a read of one key may be answered from the store without a step: it would ask the
    /// store at once. The store may be asked later than this, too: whoever was prepared now and
    /// keeps a read waiting was in the way, and nobody is acknowledged before he is prepared, or
    /// before this replica has been left out.
    pub(super) fn may_read_at_once(&mut self, now: Time, query: &Query) -> bool {
        let may = self.unfit.is_none()
            && self.serving
            && self.is_current()
            && self.may_read(now)
            && matches!(query, Query::Get(_))
            && self.options.limits.check_query(query).is_ok()
            && self.in_the_way(query).is_empty();
        self.counters.reads += u64::from(may);
        may
    }

    pub(super) fn read(
        &mut self,
        now: Time,
        asker: Asker,
        query: Query,
        deadline: Time,
        effects: &mut Out,
    ) {
        if !self.is_current() {
            // The coordinator asks another.
            self.counters.dropped_not_serving += 1;
            return;
        }
        self.counters.reads += 1;
        if let Err(reason) = self.options.limits.check_query(&query) {
            return self.fail_read(asker, Failure::Invalid { reason }, effects);
        }
        if query.holder().is_some_and(|holder| holder != self.options.id) {
            return self.answer(asker, Answer::NotHeld, effects);
        }
        let mut waits_for = self.in_the_way(&query);
        if self.options.planted.has(Bug::ReadWaitsForOne) {
            waits_for = waits_for.into_iter().take(1).collect();
        }
        if waits_for.is_empty() || self.options.planted.has(Bug::ReadWhilePrepared) {
            return self.ask_store(asker, query, effects);
        }
        if self.waiting.len() >= self.options.waiting_reads_max {
            self.counters.overloaded += 1;
            return self.fail_read(asker, Failure::Overloaded, effects);
        }
        self.counters.reads_waited += 1;
        let id = self.next_read();
        for txn in &waits_for {
            self.reads_waiting_for(*txn).insert(id);
        }
        let alarm = deadline.min(now.after(self.options.read_wait_max));
        self.alarms.set(alarm, Alarm::Read(id));
        self.waiting.insert(id, WaitingRead { asker, query, waits_for, alarm });
    }

    /// A new coordinator gives numbers to what the last one left: to transactions that conflict with
    /// nothing, and so in any order. A read that waits for some of them, and came before others were
    /// prepared here, could see them in another order than somebody before. So it waits for all that
    /// are prepared now, as if it had come now.
    pub(super) fn look_again(&mut self) {
        if self.options.planted.has(Bug::ReadsNotLookedAtAgain) {
            return;
        }
        let waiting: Vec<ReadId> = self.waiting.keys().copied().collect();
        for id in waiting {
            let waits_for = self.in_the_way(&self.waiting[&id].query);
            for txn in &waits_for {
                self.reads_waiting_for(*txn).insert(id);
            }
            let read = self.waiting.get_mut(&id).expect("it was there a moment ago");
            self.counters.reads_looked_at_again += u64::from(read.waits_for != waits_for);
            read.waits_for = waits_for;
        }
    }

    /// The transactions whose outcome decides what the query answers: prepared, with the vote out,
    /// and about to write one of its keys.
    fn in_the_way(&self, query: &Query) -> BTreeSet<TxnId> {
        let is_out = |txn: &TxnId| {
            let promised = self.transactions.get(txn).expect("who holds a lock is known");
            matches!(promised.stage, Stage::Prepared { .. })
        };
        match query {
            Query::Get(key) => self.locks.writer(key).into_iter().filter(is_out).collect(),
            Query::GetMany(keys) => {
                keys.iter().filter_map(|key| self.locks.writer(key)).filter(is_out).collect()
            }
            Query::Scan(range) | Query::Page(Page { range, of: None, .. }) => {
                self.writers_in(range).collect()
            }
            // What it is read of does not change any more.
            Query::Page(Page { of: Some(_), .. }) => BTreeSet::new(),
        }
    }

    /// Those that have voted and are about to write a key of the range. They are bounded, and a scan
    /// costs more than to look at them all.
    fn writers_in(&self, range: &Range) -> impl Iterator<Item = TxnId> {
        self.transactions.iter().filter_map(|(txn, promised)| match promised.stage {
            Stage::Prepared { .. } => promised.locks.writes_in(range).then_some(txn),
            Stage::Checking { .. } | Stage::Logging | Stage::Alone(_) => None,
        })
    }

    fn reads_waiting_for(&mut self, txn: TxnId) -> &mut BTreeSet<ReadId> {
        let promised = self.transactions.get_mut(&txn).expect("a read waits for what is known");
        match &mut promised.stage {
            Stage::Prepared { reads, .. } => reads,
            Stage::Checking { .. } | Stage::Logging | Stage::Alone(_) => {
                unreachable!("a read waits for what is prepared")
            }
        }
    }

    fn ask_store(&mut self, asker: Asker, query: Query, effects: &mut Out) {
        let read = self.next_read();
        self.asked.insert(read, asker);
        effects.push_unheld(Effect::read(read, query));
    }

    /// A transaction has its outcome, and if that is a commit, its writes are applied.
    pub(super) fn wake_reads(&mut self, txn: TxnId, stage: &mut Stage, effects: &mut Out) {
        let Stage::Prepared { reads, .. } = stage else { return };
        if reads.is_empty() {
            return;
        }
        for id in core::mem::take(reads) {
            let read = self.waiting.get_mut(&id).expect("an expired read waits for nobody");
            read.waits_for.remove(&txn);
            if read.waits_for.is_empty() {
                let read = self.waiting.remove(&id).expect("it was there a moment ago");
                self.alarms.cancel(read.alarm, Alarm::Read(id));
                self.ask_store(read.asker, read.query, effects);
            }
        }
    }

    pub(super) fn answer(&mut self, asker: Asker, answer: Answer, effects: &mut Out) {
        let answer = answer.held_by(self.options.id);
        match asker {
            Asker::Client(request) => match answer.into_outcome() {
                Outcome::Failed(failure) => reply_failed(request, failure, effects),
                outcome => effects.push(Effect::Reply { request, outcome }),
            },
            Asker::Coordinator { from, read, epoch } => {
                self.counters.read_answers_sent += 1;
                let answer = answer.sized();
                let message = Message::ReadAnswer { read, epoch, answer };
                effects.push(Effect::Send { to: from, message });
            }
        }
    }

    /// A read that cannot be answered. The coordinator is not told: it asks another replica in time.
    pub(super) fn fail_read(&mut self, asker: Asker, failure: Failure, effects: &mut Out) {
        match asker {
            Asker::Client(request) => reply_failed(request, failure, effects),
            Asker::Coordinator { .. } => {}
        }
    }

    pub(super) fn read_alarm(&mut self, id: ReadId, effects: &mut Out) {
        self.counters.reads_expired += 1;
        let read = self.stop_waiting(id);
        let txn = read.waits_for.first().expect("a read that waits for nobody is answered");
        let reason = format!("in doubt: {} has not heard how {txn} ended", self.options.id);
        self.fail_read(read.asker, Failure::Unavailable { reason }, effects);
    }

    pub(super) fn drop_reads_of(&mut self, peer: NodeId) {
        let of_peer = |asker: &Asker| match asker {
            Asker::Client(_) => false,
            Asker::Coordinator { from, .. } => *from == peer,
        };
        let dropped: Vec<ReadId> = self
            .waiting
            .iter()
            .filter(|(_, read)| of_peer(&read.asker))
            .map(|(id, _)| *id)
            .collect();
        for id in dropped {
            self.stop_waiting(id);
        }
    }

    /// Nobody will say how a transaction ended.
    pub(super) fn fail_reads(&mut self, stage: Stage, effects: &mut Out) {
        let Stage::Prepared { reads, .. } = stage else { return };
        for id in reads {
            let Some(read) = self.waiting.remove(&id) else { continue };
            self.alarms.cancel(read.alarm, Alarm::Read(id));
            for txn in &read.waits_for {
                if self.transactions.contains_key(txn) {
                    self.reads_waiting_for(*txn).remove(&id);
                }
            }
            let reason = format!("the others go on without {}", self.options.id);
            self.fail_read(read.asker, Failure::Unavailable { reason }, effects);
        }
    }

    fn stop_waiting(&mut self, id: ReadId) -> WaitingRead {
        let read = self.waiting.remove(&id).expect("it was found by its name");
        self.alarms.cancel(read.alarm, Alarm::Read(id));
        for txn in &read.waits_for {
            self.reads_waiting_for(*txn).remove(&id);
        }
        read
    }
}
