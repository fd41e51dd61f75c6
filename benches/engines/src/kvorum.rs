//! Our own engine, embedded, with the threads for its background work that it brings along.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use kvorum_storage::vfs::RealVfs;
use kvorum_storage::{
    Batch, Cursor, Durability, KeyRange, Maintained, Maintenance, Options, Snapshot, Store,
};

use crate::engine::{Engine, Reader, Seen, Settings, Work};
use crate::load::{Entries, Key};

/// As many as the peers are given.
const BACKGROUND_THREADS: usize = 2;

/// While others do what there is to do, ask again after so long.
const ASK_AGAIN: Duration = Duration::from_millis(5);

/// Whether others are at work cannot be asked; so it is over if it seems to be for so long.
const SETTLED_FOR: u32 = 20;

pub(crate) struct Kvorum {
    _maintenance: Maintenance,
    store: Store,
}

impl Kvorum {
    pub(crate) fn open(dir: &Path, settings: Settings) -> Result<Kvorum> {
        let options = Options { memtable_bytes: settings.write_buffer_bytes, ..Options::default() };
        let store = Store::open(Arc::new(RealVfs), dir, options)?;
        Ok(Kvorum { _maintenance: Maintenance::start(&store, BACKGROUND_THREADS)?, store })
    }
}

impl Engine for Kvorum {
    fn write(&self, entries: &Entries) -> Result<()> {
        let mut batch = Batch::new();
        for (key, value) in entries.iter() {
            batch.put(key, value);
        }
        self.store.write(batch, Durability::Sync)?;
        Ok(())
    }

    fn read(&self, view: Seen, work: &mut Work<'_>) -> Result<()> {
        match view {
            Seen::Latest => work(&mut Latest(&self.store)),
            Seen::Snapshot => work(&mut Old(self.store.snapshot())),
        }
    }

    fn settle(&self) -> Result<()> {
        self.store.flush()?;
        self.until_nothing(Store::maintain)
    }

    fn rest(&self) -> Result<()> {
        self.until_nothing(Store::settle)
    }
}

impl Kvorum {
    fn until_nothing(
        &self,
        unit: impl Fn(&Store) -> kvorum_storage::Result<Maintained>,
    ) -> Result<()> {
        let mut settled = 0;
        while settled < SETTLED_FOR {
            match unit(&self.store)? {
                Maintained::Did(_) => settled = 0,
                Maintained::Nothing => {
                    settled += 1;
                    std::thread::sleep(ASK_AGAIN);
                }
            }
        }
        Ok(())
    }
}

struct Latest<'a>(&'a Store);

impl Reader for Latest<'_> {
    fn get(&mut self, key: &Key, found: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.0.get_with(key, found)?.is_some())
    }

    fn scan(&mut self, from: &Key, each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        walk(self.0.cursor(KeyRange::all()), from, each)
    }
}

struct Old(Snapshot);

impl Reader for Old {
    fn get(&mut self, key: &Key, found: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.0.get_with(key, found)?.is_some())
    }

    fn scan(&mut self, from: &Key, each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        walk(self.0.cursor(KeyRange::all()), from, each)
    }
}

fn walk(mut cursor: Cursor, from: &Key, each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
    let mut entry = cursor.seek(from)?;
    while let Some((key, value)) = entry {
        if !each(key, value) {
            break;
        }
        entry = cursor.next()?;
    }
    Ok(())
}
