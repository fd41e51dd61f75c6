//! Judges a long history of transactions, read as lines, and says how long that took.
//!
//! `cargo run --release -p kvorum-checker --example long_transactions -- [OPERATIONS] [lists|registers|store] [stale]`

mod store;

use std::io::{self, BufReader, Read};
use std::time::Instant;

use kvorum_checker::{Entry, Isolation, Transactions, read_entries, write_line};

use store::{MICRO_OPERATIONS, Shape, Store};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let count: u64 = arguments.next().map_or(Ok(1_000_000), |count| count.parse())?;
    let shape = match arguments.next().as_deref() {
        None | Some("lists") => Shape::Lists,
        Some("registers") => Shape::Registers,
        Some("store") => Shape::Store,
        Some(other) => return Err(format!("{other:?} is none of lists, registers, store").into()),
    };
    let stale_from = arguments.next().map(|_| count / 3);
    let left = if shape == Shape::Store { count } else { count / MICRO_OPERATIONS };
    let started = Instant::now();
    let lines = Lines { store: Store::new(shape, stale_from), left, buffer: Vec::new(), at: 0 };
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
            self.left -= 1;
            (self.buffer, self.at) = (Vec::new(), 0);
            write_line(&mut self.buffer, &self.store.next())?;
        }
        let length = (&self.buffer[self.at..]).read(to)?;
        self.at += length;
        Ok(length)
    }
}
