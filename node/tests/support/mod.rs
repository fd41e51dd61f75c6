//! A core that performs whatever effects it is sent, and a bench that drives a node around it.

#![expect(clippy::unwrap_used, reason = "only tests use it")]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use kvorum_node::{Node, NodeError, StoredRecord};
use kvorum_replication::{
    Answer, Core, Effect, Effects, Input, NodeId, Position, Role, Status, Time,
};
use kvorum_storage::codec::Malformed;
use kvorum_storage::vfs::{MemoryVfs, Vfs};
use kvorum_storage::{LogOptions, Options};

const NOW: Time = Time(1_000_000_000);
const RECORD: u8 = 64;
const CHECKPOINT: u8 = 65;

/// An effect of the obedient core.
pub(crate) type Order = Effect<Do, Text, Text>;

/// A message: effects to perform, or words to be heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Do {
    orders: Vec<Order>,
    words: String,
}

impl Do {
    pub(crate) fn say(words: &str) -> Self {
        Self { orders: Vec::new(), words: words.to_owned() }
    }

    pub(crate) fn perform(orders: Vec<Order>) -> Self {
        Self { orders, words: String::new() }
    }
}

/// A record or a resume: words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text(pub(crate) String);

impl StoredRecord for Text {
    fn encode(&self, payload: &mut Vec<u8>) -> u8 {
        payload.extend_from_slice(self.0.as_bytes());
        if self.0.starts_with("checkpoint") { CHECKPOINT } else { RECORD }
    }

    fn decode(_: u8, payload: &Bytes) -> Result<Self, Malformed> {
        let words = str::from_utf8(payload).map_err(|_| Malformed("not words"))?;
        Ok(Self(words.to_owned()))
    }

    fn is_checkpoint(kind: u8) -> bool {
        kind == CHECKPOINT
    }
}

/// Performs the orders it is sent, and remembers what it was told.
#[derive(Default)]
pub(crate) struct Obedient {
    heard: Vec<String>,
}

impl Obedient {
    pub(crate) fn heard(&self) -> &[String] {
        &self.heard
    }
}

impl Core for Obedient {
    type Message = Do;
    type Record = Text;
    type Resume = Text;

    fn step(&mut self, _: Time, input: Input<Do, Text>, effects: &mut Effects<Do, Text, Text>) {
        self.heard.push(words(&input));
        if let Input::Message { message, .. } = input {
            message.orders.into_iter().for_each(|order| effects.push(order));
        }
    }

    fn recover(&mut self, at: Position, _: Text, _: &mut Effects<Do, Text, Text>) {
        self.heard.push(format!("recover {at}"));
    }

    fn status(&self, _: Time) -> Status {
        Status {
            role: Role::Replica,
            incarnation: 1,
            in_flight: 0,
            in_doubt: 0,
            locks: 0,
            leader: None,
            peers_up: Vec::new(),
            replicas: Vec::new(),
            counters: Vec::new(),
        }
    }
}

fn words(input: &Input<Do, Text>) -> String {
    match input {
        Input::Message { .. } => "orders".to_owned(),
        Input::Resume(text) => format!("resume {}", text.0),
        Input::Timer => "timer".to_owned(),
        Input::Room(room) => format!("room {room}"),
        Input::Checkpoint => "checkpoint".to_owned(),
        Input::Stopping => "stopping".to_owned(),
        Input::Read { read, answer: Answer::Value(None) } => format!("read {}: none", read.0),
        Input::Read { read, answer: Answer::Value(Some(value)) } => {
            format!("read {}: {}", read.0, String::from_utf8_lossy(value))
        }
        other => format!("{other:?}"),
    }
}

/// A node around an obedient core.
pub(crate) struct Bench {
    pub(crate) node: Node<Obedient>,
}

impl Bench {
    pub(crate) fn log() -> Self {
        Self::log_on(&MemoryVfs::new(), LogOptions::default()).unwrap()
    }

    pub(crate) fn log_on(
        vfs: &(impl Vfs + Clone + 'static),
        options: LogOptions,
    ) -> Result<Self, NodeError> {
        let vfs = Arc::new(vfs.clone());
        let node =
            Node::open_log(vfs, Path::new("node"), options, Obedient::default(), Vec::new())?;
        Ok(Self { node })
    }

    pub(crate) fn store() -> Self {
        Self::store_on(&MemoryVfs::new())
    }

    pub(crate) fn store_on(vfs: &MemoryVfs) -> Self {
        Self::open_store(vfs, Vec::new())
    }

    pub(crate) fn armed(points: &[&str]) -> Self {
        let points = points.iter().map(|&point| point.to_owned()).collect();
        Self::open_store(&MemoryVfs::new(), points)
    }

    fn open_store(vfs: &MemoryVfs, points: Vec<String>) -> Self {
        let vfs = Arc::new(vfs.clone());
        let core = Obedient::default();
        let node =
            Node::open_store(vfs, Path::new("node"), Options::default(), core, points).unwrap();
        Self { node }
    }

    /// Makes the core perform these effects in one step.
    pub(crate) fn order(&mut self, orders: Vec<Order>) {
        self.order_at(NOW, orders);
    }

    pub(crate) fn order_at(&mut self, now: Time, orders: Vec<Order>) {
        let message = Do::perform(orders);
        self.node.step(now, Input::Message { from: NodeId(9), message }).unwrap();
    }

    /// Syncs the log, and lets the node go on.
    pub(crate) fn sync(&mut self) {
        let log = self.node.log();
        log.sync(log.last()).unwrap();
        self.node.settle(NOW).unwrap();
    }

    /// The words sent since the last call.
    pub(crate) fn said(&mut self) -> Vec<String> {
        self.node.turn().sends.drain(..).map(|(_, message)| message.words).collect()
    }
}
