//! The fields that records are made of.

use std::sync::Arc;

use bytes::Bytes;
use kvorum_replication::{ClientId, NodeId, Precondition, Stamp, Transaction, Write};
use kvorum_storage::codec::{Malformed, Reader, put_slice, put_varint};

/// The longest slice that is believed: a value's limit with room to spare.
const SLICE_BYTES_MAX: usize = 64 << 20;

/// Reads fields off a payload, sharing its bytes.
pub(super) struct Fields<'a> {
    payload: &'a Bytes,
    reader: Reader<'a>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(payload: &'a Bytes) -> Self {
        Self { payload, reader: Reader::new(payload) }
    }

    pub(super) fn number(&mut self) -> Result<u64, Malformed> {
        self.reader.varint()
    }

    pub(super) fn tag(&mut self) -> Result<u8, Malformed> {
        self.reader.u8()
    }

    pub(super) fn slice(&mut self) -> Result<Bytes, Malformed> {
        Ok(self.payload.slice_ref(self.reader.slice(SLICE_BYTES_MAX)?))
    }

    pub(super) fn node(&mut self) -> Result<NodeId, Malformed> {
        Ok(NodeId(self.index()?))
    }

    /// A number that is stored in 32 bits elsewhere.
    pub(super) fn index(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.number()?).map_err(|_| Malformed("a number above 32 bits"))
    }

    /// A list: its length, then each item.
    pub(super) fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        // Every item takes a byte at least, so a length above what is left is a lie.
        let count = self.reader.length(self.reader.remaining())?;
        (0..count).map(|_| item(self)).collect()
    }

    pub(super) fn nodes(&mut self) -> Result<Arc<[NodeId]>, Malformed> {
        Ok(self.list(Self::node)?.into())
    }

    pub(super) fn stamp(&mut self) -> Result<Option<Stamp>, Malformed> {
        match self.tag()? {
            0 => Ok(None),
            1 => Ok(Some(Stamp {
                client: ClientId(self.number()?),
                sequence: self.number()?,
                answered_below: self.number()?,
            })),
            _ => Err(Malformed("a stamp is there or not")),
        }
    }

    pub(super) fn write(&mut self) -> Result<Write, Malformed> {
        match self.tag()? {
            0 => Ok(Write::Delete(self.slice()?)),
            1 => Ok(Write::Put(self.slice()?, self.slice()?)),
            _ => Err(Malformed("an unknown kind of write")),
        }
    }

    pub(super) fn precondition(&mut self) -> Result<Precondition, Malformed> {
        match self.tag()? {
            0 => Ok(Precondition::Absent(self.slice()?)),
            1 => Ok(Precondition::Present(self.slice()?)),
            2 => Ok(Precondition::Equals(self.slice()?, self.slice()?)),
            _ => Err(Malformed("an unknown kind of precondition")),
        }
    }

    pub(super) fn transaction(&mut self) -> Result<Transaction, Malformed> {
        let preconditions = self.list(Self::precondition)?;
        Ok(Transaction { preconditions, writes: self.list(Self::write)? })
    }

    pub(super) fn finish(self) -> Result<(), Malformed> {
        self.reader.finish()
    }
}

pub(super) fn put_list<T>(payload: &mut Vec<u8>, items: &[T], put: impl Fn(&mut Vec<u8>, &T)) {
    put_varint(payload, items.len() as u64);
    for item in items {
        put(payload, item);
    }
}

pub(super) fn put_nodes(payload: &mut Vec<u8>, nodes: &[NodeId]) {
    put_list(payload, nodes, |payload, node| put_varint(payload, node.0.into()));
}

pub(super) fn put_stamp(payload: &mut Vec<u8>, stamp: Option<Stamp>) {
    payload.push(stamp.is_some().into());
    if let Some(stamp) = stamp {
        put_varint(payload, stamp.client.0);
        put_varint(payload, stamp.sequence);
        put_varint(payload, stamp.answered_below);
    }
}

pub(super) fn put_write(payload: &mut Vec<u8>, write: &Write) {
    match write {
        Write::Delete(key) => {
            payload.push(0);
            put_slice(payload, key);
        }
        Write::Put(key, value) => {
            payload.push(1);
            put_slice(payload, key);
            put_slice(payload, value);
        }
    }
}

pub(super) fn put_precondition(payload: &mut Vec<u8>, precondition: &Precondition) {
    match precondition {
        Precondition::Absent(key) => {
            payload.push(0);
            put_slice(payload, key);
        }
        Precondition::Present(key) => {
            payload.push(1);
            put_slice(payload, key);
        }
        Precondition::Equals(key, value) => {
            payload.push(2);
            put_slice(payload, key);
            put_slice(payload, value);
        }
    }
}

pub(super) fn put_transaction(payload: &mut Vec<u8>, transaction: &Transaction) {
    put_list(payload, &transaction.preconditions, put_precondition);
    put_list(payload, &transaction.writes, put_write);
}
