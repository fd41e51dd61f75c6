//! The manifest: which segments make up the tree, and what the flushed part of the log was.
//!
//! One small file, written anew as a whole for each change: a temporary file is written and synced,
//! renamed over the old one, and the directory synced. A crash leaves the old manifest or the new
//! one, never anything between, and a single checksum covers all of it. At a thousand segments it
//! is some sixty kilobytes, a small part of what the flush that changed it wrote.
//!
//! ```text
//! manifest   magic | version u32 | content bytes u32 | content | checksum u32
//! content    generation, next segment id, flushed mark, flushed position, last sequence: u64 each
//!            | number of segments u32 | segment... | in version 2: staged
//! segment    level u8 | id, bytes, entries, deletes, sequence max: u64 each | smallest | largest
//! staged     mark u64 | number of segments u32 | segment..., each without its level
//! ```

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use crate::codec::{Malformed, Place, Reader, checksum, put_u32, put_u64};
use crate::error::{Error, Result};
use crate::key::{SEQUENCE_STAGED, Sequence};
use crate::levels::LEVELS;
use crate::log::Position;
use crate::planted::{Bug, Planted};
use crate::segment::SegmentMeta;
use crate::vfs::{OpenMode, Vfs, VfsFile};

const MAGIC: [u8; 8] = *b"kvorummf";
const VERSION: u32 = 1;
/// That of a manifest with staged segments. Without any it is written as before, so that a program
/// that knows nothing of them can open the store.
const VERSION_STAGED: u32 = 2;
const HEAD_BYTES: usize = 16;
/// Bounds what a hostile file makes us allocate: millions of segments.
const CONTENT_BYTES_MAX: u64 = 1 << 30;
/// No store lives to see such a number.
const NUMBER_MAX: u64 = 3 << 61;
/// The manifest has no place of its own among the segments' ids, which begin with one.
const PLACE: Place = Place { file: 0, offset: 0 };

pub(crate) const NAME: &str = "MANIFEST";
pub(crate) const NAME_TEMPORARY: &str = "MANIFEST.new";

/// The state of a store but for what only the log has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// Rises by one with each change. At one the store was made, but its log may not be there yet.
    pub(crate) generation: u64,
    /// No segment ever had this id or a greater one.
    pub(crate) next_segment: u64,
    /// Every batch with this mark or a smaller one is in the segments.
    pub(crate) flushed_mark: u64,
    /// The segments stand on log records up to here, which were durable when they were written.
    pub(crate) flushed_position: Position,
    /// No entry of a segment has a greater sequence.
    pub(crate) last_sequence: Sequence,
    /// The segments, each with its level.
    pub(crate) segments: Vec<(usize, SegmentMeta)>,
    /// What waits to take the place of all segments.
    pub(crate) staged: Option<Staged>,
}

/// Rows that are durable and no part of the store yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Staged {
    /// The mark that they are the state at.
    pub(crate) mark: u64,
    /// By key; ranges disjoint. None at all is the empty store.
    pub(crate) segments: Vec<SegmentMeta>,
}

impl Staged {
    /// Two neighbours that are not one behind the other, if there are such.
    pub(crate) fn overlap(&self) -> Option<(u64, u64)> {
        let mut pairs = self.segments.windows(2);
        pairs.find(|pair| pair[0].largest >= pair[1].smallest).map(|pair| (pair[0].id, pair[1].id))
    }
}

impl Manifest {
    /// That of a new store.
    pub(crate) fn new() -> Manifest {
        Manifest { generation: 1, next_segment: 1, ..Manifest::default() }
    }

