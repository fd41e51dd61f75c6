//! The directories of a small cluster's processes.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::{Result, ensure};
use bytes::Bytes;
use kvorum_node::{Claim, ClusterId, IdentityFile, Node, NodeError, StoredRecord};
use kvorum_replication::two_phase::message::Message;
use kvorum_replication::two_phase::{
    Coordinator, CoordinatorOptions, Participant, ParticipantOptions,
};
use kvorum_replication::{
    Core, Input, NodeId, Operation, Request, RequestId, Role, Stamp, Time, Transaction, Write,
};
use kvorum_storage::LogOptions;
use kvorum_storage::vfs::{CrashMode, MemoryVfs};

use super::embedded::{options, say_rows};
use super::{Directory, dir};

const NOW: Time = Time(1);
const REPLICAS: [NodeId; 2] = [NodeId(1), NodeId(2)];
const CLUSTER: ClusterId = ClusterId(*b"a small cluster.");

/// A process, without its threads.
trait Process {
    fn step(&mut self, input: Input<Message, ()>) -> Result<(), NodeError>;
    fn sync(&mut self) -> Result<(), NodeError>;
    fn take_sends(&mut self) -> Vec<(NodeId, Message)>;
}

impl<C> Process for Node<C>
where
    C: Core<Message = Message>,
    C::Record: StoredRecord,
{
    fn step(&mut self, input: Input<Message, ()>) -> Result<(), NodeError> {
        let input = match input {
            Input::Started => Input::Started,
            Input::Request(request) => Input::Request(request),
            Input::Message { from, message } => Input::Message { from, message },
            Input::PeerUp(peer) => Input::PeerUp(peer),
            other => unreachable!("{other:?} is not used here"),
        };
        Self::step(self, NOW, input)
    }

    fn sync(&mut self) -> Result<(), NodeError> {
        self.log().sync(self.log().last())?;
        self.settle(NOW)?;
        if let Some(store) = self.store() {
            while store.maintain()? != kvorum_storage::Maintained::Nothing {}
        }
        Ok(())
    }

    fn take_sends(&mut self) -> Vec<(NodeId, Message)> {
        std::mem::take(&mut self.turn().sends)
    }
}

/// One coordinator and two replicas, and a network that loses nothing.
struct Cluster {
    disks: BTreeMap<NodeId, MemoryVfs>,
    processes: BTreeMap<NodeId, Box<dyn Process>>,
    requests: u64,
}

/// Enough that logs are cut and checkpoints written; replica 2 ends in doubt.
pub(super) fn directories() -> Result<Vec<Directory>> {
    let mut cluster = Cluster::start()?;
    cluster.ask(Operation::OpenSession, |_| true)?;
    for number in 0..60_u64 {
        let client = kvorum_replication::ClientId(1);
        let sequence = number + 1;
        let stamp = Some(Stamp { client, sequence, answered_below: sequence });
        let transaction = transaction(number);
        cluster.ask(Operation::Transact { stamp, transaction }, |_| true)?;
    }
    let transaction = Transaction {
        writes: vec![Write::Put("key-00".into(), "in doubt".into())],
        preconditions: Vec::new(),
    };
    let decides_to_2 =
        |message: &(NodeId, Message)| !matches!(message, (NodeId(2), Message::Decide { .. }));
    cluster.ask(Operation::Transact { stamp: None, transaction }, decides_to_2)?;
    let killed = cluster.disks[&NodeId(2)].crash_image(CrashMode::KeepAll);
    let Cluster { disks, processes, .. } = cluster;
    drop(processes);
    let coordinator = disks[&NodeId::COORDINATOR].clone();
    Ok(vec![
        Directory { name: "coordinator", disk: coordinator, read: Box::new(read_coordinator) },
        Directory {
            name: "replica",
            disk: disks[&NodeId(1)].clone(),
            read: Box::new(|disk| read_replica(disk, NodeId(1))),
        },
        Directory {
            name: "replica in doubt, closed after a kill",
            disk: reopened(killed)?,
            read: Box::new(|disk| read_replica(disk, NodeId(2))),
        },
    ])
}

/// A log that was opened once after a kill is marked: what counts in it is known to be durable.
fn reopened(killed: MemoryVfs) -> Result<MemoryVfs> {
    drop(open_replica(&killed, NodeId(2))?);
    Ok(killed)
}

