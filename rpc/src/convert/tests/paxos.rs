//! The messages of Multi-Paxos.

use std::sync::Arc;

use bytes::Bytes;
use capnp::message::{Builder, ReaderOptions};
use capnp::serialize;
use kvorum_replication::paxos::message::{
    Accepted, Ballot, Batch, Command, Member, Message, Promise, ReadName, Slot, SnapshotPiece,
};
use kvorum_replication::paxos::record::{Replicated, SessionState, Settled};
use kvorum_replication::{ClientId, NodeId, SnapshotId, Stamp};
use kvorum_schema::peer_capnp::inbox;
use proptest::collection::vec;
use proptest::prelude::*;

use super::super::peer::Delivery;
use super::super::peer::paxos::{read_messages, write_messages};
use super::super::{KEY_BYTES_MAX, MEMBERS_MAX, OPERATIONS_MAX};
use super::{key, transaction, value};

fn ballot() -> impl Strategy<Value = Ballot> {
    any::<(u64, u32)>().prop_map(|(round, node)| Ballot { round, node: NodeId(node) })
}

fn slot() -> impl Strategy<Value = Slot> {
    any::<u64>().prop_map(Slot)
}

fn name() -> impl Strategy<Value = ReadName> {
    any::<(u64, u64)>().prop_map(|(incarnation, number)| ReadName { incarnation, number })
}

fn members() -> impl Strategy<Value = Arc<[Member]>> {
    let member = any::<(u32, u64)>().prop_map(|(node, life)| Member { node: NodeId(node), life });
    vec(member, 0..6).prop_map(Arc::from)
}

fn command() -> impl Strategy<Value = Command> {
    let stamp =
        (1..u64::MAX, any::<u64>(), any::<u64>()).prop_map(|(client, sequence, answered_below)| {
            Stamp { client: ClientId(client), sequence, answered_below }
        });
    prop_oneof![
        Just(Command::OpenSession),
        (proptest::option::of(stamp), transaction()).prop_map(|(stamp, transaction)| {
            Command::Transact { stamp, transaction: Arc::new(transaction) }
        }),
        members().prop_map(Command::ChangeMembers),
    ]
}

fn batch() -> impl Strategy<Value = Arc<Batch>> {
    (ballot(), vec(command(), 0..4))
        .prop_map(|(origin, commands)| Arc::new(Batch { origin, commands }))
}

fn promise() -> impl Strategy<Value = Promise> {
    let accepted = (slot(), ballot(), batch()).prop_map(|(slot, ballot, batch)| Accepted {
        slot,
        ballot,
        batch,
    });
    let more = proptest::option::of((1..u64::MAX).prop_map(Slot));
    (ballot(), any::<u64>(), slot(), vec(accepted, 0..4), more).prop_map(
        |(ballot, life, chosen, accepted, more)| Promise { ballot, life, chosen, accepted, more },
    )
}

fn replicated() -> impl Strategy<Value = Arc<Replicated>> {
    let settled = prop_oneof![
        Just(Settled::Committed),
        any::<u32>().prop_map(|precondition| Settled::Refused { precondition }),
    ];
    let session = (any::<u64>(), any::<u64>(), vec((any::<u64>(), settled), 0..4)).prop_map(
        |(client, answered_below, settled)| SessionState {
            client: ClientId(client),
            answered_below,
            settled,
        },
    );
    (slot(), vec((slot(), members()), 0..3), any::<u64>(), vec(session, 0..4)).prop_map(
        |(applied, members, next_client, sessions)| {
            Arc::new(Replicated { applied, members, next_client, sessions })
        },
    )
}

fn piece() -> impl Strategy<Value = SnapshotPiece> {
    let rows = vec((key(), value()), 0..5);
    (any::<u64>(), value(), rows, proptest::option::of(replicated())).prop_map(
        |(snapshot, from, rows, last)| SnapshotPiece {
            snapshot: SnapshotId(snapshot),
            from,
            rows,
            last,
        },
    )
}

