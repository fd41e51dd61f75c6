//! Judges a long history of transactions, as lines, and says how long that took.
//!
//! `cargo run --release -p kvorum-checker --example long_transactions -- [MICRO-OPERATIONS] [lists|registers|store] [stale]`

use std::io::{self, BufReader, Read};
use std::time::Instant;

use kvorum_checker::{
    Ending, Entry, Found, Isolation, MicroOperation, Operation, Record, Transactions, read_entries,
    write_line,
};

const CLIENTS: u64 = 16;
const KEYS: u64 = 500;
/// A list is left alone once it is this long, and another one takes its place.
const ELEMENTS_MAX: usize = 100;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let count: u64 = arguments.next().map_or(Ok(1_000_000), |count| count.parse())?;
    let shape = arguments.next().unwrap_or_else(|| "lists".to_owned());
    let stale = arguments.next().is_some();
    let started = Instant::now();
    let lines = Lines { store: Store::new(&shape, stale), left: count, buffer: Vec::new(), at: 0 };
    let mut transactions = Transactions::new();
    for entry in read_entries(BufReader::with_capacity(1 << 16, lines)) {
        if let Entry::Operation(record) = entry? {
            transactions.push(&record);
        }
    }
    println!("{} transactions made and read in {:.1?}", transactions.len(), started.elapsed());
    let started = Instant::now();
    let verdict = transactions.acyclic(Isolation::StrictSerializable);
    println!("judged in {:.1?}: {verdict}", started.elapsed());
    if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
        status.lines().filter(|line| line.starts_with("VmHWM")).for_each(|line| println!("{line}"));
    }
    Ok(())
}

/// A store on which transactions happen one after the other, though their times overlap.
struct Store {
    random: u64,
    clock: u64,
    values: u64,
    lists: bool,
    stale: bool,
    keys: Vec<(String, Vec<String>)>,
}

impl Store {
    fn new(shape: &str, stale: bool) -> Self {
        let keys = (0..KEYS).map(|key| (format!("k{key}"), Vec::new())).collect();
        Self { random: 1, clock: 1000, values: 0, lists: shape == "lists", stale, keys }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }

    /// A transaction of four micro-operations.
    fn next(&mut self) -> Record {
        self.clock += 10;
        let mut operations = Vec::new();
        for _ in 0..4 {
            let at = usize::try_from(self.below(KEYS)).unwrap_or(0);
            self.values += 1;
            let (values, write) = (self.values, self.below(2) == 0);
            let lists = self.lists;
            if lists && self.keys[at].1.len() == ELEMENTS_MAX {
                self.keys[at] = (format!("k{at}.{values}"), Vec::new());
            }
            let stale = self.stale && values > 400_000;
            let (key, list) = &mut self.keys[at];
            let key = key.clone();
            operations.push(match (write, lists) {
                (true, true) => {
                    list.push(values.to_string());
                    MicroOperation::Append { key, value: values.to_string() }
                }
                (true, false) => {
                    *list = vec![values.to_string()];
                    MicroOperation::Write { key, value: Some(values.to_string()) }
                }
                (false, true) => {
                    let length = if stale && !list.is_empty() { 1 } else { list.len() };
                    self.stale &= !stale;
                    MicroOperation::Read { key, found: Found::List(list[..length].to_vec()) }
                }
                (false, false) => {
                    MicroOperation::Read { key, found: Found::Register(list.first().cloned()) }
                }
            });
        }
        let (early, late) = (self.below(300), self.below(300));
        Record {
            client: self.below(CLIENTS),
            call: self.clock - early,
            ret: self.clock + late,
            ending: Ending::Done,
            operation: Operation::MicroOperations(operations),
        }
    }
}

/// The store's history as a file that is never whole.
struct Lines {
    store: Store,
    left: u64,
    buffer: Vec<u8>,
    at: usize,
}

impl Read for Lines {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.at == self.buffer.len() && self.left > 0 {
            self.left = self.left.saturating_sub(4);
            (self.buffer, self.at) = (Vec::new(), 0);
            write_line(&mut self.buffer, &self.store.next())?;
        }
        let length = (&self.buffer[self.at..]).read(to)?;
        self.at += length;
        Ok(length)
    }
}
