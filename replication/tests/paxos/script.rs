//! Scenario scripts: commands of a script drive a cluster step by step, and what the nodes do is
//! compared with the golden trace. `UPDATE_GOLDENFILES=1 cargo test -p kvorum-replication` writes
//! the traces anew; read the difference before accepting it.
//!
//! ```text
//! cluster replicas=3 founders=3 OPTION=N...  a new cluster, all nodes up and n1 leading (`down`
//!                                  leaves them down, `leaderless` without a leader)
//! session [at@NODE]                open a client session
//! txn a=1 del@b absent@c present@d equals@e@v [stamp@CLIENT.SEQ[.BELOW]] [by@TIME] [at@NODE]
//! get KEY... [by@TIME] [at@NODE] [stale]    read, at the leader unless `at` says otherwise
//! members NODE... [at@NODE]        change who takes part
//! deliver|drop|repeat [all] [KIND] [from@NODE] [to@NODE]
//!                                  the first such message on its way, or all of them
//! network                          what is on its way
//! sync [NODE...]                   make logs durable
//! run [quiet]                      deliver and sync until nothing is on its way; quiet tells in short
//! live TIME [quiet]                let time pass, and run meanwhile
//! tick TIME                        let time pass; nothing is delivered
//! wake NODE                        let time pass up to this node's next timer, and ring no other's
//! elect NODE                       wake it until it campaigns, and run; in short
//! arm NODE POINT                   from its next start on, the node dies at this point
//! crash NODE... [keep@N]           of the records that are not durable N survive
//! wipe NODE [life@N]               its disk is gone; it comes back under this life
//! restart NODE...
//! fail|return NODE ROLE            a role stops, or comes back
//! cut A B, block A B, heal A B     no link; nothing from A reaches B; all is well
//! checkpoint NODE, flush NODE, full NODE, room NODE, stopping NODE
//! status [NODE...], count NODE COUNTER..., log NODE, data
//! agree                            all that are up hold the same, and all of it
//! ```

use std::error::Error;
use std::fmt::Write as _;
use std::time::Duration;

use goldenscript::{Argument, Command, Context, Runner};
use kvorum_replication::paxos::planted::Planted;
use kvorum_replication::paxos::{AcceptorRestart, PaxosRole, ReplicaOptions};
use kvorum_replication::{
    ClientId, Key, NodeId, Operation, Precondition, Query, Stamp, Time, Transaction, Write,
};

use crate::cluster::Cluster;
use crate::show;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[derive(Default)]
struct Script {
    cluster: Option<Cluster>,
    planted: Planted,
}

