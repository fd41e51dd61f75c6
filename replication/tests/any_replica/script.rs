//! Scenario scripts: commands of a script drive a cluster step by step, and what the nodes do is
//! compared with the golden trace. `UPDATE_GOLDENFILES=1 cargo test -p kvorum-replication` writes
//! the traces anew; read the difference before accepting it.
//!
//! ```text
//! cluster replicas=3 LIMIT=N...    a new cluster, all nodes up (`down` leaves them down)
//! session [at@NODE]                open a client session; of n1 unless `at` says otherwise
//! txn a=1 del@b absent@c present@d equals@e@v [stamp@CLIENT.SEQ[.BELOW]] [by@TIME] [at@NODE]
//! get KEY... [by@TIME] [at@NODE]
//! scan FROM..TO [limit@N] [by@TIME] [at@NODE]
//! deliver|drop|repeat|delay [all] [KIND] [of@TXN] [from@NODE] [to@NODE]
//!                                  the first such message on its way, or all of them; `delay`
//!                                  puts it behind the others
//! commit|abort|vote|ack|inquire TXN from@NODE to@NODE
//!                                  such a message, forged (a vote is yes)
//! network                          what is on its way
//! sync [NODE...]                   make logs durable
//! promise                          deliver prepares and votes: the decision is written, not durable
//! decide                           the same, and the decision is durable: the commits are on their way
//! run [quiet]                      deliver and sync until nothing is on its way; in short
//! live TIME [quiet]                the same, while time passes
//! arm NODE POINT                   from its next start on, the node dies at this point
//! crash NODE [keep@N]              of the records that are not durable N survive
//! restart NODE, cut A B, heal A B, tick TIME, checkpoint NODE, full NODE, room NODE
//! relink A B                       a new link in the place of one that nobody saw break
//! status NODE, count NODE COUNTER..., log NODE, data
//! agree                            all replicas hold the same, and nothing is open or locked
//! ```

use std::error::Error;
use std::fmt::Write as _;
use std::time::Duration;

use goldenscript::{Argument, Command, Context, Runner};
use kvorum_replication::two_phase::any_replica::ReplicaOptions;
use kvorum_replication::two_phase::any_replica::message::{Decision, Message, TxnId, Vote};
use kvorum_replication::{
    ClientId, Key, NodeId, Operation, Precondition, Query, Range, Stamp, Time, Transaction, Write,
};

use crate::cluster::{Cluster, Packet};
use crate::show;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[derive(Default)]
struct Script {
    cluster: Option<Cluster>,
}

impl Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, _context: &Context) -> Result<String> {
        let mut output = String::new();
        if command.name == "cluster" {
            self.cluster = Some(new_cluster(command)?);
        } else {
            let cluster = self.cluster.as_mut().ok_or("there is no cluster yet")?;
            run(cluster, command, &mut output)?;
            let mut lines = cluster.take_trace();
            lines.push(output);
            output = lines.join("\n");
        }
        Ok(output)
    }
}

/// The words of a command: plain ones, `name@value` ones, and `key=value` ones.
struct Words<'a> {
    plain: Vec<&'a str>,
    named: Vec<(&'a str, &'a str)>,
    pairs: Vec<(&'a str, &'a str)>,
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

    fn named(&self, name: &str) -> Option<&'a str> {
        self.named.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    fn node(&self, name: &str) -> Result<Option<NodeId>> {
        self.named(name).map(node).transpose()
    }

    /// The nodes named, or all of them.
    fn nodes(&self, cluster: &Cluster) -> Result<Vec<NodeId>> {
        match self.plain.is_empty() {
            true => Ok(cluster.nodes()),
            false => self.plain.iter().map(|word| node(word)).collect(),
        }
    }
}

