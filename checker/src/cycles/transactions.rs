//! A history as transactions of micro-operations, in numbers.
//!
//! Keys and values are numbered as they come, and a list that was read is kept as a length of the
//! longest one of its key, so that a history of long lists takes no more room than its operations.

use std::collections::HashMap;
use std::sync::Arc;

use crate::history::{Ending, Found, MicroOperation, Operation, Precondition, Record};

/// Transactions in a form that dependency cycles are found in: as many as there are records.
///
/// A list and a register of one name are two objects.
#[derive(Debug, Default)]
pub struct Transactions {
    pub(crate) heads: Vec<Head>,
    pub(crate) micro: Vec<Micro>,
    pub(crate) objects: Vec<Object>,
    pub(crate) values: Vec<Value>,
    pub(crate) scans: Vec<PendingScan>,
    list_numbers: HashMap<Arc<str>, u32>,
    register_numbers: HashMap<Arc<str>, u32>,
}

/// A transaction, without what it did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) client: u64,
    pub(crate) call: u64,
    pub(crate) ret: u64,
    pub(crate) ending: Ending,
    /// Where its micro-operations begin; they end where the next one's begin.
    first: u32,
}

/// A list or a register.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) name: Arc<str>,
    pub(crate) is_list: bool,
    /// The value that it begins with: absent, or the empty list.
    pub(crate) initial: u32,
    /// The longest list that was read.
    pub(crate) longest: Vec<u32>,
    /// Lists that were read and that neither are the beginning of the longest nor begin with it.
    pub(crate) odd: Vec<Vec<u32>>,
    value_numbers: HashMap<Arc<str>, u32>,
}

/// A value of a register, or an element of a list.
#[derive(Debug)]
pub(crate) struct Value {
    pub(crate) object: u32,
    /// `None` is an absent register or an empty list.
    pub(crate) text: Option<Arc<str>>,
}

/// A micro-operation; values know their objects.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Micro {
    Append { value: u32 },
    Write { value: u32 },
    Read { value: u32 },
    ReadList { object: u32, list: ListRead },
}

/// A list that was read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ListRead {
    /// So many of the longest one's elements.
    Prefix(u32),
    /// One of the odd ones.
    Odd(u32),
}

/// A range that was read: which keys were absent in it is known when all keys are.
#[derive(Debug)]
pub(crate) struct PendingScan {
    pub(crate) transaction: u32,
    pub(crate) start: String,
    pub(crate) end: Option<String>,
    /// The last key that the answer speaks of, if it stopped early.
    pub(crate) last: Option<String>,
}

