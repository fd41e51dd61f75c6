//! Scenario scripts, as [`crate::harness::script`] has them, and besides:
//!
//! ```text
//! cluster replicas=3 founders=3 OPTION=N...  a new cluster, all nodes up and n1 leading (`down`
//!                                  leaves them down, `leaderless` without a leader)
//! members NODE... [at@NODE]        change who takes part
//! elect NODE                       wake it until it campaigns, and run; in short
//! fail|return NODE ROLE            a role stops, or comes back
//! agree                            all that are up hold the same, and all of it
//! ```
//!
//! Clients ask the leader, unless `at` says otherwise.

use std::fmt::Write as _;
use std::time::Duration;

use kvorum_replication::paxos::planted::Planted;
use kvorum_replication::paxos::{AcceptorRestart, PaxosRole, ReplicaOptions};
use kvorum_replication::{NodeId, Operation};

use crate::harness::script::{
    self, Result, Script, Scripted, Words, data, in_short, node, scripts, time,
};
use crate::harness::show;
use crate::room::{Cluster, Paxos};

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

fn new_cluster(words: &Words<'_>, planted: Planted) -> Result<Cluster> {
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
    cluster.start_all();
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

impl Scripted for Paxos {
    fn whom(cluster: &Cluster) -> NodeId {
        cluster.leader().unwrap_or(NodeId(1))
    }

    fn status(cluster: &Cluster, node: NodeId) -> String {
        let Some(machine) = cluster.machine(node) else { return "is down".to_owned() };
        let count = |name| cluster.counter(node, name).unwrap_or_default();
        let leader = match (machine.core.leads(), count("leader")) {
            (true, _) => "leads".to_owned(),
            (false, 0) => "hears no leader".to_owned(),
            (false, leader) => format!("follows n{leader}"),
        };
        let (promised, chosen, applied) =
            (machine.core.promised(), machine.core.chosen(), machine.core.applied());
        let votes = if count("votes_count") == 1 { "" } else { ", its votes do not count" };
        format!("{leader}: promised {promised}, chosen {chosen}, applied {applied}{votes}")
    }

    fn agree(cluster: &Cluster) -> Result<String> {
        let last = cluster.ghost.chosen_without_gap();
        let up: Vec<NodeId> =
            cluster.nodes().into_iter().filter(|node| cluster.is_up(*node)).collect();
        for node in &up {
            let machine = cluster.machine(*node).ok_or("it is up")?;
            let applied = machine.core.applied();
            if applied.0 as usize != last || machine.rows != cluster.ghost.states[last] {
                let rows = data(cluster, *node);
                return Err(
                    format!("{node} has applied {applied} of {last} and holds {rows}").into()
                );
            }
        }
        let first = up.first().ok_or("all are down")?;
        Ok(format!("{} replicas hold {} after #{last}", up.len(), data(cluster, *first)))
    }

    fn own_command(
        cluster: &mut Cluster,
        name: &str,
        words: &Words<'_>,
        output: &mut String,
    ) -> Result<()> {
        match name {
            "members" => {
                let members =
                    words.plain.iter().map(|word| node(word)).collect::<Result<Vec<NodeId>>>()?;
                script::ask(cluster, words, Operation::ChangeMembers { members })?;
            }
            "elect" => {
                let node = words.first_node()?;
                elect(cluster, node)?;
                in_short(cluster.take_trace(), output)?;
                writeln!(output, "{:<2} {}", show::node(node), Self::status(cluster, node))?;
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
            other => return Err(format!("there is no command {other}").into()),
        }
        Ok(())
    }
}

fn script(planted: Planted) -> Script<Paxos> {
    Script::new(move |words| new_cluster(words, planted))
}

/// Scripts that come out differently with a bug.
#[cfg(feature = "planted-bugs")]
pub(crate) fn that_differ(planted: Planted) -> Vec<&'static str> {
    let differs = |name: &&str| {
        let path = format!("tests/scripts/paxos/{name}");
        let run = std::panic::AssertUnwindSafe(|| {
            let text = std::fs::read_to_string(path).expect("it can be read");
            let came_out = goldenscript::generate(&mut script(planted), &text);
            came_out.is_ok_and(|came_out| came_out == text)
        });
        !std::panic::catch_unwind(run).unwrap_or(false)
    };
    NAMES.iter().copied().filter(differs).collect()
}

scripts! {
    "paxos", script(Planted::default());
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
    pages
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
