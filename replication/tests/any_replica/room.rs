//! What replicas that all coordinate bring along to be tested: their options, and the order in which
//! their commits became durable.

use std::collections::{BTreeMap, BTreeSet};

use kvorum_replication::NodeId;
use kvorum_replication::two_phase::any_replica::message::{Age, Message};
use kvorum_replication::two_phase::any_replica::record::{Committed, Record};
use kvorum_replication::two_phase::any_replica::{Replica, ReplicaOptions, points};

use crate::harness::Room;
use crate::harness::cluster;
use crate::harness::machine::{Disk, Machine};
use crate::show;

pub(crate) type Cluster = cluster::Cluster<AnyReplica>;
pub(crate) type Packet = cluster::Packet<AnyReplica>;
pub(crate) type Event = cluster::Event<Age>;

pub(crate) struct AnyReplica {
    options: ReplicaOptions,
    /// Commits in the order in which they became durable, wherever: the serial order.
    pub(crate) order: Vec<Committed>,
    /// How far each node's log was searched for them.
    searched: BTreeMap<NodeId, usize>,
}

impl Cluster {
    pub(crate) fn new(options: ReplicaOptions, tracing: bool) -> Self {
        let nodes = options.replicas.clone();
        let room = AnyReplica { options, order: Vec::new(), searched: BTreeMap::new() };
        Self::of(room, nodes, tracing)
    }

    /// Every table keeps its limit, and who holds or waits for a lock is somebody.
    fn audit(&self) -> Result<(), String> {
        for node in self.nodes() {
            let Some(machine) = self.machine(node) else { continue };
            let audit = machine.core.audit();
            if audit.is_unfit {
                return Err(format!("{node} finds that its log contradicts itself"));
            }
            if let Some(table) = audit.tables.iter().find(|table| table.len > table.max) {
                return Err(format!("{node} holds more than it may: {table:?}"));
            }
            let tries = audit.errands.iter().filter_map(|(_, txn)| *txn);
            let known: BTreeSet<_> = tries.chain(audit.commits).chain(audit.open).collect();
            let mut parties = audit.lock_holders.iter().chain(&audit.lock_waiters);
            if let Some(txn) = parties.find(|txn| !known.contains(txn)) {
                return Err(format!("{node} locks for {txn}, which it does not know"));
            }
        }
        Ok(())
    }
}

impl Room for AnyReplica {
    type Core = Replica;
    type Name = Age;

    const RECORDS_FIRST: bool = false;
    const COPIES_STORES: bool = false;

    fn core(&self, node: NodeId, records: usize, _armed: &[String]) -> Replica {
        Replica::new(ReplicaOptions {
            id: node,
            // Each has its own chance.
            seed: self.options.seed ^ (u64::from(node.0) << 32) ^ records as u64,
            ..self.options.clone()
        })
    }

    fn kind(message: &Message) -> &'static str {
        show::kind(message)
    }

    fn message(message: &Message) -> String {
        show::message(message)
    }

    fn record(record: &Record) -> String {
        show::record(record)
    }

    fn durable_with(mark: u64, _records: usize) -> usize {
        mark as usize
    }

    fn is_behind_write(point: &str) -> bool {
        point == points::COORDINATOR_DECISION_WRITTEN
    }

    fn begun(machine: Option<&Machine<Self>>, logged: &[Record], _sent: &[Packet]) -> Vec<Age> {
        let errands = machine.map(|machine| machine.core.audit().errands).unwrap_or_default();
        let errands: BTreeSet<Age> = errands.into_iter().map(|(age, _)| age).collect();
        let committed = logged.iter().filter_map(|record| match record {
            Record::Committed(committed) => Some(committed.age),
            _ => None,
        });
        errands.into_iter().chain(committed).collect()
    }

    /// What became durable takes its place in the order.
    fn synced(&mut self, node: NodeId, disk: &Disk<Self>) {
        let from = self.searched.insert(node, disk.durable).unwrap_or_default();
        for record in &disk.log[from..disk.durable] {
            if let Record::Committed(committed) = record {
                self.order.push(committed.clone());
            }
        }
    }

    fn order_len(&self) -> usize {
        self.order.len()
    }

    fn wrong(cluster: &mut Cluster) -> Option<String> {
        cluster.audit().err()
    }
}
