//! Nobody starves: many clients at all replicas want the same few keys, nothing fails, and everybody
//! gets through. There is no deadlock to time out, and who loses wins in time.

use std::collections::BTreeMap;
use std::time::Duration;

use kvorum_replication::random::Random;
use kvorum_replication::two_phase::any_replica::ReplicaOptions;
use kvorum_replication::two_phase::any_replica::planted::Planted;
use kvorum_replication::{
    Key, NodeId, Operation, Outcome, Query, Range, RequestId, Time, Transaction, Write,
};

use crate::harness::schedule::{Counts, KEYS};
use crate::history;
use crate::room::{Cluster, Event};

const REPLICAS: u32 = 3;

/// What a client at one replica does over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    /// Writes one key.
    Small,
    /// Writes two keys, in any order.
    Pair,
    /// Writes all keys.
    Large,
    /// Reads all keys.
    Scan,
}

struct Client {
    at: NodeId,
    habit: Habit,
    asked: Option<(RequestId, Time)>,
    done: u32,
}

/// The longest that somebody waited, and how often somebody died.
#[derive(Clone, Copy, Debug, Default)]
struct Waits {
    longest: Duration,
    died: u64,
}

struct Contention {
    cluster: Cluster,
    random: Random,
    clients: Vec<Client>,
    by_request: BTreeMap<RequestId, usize>,
    heard: usize,
    value: u64,
    waits: Waits,
}

impl Contention {
    fn new(seed: u64, planted: Planted) -> Self {
        let options = ReplicaOptions {
            replicas: (1..=REPLICAS).map(NodeId).collect(),
            seed,
            planted,
            ..ReplicaOptions::default()
        };
        let mut cluster = Cluster::new(options, false);
        cluster.start_all();
        cluster.run();
        let habits = [Habit::Small, Habit::Small, Habit::Pair, Habit::Large, Habit::Scan];
        let clients = cluster
            .nodes()
            .into_iter()
            .flat_map(|at| habits.map(|habit| Client { at, habit, asked: None, done: 0 }))
            .collect();
        Self {
            cluster,
            random: Random::new(seed ^ 0xc0de),
            clients,
            by_request: BTreeMap::new(),
            heard: 0,
            value: 0,
            waits: Waits::default(),
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.random.below(bound as u64)).expect("it is below a usize")
    }

    /// Whoever has its answer asks again.
    fn ask(&mut self) {
        for index in 0..self.clients.len() {
            if self.clients[index].asked.is_none() {
                let (at, habit) = (self.clients[index].at, self.clients[index].habit);
                let operation = self.operation(habit);
                let now = self.cluster.now;
                let request = self.cluster.ask(at, operation, Time::NEVER);
                self.clients[index].asked = Some((request, now));
                self.by_request.insert(request, index);
            }
        }
    }

    fn operation(&mut self, habit: Habit) -> Operation {
        let first = self.below(KEYS.len());
        let second = (first + 1 + self.below(KEYS.len() - 1)) % KEYS.len();
        let keys: Vec<&str> = match habit {
            Habit::Small => vec![KEYS[first]],
            Habit::Pair => vec![KEYS[first], KEYS[second]],
            Habit::Large => KEYS.to_vec(),
            Habit::Scan => {
                let all = Range { start: Key::from("a"), end: None, limit: 9 };
                return Operation::Read(Query::Scan(all));
            }
        };
        self.value += 1;
        let value = format!("v{}", self.value);
        let writes = keys
            .into_iter()
            .map(|key| Write::Put(Key::from(key.to_owned()), Key::from(value.clone())))
            .collect();
        Operation::Transact {
            stamp: None,
            transaction: Transaction { preconditions: Vec::new(), writes },
        }
    }

    fn listen(&mut self) -> Result<(), String> {
        while let Some(event) = self.cluster.events.get(self.heard) {
            self.heard += 1;
            let Event::Answered { request, outcome, .. } = event else { continue };
            let index = self.by_request.remove(request).ok_or("an answer to no question")?;
            let client = &mut self.clients[index];
            if let Outcome::Failed(failure) = outcome {
                return Err(format!("{:?} at {}: {failure:?}", client.habit, client.at));
            }
            let (_, since) = client.asked.take().ok_or("it was asked")?;
            client.done += 1;
            self.waits.longest = self.waits.longest.max(self.cluster.now.since(since));
        }
        Ok(())
    }

    /// A tenth of a millisecond, in which a message or two arrive on each link and disks sync.
    fn step(&mut self) {
        for _ in 0..8 {
            if !self.cluster.network.is_empty() {
                let index = self.below(self.cluster.network.len());
                let chosen = self.cluster.network[index].clone();
                let first = self
                    .cluster
                    .network
                    .iter()
                    .position(|it| (it.from, it.to) == (chosen.from, chosen.to));
                self.cluster.deliver(first.unwrap_or(index));
            }
        }
        let node = NodeId(u32::try_from(1 + self.below(REPLICAS as usize)).expect("it is small"));
        self.cluster.sync(node);
        self.cluster.tick(Duration::from_micros(100));
    }
}

/// Half a second of it; then everybody may finish.
fn contend(seed: u64, planted: Planted) -> Result<Contention, String> {
    let mut contention = Contention::new(seed, planted);
    for _ in 0..5000 {
        contention.ask();
        contention.step();
        contention.listen()?;
    }
    for _ in 0..100 {
        contention.cluster.live(Duration::from_millis(10));
        contention.listen()?;
    }
    for client in &contention.clients {
        if client.asked.is_some() || client.done < 5 {
            let (at, habit) = (client.at, client.habit);
            return Err(format!("{habit:?} at {at} got only {} done", client.done));
        }
    }
    for node in contention.cluster.nodes() {
        contention.waits.died += contention.cluster.counter(node, "died").unwrap_or_default();
    }
    if contention.waits.longest > Duration::from_millis(200) {
        return Err(format!("somebody waited for {:?}", contention.waits.longest));
    }
    Ok(contention)
}

#[test]
fn nobody_starves() {
    let mut died = 0;
    let mut longest = Duration::ZERO;
    for seed in 0..20 {
        match contend(seed, Planted::default()) {
            Ok(contention) => {
                died += contention.waits.died;
                longest = longest.max(contention.waits.longest);
                history::judge(&contention.cluster, &mut Counts::default()).unwrap();
            }
            Err(why) => panic!("seed {seed}: {why}"),
        }
    }
    println!("died {died} times, the longest wait was {longest:?}");
    assert!(died > 0, "nobody met anybody: this proves nothing");
}

/// Whether this bug shows itself here.
#[cfg(feature = "planted-bugs")]
pub(crate) fn finds(planted: Planted) -> bool {
    (0..5).any(|seed| {
        let contended = std::panic::catch_unwind(|| contend(seed, planted));
        match &contended {
            Ok(Err(why)) => println!("    seed {seed}: {why}"),
            Err(_) => println!("    seed {seed}: panics"),
            Ok(Ok(_)) => {}
        }
        !matches!(contended, Ok(Ok(_)))
    })
}