impl Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, _context: &Context) -> Result<String> {
        let mut output = String::new();
        if command.name == "cluster" {
            self.cluster = Some(new_cluster(command, self.planted)?);
        } else {
            let cluster = self.cluster.as_mut().ok_or("there is no cluster yet")?;
            run(cluster, command, &mut output)?;
            let mut lines = cluster.take_trace();
            lines.push(output.trim_end().to_owned());
            lines.extend(cluster.ghost.wrong.take().map(|what| format!("the ghost: {what}")));
            lines.retain(|line| !line.is_empty());
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

    fn has(&self, word: &str) -> bool {
        self.plain.contains(&word)
    }

    /// The nodes named, or all of them.
    fn nodes(&self, cluster: &Cluster) -> Result<Vec<NodeId>> {
        match self.plain.is_empty() {
            true => Ok(cluster.nodes()),
            false => self.plain.iter().map(|word| node(word)).collect(),
        }
    }

    fn first_node(&self) -> Result<NodeId> {
        node(self.plain.first().ok_or("a node")?)
    }
}

/// Small numbers, so that limits are met; round times, easy to read by.
fn options() -> ReplicaOptions {
    ReplicaOptions {
        window: 8,
        pipeline_max: 4,
        gather: Duration::ZERO,
        snapshot_rows_max: 2,
        heartbeat_interval: Duration::from_millis(100),
        election_timeout_min: Duration::from_millis(500),
        election_timeout_max: Duration::from_millis(1000),
        ..ReplicaOptions::default()
    }
}

fn new_cluster(command: &Command, planted: Planted) -> Result<Cluster> {
    let words = Words::of(command);
    let mut options = ReplicaOptions { planted, ..options() };
    let (mut replicas, mut founders) = (3, None);
    for (name, value) in &words.pairs {
        if *name == "restart" {
            options.acceptor_restart = match *value {
                "rejoin" => AcceptorRestart::Rejoin,
                "amnesia" => AcceptorRestart::Amnesia,
                _ => AcceptorRestart::Durable,
            };
            continue;
        }
        if *name == "lease" {
            options.lease = Some(time(value)?);
            continue;
        }
        let number: usize = value.parse()?;
        match *name {
            "replicas" => replicas = u32::try_from(number)?,
            "founders" => founders = Some(u32::try_from(number)?),
            "window" => options.window = number as u64,
            "pipeline_max" => options.pipeline_max = number,
            "batch_commands_max" => options.batch_commands_max = number,
            "piece_slots_max" => options.piece_slots_max = number,
            "retained_slots_max" => options.retained_slots_max = number,
            "accepted_bytes_max" => options.accepted_bytes_max = number,
            "requests_max" => options.requests_max = number,
            "clock_drift_permille" => options.clock_drift_permille = u32::try_from(number)?,
            other => return Err(format!("there is no option {other}").into()),
        }
    }
    options.founders = (1..=founders.unwrap_or(replicas)).map(NodeId).collect();
    let mut cluster = Cluster::new(options, replicas, true);
    if words.has("down") {
        return Ok(cluster);
    }
    for node in cluster.nodes() {
        cluster.start(node);
    }
    cluster.run();
    if !words.has("leaderless") {
        elect(&mut cluster, NodeId(1))?;
    }
    cluster.take_trace();
    Ok(cluster)
}

/// Wakes a node until it campaigns, and delivers what comes of it.
fn elect(cluster: &mut Cluster, node: NodeId) -> Result<()> {
    for _ in 0..20 {
        cluster.wake(node);
        cluster.run();
        if cluster.machine(node).is_some_and(|machine| machine.core.leads()) {
            return Ok(());
        }
    }
    Err(format!("{node} is not elected").into())
}

/// Of a trace, what a client or an operator would notice.
fn in_short(trace: Vec<String>, output: &mut String) -> Result<()> {
    let told = |line: &&String| {
        [" replies ", " dies ", " applies ", " installs "].iter().any(|word| line.contains(word))
    };
    for line in trace.iter().filter(told) {
        writeln!(output, "{line}")?;
    }
    Ok(())
}

fn run(cluster: &mut Cluster, command: &Command, output: &mut String) -> Result<()> {
    let words = Words::of(command);
    let is_quiet = words.has("quiet");
    match command.name.as_str() {
        "session" => ask(cluster, &words, Operation::OpenSession)?,
        "txn" => {
            let operation =
                Operation::Transact { stamp: stamp(&words)?, transaction: transaction(&words)? };
            ask(cluster, &words, operation)?;
        }
        "get" => {
            let keys = words.plain.iter().filter(|word| **word != "stale");
            let mut keys: Vec<Key> = keys.map(|word| key(word)).collect();
            let query = match keys.len() {
                1 => Query::Get(keys.remove(0)),
                _ => Query::GetMany(keys),
            };
            let operation = match words.has("stale") {
                true => Operation::ReadStale(query),
                false => Operation::Read(query),
            };
            ask(cluster, &words, operation)?;
        }
        "members" => {
            let members =
                words.plain.iter().map(|word| node(word)).collect::<Result<Vec<NodeId>>>()?;
            ask(cluster, &words, Operation::ChangeMembers { members })?;
        }
        "deliver" | "drop" | "repeat" => messages(cluster, command, &words)?,
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
        "run" => cluster.run(),
        "live" => cluster.live(time(words.plain.first().ok_or("live TIME")?)?),
        "tick" => cluster.tick(time(words.plain.first().ok_or("tick TIME")?)?),
        "wake" => cluster.wake(words.first_node()?),
        "elect" => {
            let node = words.first_node()?;
            elect(cluster, node)?;
            in_short(cluster.take_trace(), output)?;
            status(cluster, node, output)?;
        }
        "status" | "count" | "log" | "data" | "agree" => {
            look(cluster, &command.name, &words, output)?;
        }
        name => change(cluster, name, &words)?,
    }
    if is_quiet {
        in_short(cluster.take_trace(), output)?;
    }
    Ok(())
}

/// Commands that take nodes and links down and up.
fn change(cluster: &mut Cluster, name: &str, words: &Words<'_>) -> Result<()> {
    match name {
        "arm" => match words.plain[..] {
            [at, point] => cluster.arm(node(at)?, point),
            _ => return Err("arm NODE POINT".into()),
        },
        "crash" | "restart" | "checkpoint" | "flush" | "full" | "room" | "stopping" => {
            let keep = words.named("keep").map_or(Ok(0), str::parse)?;
            for node in words.nodes(cluster)? {
                match (name, cluster.is_up(node)) {
                    ("crash", true) => cluster.crash(node, keep),
                    ("restart", false) => cluster.start(node),
                    ("checkpoint", true) => cluster.checkpoint(node),
                    ("flush", true) => cluster.flush(node),
                    ("stopping", true) => cluster.stopping(node),
                    ("full" | "room", true) => cluster.room(node, name == "room"),
                    _ => return Err(format!("{node} can't {name}").into()),
                }
            }
        }
        "wipe" => {
            let life = words.named("life").map_or(Ok(0), str::parse)?;
            cluster.wipe(words.first_node()?, life);
        }
        "fail" | "return" => {
            let [at, role] = words.plain[..] else { return Err("a node and a role".into()) };
            let role = match role {
                "proposer" => PaxosRole::Proposer,
                "acceptor" => PaxosRole::Acceptor,
                "learner" => PaxosRole::Learner,
                other => return Err(format!("there is no role {other}").into()),
            };
            cluster.fail_role(node(at)?, role, name == "return");
        }
        "cut" | "block" | "heal" => {
            let [one, other] = words.plain[..] else { return Err("two nodes".into()) };
            let (one, other) = (node(one)?, node(other)?);
            match name {
                "cut" => cluster.cut(one, other),
                "block" => cluster.block(one, other),
                _ => cluster.heal(one, other),
            }
        }
        other => return Err(format!("there is no command {other}").into()),
    }
    Ok(())
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
            for wanted in counters {
                let count = cluster.counter(at, wanted).ok_or(format!("no counter {wanted}"))?;
                writeln!(output, "{at:<2} {wanted} {count}")?;
            }
        }
        "log" => {
            for at in words.nodes(cluster)? {
                for (index, record) in cluster.log(at).iter().enumerate() {
                    writeln!(output, "{at:<2} {} {}", index + 1, show::record(record))?;
                }
            }
        }
        "data" => {
            for at in cluster.nodes() {
                writeln!(output, "{at:<2} {}", data(cluster, at))?;
            }
        }
        _ => agree(cluster, output)?,
    }
    Ok(())
}

