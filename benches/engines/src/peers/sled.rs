//! sled, the last release that is no preview.

use std::fs::File;
use std::path::Path;

use anyhow::Result;
use sled::{Batch, Config, Db, Mode};

use crate::engine::{Engine, Reader, Seen, Settings, Work};
use crate::load::{Entries, Key};

pub(crate) struct Sled {
    db: Db,
    /// Its log, to sync it: see [`Sled::write`].
    file: File,
}

impl Sled {
    pub(crate) fn open(dir: &Path, settings: Settings) -> Result<Sled> {
        let config = Config::new()
            .path(dir)
            .cache_capacity(settings.cache_bytes as u64)
            .mode(Mode::HighThroughput)
            // We flush after each write: a thread that does it now and then would only add to it.
            .flush_every_ms(None);
        let db = config.open()?;
        Ok(Sled { db, file: File::open(dir.join("db"))? })
    }
}

impl Engine for Sled {
    fn write(&self, entries: &Entries) -> Result<()> {
        let mut batch = Batch::default();
        for (key, value) in entries.iter() {
            batch.insert(key.as_slice(), value);
        }
        self.db.apply_batch(batch)?;
        self.db.flush()?;
        // On Linux its flush is `sync_file_range`, after which neither the file's length nor what
        // the disk has in its cache need survive a power cut.
        Ok(self.file.sync_data()?)
    }

    fn read(&self, _: Seen, work: &mut Work<'_>) -> Result<()> {
        // It has no snapshots.
        work(&mut Latest(&self.db))
    }

    fn settle(&self) -> Result<()> {
        self.db.flush()?;
        Ok(())
    }
}

struct Latest<'a>(&'a Db);

impl Reader for Latest<'_> {
    fn get(&mut self, key: &Key, found: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.0.get(key)?.map(|value| found(&value)).is_some())
    }

    fn scan(&mut self, from: &Key, each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        for entry in self.0.range(from.as_slice()..) {
            let (key, value) = entry?;
            if !each(&key, &value) {
                break;
            }
        }
        Ok(())
    }
}