fn transaction(number: u64) -> Transaction {
    let key = |number: u64| Bytes::from(format!("key-{:02}", number % 24));
    let value = Bytes::from(vec![b'a' + (number % 26) as u8; (number * 7 % 90) as usize]);
    let writes = vec![
        Write::Put(key(number), value),
        Write::Delete(key(number * 5)),
        Write::Put(format!("only-{}-{}", number % 7, number % 21).into(), "once".into()),
    ];
    Transaction { writes, preconditions: Vec::new() }
}

impl Cluster {
    fn start() -> Result<Self> {
        let mut cluster = Self { disks: BTreeMap::new(), processes: BTreeMap::new(), requests: 0 };
        let disk = MemoryVfs::new();
        let process: Box<dyn Process> = Box::new(open_coordinator(&disk)?.1);
        cluster.disks.insert(NodeId::COORDINATOR, disk);
        cluster.processes.insert(NodeId::COORDINATOR, process);
        for id in REPLICAS {
            let disk = MemoryVfs::new();
            cluster.processes.insert(id, Box::new(open_replica(&disk, id)?.1));
            cluster.disks.insert(id, disk);
        }
        let ids: Vec<NodeId> = cluster.processes.keys().copied().collect();
        for id in &ids {
            cluster.process(*id).step(Input::Started)?;
            cluster.process(*id).sync()?;
        }
        for id in &ids {
            for peer in ids.iter().filter(|peer| *peer != id) {
                cluster.process(*id).step(Input::PeerUp(*peer))?;
            }
        }
        Ok(cluster)
    }

    fn process(&mut self, id: NodeId) -> &mut dyn Process {
        self.processes.get_mut(&id).expect("only members are named").as_mut()
    }

    /// Asks the coordinator, and lets everything happen that follows, of the messages those that
    /// are let through.
    fn ask(
        &mut self,
        operation: Operation,
        passes: impl Fn(&(NodeId, Message)) -> bool,
    ) -> Result<()> {
        self.requests += 1;
        let request = Request { id: RequestId(self.requests), deadline: Time::NEVER, operation };
        self.process(NodeId::COORDINATOR).step(Input::Request(request))?;
        let ids: Vec<NodeId> = self.processes.keys().copied().collect();
        for _ in 0..20 {
            let mut network = VecDeque::new();
            for from in &ids {
                self.process(*from).sync()?;
                let sends = self.process(*from).take_sends();
                network.extend(sends.into_iter().filter(&passes).map(|send| (*from, send)));
            }
            if network.is_empty() {
                return Ok(());
            }
            for (from, (to, message)) in network {
                self.process(to).step(Input::Message { from, message })?;
            }
        }
        Ok(())
    }
}

fn log_options() -> LogOptions {
    options().log
}

fn open_coordinator(disk: &MemoryVfs) -> Result<(IdentityFile, Node<Coordinator>)> {
    let vfs = Arc::new(disk.clone());
    let claim = Claim::two_phase(Role::Coordinator, NodeId::COORDINATOR);
    let identity = IdentityFile::open(vfs.clone(), &dir(), &claim)?;
    let replicas = REPLICAS.to_vec();
    let core = Coordinator::new(CoordinatorOptions { replicas, ..Default::default() });
    let mut node = Node::open_log(vfs, &dir(), log_options(), core, Vec::new())?;
    node.set_checkpoint_bytes(1 << 10);
    identity.adopt_cluster(CLUSTER)?;
    Ok((identity, node))
}

fn open_replica(disk: &MemoryVfs, id: NodeId) -> Result<(IdentityFile, Node<Participant>)> {
    let vfs = Arc::new(disk.clone());
    let claim = Claim::two_phase(Role::Replica, id);
    let identity = IdentityFile::open(vfs.clone(), &dir(), &claim)?;
    let core = Participant::new(ParticipantOptions { id, ..Default::default() });
    let mut node = Node::open_store(vfs, &dir(), options(), core, Vec::new())?;
    node.set_checkpoint_bytes(2 << 10);
    identity.adopt_cluster(CLUSTER)?;
    Ok((identity, node))
}

/// All that a coordinator knows after it has read its log.
fn read_coordinator(disk: MemoryVfs) -> Result<String> {
    let (identity, node) = open_coordinator(&disk)?;
    Ok(format!("{:?}\n{:#?}", identity.identity(), node.core()))
}

/// All that a replica knows and holds.
fn read_replica(disk: MemoryVfs, id: NodeId) -> Result<String> {
    let (identity, node) = open_replica(&disk, id)?;
    let mut said = format!("{:?}\n{:#?}\n", identity.identity(), node.core());
    let store = node.store().expect("a replica has a store");
    write!(said, "{}", say_rows(store)?)?;
    ensure!(node.last() > kvorum_replication::Position::ZERO, "an empty log");
    Ok(said)
}
