//! How long a long history takes to judge, and how much memory.
//!
//! `cargo run --release -p kvorum-checker --example million -- --operations 1000000 --clients 64
//! --keys 1 --unknown 20 --needle` writes a history as a file of lines, as a simulated store of one
//! register a key would give it, reads it back, judges it, and prints seconds and the most memory
//! that was resident. With `--needle` one read in the middle is wrong. `--transactions` makes
//! transactions over several keys, judged strictly serializable. `--keep FILE` keeps the history.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::error::Error;
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::PathBuf;
use std::time::Instant;

use kvorum_checker::{
    Ending, Limits, Operation, Precondition, Record, linearizable, read_lines, serializable,
    write_line,
};

fn main() -> Result<(), Box<dyn Error>> {
    let setup = Setup::of(std::env::args().skip(1))?;
    let name = format!("kvorum-million-{}.jsonl", std::process::id());
    let path = setup.keep.clone().unwrap_or_else(|| std::env::temp_dir().join(name));
    let mut to = BufWriter::new(File::create(&path)?);
    let mut store = Store::new(&setup);
    store.run(|record| write_line(&mut to, record))?;
    drop(to);
    let started = Instant::now();
    let history = read_lines(BufReader::with_capacity(1 << 20, File::open(&path)?))?;
    let read = started.elapsed();
    let verdict = if setup.transactions {
        serializable(&history, Limits::default())
    } else {
        linearizable(&history, Limits::default())
    };
    let all = started.elapsed();
    println!(
        "{} operations, read in {:.2} s, judged in {:.2} s, {} MiB resident at most: {verdict}",
        history.len(),
        read.as_secs_f64(),
        (all - read).as_secs_f64(),
        resident_mib_max()?,
    );
    if setup.keep.is_none() {
        std::fs::remove_file(path)?;
    }
    if verdict.violation().is_some() != setup.needle {
        return Err("that is not what was planted".into());
    }
    Ok(())
}

/// The most memory this process ever held, in MiB.
fn resident_mib_max() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 =
        line.and_then(|line| line.split_whitespace().next()).ok_or("no VmHWM")?.parse()?;
    Ok(kib / 1024)
}

/// What history to make.
struct Setup {
    operations: u64,
    clients: u64,
    keys: u64,
    /// Half of all operations go to one key in a hundred.
    hot: bool,
    /// Of 1,000 writes, how many have an unknown outcome.
    unknown: u64,
    /// How many different values there are for a key; 0: each is written once.
    values: u64,
    seed: u64,
    needle: bool,
    transactions: bool,
    /// Where the history stays.
    keep: Option<PathBuf>,
}

impl Setup {
    fn of(mut arguments: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let mut setup = Self {
            operations: 1_000_000,
            clients: 32,
            keys: 100,
            hot: false,
            unknown: 10,
            values: 0,
            seed: 1,
            needle: false,
            transactions: false,
            keep: None,
        };
        while let Some(name) = arguments.next() {
            let mut number = || -> Result<u64, Box<dyn Error>> {
                Ok(arguments.next().ok_or("a flag without its number")?.parse()?)
            };
            match name.as_str() {
                "--hot" => setup.hot = true,
                "--needle" => setup.needle = true,
                "--transactions" => setup.transactions = true,
                "--keep" => setup.keep = arguments.next().map(PathBuf::from),
                "--operations" => setup.operations = number()?,
                "--clients" => setup.clients = number()?,
                "--keys" => setup.keys = number()?,
                "--unknown" => setup.unknown = number()?,
                "--values" => setup.values = number()?,
                "--seed" => setup.seed = number()?,
                other => return Err(format!("no such flag: {other}").into()),
            }
        }
        Ok(setup)
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// What happens next at a client, in the order of time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Call,
    Effect,
    Return,
}

/// A store of which each operation takes place at one moment between its call and its return, and
/// its clients, each with one operation at a time.
struct Store<'a> {
    setup: &'a Setup,
    random: Random,
    rows: BTreeMap<String, String>,
    now: u64,
    /// For each key something that was there before, for the needle.
    older: BTreeMap<String, Older>,
    events: BinaryHeap<Reverse<(u64, Event, u64)>>,
    /// What each client waits for.
    waiting: BTreeMap<u64, Record>,
    /// Effects of unknown outcome take place by themselves.
    abandoned: BTreeMap<u64, Operation>,
    written: u64,
    needle: bool,
}

