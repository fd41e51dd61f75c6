//! A history in the form the search works on: each operation as what must hold of some keys and
//! what some keys become, at one moment.
//!
//! Keys and values are numbered. A *version* is a key with a value (or with none), so that a
//! number says both.

use std::collections::{BTreeMap, HashMap};

use crate::history::{Ending, Found, MicroOperation, Operation, Precondition, Record};
use crate::verdict::{Rule, Verdict};

/// What an operation found when it took place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Condition {
    /// The key had this version.
    Is(u32),
    /// The key had another version.
    IsNot(u32),
}

/// One operation.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// Keys, and what was found of them.
    pub(crate) conditions: Vec<(u32, Condition)>,
    /// Keys, and what they became; each key once.
    pub(crate) effects: Vec<(u32, u32)>,
    pub(crate) call: u64,
    /// Without meaning unless required.
    pub(crate) ret: u64,
    /// Whether it is known to have happened; else it may or may not have.
    pub(crate) required: bool,
    /// Its place in the history.
    pub(crate) record: usize,
}

/// A version: which key, and its value.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(crate) key: u32,
    pub(crate) value: Option<String>,
}

/// A whole history in numbers.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    pub(crate) steps: Vec<Step>,
    pub(crate) keys: Vec<String>,
    pub(crate) versions: Vec<Version>,
    /// For each key, the version it begins with.
    pub(crate) absent: Vec<u32>,
}

/// Gives keys and versions their numbers, in the order in which they appear.
#[derive(Default)]
struct Numbering {
    steps: Steps,
    key_numbers: HashMap<String, u32>,
    version_numbers: HashMap<(u32, String), u32>,
    /// The keys in byte order, for scans; filled when all are known.
    sorted: BTreeMap<String, u32>,
}

impl Steps {
    /// Translates a history; what tells nothing (a read that was not answered) is left out.
    pub(crate) fn of(history: &[Record]) -> Self {
        let mut numbering = Numbering::default();
        for record in history {
            numbering.number_keys(&record.operation);
        }
        numbering.sorted = numbering.key_numbers.iter().map(|(k, n)| (k.clone(), *n)).collect();
        for (index, record) in history.iter().enumerate() {
            numbering.translate(index, record);
        }
        numbering.steps
    }

    /// A read that answered with what nobody wrote, or not before the read was over.
    pub(crate) fn fabricated(&self, history: &[Record]) -> Option<Verdict> {
        let mut first_write = vec![u64::MAX; self.versions.len()];
        for step in &self.steps {
            for (_, version) in &step.effects {
                let first = &mut first_write[*version as usize];
                *first = (*first).min(step.call);
            }
        }
        for absent in &self.absent {
            first_write[*absent as usize] = 0;
        }
        for step in self.steps.iter().filter(|step| step.required) {
            for (_, condition) in &step.conditions {
                if let Condition::Is(version) = condition
                    && first_write[*version as usize] > step.ret
                {
                    return Some(self.name_fabricated(history, step, *version));
                }
            }
        }
        None
    }

    fn name_fabricated(&self, history: &[Record], read: &Step, version: u32) -> Verdict {
        let Version { key, value } = &self.versions[version as usize];
        let key = &self.keys[*key as usize];
        let value = value.as_deref().unwrap_or("(absent)");
        let mut operations = vec![history[read.record].clone()];
        let writers: Vec<&Record> =
            history.iter().filter(|record| writes_value(&record.operation, key, value)).collect();
        let why = match writers.first() {
            None => "which nobody wrote",
            Some(writer) if matches!(writer.ending, Ending::Done | Ending::Unknown) => {
                "before anybody had asked to write it"
            }
            Some(_) => "which was written only by what is said not to have happened",
        };
        operations.extend(writers.into_iter().cloned());
        let who = &history[read.record];
        let found = if who.operation.is_read() {
            format!("client {} read {key}={value}", who.client)
        } else {
            format!("client {}'s {} found {key}={value}", who.client, who.operation)
        };
        Verdict::violated(Rule::Fabricated, format!("{found}, {why}"), operations).blaming(who)
    }
}

