//! Who the acceptors are, slot by slot.
//!
//! A logged command changes them for the slots a window behind it (Paxos Made Simple §3: the state
//! after slot *i* says who chooses slot *i + α*). A leader proposes no slot further ahead than that,
//! so whoever proposes or counts votes in a slot knows its acceptors, and every slot has one set of
//! them. Not "one server at a time" (Ongaro §4.1): that needs neighbouring sets to share a majority
//! in every pair, which a replacement of one identity by another does not give.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::message::{Command, Member, Slot};
use super::{Out, Replica};
use crate::contract::{NodeId, Time};

/// More acceptors than anybody needs: every batch is sent to each of them.
const MEMBERS_MAX: usize = 31;

/// The acceptors of all slots that are not applied.
#[derive(Clone, Debug)]
pub(super) struct Membership {
    /// From which slot on, in their order. The first covers the slot behind the last applied.
    sets: VecDeque<(Slot, Arc<[Member]>)>,
}

impl Membership {
    pub(super) fn founders(nodes: &[NodeId]) -> Self {
        let nodes: BTreeSet<NodeId> = nodes.iter().copied().collect();
        let members = nodes.into_iter().map(|node| Member { node, life: 0 }).collect();
        Self { sets: VecDeque::from([(Slot(1), members)]) }
    }

    /// Takes back what a checkpoint kept; nothing, if that is not a membership.
    pub(super) fn restore(sets: Vec<(Slot, Arc<[Member]>)>) -> Option<Self> {
        (!sets.is_empty()).then(|| Self { sets: sets.into() })
    }

    pub(super) fn list(&self) -> Vec<(Slot, Arc<[Member]>)> {
        self.sets.iter().cloned().collect()
    }

    /// The acceptors of a slot that is not applied, and not too far ahead.
    pub(super) fn of(&self, slot: Slot) -> &[Member] {
        let covers = |(from, _): &&(Slot, Arc<[Member]>)| *from <= slot;
        let (_, members) = self.sets.iter().rev().find(covers).unwrap_or(&self.sets[0]);
        members
    }

    /// The newest set, and from which slot on it counts.
    pub(super) fn newest(&self) -> (Slot, &Arc<[Member]>) {
        let (from, members) = self.sets.back().expect("there always is a set of acceptors");
        (*from, members)
    }

    /// A change that does not count for the next slot yet.
    pub(super) fn pending(&self, applied: Slot) -> Option<Slot> {
        let (from, _) = self.newest();
        (from > applied.next()).then_some(from)
    }

    /// A chosen command changes the acceptors; whether it may. One change at a time: the next one
    /// is made of what this one leaves.
    pub(super) fn change(&mut self, at: Slot, window: u64, members: Arc<[Member]>) -> bool {
        let is_pending = self.newest().0 > at.next();
        if is_pending || check(&members).is_err() {
            return false;
        }
        self.sets.push_back((at.plus(window), members));
        true
    }

    /// Forgets sets that no open slot needs.
    pub(super) fn applied(&mut self, slot: Slot) {
        while self.sets.get(1).is_some_and(|(from, _)| *from <= slot.next()) {
            self.sets.pop_front();
        }
    }

    /// Whether those who are `in_favour` are a majority of the slot's acceptors.
    pub(super) fn is_quorum(&self, slot: Slot, in_favour: impl Fn(Member) -> bool) -> bool {
        is_majority(self.of(slot), in_favour)
    }

    /// Whether they are a majority of each set that open slots may have.
    pub(super) fn is_quorum_everywhere(&self, in_favour: impl Fn(Member) -> bool) -> bool {
        self.sets.iter().all(|(_, members)| is_majority(members, &in_favour))
    }

    /// Whether an acceptor is one of an open slot's.
    pub(super) fn contains(&self, member: Member) -> bool {
        self.sets.iter().any(|(_, members)| members.contains(&member))
    }

    /// The lives under which a node is an acceptor of open slots.
    pub(super) fn lives_of(&self, node: NodeId) -> BTreeSet<Member> {
        let members = self.sets.iter().flat_map(|(_, members)| members.iter());
        members.filter(|member| member.node == node).copied().collect()
    }

    /// The nodes of all acceptors of open slots.
    pub(super) fn nodes(&self) -> BTreeSet<NodeId> {
        self.sets.iter().flat_map(|(_, members)| members.iter()).map(|it| it.node).collect()
    }
}

fn is_majority(members: &[Member], in_favour: impl Fn(Member) -> bool) -> bool {
    members.iter().filter(|member| in_favour(**member)).count() > members.len() / 2
}

