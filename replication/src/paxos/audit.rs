//! What a judge may look at in a running core, after any step. Nothing of the protocol depends on
//! it.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::Replica;
use super::message::{Ballot, Member, Slot};
pub use crate::audit::Table;

/// A look at a replica.
#[derive(Clone, Debug)]
pub struct ReplicaAudit {
    /// Its acceptor, under the life it votes with.
    pub member: Member,
    /// Whether its votes count for some open slot, as far as it knows.
    pub is_member: bool,
    /// The highest ballot promised; it falls with the life only.
    pub promised: Ballot,
    /// The highest promise that would survive a crash.
    pub promised_durably: Ballot,
    /// The ballot that it leads with.
    pub leads_with: Option<Ballot>,
    /// The newest leader it knows of.
    pub leader: Ballot,
    /// Whether it believes in that leader.
    pub follows: bool,
    /// The last slot applied.
    pub applied: Slot,
    /// Up to here every batch is chosen and known.
    pub chosen: Slot,
    /// Up to here every batch is chosen, as somebody said.
    pub announced: Slot,
    /// What it has accepted in slots that are not applied: the ballot of the vote, the ballot that
    /// the batch was first proposed with, and whether that is durable.
    pub votes: Vec<(Slot, Ballot, Ballot, bool)>,
    /// What it proposes as the leader and does not know to be chosen: the ballot that the batch was
    /// first proposed with, and who has accepted it.
    pub open: Vec<(Slot, Ballot, Vec<Member>)>,
    /// Who the acceptors are, from which slot on: the first entry covers the slot behind `applied`.
    pub members: Vec<(Slot, Arc<[Member]>)>,
    /// Whether rows of a snapshot wait for their record to be durable.
    pub is_installing: bool,
    /// Why it takes no part, if so.
    pub is_unfit: bool,
    /// What it keeps.
    pub tables: Vec<Table>,
}

impl Replica {
    /// For a judge: what it believes and how full its tables are.
    #[must_use]
    pub fn audit(&self) -> ReplicaAudit {
        ReplicaAudit {
            member: self.me(),
            is_member: self.is_member(),
            promised: self.acceptor.promised(),
            promised_durably: self.acceptor.promised_durably(),
            leads_with: self.proposer.leads_with(),
            leader: self.proposer.leader_ballot(),
            follows: self.proposer.leader().is_some(),
            applied: self.learner.applied,
            chosen: self.learner.chosen,
            announced: self.learner.announced,
            votes: self.acceptor.votes().map(|(slot, vote)| vote.audit(slot)).collect(),
            open: self.proposer.open(),
            members: self.learner.membership.list(),
            is_installing: self.snapshots.is_installing(),
            is_unfit: self.unfit.is_some(),
            tables: self.tables(),
        }
    }

    fn tables(&self) -> Vec<Table> {
        let options = &self.options;
        let window = usize::try_from(options.window).unwrap_or(usize::MAX);
        // An acceptor lets a leader be so far ahead; what it learns comes in pieces.
        let ahead = window.saturating_mul(5);
        let known = ahead.saturating_add(options.piece_slots_max);
        let largest = options.limits.transaction_bytes_max.saturating_add(options.batch_bytes_max);
        let (reads, asked, waiting) = self.reads.lengths();
        let (held, pieces) = self.snapshots.lengths();
        let (open, requests, by_slot) = self.proposer.lengths();
        let tables = [
            ("requests", requests, options.requests_max),
            ("requests by slot", by_slot, known),
            ("queued bytes", self.proposer.queued_bytes(), options.queue_bytes_max),
            ("open slots", open, options.pipeline_max),
            ("votes", self.acceptor.votes().count(), ahead),
            (
                "bytes accepted",
                self.acceptor.bytes(),
                options.accepted_bytes_max.saturating_add(window.saturating_mul(largest)),
            ),
            ("batches known", self.learner.known_behind(Slot::ZERO).count(), known),
            ("batches retained", self.learner.retained(), options.retained_slots_max),
            ("bytes retained", self.learner.retained_bytes(), options.retained_bytes_max),
            ("sessions", self.learner.sessions.len(), options.sessions_max),
            ("reads", reads, options.reads_max),
            ("reads not asked", asked, options.reads_max),
            ("questions waiting", waiting, super::reads::ASKERS_MAX + 1),
            ("snapshots", held, options.snapshots_max),
            ("pieces", pieces, super::snapshot::PIECES_MAX),
        ];
        tables.into_iter().map(|(name, len, max)| Table { name, len, max }).collect()
    }
}
