//! The frame: what the log writes, checks and believes as a whole.
//!
//! ```text
//!  0        4        8                 16       20       24                32                40
//!  ┌────────┬────────┬─────────────────┬────────┬────────┬─────────────────┬─────────────────┐
//!  │ header │payload │ identity of the │payload │records │ position of the │ durable before  │
//!  │  sum   │  sum   │      file       │ bytes  │        │  first record   │   this frame    │
//!  └────────┴────────┴─────────────────┴────────┴────────┴─────────────────┴─────────────────┘
//!  then the payload: per record   kind: 1 byte │ length: varint │ that many bytes
//!  then zeros, up to the alignment of the file's frames
//! ```
//!
//! Both checksums begin with the file's identity and the frame's offset, so a frame is valid only
//! where and when it was written. The header has a checksum of its own because a later frame
//! bears witness even when its payload never reached the disk: its *durable before* says that
//! everything up to there had been synced when it was written.

use bytes::Bytes;

use super::buffer::Buffer;
use super::file::NUMBER_MAX;
use crate::codec::{self, Malformed, Place, Reader};

/// The size of a frame's header.
pub(super) const FRAME_HEADER_BYTES: usize = 40;

/// Where in the header the file's identity stands; what a search for frames looks for.
pub(super) const IDENTITY_AT: usize = 8;

/// Where in the header the position of the first record stands.
pub(super) const FIRST_AT: usize = 24;

/// The number of records that says: the log goes on in the next file. No frame has so many.
const SEAL: u32 = u32::MAX;

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub(super) payload_checksum: u32,
    pub(super) payload_bytes: u32,
    pub(super) records: u32,
    /// The position of the first record; of the one to come in a frame without records.
    pub(super) first: u64,
    /// The last position that was durable when the frame was written.
    pub(super) durable_before: u64,
}

impl FrameHeader {
    /// Reads a header that stands at `place`; none if it was not written there, or by no log.
    pub(super) fn decode(bytes: &[u8; FRAME_HEADER_BYTES], place: Place) -> Option<Self> {
        Self::parse(bytes, place).ok().flatten()
    }

    fn parse(bytes: &[u8; FRAME_HEADER_BYTES], place: Place) -> Result<Option<Self>, Malformed> {
        let mut reader = Reader::new(bytes);
        let checksum = reader.u32()?;
        if checksum != codec::checksum(place, reader.rest()) {
            return Ok(None);
        }
        let payload_checksum = reader.u32()?;
        let identity = reader.u64()?;
        let header = Self {
            payload_checksum,
            payload_bytes: reader.u32()?,
            records: reader.u32()?,
            first: reader.u64()?,
            durable_before: reader.u64()?,
        };
        Ok((identity == place.file && header.first <= NUMBER_MAX).then_some(header))
    }

    /// Puts the header in front of its payload: `frame` is both, with the header's room left free.
    fn encode(self, frame: &mut [u8], place: Place) {
        frame[4..8].copy_from_slice(&self.payload_checksum.to_le_bytes());
        frame[8..16].copy_from_slice(&place.file.to_le_bytes());
        frame[16..20].copy_from_slice(&self.payload_bytes.to_le_bytes());
        frame[20..24].copy_from_slice(&self.records.to_le_bytes());
        frame[24..32].copy_from_slice(&self.first.to_le_bytes());
        frame[32..40].copy_from_slice(&self.durable_before.to_le_bytes());
        let checksum = codec::checksum(place, &frame[4..FRAME_HEADER_BYTES]);
        frame[0..4].copy_from_slice(&checksum.to_le_bytes());
    }

    /// How many bytes the frame takes, header and all.
    pub(super) fn frame_bytes(self) -> u64 {
        FRAME_HEADER_BYTES as u64 + u64::from(self.payload_bytes)
    }

    /// Whether it is a seal: the last frame of a file that another one follows.
    pub(super) fn is_seal(self) -> bool {
        self.records == SEAL
    }

    /// The position after the frame's last record.
    pub(super) fn next(self) -> u64 {
        let records = if self.is_seal() { 0 } else { self.records };
        self.first.saturating_add(u64::from(records))
    }
}

/// A frame that is being filled: room for the header, then records.
#[derive(Debug)]
pub(super) struct Group {
    /// The header's room and the payload; once it is a frame, the zeros behind them as well.
    buffer: Buffer,
    /// Where the payload ends.
    end: usize,
    first: u64,
    records: u32,
}

impl Group {
    /// An empty frame whose first record will have the position `first`, in a buffer to be reused.
    pub(super) fn new(first: u64, mut buffer: Buffer) -> Self {
        buffer.clear();
        buffer.resize(FRAME_HEADER_BYTES);
        Self { buffer, end: FRAME_HEADER_BYTES, first, records: 0 }
    }

    /// The frame that ends a file when the next one is there; it would hold `next` as well.
    pub(super) fn seal(next: u64) -> Self {
        Self { records: SEAL, ..Self::new(next, Buffer::default()) }
    }

    /// Adds a record made of `parts`.
    pub(super) fn push(&mut self, kind: u8, parts: &[&[u8]]) {
        // Once it was a frame, zeros stand behind the records.
        self.buffer.truncate(self.end);
        self.buffer.put_record(kind, parts);
        self.end = self.buffer.len();
        self.records += 1;
    }

    /// Gives a group that was made beforehand the position of its first record.
    pub(super) fn begin_at(&mut self, first: u64) {
        self.first = first;
    }

    /// The size of the frame so far, without the zeros behind it.
    pub(super) fn bytes(&self) -> usize {
        self.end
    }

