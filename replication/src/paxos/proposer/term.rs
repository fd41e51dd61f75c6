//! What a proposer knows under one ballot of its own, from its prepare on.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::contract::{NodeId, Time};
use crate::paxos::membership::Membership;
use crate::paxos::message::{Ballot, Batch, Member, Promise, Slot};
use crate::paxos::planted::{Bug, Planted};

/// Heartbeats whose answers still count. Older ones would prove nothing that newer ones do not.
const ROUNDS_MAX: usize = 64;

/// A slot that is proposed and not known to be chosen.
#[derive(Clone, Debug)]
pub(in crate::paxos) struct Open {
    pub(in crate::paxos) batch: Arc<Batch>,
    pub(super) votes: Vec<Member>,
    pub(super) sent: Time,
    /// How often it was sent again since.
    pub(super) resent: u32,
}

/// A campaign, and the leadership that comes of it.
#[derive(Clone, Debug)]
pub(in crate::paxos) struct Term {
    pub(super) ballot: Ballot,
    /// Who has promised, and whether all it has accepted was told.
    pub(super) promises: BTreeMap<NodeId, (u64, bool)>,
    /// From which slot on each was last asked to tell more: all before it was told. Whoever answers
    /// twice must not be asked twice, or each copy of a piece would bring copies of all that follow.
    asked: BTreeMap<Member, Slot>,
    /// By slot, the batch that was accepted with the highest ballot: it has to be proposed again,
    /// since it may be chosen.
    pub(super) found: BTreeMap<Slot, (Ballot, Arc<Batch>)>,
    /// Up to here somebody who promised knows all slots to be chosen.
    pub(super) base: Slot,
    /// Who that is.
    pub(super) base_told_by: Option<NodeId>,
    /// Up to here slots may have been chosen under earlier ballots.
    pub(super) recovered_to: Slot,
    /// The next slot to propose.
    pub(super) next: Slot,
    pub(super) open: BTreeMap<Slot, Open>,
    /// Bytes of their batches.
    pub(super) open_bytes: usize,
    /// The last heartbeat's number.
    pub(super) round: u64,
    /// When each of the last heartbeats was sent.
    rounds: VecDeque<(u64, Time)>,
    /// The newest heartbeat that each acceptor has answered, and when that was sent.
    acked: BTreeMap<Member, (u64, Time)>,
    /// The newest heartbeat that a quorum has answered, and when it was sent.
    pub(super) confirmed: (u64, Time),
    /// The newest set of acceptors then known: a lease of older ones says nothing of what others may
    /// choose in the slots of newer ones.
    pub(super) confirmed_by: Slot,
    /// The heartbeat that reads wait for.
    pub(super) read_round: Option<u64>,
    /// How far this node had come, and when: a leader that cannot learn what others know gives up.
    pub(super) progress: (Slot, Time),
    /// Who was asked to take over, and when last.
    pub(super) handed_to: Vec<NodeId>,
    pub(super) handed_at: Option<Time>,
}

impl Term {
    pub(super) fn new(ballot: Ballot, now: Time) -> Self {
        Self {
            ballot,
            promises: BTreeMap::new(),
            asked: BTreeMap::new(),
            found: BTreeMap::new(),
            base: Slot::ZERO,
            base_told_by: None,
            recovered_to: Slot::ZERO,
            next: Slot(1),
            open: BTreeMap::new(),
            open_bytes: 0,
            round: 0,
            rounds: VecDeque::new(),
            acked: BTreeMap::new(),
            confirmed: (0, now),
            confirmed_by: Slot::ZERO,
            read_round: None,
            progress: (Slot::ZERO, now),
            handed_to: Vec::new(),
            handed_at: None,
        }
    }

    /// An acceptor has promised, and told what it has accepted, or a part of it.
    pub(super) fn promise(&mut self, from: NodeId, promise: Promise, planted: Planted) {
        let is_complete = promise.more.is_none();
        let entry = self.promises.entry(from).or_insert((promise.life, false));
        if entry.0 != promise.life {
            *entry = (promise.life, false);
        }
        entry.1 |= is_complete;
        if promise.chosen > self.base {
            self.base = promise.chosen;
            self.base_told_by = Some(from);
        }
        self.recovered_to = self.recovered_to.max(promise.chosen);
        for accepted in promise.accepted {
            if accepted.slot < self.next {
                continue;
            }
            self.recovered_to = self.recovered_to.max(accepted.slot);
            let newest = self.found.get(&accepted.slot).map(|(ballot, _)| *ballot);
            let is_newer = match planted.has(Bug::ProposeOldestFound) {
                true => newest.is_none_or(|newest| accepted.ballot < newest),
                false => newest.is_none_or(|newest| accepted.ballot > newest),
            };
            if is_newer {
                self.found.insert(accepted.slot, (accepted.ballot, accepted.batch));
            }
        }
    }

    /// An acceptor has more to tell from this slot on; false if it was asked for that already.
    pub(super) fn ask_from(&mut self, member: Member, slot: Slot) -> bool {
        let asked = self.asked.entry(member).or_insert(Slot::ZERO);
        let is_news = slot > *asked;
        *asked = slot.max(*asked);
        is_news
    }

    /// From where on a node is to tell what it has accepted: nothing that it has told already.
    pub(super) fn tells_from(&self, node: NodeId, first: Slot) -> Slot {
        let life = self.promises.get(&node).map_or(0, |(life, _)| *life);
        let asked = self.asked.get(&Member { node, life }).copied().unwrap_or(first);
        first.max(asked)
    }

    /// Whether this acceptor has promised, and told everything.
    pub(super) fn has_promised(&self, member: Member) -> bool {
        self.promises.get(&member.node) == Some(&(member.life, true))
    }

    /// The newest heartbeat that a node has answered.
    pub(super) fn last_ack(&self, node: NodeId) -> u64 {
        let acks = self.acked.iter().filter(|(member, _)| member.node == node);
        acks.map(|(_, (round, _))| *round).max().unwrap_or_default()
    }

    /// A heartbeat goes out.
    pub(super) fn begin_round(&mut self, now: Time) -> u64 {
        self.round += 1;
        self.rounds.push_back((self.round, now));
        if self.rounds.len() > ROUNDS_MAX {
            self.rounds.pop_front();
        }
        self.round
    }

    /// An acceptor has answered a heartbeat; whether a quorum now has answered a newer one.
    pub(super) fn ack(&mut self, member: Member, round: u64, membership: &Membership) -> bool {
        let Some(sent) = self.rounds.iter().find(|(number, _)| *number == round).copied() else {
            return false;
        };
        let newest = self.acked.entry(member).or_insert(sent);
        *newest = sent.max(*newest);
        let acked = &self.acked;
        let by_quorum = acked.values().copied().filter(|candidate| {
            let has = |member| acked.get(&member).is_some_and(|newest| newest >= candidate);
            membership.is_quorum_everywhere(has)
        });
        let Some(confirmed) = by_quorum.max() else { return false };
        let is_newer = confirmed.0 > self.confirmed.0;
        if is_newer {
            self.confirmed = confirmed;
            self.confirmed_by = membership.newest().0;
        }
        is_newer
    }
}
