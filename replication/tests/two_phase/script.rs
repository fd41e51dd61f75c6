//! Scenario scripts, as [`crate::harness::script`] has them, and besides:
//!
//! ```text
//! cluster parallel                 committed as soon as all promises are durable
//! commits parallel|after_decision  how the coordinator commits from its next start on
//! commit|abort|vote|ack|inquire TXN [number@N] from@NODE to@NODE
//!                                  such a message, forged (a vote is yes)
//! promise                          deliver prepares and votes: the decision is written, not durable
//! replica add|remove NODE          the coordinator is asked to have it as a replica, or not any more
//! decide                           the same, and the decision is durable: the commits are on their way
//! ```
//!
//! Clients ask the coordinator, unless `at` says otherwise.

use kvorum_replication::two_phase::message::{CommitNumber, Decision, Message, TxnId, Vote};
use kvorum_replication::two_phase::planted::Planted;
use kvorum_replication::two_phase::{CommitMode, CoordinatorOptions, ParticipantOptions};
use kvorum_replication::{NodeId, Operation, ReplicaChange};

use crate::harness::script::{Result, Script, Scripted, Words, ask, first, node, scripts};
use crate::room::{COORDINATOR, Cluster, Packet, TwoPhase};

fn new_cluster(words: &Words<'_>, planted: Planted) -> Result<Cluster> {
    let commit = match words.has("parallel") {
        true => CommitMode::Parallel,
        false => CommitMode::AfterDecision,
    };
    let mut coordinator = CoordinatorOptions {
        commit,
        batches_voting_max: usize::MAX,
        planted,
        ..CoordinatorOptions::default()
    };
    let mut participant = ParticipantOptions { planted, ..ParticipantOptions::default() };
    let (mut replicas, mut spares) = (3, 0);
    for (name, value) in &words.pairs {
        let number: usize = value.parse()?;
        match *name {
            "replicas" => replicas = number,
            "spares" => spares = number.try_into()?,
            "sessions_max" => {
                coordinator.sessions_max = number;
                participant.sessions_max = number;
            }
            "outstanding_per_session_max" => {
                coordinator.outstanding_per_session_max = number;
                participant.outstanding_per_session_max = number;
            }
            "min_replicas" => coordinator.min_replicas = number,
            "recalled_max" => participant.recalled_max = number,
            "batches_voting_max" => coordinator.batches_voting_max = number,
            "in_flight_max" => coordinator.in_flight_max = number,
            "prepared_max" => participant.prepared_max = number,
            "unfinished_span_max" => coordinator.unfinished_span_max = number as u64,
            "retries_per_transaction_max" => coordinator.retries_per_transaction_max = number,
            "recent_bytes_max" => participant.recent_bytes_max = number,
            "piece_commits_max" => participant.piece_commits_max = number,
            "waiting_reads_max" => participant.waiting_reads_max = number,
            "reads_in_flight_max" => coordinator.reads_in_flight_max = number,
            "key_bytes_max" => {
                coordinator.limits.key_bytes_max = number;
                participant.limits.key_bytes_max = number;
            }
            other => return Err(format!("there is no limit {other}").into()),
        }
    }
    coordinator.replicas = (1..=u32::try_from(replicas)?).map(NodeId).collect();
    let mut cluster = Cluster::new(coordinator, participant, spares, true);
    if !words.has("down") {
        cluster.start_all();
        cluster.run();
        cluster.take_trace();
    }
    Ok(cluster)
}

impl Scripted for TwoPhase {
    fn whom(_cluster: &Cluster) -> NodeId {
        COORDINATOR
    }

    fn has_rows(node: NodeId) -> bool {
        node != COORDINATOR
    }

