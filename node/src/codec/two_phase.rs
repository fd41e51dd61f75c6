//! The records of two-phase commit: coordinators from kind 16, participants from kind 32.

use std::sync::Arc;

use bytes::Bytes;
use kvorum_replication::two_phase::message::{Commit, CommitNumber, Decision, TxnId};
use kvorum_replication::two_phase::record::{
    CommittedState, CoordinatorCheckpoint, CoordinatorProgress, CoordinatorRecord,
    ParticipantCheckpoint, ParticipantRecord, Prepared, SessionState, SessionTable,
};
use kvorum_replication::{ClientId, Transaction};
use kvorum_storage::codec::{Malformed, put_slice, put_varint};

use super::StoredRecord;
use super::fields::{Fields, put_list, put_nodes, put_stamp, put_write};

const COORDINATOR_STARTED: u8 = 16;
const SESSION_OPENED: u8 = 17;
const COMMITTED: u8 = 18;
const ENDED: u8 = 19;
const COORDINATOR_CHECKPOINT: u8 = 20;

const PARTICIPANT_STARTED: u8 = 32;
const PREPARED: u8 = 33;
const DECIDED: u8 = 34;
const COMMITTED_ALONE: u8 = 35;
const PARTICIPANT_CHECKPOINT: u8 = 36;
const LEARNED: u8 = 40;
const INSTALLED: u8 = 41;
const OUTSIDE: u8 = 42;
const JOINED: u8 = 43;

impl StoredRecord for CoordinatorRecord {
    fn encode(&self, payload: &mut Vec<u8>) -> u8 {
        match self {
            Self::Started { epoch } => {
                put_varint(payload, *epoch);
                COORDINATOR_STARTED
            }
            Self::SessionOpened { client } => {
                put_varint(payload, client.0);
                SESSION_OPENED
            }
            Self::Committed { txn, number, stamp, participants } => {
                put_txn(payload, txn);
                put_varint(payload, number.0);
                put_stamp(payload, *stamp);
                put_nodes(payload, participants);
                COMMITTED
            }
            Self::Ended { txn } => {
                put_txn(payload, txn);
                ENDED
            }
            Self::Checkpoint(checkpoint) => {
                put_varint(payload, checkpoint.epoch);
                put_sessions(payload, &checkpoint.sessions);
                put_varint(payload, checkpoint.commits.0);
                put_list(payload, &checkpoint.committed, |payload, committed| {
                    put_txn(payload, &committed.txn);
                    put_varint(payload, committed.number.0);
                    put_nodes(payload, &committed.participants);
                });
                COORDINATOR_CHECKPOINT
            }
        }
    }

    fn decode(kind: u8, payload: &Bytes) -> Result<Self, Malformed> {
        let mut fields = Fields::new(payload);
        let record = match kind {
            COORDINATOR_STARTED => Self::Started { epoch: fields.number()? },
            SESSION_OPENED => Self::SessionOpened { client: ClientId(fields.number()?) },
            COMMITTED => Self::Committed {
                txn: txn(&mut fields)?,
                number: CommitNumber(fields.number()?),
                stamp: fields.stamp()?,
                participants: fields.nodes()?,
            },
            ENDED => Self::Ended { txn: txn(&mut fields)? },
            COORDINATOR_CHECKPOINT => Self::Checkpoint(CoordinatorCheckpoint {
                epoch: fields.number()?,
                sessions: sessions(&mut fields)?,
                commits: CommitNumber(fields.number()?),
                committed: fields.list(|fields| {
                    Ok(CommittedState {
                        txn: txn(fields)?,
                        number: CommitNumber(fields.number()?),
                        participants: fields.nodes()?,
                    })
                })?,
            }),
            _ => return Err(Malformed("not a kind of record that a coordinator keeps")),
        };
        fields.finish()?;
        Ok(record)
    }

    fn is_checkpoint(kind: u8) -> bool {
        kind == COORDINATOR_CHECKPOINT
    }
}

impl StoredRecord for ParticipantRecord {
    fn encode(&self, payload: &mut Vec<u8>) -> u8 {
        match self {
            Self::Started { incarnation } => {
                put_varint(payload, *incarnation);
                PARTICIPANT_STARTED
            }
            Self::Prepared(prepared) => {
                put_prepared(payload, prepared);
                PREPARED
            }
            Self::Decided { txn, decision } => {
                put_txn(payload, txn);
                put_decision(payload, *decision);
                DECIDED
            }
            Self::CommittedAlone { txn, stamp, writes } => {
                put_txn(payload, txn);
                put_stamp(payload, *stamp);
                put_list(payload, writes, put_write);
                COMMITTED_ALONE
            }
            Self::Checkpoint(checkpoint) => {
                put_checkpoint(payload, checkpoint);
                PARTICIPANT_CHECKPOINT
            }
            Self::Learned { finished_below, commits } => {
                put_txn(payload, finished_below);
                put_list(payload, commits, |payload, commit| {
                    put_varint(payload, commit.number.0);
                    put_txn(payload, &commit.txn);
                    put_list(payload, &commit.transaction.writes, put_write);
                });
                LEARNED
            }
            Self::Installed { mark, checkpoint } => {
                put_varint(payload, *mark);
                put_checkpoint(payload, checkpoint);
                INSTALLED
            }
            Self::Outside { life } => {
                put_varint(payload, *life);
                OUTSIDE
            }
            Self::Joined { life, from, serve_from } => {
                put_varint(payload, *life);
                put_txn(payload, from);
                put_varint(payload, serve_from.0);
                JOINED
            }
        }
    }

