//! fjall: its defaults, but for the sizes that all are given.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use fjall::{Database, Iter, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot};

use super::BACKGROUND;
use crate::engine::{Engine, Reader, Seen, Settings, Work};
use crate::load::{Entries, Key};

/// Journals may hold so many memtables.
const MEMTABLES_MAX: u64 = 4;

/// It is asked so often whether it still compacts.
const LOOK: Duration = Duration::from_millis(10);
/// And so often in a row it must say no: between two compactions there is none.
const LOOKS: u32 = 10;

pub(crate) struct Fjall {
    database: Database,
    keyspace: Keyspace,
}

impl Fjall {
    pub(crate) fn open(dir: &Path, settings: Settings) -> Result<Fjall> {
        let memtable_bytes = settings.write_buffer_bytes as u64;
        let database = Database::builder(dir)
            .cache_size(settings.cache_bytes as u64)
            .worker_threads(BACKGROUND.into())
            .max_journaling_size((MEMTABLES_MAX * memtable_bytes).max(512 << 20))
            .open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(memtable_bytes);
        let keyspace = database.keyspace("kv", options)?;
        Ok(Fjall { database, keyspace })
    }
}

impl Engine for Fjall {
    fn write(&self, entries: &Entries) -> Result<()> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for (key, value) in entries.iter() {
            batch.insert(&self.keyspace, key.as_slice(), value);
        }
        Ok(batch.commit()?)
    }

    fn read(&self, view: Seen, work: &mut Work<'_>) -> Result<()> {
        match view {
            Seen::Latest => work(&mut Latest(&self.keyspace)),
            Seen::Snapshot => work(&mut Old(self.database.snapshot(), &self.keyspace)),
        }
    }

    fn settle(&self) -> Result<()> {
        self.keyspace.rotate_memtable_and_wait()?;
        let mut idle = 0;
        while idle < LOOKS {
            std::thread::sleep(LOOK);
            let is_busy =
                self.database.active_compactions() > 0 || self.database.outstanding_flushes() > 0;
            idle = if is_busy { 0 } else { idle + 1 };
        }
        Ok(())
    }

    fn rest(&self) -> Result<()> {
        Ok(self.keyspace.major_compact()?)
    }
}

struct Latest<'a>(&'a Keyspace);

impl Reader for Latest<'_> {
    fn get(&mut self, key: &Key, found: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.0.get(key)?.map(|value| found(&value)).is_some())
    }

    fn scan(&mut self, from: &Key, each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        walk(self.0.range(from.as_slice()..), each)
    }
}

struct Old<'a>(Snapshot, &'a Keyspace);

impl Reader for Old<'_> {
    fn get(&mut self, key: &Key, found: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.0.get(self.1, key)?.map(|value| found(&value)).is_some())
    }

    fn scan(&mut self, from: &Key, each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        walk(self.0.range(self.1, from.as_slice()..), each)
    }
}

fn walk(entries: Iter, each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
    for entry in entries {
        let (key, value) = entry.into_inner()?;
        if !each(&key, &value) {
            break;
        }
    }
    Ok(())
}
