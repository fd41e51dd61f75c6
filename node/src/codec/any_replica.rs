//! The records of two-phase commit through any replica: from kind 64.
//!
//! ```text
//!  64 Started      incarnation
//!  65 Prepared     promise
//!  66 Committed    transaction, age, participants, work
//!  67 Decided      transaction, 0 abort | 1 commit
//!  68 Ended        transaction
//!  69 Refused      client, sequence, answered below, precondition
//!  70 Checkpoint   incarnation, clock, promises, outcomes: transaction, decision; finished below,
//!                      commits: transaction, age, participants, 0 | 1 work; sessions
//!
//!  promise         transaction, age, participants, work, finished below
//!  age             clock, transaction
//!  work            0 client                                    open a session
//!                  1 stamp, writes, checked keys               write
//!  sessions        next client, sessions: client, answered below, settled: sequence,
//!                      0 | 1 + precondition
//! ```
//!
//! Numbers are varints, lists and slices begin with their length.

use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use kvorum_replication::two_phase::any_replica::message::{Age, Decision, Work};
use kvorum_replication::two_phase::any_replica::record::{
    Checkpoint, Committed, CommittedState, Prepared, Record, SessionTable,
};
use kvorum_replication::{ClientId, Stamp};
use kvorum_storage::codec::{Malformed, put_slice, put_varint};

use super::StoredRecord;
use super::fields::{Fields, put_list, put_nodes, put_sessions, put_stamp, put_write};
use super::two_phase::{put_txn, txn};

const STARTED: u8 = 64;
const PREPARED: u8 = 65;
const COMMITTED: u8 = 66;
const DECIDED: u8 = 67;
const ENDED: u8 = 68;
const REFUSED: u8 = 69;
const CHECKPOINT: u8 = 70;

/// The kinds of a replica that coordinates.
pub(super) const KINDS: RangeInclusive<u8> = STARTED..=CHECKPOINT;

impl StoredRecord for Record {
    fn encode(&self, payload: &mut Vec<u8>) -> u8 {
        match self {
            Self::Started { incarnation } => {
                put_varint(payload, *incarnation);
                STARTED
            }
            Self::Prepared(prepared) => {
                put_prepared(payload, prepared);
                PREPARED
            }
            Self::Committed(committed) => {
                put_txn(payload, &committed.txn);
                put_age(payload, &committed.age);
                put_nodes(payload, &committed.participants);
                put_work(payload, &committed.work);
                COMMITTED
            }
            Self::Decided { txn, decision } => {
                put_txn(payload, txn);
                put_decision(payload, *decision);
                DECIDED
            }
            Self::Ended { txn } => {
                put_txn(payload, txn);
                ENDED
            }
            Self::Refused { stamp, precondition } => {
                put_varint(payload, stamp.client.0);
                put_varint(payload, stamp.sequence);
                put_varint(payload, stamp.answered_below);
                put_varint(payload, (*precondition).into());
                REFUSED
            }
            Self::Checkpoint(checkpoint) => {
                put_checkpoint(payload, checkpoint);
                CHECKPOINT
            }
        }
    }

    fn decode(kind: u8, payload: &Bytes) -> Result<Self, Malformed> {
        let mut fields = Fields::new(payload);
        let record = match kind {
            STARTED => Self::Started { incarnation: fields.number()? },
            PREPARED => Self::Prepared(prepared(&mut fields)?),
            COMMITTED => Self::Committed(Committed {
                txn: txn(&mut fields)?,
                age: age(&mut fields)?,
                participants: fields.nodes()?,
                work: Arc::new(work(&mut fields)?),
            }),
            DECIDED => Self::Decided { txn: txn(&mut fields)?, decision: decision(&mut fields)? },
            ENDED => Self::Ended { txn: txn(&mut fields)? },
            REFUSED => Self::Refused {
                stamp: Stamp {
                    client: ClientId(fields.number()?),
                    sequence: fields.number()?,
                    answered_below: fields.number()?,
                },
                precondition: fields.index()?,
            },
            CHECKPOINT => Self::Checkpoint(checkpoint(&mut fields)?),
            _ => return Err(Malformed("not a kind of record that a coordinating replica keeps")),
        };
        fields.finish()?;
        Ok(record)
    }