    /// The size of the records so far.
    pub(super) fn payload_bytes(&self) -> usize {
        self.end - FRAME_HEADER_BYTES
    }

    /// The position of the last record; of the one before in an empty group.
    pub(super) fn last(&self) -> u64 {
        self.first + u64::from(self.records) - 1
    }

    /// Completes the header for a frame at `place`, and answers the bytes to write there: the
    /// frame, and zeros behind it up to so many `bytes`.
    pub(super) fn frame(&mut self, place: Place, durable_before: u64, bytes: usize) -> &[u8] {
        self.buffer.resize(self.end);
        let payload = &self.buffer.bytes()[FRAME_HEADER_BYTES..];
        let header = FrameHeader {
            payload_checksum: codec::checksum(place, payload),
            payload_bytes: u32::try_from(payload.len()).expect(
                "groups are sealed at GROUP_BYTES and records limited to RECORD_BYTES_LIMIT",
            ),
            records: self.records,
            first: self.first,
            durable_before,
        };
        header.encode(self.buffer.bytes_mut(), place);
        self.buffer.resize(bytes.max(self.end));
        self.buffer.bytes()
    }

    /// Gives the buffer back.
    pub(super) fn into_buffer(self) -> Buffer {
        self.buffer
    }
}

/// The records of a frame, in order.
#[derive(Debug, Default)]
pub(super) struct Records {
    payload: Bytes,
    next: u64,
    left: u32,
}

impl Records {
    /// The records of a payload whose checksum was right.
    pub(super) fn new(header: FrameHeader, payload: Bytes) -> Self {
        Self { payload, next: header.first, left: header.records }
    }

    /// The position of the next record, whether or not it can be read.
    pub(super) fn next_position(&self) -> u64 {
        self.next
    }

    /// The next record as position, kind and payload; none after the last. Fails if the payload
    /// does not hold exactly the records that the header announced.
    pub(super) fn next(&mut self) -> Result<Option<(u64, u8, Bytes)>, Malformed> {
        if self.left == 0 {
            return if self.payload.is_empty() {
                Ok(None)
            } else {
                Err(Malformed("a frame with more bytes than records"))
            };
        }
        let mut reader = Reader::new(&self.payload);
        let kind = reader.u8()?;
        let record = reader.slice(self.payload.len())?;
        let (record, rest) =
            (self.payload.slice_ref(record), self.payload.slice_ref(reader.rest()));
        let position = self.next;
        self.payload = rest;
        self.left -= 1;
        self.next = self.next.saturating_add(1);
        Ok(Some((position, kind, record)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { file: 7, offset: 512 };

    fn sample() -> Vec<u8> {
        let mut used = Buffer::default();
        used.extend_from_slice(&[0xee; 100]);
        let mut group = Group::new(11, used);
        group.push(1, &[b"he", b"llo"]);
        group.push(2, &[]);
        assert_eq!((group.first, group.last()), (11, 12));
        let end = group.bytes();
        assert_eq!(group.frame(PLACE, 10, 128)[end..], vec![0; 128 - end]);
        group.frame(PLACE, 10, 0).to_vec()
    }

    fn decode(frame: &[u8], place: Place) -> Option<FrameHeader> {
        FrameHeader::decode(frame.first_chunk().unwrap(), place)
    }

    #[test]
    fn a_frame_is_read_as_written() {
        let frame = sample();
        let header = decode(&frame, PLACE).unwrap();
        assert_eq!((header.first, header.next(), header.durable_before), (11, 13, 10));
        assert_eq!(header.frame_bytes(), frame.len() as u64);
        let payload = Bytes::copy_from_slice(&frame[FRAME_HEADER_BYTES..]);
        assert_eq!(header.payload_checksum, codec::checksum(PLACE, &payload));
        let mut records = Records::new(header, payload);
        assert_eq!(records.next(), Ok(Some((11, 1, Bytes::from("hello")))));
        assert_eq!(records.next(), Ok(Some((12, 2, Bytes::new()))));
        assert_eq!(records.next(), Ok(None));
    }

    #[test]
    fn a_frame_elsewhere_is_none() {
        let frame = sample();
        assert_eq!(decode(&frame, Place { file: 8, ..PLACE }), None);
        assert_eq!(decode(&frame, Place { offset: 513, ..PLACE }), None);
    }

    #[test]
    fn every_bit_of_the_header_counts() {
        for bit in (0..FRAME_HEADER_BYTES * 8).step_by(crate::amount(1, 17)) {
            let mut frame = sample();
            frame[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&frame, PLACE), None, "bit {bit}");
        }
    }

    #[test]
    fn records_that_do_not_fill_their_frame_are_refused() {
        let check = |payload: &'static [u8], records: u32, expected: &'static str| {
            let header = FrameHeader {
                payload_checksum: 0,
                payload_bytes: 0,
                records,
                first: 1,
                durable_before: 0,
            };
            let mut records = Records::new(header, Bytes::from_static(payload));
            let malformed = loop {
                match records.next() {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("nothing wrong with {payload:?}"),
                    Err(malformed) => break malformed,
                }
            };
            assert_eq!(malformed, Malformed(expected));
        };
        check(b"", 1, "fewer bytes than expected");
        check(b"\x01", 1, "fewer bytes than expected");
        check(b"\x01\x02a", 1, "fewer bytes than announced");
        check(b"\x01\x04a", 1, "a length above the limit");
        check(b"\x01\x01a", 2, "fewer bytes than expected");
        check(b"\x01\x01ab", 1, "a frame with more bytes than records");
    }
}
