//! Records survive, and so do those of before.

use std::time::Duration;

use bytes::Bytes;
use kvorum_replication::two_phase::CommitMode;
use kvorum_replication::two_phase::message::{Commit, CommitNumber, Decision, Parallel, TxnId};
use kvorum_replication::two_phase::record::{
    CommittedState, CoordinatorCheckpoint, CoordinatorProgress, CoordinatorRecord, DecidedState,
    Member, Missed, ParticipantCheckpoint, ParticipantRecord, Pledge, Prepared, SessionState,
    SessionTable, View,
};
use kvorum_replication::{ClientId, NodeId, Stamp, Write};
use kvorum_storage::codec::put_varint;

use super::super::fields::{put_list, put_nodes};
use super::coordinator::{OLD_COORDINATOR_CHECKPOINT, OLD_COORDINATOR_VIEW};
use super::participant::{OLD_PARTICIPANT_CHECKPOINT, put_decision, put_prepared};
use super::{StoredRecord, put_sessions, put_txn};

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
            missed: vec![Missed { replica: NodeId(2), epoch: 7, commits: CommitNumber(1 << 20) }],
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
        ParticipantRecord::Decided { txn: id(1), decision: Decision::Commit(CommitNumber(300)) },
        ParticipantRecord::Decided { txn: id(2), decision: Decision::Abort },
        ParticipantRecord::CommittedAlone { txn: id(1), stamp: None, writes: a_prepared().writes },
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

/// A view from before replicas could change names none.
#[test]
fn views_of_before_are_read() {
    let mut payload = Vec::new();
    put_varint(&mut payload, 300);
    put_list(&mut payload, &[id(9)], |payload, from| {
        put_varint(payload, 3);
        put_txn(payload, from);
    });
    put_varint(&mut payload, 2);
    put_varint(&mut payload, 375_000_000);
    payload.push(1);
    put_list(&mut payload, &[7], |payload, epoch| {
        put_varint(payload, 2);
        put_varint(payload, *epoch);
        put_varint(payload, 300);
    });
    let decoded = CoordinatorRecord::decode(OLD_COORDINATOR_VIEW, &payload.into());
    let expected = CoordinatorRecord::View(Box::new(View {
        number: 300,
        replicas: Vec::new(),
        highest: NodeId::COORDINATOR,
        members: vec![Member { replica: NodeId(3), from: id(9) }],
        min_replicas: 2,
        lease: Duration::from_millis(375),
        is_founded: true,
        missed: vec![Missed { replica: NodeId(2), epoch: 7, commits: CommitNumber(300) }],
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