fn writes_value(operation: &Operation, wanted_key: &str, wanted: &str) -> bool {
    match operation {
        Operation::Put { key, value } | Operation::CompareAndSet { key, value, .. } => {
            key == wanted_key && value == wanted
        }
        Operation::Transact { writes, .. } => {
            writes.iter().any(|(key, value)| key == wanted_key && value.as_deref() == Some(wanted))
        }
        Operation::Get { .. }
        | Operation::GetMany { .. }
        | Operation::Scan { .. }
        | Operation::Delete { .. } => false,
        Operation::MicroOperations(operations) => operations.iter().any(|operation| {
            matches!(operation, MicroOperation::Write { key, value: Some(value) }
                if key == wanted_key && value == wanted)
        }),
    }
}

impl Numbering {
    fn key(&mut self, key: &str) -> u32 {
        if let Some(number) = self.key_numbers.get(key) {
            return *number;
        }
        let number = small(self.steps.keys.len());
        self.key_numbers.insert(key.to_owned(), number);
        self.steps.keys.push(key.to_owned());
        self.steps.absent.push(small(self.steps.versions.len()));
        self.steps.versions.push(Version { key: number, value: None });
        number
    }

    fn version(&mut self, key: u32, value: Option<&str>) -> u32 {
        let Some(value) = value else { return self.steps.absent[key as usize] };
        let versions = &mut self.steps.versions;
        *self.version_numbers.entry((key, value.to_owned())).or_insert_with(|| {
            versions.push(Version { key, value: Some(value.to_owned()) });
            small(versions.len() - 1)
        })
    }

    fn number_keys(&mut self, operation: &Operation) {
        match operation {
            Operation::Get { key, .. }
            | Operation::Put { key, .. }
            | Operation::Delete { key }
            | Operation::CompareAndSet { key, .. } => {
                self.key(key);
            }
            Operation::GetMany { keys, .. } => {
                for key in keys {
                    self.key(key);
                }
            }
            Operation::Scan { rows, .. } => {
                for (key, _) in rows {
                    self.key(key);
                }
            }
            Operation::Transact { preconditions, writes } => {
                for precondition in preconditions {
                    self.key(precondition.key());
                }
                for (key, _) in writes {
                    self.key(key);
                }
            }
            Operation::MicroOperations(operations) => {
                for (key, _) in register_reads(operations).chain(register_writes(operations)) {
                    self.key(key);
                }
            }
        }
    }

    fn translate(&mut self, index: usize, record: &Record) {
        let (conditions, effects) = match record.ending {
            Ending::NotDone => return,
            Ending::PreconditionFailed(failed) => {
                (self.failed_condition(&record.operation, failed), Vec::new())
            }
            Ending::Unknown if record.operation.is_read() => return,
            Ending::Done | Ending::Unknown => {
                (self.conditions(&record.operation), self.effects(&record.operation))
            }
        };
        if conditions.is_empty() && effects.is_empty() {
            return;
        }
        self.steps.steps.push(Step {
            conditions,
            effects,
            call: record.call,
            ret: record.ret,
            required: record.ending != Ending::Unknown,
            record: index,
        });
    }

    fn conditions(&mut self, operation: &Operation) -> Vec<(u32, Condition)> {
        match operation {
            Operation::Get { key, result } => vec![self.is(key, result.as_deref())],
            Operation::GetMany { keys, results } => {
                keys.iter().zip(results).map(|(k, r)| self.is(k, r.as_deref())).collect()
            }
            Operation::Scan { start, end, rows, more } => {
                self.scanned(start, end.as_deref(), rows, *more)
            }
            Operation::Put { .. } | Operation::Delete { .. } => Vec::new(),
            Operation::CompareAndSet { key, expected, .. } => {
                vec![self.is(key, expected.as_deref())]
            }
            Operation::Transact { preconditions, .. } => {
                preconditions.iter().map(|precondition| self.precondition(precondition)).collect()
            }
            Operation::MicroOperations(operations) => {
                register_reads(operations).map(|(key, value)| self.is(key, value)).collect()
            }
        }
    }

