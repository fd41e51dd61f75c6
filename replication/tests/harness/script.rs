//! Scenario scripts: commands of a script drive a cluster step by step, and what the nodes do is
//! compared with the golden trace. `UPDATE_GOLDENFILES=1 cargo test -p kvorum-replication` writes
//! the traces anew; read the difference before accepting it.
//!
//! What every room's scripts know; each room's `script.rs` says what `cluster` takes there, and what
//! it adds:
//!
//! ```text
//! cluster replicas=3 LIMIT=N...    a new cluster, all nodes up (`down` leaves them down)
//! session [at@NODE]                open a client session; of the room's first choice unless `at`
//!                                  says otherwise, as all that follow
//! txn a=1 del@b absent@c present@d equals@e@v [stamp@CLIENT.SEQ[.BELOW]] [by@TIME] [at@NODE]
//! get KEY... [by@TIME] [at@NODE] [stale]
//! scan FROM..TO [limit@N] [paged] [of@HOLDER] [by@TIME] [at@NODE]
//!                                  paged: the first page of many; of: the next, of what that node
//!                                  holds (in these tests nothing but what the rows are by then)
//! deliver|drop|repeat|delay [all] [KIND] [of@TXN] [from@NODE] [to@NODE]
//!                                  the first such message on its way, or all of them; `delay`
//!                                  puts it behind the others
//! network                          what is on its way
//! sync [NODE...]                   make logs durable
//! run [quiet]                      deliver and sync until nothing is on its way; quiet tells in short
//! live TIME [quiet]                the same, while time passes
//! tick TIME                        let time pass; nothing is delivered
//! wake NODE                        let time pass up to this node's next timer, and ring no other's
//! arm NODE POINT                   from its next start on, the node dies at this point
//! crash NODE... [keep@N]           of the records that are not durable N survive
//! wipe NODE [life@N]               its disk is gone; it comes back under this life
//! restart [NODE...]
//! cut A B, block A B, heal A B     no link; nothing from A reaches B; all is well
//! relink A B                       a new link in the place of one that nobody saw break
//! checkpoint NODE, flush NODE, full NODE, room NODE, stopping NODE
//! status [NODE...], count NODE COUNTER..., log NODE, data
//! agree                            all replicas hold the same
//! ```

use std::error::Error;
use std::fmt::Write as _;
use std::time::Duration;

use goldenscript::{Argument, Command, Context, Runner};
use kvorum_replication::{
    ClientId, Held, Key, NodeId, Operation, Page, Precondition, Query, Range, Stamp, Time,
    Transaction, Write,
};

use super::cluster::Cluster;
use super::{Room, show};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What a room's scripts say in their own way.
pub(crate) trait Scripted: Room {
    /// Whom clients ask.
    fn whom(cluster: &Cluster<Self>) -> NodeId;

    /// Whether the node has a copy of the data.
    fn has_rows(_node: NodeId) -> bool {
        true
    }

    /// A node that is up, in a line.
    fn status(cluster: &Cluster<Self>, node: NodeId) -> String {
        let Some(status) = cluster.status(node) else { return "is down".to_owned() };
        format!(
            "{} {}: {} in flight, {} in doubt, {} locks",
            status.role, status.incarnation, status.in_flight, status.in_doubt, status.locks
        )
    }

    /// What all replicas hold, if nothing is open.
    fn agree(cluster: &Cluster<Self>) -> Result<String> {
        let mut held: Option<String> = None;
        for node in cluster.nodes() {
            let status = cluster.status(node).ok_or(format!("{node} is down"))?;
            if status.in_flight > 0 || status.locks > 0 {
                let (open, locks) = (status.in_flight, status.locks);
                return Err(format!("{node} has {open} open transactions and {locks} locks").into());
            }
            if !Self::has_rows(node) {
                continue;
            }
            let data = data(cluster, node);
            if held.as_ref().is_some_and(|held| *held != data) {
                return Err(format!("{node} holds {data}, not {held:?}").into());
            }
            held = Some(data);
        }
        Ok(format!("all replicas hold {}", held.unwrap_or_default()))
    }

    /// Commands that no other room knows.
    fn own_command(
        cluster: &mut Cluster<Self>,
        name: &str,
        words: &Words<'_>,
        output: &mut String,
    ) -> Result<()>;
}

