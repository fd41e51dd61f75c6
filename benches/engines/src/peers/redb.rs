//! redb: a copy-on-write tree in one file, written by one transaction at a time.

use std::path::Path;

use anyhow::Result;
use redb::{Database, Durability, ReadOnlyTable, ReadableDatabase, TableDefinition};

use crate::engine::{Engine, Reader, Seen, Settings, Work};
use crate::load::{Entries, KEY_BYTES, Key};

/// Keys of a fixed width are what it is fastest with.
const TABLE: TableDefinition<'_, &[u8; KEY_BYTES], &[u8]> = TableDefinition::new("kv");

type Table = ReadOnlyTable<&'static [u8; KEY_BYTES], &'static [u8]>;

pub(crate) struct Redb {
    database: Database,
}

impl Redb {
    pub(crate) fn open(dir: &Path, settings: Settings) -> Result<Redb> {
        let mut builder = Database::builder();
        let database = builder.set_cache_size(settings.cache_bytes).create(dir.join("redb"))?;
        let transaction = database.begin_write()?;
        transaction.open_table(TABLE)?;
        transaction.commit()?;
        Ok(Redb { database })
    }

    fn table(&self) -> Result<Table> {
        Ok(self.database.begin_read()?.open_table(TABLE)?)
    }
}

impl Engine for Redb {
    fn write(&self, entries: &Entries) -> Result<()> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for (key, value) in entries.iter() {
                table.insert(key, value)?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn read(&self, view: Seen, work: &mut Work<'_>) -> Result<()> {
        match view {
            Seen::Latest => work(&mut Latest(self)),
            Seen::Snapshot => work(&mut Old(self.table()?)),
        }
    }

    fn settle(&self) -> Result<()> {
        // It does nothing in the background.
        Ok(())
    }
}

/// A transaction for each read.
struct Latest<'a>(&'a Redb);

impl Reader for Latest<'_> {
    fn get(&mut self, key: &Key, found: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Old(self.0.table()?).get(key, found)
    }

    fn scan(&mut self, from: &Key, each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        Old(self.0.table()?).scan(from, each)
    }
}

struct Old(Table);

impl Reader for Old {
    fn get(&mut self, key: &Key, found: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.0.get(key)?.map(|value| found(value.value())).is_some())
    }

    fn scan(&mut self, from: &Key, each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        for entry in self.0.range::<&Key>(from..)? {
            let (key, value) = entry?;
            if !each(key.value(), value.value()) {
                break;
            }
        }
        Ok(())
    }
}
