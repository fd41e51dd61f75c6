//! Messages in a few words, for the trace.

use kvorum_replication::two_phase::message::{
    Decision, Knowledge, Message, Recalled, Recovered, TxnId, ViewMessage, Vote,
};
use kvorum_replication::two_phase::record::Member;

use super::diary::Note;
use crate::words::{asked, found, text, transaction};

/// A message in a few words.
pub(super) fn message(message: &Message) -> String {
    match message {
        Message::Prepare(prepare) => {
            let how = match (prepare.one_phase, prepare.parallel) {
                (Some(_), _) => "decide alone",
                (None, Some(_)) => "prepare in parallel",
                (None, None) => "prepare",
            };
            let (txn, below) = (prepare.txn, prepare.finished_below);
            format!("{how} {txn}:{} [over below {below}]", transaction(&prepare.transaction))
        }
        Message::View(message) => of_view(*message),
        Message::Vote { txn, vote } => format!("{txn}: {}", self::vote(vote)),
        Message::Decide { txn, decision, finished_below, .. } => {
            format!("{txn} is {} [over below {finished_below}]", self::decision(*decision))
        }
        Message::Acknowledge { txn } => format!("{txn} is applied and durable here"),
        Message::Inquire { txn } => format!("how did {txn} end?"),
        Message::Inform { txn, knowledge: Knowledge::Decided(decision), epoch } => {
            format!("{txn} is {}, by epoch {epoch}", self::decision(*decision))
        }
        Message::Inform { txn, knowledge: Knowledge::Undecided, .. } => {
            format!("{txn} is not decided, as far as is known here")
        }
        Message::Read { read, epoch, query } => format!("read {epoch}.{read}: {}", asked(query)),
        Message::ReadAnswer { read, epoch, answer } => {
            format!("read {epoch}.{read} finds {}", found(answer))
        }
        Message::Recover { epoch, first } => {
            format!("promise epoch {epoch}, and tell what you have prepared from {first} on")
        }
        Message::Recovered(answer) => {
            let Recovered { epoch, first: _, applied, recalled, next, is_outside } = &**answer;
            let words = |it: &Recalled| {
                let number = it.number.map_or_else(String::new, |number| format!(" as {number}"));
                format!("{}{number}", it.txn)
            };
            let recalled: Vec<String> = recalled.iter().map(words).collect();
            let more = if next.is_some() { ", and more" } else { "" };
            let outside = if *is_outside { ", outside" } else { "" };
            format!(
                "epoch {epoch} is promised; applied {applied}, prepared [{}]{more}{outside}",
                recalled.join(" ")
            )
        }
        Message::FetchCommits { from } => format!("commits from {from} on?"),
        Message::Commits { from, commits, applied, .. } => {
            format!("{} commits from {from} on, of those up to {applied}", commits.len())
        }
        Message::Truncated { first } => format!("the first commit here is {first}"),
        Message::FetchSnapshot { snapshot, from } => {
            let of = snapshot.map_or_else(|| "newest".to_owned(), |it| it.0.to_string());
            format!("rows of snapshot {of} from {:?} on?", text(from))
        }
        Message::SnapshotPiece(piece) => {
            let last = piece.last.as_ref();
            let last = last.map_or_else(String::new, |it| format!(", the last, of {}", it.applied));
            format!("{} rows of snapshot {}{last}", piece.rows.len(), piece.snapshot.0)
        }
        Message::SnapshotGone { snapshot } => format!("snapshot {} is gone", snapshot.0),
        Message::Outside { life, applied, .. } => {
            format!("in life {life} this one is outside, with the commits up to {applied}")
        }
        Message::CatchUp { to, .. } => format!("there are commits up to {to}"),
        Message::Join { life, from, serve_from, .. } => {
            format!("life {life} is let in, from {from} on, once it has {serve_from}")
        }
    }
}

fn of_view(message: ViewMessage) -> String {
    match message {
        ViewMessage::Announce { view, others } => {
            format!("there is view {view}; without a lease ask {others}")
        }
        ViewMessage::Renew { view, .. } => format!("I know view {view}; may I serve reads?"),
        ViewMessage::Grant { lease, .. } => format!("serve reads for {lease:?} from then on"),
        ViewMessage::Excluded { view, .. } => format!("you are outside since view {view}"),
        ViewMessage::Ask { .. } => "which view do you know?".to_owned(),
        ViewMessage::Heard { view, .. } => format!("I know view {view}"),
    }
}

fn decision(decision: Decision) -> String {
    match decision {
        Decision::Commit(number) => format!("committed as {number}"),
        Decision::Abort => "aborted".to_owned(),
    }
}

fn vote(vote: &Vote) -> String {
    match vote {
        Vote::Yes => "votes yes".to_owned(),
        Vote::Conflict(key) => format!("votes no, {} is locked", text(key)),
        Vote::PreconditionFailed { index, key } => {
            format!("votes no, precondition {index} does not hold, on {}", text(key))
        }
        Vote::Refused => "votes no, it was given up here".to_owned(),
        Vote::Overloaded => "votes no, too much is prepared".to_owned(),
        Vote::DiskFull => "votes no, the disk is full".to_owned(),
        Vote::Failed(why) => format!("votes no: {why}"),
        Vote::Committed => "is committed here, durably".to_owned(),
    }
}

/// A record in a few words.
pub(super) fn note(note: &Note) -> String {
    match note {
        Note::Started { epoch } => format!("this is start {epoch}"),
        Note::Prepared { txn } => format!("the promise to commit {txn} if told so"),
        Note::Committed { txn, number, .. } => format!("{txn} is committed as {number}"),
        Note::Aborted { txn } => format!("{txn} is aborted, whoever prepares it"),
        Note::Ended { txn } => format!("everybody has {txn}"),
        Note::Promised { epoch } => format!("nothing older than epoch {epoch} any more"),
        Note::Decided { txn, decision } => format!("{txn} is {}", self::decision(*decision)),
        Note::Alone { txn, .. } => format!("{txn} is committed, alone"),
        Note::Learned { commits } => format!("{} commits, learnt", commits.len()),
        Note::Installed { applied, .. } => format!("rows of another replica, up to {applied}"),
        Note::Outside { life } => format!("life {life} takes part in nothing"),
        Note::Joined { life } => format!("life {life} is let in"),
        Note::View(view) => {
            let member = |it: &Member| match it.from > TxnId::FIRST {
                true => format!("{} from {} on", it.replica, it.from),
                false => it.replica.to_string(),
            };
            let members: Vec<String> = view.members.iter().map(member).collect();
            format!("view {}: writes need {}", view.number, members.join(", "))
        }
        Note::KnowsView { number } => format!("there is view {number}"),
        Note::Other => "a session, or a checkpoint".to_owned(),
    }
}
