//! The records of two-phase commit: coordinators from kind 16, participants from kind 32. Those that
//! parallel commit added have kinds of their own, and what it added to a record has a new kind of
//! that record: logs from before it are read as they are.

mod coordinator;
mod participant;
#[cfg(test)]
mod tests;

use kvorum_replication::ClientId;
use kvorum_replication::two_phase::message::TxnId;
use kvorum_replication::two_phase::record::{SessionState, SessionTable};
use kvorum_storage::codec::{Malformed, put_varint};

pub(crate) use self::participant::installs;
use super::StoredRecord;
use super::fields::{Fields, put_list};

pub(super) fn put_txn(payload: &mut Vec<u8>, txn: &TxnId) {
    put_varint(payload, txn.coordinator.0.into());
    put_varint(payload, txn.epoch);
    put_varint(payload, txn.number);
}

pub(super) fn txn(fields: &mut Fields<'_>) -> Result<TxnId, Malformed> {
    Ok(TxnId { coordinator: fields.node()?, epoch: fields.number()?, number: fields.number()? })
}

fn put_sessions(payload: &mut Vec<u8>, table: &SessionTable) {
    put_varint(payload, table.next_client);
    put_list(payload, &table.sessions, |payload, session| {
        put_varint(payload, session.client.0);
        put_varint(payload, session.answered_below);
        put_list(payload, &session.committed, |payload, sequence| put_varint(payload, *sequence));
    });
}

fn sessions(fields: &mut Fields<'_>) -> Result<SessionTable, Malformed> {
    Ok(SessionTable {
        next_client: fields.number()?,
        sessions: fields.list(|fields| {
            Ok(SessionState {
                client: ClientId(fields.number()?),
                answered_below: fields.number()?,
                committed: fields.list(Fields::number)?,
            })
        })?,
    })
}

fn replicas(fields: &mut Fields<'_>) -> Result<usize, Malformed> {
    usize::try_from(fields.number()?).map_err(|_| Malformed("more replicas than there can be"))
}
