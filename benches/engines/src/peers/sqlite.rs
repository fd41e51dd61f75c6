//! SQLite, through rusqlite: a table with the key as its primary key, and a write-ahead log.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use anyhow::{Context, Result};
use rusqlite::{Connection, Statement};

use crate::engine::{Engine, Reader, Seen, Settings, Work};
use crate::load::{Entries, Key};

const PUT: &str = "INSERT INTO kv (key, value) VALUES (?1, ?2)
                   ON CONFLICT (key) DO UPDATE SET value = excluded.value";
const GET: &str = "SELECT value FROM kv WHERE key = ?1";
const SCAN: &str = "SELECT key, value FROM kv WHERE key >= ?1 ORDER BY key";

/// Its documentation has rows in the tree of keys itself as long as they are far smaller than a
/// page; longer ones in a table of their own.
const VALUE_BYTES_INLINE: usize = 200;

/// A log of this many pages is brought into the database file: its default.
const CHECKPOINT_PAGES: i64 = 1_000;

/// What [`Settings::write_buffer_bytes`] is when the log must not be brought in: row g.
const LOG_IS_KEPT: usize = 128 << 20;

pub(crate) struct Sqlite {
    path: PathBuf,
    settings: Settings,
    /// There is one writer at a time anyway: this way nobody polls for it.
    writer: Mutex<Connection>,
}

impl Sqlite {
    pub(crate) fn open(dir: &Path, settings: Settings) -> Result<Sqlite> {
        let path = dir.join("sqlite");
        let connection = connect(&path, settings)?;
        let inline = if settings.value_bytes <= VALUE_BYTES_INLINE { "WITHOUT ROWID" } else { "" };
        connection.execute_batch(&format!(
            "CREATE TABLE IF NOT EXISTS kv (key BLOB PRIMARY KEY, value BLOB NOT NULL) {inline}"
        ))?;
        Ok(Sqlite { path, settings, writer: Mutex::new(connection) })
    }

    fn writer(&self) -> MutexGuard<'_, Connection> {
        self.writer.lock().expect("no writer panics")
    }
}

fn connect(path: &Path, settings: Settings) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Kibibytes, if it is negative.
    connection.pragma_update(None, "cache_size", -((settings.cache_bytes >> 10) as i64))?;
    let keep = settings.write_buffer_bytes > LOG_IS_KEPT;
    let pages = if keep { 0 } else { CHECKPOINT_PAGES };
    connection.pragma_update(None, "wal_autocheckpoint", pages)?;
    Ok(connection)
}

impl Engine for Sqlite {
    fn write(&self, entries: &Entries) -> Result<()> {
        let mut connection = self.writer();
        let transaction = connection.transaction()?;
        {
            let mut put = transaction.prepare_cached(PUT)?;
            for (key, value) in entries.iter() {
                put.execute((key, value))?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn read(&self, view: Seen, work: &mut Work<'_>) -> Result<()> {
        let connection = connect(&self.path, self.settings)?;
        let (get, scan) = (connection.prepare(GET)?, connection.prepare(SCAN)?);
        let mut reader = Prepared { get, scan };
        if view == Seen::Snapshot {
            connection.execute_batch("BEGIN")?;
        }
        work(&mut reader)
    }

    fn settle(&self) -> Result<()> {
        let checkpoint = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
        let busy = self.writer().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], checkpoint)?;
        anyhow::ensure!(busy == 0, "the log cannot be brought in");
        Ok(())
    }
}

/// Outside a transaction each statement sees what was committed before it.
struct Prepared<'a> {
    get: Statement<'a>,
    scan: Statement<'a>,
}

impl Reader for Prepared<'_> {
    fn get(&mut self, key: &Key, found: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let mut rows = self.get.query([key.as_slice()])?;
        let Some(row) = rows.next()? else { return Ok(false) };
        found(row.get_ref(0)?.as_blob().context("a value is no blob")?);
        Ok(true)
    }

    fn scan(&mut self, from: &Key, each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        let mut rows = self.scan.query([from.as_slice()])?;
        while let Some(row) = rows.next()? {
            let (key, value) = (row.get_ref(0)?.as_blob()?, row.get_ref(1)?.as_blob()?);
            if !each(key, value) {
                break;
            }
        }
        Ok(())
    }
}
