//! Whatever there is to say goes there and back; whatever comes is a value or an error.

mod any_replica;
mod catch_up;
mod paxos;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use capnp::message::{Builder, ReaderOptions};
use capnp::serialize;
use kvorum_node::ClusterId;
use kvorum_replication::two_phase::message::{
    CommitNumber, Decision, Knowledge, Message, OnePhase, Parallel, Prepare, Recalled, Recovered,
    TxnId, ViewMessage, Vote,
};
use kvorum_replication::{
    Answer, ClientId, Failure, Held, NodeId, Page, Precondition, Protocol, Query, Range, Stamp,
    Time, Transaction, Write,
};
use kvorum_schema::client_capnp::failure;
use kvorum_schema::peer_capnp::{hello, inbox};
use proptest::collection::vec;
use proptest::prelude::*;

use super::client::{Told, read_failure, write_failure};
use super::peer::two_phase::{read_messages, write_messages};
use super::peer::{Delivery, Hello, read_hello, write_hello};

fn key() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 1..40).prop_map(Bytes::from)
}

fn value() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..100).prop_map(Bytes::from)
}

fn txn() -> impl Strategy<Value = TxnId> {
    (any::<u32>(), any::<u64>(), any::<u64>()).prop_map(|(coordinator, epoch, number)| TxnId {
        coordinator: NodeId(coordinator),
        epoch,
        number,
    })
}

fn precondition() -> impl Strategy<Value = Precondition> {
    prop_oneof![
        key().prop_map(Precondition::Absent),
        key().prop_map(Precondition::Present),
        (key(), value()).prop_map(|(key, value)| Precondition::Equals(key, value)),
    ]
}

fn write() -> impl Strategy<Value = Write> {
    prop_oneof![
        (key(), value()).prop_map(|(key, value)| Write::Put(key, value)),
        key().prop_map(Write::Delete),
    ]
}

fn transaction() -> impl Strategy<Value = Transaction> {
    (vec(precondition(), 0..4), vec(write(), 0..4))
        .prop_map(|(preconditions, writes)| Transaction { preconditions, writes })
}

fn one_phase() -> impl Strategy<Value = OnePhase> {
    let stamp =
        (1..u64::MAX, any::<u64>(), any::<u64>()).prop_map(|(client, sequence, answered_below)| {
            Stamp { client: ClientId(client), sequence, answered_below }
        });
    proptest::option::of(stamp).prop_map(|stamp| OnePhase { stamp })
}

fn decision() -> impl Strategy<Value = Decision> {
    prop_oneof![
        (1..u64::MAX).prop_map(|number| Decision::Commit(CommitNumber(number))),
        Just(Decision::Abort),
    ]
}

fn vote() -> impl Strategy<Value = Vote> {
    prop_oneof![
        Just(Vote::Yes),
        key().prop_map(Vote::Conflict),
        (any::<u32>(), key()).prop_map(|(index, key)| Vote::PreconditionFailed { index, key }),
        Just(Vote::Refused),
        Just(Vote::Overloaded),
        Just(Vote::DiskFull),
        ".*".prop_map(Vote::Failed),
        Just(Vote::Committed),
    ]
}

fn query() -> impl Strategy<Value = Query> {
    let range = || {
        (value(), proptest::option::of(value()), 0..=super::ROWS_MAX)
            .prop_map(|(start, end, limit)| Range { start, end, limit })
    };
    let page = (range(), any::<bool>(), proptest::option::of(held()));
    prop_oneof![
        key().prop_map(Query::Get),
        vec(key(), 0..5).prop_map(Query::GetMany),
        range().prop_map(Query::Scan),
        page.prop_map(|(range, last, of)| Query::Page(Page { range, last, of })),
    ]
}

fn held() -> impl Strategy<Value = Held> {
    (any::<u32>(), any::<u64>(), 1..=u64::MAX).prop_map(|(by, run, number)| Held {
        by: NodeId(by),
        run,
        number,
    })
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        proptest::option::of(value()).prop_map(Answer::Value),
        vec(proptest::option::of(value()), 0..5).prop_map(Answer::Values),
        (vec((key(), value()), 0..5), any::<bool>())
            .prop_map(|(rows, more)| Answer::Rows { rows, more }),
        (vec((key(), value()), 0..5), any::<bool>(), proptest::option::of(held()))
            .prop_map(|(rows, more, held)| Answer::Page { rows, more, held }),
        Just(Answer::NotHeld),
        Just(Answer::TooManyHeld),
        any::<u64>().prop_map(|bytes| Answer::TooLarge { bytes }),
        ".*".prop_map(Answer::Failed),
    ]
}

