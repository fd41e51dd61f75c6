//! The messages of two-phase commit.

use std::sync::Arc;

use kvorum_replication::two_phase::message::{
    CommitNumber, Decision, Knowledge, Message, OnePhase, Prepare, TxnId, Vote,
};
use kvorum_replication::{Answer, NodeId, Query};
use kvorum_schema::peer_capnp::{
    self as schema, inform, maybe_value, query, read_answer, two_phase_message as message, vote,
};

use super::super::client::{
    read_range, read_rows, read_stamp, read_transaction, transaction_bytes, write_rows,
    write_stamp, write_transaction,
};
use super::super::{
    MEMBERS_MAX, MESSAGES_MAX, OPERATIONS_MAX, Rejected, bound, check_list, key, length, text,
    value,
};
use super::catch_up;

type MessagesReader<'a> = capnp::struct_list::Reader<'a, message::Owned>;

pub(crate) fn read_messages(reader: MessagesReader<'_>) -> Result<Vec<Message>, Rejected> {
    check_list("messages in one delivery", reader.len(), MESSAGES_MAX)?;
    reader.iter().map(read_message).collect()
}

/// About how many bytes a message takes on the wire.
pub(super) fn message_bytes(message: &Message) -> usize {
    const FRAME: usize = 96;
    FRAME
        + match message {
            Message::Prepare(prepare) => {
                let operations =
                    prepare.transaction.preconditions.len() + prepare.transaction.writes.len();
                transaction_bytes(&prepare.transaction)
                    + 40 * operations
                    + 4 * prepare.participants.len()
            }
            Message::Vote { vote, .. } => match vote {
                Vote::Conflict(key) | Vote::PreconditionFailed { key, .. } => key.len(),
                Vote::Failed(reason) => reason.len(),
                Vote::Yes | Vote::Refused | Vote::Overloaded | Vote::DiskFull | Vote::Committed => {
                    0
                }
            },
            Message::Read { query, .. } => match query {
                Query::Get(key) => key.len(),
                Query::GetMany(keys) => keys.iter().map(|key| key.len() + 16).sum(),
                Query::Scan(range) => {
                    range.start.len() + range.end.as_ref().map_or(0, |end| end.len())
                }
            },
            Message::ReadAnswer { answer, .. } => match answer {
                Answer::Value(value) => value.as_ref().map_or(0, |value| value.len()),
                Answer::Values(values) => {
                    values.iter().flatten().map(|value| value.len()).sum::<usize>()
                        + 24 * values.len()
                }
                Answer::Rows { rows, .. } => {
                    rows.iter().map(|(key, value)| key.len() + value.len() + 32).sum()
                }
                Answer::Failed(reason) => reason.len(),
            },
            Message::Decide { .. }
            | Message::Acknowledge { .. }
            | Message::Inquire { .. }
            | Message::Inform { .. } => 0,
            message => catch_up::message_bytes(message),
        }
}

fn read_message(reader: message::Reader<'_>) -> Result<Message, Rejected> {
    Ok(match reader.which()? {
        message::Prepare(prepare) => Message::Prepare(read_prepare(prepare?)?),
        message::Vote(vote) => {
            let vote = vote?;
            Message::Vote { txn: read_txn(vote.get_txn()?), vote: read_vote(vote)? }
        }
        message::Decide(decide) => {
            let decide = decide?;
            Message::Decide {
                txn: read_txn(decide.get_txn()?),
                decision: read_decision(decide.get_decision()?, decide.get_commit_number())?,
                finished_below: read_txn(decide.get_finished_below()?),
            }
        }
        message::Acknowledge(txn) => Message::Acknowledge { txn: read_txn(txn?) },
        message::Inquire(txn) => Message::Inquire { txn: read_txn(txn?) },
        message::Inform(inform) => {
            let inform = inform?;
            let knowledge = match inform.which()? {
                inform::Decided(decision) => {
                    Knowledge::Decided(read_decision(decision?, inform.get_commit_number())?)
                }
                inform::Undecided(()) => Knowledge::Undecided,
            };
            Message::Inform { txn: read_txn(inform.get_txn()?), knowledge }
        }
        message::Read(read) => {
            let read = read?;
            Message::Read {
                read: read.get_read(),
                epoch: read.get_epoch(),
                query: read_query(read.get_query()?)?,
            }
        }
        message::ReadAnswer(answer) => {
            let answer = answer?;
            Message::ReadAnswer {
                read: answer.get_read(),
                epoch: answer.get_epoch(),
                answer: read_answer(answer)?,
            }
        }
        message::CatchUp(message) => catch_up::read_message(message?)?,
    })
}

