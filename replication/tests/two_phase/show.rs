//! Inputs and effects in words short enough to read a protocol by.

use kvorum_replication::two_phase::CommitMode;
use kvorum_replication::two_phase::message::{
    Commit, Decision, Knowledge, Message, Prepare, Recalled, Recovered, TxnId, ViewMessage, Vote,
};
use kvorum_replication::two_phase::record::{
    AppliedState, CoordinatorRecord, DecidedState, Member, ParticipantCheckpoint,
    ParticipantRecord, Pledge, Prepared, SessionTable, View,
};
use kvorum_replication::{Key, NodeId, Page, Query, Range, Time};

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
        Query::Scan(range) => scan(range),
        Query::Page(Page { range, of, .. }) => match of {
            Some(held) => format!("{} of {}.{}.{}", scan(range), held.by, held.run, held.number),
            None => format!("{} held", scan(range)),
        },
    }
}

fn scan(range: &Range) -> String {
    let end = range.end.as_ref().map_or_else(String::new, |end| text(end));
    format!("scan {}..{end} limit {}", text(&range.start), range.limit)
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
        Message::Recover { .. } => "recover",
        Message::Recovered(_) => "recovered",
        Message::View(ViewMessage::Announce { .. }) => "announce",
        Message::View(ViewMessage::Renew { .. }) => "renew",
        Message::View(ViewMessage::Grant { .. }) => "grant",
        Message::View(ViewMessage::Excluded { .. }) => "excluded",
        Message::View(ViewMessage::Ask { .. }) => "ask",
        Message::View(ViewMessage::Heard { .. }) => "heard",
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
        Message::Decide { txn: id, decision: Decision::Commit(number), finished_below, .. } => {
            format!("{kind} {} {number} below {}", txn(id), txn(finished_below))
        }
        Message::Decide { txn: id, decision: Decision::Abort, finished_below, .. } => {
            format!("{kind} {} below {}", txn(id), txn(finished_below))
        }
        Message::Acknowledge { txn: id } | Message::Inquire { txn: id } => {
            format!("{kind} {}", txn(id))
        }
        Message::Inform { txn: id, knowledge: Knowledge::Undecided, .. } => {
            format!("{kind} {} undecided", txn(id))
        }
        Message::Inform { txn: id, knowledge: Knowledge::Decided(known), .. } => {
            format!("{kind} {} {}", txn(id), decision(*known))
        }
        Message::Read { read, epoch, query: asked } => {
            format!("{kind} {epoch}.{read} {}", query(asked))
        }
        Message::ReadAnswer { read, epoch, answer: found } => {
            format!("{kind} {epoch}.{read} {}", answer(found))
        }
        Message::Recover { epoch, first } => format!("{kind} epoch {epoch} from {}", txn(first)),
        Message::Recovered(answer) => {
            let Recovered { epoch, first: _, applied, recalled, next, is_outside } = &**answer;
            let next = next.map_or_else(String::new, |next| format!(" next {}", txn(&next)));
            let recalled: Vec<String> = recalled.iter().map(self::recalled).collect();
            let recalled = recalled.join("; ");
            let outside = if *is_outside { " outside" } else { "" };
            format!("{kind} epoch {epoch} applied {applied} [{recalled}]{next}{outside}")
        }
        Message::FetchCommits { from } => format!("{kind} {from}"),
        Message::Commits { from, commits: list, applied, finished_below, epoch } => {
            let (list, below) = (commits(list), txn(finished_below));
            format!("{kind} {from} [{list}] applied {applied} below {below} epoch {epoch}")
        }
        Message::Truncated { first } => format!("{kind} {first}"),
        Message::FetchSnapshot { snapshot, from } => {
            let of = snapshot.map_or_else(|| "newest".to_owned(), |it| it.0.to_string());
            format!("{kind} {of} from {:?}", text(from))
        }
        Message::SnapshotPiece(piece) => {
            let last = piece.last.as_ref().map_or_else(String::new, |state| {
                let open = state.committed.iter();
                let open = open.map(|AppliedState { txn: id, number, pledge: of }| {
                    format!("{} {number}{}", txn(id), pledge(of.as_ref()))
                });
                let open = open.collect::<Vec<_>>().join("; ");
                let (applied, below, epoch) =
                    (state.applied, txn(&state.finished_below), state.epoch);
                format!(" applied {applied} below {below} [{open}] epoch {epoch}")
            });
            let of = piece.snapshot.0;
            format!("{kind} {of} from {:?}: {}{last}", text(&piece.from), piece.rows.len())
        }
        Message::SnapshotGone { snapshot } => format!("{kind} {}", snapshot.0),
        Message::Outside { life, applied, .. } => format!("{kind} life {life} applied {applied}"),
        Message::CatchUp { to, anew } => {
            let anew = if *anew { " anew" } else { "" };
            format!("{kind} {to}{anew}")
        }
        Message::Join { life, from, serve_from, view, .. } => {
            let view = if *view > 0 { format!(" view {view}") } else { String::new() };
            format!("{kind} life {life} from {} serve {serve_from}{view}", txn(from))
        }
        Message::View(message) => view_message(kind, *message),
    }
}

fn view_message(kind: &str, message: ViewMessage) -> String {
    match message {
        ViewMessage::Announce { view, others } => format!("{kind} view {view} others {others}"),
        ViewMessage::Renew { at, view, applied, .. } => {
            format!("{kind} at {} view {view} applied {applied}", millis(at))
        }
        ViewMessage::Grant { at, lease, .. } => {
            format!("{kind} {}ms for {}", lease.as_millis(), millis(at))
        }
        ViewMessage::Excluded { view, .. } => format!("{kind} by view {view}"),
        ViewMessage::Ask { round, .. } => format!("{kind} {round}"),
        ViewMessage::Heard { round, view, .. } => format!("{kind} {round} view {view}"),
    }
}