fn data(cluster: &Cluster, node: NodeId) -> String {
    match cluster.machine(node) {
        None => "is down".to_owned(),
        Some(machine) => show::rows(&machine.rows.clone().into_iter().collect::<Vec<_>>()),
    }
}

fn status(cluster: &Cluster, node: NodeId, output: &mut String) -> Result<()> {
    let Some(machine) = cluster.machine(node) else {
        writeln!(output, "{node:<2} is down")?;
        return Ok(());
    };
    let count = |name| cluster.counter(node, name).unwrap_or_default();
    let leader = match (machine.core.leads(), count("leader")) {
        (true, _) => "leads".to_owned(),
        (false, 0) => "hears no leader".to_owned(),
        (false, leader) => format!("follows n{leader}"),
    };
    let (promised, chosen, applied) =
        (machine.core.promised(), machine.core.chosen(), machine.core.applied());
    let votes = if count("votes_count") == 1 { "" } else { ", its votes do not count" };
    writeln!(
        output,
        "{node:<2} {leader}: promised {promised}, chosen {chosen}, applied {applied}{votes}"
    )?;
    Ok(())
}

fn agree(cluster: &mut Cluster, output: &mut String) -> Result<()> {
    let last = cluster.ghost.chosen_without_gap();
    let up: Vec<NodeId> = cluster.nodes().into_iter().filter(|node| cluster.is_up(*node)).collect();
    for node in &up {
        let machine = cluster.machine(*node).ok_or("it is up")?;
        if machine.core.applied().0 as usize != last || machine.rows != cluster.ghost.states[last] {
            let (applied, rows) = (machine.core.applied(), data(cluster, *node));
            return Err(format!("{node} has applied {applied} of {last} and holds {rows}").into());
        }
    }
    let first = up.first().ok_or("all are down")?;
    writeln!(output, "{} replicas hold {} after #{last}", up.len(), data(cluster, *first))?;
    Ok(())
}