    /// The manifest in this directory; `None` if there is none.
    pub(crate) fn read(vfs: &dyn Vfs, dir: &Path) -> Result<Option<Manifest>> {
        let path = dir.join(NAME);
        let file = match vfs.open(&path, OpenMode::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("open", &path)(error)),
        };
        let bytes = read_all(&*file, &path)?;
        let manifest = Manifest::decode(&bytes, &path)?;
        Ok(Some(manifest))
    }

    /// Replaces the manifest in this directory, durably.
    ///
    /// After [`Error::DiskFull`] the old one is still there, and nothing else happened. After any
    /// other error it is unknown which of the two the next opening finds.
    pub(crate) fn write(&self, vfs: &dyn Vfs, dir: &Path, planted: Planted) -> Result<()> {
        let (temporary, path) = (dir.join(NAME_TEMPORARY), dir.join(NAME));
        remove_if_there(vfs, &temporary)?;
        let file =
            vfs.open(&temporary, OpenMode::Create).map_err(Error::io("create", &temporary))?;
        file.write_at(&self.encode(), 0).map_err(Error::io("write", &temporary))?;
        if !planted.has(Bug::ManifestNotSynced) {
            file.sync().map_err(Error::io("sync", &temporary))?;
        }
        vfs.rename(&temporary, &path).map_err(Error::io("rename", &temporary))?;
        if planted.has(Bug::ManifestDirectoryNotSynced) {
            return Ok(());
        }
        vfs.sync_dir(dir).map_err(|source| Error::Io {
            // Whatever the reason, the renaming happened: it may or may not last.
            doing: "sync",
            path: dir.to_path_buf(),
            source,
        })
    }

    fn encode(&self) -> Vec<u8> {
        let mut content = Vec::new();
        put_u64(&mut content, self.generation);
        put_u64(&mut content, self.next_segment);
        put_u64(&mut content, self.flushed_mark);
        put_u64(&mut content, self.flushed_position.0);
        put_u64(&mut content, self.last_sequence);
        put_u32(&mut content, self.segments.len() as u32);
        for (level, segment) in &self.segments {
            content.push(*level as u8);
            segment.encode(&mut content);
        }
        if let Some(staged) = &self.staged {
            put_u64(&mut content, staged.mark);
            put_u32(&mut content, staged.segments.len() as u32);
            staged.segments.iter().for_each(|segment| segment.encode(&mut content));
        }
        let mut bytes = MAGIC.to_vec();
        put_u32(&mut bytes, if self.staged.is_some() { VERSION_STAGED } else { VERSION });
        put_u32(&mut bytes, content.len() as u32);
        bytes.extend_from_slice(&content);
        let checksum = checksum(PLACE, &bytes);
        put_u32(&mut bytes, checksum);
        bytes
    }

    fn decode(bytes: &[u8], path: &Path) -> Result<Manifest> {
        let (checked, stored) = bytes
            .split_last_chunk::<4>()
            .filter(|(checked, _)| checked.len() >= HEAD_BYTES)
            .ok_or_else(|| Error::corrupt(path, 0, "too short for a manifest"))?;
        if checksum(PLACE, checked).to_le_bytes() != *stored {
            return Err(Error::corrupt(path, 0, "the manifest's checksum does not match"));
        }
        let mut reader = Reader::new(checked);
        let decoded = Manifest::decode_checked(&mut reader);
        let offset = (checked.len() - reader.remaining()) as u64;
        decoded.map_err(Malformed::at(path, offset))
    }

    fn decode_checked(reader: &mut Reader<'_>) -> Result<Manifest, Malformed> {
        if reader.array::<8>()? != MAGIC {
            return Err(Malformed("this is not a manifest"));
        }
        let version = reader.u32()?;
        if ![VERSION, VERSION_STAGED].contains(&version) {
            return Err(Malformed(
                "the store is of a version that this program does not know: a newer one may",
            ));
        }
        if reader.u32()? as usize != reader.remaining() {
            return Err(Malformed("the manifest is of another length than it says"));
        }
        let mut manifest = Manifest {
            generation: reader.u64()?,
            next_segment: reader.u64()?,
            flushed_mark: reader.u64()?,
            flushed_position: Position(reader.u64()?),
            last_sequence: reader.u64()?,
            segments: Vec::new(),
            staged: None,
        };
        if !manifest.can_be_counted_on_from() {
            return Err(Malformed("a number that no store comes to"));
        }
        for _ in 0..reader.u32()? {
            let level = usize::from(reader.u8()?);
            if level >= LEVELS {
                return Err(Malformed("a segment on a level that does not exist"));
            }
            let segment = SegmentMeta::decode(reader)?;
            if segment.id >= manifest.next_segment || segment.sequence_max > manifest.last_sequence
            {
                return Err(Malformed("a segment from after the manifest"));
            }
            manifest.segments.push((level, segment));
        }
        if version == VERSION_STAGED {
            manifest.staged = Some(manifest.decode_staged(reader)?);
        }
        if reader.is_empty() { Ok(manifest) } else { Err(Malformed("bytes after the end")) }
    }
}

impl Manifest {
    /// Of every segment that it names, staged ones included.
    pub(crate) fn ids(&self) -> impl Iterator<Item = u64> {
        let staged = self.staged.iter().flat_map(|staged| &staged.segments);
        self.segments.iter().map(|(_, segment)| segment).chain(staged).map(|segment| segment.id)
    }

    /// Whether no number in it is so great that counting on from it could overflow. Nobody counts on
    /// from an owner's mark, which may be any; an embedded store's is a position.
    fn can_be_counted_on_from(&self) -> bool {
        let numbers = [
            self.generation,
            self.next_segment,
            self.flushed_position.0,
            // An ingest counts in great steps, and stops at two thirds of this.
            self.last_sequence,
        ];
        numbers.iter().all(|number| *number < NUMBER_MAX)
    }

    fn decode_staged(&self, reader: &mut Reader<'_>) -> Result<Staged, Malformed> {
        let mut staged = Staged { mark: reader.u64()?, segments: Vec::new() };
        let mut ids: BTreeSet<u64> = self.segments.iter().map(|(_, segment)| segment.id).collect();
        for _ in 0..reader.u32()? {
            let segment = SegmentMeta::decode(reader)?;
            if segment.id >= self.next_segment || segment.sequence_max != SEQUENCE_STAGED {
                return Err(Malformed("a staged segment that was not written as one"));
            }
            if !ids.insert(segment.id) {
                return Err(Malformed("a staged segment that is named twice"));
            }
            staged.segments.push(segment);
        }
        match staged.overlap() {
            Some(_) => Err(Malformed("staged segments overlap")),
            None => Ok(staged),
        }
    }
}

