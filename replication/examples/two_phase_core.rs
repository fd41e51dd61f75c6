//! What a put costs the cores of a coordinator and three participants, without disks, codecs and
//! sockets: `cargo run --release -p kvorum-replication --example two_phase_core`.
//!
//! Each node takes what has arrived in turns, as it does over real sockets, and its log is durable a
//! turn after it was written. So many puts are always in flight. Only the steps of the cores are
//! timed. For instructions instead of nanoseconds, count inside the turns alone:
//!
//! ```text
//! valgrind --tool=callgrind --collect-atstart=no '--toggle-collect=*two_phase_core::*_turn' \
//!     target/release/examples/two_phase_core 64 128 20000
//! ```

use std::collections::VecDeque;
use std::env;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvorum_replication::two_phase::message::{Message, Prepare};
use kvorum_replication::two_phase::{
    Coordinator, CoordinatorOptions, Participant, ParticipantOptions,
};
use kvorum_replication::{
    ClientId, Core, Effect, Effects, Input, Key, NodeId, Operation, Outcome, Request, RequestId,
    Stamp, Time, Transaction, Write,
};

/// Puts of one measurement, unless said otherwise.
const PUTS: u64 = 400_000;
/// How long a turn lasts on the clock of the cores.
const TURN: Duration = Duration::from_micros(200);
/// Each holds a whole copy.
const REPLICAS: u32 = 3;

type EffectOf<C> = Effect<<C as Core>::Message, <C as Core>::Record, <C as Core>::Resume>;
type InputOf<C> = Input<<C as Core>::Message, <C as Core>::Resume>;
type EffectsOf<C> = Effects<<C as Core>::Message, <C as Core>::Record, <C as Core>::Resume>;

/// One core, and what its shell keeps for it.
struct Node<C: Core> {
    id: NodeId,
    core: C,
    effects: EffectsOf<C>,
    arrived: Vec<InputOf<C>>,
    /// Behind a record that the next turn finds durable.
    held: VecDeque<EffectOf<C>>,
    timer: Time,
    spent: Duration,
    steps: u64,
    records: u64,
    messages: u64,
}

/// What a turn brings to others.
#[derive(Default)]
struct Said {
    messages: Vec<(NodeId, NodeId, Message)>,
    outcomes: Vec<Outcome>,
}

impl<C: Core<Message = Message>> Node<C> {
    fn new(id: NodeId, core: C, peers: impl Iterator<Item = NodeId>) -> Self {
        let mut arrived = vec![Input::Started];
        arrived.extend(peers.filter(|peer| *peer != id).map(Input::PeerUp));
        Self {
            id,
            core,
            effects: Effects::new(),
            arrived,
            held: VecDeque::new(),
            timer: Time::NEVER,
            spent: Duration::ZERO,
            steps: 0,
            records: 0,
            messages: 0,
        }
    }

    /// Takes what has arrived. `steps` hands it to the core, and is named for the profiler.
    fn turn(
        &mut self,
        now: Time,
        steps: fn(&mut C, Time, Vec<InputOf<C>>, &mut EffectsOf<C>),
        said: &mut Said,
    ) {
        let mut inputs = Vec::new();
        for effect in std::mem::take(&mut self.held) {
            match effect {
                Effect::Resume(resume) => inputs.push(Input::Resume(resume)),
                other => self.perform(other, said),
            }
        }
        inputs.append(&mut self.arrived);
        if self.timer <= now {
            self.timer = Time::NEVER;
            inputs.push(Input::Timer);
        }
        self.steps += inputs.len() as u64;
        let begin = Instant::now();
        steps(&mut self.core, now, inputs, &mut self.effects);
        self.spent += begin.elapsed();
        let mut is_held = false;
        let done: Vec<EffectOf<C>> = self.effects.drain().collect();
        for effect in done {
            is_held |= matches!(effect, Effect::Persist { .. });
            match effect {
                Effect::Persist { .. } => self.records += 1,
                effect if is_held => self.held.push_back(effect),
                effect => self.perform(effect, said),
            }
        }
    }

    fn perform(&mut self, effect: EffectOf<C>, said: &mut Said) {
        match effect {
            Effect::Send { to, message } => {
                self.messages += 1;
                said.messages.push((self.id, to, message));
            }
            Effect::Reply { outcome, .. } => said.outcomes.push(outcome),
            Effect::SetTimer(at) => self.timer = at,
            Effect::Resume(resume) => self.arrived.insert(0, Input::Resume(resume)),
            _ => {}
        }
    }
}

/// All steps of a turn are collected in one list: what waits for a record of this turn is not told
/// apart from what waits for another, and none is durable before the next.
#[inline(never)]
fn coordinator_turn(
    core: &mut Coordinator,
    now: Time,
    inputs: Vec<InputOf<Coordinator>>,
    effects: &mut EffectsOf<Coordinator>,
) {
    for input in inputs {
        core.step(now, input, effects);
    }
}

/// As [`coordinator_turn`].
#[inline(never)]
fn participant_turn(
    core: &mut Participant,
    now: Time,
    inputs: Vec<InputOf<Participant>>,
    effects: &mut EffectsOf<Participant>,
) {
    for input in inputs {
        core.step(now, input, effects);
    }
}

struct Cluster {
    coordinator: Node<Coordinator>,
    participants: Vec<Node<Participant>>,
    now: Time,
}

