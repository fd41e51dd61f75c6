//! What a record says, in fields that can be shown.

mod any_replica;
mod paxos;

use bytes::Bytes;
use kvorum_replication::paxos::record::Record as PaxosRecord;
use kvorum_replication::two_phase::CommitMode;
use kvorum_replication::two_phase::any_replica::record::Record as AnyReplicaRecord;
use kvorum_replication::two_phase::message::{Commit, Decision, Parallel, TxnId};
use kvorum_replication::two_phase::record::{
    CoordinatorCheckpoint, CoordinatorRecord, ParticipantCheckpoint, ParticipantRecord,
};
use kvorum_replication::{NodeId, Protocol, Role, Stamp, Write};

use super::{NodeKind, no_such_node};
use crate::codec::StoredRecord;

/// A record of a node's log, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meaning {
    /// What it is called: prepared, decided, committed.
    pub name: &'static str,
    /// The transaction that it is about.
    pub txn: Option<TxnId>,
    /// Everything else that is short, in order: name and value.
    pub fields: Vec<(&'static str, String)>,
    /// What it writes, in order.
    pub writes: Vec<Write>,
    /// The keys that it locks without writing them.
    pub checked: Vec<Bytes>,
}

/// Reads a record as such a node does; says why it is none of its.
pub fn meaning(node: NodeKind, kind: u8, payload: &Bytes) -> Result<Meaning, String> {
    let read = match (node.protocol, node.role) {
        (Protocol::TwoPhase, Role::Coordinator) => {
            CoordinatorRecord::decode(kind, payload).map(of_coordinator)
        }
        (Protocol::TwoPhase, Role::Replica) => {
            ParticipantRecord::decode(kind, payload).map(of_participant)
        }
        (Protocol::Paxos, Role::Replica) => PaxosRecord::decode(kind, payload).map(paxos::meaning),
        (Protocol::AnyReplica, Role::Replica) => {
            AnyReplicaRecord::decode(kind, payload).map(any_replica::meaning)
        }
        (Protocol::AnyReplica | Protocol::Paxos, Role::Coordinator) => {
            return Err(no_such_node(node));
        }
    };
    read.map_err(|malformed| malformed.to_string())
}

fn of_coordinator(record: CoordinatorRecord) -> Meaning {
    match record {
        CoordinatorRecord::Started { epoch, commit } => {
            let commit = match commit {
                CommitMode::Parallel => "parallel",
                CommitMode::AfterDecision => "after-decision",
            };
            let fields = vec![("epoch", epoch.to_string()), ("commit", commit.to_owned())];
            named("started", None, fields)
        }
        CoordinatorRecord::SessionOpened { client } => {
            named("session-opened", None, vec![("client", client.0.to_string())])
        }
        CoordinatorRecord::Committed { txn, number, stamp, participants } => {
            let mut fields = vec![("number", number.0.to_string()), nodes(&participants)];
            fields.extend(stamped(stamp));
            named("committed", Some(txn), fields)
        }
        CoordinatorRecord::Aborted { txn, finished_below } => {
            named("aborted", Some(txn), vec![("over-below", finished_below.to_string())])
        }
        CoordinatorRecord::Ended { txn } => named("ended", Some(txn), Vec::new()),
        CoordinatorRecord::View(view) => {
            let members: Vec<NodeId> = view.members.iter().map(|it| it.replica).collect();
            let fields = vec![
                ("number", view.number.to_string()),
                nodes(&members),
                ("replicas", join(&view.replicas)),
                ("min-replicas", view.min_replicas.to_string()),
                ("lease-ms", view.lease.as_millis().to_string()),
            ];
            named("view", None, fields)
        }
        CoordinatorRecord::Checkpoint(checkpoint) => {
            let CoordinatorCheckpoint {
                epoch,
                parallel_epoch,
                finished_below,
                sessions,
                commits,
                committed,
                aborted,
            } = *checkpoint;
            let fields = vec![
                ("epoch", epoch.to_string()),
                ("parallel-epoch", parallel_epoch.to_string()),
                ("over-below", finished_below.to_string()),
                ("commits", commits.0.to_string()),
                ("not-ended", committed.len().to_string()),
                ("aborted", aborted.len().to_string()),
                ("sessions", sessions.sessions.len().to_string()),
            ];
            named("checkpoint", None, fields)
        }
    }
}

