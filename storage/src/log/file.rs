//! A log file: its names, and the block at its front that says whose frames it holds.
//!
//! ```text
//!  0         8         12        16        24        32        40        48         56        64    512
//!  ┌─────────┬─────────┬─────────┬─────────┬─────────┬─────────┬─────────┬──────────┬─────────┬───────┐
//!  │KVORUMLG │ version │checksum │ number  │identity │ first   │recycled │ capacity │alignment│ zeros │
//!  └─────────┴─────────┴─────────┴─────────┴─────────┴─────────┴─────────┴──────────┴─────────┴───────┘
//!  then frames, from byte 512 on, each at a multiple of the alignment
//! ```
//!
//! | name | what it is |
//! |---|---|
//! | `NUMBER.log` | a live file; it gets this name only after its header is durable |
//! | `NUMBER.new` | a file being made; whatever is in it does not count |
//! | `NUMBER.free` | a former log file, kept to be used again; its content does not count |
//!
//! So a `.log` file with a damaged header is corrupt, never merely unfinished.

use std::path::{Path, PathBuf};

use crate::codec::{self, Malformed, Place, Reader};
use crate::error::{Error, Result};
use crate::vfs::{OpenMode, Vfs};

/// The header fills a sector of its own, so that no later write can tear it.
pub(super) const FILE_HEADER_BYTES: usize = 512;

const MAGIC: [u8; 8] = *b"KVORUMLG";
const VERSION: u32 = 3;

/// The version before: its frames stand one behind the other without gaps.
const VERSION_WITHOUT_ALIGNMENT: u32 = 2;

/// The first version: its files neither know their capacity nor are sealed.
const VERSION_WITHOUT_CAPACITY: u32 = 1;

const CHECKED_FROM: usize = 16;

/// The greatest alignment of frames.
pub(super) const ALIGNMENT_MAX: usize = 4096;

/// No log lives to see such a number; below it, adding never overflows.
pub(super) const NUMBER_MAX: u64 = 1 << 62;

/// What a log file is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Live(u64),
    New(u64),
    Free(u64),
}

impl Name {
    /// Reads a name; none if it is not one of ours.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (digits, role) = name.split_once('.')?;
        let number = digits.parse().ok()?;
        let parsed = match role {
            "log" => Self::Live(number),
            "new" => Self::New(number),
            "free" => Self::Free(number),
            _ => return None,
        };
        // "+1.log" and "1.log" parse too, and are not ours.
        (parsed.to_string() == name).then_some(parsed)
    }

    pub(super) fn path(self, dir: &Path) -> PathBuf {
        dir.join(self.to_string())
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (number, role) = match self {
            Self::Live(number) => (number, "log"),
            Self::New(number) => (number, "new"),
            Self::Free(number) => (number, "free"),
        };
        // Twenty digits hold every number, and names sort as numbers do.
        write!(f, "{number:020}.{role}")
    }
}

/// The header of a log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileHeader {
    pub(super) number: u64,
    /// Stands in every frame of the file and in no other file.
    pub(super) identity: u64,
    /// The position of the first record.
    pub(super) first: u64,
    /// Whether old bytes may follow the last frame; otherwise zeros do.
    pub(super) recycled: bool,
    /// The file is at least so long: space for that much was reserved before the file counted. A
    /// shorter one was cut by somebody else. 0 in files of a version that did not know.
    pub(super) capacity: u64,
    /// Frames begin at multiples of it, so that they can be written past the system's cache. 0 in
    /// files of a version that did not know, where it is as good as 1.
    pub(super) alignment: u64,
}

impl FileHeader {
    /// What is known before there is a file: the rest is for whoever makes it.
    pub(super) fn new(number: u64, salt: u64, first: u64) -> Self {
        let identity = identity(number, salt);
        Self { number, identity, first, recycled: false, capacity: 0, alignment: 0 }
    }

