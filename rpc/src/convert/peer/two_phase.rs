//! The messages of two-phase commit.

use kvorum_replication::two_phase::message::{
    CommitNumber, Decision, Knowledge, Message, Recalled, Recovered, TxnId, Vote,
};
use kvorum_replication::{Answer, NodeId, Page, Query, Range};
use kvorum_schema::peer_capnp::{
    self as schema, inbox, inform, query, read_answer, two_phase_message as message, vote,
};

use super::super::client::{
    read_held, read_keys, read_range, read_rows, read_stamp, read_values, transaction_bytes,
    write_held, write_keys, write_rows, write_stamp, write_values,
};
use super::super::{
    MEMBERS_MAX, MESSAGES_MAX, Rejected, bound, check_list, key, length, text, value,
};
use super::{catch_up, runs};

mod view;

/// Transactions in one answer to a restarted coordinator: more than a participant puts there.
const RECALLED_MAX: usize = 1 << 16;

type MessagesReader<'a> = capnp::struct_list::Reader<'a, message::Owned>;

pub(crate) fn read_messages(reader: MessagesReader<'_>) -> Result<Vec<Message>, Rejected> {
    check_list("messages in one delivery", reader.len(), MESSAGES_MAX)?;
    let mut messages = Vec::new();
    for reader in reader {
        read_run(reader, &mut messages)?;
    }
    Ok(messages)
}

/// About how many bytes a message takes on the wire, among others of its kind.
pub(super) fn message_bytes(message: &Message) -> usize {
    const FRAME: usize = 96;
    const YES: usize = 16;
    const COMMIT: usize = 32;
    const PUT: usize = 64;
    FRAME
        + match message {
            Message::Vote { vote: Vote::Yes, .. } | Message::Acknowledge { .. } => return YES,
            Message::Decide { decision: Decision::Commit(_), .. } => return COMMIT,
            Message::Prepare(prepare) if runs::is_put(&prepare.transaction) => {
                return PUT + transaction_bytes(&prepare.transaction);
            }
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
            Message::Read { query, .. } => match &**query {
                Query::Get(key) => key.len(),
                Query::GetMany(keys) => keys.iter().map(|key| key.len() + 16).sum(),
                Query::Scan(range) | Query::Page(Page { range, .. }) => {
                    range.start.len() + range.end.as_ref().map_or(0, |end| end.len())
                }
            },
            Message::ReadAnswer { answer, .. } => match answer {
                Answer::Value(value) => value.as_ref().map_or(0, |value| value.len()),
                Answer::Values(values) => {
                    values.iter().flatten().map(|value| value.len()).sum::<usize>()
                        + 24 * values.len()
                }
                Answer::Rows { rows, .. } | Answer::Page { rows, .. } => {
                    rows.iter().map(|(key, value)| key.len() + value.len() + 32).sum()
                }
                Answer::Failed(reason) => reason.len(),
                Answer::NotHeld | Answer::TooManyHeld | Answer::TooLarge { .. } => 0,
            },
            Message::Recovered(answer) => {
                let bytes = |recalled: &Recalled| 96 + 4 * recalled.participants.len();
                answer.recalled.iter().map(bytes).sum()
            }
            Message::Decide { .. }
            | Message::Inquire { .. }
            | Message::Inform { .. }
            | Message::Recover { .. }
            | Message::View(_) => 0,
            message => catch_up::message_bytes(message),
        }
}

