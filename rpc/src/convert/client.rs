//! `client.capnp`: requests, outcomes and the rows they speak of.

use bytes::Bytes;
use kvorum_replication::{
    ClientId, Failure, Held, NodeId, Precondition, Range, Row, Stamp, Transaction, Write,
};
use kvorum_schema::client_capnp::{self as schema, failure, maybe_value, precondition, write};

use super::{
    OPERATIONS_MAX, ROWS_MAX, Rejected, TRANSACTION_BYTES_MAX, bound, check_key_len, check_list,
    check_value_len, key, length, text, value,
};

pub(crate) fn read_stamp(reader: schema::stamp::Reader<'_>) -> Option<Stamp> {
    let client = ClientId(reader.get_client());
    (client.0 != 0).then(|| Stamp {
        client,
        sequence: reader.get_sequence(),
        answered_below: reader.get_answered_below(),
    })
}

pub(crate) fn write_stamp(stamp: Option<Stamp>, mut builder: schema::stamp::Builder<'_>) {
    if let Some(stamp) = stamp {
        builder.set_client(stamp.client.0);
        builder.set_sequence(stamp.sequence);
        builder.set_answered_below(stamp.answered_below);
    }
}

pub(crate) fn read_transaction(
    reader: schema::transaction::Reader<'_>,
) -> Result<Transaction, Rejected> {
    let (preconditions, writes) = (reader.get_preconditions()?, reader.get_writes()?);
    let operations = preconditions.len().saturating_add(writes.len());
    check_list("operations in one transaction", operations, OPERATIONS_MAX)?;
    let transaction = Transaction {
        preconditions: preconditions.iter().map(read_precondition).collect::<Result<_, _>>()?,
        writes: writes.iter().map(read_write).collect::<Result<_, _>>()?,
    };
    check_transaction_bytes(&transaction)?;
    Ok(transaction)
}

fn read_precondition(reader: schema::precondition::Reader<'_>) -> Result<Precondition, Rejected> {
    let key = key(reader.get_key()?)?;
    Ok(match reader.which()? {
        precondition::Absent(()) => Precondition::Absent(key),
        precondition::Present(()) => Precondition::Present(key),
        precondition::Equals(expected) => Precondition::Equals(key, value(expected?)?),
    })
}

pub(crate) fn read_write(reader: schema::write::Reader<'_>) -> Result<Write, Rejected> {
    let key = key(reader.get_key()?)?;
    Ok(match reader.which()? {
        write::Put(put) => Write::Put(key, value(put?)?),
        write::Delete(()) => Write::Delete(key),
    })
}

pub(crate) fn write_transaction(
    transaction: &Transaction,
    mut builder: schema::transaction::Builder<'_>,
) {
    let count = length(transaction.preconditions.len());
    let mut preconditions = builder.reborrow().init_preconditions(count);
    for (index, precondition) in (0..).zip(&transaction.preconditions) {
        let mut builder = preconditions.reborrow().get(index);
        builder.set_key(precondition.key());
        match precondition {
            Precondition::Absent(_) => builder.set_absent(()),
            Precondition::Present(_) => builder.set_present(()),
            Precondition::Equals(_, expected) => builder.set_equals(expected),
        }
    }
    let mut writes = builder.init_writes(length(transaction.writes.len()));
    for (index, write) in (0..).zip(&transaction.writes) {
        write_write(write, writes.reborrow().get(index));
    }
}

pub(crate) fn write_write(write: &Write, mut builder: schema::write::Builder<'_>) {
    builder.set_key(write.key());
    match write {
        Write::Put(_, value) => builder.set_put(value),
        Write::Delete(_) => builder.set_delete(()),
    }
}

/// What the server would say of keys to be read, for a client that wants to know before it asks.
pub(crate) fn check_keys(keys: &[Bytes]) -> Result<(), Rejected> {
    check_list("keys", u32::try_from(keys.len()).unwrap_or(u32::MAX), OPERATIONS_MAX)?;
    keys.iter().try_for_each(check_key)
}

