//! The records of two-phase commit: coordinators from kind 16, participants from kind 32. Those that
//! parallel commit added have kinds of their own, and what it added to a record has a new kind of
//! that record: logs from before it are read as they are.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kvorum_replication::two_phase::CommitMode;
use kvorum_replication::two_phase::message::{Commit, CommitNumber, Decision, Parallel, TxnId};
use kvorum_replication::two_phase::record::{
    CommittedState, CoordinatorCheckpoint, CoordinatorProgress, CoordinatorRecord, DecidedState,
    Member, Missed, ParticipantCheckpoint, ParticipantRecord, Pledge, Prepared, SessionState,
    SessionTable, View,
};
use kvorum_replication::{ClientId, NodeId, Transaction};
use kvorum_storage::codec::{Malformed, put_slice, put_varint};

use super::StoredRecord;
use super::fields::{Fields, put_list, put_nodes, put_stamp, put_write};

const COORDINATOR_STARTED: u8 = 16;
const SESSION_OPENED: u8 = 17;
const COMMITTED: u8 = 18;
const ENDED: u8 = 19;
/// Without what parallel commit needs, as all were once; read and not written.
const OLD_COORDINATOR_CHECKPOINT: u8 = 20;
const COORDINATOR_STARTED_PARALLEL: u8 = 21;
const ABORTED: u8 = 22;
const COORDINATOR_CHECKPOINT: u8 = 23;
/// Without the replicas, when they could not change; read and not written.
const OLD_COORDINATOR_VIEW: u8 = 24;
const COORDINATOR_VIEW: u8 = 25;

const PARTICIPANT_STARTED: u8 = 32;
const PREPARED: u8 = 33;
const DECIDED: u8 = 34;
const COMMITTED_ALONE: u8 = 35;
/// As [`OLD_COORDINATOR_CHECKPOINT`].
const OLD_PARTICIPANT_CHECKPOINT: u8 = 36;
const PREPARED_PARALLEL: u8 = 37;
const PROMISED: u8 = 38;
const PARTICIPANT_CHECKPOINT: u8 = 39;
const PARTICIPANT_VIEW: u8 = 44;
const LEARNED: u8 = 40;
const INSTALLED: u8 = 41;
const OUTSIDE: u8 = 42;
const JOINED: u8 = 43;

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