pub(super) fn read_txn(reader: schema::txn_id::Reader<'_>) -> TxnId {
    TxnId {
        coordinator: NodeId(reader.get_coordinator()),
        epoch: reader.get_epoch(),
        number: reader.get_number(),
    }
}

fn read_decision(decision: schema::Decision, number: u64) -> Result<Decision, Rejected> {
    match (decision, number) {
        (schema::Decision::Commit, 0) => {
            Err(Rejected::Invalid("a commit without its place in the serial order".to_owned()))
        }
        (schema::Decision::Commit, number) => Ok(Decision::Commit(CommitNumber(number))),
        (schema::Decision::Abort, _) => Ok(Decision::Abort),
    }
}

fn read_prepare(reader: schema::prepare::Reader<'_>) -> Result<Prepare, Rejected> {
    let participants = reader.get_participants()?;
    check_list("participants", participants.len(), MEMBERS_MAX)?;
    let one_phase = match reader.get_one_phase() {
        true => Some(OnePhase { stamp: read_stamp(reader.get_stamp()?) }),
        false => None,
    };
    Ok(Prepare {
        txn: read_txn(reader.get_txn()?),
        participants: participants.iter().map(NodeId).collect(),
        transaction: Arc::new(read_transaction(reader.get_transaction()?)?),
        one_phase,
        finished_below: read_txn(reader.get_finished_below()?),
    })
}

fn read_vote(reader: schema::vote::Reader<'_>) -> Result<Vote, Rejected> {
    Ok(match reader.which()? {
        vote::Yes(()) => Vote::Yes,
        vote::Conflict(contended) => Vote::Conflict(bound(contended?)?),
        vote::PreconditionFailed(failed) => {
            Vote::PreconditionFailed { index: failed.get_index(), key: bound(failed.get_key()?)? }
        }
        vote::Refused(()) => Vote::Refused,
        vote::Overloaded(()) => Vote::Overloaded,
        vote::DiskFull(()) => Vote::DiskFull,
        vote::Failed(reason) => Vote::Failed(text(reason?)?),
        vote::Committed(()) => Vote::Committed,
    })
}

fn read_query(reader: schema::query::Reader<'_>) -> Result<Query, Rejected> {
    Ok(match reader.which()? {
        query::Get(wanted) => Query::Get(key(wanted?)?),
        query::GetMany(keys) => {
            let keys = keys?;
            check_list("keys", keys.len(), OPERATIONS_MAX)?;
            Query::GetMany(keys.iter().map(|wanted| key(wanted?)).collect::<Result<_, _>>()?)
        }
        query::Scan(range) => {
            let range = range?;
            Query::Scan(read_range(
                range.get_start()?,
                range.get_end()?,
                range.get_has_end(),
                range.get_limit(),
            )?)
        }
    })
}

fn read_answer(reader: schema::read_answer::Reader<'_>) -> Result<Answer, Rejected> {
    Ok(match reader.which()? {
        read_answer::Value(found) => Answer::Value(Some(value(found?)?)),
        read_answer::Missing(()) => Answer::Value(None),
        read_answer::Values(values) => {
            let values = values?;
            check_list("values", values.len(), OPERATIONS_MAX)?;
            Answer::Values(values.iter().map(read_maybe).collect::<Result<_, _>>()?)
        }
        read_answer::Rows(rows) => {
            Answer::Rows { rows: read_rows(rows.get_rows()?)?, more: rows.get_more() }
        }
        read_answer::Failed(reason) => Answer::Failed(text(reason?)?),
    })
}

fn read_maybe(reader: schema::maybe_value::Reader<'_>) -> Result<Option<bytes::Bytes>, Rejected> {
    Ok(match reader.which()? {
        maybe_value::Missing(()) => None,
        maybe_value::Value(found) => Some(value(found?)?),
    })
}

