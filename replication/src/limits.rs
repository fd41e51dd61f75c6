//! What a request may ask for, whatever the protocol.

use alloc::format;
use alloc::string::String;

use crate::request::{Query, Transaction, Write};

/// The limits of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a key.
    pub key_bytes_max: usize,
    /// Bytes of a value.
    pub value_bytes_max: usize,
    /// Preconditions and writes of a transaction, and keys of a read: each is a lock or a look-up,
    /// and one step handles them all.
    pub operations_max: usize,
    /// Bytes of all keys and values of a transaction: it has to fit into one record of the log
    /// (64 MiB), together with others into a checkpoint, and into one message.
    pub transaction_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            key_bytes_max: 64 << 10,
            value_bytes_max: 16 << 20,
            operations_max: 16_384,
            transaction_bytes_max: 32 << 20,
        }
    }
}

impl Limits {
    /// Says what is wrong with a transaction, or how many bytes it holds.
    pub fn check(&self, transaction: &Transaction) -> Result<usize, String> {
        let operations = transaction.preconditions.len() + transaction.writes.len();
        if operations == 0 {
            return Err(String::from("the transaction is empty"));
        }
        self.check_operations(operations)?;
        let mut bytes = 0_usize;
        for precondition in &transaction.preconditions {
            self.check_key(precondition.key())?;
            bytes = bytes.saturating_add(precondition.bytes());
        }
        for write in &transaction.writes {
            self.check_key(write.key())?;
            if let Write::Put(_, value) = write {
                self.check_value(value)?;
            }
            bytes = bytes.saturating_add(write.bytes());
        }
        if bytes > self.transaction_bytes_max {
            return Err(format!(
                "the transaction has {bytes} bytes; at most {} are allowed",
                self.transaction_bytes_max
            ));
        }
        Ok(bytes)
    }

    /// Says what is wrong with a read.
    pub fn check_query(&self, query: &Query) -> Result<(), String> {
        match query {
            Query::Get(key) => self.check_key(key),
            Query::GetMany(keys) => {
                self.check_operations(keys.len())?;
                keys.iter().try_for_each(|key| self.check_key(key))
            }
            // The bounds of a range are no keys: an empty one stands for the beginning.
            Query::Scan(range) => {
                let end = range.end.as_ref().map_or(0, |end| end.len());
                match range.start.len().max(end) > self.key_bytes_max {
                    true => Err(format!("a bound is longer than {} bytes", self.key_bytes_max)),
                    false => Ok(()),
                }
            }
        }
    }

    fn check_operations(&self, operations: usize) -> Result<(), String> {
        match operations > self.operations_max {
            true => Err(format!(
                "{operations} operations at once; at most {} are allowed",
                self.operations_max
            )),
            false => Ok(()),
        }
    }

    fn check_key(&self, key: &[u8]) -> Result<(), String> {
        match key.len() {
            0 => Err(String::from("a key is empty")),
            bytes if bytes > self.key_bytes_max => {
                Err(format!("a key has {bytes} bytes; at most {} are allowed", self.key_bytes_max))
            }
            _ => Ok(()),
        }
    }

    fn check_value(&self, value: &[u8]) -> Result<(), String> {
        match value.len() > self.value_bytes_max {
            true => Err(format!(
                "a value has {} bytes; at most {} are allowed",
                value.len(),
                self.value_bytes_max
            )),
            false => Ok(()),
        }
    }
}
