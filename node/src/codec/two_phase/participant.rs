//! What a participant keeps.

use std::sync::Arc;

use bytes::Bytes;
use kvorum_replication::Transaction;
use kvorum_replication::two_phase::message::{Commit, CommitNumber, Decision, Parallel};
use kvorum_replication::two_phase::record::{
    CoordinatorProgress, DecidedState, ParticipantCheckpoint, ParticipantRecord, Pledge, Prepared,
};
use kvorum_storage::codec::{Malformed, put_slice, put_varint};

use super::super::fields::{Fields, put_list, put_nodes, put_stamp, put_write};
use super::{StoredRecord, put_sessions, put_txn, replicas, sessions, txn};

const PARTICIPANT_STARTED: u8 = 32;
const PREPARED: u8 = 33;
const DECIDED: u8 = 34;
const COMMITTED_ALONE: u8 = 35;
/// Without what parallel commit needs, as all were once; read and not written.
pub(super) const OLD_PARTICIPANT_CHECKPOINT: u8 = 36;
const PREPARED_PARALLEL: u8 = 37;
const PROMISED: u8 = 38;
const PARTICIPANT_CHECKPOINT: u8 = 39;
const PARTICIPANT_VIEW: u8 = 44;
const LEARNED: u8 = 40;
const INSTALLED: u8 = 41;
const OUTSIDE: u8 = 42;
const JOINED: u8 = 43;

