//! The records of two-phase commit through any replica in fields.

use std::sync::Arc;

use kvorum_replication::two_phase::any_replica::message::{Decision, TxnId, Work};
use kvorum_replication::two_phase::any_replica::record::{Checkpoint, Record};

use super::{Meaning, named, nodes, stamped};

pub(super) fn meaning(record: Record) -> Meaning {
    match record {
        Record::Started { incarnation } => {
            named("started", None, vec![("incarnation", incarnation.to_string())])
        }
        Record::Prepared(prepared) => {
            let fields = vec![nodes(&prepared.participants), ("age", prepared.age.to_string())];
            of_work("prepared", prepared.txn, fields, &prepared.work)
        }
        Record::Committed(committed) => {
            let fields = vec![nodes(&committed.participants), ("age", committed.age.to_string())];
            of_work("committed", committed.txn, fields, &committed.work)
        }
        Record::Decided { txn, decision } => {
            let decision = match decision {
                Decision::Abort => "abort",
                Decision::Commit => "commit",
            };
            named("decided", Some(txn), vec![("decision", decision.to_owned())])
        }
        Record::Ended { txn } => named("ended", Some(txn), Vec::new()),
        Record::Refused { stamp, precondition } => {
            let mut fields: Vec<_> = stamped(Some(stamp)).into_iter().collect();
            fields.push(("precondition", precondition.to_string()));
            named("refused", None, fields)
        }
        Record::Checkpoint(Checkpoint {
            incarnation,
            clock,
            prepared,
            decided,
            finished_below: _,
            committed,
            sessions,
        }) => {
            let fields = vec![
                ("incarnation", incarnation.to_string()),
                ("clock", clock.to_string()),
                ("in-doubt", prepared.len().to_string()),
                ("outcomes", decided.len().to_string()),
                ("not-ended", committed.len().to_string()),
                ("sessions", sessions.sessions.len().to_string()),
            ];
            named("checkpoint", None, fields)
        }
    }
}

fn of_work(
    name: &'static str,
    txn: TxnId,
    mut fields: Vec<(&'static str, String)>,
    work: &Arc<Work>,
) -> Meaning {
    match &**work {
        Work::OpenSession { client } => {
            fields.push(("opens-session", client.0.to_string()));
            named(name, Some(txn), fields)
        }
        Work::Write { stamp, writes, checked } => {
            fields.extend(stamped(*stamp));
            let (writes, checked) = (writes.clone(), checked.clone());
            Meaning { writes, checked, ..named(name, Some(txn), fields) }
        }
    }
}