fn replicas(fields: &mut Fields<'_>) -> Result<usize, Malformed> {
    usize::try_from(fields.number()?).map_err(|_| Malformed("more replicas than there can be"))
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

/// As [`coordinator_checkpoint`].
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
    use kvorum_replication::{Stamp, Write};

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
            ]
            .into(),
            checked: vec![Bytes::from_static(b"c")],
            finished_below: id(4),
            parallel: None,
        }
    }

    fn a_parallel() -> Prepared {
        Prepared { txn: id(10), parallel: Some(Parallel { stamp: stamp() }), ..a_prepared() }
    }

    fn a_pledge() -> Pledge {
        Pledge { participants: [NodeId(1), NodeId(2)].into(), stamp: stamp() }
    }

    fn a_commit(number: u64, pledge: Option<Pledge>) -> Commit {
        let transaction = a_prepared().writes.into_transaction();
        Commit { number: CommitNumber(number), txn: id(5), pledge, transaction }
    }

    fn a_checkpoint() -> ParticipantCheckpoint {
        ParticipantCheckpoint {
            incarnation: 2,
            promised: 300,
            prepared: vec![a_prepared(), a_parallel()],
            decided: vec![
                DecidedState {
                    txn: id(1),
                    decision: Decision::Commit(CommitNumber(1 << 40)),
                    pledge: Some(a_pledge()),
                },
                DecidedState { txn: id(2), decision: Decision::Abort, pledge: None },
            ],
            coordinators: vec![CoordinatorProgress {
                finished_below: id(1),
                applied: CommitNumber(300),
            }],
            sessions: table(),
        }
    }

    fn coordinator_records() -> Vec<CoordinatorRecord> {
        vec![
            CoordinatorRecord::Started { epoch: 7, commit: CommitMode::AfterDecision },
            CoordinatorRecord::Started { epoch: 7, commit: CommitMode::Parallel },
            CoordinatorRecord::SessionOpened { client: ClientId(3) },
            CoordinatorRecord::Committed {
                txn: id(1),
                number: CommitNumber(300),
                stamp: stamp(),
                participants: [NodeId(1)].into(),
            },
            CoordinatorRecord::Aborted { txn: id(2), finished_below: id(1) },
            CoordinatorRecord::Ended { txn: id(u64::MAX) },
            CoordinatorRecord::View(Box::new(View {
                number: 300,
                replicas: vec![NodeId(1), NodeId(2), NodeId(3)],
                highest: NodeId(300),
                members: vec![
                    Member { replica: NodeId(1), from: TxnId::FIRST },
                    Member { replica: NodeId(3), from: id(9) },
                ],
                min_replicas: 2,
                lease: Duration::from_millis(375),
                is_founded: true,
                missed: vec![Missed {
                    replica: NodeId(2),
                    epoch: 7,
                    commits: CommitNumber(1 << 20),
                }],
            })),
            CoordinatorRecord::Checkpoint(Box::new(CoordinatorCheckpoint {
                epoch: 7,
                parallel_epoch: 6,
                finished_below: id(1),
                aborted: vec![id(2), id(1 << 40)],
                sessions: table(),
                commits: CommitNumber(300),
                committed: vec![CommittedState {
                    txn: id(1),
                    number: CommitNumber(299),
                    participants: [NodeId(1), NodeId(2)].into(),
                }],
            })),
        ]
    }

    fn participant_records() -> Vec<ParticipantRecord> {
        vec![
            ParticipantRecord::Started { incarnation: 2 },
            ParticipantRecord::Prepared(Box::new(a_prepared())),
            ParticipantRecord::Prepared(Box::new(a_parallel())),
            ParticipantRecord::Promised { epoch: 300 },
            ParticipantRecord::View { number: 300, others: 1 },
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
            ParticipantRecord::Checkpoint(Box::new(a_checkpoint())),
            ParticipantRecord::Learned {
                finished_below: id(3),
                commits: vec![a_commit(300, None), a_commit(301, Some(a_pledge()))],
            },
            ParticipantRecord::Installed { mark: 1 << 33, checkpoint: Box::new(a_checkpoint()) },
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

    /// A checkpoint from before parallel commit has no more than this.
    #[test]
    fn checkpoints_of_before_are_read() {
        let mut payload = Vec::new();
        put_varint(&mut payload, 7);
        put_sessions(&mut payload, &table());
        put_varint(&mut payload, 300);
        put_list(&mut payload, &[id(1)], |payload, txn| {
            put_txn(payload, txn);
            put_varint(payload, 299);
            put_nodes(payload, &[NodeId(1)]);
        });
        let decoded = CoordinatorRecord::decode(OLD_COORDINATOR_CHECKPOINT, &payload.into());
        let committed = vec![CommittedState {
            txn: id(1),
            number: CommitNumber(299),
            participants: [NodeId(1)].into(),
        }];
        let expected = CoordinatorRecord::Checkpoint(Box::new(CoordinatorCheckpoint {
            epoch: 7,
            parallel_epoch: 0,
            finished_below: TxnId::FIRST,
            sessions: table(),
            commits: CommitNumber(300),
            committed,
            aborted: Vec::new(),
        }));
        assert_eq!(decoded, Ok(expected));

        let mut payload = Vec::new();
        put_varint(&mut payload, 2);
        put_list(&mut payload, &[a_prepared()], put_prepared);
        put_list(&mut payload, &[id(2)], |payload, txn| {
            put_txn(payload, txn);
            put_decision(payload, Decision::Abort);
        });
        put_list(&mut payload, &[id(1)], |payload, below| {
            put_txn(payload, below);
            put_varint(payload, 300);
        });
        put_sessions(&mut payload, &table());
        let decoded = ParticipantRecord::decode(OLD_PARTICIPANT_CHECKPOINT, &payload.into());
        let expected = ParticipantRecord::Checkpoint(Box::new(ParticipantCheckpoint {
            incarnation: 2,
            promised: 0,
            prepared: vec![a_prepared()],
            decided: vec![DecidedState { txn: id(2), decision: Decision::Abort, pledge: None }],
            coordinators: vec![CoordinatorProgress {
                finished_below: id(1),
                applied: CommitNumber(300),
            }],
            sessions: table(),
        }));
        assert_eq!(decoded, Ok(expected));
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
