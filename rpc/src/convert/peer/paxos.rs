//! `paxos.capnp`: the messages of Multi-Paxos.

use std::sync::Arc;

use kvorum_replication::paxos::message::{
    Accepted, Ballot, Batch, Command, Member, Message, Promise, ReadName, Slot, SnapshotPiece,
};
use kvorum_replication::paxos::record::{Replicated, SessionState, Settled};
use kvorum_replication::{ClientId, NodeId, SnapshotId, Stamp};
use kvorum_schema::paxos_capnp::{self as schema, command, message, settled};
use kvorum_schema::peer_capnp::inbox;

use super::super::client::{read_rows, read_transaction, write_rows, write_transaction};
use super::super::{MEMBERS_MAX, MESSAGES_MAX, OPERATIONS_MAX, Rejected, check_list, length};
use super::place;

/// Slots that one message may speak of; more than ever are sent.
const SLOTS_MAX: usize = 65_536;
/// Sets of acceptors that may count at a time: one that does, and those that will.
const MEMBERSHIPS_MAX: usize = 64;
/// Sessions of a snapshot, and settled writes of all of them: more than replicas keep.
const SESSIONS_MAX: usize = 1 << 20;

type MessagesReader<'a> = capnp::struct_list::Reader<'a, message::Owned>;

pub(crate) fn read_messages(reader: MessagesReader<'_>) -> Result<Vec<Message>, Rejected> {
    check_list("messages in one delivery", reader.len(), MESSAGES_MAX)?;
    reader.iter().map(read_message).collect()
}

/// Writes what a delivery carries, in its order.
pub(crate) fn write_messages(batch: &[Message], params: inbox::deliver_paxos_params::Builder<'_>) {
    let mut messages = params.init_messages(length(batch.len()));
    for (index, message) in (0..).zip(batch) {
        write_message(message, messages.reborrow().get(index));
    }
}

fn write_message(message: &Message, mut builder: message::Builder<'_>) {
    match message {
        Message::PreVote { ballot, instead_of } => {
            let mut builder = builder.init_pre_vote();
            if let Some(leader) = instead_of {
                write_ballot(*leader, builder.reborrow().init_instead_of());
            }
            write_ballot(*ballot, builder.init_ballot());
        }
        Message::PreVoteAnswer { ballot, life, granted, seen } => {
            let mut builder = builder.init_pre_vote_answer();
            write_ballot(*ballot, builder.reborrow().init_ballot());
            builder.set_life(*life);
            builder.set_granted(*granted);
            write_ballot(*seen, builder.init_seen());
        }
        Message::Prepare { ballot, from } => {
            let mut builder = builder.init_prepare();
            builder.set_from(from.0);
            write_ballot(*ballot, builder.init_ballot());
        }
        Message::Promise(promise) => write_promise(promise, builder.init_promise()),
        Message::Accept { ballot, slot, batch, chosen } => {
            let mut builder = builder.init_accept();
            write_ballot(*ballot, builder.reborrow().init_ballot());
            builder.set_slot(slot.0);
            builder.set_chosen(chosen.0);
            write_batch(batch, builder.init_batch());
        }
        Message::Accepted { ballot, slot, life } => {
            let mut builder = builder.init_accepted();
            builder.set_slot(slot.0);
            builder.set_life(*life);
            write_ballot(*ballot, builder.init_ballot());
        }
        Message::Refused { promised } => write_ballot(*promised, builder.init_refused()),
        Message::Heartbeat { ballot, chosen, round } => {
            let mut builder = builder.init_heartbeat();
            builder.set_chosen(chosen.0);
            builder.set_round(*round);
            write_ballot(*ballot, builder.init_ballot());
        }
        Message::HeartbeatAck { ballot, round, life } => {
            let mut builder = builder.init_heartbeat_ack();
            builder.set_round(*round);
            builder.set_life(*life);
            write_ballot(*ballot, builder.init_ballot());
        }
        Message::ReadIndex { name } => write_name(*name, builder.init_read_index()),
        Message::ReadIndexIs { name, index } => {
            let mut builder = builder.init_read_index_is();
            builder.set_index(index.0);
            write_name(*name, builder.init_name());
        }
        Message::Learn { from } => builder.set_learn(from.0),
        Message::Learned { from, batches, chosen, leader } => {
            let mut builder = builder.init_learned();
            builder.set_from(from.0);
            builder.set_chosen(chosen.0);
            write_ballot(*leader, builder.reborrow().init_leader());
            let mut list = builder.init_batches(length(batches.len()));
            for (index, batch) in (0..).zip(batches) {
                write_batch(batch, list.reborrow().get(index));
            }
        }
        Message::Truncated { first } => builder.set_truncated(first.0),
        Message::FetchSnapshot { snapshot, from } => {
            let mut builder = builder.init_fetch_snapshot();
            match snapshot {
                Some(snapshot) => builder.set_snapshot(snapshot.0),
                None => builder.set_is_newest(true),
            }
            builder.set_from(from);
        }
        Message::SnapshotPiece(piece) => write_piece(piece, builder.init_snapshot_piece()),
        Message::SnapshotGone { snapshot } => builder.set_snapshot_gone(snapshot.0),
        Message::Join { life } => builder.set_join(*life),
        Message::TakeOver { ballot } => write_ballot(*ballot, builder.init_take_over()),
    }
}

