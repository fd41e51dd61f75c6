//! Scenario scripts, as [`crate::harness::script`] has them, and besides:
//!
//! ```text
//! commit|abort|vote|ack|inquire TXN from@NODE to@NODE
//!                                  such a message, forged (a vote is yes)
//! promise                          deliver prepares and votes: the decision is written, not durable
//! decide                           the same, and the decision is durable: the commits are on their way
//! ```

use kvorum_replication::NodeId;
use kvorum_replication::two_phase::any_replica::ReplicaOptions;
use kvorum_replication::two_phase::any_replica::message::{Decision, Message, TxnId, Vote};

use crate::harness::script::{Result, Script, Scripted, Words, first, scripts};
use crate::room::{AnyReplica, Cluster, Packet};

fn new_cluster(words: &Words<'_>) -> Result<Cluster> {
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
    if !words.has("down") {
        cluster.start_all();
        cluster.run();
        cluster.take_trace();
    }
    Ok(cluster)
}

impl Scripted for AnyReplica {
    fn whom(_cluster: &Cluster) -> NodeId {
        NodeId(1)
    }

    fn own_command(
        cluster: &mut Cluster,
        name: &str,
        words: &Words<'_>,
        _output: &mut String,
    ) -> Result<()> {
        match name {
            "commit" | "abort" | "vote" | "ack" | "inquire" => forge(cluster, name, words),
            "promise" | "decide" => {
                decide(cluster, name == "decide");
                Ok(())
            }
            other => Err(format!("there is no command {other}").into()),
        }
    }
}

/// Votes rest on promises; the decision is for who asks for it to be durable.
fn decide(cluster: &mut Cluster, durably: bool) {
    for (kind, is_synced) in [("prepare", true), ("vote", durably)] {
        while let Some(index) = first(cluster, kind) {
            cluster.deliver(index);
        }
        if is_synced {
            for node in cluster.nodes() {
                cluster.sync(node);
            }
        }
    }
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

scripts! {
    "any_replica", Script::new(new_cluster);
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
    pages
    recovery
    refusals
    retry_elsewhere
    sessions
    strangers
    superseded
    termination_abort
    termination_commit
}
