//! Batches: what becomes visible at once or not at all.

use bytes::Bytes;

use crate::codec::{Malformed, Reader, put_slice, put_varint};
use crate::error::{Error, Result};
use crate::key::{KEY_BYTES_MAX, Kind, VALUE_BYTES_MAX};

/// Most operations in a batch. Their bytes are bounded by the log's largest record.
pub const BATCH_OPERATIONS_MAX: usize = 1 << 20;

const DELETE: u8 = 0;
const PUT: u8 = 1;

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The key has this value from now on.
    Put {
        /// The key.
        key: Bytes,
        /// Its value, which may be empty.
        value: Bytes,
    },
    /// The key has no value from now on.
    Delete {
        /// The key.
        key: Bytes,
    },
}

impl Operation {
    /// The key that changes.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        match self {
            Operation::Put { key, .. } | Operation::Delete { key } => key,
        }
    }
}

/// Changes that become visible together. Of several to one key the last one counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    operations: Vec<Operation>,
    bytes: usize,
}

impl Batch {
    /// A batch that changes nothing yet.
    #[must_use]
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Adds a put.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> &mut Batch {
        self.push(Operation::Put { key: key.into(), value: value.into() })
    }

    /// Adds a delete. The key need not be there.
    pub fn delete(&mut self, key: impl Into<Bytes>) -> &mut Batch {
        self.push(Operation::Delete { key: key.into() })
    }

    /// Adds an operation.
    pub fn push(&mut self, operation: Operation) -> &mut Batch {
        self.bytes += operation.key().len();
        if let Operation::Put { value, .. } = &operation {
            self.bytes += value.len();
        }
        self.operations.push(operation);
        self
    }

    /// How many operations there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Bytes of all keys and values together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The operations, in the order they were added.
    pub fn operations(&self) -> impl ExactSizeIterator<Item = &Operation> {
        self.operations.iter()
    }

    /// The same as what each says of its key.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&[u8], Kind, &[u8])> {
        self.operations.iter().map(|operation| match operation {
            Operation::Put { key, value } => (key.as_ref(), Kind::Put, value.as_ref()),
            Operation::Delete { key } => (key.as_ref(), Kind::Delete, [].as_slice()),
        })
    }

    /// Refuses what the engine does not store.
    pub(crate) fn validate(&self) -> Result<()> {
        if self.operations.len() > BATCH_OPERATIONS_MAX {
            let count = self.operations.len();
            let what = format!("a batch of {count} operations; the most is {BATCH_OPERATIONS_MAX}");
            return Err(Error::invalid(what));
        }
        for operation in &self.operations {
            check_length("key", operation.key().len(), KEY_BYTES_MAX)?;
            if let Operation::Put { value, .. } = operation {
                check_length("value", value.len(), VALUE_BYTES_MAX)?;
            }
        }
        Ok(())
    }

    /// Appends the stored form.
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        put_varint(buffer, self.operations.len() as u64);
        for operation in &self.operations {
            match operation {
                Operation::Put { key, value } => {
                    buffer.push(PUT);
                    put_slice(buffer, key);
                    put_slice(buffer, value);
                }
                Operation::Delete { key } => {
                    buffer.push(DELETE);
                    put_slice(buffer, key);
                }
            }
        }
    }

    /// From the stored form; keys and values share `stored` instead of copying it.
    pub fn decode(stored: &Bytes) -> Result<Batch, Malformed> {
        let mut reader = Reader::new(stored);
        let count = reader.length(BATCH_OPERATIONS_MAX)?;
        let mut batch = Batch::new();
        for _ in 0..count {
            let kind = reader.u8()?;
            let key = stored.slice_ref(reader.slice(KEY_BYTES_MAX)?);
            match kind {
                PUT => {
                    let value = stored.slice_ref(reader.slice(VALUE_BYTES_MAX)?);
                    batch.put(key, value);
                }
                DELETE => {
                    batch.delete(key);
                }
                _ => return Err(Malformed("an operation that is neither put nor delete")),
            }
        }
        reader.finish()?;
        Ok(batch)
    }
}

pub(crate) fn check_length(what: &str, bytes: usize, bytes_max: usize) -> Result<()> {
    if bytes <= bytes_max {
        return Ok(());
    }
    Err(Error::invalid(format!("a {what} of {bytes} bytes; the longest is {bytes_max}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn limits_are_exact() {
        let key = |bytes| Bytes::from(vec![b'k'; bytes]);
        let check = |batch: &Batch, expected: bool| {
            assert_eq!(batch.validate().is_ok(), expected, "{} bytes", batch.bytes());
        };
        check(Batch::new().put(key(KEY_BYTES_MAX), key(VALUE_BYTES_MAX)), true);
        check(Batch::new().put(key(KEY_BYTES_MAX + 1), "v"), false);
        check(Batch::new().delete(key(KEY_BYTES_MAX + 1)), false);
        check(Batch::new().put("k", key(VALUE_BYTES_MAX + 1)), false);
        check(Batch::new().put("", ""), true);
    }

    proptest! {
        #[test]
        fn decodes_what_was_encoded(operations: Vec<(Vec<u8>, Option<Vec<u8>>)>) {
            let mut batch = Batch::new();
            for (key, value) in operations {
                match value {
                    Some(value) => batch.put(key, value),
                    None => batch.delete(key),
                };
            }
            let mut stored = Vec::new();
            batch.encode(&mut stored);
            prop_assert_eq!(Batch::decode(&Bytes::from(stored)), Ok(batch));
        }

        #[test]
        fn refuses_or_reads_any_bytes_without_panic(stored: Vec<u8>) {
            if let Ok(batch) = Batch::decode(&Bytes::from(stored.clone())) {
                let mut again = Vec::new();
                batch.encode(&mut again);
                prop_assert_eq!(again, stored);
            }
        }
    }
}
