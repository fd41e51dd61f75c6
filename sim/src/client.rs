//! A client: what it asks for, and what it makes of the answers.
//!
//! One operation at a time. A write carries a stamp and is asked for again under the same stamp
//! until its outcome is known, or the client gives up: then the history calls it unknown. An answer
//! that says "did not happen" is believed only if no earlier attempt went unanswered, since that one
//! may still arrive.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use kvorum_checker as checker;
use kvorum_replication::{
    ClientId, NodeId, Operation, Precondition, Query, Range, Stamp, Transaction, Write,
};

use crate::chance::Chance;
use crate::plan::{ClientKnobs, Work};
use crate::queue::Instant;

/// What a client is busy with.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) operation: Operation,
    /// For the history; none for opening a session.
    pub(crate) recorded: Option<checker::Operation>,
    pub(crate) called: Instant,
    /// The attempt whose answer counts.
    pub(crate) attempt: u64,
    pub(crate) attempts: u64,
    /// An attempt went unanswered and may yet take effect.
    pub(crate) uncertain: bool,
}

impl Task {
    pub(crate) fn is_write(&self) -> bool {
        matches!(self.operation, Operation::Transact { .. })
    }

    pub(crate) fn is_stamped(&self) -> bool {
        matches!(self.operation, Operation::Transact { stamp: Some(_), .. })
    }

    pub(crate) fn opens_session(&self) -> bool {
        matches!(self.operation, Operation::OpenSession)
    }

    pub(crate) fn is_stale_read(&self) -> bool {
        matches!(self.operation, Operation::ReadStale(_))
    }
}

/// Whom a client asks first, where no node takes all writes by its office.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Favourites {
    pub(crate) favourite: Option<NodeId>,
    /// Whom it asked first before that: one that led may not know that another leads now.
    pub(crate) former: Option<NodeId>,
}

impl Favourites {
    /// This node comes first from now on.
    pub(crate) fn prefer(&mut self, node: NodeId) {
        self.forget();
        self.favourite = Some(node);
    }

    pub(crate) fn forget(&mut self) {
        self.former = self.favourite.take().or(self.former);
    }
}

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: u64,
    pub(crate) chance: Chance,
    /// Draws of its connections.
    pub(crate) wire: Chance,
    pub(crate) session: Option<ClientId>,
    sequence: u64,
    values: u64,
    /// Begun while faults strike; opening a session is none.
    pub(crate) operations: u64,
    pub(crate) task: Option<Task>,
    pub(crate) favourites: Favourites,
    /// Only the wake-up of this number counts.
    pub(crate) wake: u64,
    /// The newest value this client knows of each key, for preconditions that may hold.
    pub(crate) known: BTreeMap<String, Option<String>>,
    /// A key that was not what this client thought.
    pub(crate) surprise: Option<String>,
    /// Writes to be done until this client is done; without end while faults strike.
    writes_left: Option<u64>,
}

impl Client {
    pub(crate) fn new(id: u64, seed: u64) -> Self {
        Self {
            id,
            chance: Chance::new(seed.wrapping_add(id << 40), "client"),
            wire: Chance::new(seed.wrapping_add(id << 40), "wire"),
            session: None,
            sequence: 0,
            values: 0,
            operations: 0,
            task: None,
            favourites: Favourites::default(),
            wake: 0,
            known: BTreeMap::new(),
            surprise: None,
            writes_left: None,
        }
    }

    pub(crate) fn finish_after(&mut self, writes: u64) {
        self.writes_left = Some(writes);
    }

    /// Whether it has begun as many operations as it may while faults strike.
    pub(crate) fn has_done(&self, operations: Option<u64>) -> bool {
        !self.is_finishing() && operations.is_some_and(|most| self.operations >= most)
    }

    pub(crate) fn is_finishing(&self) -> bool {
        self.writes_left.is_some()
    }

    pub(crate) fn is_done(&self) -> bool {
        self.writes_left == Some(0) && self.task.is_none()
    }

    pub(crate) fn wrote(&mut self) {
        if let Some(left) = &mut self.writes_left {
            *left = left.saturating_sub(1);
        }
    }

    pub(crate) fn forget_session(&mut self) {
        self.session = None;
        self.sequence = 0;
    }