/// Says what is wrong with a set of acceptors.
pub(super) fn check(members: &[Member]) -> Result<(), &'static str> {
    let nodes: BTreeSet<NodeId> = members.iter().map(|member| member.node).collect();
    if members.is_empty() {
        return Err("a cluster has at least one replica");
    }
    if members.len() > MEMBERS_MAX {
        return Err("so many replicas are too many");
    }
    if nodes.len() != members.len() {
        return Err("a replica is named twice");
    }
    if nodes.contains(&NodeId::COORDINATOR) {
        return Err("zero is not a replica's number");
    }
    Ok(())
}

impl Replica {
    /// This node's acceptor.
    pub(super) fn me(&self) -> Member {
        Member { node: self.options.id, life: self.life }
    }

    /// Whether this node's votes count for some open slot, as far as it knows.
    pub(super) fn is_member(&self) -> bool {
        self.learner.membership.contains(self.me())
    }

    /// Whether its votes count in the next slot: a change of members has not only been chosen but
    /// taken effect.
    pub(super) fn counts_next(&self) -> bool {
        self.learner.membership.of(self.learner.applied.next()).contains(&self.me())
    }

    /// The others that take part.
    pub(super) fn others(&self) -> Vec<NodeId> {
        let mut nodes = self.learner.membership.nodes();
        nodes.remove(&self.options.id);
        nodes.into_iter().collect()
    }

    /// The command that leaves these nodes as acceptors: who stays keeps its life.
    pub(super) fn change_to(&self, nodes: &[NodeId]) -> Result<Command, String> {
        let (_, now) = self.learner.membership.newest();
        let mut members: Vec<Member> = nodes
            .iter()
            .map(|node| {
                let stays = now.iter().find(|member| member.node == *node);
                stays.copied().unwrap_or(Member { node: *node, life: 0 })
            })
            .collect();
        members.sort_unstable();
        check(&members).map_err(String::from)?;
        if self.learner.membership.pending(self.learner.applied).is_some() {
            return Err(String::from("another change of the members has not taken effect yet"));
        }
        Ok(Command::ChangeMembers(members.into()))
    }

    /// A node that lost what it knew asks for its old place. It is given it by a logged command, so
    /// from some slot on its votes count under the new name, and those of the old one never again.
    pub(super) fn join(&mut self, now: Time, from: NodeId, life: u64, effects: &mut Out) {
        let applied = self.learner.applied;
        let (_, members) = self.learner.membership.newest();
        let old = members.iter().position(|member| member.node == from && member.life < life);
        let (Some(old), true) = (old, self.leads()) else {
            self.counters.strange_dropped += 1;
            return;
        };
        if self.learner.membership.pending(applied).is_some() || self.proposer.is_changing() {
            return;
        }
        let mut members = members.to_vec();
        members[old] = Member { node: from, life };
        self.counters.joins += 1;
        self.enqueue(None, Command::ChangeMembers(members.into()), 0);
        self.propose_what_waits(now, effects);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(lives: &[(u32, u64)]) -> Arc<[Member]> {
        lives.iter().map(|(node, life)| Member { node: NodeId(*node), life: *life }).collect()
    }

    #[test]
    fn a_change_counts_a_window_later_and_one_at_a_time() {
        let mut membership = Membership::founders(&[NodeId(1), NodeId(2), NodeId(3)]);
        let second = members(&[(1, 0), (2, 0), (3, 1)]);
        assert!(membership.change(Slot(5), 10, second.clone()));
        assert!(!membership.change(Slot(13), 10, second.clone()), "the first does not count yet");
        assert_eq!(membership.of(Slot(14))[2].life, 0);
        assert_eq!(membership.of(Slot(15))[2].life, 1);
        let two_old = |member: Member| member.node != NodeId(2) && member.life == 0;
        assert!(membership.is_quorum(Slot(14), two_old));
        assert!(!membership.is_quorum(Slot(15), two_old), "a vote of the former life is none");
        assert!(!membership.is_quorum_everywhere(two_old));
        membership.applied(Slot(13));
        assert_eq!(membership.list().len(), 2);
        membership.applied(Slot(14));
        assert_eq!(membership.list(), [(Slot(15), second)]);
        assert!(membership.change(Slot(14), 10, members(&[(1, 0)])));
    }

    #[test]
    fn nonsense_is_no_membership() {
        let cases: [(&[(u32, u64)], bool); 4] = [
            (&[(1, 0), (2, 0)], true),
            (&[], false),
            (&[(1, 0), (1, 1)], false),
            (&[(0, 0)], false),
        ];
        for (lives, is_fine) in cases {
            assert_eq!(check(&members(lives)).is_ok(), is_fine, "{lives:?}");
        }
    }
}
