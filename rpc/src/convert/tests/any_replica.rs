//! The messages of two-phase commit through any replica.

use std::sync::Arc;

use bytes::Bytes;
use capnp::message::{Builder, ReaderOptions};
use capnp::serialize;
use kvorum_replication::two_phase::any_replica::message::{
    Age, Decision, Knowledge, Message, Prepare, Settled, TxnId, Vote, Work,
};
use kvorum_replication::{ClientId, NodeId, Stamp, Write};
use kvorum_schema::peer_capnp::inbox;
use proptest::collection::vec;
use proptest::prelude::*;

use super::super::peer::Delivery;
use super::super::peer::any_replica::{read_messages, write_messages};
use super::super::{KEY_BYTES_MAX, MEMBERS_MAX, OPERATIONS_MAX};
use super::{key, transaction};

fn txn() -> impl Strategy<Value = TxnId> {
    any::<(u32, u64, u64)>().prop_map(|(node, epoch, number)| TxnId {
        coordinator: NodeId(node),
        epoch,
        number,
    })
}

fn decision() -> impl Strategy<Value = Decision> {
    prop_oneof![Just(Decision::Commit), Just(Decision::Abort)]
}

fn work() -> impl Strategy<Value = Work> {
    let stamp =
        (1..u64::MAX, any::<u64>(), any::<u64>()).prop_map(|(client, sequence, answered_below)| {
            Stamp { client: ClientId(client), sequence, answered_below }
        });
    let write = (proptest::option::of(stamp), transaction(), vec(key(), 0..4)).prop_map(
        |(stamp, transaction, checked)| Work::Write { stamp, writes: transaction.writes, checked },
    );
    prop_oneof![
        any::<u64>().prop_map(|client| Work::OpenSession { client: ClientId(client) }),
        write
    ]
}

fn prepare() -> impl Strategy<Value = Prepare> {
    let age = (any::<u64>(), txn()).prop_map(|(clock, first)| Age { clock, first });
    let participants = vec(any::<u32>().prop_map(NodeId), 0..6).prop_map(Arc::from);
    (txn(), age, participants, work(), txn()).prop_map(
        |(txn, age, participants, work, finished_below)| Prepare {
            txn,
            age,
            participants,
            work: Arc::new(work),
            finished_below,
        },
    )
}

fn vote() -> impl Strategy<Value = Vote> {
    prop_oneof![
        Just(Vote::Yes),
        key().prop_map(Vote::Conflict),
        Just(Vote::InFlight),
        Just(Vote::Settled(Settled::Committed)),
        any::<u32>().prop_map(|precondition| Vote::Settled(Settled::Refused { precondition })),
        Just(Vote::StaleSequence),
        Just(Vote::SessionExpired),
        Just(Vote::Refused),
        Just(Vote::Overloaded),
        Just(Vote::DiskFull),
        Just(Vote::Absent),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    let knowledge =
        prop_oneof![decision().prop_map(Knowledge::Decided), Just(Knowledge::Undecided)];
    prop_oneof![
        prepare().prop_map(Message::Prepare),
        (txn(), vote(), any::<u64>()).prop_map(|(txn, vote, clock)| Message::Vote {
            txn,
            vote,
            clock
        }),
        (txn(), decision(), txn()).prop_map(|(txn, decision, finished_below)| Message::Decide {
            txn,
            decision,
            finished_below
        }),
        txn().prop_map(|txn| Message::Acknowledge { txn }),
        txn().prop_map(|txn| Message::Inquire { txn }),
        (txn(), knowledge).prop_map(|(txn, knowledge)| Message::Inform { txn, knowledge }),
    ]
}

fn encode(messages: &[Message]) -> Vec<u8> {
    let mut builder = Builder::new_default();
    write_messages(messages, builder.init_root::<inbox::deliver_any_replica_params::Builder<'_>>());
    let mut bytes = Vec::new();
    serialize::write_message(&mut bytes, &builder).unwrap();
    bytes
}

fn decode(bytes: &[u8]) -> Result<Vec<Message>, capnp::Error> {
    let mut options = ReaderOptions::new();
    options.nesting_limit(32).traversal_limit_in_words(Some(1 << 20));
    let reader = serialize::read_message(bytes, options)?;
    let params = reader.get_root::<inbox::deliver_any_replica_params::Reader<'_>>()?;
    Ok(read_messages(params.get_messages()?)?)
}

proptest! {
    #[test]
    fn messages_go_there_and_back(messages in vec(message(), 0..8)) {
        prop_assert_eq!(decode(&encode(&messages)).unwrap(), messages);
    }

    #[test]
    fn the_estimate_of_a_size_is_not_far_off(messages in vec(message(), 1..8)) {
        let real = encode(&messages).len();
        let estimate = Delivery::AnyReplica(messages).bytes();
        prop_assert!(estimate * 2 + 256 > real, "{} estimated, {} real", estimate, real);
        prop_assert!(real * 2 + 256 > estimate, "{} estimated, {} real", estimate, real);
    }

    #[test]
    fn damaged_messages_are_errors_or_other_messages(
        messages in vec(message(), 1..4),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encode(&messages);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        // Whatever it says, it must say something.
        let _ = decode(&bytes);
        let _ = decode(&bytes[..cut.index(bytes.len())]);
    }
}

#[test]
fn what_is_too_much_is_refused_by_name() {
    let txn = TxnId { coordinator: NodeId(1), epoch: 1, number: 1 };
    let prepare = |participants: usize, writes: usize, key: Bytes| {
        Message::Prepare(Prepare {
            txn,
            age: Age { clock: 1, first: txn },
            participants: vec![NodeId(1); participants].into(),
            work: Arc::new(Work::Write {
                stamp: None,
                writes: vec![Write::Delete(key); writes],
                checked: Vec::new(),
            }),
            finished_below: txn,
        })
    };
    let short = Bytes::from_static(b"k");
    let cases = [
        (prepare(MEMBERS_MAX + 1, 1, short.clone()), "participants"),
        (prepare(1, OPERATIONS_MAX + 1, short), "operations in one transaction"),
        (prepare(1, 1, Bytes::from(vec![0; KEY_BYTES_MAX + 1])), "a key of"),
    ];
    for (message, words) in cases {
        let error = decode(&encode(&[message])).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}
