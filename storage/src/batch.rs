//! Batches: what becomes visible at once or not at all.
//!
//! A batch is kept in its stored form from the start. So what is put into it is copied once: the
//! log takes the bytes as they are, and the memtable keeps them.

use std::sync::OnceLock;

use bytes::Bytes;

use crate::codec::{Malformed, Reader, put_slice, put_varint, varint_bytes};
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
#[derive(Clone, Debug, Default)]
pub struct Batch {
    stored: Stored,
    count: usize,
    bytes: usize,
    longest_key: usize,
    longest_value: usize,
    /// Where the last key stands.
    last_key: (usize, usize),
    /// For who asks for them one by one.
    operations: OnceLock<Vec<Operation>>,
}

/// The operations in their stored form.
#[derive(Clone, Debug)]
enum Stored {
    Own(Vec<u8>),
    /// A part of something larger, which it keeps alive.
    Shared(Bytes),
}

impl Default for Stored {
    fn default() -> Stored {
        Stored::Own(Vec::new())
    }
}

impl Stored {
    fn as_slice(&self) -> &[u8] {
        match self {
            Stored::Own(bytes) => bytes,
            Stored::Shared(bytes) => bytes,
        }
    }

    /// Room for so many bytes more, and exactly that in what was empty: most batches are of one.
    fn room(&mut self, bytes: usize) -> &mut Vec<u8> {
        if let Stored::Shared(shared) = self {
            *self = Stored::Own(shared.to_vec());
        }
        match self {
            Stored::Own(own) if own.is_empty() => own.reserve_exact(bytes),
            Stored::Own(own) => own.reserve(bytes),
            Stored::Shared(_) => {}
        }
        match self {
            Stored::Own(own) => own,
            Stored::Shared(_) => unreachable!("it was just made its own"),
        }
    }
}

impl Batch {
    /// A batch that changes nothing yet.
    #[must_use]
    pub fn new() -> Batch {
        Batch::default()
    }

    /// The same, with room for keys and values of so many bytes together.
    #[must_use]
    pub fn with_capacity(operations: usize, bytes: usize) -> Batch {
        // The kind, and the two lengths of keys and values that are not long.
        Batch { stored: Stored::Own(Vec::with_capacity(bytes + 4 * operations)), ..Batch::new() }
    }

    /// Adds a put. Key and value are copied.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> &mut Batch {
        let (key, value) = (key.as_ref(), value.as_ref());
        let room = self.stored.room(1 + slice_bytes(key) + slice_bytes(value));
        room.push(PUT);
        put_slice(room, key);
        self.last_key = (room.len() - key.len(), key.len());
        put_slice(room, value);
        self.longest_value = self.longest_value.max(value.len());
        self.count_in(key, value.len())
    }

    /// Adds a delete. The key need not be there.
    pub fn delete(&mut self, key: impl AsRef<[u8]>) -> &mut Batch {
        let key = key.as_ref();
        let room = self.stored.room(1 + slice_bytes(key));
        room.push(DELETE);
        put_slice(room, key);
        self.last_key = (room.len() - key.len(), key.len());
        self.count_in(key, 0)
    }

    fn count_in(&mut self, key: &[u8], value_bytes: usize) -> &mut Batch {
        self.operations.take();
        self.count += 1;
        self.bytes += key.len() + value_bytes;
        self.longest_key = self.longest_key.max(key.len());
        self
    }

    /// Adds an operation.
    pub fn push(&mut self, operation: Operation) -> &mut Batch {
        match operation {
            Operation::Put { key, value } => self.put(key, value),
            Operation::Delete { key } => self.delete(key),
        }
    }

    /// Takes everything out of it, and keeps its memory for what is put into it next.
    pub fn clear(&mut self) {
        let stored = match std::mem::take(&mut self.stored) {
            Stored::Own(mut own) => {
                own.clear();
                Stored::Own(own)
            }
            Stored::Shared(_) => Stored::default(),
        };
        *self = Batch { stored, ..Batch::new() };
    }

    /// How many operations there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of all keys and values together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The operations, in the order they were added.
    pub fn operations(&self) -> impl ExactSizeIterator<Item = &Operation> {
        let operations = || self.changes().map(Change::to_operation).collect();
        self.operations.get_or_init(operations).iter()
    }

    /// The key of the last operation.
    pub(crate) fn last_key(&self) -> Option<&[u8]> {
        let (at, bytes) = self.last_key;
        (!self.is_empty()).then(|| &self.stored()[at..at + bytes])
    }

    /// The same where they are stored.
    pub(crate) fn changes(&self) -> impl Iterator<Item = Change<'_>> {
        let mut changes = Changes::new(self.stored());
        std::iter::from_fn(move || {
            changes.next().expect("what a batch holds it has put in, or checked")
        })
    }

    /// Refuses what the engine does not store.
    pub(crate) fn validate(&self) -> Result<()> {
        if self.count > BATCH_OPERATIONS_MAX {
            let count = self.count;
            let what = format!("a batch of {count} operations; the most is {BATCH_OPERATIONS_MAX}");
            return Err(Error::invalid(what));
        }
        check_length("key", self.longest_key, KEY_BYTES_MAX)?;
        check_length("value", self.longest_value, VALUE_BYTES_MAX)
    }

    /// Appends the stored form.
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        put_varint(buffer, self.count as u64);
        buffer.extend_from_slice(self.stored());
    }

    /// The operations in their stored form, without their number before them.
    pub(crate) fn stored(&self) -> &[u8] {
        self.stored.as_slice()
    }

    /// The same, to be kept: what holds far more memory than it needs is copied.
    pub(crate) fn into_stored(self) -> Bytes {
        match self.stored {
            Stored::Own(mut own) => {
                own.shrink_to_fit();
                own.into()
            }
            Stored::Shared(shared) => Bytes::copy_from_slice(&shared),
        }
    }

    /// The same, but what it was decoded from is kept, and all that stands around it.
    pub(crate) fn into_shared(self) -> Bytes {
        match self.stored {
            Stored::Own(own) => own.into(),
            Stored::Shared(shared) => shared,
        }
    }

    /// From the stored form, which the batch shares instead of copying it.
    pub fn decode(stored: &Bytes) -> Result<Batch, Malformed> {
        let mut reader = Reader::new(stored);
        let count = reader.length(BATCH_OPERATIONS_MAX)?;
        let stored = stored.slice_ref(reader.rest());
        let mut changes = Changes::new(&stored);
        let mut batch = Batch { count, ..Batch::new() };
        for _ in 0..count {
            let change = changes.next()?.ok_or(Malformed("fewer operations than announced"))?;
            batch.bytes += change.key.len() + change.value.len();
            batch.longest_key = batch.longest_key.max(change.key.len());
            batch.longest_value = batch.longest_value.max(change.value.len());
            batch.last_key = (change.key_at, change.key.len());
        }
        if batch.longest_key > KEY_BYTES_MAX || batch.longest_value > VALUE_BYTES_MAX {
            return Err(Malformed("a length above the limit"));
        }
        changes.finish()?;
        batch.stored = Stored::Shared(stored);
        Ok(batch)
    }
}