fn prepare() -> impl Strategy<Value = Prepare> {
    let participants = vec(any::<u32>().prop_map(NodeId), 0..5);
    (txn(), participants, transaction(), how(), txn()).prop_map(
        |(txn, participants, transaction, (one_phase, parallel), finished_below)| Prepare {
            txn,
            participants: participants.into(),
            transaction: Arc::new(transaction),
            one_phase,
            parallel,
            finished_below,
        },
    )
}

/// In one phase, in parallel, or in none of these ways.
fn how() -> impl Strategy<Value = (Option<OnePhase>, Option<Parallel>)> {
    prop_oneof![
        Just((None, None)),
        one_phase().prop_map(|one_phase| (Some(one_phase), None)),
        one_phase().prop_map(|OnePhase { stamp }| (None, Some(Parallel { stamp }))),
    ]
}

fn recalled() -> impl Strategy<Value = Recalled> {
    let participants = vec(any::<u32>().prop_map(NodeId), 0..5);
    let number = proptest::option::of((1..u64::MAX).prop_map(CommitNumber));
    (txn(), participants, one_phase(), number).prop_map(
        |(txn, participants, OnePhase { stamp }, number)| Recalled {
            txn,
            participants: participants.into(),
            stamp,
            number,
        },
    )
}

fn recovered() -> impl Strategy<Value = Message> {
    let next = proptest::option::of(txn());
    (any::<u64>(), txn(), any::<u64>(), vec(recalled(), 0..5), next, any::<bool>()).prop_map(
        |(epoch, first, applied, recalled, next, is_outside)| {
            let applied = CommitNumber(applied);
            let answer = Recovered { epoch, first, applied, recalled, next, is_outside };
            Message::Recovered(Box::new(answer))
        },
    )
}