    fn own_command(
        cluster: &mut Cluster,
        name: &str,
        words: &Words<'_>,
        _output: &mut String,
    ) -> Result<()> {
        match name {
            "commit" | "abort" | "vote" | "ack" | "inquire" => forge(cluster, name, words),
            "commits" => {
                cluster.coordinator_options.commit = match words.plain.first() {
                    Some(&"parallel") => CommitMode::Parallel,
                    Some(&"after_decision") => CommitMode::AfterDecision,
                    _ => return Err("commits parallel|after_decision".into()),
                };
                Ok(())
            }
            "replica" => {
                let [how, named] = words.plain[..] else { return Err("add|remove NODE".into()) };
                let change = match how {
                    "add" => ReplicaChange::Add(node(named)?),
                    "remove" => ReplicaChange::Remove(node(named)?),
                    _ => return Err("add or remove".into()),
                };
                ask(cluster, words, Operation::ChangeReplicas(change))
            }
            "promise" | "decide" => {
                promise(cluster);
                if name == "decide" {
                    cluster.sync(COORDINATOR);
                }
                Ok(())
            }
            other => Err(format!("there is no command {other}").into()),
        }
    }
}

fn promise(cluster: &mut Cluster) {
    for kind in ["prepare", "vote"] {
        while let Some(index) = first(cluster, kind) {
            cluster.deliver(index);
        }
        for node in cluster.nodes().into_iter().skip(1) {
            cluster.sync(node);
        }
    }
}

/// Puts a message on its way that no node has sent.
fn forge(cluster: &mut Cluster, kind: &str, words: &Words<'_>) -> Result<()> {
    let txn = words.plain.first().and_then(|word| word.split_once('.')).ok_or("EPOCH.NUMBER")?;
    let txn = TxnId { coordinator: COORDINATOR, epoch: txn.0.parse()?, number: txn.1.parse()? };
    let number = CommitNumber(words.named("number").map_or(Ok(0), str::parse)?);
    let finished_below = TxnId { number: 1, epoch: 1, ..txn };
    let epoch = txn.epoch;
    let decide = |decision| Message::Decide { txn, decision, finished_below, epoch };
    let message = match kind {
        "commit" => decide(Decision::Commit(number)),
        "abort" => decide(Decision::Abort),
        "vote" => Message::Vote { txn, vote: Vote::Yes },
        "ack" => Message::Acknowledge { txn },
        _ => Message::Inquire { txn },
    };
    let from = words.node("from")?.ok_or("from@NODE")?;
    let to = words.node("to")?.ok_or("to@NODE")?;
    cluster.network.push(Packet { from, to, message });
    Ok(())
}

fn script(planted: Planted) -> Script<TwoPhase> {
    Script::new(move |words| new_cluster(words, planted))
}

/// The scripts that come out differently with this bug.
#[cfg(feature = "planted-bugs")]
pub(crate) fn that_differ(planted: Planted) -> Vec<&'static str> {
    let differs = |name: &&str| {
        let path = format!("tests/scripts/two_phase/{name}");
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
    "two_phase", script(Planted::default());
    commit
    batches
    counts
    gathered
    disk_full
    conflict
    preconditions
    lost_messages
    repeated_messages
    reordered_messages
    late_vote
    late_prepare
    timeouts
    coordinator_points
    participant_points
    blocked
    termination_commit
    termination_abort
    retries
    sessions
    one_phase
    reads
    pages
    serial_order
    checkpoints
    recovery
    limits
    strangers
    parallel_commit
    parallel_abort
    parallel_recovery
    parallel_numbers
    parallel_reads
    parallel_modes
    parallel_lost_log
    parallel_chunks
    parallel_checkpoints
    parallel_aborts_kept
    parallel_lost_disk
    catch_up
    learnt_once
    lost_disk
    void_votes
    snapshot
    snapshot_too_old
    installing
    view_founded
    view_exclusion
    view_stale_read
    view_no_coordinator
    view_too_few
    view_recovery
    view_recovery_alone
    view_brief
    view_in_doubt
    view_checkpoints
    view_rejoin
    view_rejoin_busy
    view_missed_numbers
    view_lost_join
    view_rejoin_begun
    view_late_answer
    view_abort
    view_anew_behind
    view_replica_added
    view_replica_removed
    view_replica_refused
    view_untold_numbers
    view_removed_unaware
    view_member_without_disk
    view_replica_silent
    view_replica_without_disk
    view_late_outside
    view_joined_donor
    view_promised_before
}
