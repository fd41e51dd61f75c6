//! Batches with numbers. Each tells its number, so that a store tells how many it has; what it must
//! hold then is known.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use kvorum_storage::{Batch, Direction, Durability, Operation, Store};

use super::random::hash;

/// Rows by key.
pub(crate) type Rows = BTreeMap<Bytes, Bytes>;

/// The states after each batch.
pub(crate) struct Batches {
    states: Vec<Rows>,
}

impl Batches {
    pub(crate) fn new(count: u64) -> Self {
        let mut states = vec![Rows::new()];
        for number in 1..=count {
            let mut rows = states.last().cloned().unwrap_or_default();
            for operation in batch(number).operations() {
                match operation {
                    Operation::Put { key, value } => rows.insert(key.clone(), value.clone()),
                    Operation::Delete { key } => rows.remove(key),
                };
            }
            states.push(rows);
        }
        Self { states }
    }

    /// All rows after so many batches.
    pub(crate) fn after(&self, count: u64) -> Option<&Rows> {
        self.states.get(usize::try_from(count).ok()?)
    }

    /// How many batches a store has. Fails if it does not hold just what they make.
    pub(crate) fn count(&self, store: &Store) -> Result<u64> {
        let rows: Rows = store
            .scan(.., Direction::Forwards)?
            .collect::<kvorum_storage::Result<_>>()
            .context("a scan")?;
        let count = match rows.get(b"number".as_slice()) {
            Some(number) => std::str::from_utf8(number)?.parse()?,
            None => 0,
        };
        let expected = self.after(count).with_context(|| format!("{count} were never written"))?;
        if rows != *expected {
            let differs = rows.iter().find(|(key, value)| expected.get(*key) != Some(*value));
            let lacks = expected.keys().find(|key| !rows.contains_key(*key));
            anyhow::bail!("not the state after {count} batches: {differs:?}, lacks {lacks:?}");
        }
        let mut backwards = store.scan(.., Direction::Backwards)?;
        for (key, value) in rows.iter().rev() {
            let other = backwards.next().context("a scan backwards is shorter")??;
            ensure!(other == (key.clone(), value.clone()), "{other:?} backwards, not {key:?}");
        }
        ensure!(backwards.next().is_none(), "a scan backwards is longer");
        Ok(count)
    }

    /// The same, and all of its files are sound.
    pub(crate) fn count_sound(&self, store: &Store) -> Result<u64> {
        let report = store.verify()?;
        ensure!(report.problems.is_empty(), "verify finds {:?}", report.problems);
        self.count(store)
    }
}

/// Whether the batch of this number is so large that it may be ingested as segments.
fn is_bulk(number: u64) -> bool {
    number % 50 == 30
}

/// Writes the batch with this number, or ingests it if it is large.
pub(crate) fn write(
    store: &Store,
    number: u64,
    durability: Durability,
) -> kvorum_storage::Result<()> {
    if !is_bulk(number) {
        return store.write(batch(number), durability).map(drop);
    }
    let batch = batch(number);
    let mut operations: Vec<&Operation> = batch.operations().collect();
    operations.sort_by_key(|operation| operation.key());
    let mut ingest = store.begin_ingest()?;
    for operation in operations {
        match operation {
            Operation::Put { key, value } => ingest.put(key, value)?,
            Operation::Delete { key } => ingest.delete(key)?,
        }
    }
    ingest.finish().map(drop)
}

/// The batch with this number.
pub(crate) fn batch(number: u64) -> Batch {
    let mut batch = small_batch(number);
    if is_bulk(number) {
        for part in 0..3 {
            batch.put(format!("bulk{part}"), vec![number as u8 + part; 100_000]);
        }
    }
    batch
}

/// The same, without what makes some of them large.
pub(crate) fn small_batch(number: u64) -> Batch {
    let mut batch = Batch::new();
    batch.put("number", number.to_string());
    for side in 0..3 {
        let random = hash(&[number, side]);
        let key = format!("side{side}-{:02}", random % 29);
        if random % 5 == 4 {
            batch.delete(key);
        } else {
            batch.put(key, format!("{number} {}", "x".repeat((random >> 8) as usize % 90)));
        }
    }
    if number.is_multiple_of(40) {
        // Longer than a block, and than a log file.
        batch.put("large", vec![number as u8; 3_000]);
    }
    batch
}
