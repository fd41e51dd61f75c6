//! What a coordinator keeps.

use std::time::Duration;

use bytes::Bytes;
use kvorum_replication::two_phase::CommitMode;
use kvorum_replication::two_phase::message::{CommitNumber, TxnId};
use kvorum_replication::two_phase::record::{
    CommittedState, CoordinatorCheckpoint, CoordinatorRecord, Member, Missed, View,
};
use kvorum_replication::{ClientId, NodeId};
use kvorum_storage::codec::{Malformed, put_varint};

use super::super::fields::{Fields, put_list, put_nodes, put_stamp};
use super::{StoredRecord, put_sessions, put_txn, replicas, sessions, txn};

const COORDINATOR_STARTED: u8 = 16;
const SESSION_OPENED: u8 = 17;
const COMMITTED: u8 = 18;
const ENDED: u8 = 19;
/// Without what parallel commit needs, as all were once; read and not written.
pub(super) const OLD_COORDINATOR_CHECKPOINT: u8 = 20;
const COORDINATOR_STARTED_PARALLEL: u8 = 21;
const ABORTED: u8 = 22;
const COORDINATOR_CHECKPOINT: u8 = 23;
/// Without the replicas, when they could not change; read and not written.
pub(super) const OLD_COORDINATOR_VIEW: u8 = 24;
const COORDINATOR_VIEW: u8 = 25;

impl StoredRecord for CoordinatorRecord {
    fn encode(&self, payload: &mut Vec<u8>) -> u8 {
        match self {
            Self::Started { epoch, commit } => {
                put_varint(payload, *epoch);
                match commit {
                    CommitMode::AfterDecision => COORDINATOR_STARTED,
                    CommitMode::Parallel => COORDINATOR_STARTED_PARALLEL,
                }
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
            Self::Aborted { txn, finished_below } => {
                put_txn(payload, txn);
                put_txn(payload, finished_below);
                ABORTED
            }
            Self::Ended { txn } => {
                put_txn(payload, txn);
                ENDED
            }
            Self::View(view) => {
                put_view(payload, view);
                COORDINATOR_VIEW
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
                put_varint(payload, checkpoint.parallel_epoch);
                put_txn(payload, &checkpoint.finished_below);
                put_list(payload, &checkpoint.aborted, put_txn);
                COORDINATOR_CHECKPOINT
            }
        }
    }

    fn decode(kind: u8, payload: &Bytes) -> Result<Self, Malformed> {
        let mut fields = Fields::new(payload);
        let record = match kind {
            COORDINATOR_STARTED => {
                Self::Started { epoch: fields.number()?, commit: CommitMode::AfterDecision }
            }
            COORDINATOR_STARTED_PARALLEL => {
                Self::Started { epoch: fields.number()?, commit: CommitMode::Parallel }
            }
            SESSION_OPENED => Self::SessionOpened { client: ClientId(fields.number()?) },
            COMMITTED => Self::Committed {
                txn: txn(&mut fields)?,
                number: CommitNumber(fields.number()?),
                stamp: fields.stamp()?,
                participants: fields.nodes()?,
            },
            ABORTED => Self::Aborted { txn: txn(&mut fields)?, finished_below: txn(&mut fields)? },
            ENDED => Self::Ended { txn: txn(&mut fields)? },
            OLD_COORDINATOR_VIEW | COORDINATOR_VIEW => {
                Self::View(Box::new(view(&mut fields, kind == OLD_COORDINATOR_VIEW)?))
            }
            OLD_COORDINATOR_CHECKPOINT | COORDINATOR_CHECKPOINT => {
                let is_old = kind == OLD_COORDINATOR_CHECKPOINT;
                Self::Checkpoint(Box::new(coordinator_checkpoint(&mut fields, is_old)?))
            }
            _ => return Err(Malformed("not a kind of record that a coordinator keeps")),
        };
        fields.finish()?;
        Ok(record)
    }

    fn is_checkpoint(kind: u8) -> bool {
        matches!(kind, OLD_COORDINATOR_CHECKPOINT | COORDINATOR_CHECKPOINT)
    }
}

/// An old one was written when nothing was committed in parallel.
fn coordinator_checkpoint(
    fields: &mut Fields<'_>,
    is_old: bool,
) -> Result<CoordinatorCheckpoint, Malformed> {
    let (epoch, sessions) = (fields.number()?, sessions(fields)?);
    let commits = CommitNumber(fields.number()?);
    let committed = fields.list(|fields| {
        Ok(CommittedState {
            txn: txn(fields)?,
            number: CommitNumber(fields.number()?),
            participants: fields.nodes()?,
        })
    })?;
    let (parallel_epoch, finished_below, aborted) = match is_old {
        true => (0, TxnId::FIRST, Vec::new()),
        false => (fields.number()?, txn(fields)?, fields.list(txn)?),
    };
    Ok(CoordinatorCheckpoint {
        epoch,
        parallel_epoch,
        finished_below,
        sessions,
        commits,
        committed,
        aborted,
    })
}

fn put_view(payload: &mut Vec<u8>, view: &View) {
    put_varint(payload, view.number);
    put_list(payload, &view.members, |payload, member| {
        put_varint(payload, member.replica.0.into());
        put_txn(payload, &member.from);
    });
    put_varint(payload, view.min_replicas as u64);
    put_varint(payload, u64::try_from(view.lease.as_nanos()).unwrap_or(u64::MAX));
    payload.push(u8::from(view.is_founded));
    put_list(payload, &view.missed, |payload, missed| {
        put_varint(payload, missed.replica.0.into());
        put_varint(payload, missed.epoch);
        put_varint(payload, missed.commits.0);
    });
    put_nodes(payload, &view.replicas);
    put_varint(payload, view.highest.0.into());
}

fn view(fields: &mut Fields<'_>, is_old: bool) -> Result<View, Malformed> {
    let mut view = View {
        replicas: Vec::new(),
        highest: NodeId::COORDINATOR,
        number: fields.number()?,
        members: fields
            .list(|fields| Ok(Member { replica: fields.node()?, from: txn(fields)? }))?,
        min_replicas: replicas(fields)?,
        lease: Duration::from_nanos(fields.number()?),
        is_founded: match fields.tag()? {
            0 => false,
            1 => true,
            _ => return Err(Malformed("neither founded nor not")),
        },
        missed: fields.list(|fields| {
            Ok(Missed {
                replica: fields.node()?,
                epoch: fields.number()?,
                commits: CommitNumber(fields.number()?),
            })
        })?,
    };
    if !is_old {
        view.replicas = fields.nodes()?.to_vec();
        view.highest = fields.node()?;
    }
    Ok(view)
}
