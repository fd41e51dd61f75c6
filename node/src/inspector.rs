//! A look at what a node holds itself, past the protocol.

use bytes::Bytes;
use kvorum_replication::{Range, Row};
use kvorum_storage::Store;

use crate::error::NodeError;
use crate::keeper::scan;

/// Reads a node's own rows from any thread, without its event loop. Cheap to clone.
#[derive(Clone)]
pub struct Inspector {
    store: Option<Store>,
}

impl std::fmt::Debug for Inspector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inspector").finish_non_exhaustive()
    }
}

impl Inspector {
    pub(crate) fn new(store: Option<Store>) -> Self {
        Self { store }
    }

    /// The rows from `start` on, at one point in time, and whether there are more than the limits
    /// of rows and bytes let through. A coordinator holds none.
    pub fn rows(&self, start: Bytes, limit: u32) -> Result<(Vec<Row>, bool), NodeError> {
        match &self.store {
            Some(store) => Ok(scan(&store.snapshot(), &Range { start, end: None, limit })?),
            None => Ok((Vec::new(), false)),
        }
    }
}
