//! What has happened: the commits whose records are durable, in the order in which they became so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use kvorum_replication::two_phase::any_replica::message::{TxnId, Work};
use kvorum_replication::{Answer, ClientId, Page, Query, Row, Write};

use super::diary::{Asked, asked};
use crate::process::{Judgement, broken};
use crate::violation::Promise;

/// What a copy holds.
pub(super) type Contents = BTreeMap<Bytes, Bytes>;

#[derive(Debug)]
pub(super) struct Truth {
    happened: BTreeMap<TxnId, Arc<Work>>,
    /// What all of them together come to.
    now: Contents,
    /// Who has written each key, in order, and what.
    writers: BTreeMap<Bytes, Vec<(TxnId, Option<Bytes>)>>,
    stamps: BTreeMap<Asked, TxnId>,
    /// Writes of which a replica has written down that they will not happen.
    refused: BTreeSet<Asked>,
    sessions: BTreeMap<ClientId, TxnId>,
}

impl Truth {
    pub(super) fn new() -> Self {
        Self {
            happened: BTreeMap::new(),
            now: Contents::new(),
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
        match &**work {
            Work::OpenSession { client } => {
                if let Some(other) = self.sessions.insert(*client, txn) {
                    let what = format!("{other} and {txn} both open session {}", client.0);
                    return broken(Promise::Once, what);
                }
            }
            Work::Write { stamp, writes, .. } => {
                apply(&mut self.now, writes);
                for key in keys_of(writes) {
                    let value = self.now.get(key).cloned();
                    self.writers.entry(key.clone()).or_default().push((txn, value));
                }
                if let Some(stamp) = stamp.map(asked) {
                    self.stamp(stamp, txn)?;
                }
            }
        }
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

    pub(super) fn commits(&self) -> impl Iterator<Item = TxnId> {
        self.happened.keys().copied()
    }

    pub(super) fn work(&self, txn: TxnId) -> Option<&Arc<Work>> {
        self.happened.get(&txn)
    }

    /// Who wrote this key, in which place.
    pub(super) fn writer(&self, key: &Bytes, place: usize) -> Option<TxnId> {
        self.writers.get(key).and_then(|writers| writers.get(place)).map(|it| it.0)
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

    /// Whether a read finds this, at a coordinator that may not have heard yet that the newest of
    /// these decisions of its own are durable: it is the first to know, so nobody else knows them.
    pub(super) fn explains(&self, query: &Query, answer: &Answer, unheard: &[TxnId]) -> bool {
        let answer = match (query, answer) {
            // It may be of any moment since its scan began, and the history is judged.
            (Query::Page(Page { of: Some(_), .. }), _) => return true,
            (_, Answer::Page { rows, more, .. }) => {
                &Answer::Rows { rows: rows.clone(), more: *more }
            }
            (_, answer) => answer,
        };
        (0..=unheard.len()).rev().any(|heard| {
            let contents = self.without(&unheard[heard..]);
            found(&contents, query) == *answer
        })
    }

    /// What would be if these had not happened; nobody has changed since what they wrote.
    fn without(&self, unheard: &[TxnId]) -> Contents {
        let mut contents = self.now.clone();
        let works = unheard.iter().rev().filter_map(|txn| Some((txn, self.happened.get(txn)?)));
        for (txn, work) in works {
            let Work::Write { writes, .. } = &**work else { continue };
            for key in keys_of(writes) {
                let writers = self.writers.get(key).map_or(&[][..], |writers| writers);
                let before = writers.iter().rev().skip_while(|(other, _)| other != txn).nth(1);
                match before.and_then(|(_, value)| value.clone()) {
                    Some(value) => contents.insert(key.clone(), value),
                    None => contents.remove(key),
                };
            }
        }
        contents
    }

    /// What a read would find now.
    pub(super) fn now(&self, query: &Query) -> Answer {
        found(&self.now, query)
    }
}

fn found(contents: &Contents, query: &Query) -> Answer {
    match query {
        Query::Get(key) => Answer::Value(contents.get(key).cloned()),
        Query::GetMany(keys) => {
            Answer::Values(keys.iter().map(|key| contents.get(key).cloned()).collect())
        }
        Query::Scan(range) | Query::Page(Page { range, .. }) => {
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