    /// What it does next.
    pub(crate) fn next_task(&mut self, now: Instant, knobs: &ClientKnobs) -> Task {
        if self.session.is_none() {
            return task(now, Operation::OpenSession, None);
        }
        self.operations += u64::from(!self.is_finishing());
        if let Some(key) = self.surprise.take() {
            return get(now, key);
        }
        let finishing = self.is_finishing();
        let reads: &[(u64, Kind)] = &[(25, Kind::Get), (8, Kind::GetMany), (8, Kind::Scan)];
        let writes: &[(u64, Kind)] =
            &[(25, Kind::Put), (8, Kind::Delete), (14, Kind::CompareAndSet), (18, Kind::Transact)];
        let writes = match knobs.work {
            Work::Mixed => writes,
            Work::Bank | Work::Lists => &[(65, Kind::Transact)],
        };
        let kind = if finishing {
            self.chance.weighted(writes)
        } else {
            self.chance.weighted(&[reads, writes].concat())
        };
        match kind {
            Kind::Get | Kind::GetMany | Kind::Scan => self.read(now, kind, knobs),
            Kind::Put | Kind::Delete | Kind::CompareAndSet | Kind::Transact => {
                self.write(now, kind, knobs)
            }
        }
    }

    fn read(&mut self, now: Instant, kind: Kind, knobs: &ClientKnobs) -> Task {
        let task = self.fresh_read(now, kind, knobs);
        match task.operation {
            // What it finds may be old, so the judge of the nodes looks at it, and no history.
            Operation::Read(query) if knobs.stale && self.chance.one_in(8) => {
                Task { operation: Operation::ReadStale(query), recorded: None, ..task }
            }
            operation => Task { operation, ..task },
        }
    }

    fn fresh_read(&mut self, now: Instant, kind: Kind, knobs: &ClientKnobs) -> Task {
        match kind {
            Kind::GetMany => {
                let keys = self.some_keys(knobs);
                let results = vec![None; keys.len()];
                let query = Query::GetMany(keys.iter().cloned().map(Bytes::from).collect());
                let recorded = checker::Operation::GetMany { keys, results };
                task(now, Operation::Read(query), Some(recorded))
            }
            Kind::Scan => {
                let start = if self.chance.one_in(2) { String::new() } else { self.key(knobs) };
                let end = self.chance.one_in(3).then(|| self.key(knobs));
                let limit = if self.chance.one_in(4) { 2 } else { 1_000 };
                let bytes = |text: &String| Bytes::from(text.clone());
                let range = Range { start: bytes(&start), end: end.as_ref().map(bytes), limit };
                let recorded =
                    checker::Operation::Scan { start, end, rows: Vec::new(), more: false };
                task(now, Operation::Read(Query::Scan(range)), Some(recorded))
            }
            _ => {
                let key = self.key(knobs);
                get(now, key)
            }
        }
    }

    fn write(&mut self, now: Instant, kind: Kind, knobs: &ClientKnobs) -> Task {
        let key = self.key(knobs);
        let value = self.value();
        let recorded = match kind {
            Kind::Transact if knobs.work == Work::Bank => self.transfer(knobs),
            Kind::Transact if knobs.work == Work::Lists => self.append(knobs),
            Kind::Delete => checker::Operation::Delete { key },
            Kind::CompareAndSet => {
                let expected = self.known.get(&key).cloned().flatten();
                checker::Operation::CompareAndSet { key, expected, value }
            }
            Kind::Transact => {
                let keys = self.some_keys(knobs);
                let writes = keys.into_iter().map(|key| {
                    let value = (!self.chance.one_in(6)).then(|| value.clone());
                    (key, value)
                });
                let writes = writes.collect();
                let preconditions = self.preconditions(knobs);
                checker::Operation::Transact { preconditions, writes }
            }
            _ => checker::Operation::Put { key, value },
        };
        // Without a stamp an unanswered write stays unknown; a few of those are enough.
        let stamp = (self.is_finishing() || !self.chance.one_in(10)).then(|| self.stamp());
        let transaction = transaction(&recorded);
        task(now, Operation::Transact { stamp: stamp.flatten(), transaction }, Some(recorded))
    }

    fn stamp(&mut self) -> Option<Stamp> {
        self.sequence += 1;
        let sequence = self.sequence;
        self.session.map(|client| Stamp { client, sequence, answered_below: sequence })
    }

