//! A store on which transactions happen one after the other, though their times overlap.

use kvorum_checker::{Ending, Found, MicroOperation, Operation, Precondition, Record};

const CLIENTS: u64 = 16;
const KEYS: u64 = 500;
/// A list is left alone once it is this long, and another one takes its place.
const ELEMENTS_MAX: usize = 100;
/// Micro-operations of one transaction.
pub(crate) const MICRO_OPERATIONS: u64 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Transactions that append to lists.
    Lists,
    /// Transactions that write registers.
    Registers,
    /// Operations of a key-value store.
    Store,
}

pub(crate) struct Store {
    shape: Shape,
    random: u64,
    clock: u64,
    values: u64,
    /// From this value on, the first read that can is stale.
    stale_from: Option<u64>,
    /// Names, and values with the newest at the end.
    keys: Vec<(String, Vec<String>)>,
}

impl Store {
    pub(crate) fn new(shape: Shape, stale_from: Option<u64>) -> Self {
        let keys = (0..KEYS).map(|key| (format!("k{key}"), Vec::new())).collect();
        Self { shape, random: 1, clock: 1000, values: 0, stale_from, keys }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }

    /// The next transaction.
    pub(crate) fn next(&mut self) -> Record {
        self.clock += 10;
        let operation = match self.shape {
            Shape::Lists | Shape::Registers => {
                let operations = (0..MICRO_OPERATIONS).map(|_| self.micro_operation()).collect();
                Operation::MicroOperations(operations)
            }
            Shape::Store => self.operation(),
        };
        let (early, late) = (self.below(300), self.below(300));
        Record {
            client: self.below(CLIENTS),
            call: self.clock - early,
            ret: self.clock + late,
            ending: Ending::Done,
            operation,
        }
    }

    fn key(&mut self) -> usize {
        usize::try_from(self.below(KEYS)).unwrap_or(0)
    }

    fn micro_operation(&mut self) -> MicroOperation {
        let at = self.key();
        if self.below(2) == 0 {
            let (key, value) = self.write(at);
            return match self.shape {
                Shape::Lists => MicroOperation::Append { key, value },
                Shape::Registers | Shape::Store => {
                    MicroOperation::Write { key, value: Some(value) }
                }
            };
        }
        let length = self.seen(at);
        let (key, values) = &self.keys[at];
        let found = match self.shape {
            Shape::Lists => Found::List(values[..length].to_vec()),
            Shape::Registers | Shape::Store => Found::Register(values[..length].last().cloned()),
        };
        MicroOperation::Read { key: key.clone(), found }
    }

    fn operation(&mut self) -> Operation {
        let (at, other) = (self.key(), self.key());
        match self.below(4) {
            0 => {
                let (key, value) = self.write(at);
                Operation::Put { key, value }
            }
            1 => {
                let precondition = match self.read(at) {
                    (key, Some(value)) => Precondition::Equals(key, value),
                    (key, None) => Precondition::Absent(key),
                };
                let (key, value) = self.write(at);
                let mut writes = vec![(key, Some(value))];
                if other != at {
                    let (key, value) = self.write(other);
                    writes.push((key, Some(value)));
                }
                Operation::Transact { preconditions: vec![precondition], writes }
            }
            2 => {
                let (keys, results) = [at, other].map(|at| self.read(at)).into_iter().unzip();
                Operation::GetMany { keys, results }
            }
            _ => {
                let (key, result) = self.read(at);
                Operation::Get { key, result }
            }
        }
    }

    fn write(&mut self, at: usize) -> (String, String) {
        self.values += 1;
        let value = self.values.to_string();
        if self.keys[at].1.len() == ELEMENTS_MAX {
            match self.shape {
                Shape::Lists => self.keys[at] = (format!("k{at}.{value}"), Vec::new()),
                Shape::Registers | Shape::Store => drop(self.keys[at].1.drain(..1)),
            }
        }
        self.keys[at].1.push(value.clone());
        (self.keys[at].0.clone(), value)
    }

    fn read(&mut self, at: usize) -> (String, Option<String>) {
        let length = self.seen(at);
        let (key, values) = &self.keys[at];
        (key.clone(), values[..length].last().cloned())
    }

    /// How many of a key's values are seen.
    fn seen(&mut self, at: usize) -> usize {
        let all = self.keys[at].1.len();
        if all > 50 && self.stale_from.is_some_and(|from| self.values >= from) {
            self.stale_from = None;
            return all - 45;
        }
        all
    }
}
