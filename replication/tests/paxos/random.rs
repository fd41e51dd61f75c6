//! Thousands of short random schedules: crashes between any two steps, with any part of the
//! unsynced log surviving, messages lost, repeated and reordered, links that work one way. The ghost
//! watches every step; then everything heals, and the judge looks at what was promised.

use std::collections::BTreeMap;
use std::time::Duration;

use kvorum_replication::paxos::planted::Planted;
use kvorum_replication::paxos::{AcceptorRestart, PaxosRole, ReplicaOptions, points};
use kvorum_replication::random::Random;
use kvorum_replication::{
    ClientId, Failure, Happened, Key, NodeId, Operation, Outcome, Precondition, Query, Range,
    RequestId, Stamp, Transaction, Write,
};

use crate::cluster::{Cluster, Event, Packet};
use crate::history::{self, Verdict};

/// Steps of a schedule before everything heals.
pub(crate) const STEPS: usize = 1500;
pub(crate) const KEYS: [&str; 4] = ["a", "b", "c", "d"];

/// How hostile a schedule is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hostility {
    nodes: u32,
    founders: u32,
    loses: bool,
    repeats: bool,
    reorders: bool,
    pub(crate) crashes: bool,
    cuts: bool,
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

/// What was done to the cluster; each has to have happened in some schedule.
#[derive(Debug, Default)]
pub(crate) struct Faults(BTreeMap<&'static str, u64>);

impl Faults {
    fn count(&mut self, what: &'static str, times: u64) {
        *self.0.entry(what).or_default() += times;
    }
}

/// A client with one write at a time, which it repeats until it knows how it ended.
struct Client {
    id: ClientId,
    sequence: u64,
    write: Option<(RequestId, Transaction)>,
}

pub(crate) struct Schedule {
    pub(crate) cluster: Cluster,
    pub(crate) random: Random,
    hostility: Hostility,
    clients: Vec<Client>,
    sessions: Vec<RequestId>,
    /// Whom the last redirect named.
    leader: NodeId,
    /// Who was cut off last while it led: it may not know that another leads.
    deposed: NodeId,
    heard: usize,
    value: u64,
    wiped: u64,
    faults: Faults,
}

impl Schedule {
    pub(crate) fn new(seed: u64, hostility: Hostility, planted: Planted, tracing: bool) -> Self {
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
        for node in cluster.nodes() {
            cluster.start(node);
        }
        Self {
            cluster,
            random: Random::new(seed ^ 0x5eed),
            hostility,
            clients: Vec::new(),
            sessions: Vec::new(),
            leader: NodeId(1),
            deposed: NodeId(1),
            heard: 0,
            value: 0,
            wiped: 0,
            faults: Faults::default(),
        }
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.random.below(bound as u64)).expect("it is below a usize")
    }

    pub(crate) fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    pub(crate) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        let index = self.below(from.len());
        from[index].clone()
    }

    fn some_node(&mut self) -> NodeId {
        NodeId(1 + self.below(self.hostility.nodes as usize) as u32)
    }

    pub(crate) fn step(&mut self) {
        match self.below(1000) {
            0..620 => self.deliver(),
            620..780 => self.sync(),
            780..880 => self.ask(),
            880..930 => {
                let wait = Duration::from_millis(self.random.below(self.hostility.tick_millis));
                self.cluster.tick(wait);
            }
            930..938 if self.hostility.loses => self.lose(),
            938..948 if self.hostility.repeats => self.repeat(),
            948..951 if self.hostility.crashes => self.crash(),
            951..953 if self.hostility.cuts => self.cut(),
            953..956 => self.checkpoint(),
            956..959 => self.flush(),
            959..961 if self.hostility.fails_roles => self.fail_role(),
            961..962 if self.hostility.changes_members => self.change_members(),
            962..990 => self.mend(),
            990..996 if self.hostility.duels => self.depose(),
            _ => {}
        }
        self.listen();
    }

    fn checkpoint(&mut self) {
        let node = self.some_node();
        if self.cluster.is_up(node) {
            self.cluster.checkpoint(node);
            self.faults.count("checkpoints", 1);
        }
    }

    fn flush(&mut self) {
        let node = self.some_node();
        self.cluster.flush(node);
        self.faults.count("flushes", 1);
    }

    fn fail_role(&mut self) {
        let node = self.some_node();
        let roles = [PaxosRole::Acceptor, PaxosRole::Proposer, PaxosRole::Learner];
        let role = self.pick(&roles);
        let returns = self.one_in(2);
        // An acceptor that rejoins is not there for a while; with two of three no majority is left,
        // and nobody could let them in again.
        if self.hostility.restart == AcceptorRestart::Rejoin && node.0 != 1 {
            return;
        }
        self.cluster.fail_role(node, role, returns);
        self.faults.count("roles failed", 1);
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
        self.deposed = leader;
        self.faults.count("leaders cut off", 1);
    }

    fn change_members(&mut self) {
        let node = self.cluster.leader().unwrap_or(self.leader);
        let left_out = self.some_node();
        let members: Vec<NodeId> =
            self.cluster.nodes().into_iter().filter(|node| *node != left_out).collect();
        let deadline = self.cluster.now.after(Duration::from_secs(4));
        if self.cluster.is_up(node) {
            self.cluster.ask(node, Operation::ChangeMembers { members }, deadline);
            self.faults.count("member changes asked", 1);
        }
    }

    fn mend(&mut self) {
        match self.below(3) {
            0 => self.restart(),
            1 => {
                let (one, other) = (self.some_node(), self.some_node());
                if one != other {
                    self.cluster.heal(one, other);
                }
            }
            _ => {
                let node = self.some_node();
                let role = self.pick(&[PaxosRole::Proposer, PaxosRole::Learner]);
                if self.hostility.fails_roles {
                    self.cluster.fail_role(node, role, true);
                }
            }
        }
    }

    /// The next message of some link, or any message.
    fn deliver(&mut self) {
        let Some(index) = self.some_message() else { return };
        self.cluster.deliver(index);
    }

    fn some_message(&mut self) -> Option<usize> {
        if self.cluster.network.is_empty() {
            return None;
        }
        let index = self.below(self.cluster.network.len());
        let chosen = &self.cluster.network[index];
        let same_link = |packet: &Packet| packet.from == chosen.from && packet.to == chosen.to;
        let first = self.cluster.network.iter().position(same_link).unwrap_or(index);
        if self.hostility.reorders {
            self.faults.count("reordered", u64::from(first != index));
            Some(index)
        } else {
            Some(first)
        }
    }

    fn sync(&mut self) {
        let node = self.some_node();
        self.cluster.sync(node);
    }

    fn lose(&mut self) {
        if let Some(index) = self.some_message() {
            self.cluster.network.remove(index);
            self.faults.count("lost", 1);
        }
    }

    fn repeat(&mut self) {
        if let Some(index) = self.some_message() {
            let packet = self.cluster.network[index].clone();
            self.cluster.network.push(packet);
            self.faults.count("repeated", 1);
        }
    }

    fn crash(&mut self) {
        let node = self.some_node();
        if !self.cluster.is_up(node) {
            return;
        }
        let keep = self.below(4);
        self.faults.count("crashes", 1);
        self.faults.count("crashes that lose records", u64::from(!self.cluster.is_durable(node)));
        self.cluster.crash(node, keep);
    }

    fn restart(&mut self) {
        let node = self.some_node();
        if self.cluster.is_up(node) {
            return;
        }
        // One node may lose its disk, again and again.
        if self.hostility.wipes && node == NodeId(1) && self.one_in(2) {
            self.wiped += 1;
            let life = match self.hostility.restart {
                AcceptorRestart::Amnesia => 0,
                AcceptorRestart::Durable | AcceptorRestart::Rejoin => self.wiped * 100,
            };
            self.cluster.wipe(node, life);
            self.faults.count("disks lost", 1);
        }
        if self.hostility.crashes && self.one_in(3) {
            let point = self.pick(points::ALL).name;
            self.cluster.arm(node, point);
        }
        self.cluster.start(node);
    }

    fn cut(&mut self) {
        let (one, other) = (self.some_node(), self.some_node());
        if one == other {
            return;
        }
        if self.one_in(2) {
            self.cluster.cut(one, other);
            self.faults.count("cuts", 1);
        } else {
            self.cluster.block(one, other);
            self.faults.count("one-way cuts", 1);
        }
    }

    fn ask(&mut self) {
        if self.sessions.is_empty() && self.clients.len() < 4 && self.one_in(4) {
            let request = self.ask_some(Operation::OpenSession);
            self.sessions.extend(request);
            return;
        }
        if self.one_in(3) {
            return self.ask_read();
        }
        if !self.clients.is_empty() && self.one_in(2) {
            let index = self.below(self.clients.len());
            return self.write_as(index);
        }
        let transaction = self.some_transaction();
        self.ask_some(Operation::Transact { stamp: None, transaction });
    }

    fn ask_some(&mut self, operation: Operation) -> Option<RequestId> {
        let node = if self.one_in(4) { self.some_node() } else { self.leader };
        let wait = Duration::from_millis(self.random.below(4000));
        let deadline = self.cluster.now.after(wait);
        self.cluster.is_up(node).then(|| self.cluster.ask(node, operation, deadline))
    }

    fn ask_read(&mut self) {
        let key = |schedule: &mut Self| Key::from(schedule.pick(&KEYS));
        let query = match self.below(3) {
            0 => Query::Get(key(self)),
            1 => Query::GetMany(vec![key(self), key(self)]),
            _ => {
                Query::Scan(Range { start: key(self), end: None, limit: self.pick(&[1, 2, 3, 4]) })
            }
        };
        let node = if self.one_in(3) { self.deposed } else { self.some_node() };
        let deadline = self.cluster.now.after(Duration::from_secs(2));
        let operation = match self.one_in(5) {
            true => Operation::ReadStale(query),
            false => Operation::Read(query),
        };
        if self.cluster.is_up(node) {
            self.cluster.ask(node, operation, deadline);
        }
    }

    /// The client's next write, or its last one again, even while that is still in flight.
    fn write_as(&mut self, index: usize) {
        let transaction = match &self.clients[index].write {
            Some((_, transaction)) => transaction.clone(),
            None => {
                self.clients[index].sequence += 1;
                self.some_transaction()
            }
        };
        let (id, sequence) = (self.clients[index].id, self.clients[index].sequence);
        let stamp = Some(Stamp { client: id, sequence, answered_below: sequence });
        let operation = Operation::Transact { stamp, transaction: transaction.clone() };
        if let Some(request) = self.ask_some(operation) {
            self.clients[index].write = Some((request, transaction));
        } else if self.clients[index].write.is_none() {
            self.clients[index].sequence -= 1;
        }
    }

    pub(crate) fn some_transaction(&mut self) -> Transaction {
        let mut transaction = Transaction::default();
        for _ in 0..=self.below(2) {
            let key = Key::from(self.pick(&KEYS));
            self.value += 1;
            transaction.writes.push(match self.below(4) {
                0 => Write::Delete(key),
                _ => Write::Put(key, Key::from(format!("v{}", self.value))),
            });
        }
        if self.one_in(3) {
            let key = Key::from(self.pick(&KEYS));
            transaction.preconditions.push(match self.below(3) {
                0 => Precondition::Absent(key),
                1 => Precondition::Present(key),
                _ => {
                    let value = Key::from(format!("v{}", 1 + self.below(self.value as usize)));
                    Precondition::Equals(key, value)
                }
            });
            if self.one_in(3) {
                transaction.writes.clear();
            }
        }
        transaction
    }

    /// Clients take their answers.
    fn listen(&mut self) {
        while let Some(event) = self.cluster.events.get(self.heard) {
            self.heard += 1;
            match event {
                Event::Answered { request, outcome, .. } => {
                    if let Outcome::Failed(Failure::Redirect { to }) = outcome {
                        self.leader = *to;
                    }
                    if let Outcome::Session(id) = outcome {
                        self.clients.push(Client { id: *id, sequence: 0, write: None });
                    }
                    self.sessions.retain(|asked| asked != request);
                    let ends = match outcome {
                        Outcome::Failed(failure) => failure.happened() == Happened::No,
                        Outcome::Committed | Outcome::Answer(_) | Outcome::Session(_) => true,
                    };
                    // A failure of one try does not end a write: another may be on its way.
                    let is_final = match outcome {
                        Outcome::Failed(failure) => {
                            matches!(failure, Failure::PreconditionFailed { .. })
                        }
                        Outcome::Committed | Outcome::Answer(_) | Outcome::Session(_) => true,
                    };
                    for client in &mut self.clients {
                        let is_it = client.write.as_ref().is_some_and(|(last, _)| last == request);
                        if is_it && ends && is_final {
                            client.write = None;
                        }
                    }
                }
                Event::Crashed { .. } => self.sessions.clear(),
                Event::Asked { .. } => {}
            }
        }
    }

    /// Everything comes up again, and the cluster has some time to come to rest.
    fn heal(&mut self) -> Result<(), String> {
        let nodes = self.cluster.nodes();
        for one in &nodes {
            for other in &nodes {
                if one < other {
                    self.cluster.heal(*one, *other);
                }
            }
        }
        for _ in 0..30 {
            for node in &nodes {
                if !self.cluster.is_up(*node) {
                    self.cluster.start(*node);
                }
                if self.hostility.fails_roles {
                    self.cluster.fail_role(*node, PaxosRole::Proposer, true);
                    self.cluster.fail_role(*node, PaxosRole::Learner, true);
                    if self.cluster.acceptor_is_down(*node) {
                        self.cluster.fail_role(*node, PaxosRole::Acceptor, true);
                    }
                }
            }
            self.cluster.live(Duration::from_millis(400));
        }
        Ok(())
    }

    /// Nothing is left over, and everybody holds the same.
    fn rest(&mut self) -> Result<(), String> {
        let last = self.cluster.ghost.chosen_without_gap();
        for node in self.cluster.nodes() {
            let machine = self.cluster.machine(node).ok_or("a node is down")?;
            let applied = machine.core.applied().0 as usize;
            if applied != last {
                return Err(format!("{node} has applied {applied} of {last} slots"));
            }
            if machine.rows != self.cluster.ghost.states[last] {
                return Err(format!("{node} holds other rows than the slots make"));
            }
            let status = self.cluster.status(node).ok_or("a node is down")?;
            for (name, count) in status.counters {
                match name {
                    "queued" | "reads_waiting" if count > 0 => {
                        return Err(format!("{node} has {count} {name} for nothing"));
                    }
                    "campaigns_failed"
                    | "stepped_down"
                    | "quorum_lost"
                    | "reproposed"
                    | "gaps_filled"
                    | "learned"
                    | "snapshots_installed"
                    | "joins"
                    | "reads_waited"
                    | "reads_by_lease"
                    | "retries_answered"
                    | "superseded"
                    | "preconditions_failed"
                    | "accepts_resent"
                    | "window_filled"
                    | "refused_sent"
                    | "elected" => self.faults.count(name, count),
                    _ => {}
                }
            }
        }
        if self.cluster.leader().is_none() {
            return Err("nobody leads".to_owned());
        }
        Ok(())
    }
}

