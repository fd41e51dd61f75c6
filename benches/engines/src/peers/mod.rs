//! The peers, each with the durability that ours has and as its own documentation recommends; what
//! each is told, and what is not equal, is in `benches/engines/README.md`.

mod rocksdb;

mod fjall;

mod sled;

mod redb;

mod lmdb;

mod sqlite;

pub(crate) use fjall::Fjall;
pub(crate) use lmdb::Lmdb;
pub(crate) use redb::Redb;
pub(crate) use rocksdb::RocksDb;
pub(crate) use sled::Sled;
pub(crate) use sqlite::Sqlite;

/// Threads or jobs for background work, for those who have any; ours has as many.
const BACKGROUND: u8 = 2;
