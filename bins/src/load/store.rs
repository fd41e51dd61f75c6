//! What takes operations.

use bytes::Bytes;
use kvorum_replication::Range;
use kvorum_rpc::client::{Client, ClientError};

use super::workload::{Action, Operation};

/// What takes operations: a cluster, or in a test something that plays one.
pub(super) trait Store {
    /// Asks, and answers with the value if it was a read.
    async fn ask(&self, operation: &Operation) -> Result<Option<Bytes>, ClientError>;
}

/// The connections of one client of the load.
#[derive(Clone)]
pub(super) struct Doors {
    /// For all, or for writes only.
    pub(super) main: Client,
    /// For reads, if they go elsewhere.
    pub(super) reads: Option<Client>,
}

impl Store for Doors {
    async fn ask(&self, operation: &Operation) -> Result<Option<Bytes>, ClientError> {
        let reads = self.reads.as_ref().unwrap_or(&self.main);
        let key = operation.key.clone();
        let written = match &operation.action {
            Action::Get => return reads.get(key).await,
            Action::Scan { rows } => {
                let range = Range { start: key, end: None, limit: *rows };
                return reads.scan(range).await.map(|_| None);
            }
            Action::Put(value) => self.main.put(key, value.clone()).await,
            Action::Delete => self.main.delete(key).await,
            Action::CompareAndSet { expected, value } => {
                let transaction = operation.compare_and_set(expected.as_ref(), value);
                self.main.transact(transaction).await
            }
            Action::Transact { value, others } => {
                self.main.transact(operation.puts(value, others)).await
            }
            Action::ReadModifyWrite(_) => unreachable!("a worker asks it in two"),
        };
        written.map(|()| None)
    }
}