fn new_cluster(command: &Command) -> Result<Cluster> {
    let words = Words::of(command);
    let mut options = ReplicaOptions::default();
    let mut replicas = 3;
    for (name, value) in &words.pairs {
        let number: usize = value.parse()?;
        match *name {
            "replicas" => replicas = number,
            "sessions_max" => options.sessions_max = number,
            "outstanding_per_session_max" => options.outstanding_per_session_max = number,
            "in_flight_max" => options.in_flight_max = number,
            "prepared_max" => options.prepared_max = number,
            "unfinished_span_max" => options.unfinished_span_max = number as u64,
            "unacknowledged_max" => options.unacknowledged_max = number,
            "retries_per_transaction_max" => options.retries_per_transaction_max = number,
            "waiting_reads_max" => options.waiting_reads_max = number,
            "impatient_reads_max" => options.impatient_reads_max = number,
            "tries_max" => options.tries_max = u32::try_from(number)?,
            "checkpoint_bytes_max" => options.checkpoint_bytes_max = number,
            "key_bytes_max" => options.limits.key_bytes_max = number,
            other => return Err(format!("there is no limit {other}").into()),
        }
    }
    options.replicas = (1..=u32::try_from(replicas)?).map(NodeId).collect();
    let mut cluster = Cluster::new(options, true);
    if !words.plain.contains(&"down") {
        for node in cluster.nodes() {
            cluster.start(node);
        }
        cluster.run();
        cluster.take_trace();
    }
    Ok(cluster)
}

fn run(cluster: &mut Cluster, command: &Command, output: &mut String) -> Result<()> {
    let words = Words::of(command);
    match command.name.as_str() {
        "session" => ask(cluster, &words, Operation::OpenSession)?,
        "txn" => {
            let operation =
                Operation::Transact { stamp: stamp(&words)?, transaction: transaction(&words)? };
            ask(cluster, &words, operation)?;
        }
        "get" => {
            let mut keys: Vec<Key> = words.plain.iter().map(|word| key(word)).collect();
            let query = match keys.len() {
                1 => Query::Get(keys.remove(0)),
                _ => Query::GetMany(keys),
            };
            ask(cluster, &words, Operation::Read(query))?;
        }
        "scan" => ask(cluster, &words, Operation::Read(scan(&words)?))?,
        "deliver" | "drop" | "repeat" | "delay" => messages(cluster, command, &words)?,
        "commit" | "abort" | "vote" | "ack" | "inquire" => forge(cluster, &command.name, &words)?,
        "network" => {
            for packet in &cluster.network {
                let (from, to) = (packet.from, packet.to);
                writeln!(output, "{from} → {to} {}", show::message(&packet.message))?;
            }
        }
        "sync" => {
            for node in words.nodes(cluster)? {
                cluster.sync(node);
            }
        }
        "promise" | "decide" => {
            for kind in ["prepare", "vote"] {
                while let Some(index) = first(cluster, kind) {
                    cluster.deliver(index);
                }
                // Votes rest on promises; the decision is for who asks for it to be durable.
                if kind == "prepare" {
                    for node in cluster.nodes() {
                        cluster.sync(node);
                    }
                }
            }
            if command.name == "decide" {
                for node in cluster.nodes() {
                    cluster.sync(node);
                }
            }
        }
        "run" | "live" => {
            match command.name.as_str() {
                "run" => cluster.run(),
                _ => cluster.live(time(words.plain.first().ok_or("live TIME")?)?),
            }
            if words.plain.contains(&"quiet") {
                let told = |line: &String| {
                    [" replies ", " dies ", " applies "].iter().any(|word| line.contains(word))
                };
                for line in cluster.take_trace().iter().filter(|line| told(line)) {
                    writeln!(output, "{line}")?;
                }
            }
        }
        "arm" => match words.plain[..] {
            [at, point] => cluster.arm(node(at)?, point),
            _ => return Err("arm NODE POINT".into()),
        },
        "crash" | "restart" | "cut" | "heal" | "relink" => {
            change(cluster, &command.name, &words)?;
        }
        "tick" => cluster.tick(time(words.plain.first().ok_or("tick TIME")?)?),
        "checkpoint" => {
            for node in words.nodes(cluster)? {
                cluster.checkpoint(node);
            }
        }
        "full" | "room" => {
            for node in words.nodes(cluster)? {
                cluster.room(node, command.name == "room");
            }
        }
        "status" | "count" | "log" | "data" | "agree" => {
            look(cluster, &command.name, &words, output)?;
        }
        other => return Err(format!("there is no command {other}").into()),
    }
    Ok(())
}