fn ask(cluster: &mut Cluster, words: &Words<'_>, operation: Operation) -> Result<()> {
    let at = words.node("at")?.or_else(|| cluster.leader()).unwrap_or(NodeId(1));
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
    let all = words.has("all");
    let kind = words.plain.iter().find(|word| **word != "all");
    let mut left = if all { cluster.network.len() } else { 1 };
    let mut index = 0;
    let mut found = false;
    while left > 0 && index < cluster.network.len() {
        let packet = &cluster.network[index];
        let chosen = kind.is_none_or(|kind| *kind == show::kind(&packet.message))
            && from.is_none_or(|from| from == packet.from)
            && to.is_none_or(|to| to == packet.to);
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
            _ => {
                let again = cluster.network[index].clone();
                cluster.network.push(again);
                index += 1;
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
                let path = concat!("tests/scripts/paxos/", stringify!($name));
                goldenscript::run(&mut Script::default(), path).expect("the script runs");
            }
        )*

        /// Scripts that come out differently with a bug.
        #[cfg(feature = "planted-bugs")]
        pub(crate) fn that_differ(planted: Planted) -> Vec<&'static str> {
            let differs = |name: &&str| {
                let path = format!("tests/scripts/paxos/{name}");
                let mut script = Script { cluster: None, planted };
                let run = std::panic::AssertUnwindSafe(|| {
                    let text = std::fs::read_to_string(path).expect("it can be read");
                    let came_out = goldenscript::generate(&mut script, &text);
                    came_out.is_ok_and(|came_out| came_out == text)
                });
                !std::panic::catch_unwind(run).unwrap_or(false)
            };
            [$(stringify!($name)),*].into_iter().filter(differs).collect()
        }

        /// A script that nobody runs proves nothing.
        #[test]
        fn every_script_is_run() {
            let known = [$(stringify!($name)),*];
            for file in std::fs::read_dir("tests/scripts/paxos").expect("it is there") {
                let name = file.expect("it can be listed").file_name();
                let name = name.to_string_lossy();
                assert!(known.contains(&&*name), "no test runs the script {name}");
            }
        }
    };
}

scripts! {
    commit
    election
    silence
    duel
    one_way
    own_vote
    forgotten_vote
    gap
    chosen_slot
    highest_ballot
    lost_accept
    durable_promise
    acceptor_restart
    duplicate_request
    preconditions
    unavailable
    read_index
    lease
    catch_up
    snapshot
    members
    rejoin
    amnesia
    checkpoints
    batches
    disk_full
    hand_over
    members_left
    forget_promise
    read_name
    rejoin_two
    apply_while_installing
    new_members_unasked
    counts
}
