//! RocksDB: leveled compaction, as its guide to basic tuning has it.

use std::path::Path;

use anyhow::Result;
use rocksdb::{
    BlockBasedOptions, Cache, CompactionPri, DB, DBCompressionType, DBRawIterator, Options,
    SnapshotWithThreadMode, WaitForCompactOptions, WriteBatch, WriteOptions,
};

use super::BACKGROUND;
use crate::engine::{Engine, Reader, Seen, Settings, Work};
use crate::load::{Entries, Key};

/// As many memtables as ours may have.
const MEMTABLES_MAX: i32 = 4;

const BLOOM_BITS: f64 = 10.0;

/// Ours reuses its log files too.
const RECYCLED_LOGS: usize = 4;

pub(crate) struct RocksDb {
    db: DB,
    durable: WriteOptions,
}

impl RocksDb {
    pub(crate) fn open(dir: &Path, settings: Settings) -> Result<RocksDb> {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&Cache::new_hyper_clock_cache(settings.cache_bytes, 0));
        table.set_bloom_filter(BLOOM_BITS, false);
        table.set_cache_index_and_filter_blocks(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&table);
        options.set_compression_type(DBCompressionType::None);
        options.set_write_buffer_size(settings.write_buffer_bytes);
        options.set_max_write_buffer_number(MEMTABLES_MAX);
        options.set_max_background_jobs(BACKGROUND.into());
        options.set_level_compaction_dynamic_level_bytes(true);
        options.set_compaction_pri(CompactionPri::MinOverlappingRatio);
        options.set_bytes_per_sync(1 << 20);
        options.set_recycle_log_file_num(RECYCLED_LOGS);
        let mut durable = WriteOptions::default();
        durable.set_sync(true);
        Ok(RocksDb { db: DB::open(&options, dir)?, durable })
    }
}

impl Engine for RocksDb {
    fn write(&self, entries: &Entries) -> Result<()> {
        let mut batch = WriteBatch::default();
        for (key, value) in entries.iter() {
            batch.put(key, value);
        }
        Ok(self.db.write_opt(batch, &self.durable)?)
    }

    fn read(&self, view: Seen, work: &mut Work<'_>) -> Result<()> {
        match view {
            Seen::Latest => work(&mut Latest(&self.db)),
            Seen::Snapshot => work(&mut Old(self.db.snapshot())),
        }
    }

    fn settle(&self) -> Result<()> {
        self.db.flush()?;
        Ok(self.db.wait_for_compact(&WaitForCompactOptions::default())?)
    }

    fn rest(&self) -> Result<()> {
        self.db.compact_range::<&[u8], &[u8]>(None, None);
        Ok(())
    }
}

struct Latest<'a>(&'a DB);

impl Reader for Latest<'_> {
    fn get(&mut self, key: &Key, found: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.0.get_pinned(key)?.map(|value| found(&value)).is_some())
    }

    fn scan(&mut self, from: &Key, each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        walk(self.0.raw_iterator(), from, each)
    }
}

struct Old<'a>(SnapshotWithThreadMode<'a, DB>);

impl Reader for Old<'_> {
    fn get(&mut self, key: &Key, found: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.0.get_pinned(key)?.map(|value| found(&value)).is_some())
    }

    fn scan(&mut self, from: &Key, each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        walk(self.0.raw_iterator(), from, each)
    }
}

fn walk(
    mut cursor: DBRawIterator<'_>,
    from: &Key,
    each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
) -> Result<()> {
    cursor.seek(from);
    while let Some((key, value)) = cursor.item() {
        if !each(key, value) {
            break;
        }
        cursor.next();
    }
    Ok(cursor.status()?)
}