fn read_all(file: &dyn VfsFile, path: &Path) -> Result<Vec<u8>> {
    let len = file.len().map_err(Error::io("read", path))?;
    if len > CONTENT_BYTES_MAX {
        return Err(Error::corrupt(path, 0, "too long for a manifest"));
    }
    let mut bytes = vec![0; len as usize];
    let read = file.read_at(&mut bytes, 0).map_err(Error::io("read", path))?;
    bytes.truncate(read);
    Ok(bytes)
}

fn remove_if_there(vfs: &dyn Vfs, path: &Path) -> Result<()> {
    match vfs.remove(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::vfs::MemoryVfs;

    fn example() -> Manifest {
        let segment = |id| SegmentMeta {
            id,
            bytes: 1000,
            entries: 10,
            deletes: 1,
            smallest: Bytes::from(format!("a{id}")),
            largest: Bytes::from(format!("b{id}")),
            sequence_max: 70 + id,
        };
        Manifest {
            generation: 3,
            next_segment: 9,
            flushed_mark: 55,
            flushed_position: Position(56),
            last_sequence: 80,
            segments: vec![(0, segment(7)), (1, segment(3))],
            staged: None,
        }
    }

    fn example_staged() -> Manifest {
        let segment = |id, smallest: &'static str, largest: &'static str| SegmentMeta {
            id,
            bytes: 1000,
            entries: 10,
            deletes: 0,
            smallest: Bytes::from_static(smallest.as_bytes()),
            largest: Bytes::from_static(largest.as_bytes()),
            sequence_max: SEQUENCE_STAGED,
        };
        let segments = vec![segment(4, "a", "f"), segment(5, "g", "z")];
        Manifest { staged: Some(Staged { mark: 77, segments }), ..example() }
    }

    #[test]
    fn what_was_written_is_read_and_replaced() {
        let (vfs, dir) = (MemoryVfs::new(), Path::new("/d"));
        vfs.create_dir_all(dir).unwrap();
        assert_eq!(Manifest::read(&vfs, dir).unwrap(), None);
        Manifest::new().write(&vfs, dir, Planted::default()).unwrap();
        assert_eq!(Manifest::read(&vfs, dir).unwrap(), Some(Manifest::new()));
        for manifest in [example(), example_staged()] {
            manifest.write(&vfs, dir, Planted::default()).unwrap();
            assert_eq!(Manifest::read(&vfs, dir).unwrap(), Some(manifest));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        for manifest in [example(), example_staged()] {
            check_damage(&manifest);
        }
    }

    fn check_damage(manifest: &Manifest) {
        let bytes = manifest.encode();
        let path = Path::new("MANIFEST");
        assert_eq!(Manifest::decode(&bytes, path).unwrap(), *manifest);
        for bit in (0..bytes.len() * 8).step_by(crate::amount(1, 13)) {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(Manifest::decode(&flipped, path), Err(Error::Corrupt { .. })));
        }
        for len in 0..bytes.len() {
            assert!(matches!(Manifest::decode(&bytes[..len], path), Err(Error::Corrupt { .. })));
        }
    }

    #[test]
    fn right_checksums_over_nonsense_are_refused() {
        let check = |change: fn(&mut Manifest)| {
            let mut manifest = example_staged();
            change(&mut manifest);
            assert!(Manifest::decode(&manifest.encode(), Path::new("MANIFEST")).is_err());
        };
        check(|manifest| manifest.next_segment = 7);
        check(|manifest| manifest.last_sequence = 71);
        // To count on from there would go beyond what a number holds.
        check(|manifest| manifest.last_sequence = u64::MAX);
        check(|manifest| manifest.next_segment = u64::MAX);
        check(|manifest| manifest.generation = u64::MAX);
        check(|manifest| manifest.flushed_position = Position(u64::MAX));
        check(|manifest| manifest.segments[0].0 = LEVELS);
        check(|manifest| manifest.segments[0].1.smallest = Bytes::from("c"));
        // Nor may sums of them.
        check(|manifest| manifest.segments[0].1.entries = u64::MAX);
        check(|manifest| manifest.segments[0].1.deletes = 11);
        let check_staged = |change: fn(&mut Staged)| {
            let mut manifest = example_staged();
            change(manifest.staged.as_mut().unwrap());
            assert!(Manifest::decode(&manifest.encode(), Path::new("MANIFEST")).is_err());
        };
        check_staged(|staged| staged.segments[0].id = 9);
        check_staged(|staged| staged.segments[0].id = 7);
        check_staged(|staged| staged.segments[0].id = 5);
        check_staged(|staged| staged.segments[0].sequence_max = 2);
        check_staged(|staged| staged.segments[0].largest = Bytes::from("g"));
        check_staged(|staged| staged.segments.swap(0, 1));
    }
}