impl<'a> Store<'a> {
    fn new(setup: &'a Setup) -> Self {
        let events = (0..setup.clients).map(|client| Reverse((client * 100, Event::Call, client)));
        Self {
            setup,
            random: Random(setup.seed),
            rows: BTreeMap::new(),
            now: 0,
            older: BTreeMap::new(),
            events: events.collect(),
            waiting: BTreeMap::new(),
            abandoned: BTreeMap::new(),
            written: 0,
            needle: setup.needle,
        }
    }

    fn run(
        &mut self,
        mut write: impl FnMut(&Record) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let mut done = 0;
        while let Some(Reverse((now, event, client))) = self.events.pop() {
            self.now = now;
            match event {
                Event::Call if done + (self.waiting.len() as u64) < self.setup.operations => {
                    self.call(now, client);
                }
                Event::Call => {}
                Event::Effect => self.take_effect(client),
                Event::Return => {
                    let mut record = self.waiting.remove(&client).expect("it was called");
                    record.ret = now;
                    if self.needle && done > self.setup.operations / 2 {
                        self.needle = !self.falsify(&mut record);
                    }
                    write(&record)?;
                    done += 1;
                    let pause = self.random.below(20_000);
                    self.events.push(Reverse((now + pause, Event::Call, client)));
                }
            }
        }
        Ok(())
    }

    fn call(&mut self, now: u64, client: u64) {
        let operation = self.operation();
        // One in a hundred hangs for long, as when a process is paused.
        let slow = if self.random.below(100) == 0 { 50 } else { 1 };
        let effect = now + 1 + self.random.below(200_000 * slow);
        let ret = effect + 1 + self.random.below(200_000 * slow);
        let reads = matches!(operation, Operation::Get { .. } | Operation::GetMany { .. });
        let unknown = !reads && self.random.below(1000) < self.setup.unknown;
        let ending = if unknown { Ending::Unknown } else { Ending::Done };
        if unknown {
            // A third takes place at once, a third later, a third never.
            let id = self.setup.clients + self.abandoned.len() as u64;
            self.abandoned.insert(id, operation.clone());
            match self.random.below(3) {
                0 => self.events.push(Reverse((effect, Event::Effect, id))),
                1 => {
                    let late = effect + self.random.below(20_000_000);
                    self.events.push(Reverse((late, Event::Effect, id)));
                }
                _ => {}
            }
        } else {
            self.events.push(Reverse((effect, Event::Effect, client)));
        }
        self.events.push(Reverse((ret, Event::Return, client)));
        self.waiting.insert(client, Record { client, call: now, ret, ending, operation });
    }

    fn key(&mut self) -> String {
        let keys = self.setup.keys;
        let hot = self.setup.hot && self.random.below(2) == 0;
        let key = self.random.below(if hot { keys.div_ceil(100) } else { keys });
        format!("k{key}")
    }

    fn value(&mut self) -> String {
        self.written += 1;
        match self.setup.values {
            0 => format!("v{}", self.written),
            values => format!("v{}", self.random.below(values)),
        }
    }

    fn operation(&mut self) -> Operation {
        let key = self.key();
        if self.setup.transactions {
            return self.transaction(key);
        }
        match self.random.below(20) {
            0 => Operation::Delete { key },
            1..=7 => Operation::Put { key, value: self.value() },
            8..=10 => {
                let expected = self.rows.get(&key).cloned();
                Operation::CompareAndSet { key, expected, value: self.value() }
            }
            _ => Operation::Get { key, result: None },
        }
    }

    fn transaction(&mut self, key: String) -> Operation {
        let other = self.key();
        match self.random.below(20) {
            0..=7 if key != other => {
                let (value, other_value) = (self.value(), self.value());
                let writes = vec![(key, Some(value)), (other, Some(other_value))];
                Operation::Transact { preconditions: Vec::new(), writes }
            }
            8 | 9 if key != other => {
                let found = match self.rows.get(&key) {
                    Some(value) => Precondition::Equals(key, value.clone()),
                    None => Precondition::Absent(key),
                };
                let writes = vec![(other, Some(self.value()))];
                Operation::Transact { preconditions: vec![found], writes }
            }
            10..=15 if key != other => {
                Operation::GetMany { keys: vec![key, other], results: vec![None; 2] }
            }
            0..=9 => Operation::Put { key, value: self.value() },
            _ => Operation::Get { key, result: None },
        }
    }