/// About how many bytes a message takes on the wire.
pub(super) fn message_bytes(message: &Message) -> usize {
    const FRAME: usize = 80;
    FRAME
        + match message {
            Message::Accept { batch, .. } => batch_bytes(batch),
            Message::Promise(promise) => {
                promise.accepted.iter().map(|accepted| 48 + batch_bytes(&accepted.batch)).sum()
            }
            Message::Learned { batches, .. } => batches.iter().map(|it| batch_bytes(it)).sum(),
            Message::FetchSnapshot { from, .. } => from.len(),
            Message::SnapshotPiece(SnapshotPiece { from, rows, last, .. }) => {
                let rows = rows.iter().map(|(key, value)| key.len() + value.len() + 32);
                from.len() + rows.sum::<usize>() + last.as_ref().map_or(0, |it| state_bytes(it))
            }
            Message::PreVote { .. }
            | Message::PreVoteAnswer { .. }
            | Message::Prepare { .. }
            | Message::Accepted { .. }
            | Message::Refused { .. }
            | Message::Heartbeat { .. }
            | Message::HeartbeatAck { .. }
            | Message::ReadIndex { .. }
            | Message::ReadIndexIs { .. }
            | Message::Learn { .. }
            | Message::Truncated { .. }
            | Message::SnapshotGone { .. }
            | Message::TakeOver { .. }
            | Message::Join { .. } => 0,
        }
}

fn batch_bytes(batch: &Batch) -> usize {
    let bytes = |command: &Command| match command {
        Command::OpenSession => 0,
        Command::Transact { transaction, .. } => {
            let operations = transaction.preconditions.len() + transaction.writes.len();
            transaction.bytes() + 32 * operations + 32
        }
        Command::ChangeMembers(members) => 16 * members.len(),
    };
    48 + batch.commands.iter().map(|command| 48 + bytes(command)).sum::<usize>()
}

fn state_bytes(replicated: &Replicated) -> usize {
    let members = replicated.members.iter().map(|(_, members)| 24 + 16 * members.len());
    let sessions = replicated.sessions.iter().map(|session| 32 + 16 * session.settled.len());
    48 + members.sum::<usize>() + sessions.sum::<usize>()
}

