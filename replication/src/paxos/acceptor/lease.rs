//! Leases: an acceptor that answers a heartbeat promises nobody else anything for a while, by its
//! own clock, so that the leader may answer reads for a little less, by its own (Gray and Cheriton
//! 1989; Paxos Made Live §5.2; Ongaro §6.4.1).

use super::super::Replica;
use crate::contract::{NodeId, Time};
use crate::paxos::planted::Bug;

/// To whom, and until when.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    holder: Option<NodeId>,
    until: Time,
}

impl Lease {
    pub(super) fn new() -> Self {
        Self { holder: None, until: Time(0) }
    }
}

impl Replica {
    /// The leader's heartbeat is answered.
    pub(in crate::paxos) fn grant_lease(&mut self, now: Time, leader: NodeId) {
        if let Some(lease) = self.options.lease {
            self.acceptor.lease = Lease { holder: Some(leader), until: now.after(lease) };
        }
    }

    /// A node that starts may have given a lease before it stopped: it promises nobody anything
    /// until that must be over.
    pub(in crate::paxos) fn honour_forgotten_lease(&mut self, now: Time) {
        if self.options.planted.has(Bug::LeaseForgottenAtRestart) {
            return;
        }
        if let Some(lease) = self.options.lease {
            self.acceptor.lease = Lease { holder: None, until: now.after(lease) };
        }
    }

    /// Whether a lease forbids to promise this node anything.
    pub(in crate::paxos) fn has_leased_to_another(&self, now: Time, node: NodeId) -> bool {
        let lease = &self.acceptor.lease;
        let honours = !self.options.planted.has(Bug::LeaseNotHonoured);
        honours && now < lease.until && lease.holder != Some(node)
    }
}
