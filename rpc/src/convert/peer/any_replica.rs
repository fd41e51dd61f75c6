//! The messages of two-phase commit through any replica.

use std::sync::Arc;

use kvorum_replication::two_phase::any_replica::message::{
    Age, Decision, Knowledge, Message, Prepare, Settled, TxnId, Vote, Work,
};
use kvorum_replication::{ClientId, NodeId};
use kvorum_schema::any_replica_capnp::{self as schema, inform, message, prepare, vote};
use kvorum_schema::peer_capnp::inbox;

use super::super::client::{
    check_bytes, read_stamp, read_write, write_stamp, write_write, writes_bytes,
};
use super::super::{MEMBERS_MAX, MESSAGES_MAX, OPERATIONS_MAX, Rejected, check_list, key, length};

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
                let work = match &*prepare.work {
                    Work::OpenSession { .. } => 0,
                    Work::Write { writes, checked, .. } => {
                        let checked: usize = checked.iter().map(|key| key.len() + 16).sum();
                        writes_bytes(writes) + 40 * writes.len() + checked + 40
                    }
                };
                work + 4 * prepare.participants.len() + 120
            }
            Message::Vote { vote: Vote::Conflict(key), .. } => key.len(),
            Message::Vote { .. }
            | Message::Decide { .. }
            | Message::Acknowledge { .. }
            | Message::Inquire { .. }
            | Message::Inform { .. } => 0,
        }
}

fn read_message(reader: message::Reader<'_>) -> Result<Message, Rejected> {
    Ok(match reader.which()? {
        message::Prepare(prepare) => Message::Prepare(read_prepare(prepare?)?),
        message::Vote(vote) => {
            let vote = vote?;
            let (txn, clock) = (read_txn(vote.get_txn()?), vote.get_clock());
            Message::Vote { txn, vote: read_vote(vote)?, clock }
        }
        message::Decide(decide) => {
            let decide = decide?;
            Message::Decide {
                txn: read_txn(decide.get_txn()?),
                decision: read_decision(decide.get_decision()?),
                finished_below: read_txn(decide.get_finished_below()?),
            }
        }
        message::Acknowledge(txn) => Message::Acknowledge { txn: read_txn(txn?) },
        message::Inquire(txn) => Message::Inquire { txn: read_txn(txn?) },
        message::Inform(inform) => {
            let inform = inform?;
            let knowledge = match inform.which()? {
                inform::Decided(decision) => Knowledge::Decided(read_decision(decision?)),
                inform::Undecided(()) => Knowledge::Undecided,
            };
            Message::Inform { txn: read_txn(inform.get_txn()?), knowledge }
        }
    })
}

fn read_txn(reader: schema::txn_id::Reader<'_>) -> TxnId {
    TxnId {
        coordinator: NodeId(reader.get_coordinator()),
        epoch: reader.get_epoch(),
        number: reader.get_number(),
    }
}

fn read_decision(decision: schema::Decision) -> Decision {
    match decision {
        schema::Decision::Commit => Decision::Commit,
        schema::Decision::Abort => Decision::Abort,
    }
}

fn read_prepare(reader: prepare::Reader<'_>) -> Result<Prepare, Rejected> {
    let participants = reader.get_participants()?;
    check_list("participants", participants.len(), MEMBERS_MAX)?;
    let age = reader.get_age()?;
    let work = match reader.which()? {
        prepare::OpenSession(client) => Work::OpenSession { client: ClientId(client) },
        prepare::Write(work) => read_work(work?)?,
    };
    Ok(Prepare {
        txn: read_txn(reader.get_txn()?),
        age: Age { clock: age.get_clock(), first: read_txn(age.get_first()?) },
        participants: participants.iter().map(NodeId).collect(),
        work: Arc::new(work),
        finished_below: read_txn(reader.get_finished_below()?),
    })
}

fn read_work(reader: schema::work::Reader<'_>) -> Result<Work, Rejected> {
    let (writes, checked) = (reader.get_writes()?, reader.get_checked()?);
    let operations = writes.len().saturating_add(checked.len());
    check_list("operations in one transaction", operations, OPERATIONS_MAX)?;
    let writes: Vec<_> = writes.iter().map(read_write).collect::<Result<_, _>>()?;
    let checked: Vec<_> =
        checked.iter().map(|checked| key(checked?)).collect::<Result<_, Rejected>>()?;
    let checked_bytes: usize = checked.iter().map(bytes::Bytes::len).sum();
    check_bytes(writes_bytes(&writes).saturating_add(checked_bytes))?;
    Ok(Work::Write { stamp: read_stamp(reader.get_stamp()?), writes, checked })
}