fn read_message(reader: message::Reader<'_>) -> Result<Message, Rejected> {
    Ok(match reader.which()? {
        message::PreVote(pre_vote) => {
            let pre_vote = pre_vote?;
            let leader =
                pre_vote.has_instead_of().then(|| pre_vote.get_instead_of()).transpose()?;
            Message::PreVote {
                ballot: read_ballot(pre_vote.get_ballot()?),
                instead_of: leader.map(read_ballot),
            }
        }
        message::PreVoteAnswer(answer) => {
            let answer = answer?;
            Message::PreVoteAnswer {
                ballot: read_ballot(answer.get_ballot()?),
                life: answer.get_life(),
                granted: answer.get_granted(),
                seen: read_ballot(answer.get_seen()?),
            }
        }
        message::Prepare(prepare) => {
            let prepare = prepare?;
            let ballot = read_ballot(prepare.get_ballot()?);
            Message::Prepare { ballot, from: Slot(prepare.get_from()) }
        }
        message::Promise(promise) => Message::Promise(read_promise(promise?)?),
        message::Accept(accept) => {
            let accept = accept?;
            Message::Accept {
                ballot: read_ballot(accept.get_ballot()?),
                slot: Slot(accept.get_slot()),
                batch: read_batch(accept.get_batch()?)?,
                chosen: Slot(accept.get_chosen()),
            }
        }
        message::Accepted(vote) => {
            let vote = vote?;
            let ballot = read_ballot(vote.get_ballot()?);
            Message::Accepted { ballot, slot: Slot(vote.get_slot()), life: vote.get_life() }
        }
        message::Refused(promised) => Message::Refused { promised: read_ballot(promised?) },
        message::Heartbeat(heartbeat) => {
            let heartbeat = heartbeat?;
            Message::Heartbeat {
                ballot: read_ballot(heartbeat.get_ballot()?),
                chosen: Slot(heartbeat.get_chosen()),
                round: heartbeat.get_round(),
            }
        }
        message::HeartbeatAck(ack) => {
            let ack = ack?;
            let ballot = read_ballot(ack.get_ballot()?);
            Message::HeartbeatAck { ballot, round: ack.get_round(), life: ack.get_life() }
        }
        message::ReadIndex(name) => Message::ReadIndex { name: read_name(name?) },
        message::ReadIndexIs(index) => {
            let index = index?;
            let name = read_name(index.get_name()?);
            Message::ReadIndexIs { name, index: Slot(index.get_index()) }
        }
        message::Learn(from) => Message::Learn { from: Slot(from) },
        message::Learned(learned) => read_learned(learned?)?,
        message::Truncated(first) => Message::Truncated { first: Slot(first) },
        message::FetchSnapshot(fetch) => {
            let fetch = fetch?;
            let snapshot = (!fetch.get_is_newest()).then(|| SnapshotId(fetch.get_snapshot()));
            Message::FetchSnapshot { snapshot, from: place(fetch.get_from()?)? }
        }
        message::SnapshotPiece(piece) => Message::SnapshotPiece(read_piece(piece?)?),
        message::SnapshotGone(snapshot) => Message::SnapshotGone { snapshot: SnapshotId(snapshot) },
        message::Join(life) => Message::Join { life },
        message::TakeOver(ballot) => Message::TakeOver { ballot: read_ballot(ballot?) },
    })
}

fn read_ballot(reader: schema::ballot::Reader<'_>) -> Ballot {
    Ballot { round: reader.get_round(), node: NodeId(reader.get_node()) }
}

fn write_ballot(ballot: Ballot, mut builder: schema::ballot::Builder<'_>) {
    builder.set_round(ballot.round);
    builder.set_node(ballot.node.0);
}

fn read_name(reader: schema::read_name::Reader<'_>) -> ReadName {
    ReadName { incarnation: reader.get_incarnation(), number: reader.get_number() }
}

fn write_name(name: ReadName, mut builder: schema::read_name::Builder<'_>) {
    builder.set_incarnation(name.incarnation);
    builder.set_number(name.number);
}

type MembersReader<'a> = capnp::struct_list::Reader<'a, schema::member::Owned>;
type MembersBuilder<'a> = capnp::struct_list::Builder<'a, schema::member::Owned>;

fn read_members(reader: MembersReader<'_>) -> Result<Arc<[Member]>, Rejected> {
    check_list("acceptors", reader.len(), MEMBERS_MAX)?;
    let member = |reader: schema::member::Reader<'_>| Member {
        node: NodeId(reader.get_node()),
        life: reader.get_life(),
    };
    Ok(reader.iter().map(member).collect())
}

