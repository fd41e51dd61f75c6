//! Inputs and effects in words short enough to read a protocol by.

use kvorum_replication::two_phase::message::{
    Commit, Decision, Knowledge, Message, Prepare, TxnId, Vote,
};
use kvorum_replication::two_phase::record::{
    CoordinatorRecord, ParticipantCheckpoint, ParticipantRecord, Prepared, SessionTable,
};
use kvorum_replication::{Key, NodeId, Query};

use crate::harness::show::{answer, node, stamp, text, transaction, writes};
use crate::node::{Of, Record};

fn nodes(list: &[NodeId]) -> String {
    list.iter().map(|id| node(*id)).collect::<Vec<_>>().join(",")
}

fn txn(id: &TxnId) -> String {
    format!("{}.{}", id.epoch, id.number)
}

fn decision(decision: Decision) -> String {
    match decision {
        Decision::Commit(number) => format!("commit{number}"),
        Decision::Abort => "abort".to_owned(),
    }
}

fn query(query: &Query) -> String {
    let keys = |keys: &[Key]| keys.iter().map(|key| text(key)).collect::<Vec<_>>().join(" ");
    match query {
        Query::Get(key) => format!("get {}", text(key)),
        Query::GetMany(many) => format!("get {}", keys(many)),
        Query::Scan(range) => {
            let end = range.end.as_ref().map_or_else(String::new, |end| text(end));
            format!("scan {}..{end} limit {}", text(&range.start), range.limit)
        }
    }
}

/// The first word of [`message`], by which scripts choose messages.
pub(crate) fn kind(message: &Message) -> &'static str {
    match message {
        Message::Prepare(_) => "prepare",
        Message::Vote { .. } => "vote",
        Message::Decide { decision: Decision::Commit(_), .. } => "commit",
        Message::Decide { decision: Decision::Abort, .. } => "abort",
        Message::Acknowledge { .. } => "ack",
        Message::Inquire { .. } => "inquire",
        Message::Inform { .. } => "inform",
        Message::Read { .. } => "read",
        Message::ReadAnswer { .. } => "answer",
        Message::FetchCommits { .. } => "fetch",
        Message::Commits { .. } => "commits",
        Message::Truncated { .. } => "truncated",
        Message::FetchSnapshot { .. } => "fetch-rows",
        Message::SnapshotPiece(_) => "rows",
        Message::SnapshotGone { .. } => "gone",
        Message::Outside { .. } => "outside",
        Message::CatchUp { .. } => "catch-up",
        Message::Join { .. } => "join",
    }
}

pub(crate) fn message(message: &Message) -> String {
    let kind = kind(message);
    match message {
        Message::Prepare(prepare) => prepare_words(prepare),
        Message::Vote { txn: id, vote } => format!("{kind} {} {}", txn(id), vote_words(vote)),
        Message::Decide { txn: id, decision: Decision::Commit(number), finished_below } => {
            format!("{kind} {} {number} below {}", txn(id), txn(finished_below))
        }
        Message::Decide { txn: id, decision: Decision::Abort, finished_below } => {
            format!("{kind} {} below {}", txn(id), txn(finished_below))
        }
        Message::Acknowledge { txn: id } | Message::Inquire { txn: id } => {
            format!("{kind} {}", txn(id))
        }
        Message::Inform { txn: id, knowledge: Knowledge::Undecided } => {
            format!("{kind} {} undecided", txn(id))
        }
        Message::Inform { txn: id, knowledge: Knowledge::Decided(known) } => {
            format!("{kind} {} {}", txn(id), decision(*known))
        }
        Message::Read { read, epoch, query: asked } => {
            format!("{kind} {epoch}.{read} {}", query(asked))
        }
        Message::ReadAnswer { read, epoch, answer: found } => {
            format!("{kind} {epoch}.{read} {}", answer(found))
        }
        Message::FetchCommits { from } => format!("{kind} {from}"),
        Message::Commits { from, commits: list, applied, finished_below } => {
            let (list, below) = (commits(list), txn(finished_below));
            format!("{kind} {from} [{list}] applied {applied} below {below}")
        }
        Message::Truncated { first } => format!("{kind} {first}"),
        Message::FetchSnapshot { snapshot, from } => {
            let of = snapshot.map_or_else(|| "newest".to_owned(), |it| it.0.to_string());
            format!("{kind} {of} from {:?}", text(from))
        }
        Message::SnapshotPiece(piece) => {
            let last = piece.last.as_ref().map_or_else(String::new, |state| {
                let open: Vec<String> =
                    state.committed.iter().map(|(id, at)| format!("{} {at}", txn(id))).collect();
                let (applied, below) = (state.applied, txn(&state.finished_below));
                format!(" applied {applied} below {below} [{}]", open.join("; "))
            });
            let of = piece.snapshot.0;
            format!("{kind} {of} from {:?}: {}{last}", text(&piece.from), piece.rows.len())
        }
        Message::SnapshotGone { snapshot } => format!("{kind} {}", snapshot.0),
        Message::Outside { life, applied } => format!("{kind} life {life} applied {applied}"),
        Message::CatchUp { to } => format!("{kind} {to}"),
        Message::Join { life, from, serve_from } => {
            format!("{kind} life {life} from {} serve {serve_from}", txn(from))
        }
    }
}

