//! The bytes that travel, the same as those of a two-phase commit: fixed sizes, little-endian.
//!
//! ```text
//!  client ─► coordinator    put      number (8) │ body
//!  coordinator ─► client    answer   number (8)
//!  coordinator ─► replica   batch    prepares (4) │ decisions (4)
//!                                    then the prepares:  transaction (8) │ body
//!                                    and the decisions:  transaction (8)
//!  replica ─► coordinator   vote     transaction (8)
//! ```
//!
//! A body is keys and values, one behind the other. Its size is known to all from their flags.

use anyhow::{Result, ensure};

/// A number of a put or of a transaction.
pub(crate) const NUMBER_BYTES: usize = 8;

/// The counts at the front of a batch.
pub(crate) const BATCH_HEADER_BYTES: usize = 8;

/// The most prepares, and the most decisions, of a batch; whoever sends more is not of ours.
pub(crate) const BATCH_MAX: usize = 1 << 17;

/// A number, and what follows it.
pub(crate) fn number(bytes: &[u8]) -> u64 {
    let (number, _) = bytes.split_first_chunk().expect("the caller cut out a whole record");
    u64::from_le_bytes(*number)
}

/// A batch on its way to the replicas.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    prepares: Vec<u8>,
    prepare_count: u32,
    decisions: Vec<u8>,
}

impl Batch {
    pub(crate) fn prepare(&mut self, transaction: u64, body: &[u8]) {
        self.prepares.extend_from_slice(&transaction.to_le_bytes());
        self.prepares.extend_from_slice(body);
        self.prepare_count += 1;
    }

    pub(crate) fn decide(&mut self, transaction: u64) {
        self.decisions.extend_from_slice(&transaction.to_le_bytes());
    }

    pub(crate) fn prepares(&self) -> u32 {
        self.prepare_count
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.prepare_count == 0 && self.decisions.is_empty()
    }

    /// Adds the bytes of the batch.
    pub(crate) fn write_to(&self, output: &mut Vec<u8>) {
        let decisions = u32::try_from(self.decisions.len() / NUMBER_BYTES)
            .expect("no more are decided than were prepared, which is counted in 32 bits");
        output.extend_from_slice(&self.prepare_count.to_le_bytes());
        output.extend_from_slice(&decisions.to_le_bytes());
        output.extend_from_slice(&self.prepares);
        output.extend_from_slice(&self.decisions);
    }

    pub(crate) fn clear(&mut self) {
        self.prepares.clear();
        self.prepare_count = 0;
        self.decisions.clear();
    }
}

/// How many bytes at the front are whole batches. Adds the votes on their prepares to `votes`.
pub(crate) fn whole_batches(bytes: &[u8], body_bytes: usize, votes: &mut Vec<u8>) -> Result<usize> {
    let mut at = 0;
    while let Some((header, rest)) = bytes[at..].split_first_chunk::<BATCH_HEADER_BYTES>() {
        let count = |bytes: &[u8]| {
            let (count, _) = bytes.split_first_chunk().expect("the header holds two counts");
            u32::from_le_bytes(*count) as usize
        };
        let (prepares, decisions) = (count(&header[..4]), count(&header[4..]));
        ensure!(prepares.max(decisions) <= BATCH_MAX, "a batch of {prepares} and {decisions}");
        let prepare_bytes = NUMBER_BYTES + body_bytes;
        let batch_bytes = prepares * prepare_bytes + decisions * NUMBER_BYTES;
        let Some(batch) = rest.get(..batch_bytes) else { break };
        for prepare in batch[..prepares * prepare_bytes].chunks_exact(prepare_bytes) {
            votes.extend_from_slice(&prepare[..NUMBER_BYTES]);
        }
        at += BATCH_HEADER_BYTES + batch_bytes;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_cut_where_they_end() {
        let mut batch = Batch::default();
        batch.prepare(7, b"abc");
        batch.prepare(8, b"def");
        batch.decide(5);
        let mut bytes = Vec::new();
        batch.write_to(&mut bytes);
        let first = bytes.len();
        batch.clear();
        batch.decide(6);
        batch.write_to(&mut bytes);
        for end in 0..=bytes.len() {
            let mut votes = Vec::new();
            let whole = whole_batches(&bytes[..end], 3, &mut votes).unwrap();
            let expected = match end {
                _ if end < first => (0, 0),
                _ if end < bytes.len() => (first, 2),
                _ => (bytes.len(), 2),
            };
            assert_eq!((whole, votes.len() / NUMBER_BYTES), expected, "{end} bytes");
        }
    }

    #[test]
    fn a_batch_that_nobody_sends_is_refused() {
        let bytes = [0xff; 64];
        assert!(whole_batches(&bytes, 3, &mut Vec::new()).is_err());
    }
}
