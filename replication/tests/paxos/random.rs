//! Random schedules: links that work one way, roles that fail, disks that are lost, leaders that are
//! cut off. The ghost watches every step.

use std::time::Duration;

use kvorum_replication::paxos::planted::Planted;
use kvorum_replication::paxos::{AcceptorRestart, PaxosRole, ReplicaOptions, points};
use kvorum_replication::random::Random;
use kvorum_replication::{Failure, NodeId, Operation, Outcome, Query, RequestId};

use crate::harness::schedule::{self, Client, Driver, keep_every_promise, settles};
use crate::history;
use crate::room::{Cluster, Paxos};

pub(crate) type Schedule = schedule::Schedule<Replicas>;

/// How hostile a schedule is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hostility {
    pub(crate) common: schedule::Hostility,
    nodes: u32,
    founders: u32,
    fails_roles: bool,
    pub(crate) wipes: bool,
    changes_members: bool,
    leases: bool,
    /// Elections so often that ballots overtake each other.
    duels: bool,
    /// How fast time goes, against the messages.
    tick_millis: u64,
    truncates: bool,
    restart: AcceptorRestart,
}

/// What only these schedules remember.
pub(crate) struct Replicas {
    hostility: Hostility,
    /// Whom the last redirect named.
    leader: NodeId,
    /// Who was cut off last while it led: it may not know that another leads.
    deposed: NodeId,
    wiped: u64,
}

pub(crate) fn schedule(
    seed: u64,
    hostility: Hostility,
    planted: Planted,
    tracing: bool,
) -> Schedule {
    let millis = Duration::from_millis;
    let few = if hostility.truncates { 4 } else { 1000 };
    let options = ReplicaOptions {
        founders: (1..=hostility.founders).map(NodeId).collect(),
        seed,
        window: 8,
        pipeline_max: 4,
        gather: Duration::from_nanos(seed % 2),
        batch_commands_max: 3,
        piece_slots_max: 3,
        retained_slots_max: few,
        snapshot_rows_max: 2,
        request_timeout: Duration::from_secs(4),
        heartbeat_interval: millis(100),
        election_timeout_min: millis(300),
        election_timeout_max: millis(600),
        resend_interval: millis(200),
        lease: hostility.leases.then_some(millis(300)),
        acceptor_restart: hostility.restart,
        planted,
        ..ReplicaOptions::default()
    };
    let options = match hostility.duels {
        false => options,
        true => ReplicaOptions {
            heartbeat_interval: millis(40),
            election_timeout_min: millis(50),
            election_timeout_max: millis(120),
            backoff_doublings_max: 4,
            lease: hostility.leases.then_some(millis(50)),
            ..options
        },
    };
    let mut cluster = Cluster::new(options, hostility.nodes, tracing);
    cluster.clocks_differ = true;
    let driver = Replicas { hostility, leader: NodeId(1), deposed: NodeId(1), wiped: 0 };
    Schedule::of(seed, hostility.common, cluster, driver)
}

impl Driver for Replicas {
    type Room = Paxos;
    type Hostility = Hostility;

    const STEPS: usize = 1500;
    const COUNTED: &[&str] = &[
        "campaigns_failed",
        "stepped_down",
        "quorum_lost",
        "reproposed",
        "gaps_filled",
        "learned",
        "snapshots_installed",
        "joins",
        "reads_waited",
        "reads_by_lease",
        "retries_answered",
        "superseded",
        "preconditions_failed",
        "window_filled",
        "refused_sent",
        "accepts_resent",
        "elected",
    ];

    fn hostility(seed: u64) -> Hostility {
        let mut random = Random::new(seed);
        let mut mostly = || random.below(4) > 0;
        let mut hostility = Hostility {
            nodes: 3,
            founders: 3,
            common: schedule::Hostility::any(&mut mostly),
            fails_roles: !mostly(),
            wipes: false,
            changes_members: false,
            leases: !mostly(),
            duels: !mostly() || !mostly(),
            truncates: mostly(),
            tick_millis: 60,
            restart: AcceptorRestart::Durable,
        };
        hostility.tick_millis = [30, 60, 150, 300][random.below(4) as usize];
        match random.below(10) {
            0 => (hostility.nodes, hostility.founders) = (1, 1),
            1 | 2 => (hostility.nodes, hostility.founders) = (5, 5),
            3 | 4 => {
                (hostility.nodes, hostility.founders) = (4, 3);
                hostility.changes_members = true;
            }
            5 => {
                hostility.restart = AcceptorRestart::Rejoin;
                hostility.wipes = true;
            }
            6 => {
                hostility.restart = AcceptorRestart::Rejoin;
                hostility.fails_roles = true;
            }
            _ => {}
        }
        hostility
    }

