//! What a request may ask for, whatever the protocol.

use alloc::format;
use alloc::string::String;

use crate::request::{Page, Query, Transaction, Write};

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
            Query::Scan(range) | Query::Page(Page { range, .. }) => {
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

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;
    use crate::request::{Key, Precondition, Range};

    const LIMITS: Limits = Limits {
        key_bytes_max: 3,
        value_bytes_max: 5,
        operations_max: 3,
        transaction_bytes_max: 12,
    };

    fn bytes(len: usize) -> Key {
        Key::from(vec![b'x'; len])
    }

    #[test]
    fn transactions_are_measured() {
        let put = |key, value| Write::Put(bytes(key), bytes(value));
        let absent = |key| Precondition::Absent(bytes(key));
        let equals = |key, value| Precondition::Equals(bytes(key), bytes(value));
        type Case = (Vec<Precondition>, Vec<Write>, Result<usize, &'static str>);
        let cases: Vec<Case> = vec![
            (vec![], vec![put(3, 5)], Ok(8)),
            (vec![absent(1)], vec![], Ok(1)),
            (vec![absent(1), equals(1, 3)], vec![Write::Delete(bytes(2))], Ok(7)),
            (vec![], vec![], Err("empty")),
            (vec![], vec![put(0, 1)], Err("a key is empty")),
            (vec![absent(4)], vec![], Err("a key has 4 bytes")),
            (vec![], vec![put(1, 6)], Err("a value has 6 bytes")),
            (vec![], vec![put(3, 5), put(1, 5)], Err("14 bytes")),
            (vec![absent(1), absent(1)], vec![put(1, 1), put(1, 1)], Err("4 operations")),
        ];
        for (preconditions, writes, expected) in cases {
            let result = LIMITS.check(&Transaction { preconditions, writes });
            match (&result, expected) {
                (Ok(bytes), Ok(expected)) => assert_eq!(*bytes, expected),
                (Err(why), Err(part)) => assert!(why.contains(part), "{why:?} lacks {part:?}"),
                _ => panic!("{result:?}, not {expected:?}"),
            }
        }
    }

    #[test]
    fn reads_are_measured() {
        let range = |start, end: Option<usize>| {
            Query::Scan(Range { start: bytes(start), end: end.map(bytes), limit: 1 })
        };
        let cases = [
            (Query::Get(bytes(3)), true),
            (Query::Get(bytes(4)), false),
            (Query::Get(bytes(0)), false),
            (Query::GetMany(vec![bytes(1); 3]), true),
            (Query::GetMany(vec![bytes(1); 4]), false),
            (range(0, None), true),
            (range(3, Some(3)), true),
            (range(4, None), false),
            (range(0, Some(4)), false),
        ];
        for (query, fits) in cases {
            assert_eq!(LIMITS.check_query(&query).is_ok(), fits, "{query:?}");
        }
    }
}
