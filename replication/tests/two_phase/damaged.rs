//! A log that contradicts itself: no run of this program writes one, so nothing that rests on it may
//! be said.

use std::sync::Arc;

use bytes::Bytes;
use kvorum_replication::two_phase::message::{Message, Prepare, TxnId};
use kvorum_replication::two_phase::record::{ParticipantRecord, Prepared};
use kvorum_replication::two_phase::{Participant, ParticipantOptions};
use kvorum_replication::{
    Core, Effect, Effects, Failure, Input, NodeId, Operation, Outcome, Position, Query, Request,
    RequestId, Time, Transaction, Write,
};

fn txn(number: u64) -> TxnId {
    TxnId { coordinator: NodeId::COORDINATOR, epoch: 1, number }
}

fn write() -> Write {
    Write::Put(Bytes::from_static(b"k"), Bytes::from_static(b"v"))
}

fn prepared(number: u64) -> ParticipantRecord {
    ParticipantRecord::Prepared(Box::new(Prepared {
        txn: txn(number),
        participants: [NodeId(1), NodeId(2)].into(),
        writes: vec![write()].into(),
        checked: Vec::new(),
        finished_below: txn(1),
        parallel: None,
    }))
}

#[test]
fn a_replica_whose_log_contradicts_itself_neither_votes_nor_answers() {
    for second in [1, 2] {
        let mut core = Participant::new(ParticipantOptions::default());
        let mut effects = Effects::new();
        core.recover(Position(1), prepared(1), &mut effects);
        core.recover(Position(2), prepared(second), &mut effects);
        core.step(Time(0), Input::Started, &mut effects);
        let prepare = Prepare {
            txn: txn(3),
            participants: [NodeId(1), NodeId(2)].into(),
            transaction: Transaction { preconditions: vec![], writes: vec![write()] }.into(),
            one_phase: None,
            parallel: None,
            finished_below: txn(3),
        };
        let message = Message::Prepare(Arc::new(prepare));
        core.step(Time(1), Input::Message { from: NodeId::COORDINATOR, message }, &mut effects);
        core.step(Time(2), Input::Checkpoint, &mut effects);
        assert!(effects.is_empty(), "it says nothing: {effects:?}");

        let operation = Operation::Read(Query::Get(Bytes::from_static(b"k")));
        let request = Request { id: RequestId(1), deadline: Time::NEVER, operation };
        core.step(Time(3), Input::Request(request), &mut effects);
        let said: Vec<_> = effects.drain().collect();
        let [Effect::Reply { outcome: Outcome::Failed(Failure::Storage { reason }), .. }] =
            &said[..]
        else {
            panic!("it says why: {said:?}");
        };
        assert!(reason.contains("twice"), "{reason}");
    }
}
