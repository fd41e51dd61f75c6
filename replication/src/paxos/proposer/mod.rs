//! The proposer: becomes leader when it hears none, finishes what its predecessors began, and then
//! proposes what clients ask for.
//!
//! ```text
//!              silence              a majority            a quorum has promised
//!  Following ─────────► PreVoting ──────────► Campaigning ──────────────────────► Leading
//!      ▲                    │    hears none        │                                 │
//!      └────────────────────┴──────────────────────┴─────────────────────────────────┘
//!            a leader is heard; a higher ballot; or no majority answers for a while
//! ```

mod elect;
mod hand_over;
mod heartbeat;
mod propose;
mod requests;
mod term;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use self::requests::{Asked, Queued};
pub(super) use self::term::Term;
use super::Replica;
use super::message::{Ballot, Member, Slot};
use crate::contract::{NodeId, RequestId, Time};

/// How far a proposer has come.
#[derive(Clone, Debug)]
enum Stage {
    /// It waits for a leader's word, or for silence.
    Following,
    /// It has asked who else hears no leader.
    PreVoting { ballot: Ballot, granted: BTreeSet<Member> },
    /// Phase 1.
    Campaigning(Box<Term>),
    /// Phase 2, slot after slot.
    Leading(Box<Term>),
}

/// Whether commands wait for others to share a slot with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gathering {
    /// None do.
    No,
    /// Until the alarm rings, or there are enough of them, or no slot is open.
    Waits,
    /// The alarm rings: no longer.
    Over,
}

/// What a proposer knows.
#[derive(Clone, Debug)]
pub(super) struct Proposer {
    stage: Stage,
    /// The highest ballot heard of.
    seen: Ballot,
    /// The newest leader heard of.
    leader: Ballot,
    /// Whether that leader is still believed in.
    follows: bool,
    /// When it was heard last, or when the wait for another began.
    heard: Time,
    /// When the election alarm rings.
    election_at: Option<Time>,
    /// Campaigns in a row that led nowhere.
    failures: u32,
    /// Commands that wait for a slot, or for a leader to be redirected to.
    queue: VecDeque<Queued>,
    queue_bytes: usize,
    gathering: Gathering,
    /// Every request that is not answered.
    requests: BTreeMap<RequestId, Asked>,
    /// Requests by the slot their commands were proposed in, with the ballot.
    by_slot: BTreeMap<Slot, (Ballot, Vec<Option<RequestId>>)>,
}

impl Proposer {
    pub(super) fn new() -> Self {
        Self {
            stage: Stage::Following,
            seen: Ballot::ZERO,
            leader: Ballot::ZERO,
            follows: false,
            heard: Time(0),
            election_at: None,
            failures: 0,
            queue: VecDeque::new(),
            queue_bytes: 0,
            gathering: Gathering::No,
            requests: BTreeMap::new(),
            by_slot: BTreeMap::new(),
        }
    }

    /// The node serves.
    pub(super) fn begin(&mut self, now: Time) {
        self.heard = now;
    }

    /// A ballot was heard of.
    pub(super) fn see(&mut self, ballot: Ballot) {
        self.seen = self.seen.max(ballot);
    }

    /// Somebody follows this leader; this node has not heard it itself.
    pub(super) fn hear_of_leader(&mut self, ballot: Ballot) {
        self.see(ballot);
        if ballot > self.leader {
            self.leader = ballot;
            self.follows = false;
        }
    }

    pub(super) fn leader_ballot(&self) -> Ballot {
        self.leader
    }

    /// The leader, if one is believed in.
    pub(super) fn leader(&self) -> Option<NodeId> {
        self.follows.then_some(self.leader.node)
    }

    /// Somebody else campaigns, and is given time.
    pub(super) fn wait_anew(&mut self, now: Time) {
        self.heard = now;
        self.follows = false;
    }

    /// Requests that are not answered.
    pub(super) fn in_flight(&self) -> usize {
        self.requests.len()
    }

    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.queue_bytes
    }

    /// How much there is of slots open, of requests, and of slots with requests.
    pub(super) fn lengths(&self) -> (usize, usize, usize) {
        let open = match &self.stage {
            Stage::Leading(term) => term.open.len(),
            Stage::Following | Stage::PreVoting { .. } | Stage::Campaigning(_) => 0,
        };
        (open, self.requests.len(), self.by_slot.len())
    }

    /// Slots open: which batch, and who has accepted it.
    pub(super) fn open(&self) -> Vec<(Slot, Ballot, Vec<Member>)> {
        match &self.stage {
            Stage::Leading(term) => {
                let open = |(slot, open): (&Slot, &term::Open)| {
                    (*slot, open.batch.origin, open.votes.clone())
                };
                term.open.iter().map(open).collect()
            }
            Stage::Following | Stage::PreVoting { .. } | Stage::Campaigning(_) => Vec::new(),
        }
    }

    /// The ballot that this node leads with.
    pub(super) fn leads_with(&self) -> Option<Ballot> {
        match &self.stage {
            Stage::Leading(term) => Some(term.ballot),
            Stage::Following | Stage::PreVoting { .. } | Stage::Campaigning(_) => None,
        }
    }

    fn leading(&mut self) -> Option<&mut Term> {
        match &mut self.stage {
            Stage::Leading(term) => Some(term),
            Stage::Following | Stage::PreVoting { .. } | Stage::Campaigning(_) => None,
        }
    }

    /// The campaign or the leadership with this ballot.
    fn term(&mut self, ballot: Ballot) -> Option<&mut Term> {
        match &mut self.stage {
            Stage::Leading(term) | Stage::Campaigning(term) if term.ballot == ballot => Some(term),
            Stage::Following
            | Stage::PreVoting { .. }
            | Stage::Campaigning(_)
            | Stage::Leading(_) => None,
        }
    }

    /// Whether a change of the members is on its way.
    pub(super) fn is_changing(&self) -> bool {
        let is_queued = self.queue.iter().any(Queued::changes_members);
        let is_open = match &self.stage {
            Stage::Leading(term) => term.open.values().any(|open| open.batch.changes_members()),
            Stage::Following | Stage::PreVoting { .. } | Stage::Campaigning(_) => false,
        };
        is_queued || is_open
    }
}

impl Replica {
    /// Whether this node is the leader, as far as it knows.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.proposer.leads_with().is_some()
    }
}
