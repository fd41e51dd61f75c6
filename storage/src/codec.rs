//! How numbers and byte strings are laid out in files: little-endian integers of fixed width,
//! bounded variable-length integers, and slices that carry their length.
//!
//! Reading never panics, never allocates, and never trusts a length: [`Reader`] answers
//! [`Malformed`], and the caller, who knows the file and the offset, makes it
//! [`Error::Corrupt`].

use std::path::Path;

use crate::error::Error;

/// The most bytes that a varint takes.
pub const VARINT_BYTES_MAX: usize = 10;

/// The bytes are not what the format says; the text says what was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

impl Malformed {
    /// The same, told of a place in a file. For `map_err`.
    pub fn at(file: &Path, offset: u64) -> impl FnOnce(Self) -> Error {
        move |malformed| Error::corrupt(file, offset, malformed.0)
    }
}

/// Appends an unsigned integer in 1 to 10 bytes, 7 bits a byte, lowest first; the high bit says
/// that more follow.
#[inline]
pub fn put_varint(buffer: &mut Vec<u8>, value: u64) {
    // Lengths and kinds mostly: one byte, and no loop around a buffer that may have to grow.
    if value < 0x80 {
        buffer.push(value.to_le_bytes()[0]);
    } else {
        put_long_varint(buffer, value);
    }
}

/// One of several bytes. A word is copied at once, whatever part of it counts.
fn put_long_varint(buffer: &mut Vec<u8>, value: u64) {
    let end = buffer.len() + varint_bytes(value);
    match varint_word(value) {
        Some(word) => {
            buffer.extend_from_slice(&word.to_le_bytes());
            buffer.truncate(end);
        }
        None => {
            let (bytes, count) = varint(value);
            buffer.extend_from_slice(&bytes[..count]);
        }
    }
}

/// A varint of up to eight bytes, the first one lowest.
fn varint_word(value: u64) -> Option<u64> {
    const MORE: u64 = u64::from_ne_bytes([0x80; 8]);
    if value >> 56 != 0 {
        return None;
    }
    // Seven bits to each byte: by halves, then by quarters, then by bytes.
    let halves = (value & 0x0fff_ffff) | (value >> 28) << 32;
    let quarters = (halves & 0x0000_3fff_0000_3fff) | (halves & 0x0fff_c000_0fff_c000) << 2;
    let bytes = (quarters & 0x007f_007f_007f_007f) | (quarters & 0x3f80_3f80_3f80_3f80) << 1;
    let last = 8 * (varint_bytes(value) - 1);
    Some(bytes | MORE & ((1 << last) - 1))
}

/// Any varint, and how many of these bytes it takes.
fn varint(mut value: u64) -> ([u8; VARINT_BYTES_MAX], usize) {
    let (mut bytes, mut count) = ([0; VARINT_BYTES_MAX], 0);
    while value >= 0x80 {
        bytes[count] = value.to_le_bytes()[0] | 0x80;
        value >>= 7;
        count += 1;
    }
    bytes[count] = value.to_le_bytes()[0];
    (bytes, count + 1)
}

/// How many bytes [`put_varint`] takes for `value`.
#[must_use]
#[inline]
pub fn varint_bytes(value: u64) -> usize {
    let bits = u64::BITS - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

/// Appends a length as a varint, and the bytes.
#[inline]
pub fn put_slice(buffer: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(buffer, bytes.len() as u64);
    buffer.extend_from_slice(bytes);
}

/// Appends four bytes, lowest first.
pub fn put_u32(buffer: &mut Vec<u8>, value: u32) {
    buffer.extend_from_slice(&value.to_le_bytes());
}

/// Appends eight bytes, lowest first.
pub fn put_u64(buffer: &mut Vec<u8>, value: u64) {
    buffer.extend_from_slice(&value.to_le_bytes());
}

/// The CRC-32C of bytes that live in `place`: a file's identity and the offset in it. Bytes that
/// were written elsewhere, or before the file was used again, do not match.
#[must_use]
pub fn checksum(place: Place, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(place.checksum(), bytes)
}

/// Continues a [`checksum`] with the bytes that follow.
#[must_use]
pub fn checksum_append(checksum: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(checksum, bytes)
}

/// Where checked bytes live, so that the right bytes in the wrong place are wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file's identity: a number that no other file of the store ever has.
    pub file: u64,
    /// The offset of the bytes in it.
    pub offset: u64,
}