    fn step(schedule: &mut Schedule) {
        let (hostility, common) = (schedule.driver.hostility, schedule.hostility);
        match schedule.below(1000) {
            0..620 => schedule.deliver(),
            620..780 => schedule.sync(),
            780..880 => schedule.ask(),
            880..930 => schedule.tick(hostility.tick_millis),
            930..938 if common.loses => schedule.lose(),
            938..948 if common.repeats => schedule.repeat(),
            948..951 if common.crashes => schedule.crash(),
            951..953 if common.cuts => schedule.cut_or_block(),
            953..956 => schedule.checkpoint(),
            956..959 => schedule.flush(),
            959..961 if hostility.fails_roles => schedule.fail_role(),
            961..962 if hostility.changes_members => schedule.change_members(),
            962..990 => schedule.mend(),
            990..996 if hostility.duels => schedule.depose(),
            _ => {}
        }
    }

    fn ask(schedule: &mut Schedule, operation: Operation) -> Option<RequestId> {
        let elsewhere = schedule.one_in(4);
        let node = if elsewhere { schedule.some_node() } else { schedule.driver.leader };
        schedule.ask_at(node, operation)
    }

    fn reading(schedule: &mut Schedule, query: Query) -> (NodeId, Operation, Duration) {
        let astray = schedule.one_in(3);
        let node = if astray { schedule.driver.deposed } else { schedule.some_node() };
        let operation = match schedule.one_in(5) {
            true => Operation::ReadStale(query),
            false => Operation::Read(query),
        };
        (node, operation, Duration::from_secs(2))
    }

    fn points(_schedule: &mut Schedule, _node: NodeId) -> Vec<&'static str> {
        points::ALL.iter().map(|point| point.name).collect()
    }

    /// A failure of one try does not end a write: another may be on its way.
    fn ends(_client: &Client, outcome: &Outcome) -> bool {
        settles(outcome)
    }

    fn answered(schedule: &mut Schedule, request: RequestId, outcome: &Outcome) {
        if let Outcome::Failed(Failure::Redirect { to }) = outcome {
            schedule.driver.leader = *to;
        }
        schedule.sessions.retain(|asked| *asked != request);
    }

    fn heal(schedule: &mut Schedule) {
        schedule.heal_all();
        for _ in 0..30 {
            for node in schedule.cluster.nodes() {
                if !schedule.cluster.is_up(node) {
                    schedule.cluster.start(node);
                }
                if schedule.driver.hostility.fails_roles {
                    schedule.cluster.fail_role(node, PaxosRole::Proposer, true);
                    schedule.cluster.fail_role(node, PaxosRole::Learner, true);
                    if schedule.cluster.acceptor_is_down(node) {
                        schedule.cluster.fail_role(node, PaxosRole::Acceptor, true);
                    }
                }
            }
            schedule.cluster.live(Duration::from_millis(400));
        }
    }

    /// Nothing is left over, and everybody holds the same.
    fn judge(schedule: &mut Schedule) -> Result<(), String> {
        history::judge(&schedule.cluster, &mut schedule.counts)?;
        let last = schedule.cluster.ghost.chosen_without_gap();
        for node in schedule.cluster.nodes() {
            let machine = schedule.cluster.machine(node).ok_or("a node is down")?;
            let applied = machine.core.applied().0 as usize;
            if applied != last {
                return Err(format!("{node} has applied {applied} of {last} slots"));
            }
            if machine.rows != schedule.cluster.ghost.states[last] {
                return Err(format!("{node} holds other rows than the slots make"));
            }
        }
        schedule.take_counters()?;
        match schedule.cluster.leader() {
            Some(_) => Ok(()),
            None => Err("nobody leads".to_owned()),
        }
    }
}

impl Schedule {
    fn flush(&mut self) {
        let node = self.some_node();
        self.cluster.flush(node);
        self.counts.add("flushes", 1);
    }

