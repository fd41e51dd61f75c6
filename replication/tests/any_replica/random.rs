//! Thousands of short random schedules: crashes between any two steps, with any part of the
//! unsynced log surviving, and messages lost, repeated and reordered. Then everything heals, and
//! the judge looks at what was promised.

use std::collections::BTreeMap;
use std::time::Duration;

use kvorum_replication::random::Random;
use kvorum_replication::two_phase::any_replica::message::{
    Age, Decision, Knowledge, Message, Prepare, Settled, TxnId, Vote, Work,
};
use kvorum_replication::two_phase::any_replica::planted::Planted;
use kvorum_replication::two_phase::any_replica::{ReplicaOptions, points};
use kvorum_replication::{
    ClientId, Failure, Happened, Key, NodeId, Operation, Outcome, Precondition, Query, Range,
    RequestId, Stamp, Transaction, Write,
};

use crate::cluster::{Cluster, Event, Packet};
use crate::history::{self, Verdict};

/// Steps of a schedule before everything heals.
const STEPS: usize = 800;
const KEYS: [&str; 4] = ["a", "b", "c", "d"];

/// What has to have happened on some replica of some schedule that went well.
const COUNTED: &[&str] = &[
    "promised_never",
    "aborted_below_finished",
    "reads_waited",
    "reads_impatient",
    "died_of_reads",
    "commits_resent",
    "retries_answered",
    "retries_attached",
    "died",
    "waited",
    "parked",
    "given_up",
    "superseded",
    "waiters_dropped",
    "preconditions_failed",
    "checked_alone",
    "unavailable",
    "unknown",
];

/// How hostile a schedule is.
#[derive(Clone, Copy, Debug)]
struct Hostility {
    replicas: u32,
    loses: bool,
    repeats: bool,
    reorders: bool,
    crashes: bool,
    cuts: bool,
    asks_peers: bool,
    /// Clients ask again and again, with preconditions, at whatever replica.
    insists: bool,
    /// There is room for little.
    tight: bool,
}

/// What was done to the cluster; each has to have happened in some schedule.
#[derive(Debug, Default)]
struct Faults(BTreeMap<&'static str, u64>);

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
    /// Whether a try of it may have happened whose answer was lost, or is still missing.
    unsettled: bool,
}

struct Schedule {
    cluster: Cluster,
    random: Random,
    hostility: Hostility,
    clients: Vec<Client>,
    sessions: Vec<RequestId>,
    heard: usize,
    value: u64,
    /// Repeated messages that come much later.
    late: Vec<Packet>,
    faults: Faults,
}

impl Schedule {
    fn new(seed: u64, hostility: Hostility, planted: Planted, tracing: bool) -> Self {
        // Some participants ask each other at once, so that they meet one who has not voted yet.
        let inquiries_before_peers = u32::from(!hostility.asks_peers) * 2;
        let inquire_after = Duration::from_millis(if hostility.asks_peers { 100 } else { 1000 });
        let options = ReplicaOptions {
            replicas: (1..=hostility.replicas).map(NodeId).collect(),
            seed,
            read_wait_max: Duration::from_secs(4),
            sessions_max: 6,
            inquire_after,
            inquiries_before_peers,
            planted,
            ..ReplicaOptions::default()
        };
        let options = if hostility.tight { tight(options) } else { options };
        let mut cluster = Cluster::new(options, tracing);
        for node in cluster.nodes() {
            cluster.start(node);
        }
        Self {
            cluster,
            random: Random::new(seed ^ 0x5eed),
            hostility,
            clients: Vec::new(),
            sessions: Vec::new(),
            heard: 0,
            value: 0,
            late: Vec::new(),
            faults: Faults::default(),
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.random.below(bound as u64)).expect("it is below a usize")
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        let index = self.below(from.len());
        from[index].clone()
    }

