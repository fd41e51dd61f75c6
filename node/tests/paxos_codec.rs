//! Records of Multi-Paxos survive the way to bytes and back, and bytes that are none are refused.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use bytes::Bytes;
use kvorum_node::StoredRecord;
use kvorum_replication::paxos::message::{Ballot, Batch, Command, Member, Slot};
use kvorum_replication::paxos::record::{
    Checkpoint, Record, Refusal, Replicated, SessionState, Settled,
};
use kvorum_replication::{ClientId, NodeId, Precondition, Stamp, Transaction, Write};
use kvorum_storage::codec::put_varint;
use proptest::collection::vec;
use proptest::prelude::*;

const KINDS: std::ops::RangeInclusive<u8> = 48..=55;

fn ballot(round: u64, node: u32) -> Ballot {
    Ballot { round, node: NodeId(node) }
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// One of each kind, with all that it can hold.
fn samples() -> Vec<(Record, &'static str)> {
    let members: Arc<[Member]> =
        [Member { node: NodeId(1), life: 0 }, Member { node: NodeId(2), life: 300 }].into();
    let transaction = Transaction {
        preconditions: vec![
            Precondition::Absent(bytes("a")),
            Precondition::Present(bytes("p")),
            Precondition::Equals(bytes("e"), bytes("v")),
        ],
        writes: vec![Write::Put(bytes("k"), bytes("value")), Write::Delete(bytes("d"))],
    };
    let stamp = Some(Stamp { client: ClientId(3), sequence: 300, answered_below: 299 });
    let put =
        Transaction { preconditions: vec![], writes: vec![Write::Put(bytes("k"), bytes("v"))] };
    let commands = vec![
        Command::OpenSession,
        Command::Transact { stamp, transaction: Arc::new(transaction) },
        Command::Transact { stamp: None, transaction: Arc::new(put) },
        Command::ChangeMembers(members.clone()),
    ];
    let batch = Arc::new(Batch { origin: ballot(4, 2), commands });
    let no_op = Arc::new(Batch { origin: ballot(5, 1), commands: vec![] });
    let session = SessionState {
        client: ClientId(3),
        answered_below: 5,
        settled: vec![
            (5, Settled::Committed),
            (300, Settled::Refused { precondition: 0 }),
            (301, Settled::Refused { precondition: u32::MAX }),
        ],
    };
    let checkpoint = Checkpoint {
        incarnation: 2,
        life: 1,
        promised: ballot(7, 3),
        replicated: Arc::new(Replicated {
            applied: Slot(1000),
            members: vec![(Slot(1), members.clone()), (Slot(1200), members)],
            next_client: 4,
            sessions: vec![session],
        }),
    };
    let state = "02 01 07 03 e807 02 01 02 0100 02ac02 b009 02 0100 02ac02 04 01 03 05 03 0500 \
                 ac0201 ad028080808010";
    vec![
        (Record::Started { incarnation: 2, life: 1 }, "02 01"),
        (Record::Promised { ballot: ballot(300, 2) }, "ac02 02"),
        (
            Record::Accepted { slot: Slot(9), ballot: ballot(4, 2), batch: batch.clone() },
            "09 04 02 00 04 \
             00 \
             01 01 03 ac02 ab02 03 00 0161 01 0170 02 0165 0176 02 01 016b 0576616c7565 00 0164 \
             01 00 00 01 01 016b 0176 \
             02 02 0100 02ac02",
        ),
        (
            Record::Accepted { slot: Slot(10), ballot: ballot(6, 3), batch: no_op.clone() },
            "0a 06 03 01 05 01 00",
        ),
        (Record::Learned { slot: Slot(10), batch: no_op }, "0a 05 01 00"),
        (
            Record::Chosen {
                slot: Slot(300),
                refused: vec![Refusal { slot: Slot(299), index: 3, precondition: 1 }],
            },
            "ac02 01 ab02 03 01",
        ),
        (Record::Forgot { life: 2 }, "02"),
        (Record::Checkpoint(checkpoint.clone()), state),
        (Record::Installed(checkpoint), state),
    ]
}

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn encode(record: &Record) -> (u8, Bytes) {
    let mut payload = Vec::new();
    let kind = record.encode(&mut payload);
    (kind, Bytes::from(payload))
}

/// The layout is kept for ever: a changed one takes a new kind.
#[test]
fn the_bytes_are_these() {
    let mut kinds = Vec::new();
    for (record, expected) in samples() {
        let (kind, payload) = encode(&record);
        assert_eq!(payload, hex(expected), "{record:?}");
        assert_eq!(Record::decode(kind, &Bytes::from(hex(expected))), Ok(record));
        kinds.push(kind);
    }
    kinds.dedup();
    assert!(kinds.into_iter().eq(KINDS), "each record has a kind of its own");
}

#[test]
fn recovery_begins_with_checkpoints_and_installed_snapshots_only() {
    for (record, _) in samples() {
        let (kind, _) = encode(&record);
        let begins = matches!(record, Record::Checkpoint(_) | Record::Installed(_));
        assert_eq!(Record::is_checkpoint(kind), begins, "{record:?}");
    }
}

#[test]
fn cut_records_and_longer_ones_are_refused() {
    for (record, _) in samples() {
        let (kind, payload) = encode(&record);
        for cut in 0..payload.len() {
            let cut = payload.slice(..cut);
            assert!(Record::decode(kind, &cut).is_err(), "{record:?} cut to {cut:?}");
        }
        let longer = Bytes::from([&payload[..], &[0]].concat());
        assert!(Record::decode(kind, &longer).is_err(), "{record:?} with a byte more");
    }
}

/// At every place where a number can stand, one that no length can be.
#[test]
fn huge_lengths_are_refused_before_anything_is_made_for_them() {
    for length in [1 << 20, 1 << 31, 1 << 40, 1 << 60, u64::MAX] {
        let mut huge = Vec::new();
        put_varint(&mut huge, length);
        for (record, _) in samples() {
            let (kind, payload) = encode(&record);
            for at in 0..=payload.len() {
                let lie = Bytes::from([&payload[..at], &huge, &payload[at..]].concat());
                // It may be read as another record, whose numbers are big; it makes nothing big.
                let _ = Record::decode(kind, &lie);
                let end = Bytes::from([&payload[..at], &huge].concat());
                let _ = Record::decode(kind, &end);
            }
        }
        let commands = Bytes::from([&[9, 4, 2, 0][..], &huge].concat());
        assert!(Record::decode(50, &commands).is_err(), "{length} commands in no bytes");
        let key = Bytes::from([&[9, 4, 2, 0, 1, 1, 0, 0, 1, 0][..], &huge].concat());
        assert!(Record::decode(50, &key).is_err(), "a key of {length} bytes in none");
    }
}

#[test]
fn values_share_the_bytes_of_the_record() {
    let value = Bytes::from(vec![7; 100_000]);
    let writes = vec![Write::Put(bytes("k"), value)];
    let transaction = Arc::new(Transaction { preconditions: vec![], writes });
    let commands = vec![Command::Transact { stamp: None, transaction }];
    let batch = Arc::new(Batch { origin: ballot(1, 1), commands });
    let (kind, payload) = encode(&Record::Accepted { slot: Slot(1), ballot: ballot(1, 1), batch });
    assert!(payload.len() < 100_020, "{} bytes", payload.len());
    let Ok(Record::Accepted { batch, .. }) = Record::decode(kind, &payload) else {
        panic!("it does not come back")
    };
    let Command::Transact { transaction, .. } = &batch.commands[0] else { panic!("{batch:?}") };
    let Write::Put(_, value) = &transaction.writes[0] else { panic!("not a put") };
    assert!(payload.as_ptr_range().contains(&value.as_ptr()), "the value was copied");
}

fn slices() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..20).prop_map(Bytes::from)
}