/// Adds a message, or a run of them, to `messages`.
fn read_run(reader: message::Reader<'_>, messages: &mut Vec<Message>) -> Result<(), Rejected> {
    messages.push(match reader.which()? {
        message::Prepares(run) => return runs::read_prepares(run?, messages),
        message::YesVotes(run) => {
            let yes = |txn| Message::Vote { txn, vote: Vote::Yes };
            return runs::read_transactions(run?, messages, yes);
        }
        message::Commits(run) => return runs::read_commits(run?, messages),
        message::Acknowledgements(run) => {
            return runs::read_transactions(run?, messages, |txn| Message::Acknowledge { txn });
        }
        message::Vote(vote) => {
            let vote = vote?;
            Message::Vote { txn: read_txn(vote.get_txn()?), vote: read_vote(vote)? }
        }
        message::Abort(abort) => {
            let abort = abort?;
            Message::Decide {
                txn: read_txn(abort.get_txn()?),
                decision: Decision::Abort,
                finished_below: read_txn(abort.get_finished_below()?),
                epoch: abort.get_epoch(),
            }
        }
        message::Inquire(txn) => Message::Inquire { txn: read_txn(txn?) },
        message::Inform(inform) => {
            let inform = inform?;
            let knowledge = match inform.which()? {
                inform::Decided(decision) => {
                    Knowledge::Decided(read_decision(decision?, inform.get_commit_number())?)
                }
                inform::Undecided(()) => Knowledge::Undecided,
            };
            let (txn, epoch) = (read_txn(inform.get_txn()?), inform.get_epoch());
            Message::Inform { txn, knowledge, epoch }
        }
        message::Read(read) => {
            let read = read?;
            Message::Read {
                read: read.get_read(),
                epoch: read.get_epoch(),
                query: Box::new(read_query(read.get_query()?)?),
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
        message::Recover(recover) => {
            let recover = recover?;
            Message::Recover { epoch: recover.get_epoch(), first: read_txn(recover.get_first()?) }
        }
        message::Recovered(recovered) => read_recovered(recovered?)?,
        message::View(of_view) => Message::View(view::read(of_view?)?),
        message::CatchUp(message) => catch_up::read_message(message?)?,
    });
    Ok(())
}

fn read_recovered(reader: schema::recovered::Reader<'_>) -> Result<Message, Rejected> {
    let recalled = reader.get_recalled()?;
    check_list("recalled transactions", recalled.len(), RECALLED_MAX)?;
    let next = match reader.get_has_next() {
        true => Some(read_txn(reader.get_next()?)),
        false => None,
    };
    Ok(Message::Recovered(Box::new(Recovered {
        epoch: reader.get_epoch(),
        first: read_txn(reader.get_first()?),
        applied: CommitNumber(reader.get_applied()),
        recalled: recalled.iter().map(read_recalled).collect::<Result<_, _>>()?,
        next,
        is_outside: reader.get_is_outside(),
    })))
}

fn read_recalled(reader: schema::recalled::Reader<'_>) -> Result<Recalled, Rejected> {
    let participants = reader.get_participants()?;
    check_list("participants", participants.len(), MEMBERS_MAX)?;
    let number = reader.get_commit_number();
    Ok(Recalled {
        txn: read_txn(reader.get_txn()?),
        participants: participants.iter().map(NodeId).collect(),
        stamp: read_stamp(reader.get_stamp()?),
        number: (number > 0).then_some(CommitNumber(number)),
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
    Ok(match decision {
        schema::Decision::Commit => Decision::Commit(runs::commit_number(number)?),
        schema::Decision::Abort => Decision::Abort,
    })
}

fn read_vote(reader: schema::vote::Reader<'_>) -> Result<Vote, Rejected> {
    Ok(match reader.which()? {
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
        query::GetMany(keys) => Query::GetMany(read_keys(keys?)?),
        query::Scan(range) => Query::Scan(read_scanned(range?)?),
        query::Page(page) => {
            let page = page?;
            let range = read_scanned(page.get_range()?)?;
            Query::Page(Page { range, last: page.get_last(), of: read_held(page.get_of()?) })
        }
    })
}

fn read_scanned(range: schema::range::Reader<'_>) -> Result<Range, Rejected> {
    read_range(range.get_start()?, range.get_end()?, range.get_has_end(), range.get_limit())
}

fn read_answer(reader: schema::read_answer::Reader<'_>) -> Result<Answer, Rejected> {
    Ok(match reader.which()? {
        read_answer::Value(found) => Answer::Value(Some(value(found?)?)),
        read_answer::Missing(()) => Answer::Value(None),
        read_answer::Values(values) => Answer::Values(read_values(values?)?),
        read_answer::Rows(rows) => {
            Answer::Rows { rows: read_rows(rows.get_rows()?)?, more: rows.get_more() }
        }
        read_answer::Page(page) => Answer::Page {
            rows: read_rows(page.get_rows()?)?,
            more: page.get_more(),
            held: read_held(page.get_held()?),
        },
        read_answer::NotHeld(()) => Answer::NotHeld,
        read_answer::TooManyHeld(()) => Answer::TooManyHeld,
        read_answer::TooLarge(bytes) => Answer::TooLarge { bytes },
        read_answer::Failed(reason) => Answer::Failed(text(reason?)?),
    })
}

/// Writes what a delivery carries, in its order.
pub(crate) fn write_messages(batch: &[Message], params: inbox::deliver_params::Builder<'_>) {
    let runs: Vec<_> = batch.chunk_by(runs::goes_on).collect();
    let mut list = params.init_messages(length(runs.len()));
    for (index, run) in (0..).zip(runs) {
        write_run(run, list.reborrow().get(index));
    }
}

fn write_run(run: &[Message], builder: message::Builder<'_>) {
    match &run[0] {
        Message::Prepare(first) => runs::write_prepares(first, run, builder.init_prepares()),
        Message::Vote { txn, vote: Vote::Yes } => {
            runs::write_transactions(*txn, run, builder.init_yes_votes());
        }
        Message::Decide { txn, decision: Decision::Commit(_), finished_below, epoch } => {
            runs::write_commits((*txn, *finished_below, *epoch), run, builder.init_commits());
        }
        Message::Acknowledge { txn } => {
            runs::write_transactions(*txn, run, builder.init_acknowledgements());
        }
        Message::Vote { txn, vote } => {
            let mut builder = builder.init_vote();
            write_txn(*txn, builder.reborrow().init_txn());
            write_vote(vote, builder);
        }
        Message::Decide { txn, decision: Decision::Abort, finished_below, epoch } => {
            let mut builder = builder.init_abort();
            builder.set_epoch(*epoch);
            write_txn(*txn, builder.reborrow().init_txn());
            write_txn(*finished_below, builder.init_finished_below());
        }
        Message::Inquire { txn } => write_txn(*txn, builder.init_inquire()),
        Message::Inform { txn, knowledge, epoch } => {
            let mut builder = builder.init_inform();
            builder.set_epoch(*epoch);
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
        Message::Recover { epoch, first } => {
            let mut builder = builder.init_recover();
            builder.set_epoch(*epoch);
            write_txn(*first, builder.init_first());
        }
        Message::View(message) => view::write(*message, builder.init_view()),
        Message::Recovered(answer) => {
            let Recovered { epoch, first, applied, recalled, next, is_outside } = &**answer;
            let mut builder = builder.init_recovered();
            builder.set_epoch(*epoch);
            write_txn(*first, builder.reborrow().init_first());
            builder.set_applied(applied.0);
            builder.set_is_outside(*is_outside);
            write_recalled(recalled, builder.reborrow().init_recalled(length(recalled.len())));
            if let Some(next) = next {
                builder.set_has_next(true);
                write_txn(*next, builder.init_next());
            }
        }
        message => catch_up::write_message(message, builder.init_catch_up()),
    }
}

fn write_recalled(
    recalled: &[Recalled],
    mut list: capnp::struct_list::Builder<'_, schema::recalled::Owned>,
) {
    for (index, it) in (0..).zip(recalled) {
        let mut builder = list.reborrow().get(index);
        write_txn(it.txn, builder.reborrow().init_txn());
        write_nodes(
            &it.participants,
            builder.reborrow().init_participants(length(it.participants.len())),
        );
        builder.set_commit_number(it.number.map_or(0, |number| number.0));
        write_stamp(it.stamp, builder.init_stamp());
    }
}

pub(super) fn write_nodes(nodes: &[NodeId], mut list: capnp::primitive_list::Builder<'_, u32>) {
    for (index, node) in (0..).zip(nodes) {
        list.set(index, node.0);
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

fn write_vote(vote: &Vote, mut builder: schema::vote::Builder<'_>) {
    match vote {
        Vote::Yes => unreachable!("yes votes go in runs"),
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
        Query::GetMany(keys) => write_keys(keys, builder.init_get_many(length(keys.len()))),
        Query::Scan(range) => write_range(range, builder.init_scan()),
        Query::Page(Page { range, last, of }) => {
            let mut builder = builder.init_page();
            write_range(range, builder.reborrow().init_range());
            builder.set_last(*last);
            write_held(*of, builder.init_of());
        }
    }
}

fn write_range(range: &Range, mut builder: schema::range::Builder<'_>) {
    builder.set_start(&range.start);
    if let Some(end) = &range.end {
        builder.set_end(end);
        builder.set_has_end(true);
    }
    builder.set_limit(range.limit);
}

fn write_answer(answer: &Answer, mut builder: schema::read_answer::Builder<'_>) {
    match answer {
        Answer::Value(Some(value)) => builder.set_value(value),
        Answer::Value(None) => builder.set_missing(()),
        Answer::Values(values) => {
            write_values(values, builder.init_values(length(values.len())));
        }
        Answer::Rows { rows, more } => {
            let mut builder = builder.init_rows();
            builder.set_more(*more);
            write_rows(rows, builder.init_rows(length(rows.len())));
        }
        Answer::Page { rows, more, held } => {
            let mut builder = builder.init_page();
            builder.set_more(*more);
            write_rows(rows, builder.reborrow().init_rows(length(rows.len())));
            write_held(*held, builder.init_held());
        }
        Answer::NotHeld => builder.set_not_held(()),
        Answer::TooManyHeld => builder.set_too_many_held(()),
        Answer::TooLarge { bytes } => builder.set_too_large(*bytes),
        Answer::Failed(reason) => builder.set_failed(reason),
    }
}