impl Place {
    /// The checksum with which bytes in this place begin.
    #[must_use]
    pub fn checksum(self) -> u32 {
        let seed = crc32c::crc32c(&self.file.to_le_bytes());
        crc32c::crc32c_append(seed, &self.offset.to_le_bytes())
    }
}

/// Takes values off the front of a slice.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `bytes` from the front.
    #[inline]
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes are left.
    #[inline]
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What is left.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `count` bytes.
    #[inline]
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) =
            self.rest.split_at_checked(count).ok_or(Malformed("fewer bytes than announced"))?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next bytes, as an array.
    #[inline]
    pub fn array<const COUNT: usize>(&mut self) -> Result<[u8; COUNT], Malformed> {
        let (taken, rest) =
            self.rest.split_first_chunk::<COUNT>().ok_or(Malformed("fewer bytes than expected"))?;
        self.rest = rest;
        Ok(*taken)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes, lowest first.
    #[inline]
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Four bytes, lowest first.
    #[inline]
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes, lowest first.
    #[inline]
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A varint. Each number has one encoding: a longer one than [`put_varint`] makes is refused,
    /// as is one above 64 bits.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        match self.rest {
            [byte @ 0..0x80, rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    /// One of several bytes. Up to eight are looked at together if so many are there.
    #[inline]
    fn long_varint(&mut self) -> Result<u64, Malformed> {
        const MORE: u64 = u64::from_ne_bytes([0x80; 8]);
        let Some(&chunk) = self.rest.first_chunk::<8>() else { return self.any_varint() };
        let chunk = u64::from_le_bytes(chunk);
        let ends = !chunk & MORE;
        if ends == 0 {
            return self.any_varint();
        }
        let bits = ends.trailing_zeros() + 1;
        let bytes = bits as usize / 8;
        let taken = chunk & (u64::MAX >> (u64::BITS - bits)) & !MORE;
        if bytes > 1 && taken >> (bits - 8) == 0 {
            return Err(Malformed("a varint longer than it need be"));
        }
        // Closes the gaps where the high bits were: between bytes, between pairs, between fours.
        let pairs = (taken & 0x007f_007f_007f_007f) | ((taken & 0x7f00_7f00_7f00_7f00) >> 1);
        let fours = (pairs & 0x0000_3fff_0000_3fff) | ((pairs & 0x3fff_0000_3fff_0000) >> 2);
        self.rest = &self.rest[bytes..];
        Ok((fours & 0x0fff_ffff) | ((fours & 0x0fff_ffff_0000_0000) >> 4))
    }

    #[cold]
    fn any_varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0_u64;
        for index in 0..VARINT_BYTES_MAX {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if index == VARINT_BYTES_MAX - 1 && bits > 1 {
                return Err(Malformed("a varint above 64 bits"));
            }
            value |= bits << (7 * index);
            if byte & 0x80 == 0 {
                if byte == 0 && index > 0 {
                    return Err(Malformed("a varint longer than it need be"));
                }
                return Ok(value);
            }
        }
        Err(Malformed("a varint without end"))
    }

    /// A length of at most `max`, as a varint.
    #[inline]
    pub fn length(&mut self, max: usize) -> Result<usize, Malformed> {
        let length = usize::try_from(self.varint()?).map_err(|_| Malformed("a length too big"))?;
        if length > max {
            return Err(Malformed("a length above the limit"));
        }
        Ok(length)
    }

    /// A slice of at most `max` bytes, written by [`put_slice`].
    pub fn slice(&mut self, max: usize) -> Result<&'a [u8], Malformed> {
        let length = self.length(max)?;
        self.bytes(length)
    }

    /// Fails unless everything has been read.
    pub fn finish(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed("bytes after the end")) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn varints_at_the_edges() {
        let check = |value: u64, bytes: usize| {
            let mut buffer = Vec::new();
            put_varint(&mut buffer, value);
            assert_eq!(buffer.len(), bytes, "{value}");
            assert_eq!(varint_bytes(value), bytes, "{value}");
            let mut reader = Reader::new(&buffer);
            assert_eq!(reader.varint(), Ok(value));
            assert_eq!(reader.finish(), Ok(()));
        };
        check(0, 1);
        check(0x7f, 1);
        check(0x80, 2);
        check(0x3fff, 2);
        check(0x4000, 3);
        check(0x0fff_ffff, 4);
        check(0x1000_0000, 5);
        check((1 << 49) - 1, 7);
        check(0x0055_5555_5555_5555, 8);
        check((1 << 56) - 1, 8);
        check(1 << 56, 9);
        check(u64::from(u32::MAX), 5);
        check(u64::MAX >> 1, 9);
        check(u64::MAX, 10);
    }

    #[test]
    fn hostile_varints_are_refused() {
        let check = |bytes: &[u8], expected: Malformed| {
            assert_eq!(Reader::new(bytes).varint(), Err(expected), "{bytes:?}");
        };
        check(&[], Malformed("fewer bytes than expected"));
        check(&[0x80], Malformed("fewer bytes than expected"));
        check(&[0x80, 0x00], Malformed("a varint longer than it need be"));
        check(&[0xff; 10], Malformed("a varint above 64 bits"));
        check(&[0x80; 11], Malformed("a varint without end"));
        let mut above = [0xff; 10];
        above[9] = 2;
        check(&above, Malformed("a varint above 64 bits"));
    }

    #[test]
    fn a_slice_that_lies_about_its_length_is_refused() {
        let mut buffer = Vec::new();
        put_slice(&mut buffer, b"key");
        assert_eq!(Reader::new(&buffer).slice(3), Ok(&b"key"[..]));
        assert_eq!(Reader::new(&buffer).slice(2), Err(Malformed("a length above the limit")));
        assert_eq!(
            Reader::new(&buffer[..3]).slice(3),
            Err(Malformed("fewer bytes than announced"))
        );
    }

    #[test]
    fn the_same_bytes_elsewhere_have_another_checksum() {
        let here = checksum(Place { file: 1, offset: 0 }, b"bytes");
        assert_ne!(here, checksum(Place { file: 2, offset: 0 }, b"bytes"));
        assert_ne!(here, checksum(Place { file: 1, offset: 8 }, b"bytes"));
        let begun = checksum(Place { file: 1, offset: 0 }, b"by");
        assert_eq!(here, checksum_append(begun, b"tes"));
    }

    proptest! {
        #[test]
        fn what_was_put_is_read(numbers: Vec<u64>, slices: Vec<Vec<u8>>) {
            let mut buffer = Vec::new();
            for number in &numbers {
                put_varint(&mut buffer, *number);
                put_u64(&mut buffer, *number);
            }
            for slice in &slices {
                put_slice(&mut buffer, slice);
            }
            let mut reader = Reader::new(&buffer);
            for number in &numbers {
                prop_assert_eq!(reader.varint(), Ok(*number));
                prop_assert_eq!(reader.u64(), Ok(*number));
            }
            for slice in &slices {
                prop_assert_eq!(reader.slice(usize::MAX), Ok(slice.as_slice()));
            }
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        #[test]
        fn many_bytes_at_once_say_what_they_say_one_by_one(
            bytes in proptest::collection::vec(prop_oneof![0u8..2, 0x7eu8..0x82, 0u8..], 0..12),
        ) {
            let (mut together, mut one_by_one) = (Reader::new(&bytes), Reader::new(&bytes));
            let read = together.varint();
            prop_assert_eq!(read, one_by_one.any_varint());
            if read.is_ok() {
                prop_assert_eq!(together.remaining(), one_by_one.remaining());
            }
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            while !reader.is_empty() {
                if reader.clone().slice(64).is_ok() {
                    let slice = reader.slice(64).unwrap();
                    prop_assert!(slice.len() <= 64);
                } else if reader.varint().is_err() {
                    break;
                }
            }
        }
    }
}
