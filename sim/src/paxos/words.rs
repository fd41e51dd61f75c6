//! Messages and records in a few words, for the trace.

use kvorum_replication::paxos::message::{Batch, Command, Member, Message, Promise};
use kvorum_replication::paxos::record::{Checkpoint, Record};

use crate::words::transaction;

/// What is proposed in a slot, in a few words.
pub(super) fn batch(batch: &Batch) -> String {
    let commands: Vec<String> = batch.commands.iter().map(command).collect();
    let commands = if commands.is_empty() { "no-op".to_owned() } else { commands.join(";") };
    format!("[{}, first with {}]", commands.trim_start(), batch.origin)
}

fn command(command: &Command) -> String {
    match command {
        Command::OpenSession => " open a session".to_owned(),
        Command::Transact { stamp, transaction: asked } => match stamp {
            Some(stamp) => format!(" {}/{}:{}", stamp.client, stamp.sequence, transaction(asked)),
            None => transaction(asked),
        },
        Command::ChangeMembers(them) => format!(" have the members {}", members(them)),
    }
}

fn members(members: &[Member]) -> String {
    let shown = members.iter().map(|member| match member.life {
        0 => member.node.to_string(),
        life => format!("{} in life {life}", member.node),
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// A message in a few words.
pub(super) fn message(message: &Message) -> String {
    match message {
        Message::PreVote { ballot, .. } => format!("would you promise {ballot}?"),
        Message::TakeOver { .. } => "take over".to_owned(),
        Message::PreVoteAnswer { ballot, granted: true, .. } => format!("would promise {ballot}"),
        Message::PreVoteAnswer { ballot, seen, .. } => {
            format!("would not promise {ballot}, has heard of {seen}")
        }
        Message::Prepare { ballot, from } => format!("prepare {ballot}, from {from}"),
        Message::Promise(told) => promise(told),
        Message::Accept { ballot, slot, batch: proposed, chosen } => {
            format!("accept {slot} with {ballot}: {}; chosen up to {chosen}", batch(proposed))
        }
        Message::Accepted { ballot, slot, life } => {
            format!("accepted {slot} with {ballot}, in life {life}")
        }
        Message::Refused { promised } => format!("refused, {promised} is promised"),
        Message::Heartbeat { ballot, chosen, round } => {
            format!("{ballot} leads, heartbeat {round}; chosen up to {chosen}")
        }
        Message::HeartbeatAck { ballot, round, .. } => format!("{ballot} leads, at {round}"),
        Message::ReadIndex { name } => format!("read index {}.{}?", name.incarnation, name.number),
        Message::ReadIndexIs { name, index } => {
            format!("read index {}.{} is {index}", name.incarnation, name.number)
        }
        Message::Learn { from } => format!("what was chosen from {from} on?"),
        Message::Learned { from, batches, chosen, .. } => {
            format!("{} batches from {from} on; chosen up to {chosen}", batches.len())
        }
        Message::Truncated { first } => format!("what is kept begins at {first}"),
        Message::FetchSnapshot { snapshot: None, .. } => "a snapshot?".to_owned(),
        Message::FetchSnapshot { snapshot: Some(snapshot), from } => {
            format!("snapshot #{} from {:?} on?", snapshot.0, crate::words::text(from))
        }
        Message::SnapshotPiece(piece) => {
            let end = if piece.last.is_some() { ", the last ones" } else { "" };
            format!("snapshot #{}: {} rows{end}", piece.snapshot.0, piece.rows.len())
        }
        Message::SnapshotGone { snapshot } => format!("snapshot #{} is gone", snapshot.0),
        Message::Join { life } => format!("let me in, in life {life}"),
    }
}

fn promise(promise: &Promise) -> String {
    let accepted = promise
        .accepted
        .iter()
        .map(|it| format!("; {} with {}: {}", it.slot, it.ballot, batch(&it.batch)));
    let (ballot, chosen) = (promise.ballot, promise.chosen);
    format!("promises {ballot}; chosen up to {chosen}{}", accepted.collect::<String>())
}

/// A record in a few words.
pub(super) fn record(record: &Record) -> String {
    match record {
        Record::Started { incarnation, life } => {
            format!("this is start {incarnation}, in life {life}")
        }
        Record::Promised { ballot } => format!("promised {ballot}"),
        Record::Accepted { slot, ballot, batch: accepted } => {
            format!("accepted {slot} with {ballot}: {}", batch(accepted))
        }
        Record::Learned { slot, batch: learned } => {
            format!("chosen in {slot}: {}", batch(learned))
        }
        Record::Chosen { slot, refused } => {
            let refused = refused.len();
            format!("chosen and applied up to {slot}, {refused} refused")
        }
        Record::Forgot { life } => format!("has forgotten, and votes in life {life}"),
        Record::Checkpoint(state) => format!("checkpoint {}", checkpoint(state)),
        Record::Installed(state) => format!("takes a snapshot over, {}", checkpoint(state)),
    }
}

fn checkpoint(checkpoint: &Checkpoint) -> String {
    let (applied, promised) = (checkpoint.replicated.applied, checkpoint.promised);
    format!("at {applied}, {promised} promised")
}
