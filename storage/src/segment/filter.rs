//! A filter that says of most absent keys that they are absent, without reading a block.
//!
//! A Bloom filter (1970) cut into blocks of one cache line each (Putze, Sanders, Singler,
//! "Cache-, hash- and space-efficient Bloom filters", 2007): the key's hash picks a line, and all
//! its bits are in that line, so that a look-up touches memory once. At 10 bits a key about one
//! absent key in a hundred passes.
//!
//! ```text
//! filter    probes u32 | lines u32 | zeros | 64 bytes per line
//! ```
//!
//! The zeros, fewer than 64, put the lines where cache lines are: in the file, and so in its map.
//! Version 1 has none, so that each of its lines lies in two.

use bytes::Bytes;

use super::Version;
use crate::codec::{Malformed, Reader, put_u32};

const LINE_BYTES: usize = 64;
const LINE_BITS: u64 = 8 * LINE_BYTES as u64;
const PROBES_MAX: u32 = 16;
const HEAD_BYTES: usize = 8;

/// How many zeros a filter has whose stored form begins at this offset.
fn zeros(version: Version, offset: u64) -> usize {
    match version {
        Version::One => 0,
        Version::Two => (offset as usize + HEAD_BYTES).wrapping_neg() % LINE_BYTES,
    }
}

/// Appends the stored form of a filter for the keys with these hashes, for this offset of a file.
pub(super) fn build(hashes: &[u64], bits_per_key: u32, offset: u64, to: &mut Vec<u8>) {
    let bits = hashes.len() as u64 * u64::from(bits_per_key);
    let lines = bits.div_ceil(LINE_BITS).clamp(1, u64::from(u32::MAX)) as u32;
    // The best number of probes is the bits per key times ln 2; lines fill unevenly, so less is more.
    let probes = (bits_per_key * 6 / 10).clamp(1, PROBES_MAX);
    put_u32(to, probes);
    put_u32(to, lines);
    let begin = to.len() + zeros(Version::Two, offset);
    to.resize(begin + lines as usize * LINE_BYTES, 0);
    for &hash in hashes {
        let line = begin + line_of(hash, lines);
        for bit in bits_of(hash, probes) {
            to[line + bit / 8] |= 1 << (bit % 8);
        }
    }
}

/// A filter to be asked.
pub(super) struct Filter {
    lines: Bytes,
    count: u32,
    probes: u32,
}

impl Filter {
    /// From its stored form, which is at this offset of a file.
    pub(super) fn parse(
        stored: &Bytes,
        version: Version,
        offset: u64,
    ) -> Result<Filter, Malformed> {
        let mut reader = Reader::new(stored);
        let (probes, count) = (reader.u32()?, reader.u32()?);
        if !(1..=PROBES_MAX).contains(&probes) || count == 0 {
            return Err(Malformed("a filter without probes or lines"));
        }
        if reader.bytes(zeros(version, offset))?.iter().any(|&byte| byte != 0) {
            return Err(Malformed("a filter that does not begin with zeros"));
        }
        if reader.remaining() as u64 != u64::from(count) * LINE_BYTES as u64 {
            return Err(Malformed("a filter of another size than it says"));
        }
        let lines = stored.slice(stored.len() - reader.remaining()..);
        Ok(Filter { lines, count, probes })
    }

    /// Whether a key with this hash may be there. If not, it is not.
    pub(super) fn may_contain(&self, hash: u64) -> bool {
        let line = &self.lines[line_of(hash, self.count)..];
        let Some(line) = line.first_chunk::<LINE_BYTES>() else { return true };
        // All bits are looked at: where to stop at the first that is not set is hard to predict, and
        // they are in one line.
        bits_of(hash, self.probes).fold(1, |all, bit| all & (line[bit / 8] >> (bit % 8))) == 1
    }
}

