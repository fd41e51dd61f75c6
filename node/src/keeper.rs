//! What a node keeps on its disk: a log and, on a replica, the store that lives on it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kvorum_replication::{Answer, Query, Range, Row, SnapshotId, Time, Write};
use kvorum_storage::{Batch, Direction, Error, Log, Position, Snapshot, Store};

use crate::held::Holding;

/// Rows of one scan, at most: what a client can handle in one message.
pub(crate) const SCAN_ROWS_MAX: u32 = 10_000;

/// Bytes of keys and values of one scan, at most; one row more may be larger than that.
pub(crate) const SCAN_BYTES_MAX: usize = 1 << 20;

/// Snapshots held for the core at a time: above what cores hold by themselves, and few, since each
/// keeps from being thrown away what it shows.
const SNAPSHOTS_MAX: usize = 4;

/// Writes that are gathered before the store gets them: a turn's, of which more at once would not be
/// cheaper.
const GATHERED_OPERATIONS_MAX: usize = 256;

/// And their bytes, beyond which the memory for them would not stay in the processor's caches.
const GATHERED_BYTES_MAX: usize = 128 << 10;

/// The disk state of a node.
pub(crate) struct Keeper {
    dir: PathBuf,
    log: Arc<Log>,
    /// A coordinator keeps decisions only.
    store: Option<Store>,
    /// What the store is to apply next.
    gathered: Gathered,
    held: BTreeMap<SnapshotId, Snapshot>,
    /// For clients' scans.
    holding: Holding,
    /// The last rows to be staged were not taken: it is said once, not with every try.
    is_unable_to_stage: bool,
}

impl Keeper {
    /// A coordinator's.
    pub(crate) fn log_only(dir: &Path, log: Arc<Log>) -> Self {
        // Every run appends before it serves, so the next one begins further on.
        let run = log.last().0;
        Self {
            dir: dir.to_owned(),
            log,
            store: None,
            gathered: Gathered::default(),
            held: BTreeMap::new(),
            holding: Holding::new(run),
            is_unable_to_stage: false,
        }
    }

