//! What the auditor makes of what nodes say: to each other, and to clients.

use std::sync::Arc;

use kvorum_replication::paxos::message::{
    Ballot, Batch, Member, Message, Promise as PromiseMessage, Slot, SnapshotPiece,
};
use kvorum_replication::paxos::record::Settled;
use kvorum_replication::{Answer, Failure, NodeId, Operation, Outcome, Query, Transaction};

use super::auditor::{Auditor, is_majority};
use super::words;
use crate::contents::explains;
use crate::machine::Asked;
use crate::process::{Judgement, broken};
use crate::violation::Promise;

impl Auditor {
    /// A message is sent.
    pub(super) fn says(&mut self, from: NodeId, to: NodeId, message: &Message) -> Judgement {
        if self.amnesia {
            if let Message::Accept { ballot, .. } | Message::Heartbeat { ballot, .. } = message {
                self.led.insert(*ballot);
            }
            return Ok(());
        }
        match message {
            Message::Prepare { ballot, .. } => self.prepares(from, *ballot),
            Message::Promise(promise) => self.tells_promise(from, promise),
            Message::Accept { ballot, slot, batch, chosen } => {
                self.leads(from, *ballot, *chosen)?;
                self.proposes(from, *ballot, *slot, batch)
            }
            Message::Accepted { ballot, slot, life } => {
                self.tells_vote(Member { node: from, life: *life }, *ballot, *slot)
            }
            Message::Heartbeat { ballot, chosen, .. } => self.leads(from, *ballot, *chosen),
            Message::HeartbeatAck { ballot, .. } => {
                self.leases.grants(from, *ballot);
                self.follows(from, to, *ballot)
            }
            Message::TakeOver { ballot } => {
                self.leases.gives_back(*ballot);
                Ok(())
            }
            Message::ReadIndexIs { index, .. } => self.knows(from, *index),
            Message::Learned { from: first, batches, chosen, .. } => {
                self.knows(from, *chosen)?;
                let mut slot = *first;
                for batch in batches {
                    self.learns(from, slot, batch)?;
                    slot = slot.next();
                }
                Ok(())
            }
            Message::SnapshotPiece(piece) => self.tells_piece(from, piece),
            Message::PreVote { .. }
            | Message::PreVoteAnswer { .. }
            | Message::Refused { .. }
            | Message::ReadIndex { .. }
            | Message::Learn { .. }
            | Message::Truncated { .. }
            | Message::FetchSnapshot { .. }
            | Message::SnapshotGone { .. }
            | Message::Join { .. } => Ok(()),
        }
    }

    /// A proposer asks for promises: its own is durable, and its ballot is nobody else's, nor its own
    /// from an earlier run.
    fn prepares(&mut self, node: NodeId, ballot: Ballot) -> Judgement {
        let standing = self.diary(node).durable;
        let name = (standing.life, standing.incarnation);
        let first = *self.campaigns.entry(ballot).or_insert(name);
        if ballot.node != node || (first != name && first.0 == name.0) {
            return broken(
                Promise::OneProposal,
                format!("{node} campaigns with {ballot}, with which somebody has before"),
            );
        }
        if first != name {
            // In a former life, of which it knows nothing. What it led with then it would know of.
            if self.led.contains(&ballot) {
                return broken(
                    Promise::OneProposal,
                    format!("{node} campaigns with {ballot}, with which it led in a former life"),
                );
            }
            self.campaigns.insert(ballot, name);
        }
        self.has_promised(Member { node, life: standing.life }, ballot)
    }

    fn has_promised(&self, member: Member, ballot: Ballot) -> Judgement {
        match self.floors.get(&member) {
            Some(floor) if *floor >= ballot => Ok(()),
            floor => broken(
                Promise::WaitsForDisk,
                format!(
                    "{} tells of its promise {ballot}, and what is durable is {}",
                    member.node,
                    floor.map_or_else(|| "none".to_owned(), Ballot::to_string)
                ),
            ),
        }
    }