    fn effects(&mut self, operation: &Operation) -> Vec<(u32, u32)> {
        let mut effects: BTreeMap<u32, u32> = BTreeMap::new();
        let mut set = |numbering: &mut Self, key: &str, value: Option<&str>| {
            let key = numbering.key(key);
            effects.insert(key, numbering.version(key, value));
        };
        match operation {
            Operation::Get { .. } | Operation::GetMany { .. } | Operation::Scan { .. } => {}
            Operation::Put { key, value } | Operation::CompareAndSet { key, value, .. } => {
                set(self, key, Some(value));
            }
            Operation::Delete { key } => set(self, key, None),
            Operation::Transact { writes, .. } => {
                for (key, value) in writes {
                    set(self, key, value.as_deref());
                }
            }
            Operation::MicroOperations(operations) => {
                for (key, value) in register_writes(operations) {
                    set(self, key, value);
                }
            }
        }
        effects.into_iter().collect()
    }

    fn is(&mut self, key: &str, value: Option<&str>) -> (u32, Condition) {
        let key = self.key(key);
        (key, Condition::Is(self.version(key, value)))
    }

    fn precondition(&mut self, precondition: &Precondition) -> (u32, Condition) {
        match precondition {
            Precondition::Absent(key) => self.is(key, None),
            Precondition::Present(key) => {
                let key = self.key(key);
                (key, Condition::IsNot(self.version(key, None)))
            }
            Precondition::Equals(key, value) => self.is(key, Some(value)),
        }
    }

    /// What a failed precondition tells: the opposite of it.
    fn failed_condition(&mut self, operation: &Operation, failed: usize) -> Vec<(u32, Condition)> {
        self.conditions(operation)
            .get(failed)
            .map(|(key, condition)| match condition {
                Condition::Is(version) => (*key, Condition::IsNot(*version)),
                Condition::IsNot(version) => (*key, Condition::Is(*version)),
            })
            .into_iter()
            .collect()
    }

    /// A scan says of every key of its range what it is, if only that it is absent.
    fn scanned(
        &mut self,
        start: &str,
        end: Option<&str>,
        rows: &[(String, String)],
        more: bool,
    ) -> Vec<(u32, Condition)> {
        let last = rows.last().map(|(key, _)| key.as_str());
        let covered: Vec<(String, u32)> = self
            .sorted
            .range(start.to_owned()..)
            .take_while(|(key, _)| end.is_none_or(|end| key.as_str() < end))
            .take_while(|(key, _)| !more || last.is_some_and(|last| key.as_str() <= last))
            .map(|(key, number)| (key.clone(), *number))
            .collect();
        let rows: BTreeMap<&str, &str> = rows.iter().map(|(k, v)| (&**k, &**v)).collect();
        covered
            .into_iter()
            .map(|(name, key)| {
                (key, Condition::Is(self.version(key, rows.get(name.as_str()).copied())))
            })
            .collect()
    }
}

/// What micro-operations found of registers before they themselves wrote them. Lists are no
/// registers, and what a transaction found of its own writes is its own affair.
fn register_reads(operations: &[MicroOperation]) -> impl Iterator<Item = (&str, Option<&str>)> {
    operations.iter().enumerate().filter_map(|(place, operation)| match operation {
        MicroOperation::Read { key, found: Found::Register(value) } => {
            let own = register_writes(&operations[..place]).any(|(written, _)| written == key);
            (!own).then_some((key.as_str(), value.as_deref()))
        }
        MicroOperation::Read { .. }
        | MicroOperation::Append { .. }
        | MicroOperation::Write { .. } => None,
    })
}

fn register_writes(operations: &[MicroOperation]) -> impl Iterator<Item = (&str, Option<&str>)> {
    operations.iter().filter_map(|operation| match operation {
        MicroOperation::Write { key, value } => Some((key.as_str(), value.as_deref())),
        MicroOperation::Read { .. } | MicroOperation::Append { .. } => None,
    })
}

impl Operation {
    pub(crate) fn is_read(&self) -> bool {
        match self {
            Self::Get { .. } | Self::GetMany { .. } | Self::Scan { .. } => true,
            Self::MicroOperations(operations) => {
                operations.iter().all(|operation| matches!(operation, MicroOperation::Read { .. }))
            }
            Self::Put { .. }
            | Self::Delete { .. }
            | Self::CompareAndSet { .. }
            | Self::Transact { .. } => false,
        }
    }
}

impl Precondition {
    fn key(&self) -> &str {
        match self {
            Self::Absent(key) | Self::Present(key) | Self::Equals(key, _) => key,
        }
    }
}

fn small(number: usize) -> u32 {
    u32::try_from(number).expect("a history of more than four billion versions fits no memory")
}
