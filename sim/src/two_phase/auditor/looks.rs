//! The auditor's look at a node after each event: what it knows, locks and holds.

use std::collections::BTreeSet;
use std::fmt::Display;

use bytes::Bytes;
use kvorum_replication::NodeId;
use kvorum_replication::two_phase::audit::{ParticipantAudit, Table};
use kvorum_replication::two_phase::message::{Decision, TxnId};

use super::{Auditor, Facts};
use crate::contents::{Contents, apply};
use crate::process::{Judgement, Rows, broken};
use crate::violation::Promise;

impl Auditor {
    /// An event is over, and this is how a node is now.
    pub(in crate::two_phase) fn looks(
        &mut self,
        node: NodeId,
        facts: &Facts,
        rows: Rows<'_>,
    ) -> Judgement {
        match facts {
            Facts::Coordinator(audit) => {
                if let Some(why) = &audit.contradiction {
                    return broken(Promise::Remembers, format!("{node} can't go on: {why}"));
                }
                tables(node, &audit.tables)?;
                locks(node, &audit.lock_holders, &audit.open)
            }
            Facts::Participant(audit) => {
                if audit.is_unfit {
                    let what = format!("{node} finds that its own log contradicts itself");
                    return broken(Promise::Remembers, what);
                }
                // Who decides alone finds outcomes in its log that it may forget with the next
                // prepare, and no sooner.
                let starting = self.diary(node).alone_len() > 0;
                let bounded = audit.tables.iter().filter(|it| !starting || it.name != "outcomes");
                tables(node, bounded)?;
                locks(node, &audit.lock_holders, &audit.open)?;
                self.still_bound(node, audit)?;
                self.holds(node, audit, rows)
            }
        }
    }

    /// Who has voted yes knows of it until it is over.
    fn still_bound(&mut self, node: NodeId, audit: &ParticipantAudit) -> Judgement {
        let first = TxnId { coordinator: NodeId(0), epoch: 0, number: 0 };
        let bound = self.bound.range((node, first)..).take_while(|(it, _)| *it == node);
        let freed: Vec<TxnId> =
            bound.map(|(_, txn)| *txn).filter(|txn| !audit.promised.contains(txn)).collect();
        for txn in freed {
            let is_over = match self.decisions.get(&txn) {
                Some((Decision::Commit(number), _)) => *number <= audit.applied,
                Some((Decision::Abort, _)) => true,
                None => self.over_below.is_some_and(|below| txn < below),
            };
            if !is_over {
                return broken(
                    Promise::Remembers,
                    format!("{node} has voted yes on {txn}, which is not over, and has forgotten"),
                );
            }
            self.bound.remove(&(node, txn));
        }
        Ok(())
    }

    /// A replica holds what the commits up to its newest one say.
    fn holds(&mut self, node: NodeId, audit: &ParticipantAudit, rows: Rows<'_>) -> Judgement {
        let alone = self.diary(node).alone_len();
        let seen = (audit.applied, alone);
        let last = self.looked.get(&node).copied();
        if last == Some(seen)
            || audit.alone > 0
            || audit.is_installing
            || self.astray.contains(&node)
        {
            return Ok(());
        }
        let acknowledged = self.newest_acknowledged.get(&node).copied().unwrap_or_default();
        let before = last.map_or(acknowledged, |(applied, _)| applied.max(acknowledged));
        // Who is outside and begins anew takes the rows of another, which may have come less far.
        if audit.applied < before && !self.diary(node).standing().is_outside {
            return broken(
                Promise::Remembers,
                format!("{node} holds the commits up to {}, and had {before}", audit.applied),
            );
        }
        let place = usize::try_from(audit.applied.0).unwrap_or(usize::MAX);
        let Some(contents) = self.contents.get(place).cloned() else {
            let what = format!("{node} has applied {}, which is no commit", audit.applied);
            return broken(Promise::OneOrder, what);
        };
        let mut expected = (*contents).clone();
        apply(&mut expected, self.diary(node).alone_writes());
        // A disk that fails is told of where it matters; here there is nothing to compare.
        let Ok(rows) = rows() else { return Ok(()) };
        self.looked.insert(node, seen);
        let rows: Contents = rows.into_iter().collect();
        let keys: BTreeSet<&Bytes> = rows.keys().chain(expected.keys()).collect();
        match keys.into_iter().find(|key| rows.get(*key) != expected.get(*key)) {
            None => Ok(()),
            Some(key) => broken(
                Promise::HoldsCommits,
                format!(
                    "{node}, with the commits up to {} and {alone} of its own, holds {} under \
                     {}, and the commits say {}",
                    audit.applied,
                    shown(rows.get(key)),
                    String::from_utf8_lossy(key),
                    shown(expected.get(key)),
                ),
            ),
        }
    }
}

fn shown(value: Option<&Bytes>) -> String {
    value.map_or_else(|| "nothing".to_owned(), |it| String::from_utf8_lossy(it).into_owned())
}

fn tables<'a>(node: impl Display, tables: impl IntoIterator<Item = &'a Table>) -> Judgement {
    match tables.into_iter().find(|table| table.len > table.max) {
        Some(Table { name, len, max }) => {
            broken(Promise::Bounded, format!("{node} has {len} {name}, and may have {max}"))
        }
        None => Ok(()),
    }
}

fn locks(node: impl Display, holders: &[TxnId], open: &[TxnId]) -> Judgement {
    match holders.iter().find(|txn| !open.contains(txn)) {
        Some(txn) => {
            broken(Promise::LocksEnd, format!("{node} holds a lock for {txn}, which is over"))
        }
        None => Ok(()),
    }
}
