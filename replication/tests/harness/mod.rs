//! The furniture that every protocol's room is tested with: a machine with a disk, a cluster with a
//! network, scenario scripts, and the driver of random schedules. A room says what is its own by the
//! trait [`Room`]; what a judge or a ghost looks at stays with it.

pub(crate) mod cluster;
pub(crate) mod machine;
pub(crate) mod rows;
pub(crate) mod schedule;
pub(crate) mod script;
pub(crate) mod show;

use std::fmt::Debug;

use kvorum_replication::{Core, NodeId, Time};

use self::cluster::{Cluster, Packet};
use self::machine::{Disk, Machine, Output};

pub(crate) type MessageOf<R> = <<R as Room>::Core as Core>::Message;
pub(crate) type RecordOf<R> = <<R as Room>::Core as Core>::Record;
pub(crate) type ResumeOf<R> = <<R as Room>::Core as Core>::Resume;

/// A protocol under test: its options, and all that watches it.
pub(crate) trait Room: Sized {
    type Core: Core;
    /// By what the judge knows a write.
    type Name: Clone + Debug + PartialEq;

    /// Whether a step's records are appended before anything else of it is done, as the real shell
    /// does; or in their turn.
    const RECORDS_FIRST: bool;
    /// Whether writes may be applied only when a record of their step is durable.
    const APPLIES_BEHIND_RECORDS: bool = false;
    /// Whether replicas copy whole stores from each other.
    const COPIES_STORES: bool;
    /// Whether a cluster has come to rest only when everything is durable as well.
    const RESTS_DURABLY: bool = true;
    /// What the mark of applied writes is shown with.
    const MARK_SIGN: &'static str = "";

    /// A core that has recovered nothing yet, of a node whose disk holds so many records.
    fn core(&self, node: NodeId, records: usize, armed: &[String]) -> Self::Core;

    /// The first word of [`Room::message`], by which scripts choose messages.
    fn kind(message: &MessageOf<Self>) -> &'static str;
    fn message(message: &MessageOf<Self>) -> String;
    fn record(record: &RecordOf<Self>) -> String;

    /// How many records are durable once all that is applied up to this mark was flushed.
    fn durable_with(mark: u64, records: usize) -> usize;

    /// Whether the records of the step are written when the node dies at this point.
    fn is_behind_write(_point: &str) -> bool {
        false
    }

    /// How many of its records that are not durable survive a death at this point.
    fn kept_at(_point: &str) -> usize {
        0
    }

    /// Whether messages to a node that died are lost with its links, as over TCP.
    fn links_die(&self) -> bool {
        false
    }

    /// What a node's own clock shows then.
    fn clock(&self, _node: NodeId, now: Time) -> Time {
        now
    }

    /// When a node's own clock shows this.
    fn when(&self, _node: NodeId, shown: Time) -> Time {
        shown
    }

    /// Names of writes that a node works on, and of those that it has logged or sent just now.
    fn begun(
        machine: Option<&Machine<Self>>,
        logged: &[RecordOf<Self>],
        sent: &[Packet<Self>],
    ) -> Vec<Self::Name>;

    /// More of a node's records may have become durable.
    fn synced(&mut self, _node: NodeId, _disk: &Disk<Self>) {}

    /// A node has made a step.
    fn stepped(&mut self, _node: NodeId, _machine: &Machine<Self>, _outputs: &[Output<Self>]) {}

    /// A node is down.
    fn stopped(&mut self, _node: NodeId) {}

    /// A node has lost its disk.
    fn wiped(&mut self, _node: NodeId, _life: u64) {}

    /// How long the order is that everybody will agree on, as far as anybody may know it.
    fn order_len(&self) -> usize;

    /// What is wrong with the cluster, if that can be said after any step.
    fn wrong(_cluster: &mut Cluster<Self>) -> Option<String> {
        None
    }
}