fn commits(list: &[Commit]) -> String {
    let shown =
        |it: &Commit| format!("{} {} {}", it.number, txn(&it.txn), writes(&it.transaction.writes));
    list.iter().map(shown).collect::<Vec<_>>().join("; ")
}

fn prepare_words(prepare: &Prepare) -> String {
    let alone = prepare
        .one_phase
        .map_or_else(String::new, |one_phase| format!(" alone{}", stamp(one_phase.stamp)));
    format!(
        "prepare {} {}{alone} below {}",
        txn(&prepare.txn),
        transaction(&prepare.transaction),
        txn(&prepare.finished_below)
    )
}

fn vote_words(vote: &Vote) -> String {
    match vote {
        Vote::Yes => "yes".to_owned(),
        Vote::Conflict(key) => format!("conflict on {}", text(key)),
        Vote::PreconditionFailed { index, key } => {
            format!("precondition {index} on {} failed", text(key))
        }
        Vote::Refused => "refused".to_owned(),
        Vote::Overloaded => "overloaded".to_owned(),
        Vote::DiskFull => "disk full".to_owned(),
        Vote::Failed(reason) => format!("failed: {reason}"),
        Vote::Committed => "committed".to_owned(),
    }
}

fn sessions(table: &SessionTable) -> String {
    let list: Vec<String> = table
        .sessions
        .iter()
        .map(|session| {
            format!("{}@{}..{:?}", session.client.0, session.answered_below, session.committed)
        })
        .collect();
    format!("next {} [{}]", table.next_client, list.join(" "))
}

pub(crate) fn record(record: &Record) -> String {
    match record {
        Of::Coordinator(record) => coordinator_record(record),
        Of::Participant(record) => participant_record(record),
    }
}

fn coordinator_record(record: &CoordinatorRecord) -> String {
    match record {
        CoordinatorRecord::Started { epoch } => format!("started epoch {epoch}"),
        CoordinatorRecord::SessionOpened { client } => format!("session {}", client.0),
        CoordinatorRecord::Committed { txn: id, number, stamp: of, participants } => {
            format!("committed {} {number}{} by {}", txn(id), stamp(*of), nodes(participants))
        }
        CoordinatorRecord::Ended { txn: id } => format!("ended {}", txn(id)),
        CoordinatorRecord::Checkpoint(checkpoint) => {
            let committed: Vec<String> = checkpoint
                .committed
                .iter()
                .map(|it| format!("{} {} by {}", txn(&it.txn), it.number, nodes(&it.participants)))
                .collect();
            format!(
                "checkpoint epoch {} commits {} [{}] sessions {}",
                checkpoint.epoch,
                checkpoint.commits,
                committed.join("; "),
                sessions(&checkpoint.sessions)
            )
        }
    }
}

fn prepared(record: &Prepared) -> String {
    let mut words = vec![txn(&record.txn), writes(&record.writes)];
    words.extend(record.checked.iter().map(|key| format!("check@{}", text(key))));
    words.retain(|word| !word.is_empty());
    words.join(" ")
}

fn participant_record(record: &ParticipantRecord) -> String {
    match record {
        ParticipantRecord::Started { incarnation } => format!("started incarnation {incarnation}"),
        ParticipantRecord::Prepared(record) => format!("prepared {}", prepared(record)),
        ParticipantRecord::Decided { txn: id, decision: known } => {
            format!("decided {} {}", txn(id), decision(*known))
        }
        ParticipantRecord::CommittedAlone { txn: id, stamp: of, writes: list } => {
            format!("committed alone {}{} {}", txn(id), stamp(*of), writes(list))
        }
        ParticipantRecord::Checkpoint(checkpoint) => format!("checkpoint {}", state(checkpoint)),
        ParticipantRecord::Learned { finished_below, commits: list } => {
            format!("learned {} below {}", commits(list), txn(finished_below))
        }
        ParticipantRecord::Installed { mark, checkpoint } => {
            format!("installed {mark} {}", state(checkpoint))
        }
        ParticipantRecord::Outside { life } => format!("outside life {life}"),
        ParticipantRecord::Joined { life, from, serve_from } => {
            format!("joined life {life} from {} serve {serve_from}", txn(from))
        }
    }
}

fn state(checkpoint: &ParticipantCheckpoint) -> String {
    let promised: Vec<String> = checkpoint.prepared.iter().map(prepared).collect();
    let decided: Vec<String> = checkpoint
        .decided
        .iter()
        .map(|(id, known)| format!("{} {}", txn(id), decision(*known)))
        .collect();
    let progress: Vec<String> = checkpoint
        .coordinators
        .iter()
        .map(|it| format!("below {} applied {}", txn(&it.finished_below), it.applied))
        .collect();
    format!(
        "incarnation {} prepared [{}] decided [{}] {} sessions {}",
        checkpoint.incarnation,
        promised.join("; "),
        decided.join("; "),
        progress.join("; "),
        sessions(&checkpoint.sessions)
    )
}
