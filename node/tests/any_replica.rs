//! Replicas that all coordinate, over real logs and stores: what is at rest is what they would have.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use kvorum_node::offline::{InDoubt, Offline, Whose, meaning};
use kvorum_node::{Claim, IdentityFile, Node};
use kvorum_replication::two_phase::any_replica::message::Message;
use kvorum_replication::two_phase::any_replica::{Replica, ReplicaOptions, Resume};
use kvorum_replication::{
    Input, NodeId, Operation, Outcome, Protocol, Request, RequestId, Role, Time, Transaction, Write,
};
use kvorum_storage::vfs::{MemoryVfs, Vfs};
use kvorum_storage::{Direction, LogItem, LogOptions, Options};

const DIR: &str = "/data";
const NOW: Time = Time(1_000_000_000);
const IDS: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

type Rows = BTreeMap<Bytes, Bytes>;

struct Cluster {
    disks: BTreeMap<NodeId, MemoryVfs>,
    nodes: BTreeMap<NodeId, (IdentityFile, Node<Replica>)>,
    network: VecDeque<(NodeId, NodeId, Message)>,
    replies: BTreeMap<RequestId, Outcome>,
    requests: u64,
}

impl Cluster {
    fn started() -> Self {
        let mut cluster = Self {
            disks: IDS.into_iter().map(|id| (id, MemoryVfs::new())).collect(),
            nodes: BTreeMap::new(),
            network: VecDeque::new(),
            replies: BTreeMap::new(),
            requests: 0,
        };
        for id in IDS {
            let opened = open(&cluster.disks[&id], id);
            cluster.nodes.insert(id, opened);
            cluster.step(id, Input::Started);
        }
        cluster.pump(|_| true);
        for id in IDS {
            for other in IDS.into_iter().filter(|other| *other != id) {
                cluster.step(id, Input::PeerUp(other));
            }
        }
        cluster.pump(|_| true);
        cluster
    }

    fn step(&mut self, id: NodeId, input: Input<Message, Resume>) {
        let (_, node) = self.nodes.get_mut(&id).unwrap();
        node.step(NOW, input).unwrap();
    }

    /// Syncs and delivers until nothing happens any more; what does not pass is lost.
    fn pump(&mut self, passes: impl Fn(&Message) -> bool) {
        loop {
            for (id, (_, node)) in &mut self.nodes {
                node.log().sync(node.log().last()).unwrap();
                node.settle(NOW).unwrap();
                let turn = node.turn();
                self.replies.extend(turn.replies.drain(..));
                let sends = turn.sends.drain(..).filter(|(_, message)| passes(message));
                self.network.extend(sends.map(|(to, message)| (*id, to, message)));
            }
            let Some((from, to, message)) = self.network.pop_front() else { return };
            self.step(to, Input::Message { from, message });
        }
    }

    /// One of them coordinates it.
    fn write(&mut self, id: NodeId, writes: Vec<Write>, passes: impl Fn(&Message) -> bool) {
        self.requests += 1;
        let transaction = Transaction { preconditions: vec![], writes };
        let operation = Operation::Transact { stamp: None, transaction };
        let request = Request { id: RequestId(self.requests), deadline: Time::NEVER, operation };
        self.step(id, Input::Request(request));
        self.pump(passes);
    }
}

fn open(disk: &MemoryVfs, id: NodeId) -> (IdentityFile, Node<Replica>) {
    let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
    let claim = Claim { protocol: Protocol::AnyReplica, ..Claim::two_phase(Role::Replica, id) };
    let identity = IdentityFile::open(Arc::clone(&vfs), Path::new(DIR), &claim).unwrap();
    let core = Replica::new(ReplicaOptions { id, replicas: IDS.to_vec(), ..Default::default() });
    let log = LogOptions { file_bytes: 4 << 10, ..LogOptions::default() };
    let options = Options { memtable_bytes: 1 << 10, block_bytes: 256, log, ..Options::default() };
    let node = Node::open_store(vfs, Path::new(DIR), options, core, Vec::new()).unwrap();
    (identity, node)
}

fn put(key: &str, value: u32) -> Write {
    Write::Put(Bytes::copy_from_slice(key.as_bytes()), Bytes::from(format!("{value:040}")))
}

#[test]
fn a_replicas_rows_and_doubts_are_those_it_would_have() {
    let mut cluster = Cluster::started();
    let mut expected = Rows::new();
    for value in 0..40 {
        let key = format!("key{:02}", value % 15);
        let write = put(&key, value);
        let Write::Put(key, row) = write.clone() else { unreachable!("it is a put") };
        expected.insert(key, row);
        cluster.write(IDS[value as usize % 3], vec![write], |_| true);
        assert_eq!(cluster.replies.remove(&RequestId(cluster.requests)), Some(Outcome::Committed));
        if value == 20 {
            for id in IDS {
                cluster.step(id, Input::Checkpoint);
            }
            cluster.pump(|_| true);
            let (_, node) = &cluster.nodes[&IDS[1]];
            node.store().unwrap().flush().unwrap();
        }
    }
    // The others have promised, and do not hear how it ended.
    cluster
        .write(IDS[0], vec![put("open", 1)], |message| !matches!(message, Message::Decide { .. }));
    cluster.nodes.clear();
    for id in IDS {
        let disk = cluster.disks[&id].clone();
        let offline = Offline::open(Arc::new(disk.clone()), Path::new(DIR)).unwrap();
        let Whose::Node(identity) = offline.whose() else { panic!("{:?}", offline.whose()) };
        assert_eq!((identity.protocol, identity.node), (Protocol::AnyReplica, id));
        let verified = offline.verify().unwrap();
        assert!(verified.is_sound(), "{id}: {:?}", verified.findings);
        let kind = offline.whose().kind().unwrap();
        let mut survey = offline.directory().log().unwrap();
        while let Some(item) = survey.next().unwrap() {
            let LogItem::Record(record) = item else { panic!("{item:?}") };
            meaning(kind, record.kind, &record.payload).unwrap();
        }
        let read = offline.read().unwrap();
        let mut rows = offline.directory().rows(&read.overlay, b"").unwrap();
        let mut found = Rows::new();
        while let Some((key, value)) = rows.next().unwrap() {
            found.insert(key, value);
        }
        let [InDoubt::Transaction { is_committed, participants, .. }] = &read.in_doubt[..] else {
            panic!("{id}: {:?}", read.in_doubt)
        };
        assert_eq!(*is_committed, id == IDS[0], "its coordinator knows");
        assert!(participants.len() >= 2);
        assert_eq!(found.remove(&b"open"[..]).is_some(), id == IDS[0]);
        assert_eq!(found, expected, "{id}");
        drop(rows);
        drop(offline);
        let (_, node) = open(&disk, id);
        let scan = node.store().unwrap().scan(.., Direction::Forwards).unwrap();
        let mut opened: Rows = scan.map(Result::unwrap).collect();
        opened.remove(&b"open"[..]);
        assert_eq!(opened, expected, "{id}");
    }
}
