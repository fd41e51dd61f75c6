//! Linearizable reads without a slot of their own: by read index (Ongaro §6.4), or by lease.
//!
//! ```text
//!  replica               leader                        followers
//!    │ ── ReadIndex ───────►│                               │
//!    │                      │ ── Heartbeat, one for all ───►│  that wait
//!    │                      │ ◄── acks of a quorum ─────────│  so it led when they were sent
//!    │ ◄─ ReadIndexIs n ────│
//!    │ has applied n: reads its own store
//! ```
//!
//! Why that is linearizable: an ack says that no higher ballot was promised when it was given, so no
//! other leader had a quorum when the heartbeat was sent, and everything acknowledged by then was
//! chosen under this ballot or was found by its phase 1. A leader answers nobody before it has
//! applied what it found.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::message::{Message, ReadName, Slot};
use super::planted::Bug;
use super::{Alarm, Out, Replica, reply_failed};
use crate::contract::{Effect, NodeId, ReadId, RequestId, Time};
use crate::request::{Answer, Failure, Query};

/// Questions of other replicas that wait at a leader. Each asks one at a time.
pub(super) const ASKERS_MAX: usize = 1024;

/// A client's read that is not answered.
#[derive(Clone, Debug)]
struct Read {
    query: Query,
    /// When it is given up.
    alarm: Time,
}

/// Who wants to know the read index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    Here,
    Peer(NodeId),
}

/// A question that waits for a heartbeat to be answered.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    asker: Asker,
    name: ReadName,
    /// The first heartbeat that was sent after it came.
    round: u64,
}

/// What is known of reads.
#[derive(Clone, Debug, Default)]
pub(super) struct Reads {
    reads: BTreeMap<RequestId, Read>,
    /// Reads that came since the last question to a leader, or while there was none.
    unasked: Vec<RequestId>,
    /// The question that is out, and the reads it is for.
    asked: Option<(ReadName, Vec<RequestId>)>,
    asked_alarm: Option<Time>,
    /// Reads that wait until so much is applied.
    indexed: BTreeMap<Slot, Vec<RequestId>>,
    /// Reads that the store is about to answer.
    at_store: BTreeMap<ReadId, RequestId>,
    /// Questions that this node has to answer as the leader.
    waiting: Vec<Waiting>,
    last_name: u64,
}

impl Reads {
    pub(super) fn in_flight(&self) -> usize {
        self.reads.len()
    }

    /// How much there is of reads, of reads for which no leader was asked, and of questions that
    /// wait here.
    pub(super) fn lengths(&self) -> (usize, usize, usize) {
        (self.reads.len(), self.unasked.len(), self.waiting.len())
    }
}

impl Replica {
    /// A client reads what was acknowledged.
    pub(super) fn read(
        &mut self,
        now: Time,
        request: RequestId,
        deadline: Time,
        query: Query,
        effects: &mut Out,
    ) {
        self.counters.reads += 1;
        if let Err(failure) = self.admit_read(now, deadline, &query) {
            return reply_failed(request, failure, effects);
        }
        let alarm = deadline.min(now.after(self.options.request_timeout));
        self.alarms.set(alarm, Alarm::Read(request));
        self.reads.reads.insert(request, Read { query, alarm });
        self.reads.unasked.push(request);
        self.ask_leader_for_reads(now, effects);
    }

    /// A client reads what there is.
    pub(super) fn read_stale(&mut self, request: RequestId, query: Query, effects: &mut Out) {
        self.counters.reads_stale += 1;
        if let Err(reason) = self.options.limits.check_query(&query) {
            return reply_failed(request, Failure::Invalid { reason }, effects);
        }
        if query.holder().is_some_and(|holder| holder != self.options.id) {
            return reply_failed(request, Failure::SnapshotExpired, effects);
        }
        self.ask_store(request, query, effects);
    }