/// What the server would say of a transaction, for a client that wants to know before it asks.
pub(crate) fn check_transaction(transaction: &Transaction) -> Result<(), Rejected> {
    let operations = transaction.preconditions.len().saturating_add(transaction.writes.len());
    check_list(
        "operations in one transaction",
        u32::try_from(operations).unwrap_or(u32::MAX),
        OPERATIONS_MAX,
    )?;
    let keys = transaction.preconditions.iter().map(Precondition::key);
    for key in keys.chain(transaction.writes.iter().map(Write::key)) {
        check_key(key)?;
    }
    for write in &transaction.writes {
        if let Write::Put(_, value) = write {
            check_value_len(value.len())?;
        }
    }
    for precondition in &transaction.preconditions {
        if let Precondition::Equals(_, value) = precondition {
            check_value_len(value.len())?;
        }
    }
    check_transaction_bytes(transaction)
}

pub(crate) fn check_key(key: &Bytes) -> Result<(), Rejected> {
    if key.is_empty() {
        return Err(Rejected::Invalid("an empty key; keys have at least 1 byte".to_owned()));
    }
    check_key_len(key.len())
}

fn check_transaction_bytes(transaction: &Transaction) -> Result<(), Rejected> {
    check_bytes(transaction_bytes(transaction))
}

/// Whether so many bytes of keys and values are not too many for a transaction.
pub(crate) fn check_bytes(bytes: usize) -> Result<(), Rejected> {
    match bytes > TRANSACTION_BYTES_MAX {
        true => Err(Rejected::Invalid(format!(
            "a transaction of {bytes} bytes; transactions have at most {TRANSACTION_BYTES_MAX}"
        ))),
        false => Ok(()),
    }
}

/// The bytes of a transaction's keys and values.
pub(crate) fn transaction_bytes(transaction: &Transaction) -> usize {
    let checked: usize = transaction
        .preconditions
        .iter()
        .map(|precondition| match precondition {
            Precondition::Absent(key) | Precondition::Present(key) => key.len(),
            Precondition::Equals(key, value) => key.len() + value.len(),
        })
        .sum();
    checked + writes_bytes(&transaction.writes)
}

/// The bytes of their keys and values.
pub(crate) fn writes_bytes(writes: &[Write]) -> usize {
    writes.iter().map(Write::bytes).sum()
}

pub(crate) fn read_range(
    start: &[u8],
    end: &[u8],
    has_end: bool,
    limit: u32,
) -> Result<Range, Rejected> {
    let end = if has_end { Some(bound(end)?) } else { None };
    Ok(Range { start: bound(start)?, end, limit: limit.min(ROWS_MAX) })
}

/// A list of keys to be read.
pub(crate) fn read_keys(reader: capnp::data_list::Reader<'_>) -> Result<Vec<Bytes>, Rejected> {
    check_list("keys", reader.len(), OPERATIONS_MAX)?;
    reader.iter().map(|wanted| key(wanted?)).collect()
}

pub(crate) fn write_keys(keys: &[Bytes], mut builder: capnp::data_list::Builder<'_>) {
    for (index, key) in (0..).zip(keys) {
        builder.set(index, key);
    }
}

pub(crate) fn read_values(
    reader: capnp::struct_list::Reader<'_, schema::maybe_value::Owned>,
) -> Result<Vec<Option<Bytes>>, Rejected> {
    check_list("values", reader.len(), OPERATIONS_MAX)?;
    let maybe = |reader: maybe_value::Reader<'_>| {
        Ok(match reader.which()? {
            maybe_value::Missing(()) => None,
            maybe_value::Value(found) => Some(value(found?)?),
        })
    };
    reader.iter().map(maybe).collect()
}