fn message() -> impl Strategy<Value = Message> {
    let snapshot = || any::<u64>().prop_map(SnapshotId);
    let phases = prop_oneof![
        (ballot(), proptest::option::of(ballot()))
            .prop_map(|(ballot, instead_of)| Message::PreVote { ballot, instead_of }),
        ballot().prop_map(|ballot| Message::TakeOver { ballot }),
        (ballot(), any::<u64>(), any::<bool>(), ballot()).prop_map(
            |(ballot, life, granted, seen)| Message::PreVoteAnswer { ballot, life, granted, seen }
        ),
        (ballot(), slot()).prop_map(|(ballot, from)| Message::Prepare { ballot, from }),
        promise().prop_map(Message::Promise),
        (ballot(), slot(), batch(), slot()).prop_map(|(ballot, slot, batch, chosen)| {
            Message::Accept { ballot, slot, batch, chosen }
        }),
        (ballot(), slot(), any::<u64>()).prop_map(|(ballot, slot, life)| Message::Accepted {
            ballot,
            slot,
            life
        }),
        ballot().prop_map(|promised| Message::Refused { promised }),
        (ballot(), slot(), any::<u64>()).prop_map(|(ballot, chosen, round)| Message::Heartbeat {
            ballot,
            chosen,
            round
        }),
        (ballot(), any::<u64>(), any::<u64>())
            .prop_map(|(ballot, round, life)| Message::HeartbeatAck { ballot, round, life }),
    ];
    let learning = prop_oneof![
        name().prop_map(|name| Message::ReadIndex { name }),
        (name(), slot()).prop_map(|(name, index)| Message::ReadIndexIs { name, index }),
        slot().prop_map(|from| Message::Learn { from }),
        (slot(), vec(batch(), 0..3), slot(), ballot()).prop_map(
            |(from, batches, chosen, leader)| Message::Learned { from, batches, chosen, leader }
        ),
        slot().prop_map(|first| Message::Truncated { first }),
        (proptest::option::of(snapshot()), value())
            .prop_map(|(snapshot, from)| Message::FetchSnapshot { snapshot, from }),
        piece().prop_map(Message::SnapshotPiece),
        snapshot().prop_map(|snapshot| Message::SnapshotGone { snapshot }),
        any::<u64>().prop_map(|life| Message::Join { life }),
    ];
    prop_oneof![phases, learning]
}

fn encode(messages: &[Message]) -> Vec<u8> {
    let mut builder = Builder::new_default();
    write_messages(messages, builder.init_root::<inbox::deliver_paxos_params::Builder<'_>>());
    let mut bytes = Vec::new();
    serialize::write_message(&mut bytes, &builder).unwrap();
    bytes
}

fn decode(bytes: &[u8]) -> Result<Vec<Message>, capnp::Error> {
    let mut options = ReaderOptions::new();
    options.nesting_limit(32).traversal_limit_in_words(Some(1 << 20));
    let reader = serialize::read_message(bytes, options)?;
    let params = reader.get_root::<inbox::deliver_paxos_params::Reader<'_>>()?;
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
        let estimate = Delivery::Paxos(messages).bytes();
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
    let ballot = Ballot { round: 1, node: NodeId(1) };
    let accept = |commands| Message::Accept {
        ballot,
        slot: Slot(1),
        batch: Arc::new(Batch { origin: ballot, commands }),
        chosen: Slot(0),
    };
    let members = vec![Member { node: NodeId(1), life: 0 }; MEMBERS_MAX + 1];
    let place = |len| Message::FetchSnapshot { snapshot: None, from: Bytes::from(vec![7; len]) };
    let cases = [
        (accept(vec![Command::OpenSession; OPERATIONS_MAX + 1]), Some("16385 commands")),
        (accept(vec![Command::ChangeMembers(members.into())]), Some("65 acceptors")),
        // Behind the longest key there is a place one byte longer.
        (place(KEY_BYTES_MAX + 1), None),
        (place(KEY_BYTES_MAX + 2), Some("at most 65536")),
    ];
    for (message, refused) in cases {
        match (decode(&encode(&[message])), refused) {
            (Ok(_), None) => {}
            (Err(error), Some(words)) => assert!(error.extra.contains(words), "{error}"),
            (read, refused) => panic!("{refused:?}, not {read:?}"),
        }
    }
}
