//! Reads, of this copy alone.
//!
//! A read is answered at a moment at which nothing that is prepared here, with its vote out, writes
//! one of its keys. Why that is strictly serializable, though commits have no numbers: let a
//! transaction happen when its coordinator learns that its decision is durable, which is before
//! anybody is told, and a read when it is answered. What was decided by then has this replica's vote, so it is applied here or prepared; in the latter case it
//! writes none of the read's keys. What is applied here was decided by then. So each read sees, of
//! its keys, exactly what happened before it, and the order in which things happen respects real
//! time.
//!
//! It waits for all who are prepared when it comes, and then looks again: others may be prepared by
//! then. (Had commits numbers, once would do.) Writers that follow one another closely could make it
//! wait for ever, so after a while it is impatient: what is younger and would write its keys dies.
//! What is older passes, and there is only so much of that. It never makes anybody wait, so it closes
//! no circle.
//!
//! Own transactions do not concern it: until the moment at which they happen they are undecided, and
//! from then on they are applied.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;

use super::message::{Age, TxnId, Work};
use super::participating::Stage;
use super::planted::Bug;
use super::{Alarm, Out, Replica, reply_failed};
use crate::contract::{Effect, ReadId, RequestId, Time};
use crate::request::{Failure, Key, Page, Query};

/// The reads of clients.
#[derive(Clone, Debug, Default)]
pub(super) struct Reads {
    /// The store is about to answer these.
    pub(super) asked: BTreeMap<ReadId, RequestId>,
    /// Of keys that are in doubt.
    pub(super) waiting: BTreeMap<ReadId, WaitingRead>,
    /// Those among them that have waited for long, and since when on the Lamport clock.
    pub(super) impatient: BTreeMap<ReadId, u64>,
}

/// A read of keys that some prepared transactions write.
#[derive(Clone, Debug)]
pub(super) struct WaitingRead {
    request: RequestId,
    query: Query,
    /// Those that were prepared when it looked and have no outcome yet.
    waits_for: BTreeSet<TxnId>,
    patience: Option<Time>,
    alarm: Time,
}

impl Replica {
    pub(super) fn read(
        &mut self,
        now: Time,
        request: RequestId,
        deadline: Time,
        query: Query,
        effects: &mut Out,
    ) {
        self.counters.reads += 1;
        if let Err(reason) = self.options.limits.check_query(&query) {
            return reply_failed(request, Failure::Invalid { reason }, effects);
        }
        if query.holder().is_some_and(|holder| holder != self.options.id) {
            return reply_failed(request, Failure::SnapshotExpired, effects);
        }
        let waits_for = self.in_the_way(&query);
        if waits_for.is_empty() || self.options.planted.has(Bug::ReadWhilePrepared) {
            return self.ask_store(request, query, effects);
        }
        if self.reads.waiting.len() >= self.options.waiting_reads_max {
            self.counters.overloaded += 1;
            return reply_failed(request, Failure::Overloaded, effects);
        }
        self.counters.reads_waited += 1;
        let id = self.next_read();
        let alarm = deadline.min(now.after(self.options.read_wait_max));
        self.alarms.set(alarm, Alarm::Read(id));
        let patience = now.after(self.options.read_patience);
        self.alarms.set(patience, Alarm::Patience(id));
        let read = WaitingRead {
            request,
            query,
            waits_for: BTreeSet::new(),
            patience: Some(patience),
            alarm,
        };
        self.reads.waiting.insert(id, read);
        self.wait_for(id, waits_for);
    }

    /// The transactions whose outcome decides what the query answers: prepared for others, with the
    /// vote out, and about to write one of its keys.
    fn in_the_way(&self, query: &Query) -> BTreeSet<TxnId> {
        let is_out = |txn: &TxnId| {
            let promised = self.participating.promised.get(txn);
            promised.is_some_and(|promised| matches!(promised.stage, Stage::Prepared(_)))
        };
        match query {
            Query::Get(key) => self.locks.writer(key).into_iter().filter(is_out).collect(),
            Query::GetMany(keys) => {
                keys.iter().filter_map(|key| self.locks.writer(key)).filter(is_out).collect()
            }
            Query::Scan(range) | Query::Page(Page { range, of: None, .. }) => {
                self.locks.writers_in(range).filter(is_out).collect()
            }
            // What it is read of does not change any more.
            Query::Page(Page { of: Some(_), .. }) => BTreeSet::new(),
        }
    }