fn read_vote(reader: vote::Reader<'_>) -> Result<Vote, Rejected> {
    Ok(match reader.which()? {
        vote::Yes(()) => Vote::Yes,
        vote::Conflict(contended) => Vote::Conflict(key(contended?)?),
        vote::InFlight(()) => Vote::InFlight,
        vote::Committed(()) => Vote::Settled(Settled::Committed),
        vote::PreconditionFailed(precondition) => Vote::Settled(Settled::Refused { precondition }),
        vote::StaleSequence(()) => Vote::StaleSequence,
        vote::SessionExpired(()) => Vote::SessionExpired,
        vote::Refused(()) => Vote::Refused,
        vote::Overloaded(()) => Vote::Overloaded,
        vote::DiskFull(()) => Vote::DiskFull,
        vote::Absent(()) => Vote::Absent,
    })
}

/// Writes what a delivery carries, in its order.
pub(crate) fn write_messages(
    batch: &[Message],
    params: inbox::deliver_any_replica_params::Builder<'_>,
) {
    let mut messages = params.init_messages(length(batch.len()));
    for (index, message) in (0..).zip(batch) {
        write_message(message, messages.reborrow().get(index));
    }
}

fn write_message(message: &Message, mut builder: message::Builder<'_>) {
    match message {
        Message::Prepare(prepare) => write_prepare(prepare, builder.init_prepare()),
        Message::Vote { txn, vote, clock } => {
            let mut builder = builder.init_vote();
            builder.set_clock(*clock);
            write_txn(*txn, builder.reborrow().init_txn());
            write_vote(vote, builder);
        }
        Message::Decide { txn, decision, finished_below } => {
            let mut builder = builder.init_decide();
            write_txn(*txn, builder.reborrow().init_txn());
            builder.set_decision(write_decision(*decision));
            write_txn(*finished_below, builder.init_finished_below());
        }
        Message::Acknowledge { txn } => write_txn(*txn, builder.reborrow().init_acknowledge()),
        Message::Inquire { txn } => write_txn(*txn, builder.reborrow().init_inquire()),
        Message::Inform { txn, knowledge } => {
            let mut builder = builder.init_inform();
            write_txn(*txn, builder.reborrow().init_txn());
            match knowledge {
                Knowledge::Decided(decision) => builder.set_decided(write_decision(*decision)),
                Knowledge::Undecided => builder.set_undecided(()),
            }
        }
    }
}

fn write_txn(txn: TxnId, mut builder: schema::txn_id::Builder<'_>) {
    builder.set_coordinator(txn.coordinator.0);
    builder.set_epoch(txn.epoch);
    builder.set_number(txn.number);
}

fn write_decision(decision: Decision) -> schema::Decision {
    match decision {
        Decision::Commit => schema::Decision::Commit,
        Decision::Abort => schema::Decision::Abort,
    }
}

fn write_prepare(prepare: &Prepare, mut builder: prepare::Builder<'_>) {
    write_txn(prepare.txn, builder.reborrow().init_txn());
    let mut age = builder.reborrow().init_age();
    age.set_clock(prepare.age.clock);
    write_txn(prepare.age.first, age.init_first());
    let count = length(prepare.participants.len());
    let mut participants = builder.reborrow().init_participants(count);
    for (index, participant) in (0..).zip(prepare.participants.iter()) {
        participants.set(index, participant.0);
    }
    write_txn(prepare.finished_below, builder.reborrow().init_finished_below());
    match &*prepare.work {
        Work::OpenSession { client } => builder.set_open_session(client.0),
        Work::Write { stamp, writes, checked } => {
            let mut builder = builder.init_write();
            write_stamp(*stamp, builder.reborrow().init_stamp());
            let mut list = builder.reborrow().init_writes(length(writes.len()));
            for (index, write) in (0..).zip(writes) {
                write_write(write, list.reborrow().get(index));
            }
            let mut list = builder.init_checked(length(checked.len()));
            for (index, key) in (0..).zip(checked) {
                list.set(index, key);
            }
        }
    }
}

fn write_vote(vote: &Vote, mut builder: vote::Builder<'_>) {
    match vote {
        Vote::Yes => builder.set_yes(()),
        Vote::Conflict(key) => builder.set_conflict(key),
        Vote::InFlight => builder.set_in_flight(()),
        Vote::Settled(Settled::Committed) => builder.set_committed(()),
        Vote::Settled(Settled::Refused { precondition }) => {
            builder.set_precondition_failed(*precondition);
        }
        Vote::StaleSequence => builder.set_stale_sequence(()),
        Vote::SessionExpired => builder.set_session_expired(()),
        Vote::Refused => builder.set_refused(()),
        Vote::Overloaded => builder.set_overloaded(()),
        Vote::DiskFull => builder.set_disk_full(()),
        Vote::Absent => builder.set_absent(()),
    }
}