    fn decode(kind: u8, payload: &Bytes) -> Result<Self, Malformed> {
        let mut fields = Fields::new(payload);
        let record = match kind {
            PARTICIPANT_STARTED => Self::Started { incarnation: fields.number()? },
            PREPARED => Self::Prepared(prepared(&mut fields)?),
            DECIDED => Self::Decided { txn: txn(&mut fields)?, decision: decision(&mut fields)? },
            COMMITTED_ALONE => Self::CommittedAlone {
                txn: txn(&mut fields)?,
                stamp: fields.stamp()?,
                writes: fields.list(Fields::write)?,
            },
            PARTICIPANT_CHECKPOINT => Self::Checkpoint(checkpoint(&mut fields)?),
            LEARNED => {
                Self::Learned { finished_below: txn(&mut fields)?, commits: fields.list(commit)? }
            }
            INSTALLED => {
                Self::Installed { mark: fields.number()?, checkpoint: checkpoint(&mut fields)? }
            }
            OUTSIDE => Self::Outside { life: fields.number()? },
            JOINED => Self::Joined {
                life: fields.number()?,
                from: txn(&mut fields)?,
                serve_from: CommitNumber(fields.number()?),
            },
            _ => return Err(Malformed("not a kind of record that a participant keeps")),
        };
        fields.finish()?;
        Ok(record)
    }

    fn is_checkpoint(kind: u8) -> bool {
        kind == PARTICIPANT_CHECKPOINT || kind == INSTALLED
    }
}

/// The mark under which the staged rows are installed that a record stands for, if it is such a one.
pub(crate) fn installs(kind: u8, payload: &Bytes) -> Option<u64> {
    let mark = Fields::new(payload).number().ok()?;
    (kind == INSTALLED).then_some(mark)
}

fn put_checkpoint(payload: &mut Vec<u8>, checkpoint: &ParticipantCheckpoint) {
    put_varint(payload, checkpoint.incarnation);
    put_list(payload, &checkpoint.prepared, put_prepared);
    put_list(payload, &checkpoint.decided, |payload, (txn, decision)| {
        put_txn(payload, txn);
        put_decision(payload, *decision);
    });
    put_list(payload, &checkpoint.coordinators, |payload, progress| {
        put_txn(payload, &progress.finished_below);
        put_varint(payload, progress.applied.0);
    });
    put_sessions(payload, &checkpoint.sessions);
}

fn checkpoint(fields: &mut Fields<'_>) -> Result<ParticipantCheckpoint, Malformed> {
    Ok(ParticipantCheckpoint {
        incarnation: fields.number()?,
        prepared: fields.list(prepared)?,
        decided: fields.list(|fields| Ok((txn(fields)?, decision(fields)?)))?,
        coordinators: fields.list(|fields| {
            Ok(CoordinatorProgress {
                finished_below: txn(fields)?,
                applied: CommitNumber(fields.number()?),
            })
        })?,
        sessions: sessions(fields)?,
    })
}

fn commit(fields: &mut Fields<'_>) -> Result<Commit, Malformed> {
    let (number, txn) = (CommitNumber(fields.number()?), txn(fields)?);
    let writes = fields.list(Fields::write)?;
    let transaction = Arc::new(Transaction { preconditions: Vec::new(), writes });
    Ok(Commit { number, txn, transaction })
}

pub(super) fn put_txn(payload: &mut Vec<u8>, txn: &TxnId) {
    put_varint(payload, txn.coordinator.0.into());
    put_varint(payload, txn.epoch);
    put_varint(payload, txn.number);
}

pub(super) fn txn(fields: &mut Fields<'_>) -> Result<TxnId, Malformed> {
    Ok(TxnId { coordinator: fields.node()?, epoch: fields.number()?, number: fields.number()? })
}

fn put_decision(payload: &mut Vec<u8>, decision: Decision) {
    match decision {
        Decision::Abort => payload.push(0),
        Decision::Commit(number) => {
            payload.push(1);
            put_varint(payload, number.0);
        }
    }
}

fn decision(fields: &mut Fields<'_>) -> Result<Decision, Malformed> {
    match fields.tag()? {
        0 => Ok(Decision::Abort),
        1 => Ok(Decision::Commit(CommitNumber(fields.number()?))),
        _ => Err(Malformed("an unknown decision")),
    }
}

fn put_prepared(payload: &mut Vec<u8>, prepared: &Prepared) {
    put_txn(payload, &prepared.txn);
    put_nodes(payload, &prepared.participants);
    put_list(payload, &prepared.writes, put_write);
    put_list(payload, &prepared.checked, |payload, key| put_slice(payload, key));
    put_txn(payload, &prepared.finished_below);
}