    fn preconditions(&mut self, knobs: &ClientKnobs) -> Vec<checker::Precondition> {
        let count = self.chance.weighted(&[(3, 0), (2, 1), (1, 2)]);
        let mut preconditions: BTreeMap<String, checker::Precondition> = BTreeMap::new();
        for _ in 0..count {
            let key = self.key(knobs);
            let known = self.known.get(&key).cloned().flatten();
            // Mostly what is believed to hold: who is only refused writes nothing.
            let precondition = match (self.chance.below(6), known) {
                (0, None) | (1 | 2, Some(_)) => checker::Precondition::Present(key.clone()),
                (3.., Some(value)) => checker::Precondition::Equals(key.clone(), value),
                _ => checker::Precondition::Absent(key.clone()),
            };
            preconditions.insert(key, precondition);
        }
        preconditions.into_values().collect()
    }

    pub(crate) fn key(&mut self, knobs: &ClientKnobs) -> String {
        format!("k{}", self.chance.below(knobs.keys))
    }

    pub(crate) fn some_keys(&mut self, knobs: &ClientKnobs) -> Vec<String> {
        let mut keys: Vec<String> =
            (0..self.chance.between(2, 3)).map(|_| self.key(knobs)).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// A value nobody else writes.
    pub(crate) fn short_value(&mut self) -> String {
        self.values += 1;
        format!("{}.{}", self.id, self.values)
    }

    /// A value nobody else writes, of very different lengths.
    fn value(&mut self) -> String {
        let padding = *self.chance.pick(&[0, 0, 0, 20, 700]);
        format!("{}{:.<padding$}", self.short_value(), "")
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {} has writes left: {:?}", self.id, self.writes_left)?;
        match &self.task {
            None => f.write_str(", and is idle"),
            Some(task) => write!(
                f,
                ", and is at {:?} since {}, attempt {}",
                task.operation, task.called, task.attempts
            ),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Get,
    GetMany,
    Scan,
    Put,
    Delete,
    CompareAndSet,
    Transact,
}

fn task(called: Instant, operation: Operation, recorded: Option<checker::Operation>) -> Task {
    Task { operation, recorded, called, attempt: 0, attempts: 0, uncertain: false }
}

fn get(called: Instant, key: String) -> Task {
    let query = Query::Get(Bytes::from(key.clone()));
    task(called, Operation::Read(query), Some(checker::Operation::Get { key, result: None }))
}

/// The transaction that does what the history will say was asked.
fn transaction(recorded: &checker::Operation) -> Transaction {
    let bytes = |text: &String| Bytes::from(text.clone());
    let write = |key: &String, value: Option<&String>| match value {
        Some(value) => Write::Put(bytes(key), bytes(value)),
        None => Write::Delete(bytes(key)),
    };
    match recorded {
        checker::Operation::Put { key, value } => {
            Transaction { preconditions: Vec::new(), writes: vec![write(key, Some(value))] }
        }
        checker::Operation::Delete { key } => {
            Transaction { preconditions: Vec::new(), writes: vec![write(key, None)] }
        }
        checker::Operation::CompareAndSet { key, expected, value } => {
            let precondition = match expected {
                Some(expected) => Precondition::Equals(bytes(key), bytes(expected)),
                None => Precondition::Absent(bytes(key)),
            };
            Transaction { preconditions: vec![precondition], writes: vec![write(key, Some(value))] }
        }
        checker::Operation::Transact { preconditions, writes } => Transaction {
            preconditions: preconditions
                .iter()
                .map(|precondition| match precondition {
                    checker::Precondition::Absent(key) => Precondition::Absent(bytes(key)),
                    checker::Precondition::Present(key) => Precondition::Present(bytes(key)),
                    checker::Precondition::Equals(key, value) => {
                        Precondition::Equals(bytes(key), bytes(value))
                    }
                })
                .collect(),
            writes: writes.iter().map(|(key, value)| write(key, value.as_ref())).collect(),
        },
        checker::Operation::Get { .. }
        | checker::Operation::GetMany { .. }
        | checker::Operation::Scan { .. } => unreachable!("reads are no transactions"),
        checker::Operation::MicroOperations(_) => unreachable!("the store knows none"),
    }
}