    fn step(&mut self) {
        match self.below(1000) {
            0..600 => self.deliver(),
            600..800 => self.sync(),
            800..900 => self.ask(),
            900..940 => {
                let wait = Duration::from_millis(self.random.below(300));
                self.cluster.tick(wait);
            }
            940..948 if self.hostility.loses => self.lose(),
            948..960 if self.hostility.repeats => self.repeat(),
            960..964 if self.hostility.crashes => self.crash(),
            964..966 if self.hostility.cuts => self.cut(),
            948..960 if self.one_in(3) => self.checkpoint(),
            966..968 => {
                let (node, has_room) = (self.pick(&self.cluster.nodes()), !self.one_in(4));
                self.cluster.room(node, has_room);
                self.faults.count("full disks", u64::from(!has_room));
            }
            968..970 if self.hostility.cuts => self.relink(),
            970..976 if !self.late.is_empty() => {
                let index = self.below(self.late.len());
                self.cluster.network.push(self.late.swap_remove(index));
                self.faults.count("late", 1);
            }
            970..1000 => self.mend(),
            _ => {}
        }
        self.listen();
    }

    fn checkpoint(&mut self) {
        let node = self.pick(&self.cluster.nodes());
        if self.cluster.is_up(node) {
            self.cluster.checkpoint(node);
            self.faults.count("checkpoints", 1);
        }
    }

    fn mend(&mut self) {
        if self.one_in(2) {
            return self.restart();
        }
        let (one, other) = (self.pick(&self.cluster.nodes()), self.pick(&self.cluster.nodes()));
        if one != other {
            self.cluster.heal(one, other);
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
        let node = self.pick(&self.cluster.nodes());
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
            let into = if self.one_in(2) { &mut self.late } else { &mut self.cluster.network };
            into.push(packet);
            self.faults.count("repeated", 1);
        }
    }

    fn crash(&mut self) {
        let node = self.pick(&self.cluster.nodes());
        if !self.cluster.is_up(node) {
            return;
        }
        let keep = self.below(4);
        self.faults.count("crashes", 1);
        self.faults.count("crashes that lose records", u64::from(!self.cluster.is_durable(node)));
        self.cluster.crash(node, keep);
    }

    fn restart(&mut self) {
        let node = self.pick(&self.cluster.nodes());
        if self.cluster.is_up(node) {
            return;
        }
        if self.hostility.crashes && self.one_in(3) {
            let list = if self.one_in(2) { points::COORDINATOR } else { points::PARTICIPANT };
            let point = self.pick(list).name;
            self.cluster.arm(node, point);
        }
        self.cluster.start(node);
    }

    fn cut(&mut self) {
        let (one, other) = (self.pick(&self.cluster.nodes()), self.pick(&self.cluster.nodes()));
        if one != other {
            self.cluster.cut(one, other);
            self.faults.count("cuts", 1);
        }
    }

    /// A new link, and nobody saw the old one break.
    fn relink(&mut self) {
        let (one, other) = (self.pick(&self.cluster.nodes()), self.pick(&self.cluster.nodes()));
        if one != other && self.cluster.is_up(one) && self.cluster.is_up(other) {
            self.cluster.relink(one, other);
            self.faults.count("relinks", 1);
        }
    }

    fn ask(&mut self) {
        if self.sessions.is_empty() && self.clients.len() < 4 && self.one_in(4) {
            let request = self.ask_somebody(Operation::OpenSession);
            self.sessions.extend(request);
            return;
        }
        let reads = if self.hostility.insists { 9 } else { 3 };
        if self.one_in(reads) {
            return self.ask_read();
        }
        let often = if self.hostility.insists { 1 } else { 2 };
        if !self.clients.is_empty() && self.one_in(often) {
            let index = self.below(self.clients.len());
            return self.write_as(index);
        }
        let transaction = self.some_transaction();
        self.ask_somebody(Operation::Transact { stamp: None, transaction });
    }