pub(crate) fn write_values(
    values: &[Option<Bytes>],
    mut builder: capnp::struct_list::Builder<'_, schema::maybe_value::Owned>,
) {
    for (index, value) in (0..).zip(values) {
        let mut builder = builder.reborrow().get(index);
        match value {
            Some(value) => builder.set_value(value),
            None => builder.set_missing(()),
        }
    }
}

pub(crate) fn read_held(reader: schema::held::Reader<'_>) -> Option<Held> {
    let (by, run, number) = (NodeId(reader.get_by()), reader.get_run(), reader.get_number());
    (number != 0).then_some(Held { by, run, number })
}

pub(crate) fn write_held(held: Option<Held>, mut builder: schema::held::Builder<'_>) {
    if let Some(held) = held {
        builder.set_by(held.by.0);
        builder.set_run(held.run);
        builder.set_number(held.number);
    }
}

pub(crate) fn read_rows(
    reader: capnp::struct_list::Reader<'_, schema::row::Owned>,
) -> Result<Vec<Row>, Rejected> {
    check_list("rows", reader.len(), ROWS_MAX as usize)?;
    reader.iter().map(|row| Ok((key(row.get_key()?)?, value(row.get_value()?)?))).collect()
}

pub(crate) fn write_rows(
    rows: &[Row],
    mut builder: capnp::struct_list::Builder<'_, schema::row::Owned>,
) {
    for (index, (key, value)) in (0..).zip(rows) {
        let mut row = builder.reborrow().get(index);
        row.set_key(key);
        row.set_value(value);
    }
}

/// A failure as the wire tells it: it names an address where ours names a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// As the node said.
    Failure(Failure),
    /// Ask at this address instead; empty if it is not known.
    Redirect(String),
}

pub(crate) fn read_failure(reader: schema::failure::Reader<'_>) -> Result<Told, Rejected> {
    Ok(Told::Failure(match reader.which()? {
        failure::Conflict(contended) => Failure::Conflict { key: bound(contended?)? },
        failure::PreconditionFailed(failed) => Failure::PreconditionFailed {
            index: failed.get_index(),
            key: bound(failed.get_key()?)?,
        },
        failure::Unavailable(reason) => Failure::Unavailable { reason: text(reason?)? },
        failure::Overloaded(()) => Failure::Overloaded,
        failure::SnapshotExpired(()) => Failure::SnapshotExpired,
        failure::Unknown(reason) => Failure::Unknown { reason: text(reason?)? },
        failure::SessionExpired(()) => Failure::SessionExpired,
        failure::StaleSequence(()) => Failure::StaleSequence,
        failure::Invalid(reason) => Failure::Invalid { reason: text(reason?)? },
        failure::Redirect(address) => return Ok(Told::Redirect(text(address?)?)),
        failure::DiskFull(node) => Failure::DiskFull { node: NodeId(node) },
        failure::Storage(reason) => Failure::Storage { reason: text(reason?)? },
    }))
}

pub(crate) fn write_failure(told: &Told, mut builder: schema::failure::Builder<'_>) {
    let failure = match told {
        Told::Redirect(address) => return builder.set_redirect(address),
        Told::Failure(failure) => failure,
    };
    match failure {
        Failure::Conflict { key } => builder.set_conflict(key),
        Failure::PreconditionFailed { index, key } => {
            let mut failed = builder.init_precondition_failed();
            failed.set_index(*index);
            failed.set_key(key);
        }
        Failure::Unavailable { reason } => builder.set_unavailable(reason),
        Failure::Overloaded => builder.set_overloaded(()),
        Failure::SnapshotExpired => builder.set_snapshot_expired(()),
        Failure::Unknown { reason } => builder.set_unknown(reason),
        Failure::SessionExpired => builder.set_session_expired(()),
        Failure::StaleSequence => builder.set_stale_sequence(()),
        Failure::Invalid { reason } => builder.set_invalid(reason),
        Failure::Redirect { .. } => builder.set_redirect(""),
        Failure::DiskFull { node } => builder.set_disk_full(node.0),
        Failure::Storage { reason } => builder.set_storage(reason),
    }
}
