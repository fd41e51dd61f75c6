//! What every engine is asked to do. A row knows this trait and nothing else of an engine.

use std::path::Path;

use anyhow::{Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::kvorum::Kvorum;
use crate::load::{Entries, Key};

/// A store that is open.
pub(crate) trait Engine: Sync {
    /// Puts these entries, all or none. On return they survive a power cut.
    fn write(&self, entries: &Entries) -> Result<()>;

    /// Reads with what one thread needs for it: a connection, a prepared statement.
    fn read(&self, view: Seen, work: &mut Work<'_>) -> Result<()>;

    /// Brings what is in memory to where it stays, and waits until all work that is due is done.
    fn settle(&self) -> Result<()>;

    /// Does at once what ours does of its own accord after some time without work: what can be
    /// merged is merged. Peers that merge are told to, so that all are read in the same state.
    fn rest(&self) -> Result<()> {
        Ok(())
    }
}

/// What a thread does while it can read.
pub(crate) type Work<'a> = dyn FnMut(&mut dyn Reader) -> Result<()> + 'a;

/// What a reader sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Each read sees all that was acknowledged before it began.
    Latest,
    /// All reads see the store as it was when the reader was made.
    Snapshot,
}

/// Reads. Values are handed on where they lie, if the engine can do that.
pub(crate) trait Reader {
    /// Whether the key is there; `found` gets its value.
    fn get(&mut self, key: &Key, found: &mut dyn FnMut(&[u8])) -> Result<bool>;

    /// Hands on the entries from a key on, in order, until `each` says that it has enough.
    fn scan(&mut self, from: &Key, each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()>;
}

/// What an engine is told. The same for all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// For the engine's own cache, if it has one: ours leaves that to the page cache.
    #[cfg_attr(not(feature = "peers"), expect(dead_code, reason = "only peers have a cache"))]
    pub(crate) cache_bytes: usize,
    /// Bytes of a value.
    #[cfg_attr(not(feature = "peers"), expect(dead_code, reason = "only a peer asks for it"))]
    pub(crate) value_bytes: usize,
    /// What is gathered in memory before it is sorted away, if the engine does that.
    pub(crate) write_buffer_bytes: usize,
}

/// Whom we measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Name {
    /// Ours
    Kvorum,
    /// RocksDB
    Rocksdb,
    /// fjall
    Fjall,
    /// sled
    Sled,
    /// redb
    Redb,
    /// LMDB, through heed
    Lmdb,
    /// SQLite, through rusqlite
    Sqlite,
    /// No engine: what the device allows, for rows a and b
    Raw,
}

impl Name {
    /// Those that this program was built with.
    pub(crate) fn all() -> impl Iterator<Item = Name> {
        let is_there =
            |name: &Name| cfg!(feature = "peers") || matches!(name, Name::Kvorum | Name::Raw);
        Name::value_variants().iter().copied().filter(is_there)
    }

    /// Opens or makes a store.
    pub(crate) fn open(self, dir: &Path, settings: Settings) -> Result<Box<dyn Engine>> {
        #[cfg(feature = "peers")]
        use crate::peers;
        Ok(match self {
            Name::Kvorum => Box::new(Kvorum::open(dir, settings)?),
            #[cfg(feature = "peers")]
            Name::Rocksdb => Box::new(peers::RocksDb::open(dir, settings)?),
            #[cfg(feature = "peers")]
            Name::Fjall => Box::new(peers::Fjall::open(dir, settings)?),
            #[cfg(feature = "peers")]
            Name::Sled => Box::new(peers::Sled::open(dir, settings)?),
            #[cfg(feature = "peers")]
            Name::Redb => Box::new(peers::Redb::open(dir, settings)?),
            #[cfg(feature = "peers")]
            Name::Lmdb => Box::new(peers::Lmdb::open(dir, settings)?),
            #[cfg(feature = "peers")]
            Name::Sqlite => Box::new(peers::Sqlite::open(dir, settings)?),
            #[cfg(not(feature = "peers"))]
            Name::Rocksdb | Name::Fjall | Name::Sled | Name::Redb | Name::Lmdb | Name::Sqlite => {
                bail!("built without the peers: add `--features peers`")
            }
            Name::Raw => bail!("the raw device is no engine: it has rows a and b only"),
        })
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Name::Kvorum => "kvorum",
            Name::Rocksdb => "RocksDB",
            Name::Fjall => "fjall",
            Name::Sled => "sled",
            Name::Redb => "redb",
            Name::Lmdb => "LMDB",
            Name::Sqlite => "SQLite",
            Name::Raw => "raw device",
        })
    }
}