/// Commands that take nodes and links down and up.
fn change(cluster: &mut Cluster, name: &str, words: &Words<'_>) -> Result<()> {
    if name == "crash" || name == "restart" {
        let keep = words.named("keep").map_or(Ok(0), str::parse)?;
        for node in words.nodes(cluster)? {
            match (name, cluster.is_up(node)) {
                ("crash", true) => cluster.crash(node, keep),
                ("restart", false) => cluster.start(node),
                _ => {}
            }
        }
        return Ok(());
    }
    let [one, other] = words.plain[..] else { return Err("two nodes".into()) };
    let (one, other) = (node(one)?, node(other)?);
    match name {
        "cut" => cluster.cut(one, other),
        "heal" => cluster.heal(one, other),
        _ => cluster.relink(one, other),
    }
    Ok(())
}

/// Puts a message on its way that no node has sent.
fn forge(cluster: &mut Cluster, kind: &str, words: &Words<'_>) -> Result<()> {
    let numbers: Vec<&str> =
        words.plain.first().ok_or("COORDINATOR.EPOCH.NUMBER")?.split('.').collect();
    let [coordinator, epoch, number] = numbers[..] else {
        return Err("COORDINATOR.EPOCH.NUMBER".into());
    };
    let txn = TxnId {
        coordinator: NodeId(coordinator.parse()?),
        epoch: epoch.parse()?,
        number: number.parse()?,
    };
    let finished_below = TxnId { number: 1, epoch: 1, ..txn };
    let decide = |decision| Message::Decide { txn, decision, finished_below };
    let message = match kind {
        "commit" => decide(Decision::Commit),
        "abort" => decide(Decision::Abort),
        "vote" => Message::Vote { txn, vote: Vote::Yes, clock: 0 },
        "ack" => Message::Acknowledge { txn },
        _ => Message::Inquire { txn },
    };
    let from = words.node("from")?.ok_or("from@NODE")?;
    let to = words.node("to")?.ok_or("to@NODE")?;
    cluster.network.push(Packet { from, to, message });
    Ok(())
}

fn first(cluster: &Cluster, kind: &str) -> Option<usize> {
    cluster.network.iter().position(|packet| show::kind(&packet.message) == kind)
}

/// Commands that only look.
fn look(cluster: &mut Cluster, name: &str, words: &Words<'_>, output: &mut String) -> Result<()> {
    match name {
        "status" => {
            for node in words.nodes(cluster)? {
                status(cluster, node, output)?;
            }
        }
        "count" => {
            let (at, counters) = words.plain.split_first().ok_or("count NODE COUNTER...")?;
            let at = node(at)?;
            let status = cluster.status(at).ok_or("it is down")?;
            for wanted in counters {
                let found = status.counters.iter().find(|(name, _)| name == wanted);
                let (name, count) = found.ok_or(format!("there is no counter {wanted}"))?;
                writeln!(output, "{:<2} {name} {count}", at)?;
            }
        }
        "log" => {
            for at in words.nodes(cluster)? {
                let records: Vec<String> = cluster.log(at).iter().map(show::record).collect();
                for (index, record) in records.iter().enumerate() {
                    writeln!(output, "{:<2} {} {record}", at, index + 1)?;
                }
            }
        }
        "data" => {
            for at in cluster.nodes() {
                writeln!(output, "{:<2} {}", at, data(cluster, at))?;
            }
        }
        _ => agree(cluster, output)?,
    }
    Ok(())
}

fn data(cluster: &Cluster, node: NodeId) -> String {
    match cluster.machine(node) {
        None => "is down".to_owned(),
        Some(machine) => {
            let all = Range { start: Key::new(), end: None, limit: u32::MAX };
            show::answer(&machine.look_up(&Query::Scan(all)))
        }
    }
}

fn status(cluster: &mut Cluster, node: NodeId, output: &mut String) -> Result<()> {
    let name = node;
    match cluster.status(node) {
        None => writeln!(output, "{name:<2} is down")?,
        Some(status) => writeln!(
            output,
            "{name:<2} {} {}: {} in flight, {} in doubt, {} locks",
            status.role, status.incarnation, status.in_flight, status.in_doubt, status.locks
        )?,
    }
    Ok(())
}

fn agree(cluster: &mut Cluster, output: &mut String) -> Result<()> {
    let mut held: Option<String> = None;
    for node in cluster.nodes() {
        let status = cluster.status(node).ok_or(format!("{node} is down"))?;
        if status.in_flight > 0 || status.locks > 0 {
            let (open, locks) = (status.in_flight, status.locks);
            return Err(format!("{node} has {open} open transactions and {locks} locks").into());
        }
        let data = data(cluster, node);
        if held.as_ref().is_some_and(|held| *held != data) {
            return Err(format!("{node} holds {data}, not {held:?}").into());
        }
        held = Some(data);
    }
    writeln!(output, "all replicas hold {}", held.unwrap_or_default())?;
    Ok(())
}

