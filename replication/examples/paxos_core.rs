//! What a put costs the cores of three replicas, without disks, codecs and sockets:
//! `cargo run --release -p kvorum-replication --example paxos_core`.
//!
//! Each replica takes what has arrived in turns, as its node does, and its log is durable a turn after
//! it was written. So many puts are always in flight. Only the steps of the cores are timed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use kvorum_replication::paxos::message::Message;
use kvorum_replication::paxos::record::Record;
use kvorum_replication::paxos::{Replica, ReplicaOptions, Resume};
use kvorum_replication::{
    Core, Effect, Effects, Input, Key, NodeId, Operation, Request, RequestId, Stamp, Time,
    Transaction, Write,
};

type InputOf = Input<Message, Resume>;
type EffectOf = Effect<Message, Record, Resume>;

/// Puts of one measurement.
const PUTS: u64 = 400_000;
/// How long a turn lasts on the clock of the cores.
const TURN: Duration = Duration::from_micros(200);

struct Node {
    core: Replica,
    effects: Effects<Message, Record, Resume>,
    arrived: Vec<InputOf>,
    /// Behind a record that the next turn finds durable.
    held: VecDeque<EffectOf>,
    timer: Time,
    spent: Duration,
    records: u64,
    messages: u64,
}

/// What a turn brings to others.
#[derive(Default)]
struct Said {
    messages: Vec<(NodeId, NodeId, Message)>,
    replies: u64,
}

impl Node {
    fn new(id: u32) -> Self {
        let options = ReplicaOptions {
            id: NodeId(id),
            founders: vec![NodeId(1), NodeId(2), NodeId(3)],
            seed: u64::from(id),
            ..ReplicaOptions::default()
        };
        let mut arrived = vec![Input::Started];
        arrived.extend((1..=3).filter(|peer| *peer != id).map(|peer| Input::PeerUp(NodeId(peer))));
        Self {
            core: Replica::new(options),
            effects: Effects::new(),
            arrived,
            held: VecDeque::new(),
            timer: Time::NEVER,
            spent: Duration::ZERO,
            records: 0,
            messages: 0,
        }
    }

    fn turn(&mut self, id: NodeId, now: Time, said: &mut Said) {
        let mut inputs = Vec::new();
        for effect in std::mem::take(&mut self.held) {
            match effect {
                Effect::Resume(resume) => inputs.push(Input::Resume(resume)),
                other => self.perform(id, other, said),
            }
        }
        if self.timer <= now {
            self.timer = Time::NEVER;
            inputs.push(Input::Timer);
        }
        inputs.append(&mut self.arrived);
        let mut done = Vec::new();
        let begin = Instant::now();
        for input in inputs {
            self.core.step(now, input, &mut self.effects);
            let mut is_held = false;
            done.extend(self.effects.drain().map(|effect| {
                is_held |= matches!(effect, Effect::Persist { .. });
                (is_held, effect)
            }));
        }
        self.spent += begin.elapsed();
        for (is_held, effect) in done {
            match effect {
                Effect::Persist { .. } => self.records += 1,
                effect if is_held => self.held.push_back(effect),
                effect => self.perform(id, effect, said),
            }
        }
    }

    fn perform(&mut self, id: NodeId, effect: EffectOf, said: &mut Said) {
        match effect {
            Effect::Send { to, message } => {
                self.messages += 1;
                said.messages.push((id, to, message));
            }
            Effect::Reply { .. } => said.replies += 1,
            Effect::SetTimer(at) => self.timer = at,
            Effect::Resume(resume) => self.arrived.insert(0, Input::Resume(resume)),
            _ => {}
        }
    }
}

struct Cluster {
    nodes: Vec<Node>,
    now: Time,
}

impl Cluster {
    fn turn(&mut self) -> u64 {
        self.now = self.now.after(TURN);
        let mut said = Said::default();
        for (index, node) in self.nodes.iter_mut().enumerate() {
            node.turn(NodeId(index as u32 + 1), self.now, &mut said);
        }
        for (from, to, message) in said.messages {
            self.nodes[to.0 as usize - 1].arrived.push(Input::Message { from, message });
        }
        said.replies
    }
}

fn put(number: u64, value: &Key, outstanding: u64, now: Time, stamped: bool) -> Request {
    let key = Key::from(format!("key{:08}", number.wrapping_mul(0x9e37_79b9) % 100_000));
    let transaction =
        Transaction { preconditions: Vec::new(), writes: vec![Write::Put(key, value.clone())] };
    let client = kvorum_replication::ClientId(1 + number % outstanding);
    let sequence = 1 + number / outstanding;
    let stamp = stamped.then_some(Stamp { client, sequence, answered_below: sequence });
    let deadline = now.after(Duration::from_secs(5));
    Request {
        id: RequestId(number),
        deadline,
        operation: Operation::Transact { stamp, transaction },
    }
}

fn measure(outstanding: u64, value_bytes: usize) {
    let mut cluster = Cluster { nodes: (1..=3).map(Node::new).collect(), now: Time(0) };
    let leader = loop {
        cluster.turn();
        if let Some(leader) = cluster.nodes.iter().position(|node| node.core.leads()) {
            break leader;
        }
    };
    let now = cluster.now.after(Duration::from_secs(5));
    for session in 0..outstanding {
        let id = RequestId(u64::MAX - session);
        let request = Request { id, deadline: now, operation: Operation::OpenSession };
        cluster.nodes[leader].arrived.push(Input::Request(request));
    }
    let mut opened = 0;
    while opened < outstanding {
        opened += cluster.turn();
    }
    let value = Key::from(vec![b'v'; value_bytes]);
    for node in &mut cluster.nodes {
        (node.spent, node.records, node.messages) = (Duration::ZERO, 0, 0);
    }
    let slots = cluster.nodes[leader].core.applied().0;
    let (mut asked, mut answered, mut turns) = (0, 0, 0_u64);
    while answered < PUTS {
        while asked < answered + outstanding && asked < PUTS {
            let request = put(asked, &value, outstanding, cluster.now, true);
            cluster.nodes[leader].arrived.push(Input::Request(request));
            asked += 1;
        }
        answered += cluster.turn();
        turns += 1;
    }
    let slots = cluster.nodes[leader].core.applied().0 - slots;
    let follower = (leader + 1) % 3;
    let per_put = |count: u64| count as f64 / PUTS as f64;
    let nanos = |node: usize| cluster.nodes[node].spent.as_nanos() as f64 / PUTS as f64;
    println!(
        "{outstanding:>4} in flight, {value_bytes:>4} bytes: leader {:>6.0} ns a put, follower {:>6.0} ns; \
         {:>5.1} puts a slot, {:>5.1} puts a turn; leader {:.2} records and {:.2} messages a put, follower {:.2} and {:.2}",
        nanos(leader),
        nanos(follower),
        PUTS as f64 / slots as f64,
        PUTS as f64 / turns as f64,
        per_put(cluster.nodes[leader].records),
        per_put(cluster.nodes[leader].messages),
        per_put(cluster.nodes[follower].records),
        per_put(cluster.nodes[follower].messages),
    );
}

fn main() {
    for outstanding in [1, 16, 64, 256, 1024] {
        measure(outstanding, 100);
    }
}