impl Cluster {
    fn new() -> Self {
        let nodes = || (0..=REPLICAS).map(NodeId);
        let coordinator = Coordinator::new(CoordinatorOptions {
            replicas: nodes().skip(1).collect(),
            ..CoordinatorOptions::default()
        });
        let participant = |id: NodeId| {
            let seed = u64::from(id.0);
            Participant::new(ParticipantOptions { id, seed, ..ParticipantOptions::default() })
        };
        Self {
            coordinator: Node::new(NodeId::COORDINATOR, coordinator, nodes()),
            participants: nodes()
                .skip(1)
                .map(|id| Node::new(id, participant(id), nodes()))
                .collect(),
            now: Time(0),
        }
    }

    fn turn(&mut self) -> Vec<Outcome> {
        self.now = self.now.after(TURN);
        let mut said = Said::default();
        self.coordinator.turn(self.now, coordinator_turn, &mut said);
        for participant in &mut self.participants {
            participant.turn(self.now, participant_turn, &mut said);
        }
        for (from, to, message) in said.messages {
            let message = received(message);
            match to {
                NodeId::COORDINATOR => {
                    self.coordinator.arrived.push(Input::Message { from, message });
                }
                NodeId(id) => {
                    let arrived = &mut self.participants[id as usize - 1].arrived;
                    arrived.push(Input::Message { from, message });
                }
            }
        }
        said.outcomes
    }

    fn ask(&mut self, id: u64, operation: Operation) {
        let deadline = self.now.after(Duration::from_secs(5));
        let request = Request { id: RequestId(id), deadline, operation };
        self.coordinator.arrived.push(Input::Request(request));
    }

    /// Opens so many sessions, with the numbers from 1 on.
    fn open_sessions(&mut self, sessions: u64) {
        // The coordinator asks the participants what is prepared, and takes on nothing before.
        for _ in 0..16 {
            self.turn();
        }
        for session in 0..sessions {
            self.ask(u64::MAX - session, Operation::OpenSession);
        }
        let mut opened = 0;
        while opened < sessions {
            opened += self.turn().len() as u64;
        }
        let nodes = self.participants.iter_mut();
        for node in nodes {
            (node.spent, node.steps, node.records, node.messages) = (Duration::ZERO, 0, 0, 0);
        }
        let node = &mut self.coordinator;
        (node.spent, node.steps, node.records, node.messages) = (Duration::ZERO, 0, 0, 0);
    }
}

/// A message as it comes out of its frame, which nobody shares.
fn received(message: Message) -> Message {
    let Message::Prepare(prepare) = &message else { return message };
    Message::Prepare(Arc::new(Prepare {
        participants: prepare.participants.to_vec().into(),
        transaction: Arc::new(Transaction::clone(&prepare.transaction)),
        ..Prepare::clone(prepare)
    }))
}

/// Keys of sixteen bytes, and no key twice in flight. Key and value are parts of one frame.
fn put(number: u64, value_bytes: usize, outstanding: u64) -> Operation {
    let mut frame = format!("key{:013}", number.wrapping_mul(7919) % 1_000_003).into_bytes();
    frame.resize(16 + value_bytes, b'v');
    let frame = Key::from(frame);
    let writes = vec![Write::Put(frame.slice(..16), frame.slice(16..))];
    let transaction = Transaction { preconditions: Vec::new(), writes };
    let client = ClientId(1 + number % outstanding);
    let sequence = 1 + number / outstanding;
    let stamp = Some(Stamp { client, sequence, answered_below: sequence });
    Operation::Transact { stamp, transaction }
}

fn measure(outstanding: u64, value_bytes: usize, puts: u64) {
    let mut cluster = Cluster::new();
    cluster.open_sessions(outstanding);
    let (mut asked, mut answered, mut turns) = (0, 0, 0_u64);
    while answered < puts {
        while asked < answered + outstanding && asked < puts {
            cluster.ask(asked, put(asked, value_bytes, outstanding));
            asked += 1;
        }
        for outcome in cluster.turn() {
            assert_eq!(outcome, Outcome::Committed, "nothing stands in the way of a put");
            answered += 1;
        }
        turns += 1;
    }
    let per_put = |count: u64| count as f64 / puts as f64;
    let (coordinator, participant) = (&cluster.coordinator, &cluster.participants[0]);
    println!(
        "{outstanding:>4} in flight, {value_bytes:>4} bytes: coordinator {:>6.0} ns a put, a participant \
         {:>6.0} ns; {:>5.1} puts a turn; coordinator {:.2} steps, {:.2} records and {:.2} messages a put, \
         participant {:.2}, {:.2} and {:.2}",
        coordinator.spent.as_nanos() as f64 / puts as f64,
        participant.spent.as_nanos() as f64 / puts as f64,
        puts as f64 / turns as f64,
        per_put(coordinator.steps),
        per_put(coordinator.records),
        per_put(coordinator.messages),
        per_put(participant.steps),
        per_put(participant.records),
        per_put(participant.messages),
    );
}

fn main() {
    let numbers: Vec<u64> = env::args()
        .skip(1)
        .map(|it| it.parse().expect("puts in flight, bytes of a value, and puts, as numbers"))
        .collect();
    match numbers[..] {
        [outstanding, value_bytes, puts] => measure(outstanding, value_bytes as usize, puts),
        _ => [1, 16, 64, 256, 1024].into_iter().for_each(|it| measure(it, 128, PUTS)),
    }
}