    fn tells_promise(&mut self, node: NodeId, promise: &PromiseMessage) -> Judgement {
        let member = Member { node, life: promise.life };
        self.has_promised(member, promise.ballot)?;
        self.knows(node, promise.chosen)?;
        for accepted in &promise.accepted {
            let key = (accepted.slot, accepted.ballot);
            let votes = self.votes.get(&key).map_or(&[][..], |votes| votes);
            let is_vote = votes
                .iter()
                .any(|(batch, voters)| voters.contains(&member) && *batch == accepted.batch);
            if !is_vote && !self.diary(node).votes_under_way().any(|vote| vote == key) {
                return broken(
                    Promise::KeepsPromises,
                    format!(
                        "{node} tells that it accepted {} in {} with {}, which it did not",
                        words::batch(&accepted.batch),
                        accepted.slot,
                        accepted.ballot
                    ),
                );
            }
        }
        Ok(())
    }

    /// Somebody speaks as leader: a majority has promised its ballot.
    fn leads(&mut self, node: NodeId, ballot: Ballot, chosen: Slot) -> Judgement {
        if self.led.insert(ballot) {
            let promisers = self.promisers.entry(ballot).or_default();
            let last = self.order.last();
            let has = |slot| is_majority(self.order.acceptors(slot), |it| promisers.contains(it));
            // The set of the slot behind what it has applied, which is one of those that count.
            if ballot.node != node || !(1..=last.0 + 1).rev().any(|slot| has(Slot(slot))) {
                return broken(
                    Promise::OneProposal,
                    format!("{node} leads with {ballot}, which no majority has promised"),
                );
            }
        }
        self.knows(node, chosen)
    }

    /// A leader proposes a batch: one in a slot; what is chosen, if something is; and a majority of
    /// the slot's acceptors has promised its ballot.
    fn proposes(
        &mut self,
        node: NodeId,
        ballot: Ballot,
        slot: Slot,
        batch: &Arc<Batch>,
    ) -> Judgement {
        if let Some(other) = self.proposed.get(&(slot, ballot)) {
            if Arc::ptr_eq(other, batch) || other == batch {
                return Ok(());
            }
            return broken(
                Promise::OneProposal,
                format!(
                    "with ballot {ballot} {node} proposes {} and {} in {slot}",
                    words::batch(other),
                    words::batch(batch)
                ),
            );
        }
        self.proposed.insert((slot, ballot), batch.clone());
        if let Some((first, chosen)) =
            self.chosen.get(&slot).filter(|(first, it)| *first < ballot && it != batch)
        {
            return broken(
                Promise::OneChosen,
                format!(
                    "{node} proposes {} in {slot} with ballot {ballot}, where {} is chosen with \
                     {first}",
                    words::batch(batch),
                    words::batch(chosen)
                ),
            );
        }
        let promisers = self.promisers.entry(ballot).or_default();
        match is_majority(self.order.acceptors(slot), |member| promisers.contains(member)) {
            true => Ok(()),
            false => broken(
                Promise::OneProposal,
                format!(
                    "{node} proposes in {slot} with {ballot}, which no majority of that slot's \
                     acceptors has promised"
                ),
            ),
        }
    }

    fn tells_vote(&mut self, member: Member, ballot: Ballot, slot: Slot) -> Judgement {
        let votes = self.votes.get(&(slot, ballot)).map_or(&[][..], |votes| votes);
        let has_voted = votes.iter().any(|(_, voters)| voters.contains(&member));
        // Of what is applied it says that it is accepted: it is chosen.
        if has_voted || slot <= self.diary(member.node).appended.applied {
            return Ok(());
        }
        broken(
            Promise::WaitsForDisk,
            format!(
                "{} tells of its vote in {slot} with {ballot}, which is not durable",
                member.node
            ),
        )
    }

    /// An acceptor tells a leader that it still follows it.
    fn follows(&mut self, node: NodeId, leader: NodeId, ballot: Ballot) -> Judgement {
        let promised = self.diary(node).appended.promised;
        match promised <= ballot {
            true => Ok(()),
            false => broken(
                Promise::KeepsPromises,
                format!(
                    "{node} confirms to {leader} that {ballot} leads, and has promised {promised}"
                ),
            ),
        }
    }

    /// A node takes slots up to one for chosen.
    fn knows(&self, node: NodeId, slot: Slot) -> Judgement {
        let last = self.order.last();
        match slot <= last {
            true => Ok(()),
            false => broken(
                Promise::OneChosen,
                format!("{node} takes slots up to {slot} for chosen, and it is up to {last}"),
            ),
        }
    }

