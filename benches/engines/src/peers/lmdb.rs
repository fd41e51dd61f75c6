//! LMDB, through heed: a copy-on-write tree in a memory map, written by one transaction at a time.

use std::ops::Bound;
use std::path::Path;

use anyhow::{Context, Result};
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvOpenOptions, RoTxn, WithTls};

use crate::engine::{Engine, Reader, Seen, Settings, Work};
use crate::load::{Entries, Key};

/// Larger than anything that we load: its documentation says that the map should be.
const MAP_BYTES: usize = 64 << 30;

type Table = Database<'static, Bytes, Bytes>;
type Transaction = RoTxn<'static, WithTls>;

pub(crate) struct Lmdb {
    /// Tables borrow it, so it is never closed: the process ends with the row.
    env: &'static Env,
    table: Table,
}

impl Lmdb {
    pub(crate) fn open(dir: &Path, _: Settings) -> Result<Lmdb> {
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP_BYTES);
        // SAFETY: the directory is ours, nobody else changes the map's file, and this process opens
        // it once.
        let env = unsafe { options.open(dir)? };
        let env: &'static Env = Box::leak(Box::new(env));
        let create = env.create_databases_and_commit(env.write_txn()?, |opener, transaction| {
            opener.create_database(transaction, None).map(CommitOrAbort::<_, ()>::Commit)
        });
        let table = create?.commit().context("the table was not made")?;
        Ok(Lmdb { env, table })
    }
}

impl Engine for Lmdb {
    fn write(&self, entries: &Entries) -> Result<()> {
        let mut transaction = self.env.write_txn()?;
        for (key, value) in entries.iter() {
            self.table.put(&mut transaction, key, value)?;
        }
        Ok(transaction.commit()?)
    }

    fn read(&self, view: Seen, work: &mut Work<'_>) -> Result<()> {
        match view {
            Seen::Latest => work(&mut Latest(self)),
            Seen::Snapshot => work(&mut Old(self.env.read_txn()?, self.table)),
        }
    }

    fn settle(&self) -> Result<()> {
        // It does nothing in the background.
        Ok(())
    }
}

/// A transaction for each read.
struct Latest<'a>(&'a Lmdb);

impl Reader for Latest<'_> {
    fn get(&mut self, key: &Key, found: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Old(self.0.env.read_txn()?, self.0.table).get(key, found)
    }

    fn scan(&mut self, from: &Key, each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        Old(self.0.env.read_txn()?, self.0.table).scan(from, each)
    }
}

struct Old(Transaction, Table);

impl Reader for Old {
    fn get(&mut self, key: &Key, found: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.1.get(&self.0, key)?.map(found).is_some())
    }

    fn scan(&mut self, from: &Key, each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        let range = (Bound::Included(from.as_slice()), Bound::Unbounded);
        for entry in self.1.range(&self.0, &range)? {
            let (key, value) = entry?;
            if !each(key, value) {
                break;
            }
        }
        Ok(())
    }
}