    fn take_effect(&mut self, client: u64) {
        let abandoned = self.abandoned.get(&client).cloned();
        let acknowledged = abandoned.is_none();
        let rows = &mut self.rows;
        let operation = match abandoned {
            Some(operation) => operation,
            None => {
                let record =
                    self.waiting.get_mut(&client).expect("it takes place before it returns");
                match &mut record.operation {
                    Operation::Get { key, result } => *result = rows.get(key).cloned(),
                    Operation::GetMany { keys, results } => {
                        *results = keys.iter().map(|key| rows.get(key).cloned()).collect();
                    }
                    Operation::CompareAndSet { key, expected, .. }
                        if rows.get(key) != expected.as_ref() =>
                    {
                        record.ending = Ending::PreconditionFailed(0);
                    }
                    Operation::Transact { preconditions, .. }
                        if !preconditions.iter().all(|precondition| holds(rows, precondition)) =>
                    {
                        record.ending = Ending::PreconditionFailed(0);
                    }
                    _ => {}
                }
                if record.ending != Ending::Done {
                    return;
                }
                record.operation.clone()
            }
        };
        self.apply(operation, acknowledged);
    }

    fn apply(&mut self, operation: Operation, acknowledged: bool) {
        match operation {
            Operation::Put { key, value } => self.set(key, Some(value), acknowledged),
            Operation::Delete { key } => self.set(key, None, acknowledged),
            Operation::CompareAndSet { key, expected, value } => {
                if self.rows.get(&key) == expected.as_ref() {
                    self.set(key, Some(value), acknowledged);
                }
            }
            Operation::Transact { preconditions, writes } => {
                if preconditions.iter().all(|precondition| holds(&self.rows, precondition)) {
                    for (key, value) in writes {
                        self.set(key, value, acknowledged);
                    }
                }
            }
            Operation::Get { .. }
            | Operation::GetMany { .. }
            | Operation::Scan { .. }
            | Operation::MicroOperations(_) => {}
        }
    }

    fn set(&mut self, key: String, value: Option<String>, acknowledged: bool) {
        let before = match value {
            Some(value) => self.rows.insert(key.clone(), value),
            None => self.rows.remove(&key),
        };
        let now = self.now;
        match (self.older.get_mut(&key), before) {
            (None, Some(value)) => {
                self.older.insert(key, Older { value, until: now, superseded: None });
            }
            (Some(older), Some(value)) if older.superseded.is_some_and(|t| now > t + 5 * APART) => {
                *older = Older { value, until: now, superseded: None };
            }
            (Some(older), _) if acknowledged && now > older.until + APART => {
                older.superseded.get_or_insert(now);
            }
            _ => {}
        }
    }

    /// Makes a read find what has not been there for long, if it is one.
    fn falsify(&mut self, record: &mut Record) -> bool {
        let Operation::Get { key, result } = &mut record.operation else { return false };
        match self.older.get(key) {
            Some(Older { value, superseded: Some(at), .. }) if record.call > at + APART => {
                eprintln!("needle: {key} read {value} instead of {result:?} at {}", record.call);
                *result = Some(value.clone());
                true
            }
            _ => false,
        }
    }
}

/// No operation takes longer, and none of unknown outcome takes place later than so much after it.
const APART: u64 = 60_000_000;

/// What a key was.
struct Older {
    value: String,
    /// When it was overwritten.
    until: u64,
    /// When an acknowledged write took place that cannot have come before it.
    superseded: Option<u64>,
}

fn holds(rows: &BTreeMap<String, String>, precondition: &Precondition) -> bool {
    match precondition {
        Precondition::Absent(key) => !rows.contains_key(key),
        Precondition::Present(key) => rows.contains_key(key),
        Precondition::Equals(key, value) => rows.get(key) == Some(value),
    }
}
