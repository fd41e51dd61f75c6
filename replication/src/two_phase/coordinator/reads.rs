//! Reads go to a random replica that can be reached, and to another if that one does not answer.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::state::PendingRead;
use super::{Alarm, Coordinator, Out, reply_failed};
use crate::contract::{Effect, NodeId, RequestId, Time};
use crate::request::{Answer, Failure, Query};
use crate::two_phase::message::Message;

impl Coordinator {
    pub(super) fn read(
        &mut self,
        now: Time,
        request: RequestId,
        deadline: Time,
        query: Query,
        effects: &mut Out,
    ) {
        if let Err(reason) = self.options.limits.check_query(&query) {
            return reply_failed(request, Failure::Invalid { reason }, effects);
        }
        if self.reads.len() >= self.options.reads_in_flight_max {
            self.counters.overloaded += 1;
            return reply_failed(request, Failure::Overloaded, effects);
        }
        self.last_read += 1;
        let read = PendingRead {
            request,
            query,
            deadline: deadline.min(now.after(self.options.read_timeout)),
            asked: NodeId::COORDINATOR,
            failed: Vec::new(),
            alarm: now,
        };
        self.ask(now, self.last_read, read, effects);
    }

    /// Sends a read to another replica than the last, if there is one, and waits for the answer.
    fn ask(&mut self, now: Time, id: u64, mut read: PendingRead, effects: &mut Out) {
        let Some(replica) = self.choose(&read) else {
            let reason = match read.query.holder() {
                Some(holder) => format!("{holder} holds the scan's snapshot, and is not reachable"),
                None => String::from("a read needs one replica, and none is reachable"),
            };
            return reply_failed(read.request, Failure::Unavailable { reason }, effects);
        };
        read.asked = replica;
        read.alarm = now.after(self.options.read_retry_interval).min(read.deadline);
        self.alarms.set(read.alarm, Alarm::Read(id));
        self.counters.reads_sent += 1;
        let message =
            Message::Read { read: id, epoch: self.epoch, query: Box::new(read.query.clone()) };
        effects.push(Effect::Send { to: replica, message });
        self.reads.insert(id, read);
    }

    fn choose(&mut self, read: &PendingRead) -> Option<NodeId> {
        let holder = read.query.holder();
        let is_fit = |replica: &NodeId| {
            self.peers_up.contains(replica)
                && !read.failed.contains(replica)
                && holder.is_none_or(|holder| holder == *replica)
        };
        let fit: Vec<NodeId> = self.participants.iter().copied().filter(is_fit).collect();
        let others: Vec<NodeId> =
            fit.iter().copied().filter(|replica| *replica != read.asked).collect();
        let choice = if others.is_empty() { fit } else { others };
        match choice.len() {
            0 => None,
            replicas => {
                let index = self.random.below(replicas as u64);
                usize::try_from(index).ok().and_then(|index| choice.get(index).copied())
            }
        }
    }

    /// Any replica's answer is good, also of one that was given up: it was read after the request
    /// came.
    pub(super) fn read_answer(
        &mut self,
        now: Time,
        from: NodeId,
        id: u64,
        epoch: u64,
        answer: Answer,
        effects: &mut Out,
    ) {
        self.counters.read_answers += 1;
        if epoch != self.epoch || !self.participants.contains(&from) {
            self.counters.strange_dropped += 1;
            return;
        }
        let Some(read) = self.reads.get(&id) else {
            self.counters.duplicates_dropped += 1;
            return;
        };
        if !read.query.accepts(&answer) {
            self.counters.strange_dropped += 1;
            return;
        }
        let mut read = self.take_read(id);
        let Answer::Failed(reason) = answer else {
            let outcome = answer.into_outcome();
            return effects.push(Effect::Reply { request: read.request, outcome });
        };
        if !read.failed.contains(&from) {
            read.failed.push(from);
        }
        if read.failed.len() == self.participants.len() {
            let reason = format!("no replica can read its store; {from}: {reason}");
            return reply_failed(read.request, Failure::Storage { reason }, effects);
        }
        self.counters.reads_retried += 1;
        self.ask(now, id, read, effects);
    }

    pub(super) fn redirect_reads_of(&mut self, now: Time, peer: NodeId, effects: &mut Out) {
        let asked: Vec<u64> =
            self.reads.iter().filter(|(_, read)| read.asked == peer).map(|(id, _)| *id).collect();
        for id in asked {
            self.counters.reads_retried += 1;
            let read = self.take_read(id);
            self.ask(now, id, read, effects);
        }
    }

    pub(super) fn read_alarm(&mut self, now: Time, id: u64, effects: &mut Out) {
        let read = self.take_read(id);
        if now >= read.deadline {
            let reason = format!("{} has not answered in time", read.asked);
            return reply_failed(read.request, Failure::Unavailable { reason }, effects);
        }
        self.counters.reads_retried += 1;
        self.ask(now, id, read, effects);
    }

    fn take_read(&mut self, id: u64) -> PendingRead {
        let read = self.reads.remove(&id).expect("the read was found by its name");
        self.alarms.cancel(read.alarm, Alarm::Read(id));
        read
    }
}
