//! Runs: consecutive messages of two-phase commit that go as one.
//!
//! A prepare, a vote, a commit and an acknowledgement travel for every transaction between the
//! coordinator and each participant. As messages of their own, each with its pointers to follow and
//! to check, they cost a participant as much to read as to carry out. But those of one turn differ in
//! little more than a number. So what they have in common is said once, and the rest stands in a list
//! with hardly a pointer in it. The order of a delivery stays as it was.

use std::sync::Arc;

use bytes::Bytes;
use kvorum_replication::two_phase::message::{
    CommitNumber, Decision, Message, OnePhase, Parallel, Prepare, TxnId, Vote,
};
use kvorum_replication::{ClientId, NodeId, Stamp, Transaction, Write};
use kvorum_schema::peer_capnp::{commits, prepare, prepares, transactions};

use super::super::client::{read_transaction, write_transaction};
use super::super::{MEMBERS_MAX, MESSAGES_MAX, Rejected, check_list, key, length, value};
use super::two_phase::{read_txn, write_nodes, write_txn};

/// Whether a message goes on with the run in which the one before it stands.
pub(super) fn goes_on(before: &Message, message: &Message) -> bool {
    match (before, message) {
        (Message::Prepare(before), Message::Prepare(prepare)) => {
            Common::of(before) == Common::of(prepare)
        }
        (
            Message::Vote { txn: before, vote: Vote::Yes },
            Message::Vote { txn, vote: Vote::Yes },
        )
        | (Message::Acknowledge { txn: before }, Message::Acknowledge { txn }) => {
            is_of_one_epoch(*before, *txn)
        }
        (
            Message::Decide {
                txn: before,
                decision: Decision::Commit(_),
                finished_below: finished_before,
                epoch: epoch_before,
            },
            Message::Decide { txn, decision: Decision::Commit(_), finished_below, epoch },
        ) => {
            is_of_one_epoch(*before, *txn)
                && finished_before == finished_below
                && epoch_before == epoch
        }
        _ => false,
    }
}

fn is_of_one_epoch(one: TxnId, other: TxnId) -> bool {
    one.coordinator == other.coordinator && one.epoch == other.epoch
}

/// What all prepares of a run say.
#[derive(Debug, PartialEq, Eq)]
struct Common<'a> {
    coordinator: NodeId,
    epoch: u64,
    participants: &'a [NodeId],
    finished_below: TxnId,
    one_phase: bool,
    parallel: bool,
}

impl<'a> Common<'a> {
    fn of(prepare: &'a Prepare) -> Self {
        let Prepare { txn, participants, transaction: _, one_phase, parallel, finished_below } =
            prepare;
        Self {
            coordinator: txn.coordinator,
            epoch: txn.epoch,
            participants,
            finished_below: *finished_below,
            one_phase: one_phase.is_some(),
            parallel: parallel.is_some(),
        }
    }
}

/// Adds a run of prepares to `messages`.
pub(super) fn read_prepares(
    reader: prepares::Reader<'_>,
    messages: &mut Vec<Message>,
) -> Result<(), Rejected> {
    let participants = reader.get_participants()?;
    check_list("participants", participants.len(), MEMBERS_MAX)?;
    let participants: Arc<[NodeId]> = participants.iter().map(NodeId).collect();
    let (coordinator, epoch) = (NodeId(reader.get_coordinator()), reader.get_epoch());
    let finished_below = read_txn(reader.get_finished_below()?);
    let (is_one_phase, is_parallel) = (reader.get_one_phase(), reader.get_parallel());
    let (prepares, mut bytes) = (reader.get_prepares()?, reader.get_bytes()?);
    make_room(messages, prepares.len())?;
    for reader in prepares {
        let stamp = read_stamp(reader);
        messages.push(Message::Prepare(Arc::new(Prepare {
            txn: TxnId { coordinator, epoch, number: reader.get_number() },
            participants: Arc::clone(&participants),
            transaction: Arc::new(read_prepared(reader, &mut bytes)?),
            one_phase: is_one_phase.then_some(OnePhase { stamp }),
            parallel: is_parallel.then_some(Parallel { stamp }),
            finished_below,
        })));
    }
    Ok(())
}

/// What is to be prepared; if it is a put, the first of the bytes, which are taken off.
fn read_prepared(reader: prepare::Reader<'_>, bytes: &mut &[u8]) -> Result<Transaction, Rejected> {
    if reader.get_key_bytes() == 0 {
        return read_transaction(reader.get_transaction()?);
    }
    let mut take = |len: u32| {
        bytes.split_off(..len as usize).ok_or_else(|| {
            Rejected::Invalid("keys and values that are longer than they are together".to_owned())
        })
    };
    let put =
        Write::Put(key(take(reader.get_key_bytes())?)?, value(take(reader.get_value_bytes())?)?);
    Ok(Transaction { preconditions: Vec::new(), writes: vec![put] })
}

fn read_stamp(reader: prepare::Reader<'_>) -> Option<Stamp> {
    let client = ClientId(reader.get_client());
    (client.0 != 0).then(|| Stamp {
        client,
        sequence: reader.get_sequence(),
        answered_below: reader.get_answered_below(),
    })
}

/// Adds a message about each transaction of a list to `messages`.
pub(super) fn read_transactions(
    reader: transactions::Reader<'_>,
    messages: &mut Vec<Message>,
    message: impl Fn(TxnId) -> Message,
) -> Result<(), Rejected> {
    let (coordinator, epoch) = (NodeId(reader.get_coordinator()), reader.get_epoch());
    let numbers = reader.get_numbers()?;
    make_room(messages, numbers.len())?;
    messages.extend(numbers.iter().map(|number| message(TxnId { coordinator, epoch, number })));
    Ok(())
}

