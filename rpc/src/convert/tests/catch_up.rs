//! What replicas of two-phase commit say when one has missed something.

use std::sync::Arc;

use kvorum_replication::two_phase::message::{Commit, CommitNumber, Message, SnapshotPiece};
use kvorum_replication::two_phase::record::{AppliedState, Pledge, Replicated};
use kvorum_replication::{NodeId, SnapshotId, Transaction};
use proptest::collection::vec;
use proptest::prelude::*;

use super::{key, one_phase, txn, value, write};

fn number() -> impl Strategy<Value = CommitNumber> {
    any::<u64>().prop_map(CommitNumber)
}

fn pledge() -> impl Strategy<Value = Option<Pledge>> {
    let participants = vec(any::<u32>().prop_map(NodeId), 0..4);
    let pledge = (participants, one_phase()).prop_map(|(participants, of)| Pledge {
        participants: participants.into(),
        stamp: of.stamp,
    });
    proptest::option::of(pledge)
}

fn commit() -> impl Strategy<Value = Commit> {
    (number(), txn(), pledge(), vec(write(), 0..4)).prop_map(|(number, txn, pledge, writes)| {
        let transaction = Arc::new(Transaction { preconditions: Vec::new(), writes });
        Commit { number, txn, pledge, transaction }
    })
}

fn piece() -> impl Strategy<Value = SnapshotPiece> {
    let open = (txn(), number(), pledge());
    let open = open.prop_map(|(txn, number, pledge)| AppliedState { txn, number, pledge });
    let replicated = (number(), txn(), vec(open, 0..4), any::<u64>()).prop_map(
        |(applied, finished_below, committed, epoch)| {
            Arc::new(Replicated { applied, finished_below, committed, epoch })
        },
    );
    (any::<u64>(), value(), vec((key(), value()), 0..4), proptest::option::of(replicated)).prop_map(
        |(snapshot, from, rows, last)| {
            let snapshot = SnapshotId(snapshot);
            SnapshotPiece { snapshot, from, rows, last }
        },
    )
}

pub(super) fn message() -> impl Strategy<Value = Message> {
    let snapshot = || any::<u64>().prop_map(SnapshotId);
    prop_oneof![
        number().prop_map(|from| Message::FetchCommits { from }),
        (number(), vec(commit(), 0..4), number(), txn(), any::<u64>()).prop_map(
            |(from, commits, applied, finished_below, epoch)| {
                Message::Commits { from, commits, applied, finished_below, epoch }
            }
        ),
        number().prop_map(|first| Message::Truncated { first }),
        (proptest::option::of(snapshot()), value())
            .prop_map(|(snapshot, from)| Message::FetchSnapshot { snapshot, from }),
        piece().prop_map(Message::SnapshotPiece),
        snapshot().prop_map(|snapshot| Message::SnapshotGone { snapshot }),
        (any::<u64>(), number(), any::<u64>())
            .prop_map(|(life, applied, promised)| { Message::Outside { life, applied, promised } }),
        (number(), any::<bool>()).prop_map(|(to, anew)| Message::CatchUp { to, anew }),
        (any::<u64>(), txn(), number(), any::<u64>(), 0_usize..64).prop_map(
            |(life, from, serve_from, view, others)| {
                Message::Join { life, from, serve_from, view, others }
            }
        ),
    ]
}