/// How a script's `cluster` command is understood.
type NewCluster<R> = Box<dyn Fn(&Words<'_>) -> Result<Cluster<R>>>;

/// A script that is being run.
pub(crate) struct Script<R: Room> {
    cluster: Option<Cluster<R>>,
    new: NewCluster<R>,
}

impl<R: Room> Script<R> {
    pub(crate) fn new(new: impl Fn(&Words<'_>) -> Result<Cluster<R>> + 'static) -> Self {
        Self { cluster: None, new: Box::new(new) }
    }
}

impl<R: Scripted> Runner for Script<R> {
    type Command = Command;

    fn run(&mut self, command: &Command, _context: &Context) -> Result<String> {
        let words = Words::of(command);
        if command.name == "cluster" {
            self.cluster = Some((self.new)(&words)?);
            return Ok(String::new());
        }
        let cluster = self.cluster.as_mut().ok_or("there is no cluster yet")?;
        let mut output = String::new();
        run(cluster, &command.name, &words, &mut output)?;
        if words.has("quiet") {
            in_short(cluster.take_trace(), &mut output)?;
        }
        let mut lines = cluster.take_trace();
        lines.push(output.trim_end_matches('\n').to_owned());
        lines.extend(R::wrong(cluster));
        lines.retain(|line| !line.is_empty());
        Ok(lines.join("\n"))
    }
}

/// Of a trace, what a client or an operator would notice.
pub(crate) fn in_short(trace: Vec<String>, output: &mut String) -> Result<()> {
    let told = |line: &&String| {
        [" replies ", " dies ", " applies ", " installs "].iter().any(|word| line.contains(word))
    };
    for line in trace.iter().filter(told) {
        writeln!(output, "{line}")?;
    }
    Ok(())
}

fn run<R: Scripted>(
    cluster: &mut Cluster<R>,
    name: &str,
    words: &Words<'_>,
    output: &mut String,
) -> Result<()> {
    match name {
        "session" | "txn" | "get" | "scan" => {
            let operation = words.operation(name)?;
            ask(cluster, words, operation)?;
        }
        "deliver" | "drop" | "repeat" | "delay" => messages(cluster, name, words)?,
        "network" => {
            for packet in &cluster.network {
                let (from, to) = (show::node(packet.from), show::node(packet.to));
                writeln!(output, "{from} → {to} {}", R::message(&packet.message))?;
            }
        }
        "run" => cluster.run(),
        "live" => cluster.live(words.time()?),
        "tick" => cluster.tick(words.time()?),
        "wake" => cluster.wake(words.first_node()?),
        "arm" => match words.plain[..] {
            [at, point] => cluster.arm(node(at)?, point),
            _ => return Err("arm NODE POINT".into()),
        },
        "sync" | "crash" | "restart" | "checkpoint" | "flush" | "full" | "room" | "stopping" => {
            change(cluster, name, words)?;
        }
        "wipe" => {
            let life = words.named("life").map_or(Ok(0), str::parse)?;
            cluster.wipe(words.first_node()?, life);
        }
        "cut" | "block" | "heal" | "relink" => {
            let [one, other] = words.plain[..] else { return Err("two nodes".into()) };
            let (one, other) = (node(one)?, node(other)?);
            match name {
                "cut" => cluster.cut(one, other),
                "block" => cluster.block(one, other),
                "heal" => cluster.heal(one, other),
                _ => cluster.relink(one, other),
            }
        }
        "status" | "count" | "log" | "data" | "agree" => look(cluster, name, words, output)?,
        name => R::own_command(cluster, name, words, output)?,
    }
    Ok(())
}

/// Commands that do something to a node.
fn change<R: Room>(cluster: &mut Cluster<R>, name: &str, words: &Words<'_>) -> Result<()> {
    let keep = words.named("keep").map_or(Ok(0), str::parse)?;
    for node in words.nodes(cluster)? {
        match (name, cluster.is_up(node)) {
            ("crash", true) => cluster.crash(node, keep),
            ("restart", false) => cluster.start(node),
            ("sync", true) => cluster.sync(node),
            ("checkpoint", true) => cluster.checkpoint(node),
            ("flush", true) => cluster.flush(node),
            ("stopping", true) => cluster.stopping(node),
            ("full" | "room", true) => cluster.room(node, name == "room"),
            // Of all nodes, those that can.
            _ if words.plain.is_empty() => {}
            _ => return Err(format!("{node} can't {name}").into()),
        }
    }
    Ok(())
}

/// Commands that only look.
fn look<R: Scripted>(
    cluster: &Cluster<R>,
    name: &str,
    words: &Words<'_>,
    output: &mut String,
) -> Result<()> {
    match name {
        "status" => {
            for node in words.nodes(cluster)? {
                writeln!(output, "{:<2} {}", show::node(node), R::status(cluster, node))?;
            }
        }
        "count" => {
            let (at, counters) = words.plain.split_first().ok_or("count NODE COUNTER...")?;
            let at = node(at)?;
            for wanted in counters {
                let count = cluster.counter(at, wanted).ok_or(format!("no counter {wanted}"))?;
                writeln!(output, "{:<2} {wanted} {count}", show::node(at))?;
            }
        }
        "log" => {
            for at in words.nodes(cluster)? {
                for (index, record) in cluster.log(at).iter().enumerate() {
                    let at = show::node(at);
                    writeln!(output, "{at:<2} {} {}", index + 1, R::record(record))?;
                }
            }
        }
        "data" => {
            for at in cluster.nodes().into_iter().filter(|node| R::has_rows(*node)) {
                writeln!(output, "{at:<2} {}", data(cluster, at))?;
            }
        }
        _ => writeln!(output, "{}", R::agree(cluster)?)?,
    }
    Ok(())
}

pub(crate) fn data<R: Room>(cluster: &Cluster<R>, node: NodeId) -> String {
    match cluster.machine(node) {
        None => "is down".to_owned(),
        Some(machine) => show::rows(&machine.rows),
    }
}

pub(crate) fn ask<R: Scripted>(
    cluster: &mut Cluster<R>,
    words: &Words<'_>,
    operation: Operation,
) -> Result<()> {
    let at = words.node("at")?.unwrap_or_else(|| R::whom(cluster));
    let deadline = match words.named("by") {
        Some(wait) => cluster.now.after(time(wait)?),
        None => Time::NEVER,
    };
    if !cluster.is_up(at) {
        return Err(format!("{at} is down").into());
    }
    cluster.ask(at, operation, deadline);
    Ok(())
}

/// The first message of this kind that is on its way.
pub(crate) fn first<R: Room>(cluster: &Cluster<R>, kind: &str) -> Option<usize> {
    cluster.network.iter().position(|packet| R::kind(&packet.message) == kind)
}

fn messages<R: Room>(cluster: &mut Cluster<R>, name: &str, words: &Words<'_>) -> Result<()> {
    let (from, to) = (words.node("from")?, words.node("to")?);
    let of = words.named("of");
    let all = words.has("all");
    let kind = words.plain.iter().find(|word| **word != "all");
    let mut left = if all { cluster.network.len() } else { 1 };
    let mut index = 0;
    let mut found = false;
    while left > 0 && index < cluster.network.len() {
        let packet = &cluster.network[index];
        let chosen = kind.is_none_or(|kind| *kind == R::kind(&packet.message))
            && from.is_none_or(|from| from == packet.from)
            && to.is_none_or(|to| to == packet.to)
            && of.is_none_or(|of| R::message(&packet.message).split(' ').nth(1) == Some(of));
        if all {
            left -= 1;
        }
        if !chosen {
            index += 1;
            continue;
        }
        found = true;
        match name {
            "deliver" => cluster.deliver(index),
            "drop" => drop(cluster.network.remove(index)),
            "repeat" => {
                let again = cluster.network[index].clone();
                cluster.network.push(again);
                index += 1;
            }
            _ => {
                let later = cluster.network.remove(index);
                cluster.network.push(later);
            }
        }
        if !all {
            left -= 1;
        }
    }
    match found || all {
        true => Ok(()),
        false => Err("no such message is on its way".into()),
    }
}

/// The words of a command: plain ones, `name@value` ones, and `key=value` ones.
pub(crate) struct Words<'a> {
    pub(crate) plain: Vec<&'a str>,
    pub(crate) named: Vec<(&'a str, &'a str)>,
    pub(crate) pairs: Vec<(&'a str, &'a str)>,
}

impl<'a> Words<'a> {
    fn of(command: &'a Command) -> Self {
        let mut words = Self { plain: Vec::new(), named: Vec::new(), pairs: Vec::new() };
        for argument in command.consume_args() {
            match argument {
                Argument::KeyValue(key, value) => words.pairs.push((key, value)),
                Argument::Positional(word) => match word.split_once('@') {
                    Some(named) => words.named.push(named),
                    None => words.plain.push(word),
                },
                other => unreachable!("{other:?}"),
            }
        }
        words
    }

    pub(crate) fn named(&self, name: &str) -> Option<&'a str> {
        self.named.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    pub(crate) fn node(&self, name: &str) -> Result<Option<NodeId>> {
        self.named(name).map(node).transpose()
    }

    pub(crate) fn has(&self, word: &str) -> bool {
        self.plain.contains(&word)
    }

    /// The nodes named, or all of them.
    fn nodes<R: Room>(&self, cluster: &Cluster<R>) -> Result<Vec<NodeId>> {
        match self.plain.is_empty() {
            true => Ok(cluster.nodes()),
            false => self.plain.iter().map(|word| node(word)).collect(),
        }
    }

    pub(crate) fn first_node(&self) -> Result<NodeId> {
        node(self.plain.first().ok_or("a node")?)
    }

    fn time(&self) -> Result<Duration> {
        time(self.plain.first().ok_or("a time")?)
    }

    fn operation(&self, name: &str) -> Result<Operation> {
        let query = match name {
            "session" => return Ok(Operation::OpenSession),
            "txn" => {
                let (stamp, transaction) = (self.stamp()?, self.transaction()?);
                return Ok(Operation::Transact { stamp, transaction });
            }
            "scan" => self.scan()?,
            _ => {
                let keys = self.plain.iter().filter(|word| **word != "stale");
                let mut keys: Vec<Key> = keys.map(|word| key(word)).collect();
                match keys.len() {
                    1 => Query::Get(keys.remove(0)),
                    _ => Query::GetMany(keys),
                }
            }
        };
        Ok(match self.has("stale") {
            true => Operation::ReadStale(query),
            false => Operation::Read(query),
        })
    }

    fn transaction(&self) -> Result<Transaction> {
        let mut transaction = Transaction::default();
        for (name, value) in &self.named {
            match *name {
                "absent" => transaction.preconditions.push(Precondition::Absent(key(value))),
                "present" => transaction.preconditions.push(Precondition::Present(key(value))),
                "equals" => {
                    let (name, value) = value.split_once('@').ok_or("equals@KEY@VALUE")?;
                    transaction.preconditions.push(Precondition::Equals(key(name), key(value)));
                }
                "del" => transaction.writes.push(Write::Delete(key(value))),
                "stamp" | "by" | "at" => {}
                other => return Err(format!("what is {other}?").into()),
            }
        }
        for (name, value) in &self.pairs {
            transaction.writes.push(Write::Put(key(name), key(value)));
        }
        Ok(transaction)
    }

    fn stamp(&self) -> Result<Option<Stamp>> {
        let Some(text) = self.named("stamp") else { return Ok(None) };
        let numbers: Vec<u64> =
            text.split('.').map(str::parse).collect::<std::result::Result<_, _>>()?;
        let (client, sequence, answered_below) = match numbers[..] {
            [client, sequence] => (client, sequence, sequence),
            [client, sequence, below] => (client, sequence, below),
            _ => return Err("stamp@CLIENT.SEQUENCE[.BELOW]".into()),
        };
        Ok(Some(Stamp { client: ClientId(client), sequence, answered_below }))
    }

    fn scan(&self) -> Result<Query> {
        let (start, end) =
            self.plain.first().and_then(|word| word.split_once("..")).ok_or("scan FROM..TO")?;
        let range = Range {
            start: key(start),
            end: (!end.is_empty()).then(|| key(end)),
            limit: self.named("limit").map_or(Ok(100), str::parse)?,
        };
        Ok(match (self.has("paged"), self.named("of")) {
            (false, None) => Query::Scan(range),
            (_, None) => Query::Page(Page { range, last: false, of: None }),
            // As the store of these tests names them.
            (_, Some(by)) => {
                let of = Some(Held { by: NodeId(by.parse()?), run: 1, number: 1 });
                Query::Page(Page { range, last: false, of })
            }
        })
    }
}

fn key(word: &str) -> Key {
    Key::from(word.to_owned())
}

pub(crate) fn node(word: &str) -> Result<NodeId> {
    match word {
        "c" => Ok(NodeId::COORDINATOR),
        word => Ok(NodeId(word.strip_prefix('n').ok_or("a node is c or n1, n2, ...")?.parse()?)),
    }
}

pub(crate) fn time(word: &str) -> Result<Duration> {
    if let Some(number) = word.strip_suffix("us") {
        return Ok(Duration::from_micros(number.parse()?));
    }
    match word.strip_suffix("ms") {
        Some(number) => Ok(Duration::from_millis(number.parse()?)),
        None => Ok(Duration::from_secs(word.strip_suffix('s').ok_or("5s, 5ms or 5us")?.parse()?)),
    }
}

/// One test per script of this directory, so that a failing one is named.
macro_rules! scripts {
    ($directory:literal, $script:expr; $($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                let path = concat!("tests/scripts/", $directory, "/", stringify!($name));
                goldenscript::run(&mut $script, path).expect("the script runs");
            }
        )*

        const NAMES: &[&str] = &[$(stringify!($name)),*];

        /// A script that nobody runs proves nothing.
        #[test]
        fn every_script_is_run() {
            let directory = concat!("tests/scripts/", $directory);
            for file in std::fs::read_dir(directory).expect("it is there") {
                let name = file.expect("it can be listed").file_name();
                let name = name.to_string_lossy();
                assert!(NAMES.contains(&&*name), "no test runs the script {name}");
            }
        }
    };
}

pub(crate) use scripts;