/// Adds a run of commits to `messages`.
pub(super) fn read_commits(
    reader: commits::Reader<'_>,
    messages: &mut Vec<Message>,
) -> Result<(), Rejected> {
    let (coordinator, epoch) = (NodeId(reader.get_coordinator()), reader.get_epoch());
    let finished_below = read_txn(reader.get_finished_below()?);
    let said_in = reader.get_said_in();
    let commits = reader.get_commits()?;
    make_room(messages, commits.len())?;
    for commit in commits {
        let txn = TxnId { coordinator, epoch, number: commit.get_number() };
        let decision = Decision::Commit(commit_number(commit.get_commit_number())?);
        messages.push(Message::Decide { txn, decision, finished_below, epoch: said_in });
    }
    Ok(())
}

/// A commit's place in the serial order.
pub(super) fn commit_number(number: u64) -> Result<CommitNumber, Rejected> {
    match number {
        0 => Err(Rejected::Invalid("a commit without its place in the serial order".to_owned())),
        number => Ok(CommitNumber(number)),
    }
}

/// So many more, if they are not too many for one delivery.
fn make_room(messages: &mut Vec<Message>, more: u32) -> Result<(), Rejected> {
    let all = length(messages.len()).saturating_add(more);
    check_list("messages in one delivery", all, MESSAGES_MAX)?;
    messages.reserve(more as usize);
    Ok(())
}

/// Writes a run of prepares, which begins with this one.
pub(super) fn write_prepares(first: &Prepare, run: &[Message], mut builder: prepares::Builder<'_>) {
    let common = Common::of(first);
    builder.set_coordinator(common.coordinator.0);
    builder.set_epoch(common.epoch);
    builder.set_one_phase(common.one_phase);
    builder.set_parallel(common.parallel);
    write_txn(common.finished_below, builder.reborrow().init_finished_below());
    let participants = builder.reborrow().init_participants(length(common.participants.len()));
    write_nodes(common.participants, participants);
    write_puts(run, builder.reborrow());
    let mut list = builder.init_prepares(length(run.len()));
    for (index, message) in (0..).zip(run) {
        write_prepare(prepare_of(message), list.reborrow().get(index));
    }
}

/// Writes the keys and values of those that are puts.
fn write_puts(run: &[Message], builder: prepares::Builder<'_>) {
    let puts = || run.iter().filter_map(|message| only_put(&prepare_of(message).transaction));
    let len: usize = puts().map(|(key, value)| key.len() + value.len()).sum();
    let mut rest = builder.init_bytes(length(len));
    for part in puts().flat_map(|(key, value)| [key, value]) {
        let (place, behind) = rest.split_at_mut(part.len());
        place.copy_from_slice(part);
        rest = behind;
    }
}

fn prepare_of(message: &Message) -> &Prepare {
    let Message::Prepare(prepare) = message else { stranger(message) };
    prepare
}

/// Whether a transaction is no more than a put, and goes without a pointer.
pub(super) fn is_put(transaction: &Transaction) -> bool {
    only_put(transaction).is_some()
}

/// Key and value, if a transaction is no more than to put them.
fn only_put(transaction: &Transaction) -> Option<(&Bytes, &Bytes)> {
    match (&*transaction.preconditions, &*transaction.writes) {
        ([], [Write::Put(key, value)]) if !key.is_empty() => Some((key, value)),
        _ => None,
    }
}

fn write_prepare(prepare: &Prepare, mut builder: prepare::Builder<'_>) {
    builder.set_number(prepare.txn.number);
    let one_phase = prepare.one_phase.and_then(|one_phase| one_phase.stamp);
    let stamp = one_phase.or_else(|| prepare.parallel.and_then(|parallel| parallel.stamp));
    if let Some(Stamp { client, sequence, answered_below }) = stamp {
        builder.set_client(client.0);
        builder.set_sequence(sequence);
        builder.set_answered_below(answered_below);
    }
    match only_put(&prepare.transaction) {
        Some((key, value)) => {
            builder.set_key_bytes(length(key.len()));
            builder.set_value_bytes(length(value.len()));
        }
        None => write_transaction(&prepare.transaction, builder.init_transaction()),
    }
}

/// Writes a run of messages that say no more of a transaction than its name. The first speaks of
/// this one.
pub(super) fn write_transactions(
    first: TxnId,
    run: &[Message],
    mut builder: transactions::Builder<'_>,
) {
    builder.set_coordinator(first.coordinator.0);
    builder.set_epoch(first.epoch);
    let mut numbers = builder.init_numbers(length(run.len()));
    for (index, message) in (0..).zip(run) {
        let (Message::Vote { txn, .. } | Message::Acknowledge { txn }) = message else {
            stranger(message)
        };
        numbers.set(index, txn.number);
    }
}

/// Writes a run of commits. The first is this one.
pub(super) fn write_commits(
    (first, finished_below, epoch): (TxnId, TxnId, u64),
    run: &[Message],
    mut builder: commits::Builder<'_>,
) {
    builder.set_coordinator(first.coordinator.0);
    builder.set_epoch(first.epoch);
    builder.set_said_in(epoch);
    write_txn(finished_below, builder.reborrow().init_finished_below());
    let mut list = builder.init_commits(length(run.len()));
    for (index, message) in (0..).zip(run) {
        let Message::Decide { txn, decision: Decision::Commit(number), .. } = message else {
            stranger(message)
        };
        let mut commit = list.reborrow().get(index);
        commit.set_number(txn.number);
        commit.set_commit_number(number.0);
    }
}

fn stranger(message: &Message) -> ! {
    unreachable!("a run is of one kind, and this is of another: {message:?}")
}