fn millis(time: Time) -> String {
    format!("{}ms", time.0 / 1_000_000)
}

fn view(view: &View) -> String {
    let member = |it: &Member| match it.from {
        TxnId::FIRST => node(it.replica),
        from => format!("{} from {}", node(it.replica), txn(&from)),
    };
    let members: Vec<String> = view.members.iter().map(member).collect();
    let founded = if view.is_founded { "" } else { " not founded" };
    format!(
        "view {}: {} of {}, at least {}, lease {}ms{founded}",
        view.number,
        members.join(","),
        nodes(&view.replicas),
        view.min_replicas,
        view.lease.as_millis()
    )
}

fn recalled(recalled: &Recalled) -> String {
    let Recalled { txn: id, participants, stamp: of, number } = recalled;
    let number = number.map_or_else(String::new, |number| format!(" {number}"));
    format!("{}{number}{} by {}", txn(id), stamp(*of), nodes(participants))
}

fn commits(list: &[Commit]) -> String {
    let shown = |it: &Commit| {
        let (number, id, of) = (it.number, txn(&it.txn), pledge(it.pledge.as_ref()));
        format!("{number} {id}{of} {}", writes(&it.transaction.writes))
    };
    list.iter().map(shown).collect::<Vec<_>>().join("; ")
}

fn prepare_words(prepare: &Prepare) -> String {
    let alone = prepare
        .one_phase
        .map_or_else(String::new, |one_phase| format!(" alone{}", stamp(one_phase.stamp)));
    let parallel = prepare
        .parallel
        .map_or_else(String::new, |parallel| format!(" parallel{}", stamp(parallel.stamp)));
    format!(
        "prepare {} {}{alone}{parallel} below {}",
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
        CoordinatorRecord::Started { epoch, commit: CommitMode::AfterDecision } => {
            format!("started epoch {epoch}")
        }
        CoordinatorRecord::Started { epoch, commit: CommitMode::Parallel } => {
            format!("started epoch {epoch} parallel")
        }
        CoordinatorRecord::SessionOpened { client } => format!("session {}", client.0),
        CoordinatorRecord::Committed { txn: id, number, stamp: of, participants } => {
            format!("committed {} {number}{} by {}", txn(id), stamp(*of), nodes(participants))
        }
        CoordinatorRecord::Aborted { txn: id, finished_below } => {
            format!("aborted {} below {}", txn(id), txn(finished_below))
        }
        CoordinatorRecord::Ended { txn: id } => format!("ended {}", txn(id)),
        CoordinatorRecord::View(of) => view(of),
        CoordinatorRecord::Checkpoint(checkpoint) => {
            let committed: Vec<String> = checkpoint
                .committed
                .iter()
                .map(|it| format!("{} {} by {}", txn(&it.txn), it.number, nodes(&it.participants)))
                .collect();
            let aborted: Vec<String> = checkpoint.aborted.iter().map(txn).collect();
            let parallel = match checkpoint.parallel_epoch {
                0 => String::new(),
                epoch => format!(
                    " parallel {epoch} below {} aborted [{}]",
                    txn(&checkpoint.finished_below),
                    aborted.join(" ")
                ),
            };
            format!(
                "checkpoint epoch {} commits {} [{}]{parallel} sessions {}",
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
    words.extend(record.parallel.map(|parallel| format!("parallel{}", stamp(parallel.stamp))));
    words.retain(|word| !word.is_empty());
    words.join(" ")
}

fn participant_record(record: &ParticipantRecord) -> String {
    match record {
        ParticipantRecord::Started { incarnation } => format!("started incarnation {incarnation}"),
        ParticipantRecord::Prepared(record) => format!("prepared {}", prepared(record)),
        ParticipantRecord::Promised { epoch } => format!("promised epoch {epoch}"),
        ParticipantRecord::Decided { txn: id, decision: known } => {
            format!("decided {} {}", txn(id), decision(*known))
        }
        ParticipantRecord::View { number, others } => format!("view {number} others {others}"),
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

fn pledge(pledge: Option<&Pledge>) -> String {
    pledge.map_or_else(String::new, |pledge| {
        format!("{} by {}", stamp(pledge.stamp), nodes(&pledge.participants))
    })
}

fn state(checkpoint: &ParticipantCheckpoint) -> String {
    let promised: Vec<String> = checkpoint.prepared.iter().map(prepared).collect();
    let decided: Vec<String> = checkpoint
        .decided
        .iter()
        .map(|DecidedState { txn: id, decision: known, pledge: of }| {
            format!("{} {}{}", txn(id), decision(*known), pledge(of.as_ref()))
        })
        .collect();
    let progress: Vec<String> = checkpoint
        .coordinators
        .iter()
        .map(|it| format!("below {} applied {}", txn(&it.finished_below), it.applied))
        .collect();
    let epoch = match checkpoint.promised {
        0 => String::new(),
        epoch => format!(" promised {epoch}"),
    };
    format!(
        "incarnation {}{epoch} prepared [{}] decided [{}] {} sessions {}",
        checkpoint.incarnation,
        promised.join("; "),
        decided.join("; "),
        progress.join("; "),
        sessions(&checkpoint.sessions)
    )
}