    fn ask_somebody(&mut self, operation: Operation) -> Option<RequestId> {
        let node = self.pick(&self.cluster.nodes());
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
        let node = self.pick(&self.cluster.nodes());
        let deadline = self.cluster.now.after(Duration::from_secs(5));
        if self.cluster.is_up(node) {
            self.cluster.ask(node, Operation::Read(query), deadline);
        }
    }

    /// The client's next write, or its last one again at any replica, even while that is in flight.
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
        let Some(request) = self.ask_somebody(operation) else {
            if self.clients[index].write.is_none() {
                self.clients[index].sequence -= 1;
            }
            return;
        };
        let client = &mut self.clients[index];
        client.unsettled |= client.write.is_some();
        client.write = Some((request, transaction));
    }

    fn some_transaction(&mut self) -> Transaction {
        let mut transaction = Transaction::default();
        for _ in 0..=self.below(2) {
            let key = Key::from(self.pick(&KEYS));
            self.value += 1;
            transaction.writes.push(match self.below(4) {
                0 => Write::Delete(key),
                _ => Write::Put(key, Key::from(format!("v{}", self.value))),
            });
        }
        let checks = if self.hostility.insists { 1 } else { 3 };
        if self.one_in(checks) {
            let key = Key::from(self.pick(&KEYS));
            transaction.preconditions.push(match self.below(3) {
                0 => Precondition::Absent(key),
                1 => Precondition::Present(key),
                _ => {
                    let value = Key::from(format!("v{}", 1 + self.below(self.value as usize)));
                    Precondition::Equals(key, value)
                }
            });
            if self.one_in(3) && !self.hostility.insists {
                transaction.writes.clear();
            }
        }
        transaction
    }

    /// Puts a message on its way that says anything about anything.
    fn forge(&mut self) {
        let nodes = self.cluster.nodes();
        let (from, to) = (self.pick(&nodes), self.pick(&nodes));
        let (txn, finished_below) = (self.some_txn(), self.some_txn());
        let decision = self.pick(&[Decision::Commit, Decision::Abort]);
        let message = match self.below(7) {
            0 | 1 => self.some_prepare(txn, finished_below),
            2 => {
                let clock = self.pick(&[0, 9, u64::MAX]);
                Message::Vote { txn, vote: self.some_vote(), clock }
            }
            3 => Message::Decide { txn, decision, finished_below },
            4 => Message::Acknowledge { txn },
            5 => Message::Inquire { txn },
            _ if self.one_in(2) => Message::Inform { txn, knowledge: Knowledge::Undecided },
            _ => Message::Inform { txn, knowledge: Knowledge::Decided(decision) },
        };
        self.cluster.network.push(Packet { from, to, message });
    }

    fn some_prepare(&mut self, txn: TxnId, finished_below: TxnId) -> Message {
        let client = ClientId(self.random.below(4));
        let stamp = Stamp { client, sequence: self.random.below(4), answered_below: 0 };
        let writes = self.some_transaction().writes;
        let work = match self.below(4) {
            0 => Work::OpenSession { client },
            _ => Work::Write {
                stamp: self.one_in(2).then_some(stamp),
                writes,
                checked: vec![Key::from(self.pick(&KEYS))],
            },
        };
        let clock = self.pick(&[0, 3, 30, u64::MAX]);
        Message::Prepare(Prepare {
            txn,
            age: Age { clock, first: self.some_txn() },
            participants: self.cluster.nodes().into(),
            work: work.into(),
            finished_below,
        })
    }

    fn some_txn(&mut self) -> TxnId {
        TxnId {
            coordinator: self.pick(&self.cluster.nodes()),
            epoch: self.random.below(4),
            number: self.random.below(12),
        }
    }

    fn some_vote(&mut self) -> Vote {
        let key = Key::from(self.pick(&KEYS));
        self.pick(&[
            Vote::Yes,
            Vote::Refused,
            Vote::Absent,
            Vote::InFlight,
            Vote::Settled(Settled::Committed),
            Vote::Settled(Settled::Refused { precondition: 7 }),
            Vote::StaleSequence,
            Vote::SessionExpired,
            Vote::Overloaded,
            Vote::DiskFull,
            Vote::Conflict(key),
        ])
    }

    /// Clients take their answers.
    fn listen(&mut self) {
        while let Some(event) = self.cluster.events.get(self.heard) {
            self.heard += 1;
            let (request, outcome) = match event {
                Event::Answered { request, outcome, .. } => (request, outcome),
                Event::Crashed { .. } => {
                    self.sessions.clear();
                    continue;
                }
                Event::Asked { .. } => continue,
            };
            if let Outcome::Session(id) = outcome {
                let client = Client { id: *id, sequence: 0, write: None, unsettled: false };
                self.clients.push(client);
                self.sessions.clear();
                continue;
            }
            let happened = match outcome {
                Outcome::Failed(failure) => Some(failure.happened()),
                Outcome::Committed | Outcome::Answer(_) | Outcome::Session(_) => None,
            };
            // Of these it is told whatever became of earlier tries.
            let settles = matches!(
                outcome,
                Outcome::Committed | Outcome::Failed(Failure::PreconditionFailed { .. })
            );
            for client in &mut self.clients {
                // Only the last try counts: one before it may have failed while it did not.
                let is_last = client.write.as_ref().is_some_and(|(last, _)| last == request);
                let ends = settles || (happened == Some(Happened::No) && !client.unsettled);
                if is_last && ends {
                    client.write = None;
                    client.unsettled = false;
                }
            }
        }
    }

    /// Everything comes up again, and the cluster has half a minute to come to rest.
    fn heal(&mut self) -> Result<(), String> {
        let nodes = self.cluster.nodes();
        for one in &nodes {
            for other in &nodes {
                if one < other {
                    self.cluster.heal(*one, *other);
                }
            }
        }
        self.cluster.network.append(&mut self.late);
        for _ in 0..60 {
            for node in &nodes {
                self.cluster.room(*node, true);
                if !self.cluster.is_up(*node) {
                    self.cluster.start(*node);
                }
            }
            self.cluster.run();
            self.cluster.tick(Duration::from_millis(500));
        }
        self.cluster.run();
        for node in nodes {
            let status = self.cluster.status(node).ok_or("a node is down")?;
            if status.in_flight > 0 || status.in_doubt > 0 || status.locks > 0 {
                return Err(format!("{node} has not come to rest: {status:?}"));
            }
            for (name, count) in status.counters {
                match name {
                    "reads_waiting" if count > 0 => {
                        return Err(format!("{node} lets {count} reads wait for nothing"));
                    }
                    name if COUNTED.contains(&name) => {
                        self.faults.count(name, count);
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// With limits that are met all the time.
fn tight(options: ReplicaOptions) -> ReplicaOptions {
    ReplicaOptions {
        in_flight_max: 4,
        unacknowledged_max: 3,
        unfinished_span_max: 8,
        retries_per_transaction_max: 2,
        tries_max: 2,
        prepared_max: 4,
        decided_max: 8,
        waiting_reads_max: 2,
        impatient_reads_max: 1,
        checkpoint_bytes_max: 4,
        alarms_per_timer_max: 2,
        outstanding_max: 6,
        ..options
    }
}

fn hostility(seed: u64) -> Hostility {
    let mut random = Random::new(seed);
    let mut mostly = || random.below(4) > 0;
    Hostility {
        loses: mostly(),
        repeats: mostly(),
        reorders: mostly(),
        crashes: mostly(),
        cuts: mostly(),
        asks_peers: mostly(),
        insists: !mostly(),
        tight: !mostly(),
        replicas: match random.below(4) {
            0 => 1,
            1 => 2,
            _ => 3,
        },
    }
}

fn run(seed: u64, planted: Planted, faults: &mut Faults, tracing: bool) -> Result<Verdict, String> {
    let mut schedule = Schedule::new(seed, hostility(seed), planted, tracing);
    for _ in 0..STEPS {
        schedule.step();
        schedule.cluster.audit()?;
        for line in schedule.cluster.take_trace() {
            println!("{line}");
        }
    }
    let verdict = schedule.heal().and_then(|()| history::judge(&schedule.cluster));
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

/// Messages that only a bug or an attacker would send change what happens, and never stop a node:
/// there is nothing to judge but that nothing panics.
#[test]
fn forged_messages_stop_nobody() {
    let mut forged = 0;
    for seed in 0..400 {
        let mut schedule = Schedule::new(seed, hostility(seed), Planted::default(), false);
        for _ in 0..STEPS {
            if schedule.one_in(4) {
                schedule.forge();
                forged += 1;
            }
            schedule.step();
        }
    }
    assert!(forged > 0);
}

/// `KVORUM_SEEDS=A..B` runs other seeds, and `KVORUM_SEED=N` one of them with its trace.
#[test]
fn random_schedules_keep_every_promise() {
    let mut faults = Faults::default();
    if let Ok(seed) = std::env::var("KVORUM_SEED") {
        let seed = seed.parse().expect("KVORUM_SEED is a number");
        println!("{:?}", hostility(seed));
        let verdict = run(seed, Planted::default(), &mut faults, true);
        println!("{verdict:?} {faults:?}");
        return assert!(verdict.is_ok(), "seed {seed}: {}", verdict.unwrap_err());
    }
    let seeds = std::env::var("KVORUM_SEEDS").unwrap_or_else(|_| "0..2000".to_owned());
    let (first, last) = seeds.split_once("..").expect("KVORUM_SEEDS is A..B");
    let seeds = first.parse::<u64>().unwrap()..last.parse::<u64>().unwrap();
    let mut total = Verdict::default();
    for seed in seeds.clone() {
        match run(seed, Planted::default(), &mut faults, false) {
            Ok(verdict) => {
                total.commits += verdict.commits;
                total.reads += verdict.reads;
                total.refused += verdict.refused;
                total.unknown += verdict.unknown;
            }
            Err(why) => panic!("seed {seed}: {why}"),
        }
    }
    println!("{} schedules: {total:?} {faults:#?}", seeds.count());
    let must_have = [
        "lost",
        "repeated",
        "late",
        "reordered",
        "full disks",
        "relinks",
        "crashes",
        "cuts",
        "checkpoints",
    ]
    .iter()
    .chain(["crashes that lose records"].iter())
    .chain(COUNTED)
    .copied()
    .chain(points::COORDINATOR.iter().chain(points::PARTICIPANT).map(|point| point.name));
    for what in must_have {
        let times = faults.0.get(what).copied().unwrap_or_default();
        assert!(times > 0, "{what} never happened: the schedules prove too little");
    }
    assert!(total.commits > 0 && total.reads > 0 && total.refused > 0 && total.unknown > 0);
}

/// Whether this bug shows itself here.
#[cfg(feature = "planted-bugs")]
pub(crate) fn finds(planted: Planted) -> bool {
    let mut faults = Faults::default();
    (0..4000).any(|seed| {
        let mut try_it = || run(seed, planted, &mut faults, false);
        let judged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(&mut try_it));
        match &judged {
            Ok(Err(why)) => println!("    seed {seed}: {}", why.lines().next().unwrap_or_default()),
            Err(why) => println!(
                "    seed {seed}: panics: {:?}",
                why.downcast_ref::<String>()
                    .map(|it| &**it)
                    .or(why.downcast_ref::<&str>().copied())
            ),
            Ok(Ok(_)) => {}
        }
        !matches!(judged, Ok(Ok(_)))
    })
}