    /// A replica's, which keeps data on the same log as its votes.
    pub(crate) fn with_store(dir: &Path, store: Store) -> Self {
        let log = Arc::clone(store.log());
        Self { store: Some(store), ..Self::log_only(dir, log) }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn log(&self) -> &Arc<Log> {
        &self.log
    }

    pub(crate) fn store(&self) -> Option<&Store> {
        self.store.as_ref()
    }

    /// The store, of which a core that applies or reads is given one.
    fn expect_store(&self) -> &Store {
        self.store().expect("only cores of replicas apply and read, and those are given a store")
    }

    /// Has the store apply writes, together with others: at the latest before anybody looks at it by
    /// way of this keeper, or [`Keeper::apply_gathered`] is called. Who sees them sees all, and those
    /// before.
    pub(crate) fn apply(&mut self, mark: u64, writes: &[Write]) -> kvorum_storage::Result<()> {
        // A mark that does not rise is the store's to judge.
        if mark <= self.gathered.mark {
            self.apply_gathered()?;
        }
        self.gathered.add(mark, writes);
        let batch = &self.gathered.batch;
        if batch.len() >= GATHERED_OPERATIONS_MAX || batch.bytes() >= GATHERED_BYTES_MAX {
            self.apply_gathered()?;
        }
        Ok(())
    }

    /// Has the store apply what it was not given yet.
    pub(crate) fn apply_gathered(&mut self) -> kvorum_storage::Result<()> {
        if self.gathered.mark == 0 {
            return Ok(());
        }
        self.apply_at(self.log.last())
    }

    /// Has the store apply writes at once, as they come back from the log.
    pub(crate) fn apply_again(
        &mut self,
        mark: u64,
        covered_by: Position,
        writes: &[Write],
    ) -> kvorum_storage::Result<()> {
        self.gathered.add(mark, writes);
        self.apply_at(covered_by)
    }

    fn apply_at(&mut self, covered_by: Position) -> kvorum_storage::Result<()> {
        let applied =
            self.expect_store().apply(self.gathered.mark, covered_by, &self.gathered.batch);
        self.gathered.clear();
        applied
    }

    /// Answers from the newest state, all of it at one point in time; a page of a scan from the
    /// state that its first page was read of.
    pub(crate) fn read(&mut self, now: Time, query: Query) -> kvorum_storage::Result<Answer> {
        self.apply_gathered()?;
        let store = self.store.as_ref().expect("a core that reads was given a store");
        Ok(match query {
            // One key is one point in time by itself.
            Query::Get(key) => answer_get(store.get(&key)),
            Query::Page(page) => self.holding.page(now, store, &page),
            query => answer(&store.snapshot(), query),
        })
    }

    /// Lets go of snapshots that no client has come back for.
    pub(crate) fn drop_expired(&mut self, now: Time) {
        self.holding.drop_expired(now);
    }

    /// Holds the store as it is now. What is held for longest gives way to what would be too much.
    pub(crate) fn take_snapshot(&mut self, snapshot: SnapshotId) -> kvorum_storage::Result<()> {
        self.apply_gathered()?;
        while self.held.len() >= SNAPSHOTS_MAX {
            self.held.pop_first();
        }
        let taken = self.expect_store().snapshot();
        self.held.insert(snapshot, taken);
        Ok(())
    }

    pub(crate) fn read_snapshot(&self, snapshot: SnapshotId, query: Query) -> Answer {
        match self.held.get(&snapshot) {
            Some(held) => answer(held, query),
            None => Answer::Failed(format!("the snapshot at {} is not held any more", snapshot.0)),
        }
    }

    pub(crate) fn drop_snapshot(&mut self, snapshot: SnapshotId) {
        self.held.remove(&snapshot);
    }

    /// Puts rows aside, and makes all of them durable with the last; whether that was possible. If
    /// it was not, nothing is staged any more.
    pub(crate) fn stage(
        &mut self,
        snapshot: SnapshotId,
        first: bool,
        rows: &[Row],
        last: bool,
    ) -> kvorum_storage::Result<bool> {
        let store = self.expect_store();
        let mut taken = store.stage(first, rows);
        if last {
            taken = taken.and_then(|()| store.seal_staged(snapshot.0));
        }
        let Err(error) = taken else {
            self.is_unable_to_stage = false;
            return Ok(true);
        };
        // The store has thrown away what was staged, and refuses more until a first piece comes. Of
        // one that takes nothing any more a new start is the only way out.
        if matches!(error, Error::Poisoned { .. }) {
            return Err(error);
        }
        if !std::mem::replace(&mut self.is_unable_to_stage, true) {
            tracing::error!(%error, "cannot stage a snapshot, and will try again");
        }
        Ok(false)
    }

    /// Has what is staged for the store.
    pub(crate) fn install(
        &mut self,
        snapshot: SnapshotId,
        covered_by: Position,
    ) -> kvorum_storage::Result<()> {
        self.apply_gathered()?;
        self.expect_store().install(snapshot.0, covered_by)
    }

    /// Nothing before `position` is needed for the core's recovery any more.
    pub(crate) fn release(&mut self, position: Position) -> kvorum_storage::Result<()> {
        // What rests on the records before it must be the store's when it is told so.
        self.apply_gathered()?;
        match &self.store {
            None => self.log.truncate_before(position),
            Some(store) => {
                store.release(position);
                Ok(())
            }
        }
    }
}

/// Writes of batches one after the other, for the store to apply as one: it then goes through its
/// tree with many keys at once. What it has applied up to the last of their marks, it has of all.
#[derive(Default)]
struct Gathered {
    batch: Batch,
    /// Of the last; 0 if there is none.
    mark: u64,
}

impl Gathered {
    fn add(&mut self, mark: u64, writes: &[Write]) {
        self.mark = mark;
        for write in writes {
            match write {
                Write::Put(key, value) => self.batch.put(key, value),
                Write::Delete(key) => self.batch.delete(key),
            };
        }
    }

    fn clear(&mut self) {
        self.mark = 0;
        match self.batch.bytes() > GATHERED_BYTES_MAX {
            true => self.batch = Batch::new(),
            false => self.batch.clear(),
        }
    }
}

fn answer(snapshot: &Snapshot, query: Query) -> Answer {
    match query {
        Query::Get(key) => answer_get(snapshot.get(&key)),
        Query::GetMany(keys) => {
            let values = keys.iter().map(|key| snapshot.get(key)).collect();
            let values: kvorum_storage::Result<_> = values;
            values.map_or_else(failed, Answer::Values)
        }
        Query::Scan(range) => {
            scan(snapshot, &range).map_or_else(failed, |(rows, more)| Answer::Rows { rows, more })
        }
        Query::Page(page) => scan(snapshot, &page.range)
            .map_or_else(failed, |(rows, more)| Answer::Page { rows, more, held: None }),
    }
}

pub(crate) fn answer_get(value: kvorum_storage::Result<Option<bytes::Bytes>>) -> Answer {
    value.map_or_else(failed, Answer::Value)
}

fn failed(error: kvorum_storage::Error) -> Answer {
    Answer::Failed(error.to_string())
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
