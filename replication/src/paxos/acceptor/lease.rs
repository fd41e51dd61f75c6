//! Leases: an acceptor that answers a heartbeat promises nobody else anything for a while, by its
//! own clock, so that the leader may answer reads for a little less, by its own (Gray and Cheriton
//! 1989; Paxos Made Live §5.2; Ongaro §6.4.1).

use super::super::Replica;
use super::super::message::Ballot;
use crate::contract::{NodeId, Time};
use crate::paxos::planted::Bug;

/// To whom, and until when.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    holder: Option<NodeId>,
    until: Time,
    /// This leader counts on none any more.
    given_back: Ballot,
}

impl Lease {
    pub(super) fn new() -> Self {
        Self { holder: None, until: Time(0), given_back: Ballot::ZERO }
    }
}

impl Replica {
    /// The leader's heartbeat is answered.
    pub(in crate::paxos) fn grant_lease(&mut self, now: Time, leader: Ballot) {
        let given_back = self.acceptor.lease.given_back;
        if let Some(lease) = self.options.lease
            && leader != given_back
        {
            let (holder, until) = (Some(leader.node), now.after(lease));
            self.acceptor.lease = Lease { holder, until, given_back };
        }
    }

    /// A node that starts may have given a lease before it stopped: it promises nobody anything
    /// until that must be over.
    pub(in crate::paxos) fn honour_forgotten_lease(&mut self, now: Time) {
        if self.options.planted.has(Bug::LeaseForgottenAtRestart) {
            return;
        }
        if let Some(lease) = self.options.lease {
            self.acceptor.lease = Lease { until: now.after(lease), ..Lease::new() };
        }
    }

    /// The leader has asked to be replaced, and does without from then on.
    pub(in crate::paxos) fn give_lease_back(&mut self, leader: Ballot) {
        if self.acceptor.lease.holder == Some(leader.node) {
            self.acceptor.lease = Lease { given_back: leader, ..Lease::new() };
        }
    }

    /// When the lease that was given is over, or now.
    pub(in crate::paxos) fn leased_until(&self, now: Time) -> Time {
        now.max(self.acceptor.lease.until)
    }

    /// Whether a lease forbids to promise this node anything.
    pub(in crate::paxos) fn has_leased_to_another(&self, now: Time, node: NodeId) -> bool {
        let lease = &self.acceptor.lease;
        let honours = !self.options.planted.has(Bug::LeaseNotHonoured);
        honours && now < lease.until && lease.holder != Some(node)
    }
}