    fn version(self) -> u32 {
        match self {
            Self { capacity: 0, .. } => VERSION_WITHOUT_CAPACITY,
            Self { alignment: 0, .. } => VERSION_WITHOUT_ALIGNMENT,
            Self { .. } => VERSION,
        }
    }

    /// Where the first frame stands.
    pub(super) fn frames_at(self) -> u64 {
        self.span(FILE_HEADER_BYTES as u64)
    }

    /// How many bytes a frame of so many takes, with the zeros behind it.
    pub(super) fn span(self, frame_bytes: u64) -> u64 {
        frame_bytes.next_multiple_of(self.alignment.max(1))
    }

    pub(super) fn encode(self) -> Vec<u8> {
        let version = self.version();
        let mut bytes = Vec::with_capacity(FILE_HEADER_BYTES);
        bytes.extend_from_slice(&MAGIC);
        codec::put_u32(&mut bytes, version);
        codec::put_u32(&mut bytes, 0);
        codec::put_u64(&mut bytes, self.number);
        codec::put_u64(&mut bytes, self.identity);
        codec::put_u64(&mut bytes, self.first);
        codec::put_u64(&mut bytes, u64::from(self.recycled));
        codec::put_u64(&mut bytes, self.capacity);
        codec::put_u64(&mut bytes, self.alignment);
        bytes.resize(FILE_HEADER_BYTES, 0);
        let checksum = header_checksum(self.number, version, &bytes[CHECKED_FROM..]);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn decode(number: u64, bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.array()? != MAGIC {
            return Err(Malformed("not a log file"));
        }
        let version = reader.u32()?;
        if !(VERSION_WITHOUT_CAPACITY..=VERSION).contains(&version) {
            return Err(Malformed(
                "a log file of a version that this program does not know: a newer one may",
            ));
        }
        let checksum = reader.u32()?;
        if checksum != header_checksum(number, version, reader.rest()) {
            return Err(Malformed("the checksum of the file's header does not match"));
        }
        let stored = reader.u64()?;
        let header = Self {
            number: stored,
            identity: reader.u64()?,
            first: reader.u64()?,
            recycled: reader.u64()? != 0,
            capacity: if version == VERSION_WITHOUT_CAPACITY { 0 } else { reader.u64()? },
            alignment: if version == VERSION { reader.u64()? } else { 0 },
        };
        if header.number != number {
            return Err(Malformed("the file's header is another file's"));
        }
        if header.number > NUMBER_MAX || !(1..=NUMBER_MAX).contains(&header.first) {
            return Err(Malformed("a number that no log comes to"));
        }
        let is_aligned = alignments().any(|known| known == header.alignment)
            && header.capacity.is_multiple_of(header.alignment.max(1));
        if header.version() != version || !is_aligned {
            return Err(Malformed("a capacity or an alignment that no log file has"));
        }
        Ok(header)
    }

    /// The header of which `damaged` is left, if the first frame's word on identity and position,
    /// and the file's length, can be proven by it: either the checksum that still stands there is
    /// that of the header so made, or all but the checksum is. What hit both leaves nothing to go by.
    pub(super) fn prove(
        number: u64,
        damaged: &[u8],
        identity: u64,
        first: u64,
        file_bytes: u64,
    ) -> Option<Self> {
        let sums = 12..CHECKED_FROM;
        let aligned = |alignment: u64| (file_bytes - file_bytes % alignment.max(1), alignment);
        let sizes = [(0, 0)].into_iter().chain(alignments().map(aligned));
        let candidates = sizes.flat_map(|size| [(size, false), (size, true)]);
        candidates.into_iter().find_map(|((capacity, alignment), recycled)| {
            let header = Self { number, identity, first, recycled, capacity, alignment };
            let whole = header.encode();
            let same =
                |range: std::ops::Range<usize>| damaged.get(range.clone()) == whole.get(range);
            let rest = same(0..sums.start) && same(sums.end..FILE_HEADER_BYTES);
            (same(sums.clone()) || rest).then_some(header)
        })
    }

    /// Reads the header of the live file `number`, which must be as long as it says.
    pub(super) fn read(vfs: &dyn Vfs, dir: &Path, number: u64) -> Result<Self> {
        let (header, len) = Self::read_with_length(vfs, dir, number)?;
        if len < header.capacity {
            return Err(header.cut(dir, len));
        }
        Ok(header)
    }

    /// Reads the header of the live file `number`, and how long the file is.
    pub(super) fn read_with_length(vfs: &dyn Vfs, dir: &Path, number: u64) -> Result<(Self, u64)> {
        let path = Name::Live(number).path(dir);
        let file = vfs.open(&path, OpenMode::Read).map_err(Error::io("open", &path))?;
        let mut bytes = [0; FILE_HEADER_BYTES];
        let count = file.read_at(&mut bytes, 0).map_err(Error::io("read", &path))?;
        let header = if count < FILE_HEADER_BYTES {
            Err(Malformed("shorter than its header"))
        } else {
            Self::decode(number, &bytes)
        };
        let header = header.map_err(Malformed::at(&path, 0))?;
        let len = file.len().map_err(Error::io("read the length of", &path))?;
        Ok((header, len))
    }

    /// The error for a file that has become shorter than it ever was.
    pub(super) fn cut(self, dir: &Path, len: u64) -> Error {
        let what = format!("the file ends here, and had {} bytes", self.capacity);
        Error::corrupt(&Name::Live(self.number).path(dir), len, what)
    }
}

/// What the alignment in a header can be: none, or a power of two.
pub(super) fn alignments() -> impl Iterator<Item = u64> {
    let powers = std::iter::successors(Some(1), |power| Some(power * 2));
    [0].into_iter().chain(powers.take_while(|power| *power <= ALIGNMENT_MAX as u64))
}

/// Begins with the number that the name says, so that a file under another's name does not match.
fn header_checksum(number: u64, version: u32, bytes: &[u8]) -> u32 {
    codec::checksum(Place { file: number, offset: u64::from(version) }, bytes)
}

/// Spreads number and salt over 64 bits, one to one for a given salt: SplitMix64's finish.
fn identity(number: u64, salt: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_written() {
        for name in [Name::Live(1), Name::New(u64::MAX), Name::Free(42)] {
            assert_eq!(Name::parse(&name.to_string()), Some(name));
        }
        for foreign in ["", "log", "1.log", "+0000000000000000001.log", "LOCK", "manifest.new"] {
            assert_eq!(Name::parse(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn every_bit_of_the_header_counts() {
        let header = FileHeader { recycled: true, capacity: 4096, ..FileHeader::new(3, 99, 17) };
        let header = FileHeader { alignment: 512, ..header };
        let bytes = header.encode();
        assert_eq!(bytes.len(), FILE_HEADER_BYTES);
        assert_eq!(FileHeader::decode(3, &bytes), Ok(header));
        assert!(FileHeader::decode(4, &bytes).is_err());
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(FileHeader::decode(3, &damaged).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(FileHeader::decode(3, &bytes[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn a_file_that_could_not_be_filled_by_aligned_writes_is_refused() {
        let header = FileHeader { alignment: 512, ..FileHeader::new(3, 99, 17) };
        for (capacity, is_right) in [(4096, true), (4095, false), (u64::MAX, false)] {
            let header = FileHeader { capacity, ..header };
            assert_eq!(FileHeader::decode(3, &header.encode()).is_ok(), is_right, "{capacity}");
        }
        let without_alignment = FileHeader { capacity: 4095, alignment: 0, ..header };
        assert!(FileHeader::decode(3, &without_alignment.encode()).is_ok());
    }

    #[test]
    fn identities_differ_by_number_and_by_salt() {
        let mut seen = std::collections::BTreeSet::new();
        for number in 0..100 {
            for salt in 0..100 {
                assert!(seen.insert(identity(number, salt)), "{number} {salt}");
            }
        }
    }
}