impl PartialEq for Batch {
    fn eq(&self, other: &Batch) -> bool {
        // Each operation has one stored form.
        self.count == other.count && self.stored() == other.stored()
    }
}

impl Eq for Batch {}

/// The number of operations, as it stands before them in the stored form.
pub(crate) struct CountPrefix {
    bytes: [u8; CountPrefix::BYTES_MAX],
    count: usize,
}

impl CountPrefix {
    /// Seven bits each.
    const BYTES_MAX: usize = BATCH_OPERATIONS_MAX.ilog2() as usize / 7 + 1;

    /// For a batch that was validated.
    pub(crate) fn new(operations: usize) -> CountPrefix {
        assert!(operations <= BATCH_OPERATIONS_MAX, "a batch is validated before it is written");
        let mut prefix = CountPrefix { bytes: [0; Self::BYTES_MAX], count: 0 };
        let mut rest = operations;
        loop {
            let more = if rest >= 0x80 { 0x80 } else { 0 };
            prefix.bytes[prefix.count] = (rest & 0x7f) as u8 | more;
            prefix.count += 1;
            rest >>= 7;
            if rest == 0 {
                return prefix;
            }
        }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.count]
    }
}

fn slice_bytes(slice: &[u8]) -> usize {
    varint_bytes(slice.len() as u64) + slice.len()
}

/// The operations of a stored batch, one after the other.
pub(crate) struct Changes<'a> {
    reader: Reader<'a>,
    bytes: usize,
}

/// An operation where it is stored.
#[derive(Clone, Copy)]
pub(crate) struct Change<'a> {
    pub(crate) kind: Kind,
    /// Where the key begins. Behind it stands the length of the value, if it is a put, then that.
    pub(crate) key_at: usize,
    pub(crate) key: &'a [u8],
    /// Empty in a delete.
    pub(crate) value: &'a [u8],
}

impl<'a> Changes<'a> {
    /// Of what [`Batch::stored`] has answered.
    pub(crate) fn new(stored: &'a [u8]) -> Changes<'a> {
        Changes { reader: Reader::new(stored), bytes: stored.len() }
    }

    /// The next; none after the last.
    pub(crate) fn next(&mut self) -> Result<Option<Change<'a>>, Malformed> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        let kind = match self.reader.u8()? {
            PUT => Kind::Put,
            DELETE => Kind::Delete,
            _ => return Err(Malformed("an operation that is neither put nor delete")),
        };
        let key = self.reader.slice(usize::MAX)?;
        let key_at = self.offset() - key.len();
        let value = match kind {
            Kind::Put => self.reader.slice(usize::MAX)?,
            Kind::Delete => &[],
        };
        Ok(Some(Change { kind, key_at, key, value }))
    }

    /// How much was read.
    pub(crate) fn offset(&self) -> usize {
        self.bytes - self.reader.remaining()
    }

    /// Fails unless everything has been read.
    fn finish(self) -> Result<(), Malformed> {
        self.reader.finish()
    }
}

/// Where the value of a stored put begins.
pub(crate) fn value_at(key_at: usize, key_bytes: usize, value_bytes: usize) -> usize {
    key_at + key_bytes + varint_bytes(value_bytes as u64)
}

impl Change<'_> {
    fn to_operation(self) -> Operation {
        let key = Bytes::copy_from_slice(self.key);
        match self.kind {
            Kind::Put => Operation::Put { key, value: Bytes::copy_from_slice(self.value) },
            Kind::Delete => Operation::Delete { key },
        }
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

    #[test]
    fn the_number_is_written_like_any_other() {
        for count in [0, 1, 127, 128, 16_383, 16_384, BATCH_OPERATIONS_MAX] {
            let mut expected = Vec::new();
            put_varint(&mut expected, count as u64);
            assert_eq!(CountPrefix::new(count).as_slice(), expected, "{count}");
        }
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
            let decoded = Batch::decode(&Bytes::from(stored));
            let last = batch.operations().last().map(|last| last.key().clone());
            prop_assert_eq!(batch.last_key(), last.as_deref());
            prop_assert_eq!(decoded.as_ref().map(Batch::last_key), Ok(last.as_deref()));
            prop_assert_eq!(decoded, Ok(batch));
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
