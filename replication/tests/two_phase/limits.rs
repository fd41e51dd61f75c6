//! What limits count.

use kvorum_replication::two_phase::message::{CommitNumber, TxnId};
use kvorum_replication::two_phase::record::CoordinatorRecord;
use kvorum_replication::two_phase::{CommitMode, Coordinator, CoordinatorOptions};
use kvorum_replication::{Core, Effects, NodeId, Position};

/// That a transaction is over need not be durable when the next one begins: after a loss of power
/// both are found, as were four where two may be begun (seed 5145 of the simulator).
#[test]
fn what_a_start_finds_does_not_count_as_begun() {
    let replicas = vec![NodeId(1), NodeId(2)];
    let options =
        CoordinatorOptions { replicas, in_flight_max: 1, ..CoordinatorOptions::default() };
    let mut core = Coordinator::new(options);
    let started = CoordinatorRecord::Started { epoch: 1, commit: CommitMode::Parallel };
    let committed = |number| CoordinatorRecord::Committed {
        txn: TxnId { coordinator: NodeId::COORDINATOR, epoch: 1, number },
        number: CommitNumber(number),
        stamp: None,
        participants: [NodeId(1), NodeId(2)].into(),
    };
    let restarted = CoordinatorRecord::Started { epoch: 2, commit: CommitMode::Parallel };
    let mut effects = Effects::new();
    for (at, record) in (1..).zip([started, committed(1), committed(2), restarted]) {
        core.recover(Position(at), record, &mut effects);
    }
    let audit = core.audit();
    assert_eq!(audit.open.len(), 2);
    let full: Vec<_> = audit.tables.iter().filter(|table| table.len > table.max).collect();
    assert!(full.is_empty(), "{full:?}");
}