    fn fail_role(&mut self) {
        let node = self.some_node();
        let roles = [PaxosRole::Acceptor, PaxosRole::Proposer, PaxosRole::Learner];
        let role = self.pick(&roles);
        let returns = self.one_in(2);
        // An acceptor that rejoins is not there for a while; with two of three no majority is left,
        // and nobody could let them in again.
        if self.driver.hostility.restart == AcceptorRestart::Rejoin && node.0 != 1 {
            return;
        }
        self.cluster.fail_role(node, role, returns);
        self.counts.add("roles failed", 1);
    }

    /// The leader proposes, and then nobody hears it: its batch is where it got to by then.
    fn depose(&mut self) {
        let Some(leader) = self.cluster.leader() else { return };
        let transaction = self.some_transaction();
        let deadline = self.cluster.now.after(Duration::from_secs(1));
        let operation = Operation::Transact { stamp: None, transaction };
        self.cluster.ask(leader, operation, deadline);
        self.cluster.sync(leader);
        for node in self.cluster.nodes() {
            if node != leader && !self.one_in(3) {
                self.cluster.block(leader, node);
                self.cluster.block(node, leader);
            }
        }
        self.driver.deposed = leader;
        self.counts.add("leaders cut off", 1);
    }

    fn change_members(&mut self) {
        let node = self.cluster.leader().unwrap_or(self.driver.leader);
        let left_out = self.some_node();
        let members: Vec<NodeId> =
            self.cluster.nodes().into_iter().filter(|node| *node != left_out).collect();
        let deadline = self.cluster.now.after(Duration::from_secs(4));
        if self.cluster.is_up(node) {
            self.cluster.ask(node, Operation::ChangeMembers { members }, deadline);
            self.counts.add("member changes asked", 1);
        }
    }

    fn mend(&mut self) {
        match self.below(3) {
            0 => self.restart_or_wipe(),
            1 => self.heal(),
            _ => {
                let node = self.some_node();
                let role = self.pick(&[PaxosRole::Proposer, PaxosRole::Learner]);
                if self.driver.hostility.fails_roles {
                    self.cluster.fail_role(node, role, true);
                }
            }
        }
    }

    fn restart_or_wipe(&mut self) {
        let node = self.some_node();
        if self.cluster.is_up(node) {
            return;
        }
        // One node may lose its disk, again and again.
        if self.driver.hostility.wipes && node == NodeId(1) && self.one_in(2) {
            self.driver.wiped += 1;
            let life = match self.driver.hostility.restart {
                AcceptorRestart::Amnesia => 0,
                AcceptorRestart::Durable | AcceptorRestart::Rejoin => self.driver.wiped * 100,
            };
            self.cluster.wipe(node, life);
            self.counts.add("disks lost", 1);
        }
        self.start_armed(node);
    }

    fn cut_or_block(&mut self) {
        let Some((one, other)) = self.some_pair() else { return };
        if self.one_in(2) {
            self.cluster.cut(one, other);
            self.counts.add("cuts", 1);
        } else {
            self.cluster.block(one, other);
            self.counts.add("one-way cuts", 1);
        }
    }
}

#[test]
fn random_schedules_keep_every_promise() {
    let must_have = ["one-way cuts", "flushes", "disks lost", "roles failed", "leaders cut off"]
        .into_iter()
        .chain(["stale reads"])
        .chain(points::ALL.iter().map(|point| point.name));
    let new =
        |seed, tracing| schedule(seed, Replicas::hostility(seed), Planted::default(), tracing);
    keep_every_promise(new, must_have);
}

/// An acceptor that forgets what it promised and votes all the same breaks Paxos: the ghost has to
/// find two batches chosen in one slot.
#[test]
fn forgetful_acceptors_split_a_slot() {
    let split = |seed| {
        let mut hostility = Hostility {
            wipes: true,
            truncates: false,
            fails_roles: true,
            restart: AcceptorRestart::Amnesia,
            ..Replicas::hostility(seed)
        };
        hostility.common.crashes = true;
        let mut schedule = schedule(seed, hostility, Planted::default(), false);
        for _ in 0..Replicas::STEPS {
            // What rests on the split comes out differently here and there.
            schedule.step();
            if !schedule.cluster.ghost.split.is_empty() {
                return true;
            }
        }
        false
    };
    let found = (0..400).filter(|seed| split(*seed)).count();
    println!("{found} of 400 schedules with forgetful acceptors choose twice");
    assert!(found > 0, "no schedule shows what forgetting does");
}