impl StoredRecord for ParticipantRecord {
    fn encode(&self, payload: &mut Vec<u8>) -> u8 {
        match self {
            Self::Started { incarnation } => {
                put_varint(payload, *incarnation);
                PARTICIPANT_STARTED
            }
            Self::Prepared(prepared) => {
                put_prepared(payload, prepared);
                match prepared.parallel {
                    None => PREPARED,
                    Some(Parallel { stamp }) => {
                        put_stamp(payload, stamp);
                        PREPARED_PARALLEL
                    }
                }
            }
            Self::Promised { epoch } => {
                put_varint(payload, *epoch);
                PROMISED
            }
            Self::Decided { txn, decision } => {
                put_txn(payload, txn);
                put_decision(payload, *decision);
                DECIDED
            }
            Self::View { number, others } => {
                put_varint(payload, *number);
                put_varint(payload, *others as u64);
                PARTICIPANT_VIEW
            }
            Self::CommittedAlone { txn, stamp, writes } => {
                put_txn(payload, txn);
                put_stamp(payload, *stamp);
                put_list(payload, writes, put_write);
                COMMITTED_ALONE
            }
            Self::Checkpoint(checkpoint) => {
                put_participant_checkpoint(payload, checkpoint);
                PARTICIPANT_CHECKPOINT
            }
            Self::Learned { finished_below, commits } => {
                put_txn(payload, finished_below);
                put_list(payload, commits, |payload, commit| {
                    put_varint(payload, commit.number.0);
                    put_txn(payload, &commit.txn);
                    put_pledge(payload, commit.pledge.as_ref());
                    put_list(payload, &commit.transaction.writes, put_write);
                });
                LEARNED
            }
            Self::Installed { mark, checkpoint } => {
                put_varint(payload, *mark);
                put_participant_checkpoint(payload, checkpoint);
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
            PREPARED => Self::Prepared(Box::new(prepared(&mut fields)?)),
            PREPARED_PARALLEL => {
                let prepared = prepared(&mut fields)?;
                let parallel = Some(Parallel { stamp: fields.stamp()? });
                Self::Prepared(Box::new(Prepared { parallel, ..prepared }))
            }
            PROMISED => Self::Promised { epoch: fields.number()? },
            PARTICIPANT_VIEW => {
                Self::View { number: fields.number()?, others: replicas(&mut fields)? }
            }
            DECIDED => Self::Decided { txn: txn(&mut fields)?, decision: decision(&mut fields)? },
            COMMITTED_ALONE => Self::CommittedAlone {
                txn: txn(&mut fields)?,
                stamp: fields.stamp()?,
                writes: fields.list(Fields::write)?.into(),
            },
            OLD_PARTICIPANT_CHECKPOINT | PARTICIPANT_CHECKPOINT => {
                let is_old = kind == OLD_PARTICIPANT_CHECKPOINT;
                Self::Checkpoint(Box::new(participant_checkpoint(&mut fields, is_old)?))
            }
            LEARNED => {
                Self::Learned { finished_below: txn(&mut fields)?, commits: fields.list(commit)? }
            }
            INSTALLED => Self::Installed {
                mark: fields.number()?,
                checkpoint: Box::new(participant_checkpoint(&mut fields, false)?),
            },
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
        matches!(kind, OLD_PARTICIPANT_CHECKPOINT | PARTICIPANT_CHECKPOINT | INSTALLED)
    }
}

/// The mark under which the staged rows are installed that a record stands for, if it is such a one.
pub(crate) fn installs(kind: u8, payload: &Bytes) -> Option<u64> {
    if kind != INSTALLED {
        return None;
    }
    Fields::new(payload).number().ok()
}

fn put_participant_checkpoint(payload: &mut Vec<u8>, checkpoint: &ParticipantCheckpoint) {
    put_varint(payload, checkpoint.incarnation);
    put_varint(payload, checkpoint.promised);
    put_list(payload, &checkpoint.prepared, |payload, prepared| {
        put_prepared(payload, prepared);
        put_parallel(payload, prepared.parallel);
    });
    put_list(payload, &checkpoint.decided, |payload, decided| {
        put_txn(payload, &decided.txn);
        put_decision(payload, decided.decision);
        put_pledge(payload, decided.pledge.as_ref());
    });
    put_list(payload, &checkpoint.coordinators, |payload, progress| {
        put_txn(payload, &progress.finished_below);
        put_varint(payload, progress.applied.0);
    });
    put_sessions(payload, &checkpoint.sessions);
}

/// An old one was written when nothing was committed in parallel.
fn participant_checkpoint(
    fields: &mut Fields<'_>,
    is_old: bool,
) -> Result<ParticipantCheckpoint, Malformed> {
    let incarnation = fields.number()?;
    let promised = if is_old { 0 } else { fields.number()? };
    let prepared = fields.list(|fields| {
        let prepared = prepared(fields)?;
        let parallel = if is_old { None } else { parallel(fields)? };
        Ok(Prepared { parallel, ..prepared })
    })?;
    let decided = fields.list(|fields| {
        Ok(DecidedState {
            txn: txn(fields)?,
            decision: decision(fields)?,
            pledge: if is_old { None } else { pledge(fields)? },
        })
    })?;
    let coordinators = fields.list(|fields| {
        Ok(CoordinatorProgress {
            finished_below: txn(fields)?,
            applied: CommitNumber(fields.number()?),
        })
    })?;
    let sessions = sessions(fields)?;
    Ok(ParticipantCheckpoint { incarnation, promised, prepared, decided, coordinators, sessions })
}

fn commit(fields: &mut Fields<'_>) -> Result<Commit, Malformed> {
    let (number, txn) = (CommitNumber(fields.number()?), txn(fields)?);
    let pledge = pledge(fields)?;
    let writes = fields.list(Fields::write)?;
    let transaction = Arc::new(Transaction { preconditions: Vec::new(), writes });
    Ok(Commit { number, txn, pledge, transaction })
}

pub(super) fn put_decision(payload: &mut Vec<u8>, decision: Decision) {
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

pub(super) fn put_prepared(payload: &mut Vec<u8>, prepared: &Prepared) {
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
        writes: fields.list(Fields::write)?.into(),
        checked: fields.list(Fields::slice)?,
        finished_below: txn(fields)?,
        parallel: None,
    })
}

fn put_parallel(payload: &mut Vec<u8>, parallel: Option<Parallel>) {
    match parallel {
        None => payload.push(0),
        Some(Parallel { stamp }) => {
            payload.push(1);
            put_stamp(payload, stamp);
        }
    }
}

fn parallel(fields: &mut Fields<'_>) -> Result<Option<Parallel>, Malformed> {
    match fields.tag()? {
        0 => Ok(None),
        1 => Ok(Some(Parallel { stamp: fields.stamp()? })),
        _ => Err(Malformed("an unknown way to commit")),
    }
}

fn put_pledge(payload: &mut Vec<u8>, pledge: Option<&Pledge>) {
    match pledge {
        None => payload.push(0),
        Some(Pledge { participants, stamp }) => {
            payload.push(1);
            put_nodes(payload, participants);
            put_stamp(payload, *stamp);
        }
    }
}

fn pledge(fields: &mut Fields<'_>) -> Result<Option<Pledge>, Malformed> {
    match fields.tag()? {
        0 => Ok(None),
        1 => Ok(Some(Pledge { participants: fields.nodes()?, stamp: fields.stamp()? })),
        _ => Err(Malformed("an unknown kind of promise")),
    }
}