fn write_members(members: &[Member], mut builder: MembersBuilder<'_>) {
    for (index, member) in (0..).zip(members) {
        let mut builder = builder.reborrow().get(index);
        builder.set_node(member.node.0);
        builder.set_life(member.life);
    }
}

fn read_batch(reader: schema::batch::Reader<'_>) -> Result<Arc<Batch>, Rejected> {
    let commands = reader.get_commands()?;
    check_list("commands in one batch", commands.len(), OPERATIONS_MAX)?;
    Ok(Arc::new(Batch {
        origin: read_ballot(reader.get_origin()?),
        commands: commands.iter().map(read_command).collect::<Result<_, _>>()?,
    }))
}

fn write_batch(batch: &Batch, mut builder: schema::batch::Builder<'_>) {
    write_ballot(batch.origin, builder.reborrow().init_origin());
    let mut commands = builder.init_commands(length(batch.commands.len()));
    for (index, command) in (0..).zip(&batch.commands) {
        write_command(command, commands.reborrow().get(index));
    }
}

fn read_command(reader: command::Reader<'_>) -> Result<Command, Rejected> {
    Ok(match reader.which()? {
        command::OpenSession(()) => Command::OpenSession,
        command::Transact(transact) => {
            let client = ClientId(transact.get_client());
            let stamp = (client.0 != 0).then(|| Stamp {
                client,
                sequence: transact.get_sequence(),
                answered_below: transact.get_answered_below(),
            });
            let transaction = Arc::new(read_transaction(transact.get_transaction()?)?);
            Command::Transact { stamp, transaction }
        }
        command::ChangeMembers(members) => Command::ChangeMembers(read_members(members?)?),
    })
}

fn write_command(command: &Command, mut builder: command::Builder<'_>) {
    match command {
        Command::OpenSession => builder.set_open_session(()),
        Command::Transact { stamp, transaction } => {
            let mut builder = builder.init_transact();
            if let Some(stamp) = stamp {
                builder.set_client(stamp.client.0);
                builder.set_sequence(stamp.sequence);
                builder.set_answered_below(stamp.answered_below);
            }
            write_transaction(transaction, builder.init_transaction());
        }
        Command::ChangeMembers(members) => {
            write_members(members, builder.init_change_members(length(members.len())));
        }
    }
}

fn read_promise(reader: schema::promise::Reader<'_>) -> Result<Promise, Rejected> {
    let accepted = reader.get_accepted()?;
    check_list("slots in one promise", accepted.len(), SLOTS_MAX)?;
    let read = |reader: schema::accepted::Reader<'_>| {
        Ok(Accepted {
            slot: Slot(reader.get_slot()),
            ballot: read_ballot(reader.get_ballot()?),
            batch: read_batch(reader.get_batch()?)?,
        })
    };
    let more = reader.get_more();
    Ok(Promise {
        ballot: read_ballot(reader.get_ballot()?),
        life: reader.get_life(),
        chosen: Slot(reader.get_chosen()),
        accepted: accepted.iter().map(read).collect::<Result<_, Rejected>>()?,
        more: (more != 0).then_some(Slot(more)),
    })
}

fn write_promise(promise: &Promise, mut builder: schema::promise::Builder<'_>) {
    write_ballot(promise.ballot, builder.reborrow().init_ballot());
    builder.set_life(promise.life);
    builder.set_chosen(promise.chosen.0);
    builder.set_more(promise.more.map_or(0, |slot| slot.0));
    let mut list = builder.init_accepted(length(promise.accepted.len()));
    for (index, accepted) in (0..).zip(&promise.accepted) {
        let mut builder = list.reborrow().get(index);
        builder.set_slot(accepted.slot.0);
        write_ballot(accepted.ballot, builder.reborrow().init_ballot());
        write_batch(&accepted.batch, builder.init_batch());
    }
}

