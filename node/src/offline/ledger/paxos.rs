//! Multi-Paxos: what was applied, and what was accepted and not known to be chosen.
//!
//! The core itself reads the records: what a batch comes to follows from all before it, from sessions
//! and from what was refused.

use kvorum_replication::paxos::message::{Batch, Command};
use kvorum_replication::paxos::record::Record;
use kvorum_replication::paxos::{Replica, ReplicaOptions};
use kvorum_replication::{Core as _, Effect, Effects, Position, Write};

use super::{InDoubt, Progress};

/// What a replica's records say so far.
#[derive(Debug)]
pub(super) struct Slots {
    core: Replica,
}

impl Slots {
    /// A window of zero is one that nobody knows; it says nothing of rows.
    pub(super) fn new(window: u64) -> Self {
        let options = ReplicaOptions {
            window: window.max(1),
            pipeline_max: 1,
            // Nobody learns from it.
            retained_slots_max: 1,
            ..ReplicaOptions::default()
        };
        Self { core: Replica::new(options) }
    }

    /// The answer is what it writes, in order, each with its mark.
    pub(super) fn take(
        &mut self,
        at: u64,
        record: Record,
    ) -> Result<Vec<(u64, Vec<Write>)>, String> {
        let mut effects = Effects::new();
        self.core.recover(Position(at), record, &mut effects);
        if let Some(why) = self.core.unfit() {
            return Err(why.clone());
        }
        let written = effects.drain().filter_map(|effect| match effect {
            Effect::Apply { mark, writes } => Some((mark, writes.into_list())),
            // The directory knows what is installed.
            _ => None,
        });
        Ok(written.collect())
    }

    pub(super) fn in_doubt(&self) -> Vec<InDoubt> {
        let open = self.core.open_votes().map(|(slot, ballot, batch)| InDoubt::Slot {
            slot,
            ballot,
            commands: batch.commands.len(),
            keys: writes(batch).map(|write| write.key().clone()).collect(),
        });
        open.collect()
    }

    pub(super) fn progress(&self) -> Progress {
        Progress {
            applied: self.core.applied(),
            chosen: self.core.chosen(),
            promised: self.core.promised(),
        }
    }
}

/// What a batch writes if nothing of it is refused.
pub(crate) fn writes(batch: &Batch) -> impl Iterator<Item = &Write> {
    batch.commands.iter().flat_map(|command| match command {
        Command::Transact { transaction, .. } => &transaction.writes[..],
        Command::OpenSession | Command::ChangeMembers(_) => &[],
    })
}
