//! A replica of two-phase commit that begins on an empty disk gets everything from another one, over
//! real engines, while that one goes on. `KVORUM_KEYS=1000000` says how many keys there are.

#![expect(clippy::unwrap_used, reason = "only tests use it")]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use kvorum_node::Node;
use kvorum_replication::two_phase::message::{
    CommitNumber, Decision, Message, Parallel, Prepare, TxnId,
};
use kvorum_replication::two_phase::{Participant, ParticipantOptions};
use kvorum_replication::{Input, NodeId, Time, Transaction, Write};
use kvorum_storage::vfs::{MemoryVfs, RealVfs, Vfs};
use kvorum_storage::{Options, Pressure};

const DONOR: NodeId = NodeId(1);
const TAKER: NodeId = NodeId(2);

/// Keys of one transaction while the donor is filled.
const TOGETHER: u64 = 100;

struct Machine {
    id: NodeId,
    node: Node<Participant>,
    now: u64,
}

impl Machine {
    fn open(id: NodeId, life: u64, vfs: Arc<dyn Vfs>, dir: &Path) -> Self {
        let recent_bytes_max = 1 << 20;
        let options = ParticipantOptions { id, life, recent_bytes_max, ..Default::default() };
        let core = Participant::new(options);
        let node = Node::open_store(vfs, dir, Options::default(), core, Vec::new()).unwrap();
        let mut machine = Self { id, node, now: 1_000_000_000 };
        machine.step(Input::Started);
        machine
    }

    /// Hands over an input, makes what it writes durable, and does what the store has to do. Answers
    /// with what the node says.
    fn step(
        &mut self,
        input: Input<Message, <Participant as kvorum_replication::Core>::Resume>,
    ) -> Vec<(NodeId, Message)> {
        self.now += 1_000;
        let now = Time(self.now);
        self.node.step(now, input).unwrap();
        loop {
            let last = self.node.log().last();
            self.node.log().sync(last).unwrap();
            self.node.settle(now).unwrap();
            if self.node.log().last() == last {
                break;
            }
        }
        let store = self.node.store().unwrap();
        while store.pressure() != Pressure::None {
            store.maintain().unwrap();
        }
        std::mem::take(&mut self.node.turn().sends)
    }

    fn hear(&mut self, from: NodeId, message: Message) -> Vec<(NodeId, Message)> {
        self.step(Input::Message { from, message })
    }

    /// A transaction from its prepare to its end.
    fn commit(&mut self, number: u64, writes: Vec<Write>) {
        let txn = txn(number);
        let transaction = Arc::new(Transaction { preconditions: Vec::new(), writes });
        let prepare = Prepare {
            txn,
            participants: [DONOR, TAKER].into(),
            transaction,
            one_phase: None,
            parallel: Some(Parallel { stamp: None }),
            finished_below: txn,
        };
        self.hear(NodeId::COORDINATOR, Message::Prepare(prepare.into()));
        let decision = Decision::Commit(CommitNumber(number));
        let decide = Message::Decide { txn, decision, finished_below: txn, epoch: txn.epoch };
        self.hear(NodeId::COORDINATOR, decide);
    }

    fn count(&self, name: &str) -> u64 {
        let counters = self.node.report(Time(self.now)).status.counters;
        counters.iter().find(|(known, _)| *known == name).unwrap().1
    }

    fn rows(&self) -> Vec<(Bytes, Bytes)> {
        let mut rows: Vec<(Bytes, Bytes)> = Vec::new();
        loop {
            let start = rows
                .last()
                .map_or_else(Bytes::new, |(key, _)| Bytes::from([key.as_ref(), &[0]].concat()));
            let (next, more) = self.node.inspector().rows(start, u32::MAX).unwrap();
            rows.extend(next);
            if !more {
                return rows;
            }
        }
    }
}

fn txn(number: u64) -> TxnId {
    TxnId { coordinator: NodeId::COORDINATOR, epoch: 1, number }
}

fn put(key: u64, value: u8) -> Write {
    Write::Put(Bytes::from(format!("{key:016}")), Bytes::from(vec![value; 128]))
}

/// Commits between two pieces, so that the donor is never at rest.
fn takes_all(keys: u64, disks: [(Arc<dyn Vfs>, &Path); 2]) {
    let [(donors, donors_dir), (takers, takers_dir)] = disks;
    let mut donor = Machine::open(DONOR, 0, donors, donors_dir);
    let mut number = 0;
    for first in (0..keys).step_by(TOGETHER as usize) {
        number += 1;
        donor.commit(number, (first..keys.min(first + TOGETHER)).map(|key| put(key, 1)).collect());
    }

    let mut taker = Machine::open(TAKER, 1, takers, takers_dir);
    taker.step(Input::PeerUp(DONOR));
    taker.step(Input::PeerUp(NodeId::COORDINATOR));
    let began = Instant::now();
    let told = Message::CatchUp { to: CommitNumber(number), anew: false };
    let mut words = taker.hear(NodeId::COORDINATOR, told);
    let mut turns: u64 = 0;
    while !words.is_empty() {
        let mut answers = Vec::new();
        for (to, message) in words {
            assert!(to == DONOR || to == NodeId::COORDINATOR, "{to} is nobody's donor");
            if to == DONOR {
                answers.extend(donor.hear(TAKER, message));
            }
        }
        turns += 1;
        if turns < 50 {
            number += 1;
            donor.commit(number, vec![put(turns * 7 % keys, 2)]);
        }
        words = answers.into_iter().flat_map(|(_, message)| taker.hear(DONOR, message)).collect();
        if taker.node.core().applied() < CommitNumber(number) && words.is_empty() {
            // The donor went on since it said how far it was: the coordinator says so.
            let told = Message::CatchUp { to: CommitNumber(number), anew: false };
            words = taker.hear(NodeId::COORDINATOR, told);
        }
    }
    let took = began.elapsed();
    println!(
        "{keys} keys in {took:?}: {} pieces, {number} commits",
        taker.count("snapshot_pieces")
    );
    assert_eq!(taker.node.core().applied(), CommitNumber(number));
    assert_eq!(taker.rows(), donor.rows());
    assert!(taker.node.core().is_outside(), "nobody has let it in");
    assert!(taker.count("snapshots_installed") > 0 || keys < 10_000);

    taker.hear(
        NodeId::COORDINATOR,
        Message::Join {
            life: 1,
            from: txn(number + 1),
            serve_from: CommitNumber(number),
            view: 0,
            others: 0,
        },
    );
    assert!(!taker.node.core().is_outside());
    taker.commit(number + 1, vec![put(0, 3)]);
    donor.commit(number + 1, vec![put(0, 3)]);
    assert_eq!(taker.rows(), donor.rows());
    assert_eq!(taker.id, TAKER);
}

#[test]
fn an_empty_replica_takes_all_rows_while_the_donor_goes_on() {
    match std::env::var("KVORUM_KEYS") {
        Ok(keys) => {
            let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
            let disk =
                |index: usize| -> (Arc<dyn Vfs>, &Path) { (Arc::new(RealVfs), dirs[index].path()) };
            takes_all(keys.parse().unwrap(), [disk(0), disk(1)]);
        }
        Err(_) => {
            let disk =
                || -> (Arc<dyn Vfs>, &Path) { (Arc::new(MemoryVfs::new()), Path::new("/data")) };
            // Less than the donor remembers of its commits, and more.
            takes_all(1_000, [disk(), disk()]);
            takes_all(20_000, [disk(), disk()]);
        }
    }
}