impl Transactions {
    /// No transactions.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A whole history.
    #[must_use]
    pub fn of(history: &[Record]) -> Self {
        let mut transactions = Self::new();
        for record in history {
            transactions.push(record);
        }
        transactions
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// Adds what one client did. An operation on keys is a transaction on registers: what it read,
    /// or required to be so, and then what it wrote.
    pub fn push(&mut self, record: &Record) {
        let first = small(self.micro.len());
        let Record { client, call, ret, ending, .. } = *record;
        self.heads.push(Head { client, call, ret, ending, first });
        let happened = match ending {
            Ending::Done => Happened::Yes,
            Ending::Unknown => Happened::Perhaps,
            Ending::NotDone | Ending::PreconditionFailed(_) => Happened::No,
        };
        self.translate(&record.operation, happened);
    }

    fn translate(&mut self, operation: &Operation, happened: Happened) {
        let answered = happened == Happened::Yes;
        match operation {
            Operation::Get { key, result } if answered => self.read(key, result.as_deref()),
            Operation::GetMany { keys, results } if answered => {
                for (key, result) in keys.iter().zip(results) {
                    self.read(key, result.as_deref());
                }
            }
            Operation::Scan { start, end, rows, more } if answered => {
                for (key, value) in rows {
                    self.read(key, Some(value));
                }
                self.scans.push(PendingScan {
                    transaction: small(self.heads.len() - 1),
                    start: start.clone(),
                    end: end.clone(),
                    last: more.then(|| rows.last().map_or_else(String::new, |row| row.0.clone())),
                });
            }
            Operation::Get { .. } | Operation::GetMany { .. } | Operation::Scan { .. } => {}
            Operation::Put { key, value } => self.write(key, Some(value)),
            Operation::Delete { key } => self.write(key, None),
            Operation::CompareAndSet { key, expected, value } => {
                if happened != Happened::No {
                    self.read(key, expected.as_deref());
                }
                self.write(key, Some(value));
            }
            Operation::Transact { preconditions, writes } => {
                for precondition in preconditions.iter().filter(|_| happened != Happened::No) {
                    match precondition {
                        Precondition::Absent(key) => self.read(key, None),
                        Precondition::Equals(key, value) => self.read(key, Some(value)),
                        // It says that the key was something, but not what.
                        Precondition::Present(_) => {}
                    }
                }
                for (key, value) in writes {
                    self.write(key, value.as_deref());
                }
            }
            Operation::MicroOperations(operations) => {
                for operation in operations {
                    self.translate_micro(operation, happened);
                }
            }
        }
    }

    fn translate_micro(&mut self, operation: &MicroOperation, happened: Happened) {
        match operation {
            MicroOperation::Append { key, value } => {
                let object = self.object(key, true);
                let value = self.value(object, Some(value));
                self.micro.push(Micro::Append { value });
            }
            MicroOperation::Write { key, value } => self.write(key, value.as_deref()),
            MicroOperation::Read { key, found: Found::Register(value) } => {
                if happened != Happened::No {
                    self.read(key, value.as_deref());
                }
            }
            MicroOperation::Read { key, found: Found::List(elements) } => {
                if happened == Happened::Yes {
                    self.read_list(key, elements);
                }
            }
            MicroOperation::Read { found: Found::Unanswered, .. } => {}
        }
    }

    fn read(&mut self, key: &str, value: Option<&str>) {
        let object = self.object(key, false);
        let value = self.value(object, value);
        self.micro.push(Micro::Read { value });
    }

    fn write(&mut self, key: &str, value: Option<&str>) {
        let object = self.object(key, false);
        let value = self.value(object, value);
        self.micro.push(Micro::Write { value });
    }

    fn read_list(&mut self, key: &str, elements: &[String]) {
        let number = self.object(key, true);
        let longest = &self.objects[number as usize].longest;
        let agree = longest
            .iter()
            .zip(elements)
            .take_while(|(known, element)| {
                self.values[**known as usize].text.as_deref() == Some(element.as_str())
            })
            .count();
        let list = if agree == longest.len() {
            for element in &elements[agree..] {
                let value = self.value(number, Some(element));
                self.objects[number as usize].longest.push(value);
            }
            ListRead::Prefix(small(elements.len()))
        } else if agree == elements.len() {
            ListRead::Prefix(small(agree))
        } else {
            let odd = elements.iter().map(|element| self.value(number, Some(element))).collect();
            let object = &mut self.objects[number as usize];
            object.odd.push(odd);
            ListRead::Odd(small(object.odd.len() - 1))
        };
        self.micro.push(Micro::ReadList { object: number, list });
    }

    fn object(&mut self, name: &str, is_list: bool) -> u32 {
        let numbers = if is_list { &mut self.list_numbers } else { &mut self.register_numbers };
        if let Some(number) = numbers.get(name) {
            return *number;
        }
        let (name, number): (Arc<str>, u32) = (name.into(), small(self.objects.len()));
        numbers.insert(Arc::clone(&name), number);
        let initial = small(self.values.len());
        self.values.push(Value { object: number, text: None });
        self.objects.push(Object {
            name,
            is_list,
            initial,
            longest: Vec::new(),
            odd: Vec::new(),
            value_numbers: HashMap::new(),
        });
        number
    }

    fn value(&mut self, number: u32, text: Option<&str>) -> u32 {
        let object = &mut self.objects[number as usize];
        let Some(text) = text else { return object.initial };
        if let Some(value) = object.value_numbers.get(text) {
            return *value;
        }
        let (text, value): (Arc<str>, u32) = (text.into(), small(self.values.len()));
        object.value_numbers.insert(Arc::clone(&text), value);
        self.values.push(Value { object: number, text: Some(text) });
        value
    }

    pub(crate) fn micro_of(&self, transaction: u32) -> &[Micro] {
        let at = transaction as usize;
        let end = self.heads.get(at + 1).map_or(self.micro.len(), |next| next.first as usize);
        &self.micro[self.heads[at].first as usize..end]
    }

    pub(crate) fn elements(&self, object: u32, list: ListRead) -> &[u32] {
        let object = &self.objects[object as usize];
        match list {
            ListRead::Prefix(length) => &object.longest[..length as usize],
            ListRead::Odd(odd) => &object.odd[odd as usize],
        }
    }

    pub(crate) fn object_of(&self, value: u32) -> &Object {
        &self.objects[self.values[value as usize].object as usize]
    }

    pub(crate) fn text(&self, value: u32) -> &str {
        self.values[value as usize].text.as_deref().unwrap_or("(absent)")
    }

    /// The transaction as micro-operations.
    pub(crate) fn record(&self, transaction: u32) -> Record {
        let Head { client, call, ret, ending, .. } = self.heads[transaction as usize];
        let operations =
            self.micro_of(transaction).iter().map(|micro| self.spell(*micro)).collect();
        Record { client, call, ret, ending, operation: Operation::MicroOperations(operations) }
    }

    fn spell(&self, micro: Micro) -> MicroOperation {
        let key = |value: u32| self.object_of(value).name.to_string();
        let text = |value: u32| self.values[value as usize].text.as_deref().map(str::to_owned);
        match micro {
            Micro::Append { value } => {
                MicroOperation::Append { key: key(value), value: self.text(value).to_owned() }
            }
            Micro::Write { value } => MicroOperation::Write { key: key(value), value: text(value) },
            Micro::Read { value } => {
                MicroOperation::Read { key: key(value), found: Found::Register(text(value)) }
            }
            Micro::ReadList { object, list } => {
                let elements = self.elements(object, list);
                let texts = elements.iter().map(|value| self.text(*value).to_owned()).collect();
                let key = self.objects[object as usize].name.to_string();
                MicroOperation::Read { key, found: Found::List(texts) }
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Happened {
    Yes,
    Perhaps,
    No,
}

pub(crate) fn small(number: usize) -> u32 {
    u32::try_from(number).expect("four billion micro-operations fit no memory")
}