/// Where its line is, in bytes.
fn line_of(hash: u64, lines: u32) -> usize {
    (((hash >> 32) * u64::from(lines)) >> 32) as usize * LINE_BYTES
}

/// Double hashing within the line (Kirsch and Mitzenmacher, 2006). The line took the hash's high
/// half, so these are drawn from a remix of it all.
fn bits_of(hash: u64, probes: u32) -> impl Iterator<Item = usize> {
    let mixed = mix(hash);
    let (first, step) = (mixed & 0xFFFF_FFFF, (mixed >> 32) | 1);
    (0..u64::from(probes)).map(move |probe| ((first + probe * step) % LINE_BITS) as usize)
}

/// The hash of a key. Part of the format: it must never change.
pub(crate) fn hash(key: &[u8]) -> u64 {
    let mut hash = (key.len() as u64).wrapping_mul(MULTIPLIER);
    let (words, rest) = key.as_chunks::<8>();
    for word in words {
        hash = mix(hash ^ u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(hash ^ u64::from_le_bytes(last))
}

const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

/// Multiplies, and folds the high half of the product over the low one.
pub(super) fn mix(value: u64) -> u64 {
    let product = u128::from(value ^ MULTIPLIER) * 0xD6E8_FEB8_6659_FD93_u128;
    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amount;

    fn built(hashes: &[u64], bits_per_key: u32, offset: u64) -> Vec<u8> {
        let mut filter = Vec::new();
        build(hashes, bits_per_key, offset, &mut filter);
        filter
    }

    fn parsed(hashes: &[u64], bits_per_key: u32, offset: u64) -> Filter {
        let stored = built(hashes, bits_per_key, offset);
        Filter::parse(&stored.into(), Version::Two, offset).unwrap()
    }

    fn hashes(keys: std::ops::Range<u64>) -> Vec<u64> {
        keys.map(|key| hash(format!("key{key}").as_bytes())).collect()
    }

    #[test]
    fn never_denies_what_is_there() {
        for count in [0, 1, 10, amount(10_000, 300)] {
            let filter = parsed(&hashes(0..count), 10, 77 * count);
            assert!(hashes(0..count).iter().all(|&hash| filter.may_contain(hash)));
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "a matter of chance and of many keys, not of memory")]
    fn denies_nearly_all_that_is_not() {
        for (bits, passed_max) in [(4, 2000), (10, 200), (16, 40)] {
            let filter = parsed(&hashes(0..10_000), bits, 0);
            let passed = hashes(10_000..20_000).iter().filter(|&&h| filter.may_contain(h)).count();
            assert!(passed < passed_max, "{passed} of 10000 absent keys pass at {bits} bits");
        }
    }

    #[test]
    fn the_hash_is_what_old_files_were_written_with() {
        assert_eq!(hash(b""), 0xC9D8_74CA_57D9_E055);
        assert_eq!(hash(b"key"), 0x7754_FF0E_BACC_2F75);
        assert_eq!(hash(b"a key of more than eight bytes"), 0xCD40_68A9_9E79_F4C6);
        assert_ne!(hash(b"\0"), hash(b""));
    }

    #[test]
    fn refuses_what_is_no_filter() {
        let check = |stored: &[u8]| {
            let stored = Bytes::copy_from_slice(stored);
            for offset in [0, 56] {
                assert!(Filter::parse(&stored, Version::Two, offset).is_err(), "{stored:?}");
            }
        };
        check(&[]);
        check(&[6, 0, 0, 0, 1, 0, 0, 0]);
        check(&[0; 72]);
        let mut too_many_probes = built(&hashes(0..1), 10, 56);
        assert_eq!(too_many_probes.len(), 72);
        too_many_probes[0] = 17;
        check(&too_many_probes);
        let mut no_zeros = built(&hashes(0..1), 10, 0);
        assert_eq!(no_zeros.len(), 128);
        no_zeros[8] = 1;
        check(&no_zeros);
    }
}