fn of_view() -> impl Strategy<Value = ViewMessage> {
    let number = any::<u64>;
    prop_oneof![
        (number(), any::<u32>())
            .prop_map(|(view, others)| ViewMessage::Announce { view, others: others as usize }),
        (number(), number(), number(), number()).prop_map(|(incarnation, at, view, applied)| {
            let applied = CommitNumber(applied);
            ViewMessage::Renew { incarnation, at: Time(at), view, applied }
        }),
        (number(), number(), number()).prop_map(|(incarnation, at, lease)| ViewMessage::Grant {
            incarnation,
            at: Time(at),
            lease: Duration::from_nanos(lease)
        }),
        (number(), 0..9usize).prop_map(|(view, others)| ViewMessage::Excluded { view, others }),
        (number(), number())
            .prop_map(|(round, incarnation)| ViewMessage::Ask { round, incarnation }),
        (number(), number(), number()).prop_map(|(round, incarnation, view)| {
            ViewMessage::Heard { round, incarnation, view }
        }),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    let knowledge =
        prop_oneof![decision().prop_map(Knowledge::Decided), Just(Knowledge::Undecided)];
    prop_oneof![
        of_view().prop_map(Message::View),
        prepare().prop_map(|prepare| Message::Prepare(Arc::new(prepare))),
        (txn(), vote()).prop_map(|(txn, vote)| Message::Vote { txn, vote }),
        (txn(), decision(), txn(), any::<u64>()).prop_map(
            |(txn, decision, finished_below, epoch)| Message::Decide {
                txn,
                decision,
                finished_below,
                epoch,
            }
        ),
        txn().prop_map(|txn| Message::Acknowledge { txn }),
        txn().prop_map(|txn| Message::Inquire { txn }),
        (txn(), knowledge, any::<u64>()).prop_map(|(txn, knowledge, epoch)| Message::Inform {
            txn,
            knowledge,
            epoch
        }),
        (any::<u64>(), txn()).prop_map(|(epoch, first)| Message::Recover { epoch, first }),
        recovered(),
        (any::<u64>(), any::<u64>(), query()).prop_map(|(read, epoch, query)| Message::Read {
            read,
            epoch,
            query: Box::new(query)
        }),
        (any::<u64>(), any::<u64>(), answer())
            .prop_map(|(read, epoch, answer)| Message::ReadAnswer { read, epoch, answer }),
        catch_up::message(),
    ]
}

/// Messages of one turn, of which many say the same of different transactions.
fn turn() -> impl Strategy<Value = Vec<Message>> {
    let common = (0..2_u32, 0..2_u64, prepare());
    let kinds = vec((0..6_u8, any::<u64>(), 1..u64::MAX), 0..40);
    (common, kinds, any::<bool>()).prop_map(|((coordinator, epoch, common), mut kinds, mixed)| {
        if !mixed {
            kinds.sort_unstable();
        }
        let say = |(kind, number, other): (u8, u64, u64)| {
            let txn = TxnId { coordinator: NodeId(coordinator), epoch, number };
            match kind {
                0 => Message::Vote { txn, vote: Vote::Yes },
                1 => Message::Acknowledge { txn },
                2 | 3 => Message::Decide {
                    txn,
                    decision: Decision::Commit(CommitNumber(other)),
                    finished_below: TxnId { number: other % 2, ..txn },
                    epoch: 7,
                },
                _ => Message::Prepare(Arc::new(Prepare { txn, ..common.clone() })),
            }
        };
        kinds.into_iter().map(say).collect()
    })
}

fn encode(messages: &[Message]) -> Vec<u8> {
    let mut builder = Builder::new_default();
    write_messages(messages, builder.init_root::<inbox::deliver_params::Builder<'_>>());
    let mut bytes = Vec::new();
    serialize::write_message(&mut bytes, &builder).unwrap();
    bytes
}

fn decode(bytes: &[u8]) -> Result<Vec<Message>, capnp::Error> {
    let mut options = ReaderOptions::new();
    options.nesting_limit(32).traversal_limit_in_words(Some(1 << 20));
    let reader = serialize::read_message(bytes, options)?;
    let params = reader.get_root::<inbox::deliver_params::Reader<'_>>()?;
    Ok(read_messages(params.get_messages()?)?)
}

proptest! {
    #[test]
    fn messages_go_there_and_back(messages in vec(message(), 0..8)) {
        prop_assert_eq!(decode(&encode(&messages)).unwrap(), messages);
    }

    #[test]
    fn runs_go_there_and_back_in_their_order(messages in turn()) {
        prop_assert_eq!(decode(&encode(&messages)).unwrap(), messages);
    }

    #[test]
    fn the_estimate_of_a_size_is_not_far_off(
        messages in prop_oneof![vec(message(), 1..8), turn()],
    ) {
        let real = encode(&messages).len();
        let estimate = Delivery::TwoPhase(messages).bytes();
        prop_assert!(estimate * 3 + 256 > real, "{} estimated, {} real", estimate, real);
        prop_assert!(real * 3 + 256 > estimate, "{} estimated, {} real", estimate, real);
    }

    #[test]
    fn damaged_messages_are_errors_or_other_messages(
        messages in prop_oneof![vec(message(), 1..4), turn()],
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

    #[test]
    fn introductions_go_there_and_back(
        cluster in proptest::option::of(any::<[u8; 16]>()),
        version in any::<u32>(),
        protocol in prop_oneof![
            Just(Protocol::TwoPhase), Just(Protocol::AnyReplica), Just(Protocol::Paxos),
        ],
        (node, life, window) in any::<(u32, u64, u64)>(),
        incarnation in any::<u64>(),
        address in ".{0,100}",
        members in vec((any::<u32>(), ".{0,40}"), 0..10),
        joined in vec(any::<(u32, u64)>(), 0..10),
    ) {
        let hello = Hello {
            version,
            protocol,
            cluster: cluster.map(ClusterId),
            node: NodeId(node),
            life,
            incarnation,
            window,
            address,
            members: members.into_iter().map(|(node, at)| (NodeId(node), at)).collect(),
            joined: joined.into_iter().map(|(node, life)| (NodeId(node), life)).collect(),
        };
        let mut builder = Builder::new_default();
        write_hello(&hello, builder.init_root());
        let reader = builder.into_reader();
        let read = read_hello(reader.get_root::<hello::Reader<'_>>().unwrap()).unwrap();
        prop_assert_eq!(read, hello);
    }
}

#[test]
fn failures_go_there_and_back() {
    let text = || "why".to_owned();
    let key = || Bytes::from_static(b"key");
    let failures = [
        Failure::Conflict { key: key() },
        Failure::PreconditionFailed { index: 3, key: key() },
        Failure::Unavailable { reason: text() },
        Failure::Overloaded,
        Failure::SnapshotExpired,
        Failure::Unknown { reason: text() },
        Failure::SessionExpired,
        Failure::StaleSequence,
        Failure::Invalid { reason: text() },
        Failure::DiskFull { node: NodeId(3) },
        Failure::Storage { reason: text() },
    ];
    let told = failures.map(Told::Failure).into_iter().chain([Told::Redirect(text())]);
    for told in told {
        let mut builder = Builder::new_default();
        write_failure(&told, builder.init_root());
        let reader = builder.into_reader();
        let read = read_failure(reader.get_root::<failure::Reader<'_>>().unwrap()).unwrap();
        assert_eq!(read, told);
    }
}

#[test]
fn lists_beyond_their_limit_are_refused() {
    let too_many = Message::Read {
        read: 1,
        epoch: 1,
        query: Box::new(Query::GetMany(vec![Bytes::from_static(b"k"); super::OPERATIONS_MAX + 1])),
    };
    let error = decode(&encode(&[too_many])).unwrap_err();
    assert!(error.extra.contains("16385 keys"), "{error}");
    let members = vec![(NodeId(1), String::new()); super::MEMBERS_MAX + 1];
    let hello = Hello {
        version: 1,
        protocol: Protocol::TwoPhase,
        cluster: None,
        node: NodeId(1),
        life: 0,
        incarnation: 1,
        window: 0,
        address: String::new(),
        members,
        joined: Vec::new(),
    };
    let mut builder = Builder::new_default();
    write_hello(&hello, builder.init_root());
    let reader = builder.into_reader();
    assert!(read_hello(reader.get_root::<hello::Reader<'_>>().unwrap()).is_err());
}

#[test]
fn a_commit_without_a_number_is_refused() {
    let txn = TxnId { coordinator: NodeId(0), epoch: 1, number: 1 };
    let decision = Decision::Commit(CommitNumber(0));
    let unnumbered = Message::Decide { txn, decision, finished_below: txn, epoch: 1 };
    assert!(decode(&encode(&[unnumbered])).is_err());
}

#[test]
fn a_run_costs_little_more_than_its_numbers() {
    let txn = |number| TxnId { coordinator: NodeId(0), epoch: 3, number };
    let votes: Vec<_> =
        (0..1000).map(|number| Message::Vote { txn: txn(number), vote: Vote::Yes }).collect();
    let commits: Vec<_> = (1..=1000)
        .map(|number| Message::Decide {
            txn: txn(number),
            decision: Decision::Commit(CommitNumber(number)),
            finished_below: txn(1),
            epoch: 3,
        })
        .collect();
    assert!(encode(&votes).len() < 1000 * 8 + 100, "{}", encode(&votes).len());
    assert!(encode(&commits).len() < 1000 * 16 + 200, "{}", encode(&commits).len());
}

#[test]
fn runs_are_not_longer_together_than_a_delivery_may_be() {
    let acknowledged = |number| Message::Acknowledge {
        txn: TxnId { coordinator: NodeId(0), epoch: number % 2, number },
    };
    // Two runs, each of which alone would do.
    let half = super::MESSAGES_MAX as u64 / 2;
    let even = (0..half).map(|number| acknowledged(2 * number));
    let odd = (0..=half).map(|number| acknowledged(2 * number + 1));
    let error = decode(&encode(&even.chain(odd).collect::<Vec<_>>())).unwrap_err();
    assert!(error.extra.contains("65537 messages"), "{error}");
}

#[test]
fn puts_beyond_the_bytes_that_came_are_refused() {
    let mut builder = Builder::new_default();
    let params = builder.init_root::<inbox::deliver_params::Builder<'_>>();
    let mut prepares = params.init_messages(1).get(0).init_prepares();
    prepares.set_bytes(b"key");
    let mut prepare = prepares.init_prepares(1).get(0);
    prepare.set_key_bytes(3);
    prepare.set_value_bytes(1);
    let mut bytes = Vec::new();
    serialize::write_message(&mut bytes, &builder).unwrap();
    let error = decode(&bytes).unwrap_err();
    assert!(error.extra.contains("longer than they are together"), "{error}");
}
