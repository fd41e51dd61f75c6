//! Where checksums stand in files, as `docs/storage-format.md` draws them: to be set right again
//! after a change. What cannot be found is left alone; then the change is refused, as it should be.

use std::path::Path;

use kvorum_storage::codec::{Malformed, Place, Reader, checksum, checksum_append};

/// A checksum and what it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sum {
    seed: Seed,
    from: usize,
    to: usize,
    /// Where it stands.
    pub(super) at: usize,
}

/// What a checksum begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seed {
    Nothing,
    Place(u64, u64),
    /// A log file's header: its number, and the version that stands in it.
    LogFile(u64),
}

impl Sum {
    /// Sets it right.
    pub(super) fn mend(&self, bytes: &mut [u8]) {
        let (Some(covered), true) = (bytes.get(self.from..self.to), self.at + 4 <= bytes.len())
        else {
            return;
        };
        let sum = match self.seed {
            Seed::Nothing => checksum_append(0, covered),
            Seed::Place(file, offset) => checksum(Place { file, offset }, covered),
            Seed::LogFile(number) => {
                let version = u64::from(u32_at(bytes, 8).unwrap_or_default());
                checksum(Place { file: number, offset: version }, covered)
            }
        };
        bytes[self.at..self.at + 4].copy_from_slice(&sum.to_le_bytes());
    }

    fn is_right(&self, bytes: &[u8]) -> bool {
        let mut mended = bytes.to_vec();
        self.mend(&mut mended);
        mended == bytes
    }
}

/// All checksums of a file, inner ones first.
pub(super) fn of(name: &Path, bytes: &[u8]) -> Vec<Sum> {
    let stem = name.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let sums = match name.extension().and_then(|end| end.to_str()) {
        Some("segment") => u64::from_str_radix(stem, 16).ok().and_then(|id| segment(id, bytes)),
        Some("log") => stem.parse().ok().and_then(|number| log(number, bytes)),
        _ if stem == "MANIFEST" => Some(whole(bytes, Seed::Place(0, 0))),
        _ => Some(whole(bytes, Seed::Nothing)),
    };
    sums.unwrap_or_default()
}

fn whole(bytes: &[u8], seed: Seed) -> Vec<Sum> {
    let end = bytes.len().saturating_sub(4);
    vec![Sum { seed, from: 0, to: end, at: end }]
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A block of a segment: so many bytes of payload and one for its kind, then the checksum.
fn block(id: u64, offset: u64, length: usize) -> Option<Sum> {
    let from = usize::try_from(offset).ok()?;
    let to = from.checked_add(length)? + 1;
    Some(Sum { seed: Seed::Place(id, offset), from, to, at: to })
}

fn segment(id: u64, bytes: &[u8]) -> Option<Vec<Sum>> {
    let footer = bytes.len().checked_sub(64)?;
    let mut sums = Vec::new();
    let mut index = &bytes[..0];
    for handle in [24, 36, 48] {
        let (offset, length) =
            (u64_at(bytes, footer + handle)?, u32_at(bytes, footer + handle + 8)?);
        let sum = block(id, offset, length as usize)?;
        index = bytes.get(sum.from..sum.from + length as usize)?;
        sums.push(sum);
    }
    let mut offset = 0;
    for length in lengths(index).ok()? {
        let sum = block(id, offset, length)?;
        offset = sum.at as u64 + 4;
        sums.push(sum);
    }
    let end = bytes.len() - 4;
    sums.push(Sum { seed: Seed::Place(id, footer as u64), from: footer, to: end, at: end });
    Some(sums)
}

/// What an index says of the payloads of blocks, which lie one behind the other.
fn lengths(index: &[u8]) -> Result<Vec<usize>, Malformed> {
    let mut reader = Reader::new(index);
    let blocks = reader.u32()?;
    reader.slice(1 << 20)?;
    let mut lengths = Vec::new();
    for number in 0..blocks {
        if number > 0 {
            reader.slice(1 << 20)?;
            reader.varint()?;
        }
        lengths.push(reader.length(1 << 30)?);
    }
    Ok(lengths)
}

fn log(number: u64, bytes: &[u8]) -> Option<Vec<Sum>> {
    let mut sums = vec![Sum { seed: Seed::LogFile(number), from: 16, to: 512, at: 12 }];
    let (version, identity) = (u32_at(bytes, 8)?, u64_at(bytes, 24)?);
    // Frames of version 3 stand at multiples of what the file says.
    let alignment = if version < 3 { 1 } else { u64_at(bytes, 56)?.max(1) as usize };
    let mut at = 512.max(alignment);
    while let Some(length) = u32_at(bytes, at + 16) {
        let seed = Seed::Place(identity, at as u64);
        let header = Sum { seed, from: at + 4, to: at + 40, at };
        if at + 40 > bytes.len() || !header.is_right(bytes) {
            break;
        }
        let end = at + 40 + length as usize;
        sums.push(Sum { seed, from: at + 40, to: end, at: at + 4 });
        sums.push(header);
        at = end.next_multiple_of(alignment);
    }
    Some(sums)
}

#[cfg(test)]
mod tests {
    use super::super::corpus::stores;

    #[test]
    fn every_checksum_of_real_files_is_found_and_right() {
        let mut found = 0;
        for entry in stores() {
            for ((name, bytes), sums) in entry.archive.files.iter().zip(&entry.sums) {
                let is_free = name.extension().is_some_and(|end| end == "free" || end == "new");
                assert!(is_free || !sums.is_empty(), "{}", name.display());
                for sum in sums.iter().filter(|_| !is_free) {
                    assert!(sum.is_right(bytes), "{} {sum:?}", name.display());
                    found += 1;
                }
            }
        }
        assert!(found > 200, "{found}");
    }
}
