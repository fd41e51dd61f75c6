//! Whether the default timeouts fit a small machine under load: five replicas with disks that take 5 to
//! 50 ms to sync, and pauses of 100 ms in which a process does nothing. Nobody is elected needlessly,
//! and a leader that dies is replaced within a second, be it that its links break or that they fall
//! silent.

use std::time::Duration;

use kvorum_replication::paxos::ReplicaOptions;
use kvorum_replication::random::Random;
use kvorum_replication::{Key, NodeId, Operation, Time, Transaction, Write};

use crate::room::Cluster;

const MILLISECOND: Duration = Duration::from_millis(1);

/// A node of a loaded machine.
#[derive(Clone, Copy)]
struct Load {
    /// It gets no processor before then.
    paused_until: Time,
    /// When the sync that runs is over.
    sync_at: Option<Time>,
}

struct Machines {
    cluster: Cluster,
    random: Random,
    loads: Vec<Load>,
    /// From when on each message on its way can be read, in their order.
    arrivals: Vec<Time>,
}

impl Machines {
    fn new(seed: u64) -> Self {
        let founders = (1..=5).map(NodeId).collect();
        let options = ReplicaOptions { founders, seed, ..ReplicaOptions::default() };
        let mut cluster = Cluster::new(options, 5, false);
        cluster.start_all();
        let load = Load { paused_until: Time(0), sync_at: None };
        Self { cluster, random: Random::new(seed), loads: vec![load; 5], arrivals: Vec::new() }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    /// One millisecond: a process that is not paused rings its timer, reads what has arrived and ends
    /// its sync.
    fn pass(&mut self) {
        let now = self.cluster.now.after(MILLISECOND);
        for node in self.cluster.nodes() {
            let index = node.0 as usize - 1;
            if !self.cluster.is_up(node) {
                continue;
            }
            // Each process stands still for 100 ms about once a second.
            if self.below(1000) == 0 {
                self.loads[index].paused_until = now.after(Duration::from_millis(100));
            }
            if now < self.loads[index].paused_until {
                continue;
            }
            self.cluster.ring_due(node, now);
            self.read(node, now);
            self.sync(node, index, now);
        }
        self.cluster.now = now;
    }

    fn read(&mut self, node: NodeId, now: Time) {
        let mut place = 0;
        self.note_arrivals(now);
        while place < self.cluster.network.len() {
            if self.cluster.network[place].to == node && self.arrivals[place] <= now {
                self.arrivals.remove(place);
                self.cluster.deliver(place);
                self.note_arrivals(now);
            } else {
                place += 1;
            }
        }
    }

    /// What was said just now takes up to 3 ms.
    fn note_arrivals(&mut self, now: Time) {
        while self.arrivals.len() < self.cluster.network.len() {
            let wait = MILLISECOND * (1 + self.below(3) as u32);
            self.arrivals.push(now.after(wait));
        }
        // A cut takes messages away; what is left is late enough.
        self.arrivals.truncate(self.cluster.network.len());
    }

    fn sync(&mut self, node: NodeId, index: usize, now: Time) {
        match self.loads[index].sync_at {
            Some(at) if at <= now => {
                self.cluster.sync(node);
                self.loads[index].sync_at = None;
            }
            Some(_) => {}
            None if self.cluster.is_durable(node) => {}
            None => {
                let takes = MILLISECOND * (5 + self.below(46) as u32);
                self.loads[index].sync_at = Some(now.after(takes));
            }
        }
    }

    fn pass_millis(&mut self, millis: u64) {
        for _ in 0..millis {
            self.pass();
        }
    }

    fn write(&mut self) {
        let Some(leader) = self.cluster.leader() else { return };
        let put = Write::Put(Key::from("k"), Key::from("v"));
        let transaction = Transaction { preconditions: Vec::new(), writes: vec![put] };
        let deadline = self.cluster.now.after(Duration::from_secs(5));
        let operation = Operation::Transact { stamp: None, transaction };
        self.cluster.ask(leader, operation, deadline);
    }

    fn elected(&self) -> u64 {
        let nodes = self.cluster.nodes();
        nodes.iter().filter_map(|node| self.cluster.counter(*node, "elected")).sum()
    }

    /// How long until another than this one leads.
    fn replaced_after(&mut self, old: NodeId) -> u64 {
        for millis in 0..10_000 {
            let leads = |node: &NodeId| {
                *node != old
                    && self.cluster.machine(*node).is_some_and(|machine| machine.core.leads())
            };
            if self.cluster.nodes().iter().any(leads) {
                return millis;
            }
            self.pass();
        }
        10_000
    }
}

#[test]
fn a_loaded_machine_elects_nobody_needlessly() {
    let mut machines = Machines::new(1);
    machines.pass_millis(3000);
    let elected = machines.elected();
    assert!(elected > 0, "somebody leads");
    // Two minutes with a write every 20 ms.
    for _ in 0..6000 {
        machines.write();
        machines.pass_millis(20);
    }
    assert_eq!(machines.elected(), elected, "the leader of the beginning leads still");
}

/// Replaces the leader often, in some way, and returns how long each time took, sorted.
fn times(lose: impl Fn(&mut Cluster, NodeId)) -> Vec<u64> {
    let mut times: Vec<u64> = (0..100)
        .map(|seed| {
            let mut machines = Machines::new(seed);
            machines.pass_millis(3000);
            let leader = machines.cluster.leader().expect("somebody leads after three seconds");
            machines.write();
            machines.pass_millis(seed * 7 % 50);
            lose(&mut machines.cluster, leader);
            machines.note_arrivals(machines.cluster.now);
            machines.replaced_after(leader)
        })
        .collect();
    times.sort_unstable();
    times
}

#[test]
fn a_leader_that_dies_is_replaced_within_a_second() {
    let killed = times(|cluster, leader| cluster.crash(leader, 0));
    let silent = times(|cluster, leader| {
        for node in cluster.nodes() {
            cluster.block(leader, node);
            cluster.block(node, leader);
        }
    });
    println!(
        "links break: median {} ms, of 100 the 95th {}, last {}",
        killed[50], killed[94], killed[99]
    );
    println!(
        "silence: median {} ms, of 100 the 95th {}, last {}",
        silent[50], silent[94], silent[99]
    );
    assert!(killed[94] < 700 && silent[94] < 1000, "{killed:?} {silent:?}");
    assert!(killed[99] < 2000 && silent[99] < 2000, "{killed:?} {silent:?}");
}