fn read_learned(reader: schema::learned::Reader<'_>) -> Result<Message, Rejected> {
    let batches = reader.get_batches()?;
    check_list("slots in one answer", batches.len(), SLOTS_MAX)?;
    Ok(Message::Learned {
        from: Slot(reader.get_from()),
        batches: batches.iter().map(read_batch).collect::<Result<_, _>>()?,
        chosen: Slot(reader.get_chosen()),
        leader: read_ballot(reader.get_leader()?),
    })
}

fn read_piece(reader: schema::snapshot_piece::Reader<'_>) -> Result<SnapshotPiece, Rejected> {
    let last = match reader.get_is_last() {
        true => Some(Arc::new(read_replicated(reader.get_replicated()?)?)),
        false => None,
    };
    Ok(SnapshotPiece {
        snapshot: SnapshotId(reader.get_snapshot()),
        from: place(reader.get_from()?)?,
        rows: read_rows(reader.get_rows()?)?,
        last,
    })
}

fn write_piece(piece: &SnapshotPiece, mut builder: schema::snapshot_piece::Builder<'_>) {
    builder.set_snapshot(piece.snapshot.0);
    builder.set_from(&piece.from);
    write_rows(&piece.rows, builder.reborrow().init_rows(length(piece.rows.len())));
    if let Some(replicated) = &piece.last {
        builder.set_is_last(true);
        write_replicated(replicated, builder.init_replicated());
    }
}

fn read_replicated(reader: schema::replicated::Reader<'_>) -> Result<Replicated, Rejected> {
    let (members, sessions) = (reader.get_members()?, reader.get_sessions()?);
    check_list("sets of acceptors", members.len(), MEMBERSHIPS_MAX)?;
    check_list("sessions", sessions.len(), SESSIONS_MAX)?;
    let set = |reader: schema::members_from::Reader<'_>| {
        Ok((Slot(reader.get_slot()), read_members(reader.get_members()?)?))
    };
    Ok(Replicated {
        applied: Slot(reader.get_applied()),
        members: members.iter().map(set).collect::<Result<_, Rejected>>()?,
        next_client: reader.get_next_client(),
        sessions: sessions.iter().map(read_session).collect::<Result<_, _>>()?,
    })
}

fn read_session(reader: schema::session::Reader<'_>) -> Result<SessionState, Rejected> {
    let settled = reader.get_settled()?;
    check_list("settled writes", settled.len(), SESSIONS_MAX)?;
    let read = |reader: settled::Reader<'_>| {
        let how = match reader.which()? {
            settled::Committed(()) => Settled::Committed,
            settled::Refused(precondition) => Settled::Refused { precondition },
        };
        Ok((reader.get_sequence(), how))
    };
    Ok(SessionState {
        client: ClientId(reader.get_client()),
        answered_below: reader.get_answered_below(),
        settled: settled.iter().map(read).collect::<Result<_, Rejected>>()?,
    })
}

fn write_replicated(replicated: &Replicated, mut builder: schema::replicated::Builder<'_>) {
    builder.set_applied(replicated.applied.0);
    builder.set_next_client(replicated.next_client);
    let mut sets = builder.reborrow().init_members(length(replicated.members.len()));
    for (index, (slot, members)) in (0..).zip(&replicated.members) {
        let mut set = sets.reborrow().get(index);
        set.set_slot(slot.0);
        write_members(members, set.init_members(length(members.len())));
    }
    let mut sessions = builder.init_sessions(length(replicated.sessions.len()));
    for (index, session) in (0..).zip(&replicated.sessions) {
        write_session(session, sessions.reborrow().get(index));
    }
}

fn write_session(session: &SessionState, mut builder: schema::session::Builder<'_>) {
    builder.set_client(session.client.0);
    builder.set_answered_below(session.answered_below);
    let mut list = builder.init_settled(length(session.settled.len()));
    for (index, (sequence, how)) in (0..).zip(&session.settled) {
        let mut settled = list.reborrow().get(index);
        settled.set_sequence(*sequence);
        match how {
            Settled::Committed => settled.set_committed(()),
            Settled::Refused { precondition } => settled.set_refused(*precondition),
        }
    }
}