    fn is_checkpoint(kind: u8) -> bool {
        kind == CHECKPOINT
    }
}

fn put_age(payload: &mut Vec<u8>, age: &Age) {
    put_varint(payload, age.clock);
    put_txn(payload, &age.first);
}

fn age(fields: &mut Fields<'_>) -> Result<Age, Malformed> {
    Ok(Age { clock: fields.number()?, first: txn(fields)? })
}

fn put_work(payload: &mut Vec<u8>, work: &Work) {
    match work {
        Work::OpenSession { client } => {
            payload.push(0);
            put_varint(payload, client.0);
        }
        Work::Write { stamp, writes, checked } => {
            payload.push(1);
            put_stamp(payload, *stamp);
            put_list(payload, writes, put_write);
            put_list(payload, checked, |payload, key| put_slice(payload, key));
        }
    }
}

fn work(fields: &mut Fields<'_>) -> Result<Work, Malformed> {
    match fields.tag()? {
        0 => Ok(Work::OpenSession { client: ClientId(fields.number()?) }),
        1 => Ok(Work::Write {
            stamp: fields.stamp()?,
            writes: fields.list(Fields::write)?,
            checked: fields.list(Fields::slice)?,
        }),
        _ => Err(Malformed("an unknown kind of work")),
    }
}

fn put_decision(payload: &mut Vec<u8>, decision: Decision) {
    payload.push(match decision {
        Decision::Abort => 0,
        Decision::Commit => 1,
    });
}

fn decision(fields: &mut Fields<'_>) -> Result<Decision, Malformed> {
    match fields.tag()? {
        0 => Ok(Decision::Abort),
        1 => Ok(Decision::Commit),
        _ => Err(Malformed("an unknown decision")),
    }
}

fn put_prepared(payload: &mut Vec<u8>, prepared: &Prepared) {
    put_txn(payload, &prepared.txn);
    put_age(payload, &prepared.age);
    put_nodes(payload, &prepared.participants);
    put_work(payload, &prepared.work);
    put_txn(payload, &prepared.finished_below);
}

fn prepared(fields: &mut Fields<'_>) -> Result<Prepared, Malformed> {
    Ok(Prepared {
        txn: txn(fields)?,
        age: age(fields)?,
        participants: fields.nodes()?,
        work: Arc::new(work(fields)?),
        finished_below: txn(fields)?,
    })
}

fn put_checkpoint(payload: &mut Vec<u8>, checkpoint: &Checkpoint) {
    put_varint(payload, checkpoint.incarnation);
    put_varint(payload, checkpoint.clock);
    put_list(payload, &checkpoint.prepared, put_prepared);
    put_list(payload, &checkpoint.decided, |payload, (txn, decision)| {
        put_txn(payload, txn);
        put_decision(payload, *decision);
    });
    put_list(payload, &checkpoint.finished_below, put_txn);
    put_list(payload, &checkpoint.committed, |payload, committed| {
        put_txn(payload, &committed.txn);
        put_age(payload, &committed.age);
        put_nodes(payload, &committed.participants);
        payload.push(committed.work.is_some().into());
        if let Some(work) = &committed.work {
            put_work(payload, work);
        }
    });
    put_table(payload, &checkpoint.sessions);
}

fn checkpoint(fields: &mut Fields<'_>) -> Result<Checkpoint, Malformed> {
    Ok(Checkpoint {
        incarnation: fields.number()?,
        clock: fields.number()?,
        prepared: fields.list(prepared)?,
        decided: fields.list(|fields| Ok((txn(fields)?, decision(fields)?)))?,
        finished_below: fields.list(txn)?,
        committed: fields.list(committed_state)?,
        sessions: table(fields)?,
    })
}

fn committed_state(fields: &mut Fields<'_>) -> Result<CommittedState, Malformed> {
    Ok(CommittedState {
        txn: txn(fields)?,
        age: age(fields)?,
        participants: fields.nodes()?,
        work: match fields.tag()? {
            0 => None,
            1 => Some(Arc::new(work(fields)?)),
            _ => return Err(Malformed("work is there or not")),
        },
    })
}

