//! Inputs and effects in words short enough to read a protocol by.

use kvorum_replication::paxos::message::{Batch, Command, Member, Message, Promise, SnapshotPiece};
use kvorum_replication::paxos::record::{Checkpoint, Record, Replicated, Settled};

use crate::harness::show::{rows, stamp, text, transaction};

pub(crate) fn members(members: &[Member]) -> String {
    let show = |member: &Member| match member.life {
        0 => member.node.to_string(),
        life => format!("{}'{life}", member.node),
    };
    members.iter().map(show).collect::<Vec<_>>().join(",")
}

pub(crate) fn batch(batch: &Batch) -> String {
    let show = |command: &Command| match command {
        Command::OpenSession => "session".to_owned(),
        Command::Transact { stamp: of, transaction: it } => {
            format!("{}{}", transaction(it), stamp(*of))
        }
        Command::ChangeMembers(list) => format!("members {}", members(list)),
    };
    let commands: Vec<String> = batch.commands.iter().map(show).collect();
    match commands.is_empty() {
        true => "no-op".to_owned(),
        false => format!("[{}]", commands.join("; ")),
    }
}

/// The first word of [`message`], by which scripts choose messages.
pub(crate) fn kind(message: &Message) -> &'static str {
    match message {
        Message::PreVote { .. } => "prevote",
        Message::PreVoteAnswer { granted: true, .. } => "granted",
        Message::PreVoteAnswer { granted: false, .. } => "denied",
        Message::Prepare { .. } => "prepare",
        Message::Promise(_) => "promise",
        Message::Accept { .. } => "accept",
        Message::Accepted { .. } => "accepted",
        Message::Refused { .. } => "refused",
        Message::TakeOver { .. } => "take-over",
        Message::Heartbeat { .. } => "heartbeat",
        Message::HeartbeatAck { .. } => "ack",
        Message::ReadIndex { .. } => "readindex",
        Message::ReadIndexIs { .. } => "index",
        Message::Learn { .. } => "learn",
        Message::Learned { .. } => "learned",
        Message::Truncated { .. } => "truncated",
        Message::FetchSnapshot { .. } => "fetch",
        Message::SnapshotPiece(_) => "piece",
        Message::SnapshotGone { .. } => "gone",
        Message::Join { .. } => "join",
    }
}

pub(crate) fn message(message: &Message) -> String {
    let kind = kind(message);
    match message {
        Message::PreVote { ballot, instead_of: Some(leader) } => {
            format!("prevote {ballot} instead of {leader}")
        }
        Message::PreVote { ballot, instead_of: None }
        | Message::PreVoteAnswer { ballot, granted: true, .. }
        | Message::Refused { promised: ballot } => format!("{kind} {ballot}"),
        Message::PreVoteAnswer { ballot, granted: false, seen, .. } => {
            format!("{kind} {ballot} seen {seen}")
        }
        Message::Prepare { ballot, from } => format!("{kind} {ballot} from {from}"),
        Message::Promise(it) => promise(it),
        Message::Accept { ballot, slot, batch: it, chosen } => {
            format!("{kind} {ballot} {slot} {} chosen {chosen}", batch(it))
        }
        Message::Accepted { ballot, slot, life } => {
            format!("{kind} {ballot} {slot}{}", lived(*life))
        }
        Message::TakeOver { ballot } => format!("take-over {ballot}"),
        Message::Heartbeat { ballot, chosen, round } => {
            format!("{kind} {ballot} round {round} chosen {chosen}")
        }
        Message::HeartbeatAck { ballot, round, life } => {
            format!("{kind} {ballot} round {round}{}", lived(*life))
        }
        Message::ReadIndex { name } => format!("{kind} {}.{}", name.incarnation, name.number),
        Message::ReadIndexIs { name, index } => {
            format!("{kind} {}.{} is {index}", name.incarnation, name.number)
        }
        Message::Learn { from } => format!("{kind} from {from}"),
        Message::Learned { from, batches, chosen, .. } => {
            let list: Vec<String> = batches.iter().map(|it| batch(it)).collect();
            format!("{kind} from {from} {} chosen {chosen}", list.join(" "))
        }
        Message::Truncated { first } => format!("{kind} before {first}"),
        Message::FetchSnapshot { snapshot, from } => {
            let which = snapshot.map_or("newest".to_owned(), |it| format!("#{}", it.0));
            format!("{kind} {which} from '{}'", text(from).replace('\0', "+"))
        }
        Message::SnapshotPiece(SnapshotPiece { snapshot, rows: found, last, .. }) => {
            let last = last
                .as_ref()
                .map_or(String::new(), |state| format!(" last: {}", replicated(state)));
            format!(
                "{kind} of #{} {}{last}",
                snapshot.0,
                rows(found.iter().map(|(key, value)| (key, value)))
            )
        }
        Message::SnapshotGone { snapshot } => format!("{kind} #{}", snapshot.0),
        Message::Join { life } => format!("{kind} life {life}"),
    }
}

fn lived(life: u64) -> String {
    if life == 0 { String::new() } else { format!(" life {life}") }
}

fn promise(it: &Promise) -> String {
    let accepted: Vec<String> = it
        .accepted
        .iter()
        .map(|it| format!("{}@{} {}", it.slot, it.ballot, batch(&it.batch)))
        .collect();
    let more = it.more.map_or(String::new(), |slot| format!(" more from {slot}"));
    let (ballot, chosen) = (it.ballot, it.chosen);
    format!(
        "promise {ballot}{} chosen {chosen} accepted [{}]{more}",
        lived(it.life),
        accepted.join(", ")
    )
}

fn replicated(state: &Replicated) -> String {
    let sets: Vec<String> =
        state.members.iter().map(|(from, list)| format!("{} from {from}", members(list))).collect();
    let sessions: Vec<String> = state
        .sessions
        .iter()
        .map(|session| {
            let settled: Vec<String> = session
                .settled
                .iter()
                .map(|(sequence, how)| match how {
                    Settled::Committed => sequence.to_string(),
                    Settled::Refused { precondition } => format!("{sequence}!{precondition}"),
                })
                .collect();
            format!("{}@{}..[{}]", session.client.0, session.answered_below, settled.join(" "))
        })
        .collect();
    format!(
        "applied {} members {} sessions next {} [{}]",
        state.applied,
        sets.join(", "),
        state.next_client,
        sessions.join(" ")
    )
}

fn checkpoint(it: &Checkpoint) -> String {
    format!(
        "incarnation {}{} promised {} {}",
        it.incarnation,
        lived(it.life),
        it.promised,
        replicated(&it.replicated)
    )
}

pub(crate) fn record(record: &Record) -> String {
    match record {
        Record::Started { incarnation, life } => {
            format!("started incarnation {incarnation}{}", lived(*life))
        }
        Record::Promised { ballot } => format!("promised {ballot}"),
        Record::Accepted { slot, ballot, batch: it } => {
            format!("accepted {slot}@{ballot} {}", batch(it))
        }
        Record::Learned { slot, batch: it } => format!("learned {slot} {}", batch(it)),
        Record::Chosen { slot, refused } => {
            let refused: Vec<String> = refused
                .iter()
                .map(|it| format!(" refused {}.{} by {}", it.slot, it.index, it.precondition))
                .collect();
            format!("chosen {slot}{}", refused.concat())
        }
        Record::Forgot { life } => format!("forgot, life {life}"),
        Record::Checkpoint(it) => format!("checkpoint {}", checkpoint(it)),
        Record::Installed(it) => format!("installed {}", checkpoint(it)),
    }
}