fn of_participant(record: ParticipantRecord) -> Meaning {
    match record {
        ParticipantRecord::Started { incarnation } => {
            named("started", None, vec![("incarnation", incarnation.to_string())])
        }
        ParticipantRecord::Prepared(prepared) => {
            let mut fields = vec![nodes(&prepared.participants)];
            if let Some(Parallel { stamp }) = prepared.parallel {
                fields.push(("commit", "parallel".to_owned()));
                fields.extend(stamped(stamp));
            }
            Meaning {
                writes: prepared.writes.into_list(),
                checked: prepared.checked,
                ..named("prepared", Some(prepared.txn), fields)
            }
        }
        ParticipantRecord::Promised { epoch } => {
            named("promised", None, vec![("epoch", epoch.to_string())])
        }
        ParticipantRecord::View { number, others } => {
            let fields = vec![("number", number.to_string()), ("others", others.to_string())];
            named("view", None, fields)
        }
        ParticipantRecord::Decided { txn, decision } => {
            let fields = match decision {
                Decision::Abort => vec![("decision", "abort".to_owned())],
                Decision::Commit(number) => {
                    vec![("decision", "commit".to_owned()), ("number", number.0.to_string())]
                }
            };
            named("decided", Some(txn), fields)
        }
        ParticipantRecord::CommittedAlone { txn, stamp, writes } => {
            let fields = stamped(stamp).into_iter().collect();
            Meaning { writes: writes.into_list(), ..named("committed-alone", Some(txn), fields) }
        }
        ParticipantRecord::Checkpoint(checkpoint) => named("checkpoint", None, state(&checkpoint)),
        ParticipantRecord::Learned { commits, .. } => {
            let number = |commit: Option<&Commit>| commit.map_or(0, |it| it.number.0).to_string();
            let fields = vec![("from", number(commits.first())), ("to", number(commits.last()))];
            let writes = commits.iter().flat_map(|commit| commit.transaction.writes.clone());
            Meaning { writes: writes.collect(), ..named("learned", None, fields) }
        }
        ParticipantRecord::Installed { mark, checkpoint } => {
            let mut fields = vec![("mark", mark.to_string())];
            fields.extend(state(&checkpoint));
            named("installed", None, fields)
        }
        ParticipantRecord::Outside { life } => {
            named("outside", None, vec![("life", life.to_string())])
        }
        ParticipantRecord::Joined { life, from, serve_from } => {
            let fields = vec![
                ("life", life.to_string()),
                ("from", from.to_string()),
                ("serve-from", serve_from.0.to_string()),
            ];
            named("joined", None, fields)
        }
    }
}

fn state(checkpoint: &ParticipantCheckpoint) -> Vec<(&'static str, String)> {
    let applied = checkpoint.coordinators.iter().map(|progress| progress.applied.0).max();
    vec![
        ("incarnation", checkpoint.incarnation.to_string()),
        ("promised", checkpoint.promised.to_string()),
        ("applied", applied.unwrap_or_default().to_string()),
        ("in-doubt", checkpoint.prepared.len().to_string()),
        ("outcomes", checkpoint.decided.len().to_string()),
        ("sessions", checkpoint.sessions.sessions.len().to_string()),
    ]
}

fn named(name: &'static str, txn: Option<TxnId>, fields: Vec<(&'static str, String)>) -> Meaning {
    Meaning { name, txn, fields, writes: Vec::new(), checked: Vec::new() }
}

fn nodes(nodes: &[NodeId]) -> (&'static str, String) {
    ("participants", join(nodes))
}

fn join(items: &[impl ToString]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    items.join(",")
}

fn stamped(stamp: Option<Stamp>) -> Option<(&'static str, String)> {
    let shown = |stamp: Stamp| format!("{}:{}", stamp.client.0, stamp.sequence);
    stamp.map(|stamp| ("client", shown(stamp)))
}