fn ask(cluster: &mut Cluster, words: &Words<'_>, operation: Operation) -> Result<()> {
    let at = words.node("at")?.unwrap_or(NodeId(1));
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

fn messages(cluster: &mut Cluster, command: &Command, words: &Words<'_>) -> Result<()> {
    let (from, to) = (words.node("from")?, words.node("to")?);
    let of = words.named("of");
    let all = words.plain.contains(&"all");
    let kind = words.plain.iter().find(|word| **word != "all");
    let mut left = if all { cluster.network.len() } else { 1 };
    let mut index = 0;
    let mut found = false;
    while left > 0 && index < cluster.network.len() {
        let packet = &cluster.network[index];
        let chosen = kind.is_none_or(|kind| *kind == show::kind(&packet.message))
            && from.is_none_or(|from| from == packet.from)
            && to.is_none_or(|to| to == packet.to)
            && of.is_none_or(|of| show::message(&packet.message).split(' ').nth(1) == Some(of));
        if all {
            left -= 1;
        }
        if !chosen {
            index += 1;
            continue;
        }
        found = true;
        match command.name.as_str() {
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

fn transaction(words: &Words<'_>) -> Result<Transaction> {
    let mut transaction = Transaction::default();
    for (name, value) in &words.named {
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
    for (name, value) in &words.pairs {
        transaction.writes.push(Write::Put(key(name), key(value)));
    }
    Ok(transaction)
}

fn stamp(words: &Words<'_>) -> Result<Option<Stamp>> {
    let Some(text) = words.named("stamp") else { return Ok(None) };
    let numbers: Vec<u64> =
        text.split('.').map(str::parse).collect::<std::result::Result<_, _>>()?;
    let (client, sequence, answered_below) = match numbers[..] {
        [client, sequence] => (client, sequence, sequence),
        [client, sequence, below] => (client, sequence, below),
        _ => return Err("stamp@CLIENT.SEQUENCE[.BELOW]".into()),
    };
    Ok(Some(Stamp { client: ClientId(client), sequence, answered_below }))
}

fn scan(words: &Words<'_>) -> Result<Query> {
    let (start, end) =
        words.plain.first().and_then(|word| word.split_once("..")).ok_or("scan FROM..TO")?;
    Ok(Query::Scan(Range {
        start: key(start),
        end: (!end.is_empty()).then(|| key(end)),
        limit: words.named("limit").map_or(Ok(100), str::parse)?,
    }))
}

fn key(word: &str) -> Key {
    Key::from(word.to_owned())
}

fn node(word: &str) -> Result<NodeId> {
    Ok(NodeId(word.strip_prefix('n').ok_or("a node is n1, n2, ...")?.parse()?))
}

fn time(word: &str) -> Result<Duration> {
    match word.strip_suffix("ms") {
        Some(number) => Ok(Duration::from_millis(number.parse()?)),
        None => Ok(Duration::from_secs(word.strip_suffix('s').ok_or("5s or 5ms")?.parse()?)),
    }
}

/// One test per script, so that a failing one is named.
macro_rules! scripts {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                let path = concat!("tests/scripts/any_replica/", stringify!($name));
                goldenscript::run(&mut Script::default(), path).expect("the script runs");
            }
        )*

        /// A script that nobody runs proves nothing.
        #[test]
        fn every_script_is_run() {
            let known = [$(stringify!($name)),*];
            for file in std::fs::read_dir("tests/scripts/any_replica").expect("it is there") {
                let name = file.expect("it can be listed").file_name();
                let name = name.to_string_lossy();
                assert!(known.contains(&&*name), "no test runs the script {name}");
            }
        }
    };
}

scripts! {
    commit
    counts
    conflict_younger
    deadlock
    claims
    parked
    duel
    blocked
    checkpoints
    coordinator_points
    disk_full
    impatient_read
    late_prepare
    limits
    links
    lost_messages
    one_replica
    participant_points
    reads
    recovery
    refusals
    retry_elsewhere
    sessions
    strangers
    superseded
    termination_abort
    termination_commit
}