pub(crate) fn hostility(seed: u64) -> Hostility {
    let mut random = Random::new(seed);
    let mut mostly = || random.below(4) > 0;
    let mut hostility = Hostility {
        nodes: 3,
        founders: 3,
        loses: mostly(),
        repeats: mostly(),
        reorders: mostly(),
        crashes: mostly(),
        cuts: mostly(),
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

pub(crate) fn run(
    seed: u64,
    hostility: Hostility,
    planted: Planted,
    faults: &mut Faults,
    tracing: bool,
) -> Result<Verdict, String> {
    let mut schedule = Schedule::new(seed, hostility, planted, tracing);
    let mut wrong = None;
    for step in 0..STEPS {
        schedule.step();
        for line in schedule.cluster.take_trace() {
            println!("{line}");
        }
        if let Some(what) = schedule.cluster.ghost.wrong.take() {
            wrong = Some(format!("step {step}: {what}"));
            break;
        }
    }
    let verdict = match wrong {
        Some(what) => Err(what),
        None => schedule
            .heal()
            .and_then(|()| history::judge(&schedule.cluster))
            .and_then(|verdict| schedule.rest().map(|()| verdict)),
    };
    for line in schedule.cluster.take_trace() {
        println!("{line}");
    }
    for (what, times) in &schedule.faults.0 {
        faults.count(what, *times);
    }
    for point in &schedule.cluster.fired {
        faults.count(point, 1);
    }
    verdict
}

fn seeds(default: &str) -> std::ops::Range<u64> {
    let seeds = std::env::var("KVORUM_SEEDS").unwrap_or_else(|_| default.to_owned());
    let (first, last) = seeds.split_once("..").expect("KVORUM_SEEDS is A..B");
    let number = |text: &str| text.parse().expect("KVORUM_SEEDS is A..B");
    number(first)..number(last)
}

/// `KVORUM_SEEDS=A..B` runs other seeds, and `KVORUM_SEED=N` one of them with its trace.
#[test]
fn random_schedules_keep_every_promise() {
    let mut faults = Faults::default();
    if let Ok(seed) = std::env::var("KVORUM_SEED") {
        let seed = seed.parse().expect("KVORUM_SEED is a number");
        println!("{:?}", hostility(seed));
        let verdict = run(seed, hostility(seed), Planted::default(), &mut faults, true);
        println!("{verdict:?} {faults:?}");
        return assert!(verdict.is_ok(), "seed {seed}: {}", verdict.unwrap_err());
    }
    let seeds = seeds("0..2000");
    let mut total = Verdict::default();
    for seed in seeds.clone() {
        match run(seed, hostility(seed), Planted::default(), &mut faults, false) {
            Ok(verdict) => {
                total.slots += verdict.slots;
                total.committed += verdict.committed;
                total.reads += verdict.reads;
                total.stale_reads += verdict.stale_reads;
                total.refused += verdict.refused;
                total.unknown += verdict.unknown;
            }
            Err(why) => panic!("seed {seed}: {why}"),
        }
    }
    println!("{} schedules: {total:?} {faults:#?}", seeds.count());
    let must_have = ["lost", "repeated", "reordered", "crashes", "cuts", "one-way cuts"]
        .into_iter()
        .chain(["checkpoints", "flushes", "crashes that lose records", "disks lost"])
        .chain(["roles failed", "campaigns_failed", "stepped_down", "quorum_lost", "reproposed"])
        .chain(["gaps_filled", "learned", "snapshots_installed", "joins", "reads_waited"])
        .chain(["reads_by_lease", "retries_answered", "superseded", "preconditions_failed"])
        .chain(["window_filled", "refused_sent", "leaders cut off"])
        .chain(points::ALL.iter().map(|point| point.name));
    for what in must_have {
        let times = faults.0.get(what).copied().unwrap_or_default();
        assert!(times > 0, "{what} never happened: the schedules prove too little");
    }
    assert!(total.committed > 0 && total.reads > 0 && total.stale_reads > 0);
    assert!(total.refused > 0 && total.unknown > 0);
}

/// An acceptor that forgets what it promised and votes all the same breaks Paxos: the ghost has to
/// find two batches chosen in one slot.
#[test]
fn forgetful_acceptors_split_a_slot() {
    let split = |seed| {
        let hostility = Hostility {
            wipes: true,
            crashes: true,
            truncates: false,
            fails_roles: true,
            restart: AcceptorRestart::Amnesia,
            ..hostility(seed)
        };
        let mut schedule = Schedule::new(seed, hostility, Planted::default(), false);
        for _ in 0..STEPS {
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