fn put_table(payload: &mut Vec<u8>, table: &SessionTable) {
    put_varint(payload, table.next_client);
    put_sessions(payload, &table.sessions);
}

fn table(fields: &mut Fields<'_>) -> Result<SessionTable, Malformed> {
    Ok(SessionTable { next_client: fields.number()?, sessions: fields.sessions()? })
}

#[cfg(test)]
mod tests {
    use kvorum_replication::two_phase::any_replica::message::Settled;
    use kvorum_replication::two_phase::any_replica::record::SessionState;
    use kvorum_replication::two_phase::message::TxnId;
    use kvorum_replication::{NodeId, Write};

    use super::*;

    fn id(coordinator: u32, number: u64) -> TxnId {
        TxnId { coordinator: NodeId(coordinator), epoch: 7, number }
    }

    fn an_age() -> Age {
        Age { clock: 1 << 40, first: id(2, 5) }
    }

    fn a_write() -> Arc<Work> {
        let (key, value) = (Bytes::from_static(b"k"), Bytes::from_static(b"v"));
        Arc::new(Work::Write {
            stamp: Some(Stamp { client: ClientId(3), sequence: 300, answered_below: 299 }),
            writes: vec![Write::Put(key.clone(), value), Write::Delete(Bytes::new())],
            checked: vec![key],
        })
    }

    fn a_prepared() -> Prepared {
        Prepared {
            txn: id(2, 9),
            age: an_age(),
            participants: [NodeId(1), NodeId(2), NodeId(3)].into(),
            work: a_write(),
            finished_below: id(2, 4),
        }
    }

    fn records() -> Vec<Record> {
        let stamp = Stamp { client: ClientId(3), sequence: 1, answered_below: 1 };
        let settled = vec![(5, Settled::Committed), (7, Settled::Refused { precondition: 300 })];
        let participants: Arc<[NodeId]> = [NodeId(1)].into();
        let committed = |work| CommittedState {
            txn: id(1, 1),
            age: an_age(),
            participants: Arc::clone(&participants),
            work,
        };
        vec![
            Record::Started { incarnation: 7 },
            Record::Prepared(a_prepared()),
            Record::Prepared(Prepared {
                work: Arc::new(Work::OpenSession { client: ClientId(1 << 50) }),
                ..a_prepared()
            }),
            Record::Committed(Committed {
                txn: id(1, 300),
                age: an_age(),
                participants: Arc::clone(&participants),
                work: a_write(),
            }),
            Record::Decided { txn: id(2, 9), decision: Decision::Commit },
            Record::Decided { txn: id(2, 9), decision: Decision::Abort },
            Record::Ended { txn: id(1, u64::MAX) },
            Record::Refused { stamp, precondition: u32::MAX },
            Record::Checkpoint(Checkpoint {
                incarnation: 7,
                clock: 1 << 41,
                prepared: vec![a_prepared()],
                decided: vec![(id(2, 8), Decision::Commit), (id(3, 1), Decision::Abort)],
                finished_below: vec![id(2, 4), id(3, 1)],
                committed: vec![committed(None), committed(Some(a_write()))],
                sessions: SessionTable {
                    next_client: 4,
                    sessions: vec![SessionState {
                        client: ClientId(3),
                        answered_below: 5,
                        settled,
                    }],
                },
            }),
        ]
    }

    #[test]
    fn records_survive_and_cut_ones_are_refused() {
        for record in records() {
            let mut payload = Vec::new();
            let kind = record.encode(&mut payload);
            let payload = Bytes::from(payload);
            assert_eq!(Record::decode(kind, &payload).as_ref(), Ok(&record));
            for cut in 0..payload.len() {
                let cut = payload.slice(..cut);
                assert!(Record::decode(kind, &cut).is_err(), "{record:?} cut to {cut:?}");
            }
        }
    }

    #[test]
    fn only_checkpoints_begin_a_recovery() {
        for record in records() {
            let kind = record.encode(&mut Vec::new());
            let checkpoint = matches!(record, Record::Checkpoint(_));
            assert_eq!(Record::is_checkpoint(kind), checkpoint);
        }
    }
}
