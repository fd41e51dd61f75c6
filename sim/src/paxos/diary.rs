//! What a node has written down, as a judge remembers it: out of nothing but the records appended
//! and how far the log says that it is durable.

use std::collections::VecDeque;

use kvorum_replication::Position;
use kvorum_replication::paxos::message::{Ballot, Slot};
use kvorum_replication::paxos::record::Record;

/// What follows from some of a log's records.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub(super) incarnation: u64,
    pub(super) life: u64,
    pub(super) promised: Ballot,
    pub(super) applied: Slot,
}

impl Standing {
    fn new(life: u64) -> Self {
        Self { incarnation: 0, life, promised: Ballot::ZERO, applied: Slot::ZERO }
    }

    fn add(&mut self, record: &Record) {
        match record {
            Record::Started { incarnation, life } => {
                self.incarnation = *incarnation;
                self.life = *life;
            }
            Record::Promised { ballot } | Record::Accepted { ballot, .. } => {
                self.promised = self.promised.max(*ballot);
            }
            Record::Learned { .. } => {}
            Record::Chosen { slot, .. } => self.applied = *slot,
            Record::Forgot { life } => {
                self.life = *life;
                self.promised = Ballot::ZERO;
            }
            Record::Checkpoint(checkpoint) | Record::Installed(checkpoint) => {
                self.life = checkpoint.life;
                self.promised = self.promised.max(checkpoint.promised);
                self.applied = checkpoint.replicated.applied;
            }
        }
    }
}

/// One node's log, of all its runs since it last lost its disk.
#[derive(Debug)]
pub(super) struct Diary {
    /// Up to here the log has been seen to be durable.
    until: Position,
    /// What follows from that.
    pub(super) durable: Standing,
    /// What follows from all that was appended.
    pub(super) appended: Standing,
    /// Records that are not known to be durable.
    tail: VecDeque<(Position, Record)>,
}

impl Diary {
    /// An empty log, on which a node begins under this life.
    pub(super) fn new(life: u64) -> Self {
        let standing = Standing::new(life);
        let (durable, appended) = (standing, standing);
        Self { until: Position::ZERO, durable, appended, tail: VecDeque::new() }
    }

    pub(super) fn until(&self) -> Position {
        self.until
    }

    /// Appends a record, of which the judge has seen how things stood before it.
    pub(super) fn add(&mut self, at: Position, record: Record) {
        self.appended.add(&record);
        self.tail.push_back((at, record));
    }

    /// The log says that it is durable up to here. The oldest record of which that is news; it
    /// counts in `durable` from the next call on.
    pub(super) fn next_durable(&mut self, to: Position) -> Option<Record> {
        let (at, record) = self.tail.pop_front_if(|(at, _)| *at <= to)?;
        self.until = at;
        Some(record)
    }

    /// The judge has looked at a record that is durable.
    pub(super) fn has_judged(&mut self, record: &Record) {
        self.durable.add(record);
    }

    /// A new run found records up to `last`: what stood behind is gone.
    pub(super) fn lose_tail(&mut self, last: Position) {
        while self.tail.pop_back_if(|(at, _)| *at > last).is_some() {}
        self.appended = self.durable;
        for (_, record) in &self.tail {
            self.appended.add(record);
        }
    }

    /// Votes that are not known to be durable: where, and with which ballot.
    pub(super) fn votes_under_way(&self) -> impl Iterator<Item = (Slot, Ballot)> {
        self.tail.iter().filter_map(|(_, record)| match record {
            Record::Accepted { slot, ballot, .. } => Some((*slot, *ballot)),
            _ => None,
        })
    }
}
