//! The auditor's book of leases: who has told whom that it promises nobody else anything, and until
//! when, by the clock of the one who said so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kvorum_replication::paxos::message::Ballot;
use kvorum_replication::{NodeId, Time};

use crate::process::{Judgement, broken};
use crate::violation::Promise;

#[derive(Debug)]
pub(super) struct Leases {
    /// How long one is, if there are any.
    length: Option<Duration>,
    /// What each clock shows.
    clocks: BTreeMap<NodeId, Time>,
    /// To whom each acceptor has given one, and until when.
    given: BTreeMap<NodeId, (Ballot, Time)>,
    /// Leaders that count on none any more.
    given_back: BTreeSet<Ballot>,
}

impl Leases {
    pub(super) fn new(length: Option<Duration>) -> Self {
        let (clocks, given, given_back) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { length, clocks, given, given_back }
    }

    pub(super) fn at(&mut self, node: NodeId, time: Time) {
        if self.length.is_some() {
            self.clocks.insert(node, time);
        }
    }

    /// A node has started, and its clock with it. It may have given a lease just before.
    pub(super) fn restarted(&mut self, node: NodeId) {
        if let Some(length) = self.length {
            let has_run = self.clocks.insert(node, Time(0)).is_some();
            let (leader, _) = self.given.remove(&node).unwrap_or((Ballot::ZERO, Time(0)));
            if has_run && leader != Ballot::ZERO {
                self.given.insert(node, (leader, Time(0).after(length)));
            }
        }
    }

    /// An acceptor tells a leader that it follows it.
    pub(super) fn grants(&mut self, node: NodeId, leader: Ballot) {
        if let Some(length) = self.length {
            let now = self.clocks.get(&node).copied().unwrap_or(Time(0));
            self.given.insert(node, (leader, now.after(length)));
        }
    }

    /// A leader wants to be replaced.
    pub(super) fn gives_back(&mut self, leader: Ballot) {
        self.given_back.insert(leader);
    }

    /// An acceptor promises a ballot.
    pub(super) fn promises(&self, node: NodeId, ballot: Ballot) -> Judgement {
        let Some((leader, until)) = self.given.get(&node) else { return Ok(()) };
        let now = self.clocks.get(&node).copied().unwrap_or(Time(0));
        if now >= *until || ballot.node == leader.node || self.given_back.contains(leader) {
            return Ok(());
        }
        broken(
            Promise::KeepsPromises,
            format!("{node} promises {ballot}, and has given {leader} a lease that is not over"),
        )
    }
}
