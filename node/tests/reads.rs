//! Reads of one key that need no step of the core: answered only when nothing is in their way.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use kvorum_node::Node;
use kvorum_replication::two_phase::message::{CommitNumber, Decision, Message, Prepare, TxnId};
use kvorum_replication::two_phase::{Participant, ParticipantOptions};
use kvorum_replication::{
    Answer, Input, NodeId, Operation, Outcome, Query, Range, Request, RequestId, Time, Transaction,
    Write,
};
use kvorum_storage::Options;
use kvorum_storage::vfs::MemoryVfs;

const NOW: Time = Time(1_000_000_000);
const ONE: NodeId = NodeId(1);
const TXN: TxnId = TxnId { coordinator: NodeId::COORDINATOR, epoch: 1, number: 1 };

fn open() -> Node<Participant> {
    let core = Participant::new(ParticipantOptions { id: ONE, ..ParticipantOptions::default() });
    let vfs = Arc::new(MemoryVfs::new());
    Node::open_store(vfs, Path::new("/data"), Options::default(), core, Vec::new()).unwrap()
}

fn get(key: &'static str) -> Query {
    Query::Get(Bytes::from_static(key.as_bytes()))
}

fn sync(node: &mut Node<Participant>) {
    node.log().sync(node.log().last()).unwrap();
    node.settle(NOW).unwrap();
}

fn tell(node: &mut Node<Participant>, message: Message) {
    node.step(NOW, Input::Message { from: NodeId::COORDINATOR, message }).unwrap();
}

/// Asks, and says what is answered at once.
fn ask(node: &mut Node<Participant>, id: u64, query: Query) -> Option<Outcome> {
    let request =
        Request { id: RequestId(id), deadline: Time::NEVER, operation: Operation::Read(query) };
    node.step(NOW, Input::Request(request)).unwrap();
    reply(node, id)
}

fn reply(node: &mut Node<Participant>, id: u64) -> Option<Outcome> {
    let replies = &mut node.turn().replies;
    let at = replies.iter().position(|(request, _)| *request == RequestId(id))?;
    Some(replies.remove(at).1)
}

fn value(value: Option<&'static str>) -> Option<Outcome> {
    Some(Outcome::Answer(Answer::Value(value.map(|value| Bytes::from_static(value.as_bytes())))))
}

#[test]
fn what_is_prepared_is_in_the_way_until_it_is_decided() {
    let mut node = open();
    assert!(!node.reads_at_once(NOW, &get("a")), "it does not serve yet");
    node.step(NOW, Input::Started).unwrap();
    assert!(!node.reads_at_once(NOW, &get("a")), "it may not serve before its log says so");
    sync(&mut node);
    assert!(node.reads_at_once(NOW, &get("a")));
    assert_eq!(ask(&mut node, 1, get("a")), value(None));

    let writes = vec![Write::Put(Bytes::from_static(b"a"), Bytes::from_static(b"new"))];
    tell(
        &mut node,
        Message::Prepare(Arc::new(Prepare {
            txn: TXN,
            participants: [ONE, NodeId(2)].into(),
            transaction: Arc::new(Transaction { preconditions: Vec::new(), writes }),
            one_phase: None,
            parallel: None,
            finished_below: TXN,
        })),
    );
    assert!(node.reads_at_once(NOW, &get("a")), "the vote is not out, so nobody can have decided");
    sync(&mut node);
    assert!(!node.turn().sends.is_empty(), "the vote is out");
    assert!(!node.reads_at_once(NOW, &get("a")));
    assert_eq!(ask(&mut node, 2, get("a")), None, "it waits");
    assert!(node.reads_at_once(NOW, &get("b")), "nobody writes this one");

    let decision = Decision::Commit(CommitNumber(1));
    tell(&mut node, Message::Decide { txn: TXN, decision, finished_below: TXN, epoch: 1 });
    assert_eq!(reply(&mut node, 2), value(Some("new")));
    assert!(node.reads_at_once(NOW, &get("a")));
    assert_eq!(ask(&mut node, 3, get("a")), value(Some("new")));
}

#[test]
fn what_is_no_read_of_a_key_takes_a_step() {
    let mut node = open();
    node.step(NOW, Input::Started).unwrap();
    sync(&mut node);
    let range = Range { start: Bytes::new(), end: None, limit: 10 };
    assert!(!node.reads_at_once(NOW, &Query::Scan(range)));
    assert!(!node.reads_at_once(NOW, &Query::GetMany(vec![Bytes::from_static(b"a")])));
    assert!(!node.reads_at_once(NOW, &get("")), "no key is empty, and it has to be said so");
    assert!(matches!(ask(&mut node, 1, get("")), Some(Outcome::Failed(_))));
}
