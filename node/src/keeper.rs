//! What a node keeps on its disk: a log and, on a replica, the store that lives on it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kvorum_replication::{Answer, Query, Range, Row, Write};
use kvorum_storage::{Batch, Direction, Log, Position, Snapshot, Store};

/// Rows of one scan, at most: what a client can handle in one message.
pub(crate) const SCAN_ROWS_MAX: u32 = 10_000;

/// Bytes of keys and values of one scan, at most; one row more may be larger than that.
pub(crate) const SCAN_BYTES_MAX: usize = 1 << 20;

/// The disk state of a node.
pub(crate) enum Keeper {
    /// A coordinator keeps decisions only.
    Log {
        /// Where.
        dir: PathBuf,
        /// The decision log.
        log: Arc<Log>,
    },
    /// A replica keeps data, on the same log as its votes.
    Store {
        /// Where.
        dir: PathBuf,
        /// The engine.
        store: Store,
    },
}

impl Keeper {
    pub(crate) fn dir(&self) -> &Path {
        match self {
            Self::Log { dir, .. } | Self::Store { dir, .. } => dir,
        }
    }

    pub(crate) fn log(&self) -> &Arc<Log> {
        match self {
            Self::Log { log, .. } => log,
            Self::Store { store, .. } => store.log(),
        }
    }

    pub(crate) fn store(&self) -> Option<&Store> {
        match self {
            Self::Log { .. } => None,
            Self::Store { store, .. } => Some(store),
        }
    }

    /// The store, of which a core that applies or reads is given one.
    fn expect_store(&self) -> &Store {
        self.store().expect("only cores of replicas apply and read, and those are given a store")
    }

    pub(crate) fn apply(
        &self,
        mark: u64,
        covered_by: Position,
        writes: Vec<Write>,
    ) -> kvorum_storage::Result<()> {
        let mut batch = Batch::new();
        for write in writes {
            match write {
                Write::Put(key, value) => batch.put(key, value),
                Write::Delete(key) => batch.delete(key),
            };
        }
        self.expect_store().apply(mark, covered_by, &batch)
    }

    /// Answers from the newest state, all of it at one point in time.
    pub(crate) fn read(&self, query: Query) -> Answer {
        let snapshot = self.expect_store().snapshot();
        let answer = match query {
            Query::Get(key) => snapshot.get(&key).map(Answer::Value),
            Query::GetMany(keys) => {
                let values = keys.iter().map(|key| snapshot.get(key)).collect();
                let values: kvorum_storage::Result<_> = values;
                values.map(Answer::Values)
            }
            Query::Scan(range) => {
                scan(&snapshot, &range).map(|(rows, more)| Answer::Rows { rows, more })
            }
        };
        answer.unwrap_or_else(|error| Answer::Failed(error.to_string()))
    }

    /// Nothing before `position` is needed for the core's recovery any more.
    pub(crate) fn release(&self, position: Position) -> kvorum_storage::Result<()> {
        match self {
            Self::Log { log, .. } => log.truncate_before(position),
            Self::Store { store, .. } => {
                store.release(position);
                Ok(())
            }
        }
    }
}

/// The first rows of a range, and whether there are more.
pub(crate) fn scan(snapshot: &Snapshot, range: &Range) -> kvorum_storage::Result<(Vec<Row>, bool)> {
    let limit = range.limit.min(SCAN_ROWS_MAX) as usize;
    let mut rows = Vec::new();
    let mut bytes = 0;
    for row in snapshot.scan(range.start.clone().., Direction::Forwards)? {
        let (key, value) = row?;
        if range.end.as_ref().is_some_and(|end| key >= *end) {
            break;
        }
        if rows.len() >= limit || bytes >= SCAN_BYTES_MAX {
            return Ok((rows, true));
        }
        bytes += key.len() + value.len();
        rows.push((key, value));
    }
    Ok((rows, false))
}
