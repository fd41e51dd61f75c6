//! Thousands of short random schedules: crashes between any two steps, with any part of the
//! unsynced log surviving, and messages lost, repeated and reordered. Then everything heals, and
//! the room's judge looks at what was promised.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::Range as Span;
use std::time::Duration;

use kvorum_replication::random::Random;
use kvorum_replication::{
    ClientId, Failure, Key, NodeId, Operation, Outcome, Precondition, Query, Range, RequestId,
    Stamp, Transaction, Write,
};

use super::Room;
use super::cluster::{Cluster, Event, Packet};

pub(crate) const KEYS: [&str; 4] = ["a", "b", "c", "d"];

/// What was done to the cluster and what came of it; each has to have happened in some schedule.
#[derive(Debug, Default)]
pub(crate) struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    pub(crate) fn add(&mut self, what: &'static str, times: u64) {
        *self.0.entry(what).or_default() += times;
    }

    fn add_all(&mut self, other: &Self) {
        other.0.iter().for_each(|(what, times)| self.add(what, *times));
    }
}

/// How hostile any schedule is to messages and nodes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hostility {
    pub(crate) loses: bool,
    pub(crate) repeats: bool,
    pub(crate) reorders: bool,
    pub(crate) crashes: bool,
    pub(crate) cuts: bool,
    /// Clients ask again and again, with preconditions.
    pub(crate) insists: bool,
}

impl Hostility {
    /// Mostly everything.
    pub(crate) fn any(mut mostly: impl FnMut() -> bool) -> Self {
        Self {
            loses: mostly(),
            repeats: mostly(),
            reorders: mostly(),
            crashes: mostly(),
            cuts: mostly(),
            insists: false,
        }
    }
}

/// A client with one write at a time, which it repeats until it knows how it ended.
pub(crate) struct Client {
    id: ClientId,
    sequence: u64,
    write: Option<(RequestId, Transaction)>,
    /// Whether a try of it may have happened whose answer was lost, or is still missing.
    pub(crate) unsettled: bool,
}

/// Of these a client is told whatever became of earlier tries.
pub(crate) fn settles(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Failed(failure) => matches!(failure, Failure::PreconditionFailed { .. }),
        Outcome::Committed | Outcome::Answer(_) | Outcome::Session(_) => true,
    }
}

/// What a room's schedules do in their own way.
pub(crate) trait Driver: Sized {
    type Room: Room;
    /// How hostile a schedule is.
    type Hostility: Copy + Debug;

    /// Steps of a schedule before everything heals.
    const STEPS: usize;
    /// What has to have happened on some replica of some schedule that went well.
    const COUNTED: &[&str];

    fn hostility(seed: u64) -> Self::Hostility;

    /// One step of the many.
    fn step(schedule: &mut Schedule<Self>);

    /// Asks whom clients ask, until a time that clients wait, if that node is up.
    fn ask(schedule: &mut Schedule<Self>, operation: Operation) -> Option<RequestId>;

    /// Whom a client reads at, how, and how long it waits for that.
    fn reading(schedule: &mut Schedule<Self>, query: Query) -> (NodeId, Operation, Duration);

    /// The fail points of a node.
    fn points(schedule: &mut Schedule<Self>, node: NodeId) -> Vec<&'static str>;

    /// Whether such an answer to a client's last try ends the write.
    fn ends(client: &Client, outcome: &Outcome) -> bool;

    /// What else follows from an answer.
    fn answered(schedule: &mut Schedule<Self>, request: RequestId, outcome: &Outcome);

    /// Whether requests for a session may be asked of this node.
    fn opens_sessions(_node: NodeId) -> bool {
        true
    }

    /// Everything comes up again, and the cluster has some time to come to rest.
    fn heal(schedule: &mut Schedule<Self>);

    /// Judges a cluster that has come to rest with every node up, and counts what it sees.
    fn judge(schedule: &mut Schedule<Self>) -> Result<(), String>;
}

