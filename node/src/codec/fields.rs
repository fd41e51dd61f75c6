//! The fields that records are made of.

use std::sync::Arc;

use bytes::Bytes;
use kvorum_replication::{
    ClientId, NodeId, Precondition, SessionState, Settled, Stamp, Transaction, Write,
};
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

    /// Sessions of a protocol that remembers refusals.
    pub(super) fn sessions(&mut self) -> Result<Vec<SessionState>, Malformed> {
        self.list(|fields| {
            Ok(SessionState {
                client: ClientId(fields.number()?),
                answered_below: fields.number()?,
                settled: fields.list(|fields| Ok((fields.number()?, fields.settled()?)))?,
            })
        })
    }

    fn settled(&mut self) -> Result<Settled, Malformed> {
        match self.number()?.checked_sub(1) {
            None => Ok(Settled::Committed),
            Some(precondition) => {
                let precondition = u32::try_from(precondition);
                let precondition =
                    precondition.map_err(|_| Malformed("a precondition above 32 bits"))?;
                Ok(Settled::Refused { precondition })
            }
        }
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

pub(super) fn put_sessions(payload: &mut Vec<u8>, sessions: &[SessionState]) {
    put_list(payload, sessions, |payload, session| {
        put_varint(payload, session.client.0);
        put_varint(payload, session.answered_below);
        put_list(payload, &session.settled, |payload, (sequence, how)| {
            put_varint(payload, *sequence);
            let how = match how {
                Settled::Committed => 0,
                Settled::Refused { precondition } => u64::from(*precondition) + 1,
            };
            put_varint(payload, how);
        });
    });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_lie_as_they_always_did() {
        let settled = vec![(5, Settled::Committed), (300, Settled::Refused { precondition: 7 })];
        let sessions = vec![SessionState { client: ClientId(3), answered_below: 5, settled }];
        let mut payload = Vec::new();
        put_sessions(&mut payload, &sessions);
        // One session: its client, below what, two writes: sequence, 0 or 1 + precondition.
        assert_eq!(payload, [1, 3, 5, 2, 5, 0, 0xac, 2, 8]);

        let payload = Bytes::from(payload);
        let mut fields = Fields::new(&payload);
        assert_eq!(fields.sessions(), Ok(sessions));
        assert_eq!(fields.finish(), Ok(()));
    }
}
