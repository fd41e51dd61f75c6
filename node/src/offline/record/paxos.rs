//! The records of Multi-Paxos in fields.

use kvorum_replication::paxos::message::{Batch, Command, Member};
use kvorum_replication::paxos::record::{Checkpoint, Record, Refusal};

use super::{Meaning, join, named};
use crate::offline::ledger::writes;

pub(super) fn meaning(record: Record) -> Meaning {
    match record {
        Record::Started { incarnation, life } => {
            let fields = vec![("incarnation", incarnation.to_string()), ("life", life.to_string())];
            named("started", None, fields)
        }
        Record::Promised { ballot } => {
            named("promised", None, vec![("ballot", ballot.to_string())])
        }
        Record::Accepted { slot, ballot, batch } => {
            let fields = vec![("slot", slot.0.to_string()), ("ballot", ballot.to_string())];
            let is_again = batch.origin != ballot;
            of_batch("accepted", fields, is_again, &batch)
        }
        Record::Learned { slot, batch } => {
            of_batch("learned", vec![("slot", slot.0.to_string())], true, &batch)
        }
        Record::Chosen { slot, refused } => {
            let mut fields = vec![("slot", slot.0.to_string())];
            if !refused.is_empty() {
                let shown: Vec<String> = refused.iter().map(shown_refusal).collect();
                fields.push(("refused", join(&shown)));
            }
            named("chosen", None, fields)
        }
        Record::Forgot { life } => named("forgot", None, vec![("life", life.to_string())]),
        Record::Checkpoint(checkpoint) => of_checkpoint("checkpoint", &checkpoint),
        Record::Installed(checkpoint) => of_checkpoint("installed", &checkpoint),
    }
}

/// Slot, place in the batch, and which precondition did not hold.
fn shown_refusal(refusal: &Refusal) -> String {
    format!("{}:{}:{}", refusal.slot.0, refusal.index, refusal.precondition)
}

fn of_batch(
    name: &'static str,
    mut fields: Vec<(&'static str, String)>,
    shows_origin: bool,
    batch: &Batch,
) -> Meaning {
    if shows_origin {
        fields.push(("origin", batch.origin.to_string()));
    }
    fields.push(("commands", batch.commands.len().to_string()));
    let (mut opens, mut clients, mut checked) = (0, Vec::new(), Vec::new());
    for command in &batch.commands {
        match command {
            Command::OpenSession => opens += 1,
            Command::Transact { stamp, transaction } => {
                clients.extend(stamp.map(|it| format!("{}:{}", it.client.0, it.sequence)));
                let keys = transaction.preconditions.iter().map(|it| it.key().clone());
                checked.extend(keys);
            }
            Command::ChangeMembers(members) => fields.push(("members", shown_members(members))),
        }
    }
    if opens > 0 {
        fields.push(("opens-sessions", opens.to_string()));
    }
    if !clients.is_empty() {
        fields.push(("clients", join(&clients)));
    }
    let writes = writes(batch).cloned().collect();
    Meaning { writes, checked, ..named(name, None, fields) }
}

/// Nodes, those that have lost what they knew with their life.
fn shown_members(members: &[Member]) -> String {
    let shown = |member: &Member| match member.life {
        0 => member.node.to_string(),
        life => format!("{}/{life}", member.node),
    };
    join(&members.iter().map(shown).collect::<Vec<_>>())
}

fn of_checkpoint(name: &'static str, checkpoint: &Checkpoint) -> Meaning {
    let state = &checkpoint.replicated;
    let mut fields = vec![
        ("slot", state.applied.0.to_string()),
        ("incarnation", checkpoint.incarnation.to_string()),
        ("life", checkpoint.life.to_string()),
        ("promised", checkpoint.promised.to_string()),
    ];
    if let Some((_, members)) = state.members.last() {
        fields.push(("members", shown_members(members)));
    }
    fields.push(("sessions", state.sessions.len().to_string()));
    named(name, None, fields)
}