fn ballots() -> impl Strategy<Value = Ballot> {
    (any::<u64>(), any::<u32>()).prop_map(|(round, node)| ballot(round, node))
}

fn stamps() -> impl Strategy<Value = Option<Stamp>> {
    let stamp = |(client, sequence, answered_below)| Stamp {
        client: ClientId(client),
        sequence,
        answered_below,
    };
    proptest::option::of(any::<(u64, u64, u64)>().prop_map(stamp))
}

fn members() -> impl Strategy<Value = Arc<[Member]>> {
    let member = |(node, life)| Member { node: NodeId(node), life };
    vec(any::<(u32, u64)>().prop_map(member), 0..6).prop_map(Arc::from)
}

fn transactions() -> impl Strategy<Value = Arc<Transaction>> {
    let precondition = prop_oneof![
        slices().prop_map(Precondition::Absent),
        slices().prop_map(Precondition::Present),
        (slices(), slices()).prop_map(|(key, value)| Precondition::Equals(key, value)),
    ];
    let write = prop_oneof![
        slices().prop_map(Write::Delete),
        (slices(), slices()).prop_map(|(key, value)| Write::Put(key, value)),
    ];
    (vec(precondition, 0..4), vec(write, 0..4))
        .prop_map(|(preconditions, writes)| Arc::new(Transaction { preconditions, writes }))
}