    fn admit_read(&mut self, now: Time, deadline: Time, query: &Query) -> Result<(), Failure> {
        if let Err(reason) = self.options.limits.check_query(query) {
            return Err(Failure::Invalid { reason });
        }
        if self.reads.reads.len() >= self.options.reads_max {
            self.counters.overloaded += 1;
            return Err(Failure::Overloaded);
        }
        if deadline <= now {
            let reason = String::from("the deadline had passed when the request arrived");
            return Err(Failure::Unavailable { reason });
        }
        self.check_reach()
    }

    fn ask_store(&mut self, request: RequestId, query: Query, effects: &mut Out) {
        let read = self.next_read();
        self.reads.at_store.insert(read, request);
        effects.push_unheld(Effect::read(read, query));
    }

    /// Asks the leader how far to wait, for all reads that have come since it was asked last. One
    /// question is out at a time, so they gather while it is.
    pub(super) fn ask_leader_for_reads(&mut self, now: Time, effects: &mut Out) {
        let Some(leader) = self.proposer.leader() else { return };
        if self.reads.asked.is_some() || self.reads.unasked.is_empty() {
            return;
        }
        self.reads.last_name += 1;
        // A node that has lost its disk counts its incarnations anew, and its lives go on.
        let incarnation = self.life.saturating_add(self.incarnation);
        let name = ReadName { incarnation, number: self.reads.last_name };
        let reads = core::mem::take(&mut self.reads.unasked);
        self.reads.asked = Some((name, reads));
        if leader == self.options.id {
            return self.read_index(now, Asker::Here, name, effects);
        }
        self.counters.read_indexes_sent += 1;
        let alarm = now.after(self.options.resend_interval);
        self.alarms.set(alarm, Alarm::AskAgain);
        self.reads.asked_alarm = Some(alarm);
        effects.push_unheld(Effect::Send { to: leader, message: Message::ReadIndex { name } });
    }

    /// Another replica asks for the read index.
    pub(super) fn read_index_asked(
        &mut self,
        now: Time,
        from: NodeId,
        name: ReadName,
        effects: &mut Out,
    ) {
        if !self.leads() || self.reads.waiting.len() >= ASKERS_MAX {
            // It asks again, or somebody else.
            self.counters.duplicates_dropped += 1;
            return;
        }
        self.read_index(now, Asker::Peer(from), name, effects);
    }

    fn read_index(&mut self, now: Time, asker: Asker, name: ReadName, effects: &mut Out) {
        // A newer question of the same replica stands for the older one.
        self.reads.waiting.retain(|waiting| waiting.asker != asker);
        let Some(mut round) = self.proposer.next_round() else { return };
        if self.options.planted.has(Bug::ReadByOlderRound) {
            round -= 1;
        }
        self.reads.waiting.push(Waiting { asker, name, round });
        self.confirm_reads(now, effects);
        self.begin_read_round(now, effects);
    }

    /// Sends the heartbeat that waiting reads need, unless one that is out has to come back first.
    fn begin_read_round(&mut self, now: Time, effects: &mut Out) {
        if !self.reads.waiting.is_empty() && self.proposer.begins_read_round() {
            self.counters.read_rounds += 1;
            self.beat(now, effects);
        }
    }

    /// Answers the questions that a quorum's acks, or a lease, allow to answer.
    pub(super) fn confirm_reads(&mut self, now: Time, effects: &mut Out) {
        if self.reads.waiting.is_empty() || !self.is_recovered() {
            return;
        }
        let holds_lease = self.holds_lease(now);
        let confirmed = self.proposer.confirmed_round();
        let index = self.learner.chosen;
        let all = core::mem::take(&mut self.reads.waiting);
        let asks_nobody = self.options.planted.has(Bug::ReadUnconfirmed);
        let is_ready = |waiting: &Waiting| holds_lease || waiting.round <= confirmed || asks_nobody;
        let (ready, waiting): (Vec<Waiting>, Vec<Waiting>) = all.into_iter().partition(is_ready);
        self.reads.waiting = waiting;
        for waiting in ready {
            self.counters.reads_by_lease += u64::from(waiting.round > confirmed);
            match waiting.asker {
                Asker::Here => self.index_came(now, waiting.name, index, effects),
                Asker::Peer(to) => {
                    self.counters.read_indexes_told += 1;
                    let message = Message::ReadIndexIs { name: waiting.name, index };
                    effects.push_unheld(Effect::Send { to, message });
                }
            }
        }
        self.begin_read_round(now, effects);
    }