fn prepared(fields: &mut Fields<'_>) -> Result<Prepared, Malformed> {
    Ok(Prepared {
        txn: txn(fields)?,
        participants: fields.nodes()?,
        writes: fields.list(Fields::write)?,
        checked: fields.list(Fields::slice)?,
        finished_below: txn(fields)?,
    })
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

#[cfg(test)]
mod tests {
    use kvorum_replication::{NodeId, Stamp, Write};

    use super::*;

    fn id(number: u64) -> TxnId {
        TxnId { coordinator: NodeId(0), epoch: 7, number }
    }

    fn stamp() -> Option<Stamp> {
        Some(Stamp { client: ClientId(3), sequence: 300, answered_below: 299 })
    }

    fn table() -> SessionTable {
        let session =
            SessionState { client: ClientId(3), answered_below: 5, committed: vec![5, 7, 1 << 40] };
        SessionTable { next_client: 4, sessions: vec![session] }
    }

    fn a_prepared() -> Prepared {
        Prepared {
            txn: id(9),
            participants: [NodeId(1), NodeId(2)].into(),
            writes: vec![
                Write::Put(Bytes::from_static(b"k"), Bytes::from_static(b"v")),
                Write::Delete(Bytes::from_static(b"")),
            ],
            checked: vec![Bytes::from_static(b"c")],
            finished_below: id(4),
        }
    }

    fn a_checkpoint() -> ParticipantCheckpoint {
        ParticipantCheckpoint {
            incarnation: 2,
            prepared: vec![a_prepared()],
            decided: vec![(id(1), Decision::Commit(CommitNumber(1 << 40)))],
            coordinators: vec![CoordinatorProgress {
                finished_below: id(1),
                applied: CommitNumber(300),
            }],
            sessions: table(),
        }
    }

    fn coordinator_records() -> Vec<CoordinatorRecord> {
        vec![
            CoordinatorRecord::Started { epoch: 7 },
            CoordinatorRecord::SessionOpened { client: ClientId(3) },
            CoordinatorRecord::Committed {
                txn: id(1),
                number: CommitNumber(300),
                stamp: stamp(),
                participants: [NodeId(1)].into(),
            },
            CoordinatorRecord::Ended { txn: id(u64::MAX) },
            CoordinatorRecord::Checkpoint(CoordinatorCheckpoint {
                epoch: 7,
                sessions: table(),
                commits: CommitNumber(300),
                committed: vec![CommittedState {
                    txn: id(1),
                    number: CommitNumber(299),
                    participants: [NodeId(1), NodeId(2)].into(),
                }],
            }),
        ]
    }

    fn participant_records() -> Vec<ParticipantRecord> {
        vec![
            ParticipantRecord::Started { incarnation: 2 },
            ParticipantRecord::Prepared(a_prepared()),
            ParticipantRecord::Decided {
                txn: id(1),
                decision: Decision::Commit(CommitNumber(300)),
            },
            ParticipantRecord::Decided { txn: id(2), decision: Decision::Abort },
            ParticipantRecord::CommittedAlone {
                txn: id(1),
                stamp: None,
                writes: a_prepared().writes,
            },
            ParticipantRecord::Checkpoint(a_checkpoint()),
            ParticipantRecord::Learned {
                finished_below: id(3),
                commits: vec![Commit {
                    number: CommitNumber(300),
                    txn: id(5),
                    transaction: Arc::new(Transaction {
                        preconditions: Vec::new(),
                        writes: a_prepared().writes,
                    }),
                }],
            },
            ParticipantRecord::Installed { mark: 1 << 33, checkpoint: a_checkpoint() },
            ParticipantRecord::Outside { life: 3 },
            ParticipantRecord::Joined { life: 3, from: id(8), serve_from: CommitNumber(300) },
        ]
    }

    fn survives<R: StoredRecord + PartialEq + std::fmt::Debug>(records: Vec<R>) {
        for record in records {
            let mut payload = Vec::new();
            let kind = record.encode(&mut payload);
            let payload = Bytes::from(payload);
            assert_eq!(R::decode(kind, &payload).as_ref(), Ok(&record));
            for cut in 0..payload.len() {
                let cut = payload.slice(..cut);
                assert!(R::decode(kind, &cut).is_err(), "{record:?} cut to {cut:?}");
            }
        }
    }

    #[test]
    fn records_survive_and_cut_ones_are_refused() {
        survives(coordinator_records());
        survives(participant_records());
    }

    #[test]
    fn only_checkpoints_begin_a_recovery() {
        for record in coordinator_records() {
            let kind = record.encode(&mut Vec::new());
            let checkpoint = matches!(record, CoordinatorRecord::Checkpoint(_));
            assert_eq!(CoordinatorRecord::is_checkpoint(kind), checkpoint);
        }
        for record in participant_records() {
            let kind = record.encode(&mut Vec::new());
            let checkpoint = matches!(
                record,
                ParticipantRecord::Checkpoint(_) | ParticipantRecord::Installed { .. }
            );
            assert_eq!(ParticipantRecord::is_checkpoint(kind), checkpoint);
        }
    }
}
