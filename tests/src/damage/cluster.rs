//! The directories of a small cluster's processes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use kvorum_node::{Claim, ClusterId, IdentityFile, Node, NodeError, StoredRecord};
use kvorum_replication::two_phase::message::Message;
use kvorum_replication::two_phase::{
    Coordinator, CoordinatorOptions, Participant, ParticipantOptions,
};
use kvorum_replication::{
    Core, Input, NodeId, Operation, Outcome, Request, RequestId, Role, Stamp, Time, Transaction,
    Write,
};
use kvorum_storage::LogOptions;
use kvorum_storage::vfs::{CrashMode, MemoryVfs};

use super::embedded::{options, say_rows};
use super::{Directory, dir};

/// When all begins.
const START: Time = Time(1);
/// How much later each round is: more than a turn's end waits, and so little that nobody resends or
/// gives up.
const ROUND: Duration = Duration::from_micros(1);
/// What takes more rounds goes round in circles.
const ROUNDS_MAX: u32 = 20;
/// Fewer records in a log would hardly be worth damaging.
const RECORDS_MIN: u64 = 30;
const REPLICAS: [NodeId; 2] = [NodeId(1), NodeId(2)];
const CLUSTER: ClusterId = ClusterId(*b"a small cluster.");

/// A process, without its threads.
trait Process {
    fn step(&mut self, now: Time, input: Input<Message, ()>) -> Result<(), NodeError>;
    /// When its core wants to be woken.
    fn timer(&self) -> Option<Time>;
    fn wake(&mut self, now: Time) -> Result<(), NodeError>;
    fn sync(&mut self, now: Time) -> Result<(), NodeError>;
    fn take_sends(&mut self) -> Vec<(NodeId, Message)>;
    fn take_replies(&mut self) -> Vec<(RequestId, Outcome)>;
    /// The positions of the records that its log holds.
    fn held(&self) -> Range<u64>;
    /// Transactions that are not over for it.
    fn in_flight(&self, now: Time) -> u64;
}

impl<C> Process for Node<C>
where
    C: Core<Message = Message>,
    C::Record: StoredRecord,
{
    fn step(&mut self, now: Time, input: Input<Message, ()>) -> Result<(), NodeError> {
        let input = match input {
            Input::Started => Input::Started,
            Input::Request(request) => Input::Request(request),
            Input::Message { from, message } => Input::Message { from, message },
            Input::PeerUp(peer) => Input::PeerUp(peer),
            other => unreachable!("{other:?} is not used here"),
        };
        Self::step(self, now, input)
    }

    fn timer(&self) -> Option<Time> {
        Self::timer(self)
    }

    fn wake(&mut self, now: Time) -> Result<(), NodeError> {
        self.fire_timer(now)
    }

    fn sync(&mut self, now: Time) -> Result<(), NodeError> {
        self.log().sync(self.log().last())?;
        self.settle(now)?;
        if let Some(store) = self.store() {
            while store.maintain()? != kvorum_storage::Maintained::Nothing {}
        }
        Ok(())
    }

    fn take_sends(&mut self) -> Vec<(NodeId, Message)> {
        std::mem::take(&mut self.turn().sends)
    }

    fn take_replies(&mut self) -> Vec<(RequestId, Outcome)> {
        std::mem::take(&mut self.turn().replies)
    }

    fn held(&self) -> Range<u64> {
        self.log().first().0..self.log().last().0 + 1
    }

    fn in_flight(&self, now: Time) -> u64 {
        self.report(now).status.in_flight
    }
}

/// One coordinator and two replicas, and a network that loses nothing.
struct Cluster {
    disks: BTreeMap<NodeId, MemoryVfs>,
    processes: BTreeMap<NodeId, Box<dyn Process>>,
    now: Time,
    requests: u64,
}