    /// The leader has answered: the reads of the question may see what is applied up to there.
    pub(super) fn index_came(&mut self, now: Time, name: ReadName, index: Slot, effects: &mut Out) {
        let Some((_, reads)) = self.reads.asked.take_if(|(asked, _)| *asked == name) else {
            self.counters.duplicates_dropped += 1;
            return;
        };
        self.cancel_ask_again();
        let waits = !self.options.planted.has(Bug::ReadBeforeApplied);
        if index > self.learner.applied && waits {
            self.counters.reads_waited += reads.len() as u64;
            self.reads.indexed.entry(index).or_default().extend(reads);
        } else {
            self.read_store(reads, effects);
        }
        self.ask_leader_for_reads(now, effects);
    }

    fn read_store(&mut self, reads: Vec<RequestId>, effects: &mut Out) {
        for request in reads {
            // Those that were given up meanwhile are not there any more.
            let Some(read) = self.reads.reads.get(&request) else { continue };
            let query = read.query.clone();
            self.ask_store(request, query, effects);
        }
    }

    /// So much is applied.
    pub(super) fn reads_up_to(&mut self, applied: Slot, effects: &mut Out) {
        while let Some(entry) = self.reads.indexed.first_entry()
            && *entry.key() <= applied
        {
            let reads = entry.remove();
            self.read_store(reads, effects);
        }
    }

    /// The store has answered a client's read; false if it was asked something else.
    pub(super) fn read_came(&mut self, read: ReadId, answer: Answer, effects: &mut Out) -> bool {
        let Some(request) = self.reads.at_store.remove(&read) else { return false };
        if let Some(read) = self.reads.reads.remove(&request) {
            self.alarms.cancel(read.alarm, Alarm::Read(request));
        }
        let outcome = answer.held_by(self.options.id).into_outcome();
        effects.push_unheld(Effect::Reply { request, outcome });
        true
    }

    /// This node does not lead any more: its own reads ask the next leader, the others ask again by
    /// themselves.
    pub(super) fn reads_lose_leader(&mut self, now: Time, effects: &mut Out) {
        self.reads.waiting.clear();
        self.ask_again(now, effects);
    }

    /// The leader has not answered in time, or is another now.
    pub(super) fn ask_again(&mut self, now: Time, effects: &mut Out) {
        self.cancel_ask_again();
        if let Some((_, reads)) = self.reads.asked.take() {
            let alive = |request: &RequestId| self.reads.reads.contains_key(request);
            let reads: Vec<RequestId> = reads.into_iter().filter(alive).collect();
            self.reads.unasked.extend(reads);
        }
        self.ask_leader_for_reads(now, effects);
    }

    fn cancel_ask_again(&mut self) {
        if let Some(alarm) = self.reads.asked_alarm.take() {
            self.alarms.cancel(alarm, Alarm::AskAgain);
        }
    }

    pub(super) fn read_alarm(&mut self, request: RequestId, effects: &mut Out) {
        if self.reads.reads.remove(&request).is_none() {
            return;
        }
        self.counters.reads_expired += 1;
        self.reads.unasked.retain(|unasked| *unasked != request);
        for reads in self.reads.indexed.values_mut() {
            reads.retain(|indexed| *indexed != request);
        }
        let reason = match self.proposer.leader() {
            None => self.why_unavailable(),
            Some(leader) => format!("{leader} leads, and no majority has confirmed it in time"),
        };
        reply_failed(request, Failure::Unavailable { reason }, effects);
    }
}