/// A schedule that is being run. What only one room's schedules know is the driver's.
pub(crate) struct Schedule<D: Driver> {
    pub(crate) cluster: Cluster<D::Room>,
    pub(crate) random: Random,
    pub(crate) hostility: Hostility,
    pub(crate) driver: D,
    pub(crate) clients: Vec<Client>,
    pub(crate) sessions: Vec<RequestId>,
    heard: usize,
    value: u64,
    pub(crate) counts: Counts,
}

impl<D: Driver> Schedule<D> {
    pub(crate) fn of(
        seed: u64,
        hostility: Hostility,
        mut cluster: Cluster<D::Room>,
        driver: D,
    ) -> Self {
        cluster.start_all();
        Self {
            cluster,
            random: Random::new(seed ^ 0x5eed),
            hostility,
            driver,
            clients: Vec::new(),
            sessions: Vec::new(),
            heard: 0,
            value: 0,
            counts: Counts::default(),
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

    pub(crate) fn some_node(&mut self) -> NodeId {
        self.pick(&self.cluster.nodes())
    }

    pub(crate) fn some_key(&mut self) -> Key {
        Key::from(self.pick(&KEYS))
    }

    pub(crate) fn step(&mut self) {
        D::step(self);
        self.listen();
    }

    pub(crate) fn tick(&mut self, millis_below: u64) {
        let wait = Duration::from_millis(self.random.below(millis_below));
        self.cluster.tick(wait);
    }

    pub(crate) fn checkpoint(&mut self) {
        let node = self.some_node();
        if self.cluster.is_up(node) {
            self.cluster.checkpoint(node);
            self.counts.add("checkpoints", 1);
        }
    }

    /// The next message of some link, or any message.
    pub(crate) fn deliver(&mut self) {
        let Some(index) = self.some_message() else { return };
        self.cluster.deliver(index);
    }

    pub(crate) fn some_message(&mut self) -> Option<usize> {
        if self.cluster.network.is_empty() {
            return None;
        }
        let index = self.below(self.cluster.network.len());
        let chosen = &self.cluster.network[index];
        let same_link = |packet: &Packet<_>| packet.from == chosen.from && packet.to == chosen.to;
        let first = self.cluster.network.iter().position(same_link).unwrap_or(index);
        if self.hostility.reorders {
            self.counts.add("reordered", u64::from(first != index));
            Some(index)
        } else {
            Some(first)
        }
    }

    pub(crate) fn sync(&mut self) {
        let node = self.some_node();
        self.cluster.sync(node);
    }

    pub(crate) fn lose(&mut self) {
        if let Some(index) = self.some_message() {
            self.cluster.network.remove(index);
            self.counts.add("lost", 1);
        }
    }

    pub(crate) fn repeat(&mut self) {
        if let Some(packet) = self.repeated() {
            self.cluster.network.push(packet);
        }
    }

    /// A copy of some message.
    pub(crate) fn repeated(&mut self) -> Option<Packet<D::Room>> {
        let index = self.some_message()?;
        self.counts.add("repeated", 1);
        Some(self.cluster.network[index].clone())
    }

    pub(crate) fn crash(&mut self) {
        let node = self.some_node();
        if !self.cluster.is_up(node) {
            return;
        }
        let keep = self.below(4);
        self.counts.add("crashes", 1);
        self.counts.add("crashes that lose records", u64::from(!self.cluster.is_durable(node)));
        self.cluster.crash(node, keep);
    }

    pub(crate) fn restart(&mut self) {
        let node = self.some_node();
        if !self.cluster.is_up(node) {
            self.start_armed(node);
        }
    }

    /// Starts a node, mostly so that it will not die soon.
    pub(crate) fn start_armed(&mut self, node: NodeId) {
        if self.hostility.crashes && self.one_in(3) {
            let points = D::points(self, node);
            let point = self.pick(&points);
            self.cluster.arm(node, point);
        }
        self.cluster.start(node);
    }

    /// Two nodes, unless they are one.
    pub(crate) fn some_pair(&mut self) -> Option<(NodeId, NodeId)> {
        let (one, other) = (self.some_node(), self.some_node());
        (one != other).then_some((one, other))
    }

    pub(crate) fn cut(&mut self) {
        if let Some((one, other)) = self.some_pair() {
            self.cluster.cut(one, other);
            self.counts.add("cuts", 1);
        }
    }

    pub(crate) fn heal(&mut self) {
        if let Some((one, other)) = self.some_pair() {
            self.cluster.heal(one, other);
        }
    }

    pub(crate) fn heal_all(&mut self) {
        let nodes = self.cluster.nodes();
        for (index, one) in nodes.iter().enumerate() {
            for other in &nodes[index + 1..] {
                self.cluster.heal(*one, *other);
            }
        }
    }

    pub(crate) fn ask(&mut self) {
        if self.sessions.is_empty() && self.clients.len() < 4 && self.one_in(4) {
            let request = D::ask(self, Operation::OpenSession);
            self.sessions.extend(request);
            return;
        }
        let (reads, new) = if self.hostility.insists { (9, 1) } else { (3, 2) };
        if self.one_in(reads) {
            return self.ask_read();
        }
        if !self.clients.is_empty() && self.one_in(new) {
            let index = self.below(self.clients.len());
            return self.write_as(index);
        }
        let transaction = self.some_transaction();
        D::ask(self, Operation::Transact { stamp: None, transaction });
    }

    /// Asks a node with a time that clients wait, if it is up.
    pub(crate) fn ask_at(&mut self, node: NodeId, operation: Operation) -> Option<RequestId> {
        let wait = Duration::from_millis(self.random.below(4000));
        let deadline = self.cluster.now.after(wait);
        self.cluster.is_up(node).then(|| self.cluster.ask(node, operation, deadline))
    }

    fn ask_read(&mut self) {
        let query = match self.below(3) {
            0 => Query::Get(self.some_key()),
            1 => Query::GetMany(vec![self.some_key(), self.some_key()]),
            _ => {
                let (start, limit) = (self.some_key(), self.pick(&[1, 2, 3, 4]));
                Query::Scan(Range { start, end: None, limit })
            }
        };
        let (node, operation, wait) = D::reading(self, query);
        if self.cluster.is_up(node) {
            self.cluster.ask(node, operation, self.cluster.now.after(wait));
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
        let asked = D::ask(self, operation);
        let client = &mut self.clients[index];
        if let Some(request) = asked {
            client.unsettled |= client.write.is_some();
            client.write = Some((request, transaction));
        } else if client.write.is_none() {
            client.sequence -= 1;
        }
    }

    pub(crate) fn some_transaction(&mut self) -> Transaction {
        let mut transaction = Transaction::default();
        for _ in 0..=self.below(2) {
            let key = self.some_key();
            self.value += 1;
            transaction.writes.push(match self.below(4) {
                0 => Write::Delete(key),
                _ => Write::Put(key, Key::from(format!("v{}", self.value))),
            });
        }
        let checks = if self.hostility.insists { 1 } else { 3 };
        if self.one_in(checks) {
            let key = self.some_key();
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

    /// Clients take their answers.
    fn listen(&mut self) {
        while let Some(event) = self.cluster.events.get(self.heard) {
            self.heard += 1;
            match event {
                Event::Answered { request, outcome, .. } => {
                    let (request, outcome) = (*request, outcome.clone());
                    self.hear(request, &outcome);
                }
                Event::Crashed { node } if D::opens_sessions(*node) => self.sessions.clear(),
                Event::Crashed { .. } | Event::Asked { .. } => {}
            }
        }
    }

    fn hear(&mut self, request: RequestId, outcome: &Outcome) {
        if let Outcome::Session(id) = outcome {
            self.clients.push(Client { id: *id, sequence: 0, write: None, unsettled: false });
        }
        D::answered(self, request, outcome);
        for client in &mut self.clients {
            // Only the last try counts: one before it may have failed while it did not.
            let is_last = client.write.as_ref().is_some_and(|(last, _)| *last == request);
            if is_last && D::ends(client, outcome) {
                client.write = None;
                client.unsettled = false;
            }
        }
    }

    /// Nothing is open on any node that has come to rest.
    pub(crate) fn at_rest(&self) -> Result<(), String> {
        for node in self.cluster.nodes() {
            let status = self.cluster.status(node).ok_or("a node is down")?;
            if status.in_flight > 0 || status.in_doubt > 0 || status.locks > 0 {
                return Err(format!("{node} has not come to rest: {status:?}"));
            }
        }
        Ok(())
    }

    /// What nodes that have come to rest have counted. Nobody may wait for anything there.
    pub(crate) fn take_counters(&mut self) -> Result<(), String> {
        for node in self.cluster.nodes() {
            let status = self.cluster.status(node).ok_or("a node is down")?;
            for (name, count) in status.counters {
                match name {
                    "queued" | "reads_waiting" if count > 0 => {
                        return Err(format!("{node} has {count} {name} for nothing"));
                    }
                    name if D::COUNTED.contains(&name) => self.counts.add(name, count),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// All steps, rest and judgement; what happened is counted even if it went wrong.
    pub(crate) fn run(mut self, counts: &mut Counts) -> Result<(), String> {
        let verdict = self.steps().and_then(|()| {
            D::heal(&mut self);
            D::judge(&mut self)
        });
        self.print();
        counts.add_all(&self.counts);
        for point in &self.cluster.fired {
            counts.add(point, 1);
        }
        verdict
    }

    fn steps(&mut self) -> Result<(), String> {
        for step in 0..D::STEPS {
            self.step();
            self.print();
            if let Some(what) = D::Room::wrong(&mut self.cluster) {
                return Err(format!("step {step}: {what}"));
            }
        }
        Ok(())
    }

    fn print(&mut self) {
        for line in self.cluster.take_trace() {
            println!("{line}");
        }
    }
}

/// Runs schedules that lies disturb: there is nothing to judge but that nothing panics.
pub(crate) fn stop_nobody<D: Driver>(
    seeds: Span<u64>,
    new: impl Fn(u64) -> Schedule<D>,
    forge: impl Fn(&mut Schedule<D>),
) {
    let mut forged = 0;
    for seed in seeds {
        let mut schedule = new(seed);
        for _ in 0..D::STEPS {
            if schedule.one_in(4) {
                forge(&mut schedule);
                forged += 1;
            }
            schedule.step();
        }
    }
    assert!(forged > 0);
}

/// Runs schedules, and checks that each fault happened in some of them. `KVORUM_SEEDS=A..B` runs
/// other seeds, and `KVORUM_SEED=N` one of them with its trace.
pub(crate) fn keep_every_promise<D: Driver>(
    new: impl Fn(u64, bool) -> Schedule<D>,
    must_have: impl IntoIterator<Item = &'static str>,
) {
    let mut counts = Counts::default();
    if let Ok(seed) = std::env::var("KVORUM_SEED") {
        let seed = seed.parse().expect("KVORUM_SEED is a number");
        println!("{:?}", D::hostility(seed));
        let verdict = new(seed, true).run(&mut counts);
        println!("{verdict:?} {counts:?}");
        if let Err(why) = verdict {
            panic!("seed {seed}: {why}");
        }
        return;
    }
    let seeds = std::env::var("KVORUM_SEEDS").unwrap_or_else(|_| "0..2000".to_owned());
    let (first, last) = seeds.split_once("..").expect("KVORUM_SEEDS is A..B");
    let number = |text: &str| text.parse::<u64>().expect("KVORUM_SEEDS is A..B");
    let seeds = number(first)..number(last);
    for seed in seeds.clone() {
        let _at = Running(seed);
        if let Err(why) = new(seed, false).run(&mut counts) {
            panic!("seed {seed}: {why}");
        }
    }
    println!("{} schedules: {counts:#?}", seeds.count());
    let everywhere = ["commits", "reads", "told no", "told unknown", "checkpoints"]
        .into_iter()
        .chain(["lost", "repeated", "reordered", "crashes", "cuts", "crashes that lose records"]);
    for what in everywhere.chain(D::COUNTED.iter().copied()).chain(must_have) {
        let times = counts.0.get(what).copied().unwrap_or_default();
        assert!(times > 0, "{what} never happened: the schedules prove too little");
    }
}

/// Names the seed in which something panics.
struct Running(u64);

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in seed {}", self.0);
        }
    }
}