/// Enough that logs are cut and checkpoints written; replica 2 ends in doubt. Anything less is an
/// error: damage to files that say nothing would prove nothing.
pub(super) fn directories() -> Result<Vec<Directory>> {
    let mut cluster = Cluster::start()?;
    let opened = cluster.ask(Operation::OpenSession, |_| true)?;
    ensure!(matches!(opened, Outcome::Session(_)), "a session: {opened:?}");
    for number in 0..60_u64 {
        let client = kvorum_replication::ClientId(1);
        let sequence = number + 1;
        let stamp = Some(Stamp { client, sequence, answered_below: sequence });
        let transaction = transaction(number);
        let outcome = cluster.ask(Operation::Transact { stamp, transaction }, |_| true)?;
        ensure!(outcome == Outcome::Committed, "write {sequence}: {outcome:?}");
    }
    let transaction = Transaction {
        writes: vec![Write::Put("key-00".into(), "in doubt".into())],
        preconditions: Vec::new(),
    };
    let decides_to_2 =
        |message: &(NodeId, Message)| !matches!(message, (NodeId(2), Message::Decide { .. }));
    let outcome = cluster.ask(Operation::Transact { stamp: None, transaction }, decides_to_2)?;
    ensure!(outcome == Outcome::Committed, "the last write: {outcome:?}");
    cluster.check_logs()?;
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
        let (disks, processes) = (BTreeMap::new(), BTreeMap::new());
        let mut cluster = Self { disks, processes, now: START, requests: 0 };
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
            cluster.process(*id).step(START, Input::Started)?;
            cluster.process(*id).sync(START)?;
        }
        for id in &ids {
            for peer in ids.iter().filter(|peer| *peer != id) {
                cluster.process(*id).step(START, Input::PeerUp(*peer))?;
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
    ) -> Result<Outcome> {
        self.requests += 1;
        let id = RequestId(self.requests);
        let request = Request { id, deadline: Time::NEVER, operation };
        let now = self.now;
        self.process(NodeId::COORDINATOR).step(now, Input::Request(request))?;
        for _ in 0..ROUNDS_MAX {
            self.now = self.now.after(ROUND);
            let network = self.round(&passes)?;
            let next = self.now.after(ROUND);
            let waits = self.processes.values().any(|it| it.timer().is_some_and(|at| at <= next));
            if network.is_empty() && !waits {
                let replies = self.process(NodeId::COORDINATOR).take_replies();
                let reply = replies.into_iter().find(|(request, _)| *request == id);
                return reply.map(|(_, outcome)| outcome).context("the coordinator says nothing");
            }
            let now = self.now;
            for (from, (to, message)) in network {
                self.process(to).step(now, Input::Message { from, message })?;
            }
        }
        bail!("request {} is not done after {ROUNDS_MAX} rounds", self.requests)
    }

    /// Wakes those whose time has come, as a runner does after each turn, brings all logs to their
    /// disks, and answers what goes over the network: from whom, to whom, what.
    fn round(
        &mut self,
        passes: impl Fn(&(NodeId, Message)) -> bool,
    ) -> Result<Vec<(NodeId, (NodeId, Message))>> {
        let (now, mut network) = (self.now, Vec::new());
        for (from, process) in &mut self.processes {
            if process.timer().is_some_and(|timer| timer <= now) {
                process.wake(now)?;
            }
            process.sync(now)?;
            let sends = process.take_sends().into_iter().filter(&passes);
            network.extend(sends.map(|send| (*from, send)));
        }
        Ok(network)
    }

    /// Whether the logs are worth damaging.
    fn check_logs(&self) -> Result<()> {
        for (id, process) in &self.processes {
            let Range { start, end } = process.held();
            ensure!(start > 1, "the log of {id} was never cut");
            ensure!(end - start >= RECORDS_MIN, "{} records in the log of {id}", end - start);
        }
        let in_doubt = self.processes[&NodeId(2)].in_flight(self.now);
        ensure!(in_doubt == 1, "{in_doubt} transactions in doubt at {}", NodeId(2));
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
    node.set_checkpoint_bytes(1 << 9);
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