    fn wait_for(&mut self, id: ReadId, waits_for: BTreeSet<TxnId>) {
        for txn in &waits_for {
            self.reads_waiting_for(*txn).insert(id);
        }
        let read = self.reads.waiting.get_mut(&id).expect("it is about to wait");
        read.waits_for = waits_for;
    }

    fn reads_waiting_for(&mut self, txn: TxnId) -> &mut BTreeSet<ReadId> {
        let promised = self.participating.promised.get_mut(&txn);
        match &mut promised.expect("a read waits for what is known").stage {
            Stage::Prepared(doubt) => &mut doubt.reads,
            Stage::Waiting | Stage::Logging => unreachable!("a read waits for what is prepared"),
        }
    }

    fn ask_store(&mut self, request: RequestId, query: Query, effects: &mut Out) {
        let read = self.next_read();
        self.reads.asked.insert(read, request);
        effects.push_unheld(Effect::read(read, query));
    }

    /// A transaction has its outcome, and if that is a commit, its writes are applied.
    pub(super) fn wake_reads(&mut self, stage: Stage, txn: TxnId, effects: &mut Out) {
        let Stage::Prepared(doubt) = stage else { return };
        for id in doubt.reads {
            let read = self.reads.waiting.get_mut(&id).expect("an expired read waits for nobody");
            read.waits_for.remove(&txn);
            if read.waits_for.is_empty() {
                self.look_again(id, effects);
            }
        }
    }

    fn look_again(&mut self, id: ReadId, effects: &mut Out) {
        let query = self.reads.waiting[&id].query.clone();
        let waits_for = self.in_the_way(&query);
        if waits_for.is_empty() || self.options.planted.has(Bug::ReadWaitsOnce) {
            let read = self.stop_waiting(id);
            self.ask_store(read.request, query, effects);
        } else {
            self.wait_for(id, waits_for);
        }
    }

    fn stop_waiting(&mut self, id: ReadId) -> WaitingRead {
        let read = self.reads.waiting.remove(&id).expect("it was found by its name");
        self.reads.impatient.remove(&id);
        self.alarms.cancel(read.alarm, Alarm::Read(id));
        if let Some(patience) = read.patience {
            self.alarms.cancel(patience, Alarm::Patience(id));
        }
        for txn in &read.waits_for {
            self.reads_waiting_for(*txn).remove(&id);
        }
        read
    }

    /// From here on what is younger and would write its keys dies.
    pub(super) fn lose_patience(&mut self, now: Time, id: ReadId) {
        let read = self.reads.waiting.get_mut(&id).expect("an answered read has no alarm");
        read.patience = None;
        if self.reads.impatient.len() < self.options.impatient_reads_max {
            self.counters.reads_impatient += 1;
            self.clock = self.clock.saturating_add(1);
            self.reads.impatient.insert(id, self.clock);
        } else {
            // Those before it are fewer soon.
            let patience = now.after(self.options.read_patience);
            read.patience = Some(patience);
            self.alarms.set(patience, Alarm::Patience(id));
        }
    }

    /// A key that the work would write and that an impatient read, older than it, waits for.
    pub(super) fn key_of_impatient_read(&self, work: &Work, age: Age) -> Option<Key> {
        let Work::Write { writes, .. } = work else { return None };
        let older = self.reads.impatient.iter().filter(|(_, since)| **since <= age.clock);
        for query in older.map(|(id, _)| &self.reads.waiting[id].query) {
            let touches = |key: &&Key| match query {
                Query::Get(asked) => asked == *key,
                Query::GetMany(asked) => asked.contains(key),
                Query::Scan(range) | Query::Page(Page { range, .. }) => range.contains(key),
            };
            if let Some(key) = writes.iter().map(|write| write.key()).find(touches) {
                return Some(key.clone());
            }
        }
        None
    }

    pub(super) fn read_alarm(&mut self, id: ReadId, effects: &mut Out) {
        self.counters.reads_expired += 1;
        let read = self.stop_waiting(id);
        let txn = read.waits_for.first().expect("a read that waits for nobody is answered");
        let reason = format!("in doubt: {} has not heard how {txn} ended", self.options.id);
        reply_failed(read.request, Failure::Unavailable { reason }, effects);
    }
}