fn batches() -> impl Strategy<Value = Arc<Batch>> {
    let command = prop_oneof![
        Just(Command::OpenSession),
        (stamps(), transactions())
            .prop_map(|(stamp, transaction)| Command::Transact { stamp, transaction }),
        members().prop_map(Command::ChangeMembers),
    ];
    (ballots(), vec(command, 0..5))
        .prop_map(|(origin, commands)| Arc::new(Batch { origin, commands }))
}

fn checkpoints() -> impl Strategy<Value = Checkpoint> {
    let settled = prop_oneof![
        Just(Settled::Committed),
        any::<u32>().prop_map(|precondition| Settled::Refused { precondition }),
    ];
    let session = (any::<(u64, u64)>(), vec((any::<u64>(), settled), 0..5)).prop_map(
        |((client, answered_below), settled)| SessionState {
            client: ClientId(client),
            answered_below,
            settled,
        },
    );
    let sets = vec((any::<u64>().prop_map(Slot), members()), 0..4);
    let replicated = (any::<(u64, u64)>(), sets, vec(session, 0..4)).prop_map(
        |((applied, next_client), members, sessions)| {
            Arc::new(Replicated { applied: Slot(applied), members, next_client, sessions })
        },
    );
    (any::<(u64, u64)>(), ballots(), replicated).prop_map(
        |((incarnation, life), promised, replicated)| Checkpoint {
            incarnation,
            life,
            promised,
            replicated,
        },
    )
}

fn records() -> impl Strategy<Value = Record> {
    let slots = || any::<u64>().prop_map(Slot);
    let refusal = (slots(), any::<(u32, u32)>())
        .prop_map(|(slot, (index, precondition))| Refusal { slot, index, precondition });
    prop_oneof![
        any::<(u64, u64)>().prop_map(|(incarnation, life)| Record::Started { incarnation, life }),
        ballots().prop_map(|ballot| Record::Promised { ballot }),
        (slots(), ballots(), batches()).prop_map(|(slot, ballot, batch)| Record::Accepted {
            slot,
            ballot,
            batch
        }),
        (slots(), batches()).prop_map(|(slot, batch)| {
            let ballot = batch.origin;
            Record::Accepted { slot, ballot, batch }
        }),
        (slots(), batches()).prop_map(|(slot, batch)| Record::Learned { slot, batch }),
        (slots(), vec(refusal, 0..5)).prop_map(|(slot, refused)| Record::Chosen { slot, refused }),
        any::<u64>().prop_map(|life| Record::Forgot { life }),
        checkpoints().prop_map(Record::Checkpoint),
        checkpoints().prop_map(Record::Installed),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn records_survive(record in records()) {
        let (kind, payload) = encode(&record);
        prop_assert_eq!(Record::decode(kind, &payload), Ok(record));
    }

    /// What is read is what would be written: no two byte strings mean the same.
    #[test]
    fn bytes_that_are_read_are_those_that_are_written(
        record in records(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let (kind, payload) = encode(&record);
        let mut payload = payload.to_vec();
        for (index, byte) in changes {
            let at = index.index(payload.len());
            payload[at] = byte;
        }
        let payload = Bytes::from(payload);
        if let Ok(read) = Record::decode(kind, &payload) {
            prop_assert_eq!(encode(&read), (kind, payload));
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(kind in KINDS, payload in vec(any::<u8>(), 0..200)) {
        let payload = Bytes::from(payload);
        if let Ok(read) = Record::decode(kind, &payload) {
            prop_assert_eq!(encode(&read), (kind, payload));
        }
    }
}