    fn tells_piece(&mut self, node: NodeId, piece: &SnapshotPiece) -> Judgement {
        let slot = Slot(piece.snapshot.0);
        self.knows(node, slot)?;
        let Some(contents) = self.order.contents(slot) else { return Ok(()) };
        let mut held = contents.range(piece.from.clone()..);
        let same = piece.rows.iter().all(|(key, value)| held.next() == Some((key, value)));
        if !same || (piece.last.is_some() && held.next().is_some()) {
            return broken(
                Promise::HoldsCommits,
                format!("{node} tells of other rows than there are after {slot}"),
            );
        }
        match &piece.last {
            Some(state) => self.names_state(node, state),
            None => Ok(()),
        }
    }

    /// A client is told how its request ended.
    pub(super) fn answers(&mut self, node: NodeId, asked: &Asked, outcome: &Outcome) -> Judgement {
        if self.amnesia {
            return Ok(());
        }
        match (&asked.operation, outcome) {
            (_, Outcome::Session(client)) => {
                match self.order.has_opened(*client) && self.told.insert(client.0) {
                    true => Ok(()),
                    false => broken(
                        Promise::TellsTruth,
                        format!("{node} gives out session {client}, which is not there or taken"),
                    ),
                }
            }
            (Operation::Transact { stamp, transaction }, outcome) => {
                let is_so = match (outcome, stamp) {
                    (Outcome::Committed, None) => self.order.has_unstamped(transaction),
                    (Outcome::Committed, Some(stamp)) => {
                        self.order.settled(*stamp) == Some(Settled::Committed)
                    }
                    (Outcome::Failed(Failure::PreconditionFailed { index, .. }), Some(stamp)) => {
                        let refused = Settled::Refused { precondition: *index };
                        self.order.settled(*stamp) == Some(refused)
                    }
                    _ => true,
                };
                if !is_so {
                    return lied(node, transaction, outcome);
                }
                if matches!(outcome, Outcome::Committed) {
                    let slot = stamp.and_then(|stamp| self.order.slot_of(stamp));
                    self.acknowledged = self.acknowledged.max(slot.unwrap_or_default());
                }
                Ok(())
            }
            (Operation::Read(query), Outcome::Answer(_)) if query.holder().is_some() => Ok(()),
            (Operation::Read(_), Outcome::Answer(_)) => self.is_fresh(node, asked.acknowledged),
            (Operation::ReadStale(query), Outcome::Answer(answer)) => {
                self.answers_stale(node, query, answer)
            }
            _ => Ok(()),
        }
    }

    /// A read shows everything that was acknowledged when it began, to whomever.
    fn is_fresh(&mut self, node: NodeId, acknowledged: u64) -> Judgement {
        let applied = self.diary(node).appended.applied;
        match applied.0 >= acknowledged {
            true => Ok(()),
            false => broken(
                Promise::Serializable,
                format!(
                    "{node} answers a read out of what it has applied up to {applied}; when that was \
                     asked a client had been told of slot {}",
                    Slot(acknowledged)
                ),
            ),
        }
    }

    /// A read that may be old shows what this replica held, at one moment of the event at hand.
    fn answers_stale(&mut self, node: NodeId, query: &Query, answer: &Answer) -> Judgement {
        let to = self.diary(node).appended.applied;
        let from = self.looked.get(&node).copied().unwrap_or(Slot::ZERO).min(to);
        let mut slots = (from.0..=to.0).rev().map(Slot);
        let explained = slots.any(|slot| {
            self.order.contents(slot).is_some_and(|contents| explains(contents, query, answer))
        });
        match explained {
            true => Ok(()),
            false => broken(
                Promise::HoldsCommits,
                format!(
                    "{node} answers a stale read of {} with {}, which it held at no slot from \
                     {from} to {to}",
                    crate::words::asked(query),
                    crate::words::found(answer)
                ),
            ),
        }
    }
}

fn lied(node: NodeId, transaction: &Transaction, outcome: &Outcome) -> Judgement {
    broken(
        Promise::TellsTruth,
        format!(
            "{node} tells a client of{}: {}; what is chosen says otherwise",
            crate::words::transaction(transaction),
            crate::words::outcome(outcome)
        ),
    )
}
