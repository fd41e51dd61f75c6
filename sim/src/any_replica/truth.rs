//! What has happened: the commits whose records are durable, in the order in which they became so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use kvorum_replication::two_phase::any_replica::message::{TxnId, Work};
use kvorum_replication::{Answer, ClientId, Query, Row, Write};

use super::diary::{Asked, asked};
use crate::process::{Judgement, broken};
use crate::violation::Promise;

/// What a copy holds.
pub(super) type Contents = BTreeMap<Bytes, Bytes>;

#[derive(Debug)]
pub(super) struct Truth {
    happened: BTreeMap<TxnId, Arc<Work>>,
    /// What all of them together come to, after each; the first entry is the empty beginning.
    versions: Vec<Arc<Contents>>,
    /// Who has written each key, in order.
    writers: BTreeMap<Bytes, Vec<TxnId>>,
    stamps: BTreeMap<Asked, TxnId>,
    /// Writes of which a replica has written down that they will not happen.
    refused: BTreeSet<Asked>,
    sessions: BTreeMap<ClientId, TxnId>,
}

impl Truth {
    pub(super) fn new() -> Self {
        Self {
            happened: BTreeMap::new(),
            versions: vec![Arc::default()],
            writers: BTreeMap::new(),
            stamps: BTreeMap::new(),
            refused: BTreeSet::new(),
            sessions: BTreeMap::new(),
        }
    }

    /// A commit is durable.
    pub(super) fn happens(&mut self, txn: TxnId, work: &Arc<Work>) -> Judgement {
        if self.happened.insert(txn, work.clone()).is_some() {
            let what = format!("{txn} is committed twice");
            return broken(Promise::OneDecision, what);
        }
        let mut contents = self.versions.last().map_or_else(Contents::new, |it| (**it).clone());
        match &**work {
            Work::OpenSession { client } => {
                if let Some(other) = self.sessions.insert(*client, txn) {
                    let what = format!("{other} and {txn} both open session {}", client.0);
                    return broken(Promise::Once, what);
                }
            }
            Work::Write { stamp, writes, .. } => {
                apply(&mut contents, writes);
                for key in keys_of(writes) {
                    self.writers.entry(key.clone()).or_default().push(txn);
                }
                if let Some(stamp) = stamp.map(asked) {
                    self.stamp(stamp, txn)?;
                }
            }
        }
        self.versions.push(Arc::new(contents));
        Ok(())
    }

    fn stamp(&mut self, stamp: Asked, txn: TxnId) -> Judgement {
        let (client, sequence) = (stamp.0.0, stamp.1);
        if let Some(other) = self.stamps.insert(stamp, txn) {
            let what = format!("{other} and {txn} are both write {sequence} of session {client}");
            return broken(Promise::Once, what);
        }
        match self.refused.contains(&stamp) {
            true => broken(
                Promise::Once,
                format!(
                    "{txn} is write {sequence} of session {client}, which was refused for good"
                ),
            ),
            false => Ok(()),
        }
    }

    /// It is durable that a write is refused, or a client was told so.
    pub(super) fn refuses(&mut self, stamp: Asked) -> Judgement {
        self.refused.insert(stamp);
        match self.stamps.get(&stamp) {
            Some(txn) => broken(
                Promise::Once,
                format!("write {} of session {} is refused, and is {txn}", stamp.1, stamp.0.0),
            ),
            None => Ok(()),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.versions.len()
    }

    pub(super) fn commits(&self) -> impl Iterator<Item = TxnId> {
        self.happened.keys().copied()
    }

    pub(super) fn work(&self, txn: TxnId) -> Option<&Arc<Work>> {
        self.happened.get(&txn)
    }

    /// Who wrote this key, in which place.
    pub(super) fn writer(&self, key: &Bytes, place: usize) -> Option<TxnId> {
        self.writers.get(key).and_then(|writers| writers.get(place)).copied()
    }

    pub(super) fn has_committed(&self, stamp: Asked) -> bool {
        self.stamps.contains_key(&stamp)
    }

    pub(super) fn has_refused(&self, stamp: Asked) -> bool {
        self.refused.contains(&stamp)
    }

    pub(super) fn has_opened(&self, client: ClientId) -> bool {
        self.sessions.contains_key(&client)
    }

    /// Whether a transaction without a stamp that does just this has happened.
    pub(super) fn has_written(&self, asked: &[Write]) -> bool {
        self.happened.values().any(|work| match &**work {
            Work::Write { stamp: None, writes, .. } => *writes == *asked,
            Work::Write { .. } | Work::OpenSession { .. } => false,
        })
    }

    /// Whether a read finds this in one of the versions from `first` on.
    pub(super) fn explains(&self, query: &Query, answer: &Answer, first: usize) -> bool {
        let versions = self.versions[first.min(self.versions.len() - 1)..].iter();
        versions.rev().any(|version| found(version, query) == *answer)
    }

    /// What a read would find now.
    pub(super) fn now(&self, query: &Query) -> Answer {
        self.versions.last().map_or(Answer::Value(None), |version| found(version, query))
    }
}

fn found(contents: &Contents, query: &Query) -> Answer {
    match query {
        Query::Get(key) => Answer::Value(contents.get(key).cloned()),
        Query::GetMany(keys) => {
            Answer::Values(keys.iter().map(|key| contents.get(key).cloned()).collect())
        }
        Query::Scan(range) => {
            let rows = contents.iter().filter(|(key, _)| range.contains(key));
            let limit = usize::try_from(range.limit).unwrap_or(usize::MAX);
            let mut rows: Vec<Row> =
                rows.map(|(key, value)| (key.clone(), value.clone())).collect();
            let more = rows.len() > limit;
            rows.truncate(limit);
            Answer::Rows { rows, more }
        }
    }
}

/// The keys that are written, each once.
pub(super) fn keys_of(writes: &[Write]) -> BTreeSet<&Bytes> {
    writes.iter().map(Write::key).collect()
}

pub(super) fn apply(contents: &mut Contents, writes: &[Write]) {
    for write in writes {
        match write {
            Write::Put(key, value) => contents.insert(key.clone(), value.clone()),
            Write::Delete(key) => contents.remove(key),
        };
    }
}
