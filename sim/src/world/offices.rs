//! Faults of clusters in which any node may lead, and leave, and come back as somebody else.

use std::time::Duration;

use kvorum_replication::{NodeId, Request, RequestId};

use super::World;
use super::strikes::drawn_crash;
use crate::disk::{Crash, Disk};
use crate::faults::Fault;
use crate::network::Pair;
use crate::plan::Strike;
use crate::process::{Happening, Protocol};
use crate::queue::MILLISECOND;

/// How long a node is away at least, if it is to be long.
const LONG: u64 = 500 * MILLISECOND;

/// How long a change of members may take.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(2);

impl<P: Protocol> World<P> {
    pub(super) fn strike_cluster(&mut self, strike: &Strike) {
        let Strike { fault, node, lasts, number, .. } = *strike;
        match fault {
            Fault::LeaderKilled => {
                if let Some(leader) = self.running_leader() {
                    self.counts.count(fault);
                    self.die(leader, drawn_crash(number), lasts);
                }
            }
            Fault::LeaderIsolated => {
                if let Some(leader) = self.running_leader() {
                    self.counts.count(fault);
                    self.deposed = Some((leader, self.queue.now() + lasts));
                    self.isolate(leader, lasts);
                }
            }
            Fault::LeaderHalfIsolated => {
                if let Some(leader) = self.running_leader() {
                    self.counts.count(fault);
                    self.deposed = Some((leader, self.queue.now() + lasts));
                    self.half_isolate(leader, number.is_multiple_of(2), lasts);
                }
            }
            Fault::LongAbsence => {
                self.counts.count(fault);
                match number.is_multiple_of(2) {
                    true => self.isolate(node, LONG + lasts),
                    false => self.die(node, drawn_crash(number), LONG + lasts),
                }
            }
            Fault::LongPause => {
                if self.pause(node, LONG + lasts) {
                    self.counts.count(fault);
                }
            }
            Fault::CutFromCoordinator => {
                self.counts.count(fault);
                let replica = if node == NodeId::COORDINATOR { strike.other } else { node };
                self.cut_pair(Pair::of(NodeId::COORDINATOR, replica), LONG + lasts);
            }
            Fault::DiskLost => {
                if self.protocol.may_lose_disk(node) {
                    self.counts.count(fault);
                    self.lose_disk(node, lasts);
                }
            }
            Fault::MembersChanged => self.change_members(strike),
            other => unreachable!("{other:?} is a fault of every protocol"),
        }
    }

    /// Lets a process stand still. One pause at a time: what waits for its end must come in order.
    pub(super) fn pause(&mut self, node: NodeId, lasts: u64) -> bool {
        let now = self.queue.now();
        let machine = self.machine(node);
        let may = machine.process.is_some() && machine.paused_until.is_none_or(|t| t <= now);
        if may {
            machine.paused_until = Some(now + lasts);
        }
        may
    }

    fn running_leader(&self) -> Option<NodeId> {
        let leader = self.protocol.leader()?;
        self.machines[&leader].process.is_some().then_some(leader)
    }

    /// Lets nothing through from a node, or to it.
    fn half_isolate(&mut self, node: NodeId, is_mute: bool, lasts: u64) {
        let others: Vec<NodeId> =
            self.machines.keys().copied().filter(|other| *other != node).collect();
        for other in others {
            match is_mute {
                true => self.cut_way(node, other, lasts),
                false => self.cut_way(other, node, lasts),
            }
        }
    }

    /// A machine breaks down, and another takes its place with an empty disk.
    fn lose_disk(&mut self, node: NodeId, lasts: u64) {
        self.die(node, Crash::PowerLoss, lasts);
        self.say(node, || "has lost its disk".to_owned());
        self.machine(node).disk = Disk::new();
        self.protocol.lost_disk(node);
    }

    /// An operator asks whoever decides for other replicas, and does not wait for the answer.
    fn change_members(&mut self, strike: &Strike) {
        let Some(operation) = self.protocol.other_members(strike.number) else { return };
        let chief = self.protocol.leader().or(self.protocol.writer());
        let node = chief.unwrap_or(strike.node);
        let deadline = self.time(node).after(CHANGE_TIMEOUT);
        let machine = self.machine(node);
        if machine.process.is_none() {
            return;
        }
        machine.next_request += 1;
        let id = RequestId(machine.next_request);
        self.counts.count(strike.fault);
        self.say("operator", || format!("asks {node}: {operation:?}"));
        self.tell(node, Happening::Request(Request { id, deadline, operation }));
    }
}