pub(crate) fn write_message(message: &Message, builder: message::Builder<'_>) {
    match message {
        Message::Prepare(prepare) => write_prepare(prepare, builder.init_prepare()),
        Message::Vote { txn, vote } => {
            let mut builder = builder.init_vote();
            write_txn(*txn, builder.reborrow().init_txn());
            write_vote(vote, builder);
        }
        Message::Decide { txn, decision, finished_below } => {
            let mut builder = builder.init_decide();
            write_txn(*txn, builder.reborrow().init_txn());
            let (decision, number) = write_decision(*decision);
            builder.set_decision(decision);
            builder.set_commit_number(number);
            write_txn(*finished_below, builder.init_finished_below());
        }
        Message::Acknowledge { txn } => write_txn(*txn, builder.init_acknowledge()),
        Message::Inquire { txn } => write_txn(*txn, builder.init_inquire()),
        Message::Inform { txn, knowledge } => {
            let mut builder = builder.init_inform();
            write_txn(*txn, builder.reborrow().init_txn());
            match knowledge {
                Knowledge::Decided(decision) => {
                    let (decision, number) = write_decision(*decision);
                    builder.set_decided(decision);
                    builder.set_commit_number(number);
                }
                Knowledge::Undecided => builder.set_undecided(()),
            }
        }
        Message::Read { read, epoch, query } => {
            let mut builder = builder.init_read();
            builder.set_read(*read);
            builder.set_epoch(*epoch);
            write_query(query, builder.init_query());
        }
        Message::ReadAnswer { read, epoch, answer } => {
            let mut builder = builder.init_read_answer();
            builder.set_read(*read);
            builder.set_epoch(*epoch);
            write_answer(answer, builder);
        }
        message => catch_up::write_message(message, builder.init_catch_up()),
    }
}

pub(super) fn write_txn(txn: TxnId, mut builder: schema::txn_id::Builder<'_>) {
    builder.set_coordinator(txn.coordinator.0);
    builder.set_epoch(txn.epoch);
    builder.set_number(txn.number);
}

/// The decision, and the commit's place in the serial order.
fn write_decision(decision: Decision) -> (schema::Decision, u64) {
    match decision {
        Decision::Commit(number) => (schema::Decision::Commit, number.0),
        Decision::Abort => (schema::Decision::Abort, 0),
    }
}

fn write_prepare(prepare: &Prepare, mut builder: schema::prepare::Builder<'_>) {
    write_txn(prepare.txn, builder.reborrow().init_txn());
    let mut participants = builder.reborrow().init_participants(length(prepare.participants.len()));
    for (index, participant) in (0..).zip(prepare.participants.iter()) {
        participants.set(index, participant.0);
    }
    write_transaction(&prepare.transaction, builder.reborrow().init_transaction());
    write_txn(prepare.finished_below, builder.reborrow().init_finished_below());
    if let Some(one_phase) = prepare.one_phase {
        builder.set_one_phase(true);
        write_stamp(one_phase.stamp, builder.init_stamp());
    }
}

fn write_vote(vote: &Vote, mut builder: schema::vote::Builder<'_>) {
    match vote {
        Vote::Yes => builder.set_yes(()),
        Vote::Conflict(key) => builder.set_conflict(key),
        Vote::PreconditionFailed { index, key } => {
            let mut failed = builder.init_precondition_failed();
            failed.set_index(*index);
            failed.set_key(key);
        }
        Vote::Refused => builder.set_refused(()),
        Vote::Overloaded => builder.set_overloaded(()),
        Vote::DiskFull => builder.set_disk_full(()),
        Vote::Failed(reason) => builder.set_failed(reason),
        Vote::Committed => builder.set_committed(()),
    }
}

fn write_query(query: &Query, mut builder: schema::query::Builder<'_>) {
    match query {
        Query::Get(key) => builder.set_get(key),
        Query::GetMany(keys) => {
            let mut list = builder.init_get_many(length(keys.len()));
            for (index, key) in (0..).zip(keys) {
                list.set(index, key);
            }
        }
        Query::Scan(range) => {
            let mut builder = builder.init_scan();
            builder.set_start(&range.start);
            if let Some(end) = &range.end {
                builder.set_end(end);
                builder.set_has_end(true);
            }
            builder.set_limit(range.limit);
        }
    }
}

fn write_answer(answer: &Answer, mut builder: schema::read_answer::Builder<'_>) {
    match answer {
        Answer::Value(Some(value)) => builder.set_value(value),
        Answer::Value(None) => builder.set_missing(()),
        Answer::Values(values) => {
            let mut list = builder.init_values(length(values.len()));
            for (index, value) in (0..).zip(values) {
                match value {
                    Some(value) => list.reborrow().get(index).set_value(value),
                    None => list.reborrow().get(index).set_missing(()),
                }
            }
        }
        Answer::Rows { rows, more } => {
            let mut builder = builder.init_rows();
            builder.set_more(*more);
            write_rows(rows, builder.init_rows(length(rows.len())));
        }
        Answer::Failed(reason) => builder.set_failed(reason),
    }
}
